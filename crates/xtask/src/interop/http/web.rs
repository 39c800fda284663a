//! Web frameworks and WebSocket libraries as people use them: express and ws, uvicorn and websockets, each library's
//! client through Kakei to each library's server.

use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::super::Setting;
use super::super::kakei::Kakei;
use super::super::net::four;
use super::super::process::{Program, command, free_port, run, write};
use super::origin::pattern;
use super::registry::Libraries;
use super::{Client, document};

const LARGE: usize = 2 << 20;

/// The express app and the server of ws.
pub(super) fn node_server(folder: &Path) -> Result<(Program, u16), String> {
    let port = free_port()?;
    write(&folder.join("server.js"), include_str!("programs/server.js"))?;
    // `require` looks beside the file first, then where it is told to.
    let mut node = Libraries::Node.command();
    started("express", folder, node.args(["server.js", &port.to_string()]), port)
}

/// uvicorn with the ASGI app and the server of websockets.
pub(super) fn python_server(folder: &Path) -> Result<(Program, u16), String> {
    let port = free_port()?;
    write(&folder.join("app.py"), include_str!("programs/app.py"))?;
    let mut python = Libraries::Python.command();
    python.args([
        "-m",
        "uvicorn",
        "app:app",
        "--port",
        &port.to_string(),
        "--log-level",
        "warning",
        "--ws",
        "websockets-sansio",
    ]);
    python.args([
        "--proxy-headers",
        "--ws-ping-interval",
        "0.1",
        "--ws-ping-timeout",
        "5",
        "--ws-max-size",
        "16777216",
    ]);
    started("uvicorn", folder, &mut python, port)
}

fn started(name: &str, folder: &Path, what: &mut std::process::Command, port: u16) -> Result<(Program, u16), String> {
    let mut program = Program::start(name, folder, what)?;
    program.wait_until("its port", || std::net::TcpStream::connect(four(port)).is_ok())?;
    Ok((program, port))
}

/// curl and ws' client to express.
pub(in super::super) fn express(setting: &Setting) -> Result<String, String> {
    let (folder, front) = (&setting.folder, free_port()?);
    std::fs::create_dir_all(folder.join("files")).map_err(|error| error.to_string())?;
    std::fs::write(folder.join("large"), pattern(LARGE)).map_err(|error| error.to_string())?;
    write(&folder.join("files/static.txt"), &"static words\n".repeat(1_000))?;
    let (_server, port) = node_server(folder)?;
    let kakei = Kakei::start(&setting.binary, folder, &document(front, &format!("127.0.0.1:{port}"), ""))?;
    let base = format!("http://127.0.0.1:{front}");
    let curl = |arguments: &str| {
        let words = format!("exec curl -q -sS --noproxy '' -m 20 {}", arguments.replace("AT", &base));
        run(command("sh").current_dir(folder).args(["-c", &words])).map_err(|why| format!("{words}: {why}"))
    };
    let hash = run(command("sha256sum").current_dir(folder).arg("large"))?;
    let hash = hash.split(' ').next().unwrap_or_default();
    let lines: String = (0..300).map(|n| format!("line {n}\n")).collect();
    let etag = curl("-D - -o got AT/page")?;
    let etag = etag.lines().find_map(|line| line.strip_prefix("ETag: ")).ok_or("no ETag of express")?.trim().to_owned();
    let shows = [
        (
            "cookies",
            "-c jar -b jar -i AT/hello",
            vec!["Set-Cookie: first=a%20b; Path=/; HttpOnly", "Set-Cookie: second=2"],
        ),
        ("who asks", "-H 'Host: shop.example' AT/hello", vec!["\"ip\":\"127.0.0.1\"", "\"host\":\"shop.example\""]),
        ("cookies kept", "-b jar AT/cookies", vec!["first=a%20b"]),
        ("a stream", "-i AT/stream/300", vec!["Transfer-Encoding: chunked", &lines]),
        ("a stream to HTTP/1.0", "-0 AT/stream/300", vec![&lines]),
        (
            "JSON",
            "-i -H 'Content-Type: application/json' -d '{\"a\":[1,2,\"\u{fc}\"]}' AT/json",
            vec!["201", "{\"a\":[1,2,\"\u{fc}\"]}"],
        ),
        ("an upload", "-F note=hi -F file=@large AT/upload", vec![hash, "\"size\":2097152", "\"note\":\"hi\""]),
        ("a static file", "-i AT/files/static.txt", vec!["200 OK", "static words", "Accept-Ranges: bytes"]),
        ("a range of it", "-i -r 0-5 AT/files/static.txt", vec!["206 Partial Content", "\r\n\r\nstatic"]),
        ("an error of its own", "-i AT/fails", vec!["500 Internal Server Error", "on purpose"]),
        ("what it hasn't", "-i AT/nowhere", vec!["404 Not Found"]),
    ];
    for (what, arguments, shown) in &shows {
        let said = curl(arguments).map_err(|why| format!("{what}: {why}"))?;
        if let Some(missing) = shown.iter().find(|text| !said.contains(*text)) {
            return Err(format!("{what}: {missing:?} is not in {said:.1000}"));
        }
    }
    let fresh = curl(&format!("-i -H 'If-None-Match: {etag}' AT/page"))?;
    if !fresh.starts_with("HTTP/1.1 304") || fresh.contains("a page") {
        return Err(format!("a page that did not change came as {fresh:.300}"));
    }
    kakei.stop()?;
    Ok(format!(
        "{} lines of curl to express: cookies, chunks, a multipart upload of {LARGE} bytes, ETag and 304",
        shows.len() + 2
    ))
}

/// Streams and server-sent events of uvicorn.
pub(in super::super) fn uvicorn(setting: &Setting) -> Result<String, String> {
    const EVENTS: usize = 200;
    let (folder, front) = (&setting.folder, free_port()?);
    let (_server, port) = python_server(folder)?;
    let kakei = Kakei::start(&setting.binary, folder, &document(front, &format!("127.0.0.1:{port}"), ""))?;
    let mut client = Client::to(front)?;
    let body = client.get("/stream?count=500&size=4001")?.body;
    let expected: Vec<u8> = (0..500).flat_map(|n| std::iter::repeat_n((n % 251) as u8, 4_001)).collect();
    if body != expected {
        return Err(format!("a stream of {} bytes came as {} others", expected.len(), body.len()));
    }
    let upload = pattern(LARGE);
    client.send(format!("POST /upload HTTP/1.1\r\nHost: a\r\nContent-Length: {LARGE}\r\n\r\n").as_bytes())?;
    client.send(&upload)?;
    let said: Value = serde_json::from_str(&client.answer("POST")?.text()).map_err(|error| error.to_string())?;
    if said["length"] != LARGE {
        return Err(format!("an upload of {LARGE} bytes was {said}"));
    }
    let slowest = events(front, EVENTS)?;
    let who: Value = serde_json::from_str(&client.get("/who")?.text()).map_err(|error| error.to_string())?;
    if who["client"] != "127.0.0.1" || who["fields"]["x-forwarded-proto"] != "http" {
        return Err(format!("uvicorn was told {who}"));
    }
    kakei.stop()?;
    Ok(format!(
        "a stream, an upload, and {EVENTS} server-sent events, each sent when the one before was seen, the slowest after {} \
         ms",
        slowest.as_millis()
    ))
}

/// Each event is sent only when the client has said that it saw the one before; the longest that one took.
fn events(front: u16, count: usize) -> Result<Duration, String> {
    let (mut stream, mut other) = (Client::to(front)?, Client::to(front)?);
    let asked = format!("GET /events?count={count} HTTP/1.1\r\nHost: a\r\nAccept: text/event-stream\r\n\r\n");
    stream.send(asked.as_bytes())?;
    while !stream.line()?.is_empty() {}
    let mut slowest = Duration::ZERO;
    for n in 1..=count {
        let begun = Instant::now();
        let expected = format!("id: {n}\ndata: event {n}\n\n");
        let size = stream.line().map_err(|why| format!("event {n}: {why}"))?;
        let size = usize::from_str_radix(&size, 16).map_err(|_| format!("event {n}: a size of {size:?}"))?;
        let event = stream.exactly(size + 2)?;
        if event != format!("{expected}\r\n").as_bytes() {
            return Err(format!("event {n} came as {:?}", String::from_utf8_lossy(&event)));
        }
        slowest = slowest.max(begun.elapsed());
        other.get(&format!("/ack?n={n}"))?;
    }
    match stream.line()?.as_str() {
        "0" => Ok(slowest),
        more => Err(format!("{more:?} came behind the last event")),
    }
}

/// The clients of ws and websockets, each to the servers of both.
pub(in super::super) fn sockets(setting: &Setting) -> Result<String, String> {
    let (folder, front, beside) = (&setting.folder, free_port()?, free_port()?);
    let ((_node, node), (_python, python)) = (node_server(folder)?, python_server(folder)?);
    let more = format!(
        "[listeners.beside]\nprotocol = \"http\"\nbind = [\"127.0.0.1:{beside}\"]\ncluster = \"python\"\n\n[clusters.python]\n\
         backends = [\"127.0.0.1:{python}\"]\n"
    );
    let kakei = Kakei::start(&setting.binary, folder, &document(front, &format!("127.0.0.1:{node}"), &more))?;
    write(&folder.join("client.js"), include_str!("programs/client.js"))?;
    write(&folder.join("client.py"), include_str!("programs/client.py"))?;
    let mut echoes = 0;
    for (libraries, file) in [(Libraries::Node, "client.js"), (Libraries::Python, "client.py")] {
        for (server, port) in [("ws", front), ("uvicorn", beside)] {
            let mut client = libraries.command();
            client.current_dir(folder).args([file, &format!("ws://127.0.0.1:{port}/ws")]);
            let said = run(&mut client).map_err(|why| format!("{file} to {server}: {why}"))?;
            echoes += said.trim().parse::<usize>().map_err(|_| format!("{file} to {server}: {said}"))?;
        }
    }
    let upgraded = kakei.metric("kakei_requests_ended", "reason=\"upgraded\"")?;
    if upgraded < 8 {
        return Err(format!("{upgraded} requests became connections"));
    }
    kakei.stop()?;
    Ok(format!(
        "{echoes} messages over {upgraded} connections of ws and websockets to both: text, binary, a MiB, fragments, pings of \
         both sides, compression, a subprotocol, close codes of both sides"
    ))
}
