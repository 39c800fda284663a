//! `cargo xtask`: parses its command line and hands over. Checks nothing itself.

use std::process::ExitCode;

use xtask::{bench, tidy};

const HELP: &str = "\
cargo xtask COMMAND

  tidy               the house rules: layers, banned words, headers, sizes, documents
  bench ARGS…        benchmarks side by side with other proxies (`cargo xtask bench` lists them)
";

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let done = match args.first().map(String::as_str) {
        Some("tidy") => tidy::run().map(|text| print(&text)),
        Some("bench") => bench::run(&args[1..]),
        None | Some("help" | "-h" | "--help") => {
            print(HELP);
            Ok(())
        }
        Some(other) => Err(format!("there is no command `{other}`; `cargo xtask help` lists them")),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            complain(&why);
            ExitCode::FAILURE
        }
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
