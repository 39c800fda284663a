//! A wildcard listener in both families, two workers: the reply comes from the address that was dialled.

use std::net::SocketAddr;
use std::process::Command;

use super::Setting;
use super::dns::{Nsd, any_of, ask};
use super::kakei::Kakei;
use super::process::{command, free_port, run};

/// Local addresses, none of which the kernel would choose for all of them.
const DIALLED: [&str; 4] = ["127.0.0.1", "127.0.0.2", "127.0.0.33", "::1"];
const SOCKETS: usize = 100;
const WORKERS: usize = 2;

pub(super) fn wildcard(setting: &Setting) -> Result<String, String> {
    let folder = &setting.folder;
    let (four, six) = (Nsd::start("four", folder, "127.0.0.1")?, Nsd::start("six", folder, "::1")?);
    let port = free_port()?;
    let document = document(port, four.address, six.address);
    let kakei = Kakei::start(&setting.binary, folder, &document)?;
    for n in 0..SOCKETS {
        let dialled = DIALLED[n % DIALLED.len()];
        let to = SocketAddr::new(dialled.parse().expect("an address written here"), port);
        ask(any_of(to), to, &format!("l{n}.w.example"))?;
        let local = kakei.records().iter().filter(|record| record["local"] == to.to_string()).count();
        if n >= SOCKETS - DIALLED.len() && local == 0 {
            return Err(format!("no record of a flow that dialled {to}"));
        }
    }
    for dialled in DIALLED {
        dig(dialled, port)?;
    }
    let sockets = front_sockets(port)?;
    if sockets != (WORKERS, WORKERS) {
        return Err(format!("{sockets:?} front sockets for {WORKERS} workers"));
    }
    let (four, six) = (four.queries()?, six.queries()?);
    kakei.stop()?;
    Ok(format!(
        "{} queries to {} local addresses answered from the address dialled, {WORKERS} workers; nsd {four} by IPv4, {six} by IPv6",
        SOCKETS + DIALLED.len(),
        DIALLED.len()
    ))
}

fn document(port: u16, four: SocketAddr, six: SocketAddr) -> String {
    format!(
        "[workers]\ncount = {WORKERS}\n\n[listeners.dns]\nprotocol = \"udp\"\nbind = [\"0.0.0.0:{port}\", \"[::]:{port}\"]\n\
         cluster = \"dns\"\n\n[clusters.dns]\nbalance = \"round_robin\"\nbackends = [\"{four}\", \"{six}\"]\n\
         udp = {{ requests = 1, responses = 1 }}\n"
    )
}

/// dig complains about an answer from an address that it did not ask.
fn dig(dialled: &str, port: u16) -> Result<(), String> {
    let mut dig: Command = command("dig");
    dig.args([&format!("@{dialled}"), "-p", &port.to_string(), "+short", "+tries=1", "+time=2", "www.example", "A"]);
    match run(&mut dig)?.trim() {
        "192.0.2.80" => Ok(()),
        other => Err(format!("dig @{dialled}: {other}")),
    }
}

/// How many UDP sockets are bound to the port, in each family.
fn front_sockets(port: u16) -> Result<(usize, usize), String> {
    let count = |file: &str| {
        let table = std::fs::read_to_string(file).map_err(|error| format!("{file}: {error}"))?;
        let suffix = format!(":{port:04X}");
        Ok::<_, String>(
            table.lines().filter_map(|line| line.split_whitespace().nth(1)).filter(|l| l.ends_with(&suffix)).count(),
        )
    };
    Ok((count("/proc/net/udp")?, count("/proc/net/udp6")?))
}

#[cfg(test)]
mod tests {
    #[test]
    fn its_document_is_valid() {
        let backend = |ip: &str| format!("{ip}:53").parse().unwrap();
        super::super::kakei::assert_valid(&super::document(1, backend("127.0.0.1"), backend("[::1]")));
    }
}
