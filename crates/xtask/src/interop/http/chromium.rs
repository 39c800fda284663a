//! A browser that loads a page with many assets through Kakei: all of them complete, by the page's own account and by the
//! server's log.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::{Duration, Instant};

use super::super::Setting;
use super::super::kakei::Kakei;
use super::super::process::{Program, command, free_port, wait_for, write};
use super::super::proxies::{nginx, nginx_http};
use super::super::tls::{self, Authority, Kind};
use super::document;
use super::origin::pattern;

const SCRIPTS: usize = 40;
const STYLES: usize = 20;
const IMAGES: usize = 40;
/// Files that the page fetches itself, and counts the bytes of.
const FETCHED: usize = 20;
const FETCHED_BYTES: usize = 200_000;
const FLAGS: &[&str] = &[
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--no-proxy-server",
];

pub(in super::super) fn page(setting: &Setting) -> Result<String, String> {
    load(setting, "http", document)
}

/// The same by TLS.
pub(in super::super) fn secured_page(setting: &Setting) -> Result<String, String> {
    let authority = Authority::new(&setting.folder)?;
    authority.vouch("site", Kind::Ecdsa, &["localhost"])?;
    load(setting, "https", |port, backend, _| tls::document(port, &["site"], backend, ", default = \"site\""))
}

/// Load the page by this scheme from a listener of this document.
fn load(setting: &Setting, scheme: &str, document: impl Fn(u16, &str, &str) -> String) -> Result<String, String> {
    let (folder, web, front) = (&setting.folder, free_port()?, free_port()?);
    let names = files(folder)?;
    let inside = format!(
        "  types {{ text/html html; text/css css; text/javascript js; image/svg+xml svg; }}\n  log_format line '$request_uri \
         $status $body_bytes_sent';\n  gzip on; gzip_types text/css text/javascript;\n  server {{ listen 127.0.0.1:{web}; \
         root {home}/www; access_log {home}/seen.log line;\n    location = /report {{ return 204; }}\n  }}\n",
        home = folder.display()
    );
    let _nginx = nginx(folder, web, &nginx_http(folder, &inside))?;
    let kakei = Kakei::start(&setting.binary, folder, &document(front, &format!("127.0.0.1:{web}"), ""))?;
    let begun = Instant::now();
    let mut chromium = command("chromium");
    chromium.args(FLAGS).arg(format!("--user-data-dir={}/profile", folder.display()));
    // The authority is none that a browser knows: what is tried is its TLS, not its list.
    chromium.arg("--ignore-certificate-errors");
    let host = if scheme == "https" { "localhost" } else { "127.0.0.1" };
    let browser = Program::start("chromium", folder, chromium.arg(format!("{scheme}://{host}:{front}/page.html")))?;
    let seen = || std::fs::read_to_string(folder.join("seen.log")).unwrap_or_default();
    wait_for("the page's report", Duration::from_secs(40), || seen().contains("/report"))
        .map_err(|why| format!("{why}: {}", browser.said()))?;
    let seconds = begun.elapsed().as_secs_f64();
    drop(browser);
    let log = seen();
    let expected = format!(
        "/report?scripts={SCRIPTS}&styles={STYLES}&images={IMAGES}&fetched={FETCHED}&bytes={}",
        FETCHED * FETCHED_BYTES
    );
    if !log.contains(&expected) {
        let report = log.lines().find(|line| line.contains("/report")).unwrap_or_default();
        return Err(format!("the page says {report} in the place of {expected}"));
    }
    let served: BTreeSet<&str> =
        log.lines().filter(|line| line.contains(" 200 ")).filter_map(|line| line.split(' ').next()).collect();
    if let Some(missing) = names.iter().find(|name| !served.contains(name.as_str())) {
        return Err(format!("the server never sent {missing}"));
    }
    let reused = kakei.metric("kakei_backend_reused_connections", "")?;
    let handshakes = kakei.metric("kakei_tls13_handshakes", "")?;
    if (handshakes > 0) != (scheme == "https") {
        return Err(format!("{handshakes} handshakes of TLS 1.3 by {scheme}"));
    }
    kakei.stop()?;
    Ok(format!(
        "{} assets complete by the page's account and the server's log, {seconds:.1} s with the browser's start; {reused} \
         requests took a kept connection",
        names.len()
    ))
}

/// Write the page and its assets; their paths.
fn files(folder: &Path) -> Result<Vec<String>, String> {
    let home = folder.join("www");
    std::fs::create_dir_all(&home).map_err(|error| format!("{}: {error}", home.display()))?;
    let (mut names, mut body) = (Vec::new(), String::new());
    let mut add = |name: String, text: &[u8]| {
        let file = home.join(&name);
        names.push(format!("/{name}"));
        std::fs::write(&file, text).map_err(|error| format!("{}: {error}", file.display()))
    };
    for n in 0..SCRIPTS {
        let filling = "// words that make it longer\n".repeat(n * 20);
        add(format!("s{n}.js"), format!("{filling}window.scripts = (window.scripts || 0) + 1;\n").as_bytes())?;
        body += &format!("<script src=\"/s{n}.js\"></script>\n");
    }
    for n in 0..STYLES {
        let filling = "/* words that make it longer */\n".repeat(n * 20);
        add(format!("c{n}.css"), format!("{filling}#box {{ --style-{n}: yes; }}\n").as_bytes())?;
        body += &format!("<link rel=\"stylesheet\" href=\"/c{n}.css\">\n");
    }
    for n in 0..IMAGES {
        let picture =
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"8\" height=\"8\"><rect width=\"8\" height=\"8\"/></svg>";
        add(format!("i{n}.svg"), picture.as_bytes())?;
        body += &format!("<img src=\"/i{n}.svg\">\n");
    }
    for n in 0..FETCHED {
        add(format!("f{n}.bin"), &pattern(FETCHED_BYTES))?;
    }
    let page = include_str!("programs/page.html")
        .replace("STYLES", &STYLES.to_string())
        .replace("FETCHED", &FETCHED.to_string())
        .replace("ASSETS", &body);
    write(&home.join("page.html"), &page)?;
    Ok(names)
}
