//! An ordered map whose copies share what they have in common: a copy costs nothing, a change of a copy the way from its
//! root to the key, and what differs between two is found without a look at what they share. It knows no document.
//!
//! A treap whose priorities are hashes of the keys: its shape follows from its keys alone, whatever the order in which
//! they came. So two maps of nearly the same keys have nearly the same subtrees, at the same places.

use std::borrow::Borrow;
use std::cmp::Ordering;
use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

/// See the module's words.
pub struct Sorted<K, V> {
    root: Link<K, V>,
}

type Link<K, V> = Option<Arc<Node<K, V>>>;

#[derive(Clone)]
struct Node<K, V> {
    key: K,
    value: V,
    rank: u64,
    /// How many there are, with itself.
    size: usize,
    left: Link<K, V>,
    right: Link<K, V>,
}

impl<K, V> Default for Sorted<K, V> {
    fn default() -> Self {
        Sorted { root: None }
    }
}

impl<K, V> Clone for Sorted<K, V> {
    fn clone(&self) -> Self {
        Sorted { root: self.root.clone() }
    }
}

impl<K: fmt::Debug, V: fmt::Debug> fmt::Debug for Sorted<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

impl<K, V> Sorted<K, V> {
    /// How many there are.
    pub fn len(&self) -> usize {
        size(&self.root)
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.root.is_none()
    }

    /// Whether both are one map, of which nothing was changed since one was copied from the other.
    pub fn is_same(&self, other: &Self) -> bool {
        match (&self.root, &other.root) {
            (Some(a), Some(b)) => Arc::ptr_eq(a, b),
            (a, b) => a.is_none() && b.is_none(),
        }
    }

    /// All of them, by key.
    pub fn iter(&self) -> Iter<'_, K, V> {
        let mut ahead = Vec::new();
        descend(&self.root, &mut ahead);
        Iter { ahead, left: self.len() }
    }

    /// Those from this key on, by key.
    pub fn from<'a, Q: Ord + ?Sized>(&'a self, key: &Q) -> impl Iterator<Item = (&'a K, &'a V)> + use<'a, K, V, Q>
    where
        K: Borrow<Q>,
    {
        let (mut ahead, mut link) = (Vec::new(), &self.root);
        while let Some(node) = link {
            link = match node.key.borrow() < key {
                true => &node.right,
                false => {
                    ahead.push(&**node);
                    &node.left
                }
            };
        }
        Iter { left: self.len(), ahead }
    }

    /// What a key has.
    pub fn get<Q: Ord + ?Sized>(&self, key: &Q) -> Option<&V>
    where
        K: Borrow<Q>,
    {
        self.get_key_value(key).map(|(_, value)| value)
    }

    /// The key as it is held, and what it has.
    pub fn get_key_value<Q: Ord + ?Sized>(&self, key: &Q) -> Option<(&K, &V)>
    where
        K: Borrow<Q>,
    {
        let mut link = &self.root;
        while let Some(node) = link {
            link = match key.cmp(node.key.borrow()) {
                Ordering::Equal => return Some((&node.key, &node.value)),
                Ordering::Less => &node.left,
                Ordering::Greater => &node.right,
            };
        }
        None
    }

    /// What has to be done to make `other` of it: each key that is not in both with the same value in the same memory,
    /// in order, with what it has here and there. Equal values may be among them where the two were made apart.
    pub fn differences<'a>(&'a self, other: &'a Self) -> Differences<'a, K, V> {
        let pending = |map: &'a Self| map.root.iter().map(Pending::Tree).collect();
        Differences { old: pending(self), new: pending(other) }
    }
}

impl<K: Ord + Hash + Clone, V: Clone> Sorted<K, V> {
    /// Give a key a value; what it had before.
    pub fn insert(&mut self, key: K, value: V) -> Option<V> {
        let rank = rank(&key);
        insert(&mut self.root, Node { key, value, rank, size: 1, left: None, right: None })
    }

    /// Take a key out; what it had.
    pub fn remove<Q: Ord + ?Sized>(&mut self, key: &Q) -> Option<V>
    where
        K: Borrow<Q>,
    {
        // Nothing is copied for a key that isn't there.
        self.get(key)?;
        remove(&mut self.root, key)
    }

    /// What a key has, to be changed.
    pub fn get_mut<Q: Ord + ?Sized>(&mut self, key: &Q) -> Option<&mut V>
    where
        K: Borrow<Q>,
    {
        self.get(key)?;
        let mut link = &mut self.root;
        while let Some(node) = link {
            let node = Arc::make_mut(node);
            link = match key.cmp(node.key.borrow()) {
                Ordering::Equal => return Some(&mut node.value),
                Ordering::Less => &mut node.left,
                Ordering::Greater => &mut node.right,
            };
        }
        None
    }

    /// All of them, by key, to be changed.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = (&K, &mut V)> {
        let mut all = Vec::with_capacity(self.len());
        each_mut(&mut self.root, &mut all);
        all.into_iter()
    }
}

impl<K: Ord + Hash, V> FromIterator<(K, V)> for Sorted<K, V> {
    /// Of items with the same key the last one counts.
    fn from_iter<I: IntoIterator<Item = (K, V)>>(items: I) -> Self {
        let mut items: Vec<(K, V)> = items.into_iter().collect();
        items.sort_by(|a, b| a.0.cmp(&b.0));
        // The way from the root along the right sides: each ranks above those behind it, and lacks its right side.
        let mut edge: Vec<Node<K, V>> = Vec::new();
        for (key, value) in items {
            if let Some(last) = edge.last_mut().filter(|last| last.key == key) {
                last.value = value;
                continue;
            }
            let mut fresh = Node { rank: rank(&key), key, value, size: 1, left: None, right: None };
            fresh.left = gather(&mut edge, |last| last.order(&fresh) == Ordering::Less);
            edge.push(fresh);
        }
        Sorted { root: gather(&mut edge, |_| true) }
    }
}

/// What stands at the end of the edge as one subtree, as far as that holds of it.
fn gather<K, V>(edge: &mut Vec<Node<K, V>>, ends: impl Fn(&Node<K, V>) -> bool) -> Link<K, V> {
    let mut link = None;
    while let Some(mut last) = edge.pop_if(|last| ends(last)) {
        last.right = link;
        last.resize();
        link = Some(Arc::new(last));
    }
    link
}

/// All of a map, by key.
pub struct Iter<'a, K, V> {
    /// Nodes whose left side was given already; the next one last.
    ahead: Vec<&'a Node<K, V>>,
    /// At most so many are left.
    left: usize,
}

impl<'a, K, V> Iterator for Iter<'a, K, V> {
    type Item = (&'a K, &'a V);

    fn next(&mut self) -> Option<Self::Item> {
        let node = self.ahead.pop()?;
        self.left = self.left.saturating_sub(1);
        descend(&node.right, &mut self.ahead);
        Some((&node.key, &node.value))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.ahead.len(), Some(self.left.max(self.ahead.len())))
    }
}

/// What differs between two maps. An item is a key, and what it has in the old and the new one.
pub struct Differences<'a, K, V> {
    old: Vec<Pending<'a, K, V>>,
    new: Vec<Pending<'a, K, V>>,
}

/// What of a map was not compared yet.
enum Pending<'a, K, V> {
    Tree(&'a Arc<Node<K, V>>),
    One(&'a Node<K, V>),
}

/// A key, and what it has in the old and the new map.
pub type Difference<'a, K, V> = (&'a K, Option<&'a V>, Option<&'a V>);

impl<'a, K: Ord, V> Iterator for Differences<'a, K, V> {
    type Item = Difference<'a, K, V>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let (old, new) = (&mut self.old, &mut self.new);
            match (old.last(), new.last()) {
                (None, None) => return None,
                (Some(Pending::Tree(a)), Some(Pending::Tree(b))) if Arc::ptr_eq(a, b) => {
                    old.pop();
                    new.pop();
                }
                // One that ranks above the other can't stand in it: only its own sides can be the same as that.
                (Some(Pending::Tree(a)), Some(Pending::Tree(b))) => match a.order(b) {
                    Ordering::Greater => open(old),
                    Ordering::Less => open(new),
                    Ordering::Equal => {
                        open(old);
                        open(new);
                    }
                },
                (Some(Pending::Tree(_)), _) => open(old),
                (_, Some(Pending::Tree(_))) => open(new),
                (Some(&Pending::One(a)), Some(&Pending::One(b))) => {
                    let order = a.key.cmp(&b.key);
                    let before = (order != Ordering::Greater).then(|| take(old, a));
                    let after = (order != Ordering::Less).then(|| take(new, b));
                    let key = if order == Ordering::Greater { &b.key } else { &a.key };
                    return Some((key, before, after));
                }
                (Some(&Pending::One(a)), None) => return Some((&a.key, Some(take(old, a)), None)),
                (None, Some(&Pending::One(b))) => return Some((&b.key, None, Some(take(new, b)))),
            }
        }
    }
}

/// The topmost subtree as what it is made of.
fn open<K, V>(pending: &mut Vec<Pending<'_, K, V>>) {
    if let Some(Pending::Tree(node)) = pending.pop() {
        pending.extend(node.right.as_ref().map(Pending::Tree));
        pending.push(Pending::One(node));
        pending.extend(node.left.as_ref().map(Pending::Tree));
    }
}

fn take<'a, K, V>(pending: &mut Vec<Pending<'a, K, V>>, node: &'a Node<K, V>) -> &'a V {
    pending.pop();
    &node.value
}

impl<K: Ord, V> Node<K, V> {
    /// Whether it stands above another: by rank, and by key where that is the same.
    fn order(&self, other: &Node<K, V>) -> Ordering {
        self.rank.cmp(&other.rank).then_with(|| self.key.cmp(&other.key))
    }
}

impl<K, V> Node<K, V> {
    fn resize(&mut self) {
        self.size = 1 + size(&self.left) + size(&self.right);
    }
}

fn size<K, V>(link: &Link<K, V>) -> usize {
    link.as_ref().map_or(0, |node| node.size)
}

/// The same for a key wherever it stands. Names are the operator's own: nobody chooses them to make it slow.
fn rank<K: Hash>(key: &K) -> u64 {
    let mut hasher = DefaultHasher::new();
    key.hash(&mut hasher);
    hasher.finish()
}

fn descend<'a, K, V>(mut link: &'a Link<K, V>, ahead: &mut Vec<&'a Node<K, V>>) {
    while let Some(node) = link {
        ahead.push(node);
        link = &node.left;
    }
}

fn each_mut<'a, K: Clone, V: Clone>(link: &'a mut Link<K, V>, all: &mut Vec<(&'a K, &'a mut V)>) {
    let Some(node) = link else { return };
    let Node { key, value, left, right, .. } = Arc::make_mut(node);
    each_mut(left, all);
    all.push((key, value));
    each_mut(right, all);
}

fn insert<K: Ord + Clone, V: Clone>(link: &mut Link<K, V>, mut fresh: Node<K, V>) -> Option<V> {
    let Some(there) = link else {
        *link = Some(Arc::new(fresh));
        return None;
    };
    let side = fresh.key.cmp(&there.key);
    if side == Ordering::Equal {
        return Some(std::mem::replace(&mut Arc::make_mut(there).value, fresh.value));
    }
    if fresh.order(there) == Ordering::Greater {
        (fresh.left, fresh.right) = split(link.take(), &fresh.key);
        fresh.resize();
        *link = Some(Arc::new(fresh));
        return None;
    }
    let node = Arc::make_mut(there);
    let before = insert(if side == Ordering::Less { &mut node.left } else { &mut node.right }, fresh);
    node.resize();
    before
}

/// What is below a key that isn't in it, and what is above.
fn split<K: Ord + Clone, V: Clone>(link: Link<K, V>, key: &K) -> (Link<K, V>, Link<K, V>) {
    let Some(mut whole) = link else { return (None, None) };
    let node = Arc::make_mut(&mut whole);
    if node.key < *key {
        let (below, above) = split(node.right.take(), key);
        node.right = below;
        node.resize();
        (Some(whole), above)
    } else {
        let (below, above) = split(node.left.take(), key);
        node.left = above;
        node.resize();
        (below, Some(whole))
    }
}

fn remove<K: Ord + Clone + Borrow<Q>, V: Clone, Q: Ord + ?Sized>(link: &mut Link<K, V>, key: &Q) -> Option<V> {
    let there = link.as_mut()?;
    let node = match key.cmp(there.key.borrow()) {
        Ordering::Equal => {
            let gone = link.take()?;
            *link = join(gone.left.clone(), gone.right.clone());
            return Some(Arc::try_unwrap(gone).map_or_else(|shared| shared.value.clone(), |node| node.value));
        }
        Ordering::Less => &mut Arc::make_mut(there).left,
        Ordering::Greater => &mut Arc::make_mut(there).right,
    };
    let before = remove(node, key);
    Arc::make_mut(there).resize();
    before
}

/// One of two, all of whose keys are below those of the other.
fn join<K: Ord + Clone, V: Clone>(below: Link<K, V>, above: Link<K, V>) -> Link<K, V> {
    match (below, above) {
        (None, one) | (one, None) => one,
        (Some(mut a), Some(mut b)) => Some(if a.order(&b) == Ordering::Greater {
            let node = Arc::make_mut(&mut a);
            node.right = join(node.right.take(), Some(b));
            node.resize();
            a
        } else {
            let node = Arc::make_mut(&mut b);
            node.left = join(Some(a), node.left.take());
            node.resize();
            b
        }),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    /// Every key of one that the other hasn't with the same value.
    fn differing(old: &BTreeMap<u8, u8>, new: &BTreeMap<u8, u8>) -> Vec<(u8, Option<u8>, Option<u8>)> {
        let keys: std::collections::BTreeSet<u8> = old.keys().chain(new.keys()).copied().collect();
        let all = keys.into_iter().map(|key| (key, old.get(&key).copied(), new.get(&key).copied()));
        all.filter(|(_, before, after)| before != after).collect()
    }

    proptest! {
        #[test]
        fn it_is_what_an_ordered_map_is(
            first in proptest::collection::vec((any::<u8>(), any::<u8>()), 0..80),
            then in proptest::collection::vec((any::<u8>(), proptest::option::of(any::<u8>())), 0..20),
        ) {
            let (mut map, mut model) = (Sorted::default(), BTreeMap::new());
            for (key, value) in first {
                prop_assert_eq!(map.insert(key, value), model.insert(key, value));
            }
            let (old, old_model) = (map.clone(), model.clone());
            for (key, value) in then {
                match value {
                    Some(value) => prop_assert_eq!(map.insert(key, value), model.insert(key, value)),
                    None => prop_assert_eq!(map.remove(&key), model.remove(&key)),
                }
                prop_assert_eq!(map.get(&key), model.get(&key));
            }
            prop_assert!(map.iter().eq(&model) && old.iter().eq(&old_model));
            prop_assert_eq!(map.len(), model.len());
            prop_assert!(map.from(&100).eq(model.range(100..)));
            let found = old.differences(&map).map(|(key, before, after)| (*key, before.copied(), after.copied()));
            let found: Vec<_> = found.filter(|(_, before, after)| before != after).collect();
            prop_assert_eq!(found, differing(&old_model, &model));
            map.iter_mut().for_each(|(_, value)| *value = value.wrapping_add(1));
            model.values_mut().for_each(|value| *value = value.wrapping_add(1));
            prop_assert!(map.iter().eq(&model) && old.iter().eq(&old_model));
        }
    }

    #[test]
    fn what_differs_is_found_without_a_look_at_what_does_not() {
        let old: Sorted<u32, u32> = (0..100_000).map(|key| (key * 2, 0)).collect();
        let mut new = old.clone();
        assert!(old.is_same(&new));
        new.insert(30_000, 1);
        new.insert(77_777, 1);
        new.remove(&150_000);
        let mut looked = old.differences(&new);
        let found: Vec<_> = looked.by_ref().filter(|(_, before, after)| before != after).collect();
        assert_eq!(found, [(&30_000, Some(&0), Some(&1)), (&77_777, None, Some(&1)), (&150_000, Some(&0), None)]);
        // Those on the way to what was changed are looked at too.
        assert!(old.differences(&new).count() < 500, "{}", old.differences(&new).count());
    }

    #[test]
    fn it_looks_the_same_in_whatever_order_it_was_made() {
        let (up, down): (Sorted<u32, ()>, Sorted<u32, ()>) =
            ((0..1_000).map(|key| (key, ())).collect(), (0..1_000).rev().map(|key| (key, ())).collect());
        fn shape<K: Copy, V>(link: &Link<K, V>, depth: usize, out: &mut Vec<(K, usize)>) {
            let Some(node) = link else { return };
            shape(&node.left, depth + 1, out);
            out.push((node.key, depth));
            shape(&node.right, depth + 1, out);
        }
        let (mut a, mut b) = (Vec::new(), Vec::new());
        shape(&up.root, 0, &mut a);
        shape(&down.root, 0, &mut b);
        assert_eq!(a, b);
        assert!(a.iter().all(|(_, depth)| *depth < 60), "it is about as deep as its size has digits");
    }
}
