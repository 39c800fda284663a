//! `kakei certificate`: one certificate of the running proxy, and the listeners that show it, as one transaction.

use std::path::Path;

use serde_json::{Value, json};

use super::change::change_what_runs;
use crate::cli::{CertificateCommand, CertificateFiles, CertificateVerb};
use crate::say::Failure;

pub(super) fn certificate(command: &CertificateCommand) -> Result<(), Failure> {
    change_what_runs(&command.ask, &command.terms, |document| match &command.verb {
        CertificateVerb::Add { name, files, listener } => {
            let mut steps = vec![step("add", name, value(files)?)];
            for of in listener {
                steps.extend(shown_by(document, of, name)?);
            }
            Ok(steps)
        }
        CertificateVerb::Replace { name, files } => {
            if document["certificates"][name].is_null() {
                return Err(Failure::refused(format!(
                    "there is no certificate {name:?}: `kakei certificate add` adds one"
                )));
            }
            Ok(vec![step("put", name, value(files)?)])
        }
        CertificateVerb::Remove { name } => {
            let mut steps = taken_from_all(document, name);
            steps.push(json!({"change": "remove", "kind": "certificate", "name": name}));
            Ok(steps)
        }
    })
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
