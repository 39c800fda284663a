//! A certificate that is replaced while requests flow, by its files and `kakei apply`: no request and no handshake is lost,
//! who was there goes on, and who comes after a change is shown the new one.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rustls::client::Resumption;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

use super::super::Setting;
use super::super::http::origin::Origin;
use super::super::kakei::Kakei;
use super::super::net::{connect, four};
use super::super::process::free_port;
use super::{Authority, Kind, document};

const CHANGES: usize = 40;
/// Clients with a connection that stays, and clients with a new one for each request.
const KEPT: usize = 4;
const FRESH: usize = 2;
/// How long traffic flows between two changes.
const BETWEEN: Duration = Duration::from_millis(100);

const HOST: &str = "site.example";

pub(in super::super) fn replaced(setting: &Setting) -> Result<String, String> {
    let (folder, front, origin) = (&setting.folder, free_port()?, Origin::start()?);
    let authority = Authority::new(folder)?;
    let mut known = Vec::new();
    for name in ["first", "second"] {
        authority.vouch(name, Kind::Ecdsa, &[HOST])?;
        known.push(read(&folder.join(format!("{name}.pem")))?);
    }
    install(folder, "first")?;
    let kakei = Kakei::start(&setting.binary, folder, &document(front, &["site"], &origin.address.to_string(), ""))?;
    let (config, stop) = (Arc::new(config(&authority.file())?), Arc::new(AtomicBool::new(false)));
    let clients: Vec<_> = (0..KEPT + FRESH)
        .map(|number| {
            let (config, stop) = (Arc::clone(&config), Arc::clone(&stop));
            thread::spawn(move || client(front, &config, number, number < KEPT, &stop))
        })
        .collect();
    let mut slowest = Duration::ZERO;
    let changed = (1..=CHANGES).try_for_each(|change| {
        thread::sleep(BETWEEN);
        install(folder, ["first", "second"][change % 2])?;
        let begun = Instant::now();
        kakei.command(&["apply", "kakei.toml"])?;
        slowest = slowest.max(begun.elapsed());
        let mut session = Session::begin(front, &config)?;
        session.ask(&format!("/change/{change}"))?;
        match session.shown() == Some(known[change % 2].clone()) {
            true => Ok(()),
            false => Err(format!("a connection after change {change} was shown the certificate before")),
        }
    });
    stop.store(true, Ordering::Relaxed);
    let mut asked = [0, 0];
    for (number, client) in clients.into_iter().enumerate() {
        let (count, shown) = client.join().map_err(|_| "a client fell".to_owned())??;
        asked[usize::from(number >= KEPT)] += count;
        if number >= KEPT && !known.iter().all(|known| shown.contains(known)) {
            return Err(format!("client {number} was shown {} certificates in {count} connections", shown.len()));
        }
    }
    changed?;
    let failed = kakei.metric("kakei_tls_failed_handshakes", "")?;
    if failed > 0 {
        return Err(format!("{failed} handshakes failed"));
    }
    origin.is_content()?;
    kakei.stop()?;
    Ok(format!(
        "{CHANGES} changes by files and `kakei apply` (the slowest {} ms): {} requests over {KEPT} connections that stayed and \
         {} over new ones, none lost; each change seen by the next connection",
        slowest.as_millis(),
        asked[0],
        asked[1]
    ))
}

/// Put this one in the place of the certificate that the document names.
fn install(folder: &Path, name: &str) -> Result<(), String> {
    ["pem", "key"].iter().try_for_each(|kind| {
        let (from, to) = (folder.join(format!("{name}.{kind}")), folder.join(format!("site.{kind}")));
        std::fs::copy(&from, &to).map(drop).map_err(|error| format!("{}: {error}", to.display()))
    })
}

fn read(path: &Path) -> Result<CertificateDer<'static>, String> {
    CertificateDer::from_pem_file(path).map_err(|error| format!("{}: {error}", path.display()))
}

fn config(authority: &Path) -> Result<ClientConfig, String> {
    let say = |error: rustls::Error| format!("a client of TLS: {error}");
    let mut roots = RootCertStore::empty();
    roots.add(read(authority)?).map_err(say)?;
    let builder = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()));
    let builder = builder.with_safe_default_protocol_versions().map_err(say)?;
    let mut config = builder.with_root_certificates(roots).with_no_client_auth();
    config.resumption = Resumption::disabled();
    Ok(config)
}

type Shown = Vec<CertificateDer<'static>>;

/// Ask until it is told to stop: how often it did, and which certificates it was shown.
fn client(
    front: u16,
    config: &Arc<ClientConfig>,
    number: usize,
    keeps: bool,
    stop: &AtomicBool,
) -> Result<(usize, Shown), String> {
    let (mut count, mut shown) = (0, Shown::new());
    let mut kept: Option<Session> = None;
    while !stop.load(Ordering::Relaxed) {
        let mut session = match kept.take() {
            Some(session) => session,
            None => Session::begin(front, config)?,
        };
        session.ask(&format!("/client/{number}/{count}")).map_err(|why| format!("request {count}: {why}"))?;
        count += 1;
        if let Some(certificate) = session.shown().filter(|certificate| !shown.contains(certificate)) {
            shown.push(certificate);
        }
        kept = Some(session).filter(|_| keeps);
    }
    match keeps && shown.len() > 1 {
        true => Err("a connection that stayed changed its certificate".to_owned()),
        false => Ok((count, shown)),
    }
}

/// A connection of TLS.
struct Session(StreamOwned<ClientConnection, TcpStream>);

impl Session {
    fn begin(front: u16, config: &Arc<ClientConfig>) -> Result<Session, String> {
        let name = ServerName::try_from(HOST).map_err(|error| error.to_string())?;
        let client = ClientConnection::new(Arc::clone(config), name).map_err(|error| error.to_string())?;
        Ok(Session(StreamOwned::new(client, connect(four(front))?)))
    }

    /// Ask for a path, and see that this is what the backend was asked for.
    fn ask(&mut self, path: &str) -> Result<(), String> {
        let say = |error: std::io::Error| format!("{path}: {error}");
        let asked = format!("GET {path} HTTP/1.1\r\nHost: {HOST}\r\n\r\n");
        self.0.write_all(asked.as_bytes()).and_then(|()| self.0.flush()).map_err(say)?;
        let (mut got, mut buffer) = (Vec::new(), [0; 4096]);
        loop {
            let n = self.0.read(&mut buffer).map_err(say)?;
            if n == 0 {
                return Err(format!("{path}: an end in the middle of an answer"));
            }
            got.extend_from_slice(&buffer[..n]);
            if let Some((head, body)) = whole(&got) {
                let is_right = head.starts_with("HTTP/1.1 200 ") && body.contains(&format!("GET {path} HTTP/1.1"));
                return if is_right { Ok(()) } else { Err(format!("{path} was answered by {head}{body}")) };
            }
        }
    }

    /// The certificate that it was shown.
    fn shown(&self) -> Option<CertificateDer<'static>> {
        self.0.conn.peer_certificates().and_then(|chain| chain.first()).map(|first| first.clone().into_owned())
    }
}

/// Head and body of an answer, once all of it is there.
fn whole(got: &[u8]) -> Option<(String, String)> {
    let text = String::from_utf8_lossy(got).into_owned();
    let (head, body) = text.split_once("\r\n\r\n")?;
    let mut fields = head.lines().filter_map(|line| line.split_once(':'));
    let length = fields.find(|(name, _)| name.eq_ignore_ascii_case("content-length"))?.1.trim().parse().ok();
    (Some(body.len()) == length).then(|| (head.to_owned(), body.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::whole;

    #[test]
    fn an_answer_is_whole_with_its_last_byte() {
        let text = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
        assert_eq!(whole(text).map(|(_, body)| body).as_deref(), Some("ok"));
        assert_eq!(whole(&text[..text.len() - 1]), None);
    }
}
