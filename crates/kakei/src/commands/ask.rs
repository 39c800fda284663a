//! `kakei get`, `status`, `history`: what there is, asked of the running proxy.

use std::net::SocketAddr;
use std::time::SystemTime;

use kakei::control::{PER_LISTING, wall};
use serde_json::Value;

use crate::cli::{Ask, Filter, Format, Get, Kind};
use crate::client::{Client, Request, escape};
use crate::say::{self, Failure};
use crate::table::{self, Column};

const LISTENERS: &[Column] = &[
    ("NAME", "name"),
    ("PROTOCOL", "protocol"),
    ("ADDRESS", "local"),
    ("STATE", "state"),
    ("CLUSTER", "cluster"),
    ("FLOWS", "flows_live"),
    ("CONNECTIONS", "connections_live"),
    ("REFUSED", "connections_refused"),
    ("REQUESTS", "requests"),
    ("UNDER WAY", "requests_live"),
    ("5XX", "responses_5xx"),
    ("IN", "datagrams_in"),
    ("FORWARDED", "datagrams_forwarded"),
    ("DROPPED", "datagrams_dropped"),
];
const ROUTES: &[Column] = &[
    ("NAME", "name"),
    ("LISTENER", "listener"),
    ("HOST", "host"),
    ("PATH", "path"),
    ("METHOD", "method"),
    ("SOURCE", "source"),
    ("ACTION", "action"),
    ("CLUSTER", "cluster"),
];
const CLUSTERS: &[Column] = &[
    ("NAME", "name"),
    ("BALANCE", "balance"),
    ("BACKENDS", "backends"),
    ("UP", "backends_up"),
    ("CHECKED", "checked"),
    ("FLOWS", "flows_live"),
    ("CONNECTIONS", "connections_live"),
    ("UNDER WAY", "requests_live"),
];
const BACKENDS: &[Column] = &[
    ("CLUSTER", "cluster"),
    ("NAME", "name"),
    ("ADDRESS", "address"),
    ("WEIGHT", "weight"),
    ("BACKUP", "backup"),
    ("STATE", "state"),
    ("FLOWS", "flows_live"),
    ("CONNECTIONS", "connections_live"),
    ("REQUESTS", "requests"),
    ("UNDER WAY", "requests_live"),
    ("RETRIES", "retries"),
    ("SENT", "bytes_sent"),
    ("RETURNED", "bytes_returned"),
    ("UNREACHABLE", "unreachable"),
];
const CERTIFICATES: &[Column] = &[
    ("NAME", "name"),
    ("HOSTS", "hosts"),
    ("KEY", "key"),
    ("UNTIL", "not_after"),
    ("ISSUER", "issuer"),
    ("LISTENERS", "listeners"),
];
const FLOWS: &[Column] = &[
    ("LISTENER", "listener"),
    ("CLIENT", "client"),
    ("LOCAL", "local"),
    ("CLUSTER", "cluster"),
    ("BACKEND", "backend"),
    ("PHASE", "phase"),
    ("REQUESTS", "requests"),
    ("RESPONSES", "responses"),
    ("AGE_MS", "age_ms"),
    ("EXPIRES_MS", "expires_in_ms"),
];
const CONNECTIONS: &[Column] = &[
    ("LISTENER", "listener"),
    ("CLIENT", "client"),
    ("SNI", "sni"),
    ("ROUTE", "route"),
    ("CLUSTER", "cluster"),
    ("BACKEND", "backend"),
    ("PHASE", "phase"),
    ("REQUESTS", "requests"),
    ("REQUEST", "request"),
    ("DRAINING", "draining"),
    ("SENT", "request_bytes"),
    ("RETURNED", "response_bytes"),
    ("AGE_MS", "age_ms"),
    ("EXPIRES_MS", "expires_in_ms"),
];
const GENERATIONS: &[Column] = &[
    ("GENERATION", "generation"),
    ("AT", "at"),
    ("ORIGIN", "origin"),
    ("BY", "by"),
    ("MESSAGE", "message"),
    ("UNCONFIRMED", "unconfirmed"),
    ("CHANGES", "changes"),
];

/// The document that runs.
pub(super) fn export(ask: &Ask) -> Result<(), Failure> {
    config(&Client::of(&ask.door)?, ask.output.output)
}

pub(super) fn get(get: &Get) -> Result<(), Failure> {
    let filter = Sieve::of(get)?;
    let client = Client::of(&get.ask.door)?;
    let (path, columns) = match get.kind {
        Kind::Listeners => ("/v1/listeners".to_owned(), LISTENERS),
        Kind::Routes => ("/v1/routes".to_owned(), ROUTES),
        Kind::Clusters => ("/v1/clusters".to_owned(), CLUSTERS),
        Kind::Backends => ("/v1/backends".to_owned(), BACKENDS),
        Kind::Certificates => ("/v1/certificates".to_owned(), CERTIFICATES),
        Kind::Flows => (format!("/v1/flows{}", filter.query()), FLOWS),
        Kind::Connections => (format!("/v1/connections{}", filter.query()), CONNECTIONS),
        Kind::Generations => ("/v1/generations".to_owned(), GENERATIONS),
        Kind::Config => return config(&client, get.ask.output.output),
    };
    let mut rows = rows(client.get(path)?);
    if get.kind == Kind::Generations {
        say_unconfirmed(&mut rows);
    }
    filter.sift(&mut rows)?;
    print(columns, rows, get.ask.output.output);
    Ok(())
}

/// Which rows somebody wants.
struct Sieve<'a> {
    kind: Kind,
    name: Option<&'a str>,
    /// Keys of rows, and what they are to be.
    wanted: Vec<(&'static str, String)>,
    limit: Option<usize>,
}

impl<'a> Sieve<'a> {
    /// What `get` asks for; a failure where it asks for what its kind doesn't know.
    fn of(get: &'a Get) -> Result<Sieve<'a>, Failure> {
        let Filter { listener, route, cluster, backend, client, limit } = &get.filter;
        let client = client.map(|client| client.to_string());
        let pairs =
            [("listener", listener), ("route", route), ("cluster", cluster), ("backend", backend), ("client", &client)];
        let given = pairs.into_iter().filter_map(|(key, value)| Some((key, value.clone()?)));
        let mut sieve = Sieve { kind: get.kind, name: get.name.as_deref(), wanted: given.collect(), limit: *limit };
        let known = sieve.known();
        if let Some((key, _)) = sieve.wanted.iter().find(|(key, _)| !known.contains(key)) {
            return Err(Failure::usage(format!("--{key} picks none of these: {}", sieve.advice())));
        }
        if get.kind == Kind::Config && (sieve.name.is_some() || limit.is_some()) {
            return Err(Failure::usage("the document is one: it has neither names nor a --limit"));
        }
        if let (true, Some(name)) = (sieve.is_live(), sieve.name) {
            // They are many: only this client's are asked for.
            let named: Result<SocketAddr, _> = name.parse();
            let named = named.map_err(|_| Failure::usage("these are named by their client, as 192.0.2.7:1000"))?;
            if client.is_some() {
                return Err(Failure::usage("the name says already whose they are: leave --client out"));
            }
            sieve.wanted.push(("client", named.ip().to_string()));
        }
        Ok(sieve)
    }

    fn is_live(&self) -> bool {
        matches!(self.kind, Kind::Flows | Kind::Connections)
    }

    /// The keys that rows of this kind can be picked by.
    fn known(&self) -> &'static [&'static str] {
        match self.kind {
            Kind::Flows | Kind::Connections => &["listener", "route", "cluster", "backend", "client"],
            Kind::Routes => &["listener", "cluster"],
            Kind::Backends | Kind::Listeners => &["cluster"],
            Kind::Clusters | Kind::Certificates | Kind::Generations | Kind::Config => &[],
        }
    }

    fn advice(&self) -> String {
        match self.known() {
            [] => "there is nothing to pick them by but a name".to_owned(),
            known => format!("there is --{}", known.join(", --")),
        }
    }

    /// The same as the query of a listing whose rows the proxy picks itself.
    fn query(&self) -> String {
        // Of what has a name one is wanted, among as many as its client may have.
        let limit = self.name.map(|_| PER_LISTING).or(self.limit).map(|limit| ("limit", limit.to_string()));
        let words = self.wanted.iter().cloned().chain(limit).map(|(key, value)| format!("{key}={}", escape(&value)));
        let words: Vec<String> = words.collect();
        if words.is_empty() { String::new() } else { format!("?{}", words.join("&")) }
    }

    /// Leave those rows; a failure where the one that was named isn't among them.
    fn sift(&self, rows: &mut Vec<Value>) -> Result<(), Failure> {
        let all = rows.len();
        if !self.is_live() {
            rows.retain(|row| self.wanted.iter().all(|(key, value)| has(row, key, value)));
        }
        if let Some(name) = self.name {
            rows.retain(|row| self.is_named(row, name));
            if rows.is_empty() {
                let known = match self.is_live() && all >= PER_LISTING {
                    true => format!("among the first {all} of its address"),
                    false => "in what runs; see `kakei get` without a name".to_owned(),
                };
                return Err(Failure::refused(format!("there is no such thing as {name:?} {known}")));
            }
        }
        let limit = self.limit.unwrap_or(usize::MAX);
        match self.kind {
            // The newest stand last.
            Kind::Generations => drop(rows.drain(..rows.len().saturating_sub(limit))),
            _ => rows.truncate(limit),
        }
        Ok(())
    }

    fn is_named(&self, row: &Value, name: &str) -> bool {
        match self.kind {
            // However it is spelt.
            Kind::Flows | Kind::Connections => {
                let client = row["client"].as_str().and_then(|client| client.parse::<SocketAddr>().ok());
                client.is_some() && client == name.parse().ok()
            }
            Kind::Generations => table::text(&row["generation"]) == name,
            _ => row["name"] == name,
        }
    }
}

/// Whether a row has this under the key; a route has the clusters that share what it matches too.
fn has(row: &Value, key: &str, value: &str) -> bool {
    let shared = row["split"].as_array().filter(|_| key == "cluster");
    row[key] == value || shared.is_some_and(|names| names.iter().any(|name| name == value))
}

fn config(client: &Client, format: Format) -> Result<(), Failure> {
    let mut request = Request::new("GET", "/v1/config");
    request.accept = (format == Format::Table).then_some("application/toml");
    let text = client.text(&request)?;
    say::out(text.trim_end());
    say::out("\n");
    Ok(())
}

pub(super) fn history(ask: &Ask) -> Result<(), Failure> {
    let mut rows = rows(Client::of(&ask.door)?.get("/v1/generations")?);
    say_unconfirmed(&mut rows);
    print(GENERATIONS, rows, ask.output.output);
    Ok(())
}

/// Say how long the newest generation waits still, where it has to be confirmed; what came after one has ended its wait.
fn say_unconfirmed(rows: &mut [Value]) {
    if let Some(row) = rows.last_mut()
        && let Some(until) = row["confirm_by"].as_u64()
    {
        let now = wall::unix_seconds(SystemTime::now());
        row["unconfirmed"] = format!("{} s left", until.saturating_sub(now)).into();
    }
}

pub(super) fn status(ask: &Ask) -> Result<(), Failure> {
    let status = Client::of(&ask.door)?.get("/v1/status")?;
    if ask.output.output == Format::Json {
        say::out(&format!("{status}\n"));
        return Ok(());
    }
    let mut page = format!(
        "kakei {}: {}, generation {}, {} of {} workers answer, up {} s\n\n",
        table::text(&status["version"]),
        table::text(&status["state"]),
        status["generation"],
        status["workers_answering"],
        status["workers"],
        status["uptime_seconds"],
    );
    page.push_str(&table::render(LISTENERS, &rows(status["listeners"].clone())));
    page.push('\n');
    page.push_str(&table::render(CLUSTERS, &rows(status["clusters"].clone())));
    say::out(&page);
    Ok(())
}

fn rows(value: Value) -> Vec<Value> {
    match value {
        Value::Array(rows) => rows,
        _ => Vec::new(),
    }
}

fn print(columns: &[Column], rows: Vec<Value>, format: Format) {
    match format {
        Format::Table => say::out(&table::render(columns, &rows)),
        Format::Json => say::out(&format!("{}\n", Value::Array(rows))),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::has;

    #[test]
    fn a_route_has_each_cluster_that_shares_what_it_matches() {
        let (alone, shared) = (json!({"cluster": "a"}), json!({"cluster": null, "split": ["a", "b"]}));
        assert!(has(&alone, "cluster", "a") && has(&shared, "cluster", "a") && has(&shared, "cluster", "b"));
        assert!(!has(&alone, "cluster", "b") && !has(&shared, "cluster", "c") && !has(&shared, "listener", "a"));
        assert!(!has(&json!({"cluster": null}), "cluster", "-"), "nothing is nobody's name");
    }
}
