//! One tile's MMU: address spaces, TLB, and the windows in which accesses are in flight.
//!
//! An access opens its engine's window before it asks the TLB and closes it when VRAM has answered (or when
//! the IOMMU has named the frame of a system page). A flush forgets the entries and then waits for the windows
//! that were open: afterwards no access that could know the old translation touches VRAM. A walk that began
//! before a flush may still serve its own access, and is not kept.
//!
//! Key types: [`Mmu`] (a tile), [`Window`] (a guard). `access.rs` uses both; `walker.rs` and `tlb.rs` translate.
//!
//! Locking: the TLB lock is a leaf; a hit takes it once. Closing a window takes it only where a flush waits.

pub(crate) mod access;
mod tlb;
pub(crate) mod walker;

use crate::chip::Chip;
use crate::inject::FlushFault;
use crate::record::Record;
use std::collections::BTreeMap;
use sync::atomic::{AtomicU32, AtomicU64};
use sync::rank::{self, Rank};
use sync::{Condvar, Mutex, RwLock};
use tlb::{Tlb, normalised};
use units::{GpuRange, GpuVa, TileId};
use walker::{Page, Refusal, Space, walk};
use xe_spec::fault::{Access, Asid, FaultType};

/// The MMU of one tile.
pub(crate) struct Mmu {
    tile: TileId,
    spaces: RwLock<BTreeMap<Asid, Space>>,
    state: Mutex<State>,
    /// For each engine of the tile, the stamp of the access in flight; 0: none.
    windows: Vec<AtomicU64>,
    /// Flushes that wait.
    draining: AtomicU32,
    closed: Condvar,
}

struct State {
    tlb: Tlb,
    /// Counts accesses: the last stamp given out.
    stamp: u64,
    hits: u64,
    walks: u64,
    /// Flushes that were done: a walk that saw another number is not kept.
    flushes: u64,
    drains: u64,
}

/// Counts of one MMU.
pub(crate) struct MmuCounts {
    pub(crate) hits: u64,
    pub(crate) walks: u64,
    pub(crate) flushes: u64,
    pub(crate) drains: u64,
}

/// An access of one engine in flight; closed when dropped.
pub(crate) struct Window<'a> {
    mmu: &'a Mmu,
    engine: usize,
}

impl Drop for Window<'_> {
    fn drop(&mut self) {
        self.mmu.windows[self.engine].store(0);
        if self.mmu.draining.load() > 0 {
            // A drain either has not looked yet, or waits: with the lock taken once, it cannot be in between.
            drop(self.mmu.state.lock());
            self.mmu.closed.notify_all();
        }
    }
}

impl Mmu {
    /// The MMU of a tile with `engines` engines.
    pub(crate) fn new(tile: TileId, engines: usize) -> Self {
        let state = State { tlb: Tlb::new(), stamp: 0, hits: 0, walks: 0, flushes: 0, drains: 0 };
        Self {
            tile,
            spaces: rank::rwlock(Rank::LEAF, BTreeMap::new()),
            state: rank::mutex(Rank::LEAF, state),
            windows: (0..engines).map(|_| AtomicU64::new(0)).collect(),
            draining: AtomicU32::new(0),
            closed: Condvar::new(),
        }
    }

    /// Whose it is.
    pub(crate) fn tile(&self) -> TileId {
        self.tile
    }

    pub(crate) fn set_root(&self, asid: Asid, space: Space) {
        self.spaces.write().insert(asid, space);
    }

    pub(crate) fn clear_root(&self, asid: Asid) {
        self.spaces.write().remove(&asid);
    }

    /// Opens the window of engine `engine` (counted inside the tile) and translates `addr` for `access`.
    /// A hit that does not permit the access is walked again before anybody is told.
    pub(crate) fn translate(
        &self,
        chip: &Chip,
        engine: usize,
        asid: Asid,
        addr: GpuVa,
        access: Access,
    ) -> Result<(Window<'_>, Page), Refusal> {
        let (window, hit, flushes) = self.open(engine, asid, addr);
        if let Some(page) = hit.filter(|page| page.permit(access, chip.platform).is_ok()) {
            return Ok((window, page));
        }
        let page = self.walk(chip, asid, addr)?;
        self.keep(asid, page, flushes);
        page.permit(access, chip.platform)?;
        Ok((window, page))
    }

    /// Walks without the TLB, and records what must not be.
    pub(crate) fn walk(&self, chip: &Chip, asid: Asid, addr: GpuVa) -> Result<Page, Refusal> {
        let space = self.spaces.read().get(&asid).copied();
        let space = space.ok_or(Refusal::plain(FaultType::NotPresent, chip.platform.root_level))?;
        let found = walk(chip.platform, &mut chip.reader(), space, addr);
        if let Err(Refusal { violation: Some(violation), .. }) = found {
            chip.log.record(Record::Malformed { tile: self.tile, asid, addr, violation });
        }
        found
    }

    fn open(&self, engine: usize, asid: Asid, addr: GpuVa) -> (Window<'_>, Option<Page>, u64) {
        let mut state = self.state.lock();
        state.stamp += 1;
        self.windows[engine].store(state.stamp);
        let hit = state.tlb.lookup(asid, addr);
        state.hits += hit.is_some() as u64;
        state.walks += hit.is_none() as u64;
        (Window { mmu: self, engine }, hit, state.flushes)
    }

    fn keep(&self, asid: Asid, page: Page, flushes: u64) {
        let mut state = self.state.lock();
        if state.flushes == flushes {
            state.tlb.insert(asid, page);
        }
    }

    /// Forgets `range` of `asid` and waits for the accesses that were in flight.
    pub(crate) fn flush(&self, asid: Asid, range: GpuRange, fault: FlushFault) {
        let mut state = self.state.lock();
        state.flushes += 1;
        state.tlb.flush(asid, normalised(range));
        if fault == FlushFault::SkipDrain {
            return;
        }
        let last = state.stamp;
        let in_flight = || self.windows.iter().any(|window| (1..=last).contains(&window.load()));
        self.draining.fetch_add(1);
        state.drains += in_flight() as u64;
        while in_flight() {
            self.closed.wait(&mut state);
        }
        self.draining.fetch_sub(1);
    }

    pub(crate) fn counts(&self) -> MmuCounts {
        let state = self.state.lock();
        MmuCounts { hits: state.hits, walks: state.walks, flushes: state.flushes, drains: state.drains }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use units::SZ_4K;
    use xe_spec::pte::{Entry, bits};

    #[test]
    fn a_walk_that_a_flush_overtook_is_not_kept() {
        let (mmu, asid, addr) = (Mmu::new(TileId(0), 1), Asid(1), GpuVa(0x5000));
        let Entry::Leaf(leaf) = Entry::decode(0x7000 | bits::PRESENT, 0) else { panic!("a leaf") };
        let page = Page { base: addr, shift: 12, level: 0, leaf };
        let access = |overtaken: bool| {
            let (_window, hit, flushes) = mmu.open(0, asid, addr);
            if overtaken {
                mmu.flush(asid, GpuRange::sized(addr, SZ_4K), FlushFault::SkipDrain);
            }
            if hit.is_none() {
                mmu.keep(asid, page, flushes);
            }
            hit
        };
        assert_eq!(access(true), None);
        assert_eq!(access(false), None, "the overtaken walk left nothing");
        assert_eq!(access(false), Some(page));
    }
}
