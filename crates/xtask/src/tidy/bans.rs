//! Words that must not stand in a crate, and why: the invariants of absence. Comments and strings may say anything.

use super::Complaint;
use super::source::{Source, Use, Word};

/// Where a word is banned.
enum Where {
    Everywhere,
    In(&'static [&'static str]),
    NotIn(&'static [&'static str]),
}

/// What is banned.
enum What {
    /// A path, or the end, beginning or middle of a longer one: `Instant::now`, `std::thread`, `Mutex`.
    Path(&'static str),
    /// Every name that begins like this: `Atomic`.
    Prefix(&'static str),
    /// Every name with this word in it, in snake or camel case: `http` in `http_head` and `HttpHead`.
    Term(&'static str),
    /// A call of this macro.
    Macro(&'static str),
    /// This attribute.
    Attribute(&'static str),
}

struct Ban {
    place: Where,
    what: What,
    /// Whether tests may not use it either.
    in_tests: bool,
    why: &'static str,
}

const CORE: &[&str] = &["wire", "config", "proxy"];
const PURE: &[&str] = &["wire", "config", "proxy", "sim"];

const fn core(what: What, why: &'static str) -> Ban {
    Ban { place: Where::In(CORE), what, in_tests: false, why }
}

const fn pure(what: What, why: &'static str) -> Ban {
    Ban { place: Where::In(PURE), what, in_tests: false, why }
}

const fn everywhere(what: What, why: &'static str) -> Ban {
    Ban { place: Where::Everywhere, what, in_tests: true, why }
}

const BANS: &[Ban] = &[
    pure(What::Path("UdpSocket"), "sockets belong to the machine"),
    pure(What::Path("TcpStream"), "sockets belong to the machine"),
    pure(What::Path("TcpListener"), "sockets belong to the machine"),
    pure(What::Path("UnixStream"), "sockets belong to the machine"),
    pure(What::Path("std::os"), "the operating system belongs to the machine"),
    pure(What::Path("Instant::now"), "time is an argument"),
    pure(What::Path("SystemTime"), "time is an argument"),
    pure(What::Macro("thread_local"), "what lives must be found by `snapshot()`"),
    pure(What::Path("RandomState"), "it can't be seeded, so a run can't be replayed"),
    pure(
        What::Path("std::collections::HashMap"),
        "its hasher can't be seeded: hashbrown with a seeded hasher, or BTreeMap",
    ),
    pure(
        What::Path("std::collections::HashSet"),
        "its hasher can't be seeded: hashbrown with a seeded hasher, or BTreeSet",
    ),
    core(What::Path("std::thread"), "the core has no threads"),
    core(What::Path("Mutex"), "a worker shares nothing"),
    core(What::Path("RwLock"), "a worker shares nothing"),
    core(What::Path("Condvar"), "a worker shares nothing"),
    core(What::Prefix("Atomic"), "a worker shares nothing"),
    core(What::Path("RefCell"), "no shared cells: downward by calls, upward by return values"),
    core(What::Path("Rc"), "no shared cells: downward by calls, upward by return values"),
    core(What::Path("std::fs"), "the core is given text and bytes, never a file"),
    core(What::Path("std::env"), "the core is given its settings"),
    core(What::Path("tracing"), "effects leave by one typed door, never by a log macro"),
    core(What::Path("log"), "effects leave by one typed door, never by a log macro"),
    core(What::Macro("println"), "effects leave by one typed door, never by a stream"),
    core(What::Macro("eprintln"), "effects leave by one typed door, never by a stream"),
    Ban {
        place: Where::In(&["runtime"]),
        what: What::Term("http"),
        in_tests: false,
        why: "the machine knows no protocol",
    },
    Ban {
        place: Where::In(&["runtime"]),
        what: What::Term("tls"),
        in_tests: false,
        why: "the machine knows no protocol",
    },
    Ban {
        place: Where::NotIn(&["runtime"]),
        what: What::Path("unsafe"),
        in_tests: true,
        why: "all the unsafe lives in `runtime`",
    },
    Ban {
        place: Where::NotIn(&["control", "kakei"]),
        what: What::Path("tokio"),
        in_tests: true,
        why: "no async runtime but the control plane's: the data plane owns time and order",
    },
    Ban {
        place: Where::NotIn(&["sim", "kakei", "xtask", ""]),
        // What is of no crate are the fuzz targets.
        what: What::Path("kakei_sim"),
        in_tests: false,
        why: "nothing depends on the simulator but tests, fuzz targets and the `sim` command",
    },
    everywhere(What::Macro("todo"), "nothing is left unfinished"),
    everywhere(What::Macro("unimplemented"), "nothing is left unfinished"),
    everywhere(What::Macro("dbg"), "nothing is left from a search for a bug"),
    everywhere(What::Attribute("ignore"), "a test runs or is deleted"),
    everywhere(What::Attribute("allow"), "`#[expect(…, reason = …)]` says why, and when it is no longer needed"),
];

/// Markers of unfinished work, wherever they stand. Cut in two so that they don't stand here.
const MARKERS: &[&str] = &[concat!("FIX", "ME"), concat!("XX", "X"), concat!("TO", "DO")];

pub(super) fn check(source: &Source, complaints: &mut Vec<Complaint>) {
    let mut complain = |line: usize, what: String| {
        complaints.push(Complaint { path: source.path.clone(), line, rule: "banned", what });
    };
    for ban in BANS.iter().filter(|ban| ban.place.covers(source)) {
        let found = source.words.iter().filter(|word| ban.what.is(word));
        for word in found.filter(|word| ban.in_tests || !source.is_test(word.line)) {
            complain(word.line, format!("`{}`: {}", ban.what.text(), ban.why));
        }
    }
    for (at, line) in source.text.lines().enumerate() {
        let words = line.split(|c: char| !c.is_alphanumeric() && c != '_');
        for marker in words.filter(|word| MARKERS.contains(word)) {
            complain(at + 1, format!("`{marker}`: finish it, or file an issue"));
        }
    }
}

impl Where {
    fn covers(&self, source: &Source) -> bool {
        let member = source.member().unwrap_or_default();
        match self {
            Where::Everywhere => true,
            Where::In(members) => members.contains(&member),
            Where::NotIn(members) => !members.contains(&member),
        }
    }
}

impl What {
    fn text(&self) -> &'static str {
        match self {
            What::Path(text) | What::Prefix(text) | What::Term(text) | What::Macro(text) | What::Attribute(text) => {
                text
            }
        }
    }

    fn is(&self, word: &Word) -> bool {
        let last = word.segments.last().map(String::as_str).unwrap_or_default();
        match self {
            What::Path(path) => {
                let path: Vec<&str> = path.split("::").collect();
                word.used_as != Use::Attribute && word.segments.windows(path.len()).any(|part| part == path)
            }
            What::Prefix(prefix) => word.segments.iter().any(|segment| segment.starts_with(prefix)),
            What::Term(term) => word.segments.iter().any(|segment| terms(segment).iter().any(|t| t == term)),
            What::Macro(name) => word.used_as == Use::Macro && last == *name,
            What::Attribute(name) => word.used_as == Use::Attribute && last == *name,
        }
    }
}

/// The words of a name in snake or camel case, in lower case.
fn terms(name: &str) -> Vec<String> {
    let mut terms = vec![String::new()];
    let mut after_lower = false;
    for c in name.chars() {
        if c == '_' || (c.is_uppercase() && after_lower) {
            terms.push(String::new());
        }
        after_lower = c.is_lowercase() || c.is_ascii_digit();
        if let (true, Some(term)) = (c != '_', terms.last_mut()) {
            term.extend(c.to_lowercase());
        }
    }
    terms
}

#[cfg(test)]
mod tests {
    use super::*;

    fn complaints(path: &str, code: &str) -> usize {
        let mut found = Vec::new();
        check(&Source::parse(path, code).unwrap(), &mut found);
        found.sort();
        found.dedup();
        found.len()
    }

    #[test]
    fn the_core_reaches_no_clock_socket_thread_or_shared_state() {
        for code in [
            "fn f() { let t = Instant::now(); }",
            "fn f() { assert!(std::time::Instant::now() > t); }",
            "use std::time::{Duration, SystemTime};",
            "use std::net::{IpAddr, UdpSocket as Socket};",
            "use std::{fmt, thread};",
            "use std::sync::{Arc, Mutex};",
            "struct S(std::sync::RwLock<u8>);",
            "use std::sync::atomic::AtomicU8;",
            "type T = Rc<u8>;",
            "type T = RefCell<u8>;",
            "use std::collections::{BTreeMap, HashMap};",
            "type T = std::collections::HashSet<u8>;",
            "use std::hash::RandomState;",
            "thread_local!(static X: u8 = 0);",
            "fn f() { tracing::info!(\"a\"); }",
            "fn f() { println!(\"a\"); }",
            "fn f() { std::fs::read(\"a\"); }",
            "fn f() { unsafe { g() } }",
            "use tokio::net;",
            "use kakei_sim::Net;",
        ] {
            for member in CORE {
                assert_eq!(complaints(&format!("crates/{member}/src/a.rs"), code), 1, "{member}: {code}");
            }
        }
    }

    #[test]
    fn comments_strings_and_tests_may_name_what_code_may_not() {
        let code = "/// Never a Mutex, no Instant::now().\nfn f() { g(\"std::thread\"); }\n\
                    #[cfg(test)]\nmod tests { use std::collections::HashMap; }\n";
        assert_eq!(complaints("crates/proxy/src/a.rs", code), 0);
        assert_eq!(complaints("crates/proxy/tests/a.rs", "use std::collections::HashMap;"), 0);
    }

    #[test]
    fn unsafe_is_banned_in_tests_too_and_lives_in_the_runtime_only() {
        let code = "#[cfg(test)]\nmod tests { fn f() { unsafe { g() } } }";
        assert_eq!(complaints("crates/kakei/src/a.rs", code), 1);
        assert_eq!(complaints("fuzz/a.rs", code), 1);
        assert_eq!(complaints("crates/runtime/src/a.rs", code), 0);
    }

    #[test]
    fn the_machine_knows_no_protocol() {
        for code in ["fn http_head() {}", "struct TlsSession;", "fn f() { http::parse(b) }", "enum E { Tls }"] {
            assert_eq!(complaints("crates/runtime/src/a.rs", code), 1, "{code}");
        }
        assert_eq!(complaints("crates/runtime/src/a.rs", "fn f() { settle(battles); }"), 0);
    }

    #[test]
    fn tokio_lives_on_the_control_side() {
        assert_eq!(complaints("crates/runtime/src/a.rs", "use tokio::net;"), 1);
        assert_eq!(complaints("crates/control/src/a.rs", "use tokio::net;"), 0);
    }

    #[test]
    fn unfinished_work_is_found() {
        for (name, call) in [("todo", "!()"), ("unimplemented", "!()"), ("dbg", "!(1)")] {
            assert_eq!(complaints("crates/kakei/src/a.rs", &format!("fn f() {{ {name}{call} }}")), 1, "{name}");
        }
        for name in ["ignore", "allow(dead_code)"] {
            assert_eq!(complaints("crates/kakei/src/a.rs", &format!("#[{name}]\nfn f() {{}}")), 1, "{name}");
        }
        assert_eq!(complaints("crates/kakei/src/a.rs", &format!("#![{}]", "allow(dead_code)")), 1);
        assert_eq!(complaints("crates/kakei/src/a.rs", "#[expect(dead_code, reason = \"r\")]\nfn f() {}"), 0);
        for marker in MARKERS {
            assert_eq!(complaints("crates/kakei/src/a.rs", &format!("// {marker}: later\n")), 1, "{marker}");
        }
    }

    #[test]
    fn an_inequality_is_no_macro() {
        assert_eq!(complaints("crates/wire/src/a.rs", "fn f() -> bool { todo != 1 }"), 0);
    }
}
