//! A table whose copies share what they have in common: a copy costs nothing, a change of a copy a few nodes, and a lookup
//! a few steps more than in a table of its own. For what every worker looks up and a change replaces in part.
//!
//! Each level goes by four bits of the key's hash; where few keys are left they stand in a list.

use std::borrow::Borrow;
use std::fmt;
use std::hash::{BuildHasher, Hash};
use std::sync::Arc;

use foldhash::fast::FixedState;
use smallvec::SmallVec;

/// Bits of a hash that one level goes by.
const BITS: u32 = 4;
/// A list that gets longer is divided.
const LISTED: usize = 8;

/// See the module's words.
#[derive(Clone)]
pub(crate) struct Trie<K, V> {
    root: Link<K, V>,
}

/// What it leads to says itself what it is, so that a lookup reads no more of a branch than one link: where there are very
/// many keys, each place that it goes to is in no cache.
enum Link<K, V> {
    Empty,
    List(Arc<List<K, V>>),
    Branch(Arc<Branch<K, V>>),
}

type Branch<K, V> = [Link<K, V>; 1 << BITS];

/// One key or two stand in place.
type List<K, V> = SmallVec<[Held<K, V>; 2]>;

#[derive(Clone)]
struct Held<K, V> {
    hash: u64,
    key: K,
    value: V,
}

impl<K, V> Link<K, V> {
    fn is_empty(&self) -> bool {
        matches!(self, Link::Empty)
    }
}

impl<K, V> Clone for Link<K, V> {
    fn clone(&self) -> Self {
        match self {
            Link::Empty => Link::Empty,
            Link::List(list) => Link::List(Arc::clone(list)),
            Link::Branch(branch) => Link::Branch(Arc::clone(branch)),
        }
    }
}

impl<K, V> Default for Trie<K, V> {
    fn default() -> Self {
        Trie { root: Link::Empty }
    }
}

impl<K: fmt::Debug, V: fmt::Debug> fmt::Debug for Trie<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

impl<K, V> Trie<K, V> {
    /// Whether there is nothing in it.
    pub(crate) fn is_empty(&self) -> bool {
        self.root.is_empty()
    }

    /// What a key has.
    pub(crate) fn get<Q: Hash + Eq + ?Sized>(&self, key: &Q) -> Option<&V>
    where
        K: Borrow<Q>,
    {
        let hash = hash(key);
        let (mut link, mut left) = (&self.root, hash);
        while let Link::Branch(branch) = link {
            (link, left) = (&branch[at(left)], left >> BITS);
        }
        let Link::List(list) = link else { return None };
        let held = list.iter().find(|held| held.hash == hash && held.key.borrow() == key);
        held.map(|held| &held.value)
    }

    /// All that is in it, in no order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&K, &V)> {
        let mut ahead = vec![&self.root];
        let mut list: &[Held<K, V>] = &[];
        std::iter::from_fn(move || {
            loop {
                if let Some((held, rest)) = list.split_first() {
                    list = rest;
                    return Some((&held.key, &held.value));
                }
                match ahead.pop()? {
                    Link::Empty => {}
                    Link::List(next) => list = next,
                    Link::Branch(branch) => ahead.extend(&**branch),
                }
            }
        })
    }
}

impl<K: Hash + Eq + Clone, V: Clone + Default> Trie<K, V> {
    /// Change what a key has, which begins as the default; a value that is `gone` after it goes with its key.
    pub(crate) fn change(&mut self, key: &K, change: impl FnOnce(&mut V), gone: impl FnOnce(&V) -> bool) {
        let hash = hash(key);
        change_in(&mut self.root, (hash, hash, 0), key, change, gone);
    }
}

/// Where a hash is at: the whole of it, what of it no level has gone by, and how many levels have.
type At = (u64, u64, u32);

fn change_in<K: Hash + Eq + Clone, V: Clone + Default>(
    link: &mut Link<K, V>,
    (hash, left, depth): At,
    key: &K,
    change: impl FnOnce(&mut V),
    gone: impl FnOnce(&V) -> bool,
) {
    match link {
        Link::Empty => {
            let mut value = V::default();
            change(&mut value);
            if !gone(&value) {
                let held = Held { hash, key: key.clone(), value };
                *link = Link::List(Arc::new(List::from_iter([held])));
            }
        }
        Link::Branch(branch) => {
            let branch = Arc::make_mut(branch);
            change_in(&mut branch[at(left)], (hash, left >> BITS, depth + 1), key, change, gone);
            if branch.iter().all(Link::is_empty) {
                *link = Link::Empty;
            }
        }
        Link::List(list) => {
            let list = Arc::make_mut(list);
            let found = list.iter().position(|held| held.hash == hash && held.key == *key);
            let place = found.unwrap_or_else(|| {
                list.push(Held { hash, key: key.clone(), value: V::default() });
                list.len() - 1
            });
            change(&mut list[place].value);
            if gone(&list[place].value) {
                list.swap_remove(place);
            }
            if list.is_empty() {
                *link = Link::Empty;
            } else if list.len() > LISTED && (depth + 1) * BITS < u64::BITS {
                *link = divided(std::mem::take(list), depth);
            }
        }
    }
}

/// A list that is too long, as lists by the next bits.
fn divided<K, V>(list: List<K, V>, depth: u32) -> Link<K, V> {
    let mut lists: [List<K, V>; 1 << BITS] = std::array::from_fn(|_| List::new());
    list.into_iter().for_each(|held| lists[at(held.hash >> (depth * BITS))].push(held));
    Link::Branch(Arc::new(lists.map(|list| match list.is_empty() {
        true => Link::Empty,
        false => Link::List(Arc::new(list)),
    })))
}

fn at(left: u64) -> usize {
    (left & ((1 << BITS) - 1)) as usize
}

fn hash<Q: Hash + ?Sized>(key: &Q) -> u64 {
    FixedState::default().hash_one(key)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    fn put(trie: &mut Trie<u16, u8>, key: u16, value: Option<u8>) {
        trie.change(&key, |held| *held = value.unwrap_or(0), |held| *held == 0);
    }

    proptest! {
        #[test]
        fn it_holds_what_a_map_holds(changes in proptest::collection::vec((0u16..600, proptest::option::of(1u8..)), 0..900)) {
            let (mut trie, mut model) = (Trie::default(), BTreeMap::new());
            let mut old = (trie.clone(), model.clone());
            for (n, (key, value)) in changes.into_iter().enumerate() {
                put(&mut trie, key, value);
                match value {
                    Some(value) => drop(model.insert(key, value)),
                    None => drop(model.remove(&key)),
                }
                if n == 300 {
                    old = (trie.clone(), model.clone());
                }
            }
            for (trie, model) in [(trie, model), old] {
                prop_assert!((0..600).all(|key| trie.get(&key) == model.get(&key)));
                prop_assert_eq!(trie.iter().map(|(key, value)| (*key, *value)).collect::<BTreeMap<_, _>>(), model.clone());
                prop_assert_eq!(trie.is_empty(), model.is_empty());
            }
        }
    }

    #[test]
    fn keys_of_one_hash_are_told_apart() {
        #[derive(Clone, PartialEq, Eq)]
        struct Same(u8);
        impl Hash for Same {
            fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
                0u8.hash(state);
            }
        }
        let mut trie: Trie<Same, u8> = Trie::default();
        (0..200).for_each(|key| trie.change(&Same(key), |held| *held = key, |_| false));
        assert!((0..200).all(|key| trie.get(&Same(key)) == Some(&key)));
    }
}
