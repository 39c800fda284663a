//! What happens on the control side, as it happens: generations, health, ejections, drains, refusals, certificates that
//! are about to expire. Each event has a number; the newest are kept, so that who was away for a moment misses none.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use kakei_config::Name;
use kakei_proxy::snapshot::Generation;
use schemars::JsonSchema;
use serde::Serialize;
use tokio::sync::watch;

use crate::drains::Kind;
use crate::wall;

/// How many events are kept for those who come late.
pub const EVENTS_KEPT: usize = 1024;

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case", tag = "event")]
#[schemars(inline)]
pub enum What {
    /// A generation runs on every worker.
    Generation {
        /// Which.
        generation: Generation,
        /// Where it came from, by whom and why.
        asked: String,
        /// What it changed.
        changes: Vec<String>,
    },
    /// A change waits for backends that it brings.
    Preparing {
        /// Where it came from, by whom and why.
        asked: String,
        /// For what, one line a cluster.
        waits: Vec<String>,
    },
    /// A generation that waited was confirmed.
    Confirmed {
        /// Which.
        generation: Generation,
    },
    /// A change was refused.
    Refused {
        /// Where it came from, by whom and why.
        asked: String,
        /// Why it was.
        reason: String,
    },
    /// A backend that is checked went up or down.
    Health {
        /// Its cluster.
        cluster: Name,
        /// The backend.
        backend: Name,
        /// Its address.
        address: String,
        /// Whether it is up now.
        up: bool,
        /// Where it is down: what came of the newest probe.
        #[serde(skip_serializing_if = "Option::is_none")]
        why: Option<String>,
    },
    /// A worker gives a backend nothing more for a while: its live traffic fails.
    Ejected {
        /// Its cluster.
        cluster: Name,
        /// The backend.
        backend: Name,
        /// Which worker.
        worker: u16,
        /// For how long, in milliseconds.
        for_ms: u64,
    },
    /// Flows, connections and requests were ended because what they stood on was changed: by a deadline, or at once
    /// where their policy says so.
    Cut {
        /// What it was.
        kind: Kind,
        /// Its name.
        name: Name,
        /// A backend's cluster.
        #[serde(skip_serializing_if = "Option::is_none")]
        cluster: Option<Name>,
        /// Why: as in the access log.
        reason: &'static str,
        /// Flows.
        flows: u64,
        /// Connections that carried no request.
        connections: u64,
        /// Requests under way.
        requests: u64,
    },
    /// The process admits nothing more.
    Draining,
    /// The last flow and connection of a draining process have ended.
    Drained,
    /// A worker panicked, and a fresh one took its place; or its thread has ended for good.
    WorkerLost {
        /// Which.
        worker: u16,
        /// What it said.
        reason: String,
    },
    /// A certificate expires soon, or has expired.
    CertificateExpires {
        /// Which.
        certificate: Name,
        /// When, RFC 3339.
        not_after: String,
    },
}

/// An event.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Event {
    /// Its number: one more than that of the event before, and above all that earlier processes gave.
    pub id: u64,
    /// When, RFC 3339.
    pub at: String,
    /// What happened.
    #[serde(flatten)]
    pub what: What,
}

/// The newest events. Written by the owner and its doors, read by whoever listens; a slow reader holds nobody up.
#[derive(Clone, Debug)]
pub struct Events {
    kept: Arc<Mutex<VecDeque<Arc<Event>>>>,
    /// The number of the newest.
    newest: watch::Sender<u64>,
}

impl Events {
    /// None yet, of a process that begins at that time. The numbers are told to who may come back to the next process: they
    /// begin at the milliseconds of its start, above those of the one before.
    pub(crate) fn begin(at: SystemTime) -> Self {
        Events { kept: Arc::default(), newest: watch::Sender::new(wall::unix_millis(at)) }
    }

    /// Something happened.
    pub(crate) fn say(&self, what: What) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let id = *self.newest.borrow() + 1;
        if kept.len() == EVENTS_KEPT {
            kept.pop_front();
        }
        kept.push_back(Arc::new(Event { id, at: wall::rfc3339(SystemTime::now()), what }));
        self.newest.send_replace(id);
    }

    /// Those that are kept with a higher number than this.
    pub fn after(&self, id: u64) -> Vec<Arc<Event>> {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let begin = kept.partition_point(|event| event.id <= id);
        kept.range(begin..).cloned().collect()
    }

    /// The number behind which somebody goes on who saw that one last; nobody saw one that is not there yet, so it is another
    /// process's, and all that are kept are new. Who saw none goes on from now.
    pub fn behind(&self, last: Option<u64>) -> u64 {
        let newest = *self.newest.borrow();
        match last {
            Some(last) if last > newest => 0,
            Some(last) => last,
            None => newest,
        }
    }

    /// The number of the newest, to wait for the next.
    pub fn newest(&self) -> watch::Receiver<u64> {
        self.newest.subscribe()
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;

    fn lost(worker: u16) -> What {
        What::WorkerLost { worker, reason: "test".into() }
    }

    #[test]
    fn the_newest_are_kept_by_number() {
        let events = Events::begin(UNIX_EPOCH);
        for worker in 0..EVENTS_KEPT as u16 + 3 {
            events.say(lost(worker));
        }
        assert_eq!(events.after(0).len(), EVENTS_KEPT);
        assert_eq!(events.after(0)[0].id, 4);
        let last = EVENTS_KEPT as u64 + 3;
        let ids: Vec<u64> = events.after(last - 2).iter().map(|event| event.id).collect();
        assert_eq!(ids, [last - 1, last]);
        assert!(events.after(last).is_empty() && events.after(u64::MAX).is_empty());
        assert_eq!(*events.newest().borrow(), last);
    }

    #[test]
    fn who_comes_from_an_earlier_process_misses_nothing_of_this_one() {
        let start = UNIX_EPOCH + Duration::from_secs(1_800_000_000);
        let before = Events::begin(start);
        before.say(lost(0));
        let seen = before.after(0)[0].id;
        let now = Events::begin(start + Duration::from_secs(1));
        now.say(lost(1));
        now.say(lost(2));
        let heard = |last| now.after(now.behind(last)).iter().map(|event| event.id).collect::<Vec<u64>>();
        let newest = *now.newest().borrow();
        assert_eq!(heard(Some(seen)), [newest - 1, newest]);
        assert!(newest - 1 > seen + 1, "a gap says that some may be forgotten");
        // The clock was set back between the two, or it is no number of ours.
        assert_eq!((heard(Some(newest + 1)), heard(Some(u64::MAX))), (heard(Some(0)), heard(Some(0))));
        assert_eq!((heard(Some(newest - 1)), heard(Some(newest)), heard(None)), (vec![newest], vec![], vec![]));
    }

    #[test]
    fn an_event_names_itself() {
        let event = Event { id: 7, at: "x".into(), what: What::Confirmed { generation: Generation(3) } };
        let json = serde_json::to_value(&event).unwrap();
        assert_eq!(json, serde_json::json!({"id": 7, "at": "x", "event": "confirmed", "generation": 3}));
    }
}
