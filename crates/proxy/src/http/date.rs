//! The date that answers bear, written anew once a second. Reads no clock: the time comes with each step.

use kakei_wire::message::{DATE_LEN, date};

use crate::seam::Wall;

/// The date that was written last.
#[derive(Debug)]
pub(super) struct Date {
    at: Wall,
    text: [u8; DATE_LEN],
}

impl Default for Date {
    fn default() -> Self {
        Date { at: Wall::default(), text: date(0) }
    }
}

impl Date {
    /// As `Date` has it.
    pub(super) fn at(&mut self, now: Wall) -> &[u8; DATE_LEN] {
        if self.at != now {
            *self = Date { at: now, text: date(now.as_secs()) };
        }
        &self.text
    }
}
