//! From byte offsets to lines and columns, for people. Knows nothing of any syntax.

use std::ops::Range;

use super::Position;

/// Where the lines of a text begin.
pub(super) struct Lines<'a> {
    text: &'a str,
    starts: Vec<usize>,
}

impl<'a> Lines<'a> {
    pub(super) fn of(text: &'a str) -> Self {
        let newlines = text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n');
        Lines { text, starts: std::iter::once(0).chain(newlines.map(|(at, _)| at + 1)).collect() }
    }

    /// The position of a span, which is cut to its first line and to whole characters.
    pub(super) fn position(&self, span: Range<usize>) -> Position {
        let start = floor(self.text, span.start);
        let line = self.starts.partition_point(|begin| *begin <= start);
        let begin = self.starts[line - 1];
        let rest = &self.text[start..];
        let line_end = start + rest.find('\n').unwrap_or(rest.len());
        let end = floor(self.text, span.end.clamp(start, line_end));
        Position { span: start..end, line, column: self.text[begin..start].chars().count() + 1 }
    }
}

fn floor(text: &str, at: usize) -> usize {
    text.floor_char_boundary(at.min(text.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_count_characters_and_stay_on_one_line() {
        let lines = Lines::of("a = 1\nü = [\n 2]\n");
        let at = |span| {
            let position = lines.position(span);
            (position.line, position.column, position.span)
        };
        assert_eq!(at(0..1), (1, 1, 0..1));
        assert_eq!(at(9..16), (2, 3, 9..12));
        assert_eq!(at(7..8), (2, 1, 6..8));
        assert_eq!(at(900..901), (4, 1, 17..17));
    }
}
