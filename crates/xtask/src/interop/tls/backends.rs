//! nginx and HAProxy behind Kakei by TLS: both sides prove who they are, all that HTTP can do goes through, and a backend
//! that is somebody else is not spoken to.

use std::time::Duration;

use super::super::Setting;
use super::super::http::Client;
use super::super::http::origin::Origin;
use super::super::http::proxies::{PASS, Talents, talk};
use super::super::kakei::Kakei;
use super::super::process::{Program, free_port, wait_for};
use super::super::proxies::{haproxy, nginx, nginx_http};
use super::{Authority, Kind};

/// A proxy behind Kakei that passes requests on to the origin at that address; its program and its port.
type Back = fn(&Setting, &str) -> Result<(Program, u16), String>;

/// A listener of plain HTTP before a cluster whose backend is spoken to in TLS.
fn document(front: u16, back: u16, tls: &str) -> String {
    format!(
        "[listeners.web]\nprotocol = \"http\"\nbind = [\"127.0.0.1:{front}\"]\ncluster = \"site\"\n\n\
         [clusters.site]\nbackends = [\"127.0.0.1:{back}\"]\ntls = {{ {tls} }}\n\n\
         [certificates.proxy]\nchain = \"proxy.pem\"\nkey = \"proxy.key\"\n\n"
    )
}

const RIGHT: &str = "ca = \"authority.pem\", server_name = \"site.example\", certificate = \"proxy\"";
/// What doesn't go together with the backends, and what the record says of it.
const WRONG: &[(&str, &str)] = &[
    ("ca = \"authority.pem\", server_name = \"other.example\", certificate = \"proxy\"", "other.example"),
    ("ca = \"stranger.pem\", server_name = \"site.example\", certificate = \"proxy\"", "UnknownIssuer"),
];

fn to(setting: &Setting, early: bool, back: Back) -> Result<String, String> {
    let (folder, front, origin) = (&setting.folder, free_port()?, Origin::start()?);
    let authority = Authority::new(folder)?;
    authority.vouch("site", Kind::Ecdsa, &["site.example"])?;
    authority.vouch("proxy", Kind::Rsa, &["proxy.example"])?;
    // Vouched for by the authority, and no authority itself.
    authority.vouch("stranger", Kind::Ecdsa, &["stranger.example"])?;
    let both = ["site.pem", "site.key"].map(|name| std::fs::read_to_string(folder.join(name)).unwrap_or_default());
    std::fs::write(folder.join("site.both"), both.concat()).map_err(|error| format!("site.both: {error}"))?;
    let (program, port) = back(setting, &origin.address.to_string())?;
    let kakei = Kakei::start(&setting.binary, folder, &document(front, port, RIGHT))?;
    let said = talk(front, &origin, Talents { early, pipeline: true })?;
    let asked = origin.counts().1;
    for (tls, told) in WRONG {
        kakei.put(&document(front, port, tls))?;
        let answer = Client::to(front)?.get("/never")?;
        if answer.status != 502 {
            return Err(format!("{} through a backend that doesn't go together with {tls}", answer.status));
        }
        // Records are written behind the answer.
        wait_for("the reason in the access log", Duration::from_secs(5), || {
            kakei.records().iter().any(|record| record.to_string().contains(told))
        })
        .map_err(|why| format!("{why}: no record says {told:?} of {tls}"))?;
    }
    // Whoever proves nothing is refused by the backend, which TLS 1.3 says behind the handshake, and nginx by 400.
    kakei.put(&document(front, port, "ca = \"authority.pem\", server_name = \"site.example\""))?;
    let answer = Client::to(front)?.get("/never")?;
    if ![400, 502].contains(&answer.status) || origin.counts().1 != asked {
        return Err(format!("{} without a certificate of the proxy's", answer.status));
    }
    kakei.put(&document(front, port, RIGHT))?;
    if Client::to(front)?.get("/again")?.status != 200 {
        return Err("the right terms don't hold again".to_owned());
    }
    drop(program);
    kakei.stop()?;
    Ok(format!("{said}; both sides verified; another name, another authority and no certificate are refused"))
}

fn nginx_behind(setting: &Setting, origin: &str) -> Result<(Program, u16), String> {
    let port = free_port()?;
    let inside = format!(
        "  map $http_upgrade $onward {{ default upgrade; '' ''; }}\n  upstream next {{ server {origin}; keepalive 8; }}\n  \
         server {{ listen 127.0.0.1:{port} ssl; client_max_body_size 0; keepalive_requests 100000;\n  \
         ssl_certificate site.pem; ssl_certificate_key site.key; ssl_protocols TLSv1.2 TLSv1.3;\n  \
         ssl_verify_client on; ssl_client_certificate authority.pem;\n  \
         location / {{\n{PASS}    proxy_pass http://next;\n  }}}}\n"
    );
    Ok((nginx(&setting.folder, port, &nginx_http(&setting.folder, &inside))?, port))
}

fn haproxy_behind(setting: &Setting, origin: &str) -> Result<(Program, u16), String> {
    let port = free_port()?;
    let sections = format!(
        "frontend in\n  bind 127.0.0.1:{port} ssl crt site.both ca-file authority.pem verify required\n  \
         timeout tunnel 20s\n  default_backend next\nbackend next\n  http-reuse always\n  server next {origin}\n"
    );
    Ok((haproxy(&setting.folder, port, "http", &sections)?, port))
}

pub(in super::super) fn to_nginx(setting: &Setting) -> Result<String, String> {
    to(setting, false, nginx_behind)
}

pub(in super::super) fn to_haproxy(setting: &Setting) -> Result<String, String> {
    to(setting, true, haproxy_behind)
}

#[cfg(test)]
mod tests {
    #[test]
    fn its_document_is_valid() {
        super::super::super::kakei::assert_valid(&super::document(1, 2, super::RIGHT));
    }
}
