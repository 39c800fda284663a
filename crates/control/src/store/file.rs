//! One generation as text: a line that says what is known of it, one for each object of its document, or of those of them
//! that differ from the generation before, and a last one that says how many these are. Touches no file.

use kakei_config::{Change, Document, Kind, Name, Node};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::history::Entry;

/// The version of the file's schema.
const SCHEMA: u32 = 2;
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

    /// The document, made of the one before.
    pub(super) fn onto(&self, before: Document) -> Result<Document, String> {
        read(self.objects, if self.is_whole { Document::default() } else { before })
    }

    /// The same with this known of it.
    pub(super) fn with(&self, entry: &Entry) -> impl Iterator<Item = String> + 'a {
        [head(entry, self.is_whole), self.objects.to_owned()].into_iter()
    }
}

/// A generation that is a whole document, in pieces: it may be long, and is never whole in memory.
pub(super) fn whole(entry: &Entry, document: &Document) -> impl Iterator<Item = String> {
    std::iter::once(head(entry, true)).chain(lines(document))
}

/// A generation that differs in these objects from the one before.
pub(super) fn difference(entry: &Entry, changes: &[Change], document: &Document) -> impl Iterator<Item = String> {
    let object = |change: &Change| {
        let (kind, name) = (change.kind(), change.name().clone());
        let value = document.object(kind, &name);
        (kind, name, value)
    };
    std::iter::once(head(entry, false)).chain(write(changes.iter().map(object)))
}

/// A whole document, a line for each of its objects.
pub(super) fn lines(document: &Document) -> impl Iterator<Item = String> {
    write(document.objects().map(|(kind, name, value)| (kind, name, Some(value))))
}

fn head(entry: &Entry, whole: bool) -> String {
    line(&Head { schema: SCHEMA, whole, entry })
}

fn write(objects: impl Iterator<Item = (Kind, Name, Option<Node>)>) -> impl Iterator<Item = String> {
    let (mut objects, mut count) = (objects.fuse(), Some(0));
    std::iter::from_fn(move || match objects.next() {
        Some((kind, name, value)) => {
            count = count.map(|count| count + 1);
            Some(line(&Object { kind, name, value }))
        }
        None => count.take().map(|objects| line(&Tail { objects })),
    })
}

fn line(value: &impl Serialize) -> String {
    serde_json::to_string(value).expect("its keys are strings") + "\n"
}

/// A document with the objects of these lines in the place of its own; or what is wrong with them.
pub(super) fn read(lines: &str, mut document: Document) -> Result<Document, String> {
    let all = lines.strip_suffix('\n').ok_or("it is damaged: its end is missing")?;
    let (objects, tail) = all.rsplit_once('\n').unwrap_or(("", all));
    let Tail { objects: count } = serde_json::from_str(tail).map_err(damaged)?;
    let mut found = 0;
    for line in objects.lines() {
        let Object::<Name, Value> { kind, name, value } = serde_json::from_str(line).map_err(damaged)?;
        let value = value.map(|value| Node::from(kakei_config::Value::from(&value)));
        kakei_config::put(kind, &name, value.as_ref(), &mut document).map_err(|error| error.to_string())?;
        found += 1;
    }
    if found == count { Ok(document) } else { Err(format!("it is damaged: {found} of {count} objects are there")) }
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
