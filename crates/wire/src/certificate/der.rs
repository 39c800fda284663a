//! DER (X.690): elements one after the other. Lengths are believed as far as there are bytes.

use super::Malformed;

/// What is left to be read.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reader<'a>(pub(super) &'a [u8]);

/// One element.
#[derive(Clone, Copy, Debug)]
pub(super) struct Element<'a> {
    pub(super) tag: u8,
    pub(super) content: &'a [u8],
    /// All of it, its head included.
    pub(super) whole: &'a [u8],
}

impl<'a> Reader<'a> {
    /// The next element; none: there are no more.
    pub(super) fn next(&mut self) -> Result<Option<Element<'a>>, Malformed> {
        let whole = self.0;
        let Some((&tag, rest)) = whole.split_first() else { return Ok(None) };
        // Tags of more than one byte are in no certificate.
        if tag & 0x1f == 0x1f {
            return Err(Malformed);
        }
        let (&first, rest) = rest.split_first().ok_or(Malformed)?;
        let (len, rest) = match first {
            0..=0x7f => (usize::from(first), rest),
            0x81..=0x83 => {
                let (bytes, rest) = rest.split_at_checked(usize::from(first & 0x7f)).ok_or(Malformed)?;
                (bytes.iter().fold(0, |len, byte| len << 8 | usize::from(*byte)), rest)
            }
            _ => return Err(Malformed),
        };
        let (content, rest) = rest.split_at_checked(len).ok_or(Malformed)?;
        self.0 = rest;
        Ok(Some(Element { tag, content, whole: &whole[..whole.len() - rest.len()] }))
    }

    /// The content of the next element, which must be of this kind.
    pub(super) fn one(&mut self, tag: u8) -> Result<&'a [u8], Malformed> {
        let element = self.next()?.filter(|element| element.tag == tag);
        element.map(|element| element.content).ok_or(Malformed)
    }

    /// The same, if it is of this kind.
    pub(super) fn maybe(&mut self, tag: u8) -> Result<Option<&'a [u8]>, Malformed> {
        match self.0.first() {
            Some(first) if *first == tag => self.one(tag).map(Some),
            _ => Ok(None),
        }
    }
}
