//! The TLB's array: direct-mapped, one set of slots for each size of page.
//!
//! It forgets only what is flushed, or displaced by another page of the same slot: an entry that was cleared in
//! memory and not flushed goes on translating. Refusals are not kept.

use crate::walker::Page;
use units::{GpuRange, GpuVa, SZ_2M, SZ_4K};
use xe_spec::fault::Asid;

/// log2 of the page size and number of slots (a power of two) of each set.
const SETS: [(u32, usize); 4] = [(12, 64), (16, 64), (21, 32), (30, 8)];
/// From 2M on, a ranged flush covers at least this much.
const SZ_16M: u64 = 1 << 24;

type Slot = Option<(Asid, Page)>;

/// The entries of one tile.
pub(crate) struct Tlb {
    sets: [Vec<Slot>; SETS.len()],
}

impl Tlb {
    pub(crate) fn new() -> Self {
        Self { sets: SETS.map(|(_, slots)| vec![None; slots]) }
    }

    pub(crate) fn lookup(&self, asid: Asid, addr: GpuVa) -> Option<Page> {
        SETS.iter().zip(&self.sets).find_map(|(&(shift, _), slots)| match slots[slot(addr, shift, slots.len())] {
            Some((owner, page)) if owner == asid && page.contains(addr) => Some(page),
            _ => None,
        })
    }

    pub(crate) fn insert(&mut self, asid: Asid, page: Page) {
        for (&(shift, _), slots) in SETS.iter().zip(&mut self.sets) {
            if shift == page.shift {
                let at = slot(page.base, shift, slots.len());
                slots[at] = Some((asid, page));
            }
        }
    }

    /// Forgets what `asid` has in `range`, which is already [`normalised`].
    pub(crate) fn flush(&mut self, asid: Asid, range: GpuRange) {
        for slot in self.sets.iter_mut().flatten() {
            if slot.is_some_and(|(owner, page)| owner == asid && overlaps(&page, range)) {
                *slot = None;
            }
        }
    }
}

fn slot(addr: GpuVa, shift: u32, slots: usize) -> usize {
    (addr.0 >> shift) as usize & (slots - 1)
}

fn overlaps(page: &Page, range: GpuRange) -> bool {
    GpuRange::sized(page.base, 1 << page.shift).overlaps(range)
}

/// What a flush of `range` really covers: an aligned power of two that contains it, at least 4K, and at least
/// 16M once it reaches 2M; everything where no such block of 64-bit addresses exists.
pub(crate) fn normalised(range: GpuRange) -> GpuRange {
    let everything = GpuRange::new(GpuVa(0), GpuVa(u64::MAX));
    let mut length = range.len().max(SZ_4K).checked_next_power_of_two();
    while let Some(size) = length {
        let size = if size >= SZ_2M { size.max(SZ_16M) } else { size };
        let start = range.start.align_down(size);
        match start.0.checked_add(size) {
            Some(end) if range.end.0 <= end => return GpuRange::new(start, GpuVa(end)),
            Some(_) => length = size.checked_mul(2),
            None => break,
        }
    }
    everything
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_grow_as_the_firmware_wants_them() {
        let flush = |start, end| {
            let block = normalised(GpuRange::new(GpuVa(start), GpuVa(end)));
            (block.start.0, block.end.0)
        };
        assert_eq!(flush(0x5000, 0x6000), (0x5000, 0x6000));
        assert_eq!(flush(0x1000, 0x3000), (0, 0x4000));
        assert_eq!(flush(0x1_0000, 0x2_0000), (0x1_0000, 0x2_0000));
        assert_eq!(flush(0xf000, 0x1_1000), (0, 0x2_0000));
        assert_eq!(flush(0x10_0000, 0x20_0000), (0x10_0000, 0x20_0000));
        assert_eq!(flush(0x320_0000, 0x340_0000), (0x300_0000, 0x400_0000));
        assert_eq!(flush(0x8000, 0x18_0000), (0, 0x100_0000));
        assert_eq!(flush(0, u64::MAX), (0, u64::MAX));
    }
}
