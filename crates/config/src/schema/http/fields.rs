//! Header fields and query parameters: their names, what they must be like, how they are changed.

use super::text::{FIELD_TEMPLATE, FIELD_VALUE, Text, is_token, wrong_value};
use crate::diagnostics::{Collector, quoted};
use crate::model::ValueMatch;
use crate::schema::maps::{Keys, MapOf};
use crate::schema::values::{mismatch, text};
use crate::schema::{At, Codec, ListOf, Shape, shape};
use crate::tree::Value;

/// Fields that say where a message ends or what holds for one connection only (RFC 9110 7.6.1). The proxy writes them.
const OURS: [&str; 8] =
    ["connection", "content-length", "keep-alive", "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade"];

/// What a field's name stands for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(in crate::schema) enum Role {
    /// It is looked for.
    Matched,
    /// It is changed in a message; with what to use instead of `host`.
    Changed(Option<&'static str>),
    /// A service hears it, or says it.
    Told,
}

/// Fields by which the proxy says who the client is and what it asks for.
const ABOUT: [&str; 8] = [
    "forwarded",
    "x-forwarded-for",
    "x-forwarded-host",
    "x-forwarded-method",
    "x-forwarded-port",
    "x-forwarded-proto",
    "x-forwarded-uri",
    "via",
];

/// The name of a field, or what is wrong with it.
fn name(text: &str, role: Role) -> Result<String, String> {
    let lower = text.to_ascii_lowercase();
    match role {
        _ if !is_token(text) => Err(format!("`{}` isn't the name of a field", quoted(text))),
        Role::Told if ABOUT.contains(&&*lower) => {
            Err(format!("`{lower}` says who the client is or what it asks for, which the proxy does itself"))
        }
        Role::Told if lower == "host" => Err("`host` always goes along, and is changed by `request.host`".into()),
        Role::Changed(_) | Role::Told if OURS.contains(&&*lower) => Err(format!(
            "`{lower}` says how a message is framed or what holds for one connection, which the proxy does itself"
        )),
        Role::Changed(_) | Role::Told if lower == "early-data" => {
            Err("`early-data` says that a request came before a TLS handshake was over, which the proxy does itself"
                .into())
        }
        Role::Changed(Some(instead)) if lower == "host" => Err(format!("`host` is changed by `{instead}`")),
        Role::Changed(_) | Role::Told => Ok(text.to_owned()),
        Role::Matched => Ok(lower),
    }
}

/// Names of fields as keys.
pub(in crate::schema) struct FieldNames(Role);

impl Keys for FieldNames {
    type Of = String;

    fn describe(&self) -> &'static str {
        "field"
    }

    fn read(&self, text: &str) -> Result<String, String> {
        name(text, self.0)
    }

    fn write(&self, key: &String) -> String {
        key.clone()
    }

    fn same(&self, key: &String) -> String {
        key.to_ascii_lowercase()
    }
}

/// The name of a field as a value, in lower case.
pub(super) struct FieldName(pub(super) Role);

impl Codec for FieldName {
    type Of = String;

    fn describe(&self) -> String {
        "name of a field".into()
    }

    fn read(&self, at: &At<'_>, problems: &mut Collector) -> Option<String> {
        let written = text(at, "the name of a field", problems)?;
        match name(written, self.0) {
            Ok(name) => Some(name.to_ascii_lowercase()),
            Err(wrong) => {
                at.report(format!("{}: {wrong}", at.subject()), problems);
                None
            }
        }
    }

    fn write(&self, value: &String) -> Option<Value> {
        Some(Value::text(value.clone()))
    }
}

/// Names of query parameters.
pub(in crate::schema) struct Parameters;

impl Keys for Parameters {
    type Of = String;

    fn describe(&self) -> &'static str {
        "parameter"
    }

    fn read(&self, text: &str) -> Result<String, String> {
        if text.is_empty() { Err("a parameter has a name".into()) } else { Ok(text.to_owned()) }
    }

    fn write(&self, key: &String) -> String {
        key.clone()
    }
}

/// What a value must be: this text, or `true` for any.
pub(in crate::schema) struct Matched(Text);

impl Codec for Matched {
    type Of = ValueMatch;

    fn describe(&self) -> String {
        "text, or `true` for any".into()
    }

    fn shape(&self) -> Shape {
        shape::either([self.0.shape(), shape::yes()])
    }

    fn read(&self, at: &At<'_>, problems: &mut Collector) -> Option<ValueMatch> {
        match at.node.value {
            Value::Bool(true) => Some(ValueMatch::Present),
            Value::Text(_) => self.0.read(at, problems).map(ValueMatch::Exact),
            _ => {
                mismatch(at, "a string, or `true` for any value", problems);
                None
            }
        }
    }

    fn write(&self, value: &ValueMatch) -> Option<Value> {
        Some(match value {
            ValueMatch::Present => Value::Bool(true),
            ValueMatch::Exact(text) => Value::text(text.clone()),
        })
    }
}

/// Fields that a request must have.
pub(in crate::schema) const FIELD_MATCHES: MapOf<FieldNames, Matched> = MapOf {
    keys: FieldNames(Role::Matched),
    of: Matched(Text { what: "text without control characters", wrong: wrong_value }),
    filled: false,
};

/// Query parameters that a request must have.
pub(in crate::schema) const PARAMETER_MATCHES: MapOf<Parameters, Matched> =
    MapOf { keys: Parameters, of: Matched(Text { what: "text", wrong: |_| None }), filled: false };

/// Fields with their values; the name that changes `host` instead.
pub(super) const fn written(host: Option<&'static str>) -> MapOf<FieldNames, Text> {
    MapOf { keys: FieldNames(Role::Changed(host)), of: FIELD_VALUE, filled: false }
}

/// Fields with their values, in which parts of the request's path may stand.
pub(super) const fn filled(host: Option<&'static str>) -> MapOf<FieldNames, Text> {
    MapOf { of: FIELD_TEMPLATE, ..written(host) }
}

/// Fields that are taken out.
pub(super) const fn removed(host: Option<&'static str>) -> ListOf<FieldName> {
    ListOf { of: FieldName(Role::Changed(host)), filled: false }
}
