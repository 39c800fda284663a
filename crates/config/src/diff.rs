//! What differs between two documents, object by object and option by option, and how to make one from the other:
//! `apply(&diff(a, b), a) == b` for all valid documents. What a change does to live traffic is not known here.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::diagnostics::{Collector, Diagnostics};
use crate::model::{Backend, Cluster, Document, Name};
use crate::objects::Objects;
use crate::schema::{At, Object};
use crate::tree::{Entry, Node, Value};

/// The kind of an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// The `[admin]` section, which has no name.
    Admin,
    /// The `[workers]` section, which has no name.
    Workers,
    /// The `[access_log]` section, which has no name.
    AccessLog,
    /// A listener.
    Listener,
    /// A route.
    Route,
    /// A cluster.
    Cluster,
    /// A certificate.
    Certificate,
}

/// What happens to one object. Values are in the document's own syntax (`"30s"`, `5000`).
#[derive(Clone, Debug, PartialEq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema), schemars(rename = "Difference"))]
#[serde(rename_all = "snake_case", tag = "change")]
pub enum Change {
    /// It is new.
    Added {
        /// What it is.
        kind: Kind,
        /// Its name; empty for sections.
        name: Name,
        /// All of its options.
        value: Node,
    },
    /// It is gone.
    Removed {
        /// What it was.
        kind: Kind,
        /// Its name.
        name: Name,
    },
    /// It stays, with other options.
    Changed {
        /// What it is.
        kind: Kind,
        /// Its name; empty for sections.
        name: Name,
        /// What is different; at least one.
        edits: Vec<Edit>,
    },
}

/// One difference inside an object.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema), schemars(rename = "DifferenceInside"))]
#[serde(rename_all = "snake_case", tag = "edit")]
pub enum Edit {
    /// An option has another value.
    Field(FieldChange),
    /// A backend is new.
    BackendAdded {
        /// Its place among the cluster's backends.
        position: usize,
        /// The backend.
        backend: Backend,
    },
    /// A backend is gone.
    BackendRemoved {
        /// The backend.
        backend: Backend,
    },
    /// A backend has other options.
    BackendChanged(BackendChange),
    /// The same backends stand in another order.
    BackendsReordered {
        /// All of them, in the new order.
        order: Vec<Name>,
    },
}

/// An option with another value.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct FieldChange {
    /// The option, with dots: `limits.flows`. A key with a dot or a quote in it stands in quotes, as in TOML.
    pub field: String,
    /// What it was; none: it was left out.
    pub before: Option<Node>,
    /// What it is; none: it is left out.
    pub after: Option<Node>,
}

/// A backend with other options.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct BackendChange {
    /// The backend's name.
    pub backend: Name,
    /// What is different.
    pub fields: Vec<FieldChange>,
}

/// Why changes don't fit a document.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// What should be added is there already.
    #[error("{kind} {name} exists already")]
    Exists {
        /// What it is.
        kind: Kind,
        /// Its name.
        name: Name,
    },
    /// What should be changed or removed isn't there.
    #[error("there is no {kind} {name}")]
    Missing {
        /// What it is.
        kind: Kind,
        /// Its name.
        name: Name,
    },
    /// A backend that should be changed, removed or put in order isn't there, or one that should be added is.
    #[error("cluster {cluster}: backend {backend} isn't as the change expects")]
    Backend {
        /// The cluster.
        cluster: Name,
        /// The backend.
        backend: Name,
    },
    /// The changed object can't be read.
    #[error("{kind} {name}: {diagnostics}")]
    Invalid {
        /// What it is.
        kind: Kind,
        /// Its name; empty for sections.
        name: Name,
        /// What is wrong with it; the pointers begin at the object.
        diagnostics: Diagnostics,
    },
}

/// What makes `b` of `a`: sections first, then listeners, routes, clusters and certificates, each kind by name. Empty when they are equal.
pub fn diff(a: &Document, b: &Document) -> Vec<Change> {
    let mut changes = Vec::new();
    changes.extend(changed(Kind::Admin, &Name::new(""), &a.admin, &b.admin));
    changes.extend(changed(Kind::Workers, &Name::new(""), &a.workers, &b.workers));
    changes.extend(changed(Kind::AccessLog, &Name::new(""), &a.access_log, &b.access_log));
    objects(Kind::Listener, &a.listeners, &b.listeners, &mut changes);
    objects(Kind::Route, &a.routes, &b.routes, &mut changes);
    objects(Kind::Cluster, &a.clusters, &b.clusters, &mut changes);
    objects(Kind::Certificate, &a.certificates, &b.certificates, &mut changes);
    changes
}

/// The document with the changes made. Only single values are checked; [`crate::check`] checks the result as a whole.
///
/// # Errors
/// When a change is about an object that isn't as it expects; then nothing can be said of the result.
pub fn apply(changes: &[Change], document: &Document) -> Result<Document, ApplyError> {
    let mut result = document.clone();
    changes.iter().try_for_each(|change| amend(change, &mut result))?;
    Ok(result)
}

/// Makes one change in the document itself.
///
/// # Errors
/// As [`apply`]; the document may then be changed in part.
pub fn amend(change: &Change, document: &mut Document) -> Result<(), ApplyError> {
    match change.kind() {
        Kind::Admin => edit(change, &mut document.admin),
        Kind::Workers => edit(change, &mut document.workers),
        Kind::AccessLog => edit(change, &mut document.access_log),
        Kind::Listener => change_in(change, &mut document.listeners),
        Kind::Route => change_in(change, &mut document.routes),
        Kind::Cluster => change_in(change, &mut document.clusters),
        Kind::Certificate => change_in(change, &mut document.certificates),
    }
}

/// Gives a name an object, whatever had it before; none: it is to have none. A section is never without one.
///
/// # Errors
/// When the object can't be read, or when there is none to take out.
pub fn put(kind: Kind, name: &Name, value: Option<&Node>, document: &mut Document) -> Result<(), ApplyError> {
    let Some(value) = value else {
        return amend(&Change::Removed { kind, name: name.clone() }, document);
    };
    fn put_in<T: Object>(
        objects: &mut Objects<T>,
        (kind, name): (Kind, &Name),
        value: &Node,
    ) -> Result<(), ApplyError> {
        objects.insert_shared(name.clone(), std::sync::Arc::new(read(value, kind, name)?));
        Ok(())
    }
    match kind {
        Kind::Admin => document.admin = read(value, kind, name)?,
        Kind::Workers => document.workers = read(value, kind, name)?,
        Kind::AccessLog => document.access_log = read(value, kind, name)?,
        Kind::Listener => put_in(&mut document.listeners, (kind, name), value)?,
        Kind::Route => put_in(&mut document.routes, (kind, name), value)?,
        Kind::Cluster => put_in(&mut document.clusters, (kind, name), value)?,
        Kind::Certificate => put_in(&mut document.certificates, (kind, name), value)?,
    }
    Ok(())
}

/// Whether every option that a part of an object names is one, be it to set it or to take it out.
///
/// # Errors
/// Where one isn't; the pointers begin at the object.
pub fn check_keys(kind: Kind, part: &Node) -> Result<(), Diagnostics> {
    fn keys<T: Object>(part: &Node, problems: &mut Collector) {
        T::section().keys(&At::root(part), problems);
    }
    let mut problems = Collector::default();
    match kind {
        Kind::Admin => keys::<crate::model::Admin>(part, &mut problems),
        Kind::Workers => keys::<crate::model::Workers>(part, &mut problems),
        Kind::AccessLog => keys::<crate::model::AccessLog>(part, &mut problems),
        Kind::Listener => keys::<crate::model::Listener>(part, &mut problems),
        Kind::Route => keys::<crate::model::Route>(part, &mut problems),
        Kind::Cluster => keys::<Cluster>(part, &mut problems),
        Kind::Certificate => keys::<crate::model::Certificate>(part, &mut problems),
    }
    problems.finish(None).map_or(Ok(()), Err)
}

fn objects<T: Diffed>(kind: Kind, a: &Objects<T>, b: &Objects<T>, changes: &mut Vec<Change>) {
    let mut others = Vec::new();
    for (name, before, after) in a.differences(b) {
        match (before, after) {
            (Some(before), Some(after)) => others.extend(changed(kind, name, &**before, &**after)),
            (None, Some(after)) => others.push(Change::Added { kind, name: name.clone(), value: after.write() }),
            (_, None) => changes.push(Change::Removed { kind, name: name.clone() }),
        }
    }
    changes.append(&mut others);
}

fn changed<T: Diffed>(kind: Kind, name: &Name, a: &T, b: &T) -> Option<Change> {
    if a == b {
        return None;
    }
    let mut edits: Vec<Edit> = fields(a, b).into_iter().map(Edit::Field).collect();
    edits.extend(T::list_edits(a, b));
    Some(Change::Changed { kind, name: name.clone(), edits })
}

/// An object whose options are compared one by one. What is a list of named things in it is compared by name instead.
trait Diffed: Object {
    /// The options that are compared by name.
    const LIST: Option<&'static str> = None;

    fn list_edits(_: &Self, _: &Self) -> Vec<Edit> {
        Vec::new()
    }

    fn edit_list(&mut self, _: &Name, _: &Edit) -> Result<(), ApplyError> {
        Ok(())
    }
}

impl Diffed for crate::model::Admin {}
impl Diffed for crate::model::Workers {}
impl Diffed for crate::model::AccessLog {}
impl Diffed for crate::model::Listener {}
impl Diffed for crate::model::Route {}
impl Diffed for crate::model::Certificate {}
impl Diffed for Backend {}

impl Diffed for Cluster {
    const LIST: Option<&'static str> = Some("backends");

    fn list_edits(a: &Self, b: &Self) -> Vec<Edit> {
        let old: BTreeMap<&Name, &Backend> = a.backends.iter().map(|backend| (&backend.name, backend)).collect();
        let new: BTreeMap<&Name, &Backend> = b.backends.iter().map(|backend| (&backend.name, backend)).collect();
        let mut edits = Vec::new();
        let gone = a.backends.iter().filter(|backend| !new.contains_key(&backend.name));
        edits.extend(gone.cloned().map(|backend| Edit::BackendRemoved { backend }));
        let mut order: Vec<&Name> = a.backends.iter().map(|backend| &backend.name).collect();
        order.retain(|name| new.contains_key(name));
        for (position, backend) in b.backends.iter().enumerate() {
            match old.get(&backend.name) {
                Some(before) if *before != backend => {
                    let fields = fields(*before, backend);
                    edits.push(Edit::BackendChanged(BackendChange { backend: backend.name.clone(), fields }));
                }
                Some(_) => {}
                None => {
                    order.insert(position.min(order.len()), &backend.name);
                    edits.push(Edit::BackendAdded { position, backend: backend.clone() });
                }
            }
        }
        if !order.into_iter().eq(b.backends.iter().map(|backend| &backend.name)) {
            let order = b.backends.iter().map(|backend| backend.name.clone()).collect();
            edits.push(Edit::BackendsReordered { order });
        }
        edits
    }

    fn edit_list(&mut self, cluster: &Name, edit: &Edit) -> Result<(), ApplyError> {
        let unexpected = |backend: &Name| ApplyError::Backend { cluster: cluster.clone(), backend: backend.clone() };
        let position = |name: &Name| self.backends.iter().position(|backend| backend.name == *name);
        match edit {
            Edit::Field(_) => {}
            Edit::BackendAdded { position: at, backend } => {
                if position(&backend.name).is_some() {
                    return Err(unexpected(&backend.name));
                }
                self.backends.insert((*at).min(self.backends.len()), backend.clone());
            }
            Edit::BackendRemoved { backend } => {
                let at = position(&backend.name).ok_or_else(|| unexpected(&backend.name))?;
                self.backends.remove(at);
            }
            Edit::BackendChanged(change) => {
                let at = position(&change.backend).ok_or_else(|| unexpected(&change.backend))?;
                self.backends[at] = with_fields(&self.backends[at], change.fields.iter(), Kind::Cluster, cluster)?;
            }
            Edit::BackendsReordered { order } => {
                let places: BTreeMap<&Name, usize> = order.iter().enumerate().map(|(n, name)| (name, n)).collect();
                if let Some(unknown) = self.backends.iter().find(|backend| !places.contains_key(&backend.name)) {
                    return Err(unexpected(&unknown.name));
                }
                self.backends.sort_by_key(|backend| places.get(&backend.name).copied());
            }
        }
        Ok(())
    }
}

/// The options that differ, sections inside compared option by option.
fn fields<T: Diffed>(a: &T, b: &T) -> Vec<FieldChange> {
    let mut changes = Vec::new();
    compare("", &a.write(), &b.write(), &mut changes);
    changes.retain(|change| T::LIST != Some(change.field.as_str()));
    changes
}

fn compare(prefix: &str, a: &Node, b: &Node, changes: &mut Vec<FieldChange>) {
    let (Value::Table(old), Value::Table(new)) = (&a.value, &b.value) else {
        return;
    };
    let path = |key: &str| {
        let dot = if prefix.is_empty() { "" } else { "." };
        format!("{prefix}{dot}{}", step(key))
    };
    for entry in old {
        let (before, after) = (&entry.node, b.value.get(entry.name()));
        match after {
            Some(after) if after == before => {}
            Some(after) if is_table(before) && is_table(after) => compare(&path(entry.name()), before, after, changes),
            after => {
                let (before, after) = (Some(before.clone()), after.cloned());
                changes.push(FieldChange { field: path(entry.name()), before, after });
            }
        }
    }
    for entry in new.iter().filter(|entry| a.value.get(entry.name()).is_none()) {
        let after = Some(entry.node.clone());
        changes.push(FieldChange { field: path(entry.name()), before: None, after });
    }
}

/// A key as a step of a path: alone, or in quotes where it would be taken for something else.
fn step(key: &str) -> String {
    let is_bare = !key.is_empty() && !key.contains(['.', '"', '\\']) && !key.chars().any(char::is_control);
    if is_bare { key.to_owned() } else { serde_json::Value::from(key).to_string() }
}

/// The first key of a path and what follows it.
fn first_step(path: &str) -> (String, Option<&str>) {
    if path.starts_with('"') {
        let mut quoted = serde_json::Deserializer::from_str(path).into_iter::<String>();
        if let Some(Ok(key)) = quoted.next() {
            let rest = path.get(quoted.byte_offset()..).and_then(|rest| rest.strip_prefix('.'));
            return (key, rest);
        }
    }
    path.split_once('.').map_or((path.to_owned(), None), |(key, rest)| (key.to_owned(), Some(rest)))
}

fn is_table(node: &Node) -> bool {
    matches!(node.value, Value::Table(_))
}

fn change_in<T: Diffed>(change: &Change, objects: &mut Objects<T>) -> Result<(), ApplyError> {
    let (kind, name) = (change.kind(), change.name().clone());
    match change {
        Change::Added { value, .. } => match objects.contains_key(&name) {
            true => return Err(ApplyError::Exists { kind, name }),
            false => drop(objects.insert(name.clone(), read(value, kind, &name)?)),
        },
        Change::Removed { .. } => {
            objects.remove(&name).ok_or(ApplyError::Missing { kind, name })?;
        }
        Change::Changed { .. } => {
            let object = objects.get_mut(&name).ok_or(ApplyError::Missing { kind, name })?;
            edit(change, object)?;
        }
    }
    Ok(())
}

/// Makes the edits of a change; a section, which always exists, takes its other forms too.
fn edit<T: Diffed>(change: &Change, object: &mut T) -> Result<(), ApplyError> {
    match change {
        Change::Added { value, .. } => *object = read(value, change.kind(), change.name())?,
        Change::Removed { .. } => *object = (T::section().blank)(),
        Change::Changed { kind, name, edits } => {
            let fields = edits.iter().filter_map(|edit| match edit {
                Edit::Field(field) => Some(field),
                _ => None,
            });
            *object = with_fields(object, fields, *kind, name)?;
            edits.iter().try_for_each(|edit| object.edit_list(name, edit))?;
        }
    }
    Ok(())
}

fn with_fields<'a, T: Diffed>(
    object: &T,
    changes: impl Iterator<Item = &'a FieldChange>,
    kind: Kind,
    name: &Name,
) -> Result<T, ApplyError> {
    let mut node = object.write();
    for change in changes {
        set(&mut node, &change.field, change.after.as_ref());
    }
    read(&node, kind, name)
}

/// Sets an option, or takes it out. Tables on the way are made where they are missing.
fn set(node: &mut Node, field: &str, after: Option<&Node>) {
    if !is_table(node) {
        node.value = Value::Table(Vec::new());
    }
    let Value::Table(entries) = &mut node.value else {
        return;
    };
    let (key, rest) = first_step(field);
    match (entries.iter().position(|entry| entry.name() == key), rest, after) {
        (Some(at), Some(rest), after) => set(&mut entries[at].node, rest, after),
        (Some(at), None, Some(after)) => entries[at].node = after.clone(),
        (Some(at), None, None) => drop(entries.remove(at)),
        (None, None, Some(after)) => entries.push(Entry::new(key, after.value.clone())),
        (None, Some(rest), Some(after)) => {
            let mut entry = Entry::new(key, Value::Table(Vec::new()));
            set(&mut entry.node, rest, Some(after));
            entries.push(entry);
        }
        (None, _, None) => {}
    }
}

fn read<T: Object>(node: &Node, kind: Kind, name: &Name) -> Result<T, ApplyError> {
    let mut problems = Collector::default();
    let object = T::read(node, &mut problems);
    match (problems.finish(None), object) {
        (None, Some(object)) => Ok(object),
        (found, _) => Err(ApplyError::Invalid { kind, name: name.clone(), diagnostics: found.unwrap_or_default() }),
    }
}

impl Change {
    /// What it is about.
    pub fn kind(&self) -> Kind {
        match self {
            Change::Added { kind, .. } | Change::Removed { kind, .. } | Change::Changed { kind, .. } => *kind,
        }
    }

    /// The name of what it is about; empty for sections.
    pub fn name(&self) -> &Name {
        match self {
            Change::Added { name, .. } | Change::Removed { name, .. } | Change::Changed { name, .. } => name,
        }
    }

    /// What is different, in plain words, one line for each edit, whatever stands in the values.
    pub fn lines(&self) -> Vec<String> {
        let subject = self.subject();
        let lines: Vec<String> = match self {
            Change::Added { .. } => vec![format!("{subject}: added")],
            Change::Removed { .. } => vec![format!("{subject}: removed")],
            Change::Changed { edits, .. } => edits.iter().map(|edit| format!("{subject}: {edit}")).collect(),
        };
        lines.iter().map(|line| in_one_line(line)).collect()
    }

    fn subject(&self) -> String {
        match self.name().as_str() {
            "" => self.kind().to_string(),
            name => format!("{} {name}", self.kind()),
        }
    }
}

impl Kind {
    /// The document's key under which such objects stand; for sections, the section itself.
    pub fn key(self) -> &'static str {
        match self {
            Kind::Admin => "admin",
            Kind::Workers => "workers",
            Kind::AccessLog => "access_log",
            Kind::Listener => "listeners",
            Kind::Route => "routes",
            Kind::Cluster => "clusters",
            Kind::Certificate => "certificates",
        }
    }

    /// What one such object is called.
    pub fn word(self) -> &'static str {
        match self {
            Kind::Admin => "admin",
            Kind::Workers => "workers",
            Kind::AccessLog => "access_log",
            Kind::Listener => "listener",
            Kind::Route => "route",
            Kind::Cluster => "cluster",
            Kind::Certificate => "certificate",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

impl fmt::Display for Change {
    /// In plain words; one line for each edit.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.lines().join("\n"))
    }
}

/// What would end a line, or move what is shown of it, as the escape that says what it is: lines are read by people, and
/// what is a change of its own must not be up to a value.
pub fn in_one_line(text: &str) -> String {
    let moves = |c: char| matches!(c, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    let mut line = String::with_capacity(text.len());
    for c in text.chars() {
        match c.is_control() || moves(c) {
            true => line.extend(c.escape_debug()),
            false => line.push(c),
        }
    }
    line
}

impl fmt::Display for Edit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Edit::Field(field) => write!(f, "{field}"),
            Edit::BackendAdded { backend, .. } => {
                let Backend { name, address, weight, backup } = backend;
                let backup = if *backup { ", backup" } else { "" };
                write!(f, "backend {name} added ({address}, weight {weight}{backup})")
            }
            Edit::BackendRemoved { backend } => write!(f, "backend {} removed ({})", backend.name, backend.address),
            Edit::BackendChanged(BackendChange { backend, fields }) => {
                let fields: Vec<String> = fields.iter().map(ToString::to_string).collect();
                write!(f, "backend {backend}: {}", fields.join(", "))
            }
            Edit::BackendsReordered { .. } => f.write_str("backends in another order"),
        }
    }
}

impl fmt::Display for FieldChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.field.ends_with(".secret") {
            return write!(f, "{} is another one", self.field);
        }
        write!(f, "{} {} -> {}", self.field, words(self.before.as_ref()), words(self.after.as_ref()))
    }
}

/// A value without the quotes of its syntax. What changed is written to logs, where no secret belongs.
fn words(node: Option<&Node>) -> String {
    match node.map(|node| &node.value) {
        None => "unset".into(),
        Some(Value::Text(text)) if text.is_empty() => "\"\"".into(),
        Some(Value::Text(text)) => secret(text).unwrap_or(text).to_owned(),
        Some(value) => {
            let mut json = value.to_json();
            hide(&mut json);
            json.to_string()
        }
    }
}

/// What stands for a text that is a secret.
fn secret(text: &str) -> Option<&'static str> {
    if text.contains("-----BEGIN ") {
        return Some("(PEM)");
    }
    ["$argon2", "$2a$", "$2b$", "$2y$"].iter().any(|begin| text.starts_with(begin)).then_some("(hash)")
}

fn hide(json: &mut serde_json::Value) {
    use serde_json::Value as Json;
    match json {
        Json::String(text) => {
            if let Some(instead) = secret(text) {
                *text = instead.to_owned();
            }
        }
        Json::Array(items) => items.iter_mut().for_each(hide),
        Json::Object(entries) => {
            for (key, value) in entries {
                match key.as_str() {
                    "secret" => *value = "(secret)".into(),
                    _ => hide(value),
                }
            }
        }
        _ => {}
    }
}
