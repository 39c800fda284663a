//! A look at where a request's head leads, before it is read. Says nothing about whether it is right.

use memchr::{memchr, memchr2};

/// No more of a head is looked at.
const LOOKED_AT: usize = 1_024;
/// Nor of its lines.
const LINES: usize = 4;
/// No host is longer (RFC 1035, section 2.3.4).
const LONGEST_HOST: usize = 255;
const HOST: &[u8] = b"host:";

/// The host, without its port, and the path, as they are written, of a request whose head begins there. None: they don't
/// stand where they nearly always do, in the first lines of a head in origin-form.
///
/// For what may be guessed, such as what to read ahead: who has to know reads the head ([`Heads`](super::Heads)).
pub fn glance(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let bytes = &bytes[..bytes.len().min(LOOKED_AT)];
    let (line, mut rest) = bytes.split_at(memchr(b'\n', bytes)? + 1);
    let target = &line[memchr(b' ', line)? + 1..];
    let path = &target[..memchr2(b' ', b'?', target)?];
    for _ in 1..LINES {
        let (name, value) = rest.split_at_checked(HOST.len())?;
        if name.eq_ignore_ascii_case(HOST) {
            let value = value.trim_ascii_start();
            let within = &value[..value.len().min(LONGEST_HOST + 1)];
            let end = within.iter().position(|byte| matches!(byte, b':' | b' ' | b'\r' | b'\n'))?;
            return Some((&value[..end], path));
        }
        rest = &rest[memchr(b'\n', rest)? + 1..];
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::http1::{Heads, Limits};

    const LIMITS: Limits = Limits { line: 4_096, head: 8_192, fields: 64 };

    #[test]
    fn the_host_and_the_path_are_found_in_the_first_lines() {
        let of = |text: &'static str| {
            let (host, path) = glance(text.as_bytes())?;
            Some((std::str::from_utf8(host).ok()?, std::str::from_utf8(path).ok()?))
        };
        assert_eq!(of("GET /a/b?c=/d HTTP/1.1\r\nHost: a.test\r\n\r\n"), Some(("a.test", "/a/b")));
        assert_eq!(of("GET / HTTP/1.1\r\nAccept: */*\r\nX: 1\r\nhOST:\ta.test:80\r\n"), Some(("a.test", "/")));
        assert_eq!(of("GET / HTTP/1.1\r\nHost: a.te"), None, "the rest of it is still to come");
        assert_eq!(of("GET / HTTP/1.1\r\nA: 1\r\nB: 1\r\nC: 1\r\nHost: a.test\r\n\r\n"), None, "far behind");
        assert_eq!(of("GET /\r\nHost: a.test\r\n\r\n"), None);
        let hosts = [255, 256]
            .map(|len| glance(format!("GET / HTTP/1.1\r\nHost: {}\r\n", "a".repeat(len)).as_bytes()).is_some());
        assert_eq!(hosts, [true, false], "no host is longer");
        assert_eq!(of(&*format!("GET /{} HTTP/1.1\r\nHost: a.test\r\n\r\n", "x".repeat(2_000)).leak()), None);
    }

    proptest! {
        #[test]
        fn whatever_comes_it_ends(bytes in proptest::collection::vec(prop_oneof![Just(b'\n'), Just(b' '), Just(b':'), any::<u8>()], 0..200)) {
            let behind = [b"GET / HTTP/1.1\r\n".as_slice(), &bytes].concat();
            let (_, _) = (glance(&bytes), glance(&behind));
        }

        #[test]
        fn what_is_seen_is_what_is_read(
            host in "[a-z0-9.-]{0,30}[a-z0-9-]",
            port in proptest::option::of(1u16..),
            path in "/[a-z0-9/._~-]{0,30}",
            query in proptest::option::of("[a-z0-9=&/]{0,10}"),
            before in proptest::collection::vec("[A-Z][a-z-]{0,8}: [a-z0-9 ]{0,8}", 0..3),
        ) {
            let port = port.map_or(String::new(), |port| format!(":{port}"));
            let query = query.map_or(String::new(), |query| format!("?{query}"));
            let before: String = before.iter().map(|line| format!("X-{line}\r\n")).collect();
            let text = format!("GET {path}{query} HTTP/1.1\r\n{before}Host: {host}{port}\r\nA: 1\r\n\r\n");
            let seen = glance(text.as_bytes());
            prop_assert_eq!(seen, Some((host.as_bytes(), path.as_bytes())));
            let mut heads = Heads::default();
            // Some hosts are none.
            if let Ok(head) = heads.request(text.as_bytes(), &LIMITS) {
                prop_assert_eq!(seen, Some((head.host.as_bytes(), head.request.path.as_bytes())));
            }
        }
    }
}
