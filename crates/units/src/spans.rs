//! Numbers given out by the span: addresses of a window, offsets of a file.
//!
//! First fit, so that what is given back is used again soon. Locking: none.
//!
//! Upstream: `drm_mm.c`, `drm_vma_manager.c`.

use alloc::collections::BTreeMap;
use core::ops::Range;

/// What is free of a range of numbers.
#[derive(Clone, Default, Debug)]
pub struct Spans {
    /// Ends by starts; no two touch.
    free: BTreeMap<u64, u64>,
}

impl Spans {
    /// All of `range` is free.
    pub fn new(range: Range<u64>) -> Self {
        let free = if range.is_empty() { BTreeMap::new() } else { BTreeMap::from([(range.start, range.end)]) };
        Self { free }
    }

    /// The lowest `len` numbers that follow each other and start at a multiple of `align`, a power of two.
    pub fn take(&mut self, len: u64, align: u64) -> Option<u64> {
        let fit = |(&start, &end): (&u64, &u64)| {
            let at = start.checked_next_multiple_of(align)?;
            (at.checked_add(len)? <= end).then_some((start, end, at))
        };
        let (start, end, at) = self.free.iter().find_map(fit)?;
        self.free.remove(&start);
        self.put(start, at);
        self.put(at + len, end);
        Some(at)
    }

    /// Gives the `len` numbers from `start` on back.
    pub fn give(&mut self, start: u64, len: u64) {
        let (mut first, mut end) = (start, start + len);
        if let Some((&before, &its_end)) = self.free.range(..=start).next_back() {
            debug_assert!(its_end <= start, "given back twice: {start:#x}");
            if its_end == start {
                first = before;
            }
        }
        if let Some(behind) = self.free.remove(&end) {
            end = behind;
        }
        self.put(first, end);
    }

    fn put(&mut self, start: u64, end: u64) {
        if start < end {
            self.free.insert(start, end);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_given_back_joins_and_is_taken_again() {
        let mut spans = Spans::new(0x1000..0x9000);
        let taken: alloc::vec::Vec<_> = (0..8).map(|_| spans.take(0x1000, 1).unwrap()).collect();
        assert_eq!((taken[0], taken[7], spans.take(1, 1)), (0x1000, 0x8000, None));
        for at in [0x3000, 0x5000, 0x4000, 0x8000] {
            spans.give(at, 0x1000);
        }
        assert_eq!(spans.take(0x2000, 0x2000), Some(0x4000));
        assert_eq!(
            (spans.take(0x2000, 1), spans.take(0x1000, 1), spans.take(0x1000, 1)),
            (None, Some(0x3000), Some(0x8000))
        );
        spans.give(0x1000, 0x8000);
        assert_eq!(spans.take(u64::MAX, 1), None);
        assert_eq!(spans.take(0x8000, 0x1000), Some(0x1000));
    }
}
