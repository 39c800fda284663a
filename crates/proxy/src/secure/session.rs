//! A TLS session: bytes of the network in, plaintext out, and the other way round. The library behind it is named in
//! this file and where its configuration is made. Knows no socket; buffers nothing that could be passed on.

use std::io::{IoSlice, Read, Write};

use rustls::{CipherSuite, Connection, Error, HandshakeKind, ProtocolVersion};

/// See the module's words.
#[derive(Debug)]
pub(super) struct Session {
    connection: Connection,
    /// The peer said that it sends nothing more.
    pub(super) has_ended: bool,
    /// That nothing more is written was said; and it was taken.
    closing: bool,
    closed: bool,
}

/// What was agreed on.
#[derive(Debug)]
pub(super) struct Agreed {
    pub(super) version: &'static str,
    pub(super) cipher: Option<String>,
    pub(super) alpn: Option<Vec<u8>>,
    pub(super) resumed: bool,
}

impl Session {
    /// Of a connection whose first message was taken in, or is to be written.
    pub(super) fn new(connection: Connection) -> Self {
        Session { connection, has_ended: false, closing: false, closed: false }
    }

    /// Take in what came; plaintext goes behind what is in `plain`. What stands behind the peer's end means nothing.
    pub(super) fn take(&mut self, mut bytes: &[u8], plain: &mut Vec<u8>) -> Result<(), Error> {
        loop {
            let state = self.connection.process_new_packets()?;
            let len = state.plaintext_bytes_to_read();
            if len > 0 {
                let at = plain.len();
                plain.resize(at + len, 0);
                let read = self.connection.reader().read(&mut plain[at..]).unwrap_or(0);
                plain.truncate(at + read);
            }
            if state.peer_has_closed() {
                self.has_ended = true;
                return Ok(());
            }
            if bytes.is_empty() {
                return Ok(());
            }
            // It takes what it has room for, which is at least one record's.
            match self.connection.read_tls(&mut bytes) {
                Ok(0) => return Ok(()),
                Ok(_) => {}
                Err(_) => return Err(Error::General("a message is longer than it may be".to_owned())),
            }
        }
    }

    /// Make records of what is to be written: of both parts together.
    pub(super) fn write(&mut self, head: &[u8], body: &[u8]) {
        // Nothing bounds what it keeps, and it is emptied at once: writing to it can't fail.
        self.connection.set_buffer_limit(None);
        let parts = [IoSlice::new(head), IoSlice::new(body)];
        let written = self.connection.writer().write_vectored(&parts);
        debug_assert_eq!(written.ok(), Some(head.len() + body.len()), "all of it is taken");
    }

    /// Say that nothing more is written.
    pub(super) fn close(&mut self) {
        self.closing = true;
        self.connection.send_close_notify();
    }

    /// The records that were made. The library answers what a peer says (a change of keys, what breaks the rules) behind
    /// our own end too, where nothing may be written any more.
    pub(super) fn drain(&mut self, out: &mut Vec<u8>) {
        let start = out.len();
        // A vector takes everything.
        while self.connection.wants_write() && self.connection.write_tls(out).is_ok() {}
        if self.closed {
            out.truncate(start);
        }
        self.closed = self.closing;
    }

    /// Whether records were made that nobody took yet.
    pub(super) fn owes(&self) -> bool {
        self.connection.wants_write()
    }

    /// Whether it may not be used yet.
    pub(super) fn is_handshaking(&self) -> bool {
        self.connection.is_handshaking()
    }

    /// The certificate that the peer showed.
    pub(super) fn shown(&self) -> Option<&[u8]> {
        self.connection.peer_certificates()?.first().map(|der| &**der)
    }

    /// What was agreed on, as far as that has come.
    pub(super) fn agreed(&self) -> Agreed {
        Agreed {
            version: match self.connection.protocol_version() {
                Some(ProtocolVersion::TLSv1_3) => "1.3",
                Some(ProtocolVersion::TLSv1_2) => "1.2",
                _ => "",
            },
            cipher: self.connection.negotiated_cipher_suite().map(|suite| name(suite.suite())),
            alpn: self.connection.alpn_protocol().map(<[u8]>::to_vec),
            resumed: self.connection.handshake_kind() == Some(HandshakeKind::Resumed),
        }
    }
}

/// A suite's name in IANA's registry.
fn name(suite: CipherSuite) -> String {
    // The library's names of version 1.3 have `TLS13_` in the place of `TLS_`.
    format!("{suite:?}").replacen("TLS13_", "TLS_", 1)
}
