//! `kakei plan`, `apply`, `confirm`, `rollback`, `diff`, and the verbs of single objects: transactions, asked of the
//! running proxy.

use std::time::{Duration, Instant, SystemTime};

use kakei::config;
use kakei::control::wall;
use serde_json::{Map, Value, json};

use super::document::Source;
use crate::cli::{
    Apply, Ask, BackendCommand, BackendVerb, Confirm, Diff, Format, Held, ObjectCommand, ObjectVerb, Plan, Rollback,
    Terms,
};
use crate::client::{Client, Request, escape};
use crate::say::{self, Failure};

/// Those that hold a backend and are listed.
const HOLDERS: usize = 100;
/// For how long steps are made anew because others changed what they follow from.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long the others are left alone at most: first, and each time twice as long up to the last.
const PAUSES: [Duration; 2] = [Duration::from_millis(20), Duration::from_millis(500)];
const PRECONDITION_FAILED: u16 = 412;

pub(super) fn plan(file: &Plan) -> Result<(), Failure> {
    let source = Source::read(&file.file)?;
    let traffic = file.traffic.map_or_else(String::new, |limit| format!("&traffic={limit}"));
    let mut request = put(&source, format!("/v1/config?dry_run=1{traffic}"))?;
    request.if_match = file.if_generation;
    send(&file.ask, &request)
}

pub(super) fn apply(apply: &Apply) -> Result<(), Failure> {
    let source = Source::read(&apply.file)?;
    let mut request = put(&source, under(&apply.terms, "/v1/config"))?;
    request.if_match = apply.terms.if_generation;
    send(&apply.ask, &request)
}

fn put(source: &Source, path: String) -> Result<Request<'_>, Failure> {
    // The same parser as the server's: its errors are drawn here, where the text is.
    source.document()?;
    let mut request = Request::new("PUT", path);
    request.body = Some((source.media(), source.text.as_bytes()));
    Ok(request)
}

/// A path with the terms of a change behind it.
fn under(terms: &Terms, path: &str) -> String {
    let percent = |share: Option<u8>| share.map(|share| share.to_string());
    let pairs = [
        ("dry_run", terms.dry_run.then(|| "1".to_owned())),
        ("message", terms.message.clone()),
        ("confirm_within", terms.confirm_within.clone()),
        ("guard_errors", percent(terms.guard_errors)),
        ("guard_unhealthy", percent(terms.guard_unhealthy)),
    ];
    let said = pairs.iter().filter_map(|(key, value)| Some(format!("{key}={}", escape(value.as_deref()?))));
    let query = said.collect::<Vec<_>>().join("&");
    if query.is_empty() { path.to_owned() } else { format!("{path}?{query}") }
}

pub(super) fn confirm(confirm: &Confirm) -> Result<(), Failure> {
    let path = match confirm.generation {
        Some(generation) => format!("/v1/generations/{generation}/confirm"),
        None => "/v1/confirm".to_owned(),
    };
    let confirmed = Client::of(&confirm.ask.door)?.json(&Request::new("POST", path))?;
    match confirm.ask.output.output {
        Format::Json => say::out(&format!("{confirmed}\n")),
        Format::Table => say::out(&format!("generation {} stays\n", confirmed["generation"])),
    }
    Ok(())
}

pub(super) fn rollback(rollback: &Rollback) -> Result<(), Failure> {
    let body = rollback.generation.map(|to| json!({"to": to}).to_string());
    change(&rollback.ask, &rollback.terms, ("POST", "/v1/rollback"), body)
}

pub(super) fn diff(diff: &Diff) -> Result<(), Failure> {
    let client = Client::of(&diff.ask.door)?;
    let to = match diff.to {
        Some(to) => to,
        None => client.get("/v1/status")?["generation"].as_u64().unwrap_or_default(),
    };
    let answer = client.get(format!("/v1/diff?from={}&to={to}", diff.from))?;
    if diff.ask.output.output == Format::Json {
        say::out(&format!("{answer}\n"));
        return Ok(());
    }
    let lines = words(&answer["changes"]);
    match lines.is_empty() {
        true => say::out(&format!("generations {} and {to} are the same\n", diff.from)),
        false => say::out(&lines.iter().map(|line| format!("{line}\n")).collect::<String>()),
    }
    Ok(())
}

pub(super) fn object(kind: &str, command: &ObjectCommand) -> Result<(), Failure> {
    let step = match &command.verb {
        ObjectVerb::Add { name, options } => {
            json!({"change": "add", "kind": kind, "name": name, "value": written(options)?})
        }
        ObjectVerb::Set { name, options, unset } => {
            if options.is_empty() && unset.is_empty() {
                return Err(Failure::usage("nothing is to be set: give an option, as 'weight = 3', or --unset"));
            }
            let mut value = written(options)?;
            unset.iter().for_each(|path| take_out(&mut value, path));
            json!({"change": "set", "kind": kind, "name": name, "value": value})
        }
        ObjectVerb::Remove { name } => json!({"change": "remove", "kind": kind, "name": name}),
    };
    let body = Value::Array(vec![step]).to_string();
    change(&command.ask, &command.terms, ("POST", "/v1/changes"), Some(body))
}

/// Options as a table: each argument is a line of TOML.
fn written(options: &[String]) -> Result<Value, Failure> {
    let text = options.join("\n");
    let value = config::toml_value(&text);
    let value = value.map_err(|errors| Failure::drawn(errors.render("the options", &text, say::color())))?;
    Ok(value.to_json())
}

/// Name an option as one to be taken out.
fn take_out(value: &mut Value, path: &str) {
    let (key, rest) = path.split_once('.').map_or((path, None), |(key, rest)| (key, Some(rest)));
    if !value.is_object() {
        *value = Value::Object(Map::new());
    }
    match rest {
        Some(rest) => take_out(&mut value[key], rest),
        None => value[key] = Value::Null,
    }
}

pub(super) fn backend(command: &BackendCommand) -> Result<(), Failure> {
    if let BackendVerb::Drain { cluster, backend, status: true } = &command.verb {
        only_asks(&command.terms)?;
        let held = Held { kind: "backend".to_owned(), name: backend.clone(), cluster: Some(cluster.clone()) };
        return super::drain::status(&command.ask, &held, HOLDERS);
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
    change(&command.ask, &command.terms, (method, &path), body.map(|body| body.to_string()))
}

/// Who only asks for a status changes nothing.
pub(super) fn only_asks(terms: &Terms) -> Result<(), Failure> {
    match terms.is_given() {
        true => Err(Failure::usage("--status changes nothing: it takes none of the terms of a change")),
        false => Ok(()),
    }
}

/// Ask for a change under these terms.
pub(super) fn change(
    ask: &Ask,
    terms: &Terms,
    (method, path): (&str, &str),
    body: Option<String>,
) -> Result<(), Failure> {
    outcome(ask, terms, (method, path), body.as_deref()).map(|outcome| show(ask, &outcome))
}

/// The same, and what came of it.
pub(super) fn outcome(
    ask: &Ask,
    terms: &Terms,
    (method, path): (&str, &str),
    body: Option<&str>,
) -> Result<Value, Failure> {
    let mut request = Request::new(method, under(terms, path));
    request.body = body.map(|body| ("application/json", body.as_bytes()));
    request.if_match = terms.if_generation;
    Client::of(&ask.door)?.json(&request)
}

/// Ask for steps that follow from what runs, of exactly what they follow from.
pub(super) fn change_what_runs(
    ask: &Ask,
    terms: &Terms,
    steps: impl Fn(&Value) -> Result<Vec<Value>, Failure>,
) -> Result<(), Failure> {
    outcome_of_change(ask, terms, steps).map(|outcome| show(ask, &outcome))
}

/// The same, and what came of it. Where somebody else was faster, the steps are made anew.
pub(super) fn outcome_of_change(
    ask: &Ask,
    terms: &Terms,
    steps: impl Fn(&Value) -> Result<Vec<Value>, Failure>,
) -> Result<Value, Failure> {
    let client = Client::of(&ask.door)?;
    insist(PATIENCE, || {
        let (generation, document) = client.document()?;
        if let Some(expected) = terms.if_generation.filter(|expected| *expected != generation) {
            return Err(Failure::refused(format!("generation {generation} runs, not {expected}")));
        }
        let steps = steps(&document)?;
        if steps.is_empty() {
            return Ok(Some(json!({"generation": generation, "applied": false, "changes": []})));
        }
        let body = Value::Array(steps).to_string();
        let mut request = Request::new("POST", under(terms, "/v1/changes"));
        request.body = Some(("application/json", body.as_bytes()));
        request.if_match = Some(generation);
        match terms.if_generation {
            Some(_) => client.json(&request).map(Some),
            None => client.unless(PRECONDITION_FAILED, &request),
        }
    })
}

/// Try until something comes of it. Those who try at one time don't do so in step.
fn insist<T>(patience: Duration, mut attempt: impl FnMut() -> Result<Option<T>, Failure>) -> Result<T, Failure> {
    let begun = Instant::now();
    let [mut pause, longest] = PAUSES;
    let mut tries = 1;
    loop {
        if let Some(done) = attempt()? {
            return Ok(done);
        }
        if begun.elapsed() >= patience {
            let seconds = begun.elapsed().as_secs();
            return Err(Failure::refused(format!(
                "others keep being faster: what runs was another generation each time that this was asked for, {tries} \
                 times in {seconds} s; nothing was changed, try again"
            )));
        }
        std::thread::sleep(pause.mul_f64(0.5 + (kakei::random_seed() >> 11) as f64 / (1u64 << 54) as f64));
        pause = longest.min(pause * 2);
        tries += 1;
    }
}

fn send(ask: &Ask, request: &Request<'_>) -> Result<(), Failure> {
    show(ask, &Client::of(&ask.door)?.json(request)?);
    Ok(())
}

/// Say what came of a change.
pub(super) fn show(ask: &Ask, outcome: &Value) {
    if ask.output.output == Format::Json {
        return say::out(&format!("{outcome}\n"));
    }
    say::out(&told(outcome));
    for warning in words(&outcome["warnings"]) {
        say::err(&format!("warning: {warning}\n"));
    }
}

/// The sentences of a list.
pub(super) fn words(list: &Value) -> Vec<&str> {
    list.as_array().into_iter().flatten().filter_map(Value::as_str).collect()
}

pub(super) fn told(outcome: &Value) -> String {
    let changes = words(&outcome["changes"]);
    let (generation, applied) = (&outcome["generation"], outcome["applied"] == true);
    let head = match (applied, changes.is_empty()) {
        (true, _) => format!("generation {generation} runs on every worker:\n"),
        (_, true) => format!("nothing to change: generation {generation} runs and is the same\n"),
        (_, false) => format!("would change generation {generation}:\n"),
    };
    let mut text = head;
    let mut list = |title: &str, lines: &[&str]| {
        if !lines.is_empty() {
            text.push_str(title);
            lines.iter().for_each(|line| text.push_str(&format!("  {line}\n")));
        }
    };
    list("", &changes);
    list("before that:\n", &words(&outcome["waits"]));
    list("what lives on that:\n", &words(&outcome["touches"]));
    let lost = if applied {
        "was changed at run time, and is lost:\n"
    } else {
        "was changed at run time, and would be lost:\n"
    };
    list(lost, &words(&outcome["drift"]));
    text.push_str(&super::traffic::told(&outcome["traffic"]));
    if let Some(until) = outcome["confirm_by"].as_u64() {
        let now = wall::unix_seconds(SystemTime::now());
        text.push_str(&format!("taken back in {} s, unless `kakei confirm` comes\n", until.saturating_sub(now)));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_is_slower_goes_on_for_a_time_and_says_that_others_are_faster() {
        let mut left = 12;
        let done = insist(PATIENCE, || {
            left -= 1;
            Ok((left == 0).then_some("done"))
        });
        assert_eq!(done.ok(), Some("done"));
        let never = insist(Duration::from_millis(50), || Ok(None::<()>)).unwrap_err();
        assert!(never.code == 1 && never.text().contains("others keep being faster"), "{}", never.text());
    }
}
