//! `kakei drain`: have something take nothing new, and who still holds it.

use std::time::{Duration, Instant};

use kakei::config;
use serde_json::{Value, json};

use super::change::{only_asks, outcome, outcome_of_change, show, told};
use crate::cli::{Ask, Drain, Format, Held};
use crate::client::{Client, escape};
use crate::say::{self, Failure};
use crate::table::{self, Column};

/// How often it is looked while somebody waits.
const LOOK: Duration = Duration::from_millis(200);

const HOLDERS: &[Column] = &[
    ("WHAT", "what"),
    ("CLIENT", "client"),
    ("LISTENER", "listener"),
    ("ROUTE", "route"),
    ("CLUSTER", "cluster"),
    ("BACKEND", "backend"),
    ("PHASE", "phase"),
    ("REQUEST", "request"),
    ("SINCE", "since"),
    ("UNTIL", "until"),
];

pub(super) fn drain(drain: &Drain) -> Result<(), Failure> {
    let Drain { held, status: only_status, wait, limit, terms, ask } = drain;
    if *only_status {
        only_asks(terms)?;
    }
    let begun = if *only_status { None } else { Some(start(drain)?) };
    let Some(within) = wait.as_deref().filter(|_| !terms.dry_run) else {
        let Some(outcome) = begun else { return status(ask, held, *limit) };
        show(ask, &outcome);
        return Ok(());
    };
    let is_told = ask.output.output == Format::Table;
    match &begun {
        Some(outcome) if is_told => show(ask, outcome),
        // For programs one document says all, at the end; who breaks the wait off is to know of the change all the same.
        Some(outcome) => say::err(&told(outcome)),
        None => {}
    }
    let until = Instant::now() + config::parse_duration(within).unwrap_or_default();
    let client = Client::of(&ask.door)?;
    // What was removed, and nothing is left of, is known to nobody any more.
    let is_held = || Ok::<_, Failure>(client.find(path(held, 0))?.is_some_and(|report| holders(&report) > 0));
    while is_held()? && Instant::now() < until {
        std::thread::sleep(LOOK);
    }
    let report = match begun {
        None => Some(client.get(path(held, *limit))?),
        Some(_) => client.find(path(held, *limit))?,
    };
    let left = report.as_ref().map_or(0, holders);
    match report {
        Some(mut report) => {
            if let Some(change) = begun {
                report["change"] = change;
            }
            show_status(ask, held, &report);
        }
        None if is_told => say::err(&format!("{} {} is gone, and nobody held it\n", held.kind, held.name)),
        None => say::out(&format!("{}\n", gone(held, &begun))),
    }
    if left == 0 { Ok(()) } else { Err(Failure::refused(format!("{left} still hold it after {within}"))) }
}

/// The report of what nobody held when it went.
fn gone(held: &Held, change: &Option<Value>) -> Value {
    let none = json!({"flows": 0, "connections": 0, "requests": 0});
    json!({"kind": held.kind, "name": held.name, "state": "gone", "held": none, "holders": [], "change": change})
}

/// Have it take nothing new; what came of that.
fn start(drain: &Drain) -> Result<Value, Failure> {
    let Drain { held: Held { kind, name, cluster }, terms, ask, .. } = drain;
    let weigh = |cluster: &str, backend: &str| json!({"change": "weigh_backend", "cluster": cluster, "backend": backend, "weight": 0});
    let step = match (kind.as_str(), cluster) {
        ("backend", Some(cluster)) => weigh(cluster, name),
        ("cluster", _) => {
            return outcome_of_change(ask, terms, |document| {
                let Some(of) = document["clusters"].get(name.as_str()) else {
                    return Err(Failure::refused(format!("there is no cluster {name:?}")));
                };
                let backends = of["backends"].as_array().into_iter().flatten();
                let names = backends.filter_map(|backend| {
                    backend["name"].as_str().or(backend["address"].as_str()).or(backend.as_str())
                });
                Ok(names.map(|backend| weigh(name, backend)).collect())
            });
        }
        _ => json!({"change": "remove", "kind": kind, "name": name}),
    };
    outcome(ask, terms, ("POST", "/v1/changes"), Some(&json!([step]).to_string()))
}

fn path(held: &Held, limit: usize) -> String {
    let cluster = held.cluster.as_ref().map_or_else(String::new, |cluster| format!("cluster={}&", escape(cluster)));
    format!("/v1/drains/{}/{}?{cluster}limit={limit}", held.kind, escape(&held.name))
}

fn holders(report: &Value) -> u64 {
    ["flows", "connections", "requests"].iter().filter_map(|key| report["held"][key].as_u64()).sum()
}

/// Print who holds it.
pub(super) fn status(ask: &Ask, held: &Held, limit: usize) -> Result<(), Failure> {
    let report = Client::of(&ask.door)?.get(path(held, limit))?;
    show_status(ask, held, &report);
    Ok(())
}

fn show_status(ask: &Ask, held: &Held, report: &Value) {
    let all = holders(report);
    if ask.output.output == Format::Json {
        return say::out(&format!("{report}\n"));
    }
    let counts = |of: &Value| {
        format!("{} flows, {} connections and {} requests", of["flows"], of["connections"], of["requests"])
    };
    let whose = held.cluster.as_ref().map_or_else(String::new, |cluster| format!(" of {cluster}"));
    let until = match (&report["until"], all) {
        (Value::String(until), 1..) => format!(", until {until} at the latest"),
        _ => String::new(),
    };
    let state = table::text(&report["state"]);
    let mut page =
        format!("{} {}{whose} is {state}: {} live on it{until}\n", held.kind, held.name, counts(&report["held"]));
    for policy in report["policy"].as_array().into_iter().flatten() {
        page.push_str(&format!("  {}\n", table::text(policy)));
    }
    if ["flows", "connections", "requests"].iter().any(|key| report["cut"][key].as_u64() > Some(0)) {
        page.push_str(&format!("cut so far: {}\n", counts(&report["cut"])));
    }
    if let Some(rows) = report["holders"].as_array().filter(|rows| !rows.is_empty()) {
        page.push_str(&format!("\n{}", table::render(HOLDERS, rows)));
        if (rows.len() as u64) < all {
            page.push_str(&format!("and {} more\n", all - rows.len() as u64));
        }
    }
    say::out(&page);
}
