//! HAProxy and nginx as the checks run them: in the foreground, in a directory of their own, on loopback.

use std::net::TcpStream;
use std::path::Path;

use super::net::four;
use super::process::{Program, command, write};

/// HAProxy that goes by these sections; `mode` is that of all of them. Ready when `port` is open.
pub(super) fn haproxy(folder: &Path, port: u16, mode: &str, sections: &str) -> Result<Program, String> {
    let config = folder.join("haproxy.cfg");
    let common = format!(
        "global\n  nbthread 1\n  maxconn 1000\ndefaults\n  mode {mode}\n  timeout connect 5s\n  timeout client 20s\n  \
         timeout server 20s\n"
    );
    write(&config, &format!("{common}{sections}"))?;
    let mut program = Program::start("haproxy", folder, command("haproxy").arg("-db").arg("-f").arg(&config))?;
    program.wait_until("its port", || TcpStream::connect(four(port)).is_ok())?;
    Ok(program)
}

/// nginx that goes by these blocks (`http { … }`, `stream { … }`). Ready when `port` is open.
pub(super) fn nginx(folder: &Path, port: u16, blocks: &str) -> Result<Program, String> {
    let config = folder.join("nginx.conf");
    let home = folder.display();
    let user = if rustix::process::geteuid().is_root() { "user root;" } else { "" };
    write(
        &config,
        &format!(
            "{user}\ndaemon off;\nworker_processes 1;\npid {home}/nginx.pid;\nerror_log {home}/nginx-error.log;\n\
             {blocks}\nevents {{ worker_connections 512; }}\n"
        ),
    )?;
    let mut nginx = command("nginx");
    nginx.arg("-p").arg(folder).arg("-c").arg(&config);
    let mut program = Program::start("nginx", folder, &mut nginx)?;
    program.wait_until("its port", || TcpStream::connect(four(port)).is_ok())?;
    Ok(program)
}

/// The block of nginx's stream module with these servers.
pub(super) fn nginx_streams(servers: &str) -> String {
    format!("{}\nstream {{\n  access_log off;\n{servers}}}\n", crate::bench::nginx_stream_module())
}

/// The block of its HTTP module: everything that it keeps lies in `folder`.
pub(super) fn nginx_http(folder: &Path, inside: &str) -> String {
    let home = folder.display();
    let paths: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|name| format!("  {name}_temp_path {home}/{name}_temp;\n"))
        .concat();
    format!("http {{\n  access_log off;\n{paths}{inside}}}\n")
}
