//! OCSP: what a real responder said of a certificate, shown by the proxy and read by OpenSSL's client.

use std::path::Path;
use std::time::Duration;

use super::super::Setting;
use super::super::http::origin::Origin;
use super::super::kakei::Kakei;
use super::super::process::{Program, command, free_port, run, wait_for, write};
use super::{Authority, Kind, document, s_client, shows};

const HOST: &str = "site.example";

/// What the responder's own list says of a certificate.
#[derive(Clone, Copy)]
enum Status {
    Good,
    Revoked,
}

pub(in super::super) fn shown(setting: &Setting) -> Result<String, String> {
    let (folder, front, origin) = (&setting.folder, free_port()?, Origin::start()?);
    let authority = Authority::new(folder)?;
    for name in ["site", "other"] {
        authority.vouch(name, Kind::Ecdsa, &[HOST])?;
    }
    ask(folder, "site", Status::Good, "site.ocsp")?;
    let words = document(front, &["site"], &origin.address.to_string(), "");
    let words = words.replace("key = \"site.key\"\n", "key = \"site.key\"\nocsp = \"site.ocsp\"\n");
    let kakei = Kakei::start(&setting.binary, folder, &words)?;
    for version in ["-tls1_3", "-tls1_2"] {
        let said = s_client(folder, front, HOST, &[version, "-status"])?;
        let wanted = ["OCSP Response Status: successful", "Cert Status: good", "HTTP/1.1 200"];
        shows(&format!("{version} asks for a staple"), &said, &wanted)?;
        let said = s_client(folder, front, HOST, &[version])?;
        if said.contains("OCSP Response Status") {
            return Err(format!("{version}: a client that asks for no staple gets one"));
        }
    }
    // Another certificate's answer is refused, and what was there goes on.
    ask(folder, "other", Status::Good, "site.ocsp")?;
    match kakei.command(&["apply", "kakei.toml"]) {
        Err(said) if said.contains("it is the answer about another certificate") => {}
        other => return Err(format!("another certificate's answer came to {other:?}")),
    }
    let said = s_client(folder, front, HOST, &["-status"])?;
    shows("after a refused answer", &said, &["Cert Status: good"])?;
    // The responder says something else meanwhile.
    ask(folder, "site", Status::Revoked, "site.ocsp")?;
    kakei.command(&["apply", "kakei.toml"])?;
    let said = s_client(folder, front, HOST, &["-status"])?;
    shows("after the answer was fetched again", &said, &["OCSP Response Status: successful", "Cert Status: revoked"])?;
    kakei.stop()?;
    Ok("a responder's answers are stapled by TLS 1.3 and 1.2, replaced, and refused where they are about another certificate".into())
}

/// Have a responder of OpenSSL say that of a certificate, and keep its answer.
fn ask(folder: &Path, name: &str, status: Status, to: &str) -> Result<(), String> {
    let pem = format!("{name}.pem");
    let said = run(command("openssl").args(["x509", "-noout", "-serial", "-in", &pem]).current_dir(folder))?;
    let serial = said.trim().strip_prefix("serial=").ok_or_else(|| format!("no number of {name} in {said:?}"))?;
    let (letter, since) = match status {
        Status::Good => ("V", ""),
        Status::Revoked => ("R", "260101000000Z"),
    };
    write(&folder.join("index.txt"), &format!("{letter}\t391231235959Z\t{since}\t{serial}\tunknown\t/CN={name}\n"))?;
    let port = free_port()?.to_string();
    let mut responder = command("openssl");
    responder.args(["ocsp", "-index", "index.txt", "-CA", "authority.pem", "-rsigner", "authority.pem"]);
    responder.args(["-rkey", "authority.key", "-ndays", "1", "-port", &port]);
    let _responder = Program::start("responder", folder, &mut responder)?;
    wait_for("an answer of the responder", Duration::from_secs(10), || {
        let mut asked = command("openssl");
        asked.args(["ocsp", "-issuer", "authority.pem", "-CAfile", "authority.pem", "-cert", &pem]);
        asked.args(["-url", &format!("http://127.0.0.1:{port}"), "-respout", to]).current_dir(folder);
        run(&mut asked).is_ok()
    })
}
