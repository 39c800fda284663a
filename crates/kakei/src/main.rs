//! The program. Reads the command line, does one command, and turns its end into an exit code: 0 done, 1 refused or
//! failed, 2 wrong usage or an invalid document.

mod cli;
mod client;
mod commands;
mod demo;
mod demo_http;
mod demo_stream;
mod log;
mod say;
mod supervise;
mod table;

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    let cli = cli::Cli::parse();
    let _at_the_end = log::Flush;
    match commands::dispatch(cli).and_then(|()| say::lost()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            say::err(&failure.text());
            ExitCode::from(failure.code)
        }
    }
}
