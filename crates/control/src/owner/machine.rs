//! What the machines count, as metrics: each declared once here. Counts nothing.

use kakei_proxy::stats::{Metric, MetricKind};
use kakei_runtime::stats::MachineStats;

/// A counter of the machines: its declaration and where it stands.
type Declared = (&'static str, &'static str, MetricKind, fn(&MachineStats) -> u64);

const DECLARED: &[Declared] = &[
    ("kakei_machine_ticks", "Rounds of collect, step, flush.", MetricKind::Counter, |m| m.ticks),
    ("kakei_machine_receive_calls", "System calls to receive.", MetricKind::Counter, |m| m.receive_calls),
    ("kakei_machine_receive_messages", "Datagrams and trains received.", MetricKind::Counter, |m| m.receive_messages),
    ("kakei_machine_receive_datagrams", "Datagrams in those.", MetricKind::Counter, |m| m.receive_datagrams),
    ("kakei_machine_receive_trains", "Trains received as one.", MetricKind::Counter, |m| m.receive_trains),
    ("kakei_machine_send_calls", "System calls to send.", MetricKind::Counter, |m| m.send_calls),
    ("kakei_machine_send_messages", "Datagrams and trains sent.", MetricKind::Counter, |m| m.send_messages),
    ("kakei_machine_send_datagrams", "Datagrams in those.", MetricKind::Counter, |m| m.send_datagrams),
    ("kakei_machine_send_trains", "Trains sent as one.", MetricKind::Counter, |m| m.send_trains),
    (
        "kakei_machine_trains_refused",
        "Trains that the kernel refused and that left as single datagrams.",
        MetricKind::Counter,
        |m| m.trains_refused,
    ),
    ("kakei_machine_send_failures", "Datagrams that could not be sent.", MetricKind::Counter, |m| m.send_failures),
    ("kakei_machine_unreachable", "Errors of the network about peers.", MetricKind::Counter, |m| m.unreachable),
    (
        "kakei_machine_overflows",
        "Datagrams the kernel dropped because a front socket's queue was full.",
        MetricKind::Counter,
        |m| m.overflows,
    ),
    ("kakei_machine_accepted", "Clients accepted.", MetricKind::Counter, |m| m.accepted),
    ("kakei_machine_refused", "Clients turned away.", MetricKind::Counter, |m| m.refused),
    (
        "kakei_machine_accept_pauses",
        "Times that a front stopped to accept for want of a descriptor.",
        MetricKind::Counter,
        |m| m.accept_pauses,
    ),
    ("kakei_machine_stream_reads", "System calls to read streams.", MetricKind::Counter, |m| m.stream_reads),
    ("kakei_machine_stream_read_bytes", "Bytes that came by them.", MetricKind::Counter, |m| m.stream_bytes_read),
    ("kakei_machine_stream_writes", "System calls to write to streams.", MetricKind::Counter, |m| m.stream_writes),
    ("kakei_machine_stream_written_bytes", "Bytes that the kernel took.", MetricKind::Counter, |m| {
        m.stream_bytes_written
    }),
    ("kakei_machine_stream_blocks", "Writes of which the kernel did not take all.", MetricKind::Counter, |m| {
        m.stream_blocks
    }),
    ("kakei_machine_splice_calls", "System calls to move bytes past the workers.", MetricKind::Counter, |m| {
        m.splice_calls
    }),
    ("kakei_machine_splice_bytes", "Bytes moved so.", MetricKind::Counter, |m| m.splice_bytes),
    ("kakei_machine_sockets_opened", "Sockets opened.", MetricKind::Counter, |m| m.opened),
    ("kakei_machine_open_failures", "Sockets that could not be opened.", MetricKind::Counter, |m| m.open_failures),
    ("kakei_machine_sockets", "Sockets open.", MetricKind::Gauge, |m| m.sockets),
    (
        "kakei_access_log_dropped",
        "Access-log records that the log thread was too slow for.",
        MetricKind::Counter,
        |m| m.records_dropped,
    ),
    ("kakei_notices_dropped", "Notices of workers that the control side was too slow for.", MetricKind::Counter, |m| {
        m.notices_dropped
    }),
    ("kakei_worker_panics", "Workers that panicked and were started again.", MetricKind::Counter, |m| m.panics),
];

/// Each counter, added up over the machines.
pub(super) fn values(machines: &[MachineStats]) -> impl Iterator<Item = (Metric, u64)> {
    DECLARED.iter().map(|&(name, help, kind, value)| (Metric { name, help, kind }, machines.iter().map(value).sum()))
}
