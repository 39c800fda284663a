//! The API's description in OpenAPI 3.1, made of the table of operations and of the types themselves. Serves nothing else.

use std::sync::LazyLock;

use axum::Json;
use schemars::generate::SchemaSettings;
use schemars::{SchemaGenerator, json_schema};
use serde_json::{Map, Value, json};

use super::operations::{Content, OPERATIONS, Operation, Verb};
use super::problem::Document as Problem;
use crate::access::Role;
use crate::metrics;

const ABOUT: &str = "The admin API of a running Kakei: HTTP/1.1 on a Unix socket, and over TCP for clients with a certificate. \
                     Every change is a transaction: all workers go over to it, or nothing is different.";

/// The description: the same for the life of the process.
pub fn description() -> &'static Value {
    static DESCRIPTION: LazyLock<Value> = LazyLock::new(describe);
    &DESCRIPTION
}

/// `GET /v1/openapi.json`
pub(super) async fn serve() -> Json<&'static Value> {
    Json(description())
}

fn describe() -> Value {
    let settings = || {
        SchemaSettings::draft2020_12().with(|settings| {
            settings.definitions_path = "/components/schemas".into();
            settings.meta_schema = None;
        })
    };
    let mut types = Types {
        given: settings().for_deserialize().into_generator(),
        gives: settings().for_serialize().into_generator(),
    };
    let mut paths = Map::new();
    for operation in OPERATIONS {
        let path = paths.entry(operation.path).or_insert_with(|| json!({}));
        path[operation.verb().key()] = types.operation(operation);
    }
    json!({
        "openapi": "3.1.0",
        "info": {"title": "Kakei", "version": env!("CARGO_PKG_VERSION"), "description": ABOUT, "license": {"name": "Apache-2.0 OR MIT"}},
        "servers": [{"url": "/"}],
        "security": [{}, {"certificate": []}],
        "paths": paths,
        "components": {
            "schemas": types.schemas(),
            "securitySchemes": {"certificate": {"type": "mutualTLS", "description": "Over TCP; on the Unix socket it is told by who connects."}},
        },
    })
}

impl Verb {
    /// As a description has it.
    pub(crate) fn key(self) -> &'static str {
        match self {
            Verb::Get => "get",
            Verb::Put => "put",
            Verb::Post => "post",
            Verb::Patch => "patch",
            Verb::Delete => "delete",
        }
    }
}

/// Makes schemas: what is read may be less than what is written.
struct Types {
    given: SchemaGenerator,
    gives: SchemaGenerator,
}

impl Types {
    fn operation(&mut self, operation: &Operation) -> Value {
        let mut said = json!({
            "operationId": operation.name,
            "summary": operation.summary,
            "x-kakei-role": operation.needs.key(),
            "parameters": self.parameters(operation),
            "responses": self.responses(operation),
        });
        if let Some((required, contents)) = operation.takes {
            said["requestBody"] = json!({"required": required, "content": content(contents, &mut self.given)});
        }
        said
    }

    fn parameters(&mut self, operation: &Operation) -> Vec<Value> {
        let names = operation.path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'));
        let in_path = names.map(|name| {
            let kind =
                if name == "generation" { json!({"type": "integer", "minimum": 0}) } else { json!({"type": "string"}) };
            json!({"name": name, "in": "path", "required": true, "schema": kind})
        });
        let mut parameters: Vec<Value> = in_path.collect();
        if let Some(shape) = operation.query {
            let schema = shape(&mut self.given);
            let required: Vec<&str> = schema
                .get("required")
                .and_then(Value::as_array)
                .into_iter()
                .flatten()
                .filter_map(Value::as_str)
                .collect();
            let properties = schema.get("properties").and_then(Value::as_object);
            parameters.extend(properties.into_iter().flatten().map(|(name, schema)| {
                let required = required.contains(&name.as_str());
                json!({"name": name, "in": "query", "required": required, "schema": given(schema.clone())})
            }));
        }
        let header = |name, what| json!({"name": name, "in": "header", "required": false, "schema": {"type": "string"}, "description": what});
        parameters.extend(
            operation
                .is_conditional
                .then(|| header("If-Match", "Refused (412) where another generation runs than this one, in quotes.")),
        );
        let streams = operation.gives.iter().any(|content| matches!(content, Content::Events(_)));
        parameters.extend(streams.then(|| header("Last-Event-ID", "Go on behind the event of this number.")));
        parameters
    }

    fn responses(&mut self, operation: &Operation) -> Value {
        let mut good = json!({"description": "Done.", "content": content(operation.gives, &mut self.gives)});
        if operation.is_tagged {
            good["headers"] =
                json!({"ETag": {"description": "The generation, in quotes.", "schema": {"type": "string"}}});
        }
        let problem = self.gives.subschema_for::<Problem>();
        let mut responses = json!({
            "200": good,
            "default": {"description": "Refused, or failed (RFC 9457).", "content": {"application/problem+json": {"schema": problem}}},
        });
        if let Some(status) = operation.also {
            responses[status.to_string()] =
                json!({"description": "Not so.", "content": content(operation.gives, &mut self.gives)});
        }
        responses
    }

    /// Everything that is referred to.
    fn schemas(&mut self) -> Map<String, Value> {
        let mut all = self.given.take_definitions(true);
        all.extend(self.gives.take_definitions(true));
        all
    }
}

/// What a query says where it says it: left out is not the same as null.
fn given(mut schema: Value) -> Value {
    if let Some(kinds) = schema["type"].as_array() {
        let other: Vec<Value> = kinds.iter().filter(|kind| *kind != "null").cloned().collect();
        if let [kind] = &other[..] {
            schema["type"] = kind.clone();
        }
    }
    if let Some(some) = schema["anyOf"].as_array() {
        let other: Vec<Value> = some.iter().filter(|one| one["type"] != "null").cloned().collect();
        if let [one] = &other[..] {
            return one.clone();
        }
    }
    schema
}

fn content(contents: &[Content], generator: &mut SchemaGenerator) -> Value {
    let text = || json!({"schema": json_schema!({"type": "string"})});
    let kinds = contents.iter().map(|content| match content {
        Content::Json(shape) => ("application/json".to_owned(), json!({"schema": shape(generator)})),
        Content::Toml => ("application/toml".to_owned(), text()),
        Content::Text => ("text/plain".to_owned(), text()),
        Content::Metrics => (metrics::CONTENT_TYPE.split(';').next().unwrap_or_default().to_owned(), text()),
        Content::Events(shape) => {
            let event = shape(generator);
            ("text/event-stream".to_owned(), json!({"schema": {"type": "string"}, "x-kakei-event": event}))
        }
    });
    Value::Object(kinds.collect())
}

impl Role {
    /// As a document has it.
    pub(crate) fn key(self) -> &'static str {
        match self {
            Role::ReadOnly => "read_only",
            Role::ReadWrite => "read_write",
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_operation_is_described_once_and_nothing_else_is() {
        let said = description();
        let paths = said["paths"].as_object().unwrap();
        let described: Vec<(&str, &str)> = paths
            .iter()
            .flat_map(|(path, of)| of.as_object().unwrap().keys().map(move |verb| (path.as_str(), verb.as_str())))
            .collect();
        let served: BTreeSet<(&str, &str)> =
            OPERATIONS.iter().map(|operation| (operation.path, operation.verb().key())).collect();
        assert_eq!(served.len(), OPERATIONS.len(), "no two operations are the same");
        assert_eq!(described.into_iter().collect::<BTreeSet<_>>(), served);
        let names: BTreeSet<&str> = OPERATIONS.iter().map(|operation| operation.name).collect();
        assert_eq!(names.len(), OPERATIONS.len(), "a name stands once");
        for operation in OPERATIONS {
            assert_eq!(operation.needs == Role::ReadOnly, operation.verb() == Verb::Get, "{}", operation.name);
        }
    }

    #[test]
    fn every_reference_leads_somewhere_and_what_is_read_is_what_is_written() {
        let said = description();
        let schemas = said["components"]["schemas"].as_object().unwrap();
        fn references<'a>(value: &'a Value, found: &mut BTreeSet<&'a str>) {
            match value {
                Value::Object(entries) => {
                    found.extend(entries.get("$ref").and_then(Value::as_str));
                    entries.values().for_each(|value| references(value, found));
                }
                Value::Array(items) => items.iter().for_each(|value| references(value, found)),
                _ => {}
            }
        }
        let mut found = BTreeSet::new();
        references(said, &mut found);
        for reference in &found {
            let name = reference.strip_prefix("#/components/schemas/").expect("it is one of ours");
            assert!(schemas.contains_key(name), "{reference}");
        }
        assert!(found.len() > 15 && schemas.len() == found.len(), "{} {}", found.len(), schemas.len());
        for name in schemas.keys() {
            assert!(!name.ends_with(|c: char| c.is_ascii_digit()), "two types are called {name}");
        }
    }
}
