//! What `kakei_wire::http1` makes of a client's bytes, and what hyper's server makes of them: the same, or less by design.
//! The smuggling corpus, pipelines of it, and mutations drawn from fixed seeds.

mod ours;
mod theirs;

use std::collections::BTreeMap;

use fastrand::Rng;
use kakei_sim::smuggling::{Case, Fate, cases};
use kakei_wire::http1::{BodyError, HeadError};

/// A request as one of the two understood it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Message {
    method: String,
    authority: Option<String>,
    target: String,
    is_old: bool,
    /// Names in lower case; the values of each in order.
    fields: BTreeMap<String, Vec<Vec<u8>>>,
    body: Vec<u8>,
}

/// Why something was refused.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Why {
    Head(HeadError),
    Body(BodyError),
    Theirs(String),
}

/// What was made of the bytes of one connection. What is cut off at their end is neither a message nor refused.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Reading {
    messages: Vec<Message>,
    refused: Option<Why>,
    /// The last message said that the connection ends; known of ours only.
    closes: bool,
}

/// What we refuse though hyper reads it. Each is stricter by design: two programs could read it in two ways, or no
/// backend could be told of it.
const STRICTER: &[(Why, &str)] = &[
    (Why::Head(HeadError::BareLineFeed), "LF alone ends no line (RFC 9112 2.2 would let it)"),
    (Why::Head(HeadError::Host), "one Host that is a host (RFC 9112 3.2); hyper leaves that to its users"),
    (Why::Head(HeadError::Target), "no fragment, no user, nothing but ASCII in a target, and CONNECT to host and port"),
    (Why::Head(HeadError::ContentLength), "a repeated length is refused even if it says the same"),
    (Why::Head(HeadError::TwoLengths), "both lengths are refused; hyper goes by the coding (RFC 9112 6.1 lets it)"),
    (Why::Head(HeadError::TransferEncoding), "one field with a coding, and none of HTTP/1.0"),
    (Why::Head(HeadError::UnknownCoding), "a backend would be told of `chunked` only"),
    (Why::Head(HeadError::Expectation), "an expectation that isn't known (RFC 9110 10.1.1)"),
    (Why::Body(BodyError::Size), "no blanks around a chunk's size, and at most 15 digits"),
    (Why::Body(BodyError::Extension), "at most 4 KiB of a body's extensions, and no control characters in them"),
    (Why::Body(BodyError::Trailers), "trailers are fields"),
    (Why::Body(BodyError::TooManyTrailers), "at most 64 trailers"),
];

/// What we don't read because the connection was to end, which hyper overlooks.
const CLOSES: &str = "`close` counts even where an option beside it isn't ASCII";

/// What a request has.
type Sign = fn(&Message) -> bool;

/// What hyper refuses though we read it: what its error says, a sign in the request, and why we let it pass.
const LENIENT: &[(&str, Sign, &str)] =
    &[("Parse(Uri)", has_odd_target, "what browsers leave unescaped in a target goes on as it came")];

/// Characters that no URI has (RFC 3986), but that nothing takes for a blank or a line's end.
fn has_odd_target(message: &Message) -> bool {
    message.target.bytes().any(|byte| b"\"<>\\^`{|}".contains(&byte))
}

/// How the two readings of some bytes stand to each other.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Relation {
    Same,
    BothRefuse,
    Stricter(&'static str),
    Lenient(&'static str),
}

fn compare(bytes: &[u8]) -> Result<Relation, String> {
    let (ours, theirs) = (ours::read(bytes), theirs::read(bytes));
    let complain = |what: &str| {
        let text = format!("{:?}", String::from_utf8_lossy(bytes));
        Err(format!("{what}\n{text:.600}\nours:   {ours:?}\ntheirs: {theirs:?}"))
    };
    let common = ours.messages.iter().zip(&theirs.messages).all(|(ours, theirs)| ours == theirs);
    if !common {
        return complain("they read two different requests");
    }
    if ours.messages.len() == theirs.messages.len() {
        let both = ours.refused.is_some() && theirs.refused.is_some();
        return Ok(if both { Relation::BothRefuse } else { Relation::Same });
    }
    if ours.messages.len() < theirs.messages.len() && ours.closes {
        return Ok(Relation::Stricter(CLOSES));
    }
    if ours.messages.len() < theirs.messages.len() {
        let reason = ours.refused.as_ref().and_then(|why| STRICTER.iter().find(|(listed, _)| listed == why));
        return match reason {
            Some((_, reason)) => Ok(Relation::Stricter(reason)),
            None => complain("only hyper reads it, for no reason that is listed"),
        };
    }
    let why = format!("{:?}", theirs.refused);
    let first = &ours.messages[theirs.messages.len()];
    match LENIENT.iter().find(|(listed, sign, _)| why.contains(listed) && sign(first)) {
        Some((_, _, reason)) => Ok(Relation::Lenient(reason)),
        None => complain("only we read it, for no reason that is listed"),
    }
}

/// Compare all of them; how often which relation was seen.
fn compare_all(all: impl Iterator<Item = Vec<u8>>) -> BTreeMap<Relation, usize> {
    let (mut seen, mut wrong) = (BTreeMap::new(), Vec::new());
    for bytes in all {
        match compare(&bytes) {
            Ok(relation) => *seen.entry(relation).or_default() += 1,
            Err(why) => wrong.push(why),
        }
    }
    let some = wrong.iter().take(10).cloned().collect::<Vec<_>>().join("\n\n");
    assert!(wrong.is_empty(), "{} differences, among them:\n\n{some}", wrong.len());
    seen
}

#[test]
fn the_corpus_is_read_as_hyper_reads_it_or_refused_by_design() {
    let seen = compare_all(cases().into_iter().map(|case| case.bytes));
    assert!(seen[&Relation::Same] >= 20 && seen[&Relation::BothRefuse] >= 100, "{seen:#?}");
}

const MUTATIONS: usize = 200_000;

/// What is put into a request.
const INTERESTING: &[&[u8]] = &[
    b"\r\n",
    b"\n",
    b"\r",
    b" ",
    b"\t",
    b":",
    b",",
    b";",
    b"0",
    b"5",
    b"f",
    b"\0",
    b"\x0b",
    b"\x7f",
    b"\x80",
    b"\xff",
    b"chunked",
    b"Transfer-Encoding: chunked\r\n",
    b"Content-Length: 5\r\n",
    b"Host: b\r\n",
    b"Connection: close\r\n",
    b"Connection: keep-alive\r\n",
    b"Expect: 100-continue\r\n",
    b"HTTP/1.0",
    b"HTTP/1.1",
    b"http://c",
    b"GET ",
    b"HEAD ",
    b"CONNECT ",
    b"OPTIONS * ",
    b"Upgrade: x\r\n",
    b"0\r\n\r\n",
    b"%",
    b"?",
    b"#",
    b"/",
    b"\"",
    b"_",
    b"-",
    b"`",
    b"<",
    b"|",
];

/// One of the corpus (three in four of them well-formed), or two in a row, changed in one to three places.
fn mutated(rng: &mut Rng, (all, readable): (&[Vec<u8>], &[Vec<u8>])) -> Vec<u8> {
    let from = if rng.u8(..4) == 0 { all } else { readable };
    let mut bytes = from[rng.usize(..from.len())].clone();
    if rng.u8(..4) == 0 {
        bytes.extend_from_slice(&all[rng.usize(..all.len())]);
    }
    for _ in 0..rng.usize(1..=3) {
        let at = rng.usize(..=bytes.len());
        let end = (at + rng.usize(..12)).min(bytes.len());
        let new: Vec<u8> = match rng.u8(..6) {
            0 => vec![rng.u8(..)],
            1 => Vec::new(),
            2 => bytes[at..end].repeat(2),
            _ => INTERESTING[rng.usize(..INTERESTING.len())].to_vec(),
        };
        let gone = if rng.bool() { at } else { end };
        bytes.splice(at..gone, new);
    }
    bytes
}

#[test]
fn mutations_are_read_as_hyper_reads_them_or_refused_by_design() {
    let bytes = |cases: Vec<Case>| -> Vec<Vec<u8>> { cases.into_iter().map(|case| case.bytes).collect() };
    let readable = bytes(cases().into_iter().filter(|case| case.fate != Fate::Refused).collect());
    let corpus = bytes(cases());
    let mut rng = Rng::with_seed(4);
    let mutations = (0..MUTATIONS).map(|_| mutated(&mut rng, (&corpus, &readable)));
    let trailers = "A: b\r\n".repeat(70);
    let many =
        format!("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n{trailers}\r\n").into_bytes();
    let seen = compare_all(corpus.iter().cloned().chain([many]).chain(mutations));
    assert!(seen[&Relation::Same] >= MUTATIONS / 10 && seen[&Relation::BothRefuse] >= MUTATIONS / 10, "{seen:#?}");
    for (why, reason) in STRICTER {
        assert!(seen.contains_key(&Relation::Stricter(reason)), "nothing is refused for {why:?} alone: {seen:#?}");
    }
    for (_, _, reason) in LENIENT {
        assert!(seen.contains_key(&Relation::Lenient(reason)), "nothing needs the reason {reason:?}: {seen:#?}");
    }
}
