//! The proxies that are compared, and the configuration each is given for the same job.

use std::fmt::Write as _;
use std::path::Path;

use super::routes;
use crate::bench::certificate::{CERTIFICATE, KEY, PAIR};
use crate::bench::configs;
use crate::bench::generator::secured::Handshakes;
use crate::bench::programs::{self, Program};
use crate::bench::stand::{Job, Proxy, Times};

/// One proxy in one configuration, or none.
#[derive(Clone, Copy, PartialEq, Eq, Debug, PartialOrd, Ord)]
pub(super) enum Peer {
    Direct,
    Kakei,
    KakeiFull,
    Haproxy,
    Nginx,
    Envoy,
    Sozu,
}

/// What clients do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Shape {
    /// One request after another on a connection that stays, over all routes.
    Requests,
    /// The same, always by one route.
    OneRoute,
    /// A new connection for each request.
    Fresh,
    /// Messages to and fro after an upgrade.
    WebSocket,
    /// One request for each connection, and then nothing.
    Idle,
}

impl Shape {
    fn word(self) -> &'static str {
        match self {
            Shape::Requests => "requests",
            Shape::OneRoute => "one-route",
            Shape::Fresh => "fresh",
            Shape::WebSocket => "websocket",
            Shape::Idle => "idle",
        }
    }
}

/// What is put on a proxy.
#[derive(Clone, Copy, Debug)]
pub(super) struct Load {
    pub(super) shape: Shape,
    pub(super) connections: usize,
    /// The length of each answer's body.
    pub(super) down: usize,
    /// The length of each request's body; 0: it has none.
    pub(super) up: usize,
    /// By how many routes requests are told apart; 0: by none, all goes to one cluster.
    pub(super) routes: usize,
    /// Whether clients speak TLS, and by which handshakes.
    pub(super) tls: Option<Handshakes>,
    pub(super) times: Times,
}

impl programs::Peer for Peer {
    const ALL: &'static [(Peer, &'static str, Option<Program>)] = &[
        (Peer::Direct, "direct", None),
        (Peer::Kakei, "kakei", Some(Program::Kakei)),
        (Peer::KakeiFull, "kakei-full", Some(Program::Kakei)),
        (Peer::Haproxy, "haproxy", Some(Program::Haproxy)),
        (Peer::Nginx, "nginx", Some(Program::Nginx)),
        (Peer::Envoy, "envoy", Some(Program::Envoy)),
        (Peer::Sozu, "sozu", Some(Program::Sozu)),
    ];
    const OURS: Peer = Peer::Kakei;
}

impl Proxy for Peer {
    type Load = Load;
    const HELPER: &'static str = "bench-requests";

    fn words(self, load: Load, dir: &Path) -> Vec<(&'static str, String)> {
        let tls = match load.tls {
            None => "no",
            Some(Handshakes::Full) => "full",
            Some(Handshakes::Resumed) => "resumed",
        };
        let own = [
            ("shape", load.shape.word().to_owned()),
            ("connections", load.connections.to_string()),
            ("down", load.down.to_string()),
            ("up", load.up.to_string()),
            ("routes", load.routes.max(1).to_string()),
            ("named", programs::Peer::program(self).is_some().to_string()),
            ("tls", tls.to_owned()),
            ("certificate", dir.join(CERTIFICATE).display().to_string()),
        ];
        own.into_iter().chain(load.times.words()).collect()
    }

    /// All have one worker, connections to the backend that stay, one field that names the client (`kakei-full` and
    /// sōzu: their own), no access log, no limit of requests of a connection, and give up what is idle for 120 s. With TLS all have the
    /// same certificate, tickets, and their own defaults besides; clients offer one suite and one key exchange.
    fn configure(self, load: Load, job: &Job<'_>) -> Result<Vec<String>, String> {
        let (program, text) = match self {
            Peer::Direct => return Ok(Vec::new()),
            Peer::Kakei => {
                (Program::Kakei, kakei(load, job, "x_forwarded = false\nforwarded = true\nrequest_id = false"))
            }
            Peer::KakeiFull => (Program::Kakei, kakei(load, job, "")),
            Peer::Haproxy => (Program::Haproxy, haproxy(load, job)?),
            Peer::Nginx => (Program::Nginx, nginx(load, job)),
            Peer::Envoy => (Program::Envoy, envoy(load, job)),
            Peer::Sozu => (Program::Sozu, sozu(load, job)),
        };
        program.install(&text, 1, job.dir)
    }
}

fn kakei(load: Load, job: &Job<'_>, fields: &str) -> String {
    let mut text = format!(
        r#"[admin]
socket = "{dir}/kakei.sock"

[workers]
count = 1

[clusters.bench]
backends = ["{backend}"]
tcp = {{ connect_timeout = "5s", idle_timeout = "120s" }}
http = {{ idle_timeout = "120s" }}

[listeners.bench]
protocol = "http"
bind = ["{front}"]
{cluster}
{tls}

[listeners.bench.http]
keep_alive = "120s"
{fields}
"#,
        dir = job.dir.display(),
        front = job.front,
        backend = job.backend,
        cluster = if load.routes == 0 { "cluster = \"bench\"" } else { "" },
        tls = if load.tls.is_some() { "tls = { certificates = [\"bench\"] }" } else { "" },
    );
    if load.tls.is_some() {
        let home = job.dir.display();
        let _ = write!(text, "\n[certificates.bench]\nchain = \"{home}/{CERTIFICATE}\"\nkey = \"{home}/{KEY}\"\n");
    }
    for route in 0..load.routes {
        let (host, path) = (routes::host(route), routes::path(route));
        let _ = write!(
            text,
            "\n[routes.r{route}]\nlistener = \"bench\"\nhost = [\"{host}\"]\npath = \"{path}\"\ncluster = \"bench\"\n"
        );
    }
    text
}

fn haproxy(load: Load, job: &Job<'_>) -> Result<String, String> {
    let map = job.dir.join("haproxy.map");
    let lines: String =
        (0..load.routes).map(|route| format!("{}{} back\n", routes::host(route), routes::path(route))).collect();
    std::fs::write(&map, lines).map_err(|e| format!("{}: {e}", map.display()))?;
    Ok(format!(
        r#"global
  nbthread 1
  maxconn {connections}

defaults
  mode http
  timeout connect 5s
  timeout client 120s
  timeout server 120s
  timeout http-keep-alive 120s
  option forwardfor
  http-reuse always

frontend front
  bind {front} backlog 4096{tls}
  {leads}

backend back
  server one {backend}
"#,
        connections = configs::most_connections(job.files, 0),
        front = job.front,
        backend = job.backend,
        tls = match load.tls {
            None => String::new(),
            Some(_) => format!(" ssl crt {}/{PAIR} alpn http/1.1", job.dir.display()),
        },
        leads = match load.routes {
            0 => "default_backend back".to_owned(),
            _ => format!("use_backend %[base,map_beg({})]", map.display()),
        },
    ))
}

fn nginx(load: Load, job: &Job<'_>) -> String {
    let secured = if load.tls.is_some() { " ssl" } else { "" };
    let servers: String = match load.routes {
        0 => format!(
            "  server {{\n    listen {}{secured} backlog=4096;\n    location / {{ proxy_pass http://back; }}\n  }}\n",
            job.front
        ),
        routes => routes::by_host(routes)
            .map(|(host, paths)| {
                let places: String =
                    paths.iter().map(|path| format!("    location {path} {{ proxy_pass http://back; }}\n")).collect();
                format!("  server {{\n    listen {};\n    server_name {host};\n{places}  }}\n", job.front)
            })
            .collect(),
    };
    let connection = match load.shape {
        Shape::WebSocket => "proxy_set_header Upgrade $http_upgrade;\n  proxy_set_header Connection upgrade;",
        _ => "proxy_set_header Connection \"\";",
    };
    format!(
        r#"{start}http {{
  access_log off;
  client_body_temp_path {dir}/nginx-body;
  proxy_temp_path {dir}/nginx-proxy;
  fastcgi_temp_path {dir}/nginx-fastcgi;
  uwsgi_temp_path {dir}/nginx-uwsgi;
  scgi_temp_path {dir}/nginx-scgi;
  server_names_hash_max_size 262144;
  server_names_hash_bucket_size 128;
  keepalive_timeout 120s;
  keepalive_requests 1000000000;
  tcp_nodelay on;
  client_max_body_size 0;
  proxy_http_version 1.1;
  proxy_request_buffering off;
  proxy_max_temp_file_size 0;
  proxy_set_header Host $http_host;
  proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
  {connection}
  {tls}
  upstream back {{
    server {backend} max_fails=0;
    keepalive 1024;
    keepalive_requests 1000000000;
    keepalive_timeout 120s;
  }}
{servers}}}
"#,
        start = configs::nginx(job.dir, (1, job.files), ""),
        dir = job.dir.display(),
        backend = job.backend,
        tls = match load.tls {
            None => String::new(),
            Some(_) => format!(
                "ssl_certificate {dir}/{CERTIFICATE};\n  ssl_certificate_key {dir}/{KEY};\n  ssl_protocols TLSv1.2 TLSv1.3;",
                dir = job.dir.display()
            ),
        },
    )
}

fn envoy(load: Load, job: &Job<'_>) -> String {
    let lead = |path: &str| {
        let how = if path == "/" { "prefix" } else { "path_separated_prefix" };
        format!("              - {{ match: {{ {how}: \"{path}\" }}, route: {{ cluster: bench, timeout: 0s }} }}\n")
    };
    let host = |name: &str, domain: &str, leads: String| {
        format!("            - name: \"{name}\"\n              domains: [\"{domain}\"]\n              routes:\n{leads}")
    };
    let hosts: String = match load.routes {
        0 => host("all", "*", lead("/")),
        routes => routes::by_host(routes)
            .map(|(name, paths)| host(&name, &name, paths.iter().map(|path| lead(path)).collect()))
            .collect(),
    };
    let upgrades = if load.shape == Shape::WebSocket { "[ { upgrade_type: websocket } ]" } else { "[]" };
    format!(
        r#"static_resources:
  listeners:
  - name: bench
    address: {front}
    tcp_backlog_size: 4096
    filter_chains:
    - filters:
      - name: envoy.filters.network.http_connection_manager
        typed_config:
          '@type': type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: bench
          codec_type: HTTP1
          use_remote_address: true
          generate_request_id: false
          server_header_transformation: PASS_THROUGH
          common_http_protocol_options: {{ idle_timeout: 120s }}
          stream_idle_timeout: 120s
          upgrade_configs: {upgrades}
          http_filters:
          - name: envoy.filters.http.router
            typed_config:
              '@type': type.googleapis.com/envoy.extensions.filters.http.router.v3.Router
              suppress_envoy_headers: true
          route_config:
            name: bench
            virtual_hosts:
{hosts}{cluster}"#,
        front = configs::envoy_address(job.front),
        cluster = configs::envoy_cluster(job.backend, ""),
    )
}

/// A frontend of sōzu's has a host, so that all goes to one cluster where clients ask for one host. A connection takes two
/// of its buffers, of which it has 1,000 unless told otherwise.
fn sozu(load: Load, job: &Job<'_>) -> String {
    let lead = |host: &str, path: &str| {
        format!(
            "  {{ address = \"{}\", hostname = \"{host}\", path = \"{path}\", path_type = \"PREFIX\" }},\n",
            job.front
        )
    };
    let frontends: String = match load.routes {
        0 => lead(&routes::host(0), "/"),
        routes => (0..routes).map(|route| lead(&routes::host(route), &routes::path(route))).collect(),
    };
    let connections = configs::most_connections(job.files, 0).min(load.connections + 1_000);
    format!(
        r#"{start}max_buffers = {buffers}

[[listeners]]
protocol = "http"
address = "{front}"
front_timeout = 120
back_timeout = 120
request_timeout = 120
connect_timeout = 5

[clusters.bench]
protocol = "http"
load_balancing = "ROUND_ROBIN"
frontends = [
{frontends}]
backends = [{{ address = "{backend}" }}]
"#,
        start = configs::sozu(job.dir, (1, connections)),
        buffers = 2 * connections,
        front = job.front,
        backend = job.backend,
    )
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::time::Duration;

    use super::*;
    use crate::bench::stand::tests::{configurations_name, job};

    fn load(routes: usize) -> Load {
        let times = Times { warm: Duration::ZERO, measure: Duration::ZERO };
        Load { shape: Shape::Requests, connections: 1, down: 100, up: 0, routes, tls: None, times }
    }

    #[test]
    fn every_configuration_names_the_front_and_the_backend() {
        configurations_name::<Peer>(load(0), "requests");
        configurations_name::<Peer>(load(11), "routed-requests");
    }

    #[test]
    fn ours_is_a_valid_document() {
        for (routes, fields) in [(0, ""), (30, "forwarded = true")] {
            let text = kakei(load(routes), &job(Path::new("/tmp")), fields);
            if let Err(problems) = kakei_config::parse_toml(&text) {
                panic!("{}", problems.render("kakei.toml", &text, false));
            }
        }
    }

    #[test]
    fn with_tls_every_one_is_given_the_certificate() {
        let (load, dir) = (Load { tls: Some(Handshakes::Full), ..load(0) }, Path::new("/tmp"));
        let text = kakei(load, &job(dir), "");
        assert!(kakei_config::parse_toml(&text).is_ok(), "{text}");
        for text in [text, nginx(load, &job(dir)), haproxy(load, &job(dir)).unwrap()] {
            assert!(text.contains(&format!("/tmp/{CERTIFICATE}")) || text.contains(&format!("/tmp/{PAIR}")), "{text}");
        }
    }
}
