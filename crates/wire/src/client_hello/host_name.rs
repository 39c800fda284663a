//! What is the name of a host: RFC 1123, section 2.1, with the underscores that are in use. Resolves nothing.

use std::net::IpAddr;

use super::Error;

/// The longest name, without a trailing dot (RFC 1035, section 3.1, has 255 bytes on the wire).
const MAX_NAME: usize = 253;
const MAX_LABEL: usize = 63;

/// In lower case, without a trailing dot. None: an address, which is no name.
pub(super) fn parse(name: &[u8]) -> Result<Option<String>, Error> {
    let name = name.strip_suffix(b".").unwrap_or(name);
    let text = std::str::from_utf8(name).map_err(|_| Error::ServerName)?;
    if text.parse::<IpAddr>().is_ok() {
        return Ok(None);
    }
    let labels_are_right = name.split(|&byte| byte == b'.').all(is_label);
    match name.len() <= MAX_NAME && labels_are_right && !ends_with_number(name) {
        true => Ok(Some(text.to_ascii_lowercase())),
        false => Err(Error::ServerName),
    }
}

fn is_label(label: &[u8]) -> bool {
    let edges_are_right = label.first() != Some(&b'-') && label.last() != Some(&b'-');
    let allowed = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    (1..=MAX_LABEL).contains(&label.len()) && edges_are_right && label.iter().all(allowed)
}

/// No top-level domain is a number: what ends with one is a kind of address (`127.1`).
fn ends_with_number(name: &[u8]) -> bool {
    name.rsplit(|&byte| byte == b'.').next().is_some_and(|label| label.iter().all(u8::is_ascii_digit))
}
