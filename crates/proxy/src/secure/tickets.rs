//! Session tickets: what a client keeps of a handshake, sealed by keys that all workers share, so that any of them can
//! go on from it. Made of the provider's own primitives; knows no time: whoever made the keys replaces them.

use std::fmt;
use std::sync::Arc;

use rustls::crypto::cipher::{
    AeadKey, InboundOpaqueMessage, Iv, OutboundChunks, OutboundPlainMessage, Tls13AeadAlgorithm,
};
use rustls::crypto::{CryptoProvider, SecureRandom};
use rustls::server::ProducesTickets;
use rustls::{ContentType, ProtocolVersion, SupportedCipherSuite};

/// How long a client may keep a ticket, in seconds: keys are to be replaced so often that none is opened later.
pub const LIFETIME: u32 = 24 * 3600;
/// A key's name, which a ticket begins with.
const NAME: usize = 16;
/// What it seals by.
const SECRET: usize = 32;
/// What makes each ticket's sealing its own.
const NONCE: usize = 12;
/// A record's head, which the provider puts before what it seals.
const RECORD_HEAD: usize = 5;

/// One key.
#[derive(Clone, PartialEq, Eq)]
struct Key {
    name: [u8; NAME],
    secret: [u8; SECRET],
}

/// The keys: tickets are sealed by the newest and opened by those before it too.
#[derive(Clone)]
pub struct TicketKeys {
    keys: Vec<Key>,
    aead: &'static dyn Tls13AeadAlgorithm,
    random: &'static dyn SecureRandom,
}

impl TicketKeys {
    /// A first key. None where the provider has no random bytes, or nothing to seal with.
    pub fn new(provider: &CryptoProvider) -> Option<Arc<Self>> {
        let suites = provider.cipher_suites.iter().filter_map(|suite| match suite {
            SupportedCipherSuite::Tls13(suite) => Some(suite.aead_alg),
            SupportedCipherSuite::Tls12(_) => None,
        });
        let aead = suites.into_iter().find(|aead| aead.key_len() == SECRET)?;
        let random = provider.secure_random;
        Some(Arc::new(TicketKeys { keys: vec![Key::new(random)?], aead, random }))
    }

    /// The same with a new key before them, and only one older one.
    pub fn rotated(&self) -> Option<Arc<Self>> {
        let newest = self.keys.first().cloned();
        let keys = [Some(Key::new(self.random)?), newest].into_iter().flatten().collect();
        Some(Arc::new(TicketKeys { keys, ..self.clone() }))
    }

    /// Them, the newest first, each as its name and its secret: to be kept where nobody else can read it.
    pub fn to_parts(&self) -> Vec<([u8; NAME], [u8; SECRET])> {
        self.keys.iter().map(|key| (key.name, key.secret)).collect()
    }

    /// Of what was kept. None where that is nothing, or the provider has nothing to seal with.
    pub fn of_parts(provider: &CryptoProvider, parts: &[([u8; NAME], [u8; SECRET])]) -> Option<Arc<Self>> {
        let fresh = TicketKeys::new(provider)?;
        let keys: Vec<Key> = parts.iter().map(|&(name, secret)| Key { name, secret }).collect();
        (!keys.is_empty()).then(|| Arc::new(TicketKeys { keys, ..TicketKeys::clone(&fresh) }))
    }

    fn seal(&self, plain: &[u8]) -> Option<Vec<u8>> {
        let key = self.keys.first()?;
        let mut nonce = [0; NONCE];
        self.random.fill(&mut nonce).ok()?;
        let message = OutboundPlainMessage {
            typ: ContentType::ApplicationData,
            version: ProtocolVersion::TLSv1_3,
            payload: OutboundChunks::Single(plain),
        };
        let mut encrypter = self.aead.encrypter(AeadKey::from(key.secret), Iv::new(nonce));
        let sealed = encrypter.encrypt(message, 0).ok()?.encode();
        Some([&key.name, &nonce[..], sealed.get(RECORD_HEAD..)?].concat())
    }

    fn open(&self, ticket: &[u8]) -> Option<Vec<u8>> {
        let (name, rest) = ticket.split_first_chunk::<NAME>()?;
        let (nonce, sealed) = rest.split_first_chunk::<NONCE>()?;
        let key = self.keys.iter().find(|key| key.name == *name)?;
        let mut sealed = sealed.to_vec();
        let message = InboundOpaqueMessage::new(ContentType::ApplicationData, ProtocolVersion::TLSv1_2, &mut sealed);
        let mut decrypter = self.aead.decrypter(AeadKey::from(key.secret), Iv::new(*nonce));
        Some(decrypter.decrypt(message, 0).ok()?.payload.to_vec())
    }
}

impl Key {
    fn new(random: &dyn SecureRandom) -> Option<Self> {
        let mut key = Key { name: [0; NAME], secret: [0; SECRET] };
        random.fill(&mut key.name).ok()?;
        random.fill(&mut key.secret).ok()?;
        Some(key)
    }
}

impl PartialEq for TicketKeys {
    fn eq(&self, other: &Self) -> bool {
        self.keys == other.keys
    }
}

impl fmt::Debug for TicketKeys {
    /// Without the keys.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TicketKeys({})", self.keys.len())
    }
}

/// What a listener's tickets begin with inside: those of others, and of before it held clients to something else, are none
/// of its own, since a session that is resumed asks for nobody's certificate.
pub(super) type Realm = [u8; 16];

/// What rustls asks.
#[derive(Debug)]
pub(super) struct Ticketer(pub(super) Arc<TicketKeys>, pub(super) Realm);

impl ProducesTickets for Ticketer {
    fn enabled(&self) -> bool {
        true
    }

    fn lifetime(&self) -> u32 {
        LIFETIME
    }

    fn encrypt(&self, plain: &[u8]) -> Option<Vec<u8>> {
        self.0.seal(&[&self.1, plain].concat())
    }

    fn decrypt(&self, ticket: &[u8]) -> Option<Vec<u8>> {
        let plain = self.0.open(ticket)?;
        plain.strip_prefix(&self.1).map(<[u8]>::to_vec)
    }
}
