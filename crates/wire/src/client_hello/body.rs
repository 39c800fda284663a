//! The fields of a ClientHello: RFC 8446, section 4.1.2. Reads five extensions and checks that all the rest adds up;
//! what it does not know (GREASE among it) it skips.

use super::{ClientHello, Error, MAX_PROTOCOLS, host_name};

const SERVER_NAME: u16 = 0;
const SIGNATURE_ALGORITHMS: u16 = 13;
const ALPN: u16 = 16;
const EARLY_DATA: u16 = 42;
const SUPPORTED_VERSIONS: u16 = 43;
/// The only kind of server name there is (RFC 6066, section 3).
const HOST_NAME: u8 = 0;

/// Read the message without its head.
pub(super) fn parse(message: &[u8]) -> Result<ClientHello, Error> {
    let mut fields = Fields(message);
    let legacy: [u8; 2] = fields.array("legacy_version")?;
    let [major, _minor] = legacy;
    if major != 3 {
        return Err(Error::Version(major));
    }
    fields.array::<32>("random")?;
    let session_id = fields.short("legacy_session_id")?;
    check(session_id.len() <= 32, "legacy_session_id")?;
    let suites = fields.long("cipher_suites")?;
    check(!suites.is_empty() && suites.len().is_multiple_of(2), "cipher_suites")?;
    let compression = fields.short("legacy_compression_methods")?;
    check(!compression.is_empty(), "legacy_compression_methods")?;
    // RFC 5246, section 7.4.1.2: there may be none, which is seen by what is left.
    let mut hello = ClientHello::default();
    if !fields.is_empty() {
        let extensions = fields.long("extensions")?;
        check(fields.is_empty(), "extensions")?;
        hello = self::extensions(Fields(extensions))?;
    }
    hello.suites = numbers(suites);
    // RFC 8446, section 4.2.1: where the extension is there, the field means nothing.
    if hello.versions.is_empty() {
        hello.versions.push(u16::from_be_bytes(legacy));
    }
    Ok(hello)
}

fn extensions(mut fields: Fields<'_>) -> Result<ClientHello, Error> {
    let mut hello = ClientHello::default();
    let mut seen = Vec::new();
    while !fields.is_empty() {
        let kind = u16::from_be_bytes(fields.array("extension")?);
        let data = Fields(fields.long("extension")?);
        seen.push(kind);
        match kind {
            // A second one overwrites what the first said; below it is found to be wrong.
            SERVER_NAME => hello.server_name = server_name(data)?,
            SIGNATURE_ALGORITHMS => hello.signatures = signatures(data),
            ALPN => hello.alpn = protocols(data)?,
            SUPPORTED_VERSIONS => hello.versions = versions(data)?,
            EARLY_DATA => hello.early_data = true,
            _ => {}
        }
    }
    seen.sort_unstable();
    match seen.array_windows().find(|[one, next]| one == next) {
        Some(&[twice, _]) => Err(Error::DuplicateExtension(twice)),
        None => Ok(hello),
    }
}

/// RFC 6066, section 3: "The ServerNameList MUST NOT contain more than one name of the same name_type."
fn server_name(mut data: Fields<'_>) -> Result<Option<String>, Error> {
    let mut list = Fields(data.long("server_name")?);
    check(data.is_empty() && !list.is_empty(), "server_name")?;
    let mut found = None;
    while !list.is_empty() {
        let [kind] = list.array("server_name")?;
        // "all future data structures associated with new NameTypes MUST begin with a 16-bit length field".
        let name = list.long("server_name")?;
        if kind == HOST_NAME && found.replace(name).is_some() {
            return Err(Error::TwoServerNames);
        }
    }
    match found {
        Some(name) => host_name::parse(name),
        None => Ok(None),
    }
}

/// RFC 8446, section 4.2.3. Nothing where it isn't as it should be: whoever goes on with the handshake finds that out,
/// and to whoever only passes it on it is all the same.
fn signatures(mut data: Fields<'_>) -> Vec<u16> {
    data.long("signature_algorithms").map(numbers).unwrap_or_default()
}

/// RFC 7301, section 3.1: "Empty strings MUST NOT be included".
fn protocols(mut data: Fields<'_>) -> Result<Vec<Vec<u8>>, Error> {
    let mut list = Fields(data.long("ALPN")?);
    check(data.is_empty() && !list.is_empty(), "ALPN")?;
    let mut protocols = Vec::new();
    while !list.is_empty() {
        let name = list.short("ALPN")?;
        check(!name.is_empty(), "ALPN")?;
        if protocols.len() == MAX_PROTOCOLS {
            return Err(Error::TooManyProtocols);
        }
        protocols.push(name.to_vec());
    }
    Ok(protocols)
}

/// RFC 8446, section 4.2.1: at least one.
fn versions(mut data: Fields<'_>) -> Result<Vec<u16>, Error> {
    let list = data.short("supported_versions")?;
    check(data.is_empty() && list.len().is_multiple_of(2) && !list.is_empty(), "supported_versions")?;
    Ok(numbers(list))
}

fn numbers(list: &[u8]) -> Vec<u16> {
    list.as_chunks::<2>().0.iter().map(|number| u16::from_be_bytes(*number)).collect()
}

fn check(right: bool, what: &'static str) -> Result<(), Error> {
    if right { Ok(()) } else { Err(Error::Malformed(what)) }
}

/// What is left to be read, field by field; `what` names the field where it isn't there.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn array<const N: usize>(&mut self, what: &'static str) -> Result<[u8; N], Error> {
        let (array, rest) = self.0.split_first_chunk().ok_or(Error::Malformed(what))?;
        self.0 = rest;
        Ok(*array)
    }

    fn bytes(&mut self, length: usize, what: &'static str) -> Result<&'a [u8], Error> {
        let (bytes, rest) = self.0.split_at_checked(length).ok_or(Error::Malformed(what))?;
        self.0 = rest;
        Ok(bytes)
    }

    /// Bytes behind a length of one byte.
    fn short(&mut self, what: &'static str) -> Result<&'a [u8], Error> {
        let [length] = self.array(what)?;
        self.bytes(usize::from(length), what)
    }

    /// Bytes behind a length of two bytes.
    fn long(&mut self, what: &'static str) -> Result<&'a [u8], Error> {
        let length = u16::from_be_bytes(self.array(what)?);
        self.bytes(usize::from(length), what)
    }
}
