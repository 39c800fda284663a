//! OpenMetrics text: every metric that the workers declare, and the process's own. Counts nothing itself.

use std::fmt::{Display, Write};
use std::time::Duration;

use kakei_config::Name;
use kakei_proxy::record::CloseReason;
use kakei_proxy::stats::{
    BackendMetric, CONNECTIONS_CLOSED, ClusterMetric, DropReason, FLOWS_CLOSED, ListenerMetric, ListenerStats, Metric,
    MetricKind, REFUSED, REPLY_DROPS, REQUEST_DROPS, REQUESTS_ENDED, Refusal, Series, Timed, Times, WorkerMetric,
};

use crate::sums::Sums;

/// The media type of what [`render`] makes.
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// What is known of the process beside the workers' counters.
#[derive(Clone, Debug, Default)]
pub struct Process {
    /// Time since start.
    pub uptime: Duration,
    /// Open file descriptors.
    pub open_fds: u64,
    /// The most that may be open.
    pub max_fds: u64,
    /// Resident memory in bytes.
    pub resident_bytes: u64,
    /// Workers that this process was started with.
    pub workers: u64,
    /// Counters and gauges of single declarations: the machines', the log writer's, the transactions'.
    pub values: Vec<(Metric, u64)>,
    /// Certificates by name, and when each ends to be valid, in seconds since 1970.
    pub certificates: Vec<(Name, i64)>,
}

impl Process {
    /// Fill in what the kernel knows of this process; what can't be read stays 0.
    pub fn measure(&mut self) {
        self.open_fds =
            std::fs::read_dir("/proc/self/fd").map_or(0, |entries| entries.count().saturating_sub(1) as u64);
        let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
        self.max_fds = limit.current.unwrap_or(u64::MAX);
        self.resident_bytes = resident_bytes().unwrap_or(0);
    }
}

fn resident_bytes() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/self/statm").ok()?;
    let pages: u64 = text.split_ascii_whitespace().nth(1)?.parse().ok()?;
    Some(pages * rustix::param::page_size() as u64)
}

const UPTIME: Metric =
    Metric { name: "kakei_uptime_seconds", help: "Time since the process started.", kind: MetricKind::Gauge };
const OPEN_FDS: Metric = Metric { name: "process_open_fds", help: "Open file descriptors.", kind: MetricKind::Gauge };
const MAX_FDS: Metric =
    Metric { name: "process_max_fds", help: "File descriptors that may be open.", kind: MetricKind::Gauge };
const RESIDENT: Metric =
    Metric { name: "process_resident_memory_bytes", help: "Resident memory.", kind: MetricKind::Gauge };
const WORKERS: Metric = Metric { name: "kakei_workers", help: "Workers of this process.", kind: MetricKind::Gauge };

const CERTIFICATE_EXPIRY: Metric = Metric {
    name: "kakei_certificate_expiry_timestamp_seconds",
    help: "When a certificate ends to be valid, in seconds since 1970.",
    kind: MetricKind::Gauge,
};

/// The whole exposition, `# EOF` included.
pub fn render(sums: &Sums, process: &Process) -> String {
    let mut page = Page { text: String::with_capacity(16 * 1024) };
    page.listeners(sums);
    page.clusters(sums);
    page.workers(sums);
    page.family(UPTIME, [(Labels::none(), format_args!("{:.3}", process.uptime.as_secs_f64()))]);
    let plain = [
        (OPEN_FDS, process.open_fds),
        (MAX_FDS, process.max_fds),
        (RESIDENT, process.resident_bytes),
        (WORKERS, process.workers),
    ];
    for (metric, value) in plain.into_iter().chain(process.values.iter().copied()) {
        page.family(metric, [(Labels::none(), value)]);
    }
    let expiries = process.certificates.iter().map(|(name, at)| (Labels::none().and("certificate", name), at));
    page.family(CERTIFICATE_EXPIRY, expiries);
    page.text.push_str("# EOF\n");
    page.text
}

struct Page {
    text: String,
}

impl Page {
    fn listeners(&mut self, sums: &Sums) {
        for metric in ListenerMetric::ALL {
            let samples =
                sums.listeners.iter().map(|(name, of)| (Labels::none().and("listener", name), of.values[metric]));
            self.family(metric.metric(), samples);
        }
        self.by_reason(REQUEST_DROPS, sums, |of| DropReason::ALL.map(DropReason::name).into_iter().zip(of.drops.0));
        let closes = CloseReason::ALL.map(CloseReason::name);
        self.by_reason(FLOWS_CLOSED, sums, |of| closes.into_iter().zip(of.closes.0));
        self.by_reason(CONNECTIONS_CLOSED, sums, |of| closes.into_iter().zip(of.connection_closes.0));
        self.by_reason(REQUESTS_ENDED, sums, |of| closes.into_iter().zip(of.exchange_closes.0));
        self.by_reason(REFUSED, sums, |of| Refusal::ALL.map(Refusal::name).into_iter().zip(of.refusals.0));
        for part in Timed::ALL {
            let series = sums.listeners.iter().flat_map(|(name, of)| {
                let labels = move |route: &Series| Labels::none().and("listener", name).and("route", route.label());
                of.times.iter().map(move |(route, times)| (labels(route), &**times))
            });
            self.times((part.by_route(), part), series);
        }
    }

    /// Counters of listeners, each with the word that it counts for.
    fn by_reason<I: Iterator<Item = (&'static str, u64)>>(
        &mut self,
        metric: Metric,
        sums: &Sums,
        counted: impl Fn(&ListenerStats) -> I,
    ) {
        let samples = sums.listeners.iter().flat_map(|(name, of)| {
            counted(of).map(move |(reason, value)| (Labels::none().and("listener", name).and("reason", reason), value))
        });
        self.family(metric, samples);
    }

    fn clusters(&mut self, sums: &Sums) {
        for metric in ClusterMetric::ALL {
            let samples =
                sums.clusters.iter().map(|(name, of)| (Labels::none().and("cluster", name), of.values[metric]));
            self.family(metric.metric(), samples);
        }
        let drops = sums.clusters.iter().flat_map(|(name, of)| {
            DropReason::ALL
                .iter()
                .zip(of.drops.0)
                .map(move |(reason, value)| (Labels::none().and("cluster", name).and("reason", reason.name()), value))
        });
        self.family(REPLY_DROPS, drops);
        for metric in BackendMetric::ALL {
            let samples = sums.clusters.iter().flat_map(|(name, cluster)| {
                cluster.backends.iter().map(move |of| {
                    let labels = Labels::none().and("cluster", name).and("backend", &of.backend);
                    (labels.and("address", &of.address), of.values[metric])
                })
            });
            self.family(metric.metric(), samples);
        }
        for part in Timed::ALL {
            let named = sums.clusters.iter().filter_map(|(name, of)| Some((name.as_str(), of.times.as_deref()?)));
            let other = sums.other_times.iter().map(|times| (Series::OTHER, &**times));
            let series = named.chain(other).map(|(name, times)| (Labels::none().and("cluster", name), times));
            self.times((part.by_cluster(), part), series);
        }
    }

    /// Histograms of one part of requests' times; series in which nothing was counted are left out.
    fn times<'a>(&mut self, (metric, part): (Metric, Timed), series: impl Iterator<Item = (Labels, &'a Times)>) {
        self.begin(metric);
        let name = metric.name;
        for (labels, times) in series {
            let histogram = times.of(part);
            if histogram.count() == 0 {
                continue;
            }
            for (bound, count) in histogram.buckets() {
                let labels = labels.clone().and("le", bound).finish();
                self.put(format_args!("{name}_bucket{labels} {count}\n"));
            }
            let labels = labels.finish();
            self.put(format_args!("{name}_count{labels} {}\n", histogram.count()));
            self.put(format_args!("{name}_sum{labels} {:.9}\n", histogram.sum().as_secs_f64()));
        }
    }

    fn workers(&mut self, sums: &Sums) {
        for metric in WorkerMetric::ALL {
            let samples =
                sums.workers.iter().map(|(index, values)| (Labels::none().and("worker", index), values[metric]));
            self.family(metric.metric(), samples);
        }
    }

    /// One metric family: its type, its help, its samples. A counter's samples end in `_total`, the family does not.
    fn family<V: Display>(&mut self, metric: Metric, samples: impl IntoIterator<Item = (Labels, V)>) {
        self.begin(metric);
        let name = metric.name;
        let suffix = if metric.kind == MetricKind::Counter { "_total" } else { "" };
        for (labels, value) in samples {
            self.put(format_args!("{name}{suffix}{} {value}\n", labels.finish()));
        }
    }

    fn begin(&mut self, Metric { name, help, kind }: Metric) {
        let kind = match kind {
            MetricKind::Counter => "counter",
            MetricKind::Gauge => "gauge",
            MetricKind::Histogram => "histogram",
        };
        self.put(format_args!("# TYPE {name} {kind}\n# HELP {name} {}\n", escape(help)));
    }

    fn put(&mut self, text: std::fmt::Arguments<'_>) {
        self.text.write_fmt(text).expect("writing to a string never fails");
    }
}

/// The label set of a sample, written as it is put together.
#[derive(Clone)]
struct Labels(String);

impl Labels {
    fn none() -> Self {
        Labels(String::new())
    }

    fn and(mut self, name: &str, value: impl Display) -> Self {
        let separator = if self.0.is_empty() { '{' } else { ',' };
        let value = escape(&value.to_string());
        self.0.push(separator);
        write!(self.0, "{name}=\"{value}\"").expect("writing to a string never fails");
        self
    }

    fn finish(mut self) -> String {
        if !self.0.is_empty() {
            self.0.push('}');
        }
        self.0
    }
}

/// OpenMetrics escapes backslash, newline and the double quote, in labels and in help texts.
fn escape(text: &str) -> String {
    text.replace('\\', "\\\\").replace('\n', "\\n").replace('"', "\\\"")
}

#[cfg(test)]
mod tests;
