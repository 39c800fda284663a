//! The side doors as they are wanted: the rules by which the admin API lets somebody in, the address that it has over TCP, the
//! file of its audit lines. What a change needs is made before it is published, and used from then on. Serves nobody.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;

use kakei_config::{Admin, AdminTcp, ClientCertificateMode};
use kakei_proxy::secure;
use rustls::ServerConfig;
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{NoServerSessionStorage, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use tokio::sync::watch;

use crate::access::Rules;
use crate::audit::{self, Audit};
use crate::certificates::{Certificates, Standing};
use crate::refusal::Refusal;

/// The API over TCP.
#[derive(Debug)]
pub(crate) struct Remote {
    pub(crate) spec: AdminTcp,
    /// Bound and listening.
    pub(crate) listener: Arc<TcpListener>,
    /// Where it really is: port 0 resolved.
    pub(crate) local: SocketAddr,
    /// What handshakes are held to.
    pub(crate) config: Arc<ServerConfig>,
    /// Who a client is vouched for by.
    pub(crate) verifier: Arc<dyn ClientCertVerifier>,
    /// What both were made of.
    standing: Standing,
}

/// See the module's words.
#[derive(Debug)]
pub(crate) struct Doors {
    rules: watch::Sender<Arc<Rules>>,
    pub(crate) audit: Audit,
}

/// What a change needs of them.
#[derive(Debug)]
pub(crate) struct Opened {
    remote: Option<Arc<Remote>>,
    audit: audit::Prepared,
}

impl Doors {
    pub(crate) fn closed() -> Self {
        let own = rustix::process::geteuid().as_raw();
        Doors { rules: watch::Sender::new(Arc::new(Rules { own, ..Rules::default() })), audit: Audit::default() }
    }

    pub(crate) fn rules(&self) -> watch::Receiver<Arc<Rules>> {
        self.rules.subscribe()
    }

    /// Where the API is over TCP.
    pub(crate) fn local(&self) -> Option<SocketAddr> {
        self.rules.borrow().remote.as_ref().map(|remote| remote.local)
    }

    /// Make what this document needs; what it has in common with what there is stays.
    pub(crate) fn open(&self, admin: &Admin, certificates: &Certificates) -> Result<Opened, Refusal> {
        let now = self.rules.borrow().remote.clone();
        let remote = match &admin.tcp {
            Some(tcp) => Some(Remote::next(now.as_ref(), tcp, certificates)?),
            None => None,
        };
        let audit = self.audit.prepare(admin.audit_log.as_deref()).map_err(|error| {
            let path = admin.audit_log.clone().unwrap_or_default();
            Refusal::AuditLog { path, error: error.to_string() }
        })?;
        Ok(Opened { remote, audit })
    }

    /// Go over to it.
    pub(crate) fn follow(&self, admin: &Admin, opened: Opened) {
        self.audit.follow(opened.audit);
        let now = Arc::clone(&self.rules.borrow());
        let is_same =
            now.peers == admin.peers && now.remote.as_ref().map(Arc::as_ptr) == opened.remote.as_ref().map(Arc::as_ptr);
        if !is_same {
            let rules = Rules { own: now.own, peers: admin.peers.clone(), remote: opened.remote };
            self.rules.send_replace(Arc::new(rules));
        }
    }
}

impl Remote {
    fn next(now: Option<&Arc<Remote>>, spec: &AdminTcp, certificates: &Certificates) -> Result<Arc<Remote>, Refusal> {
        let standing = certificates
            .standing(spec)
            .ok_or_else(|| Refusal::Bind("the certificate of [admin.tcp] was not read".to_owned()))?;
        if let Some(now) = now.filter(|now| now.spec == *spec && now.standing == standing) {
            return Ok(Arc::clone(now));
        }
        let bound = now.filter(|now| now.spec.bind == spec.bind);
        let (listener, local) = match bound {
            Some(now) => (Arc::clone(&now.listener), now.local),
            None => bind(spec.bind).map_err(|error| {
                Refusal::Bind(format!(
                    "the admin API's address {} can't be bound: {error}; choose another in [admin.tcp] bind",
                    spec.bind
                ))
            })?,
        };
        // Whom the same vouch for need not be looked at again.
        let same = now.filter(|now| now.standing.has_clients_of(&standing));
        let verifier = match same {
            Some(now) => Arc::clone(&now.verifier),
            None => secure::client_verifier(
                &standing.trusted,
                &standing.revoked,
                &standing.provider,
                ClientCertificateMode::Required,
            )
            .map_err(|error| Refusal::Bind(format!("[admin.tcp]: clients can't be verified: {error}")))?,
        };
        let config = config(&standing, &verifier)
            .map_err(|error| Refusal::Bind(format!("[admin.tcp]: TLS can't be spoken: {error}")))?;
        Ok(Arc::new(Remote { spec: spec.clone(), listener, local, config: Arc::new(config), verifier, standing }))
    }
}

fn bind(address: SocketAddr) -> io::Result<(Arc<TcpListener>, SocketAddr)> {
    let listener = TcpListener::bind(address)?;
    listener.set_nonblocking(true)?;
    let local = listener.local_addr()?;
    Ok((Arc::new(listener), local))
}

/// TLS 1.3 alone. No session is resumed: every connection shows its certificate, so that one that counts no longer is of no use.
fn config(standing: &Standing, verifier: &Arc<dyn ClientCertVerifier>) -> Result<ServerConfig, rustls::Error> {
    let builder = ServerConfig::builder_with_provider(Arc::clone(&standing.provider));
    let builder = builder.with_protocol_versions(&[&rustls::version::TLS13])?;
    let only = Arc::new(Only(Arc::clone(&standing.certificate.key)));
    let mut config = builder.with_client_cert_verifier(Arc::clone(verifier)).with_cert_resolver(only);
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

/// The one certificate.
#[derive(Debug)]
struct Only(Arc<CertifiedKey>);

impl ResolvesServerCert for Only {
    fn resolve(&self, _: rustls::server::ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0))
    }
}
