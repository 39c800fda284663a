//! `cargo xtask bench tcp`: Kakei beside HAProxy, nginx and Envoy on the same streams, in one interleaved run.
//! It starts programs on loopback and ends them; it never touches a running proxy.

pub(super) mod streams;

mod peers;
mod report;
mod stand;
mod studies;

use super::args::Options;
use super::ground::{Course, Tools, about};
use super::programs::{present, versions};
use super::report::Report;
use super::{conclude, print};
use studies::Plan;

const HELP: &str = "\
cargo xtask bench tcp [OPTIONS]

  --smoke          few connections, one short round: for CI; fails when Kakei doesn't forward
  --json FILE      write everything that was measured
  --only A,B       only scenarios whose name contains A or B (bulk, bulk-down-8, bulk-up, messages-64, messages-1000, visits, memory, …)
  --peers A,B      only these: direct, kakei, haproxy, haproxy-splice, nginx, envoy
  --rounds N       how often each peer has its turn (5)
  --seconds S      how long each measurement takes (2)
  --kakei FILE     the program to measure (the release build)
  --no-build       take the release build as it is
  --no-realtime    don't run everything measured before what else runs on the machine
";

/// Run the comparison.
pub(crate) fn run(args: &[String]) -> Result<(), String> {
    if args.iter().any(|a| a == "--help" || a == "-h") {
        print(HELP);
        return Ok(());
    }
    let options = Options::read(args, &Course::FLAGS, &Course::KEYS)?;
    let tools = Tools::prepare(&options)?;
    let mut report = Report::new(report::TABLES);
    if !tools.realtime {
        report.note("what else ran on the machine could take time from what was measured".to_owned());
    }
    let (peers, missing) = present(options.list("peers"), &tools.kakei)?;
    missing.into_iter().for_each(|line| report.note(line));
    let plan = Plan { course: Course::read(&options)?, peers };
    let about = about(&plan.course, &tools, versions(&plan.peers, &tools.kakei));
    studies::run(&tools, &plan, &mut report);
    let concluded = conclude(&report, &about, &options, report::FAULTS);
    if concluded.is_ok() && !report.rows.is_empty() {
        // Logs of what went wrong should stay to be read.
        let _ = std::fs::remove_dir_all(&tools.dir);
    }
    concluded
}
