//! The certificates of a document, read and checked: what its files hold now, compared with what ran before, so that
//! what did not change is neither parsed nor replaced. Serves no traffic.

mod pem;
mod read;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::SystemTime;

use kakei_config::{Diagnostics, Document, Fault, Name, Written};
use kakei_proxy::secure::{Certificate, Materials, TicketKeys};
use rustls::crypto::CryptoProvider;

use self::pem::Stamp;
use crate::wall;

/// What the cryptography is made by. Every use of it names it: there is no default of the process.
pub fn provider() -> CryptoProvider {
    #[cfg(feature = "aws-lc")]
    let provider = rustls::crypto::aws_lc_rs::default_provider();
    #[cfg(not(feature = "aws-lc"))]
    let provider = rustls::crypto::ring::default_provider();
    provider
}

/// What the certificates are read for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// A change: one that expired is refused, if it is new.
    Change,
    /// The start: one that expired is better than none at all, and only said.
    Start,
}

/// What was read.
#[derive(Clone, Debug)]
pub struct Certificates {
    provider: Arc<CryptoProvider>,
    tickets: Option<Arc<TicketKeys>>,
    held: BTreeMap<Name, Held>,
}

/// A certificate as it was read.
#[derive(Clone, Debug)]
struct Held {
    spec: kakei_config::Certificate,
    /// Of its files, as they were then.
    stamps: [Stamp; 2],
    made: Arc<Certificate>,
}

/// Certificates that are ready to be used, and what is to be said of them.
#[derive(Debug)]
pub struct Loaded {
    /// All of the document's.
    pub certificates: Certificates,
    /// The names of those that hold something else than before, though the document says the same.
    pub renewed: Vec<Name>,
    /// What isn't as it should be and is lived with.
    pub warnings: Vec<String>,
}

impl Default for Certificates {
    fn default() -> Self {
        let provider = provider();
        let tickets = TicketKeys::new(&provider);
        Certificates { provider: Arc::new(provider), tickets, held: BTreeMap::new() }
    }
}

impl Certificates {
    /// Read those of a document. What did not change since these were read is taken from them.
    pub fn load(&self, document: &Document, purpose: Purpose, now: SystemTime) -> Result<Loaded, Vec<Fault>> {
        let now = wall::unix_seconds(now).cast_signed();
        let (mut held, mut faults) = (BTreeMap::new(), Vec::new());
        let (mut renewed, mut warnings) = (Vec::new(), Vec::new());
        for (name, spec) in &document.certificates {
            let before = self.held.get(name).filter(|before| before.spec == *spec);
            let one = match self.one(name, spec, before) {
                Ok(one) => one,
                Err(fault) => {
                    faults.push(fault);
                    continue;
                }
            };
            let is_same = before.is_some_and(|before| Arc::ptr_eq(&before.made, &one.made));
            match (read::out_of_time(&one.made, now).filter(|_| !is_same), purpose) {
                (Some(fault), Purpose::Change) => faults.push(fault),
                (Some(fault), Purpose::Start) => warnings.push(format!("certificate {name} {}", fault.message)),
                (None, _) => {}
            }
            renewed.extend((before.is_some() && !is_same).then(|| name.clone()));
            held.insert(name.clone(), one);
        }
        match faults.is_empty() {
            true => Ok(Loaded { certificates: Certificates { held, ..self.clone() }, renewed, warnings }),
            false => Err(faults),
        }
    }

    fn one(&self, name: &Name, spec: &kakei_config::Certificate, before: Option<&Held>) -> Result<Held, Fault> {
        let stamps = [pem::stamp(&spec.chain), pem::stamp(&spec.key)];
        if let Some(before) = before.filter(|before| before.stamps == stamps && stamps.iter().all(Stamp::is_telling)) {
            return Ok(before.clone());
        }
        let fault = |key, message: String| Fault { certificate: name.clone(), key, message, help: None };
        let chain = pem::read(&spec.chain).map_err(|message| fault("chain", message))?;
        let key = pem::read(&spec.key).map_err(|message| fault("key", message))?;
        let made = read::certificate(name, (&chain, &key), &self.provider)?;
        // The files may have been touched, and hold the same.
        let same = before.filter(|before| before.made.key.cert == made.key.cert);
        let made = same.map_or_else(|| Arc::new(made), |before| Arc::clone(&before.made));
        Ok(Held { spec: spec.clone(), stamps, made })
    }

    /// What a document is compiled with.
    pub fn materials(&self) -> Materials {
        Materials {
            provider: Some(Arc::clone(&self.provider)),
            certificates: self.all().map(|made| (made.name.clone(), Arc::clone(made))).collect(),
            tickets: self.tickets.clone(),
        }
    }

    /// Every certificate, by name.
    pub fn all(&self) -> impl Iterator<Item = &Arc<Certificate>> {
        self.held.values().map(|held| &held.made)
    }

    /// The same with a new key for session tickets. Where there is no randomness for one the old one goes on.
    pub fn rotate(&mut self) {
        let rotated = self.tickets.as_ref().and_then(|tickets| tickets.rotated());
        self.tickets = rotated.or(self.tickets.take());
    }
}

/// What is wrong with the certificates of a document that nothing runs yet.
///
/// # Errors
/// Files that can't be read, and whatever else they get wrong, at the places where they are named.
pub fn check(document: &Document, text: Option<Written<'_>>) -> Result<(), Diagnostics> {
    let faults = Certificates::default().load(document, Purpose::Change, SystemTime::now()).err().unwrap_or_default();
    Diagnostics::of(faults, document, text).map_or(Ok(()), Err)
}
