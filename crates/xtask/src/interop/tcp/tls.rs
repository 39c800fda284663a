//! TLS servers told apart by server name and protocol, undecrypted, with ssh on the same port. OpenSSL judges certificates.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use super::super::Setting;
use super::super::kakei::Kakei;
use super::super::process::{Program, command, find, free_port, run, wait_for, write};
use super::{cluster, connect, echo, echoes, four, listener};

/// A `openssl s_server` with a certificate of its own, which sends back every line reversed.
struct Server {
    name: &'static str,
    certificate: PathBuf,
    port: u16,
    _program: Program,
}

impl Server {
    /// One whose certificate is for `host`.
    fn start(folder: &Path, name: &'static str, host: &str) -> Result<Server, String> {
        let (key, certificate) = (folder.join(format!("{name}.key")), folder.join(format!("{name}.pem")));
        let mut made = command("openssl");
        made.args([
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:prime256v1",
            "-nodes",
            "-days",
            "2",
        ]);
        made.args(["-subj", "/CN=kakei-interop", "-addext", &format!("subjectAltName=DNS:{host}")]);
        run(made.arg("-keyout").arg(&key).arg("-out").arg(&certificate))?;
        let port = free_port()?;
        let mut server = command("openssl");
        server.args(["s_server", "-accept", &four(port).to_string(), "-rev", "-alpn", "imap,h2", "-key"]).arg(&key);
        server.arg("-cert").arg(&certificate);
        let mut program = Program::start(name, folder, &mut server)?;
        program.wait_for_port(port)?;
        Ok(Server { name, certificate, port, _program: program })
    }
}

/// One client of OpenSSL: whom it asks for, how.
struct Ask<'a> {
    host: &'a str,
    more: &'a [&'a str],
}

/// Ask through Kakei; an error unless it was this server that answered, by its certificate.
fn ask(front: u16, server: &Server, asked: &Ask<'_>) -> Result<(), String> {
    // Whatever happens, it ends; and it stays only as long as its input does.
    let mut client = command("timeout");
    client.args(["5", "openssl", "s_client", "-connect", &four(front).to_string(), "-servername", asked.host]);
    client.args(["-quiet", "-no_ign_eof", "-verify_return_error", "-verify_hostname", asked.host, "-CAfile"]);
    client.arg(&server.certificate).args(asked.more);
    client.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = client.spawn().map_err(|error| format!("openssl: {error}"))?;
    let mut stdin = child.stdin.take().ok_or("openssl has no input")?;
    let stdout = child.stdout.take().ok_or("openssl has no output")?;
    // Where it is gone already this fails, and says less than what it printed.
    let _ = stdin.write_all(b"water\n");
    let mut line = String::new();
    let _ = BufReader::new(stdout).read_line(&mut line);
    drop(stdin);
    let output = child.wait_with_output().map_err(|error| format!("openssl: {error}"))?;
    match line.trim() {
        "retaw" => Ok(()),
        _ => Err(format!(
            "{} {:?} was not answered by {}: {line}{}",
            asked.host,
            asked.more.iter().map(|word| &word[..word.len().min(30)]).collect::<Vec<_>>(),
            server.name,
            String::from_utf8_lossy(&output.stderr)
        )),
    }
}

/// A list of protocols that makes a ClientHello long.
fn many_protocols(count: usize) -> String {
    (0..count)
        .map(|n| format!("{n:03}-a-protocol-that-nobody-speaks-and-that-has-a-long-name"))
        .chain(["h2".to_owned()])
        .collect::<Vec<_>>()
        .join(",")
}

/// Exact name, wildcard, protocol, several versions, long and fragmented hellos; everything else goes to the default route.
pub(in super::super) fn by_name(setting: &Setting) -> Result<String, String> {
    let folder = &setting.folder;
    let exact = Server::start(folder, "exact", "imap.example.com")?;
    let wildcard = Server::start(folder, "wildcard", "*.mail.example.com")?;
    let protocol = Server::start(folder, "protocol", "imap.example.com")?;
    let (front, plain) = (free_port()?, echo()?);
    let ports = [exact.port, wildcard.port, protocol.port];
    let kakei = Kakei::start(&setting.binary, folder, &document(front, ports, &plain.to_string()))?;
    let long = many_protocols(120);
    let mut asked = 0;
    for more in [
        &["-tls1_3"][..],
        &["-tls1_2"],
        &["-alpn", &long],
        &["-alpn", &long, "-max_send_frag", "512"],
        &["-tls1_2", "-max_send_frag", "512", "-alpn", &long],
    ] {
        ask(front, &exact, &Ask { host: "imap.example.com", more })?;
        ask(front, &wildcard, &Ask { host: "a.mail.example.com", more })?;
        asked += 2;
    }
    ask(front, &exact, &Ask { host: "IMAP.Example.COM", more: &[] })?;
    ask(front, &protocol, &Ask { host: "imap.example.com", more: &["-alpn", "imap"] })?;
    if ask(front, &exact, &Ask { host: "other.example.com", more: &[] }).is_ok() {
        return Err("a name without a route was answered by a server of another name".to_owned());
    }
    echoes(&mut connect(four(front))?, b"no TLS at all")?;
    let seen = |route: Option<&str>, cluster: &str| {
        let same = |record: &serde_json::Value| record["route"].as_str() == route && record["cluster"] == cluster;
        kakei.records().iter().any(same)
    };
    wait_for("every route in the access log", std::time::Duration::from_secs(3), || {
        let named = ["exact", "wildcard", "protocol"].iter().all(|name| seen(Some(name), name));
        named && seen(None, "plain")
    })?;
    kakei.stop()?;
    Ok(format!(
        "{} handshakes ended at the server of the name, checked by OpenSSL; a name without a route and plain bytes at the default",
        asked + 2
    ))
}

fn document(front: u16, [exact, wildcard, protocol]: [u16; 3], plain: &str) -> String {
    let route =
        |name: &str, words: &str| format!("[routes.{name}]\nlistener = \"mail\"\n{words}\ncluster = \"{name}\"\n\n");
    [
        listener("mail", &[four(front)], "plain", "preread_timeout = \"2s\"\n"),
        route("exact", "sni = [\"imap.example.com\"]"),
        route("wildcard", "sni = [\"*.mail.example.com\"]"),
        route("protocol", "sni = [\"imap.example.com\"]\nalpn = [\"imap\"]"),
        cluster("exact", &four(exact).to_string(), ""),
        cluster("wildcard", &four(wildcard).to_string(), ""),
        cluster("protocol", &four(protocol).to_string(), ""),
        cluster("plain", plain, ""),
    ]
    .concat()
}

/// ssh on the port that routes TLS by name: a login, and a megabyte to and fro.
pub(in super::super) fn ssh(setting: &Setting) -> Result<String, String> {
    let folder = &setting.folder;
    let (port, front) = (free_port()?, free_port()?);
    let host_key = folder.join("host");
    let key = folder.join("user");
    for file in [&host_key, &key] {
        run(command("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(file))?;
    }
    let keys = folder.join("user.pub").display().to_string();
    let mut server = sshd()?;
    server.args(["-D", "-e", "-f", "/dev/null", "-p", &port.to_string(), "-o", "ListenAddress=127.0.0.1"]);
    server.args(["-o", "UsePAM=no", "-o", "StrictModes=no", "-o", "PermitRootLogin=yes", "-o", "PidFile=none"]);
    server.args(["-o", &format!("AuthorizedKeysFile={keys}"), "-h"]).arg(&host_key);
    let mut server = Program::start("sshd", folder, &mut server)?;
    server.wait_for_port(port)?;
    let exact = Server::start(folder, "exact", "imap.example.com")?;
    let document = document(front, [exact.port; 3], &four(port).to_string());
    let kakei = Kakei::start(&setting.binary, folder, &document)?;
    let login = |words: &[&str]| {
        let mut client = command("ssh");
        client.args(["-F", "none", "-p", &front.to_string(), "-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=no"]);
        client.args(["-o", "UserKnownHostsFile=/dev/null", "-o", "LogLevel=ERROR", "-i"]).arg(&key);
        run(client.arg("127.0.0.1").args(words))
    };
    let bytes = 8 << 20;
    let counted = login(&[&format!("head -c {bytes} /dev/zero | tr '\\0' 'k'")])?;
    if counted.len() != bytes || !counted.bytes().all(|byte| byte == b'k') {
        return Err(format!("of {bytes} bytes over ssh {} came", counted.len()));
    }
    let file = folder.join("sent");
    write(&file, &counted)?;
    let mut sent = command("sh");
    let ssh = find("ssh").ok_or("there is no ssh")?;
    sent.arg("-c").arg(format!(
        "exec {} -F none -p {front} -o BatchMode=yes -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null \
         -o LogLevel=ERROR -i {} 127.0.0.1 wc -c < {}",
        ssh.display(),
        key.display(),
        file.display()
    ));
    let said = run(&mut sent)?;
    if said.trim().parse() != Ok(bytes) {
        return Err(format!("{bytes} bytes were sent over ssh, but {} were counted", said.trim()));
    }
    ask(front, &exact, &Ask { host: "imap.example.com", more: &[] })?;
    kakei.stop()?;
    Ok(format!("logins by ssh on the port that routes TLS by name, {bytes} bytes each way; TLS beside it"))
}

/// sshd as it wants to be started: by its whole path, and as root with a directory to be empty.
fn sshd() -> Result<std::process::Command, String> {
    if rustix::process::geteuid().is_root() {
        std::fs::create_dir_all("/run/sshd").map_err(|error| format!("/run/sshd: {error}"))?;
    }
    Ok(command("sshd"))
}

#[cfg(test)]
mod tests {
    #[test]
    fn its_document_is_valid() {
        super::super::super::kakei::assert_valid(&super::document(1, [2, 3, 4], "127.0.0.1:5"));
    }
}
