//! A WebSocket, a long poll and an upload on one route that live through a thousand changes of another.

use std::time::{Duration, Instant};

use serde_json::Value;

use super::super::Setting;
use super::super::kakei::Kakei;
use super::super::process::{Program, free_port, wait_for, write};
use super::registry::Libraries;
use super::{Client, web};

const CHANGES: usize = 1_000;
const JSON: &str = "application/json";

pub(in super::super) fn survive(setting: &Setting) -> Result<String, String> {
    let (folder, front) = (&setting.folder, free_port()?);
    let (_server, backend) = web::python_server(folder)?;
    let kakei = Kakei::start(&setting.binary, folder, &document(front, backend, 0))?;
    write(&folder.join("live.py"), include_str!("programs/live.py"))?;
    let mut python = Libraries::Python.command();
    let mut live = Program::start("live", folder, python.args(["live.py", &front.to_string()]))?;
    live.wait_until("life", || folder.join("ready").exists())?;
    let (before, begun) = (kakei.metric("kakei_generation", "")?, Instant::now());
    for change in 0..CHANGES {
        make(&kakei, (front, backend), change).map_err(|why| format!("change {change}: {why}"))?;
        if change % 50 == 0 && !live.lives() {
            return Err(format!("something did not live through change {change}: {}", live.said()));
        }
    }
    let seconds = begun.elapsed().as_secs_f64();
    write(&folder.join("stop"), "")?;
    let mut client = Client::to(front)?;
    client.ask("GET", "/release HTTP/1.1\r\nHost: kept.example\r\n\r\n")?;
    let ended = live.wait(Duration::from_secs(10))?;
    let said: Value = serde_json::from_str(live.said().trim()).map_err(|error| format!("{error}: {}", live.said()))?;
    if !ended.success() {
        return Err(format!("not all lived through {CHANGES} changes: {said}"));
    }
    let generations = kakei.metric("kakei_generation", "")? - before;
    if (generations as usize) < CHANGES {
        return Err(format!("{CHANGES} changes made {generations} generations"));
    }
    wait_for("an answer of the other route", Duration::from_secs(5), || {
        let other = client.ask("GET", "/who HTTP/1.1\r\nHost: other.example\r\n\r\n");
        other.is_ok_and(|answer| answer.field("x-change").is_some())
    })?;
    kakei.stop()?;
    let counts = &said["counts"];
    Ok(format!(
        "a WebSocket ({} echoes), a long poll and an upload ({} bytes) lived through {CHANGES} changes in {seconds:.1} s",
        counts["turns"], counts["uploaded"]
    ))
}

/// The route that is never touched, and another one that is another with each `number`.
fn document(front: u16, backend: u16, number: usize) -> String {
    let paths = ["", "path = \"/who\"\n", "method = [\"GET\", \"POST\"]\n"];
    let third = match number % 5 {
        4 => "[routes.third]\nlistener = \"web\"\nhost = [\"third.example\"]\nrespond = { body = \"third\" }\n\n",
        _ => "",
    };
    format!(
        "[listeners.web]\nprotocol = \"http\"\nbind = [\"127.0.0.1:{front}\"]\ncluster = \"kept\"\n\n[routes.kept]\nlistener = \
         \"web\"\nhost = [\"kept.example\"]\ncluster = \"kept\"\non_change = \"close\"\n\n[routes.other]\nlistener = \
         \"web\"\nhost = [\"other.example\"]\n{}cluster = \"other\"\non_change = \"close\"\nresponse = {{ set = {{ x-change = \
         \"{number}\" }} }}\n\n{third}[clusters.kept]\nbackends = [\"127.0.0.1:{backend}\"]\ntcp = {{ on_backend_removed = \
         \"close\" }}\n\n[clusters.other]\nbackends = [{{ name = \"b0\", address = \"127.0.0.1:{backend}\" }}]\n",
        paths[number % paths.len()]
    )
}

/// One change: a whole document that differs in routes, or one backend of the other cluster.
fn make(kakei: &Kakei, (front, backend): (u16, u16), number: usize) -> Result<(), String> {
    let backends = "/v1/clusters/other/backends";
    let done = match number % 4 {
        0 => return kakei.put(&document(front, backend, number / 4 + 1)),
        1 => kakei.api("POST", backends, (JSON, "{\"name\":\"x\",\"address\":\"127.0.0.9:9\"}")),
        2 => kakei.api("PATCH", &format!("{backends}/x"), (JSON, "{\"weight\":7}")),
        _ => kakei.api("DELETE", &format!("{backends}/x"), (JSON, "")),
    };
    done.map(drop)
}

#[cfg(test)]
mod tests {
    #[test]
    fn its_documents_are_valid() {
        (0..12).for_each(|number| super::super::super::kakei::assert_valid(&super::document(1, 2, number)));
    }
}
