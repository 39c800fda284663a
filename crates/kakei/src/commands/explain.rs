//! `kakei explain`: where a client's datagram or connection goes; live, or by a document.

use kakei::config::Protocol;
use kakei::control;
use serde_json::Value;

use super::document::Source;
use crate::cli::{Explain, Format};
use crate::client::{Client, escape};
use crate::say::{self, Failure};
use crate::table::{self, Column};

const ROUTES: &[Column] = &[
    ("ROUTE", "route"),
    ("SNI", "sni"),
    ("ALPN", "alpn"),
    ("SOURCE", "source"),
    ("ASKS FOR", "asks"),
    ("CLUSTER", "cluster"),
    ("MATCHES", "matches"),
    ("WHY", "why"),
];
const BACKENDS: &[Column] =
    &[("BACKEND", "name"), ("ADDRESS", "address"), ("WEIGHT", "weight"), ("TAKES IT", "eligible"), ("WHY", "why")];

pub(super) fn explain(explain: &Explain) -> Result<(), Failure> {
    let answer = match &explain.config {
        Some(file) => {
            let document = Source::read(file)?.document()?;
            let question = control::explain::Question {
                protocol: explain.target.protocol,
                local: explain.target.address,
                client: explain.client,
                sni: explain.sni.clone(),
                alpn: explain.alpn.clone(),
                url: explain.url.clone(),
                method: explain.method.clone(),
            };
            let explanation = control::explain::document(&document, &question);
            serde_json::to_value(explanation).map_err(Failure::refused)?
        }
        None => {
            let protocol = if explain.target.protocol == Protocol::Udp { "udp" } else { "tcp" };
            let (local, client) = (explain.target.address.to_string(), explain.client.to_string());
            let mut path =
                format!("/v1/explain?protocol={protocol}&local={}&client={}", escape(&local), escape(&client));
            for (key, value) in
                [("sni", &explain.sni), ("alpn", &explain.alpn), ("url", &explain.url), ("method", &explain.method)]
            {
                if let Some(value) = value {
                    path.push_str(&format!("&{key}={}", escape(value)));
                }
            }
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
