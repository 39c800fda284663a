//! Host and port of a request (RFC 9110 7.2, RFC 3986 3.2.2), in the one spelling that routes are compared with.

use std::borrow::Cow;
use std::net::Ipv6Addr;

/// A host and perhaps a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Authority<'a> {
    /// Lower case, without a trailing dot; an IPv6 address in its one spelling, in brackets.
    pub host: Cow<'a, str>,
    /// The port, where one was written.
    pub port: Option<u16>,
}

/// The text can't be a host and a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("it isn't a host name or an address, with a port or without")]
pub struct WrongAuthority;

impl<'a> Authority<'a> {
    /// Reads `host`, `host:port`, `[v6]` and `[v6]:port`. User names, percent-escapes, spaces, empty labels and everything that isn't
    /// ASCII are refused: an international name comes in its `xn--` form.
    ///
    /// # Errors
    /// What can't be a host and a port.
    pub fn parse(text: &'a str) -> Result<Self, WrongAuthority> {
        let (host, port, is_lower) = match text.strip_prefix('[') {
            Some(rest) => {
                let (address, after) = rest.split_once(']').ok_or(WrongAuthority)?;
                let address = address.parse::<Ipv6Addr>().map_err(|_| WrongAuthority)?;
                let port = match after {
                    "" => None,
                    after => Some(after.strip_prefix(':').ok_or(WrongAuthority)?),
                };
                return Ok(Authority { host: format!("[{address}]").into(), port: read_port(port)? });
            }
            None => {
                let (end, is_lower) = name(text).ok_or(WrongAuthority)?;
                (&text[..end], text.get(end + 1..), is_lower)
            }
        };
        let bare = host.strip_suffix('.').unwrap_or(host);
        let has_empty_label =
            || bare.starts_with('.') || bare.ends_with('.') || bare.as_bytes().windows(2).any(|pair| pair == b"..");
        if bare.is_empty() || bare.len() > 255 || has_empty_label() {
            return Err(WrongAuthority);
        }
        let host = if is_lower { Cow::Borrowed(bare) } else { Cow::Owned(bare.to_ascii_lowercase()) };
        Ok(Authority { host, port: read_port(port)? })
    }
}

fn read_port(port: Option<&str>) -> Result<Option<u16>, WrongAuthority> {
    match port {
        // RFC 3986 3.2.3: a port may be left empty.
        None | Some("") => Ok(None),
        Some(digits) if digits.bytes().all(|byte| byte.is_ascii_digit()) => {
            digits.parse().map(Some).map_err(|_| WrongAuthority)
        }
        Some(_) => Err(WrongAuthority),
    }
}

/// Where a host's name ends, at a colon or with the text, and whether it has no capital letter.
fn name(text: &str) -> Option<(usize, bool)> {
    // Nearly all are plain to their end.
    let plain = text.bytes().position(|byte| CLASSES[usize::from(byte)] as u8 != Class::Plain as u8);
    let Some(plain) = plain else { return Some((text.len(), true)) };
    let mut is_lower = true;
    for (at, byte) in text.bytes().enumerate().skip(plain) {
        match CLASSES[usize::from(byte)] {
            Class::Plain => {}
            Class::Upper => is_lower = false,
            Class::Other => return (byte == b':').then_some((at, is_lower)),
        }
    }
    Some((text.len(), is_lower))
}

/// What a byte is in a host's name.
#[derive(Clone, Copy)]
enum Class {
    /// A small letter, a digit, or one of those marks that are seen in host names.
    Plain,
    /// A capital letter.
    Upper,
    Other,
}

/// Every byte's class: names are looked through once, at a table's pace.
static CLASSES: [Class; 256] = {
    let (mut classes, mut byte) = ([Class::Other; 256], 0u8);
    loop {
        classes[byte as usize] = match byte {
            b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => Class::Plain,
            b'A'..=b'Z' => Class::Upper,
            _ => Class::Other,
        };
        if byte == u8::MAX {
            break classes;
        }
        byte += 1;
    }
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_has_no_empty_labels() {
        for text in ["a..b", ".a", "a..", "..", ".", "a..b:80", ".a.b."] {
            assert_eq!(Authority::parse(text), Err(WrongAuthority), "{text}");
        }
        assert!(Authority::parse("a.b.").is_ok() && Authority::parse("-.~").is_ok());
    }

    #[test]
    fn spellings_of_one_host_are_one() {
        for text in ["example.com", "EXAMPLE.com", "example.com.", "Example.Com:80", "example.com.:80", "example.com:"]
        {
            assert_eq!(Authority::parse(text).unwrap().host, "example.com", "{text}");
        }
        assert_eq!(Authority::parse("[::1]:8080").unwrap(), Authority { host: "[::1]".into(), port: Some(8080) });
        assert_eq!(Authority::parse("[0:0::0:1]").unwrap().host, "[::1]");
        assert_eq!(Authority::parse("xn--bcher-kva.example").unwrap().host, "xn--bcher-kva.example");
    }

    #[test]
    fn what_could_be_read_in_two_ways_is_no_host() {
        for text in [
            "",
            ".",
            ":80",
            "a b",
            "a@b",
            "user@host",
            "a/b",
            "a:b",
            "a:80:81",
            "a:99999",
            "[::1",
            "[::1]x",
            "[zz]",
            "a%2eb",
            "b\u{fc}cher.example",
            "a,b",
            "a:+80",
            "a?b",
            "a#b",
            "a\\b",
            "::1",
        ] {
            assert_eq!(Authority::parse(text), Err(WrongAuthority), "{text}");
        }
    }
}
