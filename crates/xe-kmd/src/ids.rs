//! Tables of names: VMs and queues of a file, address spaces of a device.
//!
//! A name is the lowest number that is free, from 1. 0 means none, and no name ever reaches 0xffff: programs
//! (and test suites) use that and 0xdeadbeef as names that cannot exist.
//!
//! Upstream: `xa_alloc` with `xa_limit_32b`.

use std::collections::BTreeMap;

/// Highest name.
const LAST: u32 = 0xfffe;

/// Objects by name.
pub(crate) struct IdTable<T> {
    entries: BTreeMap<u32, T>,
    /// No name below it is free.
    hint: u32,
}

impl<T> Default for IdTable<T> {
    fn default() -> Self {
        Self { entries: BTreeMap::new(), hint: 1 }
    }
}

impl<T: Clone> IdTable<T> {
    /// Names `value`; `None` where all names are taken.
    pub(crate) fn insert(&mut self, value: T) -> Option<u32> {
        let mut id = self.hint;
        for &taken in self.entries.range(self.hint..).map(|(id, _)| id) {
            if taken != id {
                break;
            }
            id += 1;
        }
        if id > LAST {
            return None;
        }
        self.hint = id + 1;
        self.entries.insert(id, value);
        Some(id)
    }

    /// What is called `id`.
    pub(crate) fn get(&self, id: u32) -> Option<T> {
        self.entries.get(&id).cloned()
    }

    /// The same, to be changed.
    pub(crate) fn get_mut(&mut self, id: u32) -> Option<&mut T> {
        self.entries.get_mut(&id)
    }

    /// Everything that has a name, with it.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (u32, &T)> {
        self.entries.iter().map(|(id, value)| (*id, value))
    }

    /// Everything that has a name.
    pub(crate) fn values(&self) -> impl Iterator<Item = &T> {
        self.entries.values()
    }

    /// Takes the name back.
    pub(crate) fn remove(&mut self, id: u32) -> Option<T> {
        let value = self.entries.remove(&id)?;
        self.hint = self.hint.min(id);
        Some(value)
    }

    /// Empties the table, in order of names.
    pub(crate) fn take_all(&mut self) -> Vec<T> {
        self.hint = 1;
        std::mem::take(&mut self.entries).into_values().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_the_lowest_free_and_never_zero() {
        let mut table = IdTable::default();
        assert_eq!((0..5).map(|n| table.insert(n).unwrap()).collect::<Vec<_>>(), [1, 2, 3, 4, 5]);
        assert_eq!(table.remove(4), Some(3));
        assert_eq!(table.remove(2), Some(1));
        assert_eq!(table.insert(7), Some(2));
        assert_eq!(table.insert(8), Some(4));
        assert_eq!(table.insert(9), Some(6));
        assert_eq!((table.get(0), table.get(0xdead_beef), table.get(6)), (None, None, Some(9)));
    }

    #[test]
    fn the_reserved_names_are_never_given() {
        let mut table = IdTable::default();
        let names: Vec<u32> = std::iter::from_fn(|| table.insert(())).collect();
        assert_eq!((names.first(), names.last(), names.len()), (Some(&1), Some(&0xfffe), 0xfffe));
        assert_eq!(table.remove(77), Some(()));
        assert_eq!((table.insert(()), table.insert(())), (Some(77), None));
    }
}
