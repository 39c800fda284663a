//! One turn of the TLS library: what it has to say first, done. Whoever drives it asks again until nothing comes, and takes
//! away what was passed each time. Knows neither where bytes come from nor where they go.

use std::ops::Range;

use rustls::Error;
use rustls::unbuffered::{
    ConnectionState, EncodeError, EncodeTlsData, EncryptError, InsufficientSizeError, ReadEarlyData, UnbufferedStatus,
    WriteTraffic,
};

/// The most plaintext of one record (RFC 8446, section 5.1).
const RECORD: usize = 1 << 14;
/// More than what a record has beside its plaintext: a head of 5 bytes, a nonce of 8 in version 1.2, a type, a tag of 16.
const AROUND: usize = 32;
/// A record's head.
const HEAD: usize = 5;
/// What makes sure of one, at its end: 16 bytes in all suites of version 1.3.
const TAG: usize = 16;
/// The type of those that are encrypted in version 1.3.
const APPLICATION_DATA: u8 = 23;
/// Room for what the library may put before a record: a change of keys.
const BEFORE: usize = 64;

/// What came of a turn.
#[derive(Debug)]
pub(super) enum Came {
    /// Something, and there may be more.
    Something,
    /// The same: what a client sent before its handshake was over.
    Early,
    /// The peer's end.
    End,
    /// Nothing: it waits for more, or for what we say, which was said.
    Nothing,
}

/// What is to be said once it may be.
#[derive(Clone, Debug)]
pub(super) enum Say<'a> {
    Nothing,
    /// This part of what is made.
    Made(Range<usize>),
    /// These bytes.
    Given(&'a [u8]),
    /// That nothing more is written.
    End,
}

/// How many bytes more fill the last record of so many.
pub(super) fn left(len: usize) -> usize {
    len.next_multiple_of(RECORD) - len
}

/// The length of the record that these bytes begin with, if all of it is there.
pub(super) fn record(bytes: &[u8]) -> Option<usize> {
    let [_, _, _, high, low] = *bytes.first_chunk()?;
    let len = HEAD + usize::from(u16::from_be_bytes([high, low]));
    (bytes.len() >= len).then_some(len)
}

/// Whether a record is said to be encrypted.
pub(super) fn is_sealed(record: &[u8]) -> bool {
    record.first() == Some(&APPLICATION_DATA)
}

/// Whether the library could not read a record, by what it left of it: it decrypts where the bytes stand, and what is
/// not what it seems to be is left as it was or with nothing in it. What could be read ends in a type, which isn't 0.
pub(super) fn is_passed_over(before: &[u8], after: &[u8]) -> bool {
    let inner = |record: &[u8]| HEAD..record.len().saturating_sub(TAG).max(HEAD);
    let is_empty = after[inner(after)].iter().all(|byte| *byte == 0);
    is_sealed(before) && (before == after || is_empty)
}

/// Do what is to be done: plaintext goes behind what is in `plain`, records behind what is in `made`. How many bytes of
/// what came are of no more use, and what came of it. Early data is read by `early`: only a server has any.
pub(super) fn of<Data>(
    status: UnbufferedStatus<'_, '_, Data>,
    plain: &mut Vec<u8>,
    made: &mut Vec<u8>,
    say: Say<'_>,
    early: impl FnOnce(ReadEarlyData<'_, '_, Data>, &mut Vec<u8>) -> usize,
) -> (usize, Result<Came, Error>) {
    let mut passed = status.discard;
    let came = status.state.map(|state| match state {
        ConnectionState::ReadTraffic(mut traffic) => {
            while let Some(Ok(record)) = traffic.next_record() {
                plain.extend_from_slice(record.payload);
                passed += record.discard;
            }
            Came::Something
        }
        ConnectionState::EncodeTlsData(record) => {
            encode(record, made);
            Came::Something
        }
        ConnectionState::TransmitTlsData(sent) => {
            sent.done();
            Came::Something
        }
        ConnectionState::PeerClosed => Came::End,
        ConnectionState::WriteTraffic(traffic) => {
            speak(traffic, made, say);
            Came::Nothing
        }
        ConnectionState::ReadEarlyData(came) => {
            passed += early(came, plain);
            Came::Early
        }
        // It waits for more, or is over.
        _ => Came::Nothing,
    });
    (passed, came)
}

fn encode<Data>(mut record: EncodeTlsData<'_, Data>, made: &mut Vec<u8>) {
    let start = made.len();
    if let Err(EncodeError::InsufficientSize(InsufficientSizeError { required_size })) = record.encode(&mut []) {
        made.resize(start + required_size, 0);
        let written = record.encode(&mut made[start..]).unwrap_or(0);
        made.truncate(start + written);
    }
}

fn speak<Data>(mut traffic: WriteTraffic<'_, Data>, made: &mut Vec<u8>, say: Say<'_>) {
    let len = match &say {
        Say::Nothing => return,
        Say::Made(part) => part.len(),
        Say::Given(bytes) => bytes.len(),
        Say::End => 0,
    };
    let start = made.len();
    let mut needed = len + (len / RECORD + 1) * AROUND + BEFORE;
    let written = loop {
        made.resize(start + needed, 0);
        let (before, room) = made.split_at_mut(start);
        let written = match &say {
            Say::Nothing => Ok(0),
            Say::Made(part) => traffic.encrypt(&before[part.clone()], room),
            Say::Given(bytes) => traffic.encrypt(bytes, room),
            Say::End => traffic.queue_close_notify(room),
        };
        match written {
            Ok(written) => break written,
            Err(EncryptError::InsufficientSize(InsufficientSizeError { required_size })) => needed = required_size,
            // Its keys are used up: the library ends it.
            Err(EncryptError::EncryptExhausted) => break 0,
        }
    };
    made.truncate(start + written);
}
