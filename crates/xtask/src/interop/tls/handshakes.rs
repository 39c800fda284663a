//! Handshakes of OpenSSL's client: versions, certificates by name and by kind, protocols, alerts, and sessions that go on
//! whichever worker the next connection falls to.

use std::time::Duration;

use super::super::Setting;
use super::super::http::origin::Origin;
use super::super::kakei::Kakei;
use super::super::process::{free_port, wait_for};
use super::{Authority, Kind, document, s_client, shows};

/// How many connections go on from one session.
const RECONNECTS: usize = 24;
/// OpenSSL offers what is out of use only when it is told that this is meant.
const OLD: &str = "ALL:@SECLEVEL=0";

/// Where it keeps what outlives it.
const STATE: &[&str] = &["--state", "state"];

/// Two names, one of them with keys of both kinds, and no default.
fn start(setting: &Setting, origin: &Origin) -> Result<(Kakei, u16), String> {
    let (words, front) = prepare(setting, origin)?;
    Ok((Kakei::start(&setting.binary, &setting.folder, &words)?, front))
}

/// The document of that, and the port of its listener.
fn prepare(setting: &Setting, origin: &Origin) -> Result<(String, u16), String> {
    let (folder, front) = (&setting.folder, free_port()?);
    let authority = Authority::new(folder)?;
    authority.vouch("site-rsa", Kind::Rsa, &["site.example"])?;
    authority.vouch("site", Kind::Ecdsa, &["site.example"])?;
    authority.vouch("other", Kind::Ecdsa, &["other.example", "*.under.example"])?;
    Ok((document(front, &["site-rsa", "site", "other"], &origin.address.to_string(), ""), front))
}

/// What a client asks for, how, and what must come of it.
type Try = (&'static str, &'static [&'static str], &'static [&'static str]);

const TRIES: &[Try] = &[
    ("site.example", &["-tls1_3"], &["New, TLSv1.3", "Verify return code: 0", "HTTP/1.1 200", "X25519, 253 bits"]),
    ("site.example", &["-tls1_2"], &["New, TLSv1.2", "Verify return code: 0", "HTTP/1.1 200", "ECDHE"]),
    ("site.example", &[], &["CN = site\n", "signature type: ECDSA"]),
    ("site.example", &["-sigalgs", "RSA-PSS+SHA256"], &["CN = site-rsa\n", "type: RSA-PSS"]),
    ("site.example", &["-tls1_2", "-cipher", "ECDHE-RSA-AES256-GCM-SHA384"], &["CN = site-rsa\n", "HTTP/1.1 200"]),
    ("SITE.example", &[], &["CN = site\n", "HTTP/1.1 200"]),
    ("other.example", &[], &["CN = other\n", "HTTP/1.1 200"]),
    ("a.under.example", &[], &["CN = other\n", "HTTP/1.1 200"]),
    ("site.example", &["-alpn", "h2,http/1.1"], &["ALPN protocol: http/1.1", "HTTP/1.1 200"]),
    ("site.example", &["-groups", "P-384:P-256"], &["HTTP/1.1 200"]),
    ("site.example", &["-ciphersuites", "TLS_CHACHA20_POLY1305_SHA256", "-tls1_3"], &["TLS_CHACHA20", "HTTP/1.1 200"]),
    ("site.example", &["-max_send_frag", "512", "-split_send_frag", "512"], &["HTTP/1.1 200"]),
    ("a.b.under.example", &[], &["SSL alert number 112"]),
    ("nobody.example", &[], &["SSL alert number 112"]),
    ("nobody.example", &["-tls1_2"], &["SSL alert number 112"]),
    ("site.example", &["-noservername"], &["SSL alert number 112"]),
    ("site.example", &["-alpn", "imap"], &["SSL alert number 120"]),
    ("site.example", &["-tls1_1", "-cipher", OLD], &["SSL alert number 70"]),
    ("site.example", &["-tls1", "-cipher", OLD], &["SSL alert number 70"]),
    ("site.example", &["-tls1_2", "-cipher", "AES128-SHA:@SECLEVEL=0"], &["SSL alert number 40"]),
    ("site.example", &["-tls1_3", "-groups", "secp521r1"], &["SSL alert number 40"]),
];

pub(in super::super) fn all(setting: &Setting) -> Result<String, String> {
    let origin = Origin::start()?;
    let (kakei, front) = start(setting, &origin)?;
    let mut wrong = Vec::new();
    for (host, how, wanted) in TRIES {
        let said = s_client(&setting.folder, front, host, how)?;
        wrong.extend(shows(&format!("{host} {how:?}"), &said, wanted).err());
    }
    if !wrong.is_empty() {
        return Err(wrong.join("\n"));
    }
    wait_for("the reasons in the access log", Duration::from_secs(5), || {
        let log: String = kakei.records().iter().map(|record| format!("{record}\n")).collect();
        ["tls_unknown_name", "tls_no_common", "nobody.example", "imap"].iter().all(|reason| log.contains(reason))
    })?;
    let refused = TRIES.iter().filter(|(_, _, wanted)| wanted[0].starts_with("SSL alert")).count();
    let failed = kakei.metric("kakei_tls_failed_handshakes", "")? as usize;
    if failed != refused {
        return Err(format!("{failed} handshakes are counted as failed; there were {refused}"));
    }
    kakei.stop()?;
    Ok(format!("{} handshakes of OpenSSL, {refused} of them refused by the right alert", TRIES.len()))
}

/// Sessions go on in any worker.
pub(in super::super) fn resumed(setting: &Setting) -> Result<String, String> {
    let (folder, origin) = (&setting.folder, Origin::start()?);
    let (kakei, front) = start(setting, &origin)?;
    for version in ["-tls1_3", "-tls1_2"] {
        let said = s_client(folder, front, "site.example", &[version, "-sess_out", "session"])?;
        shows("a first connection", &said, &["New, TLSv1.", "HTTP/1.1 200"])?;
        for turn in 0..RECONNECTS {
            let said = s_client(folder, front, "site.example", &[version, "-sess_in", "session"])?;
            shows(&format!("{version}, reconnect {turn}"), &said, &["Reused, TLSv1.", "HTTP/1.1 200"])?;
        }
        // A session is its name's: with another one there is a whole handshake.
        let said = s_client(folder, front, "other.example", &[version, "-sess_in", "session"])?;
        shows(&format!("{version}, by another name"), &said, &["New, TLSv1.", "CN = other"])?;
    }
    let resumed = kakei.metric("kakei_tls_resumed_handshakes", "")? as usize;
    if resumed != 2 * RECONNECTS {
        return Err(format!("{resumed} handshakes are counted as resumed; there were {}", 2 * RECONNECTS));
    }
    kakei.stop()?;
    Ok(format!("{RECONNECTS} of {RECONNECTS} reconnects resumed with two workers, by TLS 1.3 and by 1.2"))
}

/// Sessions go on with the process that comes after the one that they began with.
pub(in super::super) fn restarted(setting: &Setting) -> Result<String, String> {
    let (folder, origin) = (&setting.folder, Origin::start()?);
    let (words, front) = prepare(setting, &origin)?;
    let start = || Kakei::start_with(&setting.binary, folder, &words, STATE);
    for version in ["-tls1_3", "-tls1_2"] {
        let kakei = start()?;
        let said = s_client(folder, front, "site.example", &[version, "-sess_out", "session"])?;
        shows("before the restart", &said, &["New, TLSv1.", "HTTP/1.1 200"])?;
        kakei.stop()?;
        let kakei = start()?;
        for turn in 0..RECONNECTS {
            let said = s_client(folder, front, "site.example", &[version, "-sess_in", "session"])?;
            shows(&format!("{version} after the restart, {turn}"), &said, &["Reused, TLSv1.", "HTTP/1.1 200"])?;
        }
        let resumed = kakei.metric("kakei_tls_resumed_handshakes", "")? as usize;
        if resumed != RECONNECTS {
            return Err(format!("{resumed} handshakes are counted as resumed; there were {RECONNECTS}"));
        }
        kakei.stop()?;
    }
    // Without the state directory nobody knows the keys any more.
    let kakei = Kakei::start(&setting.binary, folder, &words)?;
    let said = s_client(folder, front, "site.example", &["-tls1_2", "-sess_in", "session"])?;
    shows("without the state directory", &said, &["New, TLSv1.2", "HTTP/1.1 200"])?;
    kakei.stop()?;
    Ok(format!("{RECONNECTS} of {RECONNECTS} reconnects resumed by another process, by TLS 1.3 and by 1.2"))
}
