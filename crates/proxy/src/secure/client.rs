//! A client's certificate, as whoever its stream belongs to is told of it. Who vouches for it was asked before.

use std::fmt;
use std::sync::Arc;

use kakei_wire::certificate;
use rustls::SupportedCipherSuite;
use rustls::crypto::CryptoProvider;
use rustls::crypto::hash::Hash;

use crate::record::ClientCertificate;
use crate::seam::Wall;

/// The longest name that is told; a longer one is left out.
const LONGEST: usize = 4 << 10;

/// What a certificate says of its owner; and whether it still holds, which nobody asks of one that a session is resumed
/// with.
pub(super) fn describe(der: &[u8], sha256: &Sha256, wall: Wall) -> (Arc<ClientCertificate>, bool) {
    let found = certificate::subject(der).unwrap_or_default();
    let told = |text: String| if text.len() > LONGEST { String::new() } else { text };
    let hash = sha256.0.map(|sha256| sha256.hash(der));
    let told = ClientCertificate {
        subject: told(found.name),
        names: told(found.alternative.join(",")),
        fingerprint: hash.iter().flat_map(|hash| hash.as_ref()).map(|byte| format!("{byte:02x}")).collect(),
    };
    (Arc::new(told), is_before(found.not_after, wall))
}

/// Whether a certificate may still be used.
pub(super) fn holds(der: &[u8], wall: Wall) -> bool {
    is_before(certificate::subject(der).unwrap_or_default().not_after, wall)
}

fn is_before(end: Option<i64>, wall: Wall) -> bool {
    end.is_none_or(|end| end >= wall.as_secs().cast_signed())
}

/// What fingerprints are made by; none: there are none.
#[derive(Clone, Copy, Default)]
pub(super) struct Sha256(Option<&'static dyn Hash>);

impl Sha256 {
    pub(super) fn of(provider: &CryptoProvider) -> Self {
        let hashes = provider.cipher_suites.iter().filter_map(|suite| match suite {
            SupportedCipherSuite::Tls13(suite) => Some(suite.common.hash_provider),
            SupportedCipherSuite::Tls12(_) => None,
        });
        Sha256(hashes.into_iter().find(|hash| hash.output_len() == 32))
    }
}

impl fmt::Debug for Sha256 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Sha256({})", self.0.is_some())
    }
}
