//! A map that is one array, sorted by key: few entries, mostly added at the end, mostly looked up one after another.
//!
//! Key types: [`Sorted`]. What the model keeps by address or by frame lies in these: no node is allocated for an entry, and
//! an array asks for memory once for many, and not again when it has shrunk. Only where a key is neither what was found last nor
//! the next one it is searched for.

use core::cell::Cell;
use core::ops::Range;

/// For how many entries the first one takes room.
const ROOM: usize = 32;

/// Values by key, in the order of the keys.
#[derive(Clone)]
pub(crate) struct Sorted<K, V> {
    items: Vec<(K, V)>,
    /// Where the last key was found: a hint.
    last: Cell<usize>,
}

impl<K, V> Default for Sorted<K, V> {
    fn default() -> Self {
        Self { items: Vec::new(), last: Cell::new(0) }
    }
}

impl<K: Ord + Copy, V> Sorted<K, V> {
    /// Where a key stands, or where it would.
    #[inline]
    fn find(&self, key: K) -> Result<usize, usize> {
        let last = self.last.get();
        let is_there = |place: usize| self.items.get(place).is_some_and(|(other, _)| *other == key);
        if is_there(last) {
            return Ok(last);
        }
        let found = match self.items.last() {
            _ if is_there(last + 1) => Ok(last + 1),
            Some((end, _)) if *end >= key => self.search(key),
            _ => Err(self.items.len()),
        };
        if let Ok(place) = found {
            self.last.set(place);
        }
        found
    }
    #[inline(never)]
    fn search(&self, key: K) -> Result<usize, usize> {
        self.items.binary_search_by(|(other, _)| other.cmp(&key))
    }
    /// Where the last key stands that is not above `key`.
    #[inline]
    fn last_upto(&self, key: K) -> Option<usize> {
        let last = self.last.get();
        let is_it = self.items.get(last).is_some_and(|(other, _)| *other <= key)
            && self.items.get(last + 1).is_none_or(|(next, _)| *next > key);
        let found = match self.items.last() {
            _ if is_it => Some(last),
            Some((end, _)) if *end >= key => self.search(key).map_or_else(|place| place.checked_sub(1), Some),
            _ => self.items.len().checked_sub(1),
        };
        self.last.set(found.unwrap_or(last));
        found
    }
    /// How many keys are below `key`.
    fn below(&self, key: K) -> usize {
        self.find(key).unwrap_or_else(|place| place)
    }
    /// What stands at a key.
    #[inline]
    pub(crate) fn get(&self, key: K) -> Option<&V> {
        Some(&self.items[self.find(key).ok()?].1)
    }
    /// What stands at a key.
    #[inline]
    pub(crate) fn get_mut(&mut self, key: K) -> Option<&mut V> {
        let place = self.find(key).ok()?;
        Some(&mut self.items[place].1)
    }
    /// Whether something stands at a key.
    #[inline]
    pub(crate) fn has(&self, key: K) -> bool {
        self.find(key).is_ok()
    }
    /// Puts a value at a key; gives what stood there.
    #[inline]
    pub(crate) fn insert(&mut self, key: K, value: V) -> Option<V> {
        match self.find(key) {
            Ok(place) => Some(core::mem::replace(&mut self.items[place].1, value)),
            Err(place) => {
                if self.items.capacity() == 0 {
                    self.items.reserve_exact(ROOM);
                }
                self.items.insert(place, (key, value));
                None
            }
        }
    }
    /// Takes out what stands at a key.
    pub(crate) fn remove(&mut self, key: K) -> Option<V> {
        let place = self.find(key).ok()?;
        Some(self.items.remove(place).1)
    }
    /// Keeps the values that `keep` wants.
    pub(crate) fn retain(&mut self, mut keep: impl FnMut(&V) -> bool) {
        self.items.retain(|(_, value)| keep(value));
    }
    /// The value of the last key that is not above `key`.
    #[inline]
    pub(crate) fn at_or_before(&self, key: K) -> Option<&V> {
        Some(&self.items[self.last_upto(key)?].1)
    }
    /// The same, to change.
    pub(crate) fn at_or_before_mut(&mut self, key: K) -> Option<&mut V> {
        let place = self.last_upto(key)?;
        Some(&mut self.items[place].1)
    }
    /// The value of the first key that is not below `key`.
    pub(crate) fn at_or_behind(&self, key: K) -> Option<&V> {
        self.items.get(self.below(key)).map(|(_, value)| value)
    }
    /// Keys and values of a range of keys.
    pub(crate) fn range(&self, keys: Range<K>) -> &[(K, V)] {
        let first = self.below(keys.start);
        &self.items[first..self.below(keys.end).max(first)]
    }
    /// All keys and values.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (K, &V)> {
        self.items.iter().map(|(key, value)| (*key, value))
    }
    /// The same, to change.
    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = (K, &mut V)> {
        self.items.iter_mut().map(|(key, value)| (*key, value))
    }
    /// All values.
    pub(crate) fn values(&self) -> impl Iterator<Item = &V> {
        self.items.iter().map(|(_, value)| value)
    }
    /// Whether there are none.
    pub(crate) fn is_empty(&self) -> bool {
        self.items.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;
    use sync::sim::Rng;

    #[test]
    fn it_is_a_map() {
        let (mut map, mut model, mut rng) = (Sorted::default(), BTreeMap::new(), Rng::new(1));
        for n in 0..3000u64 {
            let key = rng.below(60);
            match rng.below(4) {
                0 | 1 => assert_eq!(map.insert(key, n), model.insert(key, n)),
                2 => assert_eq!(map.remove(key), model.remove(&key)),
                _ => {
                    assert_eq!(map.get(key), model.get(&key));
                    assert_eq!(map.at_or_before(key), model.range(..=key).next_back().map(|(_, value)| value));
                    assert_eq!(map.at_or_behind(key), model.range(key..).next().map(|(_, value)| value));
                    let in_range = model.range(key..key + 7).map(|(key, value)| (*key, *value)).collect::<Vec<_>>();
                    assert_eq!(map.range(key..key + 7), in_range);
                }
            }
            assert_eq!(map.iter().count(), model.len());
        }
        map.retain(|value| value % 2 == 0);
        model.retain(|_, value| *value % 2 == 0);
        assert!(map.iter().eq(model.iter().map(|(key, value)| (*key, value))));
    }
}
