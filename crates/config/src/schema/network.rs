//! Addresses and networks, and the words for what people write instead of them. Nothing is resolved or bound here.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use ipnet::IpNet;

use super::values::{mismatch, text};
use super::{At, Codec};
use crate::diagnostics::{Collector, quoted};
use crate::tree::Value;

/// What an address is for, which says what it may be.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Address {
    /// To be bound: any address, port 0 takes a free port.
    Bind,
    /// To be sent to: where it is no address, a host name could stand as well.
    Send,
}

impl Codec for Address {
    type Of = SocketAddr;

    fn describe(&self) -> String {
        "`ADDRESS:PORT`".into()
    }

    fn read(&self, at: &At<'_>, problems: &mut Collector) -> Option<SocketAddr> {
        let text = text(at, "an address and port like \"10.0.0.1:53\" or \"[::1]:53\"", problems)?;
        let Ok(address) = text.parse::<SocketAddr>() else {
            let (wrong, help) = match self {
                Address::Bind => why_no_address(text),
                Address::Send => why_no_backend(text),
            };
            let message = format!("{}: `{}` {wrong}", at.subject(), quoted(text));
            at.report(message, problems).help(help);
            return None;
        };
        if let IpAddr::V6(v6) = address.ip()
            && let Some(v4) = v6.to_ipv4_mapped()
        {
            let message = format!("{}: `{address}` is an IPv4 address in IPv6 form", at.subject());
            at.report(message, problems).help(format!("write `{v4}:{}`", address.port()));
            return None;
        }
        let wrong = match self {
            Address::Send if address.port() == 0 => "has port 0, which nothing can be sent to",
            Address::Send if address.ip().is_unspecified() => "is every address, not one that can be sent to",
            Address::Bind if address.ip().is_multicast() => "is the address of a group, not one of a single host",
            _ if address.ip() == IpAddr::V4(Ipv4Addr::BROADCAST) => "is everybody's address, not one of a single host",
            _ => return Some(address),
        };
        at.report(format!("{}: `{address}` {wrong}", at.subject()), problems);
        None
    }

    fn write(&self, value: &SocketAddr) -> Option<Value> {
        Some(Value::text(value.to_string()))
    }
}

const LACKS_PORT: &str = "has no port";

/// What is wrong with a text that is no address and port, and what would be right.
fn why_no_address(text: &str) -> (&'static str, String) {
    if let Some(found) = why_no_port(text) {
        return found;
    }
    if text.starts_with("unix:") || text.starts_with('/') {
        return ("is a Unix socket; an address is needed here", "write one like `10.0.0.1:53`".into());
    }
    let (host, port) = text.rsplit_once(':').unwrap_or((text, ""));
    let port_fits = port.parse::<u16>().is_ok();
    if port_fits && (host.is_empty() || host == "*") {
        return ("has no address", format!("every address is `0.0.0.0:{port}` for IPv4, `[::]:{port}` for IPv6"));
    }
    if text.parse::<u16>().is_ok() {
        return (
            "is a port without an address",
            format!("write `127.0.0.1:{text}`, or `0.0.0.0:{text}` for every address"),
        );
    }
    let port = if port_fits { port } else { "53" };
    if host == "localhost" {
        let help = format!("write `127.0.0.1:{port}` or `[::1]:{port}`");
        return ("is a host name; an address is needed here", help);
    }
    if looks_like_host(host) {
        return match port_fits {
            true => ("is a host name; an address is needed here", format!("write one like `10.0.0.1:{port}`")),
            false => (LACKS_PORT, format!("write `{host}:{port}` for port {port}")),
        };
    }
    ("is no address and port", "write it like `10.0.0.1:53` or `[::1]:53`".into())
}

/// The same where a host name and port, or a Unix socket, would have been right as well.
fn why_no_backend(text: &str) -> (&'static str, String) {
    if let Some(found) = why_no_port(text) {
        return found;
    }
    if text.starts_with('/') {
        return ("is a path", format!("a Unix socket is `unix:{}`", quoted(text)));
    }
    if text.parse::<u16>().is_ok() {
        return ("is a port without an address", format!("write `127.0.0.1:{text}`, or one like `10.0.0.1:{text}`"));
    }
    let (host, port) = text.rsplit_once(':').unwrap_or((text, ""));
    let is_number = !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit());
    match looks_like_host(host) {
        true if port == "0" => ("has port 0, which nothing can be sent to", format!("write `{host}:53` for port 53")),
        true if port.is_empty() => (LACKS_PORT, format!("write `{host}:53` for port 53")),
        true if !is_number => ("has no number as its port", format!("write `{host}:53` for port 53")),
        true if port.parse::<u16>().is_ok() => ("is no host name", "its labels are of letters, digits and `-`".into()),
        _ if port.parse::<u16>().is_ok() && matches!(host, "" | "*") => {
            ("has no address", format!("write one like `10.0.0.1:{port}`"))
        }
        _ => ("is no address and port", "write it like `10.0.0.1:53`, `[::1]:53` or `backend.example:53`".into()),
    }
}

/// What is wrong with a text that is an address, but for a port or brackets.
fn why_no_port(text: &str) -> Option<(&'static str, String)> {
    let bare: String = text.chars().filter(|c| !matches!(c, '[' | ']')).collect();
    // What ends an IPv6 address may have been meant as the port.
    let ends_in_port = bare.rsplit_once(':').filter(|(host, port)| {
        host.parse::<Ipv6Addr>().is_ok() && port.parse::<u16>().is_ok_and(|port| port > 0) && !port.starts_with('+')
    });
    let ends_in_port = ends_in_port.map(|(host, port)| format!("write `[{host}]:{port}` for port {port}"));
    if text.matches('[').count() != text.matches(']').count() {
        let help = ends_in_port.unwrap_or_else(|| "an IPv6 address is written like `[::1]:53`".into());
        return Some(("has a bracket without its other half", help));
    }
    match text.trim_matches(['[', ']']).parse::<IpAddr>().ok()? {
        IpAddr::V4(v4) => Some((LACKS_PORT, format!("write `{v4}:53` for port 53"))),
        IpAddr::V6(v6) => {
            let whole = format!("`[{v6}]:53` for port 53");
            let ends_in_port = ends_in_port.filter(|_| !text.starts_with('['));
            Some((LACKS_PORT, ends_in_port.map_or(format!("write {whole}"), |meant| format!("{meant}, or {whole}"))))
        }
    }
}

fn looks_like_host(host: &str) -> bool {
    let hostname = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_');
    !host.is_empty() && host.chars().all(hostname) && host.chars().any(|c| c.is_ascii_alphabetic())
}

/// A network, or one address.
pub(super) struct Network;

impl Codec for Network {
    type Of = IpNet;

    fn describe(&self) -> String {
        "network like `10.0.0.0/8`, or one address".into()
    }

    fn read(&self, at: &At<'_>, problems: &mut Collector) -> Option<IpNet> {
        const WANTED: &str = "a network like \"10.0.0.0/8\" or \"2001:db8::/32\", or one address";
        let text = text(at, WANTED, problems)?;
        let read = text.parse::<IpNet>().or_else(|_| text.parse::<IpAddr>().map(IpNet::from));
        let Ok(network) = read else {
            mismatch(at, WANTED, problems);
            return None;
        };
        let meant = match network {
            IpNet::V6(v6) => match v6.addr().to_ipv4_mapped() {
                Some(v4) if v6.prefix_len() >= 96 => format!("{v4}/{}", v6.prefix_len() - 96),
                _ => network.trunc().to_string(),
            },
            IpNet::V4(_) => network.trunc().to_string(),
        };
        if meant != network.to_string() {
            let message = format!("{}: `{}` isn't the beginning of a network", at.subject(), quoted(text));
            at.report(message, problems).help(format!("did you mean `{meant}`?"));
            return None;
        }
        Some(network)
    }

    fn write(&self, value: &IpNet) -> Option<Value> {
        Some(Value::text(value.to_string()))
    }
}
