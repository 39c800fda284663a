//! iperf3 through Kakei in both directions, several streams: what its ends count agrees with what Kakei has counted.

use serde_json::Value;

use super::super::Setting;
use super::super::kakei::Kakei;
use super::super::process::{Program, command, free_port, run, wait_for};
use super::{cluster, four, listener};

const STREAMS: u64 = 4;
/// So many that what is under way at the end is well below a tenth: a stream may have 32 MiB in each of two receive
/// buffers where the system's `tcp_rmem` allows that, and some in send buffers and pipes.
const BYTES: u64 = 4 << 30;
/// More than iperf3 says to itself beside the payload.
const CONTROL: u64 = 1 << 20;

pub(in super::super) fn both_ways(setting: &Setting) -> Result<String, String> {
    let folder = &setting.folder;
    let (port, front) = (free_port()?, free_port()?);
    let mut server = command("iperf3");
    server.args(["-s", "-J", "-B", "127.0.0.1", "-p", &port.to_string()]);
    let mut server = Program::start("iperf3", folder, &mut server)?;
    server.wait_for_port(port)?;
    let document = [listener("perf", &[four(front)], "perf", ""), cluster("perf", &four(port).to_string(), "")];
    let kakei = Kakei::start(&setting.binary, folder, &document.concat())?;
    let (up, down) = (transfer(front, &[])?, transfer(front, &["-R"])?);
    // A control connection and the streams, twice.
    let connections = 2 * (STREAMS as usize + 1);
    wait_for("every connection's record", std::time::Duration::from_secs(5), || kakei.records().len() >= connections)?;
    let sum = |key: &str| kakei.records().iter().filter_map(|record| record[key].as_u64()).sum::<u64>();
    let (sent, returned) = (sum("request_bytes"), sum("response_bytes"));
    // Beside the payload there are iperf3's own words on the control connections.
    let between = |counted: u64, ends: &Ends| (ends.received..=ends.sent + CONTROL).contains(&counted);
    if !between(sent, &up) || !between(returned, &down) {
        return Err(format!("iperf3 says {up:?} and {down:?}, but the records {sent} and {returned} bytes"));
    }
    kakei.stop()?;
    let of = |ends: &Ends| format!("{} of {} bytes at {:.1} Gbit/s", ends.received, ends.sent, ends.gbit);
    Ok(format!("{} up, {} down over {STREAMS} streams, as in the access log ({sent}, {returned})", of(&up), of(&down)))
}

/// What the ends of a transfer counted.
#[derive(Debug)]
struct Ends {
    sent: u64,
    received: u64,
    gbit: f64,
}

/// A transfer in one direction. iperf3's receiver stops to count when the sender is done, with bytes still under way.
fn transfer(front: u16, more: &[&str]) -> Result<Ends, String> {
    let mut client = command("timeout");
    client.args(["60", "iperf3", "-c", "127.0.0.1", "-p", &front.to_string(), "-J", "-P", &STREAMS.to_string()]);
    let said = run(client.args(["-n", &BYTES.to_string()]).args(more))?;
    let said: Value = serde_json::from_str(&said).map_err(|error| format!("iperf3: {error}"))?;
    let bytes = |end: &str| said["end"][end]["bytes"].as_u64().unwrap_or(0);
    let (sent, received) = (bytes("sum_sent"), bytes("sum_received"));
    let gbit = said["end"]["sum_received"]["bits_per_second"].as_f64().unwrap_or(0.0) / 1e9;
    if sent < BYTES || received > sent || received < BYTES / 10 * 9 {
        return Err(format!("iperf3 {more:?}: {sent} bytes sent, {received} received"));
    }
    Ok(Ends { sent, received, gbit })
}
