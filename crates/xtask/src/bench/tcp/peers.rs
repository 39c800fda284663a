//! The proxies that are compared, and the configuration each is given for the same job.

use std::net::SocketAddrV4;
use std::path::Path;

use crate::bench::programs::{self, Program, nginx_stream_module};

/// One proxy in one configuration, or none.
#[derive(Clone, Copy, PartialEq, Eq, Debug, PartialOrd, Ord)]
pub(super) enum Peer {
    Direct,
    Kakei,
    Haproxy,
    HaproxySplice,
    Nginx,
    Envoy,
}

/// What a proxy is asked to do.
pub(super) struct Job {
    pub(super) front: SocketAddrV4,
    pub(super) backend: SocketAddrV4,
    /// How many files it may have open.
    pub(super) files: usize,
}

impl programs::Peer for Peer {
    const ALL: &'static [Peer] =
        &[Peer::Direct, Peer::Kakei, Peer::Haproxy, Peer::HaproxySplice, Peer::Nginx, Peer::Envoy];
    const OURS: Peer = Peer::Kakei;

    fn name(self) -> &'static str {
        match self {
            Peer::Direct => "direct",
            Peer::Kakei => "kakei",
            Peer::Haproxy => "haproxy",
            Peer::HaproxySplice => "haproxy-splice",
            Peer::Nginx => "nginx",
            Peer::Envoy => "envoy",
        }
    }

    fn program(self) -> Option<Program> {
        match self {
            Peer::Direct => None,
            Peer::Kakei => Some(Program::Kakei),
            Peer::Haproxy | Peer::HaproxySplice => Some(Program::Haproxy),
            Peer::Nginx => Some(Program::Nginx),
            Peer::Envoy => Some(Program::Envoy),
        }
    }
}

impl Peer {
    /// Write the configuration into `dir`; the program's arguments. All have one worker, TCP_NODELAY, keep-alive after 60 s,
    /// and give up what is idle for 120 s.
    pub(super) fn configure(self, job: &Job, dir: &Path) -> Result<Vec<String>, String> {
        let (file, text) = match self {
            Peer::Direct => return Ok(Vec::new()),
            Peer::Kakei => ("kakei.toml", kakei(job, dir)),
            Peer::Haproxy => ("haproxy.cfg", haproxy(job, "")),
            Peer::HaproxySplice => ("haproxy.cfg", haproxy(job, "option splice-request\n  option splice-response")),
            Peer::Nginx => ("nginx.conf", nginx(job, dir)),
            Peer::Envoy => ("envoy.yaml", envoy(job)),
        };
        let path = dir.join(file);
        std::fs::write(&path, text).map_err(|e| format!("{}: {e}", path.display()))?;
        let (file, home) = (path.display().to_string(), dir.display().to_string());
        let words: &[&str] = match self {
            Peer::Nginx => &["-p", &home, "-c", &file],
            Peer::Haproxy | Peer::HaproxySplice => &["-db", "-f", &file],
            Peer::Envoy => &["-c", &file, "--concurrency", "1", "--disable-hot-restart", "-l", "error"],
            Peer::Direct | Peer::Kakei => &["run", "-c", &file],
        };
        Ok(words.iter().map(|word| (*word).to_owned()).collect())
    }
}

fn kakei(job: &Job, dir: &Path) -> String {
    format!(
        r#"[admin]
socket = "{dir}/kakei.sock"

[workers]
count = 1

[listeners.bench]
protocol = "tcp"
bind = ["{front}"]
cluster = "bench"

[clusters.bench]
backends = ["{backend}"]
tcp = {{ connect_timeout = "5s", idle_timeout = "120s", keepalive = "60s" }}
"#,
        dir = dir.display(),
        front = job.front,
        backend = job.backend,
    )
}

fn haproxy(job: &Job, splice: &str) -> String {
    format!(
        r#"global
  nbthread 1
  maxconn {connections}
  maxpipes 20

defaults
  mode tcp
  timeout connect 5s
  timeout client 120s
  timeout server 120s
  option clitcpka
  option srvtcpka
  clitcpka-idle 60s
  srvtcpka-idle 60s
  {splice}

frontend front
  bind {front} backlog 4096
  default_backend back

backend back
  server one {backend}
"#,
        // It takes two files for each, two for each pipe and some more; with too many it refuses to start.
        connections = job.files.saturating_sub(2 * 20 + 60) / 2,
        front = job.front,
        backend = job.backend,
    )
}

fn nginx(job: &Job, dir: &Path) -> String {
    format!(
        r#"user root;
daemon off;
worker_processes 1;
worker_rlimit_nofile {files};
pid {dir}/nginx.pid;
error_log {dir}/nginx-error.log error;
{module}
events {{ worker_connections {files}; }}
stream {{
  access_log off;
  server {{
    listen {front} so_keepalive=60s:: backlog=4096;
    proxy_pass {backend};
    proxy_connect_timeout 5s;
    proxy_timeout 120s;
    proxy_socket_keepalive on;
    tcp_nodelay on;
  }}
}}
"#,
        dir = dir.display(),
        module = nginx_stream_module(),
        files = job.files,
        front = job.front,
        backend = job.backend,
    )
}

fn envoy(job: &Job) -> String {
    let address =
        |at: SocketAddrV4| format!("{{ socket_address: {{ address: {}, port_value: {} }} }}", at.ip(), at.port());
    format!(
        r#"static_resources:
  listeners:
  - name: bench
    address: {front}
    tcp_backlog_size: 4096
    socket_options:
    - {{ level: 1, name: 9, int_value: 1, state: STATE_LISTENING }}
    - {{ level: 6, name: 4, int_value: 60, state: STATE_LISTENING }}
    filter_chains:
    - filters:
      - name: envoy.filters.network.tcp_proxy
        typed_config:
          '@type': type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy
          stat_prefix: bench
          cluster: bench
          idle_timeout: 120s
  clusters:
  - name: bench
    type: STATIC
    connect_timeout: 5s
    upstream_connection_options: {{ tcp_keepalive: {{ keepalive_time: 60 }} }}
    circuit_breakers:
      thresholds: [ {{ max_connections: 1000000, max_pending_requests: 1000000, max_requests: 1000000 }} ]
    load_assignment:
      cluster_name: bench
      endpoints:
      - lb_endpoints:
        - endpoint: {{ address: {backend} }}
"#,
        front = address(job.front),
        backend = address(job.backend),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::programs::Peer as _;

    fn job() -> Job {
        let at = |text: &str| text.parse().unwrap();
        Job { front: at("127.0.0.1:4242"), backend: at("127.0.0.1:2424"), files: 20_000 }
    }

    #[test]
    fn every_configuration_names_the_front_and_the_backend() {
        let dir = std::env::temp_dir().join(format!("kakei-bench-tcp-peers-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        for peer in Peer::ALL.iter().copied().filter(|peer| peer.program().is_some()) {
            let words = peer.configure(&job(), &dir).unwrap();
            let file = words.iter().find(|word| word.starts_with('/') && **word != dir.display().to_string()).unwrap();
            let text = std::fs::read_to_string(file).unwrap();
            assert!(text.contains("4242") && text.contains("2424"), "{peer:?}");
        }
        std::fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn ours_is_a_valid_document() {
        let text = kakei(&job(), Path::new("/tmp"));
        if let Err(problems) = kakei_config::parse_toml(&text) {
            panic!("{}", problems.render("kakei.toml", &text, false));
        }
    }
}
