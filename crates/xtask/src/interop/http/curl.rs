//! curl and all that people do with it, through Kakei to nginx (files, ranges, gzip, redirects) and to a backend that says
//! what it saw.

use std::path::Path;

use super::super::Setting;
use super::super::kakei::Kakei;
use super::super::process::{command, free_port, run};
use super::super::proxies::{nginx, nginx_http};
use super::origin::{Origin, pattern, sum};

/// Bytes of what is sent and fetched.
const LARGE: usize = 3 << 20;

/// Of what can be compressed.
const TEXT: usize = 116_000;
const WORDS: &str = "the same words over and over\n";

/// A line of curl, and what its output must have in it; `!` before it: must not.
#[derive(Clone)]
struct Line {
    what: &'static str,
    arguments: String,
    shows: Vec<String>,
}

fn line(what: &'static str, arguments: impl Into<String>, shows: &[&str]) -> Line {
    let shows = shows.iter().map(|text| (*text).to_owned()).collect();
    Line { what, arguments: arguments.into(), shows }
}

pub(in super::super) fn options(setting: &Setting) -> Result<String, String> {
    let folder = &setting.folder;
    let (origin, web, front) = (Origin::start()?, free_port()?, free_port()?);
    let proxied = free_port()?;
    files(folder)?;
    let inside = format!(
        "  gzip on; gzip_proxied any; gzip_types *; gzip_min_length 1; gzip_http_version 1.0;\n  server {{ listen 127.0.0.1:{web}; root \
         {}/www; absolute_redirect off;\n    location = /moved {{ return 301 /large; }}\n    location = /away {{ return \
         302 http://$http_host/large; }}\n  }}\n",
        folder.display()
    );
    let _nginx = nginx(folder, web, &nginx_http(folder, &inside))?;
    let words = document((front, proxied), &origin.address.to_string(), &format!("127.0.0.1:{web}"));
    let kakei = Kakei::start(&setting.binary, folder, &words)?;
    let lines = [plain(front), uploads(front), ways(front), addresses(front, proxied)].concat();
    let wrong: Vec<String> = lines
        .iter()
        .filter_map(|line| try_line(folder, line).err().map(|why| format!("{}: {why}", line.what)))
        .collect();
    if !wrong.is_empty() {
        return Err(wrong.join("\n"));
    }
    origin.is_content()?;
    kakei.stop()?;
    Ok(format!("{} lines of curl, to nginx and to a backend that says what it saw", lines.len()))
}

/// Files to serve and to send.
fn files(folder: &Path) -> Result<(), String> {
    let say = |error: std::io::Error| format!("{}: {error}", folder.display());
    std::fs::create_dir_all(folder.join("www")).map_err(say)?;
    std::fs::write(folder.join("www/large"), pattern(LARGE)).map_err(say)?;
    std::fs::write(folder.join("www/text"), WORDS.repeat(TEXT / WORDS.len())).map_err(say)
}

fn document((front, proxied): (u16, u16), origin: &str, web: &str) -> String {
    let host = |name: &str, host: &str, cluster: &str, more: &str| {
        format!("[routes.{name}]\nlistener = \"web\"\nhost = [\"{host}\"]\ncluster = \"{cluster}\"\n{more}\n")
    };
    [
        format!("[listeners.web]\nprotocol = \"http\"\nbind = [\"127.0.0.1:{front}\", \"[::1]:{front}\"]\n"),
        "cluster = \"origin\"\n\n[listeners.web.http]\nvia = \"kakei\"\n\n".to_owned(),
        format!("[listeners.proxied]\nprotocol = \"http\"\nbind = [\"127.0.0.1:{proxied}\"]\ncluster = \"origin\"\n"),
        "proxy_protocol = { trusted = [\"127.0.0.0/8\"] }\n\n".to_owned(),
        host("files", "files.example", "files", ""),
        host("international", "xn--bcher-kva.example", "origin", "request = { set = { x-route = \"international\" } }\n"),
        host("tunnel", "tunnel.example", "origin", "connect = true\n"),
        "[routes.old]\nlistener = \"web\"\nhost = [\"files.example\"]\npath = \"/old\"\nredirect = { status = 308, path = \
         \"{rest}\" }\n\n"
            .to_owned(),
        format!("[clusters.origin]\nbackends = [\"{origin}\"]\n\n[clusters.files]\nbackends = [\"{web}\"]\n"),
    ]
    .concat()
}

/// Where curl finds a host.
fn at(host: &str, port: u16) -> String {
    format!("--resolve '*:{port}:127.0.0.1' http://{host}:{port}")
}

/// Fetching.
fn plain(front: u16) -> Vec<Line> {
    let (files, origin) = (at("files.example", front), at("origin.example", front));
    let code = "-w '%{http_version}|%{http_code}|%{size_download}|%{num_connects}@'";
    let all = format!("200|{LARGE}|1@");
    vec![
        line("HTTP/1.1", format!("-o got --http1.1 {code} {files}/large"), &[&format!("1.1|{all}"), "got=large"]),
        line("HTTP/1.0", format!("-o got --http1.0 {code} {files}/large"), &[&format!("|{all}"), "got=large"]),
        line("chunks to HTTP/1.0", format!("-o got --http1.0 {code} {origin}/chunks/{LARGE}"), &["got=large"]),
        line(
            "HTTP/1.0 that keeps",
            format!("-0 -i -H Connection:keep-alive {origin}/x"),
            &["200 OK", "GET /x HTTP/1.1"],
        ),
        line("HEAD", format!("-I {files}/large"), &["200 OK", &format!("Content-Length: {LARGE}")]),
        line("a range", format!("-o got -r 1000-1999 {code} {files}/large"), &["206|1000|", "got=large[1000..2000]"]),
        line("ranges", format!("-r 0-0,10-19 -i {files}/large"), &["206 Partial", "multipart/byteranges"]),
        line("a range that can't be", format!("-r 99999999- -i {files}/large"), &["416 ", "bytes */"]),
        line(
            "compressed",
            format!("--compressed {code} -o got {files}/text"),
            &["200|", "got=text", &format!("!|{TEXT}|")],
        ),
        line(
            "gzip as it is",
            format!("-H Accept-Encoding:gzip -i -o got {files}/text"),
            &["got~Content-Encoding: gzip"],
        ),
        line("a redirect of the backend", format!("-L -o got {code} {files}/moved"), &["200|", "got=large"]),
        line("one with an address", format!("-L -o got {code} {files}/away"), &["200|", "got=large"]),
        line("a redirect of the proxy", format!("-L -o got {code} {files}/old/large"), &["200|", "got=large"]),
        line("until the end", format!("-o got {code} {origin}/until-close/{LARGE}"), &[&all, "got=large"]),
        line("trailers", format!("-i --raw {origin}/trailers"), &["X-Sum: 7"]),
        line("early hints", format!("-i {origin}/early"), &["103 Early Hints", "rel=preload", "200 OK"]),
        line(
            "not modified",
            format!("-i -H 'If-None-Match: \"7\"' {origin}/etag"),
            &["304 Not Modified", "ETag: \"7\""],
        ),
        line("nothing", format!("-i {origin}/nothing"), &["204 No Content", "!Transfer-Encoding"]),
        line("a backend's date", format!("-o got -R -z 2001-01-01 {code} {files}/large"), &["200|", "got=large"]),
    ]
}

/// Sending.
fn uploads(front: u16) -> Vec<Line> {
    let origin = at("origin.example", front);
    let whole = format!("\"length\":{LARGE},");
    let same = format!("\"sum\":\"{}\"", sum(&pattern(LARGE)));
    let large = "@www/large";
    vec![
        line(
            "POST that waits",
            format!("-i -H 'Expect: 100-continue' --expect100-timeout 20 --data-binary {large} {origin}/post"),
            &["100 Continue", "200 OK", "POST /post HTTP/1.1", &whole, &same],
        ),
        line("POST that doesn't", format!("-H Expect: --data-binary {large} {origin}/post"), &[&whole, &same]),
        line(
            "POST in chunks",
            format!("-H Transfer-Encoding:chunked -H Expect: --data-binary {large} {origin}/post"),
            &["Transfer-Encoding: chunked", &whole, &same],
        ),
        line("PUT of a file", format!("-T www/large {origin}/put"), &["PUT /put HTTP/1.1", &whole, &same]),
        line("PUT of a pipe", format!("-T - {origin}/put < www/large"), &["chunked", &whole, &same]),
        line("PUT by HTTP/1.0", format!("-0 -T www/large {origin}/put"), &[&whole, &same]),
        line("a form", format!("-F a=b -F file=@www/large {origin}/form"), &["multipart/form-data; boundary"]),
        line("an empty POST", format!("-X POST -d '' {origin}/post"), &["\"length\":0,"]),
        line("DELETE with a body", format!("-X DELETE -d hello {origin}/x"), &["DELETE /x", "\"length\":5,"]),
        line("a method of one's own", format!("-X PURGE {origin}/x"), &["PURGE /x HTTP/1.1"]),
    ]
}

/// Connections.
fn ways(front: u16) -> Vec<Line> {
    let origin = at("origin.example", front);
    let base = format!("http://origin.example:{front}");
    let count = "-w '%{num_connects}@'";
    let once = "1@0@0@0@";
    vec![
        line(
            "one connection for all",
            format!("-s -o n {count} {origin}/a {base}/chunks/9 -o n {base}/nothing -o n {base}/b -o n"),
            &[once],
        ),
        line(
            "one after HEAD and 304",
            format!(
                "-s -o n {count} -I {origin}/a --next -s -o n {count} -H 'If-None-Match: \"7\"' {base}/etag --next -s -o n \
                 {count} -d x {base}/b --next -s -o n {count} {base}/early"
            ),
            &[once],
        ),
        line(
            "one that ends",
            format!("-s -i -H Connection:close {origin}/a --next -s -o n {count} {origin}/b"),
            &["Connection: close", "1@"],
        ),
        line("fifty at once", format!("-s -Z --parallel-max 50 {origin}/[1-50]"), &["GET /50 "]),
        line("slowly", format!("-s --limit-rate 4M -o got {origin}/chunks/{LARGE}"), &["got=large"]),
        line("no transfer coding but ours", format!("--tr-encoding {origin}/x"), &["!TE: gzip", "GET /x"]),
        line("an upgrade to HTTP/2", format!("--http2 -i {origin}/x"), &["HTTP/1.1 200 OK", "GET /x HTTP/1.1"]),
    ]
}

/// Hosts, targets, and who asks.
fn addresses(front: u16, proxied: u16) -> Vec<Line> {
    let origin = at("origin.example", front);
    vec![
        line(
            "an international host",
            at("b\u{fc}cher.example", front) + "/x",
            &["x-route: international", "Host: xn--bcher-kva.example"],
        ),
        line("a host in capitals", at("B\u{dc}CHER.EXAMPLE", front) + "/x", &["x-route: international"]),
        line("a trailing dot", at("xn--bcher-kva.example.", front) + "/x", &["x-route: international"]),
        line("IPv6", format!("-g http://[::1]:{front}/x"), &["Host: [::1]:", "X-Forwarded-For: ::1"]),
        line(
            "as a forward proxy",
            format!("-x http://127.0.0.1:{front} http://forward.example/x?y=z"),
            &["GET /x?y=z HTTP/1.1", "Host: forward.example\"", "!Proxy-Connection"],
        ),
        line(
            "with a proxy's password",
            format!("-x http://127.0.0.1:{front} -U me:secret http://forward.example/x"),
            &["GET /x HTTP/1.1", "!Proxy-Authorization"],
        ),
        line(
            "through a tunnel",
            format!("-i -p -x http://127.0.0.1:{front} http://tunnel.example:80/x"),
            &["GET /x HTTP/1.1", "Host: tunnel.example"],
        ),
        line("a path as it is", format!("--path-as-is {origin}/a/./b/../c//d"), &["GET /a/./b/../c//d HTTP/1.1"]),
        line("escapes as they are", format!("{origin}/%7e%2F%c3%bc?%zz"), &["GET /%7e%2F%c3%bc?%zz HTTP/1.1"]),
        line("a query with odd marks", format!("-g {origin}'/x?a[]=\"b\"|c'"), &["/x?a[]="]),
        line("Via", format!("-i {origin}/x"), &["Via: 1.1 kakei"]),
        line("what a stranger forwards", format!("-H X-Forwarded-For:9.9.9.9 {origin}/x"), &["!9.9.9.9", "127.0.0.1"]),
        line(
            "a PROXY header",
            format!("--haproxy-protocol http://127.0.0.1:{proxied}/x"),
            &["X-Forwarded-For: 127.0.0.1"],
        ),
        line("OPTIONS of all", format!("-X OPTIONS --request-target '*' {origin}"), &["OPTIONS * HTTP/1.1"]),
        line("cookies", format!("-b 'a=b; c=d' -A me {origin}/x"), &["Cookie: a=b; c=d", "User-Agent: me"]),
    ]
}

/// Run it in a shell, as people do.
fn try_line(folder: &Path, line: &Line) -> Result<(), String> {
    for name in ["got", "n"] {
        let _ = std::fs::remove_file(folder.join(name));
    }
    let mut shell = command("sh");
    let words = format!("LC_ALL=C.UTF-8 exec curl -q -sS --noproxy '' -m 20 {}", line.arguments);
    let said = run(shell.current_dir(folder).args(["-c", &words])).map_err(|why| format!("{words}: {why}"))?;
    for shown in &line.shows {
        shows(folder, &said, shown).map_err(|why| format!("{words}\n{why} in {said:.2000}"))?;
    }
    Ok(())
}

/// What a line must show: a text (`!`: must not), or that the file `got` has something.
fn shows(folder: &Path, said: &str, shown: &str) -> Result<(), String> {
    let got = || std::fs::read(folder.join("got")).map_err(|error| format!("no file: {error}"));
    let (right, wrong) = match shown {
        "got=large" => (got()? == pattern(LARGE), "other bytes than the file's"),
        "got=large[1000..2000]" => (got()? == pattern(LARGE)[1_000..2_000], "other bytes than the range's"),
        "got=text" => (got()? == std::fs::read(folder.join("www/text")).unwrap_or_default(), "other words"),
        _ if shown.starts_with("got~") => (String::from_utf8_lossy(&got()?).contains(&shown[4..]), "not in the file"),
        _ if shown.starts_with('!') => (!said.contains(&shown[1..]), "it is there"),
        _ => (said.contains(shown), "it is missing"),
    };
    if right { Ok(()) } else { Err(format!("{shown:?}: {wrong}")) }
}

#[cfg(test)]
mod tests {
    #[test]
    fn its_document_is_valid() {
        super::super::super::kakei::assert_valid(&super::document((1, 2), "127.0.0.1:3", "127.0.0.1:4"));
    }
}
