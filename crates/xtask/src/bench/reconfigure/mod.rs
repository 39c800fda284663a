//! `cargo xtask bench reconfigure`: what a change costs, by how much there is that it doesn't change, what it costs others,
//! and what those who have nothing to do with it notice.

mod beside;
mod changes;
mod origin;
mod peers;
mod traffic;

use serde_json::{Value, json};

use super::args::Options;
use super::ground::Tools;
use super::{print, programs, say};
use changes::Measured;
use peers::Peer;

const HELP: &str = "\
cargo xtask bench reconfigure [OPTIONS]

Changes one object after the other of documents of N HTTP routes and as many clusters.

`changes`: Kakei alone, with a certificate for every ten routes, two workers, on all cores: how long a change takes from its request to its acknowledgement, what it
costs, and what memory is taken. The state is kept in memory (/dev/shm), so that no disk is measured; `--disk` keeps it in
the temporary directory.

`beside`: Kakei, nginx (reload), HAProxy (runtime API, and reload), Envoy (routes in a watched file) and sōzu (its commands),
one worker each on one core: a route is given another cluster, until a request shows that it has it. Then the same while
1,000 requests a second go by a route that nobody changes: up to 1,000 changes a second for those that take them one by one,
one after the other for the others.

  --only A,B       only these parts (changes, beside)
  --sizes N,N      how many routes and clusters (changes: 100,10000,100000; beside: 100,10000)
  --certificates N how many certificates there are besides (changes; a tenth of the routes)
  --changes N      how many changes of each kind (changes: 1000; beside: 200, of reloads 5)
  --seconds S      how long the traffic lasts (5)
  --peers A,B      beside only these: kakei, nginx-reload, haproxy-map, haproxy-reload, envoy-file,
                   sozu-command
  --json FILE      write the figures there too
  --kakei FILE     the program to measure (the release build)
  --no-build       take the release build as it is
  --no-realtime    don't run everything measured before what else runs on the machine
  --disk           keep the state where other temporary files are
  --smoke          a few changes of small documents: does it run at all
";

const FLAGS: [&str; 4] = ["smoke", "no-build", "no-realtime", "disk"];
const KEYS: [&str; 8] = ["only", "sizes", "certificates", "changes", "seconds", "peers", "json", "kakei"];

/// What a person asked for.
struct Asked {
    sizes: Option<Vec<usize>>,
    certificates: Option<usize>,
    changes: Option<usize>,
    seconds: f64,
    smoke: bool,
    disk: bool,
}

impl Asked {
    fn read(options: &Options) -> Result<Asked, String> {
        let size = |text: &String| match text.parse::<usize>() {
            Ok(size) if size >= 4 && size.is_multiple_of(2) => Ok(size),
            _ => Err(format!("`{text}` is no even number of routes from 4 on")),
        };
        let sizes = options.list("sizes").map(|sizes| sizes.iter().map(size).collect()).transpose()?;
        let number = |key| options.text(key).map(|_| options.get(key, 1)).transpose();
        let (certificates, changes) = (number("certificates")?, number("changes")?);
        let smoke = options.flag("smoke");
        let seconds = options.get("seconds", if smoke { 0.3 } else { 5.0 })?;
        Ok(Asked { sizes, certificates, changes, seconds, smoke, disk: options.flag("disk") })
    }

    /// How many routes and clusters there are, one document after the other.
    fn sizes(&self, few: &[usize], many: &[usize]) -> Vec<usize> {
        self.sizes.clone().unwrap_or_else(|| if self.smoke { few.to_vec() } else { many.to_vec() })
    }

    /// How many changes are made.
    fn changes(&self, few: usize, many: usize) -> usize {
        self.changes.unwrap_or(if self.smoke { few } else { many }).max(1)
    }
}

/// Run it as `args` have it.
pub(super) fn run(args: &[String]) -> Result<(), String> {
    if args.iter().any(|a| a == "--help" || a == "-h") {
        print(HELP);
        return Ok(());
    }
    let options = Options::read(args, &FLAGS, &KEYS)?;
    let asked = Asked::read(&options)?;
    let only = options.list("only");
    if let Some(other) = only.iter().flatten().find(|part| !["changes", "beside"].contains(&part.as_str())) {
        return Err(format!("there is no part `{other}`; there are `changes` and `beside`"));
    }
    let wants = |part: &str| only.as_ref().is_none_or(|only| only.iter().any(|word| word == part));
    let tools = Tools::prepare(&options)?;
    let mut all = json!({});
    if wants("changes") {
        let mut rows = Vec::new();
        for size in asked.sizes(&[10, 1_000], &[100, 10_000, 100_000]) {
            say(&format!("{size} routes and clusters"));
            let certificates = asked.certificates.unwrap_or(size / 10);
            rows.push(Measured::of(&tools, (size, certificates), asked.changes(20, 1_000), asked.disk)?);
        }
        print(&changes::table(&rows));
        all["changes"] = rows.iter().map(Measured::json).collect::<Vec<Value>>().into();
    }
    if wants("beside") {
        let (peers, notes) = programs::present::<Peer>(options.list("peers"), &tools.kakei)?;
        notes.iter().for_each(|note| say(note));
        let rows = beside::run(&tools, &peers, &asked)?;
        print(&beside::tables(&rows));
        all["peers"] = programs::versions(&peers, &tools.kakei).into();
        all["beside"] = rows.iter().map(beside::Row::json).collect::<Vec<Value>>().into();
    }
    match options.text("json") {
        Some(file) => std::fs::write(file, format!("{all:#}\n")).map_err(|e| format!("{file}: {e}")),
        None => Ok(()),
    }
}
