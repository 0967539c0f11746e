//! Blocks in the order of their use: a list through an array, with a place for each smallest block.
//!
//! Locking: none of its own.
//!
//! Upstream: `struct ttm_lru_item`, the bulk moves of `ttm_resource.c`.

use std::ops::Range;

const NONE: u32 = u32::MAX;

/// A place in the list, if a block starts there: the one before (older), the one behind (younger), what it carries.
struct Place<T> {
    older: u32,
    younger: u32,
    block: Option<T>,
}

/// Blocks by age; each is named by its start. They are aligned to their sizes, which are powers of two.
pub(super) struct Lru<T> {
    /// Bytes of the smallest block.
    min: u64,
    /// How many places there are.
    most: u32,
    /// As many of them as a block was ever in, or below one: at the others is none.
    places: Vec<Place<T>>,
    oldest: u32,
    youngest: u32,
}

impl<T> Lru<T> {
    /// For a tile of `size` bytes, in blocks of at least `min` bytes.
    pub(super) fn new(size: u64, min: u64) -> Self {
        let most = u32::try_from(size / min).unwrap_or(NONE - 1).min(NONE - 1);
        Self { min, most, places: Vec::new(), oldest: NONE, youngest: NONE }
    }

    /// A new block, the youngest.
    pub(super) fn insert(&mut self, start: u64, block: T) {
        let n = self.number(start);
        if let Some(place) = self.place(n) {
            place.block = Some(block);
            self.link(n);
        }
    }

    /// A new block, as old as the one that starts at `beside`: the next in the order behind it.
    pub(super) fn insert_beside(&mut self, beside: u64, start: u64, block: T) {
        let (n, older) = (self.number(start), self.number(beside));
        if self.block(older).is_some()
            && let Some(place) = self.place(n).filter(|place| place.block.is_none())
        {
            place.block = Some(block);
            self.link_behind(older, n);
        }
    }

    /// The block that starts there is the youngest from now on.
    pub(super) fn touch(&mut self, start: u64) {
        let n = self.number(start);
        if self.block(n).is_some() && n != self.youngest {
            self.unlink(n);
            self.link(n);
        }
    }

    /// Takes the block out that starts there.
    pub(super) fn remove(&mut self, start: u64) -> Option<T> {
        let n = self.number(start);
        let block = self.places.get_mut(n as usize)?.block.take()?;
        self.unlink(n);
        Some(block)
    }

    /// What the block carries that starts there.
    pub(super) fn get(&self, start: u64) -> Option<&T> {
        self.block(self.number(start))
    }

    /// The same, to change it.
    pub(super) fn get_mut(&mut self, start: u64) -> Option<&mut T> {
        let n = self.number(start);
        self.places.get_mut(n as usize)?.block.as_mut()
    }

    /// The block that was inserted, or touched, the longest time ago.
    pub(super) fn oldest(&self) -> Option<u64> {
        (self.oldest != NONE).then(|| u64::from(self.oldest) * self.min)
    }

    /// All blocks, the oldest first.
    pub(super) fn by_age(&self) -> impl Iterator<Item = (u64, &T)> {
        let first = (self.oldest != NONE).then_some(self.oldest);
        let places =
            std::iter::successors(first, |n| Some(self.places.get(*n as usize)?.younger).filter(|n| *n != NONE));
        places.filter_map(|n| Some((u64::from(n) * self.min, self.block(n)?)))
    }

    /// The blocks that start in `bytes`, by address.
    pub(super) fn starts_in(&self, bytes: Range<u64>) -> impl Iterator<Item = (u64, &T)> {
        let (first, end) = (bytes.start.div_ceil(self.min), bytes.end.div_ceil(self.min));
        (first..end.min(self.places.len() as u64)).filter_map(|n| Some((n * self.min, self.block(n as u32)?)))
    }

    /// The block that `at` is in, if there is one (else, maybe, one that ends below). A block is aligned and no other
    /// starts inside of it: so of the places to which `at` can be aligned, it starts at the first where any does.
    pub(super) fn around(&self, at: u64) -> Option<(u64, &T)> {
        let place = self.number(at);
        let starts = (0..u32::BITS).map(|order| place >> order << order);
        starts.map(|n| (u64::from(n) * self.min, self.block(n))).find_map(|(start, block)| Some((start, block?)))
    }

    fn number(&self, at: u64) -> u32 {
        u32::try_from(at / self.min).unwrap_or(NONE)
    }

    /// A place, to put a block in; `None` where there is no such place.
    fn place(&mut self, n: u32) -> Option<&mut Place<T>> {
        let most = self.places.len().max(n as usize + 1);
        (n < self.most).then(|| {
            self.places.resize_with(most, || Place { older: NONE, younger: NONE, block: None });
            &mut self.places[n as usize]
        })
    }

    fn block(&self, n: u32) -> Option<&T> {
        self.places.get(n as usize)?.block.as_ref()
    }

    /// Where the one behind `older` is named.
    fn behind(&mut self, older: u32) -> &mut u32 {
        match self.places.get_mut(older as usize) {
            Some(place) => &mut place.younger,
            None => &mut self.oldest,
        }
    }

    /// Where the one before `younger` is named.
    fn before(&mut self, younger: u32) -> &mut u32 {
        match self.places.get_mut(younger as usize) {
            Some(place) => &mut place.older,
            None => &mut self.youngest,
        }
    }

    fn link(&mut self, n: u32) {
        self.link_behind(self.youngest, n);
    }

    fn link_behind(&mut self, older: u32, n: u32) {
        let younger = std::mem::replace(self.behind(older), n);
        (self.places[n as usize].older, self.places[n as usize].younger) = (older, younger);
        *self.before(younger) = n;
    }

    fn unlink(&mut self, n: u32) {
        let Place { older, younger, .. } = self.places[n as usize];
        *self.behind(older) = younger;
        *self.before(younger) = older;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_goes_first_and_a_touch_makes_young() {
        let mut lru = Lru::new(8 << 16, 1 << 16);
        let block = |n: u64| n << 16;
        assert_eq!(lru.oldest(), None);
        [3, 1, 5].into_iter().for_each(|n| lru.insert(block(n), n));
        let starts = |lru: &Lru<u64>, range| lru.starts_in(range).map(|(_, n)| *n).collect::<Vec<_>>();
        assert_eq!(starts(&lru, block(1)..block(5)), [1, 3]);
        lru.touch(block(3));
        assert!(lru.by_age().map(|(_, n)| *n).eq([1, 5, 3]));
        let order: Vec<_> = std::iter::from_fn(|| lru.oldest().and_then(|oldest| lru.remove(oldest))).collect();
        assert_eq!(order, [1, 5, 3]);
        assert_eq!((lru.remove(block(5)), lru.oldest()), (None, None));
        lru.insert(block(7), 7);
        assert_eq!((lru.oldest(), starts(&lru, 0..u64::MAX)), (Some(block(7)), vec![7]));
        lru.insert(block(99), 99);
        lru.touch(block(99));
        assert_eq!((lru.oldest(), lru.remove(block(99))), (Some(block(7)), None), "no such block");
    }

    #[test]
    fn a_block_beside_another_is_as_old() {
        let mut lru = Lru::new(8 << 16, 1 << 16);
        let block = |n: u64| n << 16;
        [4, 0].into_iter().for_each(|n| lru.insert(block(n), n));
        lru.insert_beside(block(4), block(6), 6);
        lru.insert_beside(block(0), block(1), 1);
        lru.insert_beside(block(3), block(2), 2);
        let order: Vec<_> = std::iter::from_fn(|| lru.oldest().and_then(|oldest| lru.remove(oldest))).collect();
        assert_eq!(order, [4, 6, 0, 1], "and none beside a block that is not there");
    }

    #[test]
    fn any_byte_of_a_block_finds_it() {
        let mut lru = Lru::new(16 << 16, 1 << 16);
        lru.insert(0, 'a');
        lru.insert(4 << 16, 'b');
        lru.insert(8 << 16, 'c');
        let around = [1, 4, 7, 8, 15].map(|n| lru.around((n << 16) + 5).map(|(_, block)| *block));
        assert_eq!(around, [Some('a'), Some('b'), Some('b'), Some('c'), Some('c')]);
        lru.remove(4 << 16);
        assert_eq!((lru.around(u64::MAX), lru.around(9 << 16)), (None, Some((8 << 16, &'c'))));
    }
}
