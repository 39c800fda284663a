//! The proxies that are compared, and the configuration each is given for the same job.

use crate::bench::configs;
use crate::bench::programs::{self, Program, nginx_stream_module};
use crate::bench::stand::{Job, Proxy, Times};

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

/// What the connections are for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Shape {
    Down,
    Up,
    Messages,
    Visits,
    Idle,
}

impl Shape {
    fn word(self) -> &'static str {
        match self {
            Shape::Down => "down",
            Shape::Up => "up",
            Shape::Messages => "messages",
            Shape::Visits => "visits",
            Shape::Idle => "idle",
        }
    }
}

/// What is put on a proxy.
#[derive(Clone, Copy, Debug)]
pub(super) struct Load {
    pub(super) shape: Shape,
    pub(super) connections: usize,
    pub(super) times: Times,
}

impl programs::Peer for Peer {
    const ALL: &'static [(Peer, &'static str, Option<Program>)] = &[
        (Peer::Direct, "direct", None),
        (Peer::Kakei, "kakei", Some(Program::Kakei)),
        (Peer::Haproxy, "haproxy", Some(Program::Haproxy)),
        (Peer::HaproxySplice, "haproxy-splice", Some(Program::Haproxy)),
        (Peer::Nginx, "nginx", Some(Program::Nginx)),
        (Peer::Envoy, "envoy", Some(Program::Envoy)),
    ];
    const OURS: Peer = Peer::Kakei;
}

impl Proxy for Peer {
    type Load = Load;
    const HELPER: &'static str = "bench-streams";

    fn words(self, load: Load, _dir: &std::path::Path) -> Vec<(&'static str, String)> {
        let own = [("shape", load.shape.word().to_owned()), ("connections", load.connections.to_string())];
        own.into_iter().chain(load.times.words()).collect()
    }

    /// All have one worker, TCP_NODELAY, keep-alive after 60 s, and give up what is idle for 120 s.
    fn configure(self, _load: Load, job: &Job<'_>) -> Result<Vec<String>, String> {
        let (program, text) = match self {
            Peer::Direct => return Ok(Vec::new()),
            Peer::Kakei => (Program::Kakei, kakei(job)),
            Peer::Haproxy => (Program::Haproxy, haproxy(job, "")),
            Peer::HaproxySplice => (Program::Haproxy, haproxy(job, "option splice-request\n  option splice-response")),
            Peer::Nginx => (Program::Nginx, nginx(job)),
            Peer::Envoy => (Program::Envoy, envoy(job)),
        };
        program.install(&text, 1, job.dir)
    }
}

fn kakei(job: &Job<'_>) -> String {
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
        dir = job.dir.display(),
        front = job.front,
        backend = job.backend,
    )
}

fn haproxy(job: &Job<'_>, splice: &str) -> String {
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
        // Each pipe takes two files.
        connections = configs::most_connections(job.files, 2 * 20),
        front = job.front,
        backend = job.backend,
    )
}

fn nginx(job: &Job<'_>) -> String {
    format!(
        r#"{start}stream {{
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
        start = configs::nginx(job.dir, (1, job.files), &nginx_stream_module()),
        front = job.front,
        backend = job.backend,
    )
}

fn envoy(job: &Job<'_>) -> String {
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
{cluster}"#,
        front = configs::envoy_address(job.front),
        cluster = configs::envoy_cluster(
            job.backend,
            "    upstream_connection_options: { tcp_keepalive: { keepalive_time: 60 } }\n"
        ),
    )
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::time::Duration;

    use super::*;
    use crate::bench::stand::tests::{configurations_name, job};

    #[test]
    fn every_configuration_names_the_front_and_the_backend() {
        let times = Times { warm: Duration::ZERO, measure: Duration::ZERO };
        configurations_name::<Peer>(Load { shape: Shape::Messages, connections: 1, times }, "streams");
    }

    #[test]
    fn ours_is_a_valid_document() {
        let text = kakei(&job(Path::new("/tmp")));
        if let Err(problems) = kakei_config::parse_toml(&text) {
            panic!("{}", problems.render("kakei.toml", &text, false));
        }
    }
}
