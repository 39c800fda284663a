//! Sessions that clients go on from where early data is taken: each is handed out once, to whichever worker asks first, so
//! that a first flight that somebody recorded is of no use again (RFC 8446, section 8.1). In memory alone: whoever starts
//! anew knows none, and refuses the early data of all. Bounded; knows no time, and nothing of what a session holds.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::sync::{Mutex, PoisonError};

use rustls::server::StoresServerSessions;

/// Locks, each over its share of the sessions: workers seldom meet.
const SHARDS: usize = 16;
/// Sessions of one share. A connection leaves two, of some 350 bytes with all that is around them: 11 MiB at most in all.
const PER_SHARD: usize = 2_048;
/// A session's name, which the library draws: random bytes.
const NAME: usize = 32;

type Id = [u8; NAME];

/// See the module's words.
#[derive(Default)]
pub(super) struct Sessions([Mutex<Shard>; SHARDS]);

#[derive(Default)]
struct Shard {
    known: HashMap<Id, Session>,
    /// In the order in which they came, with some that are gone.
    order: VecDeque<(u64, Id)>,
    /// How many came.
    count: u64,
    /// The first of those that came since sessions were aged last.
    aged: u64,
}

struct Session {
    number: u64,
    secret: Box<[u8]>,
}

impl Sessions {
    /// Forget what was there before this was called last.
    pub(super) fn age(&self) {
        for shard in &self.0 {
            shard.lock().unwrap_or_else(PoisonError::into_inner).age();
        }
    }

    fn of<T>(&self, id: &[u8], ask: impl FnOnce(&mut Shard, Id) -> T) -> Option<T> {
        let id: Id = id.try_into().ok()?;
        let shard = self.0.get(usize::from(id[0]) % SHARDS)?;
        // Nobody leaves one half changed.
        Some(ask(&mut shard.lock().unwrap_or_else(PoisonError::into_inner), id))
    }
}

impl Shard {
    fn put(&mut self, id: Id, secret: Box<[u8]>) {
        self.count += 1;
        self.known.insert(id, Session { number: self.count, secret });
        self.order.push_back((self.count, id));
        while self.known.len() > PER_SHARD {
            let Some((number, id)) = self.order.pop_front() else { break };
            if self.is_there(number, &id) {
                self.known.remove(&id);
            }
        }
        if self.order.len() > 2 * PER_SHARD {
            self.tidy();
        }
    }

    fn is_there(&self, number: u64, id: &Id) -> bool {
        self.known.get(id).is_some_and(|session| session.number == number)
    }

    /// Nothing of those that are gone.
    fn tidy(&mut self) {
        let order = std::mem::take(&mut self.order);
        self.order = order.into_iter().filter(|(number, id)| self.is_there(*number, id)).collect();
    }

    fn age(&mut self) {
        let aged = std::mem::replace(&mut self.aged, self.count + 1);
        self.known.retain(|_, session| session.number >= aged);
        self.tidy();
    }
}

impl StoresServerSessions for Sessions {
    fn put(&self, id: Vec<u8>, secret: Vec<u8>) -> bool {
        self.of(&id, |shard, id| shard.put(id, secret.into())).is_some()
    }

    /// Of version 1.2, which knows no early data: a session may be gone on from several times.
    fn get(&self, id: &[u8]) -> Option<Vec<u8>> {
        self.of(id, |shard, id| shard.known.get(&id).map(|session| session.secret.to_vec()))?
    }

    fn take(&self, id: &[u8]) -> Option<Vec<u8>> {
        self.of(id, |shard, id| shard.known.remove(&id).map(|session| session.secret.into()))?
    }

    fn can_cache(&self) -> bool {
        true
    }
}

impl fmt::Debug for Sessions {
    /// Without the secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Sessions")
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    /// The n-th session of a share.
    fn id(shard: u8, n: usize) -> Vec<u8> {
        let mut id = vec![shard; NAME];
        id[1..9].copy_from_slice(&n.to_be_bytes());
        id
    }

    #[test]
    fn a_session_is_handed_out_once_whoever_asks() {
        let sessions = Sessions::default();
        let count = 200;
        (0..count).for_each(|n| assert!(sessions.put(id(n as u8, n), vec![1, 2, 3])));
        let handed = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    let mine = (0..count).filter(|n| sessions.take(&id(*n as u8, *n)).is_some()).count();
                    handed.fetch_add(mine, Ordering::Relaxed);
                });
            }
        });
        assert_eq!(handed.into_inner(), count);
    }

    #[test]
    fn the_oldest_go_first_and_no_more_are_kept_than_may_be() {
        let sessions = Sessions::default();
        // Half of them are taken at once: what is left of those is bounded too.
        for n in 0..3 * PER_SHARD {
            assert!(sessions.put(id(0, 2 * n), vec![0; 120]) && sessions.put(id(0, 2 * n + 1), vec![0; 120]));
            assert!(sessions.take(&id(0, 2 * n)).is_some());
        }
        let shard = sessions.0[0].lock().unwrap();
        assert_eq!(shard.known.len(), PER_SHARD - 1, "the last one was taken");
        assert!(shard.order.len() <= 2 * PER_SHARD, "{}", shard.order.len());
        drop(shard);
        assert!(sessions.get(&id(0, 2 * (2 * PER_SHARD) - 1)).is_none(), "an old one is gone");
        assert!(sessions.get(&id(0, 2 * (2 * PER_SHARD + 1) + 1)).is_some(), "a new one is there");
    }

    #[test]
    fn none_gets_older_than_two_turns() {
        let sessions = Sessions::default();
        assert!(sessions.put(id(0, 0), vec![0]));
        sessions.age();
        assert!(sessions.put(id(0, 1), vec![1]));
        assert!(sessions.get(&id(0, 0)).is_some());
        sessions.age();
        assert!(sessions.get(&id(0, 0)).is_none() && sessions.get(&id(0, 1)).is_some());
        sessions.age();
        assert!(sessions.get(&id(0, 1)).is_none());
    }

    #[test]
    fn what_is_no_name_is_nobodys() {
        let sessions = Sessions::default();
        assert!(!sessions.put(vec![0; NAME - 1], vec![0]));
        assert!(sessions.get(&[0; NAME - 1]).is_none() && sessions.take(&[]).is_none());
    }
}
