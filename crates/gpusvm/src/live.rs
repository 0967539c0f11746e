//! Which pages of an allocation live.
//!
//! An allocation is whole for most of its life: then a number says it. Once a page in the middle is gone each has a bit.
//!
//! Locking: none of its own.

use alloc::vec;
use alloc::vec::Vec;
use core::ops::Range;
use units::bit_words;

/// The pages of one allocation that live, by their place in it.
pub(crate) struct Live {
    /// Pages of the allocation.
    pages: usize,
    /// How many live.
    count: usize,
    /// Which, where these are not the first `count` ones.
    bits: Option<Vec<u64>>,
}

impl Live {
    /// None of so many.
    pub(crate) const fn none(pages: usize) -> Self {
        Self { pages, count: 0, bits: None }
    }

    /// The first `count` of so many.
    pub(crate) const fn first(count: usize, pages: usize) -> Self {
        Self { pages, count, bits: None }
    }

    /// How many live.
    pub(crate) const fn count(&self) -> usize {
        self.count
    }

    /// These do not live any more; how many of them did.
    pub(crate) fn clear(&mut self, gone: Range<usize>) -> usize {
        let before = self.count;
        match &mut self.bits {
            // From the end, or all of it: the rest is still the first ones.
            None if gone.end >= self.count => self.count = self.count.min(gone.start),
            None => {
                let mut bits = vec![0; self.pages.div_ceil(64)];
                bit_words(0..self.count).for_each(|(word, mask)| bits[word] |= mask);
                self.bits = Some(bits);
                return self.clear(gone);
            }
            Some(bits) => {
                for (word, mask) in bit_words(gone) {
                    self.count -= (bits[word] & mask).count_ones() as usize;
                    bits[word] &= !mask;
                }
            }
        }
        before - self.count
    }

    /// How many of these live.
    fn count_in(&self, part: Range<usize>) -> usize {
        match &self.bits {
            None => part.end.min(self.count).saturating_sub(part.start),
            Some(bits) => bit_words(part).map(|(word, mask)| (bits[word] & mask).count_ones() as usize).sum(),
        }
    }

    /// The runs of pages that live.
    pub(crate) fn runs(&self) -> impl Iterator<Item = Range<usize>> {
        self.pieces_in(0..self.pages, 1).filter(|(_, lives)| *lives).map(|(run, _)| run)
    }

    /// All pages, in runs of granules: those in which some page lives, and those in which none does.
    pub(crate) fn pieces(&self, granule: usize) -> impl Iterator<Item = (Range<usize>, bool)> {
        self.pieces_in(0..self.pages, granule)
    }

    fn pieces_in(&self, part: Range<usize>, granule: usize) -> impl Iterator<Item = (Range<usize>, bool)> {
        let lives = move |at: usize| self.count_in(at..part.end.min(at + granule)) > 0;
        let (mut at, end) = (part.start, part.end);
        core::iter::from_fn(move || {
            let (first, is_live) = (at, at < end && lives(at));
            if self.bits.is_none() {
                at = if is_live { first + (self.count - first).next_multiple_of(granule) } else { end };
            }
            while at < end && lives(at) == is_live {
                at += granule;
            }
            at = at.min(end);
            (first < at).then_some((first..at, is_live))
        })
    }

    /// Those of a part, as an allocation of its own.
    pub(crate) fn part(&self, part: Range<usize>) -> Self {
        let mut own = Self::first(part.len(), part.len());
        for (gap, _) in self.pieces_in(part.clone(), 1).filter(|(_, lives)| !lives) {
            own.clear(gap.start - part.start..gap.end - part.start);
        }
        own
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn granules_without_a_page_that_lives_are_pieces_of_their_own() {
        let mut live = Live::first(50, 64);
        let pieces = |live: &Live, granule| live.pieces(granule).collect::<Vec<_>>();
        assert_eq!(pieces(&live, 16), [(0..64, true)], "a page lives in each");
        assert_eq!(pieces(&live, 8), [(0..56, true), (56..64, false)]);
        assert_eq!(live.clear(17..40), 23);
        assert_eq!(pieces(&live, 8), [(0..24, true), (24..40, false), (40..56, true), (56..64, false)]);
        assert_eq!(live.runs().collect::<Vec<_>>(), [0..17, 40..50]);
        let part = live.part(8..48);
        assert_eq!((part.count(), part.runs().collect::<Vec<_>>()), (17, vec![0..9, 32..40]));
        assert_eq!((live.part(24..40).count(), Live::none(3).runs().count()), (0, 0));
    }
}
