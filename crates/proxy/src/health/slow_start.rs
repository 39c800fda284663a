//! How much weight a backend has that came up lately: it grows in equal steps to its full weight. Keeps no state.

use std::time::Duration;

use crate::limits::SLOW_START_STEPS;

/// The weight to balance by, in units of 1 / [`SLOW_START_STEPS`]: a backend at its full weight has
/// `weight * SLOW_START_STEPS`, one that has just come up `weight`. 0 only where `weight` is.
/// Every member of a balancer must be given in these units, or none.
pub fn effective_weight(weight: u32, since_up: Duration, slow_start: Duration) -> u32 {
    weight.saturating_mul(step(since_up, slow_start))
}

/// The `since_up` at which [`effective_weight`] grows next; none once it is full.
pub fn next_step(since_up: Duration, slow_start: Duration) -> Option<Duration> {
    let step = step(since_up, slow_start);
    let due = (slow_start.as_nanos() * u128::from(step)).div_ceil(u128::from(SLOW_START_STEPS));
    (step < SLOW_START_STEPS).then(|| Duration::from_nanos_u128(due))
}

/// 1 to [`SLOW_START_STEPS`]: step n begins when (n − 1) / steps of the time have passed.
fn step(since_up: Duration, slow_start: Duration) -> u32 {
    let whole = slow_start.as_nanos();
    if since_up.as_nanos() >= whole {
        return SLOW_START_STEPS;
    }
    // Less than the number of steps, since less than the whole time has passed.
    1 + (since_up.as_nanos() * u128::from(SLOW_START_STEPS) / whole) as u32
}
