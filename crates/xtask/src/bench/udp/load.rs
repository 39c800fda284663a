//! The clients: an open-loop generator that sends at a fixed rate over many flows and counts what comes back. Measures no one's CPU.

use std::io::IoSlice;
use std::net::SocketAddrV4;
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

use nix::libc;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::socket::{ControlMessage, MsgFlags, SockaddrIn, connect, send, sendmsg};

use super::datagram::{Batch, Head, LARGE, Phase, SMALLEST, client, open};
use crate::bench::answer;
use crate::bench::args::Words;
use crate::bench::delays::Delays;
use crate::bench::pace::{Growth, PIECE};

/// How many sockets (source ports) the flows are spread over; source addresses do the rest.
const SOCKETS: usize = 100;
/// The generator sends what is due and takes what has come once in this time.
const TICK: Duration = Duration::from_micros(100);
/// The shortest pause between two ticks.
const PAUSE: Duration = Duration::from_micros(1);
/// How far it may fall behind before it gives up what was due: a burst to catch up would be its fault, not the proxy's.
const LATE: Duration = Duration::from_millis(2);
/// How long it waits for late answers at the end.
pub(super) const QUIET: Duration = Duration::from_millis(200);
/// How fast flows are opened, per second.
const OPENING: f64 = 20_000.0;
/// Segments in one train: 50 × 1200 bytes fit into one send.
const SEGMENTS: usize = 50;

/// The load: what to send, where to, and what came of it.
struct Load {
    sockets: Vec<OwnedFd>,
    epoll: Epoll,
    target: SockaddrIn,
    flows: usize,
    connected: bool,
    payload: Vec<u8>,
    trains: bool,
    next_flow: usize,
    batch: Batch,
    began: Instant,
    opened: Vec<bool>,
    sent: u64,
    refused: u64,
    received: u64,
    strayed: u64,
    delays: Delays,
    /// How answers come while it is measured, and when that was noted last.
    growth: Option<(Growth, Instant)>,
}

/// Run the generator: `target= flows= port= size= rate= warm_ms= measure_ms= trains=`. It prints `start` when the measured
/// part begins, then `carried …` with how its answers came, and `end …` with its counts.
pub(crate) fn run(args: &[String]) -> Result<(), String> {
    let words = Words::read(args)?;
    let mut load = Load::new(&words)?;
    let unopened = load.open_flows();
    let (rate, warm): (f64, u64) = (words.get("rate")?, words.get("warm_ms")?);
    load.pace(Phase::Warm, rate, Duration::from_millis(warm));
    load.growth = Some((Growth::new(), Instant::now()));
    load.sent = 0;
    answer("start");
    let measure = Duration::from_millis(words.get("measure_ms")?);
    let begun = Instant::now();
    let skipped = load.pace(Phase::Measured, rate, measure);
    let seconds = begun.elapsed().as_secs_f64();
    load.settle();
    if let Some((growth, _)) = load.growth.take() {
        answer(&growth.line());
    }
    answer(&format!(
        "end sent={} received={} refused={} skipped={skipped} strayed={} unopened={unopened} seconds={seconds} p50_ns={} p99_ns={}",
        load.sent,
        load.received,
        load.refused,
        load.strayed,
        load.delays.quantile(0.5),
        load.delays.quantile(0.99),
    ));
    Ok(())
}

impl Load {
    fn new(words: &Words) -> Result<Load, String> {
        let target = SockaddrIn::from(words.get::<SocketAddrV4>("target")?);
        let (flows, port): (usize, u16) = (words.get("flows")?, words.get("port")?);
        let connected = flows <= SOCKETS;
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).map_err(|e| format!("epoll: {e}"))?;
        let mut sockets = Vec::new();
        for i in 0..flows.min(SOCKETS) {
            let address = if connected { client(0) } else { std::net::Ipv4Addr::UNSPECIFIED };
            let socket = open(SocketAddrV4::new(address, port + i as u16))?;
            if connected {
                connect(socket.as_raw_fd(), &target).map_err(|e| format!("connect: {e}"))?;
            }
            epoll.add(&socket, EpollEvent::new(EpollFlags::EPOLLIN, i as u64)).map_err(|e| format!("epoll: {e}"))?;
            sockets.push(socket);
        }
        let trains: bool = words.get("trains")?;
        let size: usize = words.get("size")?;
        if size < SMALLEST {
            return Err(format!("a datagram has at least {SMALLEST} bytes"));
        }
        let payload = vec![0; if trains { LARGE * SEGMENTS } else { size }];
        Ok(Load {
            sockets,
            epoll,
            target,
            flows,
            connected,
            payload,
            trains,
            next_flow: 0,
            batch: Batch::new(),
            began: Instant::now(),
            opened: vec![false; flows],
            sent: 0,
            refused: 0,
            received: 0,
            strayed: 0,
            delays: Delays::new(),
            growth: None,
        })
    }

    /// Send one datagram on every flow and wait for the answers, again for those that had none; how many never had one.
    fn open_flows(&mut self) -> usize {
        for _ in 0..4 {
            let waiting: Vec<usize> = (0..self.flows).filter(|f| !self.opened[*f]).collect();
            if waiting.is_empty() {
                break;
            }
            let begun = Instant::now();
            for (n, flow) in waiting.into_iter().enumerate() {
                while (n as f64) > begun.elapsed().as_secs_f64() * OPENING {
                    self.take_all();
                    std::thread::sleep(TICK);
                }
                self.send_on(flow, Phase::Open);
            }
            self.settle();
        }
        self.opened.iter().filter(|o| !**o).count()
    }

    /// Send at `rate` datagrams a second for `time`; how many were due but given up because the generator was late.
    fn pace(&mut self, phase: Phase, rate: f64, time: Duration) -> u64 {
        let unit = if self.trains && phase != Phase::Open { SEGMENTS as f64 } else { 1.0 };
        let per_second = rate / unit;
        let begun = Instant::now();
        let (mut done, mut skipped) = (0u64, 0u64);
        loop {
            let tick = Instant::now();
            let elapsed = tick - begun;
            if elapsed >= time {
                return (skipped as f64 * unit) as u64;
            }
            let due = (elapsed.as_secs_f64() * per_second) as u64 - done;
            let most = ((LATE.as_secs_f64() * per_second) as u64).max(16);
            skipped += due.saturating_sub(most);
            for _ in 0..due.min(most) {
                let flow = self.next_flow;
                self.next_flow = (flow + 1) % self.flows;
                self.send_on(flow, phase);
            }
            done += due;
            self.take_all();
            if let Some((growth, noted)) = self.growth.as_mut().filter(|(_, noted)| noted.elapsed() >= PIECE) {
                growth.note(self.received);
                *noted = Instant::now();
            }
            // Never without a pause: the backends share this core.
            std::thread::sleep(TICK.saturating_sub(tick.elapsed()).max(PAUSE));
        }
    }

    /// Take answers until none came for a while.
    fn settle(&mut self) {
        let mut last = Instant::now();
        while last.elapsed() < QUIET {
            if self.take_all() > 0 {
                last = Instant::now();
            }
            std::thread::sleep(TICK);
        }
    }

    fn send_on(&mut self, flow: usize, phase: Phase) {
        let head = Head { flow: flow as u32, phase: phase as u8, sent_ns: self.began.elapsed().as_nanos() as u64 };
        let train = self.trains && phase != Phase::Open;
        let len = if self.trains && !train { LARGE } else { self.payload.len() };
        if train {
            self.payload.chunks_mut(LARGE).for_each(|segment| head.emit(segment));
        } else {
            head.emit(&mut self.payload);
        }
        let socket = &self.sockets[flow % self.sockets.len()];
        let bytes = &self.payload[..len];
        let segment = LARGE as u16;
        let done = if train {
            let control = [ControlMessage::UdpGsoSegments(&segment)];
            sendmsg::<SockaddrIn>(socket.as_raw_fd(), &[IoSlice::new(bytes)], &control, MsgFlags::empty(), None)
        } else if self.connected {
            send(socket.as_raw_fd(), bytes, MsgFlags::empty())
        } else {
            let source = client(flow / self.sockets.len());
            let info = libc::in_pktinfo {
                ipi_ifindex: 0,
                ipi_spec_dst: libc::in_addr { s_addr: u32::from_ne_bytes(source.octets()) },
                ipi_addr: libc::in_addr { s_addr: 0 },
            };
            let control = [ControlMessage::Ipv4PacketInfo(&info)];
            sendmsg(socket.as_raw_fd(), &[IoSlice::new(bytes)], &control, MsgFlags::empty(), Some(&self.target))
        };
        match done {
            Ok(_) => self.sent += if train { SEGMENTS as u64 } else { 1 },
            Err(_) => self.refused += 1,
        }
    }

    /// Take all answers that wait; how many.
    fn take_all(&mut self) -> usize {
        if self.sockets.len() == 1 {
            return self.take(0);
        }
        let mut events = [EpollEvent::empty(); SOCKETS];
        let ready = self.epoll.wait(&mut events, EpollTimeout::ZERO).unwrap_or(0);
        events[..ready].iter().map(|event| self.take(event.data() as usize)).sum()
    }

    fn take(&mut self, socket: usize) -> usize {
        let mut taken = 0;
        loop {
            taken += self.batch.take(&self.sockets[socket]);
            let now = self.began.elapsed().as_nanos() as u64;
            for head in self.batch.payloads().filter_map(Head::parse) {
                let flow = head.flow as usize;
                if flow >= self.flows || flow % self.sockets.len() != socket {
                    self.strayed += 1;
                } else if head.phase == Phase::Open as u8 {
                    self.opened[flow] = true;
                } else if head.phase == Phase::Measured as u8 {
                    self.received += 1;
                    self.delays.add(now.saturating_sub(head.sent_ns));
                }
            }
            if !self.batch.full() {
                return taken;
            }
        }
    }
}
