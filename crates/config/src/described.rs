//! JSON Schemas of what is written by hand instead of derived: documents, values, addresses, errors. Each says what its
//! serialisation does.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};

use crate::diagnostics::{Diagnostic, Diagnostics, Related};
use crate::model::{BackendAddress, Document};
use crate::tree::Node;

/// A type of this name whose schema is this.
macro_rules! described {
    ($($of:ty, $name:literal, |$generator:ident| $schema:expr;)*) => {
        $(impl JsonSchema for $of {
            fn schema_name() -> Cow<'static, str> {
                $name.into()
            }

            fn json_schema($generator: &mut SchemaGenerator) -> Schema {
                $schema
            }
        })*
    };
}

described! {
    Document, "Document", |_generator| {
        Schema::try_from(crate::json_schema()).expect("a section is an object, and so is its schema")
    };
    Node, "Value", |_generator| json_schema!({"description": "A value as the document has it."});
    BackendAddress, "BackendAddress", |_generator| json_schema!({
        "type": "string",
        "description": "Where a backend is: `10.0.0.1:80`, `unix:/run/app.sock`, `app.internal:8080`.",
    });
    Diagnostic, "DocumentError", |generator| place(generator, true);
    Related, "RelatedPlace", |generator| place(generator, false);
    Diagnostics, "DocumentErrors", |generator| json_schema!({
        "type": "array",
        "items": generator.subschema_for::<Diagnostic>(),
    });
}

/// A place in a document, and what is to be said of it.
fn place(generator: &mut SchemaGenerator, is_error: bool) -> Schema {
    let mut schema = json_schema!({
        "type": "object",
        "properties": {
            "pointer": {"type": "string", "description": "JSON pointer (RFC 6901); empty for the whole document, and for errors of syntax."},
            "line": {"type": ["integer", "null"], "minimum": 1},
            "column": {"type": ["integer", "null"], "minimum": 1, "description": "In characters."},
        },
    });
    let more = match is_error {
        true => json_schema!({
            "message": {"type": "string", "description": "Which object is at fault, and what is wrong with it."},
            "help": {"type": ["string", "null"], "description": "What would be right."},
            "related": {"type": "array", "items": generator.subschema_for::<Related>()},
        }),
        false => json_schema!({"label": {"type": "string", "description": "What is there."}}),
    };
    let properties = schema.get_mut("properties").and_then(|properties| properties.as_object_mut());
    let more = more.to_value().as_object().cloned().unwrap_or_default();
    let properties = properties.expect("it stands above");
    properties.extend(more);
    let keys: Vec<String> = properties.keys().cloned().collect();
    schema.insert("required".to_owned(), keys.into());
    schema
}
