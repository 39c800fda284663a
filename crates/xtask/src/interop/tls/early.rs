//! Early data of OpenSSL's client: what may go on before the handshake is over says so to the backend, everything else
//! waits, a session is of use once, and what is refused ends no handshake.

use std::fs::copy;

use super::super::Setting;
use super::super::http::origin::Origin;
use super::super::kakei::Kakei;
use super::super::process::{free_port, write};
use super::{Authority, Kind, document, s_client, shows};

const HOST: &str = "site.example";
/// Requests that come early, and whether they may.
const ASKED: [(&str, &str, bool); 4] =
    [("GET", "/news/1", true), ("HEAD", "/news/2", true), ("POST", "/news/3", false), ("GET", "/other", false)];
/// How often each of them is sent.
const TURNS: usize = 6;
/// The word by which a backend sees that a request came early, as the origin says it back.
const SAYS: &str = "early-data: 1";

pub(in super::super) fn data(setting: &Setting) -> Result<String, String> {
    let (folder, origin, front) = (&setting.folder, Origin::start()?, free_port()?);
    Authority::new(folder)?.vouch("site", Kind::Ecdsa, &[HOST])?;
    let words = document(front, &["site"], &origin.address.to_string(), "");
    let route = "[routes.news]\nlistener = \"web\"\npath = \"/news\"\ncluster = \"site\"\nearly_data = true\n";
    let kakei = Kakei::start(&setting.binary, folder, &format!("{words}{route}"))?;
    let say = |more: &[&str]| s_client(folder, front, HOST, &[&["-tls1_3"], more].concat());
    shows("a first connection", &say(&["-sess_out", "session"])?, &["Max Early Data: 16384", "HTTP/1.1 200"])?;
    let mut early = 0;
    for (n, (method, path, may)) in ASKED.iter().cycle().take(TURNS * ASKED.len()).enumerate() {
        let length = if *method == "POST" { "Content-Length: 0\r\n" } else { "" };
        write(&folder.join("asked"), &format!("{method} {path} HTTP/1.1\r\nHost: {HOST}\r\n{length}\r\n"))?;
        copy(folder.join("session"), folder.join("used")).map_err(|error| format!("the session: {error}"))?;
        let said = say(&["-sess_in", "session", "-sess_out", "session", "-early_data", "asked"])?;
        let what = format!("{n}: {method} {path}");
        shows(&what, &said, &["Early data was accepted", "Reused, TLSv1.3"])?;
        if said.matches("HTTP/1.1 200").count() != 2 {
            return Err(format!("{what}: two answers are to come: {said}"));
        }
        let (is_said, is_shown) = (said.to_lowercase().contains(SAYS), *method != "HEAD");
        if is_shown && is_said != *may {
            return Err(format!("{what}: the backend saw that it comes early: {is_said}; {said}"));
        }
        early += u64::from(*may);
    }
    // Any worker knows that this one was of use already.
    write(&folder.join("asked"), &format!("GET /news/again HTTP/1.1\r\nHost: {HOST}\r\n\r\n"))?;
    for turn in 0..TURNS {
        let said = say(&["-sess_in", "used", "-early_data", "asked"])?;
        shows(
            &format!("a session again, {turn}"),
            &said,
            &["Early data was rejected", "New, TLSv1.3", "HTTP/1.1 200"],
        )?;
    }
    let count = |name| kakei.metric(name, "");
    let counted = (count("kakei_early_requests")?, count("kakei_early_held_requests")?);
    let sent = (TURNS * ASKED.len()) as u64;
    if counted != (early, sent - early) || count("kakei_tls_refused_early_data")? != TURNS as u64 {
        return Err(format!("{counted:?} requests went on early and waited; there were {early} of {sent}"));
    }
    kakei.stop()?;
    Ok(format!(
        "{sent} requests as early data with two workers, {early} of them went on at once; none by a used session"
    ))
}
