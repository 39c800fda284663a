//! Commands that only start other programs of the tree: the simulator's sweep, the fuzz targets, the whole check.

use std::path::Path;
use std::process::Command;

use crate::tidy::root;

const SMOKE_SECONDS: &str = "10";
const SECONDS: &str = "60";

/// `cargo xtask sim`: the simulator as its users run it, with their arguments.
pub fn sim(args: &[String]) -> Result<(), String> {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned());
    run(Command::new(cargo).args(["run", "--quiet", "--release", "--package", "kakei", "--", "sim"]).args(args))
}

/// `cargo xtask fuzz [--smoke | --seconds N] [TARGET…]`: every target, or those that are named.
pub fn fuzz(args: &[String]) -> Result<(), String> {
    let (mut seconds, mut wanted, mut args) = (SECONDS, Vec::new(), args.iter());
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "--smoke" => seconds = SMOKE_SECONDS,
            "--seconds" => seconds = args.next().ok_or("--seconds needs a number")?,
            name => wanted.push(name.to_owned()),
        }
    }
    let targets = targets(&root().join("fuzz/fuzz_targets"))?;
    if let Some(unknown) = wanted.iter().find(|name| !targets.contains(name)) {
        return Err(format!("there is no target `{unknown}`; there are {}", targets.join(", ")));
    }
    for target in targets.iter().filter(|target| wanted.is_empty() || wanted.contains(target)) {
        run(Command::new("fuzz/run.sh").args([target.as_str(), seconds, "-verbosity=0"]))?;
    }
    Ok(())
}

/// `cargo xtask ci`: everything that runs before a merge.
pub fn ci() -> Result<(), String> {
    run(&mut Command::new(".ci/run"))
}

/// The names of the fuzz targets.
fn targets(folder: &Path) -> Result<Vec<String>, String> {
    let entries = std::fs::read_dir(folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    let files = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let mut names: Vec<String> = files.filter_map(|file| Some(file.strip_suffix(".rs")?.to_owned())).collect();
    names.sort();
    match names.is_empty() {
        true => Err(format!("{}: no target", folder.display())),
        false => Ok(names),
    }
}

fn run(command: &mut Command) -> Result<(), String> {
    let name = command.get_program().to_string_lossy().into_owned();
    let status = command.current_dir(root()).status().map_err(|error| format!("{name}: {error}"))?;
    match status.success() {
        true => Ok(()),
        false => Err(format!("{name} failed ({status})")),
    }
}
