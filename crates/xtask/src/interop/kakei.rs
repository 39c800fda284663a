//! Kakei as its users run it: `kakei run -c`, its admin socket, its metrics, its access log. Calls none of its code.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::Value;

use super::process::{Program, run, wait_for, write};

/// A running Kakei.
pub(super) struct Kakei {
    program: Program,
    binary: PathBuf,
    folder: PathBuf,
}

impl Kakei {
    /// Start it with this document; an admin socket and an access log are added to it.
    pub(super) fn start(binary: &Path, folder: &Path, document: &str) -> Result<Kakei, String> {
        Kakei::start_with(binary, folder, document, &[])
    }

    /// The same with more arguments.
    pub(super) fn start_with(binary: &Path, folder: &Path, document: &str, more: &[&str]) -> Result<Kakei, String> {
        write(&folder.join("kakei.toml"), &whole(folder, document))?;
        let mut command = Command::new(binary);
        command.args(["run", "-c", "kakei.toml"]).args(more);
        let program = Program::start("kakei", folder, &mut command)?;
        let mut kakei = Kakei { program, binary: binary.to_owned(), folder: folder.to_owned() };
        let socket = kakei.socket();
        kakei.program.wait_until("readiness", || {
            request(&socket, "GET", "/readyz", ("text/plain", "")).is_ok_and(|(status, _)| status == 200)
        })?;
        Ok(kakei)
    }

    /// Go over to this document by the admin API.
    pub(super) fn put(&self, document: &str) -> Result<(), String> {
        self.api("PUT", "/v1/config", ("application/toml", &whole(&self.folder, document))).map(drop)
    }

    /// Go over to this document by the file and SIGHUP; returns when a new generation runs.
    pub(super) fn reload(&self, document: &str) -> Result<(), String> {
        let before = self.metric("kakei_generation", "")?;
        write(&self.folder.join("kakei.toml"), &whole(&self.folder, document))?;
        self.program.signal(Signal::SIGHUP)?;
        let arrived = || self.metric("kakei_generation", "").is_ok_and(|now| now > before);
        wait_for("a new generation after SIGHUP", Duration::from_secs(5), arrived)
            .map_err(|why| format!("{why}:\n{}", self.program.said()))
    }

    /// Ask the admin API; anything but success is an error.
    pub(super) fn api(&self, method: &str, path: &str, body: (&str, &str)) -> Result<String, String> {
        let (status, said) = request(&self.socket(), method, path, body)?;
        match status {
            200..=299 => Ok(said),
            _ => Err(format!("{method} {path}: {status} {said}")),
        }
    }

    /// Change something by the command line.
    pub(super) fn command(&self, arguments: &[&str]) -> Result<(), String> {
        let mut command = Command::new(&self.binary);
        command.args(arguments).arg("--socket").arg(self.socket()).current_dir(&self.folder);
        run(&mut command).map(drop)
    }

    /// The sum of a metric's values over every set of labels that contains `label`.
    pub(super) fn metric(&self, name: &str, label: &str) -> Result<u64, String> {
        Ok(sum(&self.api("GET", "/metrics", ("text/plain", ""))?, name, label))
    }

    /// Its process.
    pub(super) fn pid(&self) -> u32 {
        self.program.id()
    }

    /// Every access-log record so far.
    pub(super) fn records(&self) -> Vec<Value> {
        let text = std::fs::read_to_string(self.folder.join("access.log")).unwrap_or_default();
        text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }

    /// Tell it to stop and wait; an error if it does not, or not with success.
    pub(super) fn stop(mut self) -> Result<(), String> {
        self.program.signal(Signal::SIGTERM)?;
        let status = self.program.wait(Duration::from_secs(10))?;
        match status.success() {
            true => Ok(()),
            false => Err(format!("kakei ended with {status} after SIGTERM:\n{}", self.program.said())),
        }
    }

    fn socket(&self) -> PathBuf {
        self.folder.join("kakei.sock")
    }
}

/// The document with the parts that every check needs.
fn whole(folder: &Path, document: &str) -> String {
    let folder = folder.display();
    format!(
        "[admin]\nsocket = \"{folder}/kakei.sock\"\n\n[access_log]\nto = \"{folder}/access.log\"\nformat = \"json\"\n\n\
         {document}"
    )
}

/// One request, one connection.
pub(crate) fn request(socket: &Path, method: &str, path: &str, body: (&str, &str)) -> Result<(u16, String), String> {
    let (kind, body) = body;
    let say = |error: std::io::Error| format!("{method} {path}: {error}");
    let mut stream = UnixStream::connect(socket).map_err(say)?;
    stream.set_read_timeout(Some(Duration::from_secs(10))).map_err(say)?;
    let head = format!(
        "{method} {path} HTTP/1.1\r\nHost: kakei\r\nConnection: close\r\nContent-Type: {kind}\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(body.as_bytes())).map_err(say)?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).map_err(say)?;
    let status = answer.split(' ').nth(1).and_then(|word| word.parse().ok());
    let body = answer.split_once("\r\n\r\n").map(|(_, body)| body.to_owned());
    status.zip(body).ok_or_else(|| format!("{method} {path}: no answer but {answer:?}"))
}

fn sum(exposition: &str, name: &str, label: &str) -> u64 {
    let values = exposition.lines().filter_map(|line| {
        let (series, value) = line.rsplit_once(' ')?;
        let (metric, labels) = series.split_once('{').unwrap_or((series, ""));
        let same = metric == name || metric.strip_suffix("_total") == Some(name);
        (same && labels.contains(label)).then(|| value.parse::<f64>().ok())?
    });
    values.sum::<f64>() as u64
}

/// What a check starts Kakei with is a document.
#[cfg(test)]
pub(super) fn assert_valid(document: &str) {
    let text = whole(Path::new("/tmp"), document);
    if let Err(problems) = kakei_config::parse_toml(&text) {
        panic!("{}", problems.render("kakei.toml", &text, false));
    }
}

#[cfg(test)]
mod tests {
    use super::sum;

    #[test]
    fn a_metric_is_summed_over_its_labels() {
        let text =
            "# TYPE a counter\na_total{b=\"1\",c=\"x\"} 3\na_total{b=\"2\",c=\"x\"} 4\na_b_total{b=\"1\"} 9\nd 5\n";
        assert_eq!(sum(text, "a", ""), 7);
        assert_eq!(sum(text, "a", "b=\"2\""), 4);
        assert_eq!(sum(text, "d", ""), 5);
        assert_eq!(sum(text, "e", ""), 0);
    }
}
