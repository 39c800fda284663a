//! A backend that dies and comes back: it is left within `fall` probes, and used again after `rise`.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::Setting;
use super::dns::{Nsd, any_of, ask, query};
use super::kakei::Kakei;
use super::process::{free_port, wait_for};

const INTERVAL: Duration = Duration::from_millis(200);
const TIMEOUT: Duration = Duration::from_millis(100);
const FALL: u32 = 3;
const QUERIES: u32 = 200;
/// What a loaded machine may add.
const SLACK: Duration = Duration::from_millis(500);

pub(super) fn run(setting: &Setting) -> Result<String, String> {
    let folder = &setting.folder;
    let (a, b) = (Nsd::start("a", folder, "127.0.0.1")?, Nsd::start("b", folder, "127.0.0.1")?);
    let (port, address_of_b) = (free_port()?, b.address);
    let kakei = Kakei::start(&setting.binary, folder, &document(port, a.address, b.address))?;
    let up = |wanted: u64| kakei.metric("kakei_backend_up", "backend=\"b\"").is_ok_and(|up| up == wanted);
    wait_for("both backends being up", Duration::from_secs(3), || up(1))?;
    all_answered(port, "both")?;

    drop(b);
    let died = Instant::now();
    wait_for("the dead backend being left", INTERVAL * FALL + TIMEOUT + SLACK, || up(0))?;
    let left = died.elapsed();
    all_answered(port, "one")?;

    let b = Nsd::start_on("b2", folder, "127.0.0.1", address_of_b.port())?;
    let back = Instant::now();
    wait_for("the backend being used again", INTERVAL * 2 + TIMEOUT + SLACK, || up(1))?;
    let used = back.elapsed();
    let before = b.queries()?;
    all_answered(port, "again")?;
    let share = b.queries()? - before;
    if share < u64::from(QUERIES) / 3 {
        return Err(format!("the backend that came back got {share} of {QUERIES} queries"));
    }
    Ok(format!(
        "dead backend left after {} ms, used again {} ms after its return; {} queries, none lost",
        left.as_millis(),
        used.as_millis(),
        3 * QUERIES
    ))
}

fn document(port: u16, a: SocketAddr, b: SocketAddr) -> String {
    let probe: String = query("www.example").iter().map(|byte| format!("{byte:02x}")).collect();
    format!(
        "[listeners.dns]\nprotocol = \"udp\"\nbind = [\"127.0.0.1:{port}\"]\ncluster = \"dns\"\n\n\
         [clusters.dns]\nbalance = \"round_robin\"\n\
         backends = [{{ name = \"a\", address = \"{a}\" }}, {{ name = \"b\", address = \"{b}\" }}]\n\
         udp = {{ requests = 1, responses = 1 }}\n\
         health = {{ udp = {{ send_hex = \"{probe}\", expect = \"any\" }}, interval = \"{}ms\", timeout = \"{}ms\", \
         rise = 1, fall = {FALL}, fail_open = true }}\n",
        INTERVAL.as_millis(),
        TIMEOUT.as_millis()
    )
}

/// Every query is answered, wherever it goes.
fn all_answered(port: u16, phase: &str) -> Result<(), String> {
    let to = SocketAddr::from(([127, 0, 0, 1], port));
    (0..QUERIES).try_for_each(|n| ask(any_of(to), to, &format!("{phase}{n}.w.example")).map(drop))
}

#[cfg(test)]
mod tests {
    #[test]
    fn its_document_is_valid() {
        let backend = |port: u16| std::net::SocketAddr::from(([127, 0, 0, 1], port));
        super::super::kakei::assert_valid(&super::document(1, backend(53), backend(54)));
    }
}
