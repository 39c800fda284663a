//! `kakei plan`, `apply`, `backend`: transactions, asked of the running proxy.

use serde_json::{Value, json};

use super::document::Source;
use crate::cli::{Ask, BackendCommand, BackendVerb, FileCommand, Format};
use crate::client::{Client, Request, escape};
use crate::say::{self, Failure};
use crate::table;

pub(super) fn plan(file: &FileCommand) -> Result<(), Failure> {
    put(file, "/v1/config?dry_run=1")
}

pub(super) fn apply(file: &FileCommand) -> Result<(), Failure> {
    put(file, "/v1/config")
}

fn put(file: &FileCommand, path: &str) -> Result<(), Failure> {
    let source = Source::read(&file.file)?;
    // The same parser as the server's: its errors are drawn here, where the text is.
    source.document()?;
    let mut request = Request::new("PUT", path);
    request.body = Some((source.media(), source.text.as_bytes()));
    request.if_match = file.if_generation;
    send(&file.ask, &request)
}

/// Who still holds a backend: how many, and the first of them.
fn holders(ask: &Ask, cluster: &str, backend: &str) -> Result<(), Failure> {
    let client = Client::new(&ask.door.socket);
    let rows = client.get("/v1/backends".to_owned())?;
    let is_it = |row: &&Value| row["cluster"] == *cluster && row["name"] == *backend;
    let found: Vec<&Value> = rows.as_array().into_iter().flatten().filter(is_it).collect();
    if found.is_empty() {
        return Err(Failure::refused(format!(
            "cluster {cluster:?} has no backend {backend:?}, and nothing lives on one"
        )));
    }
    let asked = format!("?cluster={}&backend={}", escape(cluster), escape(backend));
    let flows = client.get(format!("/v1/flows{asked}"))?;
    let connections = client.get(format!("/v1/connections{asked}"))?;
    if ask.output.output == Format::Json {
        let whole = json!({"backend": found, "flows": flows, "connections": connections});
        say::out(&format!("{whole}\n"));
        return Ok(());
    }
    let sum = |key: &str| found.iter().filter_map(|row| row[key].as_u64()).sum::<u64>();
    let states: Vec<&str> = found.iter().filter_map(|row| row["state"].as_str()).collect();
    let (live_flows, live) = (sum("flows_live"), sum("connections_live"));
    say::out(&format!(
        "{backend} of {cluster} is {}: {live_flows} flows and {live} connections live on it\n",
        states.join(", ")
    ));
    for (columns, rows) in [(super::ask::FLOWS, &flows), (super::ask::CONNECTIONS, &connections)] {
        if let Some(rows) = rows.as_array().filter(|rows| !rows.is_empty()) {
            let mut rows = rows.clone();
            rows.sort_by_key(|row| std::cmp::Reverse(row["age_ms"].as_u64()));
            say::out(&format!("\n{}", table::render(columns, &rows)));
        }
    }
    Ok(())
}

pub(super) fn backend(command: &BackendCommand) -> Result<(), Failure> {
    if let BackendVerb::Drain { cluster, backend, status: true } = &command.verb {
        return holders(&command.ask, cluster, backend);
    }
    let at = |cluster: &str, backend: &str| format!("/v1/clusters/{}/backends/{}", escape(cluster), escape(backend));
    let (method, path, body) = match &command.verb {
        BackendVerb::Add { cluster, address, name, weight, backup } => {
            let mut body = json!({"address": address, "weight": weight, "backup": backup});
            if let Some(name) = name {
                body["name"] = json!(name);
            }
            ("POST", format!("/v1/clusters/{}/backends", escape(cluster)), Some(body))
        }
        BackendVerb::Remove { cluster, backend } => ("DELETE", at(cluster, backend), None),
        BackendVerb::Drain { cluster, backend, .. } => ("PATCH", at(cluster, backend), Some(json!({"weight": 0}))),
        BackendVerb::Weight { cluster, backend, weight } => {
            ("PATCH", at(cluster, backend), Some(json!({"weight": weight})))
        }
    };
    let body = body.map(|body| body.to_string());
    let mut request = Request::new(method, path);
    request.body = body.as_ref().map(|body| ("application/json", body.as_bytes()));
    send(&command.ask, &request)
}

fn send(ask: &Ask, request: &Request<'_>) -> Result<(), Failure> {
    let outcome = Client::new(&ask.door.socket).json(request)?;
    if ask.output.output == Format::Json {
        say::out(&format!("{outcome}\n"));
        return Ok(());
    }
    say::out(&told(&outcome));
    for warning in outcome["warnings"].as_array().into_iter().flatten() {
        say::err(&format!("warning: {}\n", warning.as_str().unwrap_or_default()));
    }
    Ok(())
}

fn told(outcome: &Value) -> String {
    let changes: Vec<&str> = outcome["changes"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    let generation = &outcome["generation"];
    let head = match (outcome["applied"].as_bool(), changes.is_empty()) {
        (Some(true), _) => format!("generation {generation} runs on every worker:\n"),
        (_, true) => format!("nothing to change: generation {generation} runs and is the same\n"),
        (_, false) => format!("would change generation {generation}:\n"),
    };
    changes.iter().fold(head, |text, change| format!("{text}  {change}\n"))
}
