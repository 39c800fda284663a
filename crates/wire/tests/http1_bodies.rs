//! A body that is written down in the middle and read back is read on as if nothing had happened.

use kakei_wire::http1::{Body, BodyError, Piece};
use kakei_wire::message::Length;
use proptest::prelude::*;

/// The content of a body that comes in these pieces, how many bytes were its own, and what its trailers say; written down
/// between the pieces or not.
fn read(mut body: Body, pieces: &[&[u8]], by_text: bool) -> (Vec<u8>, Vec<u8>, bool) {
    let (mut content, mut trailers, mut has_ended) = (Vec::new(), Vec::new(), false);
    for piece in pieces {
        let mut at = 0;
        while let Ok(found) = body.next(piece, at) {
            match found {
                Piece::Data { from, len } => {
                    content.extend_from_slice(&piece[from..from + len]);
                    at = from + len;
                }
                Piece::Nothing => break,
                Piece::End { .. } => {
                    body.write_trailers(|_| true, &mut trailers);
                    has_ended = true;
                    break;
                }
            }
        }
        if has_ended {
            break;
        }
        assert!(body.is_sound(), "{body:?}");
        if by_text {
            let text = serde_json::to_string(&body).expect("a body is data");
            body = serde_json::from_str(&text).expect("it was just written");
        }
    }
    (content, trailers, has_ended)
}

proptest! {
    #[test]
    fn writing_down_changes_nothing(
        chunks in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 1..40), 0..6),
        extension in "(;[a-z]{0,5})?",
        trailer in "(X-Sum: [a-z]{1,5}\r\n)?",
        cuts in proptest::collection::vec(0usize..400, 0..12),
    ) {
        let mut bytes = Vec::new();
        for chunk in &chunks {
            bytes.extend(format!("{:x}{extension}\r\n", chunk.len()).into_bytes());
            bytes.extend_from_slice(chunk);
            bytes.extend_from_slice(b"\r\n");
        }
        bytes.extend(format!("0\r\n{trailer}\r\n").into_bytes());
        let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(bytes.len())).chain([0, bytes.len()]).collect();
        cuts.sort_unstable();
        let pieces: Vec<&[u8]> = cuts.windows(2).map(|two| &bytes[two[0]..two[1]]).collect();
        let whole = read(Body::new(Length::Unknown, false), &[&bytes], false);
        prop_assert_eq!(&whole.0, &chunks.concat());
        prop_assert_eq!((&whole.1, whole.2), (&trailer.clone().into_bytes(), true));
        prop_assert_eq!(read(Body::new(Length::Unknown, false), &pieces, true), whole);
        let sized = Body::new(Length::Sized(bytes.len() as u64), false);
        prop_assert_eq!(read(sized, &pieces, true).0, bytes);
    }
}

#[test]
fn more_trailers_than_may_be_are_an_error_and_none_is_lost_without_a_word() {
    for count in [0usize, 1, 63, 64, 65, 200] {
        let trailers: String = (0..count).map(|at| format!("X-T{at}: {at}\r\n")).collect();
        let text = format!("1\r\na\r\n0\r\n{trailers}\r\n");
        let mut body = Body::new(Length::Unknown, false);
        let (mut at, bytes) = (0, text.as_bytes());
        let end = loop {
            match body.next(bytes, at) {
                Ok(Piece::Data { from, len }) => at = from + len,
                other => break other,
            }
        };
        let mut out = Vec::new();
        body.write_trailers(|_| true, &mut out);
        if count > 64 {
            assert_eq!((end, BodyError::TooManyTrailers.status()), (Err(BodyError::TooManyTrailers), 431));
        } else {
            assert_eq!((end, out), (Ok(Piece::End { at: bytes.len() }), trailers.into_bytes()), "{count}");
        }
    }
}

#[test]
fn what_no_reading_comes_to_is_not_sound() {
    let body = |state: &str, left: u64| -> Body {
        let text =
            format!(r#"{{"chunked":{{"state":{state},"left":{left},"extensions":0,"trailers":[],"fields":0}}}}"#);
        serde_json::from_str(&text).expect("it is what a body is written as")
    };
    for (state, left, is_sound) in [
        (r#""data""#, 5, true),
        (r#""data""#, 0, false),
        (r#""data_cr""#, 5, false),
        (r#""line""#, 1, false),
        (r#"{"size":0}"#, 1, false),
        (r#"{"size":2}"#, 17, true),
        (r#"{"size":16}"#, 17, false),
        (r#""size_end""#, 1 << 62, false),
    ] {
        assert_eq!(body(state, left).is_sound(), is_sound, "{state} {left}");
    }
}
