//! TLS under a seed: clients of a library, a worker, an echo, and a network that cuts everything anywhere and takes as
//! little as it likes. What a client gets back is what it sent; what was cut is never taken for the whole; a seed replays
//! to the bit.

#[cfg(test)]
mod client;
#[cfg(test)]
mod library;
#[cfg(test)]
mod network;
#[cfg(test)]
mod provider;
#[cfg(test)]
mod speech;

#[cfg(test)]
mod tests {
    use crate::network::{Plan, run};
    use crate::speech::Speech;

    #[test]
    fn what_comes_back_is_what_was_sent_however_it_is_cut() {
        let mut seen = [0; 4];
        for seed in 0..300 {
            let told = run(seed, Plan::default());
            seen.iter_mut().zip(told.counts()).for_each(|(sum, count)| *sum += count);
        }
        assert!(seen.iter().all(|count| *count > 0), "whole, cut, resumed, blocked: {seen:?}");
    }

    #[test]
    fn answers_under_tls_are_those_of_their_requests_however_they_are_cut() {
        let mut seen = [0; 4];
        for seed in 0..200 {
            let told = run(seed, Plan { speech: Speech::Requests, ..Plan::default() });
            seen.iter_mut().zip(told.counts()).for_each(|(sum, count)| *sum += count);
        }
        assert!(seen.iter().all(|count| *count > 0), "whole, cut, resumed, blocked: {seen:?}");
    }

    #[test]
    fn keys_change_under_way_and_messages_come_in_many_records() {
        let mut keys = 0;
        for seed in 0..240 {
            let speech = if seed % 2 == 0 { Speech::Bytes } else { Speech::Requests };
            keys += run(seed, Plan { speech, is_fussy: true, most_bytes: 40_000, ..Plan::default() }).keys;
        }
        assert!(keys > 1_000, "keys changed {keys} times");
    }

    #[test]
    fn a_seed_replays_to_the_bit() {
        for seed in [3, 17, 99] {
            assert_eq!(run(seed, Plan::default()), run(seed, Plan::default()), "seed {seed}");
        }
        assert_ne!(run(3, Plan::default()).trace, run(4, Plan::default()).trace);
    }

    #[test]
    fn a_listener_that_goes_takes_handshakes_that_are_under_way_with_it() {
        let mut failed = 0;
        for seed in 0..200 {
            for (at_once, speech) in [(false, Speech::Bytes), (true, Speech::Bytes), (true, Speech::Requests)] {
                failed += run(seed, Plan { at_once, is_removed: true, speech, ..Plan::default() }).failed;
            }
        }
        assert!(failed > 100, "{failed} were cut off");
    }

    #[test]
    fn a_flood_of_handshakes_is_let_through_a_few_in_each_step() {
        let told = run(5, Plan { clients: 200, at_once: true, most_bytes: 3_000, ..Plan::default() });
        assert_eq!(told.failed, 0);
        assert!(told.most_handshakes <= kakei_proxy::limits::HANDSHAKES_PER_STEP, "{}", told.most_handshakes);
    }
}
