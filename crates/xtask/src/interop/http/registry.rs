//! Programs of the registries of npm and PyPI, at versions that are pinned here: installed once below `target`, and used
//! from there by every check. Where that can't be done a check is skipped, and says why.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::super::process::{command, find, run, write};

/// What a check needs of a registry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) enum Libraries {
    /// express, multer, ws.
    Node,
    /// uvicorn, websockets.
    Python,
}

impl Libraries {
    /// The files that say what is installed, and whose change has it installed anew.
    fn pins(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Libraries::Node => &[
                ("package.json", include_str!("programs/package.json")),
                ("package-lock.json", include_str!("programs/package-lock.json")),
            ],
            Libraries::Python => &[("requirements.txt", include_str!("programs/requirements.txt"))],
        }
    }

    fn folder(self) -> PathBuf {
        crate::tidy::root().join("target/interop").join(format!("{self:?}").to_lowercase())
    }

    /// Install them unless they are there; an error says why that can't be.
    pub(in super::super) fn install(self) -> Result<(), String> {
        let folder = self.folder();
        let is_there =
            |(name, text): &(&str, &str)| std::fs::read_to_string(folder.join(name)).is_ok_and(|old| old == *text);
        if folder.join("complete").exists() && self.pins().iter().all(is_there) {
            return Ok(());
        }
        let _ = std::fs::remove_dir_all(&folder);
        std::fs::create_dir_all(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
        for (name, text) in self.pins() {
            write(&folder.join(name), text)?;
        }
        match self {
            Libraries::Node => install_node(&folder)?,
            Libraries::Python => install_python(&folder)?,
        }
        write(&folder.join("complete"), "")
    }

    /// A command that finds them: `node`, or the `python` that has them.
    pub(super) fn command(self) -> Command {
        match self {
            Libraries::Node => {
                let mut node = command("node");
                node.env("NODE_PATH", self.folder().join("node_modules"));
                node
            }
            Libraries::Python => Command::new(self.folder().join("venv/bin/python")),
        }
    }
}

/// Nothing that a package brings is run.
fn install_node(folder: &Path) -> Result<(), String> {
    for program in ["node", "npm"] {
        find(program).ok_or_else(|| format!("{program} is not there (on Debian: apt-get install nodejs npm)"))?;
    }
    let mut npm = command("npm");
    npm.args(["ci", "--ignore-scripts", "--no-audit", "--no-fund"]).current_dir(folder);
    run(&mut npm).map(drop).map_err(|why| format!("npm's registry: {why}"))
}

fn install_python(folder: &Path) -> Result<(), String> {
    find("python3").ok_or("python3 is not there (on Debian: apt-get install python3-venv)")?;
    run(command("python3").args(["-m", "venv", "venv"]).current_dir(folder))
        .map_err(|why| format!("python3 makes no environment (on Debian: apt-get install python3-venv): {why}"))?;
    let mut pip = Command::new(folder.join("venv/bin/python"));
    pip.args(["-m", "pip", "install", "--quiet", "--no-deps", "--only-binary", ":all:", "-r", "requirements.txt"]);
    run(pip.current_dir(folder)).map(drop).map_err(|why| format!("PyPI: {why}"))
}
