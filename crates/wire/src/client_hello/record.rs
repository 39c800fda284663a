//! The first message of a handshake from the records that hold it: RFC 8446, sections 4 and 5.1. Knows nothing of what
//! the message says.

use std::borrow::Cow;

use super::{Error, MAX};

/// The content type of a handshake's records.
pub(super) const HANDSHAKE: u8 = 22;
const CLIENT_HELLO: u8 = 1;
/// Type, version and length of a record.
const RECORD_HEAD: usize = 5;
/// Type and length of a message.
const MESSAGE_HEAD: usize = 4;
/// RFC 8446, section 5.1: "The length MUST NOT exceed 2^14 bytes."
const MAX_FRAGMENT: usize = 1 << 14;

/// The body of the ClientHello, once it is whole.
pub(super) fn message(bytes: &[u8]) -> Result<Option<Cow<'_, [u8]>>, Error> {
    let mut head = Head::default();
    let mut first = None;
    for fragment in fragments(bytes) {
        let fragment = fragment?;
        head.take(fragment)?;
        first.get_or_insert(fragment);
        match head.needed()? {
            Some(needed) if head.seen >= needed => return collect(bytes, first, needed).map(Some),
            _ => {}
        }
    }
    if bytes.len() >= MAX { Err(Error::TooLong) } else { Ok(None) }
}

fn collect<'a>(bytes: &'a [u8], first: Option<&'a [u8]>, needed: usize) -> Result<Cow<'a, [u8]>, Error> {
    if let Some(whole) = first.and_then(|first| first.get(MESSAGE_HEAD..needed)) {
        return Ok(Cow::Borrowed(whole));
    }
    let mut message = Vec::with_capacity(needed);
    let mut fragments = fragments(bytes);
    // What follows the message is somebody else's: another record may be of another type.
    while message.len() < needed
        && let Some(fragment) = fragments.next()
    {
        let fragment = fragment?;
        message.extend_from_slice(&fragment[..fragment.len().min(needed - message.len())]);
    }
    message.drain(..MESSAGE_HEAD);
    Ok(Cow::Owned(message))
}

/// The head of a message, which may lie in several records, and how many bytes of the message were seen.
#[derive(Default)]
struct Head {
    bytes: [u8; MESSAGE_HEAD],
    seen: usize,
}

impl Head {
    fn take(&mut self, fragment: &[u8]) -> Result<(), Error> {
        let missing = self.bytes.iter_mut().skip(self.seen);
        missing.zip(fragment).for_each(|(to, from)| *to = *from);
        self.seen += fragment.len();
        match (self.seen, self.bytes[0]) {
            (0, _) | (_, CLIENT_HELLO) => Ok(()),
            (_, other) => Err(Error::MessageType(other)),
        }
    }

    /// Bytes of the message, its head included, once they are known.
    fn needed(&self) -> Result<Option<usize>, Error> {
        if self.seen < MESSAGE_HEAD {
            return Ok(None);
        }
        let [_, high, middle, low] = self.bytes;
        let needed = MESSAGE_HEAD + u32::from_be_bytes([0, high, middle, low]) as usize;
        if RECORD_HEAD + needed > MAX { Err(Error::TooLong) } else { Ok(Some(needed)) }
    }
}

/// What the records hold, one after the other, within the first [`MAX`] bytes; the last one as far as it is there.
fn fragments(bytes: &[u8]) -> impl Iterator<Item = Result<&[u8], Error>> {
    let mut rest = &bytes[..bytes.len().min(MAX)];
    std::iter::from_fn(move || match record_length(rest) {
        Ok(None) => None,
        Ok(Some(length)) => {
            let (fragment, after) = rest[RECORD_HEAD..].split_at(length.min(rest.len() - RECORD_HEAD));
            rest = after;
            Some(Ok(fragment))
        }
        Err(error) => {
            rest = &[];
            Some(Err(error))
        }
    })
}

/// The length in a record's head, once it is there; a head that is wrong is told at its first wrong byte.
fn record_length(bytes: &[u8]) -> Result<Option<usize>, Error> {
    match *bytes {
        [kind, ..] if kind != HANDSHAKE => Err(Error::RecordType(kind)),
        // The minor version "MUST be ignored for all purposes".
        [_, version, ..] if version != 3 => Err(Error::RecordVersion(version)),
        [_, _, _, high, low, ..] => match usize::from(u16::from_be_bytes([high, low])) {
            // "Implementations MUST NOT send zero-length fragments of Handshake types".
            length @ 1..=MAX_FRAGMENT => Ok(Some(length)),
            length => Err(Error::RecordLength(length)),
        },
        _ => Ok(None),
    }
}
