//! The command line, declared once: parsing, help, completions and the manual derive from it. Does nothing.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;
use kakei::config::{BackendAddress, Protocol};

/// A hot-reconfigurable load balancer: nothing that you change drops what you did not change.
#[derive(Debug, Parser)]
#[command(name = "kakei", version, about, max_term_width = 100)]
pub(crate) struct Cli {
    /// How much `demo`, `run` and `serve` log to standard error.
    #[arg(long, global = true, env = "KAKEI_LOG", value_name = "LEVEL")]
    pub(crate) log: Option<Level>,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// How much is logged.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum Level {
    /// Nothing.
    Off,
    /// What went wrong.
    Error,
    /// And what is odd.
    Warn,
    /// And what happens: start, generations, health.
    Info,
    /// And details.
    Debug,
    /// Everything.
    Trace,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// See it balance: built-in backends and clients on free loopback ports; needs no file.
    Demo(Demo),
    /// Run in the foreground. SIGHUP applies the file again, SIGTERM drains, SIGINT twice stops now.
    Run(Run),
    /// A proxy in one line, without a file.
    Serve(Serve),
    /// Check a document: 0 valid, 2 invalid with every error placed. Binds and writes nothing.
    Check(Check),
    /// What applying a document would change in the running proxy.
    Plan(Plan),
    /// Go over to a document: all of it, or nothing.
    Apply(Apply),
    /// Keep a change that was applied with --confirm-within.
    Confirm(Confirm),
    /// Go back to what a generation was; without one, to what ran before.
    Rollback(Rollback),
    /// What makes one generation of another.
    Diff(Diff),
    /// List what there is in the running proxy.
    Get(Get),
    /// The running proxy at a glance.
    Status(Ask),
    /// Where a client's datagram, connection or request goes, what is done to it, and why not elsewhere.
    Explain(Explain),
    /// Have a listener, route, cluster or backend take nothing new; or only say who still holds it.
    Drain(Drain),
    /// Change one backend of the running proxy.
    Backend(BackendCommand),
    /// Add, change or remove a listener of the running proxy.
    Listener(ObjectCommand),
    /// Add, change or remove a route of the running proxy.
    Route(ObjectCommand),
    /// Add, change or remove a cluster of the running proxy.
    Cluster(ObjectCommand),
    /// Add, replace or remove a certificate of the running proxy.
    Certificate(CertificateCommand),
    /// The generations that ran: when, by whom, why, and what each changed.
    History(Ask),
    /// The document that runs.
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Simulate: whole workers in virtual time with clients, backends and faults, and checkers that know the truth.
    Sim(Sim),
    /// Make the hash of a password, as `auth.basic` takes it. Asks for it, or reads it from standard input.
    HashPassword(HashPassword),
    /// The description of the admin API (OpenAPI 3.1), as JSON. Asks no proxy.
    Openapi,
    /// The JSON Schema of the document, for editors.
    Schema,
    /// Completions for a shell, to standard output.
    Completions {
        /// Which shell.
        shell: Shell,
    },
    /// The manual page (roff), to standard output.
    Man,
}

/// The running proxy that is asked.
#[derive(Debug, Args)]
pub(crate) struct Door {
    /// Its admin socket; KAKEI_SOCKET, or kakei.sock, without it.
    #[arg(short, long, global = true, value_name = "PATH")]
    pub(crate) socket: Option<PathBuf>,
    /// Its admin API over TCP, in the place of the socket: https://HOST:PORT. KAKEI_API says it too.
    #[arg(long, global = true, value_name = "URL")]
    pub(crate) api: Option<String>,
    /// With --api: the certificate that is shown (PEM), and behind it those that vouch for it.
    #[arg(long = "cert", id = "api_cert", global = true, env = "KAKEI_CERT", value_name = "FILE")]
    pub(crate) cert: Option<PathBuf>,
    /// With --api: the private key of that certificate (PEM).
    #[arg(long = "key", id = "api_key", global = true, env = "KAKEI_KEY", value_name = "FILE")]
    pub(crate) key: Option<PathBuf>,
    /// With --api: the certificates of those who may vouch for the proxy (PEM); without it, those that the system trusts.
    #[arg(long = "ca", id = "api_ca", global = true, env = "KAKEI_CA", value_name = "FILE")]
    pub(crate) ca: Option<PathBuf>,
}

/// How data is printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// For people.
    #[default]
    Table,
    /// For programs.
    Json,
}

#[derive(Debug, Args)]
pub(crate) struct Output {
    /// How it is printed.
    #[arg(short, long, global = true, value_enum, default_value_t, value_name = "FORMAT")]
    pub(crate) output: Format,
}

#[derive(Debug, Args)]
pub(crate) struct Ask {
    #[command(flatten)]
    pub(crate) door: Door,
    #[command(flatten)]
    pub(crate) output: Output,
}

#[derive(Debug, Args)]
pub(crate) struct Demo {
    /// End after the show instead of waiting for Ctrl-C.
    #[arg(long)]
    pub(crate) once: bool,
}

#[derive(Debug, Args)]
pub(crate) struct HashPassword {
    /// How the hash is made.
    #[arg(long, value_enum, default_value_t, value_name = "NAME")]
    pub(crate) algorithm: Hashing,
}

/// How a password's hash is made.
#[derive(Clone, Copy, Debug, Default, ValueEnum)]
pub(crate) enum Hashing {
    /// With 19 MiB and two passes.
    #[default]
    Argon2id,
    /// For other programs that read no argon2; passwords of at most 72 bytes.
    Bcrypt,
}

#[derive(Debug, Args)]
pub(crate) struct Run {
    /// The document (TOML, or JSON where the name ends in .json); without it, what the state directory holds.
    #[arg(short, long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// The admin socket, in place of the document's.
    #[arg(short, long, env = "KAKEI_SOCKET", value_name = "PATH")]
    pub(crate) socket: Option<String>,
    /// The state directory, in place of the document's.
    #[arg(long, env = "KAKEI_STATE", value_name = "DIR")]
    pub(crate) state: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct Serve {
    /// Where clients arrive: udp:ADDR:PORT (udp: may be left out), tcp:ADDR:PORT or http://ADDR:PORT; all of one
    /// protocol.
    #[arg(long, required = true, num_args = 1.., value_name = "ADDR", value_parser = dialled)]
    pub(crate) from: Vec<Dialled>,
    /// Where they go: ADDR:PORT, HOST:PORT, or for TCP and HTTP unix:PATH.
    #[arg(long, required = true, num_args = 1.., value_name = "ADDR", value_parser = backend_address)]
    pub(crate) to: Vec<BackendAddress>,
    /// How a backend is chosen.
    #[arg(long, value_enum, default_value_t, value_name = "POLICY")]
    pub(crate) balance: Balance,
    /// UDP: after this many datagrams of a client the next one opens a new flow; 0: unlimited.
    #[arg(long, default_value_t = 0, value_name = "N")]
    pub(crate) requests: u32,
    /// UDP: a flow ends after this many replies; 0: unlimited.
    #[arg(long, default_value_t = 0, value_name = "N")]
    pub(crate) responses: u32,
    /// UDP: no reply is expected (syslog, statsd).
    #[arg(long)]
    pub(crate) one_way: bool,
    /// Seconds without a datagram after which a flow ends; and, whatever the protocol, that a drain takes at most.
    #[arg(long, default_value_t = 30, value_name = "SECONDS", value_parser = clap::value_parser!(u32).range(1..=86_400))]
    pub(crate) timeout: u32,
    /// How many workers; one per core without it.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub(crate) workers: Option<u16>,
    /// The admin socket; none without it.
    #[arg(short, long, env = "KAKEI_SOCKET", value_name = "PATH")]
    pub(crate) socket: Option<String>,
    /// The address of /metrics, /healthz and /readyz.
    #[arg(long, value_name = "ADDR")]
    pub(crate) metrics: Option<SocketAddr>,
    /// Where access-log lines go: stdout, stderr or a file.
    #[arg(long, value_name = "WHERE")]
    pub(crate) access_log: Option<String>,
}

/// How a backend is chosen.
#[derive(Clone, Copy, Debug, Default, ValueEnum)]
#[value(rename_all = "snake_case")]
pub(crate) enum Balance {
    /// In turn, smoothly by weight.
    #[default]
    RoundRobin,
    /// At random, by weight.
    Random,
    /// The fewest live flows over weight.
    Least,
    /// The better of two random ones.
    P2c,
    /// Rendezvous hashing of the client's address.
    Hrw,
    /// Maglev hashing of the client's address.
    Maglev,
}

impl From<Balance> for kakei::config::Balance {
    fn from(balance: Balance) -> Self {
        match balance {
            Balance::RoundRobin => Self::RoundRobin,
            Balance::Random => Self::Random,
            Balance::Least => Self::Least,
            Balance::P2c => Self::P2c,
            Balance::Hrw => Self::Hrw,
            Balance::Maglev => Self::Maglev,
        }
    }
}

/// A protocol and an address.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Dialled {
    pub(crate) protocol: Protocol,
    pub(crate) address: SocketAddr,
}

pub(crate) fn dialled(text: &str) -> Result<Dialled, String> {
    let (protocol, rest) = match text.split_once(':') {
        Some(("tcp", rest)) => (Protocol::Tcp, rest),
        Some(("http", rest)) => {
            let rest = rest.strip_prefix("//").unwrap_or(rest);
            (Protocol::Http, rest.strip_suffix('/').unwrap_or(rest))
        }
        Some(("udp", rest)) => (Protocol::Udp, rest),
        _ => (Protocol::Udp, text),
    };
    let address = rest.parse().map_err(|_| {
        "it is a protocol, an address and a port, as udp:127.0.0.1:5353, tcp:[::1]:993 or http://127.0.0.1:8080"
            .to_owned()
    })?;
    Ok(Dialled { protocol, address })
}

fn backend_address(text: &str) -> Result<BackendAddress, String> {
    let bare = ["udp:", "tcp:", "http://", "http:"].iter().find_map(|scheme| text.strip_prefix(scheme));
    let is_url = text.starts_with("http:");
    let text = bare.unwrap_or(text);
    text.strip_suffix('/').filter(|_| is_url).unwrap_or(text).parse()
}

#[derive(Debug, Args)]
pub(crate) struct Check {
    /// The document; - reads standard input.
    pub(crate) file: PathBuf,
    #[command(flatten)]
    pub(crate) output: Output,
}

#[derive(Debug, Args)]
pub(crate) struct Plan {
    /// The document; - reads standard input.
    pub(crate) file: PathBuf,
    /// Only if this generation runs.
    #[arg(long, value_name = "N")]
    pub(crate) if_generation: Option<u64>,
    /// Say also what it would do to so many requests, connections and flows of those that came last; without a number
    /// 1000.
    #[arg(long, value_name = "N", num_args = 0..=1, require_equals = true, default_missing_value = "1000")]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub(crate) traffic: Option<u32>,
    #[command(flatten)]
    pub(crate) ask: Ask,
}

/// Under what a change is made.
#[derive(Debug, Args)]
#[command(next_help_heading = "The change")]
pub(crate) struct Terms {
    /// Why; it stands in the history.
    #[arg(short, long, global = true, value_name = "TEXT")]
    pub(crate) message: Option<String>,
    /// Only say what would change.
    #[arg(long, global = true)]
    pub(crate) dry_run: bool,
    /// Only if this generation runs.
    #[arg(long, global = true, value_name = "N")]
    pub(crate) if_generation: Option<u64>,
    /// Take it back by itself unless `kakei confirm` comes within this time, as 90s or 2m.
    #[arg(long, global = true, value_name = "TIME", value_parser = duration)]
    pub(crate) confirm_within: Option<String>,
    /// Take it back sooner when more than so many of a hundred requests fail with a status of 500 or more.
    #[arg(long, global = true, value_name = "PERCENT", requires = "confirm_within")]
    #[arg(value_parser = clap::value_parser!(u8).range(0..=100))]
    pub(crate) guard_errors: Option<u8>,
    /// Take it back sooner when more than so many of a hundred checked backends are down.
    #[arg(long, global = true, value_name = "PERCENT", requires = "confirm_within")]
    #[arg(value_parser = clap::value_parser!(u8).range(0..=100))]
    pub(crate) guard_unhealthy: Option<u8>,
}

impl Terms {
    /// Whether any of them is.
    pub(crate) fn is_given(&self) -> bool {
        self.message.is_some() || self.dry_run || self.if_generation.is_some() || self.confirm_within.is_some()
    }
}

fn duration(text: &str) -> Result<String, String> {
    let duration = kakei::config::parse_duration(text).filter(|duration| !duration.is_zero());
    duration.map(|_| text.to_owned()).ok_or_else(|| "it is a time as 90s or 2m".to_owned())
}

#[derive(Debug, Args)]
pub(crate) struct Apply {
    /// The document; - reads standard input.
    pub(crate) file: PathBuf,
    #[command(flatten)]
    pub(crate) terms: Terms,
    #[command(flatten)]
    pub(crate) ask: Ask,
}

#[derive(Debug, Args)]
pub(crate) struct Confirm {
    /// The generation; without it, whichever waits.
    pub(crate) generation: Option<u64>,
    #[command(flatten)]
    pub(crate) ask: Ask,
}

#[derive(Debug, Args)]
pub(crate) struct Rollback {
    /// The generation; without it, the one that ran before.
    pub(crate) generation: Option<u64>,
    #[command(flatten)]
    pub(crate) terms: Terms,
    #[command(flatten)]
    pub(crate) ask: Ask,
}

#[derive(Debug, Args)]
pub(crate) struct Diff {
    /// The generation to start from.
    pub(crate) from: u64,
    /// The generation to come to; without it, the one that runs.
    pub(crate) to: Option<u64>,
    #[command(flatten)]
    pub(crate) ask: Ask,
}

#[derive(Debug, Args)]
pub(crate) struct ObjectCommand {
    #[command(subcommand)]
    pub(crate) verb: ObjectVerb,
    #[command(flatten)]
    pub(crate) terms: Terms,
    #[command(flatten)]
    pub(crate) ask: Ask,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ObjectVerb {
    /// Add one, with these options; refused where there is another one of this name.
    Add {
        /// Its name.
        name: String,
        /// Its options, as in the document: 'listener = "web"' 'host = ["shop.example.com"]'.
        #[arg(required = true, value_name = "OPTION")]
        options: Vec<String>,
    },
    /// Give one other options; those that aren't named stay as they are.
    Set {
        /// Its name.
        name: String,
        /// The options, as in the document.
        #[arg(value_name = "OPTION")]
        options: Vec<String>,
        /// Take an option out, as timeouts.request; may stand several times.
        #[arg(long, value_name = "OPTION")]
        unset: Vec<String>,
    },
    /// Remove one; what lives on it does what its policy says.
    Remove {
        /// Its name.
        name: String,
    },
}

#[derive(Debug, Args)]
pub(crate) struct CertificateCommand {
    #[command(subcommand)]
    pub(crate) verb: CertificateVerb,
    #[command(flatten)]
    pub(crate) terms: Terms,
    #[command(flatten)]
    pub(crate) ask: Ask,
}

/// Where a certificate is.
#[derive(Debug, Args)]
pub(crate) struct CertificateFiles {
    /// The file of the certificate, and behind it of those that vouch for it (PEM).
    #[arg(value_name = "CHAIN")]
    pub(crate) chain: PathBuf,
    /// The file of its key (PEM).
    #[arg(value_name = "KEY")]
    pub(crate) key: PathBuf,
    /// The file of what its issuer's responder said last (OCSP, DER).
    #[arg(long, value_name = "FILE")]
    pub(crate) ocsp: Option<PathBuf>,
    /// Put what the files of chain and key hold now into the document, key included, in the place of their paths.
    #[arg(long)]
    pub(crate) inline: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum CertificateVerb {
    /// Add one; refused where there is another one of this name.
    Add {
        /// Its name.
        name: String,
        #[command(flatten)]
        files: CertificateFiles,
        /// A listener that shows it from now on; may stand several times.
        #[arg(long, value_name = "NAME")]
        listener: Vec<String>,
    },
    /// Put another one in its place: new handshakes get it, connections go on.
    Replace {
        /// Its name.
        name: String,
        #[command(flatten)]
        files: CertificateFiles,
    },
    /// Remove one, and take it from the listeners that show it. The last one of a listener stays.
    Remove {
        /// Its name.
        name: String,
    },
}

/// What can be listed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Kind {
    /// Where clients arrive.
    #[value(alias = "listener")]
    Listeners,
    /// What refines a listener.
    #[value(alias = "route")]
    Routes,
    /// Groups of backends.
    #[value(alias = "cluster")]
    Clusters,
    /// Servers.
    #[value(alias = "backend")]
    Backends,
    /// What listeners prove by who they are, and until when.
    #[value(alias = "certificate")]
    Certificates,
    /// Live flows.
    #[value(alias = "flow")]
    Flows,
    /// Live connections.
    #[value(alias = "connection")]
    Connections,
    /// Generations that ran.
    #[value(alias = "generation")]
    Generations,
    /// The document that runs, as TOML (JSON with -o json).
    Config,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ConfigCommand {
    /// Write it, as TOML (JSON with -o json), so that it brings up again what runs.
    Export(Ask),
}

#[derive(Debug, Args)]
pub(crate) struct Get {
    /// What is listed.
    #[arg(value_enum)]
    pub(crate) kind: Kind,
    /// Only the one of this name; of flows and connections, those of this client, as 192.0.2.7:1000.
    pub(crate) name: Option<String>,
    #[command(flatten)]
    pub(crate) filter: Filter,
    #[command(flatten)]
    pub(crate) ask: Ask,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Which of them")]
pub(crate) struct Filter {
    /// Only of this listener: flows, connections and routes.
    #[arg(long, value_name = "NAME")]
    pub(crate) listener: Option<String>,
    /// Only by this route: flows and connections.
    #[arg(long, value_name = "NAME")]
    pub(crate) route: Option<String>,
    /// Only of this cluster: flows, connections, routes, backends, and listeners that have it themselves.
    #[arg(long, value_name = "NAME")]
    pub(crate) cluster: Option<String>,
    /// Only to this backend: flows and connections.
    #[arg(long, value_name = "NAME")]
    pub(crate) backend: Option<String>,
    /// Only of this client: flows and connections.
    #[arg(long, value_name = "IP")]
    pub(crate) client: Option<IpAddr>,
    /// At most this many, of generations the newest; of flows and connections 1000 without it.
    #[arg(long, value_name = "N")]
    pub(crate) limit: Option<usize>,
}

#[derive(Debug, Args)]
pub(crate) struct Explain {
    /// What is asked for: a URL, with a method before it where that isn't GET; or the address that is dialled, as
    /// udp:192.0.2.1:53 or tcp:192.0.2.1:993.
    #[arg(required = true, num_args = 1..=2, value_names = ["METHOD", "URL"])]
    pub(crate) target: Vec<String>,
    /// Who asks; a port may be left out. A request may be anybody's (127.0.0.1).
    #[arg(long, value_name = "IP[:PORT]", value_parser = client_address)]
    pub(crate) client: Option<SocketAddr>,
    /// TCP: the server name of its ClientHello.
    #[arg(long, value_name = "NAME")]
    pub(crate) sni: Option<String>,
    /// TCP: a protocol that its ClientHello offers.
    #[arg(long, value_name = "PROTOCOL")]
    pub(crate) alpn: Option<String>,
    /// HTTP: what is asked for at a dialled address, as http://shop.example.com/api?q=1.
    #[arg(long, value_name = "URL")]
    pub(crate) url: Option<String>,
    /// HTTP: by which method; GET if left out.
    #[arg(long, value_name = "METHOD")]
    pub(crate) method: Option<String>,
    /// HTTP: a header field of the request; may stand several times.
    #[arg(long = "header", value_name = "NAME: VALUE", value_parser = header)]
    pub(crate) headers: Vec<(String, String)>,
    /// HTTP: the listener, where several speak it and the URL's port doesn't tell which.
    #[arg(long, value_name = "NAME")]
    pub(crate) listener: Option<String>,
    /// Explain this document instead of the running proxy.
    #[arg(short, long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) ask: Ask,
}

fn header(text: &str) -> Result<(String, String), String> {
    let plain = !text.contains(['\r', '\n']);
    kakei::control::explain::field(text).filter(|_| plain).ok_or_else(|| "it is a field as `x-beta: 1`".to_owned())
}

fn client_address(text: &str) -> Result<SocketAddr, String> {
    let bare = || text.parse::<IpAddr>().map(|ip| SocketAddr::new(ip, 0));
    text.parse().or_else(|_| bare()).map_err(|_| "it is an address with or without a port, as 192.0.2.7".to_owned())
}

#[derive(Debug, Args)]
pub(crate) struct BackendCommand {
    #[command(subcommand)]
    pub(crate) verb: BackendVerb,
    #[command(flatten)]
    pub(crate) terms: Terms,
    #[command(flatten)]
    pub(crate) ask: Ask,
}

#[derive(Debug, Subcommand)]
pub(crate) enum BackendVerb {
    /// Add a backend to a cluster.
    Add {
        /// The cluster.
        cluster: String,
        /// Where the backend is: ADDR:PORT, HOST:PORT or unix:PATH.
        #[arg(value_parser = backend_address)]
        address: BackendAddress,
        /// Its name; the address without it.
        #[arg(long)]
        name: Option<String>,
        /// Its share.
        #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(0..=256))]
        weight: u32,
        /// Use it only while no other is up.
        #[arg(long)]
        backup: bool,
    },
    /// Remove a backend; its flows and connections do what `on_backend_removed` says.
    Remove {
        /// The cluster.
        cluster: String,
        /// The backend.
        backend: String,
    },
    /// Give a backend nothing new (weight 0); what lives on it stays.
    Drain {
        /// The cluster.
        cluster: String,
        /// The backend.
        backend: String,
        /// Change nothing: say who still holds it.
        #[arg(long)]
        status: bool,
    },
    /// Give a backend another share of what is new.
    Weight {
        /// The cluster.
        cluster: String,
        /// The backend.
        backend: String,
        /// Its share.
        #[arg(value_parser = clap::value_parser!(u32).range(0..=256))]
        weight: u32,
    },
}

/// What may be held, as `KIND/NAME`.
#[derive(Clone, Debug)]
pub(crate) struct Held {
    pub(crate) kind: String,
    pub(crate) name: String,
    /// A backend's.
    pub(crate) cluster: Option<String>,
}

fn held(text: &str) -> Result<Held, String> {
    let wrong = || {
        "it is listener/NAME, route/NAME, cluster/NAME or backend/CLUSTER/NAME, as backend/shop/10.0.0.1:80".to_owned()
    };
    let (kind, name) = text.split_once('/').ok_or_else(wrong)?;
    let (cluster, name) = match kind {
        "backend" => name.split_once('/').map(|(cluster, name)| (Some(cluster), name)).ok_or_else(wrong)?,
        "listener" | "route" | "cluster" => (None, name),
        _ => return Err(wrong()),
    };
    match name.is_empty() || cluster.is_some_and(str::is_empty) {
        true => Err(wrong()),
        false => Ok(Held { kind: kind.into(), name: name.into(), cluster: cluster.map(Into::into) }),
    }
}

#[derive(Debug, Args)]
pub(crate) struct Drain {
    /// listener/NAME, route/NAME, cluster/NAME or backend/CLUSTER/NAME. A backend gets weight 0, and so do all of a
    /// cluster; a listener and a route are removed, and what lives on them does what their policy says.
    #[arg(value_name = "KIND/NAME", value_parser = held)]
    pub(crate) held: Held,
    /// Change nothing: say who still holds it, since when and until when.
    #[arg(long)]
    pub(crate) status: bool,
    /// Wait until nobody holds it any more, for at most this long, as 30s; without a time 10m. 1 if somebody does then.
    #[arg(long, value_name = "TIME", value_parser = duration, num_args = 0..=1, require_equals = true, default_missing_value = "10m")]
    pub(crate) wait: Option<String>,
    /// So many of those that hold it are listed, the oldest first.
    #[arg(long, value_name = "N", default_value_t = 100)]
    pub(crate) limit: usize,
    #[command(flatten)]
    pub(crate) terms: Terms,
    #[command(flatten)]
    pub(crate) ask: Ask,
}

#[derive(Debug, Args)]
pub(crate) struct Sim {
    /// Simulate this document; without it, documents are made up from the seeds.
    #[arg(short, long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Replay this seed, and print what happened.
    #[arg(long, value_name = "N", conflicts_with = "seeds")]
    pub(crate) seed: Option<u64>,
    /// Run the seeds from 0 to N - 1, and print those that broke something.
    #[arg(long, value_name = "N", default_value_t = 200)]
    pub(crate) seeds: u64,
    #[command(flatten)]
    pub(crate) output: Output,
}
