//! Who may pass a route: users with hashes of their passwords, or a service that is asked. Nothing is verified here.

use std::collections::BTreeMap;
use std::time::Duration;

use super::fields::{FieldName, Role};
use super::text::{TARGET, Text};
use crate::diagnostics::quoted;
use crate::model::{Auth, BasicAuth, ForwardAuth, Name};
use crate::schema::maps::{Keys, MapOf};
use crate::schema::values::{LONGEST, Reference, Time};
use crate::schema::{Boxed, ListOf, Maybe, Section, Table, field, independent};

pub(in crate::schema) const AUTH: Section<Auth> = Section {
    blank: Auth::default,
    fields: &[
        field!(basic: Maybe(Boxed(Table(&BASIC))), "by user name and password (RFC 7617)"),
        field!(forward: Maybe(Boxed(Table(&FORWARD))), "by asking a service; with both, both must let the request pass"),
    ],
    later: &[],
    finish: |auth, at, problems| {
        if auth.basic.is_none() && auth.forward.is_none() {
            let message = format!("{} asks for nothing: it has neither `basic` nor `forward`", at.subject());
            at.report_key(message, problems);
        }
    },
};

pub(in crate::schema) const BASIC: Section<BasicAuth> = Section {
    blank: || BasicAuth { realm: "restricted".into(), users: BTreeMap::new() },
    fields: &[
        field!(realm: REALM, "what the client's program shows"),
        field!(users: MapOf { keys: Users, of: HASH, filled: true }, "users and their passwords' hashes", required),
    ],
    later: &[],
    finish: independent,
};

const REALM: Text = Text {
    what: "text without control characters, `\"` and `\\`",
    wrong: |text| {
        let inside = |c: char| !c.is_control() && !matches!(c, '"' | '\\');
        (!text.chars().all(inside)).then_some("has a control character, a `\"` or a `\\`")
    },
};

struct Users;

impl Keys for Users {
    type Of = String;

    fn describe(&self) -> &'static str {
        "user"
    }

    fn read(&self, text: &str) -> Result<String, String> {
        let inside = |c: char| !c.is_control() && c != ':';
        match !text.is_empty() && text.chars().all(inside) {
            true => Ok(text.to_owned()),
            false => {
                Err(format!("`{}` is no user's name: it is empty, or has a `:` or a control character", quoted(text)))
            }
        }
    }

    fn write(&self, key: &String) -> String {
        key.clone()
    }
}

/// The hash of a password. What is written is never shown.
const HASH: Text = Text {
    what: "hash of a password: bcrypt's `$2b$…` or argon2's `$argon2id$…`",
    wrong: |text| {
        let mut parts = text.split('$');
        let (begin, kind) = (parts.next(), parts.next());
        match (begin, kind) {
            (Some(""), Some("2a" | "2b" | "2y")) => wrong_bcrypt(&parts.collect::<Vec<_>>()),
            (Some(""), Some("argon2i" | "argon2d" | "argon2id")) => wrong_argon2(&parts.collect::<Vec<_>>()),
            _ => Some("isn't a password's hash; bcrypt's begin with `$2b$`, argon2's with `$argon2id$`"),
        }
    },
};

/// `COST$SALT-AND-HASH`. A cost over 16 takes seconds of a processor for each guess that anybody sends.
fn wrong_bcrypt(parts: &[&str]) -> Option<&'static str> {
    let inside = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'/');
    match parts {
        [cost, hash] if cost.len() == 2 && hash.len() == 53 && hash.bytes().all(inside) => {
            let fits = cost.parse().is_ok_and(|cost: u8| (4..=16).contains(&cost));
            (!fits).then_some("has a cost that isn't a number from 04 to 16")
        }
        _ => Some("isn't a whole bcrypt hash: `$2b$`, two digits, `$`, 53 letters"),
    }
}

/// `v=19$m=…,t=…,p=…$SALT$HASH`, the version where there is one.
fn wrong_argon2(parts: &[&str]) -> Option<&'static str> {
    const SHAPE: &str = "isn't a whole argon2 hash: `$argon2id$v=19$m=…,t=…,p=…$SALT$HASH`";
    let parts = match parts {
        ["v=16" | "v=19", rest @ ..] => rest,
        rest => rest,
    };
    let is_base64 = |text: &str| {
        let inside = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/');
        text.len() % 4 != 1 && text.bytes().all(inside)
    };
    let [costs, salt, hash] = parts else { return Some(SHAPE) };
    if salt.len() < 11 || hash.len() < 16 || salt.len() > 86 || hash.len() > 86 || !is_base64(salt) || !is_base64(hash)
    {
        return Some(SHAPE);
    }
    let mut costs = costs.split(',');
    let cost = |text: Option<&str>, key| text?.strip_prefix(key)?.parse::<u32>().ok();
    let (Some(memory), Some(time), Some(lanes)) =
        (cost(costs.next(), "m="), cost(costs.next(), "t="), cost(costs.next(), "p="))
    else {
        return Some(SHAPE);
    };
    if costs.next().is_some() {
        return Some(SHAPE);
    }
    let fits = (8..=1 << 20).contains(&memory) && (1..=100).contains(&time) && (1..=64).contains(&lanes);
    (!fits || memory < 8 * lanes)
        .then_some("costs too much or nothing: m is 8 (for each of p) to 1048576, t is 1 to 100, p is 1 to 64")
}

pub(in crate::schema) const FORWARD: Section<ForwardAuth> = Section {
    blank: || ForwardAuth {
        cluster: Name::default(),
        path: "/".into(),
        headers: Vec::new(),
        copy: Vec::new(),
        user: None,
        timeout: Duration::from_secs(5),
    },
    fields: &[
        field!(cluster: Reference("cluster"), "the service; 2xx lets a request pass, every other answer goes to the client", required),
        field!(path: TARGET, "the path that it is asked at"),
        field!(headers: ListOf { of: FieldName(Role::Told), filled: false },
            "the request's fields that it hears; left out: all that aren't about one connection or a body"),
        field!(copy: ListOf { of: FieldName(Role::Told), filled: false },
            "fields of its answer that go into the request; what a client says by them is dropped"),
        field!(user: Maybe(FieldName(Role::Matched)), "the field of its answer that names the client in the access log"),
        field!(timeout: Time { min: Duration::from_millis(1), max: LONGEST }, "time for its answer; without one the request doesn't pass"),
    ],
    later: &[],
    finish: independent,
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hash_of_a_password_is_whole_and_affordable() {
        let bcrypt = "$2b$12$abcdefghijklmnopqrstuuABCDEFGHIJKLMNOPQRSTUVWXYZ01234";
        let argon2 = "$argon2id$v=19$m=19456,t=2,p=1$c29tZXNhbHRzYWx0$wbbZ2Q5dpbHq3ZsMEmXXAaM4uSUkIk0TcKk3LzS0GtQ";
        let right = |text: &str| (HASH.wrong)(text).is_none();
        assert!(right(bcrypt) && right(&bcrypt.replace("$2b$", "$2y$")) && right(&bcrypt.replace("$12$", "$04$")));
        assert!(right(argon2) && right(&argon2.replace("v=19$", "")) && right(&argon2.replace("2id", "2d")));
        for (from, to) in [("$2b$", "$2x$"), ("$12$", "$31$"), ("$12$", "$5$"), ("01234", "0123"), ("01234", "0123=")] {
            assert!(!right(&bcrypt.replace(from, to)), "{from} {to}");
        }
        let edits =
            [("m=19456", "m=4"), ("m=19456", "m=99999999"), ("t=2", "t=0"), ("p=1$", "p=65$"), ("p=1$", "p=1,x=1$")];
        for (from, to) in edits.into_iter().chain([("v=19", "v=20"), ("argon2id", "argon2"), ("c29t", "c2=t")]) {
            let text = argon2.replace(from, to);
            assert!(!right(&text), "{text}");
        }
        assert!(!right("") && !right("secret") && !right("$argon2id$") && !right("$2b$") && !right("$"));
    }
}
