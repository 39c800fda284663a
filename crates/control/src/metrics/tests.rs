//! What the exposition must be, checked by a strict reader of the OpenMetrics grammar. Starts no worker.

use std::collections::{BTreeMap, BTreeSet};

use kakei_config::Name;
use kakei_proxy::stats::{BackendStats, ClusterStats, ListenerStats, Stats, Values};

use super::*;

/// A reader that accepts nothing the grammar does not have: families contiguous, TYPE first, known suffixes, no
/// sample twice, labels escaped, the end marked.
fn strict(text: &str) -> BTreeMap<String, f64> {
    let body = text.strip_suffix("# EOF\n").expect("ends with EOF");
    assert!(!body.contains("# EOF"), "one end");
    let (mut families, mut current, mut samples) = (BTreeSet::new(), None::<(String, String)>, BTreeMap::new());
    for line in body.lines() {
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').expect("name and type");
            assert!(families.insert(name.to_owned()), "family {name} twice");
            assert!(kind == "counter" || kind == "gauge", "{line}");
            current = Some((name.to_owned(), kind.to_owned()));
        } else if let Some(rest) = line.strip_prefix("# HELP ") {
            assert_eq!(rest.split_once(' ').unwrap().0, current.as_ref().unwrap().0);
        } else {
            let (family, kind) = current.as_ref().expect("a sample belongs to a family");
            let (key, value) = sample(line);
            let name = key.split('{').next().unwrap();
            let suffix = if kind == "counter" { "_total" } else { "" };
            assert_eq!(name, format!("{family}{suffix}"));
            assert!(samples.insert(key.clone(), value).is_none(), "sample {key} twice");
        }
    }
    samples
}

fn sample(line: &str) -> (String, f64) {
    let (key, value) = line.rsplit_once(' ').expect("a value");
    if let Some((name, labels)) = key.split_once('{') {
        assert!(name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_'));
        let mut rest = labels;
        let mut seen = BTreeSet::new();
        while rest != "}" {
            let (label, after) = rest.split_once("=\"").expect("a quoted label");
            assert!(seen.insert(label), "label {label} twice");
            let end = closing_quote(after);
            rest = &after[end + 1..];
            rest = rest.strip_prefix(',').unwrap_or(rest);
        }
    }
    (key.to_owned(), value.parse().expect("a number"))
}

fn closing_quote(text: &str) -> usize {
    let mut escaped = false;
    for (at, byte) in text.bytes().enumerate() {
        match (escaped, byte) {
            (true, b'n' | b'\\' | b'"') => escaped = false,
            (true, other) => panic!("escape of {other}"),
            (false, b'\\') => escaped = true,
            (false, b'"') => return at,
            (false, _) => {}
        }
    }
    panic!("the quote is open: {text}")
}

fn stats() -> Stats {
    let mut listener = ListenerStats {
        listener: Name::new("we\"ird\\li\nstener"),
        values: Values::default(),
        drops: Values::default(),
        closes: Values::default(),
        connection_closes: Values::default(),
        exchange_closes: Values::default(),
        refusals: Values::default(),
    };
    listener.values[ListenerMetric::DatagramsIn] = 12;
    listener.drops.0[DropReason::RateLimit as usize] = 2;
    let backend = |name: &str, port: u16| BackendStats {
        backend: Name::new(name),
        address: std::net::SocketAddr::from(([127, 0, 0, 1], port)).into(),
        values: Values::default(),
    };
    let cluster = ClusterStats {
        cluster: Name::new("c"),
        values: Values::default(),
        drops: Values::default(),
        backends: vec![backend("a", 1), backend("a", 2)],
    };
    Stats { worker: Values::default(), listeners: vec![listener], clusters: vec![cluster] }
}

#[test]
fn the_exposition_is_grammatical_and_complete() {
    let stats = stats();
    let mut process = Process { workers: 2, ..Process::default() };
    process.measure();
    process.values.push((Metric { name: "kakei_x", help: "a \"quoted\\\nhelp", kind: MetricKind::Counter }, 5));
    let text = render(&Sums::of([(0, &stats), (1, &stats)]), &process);
    let samples = strict(&text);
    assert_eq!(samples["kakei_client_datagrams_total{listener=\"we\\\"ird\\\\li\\nstener\"}"], 24.0);
    let dropped = "kakei_dropped_datagrams_total{listener=\"we\\\"ird\\\\li\\nstener\",reason=\"rate_limit\"}";
    assert_eq!(samples[dropped], 4.0);
    assert_eq!(samples["kakei_x_total"], 5.0);
    assert!(samples["process_open_fds"] >= 3.0);
    assert!(samples["process_resident_memory_bytes"] > 100_000.0);
    let declared = ListenerMetric::ALL.map(|m| m.metric().name).into_iter();
    let declared = declared.chain(ClusterMetric::ALL.map(|m| m.metric().name));
    let declared = declared.chain(BackendMetric::ALL.map(|m| m.metric().name));
    for name in declared.chain(WorkerMetric::ALL.map(|m| m.metric().name)) {
        assert!(samples.keys().any(|key| key.starts_with(name)), "{name} is exported");
    }
}

#[test]
fn an_empty_process_still_ends_with_eof() {
    let samples = strict(&render(&Sums::default(), &Process::default()));
    assert_eq!(samples["kakei_workers"], 0.0);
}
