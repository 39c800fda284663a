//! curl over TLS: versions, names, bodies both ways, a host that the certificate isn't for, plain HTTP at the same port.

use std::path::Path;

use super::super::Setting;
use super::super::http::origin::{Origin, pattern, sum};
use super::super::kakei::Kakei;
use super::super::process::{command, free_port};
use super::{Authority, Kind, document, shows};

/// Bytes of what is sent and fetched.
const LARGE: usize = 3 << 20;
/// What curl prints at the end.
const ABOUT: &str = "=%{http_version}|%{http_code}|%{ssl_verify_result}|%{size_download}|%{num_connects}=";

/// A line of curl: its arguments, whether it is to succeed, and what it must show.
struct Line {
    arguments: Vec<String>,
    succeeds: bool,
    shows: Vec<String>,
}

fn line(arguments: &str, succeeds: bool, shows: &[&str]) -> Line {
    Line {
        arguments: arguments.split(' ').map(str::to_owned).collect(),
        succeeds,
        shows: shows.iter().map(|text| (*text).to_owned()).collect(),
    }
}

pub(in super::super) fn curl(setting: &Setting) -> Result<String, String> {
    let (folder, front, origin) = (&setting.folder, free_port()?, Origin::start()?);
    let authority = Authority::new(folder)?;
    authority.vouch("site", Kind::Ecdsa, &["site.example", "*.under.example"])?;
    authority.vouch("other", Kind::Rsa, &["other.example"])?;
    let words = document(front, &["site", "other"], &origin.address.to_string(), "");
    let kakei = Kakei::start(&setting.binary, folder, &words)?;
    std::fs::write(folder.join("large"), pattern(LARGE)).map_err(|error| format!("large: {error}"))?;
    let lines = lines(front);
    let wrong: Vec<String> = lines.iter().filter_map(|line| try_line(folder, front, line).err()).collect();
    if !wrong.is_empty() {
        return Err(wrong.join("\n"));
    }
    let got = std::fs::read(folder.join("got")).map_err(|error| format!("got: {error}"))?;
    if got != pattern(LARGE) {
        return Err(format!("{} bytes came that are not those of the backend", got.len()));
    }
    origin.is_content()?;
    kakei.stop()?;
    Ok(format!("{} lines of curl by TLS 1.2 and 1.3, verified", lines.len()))
}

fn lines(front: u16) -> Vec<Line> {
    let at = |host: &str| format!("https://{host}:{front}");
    let (site, other) = (at("site.example"), at("other.example"));
    let same = format!("\"sum\":\"{}\"", sum(&pattern(LARGE)));
    vec![
        line(&format!("--tlsv1.3 {site}/a"), true, &["=1.1|200|0|", "GET /a HTTP/1.1", "X-Forwarded-Proto: https"]),
        line(&format!("--tls-max 1.2 {site}/a"), true, &["=1.1|200|0|", "GET /a HTTP/1.1"]),
        line(&format!("--http2 {site}/a"), true, &["=1.1|200|0|"]),
        line(&format!("--http1.0 {site}/a"), true, &["|200|0|"]),
        line(&format!("{}/a", at("a.under.example")), true, &["=1.1|200|0|"]),
        line(&format!("{other}/a"), true, &["=1.1|200|0|"]),
        line(&format!("-o got {site}/chunks/{LARGE}"), true, &[&format!("=1.1|200|0|{LARGE}|")]),
        line(&format!("-T large {site}/put"), true, &["PUT /put HTTP/1.1", &same]),
        line(&format!("--tls-max 1.2 -T large {site}/put"), true, &["PUT /put HTTP/1.1", &same]),
        line(&format!("{site}/a {site}/chunks/9 {site}/nothing {site}/b"), true, &["|0=", "GET /b HTTP/1.1"]),
        line(&format!("-I {site}/a"), true, &["HTTP/1.1 200"]),
        line(&format!("{site}/until-close/1000"), true, &["|200|0|1000|"]),
        // The connection is for one name, the request for another one's certificate, or for nobody's.
        line(&format!("-H Host:other.example {site}/a"), true, &["=1.1|421|0|"]),
        line(&format!("-H Host:nobody.example {site}/a"), true, &["=1.1|421|0|"]),
        line(&format!("http://site.example:{front}/a"), true, &["|400|0|"]),
        line(&format!("-i http://site.example:{front}/a"), true, &["HTTP/1.1 400", "onnection: close"]),
        line(&format!("{}/a", at("nobody.example")), false, &["unrecognized name"]),
        line(&format!("--tlsv1.0 --tls-max 1.1 --ciphers DEFAULT:@SECLEVEL=0 {site}/a"), false, &["protocol version"]),
    ]
}

fn try_line(folder: &Path, front: u16, line: &Line) -> Result<(), String> {
    let mut curl = command("curl");
    curl.args(["-sS", "--max-time", "20", "--cacert", "authority.pem", "-w", ABOUT, "--resolve"]);
    curl.arg(format!("*:{front}:127.0.0.1")).args(&line.arguments).current_dir(folder);
    let output = curl.output().map_err(|error| format!("curl: {error}"))?;
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    let what = line.arguments.join(" ");
    if output.status.success() != line.succeeds {
        return Err(format!("curl {what} ended with {}: {said}", output.status));
    }
    shows(&format!("curl {what}"), &said, &line.shows.iter().map(String::as_str).collect::<Vec<_>>())
}
