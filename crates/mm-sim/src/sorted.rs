//! A map that is one array, sorted by key: few entries, looked up by a binary search, mostly added at the end.
//!
//! Key types: [`Sorted`]. What the model keeps by address or by frame lies in these: no node is allocated for an entry, and
//! an array that has shrunk takes the next entries without asking for memory.

use core::ops::Range;

/// Values by key, in the order of the keys.
#[derive(Clone)]
pub(crate) struct Sorted<K, V>(Vec<(K, V)>);

impl<K, V> Default for Sorted<K, V> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<K: Ord + Copy, V> Sorted<K, V> {
    fn find(&self, key: K) -> Result<usize, usize> {
        match self.0.last() {
            Some((last, _)) if *last >= key => self.0.binary_search_by(|(other, _)| other.cmp(&key)),
            _ => Err(self.0.len()),
        }
    }
    /// How many keys are below `key`.
    fn below(&self, key: K) -> usize {
        self.find(key).unwrap_or_else(|place| place)
    }
    /// What stands at a key.
    pub(crate) fn get(&self, key: K) -> Option<&V> {
        Some(&self.0[self.find(key).ok()?].1)
    }
    /// What stands at a key.
    pub(crate) fn get_mut(&mut self, key: K) -> Option<&mut V> {
        let place = self.find(key).ok()?;
        Some(&mut self.0[place].1)
    }
    /// Whether something stands at a key.
    pub(crate) fn has(&self, key: K) -> bool {
        self.find(key).is_ok()
    }
    /// Puts a value at a key; gives what stood there.
    pub(crate) fn insert(&mut self, key: K, value: V) -> Option<V> {
        match self.find(key) {
            Ok(place) => Some(core::mem::replace(&mut self.0[place].1, value)),
            Err(place) => {
                self.0.insert(place, (key, value));
                None
            }
        }
    }
    /// Takes out what stands at a key.
    pub(crate) fn remove(&mut self, key: K) -> Option<V> {
        let place = self.find(key).ok()?;
        Some(self.0.remove(place).1)
    }
    /// Keeps the values that `keep` wants.
    pub(crate) fn retain(&mut self, mut keep: impl FnMut(&V) -> bool) {
        self.0.retain(|(_, value)| keep(value));
    }
    /// Takes out everything.
    pub(crate) fn clear(&mut self) {
        self.0.clear();
    }
    /// The value of the last key that is not above `key`.
    pub(crate) fn at_or_before(&self, key: K) -> Option<&V> {
        Some(&self.0[self.last_upto(key)?].1)
    }
    /// The same, to change.
    pub(crate) fn at_or_before_mut(&mut self, key: K) -> Option<&mut V> {
        let place = self.last_upto(key)?;
        Some(&mut self.0[place].1)
    }
    fn last_upto(&self, key: K) -> Option<usize> {
        match self.find(key) {
            Ok(place) => Some(place),
            Err(place) => place.checked_sub(1),
        }
    }
    /// The value of the first key that is not below `key`.
    pub(crate) fn at_or_behind(&self, key: K) -> Option<&V> {
        self.0.get(self.below(key)).map(|(_, value)| value)
    }
    /// Keys and values of a range of keys.
    pub(crate) fn range(&self, keys: Range<K>) -> &[(K, V)] {
        let first = self.below(keys.start);
        &self.0[first..self.below(keys.end).max(first)]
    }
    /// All keys and values.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (K, &V)> {
        self.0.iter().map(|(key, value)| (*key, value))
    }
    /// The same, to change.
    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = (K, &mut V)> {
        self.0.iter_mut().map(|(key, value)| (*key, value))
    }
    /// All values.
    pub(crate) fn values(&self) -> impl Iterator<Item = &V> {
        self.0.iter().map(|(_, value)| value)
    }
    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }
    /// Whether there are none.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
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
            assert_eq!(map.len(), model.len());
        }
        map.retain(|value| value % 2 == 0);
        model.retain(|_, value| *value % 2 == 0);
        assert!(map.iter().eq(model.iter().map(|(key, value)| (*key, value))));
    }
}
