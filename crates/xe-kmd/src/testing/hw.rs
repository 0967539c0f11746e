//! Hardware that does nothing but remember, and copies by walking the tables that it was given.

use std::collections::BTreeMap;

use sync::Mutex;
use units::*;
use xe_spec::fault::*;
use xe_spec::pte::{Entry, LEVEL_SHIFT, Leaf};
use xe_spec::share::Share;

use crate::port::{Hw, HwJob};

/// Hardware that does nothing but remember.
#[derive(Default)]
pub(crate) struct FakeHw {
    pub state: Mutex<HwState>,
}

#[derive(Default)]
pub(crate) struct HwState {
    pub entries: BTreeMap<(Dpa, usize), u64>,
    pub roots: BTreeMap<(TileId, Asid), Dpa>,
    pub flushes: Vec<(TileId, Asid, GpuRange)>,
    pub iommu: BTreeMap<Iova, (HostFrame, usize)>,
    pub next_iova: u64,
    /// VRAM that shows objects: bytes and first frame.
    pub backed: BTreeMap<Dpa, (u64, HostFrame)>,
    pub contexts: BTreeMap<ContextId, (Vec<EngineId>, Share)>,
    pub jobs: Vec<(ContextId, HwJob)>,
    /// How long contexts ran.
    pub ran_ns: BTreeMap<ContextId, u64>,
    pub acks: Vec<(FaultSlot, FaultAck)>,
    pub copies: Vec<Copied>,
}

/// A page that a copy job was to carry: each side's address, and whether it is device memory.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Copied {
    pub tile: TileId,
    pub src: Option<(u64, bool)>,
    pub dst: Option<(u64, bool)>,
    pub outcome: Outcome,
}

impl FakeHw {
    /// What a tile's tables say of an address, and at which level. A leaf of a compact table is told as the leaf of 4K with
    /// PS64 that says the same.
    pub fn walk(&self, tile: TileId, asid: Asid, va: GpuVa) -> Option<(u8, Leaf)> {
        let state = self.state.lock();
        let mut table = *state.roots.get(&(tile, asid))?;
        for level in (0..=4u8).rev() {
            let index = (va.0 >> LEVEL_SHIFT[level as usize]) as usize % 512;
            let entry = state.entries.get(&(table, index)).copied().unwrap_or(0);
            match Entry::decode(entry, level) {
                Entry::Absent => return None,
                Entry::Leaf(leaf) => return Some((level, leaf)),
                Entry::Table { table: next, compact: false } => table = next,
                Entry::Table { table: next, compact: true } => {
                    let entry = state.entries.get(&(next, (va.0 >> 16) as usize % 32)).copied().unwrap_or(0);
                    let Entry::Leaf(leaf) = Entry::decode(entry, 0) else { return None };
                    assert!(!leaf.ps64 && leaf.addr % SZ_64K == 0, "{leaf:?} in a compact table");
                    return Some((0, Leaf { addr: leaf.addr + va.0 % SZ_64K / SZ_4K * SZ_4K, ps64: true, ..leaf }));
                }
            }
        }
        None
    }

    /// Whether the last table on the way to an address is a compact one.
    pub fn is_compact(&self, tile: TileId, asid: Asid, va: GpuVa) -> bool {
        let state = self.state.lock();
        let mut table = state.roots.get(&(tile, asid)).copied();
        for level in (1..=4u8).rev() {
            let index = (va.0 >> LEVEL_SHIFT[level as usize]) as usize % 512;
            let entry = table.and_then(|table| state.entries.get(&(table, index)).copied()).unwrap_or(0);
            match Entry::decode(entry, level) {
                Entry::Table { compact: true, .. } => return true,
                Entry::Table { table: next, .. } => table = Some(next),
                Entry::Absent | Entry::Leaf(_) => return false,
            }
        }
        false
    }

    /// Whether the IOMMU knows a bus address.
    pub fn dma_reaches(&self, addr: u64) -> bool {
        self.frame_behind(addr).is_some()
    }

    /// The frame that a bus address leads to.
    pub fn frame_behind(&self, addr: u64) -> Option<HostFrame> {
        let state = self.state.lock();
        let (iova, (frame, pages)) = state.iommu.range(..=Iova(addr)).next_back()?;
        let offset = addr - iova.0;
        (offset < bytes_of(*pages)).then(|| frame.add(offset >> PAGE_SHIFT))
    }

    /// Entries that are not zero.
    pub fn live_entries(&self) -> usize {
        self.state.lock().entries.values().filter(|entry| **entry != 0).count()
    }
}

impl Hw for FakeHw {
    fn table_write(&self, table: Dpa, index: usize, entry: u64) {
        assert!(index < 512);
        self.state.lock().entries.insert((table, index), entry);
    }
    fn table_write_run(&self, table: Dpa, first: usize, entries: &[u64]) {
        entries.iter().enumerate().for_each(|(n, entry)| self.table_write(table, first + n, *entry));
    }
    fn table_read(&self, table: Dpa, index: usize) -> u64 {
        self.state.lock().entries.get(&(table, index)).copied().unwrap_or(0)
    }
    fn set_root(&self, tile: TileId, asid: Asid, root: Dpa, _needs_64k: bool) {
        self.state.lock().roots.insert((tile, asid), root);
    }
    fn clear_root(&self, tile: TileId, asid: Asid) {
        self.state.lock().roots.remove(&(tile, asid));
    }
    fn tlb_invalidate(&self, tile: TileId, asid: Asid, range: GpuRange) {
        self.state.lock().flushes.push((tile, asid, range));
    }
    fn iommu_map(&self, frame: HostFrame, pages: usize, _write: bool) -> Option<Iova> {
        let mut state = self.state.lock();
        let iova = Iova(0x8000_0000 + state.next_iova);
        state.next_iova += bytes_of(pages) + SZ_64K;
        state.iommu.insert(iova, (frame, pages));
        Some(iova)
    }
    fn iommu_unmap(&self, iova: Iova, pages: usize) {
        let gone = self.state.lock().iommu.remove(&iova);
        assert_eq!(gone.map(|(_, pages)| pages), Some(pages));
    }
    fn vram_back(&self, dpa: Dpa, bytes: u64, frames: Option<HostFrame>) {
        let backed = &mut self.state.lock().backed;
        match frames {
            Some(first) => assert_eq!(backed.insert(dpa, (bytes, first)), None),
            None => assert_eq!(backed.remove(&dpa).map(|(bytes, _)| bytes), Some(bytes)),
        }
    }
    fn context_create(&self, placement: &[EngineId], _asid: Asid, share: Share) -> Option<ContextId> {
        let mut state = self.state.lock();
        let id = ContextId(1 + state.contexts.len() as u32);
        state.contexts.insert(id, (placement.to_vec(), share));
        Some(id)
    }
    fn look_again(&self) {}
    fn context_ran_ns(&self, context: ContextId) -> u64 {
        self.state.lock().ran_ns.get(&context).copied().unwrap_or(0)
    }
    fn context_destroy(&self, _context: ContextId) {}
    fn submit(&self, context: ContextId, job: HwJob) {
        self.state.lock().jobs.push((context, job));
    }
    fn fault_ack(&self, slot: FaultSlot, ack: FaultAck) {
        self.state.lock().acks.push((slot, ack));
    }
    fn copy(&self, tile: TileId, asid: Asid, src: GpuVa, dst: GpuVa, pages: usize, report: &mut Report<'_>) {
        for n in 0..pages {
            let side = |va: GpuVa| {
                let va = va.add(bytes_of(n));
                self.walk(tile, asid, va)
                    .map(|(level, leaf)| (leaf.addr + (va.0 & ((1 << LEVEL_SHIFT[level as usize]) - 1)), leaf.device))
            };
            let (src, dst) = (side(src), side(dst));
            let outcome = match (src, dst) {
                (Some(_), Some((addr, false))) if !self.dma_reaches(addr) => Outcome::Dropped,
                (Some((addr, false)), Some(_)) if !self.dma_reaches(addr) => Outcome::Failed,
                (Some(_), Some(_)) => Outcome::Copied,
                _ => Outcome::Failed,
            };
            self.state.lock().copies.push(Copied { tile, src, dst, outcome });
            report(1, outcome);
        }
    }
}
