//! `cargo xtask bench udp`: Kakei beside nginx, Envoy and sōzu on the same datagrams, in one interleaved run.
//! It starts programs on loopback and ends them; it never touches a running proxy.

pub(super) mod echo;
pub(super) mod load;

mod datagram;
mod peers;
mod report;
mod stand;
mod studies;

use serde_json::{Value, json};

use super::args::Options;
use super::ground::{Course, Tools, about};
use super::programs::versions;
use super::report::Report;
use super::{conclude, print};
use peers::Peer;
use studies::Plan;

const HELP: &str = "\
cargo xtask bench udp [OPTIONS]

  --smoke          small rates, one round: for CI; fails when Kakei doesn't forward
  --json FILE      write everything that was measured
  --only A,B       only scenarios and studies whose name contains A or B (cost, known, saturation, saturation-rr-64-100, memory, workers, rr-64, …)
  --peers A,B      only these: direct, kakei, kakei-shared, nginx, envoy, sozu
  --scale X        multiply the rates of the scenarios by X
";

/// The socket buffer that all proxies get, so that none is measured by the distribution's default.
const RMEM_DEFAULT: &str = "/proc/sys/net/core/rmem_default";

/// Run the comparison.
pub(crate) fn run(args: &[String]) -> Result<(), String> {
    if args.iter().any(|a| a == "--help" || a == "-h") {
        print(&format!("{HELP}{}", Course::HELP));
        return Ok(());
    }
    let keys = [&Course::KEYS[..], &["scale"]].concat();
    let options = Options::read(args, &Course::FLAGS, &keys)?;
    let tools = Tools::prepare(&options)?;
    let mut report = Report::new(report::TABLES);
    let peers = report.peers(&options, &tools)?;
    let course = Course::read(&options)?;
    let scale = options.get("scale", if course.smoke { 0.05 } else { 1.0 })?;
    let plan = Plan { course, scale, peers };
    let mut about: Value = about(&plan.course, &tools, versions(&plan.peers, &tools.kakei));
    about["scale"] = json!(scale);
    {
        let _buffers = Buffers::raise(&mut report);
        studies::run(&tools, &plan, &mut report);
    }
    let concluded = conclude(&report, &about, &options, report::FAULTS);
    if !report.rows.is_empty() && report.notes.is_empty() {
        // Only logs of a clean run: what went wrong should stay to be read.
        let _ = std::fs::remove_dir_all(&tools.dir);
    }
    concluded
}

/// The default receive buffer of all sockets, raised while this lives.
struct Buffers(Option<String>);

impl Buffers {
    fn raise(report: &mut Report<Peer>) -> Buffers {
        let before = std::fs::read_to_string(RMEM_DEFAULT).ok();
        let raised = before.filter(|_| std::fs::write(RMEM_DEFAULT, "4194304").is_ok());
        if raised.is_none() {
            report.note(format!("{RMEM_DEFAULT} can't be raised: proxies have the system's default receive buffers"));
        }
        Buffers(raised)
    }
}

impl Drop for Buffers {
    fn drop(&mut self) {
        if let Some(before) = &self.0 {
            // It could be written a moment ago; if not now, a larger default harms nobody.
            let _ = std::fs::write(RMEM_DEFAULT, before);
        }
    }
}
