//! `cargo xtask`: parses its command line and hands over. Checks nothing itself.

use std::process::ExitCode;

use xtask::{bench, interop, tidy, tools};

const HELP: &str = "\
cargo xtask COMMAND

  tidy               the house rules: layers, banned words, headers, sizes, documents
  sim --seeds N      sweep the simulator over N seeds (the arguments of `kakei sim`)
  fuzz [--smoke]     run the fuzz targets, a minute each (with --smoke ten seconds)
  interop            Kakei against real programs: DNS servers, databases, TLS, browsers, other proxies (`--list`)
  bench udp | tcp | http | tls  side by side with other proxies (`bench tcp --help` says how)
  bench reconfigure  what a change costs, by how much there is that it doesn't change
  ci                 everything that runs before a merge (.ci/run)
";

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match carry_out(&args) {
        Ok(text) => {
            print(&text);
            ExitCode::SUCCESS
        }
        Err(why) => {
            complain(&why);
            ExitCode::FAILURE
        }
    }
}

/// Returns what there is to print.
fn carry_out(args: &[String]) -> Result<String, String> {
    let rest = args.get(1..).unwrap_or_default();
    let silent = |()| String::new();
    match args.first().map(String::as_str) {
        Some("tidy") => tidy::run(),
        Some("sim") => tools::sim(rest).map(silent),
        Some("fuzz") => tools::fuzz(rest).map(silent),
        Some("interop") => interop::run(rest),
        Some("bench") => bench::run(rest).map(silent),
        Some("ci") => tools::ci().map(silent),
        None | Some("help" | "-h" | "--help") => Ok(HELP.to_owned()),
        Some(other) => Err(format!("there is no command `{other}`; `cargo xtask help` lists them")),
    }
}

#[expect(clippy::print_stdout, reason = "a command line's answer")]
fn print(text: &str) {
    print!("{text}");
}

#[expect(clippy::print_stderr, reason = "a command line's complaint")]
fn complain(text: &str) {
    eprintln!("xtask: {text}");
}
