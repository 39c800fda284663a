//! The document as a whole: its plain sections and its objects by name.

use super::admin::ADMIN;
use super::cluster::CLUSTER;
use super::listener::{LISTENER, ROUTE};
use super::tls::CERTIFICATE;
use super::values::{Flag, NAME_SIGNS, Path, Whole, Words, mismatch, wrong_name};
use super::{At, Codec, Maybe, Section, Shape, Table, field, independent, shape, values};
use crate::bounds::MAX_WORKERS;
use crate::diagnostics::Collector;
use crate::model::{AccessLog, Admin, Cluster, Document, Listener, LogFormat, Name, Route, WorkerCount, Workers};
use crate::objects::Objects;
use crate::tree::{Entry, Node, Value};

const FORMAT: Words<LogFormat> = Words {
    of: &[
        ("json", LogFormat::Json),
        ("text", LogFormat::Text),
        ("common", LogFormat::Common),
        ("combined", LogFormat::Combined),
    ],
    later: &[],
};

pub(super) const DOCUMENT: Section<Document> = Section {
    blank: Document::default,
    fields: &[
        field!(admin: Table(&ADMIN), "the operator's side doors"),
        field!(workers: Table(&WORKERS), "the threads of the data plane; changing `count` or `pin` needs a restart"),
        field!(access_log: Table(&ACCESS_LOG), "one record for each flow, connection and request"),
        field!(listeners: ByName(&LISTENER), "what listens, by name"),
        field!(routes: ByName(&ROUTE), "what refines a listener, by name"),
        field!(clusters: ByName(&CLUSTER), "groups of backends, by name"),
        field!(certificates: ByName(&CERTIFICATE), "what listeners prove by who they are, by name"),
    ],
    later: &[],
    finish: independent,
};

const KEPT: Whole<u32> = Whole { min: 0, max: 65_536, zero: Some("nothing") };

pub(super) const WORKERS: Section<Workers> = Section {
    blank: Workers::default,
    fields: &[
        field!(count: Count, "how many; `auto` is one per core"),
        field!(pin: Flag, "whether worker n is pinned to the n-th core this process may use"),
        field!(traffic: Maybe(KEPT),
            "how many requests, connections and flows each keeps of those that it routed last, for `kakei plan --traffic`; left out: 1024"),
    ],
    later: &[],
    finish: independent,
};

pub(super) const ACCESS_LOG: Section<AccessLog> = Section {
    blank: AccessLog::default,
    fields: &[
        field!(to: Maybe(Path { what: "`stdout`, `stderr` or a file's path", longest: 4_096 }),
            "where records go; left out: no access log"),
        field!(format: FORMAT, "one JSON object a line, a line of `key=value` words, or the common or combined log format of web servers"),
    ],
    later: &[],
    finish: independent,
};

/// The document as a JSON Schema (draft 2020-12), made from the options themselves. What concerns several options or
/// objects, and the grammar of texts (durations, sizes, addresses), is checked by reading it only.
pub fn json_schema() -> serde_json::Value {
    let mut shape = DOCUMENT.shape();
    shape["title"] = "A document of Kakei".into();
    shape
}

/// Reads the whole document as far as it can be read.
pub(crate) fn document(at: &At<'_>, problems: &mut Collector) -> Document {
    DOCUMENT.fill(at, problems).0
}

/// Writes the whole document, without the sections that say nothing.
pub(crate) fn write_document(document: &Document) -> Node {
    let Value::Table(mut entries) = DOCUMENT.entries(document) else {
        unreachable!("a section is written as a table");
    };
    entries.retain(|entry| entry.node.value != Value::Table(Vec::new()));
    Value::Table(entries).into()
}

/// What has a name in the document and is read and written alone, for changes of one object.
pub(crate) trait Object: Sized + Clone + PartialEq + 'static {
    fn section() -> &'static Section<Self>;

    fn write(&self) -> Node {
        Self::section().entries(self).into()
    }

    fn read(node: &Node, problems: &mut Collector) -> Option<Self> {
        let (object, complete) = Self::section().fill(&At::root(node), problems);
        complete.then_some(object)
    }
}

macro_rules! objects {
    ($($object:ty = $section:expr),* $(,)?) => {
        $(impl Object for $object {
            fn section() -> &'static Section<Self> {
                &$section
            }
        })*
    };
}
objects!(
    Admin = ADMIN,
    Workers = WORKERS,
    AccessLog = ACCESS_LOG,
    Listener = LISTENER,
    Route = ROUTE,
    Cluster = CLUSTER,
    crate::model::Certificate = CERTIFICATE
);
objects!(crate::model::Backend = super::cluster::BACKEND);

/// Objects of one kind by name.
struct ByName<T: 'static>(&'static Section<T>);

impl<T> Codec for ByName<T> {
    type Of = Objects<T>;

    fn describe(&self) -> String {
        "a table for each name".into()
    }

    fn shape(&self) -> Shape {
        shape::map(self.0.shape(), "name", false)
    }

    /// An object that could be read in part still counts, so that nobody is told its name dangles.
    fn read(&self, at: &At<'_>, problems: &mut Collector) -> Option<Self::Of> {
        let Value::Table(entries) = &at.node.value else {
            mismatch(at, "a table", problems);
            return None;
        };
        let mut objects: Vec<(Name, T)> = Vec::with_capacity(entries.len());
        for entry in entries {
            let here = at.entry(entry);
            let object = self.0.fill(&here, problems).0;
            match wrong_name(entry.name(), NAME_SIGNS) {
                Some(wrong) => drop(here.report_key(format!("{}: {wrong}", here.subject()), problems)),
                None => objects.push((Name::new(entry.name()), object)),
            }
        }
        Some(objects.into_iter().collect())
    }

    fn write(&self, value: &Self::Of) -> Option<Value> {
        let entry = |(name, object): (&Name, &T)| Entry::new(name.as_str().to_owned(), self.0.entries(object));
        Some(Value::Table(value.iter().map(entry).collect()))
    }
}

/// How many workers: `"auto"` or a number.
struct Count;

impl Codec for Count {
    type Of = WorkerCount;

    fn describe(&self) -> String {
        format!("`auto`, or whole number, 1 to {MAX_WORKERS}")
    }

    fn shape(&self) -> Shape {
        shape::either([shape::words(["auto"]), shape::whole(1, MAX_WORKERS.into())])
    }

    fn read(&self, at: &At<'_>, problems: &mut Collector) -> Option<WorkerCount> {
        match &at.node.value {
            Value::Text(word) if word == "auto" => Some(WorkerCount::Auto),
            Value::Integer(_) => {
                Whole { min: 1, max: MAX_WORKERS, zero: None }.read(at, problems).map(WorkerCount::Fixed)
            }
            _ => {
                values::mismatch(at, &format!("`auto` or a whole number from 1 to {MAX_WORKERS}"), problems);
                None
            }
        }
    }

    fn write(&self, value: &WorkerCount) -> Option<Value> {
        Some(match value {
            WorkerCount::Auto => Value::text("auto"),
            WorkerCount::Fixed(count) => Value::Integer((*count).into()),
        })
    }
}
