//! `kakei explain`: where a client's datagram, connection or request goes; live, or by a document.

use std::time::Duration;

use kakei::config::{Name, Protocol};
use kakei::control;
use kakei::control::explain::{ANYONE, Question};
use serde_json::{Value, json};

use super::document::Source;
use crate::cli::{Explain, Format, dialled};
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
const CERTIFICATES: &[Column] = &[
    ("CERTIFICATE", "name"),
    ("KEY", "key"),
    ("VALID UNTIL", "not_after"),
    ("FOR THE HOST", "covers"),
    ("WHY", "why"),
];
const BACKENDS: &[Column] =
    &[("BACKEND", "name"), ("ADDRESS", "address"), ("WEIGHT", "weight"), ("TAKES IT", "eligible"), ("WHY", "why")];

const RATES: &[Column] = &[
    ("RATE LIMIT", "limit"),
    ("WHOSE", "of"),
    ("WORKER", "worker"),
    ("USED", "used"),
    ("MOST", "most"),
    ("NEXT", "next"),
    ("NOTE", "note"),
];

pub(super) fn explain(explain: &Explain) -> Result<(), Failure> {
    let question = question(explain)?;
    let answer = match &explain.config {
        Some(file) => {
            let document = Source::read(file)?.document()?;
            let explanation = control::explain::document(&document, &question);
            serde_json::to_value(explanation).map_err(Failure::refused)?
        }
        None => Client::of(&explain.ask.door)?.get(path(&question))?,
    };
    match explain.ask.output.output {
        Format::Json => say::out(&format!("{answer}\n")),
        Format::Table => say::out(&drawn(&answer)),
    }
    Ok(())
}

/// What the command line asks: a URL, a method and a URL, or an address that is dialled.
fn question(explain: &Explain) -> Result<Question, Failure> {
    let (method, target) = match &explain.target[..] {
        [method, url] => (Some(method.clone()), url.as_str()),
        target => (None, target[0].as_str()),
    };
    let is_url = method.is_some() || target.contains("://");
    if is_url && explain.url.is_some() {
        return Err(Failure::usage("--url goes with an address that is dialled, not with another URL"));
    }
    if method.is_some() && explain.method.is_some() {
        return Err(Failure::usage("the method is given twice"));
    }
    let (protocol, local, url) = match is_url {
        true => (Protocol::Http, None, Some(target.to_owned())),
        false => {
            let dialled = dialled(target).map_err(|why| Failure::usage(format!("{target:?}: {why}; or a URL")))?;
            (dialled.protocol, Some(dialled.address), explain.url.clone())
        }
    };
    let anyone = url.as_ref().map(|_| ANYONE);
    let client = explain.client.or(anyone);
    Ok(Question {
        protocol,
        local,
        listener: explain.listener.as_deref().map(Name::new),
        client: client.ok_or_else(|| Failure::usage("say who asks, by --client"))?,
        sni: explain.sni.clone(),
        alpn: explain.alpn.clone(),
        url,
        method: method.or(explain.method.clone()),
        headers: explain.headers.clone(),
    })
}

/// The same question to the API.
fn path(question: &Question) -> String {
    let protocol = match question.protocol {
        Protocol::Udp => "udp",
        Protocol::Tcp => "tcp",
        Protocol::Http => "http",
    };
    let mut path = format!("/v1/explain?protocol={protocol}&client={}", escape(&question.client.to_string()));
    let lines: Vec<String> = question.headers.iter().map(|(name, value)| format!("{name}: {value}")).collect();
    let headers = (!lines.is_empty()).then(|| lines.join("\n"));
    let local = question.local.map(|local| local.to_string());
    let listener = question.listener.as_ref().map(ToString::to_string);
    let given = [("local", &local), ("listener", &listener), ("sni", &question.sni), ("alpn", &question.alpn)];
    let asked = [("url", &question.url), ("method", &question.method), ("headers", &headers)];
    for (key, value) in given.into_iter().chain(asked) {
        if let Some(value) = value {
            path.push_str(&format!("&{key}={}", escape(value)));
        }
    }
    path
}

fn drawn(answer: &Value) -> String {
    let mut page = format!("{}\n", table::text(&answer["verdict"]));
    let mut say = |word: &str, value: &Value| {
        let is_empty = value.is_null() || value.as_array().is_some_and(Vec::is_empty);
        if !is_empty {
            page.push_str(&format!("  {word}: {}\n", table::text(value)));
        }
    };
    for key in ["listener", "cluster", "balance", "affinity"] {
        say(key, &answer[key]);
    }
    say("asks in TLS for", &answer["tls"]["server_name"]);
    if answer["tls"]["is_read"] == false {
        say("certificates", &Value::from("they can't be read here; `kakei check` says why"));
    }
    let request = &answer["request"];
    let known = [
        ("host", "host"),
        ("path", "path"),
        ("status", "status"),
        ("location", "location"),
        ("allow", "allow"),
        ("deny", "deny"),
        ("who asks must say who it is", "auth"),
        ("limits", "rate_limits"),
        ("goes on as", "target"),
        ("with host", "sets_host"),
        ("Strict-Transport-Security", "hsts"),
        ("as early data", "early_data"),
    ];
    known.iter().filter(|(_, key)| request[*key] != "").for_each(|(word, key)| say(word, &request[*key]));
    for (whose, key) in [("request", "request"), ("response", "response")] {
        say(&format!("{whose} loses"), &request[key]["remove"]);
        for (verb, edit) in [("sets", "set"), ("adds", "add")] {
            for (name, value) in request[key][edit].as_object().into_iter().flatten() {
                say(&format!("{whose} {verb} {name}"), value);
            }
        }
    }
    let lists = [
        (CERTIFICATES, &answer["tls"]["certificates"]),
        (ROUTES, &answer["considered"]),
        (BACKENDS, &answer["backends"]),
        (RATES, &rates(&answer["rates"])),
    ];
    for (columns, list) in lists {
        if let Some(rows) = list.as_array().filter(|rows| !rows.is_empty()) {
            page.push('\n');
            page.push_str(&table::render(&used(columns, rows), rows));
        }
    }
    page
}

/// Each rate limit in all workers, and in each of them where there are several.
fn rates(rates: &Value) -> Value {
    let row = |rate: &Value, worker: Value, of: &Value| {
        let next = of["next_in_ms"].as_u64().map(Duration::from_millis);
        let next = match next {
            None => "when one ends".to_owned(),
            Some(Duration::ZERO) => "at once".to_owned(),
            Some(next) => format!("in {next:?}"),
        };
        let note = (of["shared"] == true).then_some("counted with others, for want of room");
        let (used, most) = (&of["used"], &of["most"]);
        json!({
            "limit": rate["limit"], "of": rate["of"], "worker": worker,
            "used": used, "most": most, "next": next, "note": note
        })
    };
    let rows = rates.as_array().into_iter().flatten().flat_map(|rate| {
        let workers = rate["workers"].as_array().map_or(&[][..], Vec::as_slice);
        let all = (workers.len() > 1).then(|| row(rate, "all".into(), rate));
        all.into_iter().chain(workers.iter().map(move |of| row(rate, of["worker"].clone(), of)))
    });
    rows.collect()
}

/// The columns that say something.
fn used(columns: &[Column], rows: &[Value]) -> Vec<Column> {
    columns.iter().copied().filter(|(_, key)| rows.iter().any(|row| !row[*key].is_null())).collect()
}
