//! The little that clients and backend must know of a head, in one pass over it. It is no parser for a stranger's bytes.

/// A head that has ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Head<'a> {
    /// Its first line.
    pub(super) first: &'a [u8],
    /// What `Content-Length` says, where it says it once.
    pub(super) length: Option<usize>,
    /// Whether it says `Connection: close`.
    pub(super) closes: bool,
    /// How many bytes it has, the empty line included.
    pub(super) size: usize,
}

impl<'a> Head<'a> {
    /// The head that `bytes` begin with; none where it hasn't ended.
    pub(super) fn read(bytes: &'a [u8]) -> Option<Head<'a>> {
        let mut head = Head { first: b"", length: None, closes: false, size: 0 };
        let mut lengths = 0;
        loop {
            let rest = &bytes[head.size..];
            let end = rest.iter().position(|byte| *byte == b'\n')?;
            let line = rest[..end].strip_suffix(b"\r").unwrap_or(&rest[..end]);
            if head.size == 0 {
                head.first = line;
            }
            head.size += end + 1;
            match line.first() {
                None => break,
                Some(b'c' | b'C') => {
                    if let Some(value) = value(line, b"content-length") {
                        lengths += 1;
                        head.length = std::str::from_utf8(value).ok().and_then(|text| text.parse().ok());
                    }
                    head.closes |= value(line, b"connection").is_some_and(|value| value == b"close");
                }
                Some(_) => {}
            }
        }
        head.length = head.length.filter(|_| lengths == 1);
        Some(head)
    }
}

/// Whether a head says who the client is, by an IPv4 address: its own, or another one of the machine (so Envoy calls a client
/// on the loopback).
pub(super) fn names_client(head: &[u8]) -> bool {
    head.split(|byte| *byte == b'\n').any(|line| {
        let named = value(line, b"x-forwarded-for").or(value(line, b"forwarded"));
        let first = named.and_then(|value| value.split(|byte| b",;".contains(byte)).next());
        let address = first.map(|first| first.strip_prefix(b"for=").unwrap_or(first));
        address.is_some_and(|address| address.split(|byte| *byte == b'.').count() == 4)
    })
}

/// The value of a line, where it is the field `name`.
fn value<'a>(line: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    let (field, rest) = line.split_at_checked(name.len())?;
    let value = rest.strip_prefix(b":")?;
    field.eq_ignore_ascii_case(name).then(|| value.trim_ascii())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_ends_with_its_empty_line_and_has_one_length() {
        let text = b"HTTP/1.1 200 OK\r\ncontent-length: 12\r\nConnection: close\r\n\r\nbody";
        let head = Head::read(text).unwrap();
        assert_eq!((head.first, head.length, head.closes), (&b"HTTP/1.1 200 OK"[..], Some(12), true));
        assert_eq!(&text[head.size..], b"body");
        assert_eq!(Head::read(&text[..text.len() - 5]), None);
        let twice = Head::read(b"X\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\n").unwrap();
        assert_eq!((twice.length, twice.closes), (None, false));
    }

    #[test]
    fn either_field_names_the_client() {
        assert!(names_client(b"GET / HTTP/1.1\r\nX-Forwarded-For: 127.0.0.1\r\n\r\n"));
        assert!(names_client(b"GET / HTTP/1.1\r\nforwarded: for=127.0.0.1;host=\"a.b.c\";proto=http\r\n\r\n"));
        assert!(!names_client(b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"));
        assert!(!names_client(b"GET / HTTP/1.1\r\nX-Forwarded-For: unknown\r\n\r\n"));
    }
}
