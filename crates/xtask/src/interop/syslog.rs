//! One-way traffic: syslog messages to a real daemon. All arrive, and no flow waits for a reply.

use std::collections::BTreeSet;
use std::net::UdpSocket;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use super::Setting;
use super::kakei::Kakei;
use super::process::{Program, command, free_port, run, wait_for, write};

const MESSAGES: usize = 20_000;
const SENDERS: usize = 20;
const BY_LOGGER: usize = 20;
/// A pause after this many messages keeps the rate moderate.
const BURST: usize = 50;

pub(super) fn per_flow(setting: &Setting) -> Result<String, String> {
    check(setting, "per_flow")
}

pub(super) fn shared(setting: &Setting) -> Result<String, String> {
    check(setting, "shared")
}

fn check(setting: &Setting, upstream: &str) -> Result<String, String> {
    let folder = &setting.folder;
    let (behind, port) = (free_port()?, free_port()?);
    let _daemon = rsyslog(folder, behind)?;
    let document = document(port, behind, upstream);
    let kakei = Kakei::start(&setting.binary, folder, &document)?;
    let begun = Instant::now();
    send(port)?;
    for n in MESSAGES..MESSAGES + BY_LOGGER {
        let message = format!("message-{n}");
        run(command("logger").args(["-d", "-n", "127.0.0.1", "-P", &port.to_string(), "-t", "interop", &message]))?;
    }
    let seconds = begun.elapsed().as_secs_f64();
    let all = MESSAGES + BY_LOGGER;
    let arrived = || arrived(folder).len() == all;
    wait_for("every message", Duration::from_secs(5), arrived).map_err(|why| {
        format!(
            "{why}: {} of {all} arrived; Kakei dropped {:?}",
            self::arrived(folder).len(),
            kakei.metric("kakei_dropped_datagrams", "")
        )
    })?;
    let (live, opened) = (kakei.metric("kakei_flows_live", "")?, kakei.metric("kakei_flows_opened", "")?);
    let ended = kakei.metric("kakei_flows_closed", "requests_reached")?;
    if (live, opened, ended) != (0, all as u64, all as u64) {
        return Err(format!("{all} messages: {opened} flows opened, {ended} closed at their cap, {live} still live"));
    }
    Ok(format!("{all} messages in {seconds:.1} s, all in rsyslog's file; {opened} flows opened and closed at once"))
}

fn document(port: u16, behind: u16, upstream: &str) -> String {
    format!(
        "[workers]\ncount = 2\n\n[listeners.syslog]\nprotocol = \"udp\"\nbind = [\"127.0.0.1:{port}\"]\ncluster = \"syslog\"\n\n\
         [clusters.syslog]\nbackends = [\"127.0.0.1:{behind}\"]\n\
         udp = {{ expects_reply = false, requests = 1, upstream = \"{upstream}\" }}\n"
    )
}

fn rsyslog(folder: &Path, port: u16) -> Result<Program, String> {
    let home = folder.display();
    let config = folder.join("rsyslog.conf");
    write(
        &config,
        &format!(
            "global(workDirectory=\"{home}\")\nmodule(load=\"imudp\")\n\
             template(name=\"raw\" type=\"string\" string=\"%msg%\\n\")\n\
             ruleset(name=\"net\") {{ action(type=\"omfile\" file=\"{home}/messages\" template=\"raw\") }}\n\
             input(type=\"imudp\" address=\"127.0.0.1\" port=\"{port}\" ruleset=\"net\" rcvbufSize=\"4m\")\n"
        ),
    )?;
    let mut daemon = command("rsyslogd");
    daemon.arg("-n").arg("-f").arg(&config).arg("-i").arg(folder.join("rsyslog.pid"));
    let mut program = Program::start("rsyslogd", folder, &mut daemon)?;
    let probe = UdpSocket::bind("127.0.0.1:0").map_err(|error| error.to_string())?;
    program.wait_until("its first message", || {
        let _ = probe.send_to(b"<13>probe: ready", ("127.0.0.1", port));
        std::fs::read_to_string(folder.join("messages")).is_ok_and(|text| text.contains("ready"))
    })?;
    Ok(program)
}

/// Numbered messages from many sockets.
fn send(port: u16) -> Result<(), String> {
    let sockets: Result<Vec<UdpSocket>, _> = (0..SENDERS).map(|_| UdpSocket::bind("127.0.0.1:0")).collect();
    let sockets = sockets.map_err(|error| error.to_string())?;
    for n in 0..MESSAGES {
        let message = format!("<13>interop: message-{n}");
        let socket = &sockets[n % SENDERS];
        socket.send_to(message.as_bytes(), ("127.0.0.1", port)).map_err(|error| error.to_string())?;
        if n % BURST == 0 {
            thread::sleep(Duration::from_millis(5));
        }
    }
    Ok(())
}

/// The numbers of the messages that the daemon wrote.
fn arrived(folder: &Path) -> BTreeSet<usize> {
    let text = std::fs::read_to_string(folder.join("messages")).unwrap_or_default();
    text.lines().filter_map(|line| line.split("message-").nth(1)?.trim().parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    #[test]
    fn its_documents_are_valid() {
        for upstream in ["per_flow", "shared"] {
            super::super::kakei::assert_valid(&super::document(1, 2, upstream));
        }
    }
}
