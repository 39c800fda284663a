//! Requests and responses that are nearly right, drawn, for `cuts`: of parts that each are right as a rule.

use fastrand::Rng;

use super::cuts::Cuts;

/// The bytes of a seed.
pub fn drawn(seed: u64) -> Cuts {
    let mut rng = Rng::with_seed(seed ^ 0x6375_7473);
    let mut client = Vec::new();
    for _ in 0..rng.usize(1..5) {
        client.extend(request(&mut rng));
    }
    let mut backend = Vec::new();
    if rng.u8(0..5) == 0 {
        backend.extend_from_slice(b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n");
    }
    backend.extend(response(&mut rng));
    spoil(&mut client, &mut rng);
    spoil(&mut backend, &mut rng);
    Cuts { seed: rng.u64(..), ends: rng.bool(), client, backend }
}

fn one<'a>(rng: &mut Rng, of: &[&'a str]) -> &'a str {
    of[rng.usize(0..of.len())]
}

/// Once in a while a byte is another one, is gone, or is there twice.
fn spoil(bytes: &mut Vec<u8>, rng: &mut Rng) {
    if rng.u8(0..3) > 0 || bytes.is_empty() {
        return;
    }
    let at = rng.usize(0..bytes.len());
    match rng.u8(0..4) {
        0 => bytes[at] = rng.u8(..),
        1 => drop(bytes.remove(at)),
        2 => bytes.insert(at, bytes[at]),
        _ => bytes.truncate(at),
    }
}

fn request(rng: &mut Rng) -> Vec<u8> {
    let method = one(rng, &["GET", "GET", "POST", "POST", "PUT", "HEAD", "OPTIONS"]);
    let path = one(
        rng,
        &["/", "/x?y=1", "/locked", "/locked/x", "/asked", "/asked/x", "/fixed", "//a/../b", "/%zz", "http://b/c"],
    );
    let version = one(rng, &["HTTP/1.1", "HTTP/1.1", "HTTP/1.1", "HTTP/1.1", "HTTP/1.0", "HTTP/2.0"]);
    let mut head = format!("{method} {path} {version}\r\nHost: a\r\n");
    for _ in 0..rng.usize(0..4) {
        head.push_str(one(
            rng,
            &[
                "Authorization: Basic YTpi\r\n",
                "Authorization: Basic YTpi\r\n",
                "Authorization: Basic YTpj\r\n",
                "Connection: close\r\n",
                "Connection: keep-alive, x\r\n",
                "X: 1\r\n",
                "X-Who: me\r\n",
                "Expect: 100-continue\r\n",
                "Accept: application/json\r\n",
                "Content-Length: 3\r\n",
                "Host: b\r\n",
                " folded\r\n",
                "Y: long",
            ],
        ));
        if head.ends_with("long") {
            head.extend(std::iter::repeat_n('g', rng.usize(0..3_000)));
            head.push_str("\r\n");
        }
    }
    with_body(head, matches!(method, "POST" | "PUT"), rng)
}

fn response(rng: &mut Rng) -> Vec<u8> {
    let line = one(
        rng,
        &["200 OK", "200 OK", "200 OK", "204 No Content", "304 Not Modified", "403 Forbidden", "503 Away", "101 Else"],
    );
    let mut head = format!("HTTP/1.1 {line}\r\n");
    for _ in 0..rng.usize(0..3) {
        head.push_str(one(rng, &["X-Who: you\r\n", "Connection: close\r\n", "Set-Cookie: a=b\r\n", "Date: x\r\n"]));
    }
    let mut bytes = match rng.u8(0..5) {
        0 => {
            let len = rng.usize(0..300);
            [head.as_bytes(), b"\r\n", &vec![b'u'; len]].concat()
        }
        _ => with_body(head, true, rng),
    };
    if rng.u8(0..5) == 0 {
        bytes.extend_from_slice(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
    }
    bytes
}

fn with_body(head: String, has_body: bool, rng: &mut Rng) -> Vec<u8> {
    let len = if rng.u8(0..8) == 0 { rng.usize(0..12_000) } else { rng.usize(0..200) };
    let body: Vec<u8> = (0..len).map(|at| b'a' + (at % 26) as u8).collect();
    match rng.u8(0..2) {
        _ if !has_body => format!("{head}\r\n").into_bytes(),
        0 => [format!("{head}Content-Length: {len}\r\n\r\n").into_bytes(), body].concat(),
        _ => {
            let mut bytes = format!("{head}Transfer-Encoding: chunked\r\n\r\n").into_bytes();
            for piece in body.chunks(rng.usize(1..100)) {
                bytes.extend(format!("{:x}\r\n", piece.len()).into_bytes());
                bytes.extend_from_slice(piece);
                bytes.extend_from_slice(b"\r\n");
            }
            bytes.extend_from_slice(b"0\r\n");
            let trailers = if rng.u8(0..10) == 0 { rng.usize(0..80) } else { rng.usize(0..2) };
            (0..trailers).for_each(|at| bytes.extend(format!("X-T{at}: 1\r\n").into_bytes()));
            bytes.extend_from_slice(b"\r\n");
            bytes
        }
    }
}
