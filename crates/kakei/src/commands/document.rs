//! A document from a file or standard input, with its errors drawn. Writes nothing.

use std::io::Read;
use std::path::Path;

use kakei::config::{self, Document, Written};
use kakei::control::handle::NO_LISTENERS;

use crate::say::{self, Failure};

/// The longest document that is read; the parser has its own bound.
const MAX_TEXT: u64 = 64 << 20;

/// A document as it was written.
#[derive(Debug)]
pub(crate) struct Source {
    pub(crate) name: String,
    pub(crate) text: String,
    pub(crate) json: bool,
    /// From where on it is no text; the document is nothing that can be gone by then.
    torn: Option<usize>,
}

impl Source {
    /// Read it; `-` is standard input, where JSON is told by its first character.
    pub(crate) fn read(path: &Path) -> Result<Self, Failure> {
        let source = Source::look(path).map_err(Failure::usage)?;
        match source.no_text() {
            Some(errors) => Err(source.drawn(&errors)),
            None => Ok(source),
        }
    }

    /// The same, whatever is in it; or a sentence that says why it can't be read.
    pub(crate) fn look(path: &Path) -> Result<Self, String> {
        let stdin = path.as_os_str() == "-";
        let name = if stdin { "standard input".to_owned() } else { path.display().to_string() };
        let unreadable = |error| format!("{name} can't be read: {error}");
        let mut bytes = Vec::new();
        if stdin {
            std::io::stdin().lock().take(MAX_TEXT).read_to_end(&mut bytes).map_err(unreadable)?;
        } else {
            let file = std::fs::File::open(path).map_err(unreadable)?;
            file.take(MAX_TEXT).read_to_end(&mut bytes).map_err(unreadable)?;
        }
        let (text, torn) = match String::from_utf8(bytes) {
            Ok(text) => (text, None),
            Err(error) => {
                let at = error.utf8_error().valid_up_to();
                (String::from_utf8_lossy(error.as_bytes()).into_owned(), Some(at))
            }
        };
        let named_json = path.extension().is_some_and(|extension| extension == "json");
        let json = if stdin { text.trim_start().starts_with('{') } else { named_json };
        Ok(Source { name, text, json, torn })
    }

    fn no_text(&self) -> Option<config::Diagnostics> {
        self.torn.map(|at| config::Diagnostics::not_text(&self.text, at))
    }

    /// The media type.
    pub(crate) fn media(&self) -> &'static str {
        if self.json { "application/json" } else { "application/toml" }
    }

    pub(crate) fn parse(&self) -> Result<Document, config::Diagnostics> {
        if let Some(errors) = self.no_text() {
            return Err(errors);
        }
        if self.json { config::parse_json(&self.text) } else { config::parse_toml(&self.text) }
    }

    /// The document, or its errors drawn for standard error.
    pub(crate) fn document(&self) -> Result<Document, Failure> {
        self.parse().map_err(|errors| self.drawn(&errors))
    }

    /// The document, that the certificates which it names are what they should be, and what is to be said of them.
    pub(crate) fn whole(&self) -> Result<(Document, Vec<String>), config::Diagnostics> {
        let document = self.parse()?;
        let mut warnings = kakei::control::certificates::check(&document, Some(self.written()))?;
        warnings.extend(document.listeners.is_empty().then(|| NO_LISTENERS.to_owned()));
        Ok((document, warnings))
    }

    fn written(&self) -> Written<'_> {
        if self.json { Written::Json(&self.text) } else { Written::Toml(&self.text) }
    }

    /// Errors of what it says that were found elsewhere, drawn at their places.
    pub(crate) fn placed(&self, errors: config::Diagnostics) -> Failure {
        self.drawn(&errors.placed(self.written()))
    }

    /// Errors drawn for standard error.
    pub(crate) fn drawn(&self, errors: &config::Diagnostics) -> Failure {
        Failure::drawn(errors.render(&self.name, &self.text, say::color()))
    }
}
