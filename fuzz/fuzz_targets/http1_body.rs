//! Bodies from arbitrary bytes: no panic, the same content wherever the bytes were cut, and what is decoded is written
//! and read back as itself.
#![no_main]

use kakei_wire::http1::{Body, LAST_CHUNK, Piece, chunk_head};
use kakei_wire::message::Length;
use libfuzzer_sys::fuzz_target;

/// What came of a body: its content, and whether it ended, and behind which byte; none: it is malformed.
type Outcome = Option<(Vec<u8>, Option<usize>)>;

fn read(bytes: &[u8], step: usize, length: Length) -> Outcome {
    let mut body = Body::new(length, false);
    let (mut content, mut begin) = (Vec::new(), 0);
    while begin < bytes.len() {
        let end = (begin + step).min(bytes.len());
        let part = &bytes[begin..end];
        let mut at = 0;
        loop {
            match body.next(part, at).ok()? {
                Piece::Data { from, len } => {
                    content.extend_from_slice(&part[from..from + len]);
                    at = from + len;
                }
                Piece::Nothing => break,
                Piece::End { at } => {
                    let mut trailers = Vec::new();
                    body.write_trailers(|_| true, &mut trailers);
                    return Some((content, Some(begin + at)));
                }
            }
        }
        begin = end;
    }
    Some((content, None))
}

fuzz_target!(|data: &[u8]| {
    let [first, data @ ..] = data else { return };
    let length = if first & 1 == 0 { Length::Unknown } else { Length::Sized(u64::from(*first)) };
    let whole = read(data, usize::MAX >> 1, length);
    for step in [1, 2, 7, 1 + usize::from(*first)] {
        assert_eq!(read(data, step, length), whole, "pieces of {step} bytes change what was read");
    }
    let Some((content, Some(_))) = whole else { return };
    let mut again = Vec::new();
    for chunk in content.chunks(1 + usize::from(*first)) {
        chunk_head(chunk.len(), &mut again);
        again.extend_from_slice(chunk);
        again.extend_from_slice(b"\r\n");
    }
    again.extend_from_slice(LAST_CHUNK);
    let len = again.len();
    assert_eq!(read(&again, 3, Length::Unknown), Some((content, Some(len))));
});
