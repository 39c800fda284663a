//! TLS: curl, OpenSSL and other proxies as clients of a listener that ends it, and certificates that change under them.
//! What the checks share.

pub(super) mod backends;
pub(super) mod changes;
pub(super) mod clients;
pub(super) mod early;
pub(super) mod grade;
pub(super) mod handshakes;
pub(super) mod proxies;
pub(super) mod staples;

use std::fs::OpenOptions;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::process::{command, run, write};

/// What a key is made of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Kind {
    Ecdsa,
    Rsa,
}

/// Who vouches for the certificates of a check: a key and a certificate in its directory.
pub(super) struct Authority {
    folder: PathBuf,
}

impl Authority {
    pub(super) fn new(folder: &Path) -> Result<Authority, String> {
        // The system's own settings would add extensions.
        write(&folder.join("openssl.cnf"), "[req]\ndistinguished_name = dn\n[dn]\n")?;
        let authority = Authority { folder: folder.to_owned() };
        let mut made = authority.openssl("authority", Kind::Ecdsa, "kakei-interop");
        made.args(["-addext", "basicConstraints=critical,CA:TRUE"]);
        run(made.args(["-addext", "keyUsage=critical,keyCertSign,cRLSign"]))?;
        Ok(authority)
    }

    /// The file of its certificate.
    fn file(&self) -> PathBuf {
        self.folder.join("authority.pem")
    }

    /// Make `NAME.pem` and `NAME.key`, for these hosts.
    pub(super) fn vouch(&self, name: &str, kind: Kind, hosts: &[&str]) -> Result<(), String> {
        let hosts: Vec<String> = hosts.iter().map(|host| format!("DNS:{host}")).collect();
        let mut made = self.openssl(name, kind, name);
        made.args(["-CA", "authority.pem", "-CAkey", "authority.key", "-addext", "basicConstraints=critical,CA:FALSE"]);
        made.args([
            "-addext",
            "keyUsage=critical,digitalSignature",
            "-addext",
            "extendedKeyUsage=serverAuth,clientAuth",
        ]);
        run(made.args(["-addext", &format!("subjectAltName={}", hosts.join(","))])).map(drop)
    }

    fn openssl(&self, name: &str, kind: Kind, subject: &str) -> Command {
        let mut made = command("openssl");
        made.args([
            "req",
            "-x509",
            "-config",
            "openssl.cnf",
            "-nodes",
            "-days",
            "2",
            "-subj",
            &format!("/CN={subject}"),
        ]);
        match kind {
            Kind::Ecdsa => made.args(["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"]),
            Kind::Rsa => made.args(["-newkey", "rsa:2048"]),
        };
        made.args(["-keyout", &format!("{name}.key"), "-out", &format!("{name}.pem")]).current_dir(&self.folder);
        made
    }
}

/// A listener `web` of HTTP under TLS with these certificates, before a cluster `site` of one backend.
pub(super) fn document(port: u16, certificates: &[&str], backend: &str, tls: &str) -> String {
    let named: Vec<String> = certificates.iter().map(|name| format!("\"{name}\"")).collect();
    let sections: String = certificates
        .iter()
        .map(|name| format!("[certificates.{name}]\nchain = \"{name}.pem\"\nkey = \"{name}.key\"\n\n"))
        .collect();
    format!(
        "[workers]\ncount = 2\n\n[listeners.web]\nprotocol = \"http\"\nbind = [\"127.0.0.1:{port}\"]\ncluster = \"site\"\n\
         tls = {{ certificates = [{}]{tls} }}\n\n[clusters.site]\nbackends = [\"{backend}\"]\n\n{sections}",
        named.join(", ")
    )
}

/// What a client of OpenSSL said, whether or not it was content; it asks for `host` and for a page of it.
fn s_client(folder: &Path, port: u16, host: &str, more: &[&str]) -> Result<String, String> {
    let mut client = command("timeout");
    client.args(["15", "openssl", "s_client", "-connect", &format!("127.0.0.1:{port}"), "-ign_eof"]);
    if !more.contains(&"-noservername") {
        client.args(["-servername", host]);
    }
    client.args(["-CAfile", "authority.pem", "-verify_return_error", "-verify_hostname", host]).args(more);
    client.current_dir(folder).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = client.spawn().map_err(|error| format!("openssl: {error}"))?;
    let asked = format!("GET /from-openssl HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
    if let Some(mut stdin) = child.stdin.take() {
        // Where it is gone already this fails, and says less than what it printed.
        let _ = stdin.write_all(asked.as_bytes());
    }
    let output = child.wait_with_output().map_err(|error| format!("openssl: {error}"))?;
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    if let Ok(mut log) = OpenOptions::new().create(true).append(true).open(folder.join("s_client.log")) {
        // The log is for whoever looks into a failure.
        let _ = writeln!(log, "== {host} {more:?}\n{said}");
    }
    Ok(said)
}

/// An error unless all of `wanted` are in what was said.
fn shows(what: &str, said: &str, wanted: &[&str]) -> Result<(), String> {
    match wanted.iter().find(|wanted| !said.contains(**wanted)) {
        None => Ok(()),
        Some(missing) => {
            let end: Vec<&str> = said.lines().rev().take(12).collect();
            let end: Vec<&str> = end.into_iter().rev().collect();
            Err(format!("{what}: no {missing:?} in what was said, which ends with:\n{}", end.join("\n")))
        }
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn its_document_is_valid() {
        super::super::kakei::assert_valid(&super::document(1, &["a", "b"], "127.0.0.1:2", ", default = \"a\""));
    }
}
