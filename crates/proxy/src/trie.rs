//! A table whose copies share what they have in common: a copy costs nothing, a change of a copy a few nodes, and a lookup
//! a few steps more than in a table of its own. For what every worker looks up and a change replaces in part.
//!
//! Each level goes by five bits of the key's hash; where few keys are left they stand in a list. Where there are very many
//! keys each place that a lookup goes to is in no cache, so it goes to few: a link says what it leads to, and by eight
//! more bits of each key's hash, which of a list it may be.

use std::borrow::Borrow;
use std::fmt;
use std::hash::{BuildHasher, Hash};
use std::sync::Arc;

use foldhash::fast::FixedState;

/// Bits of a hash that one level goes by.
const BITS: u32 = 5;
/// A list that gets longer is divided, as long as there are bits to go by.
const LISTED: usize = 15;

/// See the module's words.
#[derive(Clone)]
pub(crate) struct Trie<K, V> {
    root: Link<K, V>,
}

/// With the tags of the first keys of a list.
enum Link<K, V> {
    Empty,
    List([u8; LISTED], Arc<[Held<K, V>]>),
    Branch(Arc<Branch<K, V>>),
}

type Branch<K, V> = [Link<K, V>; 1 << BITS];

#[derive(Clone)]
struct Held<K, V> {
    key: K,
    value: V,
}

impl<K, V> Link<K, V> {
    fn is_empty(&self) -> bool {
        matches!(self, Link::Empty)
    }

    /// What it leads to at once.
    fn listed(&self) -> &[Held<K, V>] {
        match self {
            Link::List(_, list) => list,
            Link::Empty | Link::Branch(_) => &[],
        }
    }
}

impl<K: Hash, V> Link<K, V> {
    /// To these, which so many levels have brought here.
    fn to(list: Vec<Held<K, V>>, depth: u32) -> Self {
        if list.is_empty() {
            return Link::Empty;
        }
        if list.len() > LISTED && depth * BITS < u64::BITS {
            let mut lists: [Vec<Held<K, V>>; 1 << BITS] = std::array::from_fn(|_| Vec::new());
            list.into_iter().for_each(|held| lists[at(hash(&held.key) >> (depth * BITS))].push(held));
            return Link::Branch(Arc::new(lists.map(|list| Link::to(list, depth + 1))));
        }
        let mut tags = [0; LISTED];
        tags.iter_mut().zip(&list).for_each(|(known, held)| *known = tag(hash(&held.key)));
        Link::List(tags, list.into())
    }
}

impl<K, V> Clone for Link<K, V> {
    fn clone(&self) -> Self {
        match self {
            Link::Empty => Link::Empty,
            Link::List(tags, list) => Link::List(*tags, Arc::clone(list)),
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
        if self.is_empty() {
            return None;
        }
        let hash = hash(key);
        let (mut link, mut left) = (&self.root, hash);
        while let Link::Branch(branch) = link {
            (link, left) = (&branch[at(left)], left >> BITS);
        }
        let Link::List(tags, list) = link else { return None };
        place(tags, list, (hash, key)).map(|at| &list[at].value)
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
                    Link::List(_, next) => list = next,
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
    let found = match link {
        Link::Empty => None,
        Link::List(tags, list) => place(tags, list, (hash, key)),
        Link::Branch(branch) => {
            let branch = Arc::make_mut(branch);
            change_in(&mut branch[at(left)], (hash, left >> BITS, depth + 1), key, change, gone);
            if branch.iter().all(Link::is_empty) {
                *link = Link::Empty;
            }
            return;
        }
    };
    match (&mut *link, found) {
        (Link::List(_, list), Some(at)) => {
            let value = &mut Arc::make_mut(list)[at].value;
            change(value);
            if gone(value) {
                let others = list.iter().enumerate().filter(|(other, _)| *other != at);
                *link = Link::to(others.map(|(_, held)| held.clone()).collect(), depth);
            }
        }
        (link, _) => {
            let mut value = V::default();
            change(&mut value);
            if !gone(&value) {
                let new = Held { key: key.clone(), value };
                *link = Link::to(link.listed().iter().cloned().chain([new]).collect(), depth);
            }
        }
    }
}

/// Where a list has a key of that hash. What has another tag is not looked at; what stands behind those with tags is.
fn place<K: Borrow<Q>, V, Q: Eq + ?Sized>(
    tags: &[u8; LISTED],
    list: &[Held<K, V>],
    (hash, key): (u64, &Q),
) -> Option<usize> {
    let tag = tag(hash);
    let is_it = |held: &Held<K, V>| held.key.borrow() == key;
    let tagged = list.iter().zip(tags).position(|(held, known)| *known == tag && is_it(held));
    tagged.or_else(|| Some(LISTED + list.get(LISTED..)?.iter().position(is_it)?))
}

/// Bits of a hash that only levels go by which keys of nearly one hash are divided at.
fn tag(hash: u64) -> u8 {
    (hash >> 56) as u8
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
    fn very_many_keys_come_and_go() {
        let mut trie: Trie<u32, u32> = Trie::default();
        let all: Vec<u32> = (0..20_000).collect();
        all.iter().for_each(|key| trie.change(key, |held| *held = key + 1, |_| false));
        let full = trie.clone();
        let (gone, stay): (Vec<u32>, Vec<u32>) = all.iter().partition(|key| *key % 3 != 0);
        gone.iter().for_each(|key| trie.change(key, |_| {}, |_| true));
        assert!(all.iter().all(|key| full.get(key) == Some(&(key + 1))));
        assert!(stay.iter().all(|key| trie.get(key) == Some(&(key + 1))));
        assert!(gone.iter().all(|key| trie.get(key).is_none()));
        assert_eq!(trie.iter().count(), stay.len());
        stay.iter().for_each(|key| trie.change(key, |_| {}, |_| true));
        assert!(trie.is_empty());
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
