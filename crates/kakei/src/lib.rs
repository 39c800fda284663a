//! Kakei as a library: a proxy in your own process, with the same transactions as the program.
//!
//! ```no_run
//! let toml = r#"
//!     [listeners.dns]
//!     protocol = "udp"
//!     bind = ["127.0.0.1:5353"]
//!     cluster = "resolvers"
//!
//!     [clusters.resolvers]
//!     backends = ["127.0.0.1:5301", "127.0.0.1:5302"]
//! "#;
//! let proxy = kakei::Proxy::builder().config(toml)?.start()?;
//! println!("listens on {:?}", proxy.local_addr("dns"));
//! proxy.apply(toml.replace("5302", "5303"))?;
//! proxy.stop().wait()?;
//! # Ok::<(), kakei::Error>(())
//! ```
//!
//! The calls that change something wait for the workers' acknowledgement. They need no async runtime and block the
//! calling thread; nothing here touches traffic.

use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

pub use kakei_config as config;
pub use kakei_control as control;
pub use kakei_control::Outcome;

use kakei_config::{Backend, Diagnostics, Document, Name};
use kakei_control::{Change, Control, Edit, Handle, Options, Refusal, StartError};

/// What can go wrong.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The document is not valid; each error has its place.
    #[error("{0}")]
    Invalid(Diagnostics),
    /// The proxy could not be started.
    #[error("{0}")]
    Start(#[from] StartError),
    /// The change was refused, and what ran goes on.
    #[error("{0}")]
    Refused(#[from] Refusal),
}

/// What a proxy is made of.
#[derive(Debug, Default)]
pub struct Builder {
    document: Document,
    seed: Option<u64>,
}

impl Builder {
    /// Take the document from TOML text.
    pub fn config(mut self, toml: impl AsRef<str>) -> Result<Self, Error> {
        self.document = toml.as_ref().into_document()?;
        Ok(self)
    }

    /// Take a document that was built by hand; it is checked at the start.
    pub fn document(mut self, document: Document) -> Self {
        self.document = document;
        self
    }

    /// Seed everything random; the balancers' hashes too, so that the same client gets the same backend in every
    /// process with this seed. Without it, each process has its own.
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = Some(seed);
        self
    }

    /// Start the workers and wait until each runs the document.
    pub fn start(self) -> Result<Proxy, Error> {
        let seed = self.seed.unwrap_or_else(random_seed);
        let options = Options { document: self.document, origin: "library", seed, last: false };
        let control = Control::start(options)?;
        Ok(Proxy { handle: control.handle(), control: Some(control) })
    }
}

/// A seed from the keys that the standard library gives its hash maps.
pub fn random_seed() -> u64 {
    use std::hash::{BuildHasher, Hasher};
    std::collections::hash_map::RandomState::new().build_hasher().finish()
}

/// What can be gone over to: TOML text, or a document.
pub trait IntoDocument {
    /// The document.
    fn into_document(self) -> Result<Document, Error>;
}

impl IntoDocument for Document {
    fn into_document(self) -> Result<Document, Error> {
        Ok(self)
    }
}

impl IntoDocument for &str {
    fn into_document(self) -> Result<Document, Error> {
        kakei_config::parse_toml(self).map_err(Error::Invalid)
    }
}

impl IntoDocument for String {
    fn into_document(self) -> Result<Document, Error> {
        self.as_str().into_document()
    }
}

/// A running proxy. Dropping it stops it at once; see [`Proxy::drain`] for a gentler end.
#[derive(Debug)]
pub struct Proxy {
    handle: Handle,
    control: Option<Control>,
}

impl Proxy {
    /// What a proxy is made of.
    pub fn builder() -> Builder {
        Builder::default()
    }

    /// Go over to this document: all of it, or nothing where it is refused.
    pub fn apply(&self, document: impl IntoDocument) -> Result<Outcome, Error> {
        self.change(Change::to(document.into_document()?, "library"))
    }

    /// Add a backend to a cluster.
    pub fn add_backend(&self, cluster: &str, backend: Backend) -> Result<Outcome, Error> {
        self.change(Change::edit(Edit::AddBackend { cluster: cluster.into(), backend }, "library"))
    }

    /// Remove a backend from a cluster.
    pub fn remove_backend(&self, cluster: &str, backend: &str) -> Result<Outcome, Error> {
        let edit = Edit::RemoveBackend { cluster: cluster.into(), backend: backend.into() };
        self.change(Change::edit(edit, "library"))
    }

    /// Give a backend another weight; 0 takes no new flow.
    pub fn weigh_backend(&self, cluster: &str, backend: &str, weight: u32) -> Result<Outcome, Error> {
        let edit = Edit::WeighBackend { cluster: cluster.into(), backend: backend.into(), weight };
        self.change(Change::edit(edit, "library"))
    }

    /// Carry out any transaction.
    pub fn change(&self, change: Change) -> Result<Outcome, Error> {
        Ok(kakei_control::wait(self.handle.change(change))?)
    }

    /// The first address of a listener as it really is; none where there is no such listener.
    pub fn local_addr(&self, listener: &str) -> Option<SocketAddr> {
        let view = self.handle.view();
        let listener = view.snapshot.listener(&Name::new(listener))?;
        view.local_addrs(&listener.binds).first().copied()
    }

    /// What asks the control thread; its futures work in any async runtime.
    pub fn handle(&self) -> &Handle {
        &self.handle
    }

    /// Admit nothing more and wait for the last flow, at most so long.
    pub fn drain(&self, within: Duration) -> Result<(), Error> {
        Ok(kakei_control::wait(self.handle.drain(Some(within)))?)
    }

    /// Stop now: await what it returns, or call [`Stopping::wait`].
    pub fn stop(mut self) -> Stopping {
        let (handle, control) = (self.handle.clone(), self.control.take());
        Stopping(Box::pin(async move {
            handle.stop().await?;
            if let Some(control) = control {
                control.join();
            }
            Ok(())
        }))
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        if let Some(control) = self.control.take() {
            // Stopped already is as good as stopped.
            let _ = kakei_control::wait(self.handle.stop());
            control.join();
        }
    }
}

/// The end of a proxy, to be awaited or waited for.
#[must_use = "the proxy goes on until this is awaited or waited for"]
pub struct Stopping(Pin<Box<dyn Future<Output = Result<(), Error>> + Send>>);

impl Stopping {
    /// Wait for it on this thread.
    pub fn wait(self) -> Result<(), Error> {
        kakei_control::wait(self)
    }
}

impl std::fmt::Debug for Stopping {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Stopping")
    }
}

impl Future for Stopping {
    type Output = Result<(), Error>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        self.0.as_mut().poll(context)
    }
}
