//! Benchmarks side by side with other proxies. Changes nothing in the tree but what it is told to write.

pub mod udp;

mod args;
mod process;

/// Run the benchmark that `args` name.
pub fn run(args: &[String]) -> Result<(), String> {
    match args.first().map(String::as_str) {
        Some("udp") => udp::run(&args[1..]),
        Some("bench-load") => udp::load::run(&args[1..]),
        Some("bench-echo") => udp::echo::run(&args[1..]),
        _ => Err(format!("there is no benchmark `{}`; there is `udp`", args.join(" "))),
    }
}
