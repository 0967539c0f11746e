//! The VRAM of one tile: a buddy allocator of naturally aligned, contiguous blocks.
//!
//! Sizes are powers of two from the platform's smallest VRAM page (64K where the device needs it) up; every
//! block of SVM is 64K or 2M. Small requests fill slots of 2M that are in pieces already before they break a
//! whole one, lowest address first, so what is whole stays whole.
//!
//! Locking: a leaf lock around [`Buddy`].
//!
//! Upstream: `xe_ttm_vram_mgr.c`, `drm_buddy.c`.

use std::collections::BTreeSet;
use std::ops::Range;

/// Free blocks by order; all numbers are bytes from the tile's base.
pub(super) struct Buddy {
    min: u64,
    /// `free[n]`: starts of free blocks of `min << n` bytes.
    free: Vec<BTreeSet<u64>>,
    used: u64,
    size: u64,
}

impl Buddy {
    /// A tile of `size` bytes with blocks of at least `min` bytes, a power of two.
    pub(super) fn new(size: u64, min: u64) -> Self {
        let orders = (size / min).checked_ilog2().map_or(0, |top| top as usize + 1);
        let mut vram = Self { min, free: vec![BTreeSet::new(); orders], used: 0, size: size / min * min };
        vram.seed();
        vram
    }

    fn seed(&mut self) {
        let mut at = 0;
        for order in (0..self.free.len()).rev() {
            let block = self.min << order;
            while self.size - at >= block {
                self.free[order].insert(at);
                at += block;
            }
        }
    }

    /// A block of `bytes` bytes, rounded up to a power of two; `None` where there is no such run.
    pub(super) fn alloc(&mut self, bytes: u64) -> Option<u64> {
        let want = self.order(bytes)?;
        let mut have = (want..self.free.len()).find(|&order| !self.free[order].is_empty())?;
        let start = self.free[have].pop_first()?;
        while have > want {
            have -= 1;
            self.free[have].insert(start + (self.min << have));
        }
        self.used += self.min << want;
        Some(start)
    }

    /// Gives a block back, or an aligned part of one: the start and the bytes, of a part as [`aligned`] has them.
    pub(super) fn free(&mut self, start: u64, bytes: u64) {
        let Some(first) = self.order(bytes) else { return };
        debug_assert!(!self.free[first].contains(&start), "a block of VRAM is given back twice: {start:#x}");
        self.used -= self.min << first;
        let (mut at, mut order) = (start, first);
        while order + 1 < self.free.len() && self.free[order].remove(&(at ^ (self.min << order))) {
            at &= !(self.min << order);
            order += 1;
        }
        self.free[order].insert(at);
    }

    /// The bytes that a request for `bytes` takes; `None` where no block is so large.
    pub(super) fn rounded(&self, bytes: u64) -> Option<u64> {
        self.order(bytes).map(|order| self.min << order)
    }

    /// Bytes of the smallest block.
    pub(super) const fn min(&self) -> u64 {
        self.min
    }

    /// Bytes in use.
    pub(super) const fn used(&self) -> u64 {
        self.used
    }

    fn order(&self, bytes: u64) -> Option<usize> {
        let blocks = bytes.max(1).div_ceil(self.min).checked_next_power_of_two()?;
        let order = blocks.trailing_zeros() as usize;
        (order < self.free.len()).then_some(order)
    }
}

/// The blocks of which `bytes` consists: each a power of two, aligned to that.
pub(super) fn aligned(bytes: Range<u64>) -> impl Iterator<Item = Range<u64>> {
    let mut at = bytes.start;
    std::iter::from_fn(move || {
        let rest = bytes.end.checked_sub(at).and_then(u64::checked_ilog2)?;
        let block = at..at + (1 << rest.min(at.trailing_zeros()));
        at = block.end;
        Some(block)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use units::{SZ_2M, SZ_64K};

    #[test]
    fn small_blocks_share_a_slot_and_the_slot_heals() {
        let mut vram = Buddy::new(8 * SZ_2M, SZ_64K);
        let big = vram.alloc(SZ_2M).unwrap();
        let small: Vec<_> = (0..32).map(|_| vram.alloc(SZ_64K).unwrap()).collect();
        assert!(small.iter().all(|block| block / SZ_2M == small[0] / SZ_2M && big / SZ_2M != block / SZ_2M));
        assert_eq!(vram.used(), 2 * SZ_2M);
        small.iter().for_each(|block| vram.free(*block, SZ_64K));
        vram.free(big, SZ_2M);
        assert_eq!(vram.used(), 0);
        assert_eq!(vram.alloc(8 * SZ_2M), Some(0), "all of it merged again");
    }

    #[test]
    fn blocks_are_aligned_disjoint_and_all_can_be_had() {
        let mut vram = Buddy::new(5 * SZ_2M + 3 * SZ_64K, SZ_64K);
        let mut got = BTreeSet::new();
        while let Some(block) = vram.alloc(SZ_64K) {
            assert!(block % SZ_64K == 0 && got.insert(block));
        }
        assert_eq!(got.len(), 5 * 32 + 3);
        assert_eq!(vram.alloc(SZ_64K), None);
        got.iter().for_each(|block| vram.free(*block, SZ_64K));
        assert!((0..5).all(|_| vram.alloc(SZ_2M).is_some_and(|block| block % SZ_2M == 0)));
        assert_eq!(vram.alloc(SZ_2M), None);
    }

    #[test]
    fn a_block_is_given_back_in_parts() {
        let mut vram = Buddy::new(SZ_2M, SZ_64K);
        assert_eq!(vram.alloc(SZ_2M), Some(0));
        let parts: Vec<_> = aligned(3 * SZ_64K..SZ_2M).chain(aligned(0..3 * SZ_64K)).collect();
        let sizes: Vec<_> = parts.iter().map(|part| (part.end - part.start) / SZ_64K).collect();
        assert_eq!(sizes, [1, 4, 8, 16, 2, 1]);
        parts.into_iter().for_each(|part| vram.free(part.start, part.end - part.start));
        assert_eq!((vram.used(), vram.alloc(SZ_2M)), (0, Some(0)));
    }

    #[test]
    fn impossible_sizes_are_refused() {
        let mut vram = Buddy::new(4 * SZ_2M, SZ_64K);
        assert_eq!(vram.alloc(8 * SZ_2M), None);
        assert_eq!(vram.alloc(u64::MAX), None);
        assert_eq!(
            [1, SZ_64K, SZ_64K + 1, 8 * SZ_2M].map(|bytes| vram.rounded(bytes)),
            [Some(SZ_64K), Some(SZ_64K), Some(2 * SZ_64K), None]
        );
    }
}
