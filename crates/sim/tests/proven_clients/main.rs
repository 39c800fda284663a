//! Who clients are, under a seed: clients with a certificate that counts, one of somebody else's, one that expires, or
//! none, a worker that asks for them, a backend that says what it was told, and a network that cuts everything anywhere.
//! In the middle others may vouch for clients, and certificates expire. Nobody comes in who may not, everybody who may,
//! and the backend is told the truth, whatever a client says of itself.

#[cfg(test)]
mod client;
#[cfg(test)]
#[path = "../secured/library.rs"]
mod library;
#[cfg(test)]
mod network;
#[cfg(test)]
#[path = "../secured/provider.rs"]
mod provider;

#[cfg(test)]
mod tests {
    use crate::network::run;

    #[test]
    fn who_comes_in_has_proved_who_it_is_and_the_backend_is_told_so() {
        let mut sums = [0; 6];
        for seed in 0..250 {
            let told = run(seed);
            sums.iter_mut().zip(told.counts()).for_each(|(sum, count)| *sum += count);
        }
        let names = "known, unknown, refused, resumed, forbidden by a route, either way";
        assert!(sums[..5].iter().all(|count| *count > 50), "{names}: {sums:?}");
        assert!(sums[5] < sums[0], "most is settled: {sums:?}");
    }

    #[test]
    fn a_seed_replays_to_the_bit() {
        assert_eq!(run(11), run(11));
        assert_ne!(run(11).trace, run(12).trace);
    }
}
