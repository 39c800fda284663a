//! Each command in its own words: what it asks, what it prints. The running proxy is reached by its API only.

mod ask;
mod certificate;
mod change;
mod check;
mod document;
mod drain;
mod explain;
mod password;
mod run;
mod sim;
mod traffic;

pub(crate) use self::document::Source;
pub(crate) use self::run::AdminGiven;

use clap::CommandFactory;

use crate::cli::{Cli, Command, ConfigCommand, Level};
use crate::demo;
use crate::log;
use crate::say::{self, Failure};

/// Do what was asked.
pub(crate) fn dispatch(cli: Cli) -> Result<(), Failure> {
    let level = cli.log;
    match cli.command {
        Command::Demo(demo) => {
            log::start(level.unwrap_or(Level::Warn));
            demo::run(&demo)
        }
        Command::Run(run) => {
            log::start(level.unwrap_or(Level::Info));
            run::run(run)
        }
        Command::Serve(serve) => {
            log::start(level.unwrap_or(Level::Info));
            run::serve(serve)
        }
        Command::Check(check) => check::check(&check),
        Command::Plan(file) => change::plan(&file),
        Command::Apply(apply) => change::apply(&apply),
        Command::Confirm(confirm) => change::confirm(&confirm),
        Command::Rollback(rollback) => change::rollback(&rollback),
        Command::Diff(diff) => change::diff(&diff),
        Command::Listener(object) => change::object("listener", &object),
        Command::Route(object) => change::object("route", &object),
        Command::Cluster(object) => change::object("cluster", &object),
        Command::Certificate(certificate) => certificate::certificate(&certificate),
        Command::Get(get) => ask::get(&get),
        Command::Status(ask) => ask::status(&ask),
        Command::Explain(explain) => explain::explain(&explain),
        Command::Drain(drain) => drain::drain(&drain),
        Command::Backend(backend) => change::backend(&backend),
        Command::History(ask) => ask::history(&ask),
        Command::Config(ConfigCommand::Export(ask)) => ask::export(&ask),
        Command::Sim(sim) => sim::sim(&sim),
        Command::HashPassword(how) => password::hash(&how),
        Command::Openapi => {
            say::out(&format!("{:#}\n", kakei::control::api::description()));
            Ok(())
        }
        Command::Schema => {
            say::out(&format!("{:#}\n", kakei::config::json_schema()));
            Ok(())
        }
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "kakei", &mut script);
            say::out(&String::from_utf8_lossy(&script));
            Ok(())
        }
        Command::Man => man(),
    }
}

fn man() -> Result<(), Failure> {
    let mut page = Vec::new();
    clap_mangen::Man::new(Cli::command()).render(&mut page).map_err(Failure::refused)?;
    say::out(&String::from_utf8_lossy(&page));
    Ok(())
}
