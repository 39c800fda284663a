//! Early data under a seed: clients that come back and send requests before their handshakes are over, somebody who
//! recorded that and sends it again, to the same worker and to the other one, clients that stall. What must not happen
//! twice reaches no backend before its client's handshake is over; a first flight is taken once; each request is answered
//! once; who never ends its handshake is closed in time.

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
    use crate::network::{Plan, Told, run};

    fn sum(seeds: std::ops::Range<u64>, plan: Plan) -> Told {
        seeds.fold(Told::default(), |sum, seed| sum.and(run(seed, plan)))
    }

    #[test]
    fn what_comes_early_goes_on_where_it_may_and_waits_where_it_may_not() {
        let told = sum(0..300, Plan::default());
        let Told { early, held, accepted, refused, stalled, replayed, .. } = told;
        assert!(early > 300 && held > 300 && accepted > 300, "{told:?}");
        assert!(refused > 100 && stalled > 50 && replayed > 100, "{told:?}");
    }

    #[test]
    fn a_change_of_routes_forgets_no_session() {
        let told = sum(0..100, Plan { changes: true, ..Plan::default() });
        assert!(told.accepted > 100 && told.early > 100, "{told:?}");
    }

    #[test]
    fn what_nobody_knows_any_more_is_sent_again_and_not_lost() {
        let told = sum(0..100, Plan { forgets: true, ..Plan::default() });
        assert_eq!((told.accepted, told.early), (0, 0), "{told:?}");
        assert!(told.refused > 100, "{told:?}");
    }

    #[test]
    fn a_listener_that_goes_takes_what_waits_with_it() {
        let told = sum(0..200, Plan { is_removed: true, ..Plan::default() });
        assert!(told.cut > 100, "{told:?}");
    }

    #[test]
    fn a_seed_replays_to_the_bit() {
        for seed in [3, 17, 99] {
            assert_eq!(run(seed, Plan::default()), run(seed, Plan::default()), "seed {seed}");
        }
        assert_ne!(run(3, Plan::default()).trace, run(4, Plan::default()).trace);
    }
}
