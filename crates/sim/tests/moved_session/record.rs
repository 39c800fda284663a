//! A record layer of TLS 1.3 (RFC 8446, section 5) that begins in the middle: of what was written down of a session it
//! knows the traffic secrets, how many records went by, and what came of the next one. It has seen no handshake, and can
//! do none.

use kakei_proxy::secure::Materials;
use rustls::crypto::cipher::{
    AeadKey, InboundOpaqueMessage, Iv, MessageDecrypter, MessageEncrypter, OutboundChunks, OutboundPlainMessage,
};
use rustls::crypto::tls13::OkmBlock;
use rustls::{ContentType, ProtocolVersion, SupportedCipherSuite, Tls13CipherSuite};

/// The longest plaintext of a record.
const LONGEST: usize = 1 << 14;
const HEADER: usize = 5;
/// `close_notify`, as a warning (RFC 8446, section 6.1).
const CLOSE_NOTIFY: [u8; 2] = [1, 0];
/// `KeyUpdate` is the only message of a handshake that may come behind it: its kind, and its length of one byte.
const KEY_UPDATE: [u8; 4] = [24, 0, 0, 1];

/// One direction of a session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Way {
    /// The traffic secret that its keys follow from.
    pub(crate) secret: Vec<u8>,
    /// Records that went by under it.
    pub(crate) sequence: u64,
}

/// A session, as it is written down.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Moved {
    pub(crate) suite: u16,
    pub(crate) out: Way,
    pub(crate) into: Way,
    /// What came of a record that isn't whole yet.
    pub(crate) rest: Vec<u8>,
}

impl Moved {
    pub(crate) fn write(&self) -> Vec<u8> {
        let mut bytes = self.suite.to_be_bytes().to_vec();
        for way in [&self.out, &self.into] {
            bytes.extend(way.sequence.to_be_bytes());
            bytes.push(way.secret.len() as u8);
            bytes.extend(&way.secret);
        }
        bytes.extend(&self.rest);
        bytes
    }

    fn read(bytes: &[u8]) -> Self {
        let (suite, mut bytes) = bytes.split_first_chunk().expect("its suite");
        let mut way = || {
            let (sequence, rest) = bytes.split_first_chunk().expect("a number");
            let (length, rest) = rest.split_first().expect("a length");
            let (secret, rest) = rest.split_at(usize::from(*length));
            bytes = rest;
            Way { secret: secret.to_vec(), sequence: u64::from_be_bytes(*sequence) }
        };
        let (out, into) = (way(), way());
        Moved { suite: u16::from_be_bytes(*suite), out, into, rest: bytes.to_vec() }
    }
}

/// `HKDF-Expand-Label` without a context (RFC 8446, section 7.1).
fn expand(suite: &Tls13CipherSuite, secret: &[u8], label: &str, out: &mut [u8]) {
    let label = [b"tls13 ", label.as_bytes()].concat();
    let (length, width) = ((out.len() as u16).to_be_bytes(), [label.len() as u8]);
    let expander = suite.hkdf_provider.expander_for_okm(&OkmBlock::new(secret));
    expander.expand_slice(&[&length, &width, &label, &[0]], out).expect("it is short");
}

/// What a secret's keys are (RFC 8446, section 7.3).
pub(crate) fn keys(suite: &Tls13CipherSuite, secret: &[u8]) -> ([u8; 32], [u8; 12]) {
    // The library takes keys of 32 bytes only: it has no way in for those of AES-128.
    assert_eq!(suite.aead_alg.key_len(), 32, "{suite:?}");
    let (mut key, mut iv) = ([0; 32], [0; 12]);
    expand(suite, secret, "key", &mut key);
    expand(suite, secret, "iv", &mut iv);
    (key, iv)
}

/// The secret that comes after one (RFC 8446, section 7.2).
pub(crate) fn next(suite: &Tls13CipherSuite, secret: &[u8]) -> Vec<u8> {
    let mut next = vec![0; secret.len()];
    expand(suite, secret, "traffic upd", &mut next);
    next
}

/// The suite of that number.
pub(crate) fn suite(materials: &Materials, number: u16) -> &'static Tls13CipherSuite {
    let suites = &materials.provider.as_ref().expect("there is one").cipher_suites;
    let of = |suite: &SupportedCipherSuite| match suite {
        SupportedCipherSuite::Tls13(suite) if u16::from(suite.common.suite) == number => Some(*suite),
        _ => None,
    };
    suites.iter().find_map(of).expect("it is known")
}

/// The record layer.
pub(crate) struct Taken {
    suite: &'static Tls13CipherSuite,
    out: Way,
    into: Way,
    seals: Box<dyn MessageEncrypter>,
    opens: Box<dyn MessageDecrypter>,
    rest: Vec<u8>,
    /// The peer has said that it sends nothing more.
    pub(crate) has_ended: bool,
    /// How often the peer had its keys replaced.
    pub(crate) updates: u32,
}

impl Taken {
    /// Take a session up from what was written down.
    pub(crate) fn read(materials: &Materials, bytes: &[u8]) -> Self {
        let Moved { suite: number, out, into, rest } = Moved::read(bytes);
        let suite = suite(materials, number);
        let (seals, opens) = (sealing(suite, &out), opening(suite, &into.secret));
        Taken { suite, out, into, seals, opens, rest, has_ended: false, updates: 0 }
    }

    /// Write it down again.
    pub(crate) fn leave(self) -> Vec<u8> {
        let suite = self.suite.common.suite.into();
        Moved { suite, out: self.out, into: self.into, rest: self.rest }.write()
    }

    /// Bytes of the peer: their plaintext, and what is to be sent in answer.
    pub(crate) fn hear(&mut self, bytes: &[u8]) -> (Vec<u8>, Vec<u8>) {
        self.rest.extend_from_slice(bytes);
        let (mut heard, mut send) = (Vec::new(), Vec::new());
        while let Some(length) = self.whole() {
            let mut record: Vec<u8> = self.rest.drain(..HEADER + length).collect();
            let kind = ContentType::from(record[0]);
            let sealed = InboundOpaqueMessage::new(kind, ProtocolVersion::TLSv1_2, &mut record[HEADER..]);
            let opened = self.opens.decrypt(sealed, self.into.sequence).expect("it is the peer's");
            self.into.sequence += 1;
            let (kind, payload) = (opened.typ, opened.payload.to_vec());
            match kind {
                ContentType::ApplicationData => heard.extend(payload),
                ContentType::Alert => {
                    assert_eq!(payload, CLOSE_NOTIFY);
                    self.has_ended = true;
                }
                ContentType::Handshake => self.update(&payload, &mut send),
                other => panic!("{other:?} behind a handshake"),
            }
        }
        (heard, send)
    }

    /// The length of the next record, if all of it is there.
    fn whole(&self) -> Option<usize> {
        let length = usize::from(u16::from_be_bytes([*self.rest.get(3)?, *self.rest.get(4)?]));
        (self.rest.len() >= HEADER + length).then_some(length)
    }

    /// The peer seals by its next secret from now on, and may want the same of us.
    fn update(&mut self, message: &[u8], send: &mut Vec<u8>) {
        let (begin, asks) = message.split_at(KEY_UPDATE.len());
        assert_eq!(begin, KEY_UPDATE);
        self.updates += 1;
        self.into = Way { secret: next(self.suite, &self.into.secret), sequence: 0 };
        self.opens = opening(self.suite, &self.into.secret);
        if asks == [1] {
            self.refresh(false, send);
        }
    }

    /// Seal by the next secret from now on, and have the peer do the same where it is asked to.
    pub(crate) fn refresh(&mut self, asks: bool, send: &mut Vec<u8>) {
        self.seal(ContentType::Handshake, &[&KEY_UPDATE[..], &[u8::from(asks)]].concat(), send);
        self.out = Way { secret: next(self.suite, &self.out.secret), sequence: 0 };
        self.seals = sealing(self.suite, &self.out);
    }

    pub(crate) fn say(&mut self, bytes: &[u8], send: &mut Vec<u8>) {
        bytes.chunks(LONGEST).for_each(|chunk| self.seal(ContentType::ApplicationData, chunk, send));
    }

    pub(crate) fn end(&mut self, send: &mut Vec<u8>) {
        self.seal(ContentType::Alert, &CLOSE_NOTIFY, send);
    }

    fn seal(&mut self, typ: ContentType, bytes: &[u8], send: &mut Vec<u8>) {
        let plain =
            OutboundPlainMessage { typ, version: ProtocolVersion::TLSv1_2, payload: OutboundChunks::Single(bytes) };
        let sealed = self.seals.encrypt(plain, self.out.sequence).expect("it is short");
        self.out.sequence += 1;
        send.extend(sealed.encode());
    }
}

fn sealing(suite: &Tls13CipherSuite, way: &Way) -> Box<dyn MessageEncrypter> {
    let (key, iv) = keys(suite, &way.secret);
    let mut seals = suite.aead_alg.encrypter(AeadKey::from(key), Iv::new(iv));
    if way.sequence > 0 {
        // AWS-LC has a key refuse numbers that don't grow, and takes the first one that it sees for 0: so it is shown
        // that. What comes of it goes nowhere, since the true record of that number was another one.
        let payload = OutboundChunks::Single(&[]);
        let plain = OutboundPlainMessage { typ: ContentType::Alert, version: ProtocolVersion::TLSv1_2, payload };
        drop(seals.encrypt(plain, 0).expect("it is short"));
    }
    seals
}

fn opening(suite: &Tls13CipherSuite, secret: &[u8]) -> Box<dyn MessageDecrypter> {
    let (key, iv) = keys(suite, secret);
    suite.aead_alg.decrypter(AeadKey::from(key), Iv::new(iv))
}
