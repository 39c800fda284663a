//! Arbitrary certificates and TLS of listeners and clusters.

use kakei_config::*;
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::{select, subsequence};

fn pem() -> impl Strategy<Value = Pem> {
    let file = || "[a-z/.]{1,20}".prop_map(Pem::File);
    let text =
        || "[A-Z]{1,9}".prop_map(|kind| Pem::Text(format!("-----BEGIN {kind}-----\nAAAA\n-----END {kind}-----\n")));
    prop_oneof![3 => file(), 1 => text()]
}

pub(super) fn certificate() -> impl Strategy<Value = Certificate> {
    (pem(), pem(), option::of("[a-z/.]{1,20}")).prop_map(|(chain, key, ocsp)| Certificate { chain, key, ocsp })
}

/// Its certificates are named by [`connected`].
pub(super) fn listener() -> impl Strategy<Value = ListenerTls> {
    let suites = subsequence(CipherSuite::ALL.map(|(_, suite)| suite).to_vec(), 0..=9);
    let version = select(vec![TlsVersion::Tls12, TlsVersion::Tls13]);
    let alpn = vec("[a-z0-9/.]{1,20}", 0..3);
    let mode = select(vec![ClientCertificateMode::Optional, ClientCertificateMode::Required]);
    let clients = (mode, pem(), vec(pem(), 0..3)).prop_map(|(mode, ca, crls)| ClientCertificates { mode, ca, crls });
    let parts = (suites, version, alpn, super::time(1), 1u32.., any::<bool>(), option::of(clients));
    parts.prop_map(|parts| ListenerTls {
        certificates: Shown::default(),
        default: None,
        // What can't be spoken at all would be refused.
        cipher_suites: if parts.0.iter().any(|suite| suite.is_of(TlsVersion::Tls13)) { parts.0 } else { Vec::new() },
        min_version: parts.1,
        alpn: parts.2,
        handshake_timeout: parts.3,
        handshakes: parts.4,
        tickets: parts.5,
        client_certificates: parts.6,
    })
}

/// Its certificate, if it is to have one, is chosen by [`connect`].
pub(super) fn cluster() -> impl Strategy<Value = ClusterTls> {
    let version = select(vec![TlsVersion::Tls12, TlsVersion::Tls13]);
    let name =
        prop_oneof!["[a-z]{1,9}(\\.[a-z]{1,9}){0,2}", Just("192.0.2.7".to_owned()), Just("2001:db8::1".to_owned())];
    let alpn = vec("[a-z0-9/.]{1,20}", 0..3);
    (option::of(pem()), option::of(name), any::<bool>(), any::<bool>(), version, alpn).prop_map(
        |(ca, server_name, verify, has_certificate, min_version, alpn)| ClusterTls {
            ca: ca.filter(|_| verify),
            server_name,
            verify,
            certificate: has_certificate.then(|| "".into()),
            min_version,
            alpn,
            ..ClusterTls::default()
        },
    )
}

/// Its certificate is chosen by [`connect`].
pub(super) fn admin() -> impl Strategy<Value = AdminTcp> {
    let name = "[a-z]{1,9}(\\.[a-z]{1,9}){0,2}";
    let client = prop_oneof![
        "[A-Za-z =,]{1,9}".prop_map(ClientId::CommonName),
        name.prop_map(ClientId::Dns),
        "spiffe://[a-z/]{1,9}".prop_map(ClientId::Uri),
        "[a-z]{1,9}@[a-z]{1,9}".prop_map(ClientId::Email),
    ];
    let clients = super::apart(client).prop_filter("it would let nobody in", |(a, b)| a.len() + b.len() > 0);
    (super::bound(), pem(), vec(pem(), 0..3), clients).prop_map(|(bind, ca, crls, (read_only, read_write))| AdminTcp {
        bind,
        certificate: "".into(),
        ca,
        crls,
        read_only,
        read_write,
    })
}

/// Give clusters that have nothing to do with UDP their TLS, and the admin API its certificate.
pub(super) fn connect(document: &mut Document, all: Vec<Option<ClusterTls>>, names: &[Name]) {
    let of_admin = document.admin.tcp.take().zip(names.first().cloned());
    document.admin.tcp = of_admin.map(|(tcp, certificate)| AdminTcp { certificate, ..tcp });
    let is_udp = |name: &Name| document.listeners.get(name).is_some_and(|l| l.protocol == Protocol::Udp);
    let of_listeners = document.listeners.iter().filter_map(|(name, l)| Some((name, l.cluster.clone()?)));
    let of_routes = document.routes.values().filter_map(|route| Some((&route.listener, route.cluster.clone()?)));
    let udp: Vec<Name> =
        of_listeners.chain(of_routes).filter(|(name, _)| is_udp(name)).map(|(_, cluster)| cluster).collect();
    let others: Vec<Name> = document.clusters.keys().filter(|name| !udp.contains(name)).cloned().collect();
    for (name, tls) in others.iter().zip(all) {
        let Some(cluster) = document.clusters.get_mut(name) else { continue };
        let named = || names.get(name.as_str().len() % names.len().max(1)).cloned();
        cluster.tls = tls.map(|tls| ClusterTls { certificate: tls.certificate.as_ref().and_then(|_| named()), ..tls });
    }
}

/// The same with some of these certificates; none where there are none.
pub(super) fn connected(tls: ListenerTls, protocol: Protocol, names: &[Name]) -> Option<ListenerTls> {
    if names.is_empty() || protocol == Protocol::Udp {
        return None;
    }
    let mut alpn = if protocol == Protocol::Http { vec!["http/1.1".to_owned()] } else { tls.alpn };
    // Which routes ask for.
    if protocol == Protocol::Tcp && !alpn.is_empty() {
        alpn.push("h2".into());
    }
    let default = tls.handshakes.is_multiple_of(2).then(|| names[0].clone());
    let certificates = if tls.tickets { Shown::Named(names.to_vec()) } else { Shown::All };
    Some(ListenerTls { certificates, default, alpn, ..tls })
}
