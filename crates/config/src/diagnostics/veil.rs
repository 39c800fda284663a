//! Secrets in the text of a document: errors are drawn and told where many read them, in logs too. Where one may stand
//! there are stars, as many as it has bytes, so that places stay where they are.

/// As long as that is no run of base64 a word, or a path: a private key is longer.
const LONGEST_WORD: usize = 40;
/// What passwords' hashes begin with.
const HASHES: [&str; 4] = ["$argon2", "$2a$", "$2b$", "$2y$"];

/// The same text, as long.
pub(super) fn veiled(text: &str) -> String {
    text.split_inclusive('\n').map(line).collect()
}

/// Whether a value may be a secret by what it looks like.
pub(crate) fn is_telling(text: &str) -> bool {
    let longest = text.split(|c| !in_base64(c)).filter(|run| is_mixed(run)).map(str::len).max();
    text.contains("-----BEGIN ")
        || text.contains("PRIVATE KEY")
        || HASHES.iter().any(|begin| text.contains(begin))
        || longest.is_some_and(|longest| longest >= LONGEST_WORD)
}

/// Whether what stands at that place is a secret, or what somebody took for the place of one.
pub(crate) fn is_secret(pointer: &str) -> bool {
    let steps: Vec<&str> = pointer.split('/').skip(1).collect();
    matches!(
        &steps[..],
        ["certificates", _, "key"]
            | [.., "sticky" | "secret"]
            | ["routes", _, "auth"]
            | ["routes", _, "auth", "basic"]
            | ["routes", _, "auth", "basic", "users", ..]
    )
}

/// Stars in the place of text.
pub(super) fn stars(text: &str) -> String {
    "*".repeat(text.len())
}

fn line(line: &str) -> String {
    let mut drawn = String::with_capacity(line.len());
    while let Some(open) = line[drawn.len()..].find(['"', '\'']) {
        let at = drawn.len() + open + 1;
        drawn.push_str(&line[drawn.len()..at]);
        let inside = &line[at..at + length(&line[at..], line.as_bytes()[at - 1])];
        match is_value_of_secret(&line[..at - 1]) || is_telling(inside) {
            true => drawn.push_str(&stars(inside)),
            false => drawn.push_str(inside),
        }
        // The quote that closes it.
        drawn.extend(line[drawn.len()..].chars().next());
    }
    let rest = &line[drawn.len()..];
    match is_telling(rest) {
        true => drawn.extend(rest.chars().map(|c| if in_base64(c) { '*' } else { c })),
        false => drawn.push_str(rest),
    }
    drawn
}

/// How far the inside of a string goes.
fn length(text: &str, quote: u8) -> usize {
    let mut is_escaped = false;
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            b'\n' => return at,
            _ if byte == quote && !is_escaped => return at,
            _ => is_escaped = byte == b'\\' && quote == b'"' && !is_escaped,
        }
    }
    text.len()
}

/// Whether a value that stands behind this is a secret, or one of the users of `auth.basic`.
fn is_value_of_secret(before: &str) -> bool {
    let before = before.trim_end();
    let Some(key) = before.strip_suffix(['=', ':']) else { return false };
    let key = key.trim_end().trim_end_matches(['"', '\'']);
    let among_users = key.rfind("users").map(|at| &key[at..]).is_some_and(|rest| {
        let count = |brace| rest.matches(brace).count();
        rest == "users" || count('{') > count('}')
    });
    key.ends_with("secret") || among_users
}

fn in_base64(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '+' | '/' | '=')
}

/// Whether letters of both kinds and digits are mixed, as in what is computed.
fn is_mixed(run: &str) -> bool {
    run.contains(|c: char| c.is_ascii_digit())
        && run.contains(|c: char| c.is_ascii_lowercase())
        && run.contains(|c: char| c.is_ascii_uppercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_stars_and_everything_else_stays() {
        let cases = [
            ("secret = \"TOP \\\" SECRET\", cookie = \"c\"", "secret = \"*************\", cookie = \"c\""),
            ("{\"secret\": \"x\", \"secrets\": \"y\"}", "{\"secret\": \"*\", \"secrets\": \"y\"}"),
            ("users = { ann = 'hunter2', \"bob\" = \"é\" }\n", "users = { ann = '*******', \"bob\" = \"**\" }\n"),
            ("users = { ann = \"x\" }, path = \"y\"", "users = { ann = \"*\" }, path = \"y\""),
            ("hash = \"$2b$12$abc\"", "hash = \"**********\""),
            ("key = \"-----BEGIN EC\\nMIG\" # x", "key = \"******************\" # x"),
            ("key = \"/etc/kakei/tls/production/certificates/site.key\"", ""),
            ("bind = [\"127.0.0.1:53\"] # an open \"string", ""),
        ];
        for (text, expected) in cases {
            let drawn = veiled(text);
            assert_eq!(drawn, if expected.is_empty() { text } else { expected });
            assert_eq!(drawn.len(), text.len());
        }
    }

    #[test]
    fn a_line_of_a_key_is_told_from_a_path() {
        let body = "MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQg";
        assert_eq!(veiled(&format!("{body}\n  {body}\n")), format!("{}\n  {}\n", stars(body), stars(body)));
        assert!(is_telling(body) && !is_telling("/etc/kakei/certificates/of/production/2026/site"));
        assert!(is_secret("/certificates/a/key") && is_secret("/routes/r/auth/basic/users/ann"));
        assert!(is_secret("/clusters/c/http/sticky") && !is_secret("/certificates/a/chain"));
    }
}
