//! A path in the one spelling that routes are compared with, so that no two ways to write a path reach different routes.
//!
//! The rule: every percent-escape is decoded, once; a backslash counts as a slash; runs of slashes count as one; then
//! `.` and `..` segments are carried out (RFC 3986 5.2.4), never above the root. What is left is compared byte by byte,
//! in its case. This is what the most lenient backend could make of the path: a path that some backend would take for
//! `/admin` is routed as `/admin`.

use std::borrow::Cow;

/// A path that isn't one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WrongPath {
    /// It doesn't begin with a slash.
    #[error("it doesn't begin with a slash")]
    Relative,
    /// A `%` without two hexadecimal digits behind it.
    #[error("it has a `%` without two hexadecimal digits behind it")]
    Escape,
    /// A NUL byte, escaped or not.
    #[error("it has a NUL byte")]
    Nul,
}

/// The path as routes are compared with it.
///
/// # Errors
/// What can't be a path, or would be cut short by a backend that takes it for a C string.
pub fn normalise(path: &str) -> Result<Cow<'_, [u8]>, WrongPath> {
    let bytes = path.as_bytes();
    if bytes.first() != Some(&b'/') {
        return Err(WrongPath::Relative);
    }
    if is_plain(bytes) {
        return Ok(Cow::Borrowed(bytes));
    }
    let decoded = decode(bytes)?;
    let mut out: Vec<u8> = Vec::with_capacity(decoded.len());
    let mut segments = decoded[1..].split(|byte| *byte == b'/').peekable();
    while let Some(segment) = segments.next() {
        let is_last = segments.peek().is_none();
        match segment {
            b"" | b"." if is_last => out.push(b'/'),
            b"" | b"." => {}
            b".." => {
                let cut = out.iter().rposition(|byte| *byte == b'/').unwrap_or(0);
                out.truncate(cut);
                if is_last {
                    out.push(b'/');
                }
            }
            segment => {
                out.push(b'/');
                out.extend_from_slice(segment);
            }
        }
    }
    Ok(Cow::Owned(out))
}

/// Whether programs differ in what segments a path has: an empty one that isn't the last, `.` or `..` (also with
/// parameters behind them, `..;x`, which some programs take away before they carry it out), a backslash, or an escaped
/// slash, backslash or dot in such a place; and parameters behind a name (`admin;x`), which are a part of it for some and
/// are taken away by others. What is spelt otherwise within a segment (`%20`) is one path for all.
///
/// Takes what [`normalise`] takes.
pub fn is_ambiguous(path: &str) -> bool {
    let mut segments = path.as_bytes().split(|byte| *byte == b'/').skip(1).peekable();
    while let Some(segment) = segments.next() {
        let Ok(decoded) = decode(segment) else { return true };
        let is_gap = decoded.is_empty() && segments.peek().is_some();
        if is_gap || matches!(&*decoded, b"." | b"..") || decoded.iter().any(|byte| matches!(byte, b'/' | b';')) {
            return true;
        }
    }
    false
}

/// A byte that is spelt otherwise, wherever it stands.
const NEVER: u8 = 128;
/// One that is spelt otherwise behind a slash. The bit that follows the slash's: of a slash's class, doubled.
const NOT_BEHIND_SLASH: u8 = 2;
const SLASH: u8 = 1;

/// What each byte of a path is.
static CLASSES: [u8; 256] = {
    let mut classes = [0; 256];
    (classes[0], classes[b'%' as usize], classes[b'\\' as usize]) = (NEVER, NEVER, NEVER);
    (classes[b'/' as usize], classes[b'.' as usize]) = (NOT_BEHIND_SLASH | SLASH, NOT_BEHIND_SLASH);
    classes
};

/// Whether it is spelt as routes are already: what nearly all paths are. Looked at without a branch for each byte.
fn is_plain(bytes: &[u8]) -> bool {
    let (found, _) = bytes.iter().fold((0, 0), |(found, before), byte| {
        let class = CLASSES[usize::from(*byte)];
        (found | class & (NEVER | before << 1), class)
    });
    found == 0
}

fn decode(bytes: &[u8]) -> Result<Vec<u8>, WrongPath> {
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let byte = match bytes[at] {
            b'%' => {
                let digit = |at: usize| bytes.get(at).and_then(|byte| (*byte as char).to_digit(16));
                let (Some(high), Some(low)) = (digit(at + 1), digit(at + 2)) else { return Err(WrongPath::Escape) };
                at += 2;
                (high * 16 + low) as u8
            }
            byte => byte,
        };
        match byte {
            0 => return Err(WrongPath::Nul),
            b'\\' => out.push(b'/'),
            byte => out.push(byte),
        }
        at += 1;
    }
    Ok(out)
}

/// A normalised path, or a part of one, written so that it is read back as itself: everything but what RFC 3986 3.3
/// lets stand in a path is percent-escaped.
pub fn encode(path: &[u8], out: &mut Vec<u8>) {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    for &byte in path {
        if byte.is_ascii_alphanumeric() || b"/-._~!$&'()*+,;=:@".contains(&byte) {
            out.push(byte);
        } else {
            out.extend_from_slice(&[b'%', HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]]);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn spellings_of_one_path_are_one() {
        for path in [
            "/a/b",
            "//a/b",
            "/a//b",
            "/./a/b",
            "/a/./b",
            "/a/x/../b",
            "/../a/b",
            "/%61/b",
            "/a%2fb",
            "/a%2Fb",
            "/a\\b",
            "/a%5cb",
            "/x/%2e%2E/a/b",
            "/a/b/../b",
            "/%2e/a/b",
            "/a/..%2fa/b",
        ] {
            assert_eq!(normalise(path).unwrap(), &b"/a/b"[..], "{path}");
        }
        for (path, is) in [
            ("/", "/"),
            ("/a/", "/a/"),
            ("/a/b/..", "/a/"),
            ("/a/.", "/a/"),
            ("/..", "/"),
            ("//", "/"),
            ("/a.b/.c", "/a.b/.c"),
            ("/%252e", "/%2e"),
            ("/A", "/A"),
            ("/a;v=1", "/a;v=1"),
            ("/...", "/..."),
        ] {
            assert_eq!(normalise(path).unwrap(), is.as_bytes(), "{path}");
        }
    }

    #[test]
    fn a_path_that_programs_read_differently_is_ambiguous() {
        for path in [
            "//a",
            "/a//b",
            "/a//",
            "/a/../b",
            "/a/..",
            "/./a",
            "/.",
            "/a/%2e%2e/b",
            "/a/.%2E",
            "/a%2fb",
            "/a%2Fb",
            "/a\\b",
            "/a%5Cb",
            "/..;/a",
            "/a/..;x=1/b",
            "/.;/a",
            "/a/%2e%2e%3bx/b",
            "/admin;x",
            "/admin;",
            "/;/admin",
            "/;x/admin",
            "/a/;x",
            "/a%3Bx/b",
        ] {
            assert!(is_ambiguous(path), "{path}");
        }
        for path in
            ["/", "/a", "/a/", "/a%20b", "/%61", "/.well-known/x", "/a..b/c.", "/...", "/a,x=1", "/%252e%252e/a"]
        {
            assert!(!is_ambiguous(path), "{path}");
        }
    }

    #[test]
    fn what_is_no_path_is_refused() {
        for path in ["", "a", "/%", "/%4", "/%zz", "/a%00", "*"] {
            assert!(normalise(path).is_err(), "{path}");
        }
    }

    proptest! {
        #[test]
        fn a_plain_path_is_one_that_normalising_leaves(path in "/[a.%\\\\\\x00/]{0,8}") {
            // Every escape is another spelling of what it stands for.
            let is_left = |normal: Cow<'_, [u8]>| normal == path.as_bytes() && !path.contains('%');
            let hidden = path.split('/').skip(1).any(|segment| segment.starts_with('.'));
            match normalise(&path) {
                Ok(normal) => prop_assert!(is_plain(path.as_bytes()) == is_left(normal) || hidden, "{path:?}"),
                Err(_) => prop_assert!(!is_plain(path.as_bytes())),
            }
        }

        /// What is plain is one path for everybody, and what is not ambiguous has the same segments once it is normalised.
        #[test]
        fn what_is_not_ambiguous_keeps_its_segments(path in "/[a.;%2ef5c/\\\\]{0,16}") {
            let Ok(normal) = normalise(&path) else { return Ok(()) };
            let segments = |bytes: &[u8]| bytes.iter().filter(|byte| **byte == b'/').count();
            let same = segments(&normal) == segments(path.as_bytes());
            if !is_ambiguous(&path) {
                prop_assert!(same && !normal.contains(&b';'), "{path:?}");
                let mut written = Vec::new();
                encode(&normal, &mut written);
                prop_assert!(!is_ambiguous(std::str::from_utf8(&written).expect("ASCII")), "{path:?}");
            }
        }

        /// Normalising is settled after one time, but for escapes of escapes, which are written out again by `encode`.
        #[test]
        fn what_is_encoded_is_read_back(path in "/[a-z%./\\\\2e5]{0,20}") {
            let Ok(normal) = normalise(&path) else { return Ok(()) };
            let mut written = Vec::new();
            encode(&normal, &mut written);
            let written = String::from_utf8(written).expect("ASCII");
            prop_assert_eq!(normalise(&written).expect("a path"), normal.clone());
            prop_assert!(normal.first() == Some(&b'/'));
            let dots = normal.split(|byte| *byte == b'/').any(|segment| segment == b"." || segment == b"..");
            prop_assert!(!dots && !normal.windows(2).any(|pair| pair == b"//"));
        }
    }
}
