//! The order in which blocks of VRAM were given: a list through an array, with a place for each smallest block.
//!
//! Locking: none of its own.
//!
//! Upstream: `struct ttm_lru_item`, the bulk moves of `ttm_resource.c`.

use std::ops::Range;

const NONE: u32 = u32::MAX;

/// A place in the list: the one before (older), the one behind (younger). Not in the list: itself on both sides.
#[derive(Clone, Copy)]
struct Link {
    older: u32,
    younger: u32,
}

/// Blocks by age; each is named by its start.
pub(crate) struct Lru {
    /// Bytes of the smallest block.
    min: u64,
    links: Vec<Link>,
    oldest: u32,
    youngest: u32,
}

impl Lru {
    /// For a tile of `size` bytes, in blocks of at least `min` bytes.
    pub(crate) fn new(size: u64, min: u64) -> Self {
        let out = |n: u32| Link { older: n, younger: n };
        let places = u32::try_from(size / min).unwrap_or(NONE - 1).min(NONE - 1);
        Self { min, links: (0..places).map(out).collect(), oldest: NONE, youngest: NONE }
    }

    /// The block is the youngest from now on.
    pub(crate) fn touch(&mut self, start: u64) {
        self.forget(start);
        let n = (start / self.min) as u32;
        let Some(link) = self.links.get_mut(n as usize) else { return };
        *link = Link { older: self.youngest, younger: NONE };
        match self.links.get_mut(self.youngest as usize) {
            Some(before) => before.younger = n,
            None => self.oldest = n,
        }
        self.youngest = n;
    }

    /// The block is given back.
    pub(crate) fn forget(&mut self, start: u64) {
        let n = (start / self.min) as u32;
        if !self.contains(n) {
            return;
        }
        let Link { older, younger } = self.links[n as usize];
        match self.links.get_mut(older as usize) {
            Some(before) => before.younger = younger,
            None => self.oldest = younger,
        }
        match self.links.get_mut(younger as usize) {
            Some(behind) => behind.older = older,
            None => self.youngest = older,
        }
        self.links[n as usize] = Link { older: n, younger: n };
    }

    /// The block that was given, or touched, the longest time ago.
    pub(crate) fn oldest(&self) -> Option<u64> {
        (self.oldest != NONE).then(|| u64::from(self.oldest) * self.min)
    }

    /// The blocks that start in `bytes`, by address.
    pub(crate) fn starts_in(&self, bytes: Range<u64>) -> impl Iterator<Item = u64> {
        let (first, end) = (bytes.start.div_ceil(self.min), bytes.end.div_ceil(self.min));
        (first..end.min(self.links.len() as u64)).filter(|n| self.contains(*n as u32)).map(|n| n * self.min)
    }

    /// A list of one has no neighbours either: it is the oldest.
    fn contains(&self, n: u32) -> bool {
        self.links.get(n as usize).is_some_and(|link| link.older != n || link.younger != n)
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
        [3, 1, 5].map(block).into_iter().for_each(|start| lru.touch(start));
        assert_eq!(lru.starts_in(block(1)..block(5)).collect::<Vec<_>>(), [block(1), block(3)]);
        lru.touch(block(3));
        let mut order = Vec::new();
        while let Some(oldest) = lru.oldest() {
            order.push(oldest >> 16);
            lru.forget(oldest);
        }
        assert_eq!(order, [1, 5, 3]);
        lru.forget(block(5));
        lru.touch(block(7));
        assert_eq!((lru.oldest(), lru.starts_in(0..u64::MAX).count()), (Some(block(7)), 1));
        lru.touch(block(99));
        assert_eq!(lru.oldest(), Some(block(7)), "no such block");
    }
}
