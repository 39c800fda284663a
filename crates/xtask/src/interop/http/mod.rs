//! HTTP: curl, browsers, WebSocket libraries, web frameworks and other proxies around Kakei. What the checks share.

pub(super) mod bad_input;
pub(super) mod bulk;
pub(super) mod changes;
pub(super) mod chromium;
pub(super) mod curl;
pub(super) mod origin;
pub(super) mod proxies;
pub(super) mod registry;
pub(super) mod same;
pub(super) mod web;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use super::net::{connect, four};

/// A listener `web` on both families of a port, before a cluster `site` of one backend; `more` are sections of their own.
fn document(port: u16, backend: &str, more: &str) -> String {
    format!(
        "[listeners.web]\nprotocol = \"http\"\nbind = [\"127.0.0.1:{port}\", \"[::1]:{port}\"]\ncluster = \"site\"\n\n\
         [clusters.site]\nbackends = [\"{backend}\"]\n\n{more}"
    )
}

/// A connection of a client that reads answers.
pub(super) struct Client {
    stream: TcpStream,
    /// What came behind the answer before.
    rest: Vec<u8>,
}

/// An answer.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    head: String,
    body: Vec<u8>,
}

impl Answer {
    /// The first value of a field.
    fn field(&self, name: &str) -> Option<&str> {
        let mut fields = self.head.lines().skip(1).filter_map(|line| line.split_once(':'));
        fields.find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim())
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

impl Client {
    fn connect(to: SocketAddr) -> Result<Client, String> {
        connect(to).map(|stream| Client { stream, rest: Vec::new() })
    }

    pub(super) fn to(port: u16) -> Result<Client, String> {
        Client::connect(four(port))
    }

    fn send(&mut self, bytes: &[u8]) -> Result<(), String> {
        self.stream.write_all(bytes).map_err(|error| format!("sending a request: {error}"))
    }

    /// Send it and read what comes for it; interim responses are passed over.
    fn ask(&mut self, method: &str, rest: &str) -> Result<Answer, String> {
        self.send(format!("{method} {rest}").as_bytes())?;
        self.answer(method)
    }

    /// GET a path of a host.
    pub(super) fn get(&mut self, path: &str) -> Result<Answer, String> {
        self.ask("GET", &format!("{path} HTTP/1.1\r\nHost: site.example\r\n\r\n"))
    }

    /// The next answer, to a request of this method.
    fn answer(&mut self, method: &str) -> Result<Answer, String> {
        loop {
            let answer = self.one(method)?;
            if answer.status >= 200 || answer.status == 101 {
                return Ok(answer);
            }
        }
    }

    /// The next answer, an interim one too.
    fn one(&mut self, method: &str) -> Result<Answer, String> {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(self.byte().map_err(|why| format!("{why} in a head: {:?}", String::from_utf8_lossy(&head)))?);
        }
        let head = String::from_utf8_lossy(&head).into_owned();
        let status = head.split(' ').nth(1).and_then(|word| word.parse().ok());
        let status = status.ok_or_else(|| format!("no status in {head:?}"))?;
        let mut answer = Answer { status, head, body: Vec::new() };
        if method != "HEAD" && status >= 200 && status != 204 && status != 304 {
            answer.body = self.body(&answer)?;
        }
        Ok(answer)
    }

    fn body(&mut self, answer: &Answer) -> Result<Vec<u8>, String> {
        if let Some(length) = answer.field("content-length") {
            return self.exactly(length.parse().map_err(|_| format!("a length of {length}"))?);
        }
        if answer.field("transfer-encoding").is_none() {
            let mut body = std::mem::take(&mut self.rest);
            self.stream.read_to_end(&mut body).map_err(|error| format!("a body: {error}"))?;
            return Ok(body);
        }
        let mut body = Vec::new();
        loop {
            let size = self.line()?;
            let size = usize::from_str_radix(&size, 16).map_err(|_| format!("a size of {size:?}"))?;
            body.extend(self.exactly(size)?);
            while !self.line()?.is_empty() {}
            if size == 0 {
                return Ok(body);
            }
        }
    }

    fn line(&mut self) -> Result<String, String> {
        let mut line = Vec::new();
        while !line.ends_with(b"\r\n") {
            line.push(self.byte()?);
        }
        Ok(String::from_utf8_lossy(&line).trim_end().to_owned())
    }

    fn byte(&mut self) -> Result<u8, String> {
        self.exactly(1).map(|bytes| bytes[0])
    }

    fn exactly(&mut self, length: usize) -> Result<Vec<u8>, String> {
        let mut buffer = [0; 1 << 14];
        while self.rest.len() < length {
            match self.stream.read(&mut buffer) {
                Ok(0) => return Err(format!("an end after {} of {length} bytes", self.rest.len())),
                Ok(more) => self.rest.extend_from_slice(&buffer[..more]),
                Err(error) => return Err(format!("after {} of {length} bytes: {error}", self.rest.len())),
            }
        }
        let later = self.rest.split_off(length);
        Ok(std::mem::replace(&mut self.rest, later))
    }

    /// Whether the other side ends the connection now, and says nothing more.
    fn ends(&mut self, within: Duration) -> Result<(), String> {
        let set = self.stream.set_read_timeout(Some(within));
        set.map_err(|error| error.to_string())?;
        let mut rest = std::mem::take(&mut self.rest);
        match self.stream.read_to_end(&mut rest) {
            Ok(_) if rest.is_empty() => Ok(()),
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset && rest.is_empty() => Ok(()),
            _ if !rest.is_empty() => Err(format!("{:?} came behind an answer", String::from_utf8_lossy(&rest))),
            _ => Err(format!("the connection lives on after {} ms", within.as_millis())),
        }
    }
}
