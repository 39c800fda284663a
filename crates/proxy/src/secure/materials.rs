//! What a document names and doesn't hold: read by somebody else, who brings it along; and what of it is other than before.
//! Reads nothing.

use std::hash::Hash;
use std::sync::Arc;

use kakei_config::{ClusterTls, ListenerTls, Name, Pem, Shown, Sorted};
use rustls::RootCertStore;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::CertificateRevocationListDer;
use rustls::server::StoresServerSessions;

use super::certificate::Certificate;
use super::tickets::TicketKeys;

/// See the module's words. A copy shares all of it.
#[derive(Clone, Debug, Default)]
pub struct Materials {
    /// What computes; none: every handshake is refused.
    pub provider: Option<Arc<CryptoProvider>>,
    /// The certificates of the document, read and checked.
    pub certificates: Sorted<Name, Arc<Certificate>>,
    /// What session tickets are sealed by; none: there are no tickets.
    pub tickets: Option<Arc<TicketKeys>>,
    /// What all workers go on from where early data is taken, each of them once; none: none is taken.
    pub sessions: Option<Arc<dyn StoresServerSessions>>,
    /// Who may vouch for others, by how the document names them; without a name: whoever the system trusts.
    pub trusted: Sorted<Option<Pem>, Arc<RootCertStore>>,
    /// Lists of certificates that count no longer, by how the document names them.
    pub revoked: Sorted<Pem, Revoked>,
}

/// Lists of certificates that count no longer, as one file holds them.
pub type Revoked = Arc<Vec<CertificateRevocationListDer<'static>>>;

impl PartialEq for Materials {
    /// Whether they are the same in memory.
    fn eq(&self, other: &Self) -> bool {
        !Stale::of(self, other).is_anything()
    }
}

/// What of some materials others have not, or not the same.
pub(crate) struct Stale<'a> {
    /// What all handshakes have to do with.
    all: bool,
    /// What clients go on from.
    tickets: bool,
    /// Whether there is one more certificate, or one less, or another one.
    certificates: bool,
    /// What was replaced, or is gone.
    shown: Vec<&'a Name>,
    trusted: Vec<&'a Option<Pem>>,
    revoked: Vec<&'a Pem>,
}

impl<'a> Stale<'a> {
    /// What of `old` is stale, where `new` is there.
    pub(crate) fn of(old: &'a Materials, new: &'a Materials) -> Self {
        let (shown, certificates) = replaced(&old.certificates, &new.certificates);
        Stale {
            all: !is_same(&old.provider, &new.provider),
            tickets: !is_same(&old.tickets, &new.tickets) || !is_same(&old.sessions, &new.sessions),
            certificates,
            shown,
            trusted: replaced(&old.trusted, &new.trusted).0,
            revoked: replaced(&old.revoked, &new.revoked).0,
        }
    }

    /// Whether anything was compiled from what is stale.
    pub(crate) fn is_anything(&self) -> bool {
        self.is_of_clusters() || self.tickets || self.certificates || !self.revoked.is_empty()
    }

    /// Whether a cluster may have been compiled from what is stale.
    pub(crate) fn is_of_clusters(&self) -> bool {
        self.all || !self.shown.is_empty() || !self.trusted.is_empty()
    }

    /// Whether TLS of a cluster is compiled from what is stale.
    pub(crate) fn is_of_cluster(&self, tls: &ClusterTls) -> bool {
        let certificate = tls.certificate.as_ref().is_some_and(|name| self.shown.contains(&name));
        self.all || certificate || (tls.verify && self.trusted.contains(&&tls.ca))
    }

    /// Whether TLS of a listener is.
    pub(crate) fn is_of_listener(&self, tls: &ListenerTls) -> bool {
        let shown = match tls.certificates {
            Shown::All => self.certificates,
            Shown::Named(_) => self.shown.iter().any(|name| tls.shows(name)),
        };
        let clients = tls.client_certificates.as_ref().is_some_and(|asked| {
            let trusted = self.trusted.iter().any(|stale| stale.as_ref() == Some(&asked.ca));
            trusted || asked.crls.iter().any(|crl| self.revoked.contains(&crl))
        });
        self.all || (self.tickets && tls.tickets) || shown || clients
    }
}

pub(super) fn is_same<T: ?Sized>(old: &Option<Arc<T>>, new: &Option<Arc<T>>) -> bool {
    match (old, new) {
        (Some(old), Some(new)) => Arc::ptr_eq(old, new),
        (old, new) => old.is_none() && new.is_none(),
    }
}

/// The keys of what was replaced or is gone; and whether there is any difference.
fn replaced<'a, K: Ord + Hash, T>(old: &'a Sorted<K, Arc<T>>, new: &'a Sorted<K, Arc<T>>) -> (Vec<&'a K>, bool) {
    let (mut keys, mut any) = (Vec::new(), false);
    for (key, before, after) in old.differences(new) {
        if let (Some(before), Some(after)) = (before, after)
            && Arc::ptr_eq(before, after)
        {
            continue;
        }
        any = true;
        keys.extend(before.map(|_| key));
    }
    (keys, any)
}
