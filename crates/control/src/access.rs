//! Who may do what on the admin API: the rules that hold now, and whoever is at the other end of a connection. What is asked
//! for is judged by the rules of that moment, not by those that held when the connection began. Opens nothing.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

use kakei_config::{AdminPeers, ClientId, PeerId};
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::danger::ClientCertVerifier;
use tokio::sync::watch;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::doors::Remote;
use crate::serve::Guest;

/// Names of one certificate that are told, and how many letters of each.
const SHOWN: usize = 8;
const LONGEST: usize = 256;

/// What somebody may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Role {
    /// Look.
    ReadOnly,
    /// Change what runs, too.
    ReadWrite,
}

/// The rules.
#[derive(Clone, Debug, Default)]
pub(crate) struct Rules {
    /// The user that the process runs as.
    pub(crate) own: u32,
    pub(crate) peers: AdminPeers,
    pub(crate) remote: Option<Arc<Remote>>,
}

impl Rules {
    /// What the process at the other end of the socket may do. Who is named has the role that it is named for, also where
    /// it would have another one.
    fn of_peer(&self, uid: u32, gid: u32) -> Option<Role> {
        let AdminPeers { read_only, read_write } = &self.peers;
        for id in [PeerId::Uid(uid), PeerId::Gid(gid)] {
            if let Some(role) = listed(read_only, read_write, |listed| *listed == id) {
                return Some(role);
            }
        }
        (uid == 0 || uid == self.own).then_some(Role::ReadWrite)
    }

    /// What a client with this certificate may do.
    fn of_client(&self, client: &Client) -> Option<(Role, ClientId)> {
        let remote = self.remote.as_ref()?;
        if !client.is_vouched_for(&remote.verifier) {
            return None;
        }
        let spec = &remote.spec;
        let role = listed(&spec.read_only, &spec.read_write, |listed| client.names.contains(listed))?;
        let named = client.names.iter().find(|name| spec.read_only.contains(name) || spec.read_write.contains(name));
        Some((role, named?.clone()))
    }
}

/// Who is in both lists, by two names, may do what the lesser one says.
fn listed<T>(read_only: &[T], read_write: &[T], is_it: impl Fn(&T) -> bool) -> Option<Role> {
    match (read_only.iter().any(&is_it), read_write.iter().any(&is_it)) {
        (true, _) => Some(Role::ReadOnly),
        (false, true) => Some(Role::ReadWrite),
        (false, false) => None,
    }
}

/// A client that showed a certificate.
pub(crate) struct Client {
    /// The names that it can be called by.
    names: Vec<ClientId>,
    chain: Vec<CertificateDer<'static>>,
    from: SocketAddr,
    /// By whom it was looked at.
    verifier: Arc<dyn ClientCertVerifier>,
}

impl Client {
    /// The client that showed this chain, which was verified.
    pub(crate) fn of(
        chain: Vec<CertificateDer<'static>>,
        from: SocketAddr,
        verifier: Arc<dyn ClientCertVerifier>,
    ) -> Self {
        let names = chain.first().map_or_else(Vec::new, |leaf| names(leaf));
        Client { names, chain, from, verifier }
    }

    /// Whether the certificate is good by these rules, which may be others than those that it was shown under.
    fn is_vouched_for(&self, verifier: &Arc<dyn ClientCertVerifier>) -> bool {
        if Arc::ptr_eq(&self.verifier, verifier) {
            return true;
        }
        let Some((leaf, others)) = self.chain.split_first() else { return false };
        verifier.verify_client_cert(leaf, others, UnixTime::now()).is_ok()
    }
}

/// The names of a certificate that somebody can be called by. What holds a control character is no name.
fn names(leaf: &[u8]) -> Vec<ClientId> {
    let Ok((_, leaf)) = X509Certificate::from_der(leaf) else { return Vec::new() };
    let mut common = leaf.subject().iter_common_name().map(|name| name.as_str());
    let common = match (common.next(), common.next()) {
        (Some(Ok(name)), None) => Some(ClientId::CommonName(name.to_owned())),
        _ => None,
    };
    let alternative = leaf.subject_alternative_name().ok().flatten();
    let alternative = alternative.iter().flat_map(|names| &names.value.general_names).filter_map(|name| match name {
        GeneralName::DNSName(name) => Some(ClientId::Dns(name.to_ascii_lowercase())),
        GeneralName::URI(name) => Some(ClientId::Uri((*name).to_owned())),
        GeneralName::RFC822Name(name) => Some(ClientId::Email((*name).to_owned())),
        _ => None,
    });
    let is_name = |name: &ClientId| !name.to_string().contains(char::is_control);
    common.into_iter().chain(alternative).filter(is_name).collect()
}

/// Whoever is at the other end of a connection. A copy is the same one.
#[derive(Clone)]
pub(crate) struct Peer {
    who: Arc<Who>,
    rules: watch::Receiver<Arc<Rules>>,
    pub(crate) guest: Arc<Guest>,
}

enum Who {
    /// A process on this machine; none: the system doesn't say which.
    Process(Option<Credentials>),
    Client(Client),
}

/// What the system says of the process at the other end of a socket.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Credentials {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) pid: Option<i32>,
}

impl Peer {
    pub(crate) fn process(
        credentials: Option<Credentials>,
        rules: watch::Receiver<Arc<Rules>>,
        guest: Arc<Guest>,
    ) -> Self {
        Peer { who: Arc::new(Who::Process(credentials)), rules, guest }
    }

    pub(crate) fn client(client: Client, rules: watch::Receiver<Arc<Rules>>, guest: Arc<Guest>) -> Self {
        Peer { who: Arc::new(Who::Client(client)), rules, guest }
    }

    /// What it may do now; none: nothing.
    pub(crate) fn role(&self) -> Option<Role> {
        self.role_by(&self.rules.borrow())
    }

    fn role_by(&self, rules: &Rules) -> Option<Role> {
        match &*self.who {
            Who::Process(credentials) => {
                let Credentials { uid, gid, .. } = (*credentials)?;
                rules.of_peer(uid, gid)
            }
            Who::Client(client) => rules.of_client(client).map(|(role, _)| role),
        }
    }

    /// Who it is: the process by its numbers, a client by the name that gives it its role, or else by all that it has.
    pub(crate) fn name(&self) -> Option<String> {
        match &*self.who {
            Who::Process(credentials) => {
                let Credentials { uid, pid, .. } = (*credentials)?;
                Some(match pid {
                    Some(pid) => format!("uid {uid}, pid {pid}"),
                    None => format!("uid {uid}"),
                })
            }
            Who::Client(client) => Some(match self.rules.borrow().of_client(client) {
                Some((_, name)) => name.to_string(),
                None => all(&client.names),
            }),
        }
    }

    /// Where it is, where that isn't this machine's own business.
    pub(crate) fn from(&self) -> Option<SocketAddr> {
        match &*self.who {
            Who::Process(_) => None,
            Who::Client(client) => Some(client.from),
        }
    }

    /// Ready when it may not even look any more.
    pub(crate) async fn expelled(mut self) {
        loop {
            let rules = Arc::clone(&self.rules.borrow_and_update());
            if self.role_by(&rules).is_none() || self.rules.changed().await.is_err() {
                return;
            }
        }
    }

    /// What it takes to be let in, for one who isn't.
    pub(crate) fn lacks(&self, needs: Role) -> String {
        let key = needs.key();
        match &*self.who {
            Who::Process(Some(Credentials { uid, gid, .. })) => {
                let list = format!("`{key}` of [admin.peers]");
                let is_named = self.rules.borrow().peers.read_only.contains(&PeerId::Uid(*uid));
                match self.role() {
                    // A user that is named goes before groups.
                    Some(_) if is_named => format!(
                        "uid {uid} may look and change nothing: {list} would have to name `uid:{uid}`, and `read_only` not"
                    ),
                    Some(_) => format!(
                        "uid {uid} may look and change nothing: {list} would have to name `uid:{uid}` or `gid:{gid}`"
                    ),
                    None => {
                        format!("uid {uid} may do nothing here: {list} would have to name `uid:{uid}` or `gid:{gid}`")
                    }
                }
            }
            Who::Process(None) => "the system doesn't say who asks".to_owned(),
            Who::Client(client) => {
                let (list, names) = (format!("`{key}` of [admin.tcp]"), all(&client.names));
                match self.role() {
                    Some(_) => format!(
                        "{names} may look and change nothing: {list} would have to name it, and `read_only` not"
                    ),
                    None => format!("{names} may do nothing here: {list} would have to name it"),
                }
            }
        }
    }
}

fn all(names: &[ClientId]) -> String {
    match names {
        [] => "a certificate without a name".to_owned(),
        names => {
            let cut = |name: &ClientId| name.to_string().chars().take(LONGEST).collect::<String>();
            let shown = names.iter().take(SHOWN).map(cut).collect::<Vec<_>>().join(", ");
            match names.len().saturating_sub(SHOWN) {
                0 => shown,
                more => format!("{shown} and {more} more"),
            }
        }
    }
}

impl fmt::Debug for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Peer({:?}, {:?})", self.name(), self.from())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_named_has_the_role_that_it_is_named_for() {
        let peers = AdminPeers {
            read_only: vec![PeerId::Gid(4), PeerId::Uid(7)],
            read_write: vec![PeerId::Uid(5), PeerId::Gid(9)],
        };
        let rules = Rules { own: 100, peers, remote: None };
        let all = [
            ((0, 0), Some(Role::ReadWrite)),
            ((100, 1), Some(Role::ReadWrite)),
            ((5, 4), Some(Role::ReadWrite)),
            ((7, 9), Some(Role::ReadOnly)),
            ((8, 4), Some(Role::ReadOnly)),
            ((8, 9), Some(Role::ReadWrite)),
            ((100, 4), Some(Role::ReadOnly)),
            ((8, 8), None),
        ];
        for ((uid, gid), role) in all {
            assert_eq!(rules.of_peer(uid, gid), role, "{uid} {gid}");
        }
    }
}
