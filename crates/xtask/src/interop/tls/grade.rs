//! What testssl.sh says of the defaults: every finding about protocols, suites, forward secrecy and known weaknesses is one
//! that it calls good. It asks nobody but Kakei: no name is looked up and nothing leaves the loopback.

use std::process::Stdio;

use serde_json::Value;

use super::super::Setting;
use super::super::http::origin::Origin;
use super::super::kakei::Kakei;
use super::super::process::{command, free_port, write};
use super::{Authority, Kind, document};

const HOST: &str = "site.example";
/// What it says of itself, not of the server.
const OF_ITSELF: &[&str] = &["engine_problem", "scanTime"];

pub(in super::super) fn testssl(setting: &Setting) -> Result<String, String> {
    let (folder, front, origin) = (&setting.folder, free_port()?, Origin::start()?);
    let authority = Authority::new(folder)?;
    authority.vouch("site", Kind::Ecdsa, &[HOST])?;
    authority.vouch("site-rsa", Kind::Rsa, &[HOST])?;
    // Some of its questions come without a server name.
    let words = document(front, &["site", "site-rsa"], &origin.address.to_string(), ", default = \"site\"");
    let kakei = Kakei::start(&setting.binary, folder, &words)?;
    let mut client = command("timeout");
    client.args(["240", "testssl", "--quiet", "--color", "0", "--warnings", "off", "-n", "none", "--ip", "127.0.0.1"]);
    client.args(["--jsonfile", "found.json", "-p", "-s", "-f", "-U", &format!("{HOST}:{front}")]);
    let output = client.current_dir(folder).stdin(Stdio::null()).output();
    let output = output.map_err(|error| format!("testssl: {error}"))?;
    write(&folder.join("testssl.log"), &String::from_utf8_lossy(&output.stdout))?;
    let found = std::fs::read_to_string(folder.join("found.json")).map_err(|error| format!("found.json: {error}"))?;
    let found: Vec<Value> = serde_json::from_str(&found).map_err(|error| format!("found.json: {error}"))?;
    let of = |finding: &Value, key: &str| finding[key].as_str().unwrap_or_default().to_owned();
    let of_us = || found.iter().filter(|finding| !OF_ITSELF.contains(&of(finding, "id").as_str()));
    let bad: Vec<String> = of_us()
        .filter(|finding| !["OK", "INFO"].contains(&of(finding, "severity").as_str()))
        .map(|finding| format!("{} {}: {}", of(finding, "severity"), of(finding, "id"), of(finding, "finding")))
        .collect();
    if !bad.is_empty() {
        return Err(bad.join("\n"));
    }
    let about = |id: &str| of_us().any(|finding| of(finding, "id") == id);
    if let Some(missing) = ["TLS1_3", "cipherlist_aNULL", "heartbleed", "ROBOT", "LUCKY13"].iter().find(|id| !about(id))
    {
        return Err(format!("it says nothing about {missing}: it did not come to its end"));
    }
    kakei.stop()?;
    Ok(format!("{} findings of testssl.sh about the defaults, none of them below its best", of_us().count()))
}
