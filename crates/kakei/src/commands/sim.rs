//! `kakei sim`: the simulator on the operator's own document, or on documents that it makes up. Touches no network.

use std::io::IsTerminal;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicU64, Ordering};

use kakei::config::{Document, Protocol};
use kakei_sim::{Options, Report};
use serde_json::{Value, json};

use super::document::Source;
use crate::cli::{Format, Sim};
use crate::say::{self, Failure};

/// Reports of broken seeds that are kept.
const KEPT: usize = 20;
/// How often progress is shown, in seeds.
const STRIDE: u64 = 20;

pub(super) fn sim(sim: &Sim) -> Result<(), Failure> {
    let document = sim.config.as_deref().map(|file| Source::read(file)?.document()).transpose()?;
    let has_streams =
        |document: &Document| document.listeners.values().any(|listener| listener.protocol != Protocol::Udp);
    if document.as_ref().is_some_and(has_streams) {
        say::err(
            "note: the TCP and HTTP listeners of the document are left out; streams and requests are simulated on documents made up from the seeds, without -c\n",
        );
    }
    match sim.seed {
        Some(seed) => replay(document.as_ref(), seed, sim.output.output),
        None => sweep(document.as_ref(), sim.seeds, sim.output.output),
    }
}

fn replay(document: Option<&Document>, seed: u64, format: Format) -> Result<(), Failure> {
    let report = kakei_sim::run_document(document, seed, &Options { trace: true, ..Options::default() });
    let streams = streams(document, seed);
    match format {
        Format::Table => say::out(&report.to_string()),
        Format::Json => say::out(&format!("{}\n", as_json(&report, &streams))),
    }
    streams.iter().for_each(|line| say::err(&format!("{line}\n")));
    match report.violations.len() + streams.len() {
        0 => Ok(()),
        broken => Err(Failure::refused(format!(
            "seed {seed} broke the contract {broken} time(s); please report it with the document"
        ))),
    }
}

/// What was wrong with the streams of a seed, where it makes its document up.
fn streams(document: Option<&Document>, seed: u64) -> Vec<String> {
    if document.is_some() {
        return Vec::new();
    }
    let report = kakei_sim::run_streams(seed);
    let requests = [kakei_sim::run_http(seed), kakei_sim::run_http_guarded(seed)];
    let requests = requests.into_iter().flat_map(|report| report.violations);
    let requests = requests.map(|wrong| format!("HTTP of seed {seed}: {wrong}"));
    let streams = report.violations.into_iter().map(|wrong| format!("streams of seed {seed}: {wrong}"));
    streams.chain(requests).collect()
}

fn sweep(document: Option<&Document>, seeds: u64, format: Format) -> Result<(), Failure> {
    let (next, broken) = (AtomicU64::new(0), Mutex::new(Vec::new()));
    let count = AtomicU64::new(0);
    let progress = std::io::stderr().is_terminal();
    let threads = std::thread::available_parallelism().map_or(1, |n| n.get());
    let work = || {
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= seeds {
                return;
            }
            if progress && seed.is_multiple_of(STRIDE) {
                say::err(&format!("\r{seed} of {seeds} seeds"));
            }
            let report = kakei_sim::run_document(document, seed, &Options::default());
            let streams = streams(document, seed);
            streams.iter().for_each(|line| say::err(&format!("{line}\n")));
            if !report.is_clean() || !streams.is_empty() {
                count.fetch_add(1, Ordering::Relaxed);
                let mut broken = broken.lock().unwrap_or_else(PoisonError::into_inner);
                if broken.len() < KEPT {
                    broken.push((report, streams));
                }
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(work);
        }
    });
    if progress {
        say::err("\r\u{1b}[K");
    }
    let mut broken = broken.into_inner().unwrap_or_else(PoisonError::into_inner);
    broken.sort_by_key(|(report, _)| report.seed);
    told(seeds, count.into_inner(), &broken, format)
}

fn told(seeds: u64, count: u64, broken: &[(Report, Vec<String>)], format: Format) -> Result<(), Failure> {
    match format {
        Format::Json => {
            let reports: Vec<Value> = broken.iter().map(|(report, streams)| as_json(report, streams)).collect();
            say::out(&format!("{}\n", json!({"seeds": seeds, "broken": count, "reports": reports})));
        }
        Format::Table => {
            broken.iter().for_each(|(report, _)| say::out(&report.to_string()));
            say::out(&format!("{seeds} seeds: {} clean, {count} broken\n", seeds - count));
        }
    }
    match broken.first() {
        None => Ok(()),
        Some((first, _)) => Err(Failure::refused(format!(
            "{count} of {seeds} seeds broke the contract; see what happened with `kakei sim --seed {}` and the same document",
            first.seed
        ))),
    }
}

fn as_json(report: &Report, streams: &[String]) -> Value {
    let datagrams = report.violations.iter().map(ToString::to_string);
    let broken: Vec<String> = datagrams.chain(streams.iter().cloned()).collect();
    json!({
        "seed": report.seed,
        "kind": report.kind,
        "virtual_ms": u64::try_from(report.lasted.as_millis()).unwrap_or(u64::MAX),
        "digest": format!("{:016x}", report.digest),
        "broken": broken,
        "trace": report.trace,
    })
}
