//! HTTP: requests of clients, each joined with a backend's response. Read in this order: `session` (a client's
//! connection), `receive` (its bytes to requests; `ahead` reads what they will need where that is far), `exchange` (a request and its response), `decide` (route, limits,
//! action), `guard` (who may pass), `credentials` (whose password is right), `question` (a service that says who may), `forward` (backend, connection, queue), `upstream` (a backend's connection), `respond` (its bytes to the
//! client), `retry`, `sticky` (the cookie that names a backend), `answer` (what the proxy says itself), `life` (deadlines),
//! `end`, `part` (clients that are done), `sweep` (many at once), `saved` and `state` (written down and read back).
//! `rule` and `table` are the routes; `rewrite` writes heads. Knows nothing of datagrams and relays; a connection that is
//! upgraded is handed to whoever asked for the step.

mod ahead;
mod answer;
mod asked;
mod credentials;
mod date;
mod decide;
mod end;
mod exchange;
mod forward;
mod guard;
mod life;
mod list;
mod part;
mod pattern;
mod question;
mod rate;
mod receive;
mod respond;
mod retry;
mod rewrite;
mod rule;
mod saved;
mod secured;
mod session;
mod state;
mod sticky;
pub(crate) mod strict;
mod sweep;
mod table;
mod upgrade;
mod upstream;

use kakei_wire::http1::Heads;
use slotmap::SlotMap;

pub use self::asked::{Decided, Imagined, Metered};
use self::credentials::Credentials;
use self::date::Date;
use self::exchange::{Exchange, ExchangeId};
use self::part::Partings;
use self::rate::Rates;
pub use self::rule::{Action, Rule};
use self::session::Session;
pub(crate) use self::session::SessionId;
pub(crate) use self::state::HttpState;
pub use self::sticky::Seats;
use self::sweep::Sweep;
pub(crate) use self::table::decode;
pub use self::table::{Mismatch, Table, Wanted};
use self::upstream::Upstream;
pub(crate) use self::upstream::UpstreamId;
use crate::cluster::{BackendKey, ClusterKey};
use crate::joined::Joined;
use crate::limits::{SPARE_BUFFER, SPARE_BUFFERS};
use crate::seam::{Instant, RateUse};
use crate::waiting::{Queueing, Waiting};
use crate::world::{Tick, World};

/// Everything of a worker that speaks HTTP.
#[derive(Debug, Default)]
pub(crate) struct Http {
    sessions: SlotMap<SessionId, Session>,
    exchanges: SlotMap<ExchangeId, Exchange>,
    upstreams: SlotMap<UpstreamId, Upstream>,
    /// Room for where the fields of a head lie.
    heads: Heads,
    date: Date,
    /// Requests that wait for a backend with room.
    queues: Waiting<ExchangeId>,
    rates: Rates,
    credentials: Credentials,
    /// Requests that waited for a password when they were written down.
    anew: Vec<ExchangeId>,
    /// Buffers of exchanges that ended.
    spare: Vec<Vec<u8>>,
    /// Sessions whose deadline may be another one since this step.
    unarmed: Vec<SessionId>,
    /// Sessions of clients that are done.
    partings: Partings,
    /// Sessions whose next request is there already.
    resume: Vec<SessionId>,
    /// The same, but not in this step.
    later: Vec<SessionId>,
    /// Sessions and upstreams still to be visited because what they stand on was changed.
    sweeps: Vec<Sweep>,
    /// Backends that failed a request in this step.
    failures: Vec<(ClusterKey, BackendKey)>,
    /// Connections that became something else in this step.
    upgraded: Vec<Joined>,
    /// Keeps what is read ahead from being thought useless.
    touched: u64,
}

impl Http {
    /// How many clients are connected.
    pub(crate) fn len(&self) -> usize {
        self.sessions.len()
    }

    /// Whether something is left to be done at once.
    pub(crate) fn is_behind(&self) -> bool {
        let is_asked = !self.resume.is_empty() || !self.anew.is_empty();
        is_asked || self.partings.any_due() || !self.sweeps.is_empty() || self.queues.has_more_to_serve()
    }

    /// The backend that a connection leads to.
    pub(crate) fn place_of(&self, id: UpstreamId) -> Option<(ClusterKey, BackendKey)> {
        self.upstreams.get(id).map(|upstream| upstream.place)
    }

    /// How much of a route's rate limits is used up.
    pub(crate) fn rates(&self, world: &World, now: Instant, of: &Metered) -> Vec<RateUse> {
        self.rates.look(world.hash, now, of)
    }

    /// Who takes work may have changed.
    pub(crate) fn stir(&mut self) {
        self.queues.stir();
    }

    /// Whether there may be room on a backend that nobody was given yet.
    pub(crate) fn is_stirred(&self) -> bool {
        self.queues.is_stirred()
    }

    /// Backends that failed a request since this was called last.
    pub(crate) fn take_failures(&mut self) -> Vec<(ClusterKey, BackendKey)> {
        std::mem::take(&mut self.failures)
    }

    /// Connections that became something else since this was called last.
    pub(crate) fn take_upgraded(&mut self) -> Vec<Joined> {
        std::mem::take(&mut self.upgraded)
    }

    /// What is to be done at the end of a step, after all that happened in it.
    pub(crate) fn settle(&mut self, world: &mut World, tick: &mut Tick<'_>) {
        self.ask_anew(world, tick);
        self.run_sweeps(world, tick);
        self.serve_queues(world, tick);
        for id in std::mem::take(&mut self.resume) {
            self.resume(world, tick, id);
        }
        self.resume.append(&mut self.later);
        self.close_parted(world, tick);
        self.arm_sessions(world);
    }

    /// A buffer without bytes.
    fn buffer(&mut self) -> Vec<u8> {
        self.spare.pop().unwrap_or_default()
    }

    /// A buffer that isn't needed any more.
    fn recycle(&mut self, mut buffer: Vec<u8>) {
        if buffer.capacity() > 0 && buffer.capacity() <= SPARE_BUFFER && self.spare.len() < SPARE_BUFFERS {
            buffer.clear();
            self.spare.push(buffer);
        }
    }
}
