//! What the configurations of one proxy have in common, whatever is measured. Writes no file.

use std::net::SocketAddrV4;
use std::path::Path;

/// How nginx begins: in the foreground, with one worker or more, `files` open at most.
pub(super) fn nginx(dir: &Path, (workers, files): (usize, usize), module: &str) -> String {
    format!(
        r#"user root;
daemon off;
worker_processes {workers};
worker_rlimit_nofile {files};
pid {dir}/nginx.pid;
error_log {dir}/nginx-error.log error;
{module}
events {{ worker_connections {files}; }}
"#,
        dir = dir.display(),
    )
}

/// How many connections HAProxy, or sōzu, may have with that many files: it takes two for each, `others` and some more, and
/// refuses to start with too many.
pub(super) fn most_connections(files: usize, others: usize) -> usize {
    files.saturating_sub(others + 60) / 2
}

/// How sōzu begins: `workers` of them, for so many connections, with buffers that hold a TLS record.
pub(super) fn sozu(dir: &Path, (workers, connections): (usize, usize)) -> String {
    format!(
        r#"command_socket = "{dir}/sozu.sock"
saved_state = "{dir}/sozu.state"
log_level = "error"
log_target = "stdout"
worker_count = {workers}
worker_automatic_restart = false
handle_process_affinity = false
max_connections = {connections}
buffer_size = 16393
"#,
        dir = dir.display(),
    )
}

/// An address as Envoy has it.
pub(super) fn envoy_address(at: SocketAddrV4) -> String {
    format!("{{ socket_address: {{ address: {}, port_value: {} }} }}", at.ip(), at.port())
}

/// Envoy's cluster `bench` over streams, without limits, with more `options` of it.
pub(super) fn envoy_cluster(backend: SocketAddrV4, options: &str) -> String {
    format!(
        r#"  clusters:
  - name: bench
    type: STATIC
    connect_timeout: 5s
{options}    circuit_breakers:
      thresholds: [ {{ max_connections: 1000000, max_pending_requests: 1000000, max_requests: 1000000 }} ]
    load_assignment:
      cluster_name: bench
      endpoints:
      - lb_endpoints:
        - endpoint: {{ address: {} }}
"#,
        envoy_address(backend)
    )
}
