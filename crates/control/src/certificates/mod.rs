//! The certificates of a document, its own and those that it trusts, read and checked: what its files hold now, compared with what ran before, so that
//! what did not change is neither parsed nor replaced. Serves no traffic.

mod dial;
mod files;
mod ocsp;
mod pem;
mod read;
mod sessions;
mod tickets;
mod trust;

use std::collections::{BTreeMap, BTreeSet};
use std::hash::Hash;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use kakei_config::{
    AdminTcp, ClientCertificates, Cluster, ClusterTls, Diagnostics, Document, Fault, Kind, Listener, Name, Objects,
    Pem, Sorted, Written,
};
use kakei_proxy::secure::{Certificate, Materials, Revoked, TicketKeys};
use rustls::RootCertStore;
use rustls::crypto::CryptoProvider;
use rustls::server::StoresServerSessions;
use rustls::sign::CertifiedKey;

use tracing::warn;

pub use self::dial::client;
pub(crate) use self::files::{Changed, Object, Seen};
use self::pem::Stamp;
use self::sessions::Sessions;
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
pub enum Purpose<'a> {
    /// A change of these objects: files are looked at that they or others that differ name. One that expired is refused, if it is new.
    Edits(&'a BTreeSet<(Kind, Name)>),
    /// A change of the whole document: every file is looked at.
    Change,
    /// Going back to what ran: no file is looked at whose contents are in use already. One that expired is only said: it ran.
    Back,
    /// The start: one that expired is better than none at all, and only said.
    Start,
    /// The start of what ran before: one that can't be read any more is said and left out, too, where something is left
    /// that can be shown.
    Again,
}

impl Purpose<'_> {
    /// Whether the document ran already.
    fn has_run(self) -> bool {
        matches!(self, Purpose::Back | Purpose::Again)
    }
}

/// What was read.
#[derive(Clone, Debug)]
pub struct Certificates {
    materials: Materials,
    /// What clients go on from where early data is taken; in memory alone.
    sessions: Arc<Sessions>,
    /// Where the keys of tickets are kept; none: nowhere.
    kept: Option<Kept>,
    /// The document's objects that name what was read, as they were then.
    specs: Specs,
    /// The stamps of each certificate's files.
    stamps: Sorted<Name, [Stamp; 3]>,
    /// Of clusters those whose backends are spoken to in TLS.
    secured: Sorted<Name, ()>,
    /// Who may vouch for others, by how the document names them; without a name: whoever the system trusts.
    trusted: BTreeMap<Option<Pem>, Trusted>,
    /// Whose certificates count no longer.
    revoked: BTreeMap<Pem, Lists>,
}

/// Objects that name files.
#[derive(Clone, Debug, Default)]
struct Specs {
    certificates: Objects<kakei_config::Certificate>,
    listeners: Objects<Listener>,
    clusters: Objects<Cluster>,
    admin: Option<AdminTcp>,
}

/// What of a document is looked at, each by its name.
struct Looked {
    certificates: BTreeSet<Name>,
    listeners: BTreeSet<Name>,
    /// Those whose backends are spoken to in TLS, or were.
    clusters: BTreeSet<Name>,
    /// Whether the admin API over TCP is.
    admin: bool,
}

/// What a document names besides certificates of its own, as it was read.
#[derive(Debug, Default)]
struct Others {
    trusted: BTreeMap<Option<Pem>, Trusted>,
    revoked: BTreeMap<Pem, Lists>,
    /// Whether what is known already isn't read again.
    is_kept: bool,
    /// Whether it ran already.
    has_run: bool,
    renewed: Vec<String>,
    warnings: Vec<String>,
    faults: Vec<Fault>,
}

/// Where a document names something: the section, the object, the option.
type Place<'a> = (&'static str, &'a Name, &'static str);

impl Others {
    /// What is no secret can't have one in it.
    fn look(&mut self, pem: &Pem, place: Place<'_>) {
        match key_in(pem, place) {
            Some(fault) if self.has_run => self.warnings.push(in_words(&fault)),
            fault => self.faults.extend(fault),
        }
    }

    fn trust(&mut self, known: &Certificates, ca: &Option<Pem>, (section, name, key): Place<'_>, renewed: &str) {
        if let Some(ca) = ca {
            self.look(ca, (section, name, key));
        }
        let before = known.trusted.get(ca);
        let read = match self.trusted.get(ca) {
            Some(read) => Ok(read.clone()),
            None => match before.filter(|_| self.is_kept) {
                Some(before) => Ok(before.clone()),
                None => Trusted::read(ca.as_ref(), before),
            },
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
                self.faults.push(Fault { section, name: name.clone(), key, item: None, message, help });
            }
        }
    }

    fn revoke(&mut self, known: &Certificates, named: &Pem, (section, name, key): Place<'_>) {
        self.look(named, (section, name, key));
        let before = known.revoked.get(named);
        let read = match self.revoked.get(named) {
            Some(read) => Ok(read.clone()),
            None => match before.filter(|_| self.is_kept) {
                Some(before) => Ok(before.clone()),
                None => match &known.materials.provider {
                    Some(provider) => Lists::read(named, before, provider),
                    None => Err("there is nothing that computes".to_owned()),
                },
            },
        };
        match read {
            Ok(read) => {
                if before.is_some_and(|before| !Arc::ptr_eq(&before.lists, &read.lists)) {
                    let kind = section.trim_end_matches('s');
                    self.renewed.push(format!("{kind} {name}: other clients count no longer"));
                }
                self.revoked.insert(named.clone(), read);
            }
            Err(message) => {
                self.faults.push(Fault { section, name: name.clone(), key, item: None, message, help: None })
            }
        }
    }
}

/// What the admin API over TCP proves by who it is, and whom it lets vouch for others.
#[derive(Clone, Debug)]
pub(crate) struct Standing {
    pub(crate) provider: Arc<CryptoProvider>,
    pub(crate) certificate: Arc<Certificate>,
    pub(crate) trusted: Arc<RootCertStore>,
    pub(crate) revoked: Vec<Revoked>,
}

impl Standing {
    /// Whether the same vouch for clients, and the same count no longer.
    pub(crate) fn has_clients_of(&self, other: &Standing) -> bool {
        let same = |(a, b): (&Revoked, &Revoked)| Arc::ptr_eq(a, b);
        Arc::ptr_eq(&self.trusted, &other.trusted)
            && self.revoked.len() == other.revoked.len()
            && self.revoked.iter().zip(&other.revoked).all(same)
    }
}

impl PartialEq for Standing {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.certificate, &other.certificate) && self.has_clients_of(other)
    }
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
        let sessions = Arc::new(Sessions::default());
        let provider = Some(Arc::new(provider));
        let known: Arc<dyn StoresServerSessions> = sessions.clone();
        Certificates {
            materials: Materials { provider, tickets, sessions: Some(known), ..Materials::default() },
            sessions,
            kept: None,
            specs: Specs::default(),
            stamps: Sorted::default(),
            secured: Sorted::default(),
            trusted: BTreeMap::new(),
            revoked: BTreeMap::new(),
        }
    }
}

impl Certificates {
    /// Read those of a document. What did not change since these were read is taken from them; what is not looked at, either.
    pub fn load(&self, document: &Document, purpose: Purpose<'_>, now: SystemTime) -> Result<Loaded, Vec<Fault>> {
        let looked = Looked::of(&self.specs, document, purpose);
        let mut loaded = Loaded { certificates: self.clone(), renewed: Vec::new(), warnings: Vec::new() };
        let mut faults = self.load_own(document, &looked.certificates, purpose, now, &mut loaded);
        if purpose == Purpose::Again {
            faults = left_out(document, faults, &mut loaded);
        }
        let next = &mut loaded.certificates;
        for name in &looked.clusters {
            match document.clusters.get(name).is_some_and(|cluster| cluster.tls.is_some()) {
                true => drop(next.secured.insert(name.clone(), ())),
                false => drop(next.secured.remove(name)),
            }
        }
        next.specs = Specs::of(document);
        let others = self.load_others(document, &looked, purpose);
        faults.extend(others.faults);
        loaded.renewed.extend(others.renewed);
        loaded.warnings.extend(others.warnings);
        if !faults.is_empty() {
            return Err(faults);
        }
        next.take(others.trusted, others.revoked);
        next.forget(&self.specs, &looked);
        Ok(loaded)
    }

    /// Certificates: what is wrong with them.
    fn load_own(
        &self,
        document: &Document,
        looked: &BTreeSet<Name>,
        purpose: Purpose<'_>,
        now: SystemTime,
        loaded: &mut Loaded,
    ) -> Vec<Fault> {
        let now = wall::unix_seconds(now).cast_signed();
        let Loaded { certificates: next, renewed, warnings } = loaded;
        let mut faults = Vec::new();
        for name in looked {
            let Some(spec) = document.certificates.get(name) else {
                next.materials.certificates.remove(name);
                next.stamps.remove(name);
                continue;
            };
            match key_in(&spec.chain, ("certificates", name, "chain")) {
                Some(fault) if purpose.has_run() => warnings.push(in_words(&fault)),
                fault => faults.extend(fault),
            }
            let is_named_so = self.specs.certificates.get(name) == Some(spec);
            let before = self.materials.certificates.get(name).filter(|_| is_named_so);
            let (stamps, made) = match self.one(name, spec, before) {
                Ok(one) => one,
                Err(fault) => {
                    faults.push(fault);
                    continue;
                }
            };
            let is_same = before.is_some_and(|before| Arc::ptr_eq(before, &made));
            match (read::out_of_time(&made, now).filter(|_| !is_same), purpose) {
                (Some(fault), Purpose::Start | Purpose::Again | Purpose::Back) => {
                    warnings.push(format!("certificate {name} {}", fault.message))
                }
                (Some(fault), _) => faults.push(fault),
                (None, _) => {}
            }
            let is_renewed = is_named_so && !is_same;
            renewed.extend(is_renewed.then(|| format!("certificate {name}: its files hold another one")));
            next.stamps.insert(name.clone(), stamps);
            keep(&mut next.materials.certificates, name, &made);
        }
        faults
    }

    /// Those who may vouch for the backends of clusters and for clients of listeners, and who of these counts no longer.
    fn load_others(&self, document: &Document, looked: &Looked, purpose: Purpose<'_>) -> Others {
        let (is_kept, has_run) = (purpose == Purpose::Back, purpose.has_run());
        let mut others = Others { is_kept, has_run, ..Others::default() };
        let clusters =
            looked.clusters.iter().filter_map(|name| Some((name, document.clusters.get(name)?.tls.as_ref()?)));
        for (name, ClusterTls { ca, verify, .. }) in clusters {
            let warning = format!("cluster {name}: `tls.verify` is off: whoever is in the way can be its backends");
            match verify {
                true => {
                    let key = if ca.is_some() { "tls.ca" } else { "tls" };
                    others.trust(self, ca, ("clusters", name, key), "others may vouch for its backends");
                }
                false => others.warnings.push(warning),
            }
        }
        let listeners = looked.listeners.iter().filter_map(|name| Some((name, document.listeners.get(name)?)));
        for (name, listener) in listeners {
            let Some(ClientCertificates { ca, crls, .. }) = asked(listener) else { continue };
            let key = "tls.client_certificates.ca";
            others.trust(self, &Some(ca.clone()), ("listeners", name, key), "others may vouch for its clients");
            for named in crls {
                others.revoke(self, named, ("listeners", name, "tls.client_certificates.crls"));
            }
        }
        if let Some(AdminTcp { ca, crls, .. }) = document.admin.tcp.as_ref().filter(|_| looked.admin) {
            let name = Name::new("tcp");
            others.trust(self, &Some(ca.clone()), ("admin", &name, "ca"), "others may vouch for its clients");
            for named in crls {
                others.revoke(self, named, ("admin", &name, "crls"));
            }
        }
        others
    }

    /// Have what was read in the place of what was there.
    fn take(&mut self, trusted: BTreeMap<Option<Pem>, Trusted>, revoked: BTreeMap<Pem, Lists>) {
        for (named, read) in trusted {
            keep(&mut self.materials.trusted, &named, &read.roots);
            self.trusted.insert(named, read);
        }
        for (named, read) in revoked {
            keep(&mut self.materials.revoked, &named, &read.lists);
            self.revoked.insert(named, read);
        }
    }

    /// Forget what objects named before that are looked at, and nobody names any more.
    fn forget(&mut self, before: &Specs, looked: &Looked) {
        let clusters = looked.clusters.iter().filter_map(|name| before.clusters.get(name)?.tls.as_ref());
        let listeners: Vec<_> = looked.listeners.iter().filter_map(|name| asked(before.listeners.get(name)?)).collect();
        let trusted = clusters.filter(|tls| tls.verify).map(|tls| tls.ca.clone());
        let admin = before.admin.as_ref().filter(|_| looked.admin);
        let trusted = trusted.chain(listeners.iter().map(|asked| Some(asked.ca.clone())));
        let trusted: BTreeSet<_> = trusted.chain(admin.map(|tcp| Some(tcp.ca.clone()))).collect();
        for named in trusted {
            if !self.trusts(&named) {
                self.trusted.remove(&named);
                self.materials.trusted.remove(&named);
            }
        }
        let revoked: BTreeSet<_> =
            listeners.iter().flat_map(|asked| &asked.crls).chain(admin.iter().flat_map(|tcp| &tcp.crls)).collect();
        for named in revoked {
            let mut all = self.specs.listeners.values().filter_map(asked);
            let of_admin = self.specs.admin.as_ref().is_some_and(|tcp| tcp.crls.contains(named));
            if !of_admin && !all.any(|asked| asked.crls.contains(named)) {
                self.revoked.remove(named);
                self.materials.revoked.remove(named);
            }
        }
    }

    /// Whether any object goes by these.
    fn trusts(&self, named: &Option<Pem>) -> bool {
        let mut clusters = self.secured.iter().filter_map(|(name, ())| self.specs.clusters.get(name)?.tls.as_ref());
        let mut listeners = self.specs.listeners.values().filter_map(asked);
        let is_it = |ca: &Pem| named.as_ref() == Some(ca);
        clusters.any(|tls| tls.verify && tls.ca == *named)
            || listeners.any(|asked| is_it(&asked.ca))
            || self.specs.admin.as_ref().is_some_and(|tcp| is_it(&tcp.ca))
    }

    fn one(
        &self,
        name: &Name,
        spec: &kakei_config::Certificate,
        before: Option<&Arc<Certificate>>,
    ) -> Result<([Stamp; 3], Arc<Certificate>), Fault> {
        let (stamps, answer) = (stamps(spec), spec.ocsp.as_ref().map(|path| Pem::File(path.clone())));
        let is_known = self.stamps.get(name) == Some(&stamps) && stamps.iter().all(Stamp::is_telling);
        if let Some(before) = before.filter(|_| is_known) {
            return Ok((stamps, Arc::clone(before)));
        }
        let fault = |key, message: String| Fault {
            section: "certificates",
            name: name.clone(),
            key,
            item: None,
            message,
            help: None,
        };
        let chain = pem::read(&spec.chain).map_err(|message| fault("chain", message))?;
        let key = pem::read(&spec.key).map_err(|message| fault("key", message))?;
        let provider = self.materials.provider.as_deref();
        let provider = provider.ok_or_else(|| fault("key", "there is nothing that computes".to_owned()))?;
        let mut made = read::certificate(name, (&chain, &key), provider)?;
        if let Some(answer) = answer {
            let leaf = made.key.cert.first().map(|leaf| leaf.as_ref()).unwrap_or_default();
            let staple = pem::read(&answer).and_then(|der| ocsp::staple(der, leaf));
            let staple = staple.map_err(|message| fault("ocsp", message))?;
            made.key = Arc::new(CertifiedKey { ocsp: Some(staple), ..CertifiedKey::clone(&made.key) });
        }
        // The files may have been touched, and hold the same.
        let same = before.filter(|before| (&before.key.cert, &before.key.ocsp) == (&made.key.cert, &made.key.ocsp));
        Ok((stamps, same.map_or_else(|| Arc::new(made), Arc::clone)))
    }

    /// What a document is compiled with.
    pub fn materials(&self) -> &Materials {
        &self.materials
    }

    /// What the admin API over TCP stands on; none: something of it was not read.
    pub(crate) fn standing(&self, tcp: &AdminTcp) -> Option<Standing> {
        let revoked = tcp.crls.iter().map(|named| Some(Arc::clone(&self.revoked.get(named)?.lists)));
        Some(Standing {
            provider: Arc::clone(self.materials.provider.as_ref()?),
            certificate: Arc::clone(self.materials.certificates.get(&tcp.certificate)?),
            trusted: Arc::clone(&self.trusted.get(&Some(tcp.ca.clone()))?.roots),
            revoked: revoked.collect::<Option<_>>()?,
        })
    }

    /// Every certificate, by name.
    pub fn all(&self) -> &Sorted<Name, Arc<Certificate>> {
        &self.materials.certificates
    }

    /// None, with the keys of session tickets that are kept in this state directory, or new ones; and how old those are.
    pub fn within(state: Option<&str>, now: SystemTime) -> (Self, Duration) {
        let mut certificates = Certificates::default();
        let Some(state) = state else { return (certificates, Duration::ZERO) };
        let (kept, now) = (Kept::within(state.as_ref()), wall::unix_seconds(now));
        let provider = certificates.materials.provider.clone();
        let read = provider.and_then(|provider| {
            kept.read(&provider, now).unwrap_or_else(|error| {
                warn!("{error}: there are new ones, and clients have to shake hands anew");
                None
            })
        });
        certificates.kept = Some(kept);
        match read {
            Some((keys, made)) => {
                certificates.materials.tickets = Some(keys);
                (certificates, Duration::from_secs(now.saturating_sub(made)))
            }
            None => {
                certificates.keep(now);
                (certificates, Duration::ZERO)
            }
        }
    }

    /// The same with a new key for session tickets, and without sessions that are as old as tickets may get. Where there
    /// is no randomness for a key the old one goes on.
    pub fn rotate(&mut self, now: SystemTime) {
        let tickets = &mut self.materials.tickets;
        let rotated = tickets.as_ref().and_then(|tickets| tickets.rotated());
        *tickets = rotated.or(tickets.take());
        self.sessions.age();
        self.keep(wall::unix_seconds(now));
    }

    fn keep(&self, now: u64) {
        if let (Some(kept), Some(tickets)) = (&self.kept, &self.materials.tickets)
            && let Err(error) = kept.write(tickets, now)
        {
            warn!("keys of session tickets can't be kept, and don't outlive the process: {error}");
        }
    }
}

impl Specs {
    fn of(document: &Document) -> Self {
        let Document { certificates, listeners, clusters, admin, .. } = document.clone();
        Specs { certificates, listeners, clusters, admin: admin.tcp }
    }
}

impl Looked {
    /// What is other than it was in `known`, and what a change is about.
    fn of(known: &Specs, document: &Document, purpose: Purpose<'_>) -> Self {
        let Specs { certificates, listeners, clusters, admin } = known;
        let is_all = matches!(purpose, Purpose::Change | Purpose::Start | Purpose::Again);
        let is_secured = |cluster: &Cluster| cluster.tls.is_some();
        let mut looked = Looked {
            certificates: names(certificates, &document.certificates, is_all, |_| true),
            listeners: names(listeners, &document.listeners, is_all, |_| true),
            clusters: names(clusters, &document.clusters, is_all, is_secured),
            admin: *admin != document.admin.tcp || is_all,
        };
        let Purpose::Edits(edited) = purpose else { return looked };
        for (kind, name) in edited {
            match kind {
                Kind::Certificate => drop(looked.certificates.insert(name.clone())),
                Kind::Listener => drop(looked.listeners.insert(name.clone())),
                Kind::Cluster => drop(looked.clusters.insert(name.clone())),
                Kind::Admin => looked.admin = true,
                _ => {}
            }
        }
        looked
    }
}

/// The names of those that are other than they were, or of all of them, as far as such ones are or were theirs.
fn names<T: PartialEq>(
    known: &Objects<T>,
    new: &Objects<T>,
    is_all: bool,
    is_such: impl Fn(&T) -> bool,
) -> BTreeSet<Name> {
    let differing = known.differences(new).filter(|(_, before, after)| {
        let mut both = before.iter().chain(after);
        both.any(|object| is_such(object))
    });
    let differing = differing.map(|(name, ..)| name.clone());
    let all = is_all.then(|| new.iter().filter(|(_, object)| is_such(object)).map(|(name, _)| name.clone()));
    differing.chain(all.into_iter().flatten()).collect()
}

/// Have this in the place of what a key had; what is the same stays where it is.
fn keep<K: Ord + Hash + Clone, T>(kept: &mut Sorted<K, Arc<T>>, key: &K, read: &Arc<T>) {
    if !kept.get(key).is_some_and(|known| Arc::ptr_eq(known, read)) {
        kept.insert(key.clone(), Arc::clone(read));
    }
}

/// A private key in a text that those who may only look are shown, too. What runs already goes on: there it is hidden.
fn key_in(pem: &Pem, (section, name, key): Place<'_>) -> Option<Fault> {
    let message = "a private key stands in its text".to_owned();
    let help = Some("leave it out here: a private key stands in `key` of a certificate alone".to_owned());
    pem.has_private_key().then(|| Fault { section, name: name.clone(), key, item: None, message, help })
}

/// What can be lived with.
fn in_words(Fault { section, name, key, message, .. }: &Fault) -> String {
    format!("{} {name}: `{key}`: {message}", section.trim_end_matches('s'))
}

/// What a listener asks its clients to prove.
fn asked(listener: &Listener) -> Option<&ClientCertificates> {
    listener.tls.as_ref()?.client_certificates.as_ref()
}

/// What of these faults can't be lived with: of certificates without which a listener has none to show, or the admin API.
/// The others are said, and left out until their files are other ones.
fn left_out(document: &Document, faults: Vec<Fault>, loaded: &mut Loaded) -> Vec<Fault> {
    let broken: BTreeSet<Name> = faults.iter().map(|fault| fault.name.clone()).collect();
    let mut needed: BTreeSet<&Name> = document.admin.tcp.iter().map(|tcp| &tcp.certificate).collect();
    for tls in document.listeners.values().filter_map(|listener| listener.tls.as_ref()) {
        let shown: Vec<&Name> = document.certificates.keys().filter(|name| tls.shows(name)).collect();
        if shown.iter().all(|name| broken.contains(*name)) {
            needed.extend(shown);
        }
    }
    let (needed, spared): (Vec<Fault>, Vec<Fault>) = faults.into_iter().partition(|fault| needed.contains(&fault.name));
    for Fault { name, key, message, .. } in spared {
        loaded.warnings.push(format!("certificate {name} is left out until it can be read, `{key}`: {message}"));
        if let Some(certificate) = document.certificates.get(&name) {
            loaded.certificates.stamps.insert(name.clone(), stamps(certificate));
        }
    }
    needed
}

/// What tells that the files of a certificate are other ones.
fn stamps(spec: &kakei_config::Certificate) -> [Stamp; 3] {
    let answer = spec.ocsp.as_ref().map(|path| Pem::File(path.clone()));
    [pem::stamp(&spec.chain), pem::stamp(&spec.key), answer.as_ref().map_or(Stamp::Held, pem::stamp)]
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
