//! DNS under load while backends are added, weighted, drained and removed, knobs turned and listeners opened: nothing is lost.

use std::net::SocketAddr;
use std::path::Path;
use std::thread;
use std::time::Duration;

use super::Setting;
use super::dns::{Load, Nsd, Verdict, any_of, ask};
use super::kakei::Kakei;
use super::process::{Program, free_port, wait_for};

const PER_SECOND: u64 = 10_000;
const CLIENTS: u32 = 40;
const PAUSE: Duration = Duration::from_millis(400);
const JSON: &str = "application/json";
/// Changes in a round.
const CHANGES: usize = 9;

pub(super) fn per_flow(setting: &Setting) -> Result<String, String> {
    run(setting, "per_flow")
}

pub(super) fn shared(setting: &Setting) -> Result<String, String> {
    run(setting, "shared")
}

/// The backends and what is said about them.
struct Stage {
    kakei: Kakei,
    servers: [Nsd; 3],
    upstream: &'static str,
    port: u16,
    spare: u16,
}

fn run(setting: &Setting, upstream: &'static str) -> Result<String, String> {
    let folder = &setting.folder;
    let servers = [start("a", folder)?, start("b", folder)?, start("c", folder)?];
    let (port, spare) = (free_port()?, free_port()?);
    let before: u64 = answered(&servers)?.iter().sum();
    let document = document(port, [servers[0].address, servers[1].address], upstream, "30s", None);
    let stage = Stage { kakei: Kakei::start(&setting.binary, folder, &document)?, servers, upstream, port, spare };
    let load = Load {
        to: SocketAddr::from(([127, 0, 0, 1], port)),
        queries: setting.queries,
        per_second: PER_SECOND,
        clients: CLIENTS,
    };
    let mut dnsperf = Program::start("dnsperf", folder, &mut load.command(folder)?)?;
    let mut rounds = 0;
    while dnsperf.lives() {
        stage.change()?;
        rounds += usize::from(dnsperf.lives());
    }
    let verdict = Verdict::read(&dnsperf.said())?;
    stage.judge(&verdict, before, rounds)
}

fn start(name: &str, folder: &Path) -> Result<Nsd, String> {
    Nsd::start(name, folder, "127.0.0.1")
}

fn answered(servers: &[Nsd]) -> Result<Vec<u64>, String> {
    servers.iter().map(Nsd::queries).collect()
}

fn document(port: u16, servers: [SocketAddr; 2], upstream: &str, timeout: &str, spare: Option<u16>) -> String {
    let backends: Vec<String> = servers
        .iter()
        .zip(["a", "b"])
        .map(|(server, name)| format!("{{ name = \"{name}\", address = \"{server}\" }}"))
        .collect();
    let listener = |name: &str, port: u16| {
        format!("[listeners.{name}]\nprotocol = \"udp\"\nbind = [\"127.0.0.1:{port}\"]\ncluster = \"dns\"\n\n")
    };
    format!(
        "[workers]\ncount = 2\n\n{}{}[clusters.dns]\nbalance = \"round_robin\"\nbackends = [{}]\n\
         udp = {{ requests = 1, responses = 1, upstream = \"{upstream}\", front_timeout = \"{timeout}\" }}\n",
        listener("dns", port),
        spare.map(|port| listener("spare", port)).unwrap_or_default(),
        backends.join(", "),
    )
}

impl Stage {
    /// One round of changes, each a transaction, by every door that there is; what is impossible is refused and changes nothing.
    fn change(&self) -> Result<(), String> {
        let [a, b, c] = &self.servers;
        let document = |timeout, spare| document(self.port, [a.address, b.address], self.upstream, timeout, spare);
        let steps: [&dyn Fn() -> Result<(), String>; CHANGES] = [
            &|| self.kakei.command(&["backend", "add", "dns", &c.address.to_string(), "--name", "c"]),
            &|| self.kakei.command(&["backend", "weight", "dns", "c", "5"]),
            &|| self.kakei.command(&["backend", "drain", "dns", "a"]).and_then(|()| self.rests(0, "drained")),
            &|| self.api("PATCH", "a", "{\"weight\":2}"),
            &|| self.api("DELETE", "c", "").and_then(|()| self.rests(2, "removed")),
            &|| self.kakei.put(&document("20s", Some(self.spare))).and_then(|()| self.spare_answers()),
            &|| self.refuses(&document("20s", None).replace("cluster = \"dns\"", "cluster = \"nowhere\"")),
            &|| self.refuses(&document("20s", Some(a.address.port()))),
            &|| self.kakei.reload(&document("30s", None)),
        ];
        for step in steps {
            step()?;
            thread::sleep(PAUSE);
        }
        Ok(())
    }

    fn spare_answers(&self) -> Result<(), String> {
        let spare = SocketAddr::from(([127, 0, 0, 1], self.spare));
        ask(any_of(spare), spare, "www.example").map(drop)
    }

    fn refuses(&self, document: &str) -> Result<(), String> {
        match self.kakei.put(document) {
            Ok(()) => Err(format!("an impossible document was accepted:\n{document}")),
            Err(_) => Ok(()),
        }
    }

    fn api(&self, method: &str, backend: &str, body: &str) -> Result<(), String> {
        self.kakei.api(method, &format!("/v1/clusters/dns/backends/{backend}"), (JSON, body)).map(drop)
    }

    /// A backend that takes no new flow gets no new query, by its own count.
    fn rests(&self, server: usize, why: &str) -> Result<(), String> {
        let server = &self.servers[server];
        let before = server.queries()?;
        thread::sleep(PAUSE);
        let after = server.queries()?;
        match after - before {
            0 => Ok(()),
            more => Err(format!("a backend that was {why} got {more} queries more")),
        }
    }

    fn judge(&self, verdict: &Verdict, before: u64, rounds: usize) -> Result<String, String> {
        let Verdict { sent, lost, good, rate, latency } = verdict;
        let counts = answered(&self.servers)?;
        let measured = format!(
            "{sent} queries at {rate:.0}/s over {CLIENTS} sockets, {lost} lost, {} changes; a {}, b {}, c {}; {} µs",
            rounds * CHANGES,
            counts[0],
            counts[1],
            counts[2],
            latency.as_micros()
        );
        let drops =
            self.kakei.metric("kakei_dropped_datagrams", "")? + self.kakei.metric("kakei_dropped_replies", "")?;
        if *lost > 0 || good != sent || drops > 0 {
            return Err(format!("{measured}; {good} good, Kakei dropped {drops}"));
        }
        if rounds == 0 {
            return Err(format!("{measured}: no whole round of changes while the load ran"));
        }
        let asked = counts.iter().sum::<u64>() - before;
        if !(*sent..=sent + rounds as u64 + 1).contains(&asked) {
            return Err(format!("{measured}: the servers counted {asked} queries"));
        }
        let gone = || self.kakei.metric("kakei_flows_live", "").is_ok_and(|live| live == 0);
        wait_for("the last flow's end", Duration::from_secs(2), gone)?;
        Ok(measured)
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn its_documents_are_valid() {
        let backends = ["127.0.0.1:53", "127.0.0.1:54"].map(|address| address.parse().unwrap());
        for (upstream, spare) in [("per_flow", None), ("shared", Some(2))] {
            super::super::kakei::assert_valid(&super::document(1, backends, upstream, "30s", spare));
        }
    }
}
