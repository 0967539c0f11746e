//! A map from numbers, sorted, that remembers where it was asked last: walks over pages ask for the same chunk and the
//! same claim 512 times in a row.

use core::cell::Cell;

pub(crate) struct Numbered<T> {
    items: Vec<(u64, T)>,
    /// Where the last look-up ended; any value is allowed.
    last: Cell<usize>,
}

impl<T> Default for Numbered<T> {
    fn default() -> Self {
        Self { items: Vec::new(), last: Cell::new(0) }
    }
}

impl<T> Numbered<T> {
    fn find(&self, number: u64) -> Result<usize, usize> {
        let last = self.last.get();
        if self.items.get(last).is_some_and(|item| item.0 == number) {
            return Ok(last);
        }
        self.items.binary_search_by_key(&number, |item| item.0).inspect(|&index| self.last.set(index))
    }

    pub fn get(&self, number: u64) -> Option<&T> {
        self.find(number).ok().map(|index| &self.items[index].1)
    }

    pub fn get_mut(&mut self, number: u64) -> Option<&mut T> {
        self.find(number).ok().map(|index| &mut self.items[index].1)
    }

    pub fn get_or_insert_with(&mut self, number: u64, make: impl FnOnce() -> T) -> &mut T {
        let index = self.find(number).unwrap_or_else(|index| {
            self.items.insert(index, (number, make()));
            index
        });
        &mut self.items[index].1
    }

    pub fn remove(&mut self, number: u64) -> Option<T> {
        self.find(number).ok().map(|index| self.items.remove(index).1)
    }

    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    pub fn iter(&self) -> impl Iterator<Item = (u64, &T)> {
        self.items.iter().map(|(number, item)| (*number, item))
    }

    /// Those from `first` to `last`, both included.
    pub fn between(&self, first: u64, last: u64) -> impl Iterator<Item = (u64, &T)> {
        let start = self.items.partition_point(|item| item.0 < first);
        self.items[start..].iter().take_while(move |item| item.0 <= last).map(|(number, item)| (*number, item))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    #[test]
    fn it_is_a_map() {
        let (mut numbered, mut map, mut state) = (Numbered::default(), BTreeMap::new(), 1u64);
        for turn in 0..5000 {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let number = state >> 59;
            match state >> 32 & 3 {
                0 => assert_eq!(numbered.remove(number), map.remove(&number)),
                1 => assert_eq!(numbered.get_or_insert_with(number, || turn), map.entry(number).or_insert(turn)),
                2 => assert_eq!(numbered.get(number), map.get(&number)),
                _ => assert_eq!(numbered.get_mut(number), map.get_mut(&number)),
            }
            assert!(numbered.iter().eq(map.iter().map(|(number, item)| (*number, item))));
            let between = map.range(number..=number + 3).map(|(number, item)| (*number, item));
            assert!(numbered.between(number, number + 3).eq(between));
            assert_eq!(numbered.is_empty(), map.is_empty());
        }
    }
}
