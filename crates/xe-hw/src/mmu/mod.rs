//! One tile's MMU: address spaces, TLB, and the windows in which accesses are in flight.
//!
//! An access opens its engine's window before it asks the TLB and closes it when VRAM has answered (or when
//! the IOMMU has named the frame of a system page). A flush forgets the entries and then waits for the windows
//! that were open: afterwards no access that could know the old translation touches VRAM. A walk that began
//! before a flush may still serve its own access, and is not kept.
//!
//! The driver's copy engine has a TLB of its own, which a flush forgets likewise. It opens no window: its jobs are waited for
//! by whoever asks for them.
//!
//! Key types: [`Mmu`] (a tile), [`Window`] (a guard). `access.rs` uses both; `walker.rs`, `walk_cache.rs` and `tlb.rs`
//! translate; `look.rs` is for observers.
//!
//! Locking: the TLB lock is a leaf; a hit takes it once. Closing a window takes it only where a flush waits.

pub(crate) mod access;
mod look;
mod tlb;
mod walk_cache;
pub(crate) mod walker;

use crate::chip::Chip;
use crate::inject::FlushFault;
use crate::record::Record;
pub use look::Translation;
use std::collections::BTreeMap;
use sync::atomic::{AtomicU32, AtomicU64};
use sync::rank::{self, Rank};
use sync::{Condvar, Mutex, MutexGuard, RwLock, Told};
use tlb::{Tlb, normalised};
use units::{GpuRange, GpuVa, TileId};
use walk_cache::{LEVELS, Stop, WalkCache};
use walker::{Page, Refusal, Space, root, walk};
use xe_spec::fault::{Access, Asid, FaultType};

/// The MMU of one tile.
pub(crate) struct Mmu {
    tile: TileId,
    spaces: RwLock<BTreeMap<Asid, Space>>,
    state: Mutex<State>,
    /// Engines of the tile with an access in flight; a bit each. Set under the lock.
    open: AtomicU64,
    /// Flushes that wait.
    draining: AtomicU32,
    closed: Condvar,
}

struct State {
    tlb: Tlb,
    /// Of the driver's copy engine.
    copies: Tlb,
    tables: WalkCache,
    /// Pages that walks of engines found, as far as one of them is to be lost.
    found: u64,
    lost: Option<(Asid, GpuVa)>,
    /// Counts accesses: the last stamp given out.
    stamp: u64,
    /// The stamp of each engine's last access.
    stamps: Vec<u64>,
    hits: u64,
    walks: u64,
    /// Flushes that were done: a walk that saw another number is not kept.
    flushes: u64,
    drains: u64,
}

/// The parts of the state of an MMU.
const TLB: u64 = 1;
const COPIES: u64 = 2;
const WALKS: u64 = 3;
const FLUSHES: u64 = 4;
const STAMPS: u64 = 5;

/// Tells which parts are looked at, and which are changed. How often the cache was hit is counted all the same.
fn tell(state: &MutexGuard<'_, State>, read: &[u64], written: &[u64]) {
    let read = read.iter().copied().map(Told::Reads);
    sync::tell_each(state, read.chain(written.iter().copied().map(Told::Writes)));
}

/// Which cache keeps a page.
#[derive(Clone, Copy)]
enum Cache {
    Engines,
    Copies,
}

impl State {
    fn look(&self, tlb: &Tlb, asid: Asid, addr: GpuVa) -> Seen {
        let hit = tlb.lookup(asid, addr);
        let table = if hit.is_some() { None } else { self.tables.lookup(asid, addr) };
        Seen { hit, table, flushes: self.flushes }
    }
}

/// What the caches know of an address, after so many flushes.
struct Seen {
    hit: Option<Page>,
    /// Where no page is known, the lowest table that is.
    table: Option<Stop>,
    flushes: u64,
}

/// What a walk found, and the tables that it went through, by level.
struct Walked {
    found: Result<Page, Refusal>,
    passed: [Option<Stop>; LEVELS],
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
        self.mmu.open.fetch_and(!(1 << self.engine));
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
        let (tlb, copies, tables) = (Tlb::new(), Tlb::new(), WalkCache::new());
        let state = State {
            tlb,
            copies,
            tables,
            found: 0,
            lost: None,
            stamp: 0,
            stamps: vec![0; engines],
            hits: 0,
            walks: 0,
            flushes: 0,
            drains: 0,
        };
        Self {
            tile,
            spaces: rank::rwlock(Rank::LEAF, BTreeMap::new()),
            state: rank::mutex(Rank::LEAF, state),
            open: AtomicU64::new(0),
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
        let (window, seen) = self.open(engine, asid, addr);
        if let Some(page) = seen.hit.filter(|page| page.permit(access, chip.platform).is_ok()) {
            return Ok((window, page));
        }
        let mut walked = self.walk(chip, asid, addr, seen.table);
        if let (Some(number), Ok(page)) = (chip.injection.lose_page, walked.found) {
            walked.found = self.lose(asid, page, number);
        }
        self.keep(asid, addr, &walked, seen.flushes, Cache::Engines);
        let page = walked.found?;
        page.permit(access, chip.platform)?;
        Ok((window, page))
    }

    /// Opens the window of an engine if the TLB knows both sides of a copy, and what they are.
    pub(crate) fn translate_known(
        &self,
        chip: &Chip,
        engine: usize,
        asid: Asid,
        sides: [(GpuVa, Access); 2],
    ) -> Option<(Window<'_>, [Page; 2])> {
        let permitted = |page: Option<Page>, access| page.filter(|page| page.permit(access, chip.platform).is_ok());
        let [(from, read), (to, write)] = sides;
        let (window, seen) = self.open(engine, asid, from);
        let source = permitted(seen.hit, read)?;
        let state = self.state.lock();
        let target = permitted(state.tlb.lookup(asid, to), write)?;
        tell(&state, &[TLB], &[]);
        drop(state);
        Some((window, [source, target]))
    }

    /// The same for the driver's copy engine, which opens no window.
    pub(crate) fn translate_copy(&self, chip: &Chip, asid: Asid, addr: GpuVa, access: Access) -> Result<Page, Refusal> {
        let seen = {
            let state = self.state.lock();
            let seen = state.look(&state.copies, asid, addr);
            tell(&state, &[COPIES, FLUSHES, if seen.hit.is_some() { COPIES } else { WALKS }], &[]);
            seen
        };
        if let Some(page) = seen.hit.filter(|page| page.permit(access, chip.platform).is_ok()) {
            return Ok(page);
        }
        let walked = self.walk(chip, asid, addr, seen.table);
        self.keep(asid, addr, &walked, seen.flushes, Cache::Copies);
        let page = walked.found?;
        page.permit(access, chip.platform)?;
        Ok(page)
    }

    /// Walks without the TLB, from `table` on if one is known, and records what must not be.
    fn walk(&self, chip: &Chip, asid: Asid, addr: GpuVa, table: Option<Stop>) -> Walked {
        let mut walked = Walked { found: Err(Refusal::plain(FaultType::NotPresent, 0)), passed: [None; LEVELS] };
        let Some(space) = self.spaces.read().get(&asid).copied() else {
            walked.found = Err(Refusal::plain(FaultType::NotPresent, chip.platform.root_level));
            return walked;
        };
        let mut passed = |stop: Stop| walked.passed[stop.level as usize] = Some(stop);
        let mut from = |stop| walk(&mut chip.reader(), space, stop, addr, &mut passed);
        let mut found = from(table.unwrap_or(root(chip.platform, space)));
        if table.is_some() && found.is_err() {
            found = from(root(chip.platform, space));
        }
        if let Err(Refusal { violation: Some(violation), .. }) = found {
            chip.log.record(Record::Malformed { tile: self.tile, asid, addr, violation });
        }
        walked.found = found;
        walked
    }

    /// Keeps what a walk found and the tables that it went through, unless a flush overtook it.
    fn keep(&self, asid: Asid, addr: GpuVa, walked: &Walked, flushes: u64, cache: Cache) {
        let mut state = self.state.lock();
        if state.flushes != flushes {
            tell(&state, &[FLUSHES], &[]);
            return;
        }
        let (part, tlb): (u64, fn(&mut State) -> &mut Tlb) = match cache {
            Cache::Engines => (TLB, |state| &mut state.tlb),
            Cache::Copies => (COPIES, |state| &mut state.copies),
        };
        tell(&state, &[FLUSHES], &[part, WALKS]);
        match walked.found {
            Ok(page) => tlb(&mut state).insert(asid, page),
            Err(_) => state.tables.flush(asid, GpuRange::sized(addr, 1)),
        }
        walked.passed.iter().flatten().for_each(|stop| state.tables.keep(asid, addr, *stop));
    }

    /// Pages that walks found, where one is to be lost.
    pub(crate) fn found(&self) -> u64 {
        self.state.lock().found
    }

    /// Counts a page that a walk found, and refuses the one that is lost.
    fn lose(&self, asid: Asid, page: Page, number: u64) -> Result<Page, Refusal> {
        let mut state = self.state.lock();
        if state.found == number {
            state.lost = Some((asid, page.base));
        }
        state.found += 1;
        if state.lost == Some((asid, page.base)) {
            return Err(Refusal::plain(FaultType::NotPresent, page.level));
        }
        Ok(page)
    }

    fn open(&self, engine: usize, asid: Asid, addr: GpuVa) -> (Window<'_>, Seen) {
        let mut state = self.state.lock();
        state.stamp += 1;
        state.stamps[engine] = state.stamp;
        // Who asks for it before it is closed again holds the lock, too.
        sync::unscheduled(|| self.open.fetch_or(1 << engine));
        let seen = state.look(&state.tlb, asid, addr);
        tell(&state, &[TLB, FLUSHES, if seen.hit.is_some() { TLB } else { WALKS }], &[STAMPS]);
        state.hits += seen.hit.is_some() as u64;
        state.walks += seen.hit.is_none() as u64;
        (Window { mmu: self, engine }, seen)
    }

    /// Forgets `range` of `asid` and waits for the accesses that were in flight.
    pub(crate) fn flush(&self, asid: Asid, range: GpuRange, fault: FlushFault) {
        let mut state = self.state.lock();
        state.flushes += 1;
        let range = normalised(range);
        let State { tlb, copies, tables, .. } = &mut *state;
        tlb.flush(asid, range);
        copies.flush(asid, range);
        tables.flush(asid, range);
        if fault == FlushFault::SkipDrain {
            return;
        }
        let last = state.stamp;
        self.draining.fetch_add(1);
        if self.in_flight(&state, last) {
            state.drains += 1;
            while self.in_flight(&state, last) {
                self.closed.wait(&mut state);
            }
        }
        self.draining.fetch_sub(1);
    }

    /// Whether an access is in flight that has this stamp or an earlier one.
    fn in_flight(&self, state: &State, last: u64) -> bool {
        let open = self.open.load();
        (0..state.stamps.len()).any(|engine| open >> engine & 1 != 0 && state.stamps[engine] <= last)
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
            let (_window, seen) = mmu.open(0, asid, addr);
            if overtaken {
                mmu.flush(asid, GpuRange::sized(addr, SZ_4K), FlushFault::SkipDrain);
            }
            if seen.hit.is_none() {
                let walked = Walked { found: Ok(page), passed: [None; LEVELS] };
                mmu.keep(asid, addr, &walked, seen.flushes, Cache::Engines);
            }
            seen.hit
        };
        assert_eq!(access(true), None);
        assert_eq!(access(false), None, "the overtaken walk left nothing");
        assert_eq!(access(false), Some(page));
    }
}
