//! A value together with the way to it, from which places and the subject of a message are made when they are needed.

use std::ops::Range;

use crate::bounds::MAX_NAME_BYTES;
use crate::diagnostics::{Collector, Diagnostic, quoted};
use crate::tree::{Entry, Node};

/// One step on the way to a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step<'a> {
    Key(&'a str),
    Item(usize),
}

/// A value in the tree.
#[derive(Clone, Copy)]
pub(crate) struct At<'a> {
    pub(crate) node: &'a Node,
    /// The key it stands under, where it does.
    key: Option<&'a Node>,
    way: Option<(&'a At<'a>, Step<'a>)>,
}

impl<'a> At<'a> {
    pub(crate) fn root(node: &'a Node) -> Self {
        At { node, key: None, way: None }
    }

    pub(crate) fn entry<'c>(&'c self, entry: &'c Entry) -> At<'c>
    where
        'a: 'c,
    {
        At { node: &entry.node, key: Some(&entry.key), way: Some((self, Step::Key(entry.name()))) }
    }

    pub(crate) fn item<'c>(&'c self, n: usize, node: &'c Node) -> At<'c>
    where
        'a: 'c,
    {
        At { node, key: None, way: Some((self, Step::Item(n))) }
    }

    pub(crate) fn is_root(&self) -> bool {
        self.way.is_none()
    }

    fn steps(&self) -> Vec<Step<'a>> {
        let mut steps: Vec<_> =
            std::iter::successors(self.way, |(parent, _)| parent.way).map(|(_, step)| step).collect();
        steps.reverse();
        steps
    }

    pub(crate) fn pointer(&self) -> String {
        pointer(&self.steps())
    }

    /// Who a message is about.
    pub(crate) fn subject(&self) -> String {
        subject(&self.steps())
    }

    /// Where the value stands.
    pub(crate) fn span(&self) -> Range<usize> {
        self.node.span.clone()
    }

    /// Where the key stands, or else the value.
    pub(crate) fn key_span(&self) -> Range<usize> {
        self.key.unwrap_or(self.node).span.clone()
    }

    /// Reports something about the value.
    pub(crate) fn report<'p>(&self, message: String, problems: &'p mut Collector) -> &'p mut Diagnostic {
        problems.report(Diagnostic::new(message, self.pointer(), Some(self.span())))
    }

    /// Reports something about what the key names, rather than the value it is set to.
    pub(crate) fn report_key<'p>(&self, message: String, problems: &'p mut Collector) -> &'p mut Diagnostic {
        problems.report(Diagnostic::new(message, self.pointer(), Some(self.key_span())))
    }
}

/// RFC 6901. A key too long to be any object's name is cut, so that a pointer's length is bounded.
pub(crate) fn pointer(steps: &[Step<'_>]) -> String {
    let mut pointer = String::new();
    for step in steps {
        pointer.push('/');
        match step {
            Step::Key(key) => {
                let cut = key.floor_char_boundary(2 * MAX_NAME_BYTES);
                pointer.push_str(&key[..cut].replace('~', "~0").replace('/', "~1"));
            }
            Step::Item(n) => pointer.push_str(&n.to_string()),
        }
    }
    pointer
}

/// The object and the option in it, in words: "listener `dns`: `limits.flows`".
pub(crate) fn subject(steps: &[Step<'_>]) -> String {
    let (object, rest) = match steps {
        [Step::Key("listeners"), Step::Key(name), rest @ ..] => (format!("listener `{}`", quoted(name)), rest),
        [Step::Key("routes"), Step::Key(name), rest @ ..] => (format!("route `{}`", quoted(name)), rest),
        [Step::Key("clusters"), Step::Key(name), rest @ ..] => (format!("cluster `{}`", quoted(name)), rest),
        [Step::Key("certificates"), Step::Key(name), rest @ ..] => (format!("certificate `{}`", quoted(name)), rest),
        rest => (String::new(), rest),
    };
    let mut option = String::new();
    for step in rest {
        match step {
            Step::Key(key) if option.is_empty() => option.push_str(&quoted(key)),
            Step::Key(key) => option.push_str(&format!(".{}", quoted(key))),
            Step::Item(n) => option.push_str(&format!("[{n}]")),
        }
    }
    match (object.is_empty(), option.is_empty()) {
        (true, true) => "the document".into(),
        (true, false) => format!("`{option}`"),
        (false, true) => object,
        (false, false) => format!("{object}: `{option}`"),
    }
}
