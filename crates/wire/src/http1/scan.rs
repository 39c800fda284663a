//! Where a head ends. Looks at each byte once, however many pieces it comes in. Reads nothing else of it.

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
    /// The length of the head at the begin of `bytes`, its empty line included; none: more is needed. `bytes` begins
    /// as at the call before, with more behind it.
    ///
    /// # Errors
    /// A line that ends without CR, or one or all of it being too long.
    pub fn find(&mut self, bytes: &[u8], limits: &Limits) -> Result<Option<usize>, HeadError> {
        for at in LineFeeds::behind(bytes, self.seen) {
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

/// Where LFs stand, found eight bytes at a time: lines of heads are so short that a search by wide registers, begun anew
/// for each, costs more than it finds.
struct LineFeeds<'a> {
    bytes: &'a [u8],
    /// Behind the eight bytes that were looked at last.
    next: usize,
    /// The highest bit of each of them that is an LF which wasn't told yet.
    found: u64,
}

impl<'a> LineFeeds<'a> {
    fn behind(bytes: &'a [u8], from: usize) -> Self {
        LineFeeds { bytes, next: from, found: 0 }
    }
}

impl Iterator for LineFeeds<'_> {
    type Item = usize;

    fn next(&mut self) -> Option<usize> {
        while self.found == 0 {
            let rest = self.bytes.get(self.next..).filter(|rest| !rest.is_empty())?;
            let word = rest.first_chunk().copied().unwrap_or_else(|| {
                let mut word = [0; 8];
                word[..rest.len()].copy_from_slice(rest);
                word
            });
            self.found = line_feeds(word);
            self.next += 8;
        }
        let at = self.next - 8 + self.found.trailing_zeros() as usize / 8;
        self.found &= self.found - 1;
        Some(at)
    }
}

/// The highest bit of each byte that is an LF.
fn line_feeds(word: [u8; 8]) -> u64 {
    const LINE_FEEDS: u64 = u64::from_ne_bytes([b'\n'; 8]);
    const LOW_SEVEN: u64 = u64::from_ne_bytes([0x7f; 8]);
    // Zero where there is one; and only there no bit reaches or is the highest.
    let differs = u64::from_le_bytes(word) ^ LINE_FEEDS;
    !((differs & LOW_SEVEN) + LOW_SEVEN | differs | LOW_SEVEN)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits { line: 20, head: 60, fields: 10 };

    #[test]
    fn every_line_feed_is_found_wherever_it_stands_and_nothing_else() {
        for (len, at) in (0..40).flat_map(|len| (0..=len).map(move |at| (len, at))) {
            for (other, step) in [0, b'\n' - 1, b'\n' + 1, 0x80 | b'\n', 0xff].into_iter().zip([1, 2, 3, 5, 9]) {
                let mut bytes = vec![other; len];
                let truth: Vec<usize> = (at..len).step_by(step).collect();
                truth.iter().for_each(|at| bytes[*at] = b'\n');
                for from in 0..=at {
                    assert_eq!(LineFeeds::behind(&bytes, from).collect::<Vec<_>>(), truth, "{bytes:?}");
                }
            }
        }
    }

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
