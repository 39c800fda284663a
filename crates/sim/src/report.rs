//! What a run was and what it broke, for people and for tests. Decides nothing.

use std::collections::VecDeque;
use std::fmt;
use std::time::Duration;

use kakei_proxy::seam::Instant;

pub use crate::check::Counters;

/// Lines of a trace that are kept: the last ones.
const TRACE: usize = 100_000;

/// The contract was broken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// When, in virtual time.
    pub at: Instant,
    /// By which worker.
    pub worker: Option<u16>,
    /// What was broken.
    pub what: String,
}

/// What a run was and what it broke.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// The seed that replays it.
    pub seed: u64,
    /// What kind of run it was, in a few words.
    pub kind: String,
    /// Virtual time that passed.
    pub lasted: Duration,
    /// What happened.
    pub counters: Counters,
    /// Datagrams that the network lost.
    pub lost: u64,
    /// Datagrams that the network doubled.
    pub doubled: u64,
    /// A digest of everything that happened: equal for equal runs.
    pub digest: u64,
    /// What was broken; empty where all is well.
    pub violations: Vec<Violation>,
    /// What happened, line by line, where that was asked for.
    pub trace: Vec<String>,
}

impl Report {
    /// Whether nothing was broken.
    pub fn is_clean(&self) -> bool {
        self.violations.is_empty()
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", Stamp(self.at))?;
        if let Some(worker) = self.worker {
            write!(f, " worker {worker}")?;
        }
        write!(f, ": {}", self.what)
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for line in &self.trace {
            writeln!(f, "{line}")?;
        }
        let c = &self.counters;
        writeln!(
            f,
            "seed {}: {}, {:.3} s, digest {:016x}",
            self.seed,
            self.kind,
            self.lasted.as_secs_f64(),
            self.digest
        )?;
        writeln!(
            f,
            "  clients: {} datagrams received, {} forwarded; {} replies received, {} returned; {} sends failed",
            c.requests_received, c.requests_forwarded, c.replies_received, c.replies_returned, c.sends_failed
        )?;
        writeln!(f, "  flows: {} opened, {} recorded, {} moved", c.flows_opened, c.flows_recorded, c.flows_moved)?;
        writeln!(
            f,
            "  changes: {}; restores: {}; steps: {}; probes: {}; sockets refused: {}; ICMP errors: {}; network lost {}, doubled {}",
            c.changes, c.restores, c.steps, c.probes, c.open_failures, c.unreachable, self.lost, self.doubled
        )?;
        for violation in &self.violations {
            writeln!(f, "  BROKEN {violation}")?;
        }
        if self.is_clean() {
            writeln!(f, "  nothing was broken")?;
        }
        Ok(())
    }
}

/// Virtual time as seconds and microseconds.
struct Stamp(Instant);

impl fmt::Display for Stamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let micros = self.0.as_nanos() / 1_000;
        write!(f, "{:>4}.{:06}", micros / 1_000_000, micros % 1_000_000)
    }
}

/// Writes down what happens: a digest always, lines where asked for.
#[derive(Debug)]
pub(crate) struct Trace {
    wanted: bool,
    lines: VecDeque<String>,
    digest: u64,
}

impl Trace {
    pub(crate) fn new(wanted: bool) -> Self {
        Trace { wanted, lines: VecDeque::new(), digest: 0xcbf2_9ce4_8422_2325 }
    }

    /// Something happened.
    pub(crate) fn line(&mut self, at: Instant, what: impl FnOnce() -> String) {
        if self.wanted {
            if self.lines.len() == TRACE {
                self.lines.pop_front();
            }
            self.lines.push_back(format!("{} {}", Stamp(at), what()));
        }
    }

    /// Fold bytes into the digest.
    pub(crate) fn fold(&mut self, at: Instant, bytes: &[u8]) {
        for byte in at.as_nanos().to_le_bytes().iter().chain(bytes) {
            self.digest = (self.digest ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }

    pub(crate) fn into_parts(self) -> (u64, Vec<String>) {
        (self.digest, self.lines.into())
    }
}
