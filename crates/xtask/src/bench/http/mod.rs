//! `cargo xtask bench http`: Kakei beside HAProxy, nginx, Envoy and sōzu on the same requests, in one interleaved run.
//! It starts programs on loopback and ends them; it never touches a running proxy.

pub(super) mod requests;
pub(super) mod secured;

mod peers;
mod report;
mod routes;
mod studies;

use super::compare;

const HELP: &str = "\
cargo xtask bench http [OPTIONS]

  --smoke          few connections and routes, one short round: for CI; fails when Kakei doesn't serve or mixes up
  --json FILE      write everything that was measured
  --only A,B       only scenarios whose name contains A or B (100b-64, 100b-512, 16k-64, fresh-64, routes, routes-1000, same, websocket-64, bulk, memory, …)
  --peers A,B      only these: direct, kakei, kakei-full, haproxy, nginx, envoy, sozu
";

/// Run the comparison.
pub(crate) fn run(args: &[String]) -> Result<(), String> {
    compare(args, HELP, report::TABLES, studies::run)
}
