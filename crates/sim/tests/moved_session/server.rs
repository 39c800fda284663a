//! The side of a session that is moved, up to its move: a server of the library, which hands its secrets out and then is
//! gone.

use std::sync::{Arc, OnceLock};

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ServerConfig, UnbufferedServerConnection};
use rustls::unbuffered::{ConnectionState, EncodeError, UnbufferedStatus};
use rustls::{ConnectionTrafficSecrets, KeyLog, SupportedCipherSuite, Tls13CipherSuite};

use crate::provider::provider;
use crate::record::{Moved, Way, keys, next};

const CERTIFICATE: &str = include_str!("../secured/a.pem");

/// The traffic secrets of a session's two directions. What the library itself gives away are keys, from which no others
/// follow: a session that was moved could not replace them.
#[derive(Debug, Default)]
struct Secrets([OnceLock<Vec<u8>>; 2]);

const LABELS: [&str; 2] = ["SERVER_TRAFFIC_SECRET_0", "CLIENT_TRAFFIC_SECRET_0"];

impl KeyLog for Secrets {
    fn log(&self, label: &str, _: &[u8], secret: &[u8]) {
        if let Some(at) = LABELS.iter().position(|known| *known == label) {
            self.0[at].set(secret.to_vec()).expect("it is told once");
        }
    }
}

pub(crate) struct Server {
    connection: UnbufferedServerConnection,
    secrets: Arc<Secrets>,
    suite: &'static Tls13CipherSuite,
    incoming: Vec<u8>,
}

impl Server {
    /// With this suite and no other.
    pub(crate) fn new(suite: &'static Tls13CipherSuite) -> Self {
        let mut provider = (*provider()).clone();
        provider.cipher_suites = vec![SupportedCipherSuite::Tls13(suite)];
        let builder = ServerConfig::builder_with_provider(Arc::new(provider));
        let builder = builder.with_protocol_versions(&[&rustls::version::TLS13]).expect("it is known");
        let chain = vec![CertificateDer::from_pem_slice(CERTIFICATE.as_bytes()).expect("it is there")];
        let key = PrivateKeyDer::from_pem_slice(CERTIFICATE.as_bytes()).expect("it is there");
        let mut config = builder.with_no_client_auth().with_single_cert(chain, key).expect("they fit");
        let secrets = Arc::new(Secrets::default());
        config.key_log = Arc::<Secrets>::clone(&secrets);
        config.enable_secret_extraction = true;
        let connection = UnbufferedServerConnection::new(Arc::new(config)).expect("it can be had");
        Server { connection, secrets, suite, incoming: Vec::new() }
    }

    /// Bytes of the client: their plaintext, and what is to be sent in answer.
    pub(crate) fn hear(&mut self, bytes: &[u8]) -> (Vec<u8>, Vec<u8>) {
        self.incoming.extend_from_slice(bytes);
        let (mut heard, mut send) = (Vec::new(), Vec::new());
        loop {
            let UnbufferedStatus { mut discard, state, .. } = self.connection.process_tls_records(&mut self.incoming);
            let mut waits = false;
            match state.expect("the client keeps to the rules") {
                ConnectionState::EncodeTlsData(mut data) => {
                    let mut room = vec![0; 1 << 12];
                    let length = match data.encode(&mut room) {
                        Err(EncodeError::InsufficientSize(more)) => {
                            room.resize(more.required_size, 0);
                            data.encode(&mut room).expect("there is room")
                        }
                        length => length.expect("it was not taken yet"),
                    };
                    send.extend(&room[..length]);
                }
                ConnectionState::TransmitTlsData(data) => data.done(),
                ConnectionState::ReadTraffic(mut data) => {
                    while let Some(record) = data.next_record() {
                        let record = record.expect("the client keeps to the rules");
                        discard += record.discard;
                        heard.extend_from_slice(record.payload);
                    }
                }
                ConnectionState::BlockedHandshake | ConnectionState::WriteTraffic(_) => waits = true,
                other => panic!("{other:?}"),
            }
            self.incoming.drain(..discard);
            if waits {
                return (heard, send);
            }
        }
    }

    pub(crate) fn say(&mut self, bytes: &[u8], send: &mut Vec<u8>) {
        let UnbufferedStatus { discard, state, .. } = self.connection.process_tls_records(&mut self.incoming);
        match state.expect("the client keeps to the rules") {
            ConnectionState::WriteTraffic(mut traffic) => {
                let mut room = vec![0; bytes.len() + 1_024];
                let length = traffic.encrypt(bytes, &mut room).expect("there is room");
                send.extend(&room[..length]);
            }
            other => panic!("{other:?}"),
        }
        self.incoming.drain(..discard);
    }

    /// Write down what another process needs, and be gone; and what is to be sent before that. Where the client had keys
    /// replaced, the library goes over to its own next ones at once, but says so only with what it sends next: so it is
    /// made to say something, which is that it replaces them again.
    pub(crate) fn leave(mut self) -> (Vec<u8>, Vec<u8>) {
        let UnbufferedStatus { discard, state, .. } = self.connection.process_tls_records(&mut self.incoming);
        match state.expect("the client keeps to the rules") {
            ConnectionState::WriteTraffic(traffic) => traffic.refresh_traffic_keys().expect("it may be done"),
            other => panic!("{other:?}"),
        }
        self.incoming.drain(..discard);
        let (heard, send) = self.hear(&[]);
        assert!(heard.is_empty(), "all was heard before");
        let (given, _) = self.connection.dangerous_into_kernel_connection().expect("it may be moved");
        let [out, into] = self.secrets.0.each_ref().map(|secret| secret.get().expect("it was told").clone());
        let way = |secret: Vec<u8>, (sequence, keys): (u64, ConnectionTrafficSecrets)| Way {
            secret: of_keys(self.suite, secret, &keys),
            sequence,
        };
        let (out, into) = (way(out, given.tx), way(into, given.rx));
        (Moved { suite: self.suite.common.suite.into(), out, into, rest: self.incoming }.write(), send)
    }
}

/// The secret that these keys follow from: the first one, or one that came after it by an update.
fn of_keys(suite: &Tls13CipherSuite, first: Vec<u8>, wanted: &ConnectionTrafficSecrets) -> Vec<u8> {
    let (ConnectionTrafficSecrets::Aes256Gcm { key, iv } | ConnectionTrafficSecrets::Chacha20Poly1305 { key, iv }) =
        wanted
    else {
        panic!("it is none of those that can be moved")
    };
    let is_it = |secret: &Vec<u8>| {
        let (known, known_iv) = keys(suite, secret);
        (known.as_slice(), known_iv.as_slice()) == (key.as_ref(), iv.as_ref())
    };
    let mut all = std::iter::successors(Some(first), |secret| Some(next(suite, secret))).take(64);
    all.find(is_it).expect("it is one of them")
}
