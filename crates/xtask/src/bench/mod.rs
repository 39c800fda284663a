//! Benchmarks side by side with other proxies. Changes nothing in the tree but what it is told to write.

pub mod tcp;
pub mod udp;

mod args;
mod delays;
mod ground;
mod process;
mod programs;
mod report;

pub(crate) use programs::nginx_stream_module;

/// Run the benchmark that `args` name.
pub fn run(args: &[String]) -> Result<(), String> {
    let rest = args.get(1..).unwrap_or_default();
    match args.first().map(String::as_str) {
        Some("udp") => udp::run(rest),
        Some("tcp") => tcp::run(rest),
        Some("bench-load") => udp::load::run(rest),
        Some("bench-echo") => udp::echo::run(rest),
        Some("bench-streams") => tcp::streams::run(rest),
        _ => Err(format!("there is no benchmark `{}`; there are `udp` and `tcp`", args.join(" "))),
    }
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
