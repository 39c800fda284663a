//! What a worker that is driven by hand has counted.

use kakei_proxy::seam::{Command, Event, Op, Reply, Ticket};
use kakei_proxy::stats::{BackendMetric, ListenerMetric};

use crate::common::Bench;

impl Bench {
    /// What the listener has counted, and after it each backend of the only cluster.
    pub(crate) fn counted<const B: usize>(
        &mut self,
        of_listener: ListenerMetric,
        of_backends: [BackendMetric; B],
    ) -> (u64, Vec<[u64; B]>) {
        let ops = self.step(vec![Event::Command { ticket: Ticket(9), command: Command::Stats }], b"");
        let told = ops.into_iter().find_map(|op| match op {
            Op::Reply { reply: Reply::Stats(stats), .. } => Some(stats),
            _ => None,
        });
        let stats = told.expect("an answer");
        let of = |values: &dyn Fn(BackendMetric) -> u64| of_backends.map(values);
        let backends = stats.clusters[0].backends.iter().map(|backend| of(&|metric| backend.values[metric]));
        (stats.listeners[0].values[of_listener], backends.collect())
    }
}
