//! The certificates of a document, its own and those that it trusts, read and checked: what its files hold now, compared with what ran before, so that
//! what did not change is neither parsed nor replaced. Serves no traffic.

mod pem;
mod read;
mod tickets;
mod trust;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use kakei_config::{
    ClientCertificates, Cluster, ClusterTls, Diagnostics, Document, Fault, Name, Objects, Pem, Written,
};
use kakei_proxy::secure::{Certificate, Materials, TicketKeys};
use rustls::crypto::CryptoProvider;
use rustls::sign::CertifiedKey;

use tracing::warn;

use self::pem::Stamp;
use self::tickets::Kept;
use self::trust::{Lists, Trusted};
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
    /// Where its keys are kept; none: nowhere.
    kept: Option<Kept>,
    held: BTreeMap<Name, Held>,
    /// The clusters that were looked through, and those of them whose backends are spoken to in TLS.
    clusters: Objects<Cluster>,
    secured: BTreeSet<Name>,
    /// Who may vouch for backends, by how the document names them; without a name: whoever the system trusts.
    trusted: BTreeMap<Option<Pem>, Trusted>,
    /// Whose certificates count no longer.
    revoked: BTreeMap<Pem, Lists>,
}

/// What a document names besides certificates of its own, as it was read.
#[derive(Debug, Default)]
struct Others {
    trusted: BTreeMap<Option<Pem>, Trusted>,
    revoked: BTreeMap<Pem, Lists>,
    renewed: Vec<String>,
    warnings: Vec<String>,
    faults: Vec<Fault>,
}

/// Where a document names something: the section, the object, the option.
type Place<'a> = (&'static str, &'a Name, &'static str);

impl Others {
    fn trust(&mut self, known: &Certificates, ca: &Option<Pem>, (section, name, key): Place<'_>, renewed: &str) {
        let before = known.trusted.get(ca);
        let read = match self.trusted.get(ca) {
            Some(read) => Ok(read.clone()),
            None => Trusted::read(ca.as_ref(), before),
        };
        match read {
            Ok(read) => {
                if before.is_some_and(|before| !Arc::ptr_eq(&before.roots, &read.roots)) {
                    self.renewed.push(format!("{} {name}: {renewed}", section.trim_end_matches('s')));
                }
                self.trusted.insert(ca.clone(), read);
            }
            Err(message) => {
                let help = ca.is_none().then(|| "say in `ca` who may vouch for backends".to_owned());
                self.faults.push(Fault { section, name: name.clone(), key, message, help });
            }
        }
    }

    fn revoke(&mut self, known: &Certificates, named: &Pem, listener: &Name) {
        let before = known.revoked.get(named);
        let read = match self.revoked.get(named) {
            Some(read) => Ok(read.clone()),
            None => Lists::read(named, before),
        };
        match read {
            Ok(read) => {
                if before.is_some_and(|before| !Arc::ptr_eq(&before.lists, &read.lists)) {
                    self.renewed.push(format!("listener {listener}: other clients count no longer"));
                }
                self.revoked.insert(named.clone(), read);
            }
            Err(message) => {
                let (section, key) = ("listeners", "tls.client_certificates.crls");
                self.faults.push(Fault { section, name: listener.clone(), key, message, help: None });
            }
        }
    }
}

/// A certificate as it was read.
#[derive(Clone, Debug)]
struct Held {
    spec: kakei_config::Certificate,
    /// Of its files, as they were then.
    stamps: [Stamp; 3],
    made: Arc<Certificate>,
}

/// Certificates that are ready to be used, and what is to be said of them.
#[derive(Debug)]
pub struct Loaded {
    /// All of the document's.
    pub certificates: Certificates,
    /// What holds something else than before, though the document says the same, in words.
    pub renewed: Vec<String>,
    /// What isn't as it should be and is lived with.
    pub warnings: Vec<String>,
}

impl Default for Certificates {
    fn default() -> Self {
        let provider = provider();
        let tickets = TicketKeys::new(&provider);
        Certificates {
            provider: Arc::new(provider),
            tickets,
            kept: None,
            held: BTreeMap::new(),
            clusters: Objects::default(),
            secured: BTreeSet::new(),
            trusted: BTreeMap::new(),
            revoked: BTreeMap::new(),
        }
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
            renewed.extend(
                (before.is_some() && !is_same).then(|| format!("certificate {name}: its files hold another one")),
            );
            held.insert(name.clone(), one);
        }
        let secured = self.secured_of(document);
        let others = self.load_others(document, &secured);
        faults.extend(others.faults);
        renewed.extend(others.renewed);
        warnings.extend(others.warnings);
        let (trusted, revoked, clusters) = (others.trusted, others.revoked, document.clusters.clone());
        let certificates = Certificates { held, trusted, revoked, clusters, secured, ..self.clone() };
        match faults.is_empty() {
            true => Ok(Loaded { certificates, renewed, warnings }),
            false => Err(faults),
        }
    }

    /// The clusters whose backends are spoken to in TLS. It costs what of the clusters is other than in those before.
    fn secured_of(&self, document: &Document) -> BTreeSet<Name> {
        let mut secured = self.secured.clone();
        for (name, _, after) in self.clusters.differences(&document.clusters) {
            match after.is_some_and(|cluster| cluster.tls.is_some()) {
                true => drop(secured.insert(name.clone())),
                false => drop(secured.remove(name)),
            }
        }
        secured
    }

    /// Those who may vouch for the backends of clusters and for clients of listeners, and who of these counts no longer.
    fn load_others(&self, document: &Document, secured: &BTreeSet<Name>) -> Others {
        let mut others = Others::default();
        let secured = secured.iter().filter_map(|name| Some((name, document.clusters.get(name)?.tls.as_ref()?)));
        for (name, ClusterTls { ca, verify, .. }) in secured {
            let warning = format!("cluster {name}: `tls.verify` is off: whoever is in the way can be its backends");
            match verify {
                true => {
                    let key = if ca.is_some() { "tls.ca" } else { "tls" };
                    others.trust(self, ca, ("clusters", name, key), "others may vouch for its backends");
                }
                false => others.warnings.push(warning),
            }
        }
        for (name, listener) in &document.listeners {
            let asked = listener.tls.as_ref().and_then(|tls| tls.client_certificates.as_ref());
            let Some(ClientCertificates { ca, crls, .. }) = asked else { continue };
            let key = "tls.client_certificates.ca";
            others.trust(self, &Some(ca.clone()), ("listeners", name, key), "others may vouch for its clients");
            for named in crls {
                others.revoke(self, named, name);
            }
        }
        others
    }

    fn one(&self, name: &Name, spec: &kakei_config::Certificate, before: Option<&Held>) -> Result<Held, Fault> {
        let ocsp = spec.ocsp.as_ref().map(|path| Pem::File(path.clone()));
        let stamps = [pem::stamp(&spec.chain), pem::stamp(&spec.key), ocsp.as_ref().map_or(Stamp::Held, pem::stamp)];
        if let Some(before) = before.filter(|before| before.stamps == stamps && stamps.iter().all(Stamp::is_telling)) {
            return Ok(before.clone());
        }
        let fault =
            |key, message: String| Fault { section: "certificates", name: name.clone(), key, message, help: None };
        let chain = pem::read(&spec.chain).map_err(|message| fault("chain", message))?;
        let key = pem::read(&spec.key).map_err(|message| fault("key", message))?;
        let mut made = read::certificate(name, (&chain, &key), &self.provider)?;
        if let Some(ocsp) = ocsp {
            let staple = pem::read(&ocsp).and_then(read::staple).map_err(|message| fault("ocsp", message))?;
            made.key = Arc::new(CertifiedKey { ocsp: Some(staple), ..CertifiedKey::clone(&made.key) });
        }
        // The files may have been touched, and hold the same.
        let same =
            before.filter(|before| (&before.made.key.cert, &before.made.key.ocsp) == (&made.key.cert, &made.key.ocsp));
        let made = same.map_or_else(|| Arc::new(made), |before| Arc::clone(&before.made));
        Ok(Held { spec: spec.clone(), stamps, made })
    }

    /// What a document is compiled with.
    pub fn materials(&self) -> Materials {
        Materials {
            provider: Some(Arc::clone(&self.provider)),
            certificates: self.all().map(|made| (made.name.clone(), Arc::clone(made))).collect(),
            tickets: self.tickets.clone(),
            trusted: self.trusted.iter().map(|(named, held)| (named.clone(), Arc::clone(&held.roots))).collect(),
            revoked: self.revoked.iter().map(|(named, held)| (named.clone(), Arc::clone(&held.lists))).collect(),
        }
    }

    /// Every certificate, by name.
    pub fn all(&self) -> impl Iterator<Item = &Arc<Certificate>> {
        self.held.values().map(|held| &held.made)
    }

    /// None, with the keys of session tickets that are kept in this state directory, or new ones; and how old those are.
    pub fn within(state: Option<&str>, now: SystemTime) -> (Self, Duration) {
        let mut certificates = Certificates::default();
        let Some(state) = state else { return (certificates, Duration::ZERO) };
        let (kept, now) = (Kept::within(state.as_ref()), wall::unix_seconds(now));
        let read = kept.read(&certificates.provider, now).unwrap_or_else(|error| {
            warn!("{error}: there are new ones, and clients have to shake hands anew");
            None
        });
        certificates.kept = Some(kept);
        match read {
            Some((keys, made)) => {
                certificates.tickets = Some(keys);
                (certificates, Duration::from_secs(now.saturating_sub(made)))
            }
            None => {
                certificates.keep(now);
                (certificates, Duration::ZERO)
            }
        }
    }

    /// The same with a new key for session tickets. Where there is no randomness for one the old one goes on.
    pub fn rotate(&mut self, now: SystemTime) {
        let rotated = self.tickets.as_ref().and_then(|tickets| tickets.rotated());
        self.tickets = rotated.or(self.tickets.take());
        self.keep(wall::unix_seconds(now));
    }

    fn keep(&self, now: u64) {
        if let (Some(kept), Some(tickets)) = (&self.kept, &self.tickets)
            && let Err(error) = kept.write(tickets, now)
        {
            warn!("keys of session tickets can't be kept, and don't outlive the process: {error}");
        }
    }
}

/// What isn't as it should be with the certificates of a document that nothing runs yet, and may be lived with.
///
/// # Errors
/// Files that can't be read, and whatever else they get wrong, at the places where they are named.
pub fn check(document: &Document, text: Option<Written<'_>>) -> Result<Vec<String>, Diagnostics> {
    match Certificates::default().load(document, Purpose::Change, SystemTime::now()) {
        Ok(loaded) => Ok(loaded.warnings),
        Err(faults) => Err(Diagnostics::of(faults, document, text).unwrap_or_default()),
    }
}
