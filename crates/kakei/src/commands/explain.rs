//! `kakei explain`: where a client's datagram goes; live, or by a document.

use kakei::control;
use serde_json::Value;

use super::document::Source;
use crate::cli::{Explain, Format};
use crate::client::{Client, escape};
use crate::say::{self, Failure};
use crate::table::{self, Column};

const ROUTES: &[Column] =
    &[("ROUTE", "route"), ("SOURCE", "source"), ("CLUSTER", "cluster"), ("MATCHES", "matches"), ("WHY", "why")];
const BACKENDS: &[Column] =
    &[("BACKEND", "name"), ("ADDRESS", "address"), ("WEIGHT", "weight"), ("TAKES IT", "eligible"), ("WHY", "why")];

pub(super) fn explain(explain: &Explain) -> Result<(), Failure> {
    let answer = match &explain.config {
        Some(file) => {
            let document = Source::read(file)?.document()?;
            let explanation = control::explain::document(&document, explain.target, explain.client);
            serde_json::to_value(explanation).map_err(Failure::refused)?
        }
        None => {
            let (local, client) = (explain.target.to_string(), explain.client.to_string());
            let path = format!("/v1/explain?protocol=udp&local={}&client={}", escape(&local), escape(&client));
            Client::new(&explain.ask.door.socket).get(path)?
        }
    };
    match explain.ask.output.output {
        Format::Json => say::out(&format!("{answer}\n")),
        Format::Table => say::out(&drawn(&answer)),
    }
    Ok(())
}

fn drawn(answer: &Value) -> String {
    let mut page = format!("{}\n", table::text(&answer["verdict"]));
    let known = [("listener", "listener"), ("cluster", "cluster"), ("balance", "balance"), ("affinity", "affinity")];
    for (word, key) in known.iter().filter(|(_, key)| !answer[*key].is_null()) {
        page.push_str(&format!("  {word}: {}\n", table::text(&answer[*key])));
    }
    for (columns, key) in [(ROUTES, "considered"), (BACKENDS, "backends")] {
        if let Some(rows) = answer[key].as_array().filter(|rows| !rows.is_empty()) {
            page.push('\n');
            page.push_str(&table::render(columns, rows));
        }
    }
    page
}
