//! Certificates, keys and responders' answers from arbitrary bytes, as a document's text has them and as bytes of a file: no
//! panic, and what is taken is whole: a chain that isn't empty, names or addresses, a key that signs.
#![no_main]

#[path = "../../crates/control/src/certificates/ocsp.rs"]
mod ocsp;
#[path = "../../crates/control/src/certificates/read.rs"]
mod read;
#[path = "../../crates/control/src/wall.rs"]
#[expect(dead_code, reason = "of the calendar little is needed")]
mod wall;

use std::sync::LazyLock;

use kakei_config::Name;
use libfuzzer_sys::fuzz_target;
use rustls::SignatureScheme;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

/// Two pairs that belong together: parts of what comes may stand in their places.
const PAIRS: [&str; 2] =
    [include_str!("../../crates/sim/tests/secured/a.pem"), include_str!("../../crates/sim/tests/secured/b.pem")];

/// What an answer is to be about.
static LEAF: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let leaf = CertificateDer::from_pem_slice(PAIRS[0].as_bytes());
    leaf.map(|leaf| leaf.to_vec()).unwrap_or_default()
});

static PROVIDER: LazyLock<CryptoProvider> = LazyLock::new(aws_lc_rs::default_provider);

fuzz_target!(|data: &[u8]| {
    let Some((&how, data)) = data.split_first() else { return };
    // As it is, both chain and key; or one of the two as it should be.
    let der = |label: &str| pem(label, data);
    let pair = PAIRS[usize::from(how >> 7)].as_bytes();
    match how % 7 {
        0 => load(data, data),
        1 => load(data, pair),
        2 => load(pair, data),
        3 => load(&der("CERTIFICATE"), pair),
        4 => load(&[pair, &der("CERTIFICATE")].concat(), pair),
        5 => drop(ocsp::staple(data.to_vec(), &LEAF)),
        _ => load(pair, &der(["PRIVATE KEY", "EC PRIVATE KEY", "RSA PRIVATE KEY"][usize::from(how >> 3) % 3])),
    }
});

fn load(chain: &[u8], key: &[u8]) {
    let Ok(certificate) = read::certificate(&Name::new("it"), (chain, key), &PROVIDER) else { return };
    assert!(!certificate.names.is_empty() || !certificate.addresses.is_empty(), "it is for somebody");
    assert!(!certificate.key.cert.is_empty(), "it has a chain");
    let schemes = [
        SignatureScheme::ECDSA_NISTP256_SHA256,
        SignatureScheme::ECDSA_NISTP384_SHA384,
        SignatureScheme::ECDSA_NISTP521_SHA512,
        SignatureScheme::ED25519,
        SignatureScheme::RSA_PSS_SHA256,
    ];
    let signer = certificate.key.key.choose_scheme(&schemes).expect("its key signs by a scheme that is known");
    assert!(signer.sign(b"what is signed").is_ok(), "its key signs");
    for host in ["echo.test", "a.echo.test", "127.0.0.1", "[::1]", ""] {
        let _ = certificate.covers(host);
    }
    let _ = read::out_of_time(&certificate, 0);
}

/// Bytes as PEM.
fn pem(label: &str, der: &[u8]) -> Vec<u8> {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = format!("-----BEGIN {label}-----\n").into_bytes();
    for (n, three) in der.chunks(3).enumerate() {
        let number = three.iter().fold(0u32, |sum, byte| sum << 8 | u32::from(*byte)) << (8 * (3 - three.len()));
        let digit = |at: usize| DIGITS[(number >> (18 - 6 * at) & 63) as usize];
        text.extend((0..4).map(|at| if at <= three.len() { digit(at) } else { b'=' }));
        if n % 16 == 15 {
            text.push(b'\n');
        }
    }
    text.extend_from_slice(format!("\n-----END {label}-----\n").as_bytes());
    text
}
