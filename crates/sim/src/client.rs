//! Clients: sockets that send datagrams of every kind, alone and in bursts, and pause around the timeouts.
//! They know only the addresses that they dial.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use fastrand::Rng;
use kakei_config::{Document, Listener};

use crate::documents::{LOCAL_V4, LOCAL_V6};
use crate::payload::{self, LEAST};
use crate::profile::{Profile, Weather, pick};

/// How a client behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Style {
    /// One datagram, a pause.
    Steady,
    /// Many of one size at once.
    Burst,
    /// Pauses just around a timeout.
    Edge(Duration),
    /// Larger than anything allows.
    Oversized,
    /// Headers that are malformed or that nobody trusts.
    Spoof,
}

/// A client's socket.
#[derive(Debug)]
pub(crate) struct Client {
    pub(crate) address: SocketAddr,
    pub(crate) dials: SocketAddr,
    style: Style,
    left: u32,
    longest: usize,
    /// It is a trusted proxy that speaks for these.
    speaks_for: Vec<SocketAddr>,
    sends_empty: bool,
    trusted: bool,
    rng: Rng,
}

/// What a client sends next.
#[derive(Debug)]
pub(crate) struct Act {
    /// Length of each payload; `None` is an empty datagram.
    pub(crate) datagrams: Vec<(Vec<u8>, Option<usize>)>,
    /// Time until its next act; none: it is done.
    pub(crate) pause: Option<Duration>,
}

/// What a client may know when it is made.
pub(crate) struct Town<'a> {
    pub(crate) document: &'a Document,
    pub(crate) profile: &'a Profile,
}

impl Client {
    /// The `nth` client socket, on some listener of the document; none where there is no listener.
    pub(crate) fn new(nth: usize, town: &Town<'_>, mut rng: Rng) -> Option<Self> {
        let listeners: Vec<&Listener> = town.document.listeners.values().collect();
        if listeners.is_empty() {
            return None;
        }
        let listener = *pick(&mut rng, &listeners);
        let bind = crate::machine::Host::bound(&kakei_proxy::seam::BindKey {
            transport: kakei_proxy::seam::Transport::Udp,
            address: *pick(&mut rng, &listener.bind),
        });
        let dials = dialled(bind, &mut rng);
        let nets = &listener.proxy_protocol.trusted;
        let trusted = !nets.is_empty() && dials.is_ipv4() && rng.bool();
        let inside = if trusted { nets.iter().find(|net| net.addr().is_ipv4()) } else { None };
        let trusted = inside.is_some();
        let ip = match inside {
            Some(net) => inside_net(net, rng.u8(1..=3)),
            None => source(dials.is_ipv4(), town.document, &mut rng),
        };
        let address = SocketAddr::new(ip, 20_000 + nth as u16);
        let speaker = |n: u16, rng: &mut Rng| {
            let ip = source(rng.u8(0..5) > 0, town.document, rng);
            SocketAddr::new(ip, 1_024 + (nth as u16) * 4 + n)
        };
        let speaks_for = if trusted { (0..rng.u16(1..=3)).map(|n| speaker(n, &mut rng)).collect() } else { Vec::new() };
        let storm = town.profile.weather == Weather::Storm;
        let timeouts: Vec<Duration> = town.document.clusters.values().map(|c| c.udp.front_timeout).collect();
        let style = match rng.u8(0..12) {
            0..=4 => Style::Steady,
            5..=7 => Style::Burst,
            8..=9 if !timeouts.is_empty() => Style::Edge(*pick(&mut rng, &timeouts)),
            10 => Style::Oversized,
            11 if storm || trusted => Style::Spoof,
            _ => Style::Steady,
        };
        Some(Client {
            address,
            dials,
            style,
            left: rng.u32(1..=town.profile.datagrams * 2),
            longest: town.profile.longest,
            speaks_for,
            sends_empty: rng.u8(0..16) == 0,
            trusted,
            rng,
        })
    }

    /// What it does now.
    pub(crate) fn act(&mut self) -> Act {
        let count = match self.style {
            Style::Burst => self.rng.u32(1..=12),
            Style::Steady if self.rng.u8(0..4) == 0 => 2,
            _ => 1,
        };
        let count = count.min(self.left);
        self.left -= count;
        let len = self.length();
        let mut datagrams = Vec::new();
        for _ in 0..count {
            let same = self.style == Style::Burst && self.rng.u8(0..5) > 0;
            let len = if same { len } else { self.length() };
            let empty = self.sends_empty && self.rng.u8(0..4) == 0;
            let header = self.header();
            let len = if empty && header.is_empty() { None } else { Some(len) };
            datagrams.push((header, len));
        }
        Act { datagrams, pause: (self.left > 0).then(|| self.pause()) }
    }

    fn length(&mut self) -> usize {
        match self.style {
            Style::Oversized => *pick(&mut self.rng, &[513, 1_501, 9_001, 20_000]),
            _ if self.rng.u8(0..40) == 0 => self.longest,
            _ => LEAST + self.rng.usize(0..=self.longest.min(1_200)) / self.rng.usize(1..=20),
        }
    }

    fn pause(&mut self) -> Duration {
        let rng = &mut self.rng;
        match self.style {
            Style::Edge(timeout) if timeout < Duration::from_secs(3) => {
                let off = Duration::from_micros(rng.u64(0..6_000));
                (timeout + off).saturating_sub(Duration::from_micros(3_000))
            }
            Style::Burst => Duration::from_millis(rng.u64(5..400)),
            _ => Duration::from_micros(rng.u64(100..250_000)),
        }
    }

    fn header(&mut self) -> Vec<u8> {
        let rng = &mut self.rng;
        let speaks_for = if self.speaks_for.is_empty() { self.address } else { *pick(rng, &self.speaks_for) };
        let destination = if rng.bool() { self.dials } else { SocketAddr::from(([203, 0, 113, 77], 7)) };
        if self.style == Style::Spoof && rng.u8(0..3) > 0 {
            let mut header = payload::header(speaks_for, destination, 0);
            match rng.u8(0..4) {
                0 => header[13] = 0x77,
                1 => header[12] = 0x31,
                2 => header[15] = 3,
                _ if self.trusted => header.clear(),
                _ => {}
            }
            return header;
        }
        if self.trusted { payload::header(speaks_for, destination, rng.usize(0..20)) } else { Vec::new() }
    }
}

fn dialled(bound: SocketAddr, rng: &mut Rng) -> SocketAddr {
    if !bound.ip().is_unspecified() {
        return bound;
    }
    let ip: IpAddr = if bound.is_ipv4() { (*pick(rng, &LOCAL_V4)).into() } else { (*pick(rng, &LOCAL_V6)).into() };
    SocketAddr::new(ip, bound.port())
}

fn source(ipv4: bool, document: &Document, rng: &mut Rng) -> IpAddr {
    let nets: Vec<_> = document.routes.values().flat_map(|route| &route.source).collect();
    if !nets.is_empty() && rng.bool() {
        let net = pick(rng, &nets);
        if net.addr().is_ipv4() == ipv4 && net.prefix_len() > 0 {
            return inside_net(net, rng.u8(1..=4));
        }
    }
    if ipv4 {
        Ipv4Addr::new(192, 0, 2, rng.u8(1..=12)).into()
    } else {
        Ipv6Addr::new(0x2001, 0xdb8, 0xc, 0, 0, 0, 0, rng.u16(1..=6)).into()
    }
}

/// The `nth` address of a network, or its last.
fn inside_net(net: &ipnet::IpNet, nth: u8) -> IpAddr {
    match net {
        ipnet::IpNet::V4(v4) => {
            let wanted = u32::from(v4.network()).saturating_add(u32::from(nth));
            Ipv4Addr::from(wanted.min(u32::from(v4.broadcast()))).into()
        }
        ipnet::IpNet::V6(v6) => {
            let wanted = u128::from(v6.network()).saturating_add(u128::from(nth));
            Ipv6Addr::from(wanted.min(u128::from(v6.broadcast()))).into()
        }
    }
}
