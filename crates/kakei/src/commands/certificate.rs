//! `kakei certificate`: one certificate of the running proxy, and the listeners that show it, as one transaction.

use std::path::Path;

use serde_json::{Value, json};

use super::change::change_what_runs;
use crate::cli::{Ask, CertificateCommand, CertificateFiles, CertificateVerb, Terms};
use crate::client::Client;
use crate::say::Failure;

pub(super) fn certificate(command: &CertificateCommand) -> Result<(), Failure> {
    let CertificateCommand { verb, terms, ask } = command;
    match verb {
        CertificateVerb::Add { name, files, listener } => {
            let added = step("add", name, value(files)?);
            if listener.is_empty() {
                return change(ask, terms, added);
            }
            change_what_runs(ask, terms, |document| {
                let shown: Result<Vec<_>, Failure> = listener.iter().map(|of| shown_by(document, of, name)).collect();
                Ok([added.clone()].into_iter().chain(shown?.into_iter().flatten()).collect())
            })
        }
        CertificateVerb::Replace { name, files } => {
            let put = step("put", name, value(files)?);
            let (_, document) = Client::of(&ask.door)?.document()?;
            if document["certificates"][name].is_null() {
                return Err(Failure::refused(format!(
                    "there is no certificate {name:?}: `kakei certificate add` adds one"
                )));
            }
            change(ask, terms, put)
        }
        CertificateVerb::Remove { name } => change_what_runs(ask, terms, |document| {
            let mut steps = taken_from_all(document, name);
            steps.push(json!({"change": "remove", "kind": "certificate", "name": name}));
            Ok(steps)
        }),
    }
}

/// One step, whatever else runs.
fn change(ask: &Ask, terms: &Terms, step: Value) -> Result<(), Failure> {
    super::change::change(ask, terms, ("POST", "/v1/changes"), Some(json!([step]).to_string()))
}

fn step(change: &str, name: &str, value: Value) -> Value {
    json!({"change": change, "kind": "certificate", "name": name, "value": value})
}

/// A certificate as the document has it. The proxy may run in another directory than we do.
fn value(files: &CertificateFiles) -> Result<Value, Failure> {
    let CertificateFiles { chain, key, ocsp, inline } = files;
    let path = |file: &Path| {
        let whole = std::path::absolute(file);
        whole.map(|whole| whole.display().to_string()).map_err(|error| Failure::usage(unreadable(file, &error)))
    };
    let given = |file: &Path| match inline {
        true => std::fs::read_to_string(file).map_err(|error| Failure::usage(unreadable(file, &error))),
        false => path(file),
    };
    let mut value = json!({"chain": given(chain)?, "key": given(key)?});
    if let Some(ocsp) = ocsp {
        value["ocsp"] = json!(path(ocsp)?);
    }
    Ok(value)
}

fn unreadable(file: &Path, error: &std::io::Error) -> String {
    format!("{} can't be read: {error}", file.display())
}

/// A listener shows one more.
fn shown_by(document: &Value, listener: &str, name: &str) -> Result<Option<Value>, Failure> {
    let shown = &document["listeners"][listener]["tls"]["certificates"];
    if shown == "all" {
        return Ok(None);
    }
    let Some(shown) = shown.as_array() else {
        return Err(Failure::refused(format!("listener {listener:?} isn't there, or has no `tls`")));
    };
    let mut shown = shown.clone();
    if !shown.iter().any(|known| known == name) {
        shown.push(json!(name));
    }
    Ok(Some(set(listener, json!({"certificates": shown}))))
}

/// Every listener that shows it shows it no longer.
fn taken_from_all(document: &Value, name: &str) -> Vec<Value> {
    let listeners = document["listeners"].as_object().into_iter().flatten();
    let steps = listeners.filter(|(_, of)| !of["tls"].is_null()).filter_map(|(listener, of)| {
        let tls = &of["tls"];
        let mut edit = json!({});
        if let Some(shown) = tls["certificates"].as_array() {
            let kept: Vec<&Value> = shown.iter().filter(|known| *known != name).collect();
            if kept.len() < shown.len() {
                edit["certificates"] = json!(kept);
            }
        }
        if tls["default"] == *name {
            edit["default"] = Value::Null;
        }
        (edit != json!({})).then(|| set(listener, edit))
    });
    steps.collect()
}

fn set(listener: &str, tls: Value) -> Value {
    json!({"change": "set", "kind": "listener", "name": listener, "value": {"tls": tls}})
}
