//! One address space: VMAs and page table.
//!
//! A VMA says what may be mapped, an [`Entry`] what is. A huge mapping is 512 entries and a mark; whatever
//! touches a part of it takes the mark away, as a split does.

use crate::mapping::Attributes;
use crate::sorted::Sorted;
use hostmm::{ClaimId, DevicePage, Vma};
use units::{HostFrame, HostRange, HostVa, ORDER_2M, PAGE_SHIFT, SZ_2M};

/// Pages of a huge mapping.
pub(crate) const HUGE_PAGES: u64 = 1 << ORDER_2M;

/// A page table entry that is not none.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Entry {
    /// Maps a frame.
    System {
        /// Which.
        frame: HostFrame,
        /// Whether a store needs no fault.
        write: bool,
    },
    /// Not present: a page of VRAM (device-private).
    Device {
        /// Which.
        page: DevicePage,
        /// Whether the page is writable.
        write: bool,
    },
    /// Not present: the page is in a migration, and a CPU touch waits.
    Migration {
        /// Which.
        claim: ClaimId,
    },
    /// Not present: a touch is a SIGBUS (`UFFDIO_POISON`).
    Poisoned,
}

/// A VMA with what the joint does not tell of it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Mapped {
    /// What the joint tells.
    pub(crate) vma: Vma,
    /// First touches take 2M where they can.
    pub(crate) huge: bool,
    /// What userfaultfd, fork and merging go by.
    pub(crate) attributes: Attributes,
}

/// VMAs and entries of one process.
#[derive(Default)]
pub(crate) struct Space {
    vmas: Sorted<HostVa, Mapped>,
    entries: Sorted<u64, Entry>,
    /// Blocks of 2M that are one mapping, by first page number.
    huge: Sorted<u64, ()>,
}

impl Space {
    /// Whether any block is one mapping.
    pub(crate) fn has_huge(&self) -> bool {
        !self.huge.is_empty()
    }
    /// The VMA around `addr`.
    #[inline]
    pub(crate) fn vma(&self, addr: HostVa) -> Option<Mapped> {
        let mapped = self.vmas.at_or_before(addr)?;
        mapped.vma.range.contains(addr).then_some(*mapped)
    }
    /// The VMA around `addr`, or the first one behind it.
    pub(crate) fn next_vma(&self, addr: HostVa) -> Option<Mapped> {
        self.vma(addr).or_else(|| self.vmas.at_or_behind(addr).copied())
    }
    /// All VMAs, from low to high.
    pub(crate) fn vmas(&self) -> impl Iterator<Item = &Mapped> {
        self.vmas.values()
    }
    /// The VMA around `addr`, to change what is no matter of its extent.
    pub(crate) fn vma_mut(&mut self, addr: HostVa) -> Option<&mut Mapped> {
        let mapped = self.vmas.at_or_before_mut(addr)?;
        mapped.vma.range.contains(addr).then_some(mapped)
    }
    /// Adds a VMA where there is none.
    pub(crate) fn insert_vma(&mut self, mapped: Mapped) {
        self.vmas.insert(mapped.vma.range.start, mapped);
    }
    /// Cuts `range` out of the VMAs; gives the pieces cut out.
    pub(crate) fn cut_vmas(&mut self, range: HostRange) -> Vec<Mapped> {
        let hit: Vec<_> = self.vmas.values().filter(|mapped| mapped.vma.range.overlaps(range)).copied().collect();
        let mut cut = Vec::new();
        for mapped in hit {
            let whole = mapped.vma.range;
            self.vmas.remove(whole.start);
            let piece = |range| Mapped { vma: Vma { range, ..mapped.vma }, ..mapped };
            for rest in [HostRange::new(whole.start, range.start), HostRange::new(range.end, whole.end)] {
                if !rest.is_empty() && whole.covers(rest) {
                    self.insert_vma(piece(rest));
                }
            }
            cut.extend(whole.intersect(range).map(piece));
        }
        self.split_edges(range);
        cut
    }

    /// The entry of the page at `addr`.
    #[inline]
    pub(crate) fn entry(&self, addr: HostVa) -> Option<Entry> {
        self.entries.get(addr.page_number()).copied()
    }
    /// Replaces the entry of the page at `addr`.
    pub(crate) fn set(&mut self, addr: HostVa, entry: Entry) {
        self.entries.insert(addr.page_number(), entry);
    }
    /// Takes the entry of the page at `addr` away.
    pub(crate) fn clear(&mut self, addr: HostVa) -> Option<Entry> {
        self.split(addr);
        self.entries.remove(addr.page_number())
    }
    /// The entries of a range, by address.
    pub(crate) fn entries(&self, range: HostRange) -> Vec<(HostVa, Entry)> {
        let pages = range.start.page_number()..range.end.page_number();
        if pages.is_empty() {
            return Vec::new();
        }
        self.entries.range(pages).iter().map(|(page, entry)| (HostVa(page << PAGE_SHIFT), *entry)).collect()
    }
    /// All entries, by address.
    pub(crate) fn all_entries(&self) -> impl Iterator<Item = (HostVa, Entry)> {
        self.entries.iter().map(|(page, entry)| (HostVa(page << PAGE_SHIFT), *entry))
    }

    /// log2 of the pages of the mapping at `addr`.
    pub(crate) fn order(&self, addr: HostVa) -> u8 {
        if self.huge.has(block(addr)) { ORDER_2M } else { 0 }
    }
    /// Whether a 2M mapping may be made around `addr`: it lies in the VMA and nothing is there yet.
    pub(crate) fn takes_huge(&self, addr: HostVa, mapped: &Mapped) -> bool {
        let range = HostRange::around(addr, SZ_2M);
        mapped.huge && mapped.vma.range.covers(range) && self.entries(range).is_empty()
    }
    /// Marks the 2M around `addr` as one mapping.
    pub(crate) fn mark_huge(&mut self, addr: HostVa) {
        self.huge.insert(block(addr), ());
    }
    /// Takes the mark off the 2M around `addr`.
    pub(crate) fn split(&mut self, addr: HostVa) {
        self.huge.remove(block(addr));
    }
    /// Splits what `range` covers in part.
    pub(crate) fn split_edges(&mut self, range: HostRange) {
        for edge in [range.start, range.end] {
            if !edge.is_aligned(SZ_2M) {
                self.split(edge);
            }
        }
    }
    /// Splits each 2M around one of `addrs` (ascending) whose entries are no aligned run of one kind.
    pub(crate) fn split_ragged(&mut self, addrs: impl Iterator<Item = HostVa>) {
        let mut checked = None;
        for addr in addrs {
            if checked != Some(block(addr)) && self.huge.has(block(addr)) && !self.is_run(addr) {
                self.split(addr);
            }
            checked = Some(block(addr));
        }
    }
    /// Whether the entries of the 2M around `addr` are one aligned run of one kind.
    fn is_run(&self, addr: HostVa) -> bool {
        let entries = self.entries(HostRange::around(addr, SZ_2M));
        let follows = |index: u64, entry: Entry| match (entries[0].1, entry) {
            (Entry::System { frame: first, .. }, Entry::System { frame, .. }) => {
                first.0.is_multiple_of(HUGE_PAGES) && frame == first.add(index)
            }
            (Entry::Device { page: first, .. }, Entry::Device { page, .. }) => {
                first.frame.is_multiple_of(HUGE_PAGES) && page == first.add(index)
            }
            _ => false,
        };
        entries.len() as u64 == HUGE_PAGES && (0..).zip(&entries).all(|(i, (_, entry))| follows(i, *entry))
    }
}

/// First page number of the 2M block around `addr`.
fn block(addr: HostVa) -> u64 {
    addr.align_down(SZ_2M).page_number()
}
