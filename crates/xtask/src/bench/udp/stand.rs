//! One proxy with its backends, set up for one measurement, and the loads that are put on it. Ends all it started when dropped.

use std::net::{SocketAddrV4, UdpSocket};
use std::time::{Duration, Instant};

use super::datagram::{Head, LARGE, Phase, SMALLEST, backend};
use super::load::QUIET;
use super::peers::{Job, Peer};
use crate::bench::ground::{Counts, Tools, free_port};
use crate::bench::pace::{Calm, Watch, find_fastest};
use crate::bench::process::{Running, Usage, slabs, usage};
use crate::bench::programs::Peer as _;

/// The kernel's slabs for UDP sockets and what hangs on them.
const SLABS: &[&str] = &["UDP", "sock_inode_cache", "dentry", "filp", "eventpoll_epi", "eventpoll_pwq"];

/// Which way datagrams go.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Shape {
    RequestReply,
    OneWay,
    Trains,
}

/// What a proxy is set up for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Setup {
    pub(super) shape: Shape,
    pub(super) backends: usize,
    pub(super) workers: usize,
    /// Cores of the proxy, and of generator and backends, as `taskset -c` takes them.
    pub(super) cores: (&'static str, &'static str),
}

impl Setup {
    pub(super) fn new(shape: Shape, backends: usize) -> Setup {
        Setup { shape, backends, workers: 1, cores: ("0", "1") }
    }
}

/// A load: `rate` is in datagrams a second that the clients send.
#[derive(Clone, Copy, Debug)]
pub(super) struct Load {
    pub(super) size: usize,
    pub(super) flows: usize,
    pub(super) rate: f64,
    pub(super) warm: Duration,
    pub(super) measure: Duration,
}

/// What came of one load.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Outcome {
    pub(super) sent: f64,
    /// What the backends took.
    pub(super) delivered: f64,
    /// Answers the clients took.
    pub(super) received: f64,
    /// Due, but given up because the generator was late.
    pub(super) skipped: f64,
    /// Answers at a socket that had not asked.
    pub(super) strayed: f64,
    /// Flows that never had an answer when they were opened.
    pub(super) unopened: f64,
    pub(super) seconds: f64,
    pub(super) p50_ns: f64,
    pub(super) p99_ns: f64,
    /// Seconds between the two readings of `usage`, the generator's wait for late answers included.
    pub(super) watched: f64,
    pub(super) usage: Usage,
    /// What was done at the full pace of the core.
    pub(super) calm: Option<Calm>,
    pub(super) one_way: bool,
}

impl Outcome {
    /// Datagrams the proxy carried, both ways.
    pub(super) fn carried(&self) -> f64 {
        self.delivered + self.received
    }

    /// CPU nanoseconds of the proxy per datagram it carried.
    pub(super) fn cpu_ns(&self) -> f64 {
        self.usage.cpu_ns as f64 / self.carried().max(1.0)
    }

    /// The share of CPU time in user mode, by the kernel's ticks.
    pub(super) fn user_share(&self) -> f64 {
        let all = self.usage.user_ticks + self.usage.system_ticks;
        self.usage.user_ticks as f64 / (all as f64).max(1.0)
    }

    /// Datagrams that got lost on the whole way, as a count.
    pub(super) fn lost(&self) -> f64 {
        let arrived = if self.one_way { self.delivered } else { self.received };
        (self.sent - arrived).max(0.0)
    }

    pub(super) fn loss(&self) -> f64 {
        self.lost() / self.sent.max(1.0)
    }

    /// The proxy's use of its core while it worked, 1 = all of it.
    pub(super) fn busy(&self) -> f64 {
        self.usage.cpu_ns as f64 / 1e9 / (self.watched - QUIET.as_secs_f64()).max(1e-9)
    }
}

/// One proxy and its backends, running.
pub(super) struct Stand<'a> {
    tools: &'a Tools,
    setup: Setup,
    echo: Running,
    proxy: Option<Running>,
    front: SocketAddrV4,
    /// The generator's first source port: the same for every load, so that the same flows come again.
    port: u16,
}

impl<'a> Stand<'a> {
    /// Start the backends and the proxy, and wait until a datagram comes back.
    pub(super) fn start(tools: &'a Tools, peer: Peer, setup: Setup) -> Result<Stand<'a>, String> {
        find_fastest(setup.cores.0);
        let (front, port) = (free_port()?, free_port()?);
        let sink = setup.shape != Shape::RequestReply;
        let trains = setup.shape == Shape::Trains;
        let words = [
            ("port", port.to_string()),
            ("count", setup.backends.to_string()),
            ("sink", sink.to_string()),
            ("trains", trains.to_string()),
        ];
        let mut echo = tools.helper(setup.cores.1, "bench-echo", &words)?;
        echo.line()?;
        let job = Job {
            front: SocketAddrV4::new([127, 0, 0, 1].into(), front),
            backends: (0..setup.backends).map(|i| backend(i, port)).collect(),
            workers: setup.workers,
        };
        let front = if peer == Peer::Direct { backend(0, port) } else { job.front };
        let proxy = match peer.program() {
            None => None,
            Some(program) => {
                let program = program.find(&tools.kakei).ok_or(format!("{} is not installed", peer.name()))?;
                let args = peer.configure(&job, &tools.dir)?;
                let log = tools.dir.join(format!("{}.log", peer.name()));
                Some(Running::start(tools.place(setup.cores.0), &program, &args, &log)?)
            }
        };
        let port = 20_000 + (std::process::id() % 90) as u16 * 128;
        let mut stand = Stand { tools, setup, echo, proxy, front, port };
        stand.wait_ready().map_err(|e| format!("{}: {e} (see {})", peer.name(), tools.dir.display()))?;
        Ok(stand)
    }

    fn wait_ready(&mut self) -> Result<(), String> {
        let socket = UdpSocket::bind("127.0.0.1:0").map_err(|e| e.to_string())?;
        socket.set_read_timeout(Some(Duration::from_millis(50))).map_err(|e| e.to_string())?;
        let mut probe = [0; SMALLEST];
        Head { flow: u32::MAX, phase: Phase::Open as u8, sent_ns: 0 }.emit(&mut probe);
        let deadline = Instant::now() + Duration::from_secs(10);
        while Instant::now() < deadline {
            if self.proxy.as_mut().is_some_and(|p| !p.alive()) {
                return Err("it ended at once".to_owned());
            }
            // A front that isn't bound yet answers with ICMP errors, which come back here.
            let _ = socket.send_to(&probe, self.front);
            if socket.recv_from(&mut [0; 64]).is_ok() {
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Err("it forwarded nothing in 10 s".to_owned())
    }

    /// Put a load on it and measure.
    pub(super) fn load(&mut self, load: Load) -> Result<Outcome, String> {
        let words = [
            ("target", self.front.to_string()),
            ("flows", load.flows.to_string()),
            ("port", self.port.to_string()),
            ("size", load.size.to_string()),
            ("rate", load.rate.to_string()),
            ("warm_ms", load.warm.as_millis().to_string()),
            ("measure_ms", load.measure.as_millis().to_string()),
            ("trains", (self.setup.shape == Shape::Trains).to_string()),
        ];
        let mut generator = self.tools.helper(self.setup.cores.1, "bench-load", &words)?;
        generator.line()?;
        let (begun, before, seen) = (Instant::now(), self.usage(), self.delivered()?);
        let watch = self.proxy.as_ref().and_then(|proxy| Watch::start(self.setup.cores.0, proxy.pid()));
        let carried = Counts::carried(&generator.line()?)?;
        let end = generator.line()?;
        let watched = begun.elapsed().as_secs_f64();
        let (after, delivered) = (self.usage(), self.delivered()? - seen);
        let counts = Counts::read(&end);
        let count = |key: &str| counts.get(key);
        let received = count("received");
        // The backends don't tell when they took what; where they answer, it was hardly before the answers came.
        let each = (delivered + received) / received.max(1.0);
        let carried: Vec<_> = carried.into_iter().map(|(at, answers)| (at, answers * each)).collect();
        let calm = watch.and_then(|watch| watch.end(&carried));
        Ok(Outcome {
            sent: count("sent"),
            delivered,
            received,
            calm,
            skipped: count("skipped"),
            strayed: count("strayed"),
            unopened: count("unopened"),
            seconds: count("seconds"),
            p50_ns: count("p50_ns"),
            p99_ns: count("p99_ns"),
            watched,
            usage: after.since(before),
            one_way: self.setup.shape != Shape::RequestReply,
        })
    }

    /// Resident bytes of the proxy and bytes in the kernel's socket slabs.
    pub(super) fn memory(&self) -> (u64, u64) {
        (self.usage().rss, slabs(SLABS))
    }

    fn usage(&self) -> Usage {
        self.proxy.as_ref().map(|p| usage(p.pid())).unwrap_or_default()
    }

    fn delivered(&mut self) -> Result<f64, String> {
        self.echo.tell("?")?;
        self.echo.line()?.parse().map_err(|_| "the backends' count can't be read".to_owned())
    }
}

impl Load {
    /// A load in which each datagram has `size` bytes; trains have their own.
    pub(super) fn new(size: usize, flows: usize, rate: f64) -> Load {
        let size = if size == 0 { LARGE } else { size };
        Load { size, flows, rate, warm: Duration::from_millis(400), measure: Duration::from_secs(2) }
    }
}
