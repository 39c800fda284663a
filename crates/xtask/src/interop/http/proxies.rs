//! nginx and HAProxy as backends of Kakei and as its front: kept connections, chunks, interim responses, HEAD, upgrades,
//! pipelines; what arrives on the other side of two proxies is what was sent.

use std::time::Duration;

use serde_json::Value;

use super::super::Setting;
use super::super::kakei::Kakei;
use super::super::process::free_port;
use super::super::proxies::{haproxy, nginx, nginx_http};
use super::origin::{Origin, pattern, sum};
use super::{Client, document};

/// How many requests go over one connection.
const MANY: usize = 300;
/// Connections to a backend that pools may keep at most for so few clients.
const POOLED: usize = 12;
const MIB: usize = 1 << 20;

/// Words of nginx for who passes requests on, upgrades too.
pub(in super::super) const PASS: &str = "    proxy_http_version 1.1; proxy_set_header Host $http_host; proxy_set_header Connection $onward; \
                    proxy_set_header Upgrade $http_upgrade; proxy_request_buffering off; proxy_buffering off;\n";

/// An nginx that passes requests on to `to` and keeps connections.
fn nginx_before(setting: &Setting, to: &str) -> Result<(super::super::process::Program, u16), String> {
    let port = free_port()?;
    let inside = format!(
        "  map $http_upgrade $onward {{ default upgrade; '' ''; }}\n  upstream next {{ server {to}; keepalive 8; }}\n  \
         server {{ listen 127.0.0.1:{port}; client_max_body_size 0; keepalive_requests 100000;\n  location / {{\n{PASS}    \
         proxy_pass http://next;\n  }}}}\n"
    );
    Ok((nginx(&setting.folder, port, &nginx_http(&setting.folder, &inside))?, port))
}

/// The same with HAProxy.
fn haproxy_before(setting: &Setting, to: &str) -> Result<(super::super::process::Program, u16), String> {
    let port = free_port()?;
    let sections = format!(
        "frontend in\n  bind 127.0.0.1:{port}\n  timeout tunnel 20s\n  default_backend next\nbackend next\n  http-reuse \
         always\n  server next {to}\n"
    );
    Ok((haproxy(&setting.folder, port, "http", &sections)?, port))
}

pub(in super::super) fn to_nginx(setting: &Setting) -> Result<String, String> {
    let origin = Origin::start()?;
    let (_nginx, port) = nginx_before(setting, &origin.address.to_string())?;
    behind_kakei(setting, &origin, port, Talents { early: false, pipeline: true })
}

pub(in super::super) fn to_haproxy(setting: &Setting) -> Result<String, String> {
    let origin = Origin::start()?;
    let (_haproxy, port) = haproxy_before(setting, &origin.address.to_string())?;
    behind_kakei(setting, &origin, port, Talents { early: true, pipeline: true })
}

fn behind_kakei(setting: &Setting, origin: &Origin, port: u16, talents: Talents) -> Result<String, String> {
    let front = free_port()?;
    let kakei = Kakei::start(&setting.binary, &setting.folder, &document(front, &format!("127.0.0.1:{port}"), ""))?;
    let said = talk(front, origin, talents)?;
    let reused = kakei.metric("kakei_backend_reused_connections", "")?;
    if reused < MANY as u64 / 2 {
        return Err(format!("only {reused} requests went over a connection that was kept"));
    }
    kakei.stop()?;
    Ok(format!("{said}; Kakei reused a connection {reused} times"))
}

pub(in super::super) fn from_nginx(setting: &Setting) -> Result<String, String> {
    let (origin, middle) = (Origin::start()?, free_port()?);
    let kakei = Kakei::start(&setting.binary, &setting.folder, &document(middle, &origin.address.to_string(), ""))?;
    let (_nginx, port) = nginx_before(setting, &format!("127.0.0.1:{middle}"))?;
    let said = talk(port, &origin, Talents { early: false, pipeline: true })?;
    pooled(&kakei)?;
    kakei.stop()?;
    Ok(said)
}

pub(in super::super) fn from_haproxy(setting: &Setting) -> Result<String, String> {
    let (origin, middle) = (Origin::start()?, free_port()?);
    let kakei = Kakei::start(&setting.binary, &setting.folder, &document(middle, &origin.address.to_string(), ""))?;
    let (_haproxy, port) = haproxy_before(setting, &format!("127.0.0.1:{middle}"))?;
    let said = talk(port, &origin, Talents { early: true, pipeline: true })?;
    pooled(&kakei)?;
    kakei.stop()?;
    Ok(said)
}

/// The proxy in front kept its connections to Kakei.
fn pooled(kakei: &Kakei) -> Result<(), String> {
    let accepted = kakei.metric("kakei_connections_opened", "")?;
    match accepted as usize <= POOLED {
        true => Ok(()),
        false => Err(format!("{accepted} connections came from a proxy that keeps them")),
    }
}

/// What the other proxy can do.
#[derive(Clone, Copy)]
pub(in super::super) struct Talents {
    /// It passes 103 on.
    pub(in super::super) early: bool,
    pub(in super::super) pipeline: bool,
}

/// Everything that goes through both proxies; what was done.
pub(in super::super) fn talk(port: u16, origin: &Origin, talents: Talents) -> Result<String, String> {
    let mut client = Client::to(port)?;
    for turn in 0..MANY {
        let answer = client.get(&format!("/turn/{turn}")).map_err(|why| format!("turn {turn}: {why}"))?;
        is_echo(&answer.text(), &format!("GET /turn/{turn} HTTP/1.1"), b"")?;
    }
    bodies(&mut client)?;
    answers(&mut client, talents)?;
    let pipelined = if talents.pipeline { pipeline(&mut client)? } else { 0 };
    switch(port)?;
    origin.is_content()?;
    let (connections, requests) = origin.counts();
    if connections > POOLED {
        return Err(format!("{connections} connections for {requests} requests of one client"));
    }
    Ok(format!(
        "{requests} requests of one client ({pipelined} pipelined) over {connections} connections to the backend: bodies \
         with a length and in chunks both ways, Expect, HEAD, 204, 304, an upgrade{}",
        if talents.early { ", 103" } else { "" }
    ))
}

/// The backend saw this request with this body.
fn is_echo(text: &str, line: &str, body: &[u8]) -> Result<(), String> {
    let said: Value = serde_json::from_str(text).map_err(|error| format!("{error} in {text:?}"))?;
    match said["line"] == line && said["length"] == body.len() && said["sum"] == sum(body) {
        true => Ok(()),
        false => Err(format!("{line:?} with {} bytes arrived as {text}", body.len())),
    }
}

/// Requests with bodies.
fn bodies(client: &mut Client) -> Result<(), String> {
    let body = pattern(MIB);
    let host = "HTTP/1.1\r\nHost: site.example\r\n";
    client.send(format!("POST /sized {host}Content-Length: {MIB}\r\n\r\n").as_bytes())?;
    client.send(&body)?;
    is_echo(&client.answer("POST")?.text(), "POST /sized HTTP/1.1", &body)?;
    client.send(format!("POST /chunked {host}Transfer-Encoding: chunked\r\n\r\n").as_bytes())?;
    for piece in body.chunks(9_999) {
        client.send(&[format!("{:X};x=y\r\n", piece.len()).as_bytes(), piece, b"\r\n"].concat())?;
    }
    client.send(b"0\r\n\r\n")?;
    is_echo(&client.answer("POST")?.text(), "POST /chunked HTTP/1.1", &body)?;
    client.send(format!("POST /expects {host}Content-Length: 5\r\nExpect: 100-continue\r\n\r\n").as_bytes())?;
    let interim = client.one("POST")?;
    if interim.status != 100 {
        return Err(format!("{} in the place of 100 Continue", interim.status));
    }
    client.send(b"hello")?;
    is_echo(&client.answer("POST")?.text(), "POST /expects HTTP/1.1", b"hello")
}

/// Answers of all kinds.
fn answers(client: &mut Client, talents: Talents) -> Result<(), String> {
    for length in [0, 1, 999, 1_000, MIB] {
        let body = client.get(&format!("/chunks/{length}"))?.body;
        if body != pattern(length) {
            return Err(format!("{length} bytes in chunks came as {} others", body.len()));
        }
    }
    let host = "HTTP/1.1\r\nHost: site.example\r\n";
    let head = client.ask("HEAD", &format!("/head {host}\r\n"))?;
    if head.status != 200 || head.field("content-length").is_none_or(|length| length == "0") {
        return Err(format!("HEAD was answered by {:?}", head.head));
    }
    let fresh = client.ask("GET", &format!("/etag {host}If-None-Match: \"7\"\r\n\r\n"))?.status;
    let nothing = client.get("/nothing")?.status;
    if (fresh, nothing) != (304, 204) {
        return Err(format!("{fresh} and {nothing} in the place of 304 and 204"));
    }
    if talents.early {
        client.send(format!("GET /early {host}\r\n").as_bytes())?;
        let early = client.one("GET")?;
        if early.status != 103 || early.field("link").is_none() {
            return Err(format!("{:?} in the place of 103", early.head));
        }
        client.answer("GET")?;
    }
    Ok(())
}

/// Requests that don't wait for the answers before; how many.
fn pipeline(client: &mut Client) -> Result<usize, String> {
    const PIPELINED: usize = 50;
    let all: String = (0..PIPELINED).map(|n| format!("GET /pipe/{n} HTTP/1.1\r\nHost: site.example\r\n\r\n")).collect();
    client.send(all.as_bytes())?;
    for n in 0..PIPELINED {
        is_echo(&client.answer("GET")?.text(), &format!("GET /pipe/{n} HTTP/1.1"), b"")?;
    }
    Ok(PIPELINED)
}

/// A request that becomes a connection.
fn switch(port: u16) -> Result<(), String> {
    let mut client = Client::to(port)?;
    let asked = "/switch HTTP/1.1\r\nHost: site.example\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n";
    let answer = client.ask("GET", asked)?;
    if answer.status != 101 || answer.field("upgrade") != Some("echo") {
        return Err(format!("an upgrade was answered by {:?}", answer.head));
    }
    let bytes = pattern(MIB / 4);
    for piece in bytes.chunks(MIB / 64) {
        client.send(piece)?;
        if client.exactly(piece.len())? != piece {
            return Err("the echo behind an upgrade came back changed".to_owned());
        }
    }
    let shut = client.stream.shutdown(std::net::Shutdown::Write);
    shut.map_err(|error| format!("an end behind an upgrade: {error}"))?;
    client.ends(Duration::from_secs(5))
}

#[cfg(test)]
mod tests {
    #[test]
    fn its_document_is_valid() {
        super::super::super::kakei::assert_valid(&super::document(1, "127.0.0.1:2", ""));
    }
}
