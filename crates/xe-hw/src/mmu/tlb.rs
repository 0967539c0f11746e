//! The TLB's array: for each size of page some sets of [`WAYS`] slots.
//!
//! It forgets only what is flushed, or displaced by further pages of the same set: an entry that was cleared in
//! memory and not flushed goes on translating. Refusals are not kept.

use super::walker::Page;
use units::{GpuRange, GpuVa, SZ_2M, SZ_4K};
use xe_spec::fault::Asid;

/// log2 of the page size and number of sets (a power of two).
const SIZES: [(u32, usize); 4] = [(12, 16), (16, 16), (21, 8), (30, 2)];
/// Slots of a set.
const WAYS: usize = 4;
/// From 2M on, a ranged flush covers at least this much.
const SZ_16M: u64 = 1 << 24;

type Slot = Option<(Asid, Page)>;

/// The entries of one tile.
pub(crate) struct Tlb {
    sizes: [Vec<[Slot; WAYS]>; SIZES.len()],
    /// The way that the next displacement takes.
    victim: usize,
}

impl Tlb {
    pub(crate) fn new() -> Self {
        Self { sizes: SIZES.map(|(_, sets)| vec![[None; WAYS]; sets]), victim: 0 }
    }

    pub(crate) fn lookup(&self, asid: Asid, addr: GpuVa) -> Option<Page> {
        let mut sets = SIZES.iter().zip(&self.sizes).map(|(&(shift, _), sets)| &sets[set(addr, shift, sets.len())]);
        sets.find_map(|set| set.iter().flatten().find(|(owner, page)| *owner == asid && page.contains(addr)))
            .map(|&(_, page)| page)
    }

    pub(crate) fn insert(&mut self, asid: Asid, page: Page) {
        let Some(size) = SIZES.iter().position(|&(shift, _)| shift == page.shift) else { return };
        let sets = &mut self.sizes[size];
        let at = set(page.base, page.shift, sets.len());
        let same = |slot: &Slot| slot.is_some_and(|(owner, other)| owner == asid && other.base == page.base);
        let ways = &mut sets[at];
        let way = ways.iter().position(same).or_else(|| ways.iter().position(Option::is_none)).unwrap_or_else(|| {
            self.victim = (self.victim + 1) % WAYS;
            self.victim
        });
        ways[way] = Some((asid, page));
    }

    /// Everything that it holds.
    pub(crate) fn entries(&self) -> impl Iterator<Item = (Asid, Page)> {
        self.sizes.iter().flatten().flatten().flatten().copied()
    }

    /// Forgets what `asid` has in `range`, which is already [`normalised`].
    pub(crate) fn flush(&mut self, asid: Asid, range: GpuRange) {
        for slot in self.sizes.iter_mut().flatten().flatten() {
            if slot.is_some_and(|(owner, page)| owner == asid && overlaps(&page, range)) {
                *slot = None;
            }
        }
    }
}

fn set(addr: GpuVa, shift: u32, sets: usize) -> usize {
    (addr.0 >> shift) as usize & (sets - 1)
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
