//! Who may know whom: the edges between workspace crates, and who may use which library. Reads manifests only.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

use super::Complaint;

/// Every crate with those that it may depend on: the map of docs/ARCHITECTURE.md, section 2.
const MAY_KNOW: &[(&str, &[&str])] = &[
    ("kakei-wire", &[]),
    ("kakei-config", &[]),
    ("kakei-proxy", &["kakei-config", "kakei-wire"]),
    ("kakei-runtime", &["kakei-proxy"]),
    ("kakei-sim", &["kakei-config", "kakei-proxy", "kakei-wire"]),
    ("kakei-control", &["kakei-config", "kakei-proxy", "kakei-runtime"]),
    ("kakei", &["kakei-config", "kakei-control", "kakei-proxy", "kakei-runtime", "kakei-sim", "kakei-wire"]),
    ("xtask", &["kakei-config", "kakei-proxy", "kakei-runtime", "kakei-sim", "kakei-wire"]),
];

/// What a crate's tests may use besides: the simulator; and the machine's tests need a document to publish.
const TESTS_MAY_KNOW: &[(&str, &[&str])] =
    &[("kakei-proxy", &["kakei-sim"]), ("kakei-runtime", &["kakei-config", "kakei-sim"])];

/// Libraries that only some crates may use, and why.
const LIBRARIES: &[(&str, &[&str], &str)] = &[
    ("tokio", &["kakei-control", "kakei"], "no async runtime but the control plane's"),
    ("axum", &["kakei-control", "kakei"], "the control plane's"),
    ("tracing", &["kakei-control", "kakei"], "the data plane leaves records, not log lines"),
    ("libc", &["kakei-runtime", "kakei-control", "kakei", "xtask"], "system calls belong to the machine"),
    ("nix", &["xtask"], "the program's system calls are the machine's own"),
    ("rustix", &["kakei-runtime", "kakei-control", "kakei", "xtask"], "system calls belong to the machine"),
    ("socket2", &["kakei-runtime", "kakei-control", "kakei", "xtask"], "sockets belong to the machine"),
    ("argon2", &["kakei-runtime"], "what takes milliseconds is computed beside the workers"),
    ("bcrypt", &["kakei-runtime"], "what takes milliseconds is computed beside the workers"),
    ("mio", &["kakei-runtime"], "readiness belongs to the machine"),
    ("io-uring", &["kakei-runtime"], "completion belongs to the machine"),
    ("rtrb", &["kakei-runtime", "kakei-control", "kakei"], "only threads need mailboxes"),
    ("clap", &["kakei"], "only the program has a command line"),
    (
        "rustls",
        &["kakei-proxy", "kakei-control", "kakei-sim", "kakei", "xtask"],
        "TLS is the worker's layer; who starts a worker brings what computes, and who asks one speaks it",
    ),
    ("x509-parser", &["kakei-control"], "certificates are read and checked before a worker hears of them"),
];

/// A workspace crate's manifest.
#[derive(Clone, Debug)]
pub(super) struct Member {
    name: String,
    manifest: String,
    needs: Vec<Need>,
}

/// A dependency.
#[derive(Clone, Debug)]
struct Need {
    name: String,
    /// A crate of this workspace.
    ours: bool,
    /// Only tests see it.
    dev: bool,
}

/// The workspace's manifests, as cargo sees them.
pub(super) fn read(root: &Path) -> Result<Vec<Member>, String> {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned());
    let said = Command::new(cargo)
        .args(["metadata", "--no-deps", "--format-version", "1", "--offline"])
        .current_dir(root)
        .output()
        .map_err(|error| format!("cargo metadata: {error}"))?;
    if !said.status.success() {
        return Err(format!("cargo metadata: {}", String::from_utf8_lossy(&said.stderr)));
    }
    let said: Value = serde_json::from_slice(&said.stdout).map_err(|error| format!("cargo metadata: {error}"))?;
    Ok(list(&said["packages"]).map(|package| member(package, root)).collect())
}

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn member(package: &Value, root: &Path) -> Member {
    let manifest = text(&package["manifest_path"]);
    let manifest = Path::new(&manifest).strip_prefix(root).unwrap_or(Path::new(&manifest)).display().to_string();
    let needs = list(&package["dependencies"]).map(|need| Need {
        name: text(&need["name"]),
        ours: need["path"].is_string(),
        dev: need["kind"] == "dev",
    });
    Member { name: text(&package["name"]), manifest, needs: needs.collect() }
}

/// Every library that a manifest names.
pub(super) fn third_parties(members: &[Member]) -> BTreeSet<String> {
    members.iter().flat_map(|member| &member.needs).filter(|need| !need.ours).map(|need| need.name.clone()).collect()
}

pub(super) fn check(members: &[Member], complaints: &mut Vec<Complaint>) {
    for member in members {
        let mut complain = |what: String| {
            complaints.push(Complaint { path: member.manifest.clone(), line: 1, rule: "layers", what });
        };
        let Some((_, may_know)) = MAY_KNOW.iter().find(|(name, _)| *name == member.name) else {
            complain(format!("`{}` has no place in the map: give it one in xtask's layers.rs", member.name));
            continue;
        };
        let tests_may_know =
            TESTS_MAY_KNOW.iter().find(|(name, _)| *name == member.name).map_or(&[][..], |(_, may)| may);
        for need in member.needs.iter().filter(|need| need.ours) {
            let in_tests = need.dev && tests_may_know.contains(&need.name.as_str());
            if !may_know.contains(&need.name.as_str()) && !in_tests {
                complain(format!("`{}` must not know `{}`", member.name, need.name));
            }
        }
        for need in member.needs.iter().filter(|need| !need.ours) {
            let bound = LIBRARIES.iter().find(|(name, _, _)| *name == need.name);
            if let Some((name, users, why)) = bound.filter(|(_, users, _)| !users.contains(&member.name.as_str())) {
                complain(format!("`{}` must not use `{name}` (only {} may): {why}", member.name, users.join(", ")));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn complaints(name: &str, need: &str, ours: bool, dev: bool) -> usize {
        let needs = vec![Need { name: need.to_owned(), ours, dev }];
        let member = Member { name: name.to_owned(), manifest: "crates/a/Cargo.toml".to_owned(), needs };
        let mut found = Vec::new();
        check(&[member], &mut found);
        found.len()
    }

    #[test]
    fn an_edge_against_the_map_is_found() {
        assert_eq!(complaints("kakei-proxy", "kakei-runtime", true, false), 1);
        assert_eq!(complaints("kakei-wire", "kakei-config", true, false), 1);
        assert_eq!(complaints("kakei-runtime", "kakei-sim", true, false), 1);
        assert_eq!(complaints("kakei-sim", "kakei-runtime", true, false), 1);
        assert_eq!(complaints("kakei-control", "kakei-sim", true, false), 1);
        assert_eq!(complaints("kakei-proxy", "kakei-wire", true, false), 0);
        assert_eq!(complaints("kakei", "kakei-sim", true, false), 0);
    }

    #[test]
    fn tests_may_use_more_but_not_what_they_like() {
        assert_eq!(complaints("kakei-proxy", "kakei-sim", true, true), 0);
        assert_eq!(complaints("kakei-proxy", "kakei-runtime", true, true), 1);
        assert_eq!(complaints("kakei-runtime", "kakei-config", true, true), 0);
        assert_eq!(complaints("kakei-runtime", "kakei-config", true, false), 1);
        assert_eq!(complaints("kakei-wire", "kakei-config", true, true), 1);
    }

    #[test]
    fn a_library_in_the_wrong_crate_is_found() {
        assert_eq!(complaints("kakei-runtime", "tokio", false, false), 1);
        assert_eq!(complaints("kakei-proxy", "libc", false, false), 1);
        assert_eq!(complaints("kakei-control", "tokio", false, false), 0);
    }

    #[test]
    fn a_crate_that_is_not_in_the_map_is_found() {
        assert_eq!(complaints("kakei-new", "serde", false, false), 1);
    }
}
