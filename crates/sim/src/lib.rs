//! Whether it is true: whole workers in virtual time, with a simulated machine, network, clients, backends and control
//! side, every fault that the seam allows, and checkers that know the truth. One seed is one run, replayed to the bit.
//!
//! There is no real time, socket or thread in here, and nothing depends on it but tests and the `sim` command.
//!
//! ```
//! let report = kakei_sim::run(7);
//! assert!(report.is_clean(), "{report}");
//! ```

mod agenda;
mod backend;
mod check;
mod client;
mod documents;
mod driven;
mod http;
mod machine;
mod network;
mod payload;
pub mod profile;
mod report;
mod routing;
pub mod smuggling;
mod streams;
pub mod wires;
mod world;

use fastrand::Rng;
use kakei_config::Document;
use kakei_proxy::snapshot::{Generation, Shared, Snapshot};

pub use self::http::{
    Cuts, HttpCounters, HttpReport, drawn_cuts, run_http, run_http_crowded, run_http_guarded, run_http_unwatched,
};
pub use self::profile::Profile;
pub use self::report::{Counters, Report, Violation};
pub use self::routing::check_routes;
pub use self::streams::{StreamCounters, StreamReport, run_streams};
use self::world::World;

/// How a run is made.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// What the run is made of; none: drawn from the seed.
    pub profile: Option<Profile>,
    /// Whether the report carries a line for each thing that happened.
    pub trace: bool,
}

/// The run of this seed: everything about it is drawn.
pub fn run(seed: u64) -> Report {
    run_document(None, seed, &Options::default())
}

/// The run of this seed with a profile.
pub fn run_profile(seed: u64, profile: &Profile) -> Report {
    run_document(None, seed, &Options { profile: Some(profile.clone()), trace: false })
}

/// The run of this seed on a document (its addresses are simulated), or on a drawn one. The document must be valid;
/// what is about connections in it is left out, since [`run_streams`] draws its own.
pub fn run_document(document: Option<&Document>, seed: u64, options: &Options) -> Report {
    let document = document.map(only_datagrams);
    let document = document.as_ref();
    let mut rng = Rng::with_seed(seed);
    let profile = options.profile.clone().unwrap_or_else(|| Profile::drawn(&mut rng));
    World::new(document, rng.u64(..), profile, options.trace).run(seed)
}

/// The part of a document that is about datagrams.
fn only_datagrams(document: &Document) -> Document {
    let mut document = document.clone();
    document.listeners.retain(|_, listener| listener.protocol == kakei_config::Protocol::Udp);
    document.routes.retain(|_, route| document.listeners.contains_key(&route.listener));
    document
}

/// A generation as the control side makes it, of the one before. That it is what it would be without one is checked each
/// time.
fn compile(document: &Document, generation: Generation, shared: Shared, previous: Option<&Snapshot>) -> Snapshot {
    let snapshot = Snapshot::compile(document, generation, shared, previous);
    let alone = Snapshot::compile(document, generation, shared, None);
    assert_eq!(snapshot, alone, "a generation doesn't depend on the one that it was made of");
    snapshot
}

/// What a clock on the wall says at a moment of a simulation.
fn wall_at(now: kakei_proxy::seam::Instant) -> kakei_proxy::seam::Wall {
    kakei_proxy::seam::Wall::from_secs(1_700_000_000 + now.as_nanos() / 1_000_000_000)
}
