//! The requests, sorted by what they play with.

use super::{Case, Fate};

/// What a smuggler would like a backend to take for a request.
const HIDDEN: &str = "GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n";

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

/// All of them, always in the same order.
pub fn cases() -> Vec<Case> {
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
    for value in NO_LENGTHS {
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
    for value in NO_CODINGS {
        cases.refused(&post(&format!("Transfer-Encoding: {value}\r\n"), &body));
        cases.refused(&post(&format!("Content-Length: 5\r\nTransfer-Encoding: {value}\r\n"), &body));
    }
    for name in NO_CODING_NAMES {
        cases.refused(&post(&format!("{name}: chunked\r\n"), &body));
    }
    for fields in NO_CODING_FIELDS {
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
    for size in NO_SIZES {
        cases.refused(&chunked(&format!("{size}\r\nhello\r\n0\r\n\r\n{HIDDEN}")));
    }
    for body in NO_CHUNKS {
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
    for line in NO_LINES {
        cases.refused(&format!("{line}\r\nHost: a\r\n\r\n"));
    }
    for text in NO_HEADS {
        cases.refused(text);
    }
    cases.forwarded("\r\n\r\nGET /§ HTTP/1.1\r\nHost: a\r\n\r\n", "");
    cases.forwarded("get /§ HTTP/1.1\r\nHost: a\r\n\r\n", "");
    cases.forwarded("GET /§?a=b?c HTTP/1.1\r\nHost: a\r\n\r\n", "");
}

fn fields(cases: &mut Cases) {
    for field in NO_FIELDS {
        cases.refused(&format!("GET /§ HTTP/1.1\r\nHost: a\r\n{field}\r\n\r\n"));
    }
    for field in FIELDS {
        cases.forwarded(&format!("GET /§ HTTP/1.1\r\nHost: a\r\n{field}\r\n\r\n"), "");
    }
    cases.forwarded("GET /§ HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AA\r\n\r\n", "");
}

fn hosts(cases: &mut Cases) {
    for host in NO_HOSTS {
        cases.refused(&format!("GET /§ HTTP/1.1\r\n{host}\r\n\r\n"));
    }
    cases.forwarded("GET http://b/§ HTTP/1.1\r\nHost: a\r\n\r\n", "");
    cases.forwarded("GET http://B:80/§?x HTTP/1.1\r\nHost: a\r\n\r\n", "");
    cases.forwarded("GET /§ HTTP/1.0\r\n\r\n", "");
    cases.forwarded("GET /§ HTTP/1.1\r\nHost: A.:80\r\n\r\n", "");
}

const NO_LENGTHS: &[&str] = &[
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
];

const NO_CODINGS: &[&str] = &[
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
];

const NO_CODING_NAMES: &[&str] = &[
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
];

const NO_CODING_FIELDS: &[&str] = &[
    "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
    "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n",
    "Content-Length: 0\r\nTransfer-Encoding: chunked\r\n",
    "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
    "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n",
    "Transfer-Encoding: identity\r\nTransfer-Encoding: chunked\r\n",
    "Transfer-Encoding: chunked\r\nTransfer-encoding: cow\r\n",
    "Connection: Transfer-Encoding\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n",
];

const NO_SIZES: &[&str] = &[
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
];

const NO_CHUNKS: &[&str] = &[
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
    "0\r\nX\r\n\r\n",
    "0\r\nX : y\r\n\r\n",
    "0\r\nX\u{e9}: y\r\n\r\n",
    "0\r\nGET /x HTTP/1.1\r\n",
];

const NO_LINES: &[&str] = &[
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
];

const NO_HEADS: &[&str] = &[
    "GET /§ HTTP/1.1\nHost: a\n\n",
    "GET /§ HTTP/1.1\r\nHost: a\n\r\n",
    "GET /§ HTTP/1.1\nHost: a\r\n\r\n",
    "GET /§ HTTP/1.1\rHost: a\r\r",
    "GET /§ HTTP/1.1\r\nHost: a\r\nX: y\r\r\n\r\n",
    "\nGET /§ HTTP/1.1\r\nHost: a\r\n\r\n",
    "\r\n \r\nGET /§ HTTP/1.1\r\nHost: a\r\n\r\n",
    "GET /§ HTTP/1.1\r\n\r\nHost: a\r\n\r\n",
    "GET /§\r\n\r\n",
];

const NO_FIELDS: &[&str] = &[
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
];

const FIELDS: &[&str] = &[
    "X:y",
    "X:  y  ",
    "X:",
    "X: a\tb",
    "Connection: host",
    "Connection: x-request-id, close",
    "Upgrade: h2c",
    "TE: trailers",
];

const NO_HOSTS: &[&str] = &[
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
];
