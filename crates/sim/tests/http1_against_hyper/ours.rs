//! How `kakei_wire` reads the bytes of a client, as the proxy drives it.

use kakei_wire::http1::{Body, Heads, Limits, Piece, RequestHead, Scan, Version};

use super::{Message, Reading, Why};

/// As hyper's own, as far as it has them.
const LIMITS: Limits = Limits { line: 8 << 10, head: 64 << 10, fields: 100 };

/// Every request of the bytes, until they end, the connection would, or something is refused.
pub(crate) fn read(bytes: &[u8]) -> Reading {
    let (mut messages, mut heads, mut at) = (Vec::new(), Heads::default(), 0);
    loop {
        // Empty lines before a request are passed over.
        while bytes[at..].starts_with(b"\r\n") {
            at += 2;
        }
        let rest = &bytes[at..];
        let len = match Scan::default().find(rest, &LIMITS) {
            Ok(Some(len)) => len,
            Ok(None) => return Reading { messages, refused: None, closes: false },
            Err(error) => return Reading { messages, refused: Some(Why::Head(error)), closes: false },
        };
        let (message, body, goes_on) = match heads.request(&rest[..len], &LIMITS) {
            Ok(head) => (message(&head), Body::new(head.request.length, false), goes_on(&head)),
            Err(error) => return Reading { messages, refused: Some(Why::Head(error)), closes: false },
        };
        match content(body, rest, len) {
            Ok(Some((body, end))) => {
                messages.push(Message { body, ..message });
                at += end;
            }
            Ok(None) => return Reading { messages, refused: None, closes: false },
            Err(why) => return Reading { messages, refused: Some(why), closes: false },
        }
        if !goes_on {
            return Reading { messages, refused: None, closes: true };
        }
    }
}

/// A body's content and its end; none: it is cut off.
fn content(mut body: Body, bytes: &[u8], mut at: usize) -> Result<Option<(Vec<u8>, usize)>, Why> {
    let mut content = Vec::new();
    loop {
        match body.next(bytes, at).map_err(Why::Body)? {
            Piece::Data { from, len } => {
                content.extend_from_slice(&bytes[from..from + len]);
                at = from + len;
            }
            Piece::Nothing => return Ok(None),
            Piece::End { at } => return Ok(Some((content, at))),
        }
    }
}

fn message(head: &RequestHead<'_>) -> Message {
    let request = head.request;
    let query = request.query.map(|query| format!("?{query}")).unwrap_or_default();
    let mut message = Message {
        method: request.method.to_owned(),
        authority: (head.is_absolute || request.method == "CONNECT").then(|| request.authority.to_owned()),
        target: format!("{}{query}", request.path),
        is_old: head.version == Version::Http10,
        ..Message::default()
    };
    for field in request.fields.iter() {
        let name = String::from_utf8_lossy(request.fields.name(field)).to_ascii_lowercase();
        message.fields.entry(name).or_default().push(request.fields.value(field).to_vec());
    }
    message
}

/// Whether another request may follow.
fn goes_on(head: &RequestHead<'_>) -> bool {
    let connection = head.connection;
    let kept = !connection.close && (head.version == Version::Http11 || connection.keep_alive);
    kept && head.request.method != "CONNECT"
}
