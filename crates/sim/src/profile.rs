//! What a run is made of: how many of everything, and which faults, all drawn from the seed. Decides nothing later.

use std::time::Duration;

use fastrand::Rng;

/// The built-in kinds of runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Weather {
    /// Nothing fails: every datagram must arrive, through every change of the configuration.
    Calm,
    /// Loss, duplication, reordering, dead backends, failed opens and sends, small limits.
    Storm,
}

/// What a run is made of. Build one with [`Profile::calm`], [`Profile::storm`] or [`Profile::drawn`], then change
/// what a scenario is about.
#[derive(Clone, Debug)]
pub struct Profile {
    /// Whether nothing fails.
    pub weather: Weather,
    /// Workers, at least 1.
    pub workers: u16,
    /// How long clients send.
    pub traffic: Duration,
    /// Client sockets.
    pub clients: usize,
    /// Client datagrams of one socket, about.
    pub datagrams: u32,
    /// The longest ordinary payload.
    pub longest: usize,
    /// Changes of the configuration.
    pub changes: u32,
    /// Whether what a change brings is probed before it is published.
    pub candidates: bool,
    /// Snapshots, each of which is restored half of the time.
    pub snapshots: u32,
    /// What the network does.
    pub network: NetworkFaults,
    /// What the machines do.
    pub machine: MachineFaults,
    /// What the backends do.
    pub backends: BackendFaults,
}

/// What the network does to datagrams. Odds are out of 10,000.
#[derive(Clone, Debug, Default)]
pub struct NetworkFaults {
    /// Lost.
    pub loss: u32,
    /// Doubled.
    pub duplicate: u32,
    /// Late by up to `late` and so behind others.
    pub reorder: u32,
    /// The most that a doubled or reordered datagram is late. Not above 60 ms: shared sockets rest only 100 ms after an
    /// answered flow.
    pub late: Duration,
    /// How often a client or a backend is cut off for a while.
    pub partitions: u32,
}

/// What the machines do. Odds are out of 10,000.
#[derive(Clone, Debug)]
pub struct MachineFaults {
    /// Bursts in which no socket can be opened.
    pub descriptor_bursts: u32,
    /// A send finds the queue full.
    pub queue_full: u32,
    /// The longest datagram that the path takes.
    pub path_limit: usize,
    /// Datagrams that a front socket holds before it overflows.
    pub receive_queue: usize,
    /// How late a step may be.
    pub lateness: Duration,
    /// How often a batch of events is cut at a random length.
    pub split: u32,
    /// How often a run of equal datagrams of one sender is received as a train.
    pub trains: u32,
}

/// What the backends do. Odds are out of 10,000.
#[derive(Clone, Debug, Default)]
pub struct BackendFaults {
    /// How often a backend goes down and comes up again.
    pub outages: u32,
    /// Requests never answered.
    pub silent: u32,
    /// Requests answered after up to 3.5 s.
    pub late: u32,
    /// Requests answered more than once.
    pub several: u32,
}

impl Profile {
    /// Nothing fails.
    pub fn calm(rng: &mut Rng) -> Self {
        Profile {
            weather: Weather::Calm,
            workers: rng.u16(1..=4),
            traffic: Duration::from_millis(rng.u64(1_000..=6_000)),
            clients: rng.usize(3..=30),
            datagrams: rng.u32(4..=30),
            longest: 1_400,
            changes: rng.u32(0..=12),
            candidates: false,
            snapshots: if rng.u8(0..3) == 0 { rng.u32(1..=4) } else { 0 },
            network: NetworkFaults::default(),
            machine: MachineFaults {
                descriptor_bursts: 0,
                queue_full: 0,
                path_limit: 65_507,
                receive_queue: 100_000,
                lateness: Duration::from_micros(rng.u64(1..=500)),
                split: if rng.bool() { 3_000 } else { 0 },
                trains: if rng.bool() { 7_000 } else { 0 },
            },
            backends: BackendFaults::default(),
        }
    }

    /// Everything fails now and then.
    pub fn storm(rng: &mut Rng) -> Self {
        let mut odds = |most: u32| if rng.bool() { rng.u32(0..=most) } else { 0 };
        let network = NetworkFaults {
            loss: odds(1_500),
            duplicate: odds(1_000),
            reorder: odds(3_000),
            late: Duration::from_millis(25),
            partitions: odds(4),
        };
        let mut backends =
            BackendFaults { outages: odds(6), silent: odds(2_000), late: odds(1_000), several: odds(2_000) };
        if network.duplicate > 0 || backends.several > 0 {
            // A flow that got as many replies as it has requests counts as answered: a late one is nobody's then.
            backends.late = 0;
        }
        let (descriptor_bursts, queue_full) = (odds(4), odds(400));
        let calm = Profile::calm(rng);
        Profile {
            weather: Weather::Storm,
            longest: *pick(rng, &[60, 500, 1_400, 9_000, 60_000]),
            network,
            machine: MachineFaults {
                descriptor_bursts,
                queue_full,
                path_limit: *pick(rng, &[600, 1_472, 9_000, 65_507, 65_507]),
                receive_queue: *pick(rng, &[4, 32, 256, 100_000]),
                lateness: Duration::from_micros(*pick(rng, &[50, 500, 5_000])),
                ..calm.machine
            },
            backends,
            ..calm
        }
    }

    /// Either.
    pub fn drawn(rng: &mut Rng) -> Self {
        if rng.u8(0..10) < 4 { Profile::calm(rng) } else { Profile::storm(rng) }
    }
}

/// One of several; the slice is never empty.
pub(crate) fn pick<'a, T>(rng: &mut Rng, among: &'a [T]) -> &'a T {
    &among[rng.usize(0..among.len())]
}

/// Whether something with these odds out of 10,000 happens.
pub(crate) fn chance(rng: &mut Rng, odds: u32) -> bool {
    odds > 0 && rng.u32(0..10_000) < odds
}
