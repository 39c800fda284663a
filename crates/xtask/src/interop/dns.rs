//! DNS peers: nsd as a backend, dnsperf as a client, and single queries from chosen addresses. Parses no more than it asks for.

use std::io::ErrorKind;
use std::net::{SocketAddr, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use super::process::{Program, command, free_port, run, write};

const ZONE: &str = "$ORIGIN example.\n$TTL 60\n@ SOA ns root 1 3600 600 86400 60\n@ NS ns\nns A 192.0.2.1\n\
                    www A 192.0.2.80\n*.w A 192.0.2.81\n";

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(2);

/// An authoritative server for `example`.
pub(super) struct Nsd {
    config: PathBuf,
    /// Where it answers.
    pub(super) address: SocketAddr,
    _program: Program,
}

impl Nsd {
    /// Start one on a free port of `ip`.
    pub(super) fn start(name: &str, folder: &Path, ip: &str) -> Result<Nsd, String> {
        let port = free_port()?;
        let home = folder.join(name);
        std::fs::create_dir_all(&home).map_err(|error| format!("{}: {error}", home.display()))?;
        write(&home.join("example.zone"), ZONE)?;
        let config = home.join("nsd.conf");
        write(&config, &config_of(&home.display().to_string(), ip, port))?;
        let mut program = Program::start(name, folder, command("nsd").arg("-d").arg("-c").arg(&config))?;
        let address = SocketAddr::new(ip.parse().map_err(|_| format!("{ip} is no address"))?, port);
        program.wait_until("an answer", || ask(any_of(address), address, "www.example").is_ok())?;
        Ok(Nsd { config, address, _program: program })
    }

    /// How many queries it has answered, by its own count.
    pub(super) fn queries(&self) -> Result<u64, String> {
        let said = run(command("nsd-control").arg("-c").arg(&self.config).arg("stats_noreset"))?;
        let count = said.lines().find_map(|line| line.strip_prefix("num.queries=")?.parse().ok());
        count.ok_or_else(|| format!("nsd-control counts no queries:\n{said}"))
    }
}

fn config_of(home: &str, ip: &str, port: u16) -> String {
    // nsd limits the rate of equal answers by default; a proxy would be blamed for the loss.
    format!(
        "server:\n  server-count: 1\n  ip-address: {ip}@{port}\n  username: \"\"\n  chroot: \"\"\n  \
         zonesdir: \"{home}\"\n  pidfile: \"{home}/pid\"\n  database: \"\"\n  xfrdfile: \"{home}/xfrd\"\n  \
         zonelistfile: \"{home}/zones\"\n  rrl-ratelimit: 0\n  rrl-whitelist-ratelimit: 0\n  \
         receive-buffer-size: 4194304\n  send-buffer-size: 4194304\n\
         remote-control:\n  control-enable: yes\n  control-interface: \"{home}/ctl\"\n\
         zone:\n  name: example\n  zonefile: example.zone\n"
    )
}

/// Any local address of the same family, any port.
pub(super) fn any_of(address: SocketAddr) -> SocketAddr {
    let ip = if address.is_ipv4() { "127.0.0.1" } else { "::1" };
    SocketAddr::new(ip.parse().expect("a loopback address"), 0)
}

/// Ask `to` for the address of `name` from `from`; returns the address that was asked from.
/// The socket is connected, so an answer from any other address than the one that was dialled is not seen.
pub(super) fn ask(from: SocketAddr, to: SocketAddr, name: &str) -> Result<SocketAddr, String> {
    let say = |error: std::io::Error| match error.kind() {
        ErrorKind::WouldBlock => format!("{name} from {from} at {to}: no answer within {} s", PATIENCE.as_secs()),
        _ => format!("{name} from {from} at {to}: {error}"),
    };
    let socket = UdpSocket::bind(from).map_err(say)?;
    socket.connect(to).map_err(say)?;
    socket.set_read_timeout(Some(PATIENCE)).map_err(say)?;
    let query = query(name);
    socket.send(&query).map_err(say)?;
    let mut answer = [0; 1500];
    let length = socket.recv(&mut answer).map_err(say)?;
    match is_answer(&query, &answer[..length]) {
        true => socket.local_addr().map_err(say),
        false => Err(format!("{name} from {from} at {to}: {length} bytes that are no answer")),
    }
}

/// A query for the A record of `name`.
pub(super) fn query(name: &str) -> Vec<u8> {
    let mut bytes = vec![0x4b, 0x6b, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.split('.') {
        bytes.push(label.len() as u8);
        bytes.extend_from_slice(label.as_bytes());
    }
    bytes.extend_from_slice(&[0, 0, 1, 0, 1]);
    bytes
}

/// Whether this is an answer without error, with the query's id and question and at least one record.
fn is_answer(query: &[u8], answer: &[u8]) -> bool {
    answer.len() > query.len()
        && answer[..2] == query[..2]
        && answer[2] & 0x80 != 0
        && answer[3] & 0x0f == 0
        && u16::from_be_bytes([answer[6], answer[7]]) > 0
        && answer[12..query.len()] == query[12..]
}

/// A load by dnsperf.
pub(super) struct Load {
    /// Where to.
    pub(super) to: SocketAddr,
    /// How many queries.
    pub(super) queries: u64,
    /// How many in a second.
    pub(super) per_second: u64,
    /// How many sockets.
    pub(super) clients: u32,
}

/// What dnsperf says in the end.
#[derive(Debug, PartialEq)]
pub(super) struct Verdict {
    /// Queries that it sent.
    pub(super) sent: u64,
    /// Queries without an answer.
    pub(super) lost: u64,
    /// Answers without error.
    pub(super) good: u64,
    /// Queries in a second.
    pub(super) rate: f64,
    /// Average time to an answer.
    pub(super) latency: Duration,
}

const NAMES: u64 = 1000;

impl Load {
    /// The command of it; one file of names, many times.
    pub(super) fn command(&self, folder: &Path) -> Result<Command, String> {
        let file = folder.join("names");
        let names: String = (0..NAMES).map(|n| format!("h{n}.w.example A\n")).collect();
        write(&file, &names)?;
        let mut dnsperf = command("dnsperf");
        dnsperf.args(["-s", &self.to.ip().to_string(), "-p", &self.to.port().to_string(), "-t", "3", "-d"]).arg(file);
        dnsperf.args(["-n", &self.queries.div_ceil(NAMES).to_string(), "-Q", &self.per_second.to_string()]);
        dnsperf.args(["-c", &self.clients.to_string(), "-l", "120"]);
        Ok(dnsperf)
    }
}

impl Verdict {
    /// Read it from what dnsperf printed.
    pub(super) fn read(said: &str) -> Result<Verdict, String> {
        let value = |label: &str| {
            let line = said.lines().find_map(|line| line.trim_start().strip_prefix(label));
            let word = line.and_then(|rest| rest.split_whitespace().next());
            word.ok_or_else(|| format!("dnsperf says nothing about `{label}`:\n{said}"))
        };
        let count = |label: &str| value(label)?.parse::<u64>().map_err(|error| format!("dnsperf, `{label}`: {error}"));
        let real = |label: &str| value(label)?.parse::<f64>().map_err(|error| format!("dnsperf, `{label}`: {error}"));
        let good = said.split("NOERROR ").nth(1).and_then(|rest| rest.split_whitespace().next()?.parse().ok());
        Ok(Verdict {
            sent: count("Queries sent:")?,
            lost: count("Queries lost:")?,
            good: good.unwrap_or(0),
            rate: real("Queries per second:")?,
            latency: Duration::from_secs_f64(real("Average Latency (s):")?),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_verdict_is_read_from_what_dnsperf_prints() {
        let said = "Statistics:\n\n  Queries sent:         50000\n  Queries completed:    49990 (99.98%)\n  \
                    Queries lost:         10 (0.02%)\n\n  Response codes:       NOERROR 49985 (99.99%), SERVFAIL 5 (0.01%)\n  \
                    Run time (s):         5.000115\n  Queries per second:   9999.770005\n\n  \
                    Average Latency (s):  0.000042 (min 0.000010, max 0.002122)\n";
        let verdict = Verdict::read(said).unwrap();
        assert_eq!((verdict.sent, verdict.lost, verdict.good), (50_000, 10, 49_985));
        assert_eq!(verdict.latency, Duration::from_micros(42));
        assert!(Verdict::read("nothing").is_err());
    }

    #[test]
    fn an_answer_is_told_from_anything_else() {
        let asked = query("www.example");
        let mut answer = asked.clone();
        answer[2] |= 0x80;
        answer[7] = 1;
        answer.extend_from_slice(&[0xc0, 0x0c]);
        assert!(is_answer(&asked, &answer));
        let wrong = |at: usize, value: u8| {
            let mut other = answer.clone();
            other[at] = value;
            !is_answer(&asked, &other)
        };
        assert!(wrong(0, 0), "another id");
        assert!(wrong(2, 1), "a query");
        assert!(wrong(3, 2), "an error");
        assert!(wrong(7, 0), "no record");
        assert!(wrong(13, b'x'), "another question");
        assert!(!is_answer(&asked, &asked), "an echo");
    }
}
