//! Benchmarks side by side with other proxies. Changes nothing in the tree but what it is told to write.

pub mod http;
pub mod tcp;
pub mod udp;

mod args;
mod certificate;
mod configs;
mod delays;
mod generator;
mod ground;
mod pace;
mod process;
mod programs;
mod reconfigure;
mod report;
mod stand;
mod studies;

pub(crate) use programs::nginx_stream_module;

/// Run the benchmark that `args` name.
pub fn run(args: &[String]) -> Result<(), String> {
    let rest = args.get(1..).unwrap_or_default();
    match args.first().map(String::as_str) {
        Some("udp") => udp::run(rest),
        Some("tcp") => tcp::run(rest),
        Some("http") => http::run(rest),
        Some("tls") => http::secured::run(rest),
        Some("reconfigure") => reconfigure::run(rest),
        Some("bench-load") => udp::load::run(rest),
        Some("bench-echo") => udp::echo::run(rest),
        Some("bench-streams") => tcp::streams::run(rest),
        Some("bench-requests") => http::requests::run(rest),
        _ => Err(format!(
            "there is no benchmark `{}`; there are `udp`, `tcp`, `http`, `tls` and `reconfigure`",
            args.join(" ")
        )),
    }
}

/// A whole run of a comparison over streams, `study`, as `args` have it.
fn compare<P: programs::Peer>(
    args: &[String],
    help: &str,
    tables: &'static [report::Table],
    study: fn(&ground::Tools, &studies::Plan<P>, &mut report::Report<P>),
) -> Result<(), String> {
    if args.iter().any(|a| a == "--help" || a == "-h") {
        print(&format!("{help}{}", ground::Course::HELP));
        return Ok(());
    }
    let options = args::Options::read(args, &ground::Course::FLAGS, &ground::Course::KEYS)?;
    let tools = ground::Tools::prepare(&options)?;
    let mut report = report::Report::new(tables);
    let peers = report.peers(&options, &tools)?;
    let plan = studies::Plan { course: ground::Course::read(&options)?, peers };
    let about = ground::about(&plan.course, &tools, programs::versions(&plan.peers, &tools.kakei));
    study(&tools, &plan, &mut report);
    let concluded = conclude(&report, &about, &options, studies::FAULTS);
    if concluded.is_ok() && !report.rows.is_empty() {
        // Logs of what went wrong should stay to be read.
        let _ = std::fs::remove_dir_all(&tools.dir);
    }
    concluded
}

/// The machine, the versions and the settings, the tables, and JSON where a file is named: what a run ends with. An error is
/// what a smoke run must not show.
fn conclude<P: programs::Peer>(
    report: &report::Report<P>,
    about: &serde_json::Value,
    options: &args::Options,
    faults: &[report::Fault],
) -> Result<(), String> {
    print(&format!("{about:#}\n{}", report.text()));
    if let Some(file) = options.text("json") {
        std::fs::write(file, format!("{:#}\n", report.json(about))).map_err(|e| format!("{file}: {e}"))?;
    }
    let broken = report.broken(faults);
    if options.flag("smoke") && !broken.is_empty() { Err(broken.join("; ")) } else { Ok(()) }
}

#[expect(clippy::print_stdout, reason = "the tables are this program's result")]
fn print(text: &str) {
    print!("{text}");
}

/// Progress, for people.
#[expect(clippy::print_stderr, reason = "progress is not the result")]
fn say(text: &str) {
    eprintln!("{text}");
}

/// One line from a helper for its parent, at once.
fn answer(line: &str) {
    use std::io::Write as _;
    let mut out = std::io::stdout().lock();
    // A parent that is gone ends a helper by closing its standard input.
    let _ = writeln!(out, "{line}").and_then(|()| out.flush());
}
