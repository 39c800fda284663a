//! A UDP proxy inside another program: start it, change it under way, stop it. Everything on loopback.
#![expect(clippy::print_stdout, reason = "an example talks to whoever runs it")]

use std::net::UdpSocket;
use std::time::Duration;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let (first, second) = (UdpSocket::bind("127.0.0.1:0")?, UdpSocket::bind("127.0.0.1:0")?);
    let document = |backend: &UdpSocket| -> std::io::Result<String> {
        let backend = backend.local_addr()?;
        Ok(format!(
            r#"
            [workers]
            count = 1

            [listeners.echo]
            protocol = "udp"
            bind = ["127.0.0.1:0"]
            cluster = "servers"

            [clusters.servers]
            backends = ["{backend}"]
            "#
        ))
    };
    let proxy = kakei::Proxy::builder().config(document(&first)?)?.start()?;
    let front = proxy.local_addr("echo").ok_or("no such listener")?;
    assert_eq!(who_gets(front, &first)?, "hello");

    // The same listener, another backend: a new flow goes there, a flow that lives would stay where it is.
    let outcome = proxy.apply(document(&second)?)?;
    println!("generation {} runs: {}", outcome.generation.0, outcome.changes.join("; "));
    assert_eq!(who_gets(front, &second)?, "hello");

    proxy.stop().wait()?;
    Ok(())
}

/// Send through the proxy from a fresh client, and read what arrived at the backend.
fn who_gets(front: std::net::SocketAddr, backend: &UdpSocket) -> Result<String, Box<dyn std::error::Error>> {
    let client = UdpSocket::bind("127.0.0.1:0")?;
    client.send_to(b"hello", front)?;
    backend.set_read_timeout(Some(Duration::from_secs(5)))?;
    let mut buffer = [0; 64];
    let (length, _) = backend.recv_from(&mut buffer)?;
    Ok(String::from_utf8_lossy(&buffer[..length]).into_owned())
}

#[test]
fn it_runs() {
    main().unwrap();
}
