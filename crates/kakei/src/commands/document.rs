//! A document from a file or standard input, with its errors drawn. Writes nothing.

use std::io::Read;
use std::path::Path;

use kakei::config::{self, Document, Written};

use crate::say::{self, Failure};

/// The longest document that is read; the parser has its own bound.
const MAX_TEXT: u64 = 64 << 20;

/// A document as it was written.
#[derive(Debug)]
pub(crate) struct Source {
    pub(crate) name: String,
    pub(crate) text: String,
    pub(crate) json: bool,
}

impl Source {
    /// Read it; `-` is standard input, where JSON is told by its first character.
    pub(crate) fn read(path: &Path) -> Result<Self, Failure> {
        let stdin = path.as_os_str() == "-";
        let name = if stdin { "standard input".to_owned() } else { path.display().to_string() };
        let unreadable = |error| Failure::usage(format!("{name} can't be read: {error}"));
        let mut text = String::new();
        if stdin {
            std::io::stdin().lock().take(MAX_TEXT).read_to_string(&mut text).map_err(unreadable)?;
        } else {
            let file = std::fs::File::open(path).map_err(unreadable)?;
            file.take(MAX_TEXT).read_to_string(&mut text).map_err(unreadable)?;
        }
        let named_json = path.extension().is_some_and(|extension| extension == "json");
        let json = if stdin { text.trim_start().starts_with('{') } else { named_json };
        Ok(Source { name, text, json })
    }

    /// The media type.
    pub(crate) fn media(&self) -> &'static str {
        if self.json { "application/json" } else { "application/toml" }
    }

    pub(crate) fn parse(&self) -> Result<Document, config::Diagnostics> {
        if self.json { config::parse_json(&self.text) } else { config::parse_toml(&self.text) }
    }

    /// The document, or its errors drawn for standard error.
    pub(crate) fn document(&self) -> Result<Document, Failure> {
        self.parse().map_err(|errors| self.drawn(&errors))
    }

    /// The document, that the certificates which it names are what they should be, and what is to be said of them.
    pub(crate) fn whole(&self) -> Result<(Document, Vec<String>), config::Diagnostics> {
        let document = self.parse()?;
        let written = if self.json { Written::Json(&self.text) } else { Written::Toml(&self.text) };
        let warnings = kakei::control::certificates::check(&document, Some(written))?;
        Ok((document, warnings))
    }

    /// Errors drawn for standard error.
    pub(crate) fn drawn(&self, errors: &config::Diagnostics) -> Failure {
        Failure::drawn(errors.render(&self.name, &self.text, say::color()))
    }
}
