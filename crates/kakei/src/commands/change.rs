//! `kakei plan`, `apply`, `backend`: transactions, asked of the running proxy.

use serde_json::{Value, json};

use super::document::Source;
use crate::cli::{Ask, BackendCommand, BackendVerb, FileCommand, Format};
use crate::client::{Client, Request, escape};
use crate::say::{self, Failure};

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

pub(super) fn backend(command: &BackendCommand) -> Result<(), Failure> {
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
        BackendVerb::Drain { cluster, backend } => ("PATCH", at(cluster, backend), Some(json!({"weight": 0}))),
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
