//! Requests that two programs could read in two ways: each is refused, or reaches a recording backend as exactly one
//! request that can be read in one way only. Never does a backend see a request that no client sent as one.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use crate::harness::{Room, Running};

/// What must become of a case.
#[derive(Clone, Debug, PartialEq)]
enum Fate {
    /// No backend sees all of a request of it.
    Refused,
    /// A backend sees one request, with this body.
    Forwarded(Vec<u8>),
}

struct Case {
    /// Stands in its path, so that the backend's records tell whose they are.
    token: String,
    bytes: Vec<u8>,
    fate: Fate,
}

/// What a smuggler would like a backend to take for a request.
const HIDDEN: &str = "GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n";

/// A request that a backend saw wholly.
#[derive(Clone, Debug)]
struct Seen {
    line: String,
    body: Vec<u8>,
}

type Records = Arc<Mutex<(Vec<Seen>, Vec<String>)>>;

/// A backend that reads strictly, answers, and writes down all that it sees.
fn backend(records: Records) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let records = Arc::clone(&records);
            thread::spawn(move || {
                if let Err(wrong) = serve(stream, &records)
                    && !wrong.is_empty()
                {
                    records.lock().unwrap().1.push(wrong);
                }
            });
        }
    });
    address
}

fn byte(stream: &mut TcpStream) -> Result<u8, String> {
    let mut one = [0];
    match stream.read(&mut one) {
        Ok(1) => Ok(one[0]),
        _ => Err(String::new()),
    }
}

fn line(stream: &mut TcpStream) -> Result<String, String> {
    let mut line = Vec::new();
    while !line.ends_with(b"\r\n") {
        let next = byte(stream)?;
        if next == b'\n' && line.last() != Some(&b'\r') {
            return Err(format!("a bare line end behind {:?}", String::from_utf8_lossy(&line)));
        }
        line.push(next);
    }
    line.truncate(line.len() - 2);
    String::from_utf8(line).map_err(|_| "a line that isn't text".to_owned())
}

fn serve(mut stream: TcpStream, records: &Records) -> Result<(), String> {
    loop {
        let first = line(&mut stream)?;
        let (mut length, mut chunked, mut hosts) = (None, 0, 0);
        loop {
            let field = line(&mut stream)?;
            if field.is_empty() {
                break;
            }
            let (name, value) = field.split_once(':').ok_or(format!("a strange field: {field:?}"))?;
            let value = value.trim_matches([' ', '\t']);
            match name.to_ascii_lowercase().as_str() {
                "content-length" if length.is_some() => return Err("two lengths".to_owned()),
                "content-length" => length = Some(value.parse::<usize>().map_err(|_| format!("a length of {value}"))?),
                "transfer-encoding" if value == "chunked" => chunked += 1,
                "transfer-encoding" => return Err(format!("a coding of {value}")),
                "host" => hosts += 1,
                name if name.trim() != name => return Err(format!("blanks around the name {name:?}")),
                _ => {}
            }
        }
        if hosts != 1 || chunked > 1 || chunked == 1 && length.is_some() || first.split(' ').count() != 3 {
            return Err(format!("{first:?} has {hosts} hosts, {chunked} codings, the length {length:?}"));
        }
        let mut body = vec![0; length.unwrap_or(0)];
        stream.read_exact(&mut body).map_err(|_| String::new())?;
        let is_chunked = chunked == 1;
        loop {
            if !is_chunked {
                break;
            }
            let size = line(&mut stream)?;
            let size = usize::from_str_radix(&size, 16).map_err(|_| format!("a size of {size:?}"))?;
            let mut chunk = vec![0; size];
            stream.read_exact(&mut chunk).map_err(|_| String::new())?;
            body.extend_from_slice(&chunk);
            let mut end = line(&mut stream)?;
            while size == 0 && !end.is_empty() {
                let name = end.split(':').next().unwrap_or_default().to_ascii_lowercase();
                if ["content-length", "transfer-encoding", "host"].contains(&name.as_str()) {
                    return Err(format!("the trailer {end:?}"));
                }
                end = line(&mut stream)?;
            }
            if !end.is_empty() {
                return Err("no end of a chunk".to_owned());
            }
            if size == 0 {
                break;
            }
        }
        records.lock().unwrap().0.push(Seen { line: first, body });
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").map_err(|_| String::new())?;
    }
}

#[derive(Default)]
struct Cases(Vec<Case>);

impl Cases {
    /// A case in whose text `§` is the place of its token.
    fn add(&mut self, text: &str, fate: Fate) {
        let token = format!("case{:03}x", self.0.len());
        self.0.push(Case { bytes: text.replace('§', &token).into_bytes(), token, fate });
    }

    fn refused(&mut self, text: &str) {
        self.add(text, Fate::Refused);
    }

    fn forwarded(&mut self, text: &str, body: &str) {
        self.add(text, Fate::Forwarded(body.as_bytes().to_vec()));
    }
}

fn cases() -> Vec<Case> {
    let mut cases = Cases::default();
    lengths(&mut cases);
    codings(&mut cases);
    chunks(&mut cases);
    lines(&mut cases);
    fields(&mut cases);
    hosts(&mut cases);
    cases.0
}

fn post(fields: &str, body: &str) -> String {
    format!("POST /§ HTTP/1.1\r\nHost: a\r\n{fields}\r\n{body}")
}

fn lengths(cases: &mut Cases) {
    for value in [
        "+5",
        "-5",
        "0x5",
        "5,5",
        "5, 5",
        "5 5",
        "5;",
        "\"5\"",
        "5.0",
        "5e0",
        "",
        "five",
        "٥",
        "18446744073709551616",
        "99999999999999999999999",
        "5\t5",
        "0 5",
        ",5",
        "5,",
        "5 ,",
        "0x0",
        "00x5",
        "NaN",
        "0b1",
        "1_0",
    ] {
        cases.refused(&post(&format!("Content-Length: {value}\r\n"), HIDDEN));
    }
    for (one, two) in [("5", "5"), ("0", "5"), ("5", "0"), ("5", ""), ("0", "0"), ("36", "0"), ("0", "36")] {
        cases.refused(&post(&format!("Content-Length: {one}\r\nContent-Length: {two}\r\n"), HIDDEN));
        cases.refused(&post(&format!("Content-Length: {one}\r\nX: y\r\ncontent-length: {two}\r\n"), HIDDEN));
    }
    for name in ["Content-Length ", " Content-Length", "Content-Length\t", "Content Length", "Content-Length\u{b}"] {
        cases.refused(&post(&format!("{name}: 36\r\n"), HIDDEN));
    }
    let body = HIDDEN;
    let length = body.len();
    cases.forwarded(&post(&format!("Content-Length: {length}\r\n"), body), body);
    cases.forwarded(&post(&format!("Content-Length: 00{length}\r\n"), body), body);
    cases.forwarded(&post(&format!("content-LENGTH:{length}\r\n"), body), body);
    cases.forwarded(&post(&format!("Content-Length:\t {length} \t\r\n"), body), body);
    cases.forwarded(&post(&format!("Content_Length: 0\r\nContent-Length: {length}\r\n"), body), body);
    cases.forwarded(&post(&format!("X-Content-Length: 0\r\nContent-Length: {length}\r\n"), body), body);
    cases.forwarded(&post(&format!("Connection: Content-Length\r\nContent-Length: {length}\r\n"), body), body);
    cases.forwarded(&post(&format!("Connection: close, content-length\r\nContent-Length: {length}\r\n"), body), body);
}

fn codings(cases: &mut Cases) {
    let body = format!("0\r\n\r\n{HIDDEN}");
    for value in [
        "xchunked",
        "chunked, chunked",
        "chunked,chunked",
        "identity",
        "chunked, identity",
        "identity, chunked",
        "gzip, chunked",
        "chunked;q=1",
        "\"chunked\"",
        "'chunked'",
        "chunked\u{b}",
        "\u{b}chunked",
        "chun\u{0}ked",
        "",
        "chunked-foo",
        "cow",
        "chunked x",
        "x chunked",
        "[chunked]",
        "chunKed0",
        "\u{212a}chunked",
        "chunked, ,",
        "deflate",
        "compress, chunked",
    ] {
        cases.refused(&post(&format!("Transfer-Encoding: {value}\r\n"), &body));
        cases.refused(&post(&format!("Content-Length: 5\r\nTransfer-Encoding: {value}\r\n"), &body));
    }
    for name in [
        "Transfer-Encoding ",
        " Transfer-Encoding",
        "Transfer-Encoding\t",
        "Transfer\tEncoding",
        "Transfer Encoding",
        "\u{b}Transfer-Encoding",
        "Transfer-Encoding\u{0}",
        "X: y\nTransfer-Encoding",
        "X: y\rTransfer-Encoding",
        "X: y\r\n Transfer-Encoding",
        "Transfer-Encoding\r\n ",
    ] {
        cases.refused(&post(&format!("{name}: chunked\r\n"), &body));
    }
    for fields in [
        "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n",
        "Content-Length: 0\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n",
        "Transfer-Encoding: identity\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked\r\nTransfer-encoding: cow\r\n",
        "Connection: Transfer-Encoding\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n",
    ] {
        cases.refused(&post(fields, &body));
    }
    known_codings(cases);
}

fn known_codings(cases: &mut Cases) {
    let body = format!("0\r\n\r\n{HIDDEN}");
    cases.refused(&format!("POST /§ HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n{body}"));
    for fields in
        ["Transfer-Encoding: chunked\r\n", "transfer-ENCODING: ChUnKeD\r\n", "Transfer-Encoding:\t chunked \r\n"]
    {
        cases.forwarded(&post(fields, "5\r\nhello\r\n0\r\n\r\n"), "hello");
    }
    cases.forwarded(
        &post("Connection: Transfer-Encoding\r\nTransfer-Encoding: chunked\r\n", "1\r\nx\r\n0\r\n\r\n"),
        "x",
    );
    cases.forwarded(&post("Transfer_Encoding: chunked\r\nContent-Length: 5\r\n", "0\r\n\r\n"), "0\r\n\r\n");
    cases.forwarded(&post("X-Transfer-Encoding: chunked\r\nContent-Length: 5\r\n", "0\r\n\r\n"), "0\r\n\r\n");
}

fn chunks(cases: &mut Cases) {
    let chunked = |body: &str| post("Transfer-Encoding: chunked\r\n", body);
    for size in [
        "0x5",
        "+5",
        "-5",
        " 5",
        "5 ",
        "\t5",
        "",
        "g",
        "5g",
        "5 ;x",
        "5\u{0}",
        "0000000000000005",
        "ffffffffffffffff",
        "10000000000000000",
        "5,",
        "5_",
        "5.0",
        "\"5\"",
        "5\u{b}",
    ] {
        cases.refused(&chunked(&format!("{size}\r\nhello\r\n0\r\n\r\n{HIDDEN}")));
    }
    for body in [
        "5\nhello\r\n0\r\n\r\n",
        "5\r\nhello\n0\r\n\r\n",
        "5\r\nhello0\r\n\r\n",
        "5\r\nhell\r\n0\r\n\r\n",
        "5\r\nhello!\r\n0\r\n\r\n",
        "5\rhello\r\n0\r\n\r\n",
        "5;x\nhello\r\n0\r\n\r\n",
        "5\r\nhello\r\r\n0\r\n\r\n",
        "5;\u{0}\r\nhello\r\n0\r\n\r\n",
        "0\r\n\n",
        "0\n\r\n",
        "0\n\n",
        "0\r\nX: y\n\r\n",
        "0\r\n: y\r\n\r\n",
        "0\r\n X: y\r\n\r\n",
    ] {
        cases.refused(&chunked(&format!("{body}{HIDDEN}")));
    }
    cases.refused(&chunked(&format!("5;{}\r\nhello\r\n0\r\n\r\n", "x".repeat(5_000))));
    cases.refused(&chunked(&format!("0\r\nX: {}\r\n\r\n", "x".repeat(9_000))));
    cases.forwarded(&chunked("5;x=y;z=\"w\"\r\nhello\r\n0\r\n\r\n"), "hello");
    cases.forwarded(&chunked("005\r\nhello\r\n000\r\n\r\n"), "hello");
    cases.forwarded(&chunked("5\r\nhello\r\n0\r\nX: y\r\n\r\n"), "hello");
    cases.forwarded(&chunked("5\r\nhello\r\n0\r\nContent-Length: 9\r\n\r\n"), "hello");
    cases.forwarded(&chunked(&format!("{:x}\r\n{HIDDEN}\r\n0\r\n\r\n", HIDDEN.len())), HIDDEN);
}

fn lines(cases: &mut Cases) {
    for line in [
        "GET /§",
        "GET /§ HTTP/1.1 ",
        " GET /§ HTTP/1.1",
        "GET  /§ HTTP/1.1",
        "GET /§  HTTP/1.1",
        "GET\t/§ HTTP/1.1",
        "GET /§ HTTP/1.1 HTTP/1.1",
        "GET /§ HTTP/1.2",
        "GET /§ HTTP/2.0",
        "GET /§ HTTP/0.9",
        "GET /§ http/1.1",
        "GET /§ HTTP/11",
        "GET /§ HTTP/1.10",
        "GET /§ HTTP/1",
        "GET /§ HTTPS/1.1",
        "GET /§ XHTTP/1.1",
        "G ET /§ HTTP/1.1",
        "GE\u{0}T /§ HTTP/1.1",
        "GET /§\u{0} HTTP/1.1",
        "GET /§#x HTTP/1.1",
        "GET /§\u{7f} HTTP/1.1",
        "GET /\u{fc}§ HTTP/1.1",
        "GET § HTTP/1.1",
        "GET ?§ HTTP/1.1",
        "GET *§ HTTP/1.1",
        "GET //u@b@/§ HTTP/1.1:",
        "GET http:/§ HTTP/1.1",
        "GET ftp://a/§ HTTP/1.1",
        "GET http://u@a/§ HTTP/1.1",
        "GET http://a:b/§ HTTP/1.1",
        "GET http://a b/§ HTTP/1.1",
        "GET /%zz§ HTTP/1.1",
        "GET /§%00 HTTP/1.1",
        "GET /§% HTTP/1.1",
        "CONNECT /§ HTTP/1.1",
        "CONNECT § HTTP/1.1",
        "CONNECT §:80 HTTP/1.1",
        "G(T /§ HTTP/1.1",
        "G,T /§ HTTP/1.1",
        "G\u{e9}T /§ HTTP/1.1",
    ] {
        cases.refused(&format!("{line}\r\nHost: a\r\n\r\n"));
    }
    for text in [
        "GET /§ HTTP/1.1\nHost: a\n\n",
        "GET /§ HTTP/1.1\r\nHost: a\n\r\n",
        "GET /§ HTTP/1.1\nHost: a\r\n\r\n",
        "GET /§ HTTP/1.1\rHost: a\r\r",
        "GET /§ HTTP/1.1\r\nHost: a\r\nX: y\r\r\n\r\n",
        "\nGET /§ HTTP/1.1\r\nHost: a\r\n\r\n",
        "\r\n \r\nGET /§ HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET /§ HTTP/1.1\r\n\r\nHost: a\r\n\r\n",
        "GET /§\r\n\r\n",
    ] {
        cases.refused(text);
    }
    cases.forwarded("\r\n\r\nGET /§ HTTP/1.1\r\nHost: a\r\n\r\n", "");
    cases.forwarded("get /§ HTTP/1.1\r\nHost: a\r\n\r\n", "");
    cases.forwarded("GET /§?a=b?c HTTP/1.1\r\nHost: a\r\n\r\n", "");
}

fn fields(cases: &mut Cases) {
    for field in [
        "X : y",
        " X: y",
        "X\t: y",
        "X",
        ": y",
        "X(: y",
        "X\u{0}: y",
        "X: \u{0}",
        "X: y\u{0}z",
        "X: a\rb",
        "X: a\nb",
        "X: y\r\n z",
        "X: y\r\n\tz",
        "X;: y",
        "\u{e9}: y",
        "X: \u{1}",
        "X: \u{7f}",
        "X\r\n: y",
        "Expect: 100-continue, 200-ok",
        "Expect: x",
        "[X]: y",
        "X Y: z",
        "\"X\": y",
        "X@: y",
        "X/Y: z",
    ] {
        cases.refused(&format!("GET /§ HTTP/1.1\r\nHost: a\r\n{field}\r\n\r\n"));
    }
    for field in [
        "X:y",
        "X:  y  ",
        "X:",
        "X: a\tb",
        "Connection: host",
        "Connection: x-request-id, close",
        "Upgrade: h2c",
        "TE: trailers",
    ] {
        cases.forwarded(&format!("GET /§ HTTP/1.1\r\nHost: a\r\n{field}\r\n\r\n"), "");
    }
    cases.forwarded("GET /§ HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AA\r\n\r\n", "");
}

fn hosts(cases: &mut Cases) {
    for host in [
        "Host: a\r\nHost: a",
        "Host: a\r\nHost: b",
        "X: y",
        "Host: a b",
        "Host: a@b",
        "Host: a/b",
        "Host: a:b",
        "Host: a:99999",
        "Host: [::1",
        "Host: ::1",
        "Host: a,b",
        "Host: a?b",
        "Host: a#b",
        "Host: a\\b",
        "Host: %61",
        "Host: \u{fc}",
        "Host : a",
    ] {
        cases.refused(&format!("GET /§ HTTP/1.1\r\n{host}\r\n\r\n"));
    }
    cases.forwarded("GET http://b/§ HTTP/1.1\r\nHost: a\r\n\r\n", "");
    cases.forwarded("GET http://B:80/§?x HTTP/1.1\r\nHost: a\r\n\r\n", "");
    cases.forwarded("GET /§ HTTP/1.0\r\n\r\n", "");
    cases.forwarded("GET /§ HTTP/1.1\r\nHost: A.:80\r\n\r\n", "");
}

/// Send a case, and wait for what comes of it.
fn play(front: SocketAddr, case: &Case) {
    let Ok(mut stream) = TcpStream::connect(front) else { panic!("the proxy is gone") };
    stream.set_read_timeout(Some(Duration::from_millis(250))).unwrap();
    let _ = stream.write_all(&case.bytes);
    let mut buffer = [0; 4096];
    let _ = stream.read(&mut buffer);
}

#[test]
fn what_could_be_read_in_two_ways_is_refused_or_reaches_a_backend_in_one() {
    let room = Room::new("smuggling");
    let records: Records = Records::default();
    let at = backend(Arc::clone(&records));
    let socket = room.path("k.sock");
    let document = format!(
        "[admin]\nsocket = {socket:?}\n[workers]\ncount = 2\n[listeners.front]\nprotocol = \"http\"\nbind = [\"127.0.0.1:0\"]\n\
         cluster = \"c\"\n[clusters.c]\nbackends = [\"{at}\"]\n"
    );
    let proxy = Running::start(&room, &document);
    let front = proxy.front();
    let cases = Arc::new(cases());
    assert!(cases.len() >= 250, "{} cases", cases.len());
    let players: Vec<_> = (0..8)
        .map(|turn| {
            let cases = Arc::clone(&cases);
            thread::spawn(move || cases.iter().skip(turn).step_by(8).for_each(|case| play(front, case)))
        })
        .collect();
    players.into_iter().for_each(|player| player.join().unwrap());
    let mut innocent = TcpStream::connect(front).unwrap();
    innocent.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    innocent.write_all(b"GET /innocent HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    let mut answer = [0; 12];
    innocent.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"HTTP/1.1 200");
    let (seen, wrong) = records.lock().unwrap().clone();
    assert!(wrong.is_empty(), "the backend could not read: {wrong:?}");
    assert!(!seen.iter().any(|seen| seen.line.contains("smuggled")), "a hidden request came through: {seen:?}");
    for case in cases.iter() {
        let of_case: Vec<&Seen> = seen.iter().filter(|seen| seen.line.contains(&case.token)).collect();
        let text = String::from_utf8_lossy(&case.bytes);
        match &case.fate {
            Fate::Refused => assert!(of_case.is_empty(), "{text:?} was forwarded as {of_case:?}"),
            Fate::Forwarded(body) => {
                assert_eq!(of_case.len(), 1, "{text:?} became {of_case:?}");
                assert_eq!(of_case[0].body, *body, "{text:?}");
            }
        }
    }
}
