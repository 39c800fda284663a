//! The smuggling corpus through Kakei, nginx and HAProxy, each before a backend of its own that reads strictly and writes
//! down what it sees. What Kakei passes on though both others refuse it needs a reason.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use kakei_sim::smuggling::{Case, Fate, HIDDEN, Seen, cases, read};

use super::super::Setting;
use super::super::kakei::Kakei;
use super::super::net::{self, connect, four, serve};
use super::super::process::free_port;
use super::super::proxies::{haproxy, nginx, nginx_http};
use super::document;

/// How long more is waited for, and anything where a case is to be refused: who refuses may do so by silence.
const PATIENCE: Duration = Duration::from_millis(300);
const PLAYERS: usize = 8;

/// What Kakei passes on though nginx and HAProxy don't: how the request begins or what it has, and why.
const LENIENT: &[(&str, &str)] = &[(
    " HTTP/1.0\\r\\n\\r\\n",
    "HTTP/1.0 needs no Host; all three pass it on, but only Kakei names a host to the backend, which must have one",
)];

/// Which requests were made of a case: first lines and bodies, in order. None: it was refused.
type Made = Vec<(String, Vec<u8>)>;

pub(in super::super) fn as_others(setting: &Setting) -> Result<String, String> {
    let (kakei_port, nginx_port, haproxy_port) = (free_port()?, free_port()?, free_port()?);
    let backends = [Backend::start()?, Backend::start()?, Backend::start()?];
    let [behind_kakei, behind_nginx, behind_haproxy] = &backends;
    let words = document(kakei_port, &behind_kakei.address.to_string(), "");
    let kakei = Kakei::start(&setting.binary, &setting.folder, &words)?;
    let inside = format!(
        "  upstream next {{ server {}; keepalive 8; }}\n  server {{ listen 127.0.0.1:{nginx_port};\n    location / {{ \
         proxy_http_version 1.1; proxy_set_header Connection ''; proxy_set_header Host $host; proxy_pass http://next; \
         }}\n  }}\n",
        behind_nginx.address
    );
    let _nginx = nginx(&setting.folder, nginx_port, &nginx_http(&setting.folder, &inside))?;
    let sections = format!(
        "frontend in\n  bind 127.0.0.1:{haproxy_port}\n  default_backend next\nbackend next\n  http-reuse always\n  \
         server next {}\n",
        behind_haproxy.address
    );
    let _haproxy = haproxy(&setting.folder, haproxy_port, "http", &sections)?;
    let cases: Arc<Vec<Case>> = Arc::new(cases().into_iter().map(own_hidden).collect());
    for port in [kakei_port, nginx_port, haproxy_port] {
        play_all(port, &cases)?;
    }
    kakei.stop()?;
    let made: Vec<[Made; 3]> =
        cases.iter().map(|case| backends.each_ref().map(|backend| backend.made_of(case))).collect();
    judge(&cases, &made, &backends)
}

/// Let the request that is hidden in a case say whose it is; nothing changes its length.
fn own_hidden(mut case: Case) -> Case {
    let name = case.token.to_ascii_uppercase();
    rename(&mut case.bytes, &name);
    if let Fate::Forwarded(body) = &mut case.fate {
        rename(body, &name);
    }
    case
}

fn rename(bytes: &mut [u8], name: &str) {
    assert_eq!(name.len(), HIDDEN.len(), "lengths stay what they are");
    let is_place = |at: &usize| bytes[*at..].starts_with(HIDDEN.as_bytes());
    let places: Vec<usize> = (0..bytes.len()).filter(is_place).collect();
    for at in places {
        bytes[at..at + name.len()].copy_from_slice(name.as_bytes());
    }
}

fn play_all(port: u16, cases: &Arc<Vec<Case>>) -> Result<(), String> {
    let players = (0..PLAYERS).map(|turn| {
        let cases = Arc::clone(cases);
        thread::spawn(move || {
            cases
                .iter()
                .skip(turn)
                .step_by(PLAYERS)
                .try_for_each(|case| connect(four(port)).map(|stream| play(stream, case)))
        })
    });
    let players: Vec<_> = players.collect();
    players.into_iter().try_for_each(|player| player.join().map_err(|_| "a player panicked".to_owned())?)
}

/// Send a case and wait for all that comes of it.
fn play(mut stream: TcpStream, case: &Case) {
    // Where one that is slow would seem to refuse.
    let is_answered = matches!(case.fate, Fate::Forwarded(_));
    let _ = stream.set_read_timeout(Some(if is_answered { net::PATIENCE } else { PATIENCE }));
    // Who refuses it may not want to hear all of it.
    let _ = stream.write_all(&case.bytes);
    let mut buffer = [0; 4096];
    while let Ok(1..) = stream.read(&mut buffer) {
        let _ = stream.set_read_timeout(Some(PATIENCE));
    }
}

/// A backend of one proxy.
struct Backend {
    address: SocketAddr,
    seen: Arc<Mutex<Vec<Seen>>>,
    wrong: Arc<Mutex<Vec<String>>>,
}

impl Backend {
    fn start() -> Result<Backend, String> {
        let seen: Arc<Mutex<Vec<Seen>>> = Arc::default();
        let wrong: Arc<Mutex<Vec<String>>> = Arc::default();
        let (notes, complaints) = (Arc::clone(&seen), Arc::clone(&wrong));
        let address = serve(move |mut stream| {
            loop {
                match read(&mut stream) {
                    Ok(Some(request)) => notes.lock().expect("nobody panics with it").push(request),
                    Ok(None) => return,
                    Err(why) => return complaints.lock().expect("nobody panics with it").push(why),
                }
                if stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").is_err() {
                    return;
                }
            }
        })?;
        Ok(Backend { address, seen, wrong })
    }

    fn made_of(&self, case: &Case) -> Made {
        let hidden = case.token.to_ascii_uppercase();
        let seen = self.seen.lock().expect("nobody panics with it");
        let of_case = seen.iter().filter(|seen| seen.line.contains(&case.token) || seen.line.contains(&hidden));
        of_case.map(|seen| (seen.line.replace("HTTP/1.0", "HTTP/1.1"), seen.body.clone())).collect()
    }

    fn wrong(&self) -> Vec<String> {
        self.wrong.lock().expect("nobody panics with it").clone()
    }
}

/// What a proxy made of a case, in a word.
fn word(case: &Case, made: &Made) -> &'static str {
    match &case.fate {
        _ if made.is_empty() => "refuses",
        Fate::Forwarded(body) if matches!(&made[..], [(_, one)] if one == body) => "reads",
        _ => "reads otherwise",
    }
}

/// Count how the three stand to each other; an error where Kakei alone passes something on.
fn judge(cases: &[Case], made: &[[Made; 3]], backends: &[Backend; 3]) -> Result<String, String> {
    let (mut table, mut alone) = (BTreeMap::<[&str; 3], usize>::new(), Vec::new());
    for (case, made) in cases.iter().zip(made) {
        *table.entry(made.each_ref().map(|made| word(case, made))).or_default() += 1;
        let text = format!("{:?}", String::from_utf8_lossy(&case.bytes));
        let [ours, nginx, haproxy] = made.each_ref().map(|made| !made.is_empty());
        if ours && !nginx && !haproxy && !LENIENT.iter().any(|(sign, _)| text.contains(sign)) {
            alone.push(format!("{text:.300}"));
        }
    }
    let [ours, nginx, haproxy] = backends.each_ref().map(|backend| backend.wrong().len());
    if !alone.is_empty() || ours > 0 {
        return Err(format!("only Kakei passes on {alone:#?}; its backend could not read {:?}", backends[0].wrong()));
    }
    let rows: String =
        table.iter().map(|([k, n, h], count)| format!("\n         {k:<16}{n:<16}{h:<16}{count:>5}")).collect();
    Ok(format!(
        "{} requests; what their strict backends could not read: {ours} of Kakei, {nginx} of nginx, {haproxy} of HAProxy\n         \
         {:<16}{:<16}{:<16}{rows}",
        cases.len(),
        "Kakei",
        "nginx",
        "HAProxy"
    ))
}
