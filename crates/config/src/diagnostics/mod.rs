//! What is wrong with a document: each error with its place, other places that matter, and what would be right.
//! It collects and draws; what counts as an error is decided elsewhere.

mod lines;
mod render;
mod suggest;
mod veil;

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use serde::ser::{Serialize, SerializeStruct, Serializer};

pub(crate) use suggest::Suggester;
pub(crate) use veil::{is_secret, is_telling};

use crate::bounds::{MAX_DIAGNOSTICS, MAX_QUOTED};
use crate::model::Name;
use lines::Lines;

/// One error.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    /// Which object is at fault and what is wrong with it, in one sentence.
    pub message: String,
    /// Where it is.
    pub place: Place,
    /// Other places that have to do with it, each with a few words.
    pub related: Vec<Related>,
    /// What would be right.
    pub help: Option<String>,
}

/// A place in a document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// JSON pointer (RFC 6901) to the value; empty for the whole document and for errors of syntax.
    pub pointer: String,
    /// Where in the text; none when the document was not read from text.
    pub position: Option<Position>,
}

/// A place in a text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Position {
    /// The bytes it spans.
    pub span: Range<usize>,
    /// Line, from 1.
    pub line: usize,
    /// Column, from 1, in characters.
    pub column: usize,
}

/// Another place that has to do with an error.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Related {
    /// Where it is.
    pub place: Place,
    /// What is there, in a few words.
    pub label: String,
}

/// All errors of a document, sorted by place; at most [`MAX_DIAGNOSTICS`] of them, the others are counted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Diagnostics {
    list: Vec<Diagnostic>,
    more: usize,
}

impl Diagnostics {
    /// The errors, by place.
    pub fn iter(&self) -> impl Iterator<Item = &Diagnostic> {
        self.list.iter()
    }

    /// How many errors there are, those that weren't kept included.
    pub fn count(&self) -> usize {
        self.list.len() + self.more
    }

    /// The same errors of a document in which what was read stands below these keys.
    pub fn under(mut self, keys: &[&str]) -> Self {
        let above: String = keys.iter().map(|key| format!("/{}", key.replace('~', "~0").replace('/', "~1"))).collect();
        for place in self.list.iter_mut().flat_map(Diagnostic::places) {
            place.pointer.insert_str(0, &above);
        }
        self
    }

    /// The same errors where `find` says that their values are in this text.
    pub(crate) fn at(mut self, text: &str, find: impl Fn(&str) -> Option<Range<usize>>) -> Self {
        let lines = Lines::of(text);
        for place in self.list.iter_mut().flat_map(Diagnostic::places) {
            place.position = find(&place.pointer).map(|span| lines.position(span));
        }
        self
    }

    /// The errors drawn as rustc draws them, with a last line that counts them.
    /// `source` must be the text that was read; with another text, or none, only messages and positions are drawn.
    pub fn render(&self, file_name: &str, source: &str, color: bool) -> String {
        render::all(self, file_name, source, color)
    }

    /// A list of `{pointer, line, column, message, help, related}`, for a problem document (RFC 9457).
    pub fn to_json(&self) -> serde_json::Value {
        serde_json::to_value(&self.list).unwrap_or_default()
    }
}

impl std::fmt::Display for Diagnostics {
    /// One line an error, without the text it is about.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (n, diagnostic) in self.list.iter().enumerate() {
            if n > 0 {
                f.write_str("\n")?;
            }
            write!(f, "{diagnostic}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Diagnostics {}

impl std::fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if let Some(Position { line, column, .. }) = &self.place.position {
            write!(f, "{line}:{column}: ")?;
        }
        f.write_str(&self.message)?;
        match &self.help {
            Some(help) => write!(f, " ({help})"),
            None => Ok(()),
        }
    }
}

impl Diagnostic {
    pub(crate) fn new(message: String, pointer: String, span: Option<Range<usize>>) -> Self {
        Diagnostic { message, place: Place::new(pointer, span), related: Vec::new(), help: None }
    }

    pub(crate) fn and(&mut self, pointer: String, span: Option<Range<usize>>, label: &str) -> &mut Self {
        self.related.push(Related { place: Place::new(pointer, span), label: label.to_owned() });
        self
    }

    pub(crate) fn help(&mut self, help: impl Into<String>) -> &mut Self {
        self.help = Some(help.into());
        self
    }

    fn places(&mut self) -> impl Iterator<Item = &mut Place> {
        std::iter::once(&mut self.place).chain(self.related.iter_mut().map(|related| &mut related.place))
    }
}

impl Place {
    /// Line and column are filled in when the text is known.
    fn new(pointer: String, span: Option<Range<usize>>) -> Self {
        Place { pointer, position: span.map(|span| Position { span, line: 1, column: 1 }) }
    }

    fn start(&self) -> usize {
        self.position.as_ref().map_or(0, |position| position.span.start)
    }
}

impl Serialize for Diagnostics {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.list.serialize(serializer)
    }
}

impl Serialize for Diagnostic {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut fields = serializer.serialize_struct("Diagnostic", 6)?;
        self.place.serialize_into::<S>(&mut fields)?;
        fields.serialize_field("message", &self.message)?;
        fields.serialize_field("help", &self.help)?;
        fields.serialize_field("related", &self.related)?;
        fields.end()
    }
}

impl Serialize for Related {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut fields = serializer.serialize_struct("Related", 4)?;
        self.place.serialize_into::<S>(&mut fields)?;
        fields.serialize_field("label", &self.label)?;
        fields.end()
    }
}

impl Place {
    fn serialize_into<S: Serializer>(&self, fields: &mut S::SerializeStruct) -> Result<(), S::Error> {
        fields.serialize_field("pointer", &self.pointer)?;
        fields.serialize_field("line", &self.position.as_ref().map(|position| position.line))?;
        fields.serialize_field("column", &self.position.as_ref().map(|position| position.column))
    }
}

/// Gathers errors while a document is read: the first [`MAX_DIAGNOSTICS`] whole, the others as a number.
#[derive(Debug, Default)]
pub(crate) struct Collector {
    list: Vec<Diagnostic>,
    more: usize,
    overflow: Option<Diagnostic>,
    /// Of each list that was read in part, by its pointer: which items were read.
    pub(crate) kept: BTreeMap<String, Vec<usize>>,
    /// What was probably meant; its work is bounded for the whole document.
    pub(crate) suggester: Suggester,
    /// What the regular expressions that were compiled so far take, in bytes.
    pub(crate) patterns_bytes: usize,
    names: BTreeSet<Name>,
}

impl Collector {
    /// The name of an object that another one refers to: one text for all that do, since very many may, and each of them
    /// reads it when it is used.
    pub(crate) fn name(&mut self, text: &str) -> Name {
        let name = Name::new(text);
        if let Some(known) = self.names.get(&name) {
            return known.clone();
        }
        self.names.insert(name.clone());
        name
    }

    /// Keeps an error, and lends it for what is to be added.
    pub(crate) fn report(&mut self, diagnostic: Diagnostic) -> &mut Diagnostic {
        if self.list.len() < MAX_DIAGNOSTICS {
            self.list.push(diagnostic);
            let last = self.list.len() - 1;
            return &mut self.list[last];
        }
        self.more += 1;
        self.overflow.insert(diagnostic)
    }

    /// Whether another error would be kept; what only adds words to it can be left out otherwise.
    pub(crate) fn has_room(&self) -> bool {
        self.list.len() < MAX_DIAGNOSTICS
    }

    /// Whether nothing was reported since `mark`, an earlier value of this.
    pub(crate) fn mark(&self) -> usize {
        self.list.len() + self.more
    }

    /// The errors in order, with lines and columns; none when there are none.
    pub(crate) fn finish(mut self, text: Option<&str>) -> Option<Diagnostics> {
        if self.list.is_empty() {
            return None;
        }
        let lines = text.map(Lines::of);
        for place in self.list.iter_mut().flat_map(Diagnostic::places) {
            place.position = match (&lines, place.position.take()) {
                (Some(lines), Some(position)) => Some(lines.position(position.span)),
                _ => None,
            };
        }
        self.list.sort_by(|a, b| (a.place.start(), &a.message).cmp(&(b.place.start(), &b.message)));
        Some(Diagnostics { list: self.list, more: self.more })
    }
}

/// A text from the document, fit for one line of a message.
pub(crate) fn quoted(text: &str) -> String {
    let mut quoted: String = text.chars().take(MAX_QUOTED).flat_map(char::escape_debug).collect();
    if text.chars().nth(MAX_QUOTED).is_some() {
        quoted.push('…');
    }
    // `escape_debug` escapes quotes too, which need none between backticks.
    quoted.replace("\\\"", "\"").replace("\\'", "'")
}
