//! The proxies that are compared: where their programs are, and the configuration each is given for the same job.

use std::fmt::Write as _;
use std::net::SocketAddrV4;
use std::path::Path;

use crate::bench::configs;
use crate::bench::programs::{self, Program};

/// One proxy, or none (`direct`: the generator talks to the backends, which shows what the measurement itself costs and loses).
#[derive(Clone, Copy, PartialEq, Eq, Debug, PartialOrd, Ord)]
pub(super) enum Peer {
    Direct,
    Kakei,
    KakeiShared,
    Nginx,
    Envoy,
    Sozu,
}

/// What a proxy is asked to do.
pub(super) struct Job {
    pub(super) front: SocketAddrV4,
    pub(super) backends: Vec<SocketAddrV4>,
    pub(super) workers: usize,
}

impl programs::Peer for Peer {
    const ALL: &'static [(Peer, &'static str, Option<Program>)] = &[
        (Peer::Direct, "direct", None),
        (Peer::Kakei, "kakei", Some(Program::Kakei)),
        (Peer::KakeiShared, "kakei-shared", Some(Program::Kakei)),
        (Peer::Nginx, "nginx", Some(Program::Nginx)),
        (Peer::Envoy, "envoy", Some(Program::Envoy)),
        (Peer::Sozu, "sozu", Some(Program::Sozu)),
    ];
    const OURS: Peer = Peer::Kakei;
}

impl Peer {
    /// Write the configuration into `dir`; the program's arguments.
    pub(super) fn configure(self, job: &Job, dir: &Path) -> Result<Vec<String>, String> {
        let (program, text) = match self {
            Peer::Direct => return Ok(Vec::new()),
            Peer::Kakei => (Program::Kakei, kakei(job, "per_flow", dir)),
            Peer::KakeiShared => (Program::Kakei, kakei(job, "shared", dir)),
            Peer::Nginx => (Program::Nginx, nginx(job, dir)),
            Peer::Envoy => (Program::Envoy, envoy(job)),
            Peer::Sozu => (Program::Sozu, sozu(job, dir)),
        };
        program.install(&text, job.workers, dir)
    }
}

fn kakei(job: &Job, upstream: &str, dir: &Path) -> String {
    let backends: Vec<_> = job.backends.iter().map(|b| format!("\"{b}\"")).collect();
    format!(
        r#"[admin]
socket = "{dir}/kakei.sock"

[workers]
count = {workers}

[listeners.bench]
protocol = "udp"
bind = ["{front}"]
cluster = "bench"
limits = {{ flows = 200000 }}
max_datagram_size = "1500B"

[clusters.bench]
balance = "round_robin"
backends = [{backends}]
udp = {{ affinity = "source_ip_port", front_timeout = "120s", back_timeout = "120s", upstream = "{upstream}" }}
"#,
        dir = dir.display(),
        workers = job.workers,
        front = job.front,
        backends = backends.join(", "),
    )
}

fn nginx(job: &Job, dir: &Path) -> String {
    let servers = job.backends.iter().fold(String::new(), |mut all, b| {
        let _ = writeln!(all, "    server {b} max_fails=0;");
        all
    });
    format!(
        r#"{start}stream {{
  access_log off;
  upstream bench {{
{servers}  }}
  server {{
    listen {front} udp reuseport;
    proxy_pass bench;
    proxy_timeout 120s;
  }}
}}
"#,
        start = configs::nginx(dir, (job.workers, 20_000), &programs::nginx_stream_module()),
        front = job.front,
    )
}

fn envoy(job: &Job) -> String {
    let endpoints = job.backends.iter().fold(String::new(), |mut all, b| {
        let (ip, port) = (b.ip(), b.port());
        let _ = writeln!(
            all,
            "      - endpoint: {{ address: {{ socket_address: {{ protocol: UDP, address: {ip}, port_value: {port} }} }} }}"
        );
        all
    });
    format!(
        r#"static_resources:
  listeners:
  - name: bench
    address: {{ socket_address: {{ protocol: UDP, address: {ip}, port_value: {port} }} }}
    enable_reuse_port: true
    udp_listener_config:
      downstream_socket_config: {{ max_rx_datagram_size: 1500, prefer_gro: true }}
    listener_filters:
    - name: envoy.filters.udp_listener.udp_proxy
      typed_config:
        '@type': type.googleapis.com/envoy.extensions.filters.udp.udp_proxy.v3.UdpProxyConfig
        stat_prefix: bench
        idle_timeout: 120s
        upstream_socket_config: {{ max_rx_datagram_size: 1500, prefer_gro: true }}
        matcher:
          on_no_match:
            action:
              name: route
              typed_config:
                '@type': type.googleapis.com/envoy.extensions.filters.udp.udp_proxy.v3.Route
                cluster: bench
  clusters:
  - name: bench
    type: STATIC
    lb_policy: ROUND_ROBIN
    circuit_breakers:
      thresholds: [ {{ max_connections: 1000000, max_pending_requests: 1000000, max_requests: 1000000 }} ]
    load_assignment:
      cluster_name: bench
      endpoints:
      - lb_endpoints:
{endpoints}"#,
        ip = job.front.ip(),
        port = job.front.port(),
        endpoints = endpoints.replace("      - endpoint", "        - endpoint"),
    )
}

fn sozu(job: &Job, dir: &Path) -> String {
    let backends: Vec<_> = job.backends.iter().map(|b| format!("{{ address = \"{b}\" }}")).collect();
    format!(
        r#"{start}
[[listeners]]
protocol = "udp"
address = "{front}"
front_timeout = 120
back_timeout = 120
max_flows = 19000

[clusters.bench]
protocol = "tcp"
load_balancing = "ROUND_ROBIN"
frontends = [{{ address = "{front}" }}]
backends = [{backends}]

[clusters.bench.udp]
affinity_key = "SOURCE_IP_PORT"
"#,
        start = configs::sozu(dir, (job.workers, 9_000)),
        front = job.front,
        backends = backends.join(", "),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::programs::Peer as _;

    #[test]
    fn every_configuration_names_the_front_and_all_backends() {
        let dir = std::env::temp_dir().join(format!("kakei-bench-peers-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let backends = (1..=3).map(|i| super::super::datagram::backend(i, 9)).collect::<Vec<_>>();
        let job = Job { front: "127.0.0.1:4242".parse().unwrap(), backends, workers: 1 };
        for peer in Peer::all().filter(|p| *p != Peer::Direct) {
            peer.configure(&job, &dir).unwrap();
            let file = ["kakei.toml", "nginx.conf", "envoy.yaml", "sozu.toml"]
                .map(|f| dir.join(f))
                .into_iter()
                .find(|f| f.exists())
                .unwrap();
            let text = std::fs::read_to_string(&file).unwrap();
            assert!(text.contains("4242"), "{peer:?}");
            assert!(job.backends.iter().all(|b| text.contains(&b.ip().to_string())), "{peer:?}");
            std::fs::remove_file(file).unwrap();
        }
        std::fs::remove_dir_all(dir).unwrap();
    }
}
