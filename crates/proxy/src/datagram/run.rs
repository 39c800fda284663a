//! A run of datagrams of one sender: one, or a train of equal ones. Pure arithmetic over spans.

use crate::seam::{Gather, Span};

/// Where a run's bytes lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// In the inbox: received in this step.
    Inbox,
    /// In the outbox: kept from an earlier step.
    Outbox,
}

/// A run of datagrams; never empty, though its datagrams may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Run {
    pub(crate) place: Place,
    pub(crate) bytes: Span,
    /// 0: one datagram. Otherwise the length of each but the last.
    pub(crate) segment: u16,
}

impl Run {
    pub(crate) fn received(bytes: Span, segment: u16) -> Self {
        // A train of one is a datagram.
        let segment = if bytes.len <= u32::from(segment) { 0 } else { segment };
        Run { place: Place::Inbox, bytes, segment }
    }

    /// How many datagrams.
    pub(crate) fn count(&self) -> u32 {
        match self.segment {
            0 => 1,
            segment => self.bytes.len.div_ceil(u32::from(segment)),
        }
    }

    /// The length of the longest datagram.
    pub(crate) fn longest(&self) -> u32 {
        match self.segment {
            0 => self.bytes.len,
            segment => u32::from(segment),
        }
    }

    /// The first `count` datagrams, at least one, and the rest if there is any.
    pub(crate) fn split(self, count: u64) -> (Run, Option<Run>) {
        if count >= u64::from(self.count()) {
            return (self, None);
        }
        let cut = count.max(1) as u32 * u32::from(self.segment);
        (self.with(self.bytes.take(cut)), Some(self.with(self.bytes.skip(cut))))
    }

    /// Its datagrams one by one.
    pub(crate) fn each(self) -> impl Iterator<Item = Run> {
        let mut rest = Some(self);
        std::iter::from_fn(move || {
            let (first, more) = rest?.split(1);
            rest = more;
            Some(first)
        })
    }

    /// Its last datagram.
    pub(crate) fn last(self) -> Run {
        self.split(u64::from(self.count()) - 1).1.unwrap_or(self)
    }

    /// The bytes of a run that is sent as it is.
    pub(crate) fn gather(&self) -> Gather {
        match self.place {
            Place::Inbox => Gather { head: Span::EMPTY, body: self.bytes },
            Place::Outbox => Gather { head: self.bytes, body: Span::EMPTY },
        }
    }

    fn with(self, bytes: Span) -> Run {
        let segment = if bytes.len <= u32::from(self.segment) { 0 } else { self.segment };
        Run { bytes, segment, ..self }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn parts_make_up_the_whole(len in 0u32..5000, segment in 0u16..1500, count in 1u64..20) {
            let run = Run::received(Span { start: 7, len }, segment);
            let (first, rest) = run.split(count);
            prop_assert_eq!(first.count() + rest.map_or(0, |rest| rest.count()), run.count());
            prop_assert_eq!(first.bytes.len + rest.map_or(0, |rest| rest.bytes.len), len);
            prop_assert_eq!(u64::from(first.count()), count.min(u64::from(run.count())));
            let singles: Vec<Run> = run.each().collect();
            prop_assert_eq!(singles.len() as u32, run.count());
            prop_assert!(singles.iter().all(|single| single.segment == 0 && single.count() == 1));
            prop_assert_eq!(singles.last().copied(), Some(run.last()));
            prop_assert!(singles.iter().all(|single| single.bytes.len <= run.longest()));
        }
    }
}
