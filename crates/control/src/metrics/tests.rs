//! What the exposition must be, checked by a strict reader of the OpenMetrics grammar. Starts no worker.

use std::collections::{BTreeMap, BTreeSet};

use kakei_config::Name;
use kakei_proxy::stats::{BackendStats, ClusterStats, Lapse, ListenerStats, Sample, Stats, Values};

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
            assert!(matches!(kind, "counter" | "gauge" | "histogram"), "{line}");
            current = Some((name.to_owned(), kind.to_owned()));
        } else if let Some(rest) = line.strip_prefix("# HELP ") {
            assert_eq!(rest.split_once(' ').unwrap().0, current.as_ref().unwrap().0);
        } else {
            let (family, kind) = current.as_ref().expect("a sample belongs to a family");
            let (key, value) = sample(line);
            let name = key.split('{').next().unwrap();
            let suffixes = match kind.as_str() {
                "counter" => &["_total"][..],
                "histogram" => &["_bucket", "_count", "_sum"],
                _ => &[""],
            };
            assert!(suffixes.iter().any(|suffix| name == format!("{family}{suffix}")), "{line}");
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
        times: Vec::new(),
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
        times: None,
    };
    Stats { listeners: vec![listener], clusters: vec![cluster], ..Stats::default() }
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

fn times(millis: &[u64]) -> Box<Times> {
    let mut times = Box::<Times>::default();
    for millis in millis {
        let whole = Duration::from_millis(*millis);
        times.observe(&Sample::from(&Lapse { whole, first_byte: Some(whole / 2), ..Lapse::default() }));
    }
    times
}

#[test]
fn histograms_are_cumulative_and_summed_over_workers() {
    let (mut one, mut two) = (stats(), stats());
    let route = |name: &str| Series::Named(Name::new(name));
    one.listeners[0].times = vec![(Series::Default, times(&[1])), (route("b"), times(&[4, 400]))];
    two.listeners[0].times =
        vec![(route("a"), times(&[90_000])), (route("b"), times(&[6])), (Series::Other, times(&[2]))];
    one.clusters[0].times = Some(times(&[1, 4]));
    (one.other_times, two.other_times) = (Some(times(&[7])), Some(times(&[8])));
    let text = render(&Sums::of([(0, &one), (1, &two)]), &Process::default());
    let samples = strict(&text);
    let listener = "listener=\"we\\\"ird\\\\li\\nstener\"";
    let of = |name: &str, route: &str, le: &str| {
        samples[&format!("{name}_bucket{{{listener},route=\"{route}\",le=\"{le}\"}}")]
    };
    let name = "kakei_route_request_seconds";
    let b = ["0.0025", "0.005", "0.01", "0.25", "0.5", "60.0", "+Inf"].map(|le| of(name, "b", le));
    assert_eq!(b, [0.0, 1.0, 2.0, 2.0, 3.0, 3.0, 3.0]);
    assert_eq!(
        (of(name, "a", "60.0"), of(name, "a", "+Inf"), of(name, "", "0.001"), of(name, "other", "+Inf")),
        (0.0, 1.0, 1.0, 1.0)
    );
    assert_eq!(samples[&format!("{name}_count{{{listener},route=\"b\"}}")], 3.0);
    assert_eq!(samples[&format!("{name}_sum{{{listener},route=\"b\"}}")], 0.41);
    assert_eq!(of("kakei_route_first_byte_seconds", "b", "0.0025"), 1.0);
    assert!(!text.contains("kakei_route_connect_seconds_"), "a series in which nothing was counted is left out");
    assert_eq!(samples["kakei_cluster_request_seconds_count{cluster=\"c\"}"], 2.0);
    assert_eq!(samples["kakei_cluster_request_seconds_sum{cluster=\"other\"}"], 0.015);
}
