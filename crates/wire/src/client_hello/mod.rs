//! What a TLS client asks for before anything is encrypted: the server name and the protocols of its ClientHello.
//! Decrypts nothing, changes nothing, and says nothing about whether the handshake would succeed.
//!
//! The message may lie in several records (RFC 8446, section 5.1), and the stream may be there in part: [`parse`] is
//! called with everything from the first byte on, as often as bytes arrive. While the message is not whole a call
//! walks from record to record without looking at what they hold, and remembers nothing; within [`MAX`] bytes that are
//! 2,730 records of one byte at most. What it allocates is bounded by the bytes that are there.

mod body;
mod host_name;
mod record;

use thiserror::Error;

/// The most bytes of a stream, record headers included, in which a ClientHello must be whole.
pub const MAX: usize = 16 * 1024;
/// The most protocols that a ClientHello may offer.
pub const MAX_PROTOCOLS: usize = 128;

/// What the bytes so far say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reading {
    /// More are needed.
    More,
    /// The stream is no TLS: it does not begin with a handshake record (an SSL 2.0 hello counts as none).
    NotTls,
    /// The whole message.
    Hello(ClientHello),
}

/// What a ClientHello asks for. Of an encrypted one (ECH) that is what the outer one says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClientHello {
    /// The host's name in lower-case ASCII, without a trailing dot; none where there is none, or only an address,
    /// which RFC 6066 (section 3) does not permit as a name.
    pub server_name: Option<String>,
    /// The protocols that it offers, in its order (RFC 7301).
    pub alpn: Vec<Vec<u8>>,
    /// The versions that it offers, in its order, with values that mean nothing (GREASE) among them: 0x0303 is TLS 1.2.
    pub versions: Vec<u16>,
    /// The cipher suites that it offers, in its order, by their numbers in IANA's registry.
    pub suites: Vec<u16>,
    /// The signatures that it can check, in its order (RFC 8446, section 4.2.3), by theirs.
    pub signatures: Vec<u16>,
    /// Whether it offers early data (RFC 8446, section 4.2.10).
    pub early_data: bool,
}

/// What is wrong with a stream that began as TLS. Always the peer's fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Error {
    /// Between the handshake's records is one of another type.
    #[error("a record of type {0} in the middle of the ClientHello")]
    RecordType(u8),
    /// Not a version of SSL 3.0 or TLS.
    #[error("a record of version {0}.x is no TLS")]
    RecordVersion(u8),
    /// A record of no bytes, or of more than 2^14.
    #[error("a record of {0} bytes")]
    RecordLength(usize),
    /// The handshake begins with another message.
    #[error("the handshake begins with message {0}, not with a ClientHello")]
    MessageType(u8),
    /// The message isn't whole within [`MAX`] bytes of the stream.
    #[error("the ClientHello is longer than {MAX} bytes")]
    TooLong,
    /// The client's version is none of SSL 3.0 or TLS.
    #[error("the ClientHello is of version {0}.x")]
    Version(u8),
    /// A length in the message reaches past what it is part of, leaves something over, or is out of its range.
    #[error("the lengths in the ClientHello do not add up: {0}")]
    Malformed(&'static str),
    /// The same extension twice (RFC 8446, section 4.2).
    #[error("extension {0} stands twice in the ClientHello")]
    DuplicateExtension(u16),
    /// More than one host name (RFC 6066, section 3).
    #[error("the ClientHello has two server names")]
    TwoServerNames,
    /// The server name is not the name of a host.
    #[error("the server name in the ClientHello is not a host name")]
    ServerName,
    /// More protocols than [`MAX_PROTOCOLS`].
    #[error("the ClientHello offers more than {MAX_PROTOCOLS} protocols")]
    TooManyProtocols,
}

/// Read the ClientHello that a stream begins with; `bytes` is everything from its first byte on. What follows the
/// message means nothing.
pub fn parse(bytes: &[u8]) -> Result<Reading, Error> {
    match bytes.first() {
        None => return Ok(Reading::More),
        Some(&record::HANDSHAKE) => {}
        Some(_) => return Ok(Reading::NotTls),
    }
    match record::message(bytes)? {
        None => Ok(Reading::More),
        Some(message) => Ok(Reading::Hello(body::parse(&message)?)),
    }
}
