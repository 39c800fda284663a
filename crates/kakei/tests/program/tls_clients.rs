//! Client certificates as clients, backends and operators see them.

use std::io::{Read, Write};
use std::sync::Arc;

use rcgen::{CertificateRevocationListParams, KeyIdMethod, RevokedCertParams, SanType, SerialNumber, date_time_ymd};
use rustls::client::Resumption;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, HandshakeKind, RootCertStore};

use crate::harness::{Room, Running};
use crate::tls::{Authority, Made, connect, document, echo, get, line, mirror};

const BOTH: &[&rustls::SupportedProtocolVersion] = &[&rustls::version::TLS13, &rustls::version::TLS12];

/// A client's configuration, perhaps with something to show.
fn config(
    servers: &Authority,
    shows: Option<&Made>,
    versions: &[&'static rustls::SupportedProtocolVersion],
) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(servers.pem.as_bytes()).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_protocol_versions(versions).unwrap();
    let builder = builder.with_root_certificates(roots);
    let mut config = match shows {
        None => builder.with_no_client_auth(),
        Some(made) => {
            let key = PrivateKeyDer::from_pem_slice(made.key.as_bytes()).unwrap();
            let chain = CertificateDer::pem_slice_iter(made.chain.as_bytes()).map(Result::unwrap).collect();
            builder.with_client_auth_cert(chain, key).unwrap()
        }
    };
    config.resumption = Resumption::in_memory_sessions(8);
    Arc::new(config)
}

/// A client's configuration with something to show, or with nothing.
pub(crate) fn client_config(servers: &Authority, shows: Option<&Made>) -> Arc<ClientConfig> {
    config(servers, shows, BOTH)
}

fn client(authority: &Authority, serial: u64) -> Made {
    authority.make(&["ann.test"], |params| {
        params.distinguished_name.push(rcgen::DnType::CommonName, "Ann");
        params.subject_alt_names.push(SanType::Rfc822Name("ann@test".try_into().unwrap()));
        params.serial_number = Some(SerialNumber::from(serial));
    })
}

pub(crate) fn revoked(authority: &Authority, serials: &[u64]) -> String {
    let revoked = serials.iter().map(|serial| RevokedCertParams {
        serial_number: SerialNumber::from(*serial),
        revocation_time: date_time_ymd(2026, 1, 1),
        reason_code: None,
        invalidity_date: None,
    });
    let params = CertificateRevocationListParams {
        this_update: date_time_ymd(2026, 1, 1),
        next_update: date_time_ymd(2126, 1, 1),
        crl_number: SerialNumber::from(1),
        issuing_distribution_point: None,
        revoked_certs: revoked.collect(),
        key_identifier_method: KeyIdMethod::Sha256,
    };
    params.signed_by(&authority.issuer).unwrap().pem().unwrap()
}

#[test]
fn requests_say_whom_they_come_from() {
    let (room, servers, clients) = (Room::new("tls-clients"), Authority::new(), Authority::new());
    let ca = room.write("clients.pem", &clients.pem);
    let routes = "[routes.admin]\nlistener = \"front\"\npath = \"/admin\"\ncluster = \"c\"\nclient_certificates = \"required\"\n";
    let more = [servers.make(&["site.test"], |_| {}).put(&room, "site"), routes.to_owned()].concat();
    let tls = format!("certificates = [\"site\"], client_certificates = {{ mode = \"optional\", ca = {ca:?} }}");
    let running = Running::start(&room, &document(&room, ("http", mirror()), &tls, &more));
    let ann = client(&clients, 7);
    let mut stream = connect(running.front(), "site.test", &config(&servers, Some(&ann), BOTH)).unwrap();
    for path in ["/", "/admin"] {
        let (head, seen) = get(&mut stream, "site.test", path);
        assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
        assert!(seen.contains("X-Client-Cert-Subject: CN=Ann\r\n"), "{seen}");
        assert!(seen.contains("X-Client-Cert-San: DNS:ann.test,email:ann@test\r\n"), "{seen}");
        let fingerprint = seen.lines().find_map(|line| line.strip_prefix("X-Client-Cert-Fingerprint: ")).unwrap();
        assert_eq!(fingerprint.len(), 64, "{fingerprint}");
    }
    let completed = line(&room, "completed");
    assert_eq!(completed["tls_client_subject"], "CN=Ann");
    assert_eq!(completed["tls_client_names"], "DNS:ann.test,email:ann@test");

    // Who shows nothing is nobody, whatever it says.
    let mut stream = connect(running.front(), "site.test", &config(&servers, None, BOTH)).unwrap();
    let (head, _) = get(&mut stream, "site.test", "/admin");
    assert!(head.starts_with("HTTP/1.1 403 "), "{head}");
    assert_eq!(line(&room, "client_certificate")["status"], 403);
    let lies = "/ HTTP/1.1\r\nX-Client-Cert-Subject: CN=Ann\r\nx-client-cert-fingerprint: 00\r\nClient-Cert: :AA==:\r\n\
                X-Client-Cert-San: DNS:ann.test\r\nX-Lie";
    stream.write_all(format!("GET {lies}: no\r\nHost: site.test\r\n\r\n").as_bytes()).unwrap();
    let mut seen = vec![0; 4_096];
    let length = stream.read(&mut seen).unwrap();
    let mut seen = String::from_utf8_lossy(&seen[..length]).to_ascii_lowercase();
    while !seen.contains("x-lie") {
        let mut more = vec![0; 4_096];
        let length = stream.read(&mut more).unwrap();
        seen.push_str(&String::from_utf8_lossy(&more[..length]).to_ascii_lowercase());
    }
    assert!(!seen.contains("client-cert"), "{seen}");

    // Somebody's whom nobody vouches for is refused in the handshake.
    let stranger = client(&servers, 8);
    let stream = connect(running.front(), "site.test", &config(&servers, Some(&stranger), &[&rustls::version::TLS12]));
    assert!(stream.is_err());
    let lines = std::fs::read_to_string(room.path("access.log")).unwrap();
    assert!(lines.contains("\"client_certificate\""), "{lines}");
}

#[test]
fn streams_come_from_those_who_may() {
    let (room, servers, clients) = (Room::new("tls-clients-tcp"), Authority::new(), Authority::new());
    let ca = room.write("clients.pem", &clients.pem);
    let crl = room.write("clients.crl", &revoked(&clients, &[9]));
    let more = servers.make(&["echo.test"], |_| {}).put(&room, "echo");
    let tls = format!("certificates = [\"echo\"], client_certificates = {{ ca = {ca:?}, crls = [{crl:?}] }}");
    let running = Running::start(&room, &document(&room, ("tcp", echo()), &tls, &more));
    let works = |config: &Arc<ClientConfig>| -> Result<HandshakeKind, String> {
        let mut stream = connect(running.front(), "echo.test", config).map_err(|error| error.to_string())?;
        stream.write_all(b"ping").map_err(|error| error.to_string())?;
        stream.read_exact(&mut [0; 4]).map_err(|error| error.to_string())?;
        Ok(stream.conn.handshake_kind().unwrap())
    };
    for version in BOTH {
        let (ann, bob) = (client(&clients, 8), client(&clients, 9));
        let config_of = |made| config(&servers, made, std::slice::from_ref(version));
        let good = config_of(Some(&ann));
        assert!(matches!(works(&good), Ok(HandshakeKind::Full | HandshakeKind::FullWithHelloRetryRequest)));
        assert_eq!(works(&good), Ok(HandshakeKind::Resumed));
        assert!(
            works(&config_of(None)).unwrap_err().contains("CertificateRequired")
                || version.version == rustls::ProtocolVersion::TLSv1_2
        );
        assert!(works(&config_of(None)).is_err());
        assert!(works(&config_of(Some(&bob))).unwrap_err().contains("CertificateRevoked"));

        // Whom the list has from now on doesn't come in by what an earlier handshake left, either.
        room.write("clients.crl", &revoked(&clients, &[8, 9]));
        let said = running.done(&["apply", room.path("k.toml").to_str().unwrap()]);
        assert!(said.contains("listener front"), "{said}");
        assert!(works(&good).unwrap_err().contains("CertificateRevoked"));
        room.write("clients.crl", &revoked(&clients, &[9]));
        running.done(&["apply", room.path("k.toml").to_str().unwrap()]);
    }
    let refused = line(&room, "client_certificate");
    assert_eq!(refused["by"], "client");
}

/// What there is of a test's clients: what they show, and what of it lists take back.
struct Way {
    clients: Authority,
    between: Authority,
    shown: Made,
}

impl Way {
    fn new() -> Self {
        let clients = Authority::new();
        let between = clients.under(4);
        let own = client(&between, 8);
        let shown = Made { chain: format!("{}{}", own.chain, between.pem), key: own.key };
        Way { clients, between, shown }
    }

    /// Lists, and whether who is vouched for on this way comes in by them.
    fn lists(&self) -> [(String, bool); 6] {
        let of_root = |serials| revoked(&self.clients, serials);
        let of_between = |serials| revoked(&self.between, serials);
        [
            (of_between(&[]) + &of_root(&[]), true),
            (of_between(&[]) + &of_root(&[4]), false),
            (of_root(&[4]) + &of_between(&[]), false),
            (of_between(&[8]) + &of_root(&[]), false),
            // Who vouches for its issuer need not have a list; its issuer must.
            (of_between(&[9]), true),
            (of_root(&[]), false),
        ]
    }
}

#[test]
fn whom_a_revoked_authority_vouches_for_stays_outside() {
    let (room, servers, way) = (Room::new("tls-clients-way"), Authority::new(), Way::new());
    let ca = room.write("clients.pem", &way.clients.pem);
    let crl = room.write("clients.crl", &revoked(&way.between, &[]));
    let more = servers.make(&["echo.test"], |_| {}).put(&room, "echo");
    let tls = format!("certificates = [\"echo\"], client_certificates = {{ ca = {ca:?}, crls = [{crl:?}] }}");
    let running = Running::start(&room, &document(&room, ("tcp", echo()), &tls, &more));
    let good = BOTH.iter().map(|version| config(&servers, Some(&way.shown), std::slice::from_ref(version)));
    let good: Vec<Arc<ClientConfig>> = good.collect();
    let works = |config: &Arc<ClientConfig>| {
        let mut stream = connect(running.front(), "echo.test", config).ok()?;
        stream.write_all(b"ping").ok()?;
        stream.read_exact(&mut [0; 4]).ok()
    };
    for (lists, comes_in) in way.lists() {
        room.write("clients.crl", &lists);
        running.done(&["apply", room.path("k.toml").to_str().unwrap()]);
        for (config, version) in good.iter().zip(BOTH) {
            assert_eq!(works(config).is_some(), comes_in, "{:?}: {lists}", version.version);
        }
    }
}
