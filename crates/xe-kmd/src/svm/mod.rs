//! Shared virtual memory of one VM, and the half of a VM that the reader class may touch.
//!
//! A VM has two halves. [`Vm`](crate::vm::Vm) holds what its lock protects: VMAs, binds, the life of the VM.
//! [`Space`] holds what an invalidation needs: the page tables and the list of ranges to collect. The engine's
//! notifier calls it, on whatever thread changes the address space, so nothing here ever waits for a VM's lock
//! or for a fence.
//!
//! | module | does |
//! |---|---|
//! | [`handler`] | serves a GPU fault: the whole retry loop |
//! | [`bind`] | a range's pages become leaves |
//! | [`policy`] | where a fault's pages should live |
//! | `invalidate` | pages change: zap, flush, unmap |
//! | [`garbage`] | removes ranges whose mapping is gone |
//! | [`devmem`] | VRAM for migrations, and the copies |
//! | [`prefetch`] | the handler's work ahead of a fault |
//! | [`userptr`] | the CPU's memory at other addresses |
//!
//! Faults and prefetches share the VM's lock. Who works on a range holds the range's lock ([`Space::hold`]) from the moment it
//! looks at it until it is bound or given up; so does who removes it, unless it holds the VM's lock alone.
//!
//! Locking: a range's lock is taken under the VM's, above the migrate lock. [`Space`]'s other locks are below the notifier
//! lock: page tables (one lock a tile), then the list.
//!
//! Upstream: `xe_svm.c`, `struct xe_svm_range`.

pub(crate) mod bind;
pub(crate) mod devmem;
pub(crate) mod garbage;
pub(crate) mod handler;
mod invalidate;
pub(crate) mod policy;
pub(crate) mod prefetch;
pub(crate) mod userptr;

use std::sync::Arc;

use gpusvm::{GpuSvm, RangeKey};
use hostmm::PagemapId;
use sync::atomic::AtomicBool;
use sync::rank::mutex;
use sync::{Mutex, MutexGuard};
use units::{Dpa, GpuRange, GpuVa, HostRange, SZ_2M, SZ_4K, SZ_64K, TileId};
use xe_spec::fault::Asid;

use crate::bo::Shows;
use crate::event::Event;
use crate::gpu::{Gpu, Tile};
use crate::pt::build::Run;
use crate::pt::{Committed, NoTable, PageTable};
use crate::ranks;
use crate::shared::Shared;

#[cfg(test)]
mod tests;

/// Sizes of ranges.
pub(crate) const CHUNK_SIZES: &[u64] = &[SZ_2M, SZ_64K, SZ_4K];
/// Granule of notifiers (`svm_notifier_size`).
pub(crate) const NOTIFIER_SIZE: u64 = 512 << 20;

/// What the driver keeps with each range, under the notifier lock. A bit a tile.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub(crate) struct RangeData {
    /// The tile's page table has entries for the range, valid or zapped.
    pub tile_present: u8,
    /// They are zapped.
    pub tile_invalidated: u8,
}

impl RangeData {
    /// Whether a tile translates the range.
    pub(crate) const fn bound_on(self, tile: TileId) -> bool {
        self.tile_present & !self.tile_invalidated & tile.bit() != 0
    }
}

/// The mirror of one VM.
pub(crate) type Svm = GpuSvm<Space>;

/// A mirror at work: what a fault or a prefetch is served with. The VM's lock is held, shared or alone.
#[derive(Clone, Copy)]
pub(crate) struct Mirror<'a> {
    pub shared: &'a Shared,
    pub space: &'a Space,
    pub svm: &'a Svm,
}

/// A range as it was at one moment, for decisions; what is decided by it is checked again at commit.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RangeView {
    pub span: HostRange,
    pub data: RangeData,
    /// It may migrate.
    pub migrate_devmem: bool,
    /// The VRAM that its mapped pages are in, if any are.
    pub pagemap: Option<PagemapId>,
    /// That is a peer's.
    pub at_peer: bool,
    /// Its memory is gone, or some of it: it is the collector's.
    pub unmapped: bool,
}

impl RangeView {
    /// Looks at a range; `None` where it was removed.
    pub(crate) fn of(space: &Space, svm: &Svm, key: RangeKey) -> Option<Self> {
        let locked = svm.notifier_lock();
        let range = locked.range(key)?;
        let pagemap = range.pages().pagemap().filter(|_| range.pages().valid());
        let (span, data, migrate_devmem) = (range.span(), range.data, range.migrate_devmem());
        let at_peer = pagemap.is_some_and(|pagemap| space.gpu.is_peers(pagemap));
        Some(Self { span, data, migrate_devmem, pagemap, at_peer, unmapped: range.unmapped() })
    }
}

impl Shows for Space {
    fn asid(&self) -> Asid {
        self.asid
    }

    fn unbind(&self, span: GpuRange) {
        self.lost.store(true);
        for tile in &self.gpu.tiles {
            self.zap(tile.id, span);
            self.gpu.flush(tile.id, self.asid, span);
        }
    }
}

/// Locks of ranges. There are fewer than ranges: who works on two ranges that share one is in the other's way, and that is
/// all; nobody ever holds two. (Upstream has one in each range.)
struct RangeLocks([Mutex<()>; Self::COUNT]);

impl RangeLocks {
    /// Many more than there are threads that serve.
    const COUNT: usize = 64;

    const fn new() -> Self {
        Self([const { mutex(ranks::RANGE, ()) }; Self::COUNT])
    }

    fn lock(&self, key: RangeKey) -> MutexGuard<'_, ()> {
        self.0[key.number() as usize % Self::COUNT].lock()
    }
}

/// A tile's page tables of one VM.
struct Tables {
    /// `None` once the VM is closed.
    table: Option<PageTable>,
    /// Prunes that took a table out: what was staged before one of them may lack a table.
    prunes: u64,
}

/// A plan whose tables were there after so many prunes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use]
pub(crate) struct Staged {
    prunes: u64,
}

/// One VM's page tables and what goes with them.
pub(crate) struct Space {
    pub gpu: Arc<Gpu>,
    pub asid: Asid,
    /// One a tile.
    tables: Vec<Mutex<Tables>>,
    /// Ranges to be removed: their mapping is gone.
    garbage: Mutex<Vec<RangeKey>>,
    ranges: RangeLocks,
    /// A BO that it shows lost its leaves since this was last asked.
    pub lost: AtomicBool,
}

impl Space {
    /// Empty page tables on every tile, which the device walks from now on.
    pub(crate) fn new(gpu: &Arc<Gpu>, asid: Asid) -> Result<Arc<Self>, NoTable> {
        let mut tables: Vec<PageTable> = Vec::new();
        for tile in &gpu.tiles {
            match PageTable::new(&tile.tables, gpu.platform.root_level) {
                Ok(table) => tables.push(table),
                Err(short) => {
                    tables.drain(..).zip(&gpu.tiles).for_each(|(table, tile)| table.destroy(&*gpu.hw, &tile.tables));
                    return Err(short);
                }
            }
        }
        for (table, tile) in tables.iter().zip(&gpu.tiles) {
            gpu.hw.set_root(tile.id, asid, table.root(), gpu.platform.needs_64k);
        }
        let tables = tables.into_iter().map(|table| mutex(ranks::TABLES, Tables { table: Some(table), prunes: 0 }));
        let (tables, garbage) = (tables.collect(), mutex(ranks::GARBAGE, Vec::new()));
        Ok(Arc::new(Self {
            gpu: gpu.clone(),
            asid,
            tables,
            garbage,
            ranges: RangeLocks::new(),
            lost: AtomicBool::new(false),
        }))
    }

    /// Nobody else works on a range, of the mirror or of userptrs, nor removes it, as long as the guard lives. The caller holds the VM's lock, shared, and
    /// no other range's.
    pub(crate) fn hold(&self, key: RangeKey) -> MutexGuard<'_, ()> {
        self.ranges.lock(key)
    }

    /// Ends translation on every tile and gives the tables back. The caller holds the VM's lock alone.
    pub(crate) fn close(&self) {
        let everything = GpuRange::new(GpuVa(0), GpuVa(1 << self.gpu.platform.va_bits));
        for (slot, tile) in self.tables.iter().zip(&self.gpu.tiles) {
            // Under the lock: a notifier must find the table until the device walks it no more.
            let mut slot = slot.lock();
            self.gpu.hw.clear_root(tile.id, self.asid);
            // Not by the rule: a closed VM's tables go back to the pool, whatever behaviour is tried.
            self.gpu.hw.tlb_invalidate(tile.id, self.asid, everything);
            if let Some(table) = slot.table.take() {
                table.destroy(&*self.gpu.hw, &tile.tables);
            }
        }
    }

    /// Whether every tile has a table of 4K entries for `va`.
    pub(crate) fn has_table(&self, va: GpuVa) -> bool {
        self.tables.iter().all(|tile| tile.lock().table.as_ref().is_some_and(|table| table.table_at(va, 0).is_some()))
    }

    /// What tables without a leaf cover, on whatever tile. For an observer.
    pub(crate) fn empty_tables(&self) -> Vec<GpuRange> {
        let of_tile = |tables: &Mutex<Tables>| tables.lock().table.as_ref().map(PageTable::empty_tables);
        self.tables.iter().filter_map(of_tile).flatten().collect()
    }

    /// Makes the tables that `runs` need. The caller holds the VM's lock, shared or alone.
    pub(crate) fn stage(&self, tile: TileId, runs: &[Run]) -> Result<Staged, NoTable> {
        let (tile, mut tables) = self.tables_of(tile).ok_or(NoTable)?;
        tables.table.as_mut().ok_or(NoTable)?.stage(&*self.gpu.hw, &tile.tables, runs)?;
        Ok(Staged { prunes: tables.prunes })
    }

    /// Writes the leaves of `runs`; `None`, with nothing written, where tables were taken out since they were staged.
    pub(crate) fn commit(&self, tile: TileId, runs: &[Run], staged: Staged) -> Option<Committed> {
        let (_, mut tables) = self.tables_of(tile)?;
        if tables.prunes != staged.prunes {
            return None;
        }
        tables.table.as_mut()?.commit(&*self.gpu.hw, self.gpu.rules.encode_leaf, runs)
    }

    /// Clears the leaves of a span on one tile. A flush must follow. Reader class.
    pub(crate) fn zap(&self, tile: TileId, span: GpuRange) {
        if let Some((_, mut tables)) = self.tables_of(tile)
            && let Some(table) = tables.table.as_mut()
        {
            table.zap(&*self.gpu.hw, span);
            self.gpu.emit(Event::Zap { asid: self.asid, tile, span });
        }
    }

    /// Frees the tables around a span that hold nothing any more. The caller holds the VM's lock, shared or alone: what
    /// others have staged there meanwhile they stage again.
    pub(crate) fn prune(&self, span: GpuRange) {
        let around = GpuRange::new(span.start.align_down(SZ_2M), span.end.align_up(SZ_2M));
        for tile in &self.gpu.tiles {
            let empty = self.take_empty(tile.id, span);
            if empty.is_empty() {
                continue;
            }
            // Not by the rule: what is tried there is stale leaves, not tables of somebody else.
            self.gpu.hw.tlb_invalidate(tile.id, self.asid, around);
            empty.into_iter().for_each(|table| tile.tables.free(table));
        }
    }

    fn take_empty(&self, tile: TileId, span: GpuRange) -> Vec<Dpa> {
        let Some((_, mut tables)) = self.tables_of(tile) else { return Vec::new() };
        let empty = tables.table.as_mut().map(|table| table.prune(&*self.gpu.hw, span)).unwrap_or_default();
        tables.prunes += u64::from(!empty.is_empty());
        empty
    }

    fn tables_of(&self, tile: TileId) -> Option<(&Tile, MutexGuard<'_, Tables>)> {
        Some((self.gpu.tile(tile)?, self.tables.get(tile.index())?.lock()))
    }
}
