//! The IOMMU between the device and system memory.
//!
//! Bus addresses come from a space of their own, far above every virtual address of a process and every DPA,
//! so that a number of one space used in another never finds a mapping by luck. They are given out in rising
//! order with a hole behind each mapping, so none is reused at once: what a device writes to an address that
//! was unmapped is lost, and seen.
//!
//! Locking: one reader-writer lock, shared for lookups, exclusive for changes.
//!
//! Upstream: `dma_map_page`, `dma_unmap_page` and the IOMMU behind them.

use std::collections::BTreeMap;
use sync::rank::{self, Rank};
use sync::{RwLock, Told};
use units::{HostFrame, Iova, PAGE_SHIFT, SZ_2M, SZ_4K, bytes_of};

/// First bus address, as a page number.
const FIRST: u64 = (1 << 50) >> PAGE_SHIFT;
/// End of the bus addresses: a PTE holds 52 bits.
const END: u64 = (1 << 52) >> PAGE_SHIFT;

/// What a mapped page leads to, and what follows it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Mapped {
    /// The frame.
    pub(crate) frame: HostFrame,
    /// Pages from this one on that lead to consecutive frames; at least 1.
    pub(crate) pages: u64,
    /// Whether the device may write.
    pub(crate) write: bool,
}

#[derive(Clone, Copy)]
struct Mapping {
    pages: u64,
    frame: HostFrame,
    write: bool,
}

/// Pages of a mapping whose changes are told page by page.
const FEW: u64 = 16;

/// All mappings of one device.
pub(crate) struct Iommu {
    space: RwLock<Space>,
}

struct Space {
    /// By first page number.
    mappings: BTreeMap<u64, Mapping>,
    /// Behind the last one given out.
    next: u64,
    /// Whether the end was reached once: until then nothing lies behind `next`.
    wrapped: bool,
}

impl Iommu {
    pub(crate) fn new() -> Self {
        Self { space: rank::rwlock(Rank::LEAF, Space { mappings: BTreeMap::new(), next: FIRST, wrapped: false }) }
    }

    /// Maps `pages` contiguous frames; aligned to their size up to 2M, so that large leaves are possible.
    pub(crate) fn map(&self, frame: HostFrame, pages: usize, write: bool) -> Iova {
        let pages = pages.max(1) as u64;
        let mut space = self.space.write();
        let at = space.find_hole(pages);
        if !space.wrapped && pages <= FEW {
            sync::tell_exclusive(&space, (at..at + pages).map(Told::Writes));
        }
        space.mappings.insert(at, Mapping { pages, frame, write });
        space.next = at + pages + 1;
        Iova(at << PAGE_SHIFT)
    }

    /// Unmaps; `false` where some of the pages were not mapped (the others are unmapped all the same).
    pub(crate) fn unmap(&self, iova: Iova, pages: usize) -> bool {
        let mut space = self.space.write();
        let (mut page, end) = (iova.page_number(), iova.add(bytes_of(pages)).page_number());
        let mut all = pages > 0 && iova.is_aligned(SZ_4K);
        let is_whole = |(at, mapping): (u64, Mapping)| (at, at + mapping.pages) == (page, end);
        if end - page <= FEW && space.around(page).is_some_and(is_whole) {
            sync::tell_exclusive(&space, (page..end).map(Told::Writes));
        }
        while page < end {
            match space.cut(page, end) {
                Some(next) => page = next,
                None => {
                    all = false;
                    page += 1;
                }
            }
        }
        all
    }

    /// What the page of `iova` is mapped to.
    pub(crate) fn lookup(&self, iova: Iova) -> Option<Mapped> {
        let page = iova.page_number();
        let space = self.space.read();
        sync::tell_shared(&space, [Told::Reads(page)]);
        let (at, mapping) = space.around(page)?;
        let inside = page - at;
        let pages = mapping.pages.checked_sub(inside).filter(|pages| *pages > 0)?;
        Some(Mapped { frame: mapping.frame.add(inside), pages, write: mapping.write })
    }

    /// Number of pages that are mapped.
    pub(crate) fn mapped_pages(&self) -> u64 {
        self.space.read().mappings.values().map(|mapping| mapping.pages).sum()
    }
}

impl Space {
    /// The last mapping that begins at `page` or before it: at it, mostly.
    fn around(&self, page: u64) -> Option<(u64, Mapping)> {
        let exact = self.mappings.get(&page).map(|mapping| (page, *mapping));
        exact.or_else(|| self.mappings.range(..page).next_back().map(|(&at, &mapping)| (at, mapping)))
    }

    /// A place for `pages` pages behind the last one given out; from the start again at the end of the space.
    fn find_hole(&mut self, pages: u64) -> u64 {
        let align = pages.next_power_of_two().min(SZ_2M >> PAGE_SHIFT);
        let mut at = self.next.next_multiple_of(align);
        loop {
            if at + pages >= END {
                (at, self.wrapped) = (FIRST.next_multiple_of(align), true);
            }
            if !self.wrapped {
                return at;
            }
            match self.mappings.range(..=at + pages).next_back() {
                Some((&start, mapping)) if start + mapping.pages >= at => {
                    at = (start + mapping.pages + 1).next_multiple_of(align);
                }
                _ => return at,
            }
        }
    }

    /// Removes what `[page, end)` shares with the mapping around `page`; the first page behind the part removed.
    fn cut(&mut self, page: u64, end: u64) -> Option<u64> {
        let (at, mapping) = self.around(page)?;
        let behind = at + mapping.pages;
        if page >= behind {
            return None;
        }
        self.mappings.remove(&at);
        if at < page {
            self.mappings.insert(at, Mapping { pages: page - at, ..mapping });
        }
        if end < behind {
            let frame = mapping.frame.add(end - at);
            self.mappings.insert(end, Mapping { pages: behind - end, frame, ..mapping });
        }
        Some(end.min(behind))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_rise_are_aligned_and_never_reused_at_once() {
        let iommu = Iommu::new();
        let a = iommu.map(HostFrame(7), 16, true);
        assert!(a.is_aligned(16 * SZ_4K));
        assert_eq!(iommu.lookup(a.add(5 * SZ_4K + 9)), Some(Mapped { frame: HostFrame(12), pages: 11, write: true }));
        assert!(iommu.unmap(a, 16));
        assert_eq!(iommu.lookup(a), None);
        let b = iommu.map(HostFrame(7), 16, false);
        assert!(b.0 > a.0);
        assert_eq!(iommu.lookup(b.add(16 * SZ_4K)), None, "a hole behind each mapping");
    }

    #[test]
    fn the_middle_of_a_mapping_can_go() {
        let iommu = Iommu::new();
        let a = iommu.map(HostFrame(100), 8, true);
        assert!(iommu.unmap(a.add(2 * SZ_4K), 3));
        let left: Vec<_> = (0..8).map(|i| iommu.lookup(a.add(bytes_of(i))).map(|m| m.frame.0)).collect();
        assert_eq!(left, [Some(100), Some(101), None, None, None, Some(105), Some(106), Some(107)]);
        assert_eq!(iommu.mapped_pages(), 5);
        assert!(!iommu.unmap(a, 8), "a page twice is a mistake");
        assert_eq!(iommu.mapped_pages(), 0);
    }

    #[test]
    fn the_end_of_the_space_goes_on_at_its_start_around_live_mappings() {
        let iommu = Iommu::new();
        let first = iommu.map(HostFrame(1), 1, true);
        iommu.space.write().next = END - 1;
        let second = iommu.map(HostFrame(2), 1, true);
        assert!(second.0 > first.0 && second.0 < first.0 + 4 * SZ_4K);
        assert_eq!(iommu.lookup(first).map(|m| m.frame), Some(HostFrame(1)));
    }
}
