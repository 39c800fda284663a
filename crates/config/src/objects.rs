//! The objects of one kind by name, each behind a pointer: copies of a document share all that is the same in both.

use std::fmt;
use std::marker::PhantomData;
use std::ops::Index;
use std::sync::Arc;

use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::model::Name;
use crate::sorted::{Iter, Sorted};

/// Objects by name, in the order of their names.
pub struct Objects<T>(Sorted<Name, Arc<T>>);

/// A name, and the objects that have it in the old and the new ones.
pub type Differing<'a, T> = (&'a Name, Option<&'a Arc<T>>, Option<&'a Arc<T>>);

impl<T> Objects<T> {
    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether there is one of this name.
    pub fn contains_key(&self, name: &Name) -> bool {
        self.0.get(name).is_some()
    }

    /// The object of this name.
    pub fn get(&self, name: &Name) -> Option<&T> {
        self.shared(name).map(|object| &**object)
    }

    /// The object of this name, to be shared.
    pub fn shared(&self, name: &Name) -> Option<&Arc<T>> {
        self.0.get(name)
    }

    /// The name as it is held, and its object.
    pub fn get_key_value(&self, name: &Name) -> Option<(&Name, &T)> {
        self.0.get_key_value(name).map(|(name, object)| (name, &**object))
    }

    /// Every object, by name.
    pub fn iter(&self) -> Each<'_, T> {
        Each(self.0.iter())
    }

    /// Every object, by name, to be shared.
    pub fn iter_shared(&self) -> impl Iterator<Item = (&Name, &Arc<T>)> {
        self.0.iter()
    }

    /// Every name.
    pub fn keys(&self) -> impl Iterator<Item = &Name> {
        self.iter().map(|(name, _)| name)
    }

    /// Every object, by name.
    pub fn values(&self) -> impl Iterator<Item = &T> {
        self.iter().map(|(_, object)| object)
    }

    /// Give a name an object that others have too.
    pub fn insert_shared(&mut self, name: Name, object: Arc<T>) -> Option<Arc<T>> {
        self.0.insert(name, object)
    }

    /// Take an object out, which others may have still.
    pub fn remove_shared(&mut self, name: &Name) -> Option<Arc<T>> {
        self.0.remove(name)
    }

    /// Whether both are the same, of which nothing was changed since one was copied from the other.
    pub fn is_same(&self, other: &Self) -> bool {
        self.0.is_same(&other.0)
    }
}

impl<T: PartialEq> Objects<T> {
    /// What of them `other` has not, has besides, or has otherwise, by name. It costs what the two don't share.
    pub fn differences<'a>(&'a self, other: &'a Self) -> impl Iterator<Item = Differing<'a, T>> {
        self.0.differences(&other.0).filter(|(_, before, after)| match (before, after) {
            (Some(before), Some(after)) => !Arc::ptr_eq(before, after) && before != after,
            _ => true,
        })
    }
}

impl<T: Clone> Objects<T> {
    /// Give a name an object; what it had before.
    pub fn insert(&mut self, name: Name, object: T) -> Option<T> {
        self.insert_shared(name, Arc::new(object)).map(Arc::unwrap_or_clone)
    }

    /// Take the object of this name out.
    pub fn remove(&mut self, name: &Name) -> Option<T> {
        self.0.remove(name).map(Arc::unwrap_or_clone)
    }

    /// The object of this name, to be changed.
    pub fn get_mut(&mut self, name: &Name) -> Option<&mut T> {
        self.0.get_mut(name).map(Arc::make_mut)
    }

    /// Every object, by name, to be changed.
    pub fn values_mut(&mut self) -> impl Iterator<Item = &mut T> {
        self.0.iter_mut().map(|(_, object)| Arc::make_mut(object))
    }

    /// Keep those of which that holds.
    pub fn retain(&mut self, mut keeps: impl FnMut(&Name, &T) -> bool) {
        let gone: Vec<Name> =
            self.iter().filter(|(name, object)| !keeps(name, object)).map(|(name, _)| name.clone()).collect();
        gone.iter().for_each(|name| drop(self.remove_shared(name)));
    }
}

impl<T> Default for Objects<T> {
    fn default() -> Self {
        Objects(Sorted::default())
    }
}

impl<T> Clone for Objects<T> {
    fn clone(&self) -> Self {
        Objects(self.0.clone())
    }
}

impl<T: PartialEq> PartialEq for Objects<T> {
    fn eq(&self, other: &Self) -> bool {
        self.len() == other.len() && self.differences(other).next().is_none()
    }
}

impl<T: fmt::Debug> fmt::Debug for Objects<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl<T> Index<&Name> for Objects<T> {
    type Output = T;

    fn index(&self, name: &Name) -> &T {
        self.get(name).expect("an object is asked for by index only where it is known to be there")
    }
}

impl<T> FromIterator<(Name, T)> for Objects<T> {
    fn from_iter<I: IntoIterator<Item = (Name, T)>>(objects: I) -> Self {
        Objects(objects.into_iter().map(|(name, object)| (name, Arc::new(object))).collect())
    }
}

impl<T> FromIterator<(Name, Arc<T>)> for Objects<T> {
    fn from_iter<I: IntoIterator<Item = (Name, Arc<T>)>>(objects: I) -> Self {
        Objects(objects.into_iter().collect())
    }
}

impl<T: Clone> Extend<(Name, T)> for Objects<T> {
    fn extend<I: IntoIterator<Item = (Name, T)>>(&mut self, objects: I) {
        objects.into_iter().for_each(|(name, object)| drop(self.insert(name, object)));
    }
}

impl<T, const N: usize> From<[(Name, T); N]> for Objects<T> {
    fn from(objects: [(Name, T); N]) -> Self {
        objects.into_iter().collect()
    }
}

/// Every object, by name.
pub struct Each<'a, T>(Iter<'a, Name, Arc<T>>);

impl<'a, T> Iterator for Each<'a, T> {
    type Item = (&'a Name, &'a T);

    fn next(&mut self) -> Option<Self::Item> {
        self.0.next().map(|(name, object)| (name, &**object))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.0.size_hint()
    }
}

impl<'a, T> IntoIterator for &'a Objects<T> {
    type Item = (&'a Name, &'a T);
    type IntoIter = Each<'a, T>;

    fn into_iter(self) -> Each<'a, T> {
        self.iter()
    }
}

impl<T: Serialize> Serialize for Objects<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.iter())
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Objects<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(ByName(PhantomData))
    }
}

struct ByName<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for ByName<T> {
    type Value = Objects<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("objects by name")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Objects<T>, A::Error> {
        let mut objects: Vec<(Name, T)> = Vec::new();
        while let Some(entry) = map.next_entry()? {
            objects.push(entry);
        }
        Ok(objects.into_iter().collect())
    }
}
