//! One generation as text: a line that says what is known of it, one for each object of its document, or of those of them
//! that differ from the generation before, and a last one that says how many these are. Touches no file.

use kakei_config::{Change, Document, Kind, Name, Node};
use serde::{Deserialize, Serialize};

use crate::history::Entry;

/// The version of the file's schema.
const SCHEMA: u32 = 2;
/// What is made of a file at once, in bytes, and a line more.
const PART: usize = 64 << 10;
/// Digits of a number in a file's name: as many as the longest has, so that names stand in the order of numbers.
const DIGITS: usize = 20;

/// A generation as it is written.
#[derive(Debug)]
pub(super) struct Written<'a> {
    pub(super) entry: Entry,
    /// Whether the objects are all there are; otherwise they stand in the place of those of the generation before that have
    /// the same names.
    pub(super) is_whole: bool,
    /// A line for each.
    objects: &'a str,
}

/// The first line.
#[derive(Serialize, Deserialize)]
struct Head<E> {
    schema: u32,
    whole: bool,
    #[serde(flatten)]
    entry: E,
}

/// An object as it is from now on.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Object<N, V> {
    kind: Kind,
    /// Empty for sections.
    name: N,
    /// None: it is gone.
    value: Option<V>,
}

/// The last line.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Tail {
    objects: usize,
}

#[derive(Deserialize)]
struct Version {
    schema: u32,
}

impl<'a> Written<'a> {
    /// What is written, or what is wrong with it. The objects are looked at when they are asked for.
    pub(super) fn parse(text: &'a str) -> Result<Self, String> {
        let (head, objects) = text.split_once('\n').ok_or("it is damaged, or not the proxy's (it has one line)")?;
        let Version { schema } = serde_json::from_str(head).map_err(damaged)?;
        if schema != SCHEMA {
            return Err(format!("its schema is {schema}, this program knows {SCHEMA}"));
        }
        let Head { whole, entry, .. } = serde_json::from_str(head).map_err(damaged)?;
        Ok(Written { entry, is_whole: whole, objects })
    }

    /// The lines of the objects.
    pub(super) fn objects(&self) -> &'a str {
        self.objects
    }

    /// The document, made of the one before.
    pub(super) fn onto(&self, before: Document) -> Result<Document, String> {
        read(self.objects, if self.is_whole { Document::default() } else { before })
    }

    /// The same with this known of it, in parts.
    pub(super) fn with(&self, entry: &'a Entry) -> impl Iterator<Item = String> + 'a {
        parts([Line::Head(entry, self.is_whole), Line::Written(self.objects)].into_iter())
    }
}

/// A generation that is a whole document, in parts: it may be long, and is never whole in memory.
pub(super) fn whole(entry: &Entry, document: &Document) -> impl Iterator<Item = String> {
    parts(std::iter::once(Line::Head(entry, true)).chain(written(all(document))))
}

/// A generation that differs in these objects from the one before.
pub(super) fn difference(entry: &Entry, changes: &[Change], document: &Document) -> impl Iterator<Item = String> {
    let object = |change: &Change| {
        let (kind, name) = (change.kind(), change.name().clone());
        let value = document.object(kind, &name);
        (kind, name, value)
    };
    parts(std::iter::once(Line::Head(entry, false)).chain(written(changes.iter().map(object))))
}

/// A whole document, a line for each of its objects, in parts.
pub(super) fn lines(document: &Document) -> impl Iterator<Item = String> {
    parts(written(all(document)))
}

/// An object and its name; none: it is gone.
type Named = (Kind, Name, Option<Node>);

fn all(document: &Document) -> impl Iterator<Item = Named> {
    document.objects().map(|(kind, name, value)| (kind, name, Some(value)))
}

/// One line, or some that are written already.
enum Line<'a> {
    Head(&'a Entry, bool),
    Object(Named),
    Tail(usize),
    Written(&'a str),
}

impl Line<'_> {
    fn write(self, out: &mut Vec<u8>) {
        let written = match self {
            Line::Head(entry, whole) => serde_json::to_writer(&mut *out, &Head { schema: SCHEMA, whole, entry }),
            Line::Object((kind, name, value)) => serde_json::to_writer(&mut *out, &Object { kind, name, value }),
            Line::Tail(objects) => serde_json::to_writer(&mut *out, &Tail { objects }),
            Line::Written(lines) => return out.extend_from_slice(lines.as_bytes()),
        };
        written.expect("a vector takes everything, and all keys are strings");
        out.push(b'\n');
    }
}

/// A line for each of these, and a last one that counts them.
fn written<'a>(objects: impl Iterator<Item = Named>) -> impl Iterator<Item = Line<'a>> {
    let (mut objects, mut count) = (objects.fuse(), Some(0));
    std::iter::from_fn(move || match objects.next() {
        Some(object) => {
            count = count.map(|count| count + 1);
            Some(Line::Object(object))
        }
        None => count.take().map(Line::Tail),
    })
}

/// Lines together, as many as are worth a write.
fn parts<'a>(mut lines: impl Iterator<Item = Line<'a>>) -> impl Iterator<Item = String> {
    let mut room = 0;
    std::iter::from_fn(move || {
        let mut part = Vec::with_capacity(room);
        lines.next()?.write(&mut part);
        while part.len() < PART
            && let Some(line) = lines.next()
        {
            line.write(&mut part);
        }
        // The next one needs about as much.
        room = part.capacity();
        Some(String::from_utf8(part).expect("JSON is UTF-8"))
    })
}

/// A document with the objects of these lines in the place of its own; or what is wrong with them.
pub(super) fn read(lines: &str, mut document: Document) -> Result<Document, String> {
    each(lines, |Object { kind, name, value }| {
        kakei_config::put(kind, &name, value.as_ref(), &mut document).map_err(|error| error.to_string())
    })?;
    Ok(document)
}

/// Whether these lines can be read, one after the other; or what is wrong with them.
pub(super) fn check(lines: &str) -> Result<(), String> {
    each(lines, |_| Ok(()))
}

fn each(lines: &str, mut take: impl FnMut(Object<Name, Node>) -> Result<(), String>) -> Result<(), String> {
    let all = lines.strip_suffix('\n').ok_or("it is damaged: its end is missing")?;
    let (objects, tail) = all.rsplit_once('\n').unwrap_or(("", all));
    let Tail { objects: count } = serde_json::from_str(tail).map_err(damaged)?;
    let mut found = 0;
    for line in objects.lines() {
        take(serde_json::from_str(line).map_err(damaged)?)?;
        found += 1;
    }
    if found == count { Ok(()) } else { Err(format!("it is damaged: {found} of {count} objects are there")) }
}

fn damaged(error: serde_json::Error) -> String {
    format!("it is damaged, or not the proxy's ({error})")
}

/// The name of a generation's file.
pub(super) fn name(number: u64) -> String {
    format!("{number:0DIGITS$}.json")
}

/// The generation whose file has this name.
pub(super) fn number(name: &str) -> Option<u64> {
    let digits = name.strip_suffix(".json").filter(|digits| digits.len() == DIGITS)?;
    digits.bytes().all(|digit| digit.is_ascii_digit()).then(|| digits.parse().ok())?
}
