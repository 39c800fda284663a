//! How many datagrams of a connected socket are asked for at a time. Most flows have one answer under way, and one
//! datagram without its sender costs the kernel a good deal less than a batch in which it finds that there is no second.

use std::os::fd::{AsFd, OwnedFd};

use crate::udp;

/// Datagrams that are read one at a time before it is tried whether there are more.
const LONE: u8 = 8;
/// As many at a time are a burst: from then on trains are received as one.
const BURST: usize = 8;

/// How a connected socket is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pace {
    /// One at a time; how many came so since it was tried otherwise.
    Lone(u8),
    /// Several at a time, as long as there are several.
    Several,
    /// Several at a time, and trains as one: a burst came once.
    Trains,
}

impl Pace {
    pub(super) const FIRST: Pace = Pace::Lone(0);

    /// One came, one having been asked for.
    pub(super) fn note_one(&mut self) {
        if let Pace::Lone(count) = self {
            *self = if *count + 1 == LONE { Pace::Several } else { Pace::Lone(*count + 1) };
        }
    }

    /// So many came by this socket, of so many that were asked for.
    pub(super) fn note(&mut self, count: usize, asked: usize, socket: &OwnedFd) {
        match self {
            Pace::Several if count >= BURST => {
                // A wish: where it is refused, trains come in their pieces.
                let _ = udp::set_gro(socket.as_fd(), true);
                *self = Pace::Trains;
            }
            Pace::Several if count < asked.min(2) => *self = Pace::FIRST,
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;

    use super::*;

    #[test]
    fn several_are_asked_for_as_long_as_several_come() {
        let socket = OwnedFd::from(UdpSocket::bind("127.0.0.1:0").expect("a port"));
        let mut pace = Pace::FIRST;
        let after = |mut pace: Pace, count, asked| {
            pace.note(count, asked, &socket);
            pace
        };
        for count in 1..LONE {
            pace.note_one();
            assert_eq!(pace, Pace::Lone(count));
        }
        pace.note_one();
        assert_eq!(pace, Pace::Several);
        assert_eq!((after(pace, 1, 8), after(pace, 2, 8)), (Pace::FIRST, Pace::Several));
        // Where there was room for one only, nothing is known of a second.
        assert_eq!(after(pace, 1, 1), Pace::Several);
        assert_eq!(after(pace, BURST, 64), Pace::Trains);
        assert_eq!(after(Pace::Trains, 1, 8), Pace::Trains);
    }
}
