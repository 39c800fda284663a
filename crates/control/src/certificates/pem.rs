//! Files in PEM: their bytes, and what tells whether they changed. Parses nothing.

use std::fs;
use std::io::Read;
use std::os::unix::fs::MetadataExt;

use kakei_config::Pem;

use crate::opened;

/// The longest file.
const LONGEST: u64 = 1 << 20;

/// The shortest private key, in base64.
const SHORTEST_KEY: usize = 44;

/// What a file was like when it was looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Stamp {
    /// It is no file: the document holds it.
    Held,
    /// Its device, number, length, and the time of its last change in nanoseconds.
    File([i128; 4]),
    /// It could not be looked at.
    Missing,
}

impl Stamp {
    /// Whether a file that looks the same holds the same.
    pub(super) fn is_telling(&self) -> bool {
        *self != Stamp::Missing
    }
}

pub(super) fn stamp(pem: &Pem) -> Stamp {
    match pem {
        Pem::File(path) => stamp_of(path),
        Pem::Text(_) => Stamp::Held,
    }
}

/// What the file there is like.
pub(super) fn stamp_of(path: &str) -> Stamp {
    let Ok(found) = fs::metadata(path) else { return Stamp::Missing };
    let changed = i128::from(found.ctime()) * 1_000_000_000 + i128::from(found.ctime_nsec());
    Stamp::File([found.dev().into(), found.ino().into(), found.len().into(), changed])
}

/// The bytes; or why there are none.
pub(super) fn read(pem: &Pem) -> Result<Vec<u8>, String> {
    let path = match pem {
        Pem::Text(text) => return Ok(text.clone().into_bytes()),
        Pem::File(path) => path,
    };
    let mut bytes = Vec::new();
    let read = opened::to_read(path.as_ref()).and_then(|file| file.take(LONGEST + 1).read_to_end(&mut bytes));
    match read {
        Err(_) if is_pasted(path) => {
            Err("it is neither a file's path nor PEM: that has a line `-----BEGIN …-----` and an end like it"
                .to_owned())
        }
        Err(error) => Err(format!("{path} can't be read: {error}")),
        Ok(_) if bytes.len() as u64 > LONGEST => Err(format!("{path} is longer than {LONGEST} bytes")),
        Ok(_) => Ok(bytes),
    }
}

/// Whether it is rather what stands between the first and the last line of PEM than a path. It may be a private key, and
/// what is wrong is said to many.
fn is_pasted(path: &str) -> bool {
    let in_base64 = |c: char| c.is_ascii_alphanumeric() || "+/=\\".contains(c) || c.is_ascii_whitespace();
    path.contains(['\n', '\r'])
        || path.contains("----")
        || (path.len() >= SHORTEST_KEY && !path.starts_with('/') && path.chars().all(in_base64))
        || path.split('/').any(is_long_base64)
}

/// Whether a part of a path is like nothing that anybody calls a file or a directory, which may have been put before it.
fn is_long_base64(part: &str) -> bool {
    let has = |is: fn(&u8) -> bool| part.as_bytes().iter().any(is);
    part.len() >= SHORTEST_KEY * 3 / 4
        && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+=".contains(&byte))
        && has(u8::is_ascii_lowercase)
        && has(u8::is_ascii_uppercase)
        && has(u8::is_ascii_digit)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HASHED: &str = "/nowhere/0c14ad2a2f2e0ff4b2bcf7a24bd1a9f0e7c3d5a1/key";

    #[test]
    fn what_may_be_a_key_is_never_repeated() {
        let body = "MC4CAQAwBQYDK2VwBCIEIGpGvmTyCmKtYLHCdZrfPTdqtGJG3dXB5dPaT1kFyIfZ";
        let pasted = [
            body.to_owned(),
            format!("{body}\\n{body}\\n"),
            format!("{body} {body}"),
            format!("a.key\n{body}"),
            format!("----BEGIN PRIVATE KEY----{body}"),
            format!("{body}-----END PRIVATE KEY-----"),
            body[20..].to_owned(),
            format!("/etc/kakei/{body}"),
        ];
        for text in pasted {
            let said = read(&Pem::File(text.clone())).unwrap_err();
            assert!(said.starts_with("it is neither a file's path nor PEM"), "{text}: {said}");
            assert!(!said.contains(&body[20..30]), "{said}");
        }
        let paths =
            ["a.key", "/etc/kakei/a/very/long/way/to/the/key/of/the/certificate", "/nowhere/site.key", "key", HASHED];
        for path in paths.into_iter().chain(["./tls/a/very/long/way/to/the/key/of/the/certificate"]) {
            assert!(read(&Pem::File(path.to_owned())).unwrap_err().starts_with(path));
        }
    }
}
