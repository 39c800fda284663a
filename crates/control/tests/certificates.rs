//! Certificates that come, go and are replaced one by one, beside the same document read as a whole: the same ones are shown
//! for every name, in the same order.

use std::collections::BTreeSet;
use std::time::SystemTime;

use kakei_config::{
    AdminTcp, Certificate, ClientCertificateMode, ClientCertificates, Cluster, ClusterTls, Document, Kind, Listener,
    ListenerTls, Name, Pem, Protocol, Shown,
};
use kakei_control::certificates::{Certificates, Purpose};
use kakei_proxy::snapshot::{Generation, Shared, Snapshot};

const SHARED: Shared = Shared { workers: 1, balance_seed: 7 };
const HOSTS: [&[&str]; 6] =
    [&["a.test"], &["a.test", "b.test"], &["*.w.test"], &["x.w.test", "a.test"], &["*.w.test", "b.test"], &["c.test"]];
const ASKED: [&str; 6] = ["a.test", "b.test", "c.test", "x.w.test", "y.w.test", "w.test"];

/// The same numbers for the same seed.
struct Draw(u64);

impl Draw {
    fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % n
    }
}

fn pool() -> Vec<Certificate> {
    let made = HOSTS.iter().cycle().take(3 * HOSTS.len()).map(|hosts| {
        let hosts: Vec<String> = hosts.iter().map(|host| (*host).to_owned()).collect();
        let made = rcgen::generate_simple_self_signed(hosts).expect("there is randomness");
        let (chain, key) = (Pem::Text(made.cert.pem()), Pem::Text(made.signing_key.serialize_pem()));
        Certificate { chain, key, ocsp: None }
    });
    made.collect()
}

/// Change the document somewhere, and say what was changed.
fn change(document: &mut Document, pool: &[Certificate], draw: &mut Draw) -> (Kind, Name) {
    let name = Name::new(format!("c{}", draw.below(5)));
    let held: Vec<Name> = document.certificates.keys().cloned().collect();
    match draw.below(5) {
        0 if held.len() > 1 => {
            document.certificates.remove(&name);
        }
        1 if !held.is_empty() => {
            let mut named: Vec<Name> = held.iter().filter(|_| draw.below(3) > 0).cloned().collect();
            let turns = draw.below(named.len().max(1));
            named.rotate_left(turns);
            let certificates = if draw.below(2) == 0 { Shown::All } else { Shown::Named(named) };
            let default = (draw.below(2) == 0).then(|| held[draw.below(held.len())].clone());
            let tls = Some(ListenerTls { certificates, default, ..ListenerTls::default() });
            let listener = Listener { protocol: Protocol::Tcp, tls, ..Listener::default() };
            document.listeners.insert("l".into(), listener);
            return (Kind::Listener, "l".into());
        }
        _ => drop(document.certificates.insert(name.clone(), pool[draw.below(pool.len())].clone())),
    }
    (Kind::Certificate, name)
}

/// Whether every certificate that is named is there.
fn is_valid(document: &Document) -> bool {
    let tls = document.listeners.values().filter_map(|listener| listener.tls.as_ref());
    let mut named = tls.flat_map(|tls| tls.certificates.named().iter().chain(&tls.default));
    named.all(|name| document.certificates.contains_key(name))
}

/// What is shown for every name: fingerprints.
fn shown(snapshot: &Snapshot) -> Vec<Vec<[u8; 32]>> {
    let tls = snapshot.listener(&"l".into()).and_then(|listener| listener.tls.as_ref());
    let of = |name: &&str| tls.iter().flat_map(|tls| tls.of_name(name)).map(|shown| shown.fingerprint).collect();
    ASKED.iter().map(of).collect()
}

#[test]
fn what_is_changed_one_by_one_is_shown_as_if_it_was_read_at_once() {
    let (pool, now) = (pool(), SystemTime::now());
    let mut differed = 0;
    for seed in 0..12 {
        let mut draw = Draw(seed);
        let (mut document, mut certificates) = (Document::default(), Certificates::default());
        let mut running = Snapshot::compile(&document, Generation(0), SHARED, None);
        for n in 1..60 {
            let mut next = document.clone();
            let edited = BTreeSet::from([change(&mut next, &pool, &mut draw)]);
            if !is_valid(&next) {
                continue;
            }
            document = next;
            certificates = certificates.load(&document, Purpose::Edits(&edited), now).unwrap().certificates;
            let old = shown(&running);
            let materials = certificates.materials();
            running = Snapshot::compile_with(&document, Generation(n), SHARED, Some(&running), materials);
            let whole = Certificates::default().load(&document, Purpose::Change, now).unwrap().certificates;
            let anew = Snapshot::compile_with(&document, Generation(n), SHARED, None, whole.materials());
            assert_eq!(shown(&running), shown(&anew), "seed {seed}, change {n}");
            differed += usize::from(old != shown(&running));
        }
    }
    assert!(differed > 200, "only {differed} changes were to be seen");
}

#[test]
fn no_more_names_are_told_to_clients_than_they_can_be_told() {
    let provider = std::sync::Arc::new(kakei_control::certificates::provider());
    let told = |count: usize| {
        let roots = (0..count).map(|_| rustls::pki_types::TrustAnchor {
            subject: vec![7; 200].into(),
            subject_public_key_info: Vec::new().into(),
            name_constraints: None,
        });
        let trusted = std::sync::Arc::new(rustls::RootCertStore { roots: roots.collect() });
        let asked = ClientCertificateMode::Optional;
        let verifier = kakei_proxy::secure::client_verifier(&trusted, &[], &provider, asked).unwrap();
        verifier.root_hint_subjects().len()
    };
    assert_eq!((told(100), told(291), told(292), told(1_300)), (100, 291, 0, 0));
}

#[test]
fn a_private_key_stands_nowhere_but_where_it_is_hidden() {
    let (Certificate { chain, key, .. }, now) = (pool().swap_remove(0), SystemTime::now());
    let text = |pem: &Pem| match pem {
        Pem::Text(text) | Pem::File(text) => text.clone(),
    };
    let both = Pem::Text(text(&chain) + &text(&key));
    let file = std::env::temp_dir().join(format!("kakei-combined-{}.pem", std::process::id()));
    std::fs::write(&file, text(&both)).unwrap();
    let document = |pem: &Pem, ca: &Pem| {
        let mut document = Document::default();
        let certificate = Certificate { chain: pem.clone(), key: pem.clone(), ocsp: None };
        document.certificates.insert("c".into(), certificate);
        let asked = Some(ClientCertificates { ca: ca.clone(), ..ClientCertificates::default() });
        let tls = Some(ListenerTls { client_certificates: asked, ..ListenerTls::default() });
        document.listeners.insert("l".into(), Listener { protocol: Protocol::Tcp, tls, ..Listener::default() });
        let cluster =
            Cluster { tls: Some(ClusterTls { ca: Some(ca.clone()), ..ClusterTls::default() }), ..Cluster::default() };
        document.clusters.insert("b".into(), cluster);
        let admin = AdminTcp { ca: ca.clone(), certificate: "c".into(), ..AdminTcp::default() };
        document.admin.tcp = Some(admin);
        document
    };
    let named = Pem::File(file.to_str().unwrap().to_owned());
    let of_files = Certificates::default().load(&document(&named, &named), Purpose::Change, now);
    std::fs::remove_file(&file).unwrap();
    assert!(of_files.is_ok_and(|loaded| loaded.warnings.is_empty()), "nobody is shown what is in files");
    let document = document(&both, &both);
    for purpose in [Purpose::Change, Purpose::Start, Purpose::Edits(&BTreeSet::new())] {
        let faults = Certificates::default().load(&document, purpose, now).unwrap_err();
        let found: Vec<_> = faults.iter().map(|fault| (fault.section, fault.key)).collect();
        let ca = "tls.client_certificates.ca";
        assert_eq!(found, [("certificates", "chain"), ("clusters", "tls.ca"), ("listeners", ca), ("admin", "ca")]);
        assert!(faults.iter().all(|fault| fault.message == "a private key stands in its text"), "{faults:?}");
    }
    for purpose in [Purpose::Again, Purpose::Back] {
        let loaded = Certificates::default().load(&document, purpose, now).expect("what ran goes on");
        assert_eq!(loaded.warnings.len(), 4, "{:?}", loaded.warnings);
        assert_eq!(loaded.warnings[0], "certificate c: `chain`: a private key stands in its text");
    }
}
