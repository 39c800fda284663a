//! Control messages as the kernel lays them out, read and written as bytes: a header (length as `size_t`, level,
//! type), the data, padding to a multiple of `size_t`.

const WORD: usize = size_of::<usize>();
const HEADER: usize = WORD + 8;

const fn align(len: usize) -> usize {
    len.div_ceil(WORD) * WORD
}

/// Room for control messages.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(8))]
pub(crate) struct Control<const N: usize> {
    raw: [u8; N],
}

impl<const N: usize> Control<N> {
    pub(crate) const EMPTY: Self = Control { raw: [0; N] };

    /// Append a message at `at`; the offset after it. What does not fit is a bug of ours and is not written.
    pub(crate) fn put(&mut self, at: usize, (level, kind): (i32, i32), data: &[u8]) -> usize {
        let end = at + HEADER + align(data.len());
        debug_assert!(end <= N, "control messages fit their buffer");
        let Some(room) = self.raw.get_mut(at..end) else { return at };
        let (header, body) = room.split_at_mut(HEADER);
        header[..WORD].copy_from_slice(&(HEADER + data.len()).to_ne_bytes());
        header[WORD..WORD + 4].copy_from_slice(&level.to_ne_bytes());
        header[WORD + 4..].copy_from_slice(&kind.to_ne_bytes());
        body[..data.len()].copy_from_slice(data);
        end
    }

    /// The messages in the first `len` bytes.
    pub(crate) fn messages(&self, len: usize) -> Messages<'_> {
        Messages { rest: &self.raw[..len.min(N)] }
    }
}

/// Level, type and data of each message.
pub(crate) struct Messages<'a> {
    rest: &'a [u8],
}

impl<'a> Iterator for Messages<'a> {
    type Item = ((i32, i32), &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let header = self.rest.get(..HEADER)?;
        let len = usize::from_ne_bytes(*header.first_chunk()?);
        let level = i32::from_ne_bytes(*header[WORD..].first_chunk()?);
        let kind = i32::from_ne_bytes(*header[WORD + 4..].first_chunk()?);
        let data = self.rest.get(HEADER..len)?;
        self.rest = self.rest.get(align(len)..).unwrap_or(&[]);
        Some(((level, kind), data))
    }
}

const _: () = assert!(size_of::<libc::cmsghdr>() == HEADER);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_put_is_read() {
        let mut control = Control::<64>::EMPTY;
        let at = control.put(0, (17, 103), &1200u16.to_ne_bytes());
        let end = control.put(at, (0, 8), &[1; 12]);
        let read: Vec<_> = control.messages(end).collect();
        assert_eq!(read, [((17, 103), &1200u16.to_ne_bytes()[..]), ((0, 8), &[1u8; 12][..])]);
        assert_eq!(control.messages(at).count(), 1);
    }

    #[test]
    fn a_length_that_lies_ends_the_walk() {
        let mut control = Control::<64>::EMPTY;
        control.raw[..WORD].copy_from_slice(&usize::MAX.to_ne_bytes());
        assert_eq!(control.messages(64).count(), 0);
        control.raw[..WORD].copy_from_slice(&1usize.to_ne_bytes());
        assert_eq!(control.messages(64).count(), 0);
    }
}
