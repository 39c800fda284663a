//! kill -9 at any moment of a stream of changes, hundreds of times: no acknowledged change is lost, and no start fails.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::Setting;
use super::kakei::request;
use super::process::{free_port, write};

const ROUNDS: u64 = 500;
const JSON: &str = "application/json";

/// What was acknowledged last.
#[derive(Clone, Copy, Debug, Default)]
struct Acknowledged {
    generation: u64,
    weight: u64,
}

pub(super) fn survives(setting: &Setting) -> Result<String, String> {
    let stage = Stage { binary: setting.binary.clone(), folder: setting.folder.clone() };
    let document = format!(
        "[workers]\ncount = 1\n[listeners.front]\nprotocol = \"udp\"\nbind = [\"127.0.0.1:{}\"]\ncluster = \"c\"\n\
         [clusters.c]\nbackends = [{{ name = \"a\", address = \"127.0.0.1:9\" }}]\n",
        free_port()?
    );
    write(&stage.folder.join("kakei.toml"), &document)?;
    let mut running = stage.start(&["-c", "kakei.toml"])?;
    let mut last = stage.state(&mut running)?;
    let (mut changes, mut ahead, mut early) = (0, 0, 0);
    let begun = Instant::now();
    for round in 0..ROUNDS {
        let socket = stage.socket();
        let writer = thread::spawn(move || change_until_it_is_gone(&socket));
        // No two rounds end at the same point of a change.
        thread::sleep(Duration::from_micros(2_000 + round * 7_919 % 30_000));
        running.kill();
        let (acknowledged, attempted) = writer.join().map_err(|_| "the writer panicked")?;
        if let Some(acknowledged) = acknowledged {
            changes += acknowledged.generation - last.generation;
            last = acknowledged;
        }
        if round % 5 == 0 {
            // In the middle of a start.
            let mut half = stage.start(&[])?;
            thread::sleep(Duration::from_micros(round * 3_571 % 25_000));
            half.kill();
            early += 1;
        }
        running = stage.start(&[])?;
        let now = stage.state(&mut running).map_err(|why| format!("round {round}: {why}"))?;
        // The last one may have been written down without its acknowledgement having come through.
        let is_ahead = (now.generation, now.weight) == (last.generation + 1, attempted);
        if !is_ahead && (now.generation, now.weight) != (last.generation, last.weight) {
            return Err(format!("round {round}: {last:?} was acknowledged, {now:?} runs"));
        }
        ahead += u64::from(is_ahead);
        last = now;
    }
    running.kill();
    Ok(format!(
        "{ROUNDS} kills during {changes} changes and {early} during a start, in {:.0} s: none lost, {ahead} times one more than was acknowledged",
        begun.elapsed().as_secs_f64()
    ))
}

struct Stage {
    binary: PathBuf,
    folder: PathBuf,
}

/// A process; killed when it goes.
struct Running(Child);

impl Running {
    fn kill(&mut self) {
        // That it is gone already is as good.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.kill();
    }
}

impl Stage {
    fn socket(&self) -> PathBuf {
        self.folder.join("kakei.sock")
    }

    fn start(&self, arguments: &[&str]) -> Result<Running, String> {
        let log = std::fs::File::create(self.folder.join("kakei.log")).map_err(|error| error.to_string())?;
        let mut command = Command::new(&self.binary);
        command.arg("run").args(arguments).args(["--state", "state", "-s"]).arg(self.socket());
        command.current_dir(&self.folder).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        command.spawn().map(Running).map_err(|error| format!("kakei does not start: {error}"))
    }

    /// What runs, once it is ready.
    fn state(&self, running: &mut Running) -> Result<Acknowledged, String> {
        let until = Instant::now() + Duration::from_secs(10);
        while Instant::now() < until {
            if let Ok(Some(status)) = running.0.try_wait() {
                let said = std::fs::read_to_string(self.folder.join("kakei.log")).unwrap_or_default();
                return Err(format!("it ended ({status}):\n{said}"));
            }
            if let Some(state) = self.ask() {
                return Ok(state);
            }
            thread::sleep(Duration::from_millis(2));
        }
        Err("it was not ready within ten seconds".to_owned())
    }

    fn ask(&self) -> Option<Acknowledged> {
        let get = |path| match request(&self.socket(), "GET", path, ("text/plain", "")) {
            Ok((200, body)) => Some(body),
            _ => None,
        };
        get("/readyz")?;
        let status: Value = serde_json::from_str(&get("/v1/status")?).ok()?;
        let document: Value = serde_json::from_str(&get("/v1/config")?).ok()?;
        let weight = document["clusters"]["c"]["backends"][0]["weight"].as_u64()?;
        Some(Acknowledged { generation: status["generation"].as_u64()?, weight })
    }
}

/// Give the backend one weight after the other, as fast as they are taken: the last that was acknowledged, and the one
/// that wasn't.
fn change_until_it_is_gone(socket: &Path) -> (Option<Acknowledged>, u64) {
    let (mut last, mut attempted) = (None, 0);
    for weight in (1..=256).cycle() {
        attempted = weight;
        let body = format!("{{\"weight\":{weight}}}");
        let answer = request(socket, "PATCH", "/v1/clusters/c/backends/a", (JSON, &body));
        let Ok((200, said)) = answer else { break };
        let generation = serde_json::from_str::<Value>(&said).ok().and_then(|said| said["generation"].as_u64());
        let Some(generation) = generation else { break };
        last = Some(Acknowledged { generation, weight });
    }
    (last, attempted)
}
