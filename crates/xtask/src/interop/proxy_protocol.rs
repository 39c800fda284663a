//! PROXY protocol v2 on datagrams, with receivers and senders that are not ours: who they saw is who asked.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use super::Setting;
use super::dns::{Nsd, any_of, ask, query};
use super::kakei::Kakei;
use super::process::{Program, command, free_port, wait_for, write};

/// Clients that no program of the check would be mistaken for.
const CLIENTS: [&str; 3] = ["127.0.0.5:0", "127.0.0.77:0", "[::1]:0"];

/// A receiver that has to know who asked: unbound, which logs the client of every query.
struct Unbound {
    four: SocketAddr,
    six: SocketAddr,
    program: Program,
}

impl Unbound {
    fn start(folder: &Path) -> Result<Unbound, String> {
        let port = free_port()?;
        let home = folder.display();
        let config = folder.join("unbound.conf");
        write(
            &config,
            &format!(
                "server:\n  interface: 127.0.0.1@{port}\n  interface: ::1@{port}\n  proxy-protocol-port: {port}\n  \
                 username: \"\"\n  chroot: \"\"\n  directory: \"{home}\"\n  pidfile: \"\"\n  use-syslog: no\n  \
                 logfile: \"\"\n  log-queries: yes\n  do-daemonize: no\n  access-control: 0.0.0.0/0 allow\n  \
                 access-control: ::0/0 allow\n  module-config: \"iterator\"\n  local-zone: \"test.\" redirect\n  \
                 local-data: \"test. A 192.0.2.90\"\nremote-control:\n  control-enable: no\n"
            ),
        )?;
        let mut program = Program::start("unbound", folder, command("unbound").arg("-d").arg("-c").arg(&config))?;
        let log = folder.join("unbound.log");
        program.wait_until("its start", || {
            std::fs::read_to_string(&log).is_ok_and(|said| said.contains("start of service"))
        })?;
        let four = SocketAddr::from(([127, 0, 0, 1], port));
        Ok(Unbound { four, six: SocketAddr::new(any_of("[::1]:0".parse().expect("an address")).ip(), port), program })
    }

    /// Whether it logged that `client` asked for `name`.
    fn saw(&self, client: SocketAddr, name: &str) -> Result<(), String> {
        let line = format!("info: {} {name}. A IN", client.ip());
        wait_for(&format!("`{line}` in unbound's log"), Duration::from_secs(2), || self.program.said().contains(&line))
            .map_err(|why| format!("{why}:\n{}", self.program.said()))
    }
}

/// dnsdist with this configuration, ready when `probe` is answered.
fn dnsdist(folder: &Path, port: u16, lines: &str) -> Result<Program, String> {
    let config = folder.join("dnsdist.conf");
    let common = format!(
        "setSecurityPollSuffix(\"\")\naddLocal(\"127.0.0.1:{port}\")\naddLocal(\"[::1]:{port}\")\n\
         setACL({{\"0.0.0.0/0\", \"::/0\"}})\n"
    );
    write(&config, &format!("{common}{lines}"))?;
    let mut run = command("dnsdist");
    run.args(["--supervised", "--disable-syslog", "-C"]).arg(&config);
    let mut program = Program::start("dnsdist", folder, &mut run)?;
    let log = folder.join("dnsdist.log");
    program.wait_until("its server being up", || {
        std::fs::read_to_string(&log).is_ok_and(|said| said.contains("as 'up'"))
    })?;
    Ok(program)
}

/// A document with one listener in both families.
fn document(port: u16, listener: &str, backend: SocketAddr, knobs: &str) -> String {
    format!(
        "[listeners.dns]\nprotocol = \"udp\"\nbind = [\"127.0.0.1:{port}\", \"[::1]:{port}\"]\ncluster = \"dns\"\n{listener}\n\
         [clusters.dns]\nbackends = [\"{backend}\"]\nudp = {{ requests = 1, responses = 1{knobs} }}\n"
    )
}

fn address(text: &str) -> SocketAddr {
    text.parse().expect("an address written here")
}

/// The address of the same family on `port`.
fn beside(client: SocketAddr, port: u16) -> SocketAddr {
    SocketAddr::new(any_of(client).ip(), port)
}

/// Clients of both families, backends of both families, both strategies: unbound logs the real client every time.
pub(super) fn to_unbound(setting: &Setting) -> Result<String, String> {
    let unbound = Unbound::start(&setting.folder)?;
    let port = free_port()?;
    let mut kakei: Option<Kakei> = None;
    let mut asked = 0;
    for backend in [unbound.four, unbound.six] {
        for upstream in ["per_flow", "shared"] {
            let knobs = format!(", send_proxy_protocol = \"every\", upstream = \"{upstream}\"");
            let document = document(port, "", backend, &knobs);
            match &kakei {
                Some(kakei) => kakei.put(&document)?,
                None => kakei = Some(Kakei::start(&setting.binary, &setting.folder, &document)?),
            }
            for client in CLIENTS.map(address) {
                asked += 1;
                let name = format!("q{asked}.test");
                let from = ask(client, beside(client, port), &name)?;
                unbound.saw(from, &name)?;
            }
        }
    }
    Ok(format!("{asked} queries of IPv4 and IPv6 clients over IPv4 and IPv6, unbound logged each real client"))
}

/// dnsdist logs the real client, its port included.
pub(super) fn to_dnsdist(setting: &Setting) -> Result<String, String> {
    let folder = &setting.folder;
    let nsd = Nsd::start("nsd", folder, "127.0.0.1")?;
    let (behind, port) = (free_port()?, free_port()?);
    let log = folder.join("queries.log");
    let lines = format!(
        "setProxyProtocolACL({{\"127.0.0.0/8\", \"::1/128\"}})\n\
         newServer({{address = \"{}\", checkName = \"www.example.\", checkInterval = 1}})\n\
         addAction(AllRule(), LogAction(\"{}\", false, false, false))\n",
        nsd.address,
        log.display()
    );
    let _dnsdist = dnsdist(folder, behind, &lines)?;
    let document = document(port, "", SocketAddr::from(([127, 0, 0, 1], behind)), ", send_proxy_protocol = \"every\"");
    let _kakei = Kakei::start(&setting.binary, folder, &document)?;
    for (n, client) in CLIENTS.map(address).into_iter().enumerate() {
        let name = format!("d{n}.w.example");
        let from = ask(client, beside(client, port), &name)?;
        let line = format!("Packet from {from} for {name}. A");
        let logged = || std::fs::read_to_string(&log).is_ok_and(|said| said.contains(&line));
        wait_for(&format!("`{line}` in dnsdist's log"), Duration::from_secs(3), logged)
            .map_err(|why| format!("{why}:\n{}", std::fs::read_to_string(&log).unwrap_or_default()))?;
    }
    Ok(format!("dnsdist logged the address and port of {} clients", CLIENTS.len()))
}

/// dnsdist sends headers; Kakei's access log has the real client, and a header from elsewhere is refused.
pub(super) fn from_dnsdist(setting: &Setting) -> Result<String, String> {
    let folder = &setting.folder;
    let nsd = Nsd::start("nsd", folder, "127.0.0.1")?;
    let (front, port) = (free_port()?, free_port()?);
    let trusted = "proxy_protocol = { trusted = [\"127.0.0.1/32\"] }\n";
    let kakei = Kakei::start(&setting.binary, folder, &document(port, trusted, nsd.address, ""))?;
    let _dnsdist = dnsdist(folder, front, &sender(port))?;
    for (n, client) in CLIENTS.map(address).into_iter().enumerate() {
        let from = ask(client, beside(client, front), &format!("f{n}.w.example"))?;
        let logged = || kakei.records().iter().any(|record| record["client"] == from.to_string());
        wait_for(&format!("client {from} in the access log"), Duration::from_secs(2), logged)?;
    }
    let before = kakei.metric("kakei_dropped_datagrams", "proxy_header")?;
    refuse_elsewhere(port)?;
    let refused = || Ok::<_, String>(kakei.metric("kakei_dropped_datagrams", "proxy_header")? - before);
    wait_for("a refused header", Duration::from_secs(3), || refused().map_or(true, |count| count > 0))?;
    match refused()? {
        1 => Ok(format!("{} clients of dnsdist in the access log; a header from elsewhere was refused", CLIENTS.len())),
        other => Err(format!("a header from an untrusted network was refused {other} times, not once")),
    }
}

/// The lines of a dnsdist that sends headers to Kakei. Its health checks carry a LOCAL header.
fn sender(port: u16) -> String {
    format!(
        "newServer({{address = \"127.0.0.1:{port}\", useProxyProtocol = true, source = \"127.0.0.1\", \
         checkName = \"www.example.\", checkInterval = 1}})\n"
    )
}

/// A datagram with a header from a network that is not trusted has no answer.
fn refuse_elsewhere(port: u16) -> Result<(), String> {
    let socket = std::net::UdpSocket::bind("127.0.0.9:0").map_err(|error| error.to_string())?;
    let mut bytes = b"\r\n\r\n\0\r\nQUIT\n\x21\x12\x00\x0c".to_vec();
    bytes.extend_from_slice(&[203, 0, 113, 7, 127, 0, 0, 1, 0x11, 0x5c, 0, 53]);
    bytes.extend_from_slice(&query("www.example"));
    socket.set_read_timeout(Some(Duration::from_millis(300))).map_err(|error| error.to_string())?;
    socket.send_to(&bytes, ("127.0.0.1", port)).map_err(|error| error.to_string())?;
    match socket.recv(&mut [0; 1500]) {
        Ok(length) => Err(format!("a spoofed header was answered with {length} bytes")),
        Err(_) => Ok(()),
    }
}

/// dnsdist → Kakei → unbound: the client goes through both.
pub(super) fn through(setting: &Setting) -> Result<String, String> {
    let folder = &setting.folder;
    let unbound = Unbound::start(folder)?;
    let (front, port) = (free_port()?, free_port()?);
    let trusted = "proxy_protocol = { trusted = [\"127.0.0.0/8\", \"::1/128\"] }\n";
    let knobs = ", send_proxy_protocol = \"every\"";
    let _kakei = Kakei::start(&setting.binary, folder, &document(port, trusted, unbound.four, knobs))?;
    let _dnsdist = dnsdist(folder, front, &sender(port).replace("www.example.", "www.test."))?;
    for (n, client) in CLIENTS.map(address).into_iter().enumerate() {
        let name = format!("t{n}.test");
        let from = ask(client, beside(client, front), &name)?;
        unbound.saw(from, &name)?;
    }
    Ok(format!("unbound behind Kakei behind dnsdist logged {} real clients", CLIENTS.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn its_documents_are_valid() {
        let trusted = "proxy_protocol = { trusted = [\"127.0.0.0/8\", \"::1/128\"] }\n";
        let knobs = ", send_proxy_protocol = \"every\", upstream = \"shared\"";
        super::super::kakei::assert_valid(&document(1, trusted, address("[::1]:53"), knobs));
        super::super::kakei::assert_valid(&document(1, "", address("127.0.0.1:53"), ""));
    }
}
