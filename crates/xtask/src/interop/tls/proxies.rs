//! nginx and HAProxy in front of Kakei by TLS, which verify whom they speak to; all that HTTP can do goes through both.

use super::super::Setting;
use super::super::http::origin::Origin;
use super::super::http::proxies::{PASS, Talents, talk};
use super::super::kakei::Kakei;
use super::super::process::{Program, free_port};
use super::super::proxies::{haproxy, nginx, nginx_http};
use super::{Authority, Kind, document};

/// A proxy in front of Kakei: its program and its port.
type Front = fn(&Setting, u16, &str) -> Result<(Program, u16), String>;

fn from(setting: &Setting, early: bool, front: Front) -> Result<String, String> {
    let (folder, middle, origin) = (&setting.folder, free_port()?, Origin::start()?);
    let authority = Authority::new(folder)?;
    authority.vouch("wrong", Kind::Ecdsa, &["wrong.example"])?;
    authority.vouch("site", Kind::Ecdsa, &["site.example"])?;
    let words = document(middle, &["wrong", "site"], &origin.address.to_string(), "");
    let kakei = Kakei::start(&setting.binary, folder, &words)?;
    let (program, port) = front(setting, middle, "site.example")?;
    let said = talk(port, &origin, Talents { early, pipeline: true })?;
    drop(program);
    // By another name's connection no request goes through that isn't for it.
    let before = origin.counts().1;
    let (program, port) = front(setting, middle, "wrong.example")?;
    let answer = super::super::http::Client::to(port)?.get("/never")?;
    drop(program);
    if answer.status != 421 || origin.counts().1 != before {
        return Err(format!("{} for a host that the connection's certificate isn't for", answer.status));
    }
    let (v12, v13) = (kakei.metric("kakei_tls12_handshakes", "")?, kakei.metric("kakei_tls13_handshakes", "")?);
    if v13 == 0 {
        return Err(format!("no TLS 1.3 handshake, {v12} of 1.2"));
    }
    kakei.stop()?;
    Ok(format!("{said}; {v13} handshakes, certificate verified, 421 where the names differ"))
}

fn nginx_before(setting: &Setting, to: u16, name: &str) -> Result<(Program, u16), String> {
    let port = free_port()?;
    let inside = format!(
        "  map $http_upgrade $onward {{ default upgrade; '' ''; }}\n  upstream next {{ server 127.0.0.1:{to}; keepalive 8; \
         }}\n  server {{ listen 127.0.0.1:{port}; client_max_body_size 0; keepalive_requests 100000;\n  location / {{\n\
         {PASS}    proxy_pass https://next; proxy_ssl_verify on; proxy_ssl_trusted_certificate authority.pem;\n    \
         proxy_ssl_name {name}; proxy_ssl_server_name on; proxy_ssl_protocols TLSv1.2 TLSv1.3;\n  }}}}\n"
    );
    Ok((nginx(&setting.folder, port, &nginx_http(&setting.folder, &inside))?, port))
}

fn haproxy_before(setting: &Setting, to: u16, name: &str) -> Result<(Program, u16), String> {
    let port = free_port()?;
    let sections = format!(
        "frontend in\n  bind 127.0.0.1:{port}\n  timeout tunnel 20s\n  default_backend next\nbackend next\n  http-reuse \
         always\n  server next 127.0.0.1:{to} ssl verify required ca-file authority.pem sni str({name}) verifyhost {name}\n"
    );
    Ok((haproxy(&setting.folder, port, "http", &sections)?, port))
}

pub(in super::super) fn from_nginx(setting: &Setting) -> Result<String, String> {
    from(setting, false, nginx_before)
}

pub(in super::super) fn from_haproxy(setting: &Setting) -> Result<String, String> {
    from(setting, true, haproxy_before)
}
