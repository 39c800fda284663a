//! How long requests took: histograms with fixed bounds, in plain integers. To count one is a look into a
//! table, one comparison and two additions; nothing is allocated for it.

use std::time::Duration;

use kakei_config::Name;
use serde::{Deserialize, Serialize};

use super::{Metric, MetricKind};

/// The upper bounds of the buckets: in nanoseconds, and in seconds as OpenMetrics writes them. One more bucket takes
/// everything beyond.
pub(super) const BOUNDS: [(u64, &str); 16] = [
    (500_000, "0.0005"),
    (1_000_000, "0.001"),
    (2_500_000, "0.0025"),
    (5_000_000, "0.005"),
    (10_000_000, "0.01"),
    (25_000_000, "0.025"),
    (50_000_000, "0.05"),
    (100_000_000, "0.1"),
    (250_000_000, "0.25"),
    (500_000_000, "0.5"),
    (1_000_000_000, "1.0"),
    (2_500_000_000, "2.5"),
    (5_000_000_000, "5.0"),
    (10_000_000_000, "10.0"),
    (30_000_000_000, "30.0"),
    (60_000_000_000, "60.0"),
];

/// By the position of a time's highest bit, the bucket of the least time that has it.
static FIRST: [usize; 64] = {
    let (mut first, mut bit) = ([0; 64], 0);
    while bit < first.len() {
        while first[bit] < BOUNDS.len() && BOUNDS[first[bit]].0 < 1 << bit {
            first[bit] += 1;
        }
        assert!(
            bit == 0 || first[bit] <= first[bit - 1] + 1,
            "of times with as many bits one bound lies between at most"
        );
        bit += 1;
    }
    first
};

/// Which part of a request's time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Timed {
    /// All of it.
    Whole,
    /// Until its response began.
    FirstByte,
    /// Until the connection to its backend was open, where one was opened.
    Connect,
    /// In the queue, where it had to wait.
    Queue,
}

macro_rules! declared {
    ($name:literal, $help:literal) => {
        Metric { name: $name, help: $help, kind: MetricKind::Histogram }
    };
}

impl Timed {
    /// Every one, in the order of [`Times`].
    pub const ALL: [Timed; 4] = [Timed::Whole, Timed::FirstByte, Timed::Connect, Timed::Queue];

    /// Its declaration, by route; labels listener and route.
    pub const fn by_route(self) -> Metric {
        match self {
            Timed::Whole => declared!("kakei_route_request_seconds", "How long HTTP requests took, by route."),
            Timed::FirstByte => {
                declared!(
                    "kakei_route_first_byte_seconds",
                    "From the heads of HTTP requests to those of their responses, by route."
                )
            }
            Timed::Connect => {
                declared!(
                    "kakei_route_connect_seconds",
                    "How long connections that were opened for HTTP requests took, by route."
                )
            }
            Timed::Queue => {
                declared!(
                    "kakei_route_queue_seconds",
                    "How long HTTP requests that had to wait for a backend with room did, by route."
                )
            }
        }
    }

    /// Its declaration, by cluster; label cluster.
    pub const fn by_cluster(self) -> Metric {
        match self {
            Timed::Whole => declared!("kakei_cluster_request_seconds", "How long HTTP requests took, by cluster."),
            Timed::FirstByte => {
                declared!(
                    "kakei_cluster_first_byte_seconds",
                    "From the heads of HTTP requests to those of their responses, by cluster."
                )
            }
            Timed::Connect => {
                declared!(
                    "kakei_cluster_connect_seconds",
                    "How long connections that were opened for HTTP requests took, by cluster."
                )
            }
            Timed::Queue => {
                declared!(
                    "kakei_cluster_queue_seconds",
                    "How long HTTP requests that had to wait for a backend with room did, by cluster."
                )
            }
        }
    }
}

/// A request's time by its parts; what it had none of is left out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lapse {
    /// All of it.
    pub whole: Duration,
    /// From its head to the head of its response.
    pub first_byte: Option<Duration>,
    /// The connection to its backend.
    pub connect: Option<Duration>,
    /// In the queue.
    pub queued: Option<Duration>,
    /// Until it was known whether it may pass.
    #[serde(default)]
    pub checked: Option<Duration>,
}

/// How many took how long.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Histogram {
    counts: [u64; BOUNDS.len() + 1],
    nanos: u64,
}

/// A request's time by its parts, ready to be counted in any number of series.
#[derive(Clone, Copy, Debug)]
pub struct Sample([Option<Part>; Timed::ALL.len()]);

/// A time, and the bucket that it falls in.
#[derive(Clone, Copy, Debug)]
struct Part {
    nanos: u64,
    bucket: usize,
}

impl From<Duration> for Part {
    fn from(time: Duration) -> Self {
        let nanos = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        let first = FIRST[nanos.checked_ilog2().unwrap_or(0) as usize];
        let is_over = BOUNDS.get(first).is_some_and(|(bound, _)| *bound < nanos);
        Part { nanos, bucket: first + usize::from(is_over) }
    }
}

impl From<&Lapse> for Sample {
    fn from(lapse: &Lapse) -> Self {
        let parts = [Some(lapse.whole), lapse.first_byte, lapse.connect, lapse.queued];
        Sample(parts.map(|time| time.map(Part::from)))
    }
}

impl Histogram {
    fn observe(&mut self, part: Part) {
        self.counts[part.bucket] += 1;
        self.nanos = self.nanos.saturating_add(part.nanos);
    }

    fn add(&mut self, other: &Self) {
        self.counts.iter_mut().zip(other.counts).for_each(|(mine, theirs)| *mine += theirs);
        self.nanos = self.nanos.saturating_add(other.nanos);
    }

    /// Of each bucket its upper bound, as it is written, and how many took no longer.
    pub fn buckets(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let bounds = BOUNDS.iter().map(|(_, text)| *text).chain(["+Inf"]);
        bounds.zip(&self.counts).scan(0, |sum, (bound, count)| {
            *sum += count;
            Some((bound, *sum))
        })
    }

    /// How many there were.
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// All their time together.
    pub fn sum(&self) -> Duration {
        Duration::from_nanos(self.nanos)
    }
}

/// One histogram for each part of a request's time.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Times([Histogram; Timed::ALL.len()]);

impl Times {
    /// Count a request.
    pub fn observe(&mut self, sample: &Sample) {
        for (histogram, part) in self.0.iter_mut().zip(sample.0) {
            if let Some(part) = part {
                histogram.observe(part);
            }
        }
    }

    /// Add another worker's.
    pub fn add(&mut self, other: &Self) {
        self.0.iter_mut().zip(&other.0).for_each(|(mine, theirs)| mine.add(theirs));
    }

    /// Those of a part.
    pub fn of(&self, part: Timed) -> &Histogram {
        &self.0[part as usize]
    }
}

/// Whose times a series counts. The names of routes are the operator's; nothing that a client sends names one.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Series {
    /// A listener's own cluster.
    Default,
    /// This route, or cluster.
    Named(Name),
    /// All those beyond the number that is counted one by one.
    Other,
}

impl Series {
    /// The label's value of those that aren't counted one by one; no object of this name is.
    pub const OTHER: &'static str = "other";

    /// The label's value.
    pub fn label(&self) -> &str {
        match self {
            Series::Default => "",
            Series::Named(name) => name.as_str(),
            Series::Other => Series::OTHER,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_counted_in_the_first_bucket_that_holds_it() {
        let mut histogram = Histogram::default();
        let times = [0, 500_000, 500_001, 1_000_000_000, 60_000_000_000, 60_000_000_001];
        times.map(Duration::from_nanos).iter().for_each(|time| histogram.observe(Part::from(*time)));
        let at = |bound| histogram.buckets().find(|(text, _)| *text == bound).unwrap().1;
        assert_eq!([at("0.0005"), at("0.001"), at("0.5"), at("1.0"), at("60.0"), at("+Inf")], [2, 3, 3, 4, 5, 6]);
        assert_eq!((histogram.count(), histogram.sum()), (6, Duration::from_nanos(121_001_000_002)));
    }

    #[test]
    fn the_table_says_what_a_search_would() {
        let ends = BOUNDS.map(|(bound, _)| bound).into_iter().chain((0..64).map(|bit| 1 << bit)).chain([0, u64::MAX]);
        for nanos in ends.flat_map(|end: u64| [end.saturating_sub(1), end, end.saturating_add(1)]) {
            let part = Part::from(Duration::from_nanos(nanos));
            assert_eq!(part.bucket, BOUNDS.partition_point(|(bound, _)| *bound < nanos), "{nanos}");
        }
    }

    #[test]
    fn bounds_grow_and_are_written_as_they_are() {
        assert!(BOUNDS.windows(2).all(|pair| pair[0].0 < pair[1].0));
        for (nanos, text) in BOUNDS {
            assert_eq!((text.parse::<f64>().unwrap() * 1e9).round() as u64, nanos);
            assert!(text.contains('.'), "OpenMetrics writes {text} with a point");
        }
    }
}
