//! The options of TLS: certificates, and what a listener holds its clients to.

use std::time::Duration;

use super::streams::ProtocolName;
use super::values::{Flag, LONGEST, Reference, Time, Whole, Words, text};
use super::{At, Codec, ListOf, Maybe, Section, field, independent};
use crate::diagnostics::Collector;
use crate::model::{Certificate, CipherSuite, ListenerTls, Pem, TlsVersion};
use crate::tree::Value;

const VERSION: Words<TlsVersion> = Words { of: &[("1.2", TlsVersion::Tls12), ("1.3", TlsVersion::Tls13)], later: &[] };
const SUITE: Words<CipherSuite> = Words { of: &CipherSuite::ALL, later: &[] };

pub(super) const CERTIFICATE: Section<Certificate> = Section {
    blank: Certificate::default,
    fields: &[
        field!(chain: PemOf, "the certificate, and behind it those that vouch for it, without the root", required),
        field!(key: PemOf, "the private key of the first of them", required),
    ],
    later: &[("ocsp", "OCSP staples")],
    finish: independent,
};

pub(super) const LISTENER_TLS: Section<ListenerTls> = Section {
    blank: ListenerTls::default,
    fields: &[
        field!(certificates: ListOf { of: Reference("certificate"), filled: true },
            "those that it shows, by the name that a client asks for: exact before `*.`, ECDSA before RSA where the client knows both", required),
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
    ],
    later: &[("client_auth", "client certificates")],
    finish: |tls, at, problems| {
        let suites = &tls.cipher_suites;
        let usable = |version| tls.min_version <= version && suites.iter().any(|suite| suite.is_of(version));
        if !suites.is_empty() && !usable(TlsVersion::Tls12) && !usable(TlsVersion::Tls13) {
            at.report(format!("{}: none of `cipher_suites` is of a version that is spoken", at.subject()), problems);
        }
    },
};

/// The longest text of a file in PEM that is written in the document, and the longest file.
const LONGEST_PEM: usize = 1 << 20;

/// A file's path, or the text of one in PEM.
struct PemOf;

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
        Some(Value::text(text))
    }
}
