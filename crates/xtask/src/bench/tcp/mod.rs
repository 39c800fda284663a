//! `cargo xtask bench tcp`: Kakei beside HAProxy, nginx and Envoy on the same streams, in one interleaved run.
//! It starts programs on loopback and ends them; it never touches a running proxy.

pub(super) mod streams;

mod peers;
mod report;
mod studies;

use super::compare;

const HELP: &str = "\
cargo xtask bench tcp [OPTIONS]

  --smoke          few connections, one short round: for CI; fails when Kakei doesn't forward
  --json FILE      write everything that was measured
  --only A,B       only scenarios whose name contains A or B (bulk, bulk-down-8, bulk-up, messages-64, messages-1000, visits, memory, …)
  --peers A,B      only these: direct, kakei, haproxy, haproxy-splice, nginx, envoy
";

/// Run the comparison.
pub(crate) fn run(args: &[String]) -> Result<(), String> {
    compare(args, HELP, report::TABLES, studies::run)
}
