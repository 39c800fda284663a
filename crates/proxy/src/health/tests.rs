//! What the health machines promise, on a clock of the test's own.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use kakei_config::{Expect, Health, PassiveCheck, TcpCheck, UdpCheck};
use proptest::prelude::*;

use super::*;
use crate::limits::SLOW_START_STEPS;
use crate::seam::Instant;

const INTERVAL: Duration = Duration::from_secs(5);
const TIMEOUT: Duration = Duration::from_secs(2);

fn at(seconds: u64) -> Instant {
    Instant::ZERO + Duration::from_secs(seconds)
}

fn udp() -> UdpCheck {
    UdpCheck { send: b"ping".to_vec(), expect: Expect::Prefix(b"po".to_vec()), port: None }
}

fn health(udp: Option<UdpCheck>, tcp: Option<TcpCheck>) -> Health {
    Health { udp, tcp, interval: INTERVAL, timeout: TIMEOUT, fail_open: false, ..Health::default() }
}

fn target(key: u32) -> Target<u32> {
    Target { key, address: SocketAddr::new([10, 0, 0, key as u8].into(), 53).into(), unproven: false }
}

fn checker(health: &Health, backends: u32) -> Checker<u32> {
    let (mut checker, mut rng) = (Checker::new(), fastrand::Rng::with_seed(1));
    let changes = checker.reconfigure(at(0), Some(health), (0..backends).map(target), &mut rng);
    assert!(changes.closed.is_empty() && changes.verdicts.is_empty());
    checker
}

/// The next probe, with the time it is due; nothing may expire before it.
fn next_probe(checker: &mut Checker<u32>) -> (Instant, Probe<u32>) {
    let now = checker.next_deadline().expect("a probe is due some time");
    match checker.poll(now) {
        Some(Action::Probe(probe)) => (now, probe),
        other => panic!("a probe was due, not {other:?}"),
    }
}

#[test]
fn a_signal_counts_results_in_a_row() {
    let mut signal = Signal::default();
    let results = [(false, None), (false, None), (true, None), (false, None), (false, None), (false, Some(false))];
    let back = [(true, None), (false, None), (true, None), (true, Some(true)), (true, None), (false, None)];
    for (n, (success, changed)) in results.into_iter().chain(back).enumerate() {
        let said = if success { signal.handle_success(2) } else { signal.handle_failure(3) };
        assert_eq!(said, changed, "result {n}");
    }
    assert_eq!(Signal::default().handle_failure(0), Some(false));
}

#[test]
fn first_probes_are_spread_over_the_interval() {
    let mut checker = checker(&health(Some(udp()), Some(TcpCheck::default())), 5);
    let starts: Vec<Instant> = (0..10)
        .map(|_| {
            let (now, probe) = next_probe(&mut checker);
            checker.handle_skipped(probe.id);
            now
        })
        .collect();
    assert!(starts.windows(2).all(|pair| pair[1] - pair[0] == INTERVAL / 10), "{starts:?}");
    assert!(starts[9] < at(0) + INTERVAL);
    // And from then on each in its own turn.
    assert_eq!(next_probe(&mut checker).0, starts[0] + INTERVAL);
}

#[test]
fn a_late_caller_sends_each_probe_once() {
    let mut checker = checker(&health(Some(udp()), None), 3);
    let mut sent = 0;
    while let Some(action) = checker.poll(at(1_000)) {
        assert!(matches!(action, Action::Probe(_)));
        sent += 1;
    }
    assert_eq!(sent, 3);
    let mut expired = 0;
    while let Some(action) = checker.poll(at(1_002)) {
        expired += u32::from(matches!(action, Action::Expired { .. }));
    }
    assert_eq!(expired, 3);
    assert!(checker.next_deadline().is_some_and(|next| next > at(1_002) && next <= at(1_007)));
}

#[test]
fn a_dead_backend_is_left_within_fall_probes_and_back_within_rise() {
    let mut checker = checker(&health(Some(udp()), None), 1);
    for failure in 1..=3 {
        let (now, probe) = next_probe(&mut checker);
        assert_eq!(checker.next_deadline(), Some(now + TIMEOUT));
        let Some(Action::Expired { probe: expired, verdict }) = checker.poll(now + TIMEOUT) else { panic!("expires") };
        assert_eq!((expired, verdict.is_some()), (probe.id, failure == 3));
        assert_eq!(checker.is_up(0), Some(failure < 3));
        assert_eq!(checker.handle_reply(probe.id, b"pong"), None, "too late");
    }
    let (_, probe) = next_probe(&mut checker);
    assert_eq!(checker.handle_reply(probe.id, b"pong"), None);
    let (_, probe) = next_probe(&mut checker);
    assert_eq!(checker.handle_reply(probe.id, b"pong"), Some(Verdict { backend: 0, up: true }));
    assert_eq!(checker.is_up(0), Some(true));
}

#[test]
fn a_flapping_backend_keeps_its_verdict() {
    let mut checker = checker(&health(Some(udp()), None), 1);
    for n in 0..30 {
        let (_, probe) = next_probe(&mut checker);
        let verdict = if n % 3 == 2 { checker.handle_reply(probe.id, b"po") } else { checker.handle_failed(probe.id) };
        assert_eq!(verdict, None);
    }
    assert_eq!(checker.is_up(0), Some(true));
}

#[test]
fn a_backend_is_up_only_while_both_signals_are() {
    let mut checker = checker(&health(Some(udp()), Some(TcpCheck { port: Some(80), ..TcpCheck::default() })), 1);
    let mut run = |udp_ok: bool, tcp_ok: bool| {
        let mut verdicts = Vec::new();
        for _ in 0..6 {
            let (_, probe) = next_probe(&mut checker);
            assert_eq!(probe.remote.ip().expect("an address").port(), if probe.check == Check::Tcp { 80 } else { 53 });
            verdicts.extend(match (probe.check, udp_ok, tcp_ok) {
                (Check::Udp, true, _) => checker.handle_reply(probe.id, b"pong"),
                (Check::Tcp, _, true) => checker.handle_opened(probe.id),
                _ => checker.handle_failed(probe.id),
            });
        }
        verdicts.into_iter().map(|verdict: Verdict<u32>| verdict.up).collect::<Vec<bool>>()
    };
    assert_eq!(run(true, false), [false]);
    assert!(run(false, false).is_empty());
    assert!(run(false, true).is_empty());
    assert_eq!(run(true, true), [true]);
}

#[test]
fn replies_are_held_against_what_is_expected() {
    let any = Expect::Any;
    let exact = Expect::Exact(b"pong".to_vec());
    let prefix = Expect::Prefix(b"po".to_vec());
    let cases: [(&Expect, &[u8], bool); 8] = [
        (&any, b"", true),
        (&any, b"x", true),
        (&exact, b"pong", true),
        (&exact, b"pong!", false),
        (&exact, b"pon", false),
        (&prefix, b"pong", true),
        (&prefix, b"p", false),
        (&prefix, b"ping", false),
    ];
    for (expect, bytes, good) in cases {
        let check = UdpCheck { expect: expect.clone(), ..udp() };
        let mut checker = checker(&Health { fall: 1, ..health(Some(check), None) }, 1);
        let (_, probe) = next_probe(&mut checker);
        assert_eq!(checker.handle_opened(probe.id), None, "an open socket says nothing");
        checker.handle_reply(probe.id, bytes);
        assert_eq!(checker.is_up(0), Some(good), "{expect:?} {bytes:?}");
        assert_eq!(checker.probe(probe.id), None, "a reply ends the probe");
    }
}

#[test]
fn what_we_could_not_send_says_nothing() {
    let mut checker = checker(&Health { fall: 1, ..health(None, Some(TcpCheck::default())) }, 1);
    for _ in 0..10 {
        let (_, probe) = next_probe(&mut checker);
        assert_eq!(checker.handle_reply(probe.id, b"pong"), None, "a stream has no datagrams");
        checker.handle_skipped(probe.id);
    }
    assert_eq!(checker.is_up(0), Some(true));
}

/// Backend 0 down by UDP, with a probe of backend 1 in flight.
fn one_down() -> (Checker<u32>, Instant, ProbeId) {
    let mut checker = checker(&Health { fall: 1, ..health(Some(udp()), None) }, 2);
    let (_, probe) = next_probe(&mut checker);
    assert_eq!(checker.handle_failed(probe.id), Some(Verdict { backend: 0, up: false }));
    let (now, probe) = next_probe(&mut checker);
    (checker, now, probe.id)
}

#[test]
fn a_reconfiguration_keeps_what_stays() {
    let (mut checker, now, probe) = one_down();
    let mut rng = fastrand::Rng::with_seed(2);
    let longer = Health { fall: 2, ..health(Some(udp()), None) };
    let changes = checker.reconfigure(now, Some(&longer), (0..3).map(target), &mut rng);
    assert_eq!(changes, Changes { closed: vec![], verdicts: vec![] });
    assert_eq!((checker.is_up(0), checker.is_up(1), checker.is_up(2)), (Some(false), Some(true), Some(true)));
    assert_eq!(checker.probe(probe).map(|probe| probe.backend), Some(1));
    // Another address is another backend; a backend that is gone takes its probe along.
    let moved = Target { address: "10.9.9.9:53".parse().expect("an address"), ..target(0) };
    let changes = checker.reconfigure(now, Some(&longer), [moved], &mut rng);
    assert_eq!(changes, Changes { closed: vec![probe], verdicts: vec![] });
    assert_eq!((checker.is_up(0), checker.is_up(1)), (Some(true), None));
    assert_eq!(checker.handle_failed(probe), None);
}

#[test]
fn another_check_gives_up_the_probe_and_keeps_the_verdict() {
    let (mut checker, now, probe) = one_down();
    let mut rng = fastrand::Rng::with_seed(2);
    let other = health(Some(UdpCheck { port: Some(5353), ..udp() }), None);
    let changes = checker.reconfigure(now, Some(&other), (0..2).map(target), &mut rng);
    assert_eq!(changes, Changes { closed: vec![probe], verdicts: vec![] });
    assert_eq!(checker.is_up(0), Some(false));
    assert_eq!(next_probe(&mut checker).1.remote.ip().expect("an address").port(), 5353);
    // A backend that only the check held down comes up with its removal.
    let changes = checker.reconfigure(now, None, (0..2).map(target), &mut rng);
    assert_eq!(changes.verdicts, [Verdict { backend: 0, up: true }]);
    assert_eq!((checker.next_deadline(), checker.poll(at(99))), (None, None));
}

#[test]
fn constant_reconfiguration_stops_no_probe() {
    let health = health(Some(udp()), None);
    let (mut checker, mut rng) = (checker(&health, 3), fastrand::Rng::with_seed(2));
    let mut sent = 0;
    for tick in 0..200 {
        let now = at(0) + tick * Duration::from_millis(100);
        checker.reconfigure(now, Some(&health), (0..3).map(target), &mut rng);
        while let Some(action) = checker.poll(now) {
            sent += u32::from(matches!(action, Action::Probe(_)));
        }
    }
    assert_eq!(sent, 3 * 4, "20 s are four intervals");
}

#[test]
fn signals_are_written_down_and_read_back() {
    let (old, ..) = one_down();
    let written = serde_json::to_string(&old.signals().collect::<Vec<_>>()).unwrap();
    let read: Vec<SignalState<u32>> = serde_json::from_str(&written).unwrap();
    let mut new = checker(&health(Some(udp()), None), 1);
    read.into_iter().for_each(|state| new.restore(state));
    assert_eq!((new.is_up(0), new.is_up(1)), (Some(false), None));
}

#[test]
fn errors_in_a_row_eject_for_a_while() {
    let check = PassiveCheck {
        fall: 3,
        eject: Duration::from_secs(10),
        eject_max: Duration::from_secs(10),
        ..PassiveCheck::default()
    };
    let mut passive = Passive::default();
    for _ in 0..5 {
        assert_eq!((passive.handle_error(at(0), &check), passive.handle_error(at(0), &check)), (None, None));
        passive.handle_success();
    }
    let errors: Vec<_> = (1..=3).map(|second| passive.handle_error(at(second), &check)).collect();
    assert_eq!(errors, [None, None, Some(at(13))]);
    assert!(passive.is_ejected(at(12)) && !passive.is_ejected(at(13)));
    assert_eq!(passive.handle_error(at(5), &check), None, "ejected already");
    passive.handle_success();
    assert_eq!(passive.ejected_until(at(5)), Some(at(13)));
    let restored = Passive::restore(at(100), passive.state(at(5)));
    assert_eq!(restored.ejected_until(at(100)), Some(at(108)));
    assert_eq!(passive.handle_error(at(13), &check), None, "the next run begins at one");
}

#[test]
fn slow_start_grows_in_steps() {
    let (full, slow) = (256 * SLOW_START_STEPS, Duration::from_secs(10));
    assert_eq!(effective_weight(256, Duration::ZERO, Duration::ZERO), full);
    assert_eq!(effective_weight(256, Duration::ZERO, slow), 256);
    assert_eq!(effective_weight(256, Duration::from_millis(5_500), slow), 256 * 6);
    assert_eq!(effective_weight(256, slow, slow), full);
    assert_eq!(next_step(slow, slow), None);
}

const SKIPPED: u8 = 0;
const SILENT: u8 = 1;
const GOOD: u8 = 2;
const BAD: u8 = 3;

fn answer(checker: &mut Checker<u32>, probe: &Probe<u32>, fate: u8) -> Option<Verdict<u32>> {
    match (fate, probe.check) {
        (BAD, Check::Udp) => checker.handle_reply(probe.id, b"what?"),
        (BAD, Check::Tcp) => checker.handle_failed(probe.id),
        (BAD, Check::Http) => checker.handle_bytes(probe.id, b"HTTP/1.1 500 No\r\n\r\n"),
        (_, Check::Udp) => checker.handle_reply(probe.id, b"pong"),
        (_, Check::Tcp) => checker.handle_opened(probe.id),
        (_, Check::Http) => checker.handle_bytes(probe.id, b"HTTP/1.1 204 Yes\r\n\r\n"),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn slow_start_changes_exactly_when_it_says(weight in 1u32..=256, nanos in 1u64..10_000_000_000) {
        let slow = Duration::from_nanos(nanos);
        let (mut since, mut steps, mut last) = (Duration::ZERO, 1, effective_weight(weight, Duration::ZERO, slow));
        prop_assert!(last >= weight);
        while let Some(next) = next_step(since, slow) {
            prop_assert!(next > since && steps < SLOW_START_STEPS);
            prop_assert_eq!(effective_weight(weight, next - Duration::from_nanos(1), slow), last);
            let grown = effective_weight(weight, next, slow);
            prop_assert!(grown > last);
            (since, last, steps) = (next, grown, steps + 1);
        }
        prop_assert_eq!(last, weight * SLOW_START_STEPS);
    }

    /// Backends that answer, refuse, stay silent or can't be asked, in any order: verdicts follow from the results
    /// alone, no backend has two probes of a kind in flight, and after a poll the next deadline lies ahead.
    #[test]
    fn verdicts_follow_from_results(
        backends in 1u32..6, rise in 1u32..4, fall in 1u32..4, tcp: bool,
        fates in prop::collection::vec(SKIPPED..=BAD, 1..300),
    ) {
        let tcp = tcp.then(TcpCheck::default);
        let mut checker = checker(&Health { rise, fall, ..health(Some(udp()), tcp) }, backends);
        let (mut model, mut open, mut now) = (Model::new(rise, fall), Vec::<Probe<u32>>::new(), at(0));
        for fate in fates {
            let next = checker.next_deadline().expect("backends are watched");
            prop_assert!(next >= now);
            now = next;
            match checker.poll(now).expect("what is due") {
                Action::Probe(probe) => {
                    prop_assert!(open.iter().all(|other| (other.backend, other.check) != (probe.backend, probe.check)));
                    match fate {
                        SKIPPED => checker.handle_skipped(probe.id),
                        SILENT => open.push(probe),
                        _ => prop_assert_eq!(answer(&mut checker, &probe, fate), model.result(&probe, fate == GOOD)),
                    }
                }
                Action::Expired { probe, verdict } => {
                    let at = open.iter().position(|other| other.id == probe).expect("only what was sent expires");
                    prop_assert_eq!(verdict, model.result(&open.swap_remove(at), false));
                }
            }
            for backend in 0..backends {
                prop_assert_eq!(checker.is_up(backend), Some(model.is_up(backend)));
            }
        }
    }
}

/// The truth about verdicts, from the results alone.
struct Model {
    rise: u32,
    fall: u32,
    /// By backend and check: whether it is up, the last result, and how often that came in a row.
    signals: BTreeMap<(u32, Check), (bool, bool, u32)>,
}

impl Model {
    fn new(rise: u32, fall: u32) -> Self {
        Model { rise, fall, signals: BTreeMap::new() }
    }

    fn is_up(&self, backend: u32) -> bool {
        self.signals.iter().all(|(&(of, _), &(up, ..))| of != backend || up)
    }

    fn result(&mut self, probe: &Probe<u32>, success: bool) -> Option<Verdict<u32>> {
        let was_up = self.is_up(probe.backend);
        let (up, last, run) = self.signals.entry((probe.backend, probe.check)).or_insert((true, true, 0));
        *run = if *last == success { *run + 1 } else { 1 };
        *last = success;
        if *run >= if success { self.rise } else { self.fall } {
            *up = success;
        }
        let up = self.is_up(probe.backend);
        (up != was_up).then_some(Verdict { backend: probe.backend, up })
    }
}

#[test]
fn an_ejection_soon_after_the_last_is_twice_as_long_up_to_the_cap() {
    let check = PassiveCheck {
        fall: 1,
        eject: Duration::from_secs(10),
        eject_max: Duration::from_secs(35),
        ..PassiveCheck::default()
    };
    let mut passive = Passive::default();
    let mut now = Instant::from_nanos(1_000_000_000_000);
    let mut lengths = Vec::new();
    for _ in 0..4 {
        let until = passive.handle_error(now, &check).expect("it is ejected");
        lengths.push((until - now).as_secs());
        passive.handle_success();
        now = until + Duration::from_secs(1);
        passive = Passive::restore(now, passive.state(now));
    }
    assert_eq!(lengths, [10, 20, 35, 35]);
    now = now + Duration::from_secs(35);
    let until = passive.handle_error(now, &check).expect("it is ejected");
    assert_eq!(until - now, check.eject, "it had worked for as long as it was ejected");
}

#[test]
fn a_stream_must_say_what_is_expected_of_it() {
    let tcp = |expect| TcpCheck { expect: Some(expect), ..TcpCheck::default() };
    let cases = [
        (Expect::Any, "x", Some(true)),
        (Expect::Prefix(b"+PONG".to_vec()), "+PO NG!", Some(true)),
        (Expect::Exact(b"+PONG".to_vec()), "+P ONG", Some(true)),
        (Expect::Exact(b"+PONG".to_vec()), "-E", Some(false)),
        (Expect::Exact(b"OK".to_vec()), "O KAY", Some(false)),
        (Expect::Exact(Vec::new()), "junk", Some(false)),
        (Expect::Prefix(b"220-".to_vec()), "5", Some(false)),
        (Expect::Prefix(b"220-".to_vec()), "22", None),
    ];
    for (expect, said, success) in cases {
        let health = Health { rise: 1, fall: 1, ..health(None, Some(tcp(expect.clone()))) };
        let mut checker = checker(&health, 1);
        assert!(checker.expects_bytes());
        let (_, probe) = next_probe(&mut checker);
        let verdicts: Vec<_> =
            said.split(' ').filter_map(|part| checker.handle_bytes(probe.id, part.as_bytes())).collect();
        let ended = checker.probe(probe.id).is_none();
        assert_eq!(ended, success.is_some(), "{expect:?} {said:?}");
        let down = verdicts.iter().any(|verdict| !verdict.up);
        assert_eq!(down, success == Some(false), "{expect:?} {said:?}");
    }
}

#[test]
fn that_a_stream_says_nothing_can_be_what_is_expected_of_it() {
    for (expect, right) in
        [(Expect::Exact(Vec::new()), true), (Expect::Any, false), (Expect::Prefix(Vec::new()), false)]
    {
        let tcp = TcpCheck { expect: Some(expect.clone()), ..TcpCheck::default() };
        let health = Health { rise: 1, fall: 1, ..health(None, Some(tcp)) };
        let mut checker = checker(&health, 1);
        let (_, probe) = next_probe(&mut checker);
        let verdict = checker.handle_ended(probe.id);
        assert_eq!((verdict.is_none(), checker.succeeded()), (right, right), "{expect:?}");
    }
}
