//! Credentials as `Basic` carries them (RFC 7617): a user and a password in base64. Strict: what could be read in two
//! ways is none.

/// Who a client says that it is, and the password that it shows for it.
#[derive(Clone, PartialEq, Eq)]
pub struct Basic {
    /// The user: text without `:` and without control characters; may be empty.
    pub user: String,
    /// The password, whatever bytes it has.
    pub password: Vec<u8>,
}

impl std::fmt::Debug for Basic {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Basic").field("user", &self.user).finish_non_exhaustive()
    }
}

impl Basic {
    /// What the value of `Authorization` says; none: it is of another scheme, or malformed.
    pub fn parse(value: &[u8]) -> Option<Basic> {
        let (scheme, rest) = value.split_at_checked(5)?;
        if !scheme.eq_ignore_ascii_case(b"basic") || rest.first() != Some(&b' ') {
            return None;
        }
        let mut user = decode(rest.trim_ascii())?;
        let colon = user.iter().position(|byte| *byte == b':')?;
        let password = user.split_off(colon + 1);
        user.pop();
        let user = String::from_utf8(user).ok()?;
        (!user.chars().any(char::is_control)).then_some(Basic { user, password })
    }
}

/// Base64 (RFC 4648 4), padded, with no bit that says nothing set: each text that is taken is the only one of its bytes.
fn decode(text: &[u8]) -> Option<Vec<u8>> {
    if !text.len().is_multiple_of(4) {
        return None;
    }
    let padding = text.iter().rev().take_while(|byte| **byte == b'=').count();
    let digits = text.get(..text.len() - padding)?;
    if padding > 2 {
        return None;
    }
    let mut out = Vec::with_capacity(text.len() / 4 * 3);
    let (mut bits, mut held) = (0u32, 0);
    for byte in digits {
        bits = bits << 6 | u32::from(sextet(*byte)?);
        held += 6;
        if held >= 8 {
            held -= 8;
            out.push((bits >> held) as u8);
            bits &= (1 << held) - 1;
        }
    }
    (bits == 0).then_some(out)
}

fn sextet(byte: u8) -> Option<u8> {
    match byte {
        b'A'..=b'Z' => Some(byte - b'A'),
        b'a'..=b'z' => Some(byte - b'a' + 26),
        b'0'..=b'9' => Some(byte - b'0' + 52),
        b'+' => Some(62),
        b'/' => Some(63),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn encode(bytes: &[u8]) -> String {
        let letters = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
        let mut text = String::new();
        for three in bytes.chunks(3) {
            let number =
                three.iter().fold(0u32, |number, byte| number << 8 | u32::from(*byte)) << (8 * (3 - three.len()));
            for at in 0..4 {
                let digit = letters[(number >> (18 - 6 * at) & 63) as usize] as char;
                text.push(if at <= three.len() { digit } else { '=' });
            }
        }
        text
    }

    #[test]
    fn credentials_are_read_as_rfc_7617_has_them() {
        let basic = |user: &str, password: &str| Some(Basic { user: user.into(), password: password.into() });
        assert_eq!(Basic::parse(b"Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ=="), basic("Aladdin", "open sesame"));
        assert_eq!(Basic::parse(b"bAsIc   dGVzdDoxMjPCow=="), basic("test", "123\u{a3}"));
        assert_eq!(Basic::parse(b"Basic YTpiOmM="), basic("a", "b:c"));
        assert_eq!(Basic::parse(b"Basic Og=="), basic("", ""));
    }

    #[test]
    fn what_is_no_pair_of_user_and_password_is_none() {
        let wrong: [&[u8]; 13] = [
            b"",
            b"Basic",
            b"Basic ",
            b"Bearer QWxhZGRpbjpvcGVuIHNlc2FtZQ==",
            b"BasicQWxhZGRpbjpvcGVuIHNlc2FtZQ==",
            b"Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ=",
            b"Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ",
            b"Basic QWxhZGRpbjpvcGVuIHNlc2FtZR==",
            b"Basic YTpi, Basic YTpi",
            b"Basic YQ==",
            b"Basic YQo6Yg==",
            b"Basic /zpi",
            b"Basic ====",
        ];
        for value in wrong {
            assert_eq!(Basic::parse(value), None, "{}", String::from_utf8_lossy(value));
        }
    }

    proptest! {
        #[test]
        fn any_user_and_password_come_back(user in "[^:\\p{Cc}]{0,20}", password: Vec<u8>) {
            let pair = [user.as_bytes(), b":", &password].concat();
            let read = Basic::parse(format!("Basic {}", encode(&pair)).as_bytes());
            prop_assert_eq!(read, Some(Basic { user, password }));
        }

        #[test]
        fn no_value_breaks_it_and_each_has_one_spelling(text: Vec<u8>) {
            if let Some(bytes) = decode(&text) {
                prop_assert_eq!(encode(&bytes).into_bytes(), text.clone());
            }
            let _ = Basic::parse(&[b"Basic ", &text[..]].concat());
        }
    }
}
