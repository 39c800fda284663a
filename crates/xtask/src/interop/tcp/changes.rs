//! Connections that live through a thousand changes of what is not theirs.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::super::Setting;
use super::super::kakei::Kakei;
use super::super::process::free_port;
use super::{cluster, connect, echo, echoes, four, listener};

const CHANGES: usize = 1_000;
/// Connections that say something between the changes.
const TALKING: usize = 20;
/// Connections that say nothing until the end.
const SILENT: usize = 20;
const JSON: &str = "application/json";

pub(in super::super) fn survive(setting: &Setting) -> Result<String, String> {
    let stage = Stage { server: echo()?, front: free_port()?, spare: free_port()? };
    let kakei = Kakei::start(&setting.binary, &setting.folder, &stage.document(0))?;
    let open = |count: usize| (0..count).map(|_| connect(four(stage.front))).collect::<Result<Vec<_>, _>>();
    let (mut talking, mut silent) = (open(TALKING)?, open(SILENT)?);
    for stream in talking.iter_mut().chain(&mut silent) {
        echoes(stream, b"before any change")?;
    }
    let stream = Stream::start(connect(four(stage.front))?);
    let before = kakei.metric("kakei_generation", "")?;
    let begun = Instant::now();
    for change in 0..CHANGES {
        stage.change(&kakei, change).map_err(|why| format!("change {change}: {why}"))?;
        let talker = change % TALKING;
        echoes(&mut talking[talker], format!("after change {change}").as_bytes())
            .map_err(|why| format!("after change {change}: {why}"))?;
    }
    let seconds = begun.elapsed().as_secs_f64();
    let bytes = stream.stop()?;
    for stream in talking.iter_mut().chain(&mut silent) {
        echoes(stream, b"after every change")?;
    }
    let generations = kakei.metric("kakei_generation", "")? - before;
    if (generations as usize) < CHANGES {
        return Err(format!("{CHANGES} changes made {generations} generations"));
    }
    drop((talking, silent));
    kakei.stop()?;
    Ok(format!(
        "{} connections and a stream of {bytes} bytes lived through {CHANGES} changes in {seconds:.1} s",
        TALKING + SILENT
    ))
}

struct Stage {
    server: SocketAddr,
    front: u16,
    spare: u16,
}

impl Stage {
    /// The listener that is never touched, and others that come and go with `number`.
    fn document(&self, number: usize) -> String {
        let server = self.server.to_string();
        let mut words = listener("kept", &[four(self.front)], "kept", "");
        words += &cluster("kept", &server, "");
        words += &listener("other", &[four(self.spare)], "other", "");
        let backends: Vec<String> =
            (0..=number % 3).map(|n| format!("{{ name = \"b{n}\", address = \"127.0.0.{}:9\" }}", n + 1)).collect();
        words += &format!("[clusters.other]\nbackends = [{}]\n\n", backends.join(", "));
        if number % 2 == 1 {
            let name = format!("{number}.example.com");
            words += &format!("[routes.r{number}]\nlistener = \"other\"\nsni = [\"{name}\"]\ncluster = \"kept\"\n\n");
        }
        if number % 5 == 4 {
            words += &listener("third", &[SocketAddr::from(([127, 0, 0, 2], self.spare))], "other", "");
        }
        words
    }

    /// One change: a whole document that differs in a route, a listener and backends, or one backend of the other cluster.
    fn change(&self, kakei: &Kakei, number: usize) -> Result<(), String> {
        let backends = "/v1/clusters/other/backends";
        let done = match number % 4 {
            0 => return kakei.put(&self.document(number / 4 + 1)),
            1 => kakei.api("POST", backends, (JSON, "{\"name\":\"x\",\"address\":\"127.0.0.9:9\"}")),
            2 => kakei.api("PATCH", &format!("{backends}/x"), (JSON, "{\"weight\":7}")),
            _ => kakei.api("DELETE", &format!("{backends}/x"), (JSON, "")),
        };
        done.map(drop)
    }
}

/// A stream that flows without a pause, to the echo and back, and is looked at byte by byte.
struct Stream {
    over: Arc<AtomicBool>,
    back: JoinHandle<Result<(), String>>,
    forth: JoinHandle<()>,
    bytes: Arc<AtomicU64>,
}

impl Stream {
    fn start(stream: TcpStream) -> Stream {
        let (over, bytes) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let pattern: Arc<Vec<u8>> = Arc::new((0..65_521u32).map(|n| (n * n % 251) as u8).collect());
        let (writer, stop, sent) = (stream.try_clone(), over.clone(), pattern.clone());
        let forth = thread::spawn(move || {
            let Ok(mut writer) = writer else { return };
            // A write that fails shows where its bytes are missed.
            while !stop.load(Ordering::Relaxed) && writer.write_all(&sent).is_ok() {
                thread::sleep(Duration::from_millis(2));
            }
            let _ = writer.shutdown(std::net::Shutdown::Write);
        });
        let count = bytes.clone();
        let back = thread::spawn(move || look(stream, &pattern, &count));
        Stream { over, back, forth, bytes }
    }

    /// End it; how many bytes have come back.
    fn stop(self) -> Result<u64, String> {
        self.over.store(true, Ordering::Relaxed);
        self.forth.join().map_err(|_| "the stream's writer panicked")?;
        self.back.join().map_err(|_| "the stream's reader panicked")??;
        match self.bytes.load(Ordering::Relaxed) {
            0 => Err("nothing came back on the stream".to_owned()),
            bytes => Ok(bytes),
        }
    }
}

/// Read whole patterns to the end.
fn look(mut stream: TcpStream, pattern: &[u8], count: &AtomicU64) -> Result<(), String> {
    let mut back = vec![0; pattern.len()];
    loop {
        let mut length = 0;
        while length < back.len() {
            match stream.read(&mut back[length..]) {
                Ok(0) if length == 0 => return Ok(()),
                Ok(0) => return Err("the stream ended in the middle".to_owned()),
                Ok(more) => length += more,
                Err(error) => return Err(format!("the stream broke: {error}")),
            }
        }
        if back != pattern {
            return Err("the stream came back changed".to_owned());
        }
        count.fetch_add(length as u64, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn its_documents_are_valid() {
        let stage = Stage { server: four(1), front: 2, spare: 3 };
        (0..12).for_each(|number| super::super::super::kakei::assert_valid(&stage.document(number)));
    }
}
