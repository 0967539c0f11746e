//! What an observer sees: everything that address spaces and TLBs of a tile lead to at a moment. It changes nothing.

use super::walk_cache::Stop;
use super::walker::{Page, root, walk};
use super::{Mmu, TLB, tell};
use crate::chip::Chip;
use crate::tables::Reader;
use units::{GpuRange, GpuVa};
use xe_spec::fault::Asid;
use xe_spec::pte::{Entry, Leaf};

/// A leaf, or a TLB's copy of one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Translation {
    /// Of which address space.
    pub asid: Asid,
    /// What it translates.
    pub span: GpuRange,
    /// What it is mapped to.
    pub leaf: Leaf,
}

impl Mmu {
    /// The address spaces that have a root.
    pub(crate) fn spaces(&self) -> Vec<Asid> {
        self.spaces.read().keys().copied().collect()
    }

    /// Every leaf of an address space, as it stands in memory.
    pub(crate) fn leaves(&self, chip: &Chip, asid: Asid) -> Vec<Translation> {
        let mut leaves = Vec::new();
        let space = self.spaces.read().get(&asid).copied();
        if let Some(space) = space {
            collect(&mut chip.reader(), asid, root(chip.platform, space), GpuVa(0), &mut leaves);
        }
        leaves
    }

    /// What the TLB holds.
    pub(crate) fn cached(&self) -> Vec<Translation> {
        let state = self.state.lock();
        let shown = |(asid, page): (Asid, Page)| Translation {
            asid,
            span: GpuRange::sized(page.base, 1 << page.shift),
            leaf: page.leaf,
        };
        state.tlb.entries().map(shown).collect()
    }

    /// What an address is mapped to by the tables, whatever caches hold.
    pub(crate) fn look(&self, chip: &Chip, asid: Asid, addr: GpuVa) -> Option<Leaf> {
        let space = *self.spaces.read().get(&asid)?;
        walk(&mut chip.reader(), space, root(chip.platform, space), addr, drop).ok().map(|page| page.leaf)
    }

    /// A translation in the TLB that leads to one of the `bytes` bus addresses from `first` on.
    pub(crate) fn leads_to_bus(&self, first: u64, bytes: u64) -> Option<(Asid, GpuVa)> {
        let state = self.state.lock();
        tell(&state, &[TLB], &[]);
        let leads = |page: &Page| page.leaf.addr < first + bytes && first < page.leaf.addr + (1 << page.shift);
        state.tlb.to_bus().find(|(_, page)| leads(page)).map(|(asid, page)| (asid, page.base))
    }
}

/// Leaves below a table, by address.
fn collect(tables: &mut Reader<'_>, asid: Asid, stop: Stop, start: GpuVa, leaves: &mut Vec<Translation>) {
    let (shift, mut next) = (stop.shift(), 0);
    while let Some((index, entry)) = tables.next_entry(stop.table, next, stop.entries()) {
        let span = GpuRange::sized(start.add((index as u64) << shift), 1 << shift);
        match Entry::decode(entry, stop.level) {
            Entry::Absent => {}
            Entry::Table { table, compact } => {
                collect(tables, asid, Stop { level: stop.level - 1, table, compact }, span.start, leaves);
            }
            Entry::Leaf(leaf) => leaves.push(Translation { asid, span, leaf }),
        }
        next = index + 1;
    }
}
