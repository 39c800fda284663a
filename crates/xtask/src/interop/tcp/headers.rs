//! PROXY protocol on streams, both versions, with HAProxy and nginx as senders and as receivers: who they saw is who asked.

use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use super::super::Setting;
use super::super::kakei::Kakei;
use super::super::process::{free_port, wait_for};
use super::super::proxies::{haproxy, nginx, nginx_streams};
use super::{cluster, connect_from, echo, echoes, four, listener, rest, six};

/// Clients that no program of the check would be mistaken for.
const CLIENTS: [&str; 3] = ["127.0.0.5:0", "127.0.0.77:0", "[::1]:0"];
const TRUSTED: &str = "proxy_protocol = { trusted = [\"127.0.0.1/32\", \"::1/128\"] }\npreread_timeout = \"2s\"\n";
const VERSIONS: [&str; 2] = ["v1", "v2"];

/// The address of the client's family on `port`.
fn beside(client: SocketAddr, port: u16) -> SocketAddr {
    if client.is_ipv4() { four(port) } else { six(port) }
}

fn clients() -> impl Iterator<Item = SocketAddr> {
    CLIENTS.into_iter().map(|text| text.parse().expect("an address written here"))
}

/// A listener of Kakei that believes headers, before an echo.
fn believing(port: u16, echo: SocketAddr) -> String {
    let words = [listener("in", &[four(port), six(port)], "echo", TRUSTED), cluster("echo", &echo.to_string(), "")];
    words.concat()
}

/// A client of each address through the sender on `port`: its bytes come back, and Kakei's access log has its address.
fn seen_through(kakei: &Kakei, port: u16) -> Result<usize, String> {
    let mut count = 0;
    for client in clients() {
        let mut stream = connect_from(client, beside(client, port))?;
        let from = stream.local_addr().map_err(|error| error.to_string())?;
        echoes(&mut stream, format!("I am {from}").as_bytes())?;
        drop(stream);
        let logged = || kakei.records().iter().any(|record| record["client"] == from.to_string());
        wait_for(&format!("client {from} in the access log"), Duration::from_secs(3), logged)
            .map_err(|why| format!("{why}: {:?}", kakei.records().last()))?;
        count += 1;
    }
    Ok(count)
}

/// HAProxy sends both versions over both families; its health checks, with a header and without, are no errors.
pub(in super::super) fn from_haproxy(setting: &Setting) -> Result<String, String> {
    let (port, folder) = (free_port()?, &setting.folder);
    let kakei = Kakei::start(&setting.binary, folder, &believing(port, echo()?))?;
    let mut sections = String::new();
    let mut fronts = Vec::new();
    for (version, word) in [("v1", "send-proxy"), ("v2", "send-proxy-v2")] {
        for to in [four(port), six(port)] {
            let front = free_port()?;
            let name = format!("{version}-{}", fronts.len());
            sections += &format!(
                "frontend f{name}\n  bind 127.0.0.1:{front}\n  bind [::1]:{front}\n  default_backend b{name}\n\
                 backend b{name}\n  server kakei {to} {word} check check-send-proxy inter 200ms\n"
            );
            fronts.push(front);
        }
    }
    sections += &format!("backend bare\n  server kakei {} check inter 100ms\n", four(port));
    let _haproxy = haproxy(folder, *fronts.first().ok_or("no front")?, "tcp", &sections)?;
    let mut seen = 0;
    for front in fronts {
        seen += seen_through(&kakei, front)?;
    }
    // Some checks more.
    std::thread::sleep(Duration::from_millis(500));
    let wrong =
        kakei.records().iter().filter(|r| r["reason"] == "proxy_header" || r["reason"] == "preread_timeout").count();
    match wrong {
        0 => Ok(format!(
            "{seen} clients of both versions over both families in the access log; health checks are no errors"
        )),
        _ => Err(format!("{wrong} records of bad headers, though all were HAProxy's: {:?}", kakei.records().last())),
    }
}

/// nginx sends version 1.
pub(in super::super) fn from_nginx(setting: &Setting) -> Result<String, String> {
    let (port, folder) = (free_port()?, &setting.folder);
    let kakei = Kakei::start(&setting.binary, folder, &believing(port, echo()?))?;
    let fronts = [free_port()?, free_port()?];
    let servers: String = fronts
        .iter()
        .zip([four(port), six(port)])
        .map(|(front, to)| {
            format!(
                "  server {{ listen 127.0.0.1:{front}; listen [::1]:{front}; proxy_pass {to}; proxy_protocol on; }}\n"
            )
        })
        .collect();
    let _nginx = nginx(folder, fronts[0], &nginx_streams(&servers))?;
    let seen = seen_through(&kakei, fronts[0])? + seen_through(&kakei, fronts[1])?;
    let refused = refused_elsewhere(&kakei, port)?;
    Ok(format!("{seen} clients of nginx over both families in the access log; {refused}"))
}

/// A header from a network that is not trusted gets nothing.
fn refused_elsewhere(kakei: &Kakei, port: u16) -> Result<&'static str, String> {
    let before = kakei.metric("kakei_refused_connections", "untrusted")?;
    let mut spoofer = connect_from("127.0.0.9:0".parse().map_err(|_| "no address")?, four(port))?;
    // It may be reset before it has written.
    let _ = spoofer.write_all(b"PROXY TCP4 203.0.113.7 127.0.0.1 4444 53\r\nhello");
    let came = rest(&mut spoofer)?;
    let refused = kakei.metric("kakei_refused_connections", "untrusted")? - before;
    match (came.len(), refused) {
        (0, 1) => Ok("a header from elsewhere was refused"),
        other => Err(format!(
            "a header from an untrusted network was answered with {} bytes, refused {} times",
            other.0, other.1
        )),
    }
}

/// What a receiver that says whom it saw has to say.
fn told(stream: &mut TcpStream, request: &str) -> Result<String, String> {
    // A receiver that has said all may be gone already.
    let _ = stream.write_all(request.as_bytes());
    let said = String::from_utf8_lossy(&rest(stream)?).into_owned();
    Ok(said.lines().last().unwrap_or_default().trim().to_owned())
}

/// What a client should be told: its own address and the one that it dialled.
fn expected(stream: &TcpStream) -> Result<String, String> {
    let say = |error: std::io::Error| error.to_string();
    let (from, to) = (stream.local_addr().map_err(say)?, stream.peer_addr().map_err(say)?);
    Ok(format!("{}:{}|{}:{}", from.ip(), from.port(), to.ip(), to.port()))
}

/// Kakei with a listener for each version, that sends headers to receivers of both families.
fn sending(to: [SocketAddr; 2], listener_words: &str) -> Result<(String, Vec<u16>), String> {
    let (mut document, mut fronts) = (String::new(), Vec::new());
    for version in VERSIONS {
        for to in to {
            let (front, name) = (free_port()?, format!("{version}-{}", fronts.len()));
            document += &listener(&name, &[four(front), six(front)], &name, listener_words);
            document += &cluster(&name, &to.to_string(), &format!("send_proxy_protocol = \"{version}\"\n"));
            fronts.push(front);
        }
    }
    Ok((document, fronts))
}

/// Every client of every front is told its own address.
fn told_right(fronts: &[u16], request: &str) -> Result<usize, String> {
    let mut count = 0;
    for front in fronts {
        for client in clients() {
            let mut stream = connect_from(client, beside(client, *front))?;
            let expected = expected(&stream)?;
            let told = told(&mut stream, request)?;
            if told != expected {
                return Err(format!("a client {expected} was seen as {told:?}"));
            }
            count += 1;
        }
    }
    Ok(count)
}

const GET: &str = "GET / HTTP/1.0\r\n\r\n";
const SEEN: &str = "http-request return status 200 content-type text/plain lf-string";

/// HAProxy accepts what Kakei sends.
pub(in super::super) fn to_haproxy(setting: &Setting) -> Result<String, String> {
    let (port, folder) = (free_port()?, &setting.folder);
    let sections = format!(
        "frontend seen\n  mode http\n  bind 127.0.0.1:{port} accept-proxy\n  bind [::1]:{port} accept-proxy\n  \
         {SEEN} \"%[src]:%[src_port]|%[dst]:%[dst_port]\"\n"
    );
    let _haproxy = haproxy(folder, port, "tcp", &sections)?;
    let (document, fronts) = sending([four(port), six(port)], "")?;
    let kakei = Kakei::start(&setting.binary, folder, &document)?;
    let count = told_right(&fronts, GET)?;
    kakei.stop()?;
    Ok(format!("HAProxy saw {count} clients of both families as they are, by both versions over both families"))
}

/// nginx accepts what Kakei sends.
pub(in super::super) fn to_nginx(setting: &Setting) -> Result<String, String> {
    let (port, folder) = (free_port()?, &setting.folder);
    let servers = format!(
        "  server {{ listen 127.0.0.1:{port} proxy_protocol; listen [::1]:{port} proxy_protocol;\n    return \
         \"$proxy_protocol_addr:$proxy_protocol_port|$proxy_protocol_server_addr:$proxy_protocol_server_port\"; }}\n"
    );
    let _nginx = nginx(folder, port, &nginx_streams(&servers))?;
    let (document, fronts) = sending([four(port), six(port)], "")?;
    let kakei = Kakei::start(&setting.binary, folder, &document)?;
    let count = told_right(&fronts, "")?;
    kakei.stop()?;
    Ok(format!("nginx saw {count} clients of both families as they are, by both versions over both families"))
}

/// HAProxy → Kakei → HAProxy: the client goes through all, and so does what else the first one's header says.
pub(in super::super) fn through(setting: &Setting) -> Result<String, String> {
    let (folder, receiver) = (&setting.folder, free_port()?);
    let (document, middles) = sending([four(receiver), six(receiver)], TRUSTED)?;
    let kakei = Kakei::start(&setting.binary, folder, &document)?;
    let mut sections = format!(
        "frontend seen\n  mode http\n  bind 127.0.0.1:{receiver} accept-proxy\n  bind [::1]:{receiver} accept-proxy\n  \
         {SEEN} \"%[src]:%[src_port]|%[dst]:%[dst_port]|%[fc_pp_unique_id]\"\n"
    );
    let mut fronts = Vec::new();
    for (n, middle) in middles.iter().enumerate() {
        let front = free_port()?;
        sections += &format!(
            "frontend f{n}\n  bind 127.0.0.1:{front}\n  bind [::1]:{front}\n  unique-id-format kakei-{n}-%[src_port]\n  \
             default_backend b{n}\nbackend b{n}\n  server kakei {} send-proxy-v2 proxy-v2-options unique-id,crc32c\n",
            four(*middle)
        );
        fronts.push(front);
    }
    let _haproxy = haproxy(folder, receiver, "tcp", &sections)?;
    let (mut count, mut relayed) = (0, 0);
    for (n, front) in fronts.into_iter().enumerate() {
        for client in clients() {
            let mut stream = connect_from(client, beside(client, front))?;
            let port = stream.local_addr().map_err(|error| error.to_string())?.port();
            let expected = expected(&stream)?;
            let told = told(&mut stream, GET)?;
            // Version 1 has no room for it: the first fronts send that.
            let with_id = n >= middles.len() / 2;
            let id = if with_id { format!("kakei-{n}-{port}") } else { String::new() };
            if told != format!("{expected}|{id}") {
                return Err(format!("a client {expected} with the id {id:?} was seen as {told:?}"));
            }
            count += 1;
            relayed += usize::from(with_id);
        }
    }
    kakei.stop()?;
    Ok(format!("{count} clients through HAProxy, Kakei and HAProxy, {relayed} with their unique ids"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn its_documents_are_valid() {
        super::super::super::kakei::assert_valid(&believing(1, four(2)));
        super::super::super::kakei::assert_valid(&sending([four(1), six(1)], TRUSTED).unwrap().0);
    }
}
