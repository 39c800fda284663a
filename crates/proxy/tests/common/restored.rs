//! What a worker that is driven by hand goes on with when it was written down and read back.

use kakei_config::Document;
use kakei_proxy::seam::{Command, Event, Op, Reply, Ticket};
use kakei_proxy::worker::{Role, Worker};

use crate::common::{Bench, compile};

impl Bench {
    /// Another worker goes on where this one is, and runs the same.
    pub(crate) fn restore(&mut self, document: &Document) {
        let ops = self.step(vec![Event::Command { ticket: Ticket(1), command: Command::Snapshot }], b"");
        let state = ops.into_iter().find_map(|op| match op {
            Op::Reply { reply: Reply::State(state), .. } => Some(*state),
            _ => None,
        });
        let text = serde_json::to_string(&state.expect("a state")).expect("a state is plain data");
        let (state, role) =
            (serde_json::from_str(&text).expect("what was written can be read"), Role { index: 0, seed: 5 });
        self.worker = Worker::restore(role, self.now, state, &compile(document, 1)).expect("a sound state");
        self.step(Vec::new(), b"");
    }
}
