//! How much of its route's rate limits is used up for a request: what the workers said, each of its own share. Asks nobody.

use std::collections::BTreeMap;
use std::time::Duration;

use kakei_config::{RateKey, RateLimit};
use kakei_proxy::seam::{RateUse, Used};
use kakei_proxy::snapshot::Metered;
use schemars::JsonSchema;
use serde::Serialize;

/// How much of a limit is used up.
#[derive(Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(rename = "ExplainedRate")]
pub struct Rated {
    /// The limit, as it is among `rate_limits`.
    pub limit: String,
    /// Whose requests count together with this one.
    pub of: String,
    /// Requests that are used up, in all workers: each is one that can't pass now, or one that is under way.
    pub used: u64,
    /// Of so many. Shares of workers are rounded up, so that it may be more than the limit.
    pub most: u64,
    /// After how long one more may pass in some worker, in milliseconds; 0: at once; none: when one of those under way ends.
    pub next_in_ms: Option<u64>,
    /// The same of each worker that answered. A connection stays with one of them.
    pub workers: Vec<RatedWorker>,
}

/// How much of a worker's share of a limit is used up.
#[derive(Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(rename = "ExplainedWorkerRate")]
pub struct RatedWorker {
    /// Which worker.
    pub worker: u16,
    /// Requests that are used up.
    pub used: u32,
    /// Of so many.
    pub most: u32,
    /// After how long one more may pass, in milliseconds; 0: at once; none: when one of those under way ends.
    pub next_in_ms: Option<u64>,
    /// Whether they are counted with others, for want of room.
    pub shared: bool,
}

/// A row for each of the limits, as [`words`] has them; none where no worker answered.
pub(super) fn rows(of: &Metered, said: &BTreeMap<u16, Vec<RateUse>>) -> Vec<Rated> {
    let limits = of.rule.spec.rate_limits.iter().enumerate();
    let rows = limits.filter(|_| !said.is_empty()).flat_map(|(number, limit)| {
        let whose = whose(of, number, &limit.by);
        words(limit).map(move |(kind, limit)| {
            let answers = said.iter().filter_map(|(worker, uses)| Some((*worker, uses.get(number)?)));
            let workers = answers.filter_map(|(worker, uses)| Some(row(worker, kind.of(uses)?, uses.is_shared)));
            summed(limit, whose.clone(), workers.collect())
        })
    });
    rows.collect()
}

fn row(worker: u16, Used { used, most, next }: Used, shared: bool) -> RatedWorker {
    // What is left of a millisecond is waited for too.
    let ms = |next: Duration| u64::try_from(next.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX);
    RatedWorker { worker, used, most, next_in_ms: next.map(ms), shared }
}

fn summed(limit: String, of: String, workers: Vec<RatedWorker>) -> Rated {
    Rated {
        limit,
        of,
        used: workers.iter().map(|row| u64::from(row.used)).sum(),
        most: workers.iter().map(|row| u64::from(row.most)).sum(),
        next_in_ms: workers.iter().filter_map(|row| row.next_in_ms).min(),
        workers,
    }
}

fn whose(of: &Metered, number: usize, by: &RateKey) -> String {
    match by {
        RateKey::Client => format!("client {}", of.client.to_canonical()),
        RateKey::Route => "the route".to_owned(),
        RateKey::Header(name) => match of.values.get(number).map_or(&[][..], Vec::as_slice) {
            [] => format!("without {name}"),
            values => {
                let values: Vec<_> = values.iter().map(|value| String::from_utf8_lossy(value)).collect();
                format!("{name}: {}", values.join(", "))
            }
        },
    }
}

/// What a limit bounds.
#[derive(Clone, Copy)]
pub(super) enum Kind {
    /// Requests in a time.
    Paced,
    /// Requests at one time.
    Concurrent,
}

impl Kind {
    fn of(self, uses: &RateUse) -> Option<Used> {
        match self {
            Kind::Paced => uses.paced,
            Kind::Concurrent => uses.concurrent,
        }
    }
}

/// A limit in words: one bounds requests in a time, requests at one time, or both.
pub(super) fn words(limit: &RateLimit) -> impl Iterator<Item = (Kind, String)> {
    let by = match &limit.by {
        RateKey::Client => "for each client".to_owned(),
        RateKey::Header(name) => format!("for each value of {name}"),
        RateKey::Route => "of the route as a whole".to_owned(),
    };
    let burst = if limit.burst > 0 { format!(", {} at once", limit.burst) } else { String::new() };
    let paced = (limit.requests > 0).then(|| format!("{} in {:?} {by}{burst}", limit.requests, limit.per));
    let at_once = (limit.concurrent > 0).then(|| format!("{} under way {by}", limit.concurrent));
    let paced = paced.map(|words| (Kind::Paced, words));
    paced.into_iter().chain(at_once.map(|words| (Kind::Concurrent, words)))
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;
    use std::sync::Arc;

    use kakei_config::{Document, Listener, Protocol, Route};
    use kakei_proxy::snapshot::{Generation, Imagined, Shared, Snapshot};

    use super::*;

    fn metered(limits: Vec<RateLimit>, client: IpAddr, fields: &[(String, String)]) -> Arc<Metered> {
        let route =
            Route { listener: "web".into(), cluster: Some("c".into()), rate_limits: limits, ..Route::default() };
        let document = Document {
            listeners: [("web".into(), Listener { protocol: Protocol::Http, ..Listener::default() })].into(),
            routes: [("r".into(), route)].into(),
            ..Document::default()
        };
        let shared = Shared { workers: 2, balance_seed: 0 };
        let snapshot = Snapshot::compile(&document, Generation(1), shared, None);
        let http = snapshot.listeners.values().next().unwrap().http.clone().unwrap();
        http.decide(&Imagined { client, method: "GET", url: "http://a/", fields }).metered.unwrap()
    }

    fn used(used: u32, most: u32, next: Option<Duration>) -> Option<Used> {
        Some(Used { used, most, next })
    }

    #[test]
    fn what_workers_say_is_added_up_limit_by_limit() {
        let both = RateLimit { requests: 9, concurrent: 3, ..RateLimit::default() };
        let key = RateLimit { requests: 1, burst: 2, by: RateKey::Header("x-key".into()), ..RateLimit::default() };
        let client = "::ffff:192.0.2.7".parse().unwrap();
        let of = metered(vec![both, key], client, &[("x-key".into(), "a".into())]);
        let (now, later) = (Some(Duration::ZERO), Duration::from_micros(1_001));
        let one = |paced, concurrent| RateUse { paced, concurrent, is_shared: false };
        let full = RateUse { is_shared: true, ..one(used(1, 1, Some(Duration::from_secs(5))), None) };
        let said = [
            (0, vec![one(used(5, 5, Some(later)), used(2, 2, None)), one(used(0, 1, now), None)]),
            (1, vec![one(used(2, 5, now), used(2, 2, None)), full]),
        ];
        let rows = rows(&of, &said.into());
        let summed: Vec<_> =
            rows.iter().map(|row| (row.limit.as_str(), row.of.as_str(), row.used, row.most, row.next_in_ms)).collect();
        let expected = [
            ("9 in 1s for each client", "client 192.0.2.7", 7, 10, Some(0)),
            ("3 under way for each client", "client 192.0.2.7", 4, 4, None),
            ("1 in 1s for each value of x-key, 2 at once", "x-key: a", 1, 2, Some(0)),
        ];
        assert_eq!(summed, expected);
        let workers = |at: usize| rows[at].workers.iter().map(|row| (row.worker, row.used, row.next_in_ms, row.shared));
        assert_eq!(workers(0).collect::<Vec<_>>(), [(0, 5, Some(2), false), (1, 2, Some(0), false)]);
        assert_eq!(workers(2).collect::<Vec<_>>(), [(0, 0, Some(0), false), (1, 1, Some(5_000), true)]);
    }

    #[test]
    fn where_no_worker_answers_there_is_nothing_to_say() {
        let by = |by| RateLimit { requests: 1, by, ..RateLimit::default() };
        let of = metered(vec![by(RateKey::Route), by(RateKey::Header("x-key".into()))], [192, 0, 2, 7].into(), &[]);
        assert_eq!(rows(&of, &BTreeMap::new()), []);
        let nothing = RateUse { paced: used(0, 1, Some(Duration::ZERO)), concurrent: None, is_shared: false };
        let said = [(1, vec![nothing; 2])].into();
        let rows = rows(&of, &said);
        assert_eq!((rows[0].of.as_str(), rows[1].of.as_str(), rows[1].most), ("the route", "without x-key", 1));
    }
}
