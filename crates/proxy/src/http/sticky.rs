//! A cookie that leads a client to the backend that it had. What it says is a keyed hash of the backend's name: it tells
//! nothing about the backend, nobody can make one up, and every worker, and every process with the same secret, reads
//! it alike. Knows no request but its cookies.

use std::collections::BTreeMap;
use std::fmt::{self, Write};
use std::time::Duration;

use foldhash::fast::FixedState;
use hashbrown::HashMap;
use kakei_config::{Name, SameSite, Sticky};
use kakei_wire::message::{Fields, Known};

use super::Http;
use super::exchange::{Exchange, ExchangeId};
use crate::cluster::LiveCluster;
use crate::hash::Seal;
use crate::seam::Instant;
use crate::snapshot::Backend;
use crate::world::World;

/// Bytes of a cookie's value, as hexadecimal digits: 128 bits of the hash.
const DIGITS: usize = 32;

/// The cookies of a cluster.
#[derive(Clone, PartialEq, Eq)]
pub struct Seats {
    cookie: String,
    /// Whom a value names. Hashed under a part of the secret: how long a look-up takes tells nothing about the values.
    named: HashMap<[u8; DIGITS], Name, FixedState>,
    /// The field that gives a client the cookie, as a line.
    lines: BTreeMap<Name, Vec<u8>>,
}

impl fmt::Debug for Seats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Seats").field("cookie", &self.cookie).finish_non_exhaustive()
    }
}

/// What a request's cookies say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Said<'a> {
    /// Nothing: none of them is ours.
    Nothing,
    /// One is ours by its name, and names nobody.
    Nobody,
    /// It names this backend.
    Backend(&'a Name),
}

impl Seats {
    /// Those of a cluster with these backends.
    pub(crate) fn compile(cluster: &Name, sticky: &Sticky, backends: &[Backend]) -> Self {
        let seal = Seal::of_secret(sticky.secret.as_bytes());
        let [a, b, c, d, e, f, g, h, ..] = seal.of(&[b"look-ups"]);
        let mut named = HashMap::with_hasher(FixedState::with_seed(u64::from_le_bytes([a, b, c, d, e, f, g, h])));
        let mut lines = BTreeMap::new();
        for Backend { name, .. } in backends {
            let value = digits(&seal.of(&[b"seat", cluster.as_str().as_bytes(), name.as_str().as_bytes()]));
            lines.insert(name.clone(), line(sticky, &value));
            named.insert(value, name.clone());
        }
        Seats { cookie: sticky.cookie.clone(), named, lines }
    }

    /// Whom a request's cookies name. Where several are ours, one that holds.
    pub(super) fn read(&self, fields: &Fields<'_>) -> Said<'_> {
        let mut said = Said::Nothing;
        for pair in fields.known(Known::Cookie).flat_map(|value| value.split(|byte| *byte == b';')) {
            let Some(value) = value_of(pair, self.cookie.as_bytes()) else { continue };
            let digits: Result<&[u8; DIGITS], _> = value.try_into();
            match digits.ok().and_then(|digits| self.named.get(digits)) {
                Some(name) => return Said::Backend(name),
                None => said = Said::Nobody,
            }
        }
        said
    }

    /// Take our cookie out of a head; all others stay, byte for byte.
    pub(super) fn strip(&self, head: &mut Vec<u8>) {
        let mut kept = Vec::with_capacity(head.len());
        for line in head.split_inclusive(|byte| *byte == b'\n') {
            match cookies_of(line) {
                Some(at) => self.copy_others(line, at, &mut kept),
                None => kept.extend_from_slice(line),
            }
        }
        *head = kept;
    }

    /// Copy a `Cookie` line, whose value begins at `at`, without our cookie; nothing where there is no other.
    fn copy_others(&self, line: &[u8], at: usize, out: &mut Vec<u8>) {
        let value = line[at..].trim_ascii_end();
        let begin = out.len();
        let mut others = value.split(|byte| *byte == b';');
        if !others.clone().any(|pair| value_of(pair, self.cookie.as_bytes()).is_some()) {
            return out.extend_from_slice(line);
        }
        out.extend_from_slice(&line[..at]);
        let head = out.len();
        for pair in others.by_ref().filter(|pair| value_of(pair, self.cookie.as_bytes()).is_none()) {
            match out.len() == head {
                true => out.extend_from_slice(pair.trim_ascii_start()),
                false => {
                    out.push(b';');
                    out.extend_from_slice(pair);
                }
            }
        }
        match out.len() == head {
            true => out.truncate(begin),
            false => out.extend_from_slice(b"\r\n"),
        }
    }
}

/// Where a line's value begins, if it is a `Cookie` field.
fn cookies_of(line: &[u8]) -> Option<usize> {
    let name = Known::Cookie.name().as_bytes();
    let is_it = line.len() > name.len() && line[..name.len()].eq_ignore_ascii_case(name) && line[name.len()] == b':';
    let blanks = |at: usize| line[at..].iter().take_while(|byte| matches!(byte, b' ' | b'\t')).count();
    is_it.then(|| name.len() + 1 + blanks(name.len() + 1))
}

/// The value of a pair (RFC 6265 4.2.1), if that is its name.
fn value_of<'a>(pair: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    pair.trim_ascii().strip_prefix(name)?.strip_prefix(b"=")
}

fn digits(hash: &[u8; 32]) -> [u8; DIGITS] {
    let digit = |number: usize| {
        let half = hash[number / 2] >> (4 * (1 - number % 2)) & 0xf;
        b"0123456789abcdef"[usize::from(half)]
    };
    std::array::from_fn(digit)
}

/// The field that gives a client the cookie (RFC 6265 4.1).
fn line(sticky: &Sticky, value: &[u8; DIGITS]) -> Vec<u8> {
    let mut line = format!("Set-Cookie: {}={}; Path=/", sticky.cookie, String::from_utf8_lossy(value));
    if let Some(age) = sticky.max_age {
        let _ = write!(line, "; Max-Age={}", age.max(Duration::from_secs(1)).as_secs());
    }
    line.push_str("; HttpOnly");
    if sticky.secure {
        line.push_str("; Secure");
    }
    line.push_str(match sticky.same_site {
        SameSite::Lax => "; SameSite=Lax",
        SameSite::Strict => "; SameSite=Strict",
        SameSite::None => "; SameSite=None",
    });
    line.push_str("\r\n");
    line.into_bytes()
}

impl Exchange {
    /// Take note of whom the client's cookie names, and take it out of what goes to the backend.
    pub(super) fn sit(&mut self, cluster: &LiveCluster, fields: &Fields<'_>, head: &mut Vec<u8>) {
        let Some(seats) = &cluster.spec.seats else { return };
        match seats.read(fields) {
            Said::Nothing => return,
            Said::Nobody => {}
            Said::Backend(name) => self.sticky = cluster.find(name),
        }
        seats.strip(head);
    }
}

impl Http {
    /// The field that tells a client of its backend, where that is another one than its cookie names.
    pub(super) fn seat_line(&self, world: &World, now: Instant, id: ExchangeId) -> Vec<u8> {
        let exchange = &self.exchanges[id];
        let Some((cluster, backend)) = exchange.place().filter(|_| !exchange.is_held()) else { return Vec::new() };
        let cluster = &world.clusters[cluster];
        let Some(seats) = &cluster.spec.seats else { return Vec::new() };
        // Its own had no room for it this once: it goes there again with its next request.
        let was_full = exchange.sticky.is_some_and(|own| cluster.honours(now, own) && !exchange.tried.contains(&own));
        let live = &cluster.backends[backend];
        match exchange.sticky == Some(backend) || was_full || live.removed {
            true => Vec::new(),
            false => seats.lines.get(&live.spec.name).cloned().unwrap_or_default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::seam::Endpoint;

    fn seats(secret: &str, cluster: &str) -> Seats {
        let sticky = Sticky { secret: secret.into(), ..Sticky::default() };
        let backend = |name: &str| Backend {
            name: name.into(),
            address: "10.0.0.1:80".parse::<Endpoint>().unwrap(),
            weight: 1,
            backup: false,
        };
        Seats::compile(&cluster.into(), &sticky, &["a", "b"].map(backend))
    }

    fn cookie(seats: &Seats, backend: &str) -> String {
        let line = String::from_utf8(seats.lines[&Name::new(backend)].clone()).unwrap();
        line["Set-Cookie: ".len()..line.find(';').unwrap()].to_owned()
    }

    fn said<'a>(seats: &'a Seats, cookies: &str) -> Said<'a> {
        let bytes = format!("GET / HTTP/1.1\r\nHost: a\r\nCookie: {cookies}\r\n\r\n");
        let mut heads = kakei_wire::http1::Heads::default();
        let limits = kakei_wire::http1::Limits { line: 1_000, head: 8_000, fields: 20 };
        let head = heads.request(bytes.as_bytes(), &limits).unwrap();
        seats.read(&head.request.fields)
    }

    #[test]
    fn a_cookie_names_its_backend_to_whoever_has_the_secret() {
        let (once, again) = (seats("sixteen bytes ok", "c"), seats("sixteen bytes ok", "c"));
        let name = Name::new("b");
        assert_eq!(said(&again, &format!("x=1; {}; y=2", cookie(&once, "b"))), Said::Backend(&name));
        assert_eq!(said(&seats("another secret..", "c"), &cookie(&once, "b")), Said::Nobody);
        assert_eq!(said(&seats("sixteen bytes ok", "d"), &cookie(&once, "b")), Said::Nobody);
        assert_eq!(said(&once, "kakei=b"), Said::Nobody);
        assert_eq!(said(&once, "kakei=00; kakei2=1"), Said::Nobody);
        assert_eq!(said(&once, "xkakei=1; Kakei=2; kakei"), Said::Nothing);
        assert_eq!(said(&once, &format!("kakei=old; {}", cookie(&once, "b"))), Said::Backend(&name));
        let forged = cookie(&once, "b").replace(|c: char| c.is_ascii_digit(), "0");
        assert_eq!(said(&once, &forged), Said::Nobody);
        assert!(!cookie(&once, "b").contains("10.0.0"));
    }

    #[test]
    fn our_cookie_is_taken_out_and_all_others_stay() {
        let seats = seats("sixteen bytes ok", "c");
        let strip = |head: &str| {
            let mut bytes = head.as_bytes().to_vec();
            seats.strip(&mut bytes);
            String::from_utf8(bytes).unwrap()
        };
        let same = "GET /?kakei=1 HTTP/1.1\r\nX: kakei=1\r\ncookie:a=b;c=\"d\" ;e\r\nCookies: kakei=1\r\n\r\n";
        assert_eq!(strip(same), same);
        for (from, to) in [
            ("Cookie: kakei=1; a=b;  c=d", "Cookie: a=b;  c=d\r\n"),
            ("cOOkie:a=b;  kakei=1;c=d", "cOOkie:a=b;c=d\r\n"),
            ("Cookie: a=b; kakei=", "Cookie: a=b\r\n"),
            ("Cookie: kakei=1; a=b; kakei=2", "Cookie: a=b\r\n"),
            ("Cookie: kakei=1", ""),
        ] {
            let head = |line: &str| format!("GET / HTTP/1.1\r\nA: b\r\n{line}B: c\r\n\r\n");
            assert_eq!(strip(&head(&format!("{from}\r\n"))), head(to), "{from}");
        }
    }

    #[test]
    fn a_cookie_has_the_attributes_that_it_was_given() {
        let sticky = Sticky {
            cookie: "seat".into(),
            max_age: Some(Duration::from_secs(90)),
            secure: true,
            same_site: SameSite::Strict,
            ..Sticky::default()
        };
        let text = String::from_utf8(line(&sticky, &[b'0'; DIGITS])).unwrap();
        let value = "0".repeat(DIGITS);
        let expected = format!("Set-Cookie: seat={value}; Path=/; Max-Age=90; HttpOnly; Secure; SameSite=Strict\r\n");
        assert_eq!(text, expected);
    }
}
