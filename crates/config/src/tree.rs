//! The value tree that both syntaxes produce and both exports are made from. It knows no option by name.

use std::borrow::Cow;
use std::fmt;
use std::ops::Range;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde::ser::{Serialize, SerializeMap, SerializeSeq, Serializer};

/// Entries that a table is made for at first: most have no more.
const FEW: usize = 8;

/// A value and the bytes of the text it was read from (empty for one that was made here).
/// Two nodes are equal when their values are, wherever they stand.
#[derive(Clone, Debug)]
pub struct Node {
    /// What it says.
    pub value: Value,
    /// Where it says so.
    pub span: Range<usize>,
}

/// What a node says.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// JSON's `null`; no option takes it.
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// A whole number; one that doesn't fit is held as the nearest that does.
    Integer(i128),
    /// A number with a fraction or an exponent; no option takes it.
    Float(f64),
    /// A string; those of the options' own keys and words are not copied.
    Text(Cow<'static, str>),
    /// TOML's date or time; no option takes it.
    Datetime(String),
    /// A list.
    List(Vec<Node>),
    /// A table, in the order of the text. A key stands in it once.
    Table(Vec<Entry>),
}

/// A key of a table and what it is set to.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// The key.
    pub key: Node,
    /// What it is set to.
    pub node: Node,
}

impl Entry {
    /// An entry that was made here.
    pub fn new(key: impl Into<Cow<'static, str>>, value: Value) -> Self {
        Entry { key: Value::text(key).into(), node: value.into() }
    }

    /// The key as text.
    pub fn name(&self) -> &str {
        match &self.key.value {
            Value::Text(text) => text,
            _ => "",
        }
    }
}

impl PartialEq for Node {
    fn eq(&self, other: &Self) -> bool {
        self.value == other.value
    }
}

impl From<Value> for Node {
    fn from(value: Value) -> Self {
        Node { value, span: 0..0 }
    }
}

impl Value {
    pub(crate) fn text(text: impl Into<Cow<'static, str>>) -> Self {
        Value::Text(text.into())
    }

    /// What a table has under a key.
    pub fn get(&self, key: &str) -> Option<&Node> {
        match self {
            Value::Table(entries) => entries.iter().find(|entry| entry.name() == key).map(|entry| &entry.node),
            _ => None,
        }
    }

    /// The tree as `serde_json`'s (keys sorted by that type).
    pub fn to_json(&self) -> serde_json::Value {
        use serde_json::Value as Json;
        match self {
            Value::Null => Json::Null,
            Value::Bool(flag) => Json::Bool(*flag),
            Value::Integer(number) => i64::try_from(*number).map_or(Json::Null, Json::from),
            Value::Float(number) => Json::from(*number),
            Value::Text(text) => Json::String(text.clone().into_owned()),
            Value::Datetime(text) => Json::String(text.clone()),
            Value::List(items) => Json::Array(items.iter().map(|item| item.value.to_json()).collect()),
            Value::Table(entries) => {
                Json::Object(entries.iter().map(|e| (e.name().to_owned(), e.node.value.to_json())).collect())
            }
        }
    }
}

impl Serialize for Node {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.value.serialize(serializer)
    }
}

impl Serialize for Value {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Value::Null => serializer.serialize_unit(),
            Value::Bool(flag) => serializer.serialize_bool(*flag),
            Value::Integer(number) => {
                let near = i64::try_from(*number).unwrap_or(if *number < 0 { i64::MIN } else { i64::MAX });
                serializer.serialize_i64(near)
            }
            Value::Float(number) => serializer.serialize_f64(*number),
            Value::Text(text) => serializer.serialize_str(text),
            Value::Datetime(text) => serializer.serialize_str(text),
            Value::List(items) => {
                let mut list = serializer.serialize_seq(Some(items.len()))?;
                items.iter().try_for_each(|item| list.serialize_element(item))?;
                list.end()
            }
            Value::Table(entries) => {
                let mut table = serializer.serialize_map(Some(entries.len()))?;
                entries.iter().try_for_each(|entry| table.serialize_entry(entry.name(), &entry.node))?;
                table.end()
            }
        }
    }
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Value::deserialize(deserializer).map(Node::from)
    }
}

/// Without places, for what was written by [`Serialize`]. Of a key that stands in a table twice both are kept, of which
/// the last counts.
impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Any)
    }
}

struct Any;

impl<'de> Visitor<'de> for Any {
    type Value = Value;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, flag: bool) -> Result<Value, E> {
        Ok(Value::Bool(flag))
    }

    fn visit_i64<E>(self, number: i64) -> Result<Value, E> {
        Ok(Value::Integer(number.into()))
    }

    fn visit_u64<E>(self, number: u64) -> Result<Value, E> {
        Ok(Value::Integer(number.into()))
    }

    fn visit_f64<E>(self, number: f64) -> Result<Value, E> {
        Ok(Value::Float(number))
    }

    fn visit_str<E>(self, text: &str) -> Result<Value, E> {
        Ok(Value::text(text.to_owned()))
    }

    fn visit_string<E>(self, text: String) -> Result<Value, E> {
        Ok(Value::text(text))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element()? {
            list.push(item);
        }
        Ok(Value::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let mut table = Vec::with_capacity(FEW);
        while let Some((key, value)) = entries.next_entry::<String, Value>()? {
            table.push(Entry::new(key, value));
        }
        Ok(Value::Table(table))
    }
}
