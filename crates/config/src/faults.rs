//! Errors that were found in what a document names (a certificate's file, a cluster's CA), put to the place where it is named. What
//! counts as one is decided by whoever read it.

use crate::diagnostics::{Collector, Diagnostic, Diagnostics};
use crate::model::{Document, Name};
use crate::reading;
use crate::schema::{Step, pointer};
use crate::tree::{Node, Value};

/// Something wrong with what an option names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The kind of object that it is about, as the document has it: `certificates`.
    pub section: &'static str,
    /// The object.
    pub name: Name,
    /// The option that names it, with dots: `chain`, `tls.ca`.
    pub key: &'static str,
    /// Which of the option's list, where it is about one.
    pub item: Option<usize>,
    /// What is wrong, in one sentence without its subject.
    pub message: String,
    /// What would be right.
    pub help: Option<String>,
}

/// What a document was written as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Written<'a> {
    /// As TOML.
    Toml(&'a str),
    /// As JSON.
    Json(&'a str),
}

impl Diagnostics {
    /// These errors at their places; with lines and columns where the text is known. None where there are none.
    pub fn of(faults: Vec<Fault>, document: &Document, text: Option<Written<'_>>) -> Option<Self> {
        let mut problems = Collector::default();
        // It was read before: nothing is reported a second time.
        let tree = match text {
            Some(Written::Toml(text)) => reading::toml::read(text, &mut Collector::default()),
            Some(Written::Json(text)) => reading::json::read(text, &mut Collector::default()),
            None => Some(document.to_tree()),
        };
        for fault in faults {
            let kind = fault.section.trim_end_matches('s');
            let message = format!("{kind} `{}`: `{}`: {}", fault.name, fault.key, fault.message);
            if !problems.has_room() {
                problems.report(Diagnostic::new(message, String::new(), None));
                continue;
            }
            let way: Vec<&str> = [fault.section, fault.name.as_str()].into_iter().chain(fault.key.split('.')).collect();
            let node = tree.as_ref().and_then(|root| find(root, &way));
            let item = fault.item.map(Step::Item);
            let node = match (node.map(|node| &node.value), fault.item) {
                (Some(Value::List(items)), Some(at)) => items.get(at).or(node),
                _ => node,
            };
            let span = node.map(|node| node.span.clone());
            let steps: Vec<Step<'_>> = way.iter().map(|key| Step::Key(key)).chain(item).collect();
            let diagnostic = problems.report(Diagnostic::new(message, pointer(&steps), span));
            if let Some(help) = fault.help {
                diagnostic.help(help);
            }
        }
        let (Some(Written::Toml(text)) | Some(Written::Json(text))) = text else { return problems.finish(None) };
        problems.finish(Some(text))
    }
}

impl Diagnostics {
    /// The same errors with lines and columns in this text, where what they are about stands in it.
    pub fn placed(self, text: Written<'_>) -> Self {
        let (Written::Toml(source) | Written::Json(source)) = text;
        let tree = match text {
            Written::Toml(text) => reading::toml::read(text, &mut Collector::default()),
            Written::Json(text) => reading::json::read(text, &mut Collector::default()),
        };
        self.at(source, |pointer| {
            let mut node = tree.as_ref()?;
            for key in pointer.split('/').skip(1) {
                let key = key.replace("~1", "/").replace("~0", "~");
                node = match &node.value {
                    Value::List(items) => items.get(key.parse::<usize>().ok()?)?,
                    value => value.get(&key)?,
                };
            }
            Some(node.span.clone())
        })
    }

    /// That a file is no text: it isn't UTF-8 from this byte of it on. `text` is what of it can be read.
    pub fn not_text(text: &str, at: usize) -> Self {
        let mut problems = Collector::default();
        let span = at..at + char::REPLACEMENT_CHARACTER.len_utf8();
        let message = "the document isn't UTF-8".to_owned();
        problems.report(Diagnostic::new(message, String::new(), Some(span))).help("save it as UTF-8");
        problems.finish(Some(text)).unwrap_or_default()
    }

    /// That there is no document.
    pub fn unread(message: String) -> Self {
        let mut problems = Collector::default();
        problems.report(Diagnostic::new(message, String::new(), None));
        problems.finish(None).unwrap_or_default()
    }
}

fn find<'a>(root: &'a Node, way: &[&str]) -> Option<&'a Node> {
    way.iter().try_fold(root, |node, key| node.value.get(key))
}
