//! What is a head and what isn't, one line each; and that no two readings of one are possible.

use kakei_wire::http1::{HeadError, Heads, Limits, RequestHead, Scan, Version};
use kakei_wire::message::{Fields, Known, Length};
use proptest::prelude::*;

const LIMITS: Limits = Limits { line: 200, head: 2_000, fields: 8 };

fn read<T>(text: &str, check: impl FnOnce(&RequestHead<'_>) -> T) -> Result<T, HeadError> {
    let bytes = text.as_bytes();
    let len = Scan::default().find(bytes, &LIMITS)?.expect("the head is whole");
    Heads::default().request(&bytes[..len], &LIMITS).map(|head| check(&head))
}

fn refused(text: &str) -> HeadError {
    read(text, |_| ()).expect_err(text)
}

/// A request with these fields beside `Host`.
fn with(fields: &str) -> String {
    format!("POST / HTTP/1.1\r\nHost: a\r\n{fields}\r\n")
}

#[test]
fn lengths_that_could_be_read_in_two_ways_are_refused() {
    let length = |fields: &str| read(&with(fields), |head| head.request.length);
    assert_eq!(length("Content-Length: 5\r\n"), Ok(Length::Sized(5)));
    assert_eq!(length("Content-Length: 0\r\n"), Ok(Length::None));
    assert_eq!(length("Transfer-Encoding: chunked\r\n"), Ok(Length::Unknown));
    assert_eq!(length("transfer-encoding: CHUNKED\r\n"), Ok(Length::Unknown));
    assert_eq!(length(""), Ok(Length::None));
    for value in ["+5", "-5", "5, 5", "5 5", "0x5", "5.", "", "five", "18446744073709551616", "5;", "\"5\""] {
        assert_eq!(length(&format!("Content-Length: {value}\r\n")), Err(HeadError::ContentLength), "{value:?}");
    }
    assert_eq!(length("Content-Length: 5\r\nContent-Length: 5\r\n"), Err(HeadError::ContentLength));
    assert_eq!(length("Content-Length: 5\r\nTransfer-Encoding: chunked\r\n"), Err(HeadError::TwoLengths));
    assert_eq!(length("Transfer-Encoding: chunked\r\ncontent-LENGTH: 0\r\n"), Err(HeadError::TwoLengths));
    for value in ["chunked, chunked", "", "chunked;", "\"chunked\"", "chun ked", "chunked\u{7f}", "chunked, \u{b}"] {
        let said = length(&format!("Transfer-Encoding: {value}\r\n"));
        assert!(matches!(said, Err(HeadError::TransferEncoding | HeadError::Field)), "{value:?}: {said:?}");
    }
    for value in ["xchunked", "gzip, chunked", "identity", "chunked, identity", "chunked-false"] {
        assert_eq!(length(&format!("Transfer-Encoding: {value}\r\n")), Err(HeadError::UnknownCoding), "{value:?}");
    }
    assert_eq!(
        length("Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n"),
        Err(HeadError::TransferEncoding)
    );
    let old = "POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n";
    assert_eq!(refused(old), HeadError::TransferEncoding);
}

#[test]
fn lines_are_what_they_must_be() {
    for text in [
        "GET / HTTP/1.1\nHost: a\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nX: y\n\r\n",
    ] {
        assert_eq!(refused(text), HeadError::BareLineFeed, "{text:?}");
    }
    for fields in
        ["X : y\r\n", " X: y\r\n", "X: y\r\n z\r\n", "X: \u{0}\r\n", ": y\r\n", "X\r\n", "X: a\rb\r\n", "X(: y\r\n"]
    {
        assert_eq!(refused(&with(fields)), HeadError::Field, "{fields:?}");
    }
    for (line, error) in [
        ("GET /", HeadError::FirstLine),
        ("GET / HTTP/1.2", HeadError::Version),
        ("GET / HTTP/2.0", HeadError::Version),
        ("GET / HTTP/0.9", HeadError::Version),
        ("GET / http/1.1", HeadError::FirstLine),
        ("GET / HTTP/1.1x", HeadError::FirstLine),
        ("GET  / HTTP/1.1", HeadError::FirstLine),
        ("GET /a b", HeadError::FirstLine),
        ("G(T / HTTP/1.1", HeadError::FirstLine),
        ("GET /# HTTP/1.1", HeadError::Target),
        ("GET a HTTP/1.1", HeadError::Target),
        ("GET * HTTP/1.1", HeadError::Target),
        ("GET ftp://a/ HTTP/1.1", HeadError::Target),
        ("GET http:// HTTP/1.1", HeadError::Target),
        ("GET http://u@a/ HTTP/1.1", HeadError::Target),
        ("CONNECT a HTTP/1.1", HeadError::Target),
        ("CONNECT / HTTP/1.1", HeadError::Target),
    ] {
        let said = refused(&format!("{line}\r\nHost: a\r\n\r\n"));
        assert_eq!(said.status(), error.status(), "{line}: {said:?}");
    }
}

#[test]
fn there_is_one_host() {
    for fields in [
        "",
        "Host: a\r\nHost: a\r\n",
        "Host: a b\r\n",
        "Host: a@b\r\n",
        "Host: a/b\r\n",
        "Host: a:x\r\n",
        "Host: \r\nX: y\r\n",
    ] {
        let said = read(&format!("GET / HTTP/1.1\r\n{fields}\r\n"), |head| head.request.authority.to_owned());
        let is_right = said == Err(HeadError::Host) || fields.starts_with("Host: \r\n") && said == Err(HeadError::Host);
        assert!(is_right, "{fields:?}: {said:?}");
    }
    let host = |text: &str| read(text, |head| (head.request.authority.to_owned(), head.is_absolute));
    assert_eq!(host("GET / HTTP/1.0\r\n\r\n"), Ok((String::new(), false)));
    assert_eq!(host("GET http://b:81/x HTTP/1.1\r\nHost: a\r\n\r\n"), Ok(("b:81".into(), true)));
    assert_eq!(host("GET http://b?q HTTP/1.1\r\nHost: a\r\n\r\n"), Ok(("b".into(), true)));
    let target = |text: &str| read(text, |head| (head.request.path.to_owned(), head.request.query.map(str::to_owned)));
    assert_eq!(target("GET http://b?q HTTP/1.1\r\nHost: a\r\n\r\n"), Ok(("/".into(), Some("q".into()))));
    assert_eq!(target("OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n"), Ok(("*".into(), None)));
    assert_eq!(target("CONNECT a:443 HTTP/1.1\r\nHost: a\r\n\r\n"), Ok((String::new(), None)));
}

#[test]
fn bounds_are_kept_and_answered_by_their_status() {
    let long = format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "a".repeat(200));
    assert_eq!(refused(&long).status(), 414);
    assert_eq!(refused(&with(&format!("X: {}\r\n", "a".repeat(2_000)))).status(), 431);
    assert_eq!(refused(&with(&"X: y\r\n".repeat(8))).status(), 431);
    assert_eq!(refused(&with("Expect: 200-ok\r\n")).status(), 417);
    assert_eq!(refused(&with("Transfer-Encoding: gzip\r\n")).status(), 501);
    assert_eq!(refused("GET / HTTP/2.0\r\nHost: a\r\n\r\n").status(), 505);
    assert_eq!(read(&with("Expect: 100-Continue\r\n"), |head| head.expects_continue), Ok(true));
}

#[test]
fn responses_have_the_bodies_that_they_must_have() {
    let length = |method: &str, text: &str| {
        let bytes = text.as_bytes();
        let mut heads = Heads::default();
        heads.response(bytes, &LIMITS, method).map(|head| (head.response.length, head.until_close))
    };
    let sized = "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n";
    assert_eq!(length("GET", sized), Ok((Length::Sized(3), false)));
    assert_eq!(length("HEAD", sized), Ok((Length::None, false)));
    assert_eq!(length("CONNECT", sized), Ok((Length::None, false)));
    assert_eq!(length("GET", "HTTP/1.1 200 OK\r\n\r\n"), Ok((Length::Unknown, true)));
    assert_eq!(length("GET", "HTTP/1.1 204 No\r\nTransfer-Encoding: chunked\r\n\r\n"), Ok((Length::None, false)));
    assert_eq!(length("GET", "HTTP/1.1 304 No\r\nContent-Length: 9\r\n\r\n"), Ok((Length::None, false)));
    for text in [
        "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 3\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n",
        "HTTP/1.1 20 OK\r\n\r\n",
        "HTTP/1.1 2000 OK\r\n\r\n",
        "HTTP/1.1 099 OK\r\n\r\n",
        "HTTP/2 200 OK\r\n\r\n",
        "ICY 200 OK\r\n\r\n",
        "HTTP/1.1 200 OK\r\nX : y\r\n\r\n",
    ] {
        assert!(length("GET", text).is_err(), "{text:?}");
    }
}

#[test]
fn a_response_that_announces_a_body_where_there_is_none_is_the_last_one_of_its_connection() {
    let keeps = |method: &str, status: u16, fields: &str| {
        let text = format!("HTTP/1.1 {status} Said\r\n{fields}\r\n");
        Heads::default().response(text.as_bytes(), &LIMITS, method).map(|head| head.keeps())
    };
    let (sized, chunked) = ("Content-Length: 3\r\n", "Transfer-Encoding: chunked\r\n");
    for (method, status, fields) in
        [("GET", 204, sized), ("GET", 204, chunked), ("HEAD", 204, sized), ("GET", 304, chunked)]
    {
        assert_eq!(keeps(method, status, fields), Ok(false), "{method} {status} {fields}");
    }
    // These say what would come where something did.
    for (method, status, fields) in [
        ("GET", 304, sized),
        ("HEAD", 200, sized),
        ("HEAD", 200, chunked),
        ("GET", 204, "Content-Length: 0\r\n"),
        ("GET", 204, ""),
    ] {
        assert_eq!(keeps(method, status, fields), Ok(true), "{method} {status} {fields}");
    }
    assert_eq!(keeps("GET", 200, ""), Ok(false), "its end is its body's");
    assert_eq!(keeps("GET", 200, "Connection: close\r\nContent-Length: 3\r\n"), Ok(false));
}

proptest! {
    /// What is accepted, written out again from its parts, is read as the same.
    #[test]
    fn what_is_read_can_be_written_and_read_again(text in "(GET|POST) (/[a-z%/.]{0,6}|http://h/x)(\\?[a-z=&]{0,4})? HTTP/1\\.[01]\r\n(Host: [a-z.]{1,4}\r\n|X-[a-z]{1,3}:[ \t]{0,2}[ -~]{0,5}\r\n|Content-Length: [0-9]{1,2}\r\n|Transfer-Encoding: (chunked|gzip)\r\n){0,4}\r\n") {
        let whole = |head: &RequestHead<'_>| {
            let request = head.request;
            let fields = |fields: &Fields<'_>| -> Vec<(Vec<u8>, Vec<u8>)> {
                fields.iter().map(|field| (fields.name(field).to_vec(), fields.value(field).to_vec())).collect()
            };
            let query = request.query.map(|query| format!("?{query}")).unwrap_or_default();
            let version = if head.version == Version::Http10 { "1.0" } else { "1.1" };
            let prefix = if head.is_absolute { format!("http://{}", request.authority) } else { String::new() };
            let mut again = format!("{} {prefix}{}{query} HTTP/{version}\r\n", request.method, request.path).into_bytes();
            for (name, value) in fields(&request.fields) {
                again.extend([&name[..], b": ", &value[..], b"\r\n"].concat());
            }
            again.extend(b"\r\n");
            let said = (request.authority.to_owned(), request.length, fields(&request.fields));
            (String::from_utf8(again).unwrap(), said)
        };
        let Ok((again, said)) = read(&text, whole) else { return Ok(()) };
        let (once_more, the_same) = read(&again, whole).expect("what was accepted is accepted");
        prop_assert_eq!((again, said), (once_more, the_same));
    }
}

/// What finding and reading a head in one go says must be what doing it one after the other does: `text` as what is said of
/// it, or of its error.
fn in_one_go(bytes: &[u8], limits: &Limits) -> (String, String) {
    let (mut one, mut other) = (Heads::default(), Heads::default());
    let told = |read: Result<Option<(String, usize)>, HeadError>| format!("{read:?}");
    let request = one.find_request(&mut Scan::default(), bytes, limits);
    let request = told(request.map(|found| found.map(|(head, len)| (format!("{head:?}"), len))));
    let apart = Scan::default().find(bytes, limits).and_then(|len| {
        len.map(|len| other.request(&bytes[..len], limits).map(|head| (format!("{head:?}"), len))).transpose()
    });
    assert_eq!(request, told(apart), "{}", bytes.escape_ascii());
    let (mut one, mut other) = (Heads::default(), Heads::default());
    let response = one.find_response(&mut Scan::default(), bytes, (limits, "GET"));
    let response = told(response.map(|found| found.map(|(head, len)| (format!("{head:?}"), len))));
    let apart = Scan::default().find(bytes, limits).and_then(|len| {
        len.map(|len| other.response(&bytes[..len], limits, "GET").map(|head| (format!("{head:?}"), len))).transpose()
    });
    assert_eq!(response, told(apart), "{}", bytes.escape_ascii());
    (request, response)
}

#[test]
fn in_one_go_and_one_after_the_other_are_the_same_at_every_bound() {
    let request = "GET /abc HTTP/1.1\r\nHost: a\r\nX: y\r\n\r\nrest";
    let response = "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nX: y\r\n\r\nrest";
    for text in [request, response] {
        let outcomes: std::collections::BTreeSet<_> = (0..=60)
            .flat_map(|line| (0..=60).map(move |head| (line, head)))
            .flat_map(|(line, head)| (0..=3).map(move |fields| Limits { line, head, fields }))
            .map(|limits| in_one_go(text.as_bytes(), &limits))
            .collect();
        assert!(outcomes.len() > 3, "{outcomes:?}");
        for cut in 0..text.len() {
            in_one_go(&text.as_bytes()[..cut], &LIMITS);
        }
    }
}

proptest! {
    /// Whatever stands in a head, and behind it.
    #[test]
    fn in_one_go_and_one_after_the_other_are_the_same(
        line in "(GET / HTTP/1.1|HTTP/1.1 200 OK|HTTP/1.1 200|POST  / HTTP/1.0|[ -~]{0,9})",
        lines in proptest::collection::vec("(Host: a|A:[ \t]{0,2}[ -~\r]{0,4}[ \t]{0,2}| ?B[ -~]{0,4}|)", 0..5),
        ends in proptest::collection::vec("(\r\n|\r\n|\r\n|\r\n|\n|\r|\r\r\n|\n\r\n)", 7),
        before in "(|||\r\n|\n| )",
    ) {
        let mut text = before;
        for (line, end) in std::iter::once(&line).chain(&lines).chain([&String::new(), &"GET".to_owned()]).zip(&ends) {
            text.push_str(line);
            text.push_str(end);
        }
        in_one_go(text.as_bytes(), &LIMITS);
    }
}

#[test]
fn known_fields_are_found_whatever_their_case() {
    let upgrade = read(&with("uPgRaDe: websocket\r\nCONNECTION: keep-alive, Upgrade\r\n"), |head| {
        (head.request.fields.first(Known::Upgrade).map(<[u8]>::to_vec), head.connection.upgrade)
    });
    assert_eq!(upgrade, Ok((Some(b"websocket".to_vec()), true)));
}
