//! A client that said itself that its request is its last one, and has its answer: its connection is closed at once,
//! without the time that others are given to read what they were told. Who keeps its word leaves nothing unread, and only
//! that would make a reset of the close (RFC 9112 9.6). It happens with the step after the answer, when it is known
//! whether the kernel took all of it. Who sends something all the same is given time like the others where it comes with
//! that step; later it risks the end of a long answer, as with nginx.

use super::Http;
use super::session::{SessionId, Stage};
use crate::record::CloseReason;
use crate::world::{Tick, World};

/// Those that are about to be closed.
#[derive(Debug, Default)]
pub(super) struct Partings {
    /// Answered in this step.
    fresh: Vec<SessionId>,
    /// Answered in the step before.
    due: Vec<SessionId>,
}

impl Partings {
    pub(super) fn any_due(&self) -> bool {
        !self.due.is_empty()
    }

    /// Whether it was among them; it isn't any more.
    fn take(&mut self, id: SessionId) -> bool {
        [&mut self.fresh, &mut self.due].into_iter().any(|list| {
            let at = list.iter().position(|other| *other == id);
            at.is_some_and(|at| list.swap_remove(at) == id)
        })
    }
}

impl Http {
    /// The client was told all, and asks for nothing more.
    pub(super) fn part(&mut self, tick: &mut Tick<'_>, id: SessionId) {
        let session = &mut self.sessions[id];
        // TLS has an end of its own to say, and an answer to that may come.
        if session.secured.is_some() || session.rest.is_blocked() || !session.input.is_empty() {
            return self.close_session(tick, id);
        }
        session.stage = Stage::Closing;
        session.since = tick.now;
        session.set_credit(tick, true);
        self.partings.fresh.push(id);
        self.arm_session(id);
    }

    /// Something came of a client that is on its end.
    pub(super) fn hear_behind_last(&mut self, tick: &mut Tick<'_>, id: SessionId) {
        if self.partings.take(id) {
            self.close_session(tick, id);
        }
    }

    /// Close those that were answered in the step before: whoever did not take all is known by now.
    pub(super) fn close_parted(&mut self, world: &mut World, tick: &mut Tick<'_>) {
        let mut due = std::mem::take(&mut self.partings.due);
        for id in due.drain(..) {
            if let Some(session) = self.sessions.get_mut(id).filter(|session| !session.rest.is_blocked()) {
                session.written = None;
                self.end_session(world, tick, id, CloseReason::Closed);
            }
        }
        self.partings.due = std::mem::replace(&mut self.partings.fresh, due);
    }

    /// Nothing that is still to come to be known is written down: these are given time like the others.
    pub(super) fn stay(&mut self, tick: &mut Tick<'_>) {
        let Partings { fresh, due } = std::mem::take(&mut self.partings);
        for id in fresh.into_iter().chain(due) {
            if self.sessions.get(id).is_some_and(|session| !session.rest.is_blocked()) {
                self.close_session(tick, id);
            }
        }
    }
}
