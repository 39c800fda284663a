//! The document written down: canonical text that reads back as the same document. One tree serves both syntaxes.

use crate::model::Document;
use crate::schema;
use crate::tree::Node;

impl Document {
    /// The document as a tree. Everything that holds is written out, defaults included, so that it means the same to a
    /// later version; options that are off by being left out stay left out.
    pub fn to_tree(&self) -> Node {
        schema::write_document(self)
    }

    /// The document as JSON, for [`crate::parse_json`].
    pub fn to_json_value(&self) -> serde_json::Value {
        self.to_tree().value.to_json()
    }

    /// The document as TOML text, for [`crate::parse_toml`].
    pub fn to_toml(&self) -> String {
        toml::to_string_pretty(&self.to_tree()).expect("the tree has string keys, whole numbers in range and no nulls")
    }
}
