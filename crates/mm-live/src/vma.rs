//! Lookup of VMAs, and what of them must never migrate.
//!
//! The kernel merges neighbouring mappings, so an excluded range may lie in the middle of a VMA: a lookup
//! reports the part between exclusions, or the excluded part as one that cannot migrate. What is the library's own
//! ([`ours`](crate::ours)) is no mapping at all.

use crate::LiveMm;
use crate::kernel::Mapping;
use hostmm::Vma;
use units::{HostRange, HostVa, SZ_2M, SZ_4K};

impl LiveMm {
    /// Keeps `range`, which is the program's, in system memory for ever: whatever of it the fault path itself touches.
    /// Pages are excluded whole. What is the library's own is said by [`own`](Self::own). Exclude before the first
    /// migration; what is in VRAM already migrates back when touched.
    pub fn exclude(&self, range: HostRange) {
        let range = HostRange::new(range.start.page(), range.end.align_up(SZ_4K));
        if !range.is_empty() {
            self.excluded.lock().push(range);
        }
    }

    /// Takes an exclusion back: a stack whose thread has ended. The same range as was excluded.
    pub fn readmit(&self, range: HostRange) {
        let range = HostRange::new(range.start.page(), range.end.align_up(SZ_4K));
        self.excluded.lock().retain(|&excluded| excluded != range);
    }

    /// Excludes the calling thread's stack, thread control block and thread vector.
    pub fn exclude_own_thread(&self) {
        self.kernel.thread_memory().into_iter().for_each(|range| self.exclude(range));
    }

    /// The VMA around `addr`, or the first one above it: what goes through an address space asks for. Like a lookup,
    /// it reports the part between exclusions.
    pub(crate) fn vma_from(&self, addr: HostVa) -> Option<Vma> {
        let mut at = addr;
        loop {
            let mapping = self.kernel.mapping(at)?;
            at = at.max(mapping.range.start);
            match self.ours.around(at) {
                Ok(gap) => return self.clipped(at, &self.merged(mapping, HostRange::around(at, SZ_2M)), gap),
                Err(ours) => at = ours.end,
            }
        }
    }

    /// The VMA around `addr`, clipped to what is excluded or not; what is alike in its 2M counts as one.
    pub(crate) fn vma_at(&self, addr: HostVa) -> Option<Vma> {
        self.vma_over(addr, HostRange::around(addr, SZ_2M))
    }

    /// The same, where only what lies in `block` matters: who asks for less looks at fewer neighbours.
    pub(crate) fn vma_over(&self, addr: HostVa, block: HostRange) -> Option<Vma> {
        let gap = self.ours.around(addr).ok()?;
        self.clipped(addr, &self.merged(self.mapping_at(addr)?, block), gap)
    }

    /// The one VMA of the kernel around `addr`, clipped likewise: a registration must know that each is whole, and who asks
    /// for permissions only needs no more.
    pub(crate) fn single_vma_at(&self, addr: HostVa) -> Option<Vma> {
        let gap = self.ours.around(addr).ok()?;
        self.clipped(addr, &self.mapping_at(addr)?, gap)
    }

    fn mapping_at(&self, addr: HostVa) -> Option<Mapping> {
        self.kernel.mapping(addr).filter(|mapping| mapping.range.contains(addr))
    }

    /// A mapping, with what is alike beside it in `block`. Without us most of that would be one VMA: a
    /// registered part of a VMA is one of its own, memory that is mapped into the middle of it is not merged with it,
    /// and is not merged later either.
    fn merged(&self, found: Mapping, block: HostRange) -> Mapping {
        let alike = |other: &Mapping| found.is_like(other);
        let mut range = found.range;
        while range.start > block.start {
            let Some(before) = self.mapping_at(HostVa(range.start.0 - 1)).filter(alike) else { break };
            range.start = before.range.start;
        }
        while range.end < block.end {
            let Some(behind) = self.mapping_at(range.end).filter(alike) else { break };
            range.end = behind.range.end;
        }
        Mapping { range, ..found }
    }

    /// The kernel's mappings that `range` lies in, clipped to it, where they are alike: one mapping, for the program. None
    /// where they are not alike, or something is missing.
    pub fn alike_mappings(&self, range: HostRange) -> Vec<HostRange> {
        let Some(first) = self.mapping_at(range.start) else { return Vec::new() };
        let mut pieces = Vec::new();
        let mut at = range.start;
        while at < range.end {
            let Some(mapping) = self.mapping_at(at).filter(|next| first.is_like(next)) else { return Vec::new() };
            let end = mapping.range.end.min(range.end);
            pieces.push(HostRange::new(at, end));
            at = end;
        }
        pieces
    }

    /// Whether nothing of `range` is excluded.
    pub(crate) fn may_migrate(&self, range: HostRange) -> bool {
        !self.excluded.lock().iter().any(|excluded| excluded.overlaps(range))
    }

    fn clipped(&self, addr: HostVa, mapping: &Mapping, gap: HostRange) -> Option<Vma> {
        let mut range = mapping.range.intersect(gap)?;
        let mut anonymous = mapping.plain && mapping.read && mapping.write && !mapping.exec;
        for excluded in self.excluded.lock().iter() {
            if excluded.contains(addr) {
                anonymous = false;
                range = range.intersect(*excluded)?;
            } else if excluded.end <= addr {
                range.start = range.start.max(excluded.end);
            } else {
                range.end = range.end.min(excluded.start);
            }
        }
        Some(Vma { range, read: mapping.read, write: mapping.write, anonymous, io: mapping.io })
    }
}
