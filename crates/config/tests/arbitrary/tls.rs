//! Arbitrary certificates and TLS of listeners.

use kakei_config::*;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{select, subsequence};

pub(super) fn certificate() -> impl Strategy<Value = Certificate> {
    let file = || "[a-z/.]{1,20}".prop_map(Pem::File);
    let text =
        || "[A-Z]{1,9}".prop_map(|kind| Pem::Text(format!("-----BEGIN {kind}-----\nAAAA\n-----END {kind}-----\n")));
    let pem = || prop_oneof![3 => file(), 1 => text()];
    (pem(), pem()).prop_map(|(chain, key)| Certificate { chain, key })
}

/// Its certificates are named by [`connected`].
pub(super) fn listener() -> impl Strategy<Value = ListenerTls> {
    let suites = subsequence(CipherSuite::ALL.map(|(_, suite)| suite).to_vec(), 0..=9);
    let version = select(vec![TlsVersion::Tls12, TlsVersion::Tls13]);
    let alpn = vec("[a-z0-9/.]{1,20}", 0..3);
    (suites, version, alpn, super::time(1), 1u32.., any::<bool>()).prop_map(|parts| ListenerTls {
        certificates: Vec::new(),
        default: None,
        // What can't be spoken at all would be refused.
        cipher_suites: if parts.0.iter().any(|suite| suite.is_of(TlsVersion::Tls13)) { parts.0 } else { Vec::new() },
        min_version: parts.1,
        alpn: parts.2,
        handshake_timeout: parts.3,
        handshakes: parts.4,
        tickets: parts.5,
    })
}

/// The same with some of these certificates; none where there are none.
pub(super) fn connected(tls: ListenerTls, protocol: Protocol, names: &[Name]) -> Option<ListenerTls> {
    if names.is_empty() || protocol == Protocol::Udp {
        return None;
    }
    let alpn = if protocol == Protocol::Http { vec!["http/1.1".to_owned()] } else { tls.alpn };
    let default = tls.handshakes.is_multiple_of(2).then(|| names[0].clone());
    Some(ListenerTls { certificates: names.to_vec(), default, alpn, ..tls })
}
