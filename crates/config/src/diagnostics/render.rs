//! Errors drawn for a terminal, in the shape rustc made familiar. Only the lines concerned are handed to the drawing
//! library, so that its work follows the errors and not the length of the document.

use std::ops::Range;

use annotate_snippets::{Annotation, AnnotationKind, Group, Level, Renderer, Snippet};

use super::{Diagnostic, Diagnostics, Place, Position, veil};
use crate::bounds::{MAX_DRAWN_LINE, MAX_DRAWN_PIECE};

pub(super) fn all(diagnostics: &Diagnostics, file: &str, source: &str, color: bool) -> String {
    let renderer = if color { Renderer::styled() } else { Renderer::plain() };
    let mut out = String::new();
    for diagnostic in diagnostics.iter() {
        out.push_str(&one(diagnostic, file, source, &renderer));
        out.push_str("\n\n");
    }
    let last = Level::ERROR.primary_title(count(diagnostics, file));
    out.push_str(&renderer.render(&[Group::with_title(last)]));
    out.push('\n');
    out
}

fn count(diagnostics: &Diagnostics, file: &str) -> String {
    let shown = diagnostics.list.len();
    match (diagnostics.count(), diagnostics.more) {
        (1, _) => format!("1 error in {file}"),
        (all, 0) => format!("{all} errors in {file}"),
        (all, _) => format!("{all} errors in {file}; the first {shown} are shown"),
    }
}

fn one(diagnostic: &Diagnostic, file: &str, source: &str, renderer: &Renderer) -> String {
    let mut group = Group::with_title(Level::ERROR.primary_title(diagnostic.message.as_str()));
    let mut pieces: Vec<Piece<'_>> = Vec::new();
    let mut notes = Vec::new();
    let places = std::iter::once((&diagnostic.place, None))
        .chain(diagnostic.related.iter().map(|related| (&related.place, Some(related.label.as_str()))));
    for (place, label) in places {
        let known = place.position.as_ref();
        let Some(part) = known.and_then(|position| Part::drawable(place, position, label, source)) else {
            let label = label.map(|label| format!("{label}: ")).unwrap_or_default();
            notes.push(format!("{label}{}", position_words(place, file)));
            continue;
        };
        if !pieces.iter_mut().any(|piece| piece.join(&part, source)) {
            pieces.push(Piece { range: part.line.clone(), first_line: part.number, parts: vec![part] });
        }
    }
    let drawn: Vec<String> = pieces.iter().map(|piece| piece.drawn(source)).collect();
    for (piece, text) in pieces.iter().zip(&drawn) {
        group = group.element(piece.snippet(file, text));
    }
    for note in notes {
        group = group.element(Level::NOTE.message(note));
    }
    if let Some(help) = &diagnostic.help {
        group = group.element(Level::HELP.message(help.as_str()));
    }
    renderer.render(&[group])
}

/// A place that can be drawn.
#[derive(Clone)]
struct Part<'a> {
    span: Range<usize>,
    /// The bytes of its line.
    line: Range<usize>,
    number: usize,
    label: Option<&'a str>,
    /// Whether nobody is to read what stands there.
    is_secret: bool,
}

impl<'a> Part<'a> {
    /// None where the text isn't the one that was read, or the line is too long to be drawn.
    fn drawable(place: &Place, position: &Position, label: Option<&'a str>, source: &str) -> Option<Self> {
        let Range { start, end } = position.span.clone();
        let begin = source.get(..start)?.rfind('\n').map_or(0, |newline| newline + 1);
        let length = source[begin..].find('\n').unwrap_or(source.len() - begin);
        let line = begin..begin + source[begin..begin + length].trim_end_matches('\r').len();
        let fits = line.len() <= MAX_DRAWN_LINE && start <= line.end && source.is_char_boundary(end.min(source.len()));
        let span = start..end.clamp(start, line.end.max(start));
        let is_secret = veil::is_secret(&place.pointer) && source[start..].starts_with(['"', '\'']);
        fits.then_some(Part { span, line, number: position.line, label, is_secret })
    }
}

/// A stretch of the source that is drawn at once, and the places in it.
struct Piece<'a> {
    range: Range<usize>,
    first_line: usize,
    parts: Vec<Part<'a>>,
}

impl<'a> Piece<'a> {
    /// Takes a part in, if the stretch stays short; says whether it did.
    fn join(&mut self, part: &Part<'a>, source: &str) -> bool {
        let range = self.range.start.min(part.line.start)..self.range.end.max(part.line.end);
        let short =
            range.len() <= MAX_DRAWN_PIECE && source[range.clone()].lines().all(|line| line.len() <= MAX_DRAWN_LINE);
        if short {
            self.range = range;
            self.first_line = self.first_line.min(part.number);
            self.parts.push(part.clone());
        }
        short
    }

    /// Its text, with stars where secrets stand.
    fn drawn(&self, source: &str) -> String {
        let mut text = veil::veiled(&source[self.range.clone()]);
        for part in self.parts.iter().filter(|part| part.is_secret) {
            let inside = part.span.start + 1 - self.range.start..part.span.end - 1 - self.range.start;
            if let Some(stars) = text.get(inside.clone()).map(veil::stars) {
                text.replace_range(inside, &stars);
            }
        }
        text
    }

    fn snippet<'s>(&'s self, file: &'s str, text: &'s str) -> Snippet<'s, Annotation<'s>> {
        let begin = self.range.start;
        let annotation = |part: &Part<'s>| {
            let kind = if part.label.is_none() { AnnotationKind::Primary } else { AnnotationKind::Context };
            kind.span(part.span.start - begin..part.span.end - begin).label(part.label)
        };
        Snippet::source(text).line_start(self.first_line).path(file).annotations(self.parts.iter().map(annotation))
    }
}

fn position_words(place: &Place, file: &str) -> String {
    match &place.position {
        Some(Position { line, column, .. }) => format!("at {file}:{line}:{column}"),
        None if place.pointer.is_empty() => format!("in {file}"),
        None => format!("in {file}, at {}", place.pointer),
    }
}
