//! Those who are in at one door: so many at once. Where one more comes, the one that matters least has to go, of those that
//! hold their place for themselves; so nobody keeps others out by being slow. Knows no protocol.

use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

use crate::access::Role;

/// Connections at once at one door.
pub(crate) const CLIENTS: usize = 64;
/// Of these, connections of those who may only look.
const LOOKERS: usize = 48;

/// Where all are being served, it is looked again so often whether one no longer is.
const AGAIN: Duration = Duration::from_millis(100);

const NOBODY: u8 = 0;
const LOOKER: u8 = 1;
const CHANGER: u8 = 2;

/// See the module's words.
pub(super) struct Guests {
    places: Arc<Semaphore>,
    /// The longest there first.
    inside: Mutex<Vec<Weak<Guest>>>,
}

/// One of them.
#[derive(Debug, Default)]
pub(crate) struct Guest {
    rank: AtomicU8,
    /// Whether what it asked for is being done: it waits for us, not we for it.
    is_served: AtomicBool,
    must_go: Notify,
    place: Mutex<Option<OwnedSemaphorePermit>>,
}

impl Guest {
    /// It asked for something whole, and that is being done; or it is over.
    pub(crate) fn serve(&self, is_served: bool) {
        self.is_served.store(is_served, Ordering::Relaxed);
    }

    /// Ready when it has to make room.
    pub(super) async fn must_go(&self) {
        self.must_go.notified().await;
    }

    /// It holds its place for itself.
    fn is_idle(&self) -> bool {
        !self.is_served.load(Ordering::Relaxed)
    }

    fn rank(&self) -> u8 {
        self.rank.load(Ordering::Relaxed)
    }
}

impl Guests {
    pub(super) fn new() -> Self {
        Guests { places: Arc::new(Semaphore::new(CLIENTS)), inside: Mutex::default() }
    }

    /// One more. It waits where all who are in are being served.
    pub(super) async fn enter(&self) -> Arc<Guest> {
        let place = match Arc::clone(&self.places).try_acquire_owned() {
            Ok(place) => place,
            Err(_) => self.make_room().await,
        };
        let guest = Arc::new(Guest { place: Mutex::new(Some(place)), ..Guest::default() });
        let mut inside = self.inside.lock().unwrap_or_else(PoisonError::into_inner);
        inside.retain(|guest| guest.strong_count() > 0);
        inside.push(Arc::downgrade(&guest));
        guest
    }

    async fn make_room(&self) -> OwnedSemaphorePermit {
        loop {
            self.send_out(|_| true);
            let place = tokio::time::timeout(AGAIN, Arc::clone(&self.places).acquire_owned());
            if let Ok(place) = place.await {
                return place.expect("the semaphore is never closed");
            }
        }
    }

    /// It turned out who one is.
    pub(super) fn know(&self, guest: &Guest, role: Option<Role>) {
        let rank = match role {
            None => NOBODY,
            Some(Role::ReadOnly) => LOOKER,
            Some(Role::ReadWrite) => CHANGER,
        };
        guest.rank.store(rank, Ordering::Relaxed);
        let lookers = || self.all().iter().filter(|guest| guest.rank() == LOOKER).count();
        if rank == LOOKER && lookers() > LOOKERS {
            self.send_out(|guest| guest.rank() == LOOKER);
        }
    }

    fn all(&self) -> Vec<Arc<Guest>> {
        self.inside.lock().unwrap_or_else(PoisonError::into_inner).iter().filter_map(Weak::upgrade).collect()
    }

    /// Have the least of these go: of the lowest rank, the one that is there the longest.
    fn send_out(&self, may: impl Fn(&Guest) -> bool) {
        let all = self.all();
        // A notice that is not heard yet is kept: nobody is asked twice.
        let staying = all
            .iter()
            .filter(|guest| may(guest) && guest.is_idle() && guest.place.lock().is_ok_and(|place| place.is_some()));
        if let Some(least) = staying.min_by_key(|guest| guest.rank()) {
            least.place.lock().unwrap_or_else(PoisonError::into_inner).take();
            least.must_go.notify_one();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_gone(guest: &Guest) -> bool {
        guest.place.lock().unwrap().is_none()
    }

    fn alone<T>(scene: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap().block_on(scene)
    }

    #[test]
    fn the_one_that_matters_least_makes_room() {
        alone(async {
            let guests = Guests::new();
            let mut all = Vec::new();
            for _ in 0..CLIENTS {
                let guest = guests.enter().await;
                guests.know(&guest, Some(Role::ReadWrite));
                all.push(guest);
            }
            guests.know(&all[9], Some(Role::ReadOnly));
            guests.know(&all[7], Some(Role::ReadOnly));
            guests.know(&all[8], None);
            all[0].serve(true);
            for gone in [8, 7, 9, 1] {
                let fresh = guests.enter().await;
                guests.know(&fresh, Some(Role::ReadWrite));
                assert!(is_gone(&all[gone]), "{gone}");
                tokio::time::timeout(AGAIN, all[gone].must_go()).await.expect("it was told");
                all.push(fresh);
            }
            let went = all.iter().filter(|guest| is_gone(guest)).count();
            assert_eq!(went, 4, "and nobody else");
        });
    }

    #[test]
    fn one_more_waits_while_all_are_served() {
        alone(async {
            let guests = Guests::new();
            let mut all = Vec::new();
            for _ in 0..CLIENTS {
                all.push(guests.enter().await);
            }
            all.iter().for_each(|guest| guest.serve(true));
            assert!(tokio::time::timeout(AGAIN * 5, guests.enter()).await.is_err());
            all[3].serve(false);
            tokio::time::timeout(AGAIN * 5, guests.enter()).await.expect("there is room");
            assert!(is_gone(&all[3]));
            drop(all.pop());
            tokio::time::timeout(AGAIN * 5, guests.enter()).await.expect("one has left");
        });
    }

    #[test]
    fn those_who_only_look_leave_places_for_those_who_change() {
        alone(async {
            let guests = Guests::new();
            let mut all = Vec::new();
            for _ in 0..LOOKERS + 3 {
                let guest = guests.enter().await;
                guests.know(&guest, Some(Role::ReadOnly));
                all.push(guest);
            }
            let went: Vec<bool> = all.iter().take(4).map(|guest| is_gone(guest)).collect();
            assert_eq!(went, [true, true, true, false]);
        });
    }
}
