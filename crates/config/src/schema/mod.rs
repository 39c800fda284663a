//! What the keys mean: every option is one entry in one table, from which reading, writing and the reference derive.
//! What concerns several objects is not checked here.

mod at;
mod reference;

mod shape;
mod values;

mod bytes;
mod maps;
mod network;

mod admin;
mod cluster;
mod health;
mod http;
mod listener;
mod sections;
mod streams;
mod tls;

pub(crate) use at::{At, Step, pointer, subject};
pub(crate) use http::{ACTIONS, patterns_bytes};
pub(crate) use listener::speaks;
pub use reference::reference;
pub use sections::json_schema;
pub(crate) use sections::{Object, document, write_document};
pub(crate) use shape::Shape;
pub(crate) use values::read_duration;

use crate::diagnostics::{Collector, quoted};
use crate::tree::{Entry, Node, Value};

/// How one kind of value is read and written.
pub(crate) trait Codec {
    /// The model's type for it.
    type Of;

    /// What may be written, in a few words.
    fn describe(&self) -> String;

    /// What may be written, as a JSON Schema: a text, unless it is something else.
    fn shape(&self) -> Shape {
        shape::text(&self.describe())
    }

    /// Whether the value is a table that has such a key.
    fn has_key(&self, _: &str) -> bool {
        false
    }

    /// Reports keys in the value that aren't known, also of what is only to be taken out.
    fn keys(&self, _: &At<'_>, _: &mut Collector) {}

    /// Reads a value; when it can't be one, reports why and gives none.
    fn read(&self, at: &At<'_>, problems: &mut Collector) -> Option<Self::Of>;

    /// Writes a value so that it reads back as itself; none: the key is left out.
    fn write(&self, value: &Self::Of) -> Option<Value>;
}

/// One option of a section.
pub(crate) struct Field<T: 'static> {
    pub(crate) key: &'static str,
    /// Whether the section says nothing without it.
    pub(crate) required: bool,
    pub(crate) doc: &'static str,
    pub(crate) describe: fn() -> String,
    pub(crate) shape: fn() -> Shape,
    pub(crate) has_key: fn(&str) -> bool,
    pub(crate) keys: fn(&At<'_>, &mut Collector),
    /// Reads it into the target; false when it couldn't.
    pub(crate) read: fn(&mut T, &At<'_>, &mut Collector) -> bool,
    pub(crate) write: fn(&T) -> Option<Value>,
    /// Whether it is what other options make of it where it is left out, and so stays left out.
    pub(crate) follows: fn(&T) -> bool,
}

/// A table with known keys.
pub(crate) struct Section<T: 'static> {
    /// What stands where a key is left out.
    pub(crate) blank: fn() -> T,
    pub(crate) fields: &'static [Field<T>],
    /// Keys that later versions know, and what they belong to.
    pub(crate) later: &'static [(&'static str, &'static str)],
    /// What concerns several options of one table; called when each could be read.
    pub(crate) finish: fn(&mut T, &At<'_>, &mut Collector),
}

/// One line of a section's table: the key (the model's field of that name), its codec, its meaning; what other options
/// make of it where it is left out.
macro_rules! field {
    ($key:ident: $codec:expr, $doc:literal) => {
        $crate::schema::field!($key: $codec, $doc, required: false, follows: |_| false)
    };
    ($key:ident: $codec:expr, $doc:literal, required) => {
        $crate::schema::field!($key: $codec, $doc, required: true, follows: |_| false)
    };
    ($key:ident: $codec:expr, $doc:literal, else $usual:expr) => {
        $crate::schema::field!($key: $codec, $doc, required: false, follows: |source| source.$key == $usual(source))
    };
    ($key:ident: $codec:expr, $doc:literal, required: $required:literal, follows: $follows:expr) => {
        $crate::schema::Field {
            key: stringify!($key),
            required: $required,
            doc: $doc,
            describe: || $crate::schema::Codec::describe(&$codec),
            shape: || $crate::schema::Codec::shape(&$codec),
            has_key: |key| $crate::schema::Codec::has_key(&$codec, key),
            keys: |at, problems| $crate::schema::Codec::keys(&$codec, at, problems),
            read: |target, at, problems| match $crate::schema::Codec::read(&$codec, at, problems) {
                Some(value) => {
                    target.$key = value;
                    true
                }
                None => false,
            },
            write: |source| $crate::schema::Codec::write(&$codec, &source.$key),
            follows: $follows,
        }
    };
}
use field;

/// For a section whose options don't depend on each other.
pub(crate) fn independent<T>(_: &mut T, _: &At<'_>, _: &mut Collector) {}

impl<T> Section<T> {
    /// Reads the table as far as it can be read, and says whether nothing that is needed is missing.
    pub(crate) fn fill(&self, at: &At<'_>, problems: &mut Collector) -> (T, bool) {
        let mut target = (self.blank)();
        let Value::Table(entries) = &at.node.value else {
            values::mismatch(at, "a table", problems);
            return (target, false);
        };
        let before = problems.mark();
        let mut complete = true;
        let mut misspelt = Vec::new();
        for entry in entries {
            let here = at.entry(entry);
            match self.fields.iter().find(|field| field.key == entry.name()) {
                Some(field) => complete &= (field.read)(&mut target, &here, problems) || !field.required,
                None => misspelt.extend(self.unknown(entry, at, problems)),
            }
        }
        for field in self.fields.iter().filter(|field| field.required && at.node.value.get(field.key).is_none()) {
            complete = false;
            if !misspelt.contains(&field.key) {
                let takes = format!("it takes: {}", (field.describe)());
                at.report_key(format!("{} lacks `{}`", at.subject(), field.key), problems).help(takes);
            }
        }
        if problems.mark() == before {
            (self.finish)(&mut target, at, problems);
        }
        (target, complete)
    }

    /// Reports the keys of a table that aren't known, whatever they are set to.
    pub(crate) fn keys(&self, at: &At<'_>, problems: &mut Collector) {
        let Value::Table(entries) = &at.node.value else { return };
        for entry in entries {
            match self.fields.iter().find(|field| field.key == entry.name()) {
                Some(field) => (field.keys)(&at.entry(entry), problems),
                None => drop(self.unknown(entry, at, problems)),
            }
        }
    }

    /// What may be written, as a JSON Schema.
    pub(crate) fn shape(&self) -> Shape {
        let blank = (self.blank)();
        let options = self.fields.iter().map(|field| {
            let default = (field.write)(&blank).filter(|value| !field.required && shape::is_telling(value));
            let shape = shape::option((field.shape)(), field.doc, default.map(|value| value.to_json()));
            (field.key, field.required, shape)
        });
        shape::table(options)
    }

    /// Writes every option that says something.
    pub(crate) fn entries(&self, source: &T) -> Value {
        let written = |field: &Field<T>| (field.write)(source).map(|value| Entry::new(field.key, value));
        let mut entries = Vec::with_capacity(self.fields.len());
        entries.extend(self.fields.iter().filter(|field| !(field.follows)(source)).filter_map(written));
        Value::Table(entries)
    }

    /// Reports a key that isn't known, and gives the one that was probably meant.
    fn unknown(&self, entry: &Entry, at: &At<'_>, problems: &mut Collector) -> Option<&'static str> {
        let (key, here) = (entry.name(), at.entry(entry));
        let owner = if at.is_root() { String::new() } else { format!("{}: ", at.subject()) };
        if let Some((_, what)) = self.later.iter().find(|(later, _)| *later == key) {
            let message = format!("{owner}`{key}` belongs to {what}, which this version doesn't support yet");
            here.report_key(message, problems);
            return None;
        }
        let meant = problems.suggester.nearest(key, self.fields.iter().map(|field| field.key));
        let inside = self.fields.iter().find(|field| (field.has_key)(key));
        let help = match (meant, inside) {
            (_, Some(field)) => format!("it stands in `{}`", field.key),
            (Some(meant), None) => format!("did you mean `{meant}`?"),
            (None, None) => format!("known keys: {}", listed(self.fields.iter().map(|field| field.key))),
        };
        here.report_key(format!("{owner}unknown key `{}`", quoted(key)), problems).help(help);
        meant
    }
}

/// Words in backticks, with commas between them.
pub(crate) fn listed<'a>(words: impl Iterator<Item = &'a str>) -> String {
    words.map(|word| format!("`{word}`")).collect::<Vec<_>>().join(", ")
}

/// A section as the value of a key.
pub(crate) struct Table<T: 'static>(pub(crate) &'static Section<T>);

impl<T> Codec for Table<T> {
    type Of = T;

    fn describe(&self) -> String {
        "table".into()
    }

    fn shape(&self) -> Shape {
        self.0.shape()
    }

    fn has_key(&self, key: &str) -> bool {
        self.0.fields.iter().any(|field| field.key == key)
    }

    fn keys(&self, at: &At<'_>, problems: &mut Collector) {
        self.0.keys(at, problems);
    }

    fn read(&self, at: &At<'_>, problems: &mut Collector) -> Option<T> {
        let (value, complete) = self.0.fill(at, problems);
        complete.then_some(value)
    }

    fn write(&self, value: &T) -> Option<Value> {
        Some(self.0.entries(value))
    }
}

/// Written as what is inside is.
macro_rules! written_as_inner {
    () => {
        fn describe(&self) -> String {
            self.0.describe()
        }

        fn shape(&self) -> Shape {
            self.0.shape()
        }

        fn has_key(&self, key: &str) -> bool {
            self.0.has_key(key)
        }

        fn keys(&self, at: &At<'_>, problems: &mut Collector) {
            self.0.keys(at, problems);
        }
    };
}

/// A value that is left out when it is written and is what stands where it is left out.
pub(crate) struct Sparse<C>(pub(crate) C);

impl<C: Codec<Of: Default + PartialEq>> Codec for Sparse<C> {
    type Of = C::Of;

    written_as_inner!();

    fn read(&self, at: &At<'_>, problems: &mut Collector) -> Option<C::Of> {
        self.0.read(at, problems)
    }

    fn write(&self, value: &C::Of) -> Option<Value> {
        (*value != C::Of::default()).then(|| self.0.write(value)).flatten()
    }
}

/// A value that may be left out, and then is none.
pub(crate) struct Maybe<C>(pub(crate) C);

impl<C: Codec> Codec for Maybe<C> {
    type Of = Option<C::Of>;

    written_as_inner!();

    fn read(&self, at: &At<'_>, problems: &mut Collector) -> Option<Option<C::Of>> {
        self.0.read(at, problems).map(Some)
    }

    fn write(&self, value: &Option<C::Of>) -> Option<Value> {
        value.as_ref().and_then(|value| self.0.write(value))
    }
}

/// A value that few have, kept beside what everybody has.
pub(crate) struct Boxed<C>(pub(crate) C);

impl<C: Codec> Codec for Boxed<C> {
    type Of = Box<C::Of>;

    written_as_inner!();

    fn read(&self, at: &At<'_>, problems: &mut Collector) -> Option<Box<C::Of>> {
        self.0.read(at, problems).map(Box::new)
    }

    fn write(&self, value: &Box<C::Of>) -> Option<Value> {
        self.0.write(value)
    }
}

/// A list of values of one kind.
pub(crate) struct ListOf<C> {
    pub(crate) of: C,
    /// Whether an empty list says nothing.
    pub(crate) filled: bool,
}

impl<C: Codec> Codec for ListOf<C> {
    type Of = Vec<C::Of>;

    fn describe(&self) -> String {
        let at_least = if self.filled { "list, at least one" } else { "list" };
        format!("{at_least}, of: {}", self.of.describe())
    }

    fn shape(&self) -> Shape {
        shape::list(self.of.shape(), self.filled)
    }

    /// Gives those that could be read, so that what is checked across objects still sees them.
    fn read(&self, at: &At<'_>, problems: &mut Collector) -> Option<Vec<C::Of>> {
        let Value::List(items) = &at.node.value else {
            let diagnostic = values::mismatch(at, "a list", problems);
            if matches!(at.node.value, Value::Text(_) | Value::Table(_)) {
                diagnostic.help("one alone is written in brackets too: `[ … ]`");
            }
            return None;
        };
        if items.is_empty() && self.filled {
            at.report(format!("{} is empty; at least one is needed", at.subject()), problems);
        }
        let mut kept = Vec::with_capacity(items.len());
        let mut read = Vec::with_capacity(items.len());
        for (n, item) in items.iter().enumerate() {
            if let Some(value) = self.of.read(&at.item(n, item), problems) {
                kept.push(n);
                read.push(value);
            }
        }
        if kept.len() < items.len() && problems.has_room() {
            problems.kept.insert(at.pointer(), kept);
        }
        Some(read)
    }

    fn write(&self, value: &Vec<C::Of>) -> Option<Value> {
        Some(Value::List(value.iter().filter_map(|item| self.of.write(item)).map(Node::from).collect()))
    }
}
