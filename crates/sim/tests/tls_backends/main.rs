//! TLS to backends under a seed: clients in plain, a worker, servers of a library that keep to the rules, break them,
//! lie about who they are or go without a word, and a network that cuts everything anywhere. In the middle others vouch
//! for backends. Nobody who proved nothing gets a byte; what was cut is never taken for the whole; a seed replays.

#[cfg(test)]
mod client;
#[cfg(test)]
mod crowd;
#[cfg(test)]
mod network;
#[cfg(test)]
#[path = "../secured/provider.rs"]
mod provider;
#[cfg(test)]
mod server;

#[cfg(test)]
mod tests {
    use crate::network::run;

    fn sweep(is_http: bool) {
        let mut sums = [0; 7];
        for seed in 0..250 {
            let told = run(seed, is_http);
            sums.iter_mut().zip(told.counts()).for_each(|(sum, count)| *sum += count);
        }
        let names = "whole, failed, truncated, resumed, blocked, verified in vain, restored";
        assert!(sums.iter().all(|count| *count > 0), "{names}: {sums:?}");
    }

    #[test]
    fn streams_reach_backends_that_prove_who_they_are_and_nobody_else() {
        sweep(false);
    }

    #[test]
    fn requests_do_too() {
        sweep(true);
    }

    #[test]
    fn a_seed_replays_to_the_bit() {
        for seed in [3, 17, 99] {
            assert_eq!(run(seed, false), run(seed, false), "seed {seed}");
            assert_eq!(run(seed, true), run(seed, true), "seed {seed}");
        }
        assert_ne!(run(3, false).trace, run(4, false).trace);
    }
}
