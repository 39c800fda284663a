//! Where a head ends. Looks at each byte once, however many pieces it comes in. Reads nothing else of it.

use memchr::memchr;

use super::head::{HeadError, Limits};

/// How far a head has been looked through.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Scan {
    /// Where the line begins that is looked through.
    line: usize,
    /// Bytes looked at.
    seen: usize,
    /// Whether the first line has ended.
    past_first: bool,
}

impl Scan {
    /// Whether anything was looked at.
    pub(super) fn has_begun(&self) -> bool {
        *self != Scan::default()
    }

    /// The length of the head at the begin of `bytes`, its empty line included; none: more is needed. `bytes` begins
    /// as at the call before, with more behind it.
    ///
    /// # Errors
    /// A line that ends without CR, or one or all of it being too long.
    pub fn find(&mut self, bytes: &[u8], limits: &Limits) -> Result<Option<usize>, HeadError> {
        while let Some(found) = memchr(b'\n', &bytes[self.seen..]) {
            let at = self.seen + found;
            if at == self.line || bytes[at - 1] != b'\r' {
                return Err(HeadError::BareLineFeed);
            }
            let is_empty = at - self.line == 1;
            self.seen = at + 1;
            if !self.past_first {
                if at - self.line > limits.line + 1 {
                    return Err(HeadError::LineTooLong);
                }
                if is_empty {
                    return Err(HeadError::EmptyLine);
                }
                self.past_first = true;
            } else if is_empty {
                return if self.seen > limits.head { Err(HeadError::TooLong) } else { Ok(Some(self.seen)) };
            }
            self.line = at + 1;
        }
        self.seen = bytes.len();
        if !self.past_first && bytes.len() > limits.line + 1 {
            return Err(HeadError::LineTooLong);
        }
        if bytes.len() >= limits.head {
            return Err(HeadError::TooLong);
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits { line: 20, head: 60, fields: 10 };

    #[test]
    fn pieces_change_nothing() {
        for head in ["GET / HTTP/1.1\r\nA: b\r\n\r\nrest", "GET / HTTP/1.1\r\n\r\n", "x\r\nb\n", "x\n", "\r\n\r\n"] {
            let whole = Scan::default().find(head.as_bytes(), &LIMITS);
            let mut scan = Scan::default();
            let dripped = (0..=head.len()).map(|len| scan.find(&head.as_bytes()[..len], &LIMITS));
            let dripped = dripped.into_iter().find(|found| *found != Ok(None)).unwrap_or(Ok(None));
            assert_eq!(whole, dripped, "{head:?}");
        }
    }

    #[test]
    fn what_is_too_long_is_said_as_soon_as_it_is() {
        let mut scan = Scan::default();
        assert_eq!(scan.find(&[b'a'; 20], &LIMITS), Ok(None));
        assert_eq!(scan.find(&[b'a'; 22], &LIMITS), Err(HeadError::LineTooLong));
        let mut long = b"GET / HTTP/1.1\r\n".to_vec();
        long.extend([b'a'; 50]);
        assert_eq!(Scan::default().find(&long, &LIMITS), Err(HeadError::TooLong));
    }
}
