//! The options of TLS: certificates, what a listener holds its clients to, and a cluster its backends.

use std::time::Duration;

use super::streams::{ProtocolName, wrong_host};
use super::values::{Flag, LONGEST, Reference, Time, Whole, Words, text};
use super::{At, Codec, ListOf, Maybe, Section, Shape, Table, field, independent, shape};
use crate::diagnostics::{Collector, quoted};
use crate::model::{
    Certificate, CipherSuite, ClientCertificateMode, ClientCertificates, ClusterTls, ListenerTls, Pem, Shown,
    TlsVersion,
};
use crate::tree::Value;

const VERSION: Words<TlsVersion> = Words { of: &[("1.2", TlsVersion::Tls12), ("1.3", TlsVersion::Tls13)], later: &[] };
const SUITE: Words<CipherSuite> = Words { of: &CipherSuite::ALL, later: &[] };

pub(super) const CERTIFICATE: Section<Certificate> = Section {
    blank: Certificate::default,
    fields: &[
        field!(chain: PemOf, "the certificate, and behind it those that vouch for it, without the root", required),
        field!(key: PemOf, "the private key of the first of them", required),
        field!(ocsp: Maybe(super::values::Path { what: "a file's path", longest: 4_096 }),
            "a file with the answer of its issuer's responder (OCSP, in DER), shown to clients that ask for it; left out: they get none"),
    ],
    later: &[],
    finish: independent,
};

pub(super) const LISTENER_TLS: Section<ListenerTls> = Section {
    blank: ListenerTls::default,
    fields: &[
        field!(certificates: ShownOf,
            "those that it shows, `all` of the document or these, by the name that a client asks for: exact before `*.`, ECDSA before RSA where the client knows both", required),
        field!(default: Maybe(Reference("certificate")),
            "the one for clients that ask for no name, or for one that no certificate has; left out: they are refused (`unrecognized_name`)"),
        field!(min_version: VERSION, "the oldest version that is spoken"),
        field!(cipher_suites: ListOf { of: SUITE, filled: false },
            "those that may be agreed on, the preferred first; left out: all of them"),
        field!(alpn: ListOf { of: ProtocolName, filled: false },
            "protocols that may be agreed on, the preferred first; left out: over TCP none is, over HTTP `http/1.1` and `http/1.0`"),
        field!(handshake_timeout: Time { min: Duration::from_millis(1), max: LONGEST }, "how long a handshake may take"),
        field!(handshakes: Whole { min: 1, max: u32::MAX, zero: None },
            "handshakes under way at one time; a client that comes on top is refused as over a limit"),
        field!(tickets: Flag, "whether clients get tickets by which a later handshake is shorter"),
        field!(client_certificates: Maybe(Table(&CLIENT_CERTIFICATES)), "clients are asked to prove who they are; left out: nobody is"),
    ],
    later: &[],
    finish: |tls, at, problems| {
        let suites = &tls.cipher_suites;
        let usable = |version| tls.min_version <= version && suites.iter().any(|suite| suite.is_of(version));
        if !suites.is_empty() && !usable(TlsVersion::Tls12) && !usable(TlsVersion::Tls13) {
            at.report(format!("{}: none of `cipher_suites` is of a version that is spoken", at.subject()), problems);
        }
    },
};

pub(super) const CLIENT_CERTIFICATES: Section<ClientCertificates> = Section {
    blank: ClientCertificates::default,
    fields: &[
        field!(mode: CLIENT_CERTIFICATE_MODE, "whether a client must show a certificate, or may; one that is shown must be good in either case"),
        field!(ca: PemOf, "the certificates of those who may vouch for clients", required),
        field!(crls: ListOf { of: PemOf, filled: false }, "revocation lists; with any of them, a client whose issuer has none is refused"),
    ],
    later: &[],
    finish: independent,
};

pub(super) const CLIENT_CERTIFICATE_MODE: Words<ClientCertificateMode> = Words {
    of: &[("optional", ClientCertificateMode::Optional), ("required", ClientCertificateMode::Required)],
    later: &[],
};

pub(super) const CLUSTER_TLS: Section<ClusterTls> = Section {
    blank: ClusterTls::default,
    fields: &[
        field!(ca: Maybe(PemOf), "the certificates of those who may vouch for a backend; left out: those that the system trusts"),
        field!(server_name: Maybe(ServerNameText),
            "what a backend must prove to be, and is asked for; left out: the host name or the address that it is written with"),
        field!(verify: Flag, "whether a backend has to prove who it is; `false` is for tests: whoever is in the way can read and change everything"),
        field!(certificate: Maybe(Reference("certificate")), "what the proxy proves by who it is, where a backend asks for it; left out: nothing"),
        field!(min_version: VERSION, "the oldest version that is spoken"),
        field!(alpn: ListOf { of: ProtocolName, filled: false },
            "protocols that connections of TCP listeners offer, the preferred first; those that carry requests always offer `http/1.1`"),
    ],
    later: &[],
    finish: |tls, at, problems| {
        if !tls.verify && tls.ca.is_some() {
            let message = format!("{}: with `verify = false` nobody looks at `ca`", at.subject());
            at.report_key(message, problems).help("leave out one of the two");
        }
    },
};

/// The word for every certificate.
const ALL: &str = "all";
const NAMED: ListOf<Reference> = ListOf { of: Reference("certificate"), filled: true };

/// Certificates by name, or all of them.
struct ShownOf;

impl Codec for ShownOf {
    type Of = Shown;

    fn describe(&self) -> String {
        format!("`{ALL}`, or a {}", NAMED.describe())
    }

    fn shape(&self) -> Shape {
        shape::either([shape::words([ALL]), NAMED.shape()])
    }

    fn read(&self, at: &At<'_>, problems: &mut Collector) -> Option<Shown> {
        match &at.node.value {
            Value::Text(word) if word == ALL => Some(Shown::All),
            _ => NAMED.read(at, problems).map(Shown::Named),
        }
    }

    fn write(&self, value: &Shown) -> Option<Value> {
        match value {
            Shown::All => Some(Value::text(ALL)),
            Shown::Named(names) => NAMED.write(names),
        }
    }
}

/// A host name, or an address.
struct ServerNameText;

impl Codec for ServerNameText {
    type Of = String;

    fn describe(&self) -> String {
        "host name or address".into()
    }

    fn read(&self, at: &At<'_>, problems: &mut Collector) -> Option<String> {
        let written = text(at, "a host name like \"app.example.com\", or an address", problems)?;
        let name = written.strip_suffix('.').unwrap_or(written);
        let is_address = name.parse::<std::net::IpAddr>().is_ok();
        if let Some(wrong) = wrong_host(name).filter(|_| !is_address) {
            at.report(format!("{}: `{}` {wrong}", at.subject(), quoted(written)), problems);
            return None;
        }
        Some(name.to_ascii_lowercase())
    }

    fn write(&self, value: &String) -> Option<Value> {
        Some(Value::text(value.clone()))
    }
}

/// The longest text of a file in PEM that is written in the document, and the longest file.
const LONGEST_PEM: usize = 1 << 20;

/// A file's path, or the text of one in PEM.
pub(super) struct PemOf;

impl Codec for PemOf {
    type Of = Pem;

    fn describe(&self) -> String {
        "a PEM file's path, or its text".into()
    }

    fn read(&self, at: &At<'_>, problems: &mut Collector) -> Option<Pem> {
        let written = text(at, "a PEM file's path, or its text", problems)?;
        if written.contains("-----BEGIN ") {
            if written.len() > LONGEST_PEM {
                at.report(format!("{} is longer than {LONGEST_PEM} bytes", at.subject()), problems);
                return None;
            }
            return Some(Pem::Text(written.to_owned()));
        }
        super::values::Path { what: "a PEM file's path, or its text", longest: 4_096 }.read(at, problems).map(Pem::File)
    }

    fn write(&self, value: &Pem) -> Option<Value> {
        let (Pem::File(text) | Pem::Text(text)) = value;
        Some(Value::text(text.clone()))
    }
}
