//! Who tells the workers: one desired state, its generations, its API; and who tells the world: metrics and logs.
//!
//! [`Control::start`] brings a proxy up on threads of its own; a [`Handle`] asks it for changes and answers.
//! Never on the data path: no datagram passes through this crate.

mod access;
pub mod access_log;
pub mod api;
mod audit;
pub mod certificates;
mod doors;
pub mod drains;
pub mod edit;
pub mod events;
pub mod explain;
pub mod handle;
pub mod health;
pub mod history;
pub mod metrics;
pub mod names;
mod opened;
mod owner;
pub mod refusal;
pub mod serve;
pub mod store;
mod strict;
pub mod sums;
pub mod system;
pub mod traffic;
pub mod view;
mod wait;
pub mod wall;

pub use self::edit::Edit;
pub use self::handle::{Change, Handle, Outcome, What};
pub use self::owner::{Control, Options, StartError};
pub use self::refusal::Refusal;
pub use self::view::View;
pub use self::wait::wait;
pub use kakei_proxy::limits::PER_LISTING;
pub use kakei_proxy::snapshot::Generation;
pub use kakei_runtime::passwords;
