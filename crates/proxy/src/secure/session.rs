//! A TLS session: bytes of the network in, plaintext out, and the other way round. The library behind it is named in
//! this file, in `turn` and where its configuration is made. Knows no socket; keeps nothing of what could be passed on,
//! and no room for it.

use std::fmt;
use std::ops::Range;

use rustls::client::UnbufferedClientConnection;
use rustls::server::UnbufferedServerConnection;
use rustls::{CipherSuite, CommonState, Error, HandshakeKind, ProtocolVersion};

use super::turn::{self, Came, Say};

/// The most that is kept of a message that isn't whole. A record is shorter; the library allows for so much in messages
/// of a handshake.
const KEPT: usize = 0xffff;

/// See the module's words.
#[derive(Debug)]
pub(super) struct Session {
    connection: Connection,
    /// What came of a message that isn't whole.
    kept: Vec<u8>,
    /// Records that nobody took yet.
    made: Vec<u8>,
    /// The peer said that it sends nothing more.
    pub(super) has_ended: bool,
    /// What became of early data.
    pub(super) early: Early,
    /// What comes is looked at record by record, since some of it may be early data that nobody can read.
    goes_by_record: bool,
    /// That nothing more is written was said.
    is_closed: bool,
}

/// What became of a client's early data (RFC 8446, section 4.2.10).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Early {
    /// None is offered.
    No,
    /// None of it came yet.
    Offered,
    /// Some was read.
    Taken,
    /// Some was passed over.
    Refused,
}

/// Which side of it we are.
pub(super) enum Connection {
    Client(UnbufferedClientConnection),
    Server(UnbufferedServerConnection),
}

/// What was agreed on.
#[derive(Debug)]
pub(super) struct Agreed {
    pub(super) version: &'static str,
    pub(super) cipher: Option<String>,
    pub(super) alpn: Option<Vec<u8>>,
    pub(super) resumed: bool,
}

/// Room that sessions share: each has its bytes there only for as long as it is asked something.
#[derive(Debug, Default)]
pub(super) struct Room(Vec<u8>);

impl Session {
    /// Of a connection that nothing came for yet.
    pub(super) fn new(connection: Connection, offers_early: bool) -> Self {
        Session {
            connection,
            kept: Vec::new(),
            made: Vec::new(),
            has_ended: false,
            early: if offers_early { Early::Offered } else { Early::No },
            goes_by_record: offers_early,
            is_closed: false,
        }
    }

    /// Take in what came; plaintext goes behind what is in `plain`. What stands behind the peer's end means nothing.
    pub(super) fn take(&mut self, bytes: &[u8], room: &mut Room, plain: &mut Vec<u8>) -> Result<(), Error> {
        // It is decrypted where it stands.
        let Room(room) = room;
        room.clear();
        room.extend_from_slice(&self.kept);
        room.extend_from_slice(bytes);
        let taken = match self.goes_by_record {
            true => self.run_by_record(room, plain)?,
            false => self.run(room, plain)?,
        };
        self.keep(&room[taken..])
    }

    /// Go on by what is there. How many bytes of it are of no more use.
    fn run(&mut self, bytes: &mut [u8], plain: &mut Vec<u8>) -> Result<usize, Error> {
        let mut taken = 0;
        loop {
            let (passed, came) = self.connection.turn(&mut bytes[taken..], plain, &mut self.made, Say::Nothing);
            taken += passed;
            match came {
                Ok(Came::Something) => {}
                Ok(Came::Early) => self.early = Early::Taken,
                Ok(Came::Nothing) => return Ok(taken),
                Ok(Came::End) => {
                    self.has_ended = true;
                    return Ok(bytes.len());
                }
                Err(error) => {
                    self.fetch();
                    return Err(error);
                }
            }
        }
    }

    /// The same, a whole record at a time. The library looks at a record that it passes over again with each piece that
    /// comes, and counts it as often against what it passes over at all: so it is shown each of them once.
    fn run_by_record(&mut self, bytes: &mut [u8], plain: &mut Vec<u8>) -> Result<usize, Error> {
        let (mut start, mut end) = (0, 0);
        while self.goes_by_record
            && let Some(len) = turn::record(&bytes[end..])
        {
            let (begin, sealed) = (end, bytes[end..end + len].to_vec());
            end += len;
            let passed = self.run(&mut bytes[start..end], plain)?;
            if self.has_ended {
                return Ok(bytes.len());
            }
            start += passed;
            let is_all_kept = passed == 0 && start == begin;
            if is_all_kept && turn::is_passed_over(&sealed, &bytes[begin..end]) {
                self.early = Early::Refused;
                start = end;
            }
            // Of a message in several records nothing may be taken away, nor where some of it was read.
            let is_clear = start == end || passed == 0 && !turn::is_sealed(&sealed);
            self.goes_by_record = is_clear && self.early != Early::Taken && self.is_handshaking();
        }
        match self.goes_by_record {
            true => Ok(start),
            false => Ok(start + self.run(&mut bytes[start..], plain)?),
        }
    }

    /// Nothing is held for a session that waits for its peer's next word.
    fn keep(&mut self, rest: &[u8]) -> Result<(), Error> {
        if rest.len() > KEPT {
            return Err(Error::General("a message is longer than it may be".to_owned()));
        }
        self.kept.clear();
        match rest.is_empty() {
            true => self.kept = Vec::new(),
            false => self.kept.extend_from_slice(rest),
        }
        Ok(())
    }

    /// What the library made and still has: it comes before anything else, and so nothing is looked at meanwhile.
    fn fetch(&mut self) {
        while self.connection.common().wants_write() {
            let (_, came) = self.connection.turn(&mut [], &mut Vec::new(), &mut self.made, Say::Nothing);
            if came.is_err() {
                return;
            }
        }
    }

    /// Make records of what is to be written: of that part of `out`, and of `body` behind it, together. They go behind
    /// what is in `out`, and those that were made before go first.
    pub(super) fn write(&mut self, out: &mut Vec<u8>, head: Range<usize>, body: &[u8], room: &mut Room) {
        if head.is_empty() || body.is_empty() {
            let one = if body.is_empty() { Say::Made(head) } else { Say::Given(body) };
            return self.say(out, one);
        }
        // One record has the end of the one and the beginning of the other.
        let (joined, behind) = body.split_at(turn::left(head.len()).min(body.len()));
        let Room(room) = room;
        room.clear();
        room.extend_from_slice(&out[head]);
        room.extend_from_slice(joined);
        self.say(out, Say::Given(room));
        if !behind.is_empty() {
            self.say(out, Say::Given(behind));
        }
    }

    /// Say that nothing more is written.
    pub(super) fn close(&mut self, out: &mut Vec<u8>) {
        self.say(out, Say::End);
        self.is_closed = true;
    }

    fn say(&mut self, out: &mut Vec<u8>, what: Say<'_>) {
        self.drain(out);
        if self.is_closed {
            return;
        }
        // What is kept was looked at before: nothing comes of it now.
        let mut nothing = Vec::new();
        while let (_, Ok(Came::Something)) = self.connection.turn(&mut self.kept, &mut nothing, out, what.clone()) {}
        debug_assert!(nothing.is_empty(), "what came was taken when it came");
        // Keys that are used up end the session: the library has made its word of that.
        self.fetch();
        out.append(&mut self.made);
    }

    /// The records that were made. The library answers what a peer says (a change of keys, what breaks the rules) behind
    /// our own end too, where nothing may be written any more.
    pub(super) fn drain(&mut self, out: &mut Vec<u8>) {
        let made = std::mem::take(&mut self.made);
        if !self.is_closed {
            out.extend_from_slice(&made);
        }
    }

    /// Whether records were made that nobody took yet.
    pub(super) fn owes(&self) -> bool {
        !self.made.is_empty()
    }

    /// Whether it may not be used yet.
    pub(super) fn is_handshaking(&self) -> bool {
        self.connection.common().is_handshaking()
    }

    /// The certificate that the peer showed.
    pub(super) fn shown(&self) -> Option<&[u8]> {
        self.connection.common().peer_certificates()?.first().map(|der| &**der)
    }

    /// What was agreed on, as far as that has come.
    pub(super) fn agreed(&self) -> Agreed {
        let common = self.connection.common();
        Agreed {
            version: match common.protocol_version() {
                Some(ProtocolVersion::TLSv1_3) => "1.3",
                Some(ProtocolVersion::TLSv1_2) => "1.2",
                _ => "",
            },
            cipher: common.negotiated_cipher_suite().map(|suite| name(suite.suite())),
            alpn: common.alpn_protocol().map(<[u8]>::to_vec),
            resumed: common.handshake_kind() == Some(HandshakeKind::Resumed),
        }
    }
}

impl Connection {
    fn common(&self) -> &CommonState {
        match self {
            Connection::Client(client) => client,
            Connection::Server(server) => server,
        }
    }

    /// Let the library have a turn at what came.
    fn turn(
        &mut self,
        incoming: &mut [u8],
        plain: &mut Vec<u8>,
        made: &mut Vec<u8>,
        say: Say<'_>,
    ) -> (usize, Result<Came, Error>) {
        match self {
            Connection::Client(client) => turn::of(client.process_tls_records(incoming), plain, made, say, |_, _| 0),
            Connection::Server(server) => {
                turn::of(server.process_tls_records(incoming), plain, made, say, |mut early, plain| {
                    let mut passed = 0;
                    while let Some(Ok(record)) = early.next_record() {
                        plain.extend_from_slice(record.payload);
                        passed += record.discard;
                    }
                    passed
                })
            }
        }
    }
}

impl fmt::Debug for Connection {
    /// Without its keys.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Connection::Client(_) => "Client",
            Connection::Server(_) => "Server",
        })
    }
}

/// A suite's name in IANA's registry.
fn name(suite: CipherSuite) -> String {
    // The library's names of version 1.3 have `TLS13_` in the place of `TLS_`.
    format!("{suite:?}").replacen("TLS13_", "TLS_", 1)
}
