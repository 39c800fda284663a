//! What a machine counts: plain numbers of its own, copied to shared ones at the end of each tick. No labels, no names
//! of metrics.

use std::sync::atomic::{AtomicU64, Ordering};

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// A machine's counters since it started.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub struct MachineStats {
            $($(#[$doc])* pub $name: u64,)*
        }

        /// The same for other threads to read. Written by one machine only.
        #[derive(Debug, Default)]
        pub(crate) struct SharedStats {
            $($name: AtomicU64,)*
        }

        impl SharedStats {
            pub(crate) fn write(&self, stats: &MachineStats) {
                $(self.$name.store(stats.$name, Ordering::Relaxed);)*
            }

            pub(crate) fn read(&self) -> MachineStats {
                MachineStats { $($name: self.$name.load(Ordering::Relaxed),)* }
            }
        }
    };
}

counters! {
    /// Rounds of collect, step, flush.
    ticks,
    /// System calls to receive.
    receive_calls,
    /// What they returned: walks through the kernel's stack, a train being one.
    receive_messages,
    /// The datagrams in those.
    receive_datagrams,
    /// Received trains.
    receive_trains,
    /// System calls to send.
    send_calls,
    /// What the kernel took: walks through its stack, a train being one.
    send_messages,
    /// Datagrams that the worker asked to send and whose socket was there.
    send_datagrams,
    /// Trains that were given to the kernel.
    send_trains,
    /// Trains that the kernel or the device refused and that left as single datagrams.
    trains_refused,
    /// Datagrams that could not be sent.
    send_failures,
    /// Errors of the network about peers.
    unreachable,
    /// Datagrams that the kernel dropped because a front socket's queue was full.
    overflows,
    /// Clients accepted.
    accepted,
    /// Clients turned away.
    refused,
    /// Times that a front stopped to accept for want of a descriptor.
    accept_pauses,
    /// System calls to read streams.
    stream_reads,
    /// The bytes that came by them.
    stream_bytes_read,
    /// System calls to write to streams.
    stream_writes,
    /// The bytes that the kernel took.
    stream_bytes_written,
    /// Writes of which it did not take all.
    stream_blocks,
    /// System calls to move bytes past the worker.
    splice_calls,
    /// The bytes moved so.
    splice_bytes,
    /// Sockets opened.
    opened,
    /// Sockets that could not be opened.
    open_failures,
    /// Sockets there now, front sockets included.
    sockets,
    /// Access-log records that the log thread was too slow for.
    records_dropped,
    /// Notices that the control side was too slow for.
    notices_dropped,
    /// Panics of the worker.
    panics,
}
