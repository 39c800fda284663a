//! Redis and PostgreSQL behind Kakei, under their own benchmark clients: every command and every transaction is counted by
//! the server as often as its client says.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::super::Setting;
use super::super::kakei::Kakei;
use super::super::process::{Program, command, free_port, run};
use super::{cluster, four, listener};

const COMMANDS: usize = 20_000;
const CLIENTS: usize = 50;
const TRANSACTIONS: usize = 500;
const SESSIONS: usize = 8;

/// Over TCP and over a Unix socket, one by one and pipelined.
pub(in super::super) fn redis(setting: &Setting) -> Result<String, String> {
    let folder = &setting.folder;
    let (port, tcp, unix) = (free_port()?, free_port()?, free_port()?);
    let socket = folder.join("redis.sock");
    let mut server = command("redis-server");
    server.args(["--bind", "127.0.0.1", "--port", &port.to_string(), "--save", "", "--appendonly", "no"]);
    server.arg("--unixsocket").arg(&socket);
    let mut server = Program::start("redis-server", folder, &mut server)?;
    server.wait_until("an answer", || redis_cli(port, &["ping"]).is_ok_and(|said| said.trim() == "PONG"))?;
    let kakei = Kakei::start(&setting.binary, folder, &redis_document(tcp, unix, port, &socket))?;
    let mut rates = Vec::new();
    let mut expected = 0;
    for (front, pipeline) in [(tcp, "1"), (tcp, "16"), (unix, "1")] {
        rates.push(redis_benchmark(front, pipeline)?);
        expected += COMMANDS;
        let counted = redis_cli(port, &["get", "counter:__rand_int__"])?;
        if counted.trim().parse() != Ok(expected) {
            return Err(format!("{expected} INCR were answered, but the counter is {}", counted.trim()));
        }
    }
    let long = redis_long_value(port, unix)?;
    kakei.stop()?;
    Ok(format!(
        "{expected} INCR of {CLIENTS} clients all counted ({} a second; {} pipelined; {} over the Unix socket); {long} bytes read back",
        rates[0], rates[1], rates[2]
    ))
}

fn redis_document(tcp: u16, unix: u16, port: u16, socket: &Path) -> String {
    let words = [
        listener("tcp", &[four(tcp)], "tcp", ""),
        listener("unix", &[four(unix)], "unix", ""),
        cluster("tcp", &four(port).to_string(), ""),
        cluster("unix", &format!("unix:{}", socket.display()), ""),
    ];
    words.concat()
}

fn redis_cli(port: u16, words: &[&str]) -> Result<String, String> {
    run(command("redis-cli").args(["-p", &port.to_string()]).args(words))
}

/// Requests a second, by the client's own count.
fn redis_benchmark(front: u16, pipeline: &str) -> Result<String, String> {
    let mut client = command("redis-benchmark");
    client.args(["-p", &front.to_string(), "-n", &COMMANDS.to_string(), "-c", &CLIENTS.to_string()]);
    let said = run(client.args(["-P", pipeline, "-t", "incr", "--csv"]))?;
    let rate = said.lines().find_map(|line| line.strip_prefix("\"INCR\",\"")?.split('"').next().map(str::to_owned));
    rate.ok_or_else(|| format!("redis-benchmark counts no INCR:\n{said}"))
}

/// A value of a megabyte, written through Kakei and read both ways.
fn redis_long_value(port: u16, front: u16) -> Result<usize, String> {
    let value: String = (0..1 << 20).map(|n| char::from(b'a' + (n % 251 % 26) as u8)).collect();
    redis_cli(front, &["eval", "redis.call('set', KEYS[1], ARGV[1]) return 'ok'", "1", "long", &value[..100_000]])?;
    redis_cli(
        port,
        &["eval", "redis.call('set', 'longer', string.rep(redis.call('get', 'long'), 40)) return 'ok'", "0"],
    )?;
    let through = redis_cli(front, &["get", "longer"])?;
    match through.trim_end() == value[..100_000].repeat(40) {
        true => Ok(through.trim_end().len()),
        false => Err(format!("of a value of 4,000,000 bytes {} others came through", through.len())),
    }
}

/// pgbench's books balance: what its clients say was done is what the server has.
pub(in super::super) fn postgres(setting: &Setting) -> Result<String, String> {
    let folder = &setting.folder;
    let (port, front) = (free_port()?, free_port()?);
    let data = folder.join("data");
    std::fs::create_dir_all(&data).map_err(|error| format!("{}: {error}", data.display()))?;
    let server = Postgres::of(&data)?;
    run(server.command("initdb").args(["-A", "trust", "-U", "postgres", "--no-sync", "-D"]).arg(&data))?;
    let mut program = server.command("postgres");
    program.arg("-D").arg(&data).args(["-p", &port.to_string(), "-c", "fsync=off", "-c", "unix_socket_directories="]);
    let mut program = Program::start("postgres", folder, &mut program)?;
    program.wait_until("an answer", || psql(port, "select 1").is_ok())?;
    let document = [listener("db", &[four(front)], "db", ""), cluster("db", &four(port).to_string(), "")].concat();
    let kakei = Kakei::start(&setting.binary, folder, &document)?;
    pgbench(front, &["-i", "-q", "-s", "1"])?;
    let (sessions, transactions) = (SESSIONS.to_string(), TRANSACTIONS.to_string());
    let said = pgbench(front, &["-c", &sessions, "-j", "2", "-t", &transactions, "-M", "prepared"])?;
    let all = SESSIONS * TRANSACTIONS;
    if !said.contains(&format!("actually processed: {all}/{all}")) {
        return Err(format!("pgbench did not process {all} transactions:\n{said}"));
    }
    let books =
        psql(port, "select count(*), sum(delta) = (select sum(abalance) from pgbench_accounts) from pgbench_history")?;
    if books.trim() != format!("{all}|t") {
        return Err(format!("{all} transactions were answered, but the server's books say {}", books.trim()));
    }
    kakei.stop()?;
    let rate = said.lines().find_map(|line| line.strip_prefix("tps = ")?.split('.').next()).unwrap_or("?");
    Ok(format!("{all} transactions of {SESSIONS} sessions, all in the server's books; {rate} a second"))
}

/// Who the server runs as: it refuses to run as root.
struct Postgres {
    nobody: bool,
}

impl Postgres {
    fn of(data: &PathBuf) -> Result<Postgres, String> {
        let nobody = rustix::process::geteuid().is_root();
        if nobody {
            run(command("chown").arg("65534:65534").arg(data))?;
        }
        Ok(Postgres { nobody })
    }

    fn command(&self, program: &str) -> Command {
        let program = command(program);
        if !self.nobody {
            return program;
        }
        let mut other = command("setpriv");
        other.args(["--reuid=65534", "--regid=65534", "--clear-groups"]).arg(program.get_program());
        other
    }
}

fn psql(port: u16, query: &str) -> Result<String, String> {
    let port = port.to_string();
    run(command("psql").args(["-h", "127.0.0.1", "-p", &port, "-U", "postgres", "-At", "-c", query]))
}

fn pgbench(port: u16, words: &[&str]) -> Result<String, String> {
    let port = port.to_string();
    run(command("pgbench").args(["-h", "127.0.0.1", "-p", &port, "-U", "postgres"]).args(words).arg("postgres"))
}

#[cfg(test)]
mod tests {
    #[test]
    fn its_document_is_valid() {
        super::super::super::kakei::assert_valid(&super::redis_document(1, 2, 3, std::path::Path::new("/tmp/r.sock")));
    }
}
