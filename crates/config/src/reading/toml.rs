//! TOML text to the tree. The grammar is the `toml` crate's; places, bounds and wording are ours.

use std::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, DeValue};
use toml_parser::Source;
use toml_parser::lexer::TokenKind;

use super::{duplicate, fits};
use crate::bounds::MAX_DEPTH;
use crate::diagnostics::{Collector, Diagnostic};
use crate::tree::{Entry, Node, Value};

/// Reads the text; none when its syntax leaves nothing that could be understood.
pub(crate) fn read(text: &str, problems: &mut Collector) -> Option<Node> {
    if !fits(text, problems) || !shallow(text, problems) {
        return None;
    }
    let (root, errors) = DeTable::parse_recoverable(text);
    let mut broken = false;
    for error in errors {
        let span = error.span().unwrap_or(text.len()..text.len());
        if error.message() == "duplicate key" {
            duplicate(key_text(text, &span), problems, span);
        } else {
            broken = true;
            problems.report(Diagnostic::new(sentence(error.message()), String::new(), Some(span)));
        }
    }
    (!broken).then(|| table(root.into_inner(), 0..0))
}

fn key_text<'a>(text: &'a str, span: &Range<usize>) -> &'a str {
    text.get(span.clone()).unwrap_or_default().trim_matches(['"', '\''])
}

/// Says whose the message is: the parser's own are fragments.
fn sentence(message: &str) -> String {
    format!("this isn't TOML: {message}")
}

fn table(table: DeTable<'_>, span: Range<usize>) -> Node {
    let entries = table
        .into_iter()
        .map(|(key, value)| {
            let place = key.span();
            Entry { key: Node { value: Value::text(key.into_inner().into_owned()), span: place }, node: node(value) }
        })
        .collect();
    Node { value: Value::Table(entries), span }
}

fn node(value: Spanned<DeValue<'_>>) -> Node {
    let span = value.span();
    let value = match value.into_inner() {
        DeValue::Table(entries) => return table(entries, span),
        DeValue::Array(items) => Value::List(items.into_iter().map(node).collect()),
        DeValue::String(text) => Value::text(text.into_owned()),
        DeValue::Boolean(flag) => Value::Bool(flag),
        DeValue::Datetime(time) => Value::Datetime(time.to_string()),
        DeValue::Integer(number) => {
            let far = if number.as_str().starts_with('-') { i128::MIN } else { i128::MAX };
            Value::Integer(i128::from_str_radix(number.as_str(), number.radix()).unwrap_or(far))
        }
        DeValue::Float(number) => Value::Float(number.as_str().parse().unwrap_or(f64::NAN)),
    };
    Node { value, span }
}

/// Whether brackets and dotted keys nest no deeper than a document could need. The parser bounds each by itself, far
/// higher; together they could exhaust the stack.
fn shallow(text: &str, problems: &mut Collector) -> bool {
    let (mut brackets, mut dots) = (0usize, 0usize);
    for token in Source::new(text).lex() {
        match token.kind() {
            TokenKind::LeftSquareBracket | TokenKind::LeftCurlyBracket => brackets += 1,
            TokenKind::RightSquareBracket | TokenKind::RightCurlyBracket => brackets = brackets.saturating_sub(1),
            TokenKind::Dot => dots += 1,
            TokenKind::Equals | TokenKind::Comma | TokenKind::Newline => dots = 0,
            _ => {}
        }
        if brackets > MAX_DEPTH || dots > MAX_DEPTH {
            let message = format!("the document nests more than {MAX_DEPTH} levels deep");
            let span = token.span();
            problems.report(Diagnostic::new(message, String::new(), Some(span.start()..span.end())));
            return false;
        }
    }
    true
}
