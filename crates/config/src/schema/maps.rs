//! Tables whose keys the operator chooses: fields, parameters, users, shares. What the values mean is not known here.

use std::collections::{BTreeMap, BTreeSet};

use super::values::{NAME_SIGNS, mismatch, wrong_name};
use super::{At, Codec, Shape, shape};
use crate::diagnostics::Collector;
use crate::model::Name;
use crate::tree::{Entry, Value};

/// What may be a key.
pub(super) trait Keys {
    /// The model's type for it.
    type Of: Ord;

    /// What may be written, in a few words.
    fn describe(&self) -> &'static str;

    /// The key, or what is wrong with it.
    fn read(&self, text: &str) -> Result<Self::Of, String>;

    /// The key as it is written.
    fn write(&self, key: &Self::Of) -> String;

    /// What two keys have in common that mean the same.
    fn same(&self, key: &Self::Of) -> String {
        self.write(key)
    }
}

/// A table from such keys to values of one kind. An empty one is left out when it is written.
pub(super) struct MapOf<K, C> {
    pub(super) keys: K,
    pub(super) of: C,
    /// Whether an empty table says nothing.
    pub(super) filled: bool,
}

impl<K: Keys, C: Codec> Codec for MapOf<K, C> {
    type Of = BTreeMap<K::Of, C::Of>;

    fn describe(&self) -> String {
        let at_least = if self.filled { "table, at least one" } else { "table" };
        format!("{at_least}: {} = {}", self.keys.describe(), self.of.describe())
    }

    fn shape(&self) -> Shape {
        shape::map(self.of.shape(), self.keys.describe(), self.filled)
    }

    /// Gives those that could be read, so that what is checked across objects still sees them.
    fn read(&self, at: &At<'_>, problems: &mut Collector) -> Option<Self::Of> {
        let Value::Table(entries) = &at.node.value else {
            mismatch(at, "a table", problems);
            return None;
        };
        if entries.is_empty() && self.filled {
            at.report_key(format!("{} is empty; at least one is needed", at.subject()), problems);
        }
        let mut seen = BTreeSet::new();
        let mut map = BTreeMap::new();
        for entry in entries {
            let here = at.entry(entry);
            let value = self.of.read(&here, problems);
            match self.keys.read(entry.name()) {
                Err(wrong) => drop(here.report_key(format!("{}: {wrong}", at.subject()), problems)),
                Ok(key) if !seen.insert(self.keys.same(&key)) => {
                    let message = format!("{} has `{}` twice", at.subject(), self.keys.same(&key));
                    here.report_key(message, problems);
                }
                Ok(key) => drop(value.map(|value| map.insert(key, value))),
            }
        }
        Some(map)
    }

    fn write(&self, value: &Self::Of) -> Option<Value> {
        let entry = |(key, value)| Some(Entry::new(self.keys.write(key), self.of.write(value)?));
        let entries: Vec<Entry> = value.iter().filter_map(entry).collect();
        (!entries.is_empty()).then_some(Value::Table(entries))
    }
}

/// Names of objects.
pub(super) struct Names(pub(super) &'static str);

impl Keys for Names {
    type Of = Name;

    fn describe(&self) -> &'static str {
        self.0
    }

    fn read(&self, text: &str) -> Result<Name, String> {
        wrong_name(text, NAME_SIGNS).map_or_else(|| Ok(Name::new(text)), Err)
    }

    fn write(&self, key: &Name) -> String {
        key.as_str().to_owned()
    }
}
