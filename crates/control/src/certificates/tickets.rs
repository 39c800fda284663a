//! Keys of session tickets in a file of the state directory, so that tickets outlive the process. Nobody but its owner can
//! read the file; it is written whole, or not at all. What can't be read is no key.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use kakei_proxy::secure::{LIFETIME, TicketKeys};
use rustls::crypto::CryptoProvider;

/// The file's name in the state directory.
const NAME: &str = "tickets";
const HEAD: &str = "kakei tickets 1";
/// Nothing stands behind it: what lacks it was cut.
const END: &str = "end";
const LONGEST: u64 = 4 << 10;

/// Where the keys are kept.
#[derive(Clone, Debug)]
pub(super) struct Kept {
    path: PathBuf,
}

impl Kept {
    pub(super) fn within(state: &Path) -> Self {
        Kept { path: state.join(NAME) }
    }

    /// The keys that are there, and the second since 1970 that the newest was made in. None: there are none that could
    /// still be of use.
    pub(super) fn read(&self, provider: &CryptoProvider, now: u64) -> Result<Option<(Arc<TicketKeys>, u64)>, String> {
        let told =
            |error: &dyn std::fmt::Display| format!("keys of session tickets in {}: {error}", self.path.display());
        let mut text = String::new();
        match File::open(&self.path).and_then(|file| file.take(LONGEST).read_to_string(&mut text)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(told(&error)),
            Ok(_) => {}
        }
        let (made, parts) = parse(&text).ok_or_else(|| told(&"the file is damaged"))?;
        let keys = TicketKeys::of_parts(provider, &parts).ok_or_else(|| told(&"they are of no use here"))?;
        Ok((now.saturating_sub(made) < u64::from(LIFETIME)).then_some((keys, made)))
    }

    pub(super) fn write(&self, keys: &TicketKeys, made: u64) -> io::Result<()> {
        let mut text = format!("{HEAD}\nmade {made}\n");
        for (name, secret) in keys.to_parts() {
            text.push_str("key ");
            name.iter().chain(&secret).for_each(|byte| text.push_str(&format!("{byte:02x}")));
            text.push('\n');
        }
        text.push_str(&format!("{END}\n"));
        let fresh = self.path.with_extension("new");
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&fresh)?;
        let written = file.write_all(text.as_bytes()).and_then(|()| file.sync_all());
        written.and_then(|()| std::fs::rename(&fresh, &self.path)).inspect_err(|_| drop(std::fs::remove_file(&fresh)))
    }
}

type Parts = Vec<([u8; 16], [u8; 32])>;

fn parse(text: &str) -> Option<(u64, Parts)> {
    let mut lines = text.strip_suffix('\n')?.split('\n');
    (lines.next()? == HEAD).then_some(())?;
    let made = lines.next()?.strip_prefix("made ")?.parse().ok()?;
    let mut parts = Parts::new();
    loop {
        let line = lines.next()?;
        if line == END {
            return lines.next().is_none().then_some((made, parts));
        }
        let key: [u8; 48] = bytes(line.strip_prefix("key ")?)?.try_into().ok()?;
        let (name, secret) = key.split_at(16);
        parts.push((name.try_into().ok()?, secret.try_into().ok()?));
    }
}

fn bytes(digits: &str) -> Option<Vec<u8>> {
    let pairs = digits.as_bytes().chunks(2);
    pairs.map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()).collect()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::certificates::provider;

    #[test]
    fn keys_are_read_back_as_they_were_or_not_at_all() {
        let state = std::env::temp_dir().join(format!("kakei-tickets-{}", std::process::id()));
        std::fs::create_dir_all(&state).unwrap();
        let (kept, provider) = (Kept::within(&state), provider());
        assert!(kept.read(&provider, 1_000).unwrap().is_none());
        let keys = TicketKeys::new(&provider).unwrap().rotated().unwrap();
        kept.write(&keys, 1_000).unwrap();
        assert_eq!(std::fs::metadata(&kept.path).unwrap().permissions().mode() & 0o777, 0o600);
        let (read, made) = kept.read(&provider, 1_000 + u64::from(LIFETIME) - 1).unwrap().unwrap();
        assert_eq!((&*read, made), (&*keys, 1_000));
        assert!(kept.read(&provider, 1_000 + u64::from(LIFETIME)).unwrap().is_none(), "nobody has a ticket of theirs");
        let whole = std::fs::read(&kept.path).unwrap();
        for len in 0..whole.len() {
            std::fs::write(&kept.path, &whole[..len]).unwrap();
            assert!(kept.read(&provider, 1_000).is_err(), "{len} bytes of it");
        }
        std::fs::remove_dir_all(&state).unwrap();
    }
}
