//! The proxies whose routes are changed: how each is configured with N routes and clusters, and how a route is given another
//! cluster. Measures nothing.

use std::fmt::Write as _;
use std::io::{Read, Write as _};
use std::net::SocketAddrV4;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::json;

use crate::bench::configs;
use crate::bench::programs::{self, Program};
use crate::interop::admin_request;

/// One proxy, and the way in which it is changed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, PartialOrd, Ord)]
pub(super) enum Peer {
    Kakei,
    NginxReload,
    HaproxyMap,
    HaproxyReload,
    EnvoyFile,
    SozuCommand,
}

impl programs::Peer for Peer {
    const ALL: &'static [(Peer, &'static str, Option<Program>)] = &[
        (Peer::Kakei, "kakei", Some(Program::Kakei)),
        (Peer::NginxReload, "nginx-reload", Some(Program::Nginx)),
        (Peer::HaproxyMap, "haproxy-map", Some(Program::Haproxy)),
        (Peer::HaproxyReload, "haproxy-reload", Some(Program::Haproxy)),
        (Peer::EnvoyFile, "envoy-file", Some(Program::Envoy)),
        (Peer::SozuCommand, "sozu-command", Some(Program::Sozu)),
    ];
    const OURS: Peer = Peer::Kakei;
}

impl Peer {
    /// Whether it says when a change is in force. Of others only requests show it.
    pub(super) fn acknowledges(self) -> bool {
        matches!(self, Peer::Kakei | Peer::HaproxyMap | Peer::SozuCommand)
    }

    /// Whether a change replaces its processes.
    pub(super) fn reloads(self) -> bool {
        matches!(self, Peer::NginxReload | Peer::HaproxyReload)
    }
}

/// The host that a route matches.
pub(super) fn host(route: usize) -> String {
    format!("h{route}.example.com")
}

/// What a proxy is configured with, and where. Cluster N has one backend: the first origin where N is even, else the second.
pub(super) struct Ground {
    pub(super) front: SocketAddrV4,
    pub(super) origins: [SocketAddrV4; 2],
    /// Configuration, sockets, logs, state.
    pub(super) dir: PathBuf,
    /// How many files it may have open.
    pub(super) files: usize,
    /// The cluster that each route leads to.
    pub(super) leads: Vec<usize>,
}

impl Ground {
    fn origin(&self, cluster: usize) -> SocketAddrV4 {
        self.origins[cluster % 2]
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    fn write(&self, name: &str, text: &str) -> Result<(), String> {
        std::fs::write(self.path(name), text).map_err(|e| format!("{name}: {e}"))
    }

    /// Write the configuration of `peer`; the words that start it.
    pub(super) fn install(&self, peer: Peer) -> Result<Vec<String>, String> {
        let dir = self.dir.display();
        match peer {
            Peer::Kakei => {
                let mut words = Program::Kakei.install(&self.kakei(), 1, &self.dir)?;
                words.extend(["--state".to_owned(), format!("{dir}/state")]);
                Ok(words)
            }
            Peer::NginxReload => Program::Nginx.install(&self.nginx(), 1, &self.dir),
            Peer::HaproxyMap | Peer::HaproxyReload => {
                self.write(MAP, &self.map())?;
                let mut words = Program::Haproxy.install(&self.haproxy(), 1, &self.dir)?;
                words.push("-W".to_owned());
                Ok(words)
            }
            Peer::EnvoyFile => {
                self.write(ROUTES, &self.envoy_routes())?;
                Program::Envoy.install(&self.envoy(), 1, &self.dir)
            }
            Peer::SozuCommand => Program::Sozu.install(&self.sozu(), 1, &self.dir),
        }
    }

    /// Have `route` lead to `cluster`, in the process `pid`.
    pub(super) fn change(&mut self, peer: Peer, pid: u32, (route, cluster): (usize, usize)) -> Result<(), String> {
        let before = std::mem::replace(&mut self.leads[route], cluster);
        match peer {
            Peer::Kakei => self.set_in_kakei(route, cluster),
            Peer::NginxReload => {
                Program::Nginx.install(&self.nginx(), 1, &self.dir)?;
                signal(pid, Signal::SIGHUP)
            }
            Peer::HaproxyMap => self.set_in_map(route, cluster),
            Peer::HaproxyReload => {
                self.write(MAP, &self.map())?;
                signal(pid, Signal::SIGUSR2)
            }
            Peer::EnvoyFile => {
                // It watches for files that are moved to their place.
                self.write("next.yaml", &self.envoy_routes())?;
                std::fs::rename(self.path("next.yaml"), self.path(ROUTES)).map_err(|e| format!("{ROUTES}: {e}"))
            }
            Peer::SozuCommand => self.set_in_sozu((route, before), cluster),
        }
    }

    /// It has no change of a frontend, and its `frontend http` finds none that came with its configuration: so both as
    /// requests, by its own program, which ends when its workers have answered.
    fn set_in_sozu(&self, (route, before): (usize, usize), cluster: usize) -> Result<(), String> {
        let program = Program::Sozu.find(Path::new("")).ok_or("sōzu is not installed")?;
        let request = |id: &str, kind: &str, cluster: usize| {
            let address =
                json!({ "ip": { "inner": { "V4": u32::from(*self.front.ip()) } }, "port": self.front.port() });
            let frontend = json!({
                "cluster_id": format!("c{cluster}"), "address": address, "hostname": host(route),
                "path": { "kind": 0, "value": "" }, "position": 0, "tags": {},
            });
            format!("{}\n\0", json!({ "id": id, "content": { "request_type": { kind: frontend } } }))
        };
        let requests =
            request("remove", "REMOVE_HTTP_FRONTEND", before) + &request("add", "ADD_HTTP_FRONTEND", cluster);
        self.write("next.json", &requests)?;
        let mut command = std::process::Command::new(program);
        command.arg("-c").arg(self.path("sozu.toml")).args(["state", "load", "-f"]).arg(self.path("next.json"));
        let out = command.output().map_err(|e| format!("sōzu's command: {e}"))?;
        let said = String::from_utf8_lossy(&[out.stdout, out.stderr].concat()).into_owned();
        let is_done = out.status.success() && said.contains("2 ok messages, 0 errors");
        if is_done { Ok(()) } else { Err(format!("sōzu said: {said}")) }
    }

    fn set_in_kakei(&self, route: usize, cluster: usize) -> Result<(), String> {
        let value = json!({ "cluster": format!("c{cluster}") });
        let body =
            json!([{ "change": "set", "kind": "route", "name": format!("r{route}"), "value": value }]).to_string();
        let socket = self.path("kakei.sock");
        match admin_request(&socket, "POST", "/v1/changes", ("application/json", &body))? {
            (200, _) => Ok(()),
            (status, said) => Err(format!("{body} was answered by {status}: {said}")),
        }
    }

    /// In one piece, and with an end to its patience: version 2.6 may leave a command for ever that comes in several (it has
    /// read all of it then, and forgets to look).
    fn set_in_map(&self, route: usize, cluster: usize) -> Result<(), String> {
        let command = format!("set map {} {} c{cluster}\n", self.path(MAP).display(), host(route));
        let talk = || {
            let mut socket = UnixStream::connect(self.path("haproxy.sock"))?;
            socket.set_read_timeout(Some(PATIENCE))?;
            socket.write_all(command.as_bytes())?;
            let mut said = String::new();
            socket.read_to_string(&mut said).map(|_| said)
        };
        let said = talk().map_err(|e| format!("HAProxy's socket: {e}"))?;
        if said.trim().is_empty() { Ok(()) } else { Err(format!("HAProxy said: {said}")) }
    }

    fn kakei(&self) -> String {
        let mut text = format!(
            "[admin]\nsocket = \"{}\"\n[workers]\ncount = 1\n[listeners.web]\nprotocol = \"http\"\nbind = [\"{}\"]\n",
            self.path("kakei.sock").display(),
            self.front
        );
        for (n, cluster) in self.leads.iter().enumerate() {
            // Writing into a string can't fail, here and below.
            let _ = write!(
                text,
                "[routes.r{n}]\nlistener = \"web\"\nhost = [\"{}\"]\ncluster = \"c{cluster}\"\n\
                 [clusters.c{n}]\nbackends = [\"{}\"]\n",
                host(n),
                self.origin(n)
            );
        }
        text
    }

    fn nginx(&self) -> String {
        let mut servers = String::new();
        for (n, cluster) in self.leads.iter().enumerate() {
            // The one that traffic goes to keeps its connections, as Kakei and HAProxy do everywhere.
            let keep = if n == TRAFFIC { " keepalive 64;" } else { "" };
            let _ = write!(
                servers,
                "  upstream c{n} {{ server {};{keep} }}\n  server {{ listen {}; server_name {}; location / {{ proxy_pass http://c{cluster}; }} }}\n",
                self.origin(n),
                self.front,
                host(n)
            );
        }
        format!(
            "{start}http {{\n  access_log off;\n  {temporary}\n  server_names_hash_max_size 262144;\n  \
             server_names_hash_bucket_size 128;\n  keepalive_timeout 120s;\n  keepalive_requests 1000000000;\n  \
             proxy_http_version 1.1;\n  proxy_set_header Connection \"\";\n{servers}}}\n",
            start = configs::nginx(&self.dir, (1, self.files), ""),
            temporary = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
                .map(|what| format!("{what}_temp_path {}/nginx-{what};", self.dir.display()))
                .join("\n  "),
        )
    }

    fn sozu(&self) -> String {
        let mut text = format!(
            "{start}[[listeners]]\nprotocol = \"http\"\naddress = \"{front}\"\n",
            start = configs::sozu(&self.dir, (1, 4_000)),
            front = self.front,
        );
        for n in 0..self.leads.len() {
            let led: Vec<_> = (0..self.leads.len()).filter(|route| self.leads[*route] == n).collect();
            let frontend =
                |route: &usize| format!("{{ address = \"{}\", hostname = \"{}\" }}", self.front, host(*route));
            let frontends: Vec<_> = led.iter().map(frontend).collect();
            let _ = writeln!(
                text,
                "[clusters.c{n}]\nprotocol = \"http\"\nload_balancing = \"ROUND_ROBIN\"\nfrontends = [{}]\n\
                 backends = [{{ address = \"{}\" }}]",
                frontends.join(", "),
                self.origin(n)
            );
        }
        text
    }

    fn map(&self) -> String {
        let mut text = String::new();
        for (n, cluster) in self.leads.iter().enumerate() {
            let _ = writeln!(text, "{} c{cluster}", host(n));
        }
        text
    }

    fn haproxy(&self) -> String {
        let mut text = format!(
            "global\n  nbthread 1\n  maxconn 4000\n  hard-stop-after 5s\n  stats socket {socket} level admin expose-fd listeners\n\n\
             defaults\n  mode http\n  timeout connect 5s\n  timeout client 120s\n  timeout server 120s\n  http-reuse always\n\n\
             frontend front\n  bind {front} backlog 4096\n  use_backend %[req.hdr(host),map({map})]\n\n",
            socket = self.path("haproxy.sock").display(),
            front = self.front,
            map = self.path(MAP).display(),
        );
        for n in 0..self.leads.len() {
            let _ = write!(text, "backend c{n}\n  server one {}\n", self.origin(n));
        }
        text
    }

    fn envoy_routes(&self) -> String {
        let mut text = "resources:\n- '@type': type.googleapis.com/envoy.config.route.v3.RouteConfiguration\n  \
                        name: bench\n  virtual_hosts:\n"
            .to_owned();
        for (n, cluster) in self.leads.iter().enumerate() {
            let _ = writeln!(
                text,
                "  - {{ name: r{n}, domains: [\"{}\"], routes: [ {{ match: {{ prefix: \"/\" }}, route: {{ cluster: c{cluster} }} }} ] }}",
                host(n)
            );
        }
        text
    }

    fn envoy(&self) -> String {
        let mut text = format!(
            r#"node: {{ id: bench, cluster: bench }}
static_resources:
  listeners:
  - name: bench
    address: {front}
    filter_chains:
    - filters:
      - name: envoy.filters.network.http_connection_manager
        typed_config:
          '@type': type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: bench
          codec_type: HTTP1
          generate_request_id: false
          http_filters:
          - name: envoy.filters.http.router
            typed_config:
              '@type': type.googleapis.com/envoy.extensions.filters.http.router.v3.Router
          rds:
            route_config_name: bench
            config_source: {{ resource_api_version: V3, path_config_source: {{ path: "{routes}" }} }}
  clusters:
"#,
            front = configs::envoy_address(self.front),
            routes = self.path(ROUTES).display(),
        );
        for n in 0..self.leads.len() {
            let _ = writeln!(
                text,
                "  - {{ name: c{n}, type: STATIC, load_assignment: {{ cluster_name: c{n}, endpoints: [ {{ lb_endpoints: [ {{ endpoint: {{ address: {} }} }} ] }} ] }} }}",
                configs::envoy_address(self.origin(n))
            );
        }
        text
    }
}

/// The route that traffic goes by. Nobody changes it.
pub(super) const TRAFFIC: usize = 0;
const MAP: &str = "haproxy.map";
/// How long HAProxy's socket may take to answer.
const PATIENCE: Duration = Duration::from_secs(10);
const ROUTES: &str = "envoy-routes.yaml";

fn signal(pid: u32, signal: Signal) -> Result<(), String> {
    kill(Pid::from_raw(pid.cast_signed()), signal).map_err(|e| format!("{signal}: {e}"))
}

/// A place for files of one proxy, empty.
pub(super) fn folder(path: &Path) -> Result<(), String> {
    let _ = std::fs::remove_dir_all(path);
    std::fs::create_dir_all(path).map_err(|e| format!("{}: {e}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ground() -> Ground {
        let at = |port| SocketAddrV4::new(std::net::Ipv4Addr::LOCALHOST, port);
        Ground {
            front: at(4242),
            origins: [at(2424), at(2525)],
            dir: "/tmp".into(),
            files: 1_000,
            leads: vec![0, 1, 3, 2],
        }
    }

    #[test]
    fn ours_is_a_valid_document_in_which_routes_lead_where_they_should() {
        let text = ground().kakei();
        let document =
            kakei_config::parse_toml(&text).unwrap_or_else(|e| panic!("{}", e.render("kakei.toml", &text, false)));
        assert_eq!((document.routes.len(), document.clusters.len()), (4, 4));
        assert!(
            text.contains("[routes.r2]\nlistener = \"web\"\nhost = [\"h2.example.com\"]\ncluster = \"c3\"\n"),
            "{text}"
        );
    }

    #[test]
    fn every_configuration_names_the_front_both_origins_and_every_lead() {
        let ground = ground();
        let haproxy = ground.haproxy() + &ground.map();
        let envoy = ground.envoy() + &ground.envoy_routes();
        for text in [ground.kakei(), ground.nginx(), haproxy, envoy, ground.sozu()] {
            assert!(["4242", "2424", "2525", "h2.example.com", "c3"].iter().all(|part| text.contains(part)), "{text}");
        }
    }
}
