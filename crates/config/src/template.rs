//! Texts with places for parts of what they are about: where in a text the places are. What may stand there, and what
//! takes its place, is not known here.

/// A piece of a template.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Piece<'a> {
    /// It stands for itself.
    Text(&'a str),
    /// What has this name stands here.
    Place(&'a str),
}

/// The pieces of a template, in their order: `{name}` is a place, `{{name}}` the text `{name}`, and every other bracket
/// is itself. A name is made of letters, digits, `_` and `-`.
pub fn pieces(template: &str) -> impl Iterator<Item = Piece<'_>> {
    let mut rest = template;
    std::iter::from_fn(move || {
        let (piece, len) = match bracketed(rest) {
            Some(found) => found,
            None => {
                let len = (1..rest.len()).find(|at| rest.is_char_boundary(*at) && bracketed(&rest[*at..]).is_some());
                let len = len.unwrap_or(rest.len());
                (Piece::Text(&rest[..len]), len)
            }
        };
        rest = &rest[len..];
        (len > 0).then_some(piece)
    })
}

/// The names of a template's places.
pub fn places(template: &str) -> impl Iterator<Item = &str> {
    pieces(template).filter_map(|piece| match piece {
        Piece::Place(name) => Some(name),
        Piece::Text(_) => None,
    })
}

/// What a text with a name in brackets begins with, and how much of it that is.
fn bracketed(text: &str) -> Option<(Piece<'_>, usize)> {
    let after = text.strip_prefix('{')?;
    let (pairs, named) = after.strip_prefix('{').map_or((1, after), |named| (2, named));
    let inside = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-');
    let len = named.bytes().take_while(|byte| inside(byte)).count();
    let whole = len + 2 * pairs;
    match (len, pairs) {
        (0, _) => None,
        (_, 1) => named[len..].starts_with('}').then_some((Piece::Place(&named[..len]), whole)),
        _ => named[len..].starts_with("}}").then(|| (Piece::Text(&text[1..whole - 1]), whole)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_in_brackets_are_places_and_all_else_is_text() {
        let read = |template| {
            let said = |piece| match piece {
                Piece::Text(text) => text.to_owned(),
                Piece::Place(name) => format!("<{name}>"),
            };
            pieces(template).map(said).collect::<String>()
        };
        let cases = [
            ("", ""),
            ("é", "é"),
            ("{path}", "<path>"),
            ("é{path}é{1}{a_b-C}", "é<path>é<1><a_b-C>"),
            ("{{path}}", "{path}"),
            ("a{{1}}{1}", "a{1}<1>"),
            ("{{{path}}}", "{{path}}"),
            ("{{path}", "{<path>"),
            ("{path}}", "<path>}"),
            ("{\"a\":{\"b\":{}}}", "{\"a\":{\"b\":{}}}"),
            ("{", "{"),
            ("{}", "{}"),
            ("{path", "{path"),
            ("{ path }{+1}{é}", "{ path }{+1}{é}"),
        ];
        for (template, meant) in cases {
            assert_eq!(read(template), meant, "{template}");
        }
        assert_eq!(places("{{a}}{b}{c").collect::<Vec<_>>(), ["b"]);
    }
}
