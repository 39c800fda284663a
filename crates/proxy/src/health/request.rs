//! A check by HTTP: what is asked, and whether what came so far is a good answer. Opens nothing, sends nothing.

use kakei_config::HttpCheck;
use kakei_wire::http1::{Body, Heads, Limits, MAX_FIELDS, Piece, Scan};

use crate::seam::Endpoint;

/// Bytes of an answer that are looked at.
const MOST: usize = 64 << 10;
const LIMITS: Limits = Limits { line: MOST, head: MOST, fields: MAX_FIELDS };

/// What is asked of a backend.
pub(super) fn write(check: &HttpCheck, remote: &Endpoint) -> Vec<u8> {
    let host = match (&check.host, remote) {
        (Some(host), _) => host.clone(),
        (None, Endpoint::Ip(address)) => address.to_string(),
        (None, Endpoint::Unix(_)) => "localhost".to_owned(),
    };
    let mut request = format!("{} {} HTTP/1.1\r\nHost: {host}\r\n", check.method, check.path);
    if !check.headers.keys().any(|name| name.eq_ignore_ascii_case("user-agent")) {
        request.push_str("User-Agent: kakei-health\r\n");
    }
    for (name, value) in &check.headers {
        request.push_str(&format!("{name}: {value}\r\n"));
    }
    request.push_str("Connection: close\r\n\r\n");
    request.into_bytes()
}

/// Whether all that came so far is a good answer; none: more must come before that can be said.
pub(super) fn judge(check: &HttpCheck, received: &[u8], has_ended: bool) -> Option<bool> {
    let unknown = (has_ended || received.len() >= MOST).then_some(false);
    let mut at = 0;
    loop {
        let len = match Scan::default().find(&received[at..], &LIMITS) {
            Err(_) => return Some(false),
            Ok(None) => return unknown,
            Ok(Some(len)) => len,
        };
        let mut heads = Heads::default();
        let Ok(head) = heads.response(&received[at..at + len], &LIMITS, &check.method) else { return Some(false) };
        at += len;
        let status = head.response.status;
        if (100..200).contains(&status) && status != 101 {
            continue;
        }
        if !check.status.iter().any(|range| range.contains(status)) {
            return Some(false);
        }
        let Some(prefix) = &check.body_prefix else { return Some(true) };
        let mut body = Body::new(head.response.length, head.until_close);
        let mut content = Vec::new();
        loop {
            match body.next(received, at) {
                Ok(Piece::Data { from, len }) => {
                    content.extend_from_slice(&received[from..from + len]);
                    at = from + len;
                }
                Ok(Piece::Nothing) if content.len() < prefix.len() && prefix.as_bytes().starts_with(&content) => {
                    return unknown;
                }
                Ok(_) => return Some(content.starts_with(prefix.as_bytes())),
                Err(_) => return Some(false),
            }
        }
    }
}

/// The status of a response that begins so, where it says one.
pub(crate) fn status(received: &[u8]) -> Option<u16> {
    let digits = received.strip_prefix(b"HTTP/1.")?.get(2..5)?;
    std::str::from_utf8(digits).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_judged_as_soon_as_it_can_be() {
        let plain = HttpCheck::default();
        let prefix = HttpCheck { body_prefix: Some("ok".into()), ..HttpCheck::default() };
        let said = |check: &HttpCheck, text: &str| judge(check, text.as_bytes(), false);
        assert_eq!(said(&plain, "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n"), Some(true));
        assert_eq!(said(&plain, "HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n"), Some(false));
        assert_eq!(said(&plain, "HTTP/1.1 103 Hints\r\n\r\nHTTP/1.1 204 Yes\r\n\r\n"), Some(true));
        assert_eq!(said(&plain, "HTTP/1.1 20"), None);
        assert_eq!(said(&plain, "220 smtp\n"), Some(false));
        assert_eq!(judge(&plain, b"HTTP/1.1 20", true), Some(false));
        let head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
        assert_eq!(said(&prefix, &format!("{head}1\r\no")), None);
        assert_eq!(said(&prefix, &format!("{head}1\r\no\r\n5\r\nk, so")), Some(true));
        assert_eq!(said(&prefix, &format!("{head}1\r\nx")), Some(false));
        assert_eq!(said(&prefix, &format!("{head}0\r\n\r\n")), Some(false));
    }
}
