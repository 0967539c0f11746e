//! The TLB's array: for each size of page some sets of [`WAYS`] slots.
//!
//! It forgets only what is flushed, or displaced by further pages of the same set: an entry that was cleared in
//! memory and not flushed goes on translating. Refusals are not kept.
//!
//! A flush looks at the sets that pages of its range can be in, and of these at the slots that are used: most flushes find
//! nothing, and each migration does some.

use super::walker::Page;
use units::{GpuRange, GpuVa, SZ_2M, SZ_4K, set_bits};
use xe_spec::fault::Asid;

/// log2 of the page size and number of sets (a power of two, and with the ways at most 64 slots).
const SIZES: [(u32, usize); 4] = [(12, 16), (16, 16), (21, 8), (30, 2)];
/// Slots of a set.
const WAYS: usize = 4;
/// From 2M on, a ranged flush covers at least this much.
const SZ_16M: u64 = 1 << 24;

type Slot = Option<(Asid, Page)>;

/// The entries of one tile.
pub(crate) struct Tlb {
    sizes: [Slots; SIZES.len()],
    /// The way that the next displacement takes.
    victim: usize,
}

/// The entries of one size of page.
#[derive(Default)]
struct Slots {
    /// None before the first entry.
    slots: Vec<Slot>,
    /// A bit for each slot that is used.
    used: u64,
    /// Of them, those that lead to a bus address.
    bus: u64,
}

impl Tlb {
    pub(crate) fn new() -> Self {
        Self { sizes: Default::default(), victim: 0 }
    }

    pub(crate) fn lookup(&self, asid: Asid, addr: GpuVa) -> Option<Page> {
        let mut sets = SIZES.iter().zip(&self.sizes).map(|(&(shift, sets), of_size)| {
            let first = first_slot(addr.0 >> shift, sets);
            of_size.slots.get(first..first + WAYS).unwrap_or_default()
        });
        sets.find_map(|set| set.iter().flatten().find(|(owner, page)| *owner == asid && page.contains(addr)))
            .map(|&(_, page)| page)
    }

    pub(crate) fn insert(&mut self, asid: Asid, page: Page) {
        let Some(size) = SIZES.iter().position(|&(shift, _)| shift == page.shift) else { return };
        let of_size = &mut self.sizes[size];
        of_size.slots.resize(SIZES[size].1 * WAYS, None);
        let first = first_slot(page.base.0 >> page.shift, SIZES[size].1);
        let ways = &of_size.slots[first..first + WAYS];
        let same = |slot: &Slot| slot.is_some_and(|(owner, other)| owner == asid && other.base == page.base);
        let way = ways.iter().position(same).or_else(|| ways.iter().position(Option::is_none)).unwrap_or_else(|| {
            self.victim = (self.victim + 1) % WAYS;
            self.victim
        });
        of_size.put(first + way, (asid, page));
    }

    /// Everything that it holds.
    pub(crate) fn entries(&self) -> impl Iterator<Item = (Asid, Page)> {
        self.sizes.iter().flat_map(|of_size| of_size.among(of_size.used))
    }

    /// Of it, what leads to bus addresses.
    pub(crate) fn to_bus(&self) -> impl Iterator<Item = (Asid, Page)> {
        self.sizes.iter().flat_map(|of_size| of_size.among(of_size.bus))
    }

    /// Forgets what `asid` has in `range`, which is already [`normalised`].
    pub(crate) fn flush(&mut self, asid: Asid, range: GpuRange) {
        for (of_size, (shift, sets)) in self.sizes.iter_mut().zip(SIZES) {
            let inside = of_size.used & slots_of(range, shift, sets);
            for slot in set_bits(inside) {
                if of_size.slots[slot].is_some_and(|(owner, page)| owner == asid && overlaps(&page, range)) {
                    of_size.forget(slot);
                }
            }
        }
    }
}

impl Slots {
    fn put(&mut self, slot: usize, entry: (Asid, Page)) {
        let leaf = entry.1.leaf;
        self.forget(slot);
        self.slots[slot] = Some(entry);
        self.used |= 1 << slot;
        self.bus |= u64::from(!leaf.device && !leaf.null) << slot;
    }

    fn forget(&mut self, slot: usize) {
        self.slots[slot] = None;
        self.used &= !(1 << slot);
        self.bus &= !(1 << slot);
    }

    fn among(&self, slots: u64) -> impl Iterator<Item = (Asid, Page)> {
        set_bits(slots).filter_map(|slot| self.slots[slot])
    }
}

/// The first slot of the set that a page belongs to.
fn first_slot(page: u64, sets: usize) -> usize {
    (page as usize & (sets - 1)) * WAYS
}

/// A bit for each slot that a page of a range can be in.
fn slots_of(range: GpuRange, shift: u32, sets: usize) -> u64 {
    const OF_SET: u64 = (1 << WAYS) - 1;
    let (first, last) = (range.start.0 >> shift, range.end.0.saturating_sub(1) >> shift);
    if last - first >= sets as u64 {
        return u64::MAX;
    }
    (first..=last).fold(0, |slots, page| slots | OF_SET << first_slot(page, sets))
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

    /// Whatever lies in it: what it held before a flush is what it holds afterwards and what was flushed.
    #[test]
    fn a_flush_forgets_the_pages_that_it_meets_and_no_other() {
        use xe_spec::pte::{Entry, bits};
        let ranges = [(0x1_0000, 0x1_1000), (0, 0x4_0000), (0x100_0000, 0x200_0000), (0x3000, 0x4000), (0, u64::MAX)];
        for (asid, (start, end)) in [1, 2].into_iter().flat_map(|asid| ranges.map(|range| (Asid(asid), range))) {
            let mut tlb = Tlb::new();
            for (nth, addr) in (0..0x200_0000).step_by(0x5000).enumerate() {
                let device = if nth % 3 == 0 { bits::DM } else { 0 };
                let Entry::Leaf(leaf) = Entry::decode(0x7000 | bits::PRESENT | device, 0) else { panic!("a leaf") };
                let (shift, _) = SIZES[nth / 2 % SIZES.len()];
                let page = Page { base: GpuVa(addr).align_down(1 << shift), shift, level: 0, leaf };
                tlb.insert(Asid(1 + nth as u32 % 2), page);
            }
            let range = GpuRange::new(GpuVa(start), GpuVa(end));
            let met = |(owner, page): &(Asid, Page)| *owner == asid && overlaps(page, range);
            let (flushed, kept): (Vec<_>, Vec<_>) = tlb.entries().partition(met);
            assert!(!flushed.is_empty(), "{range}");
            tlb.flush(asid, range);
            assert_eq!(tlb.entries().collect::<Vec<_>>(), kept);
            let bus = kept.iter().filter(|(_, page)| !page.leaf.device).copied();
            assert_eq!(tlb.to_bus().collect::<Vec<_>>(), bus.collect::<Vec<_>>());
        }
    }
}
