//! The device as its driver sees it: table memory, address spaces, TLB flushes, the IOMMU, and what it noticed.
//! Contexts, jobs and copies are in `engine/`, fault answers in `fault.rs`.

use crate::engine::Engines;
use crate::inject::{FlushFault, Injection};
use crate::iommu::Iommu;
use crate::mmu::Mmu;
use crate::port::{Bus, Interrupts};
use crate::record::{Counters, Log, Record};
use crate::tables::Tables;
use crate::walker::Space;
use std::sync::Arc;
use sync::atomic::AtomicU64;
use units::{Dpa, GpuRange, GpuVa, HostFrame, Iova, SZ_4K, TileId};
use xe_spec::fault::Asid;
use xe_spec::platform::Platform;

/// A device of one or more tiles. All methods may be called from any thread.
pub struct Gpu {
    pub(crate) platform: &'static Platform,
    pub(crate) bus: Arc<dyn Bus>,
    pub(crate) irq: Arc<dyn Interrupts>,
    pub(crate) injection: Injection,
    pub(crate) tables: Tables,
    pub(crate) mmus: Vec<Mmu>,
    pub(crate) iommu: Iommu,
    pub(crate) engines: Engines,
    pub(crate) log: Log,
    /// Flushes that were asked for, over all tiles.
    flushes: AtomicU64,
    /// Page copies of all copy jobs so far.
    pub(crate) copies: AtomicU64,
}

impl Gpu {
    /// A device, powered on: no address space, nothing mapped, table memory zero.
    pub fn new(
        platform: &'static Platform,
        bus: Arc<dyn Bus>,
        irq: Arc<dyn Interrupts>,
        injection: Injection,
    ) -> Arc<Self> {
        let engines = Engines::new(platform);
        let tiles = 0..platform.tiles.len();
        Arc::new(Self {
            platform,
            bus,
            irq,
            injection,
            tables: Tables::new(platform),
            mmus: tiles.map(|tile| Mmu::new(TileId(tile as u8), engines.per_tile())).collect(),
            iommu: Iommu::new(),
            engines,
            log: Log::new(),
            flushes: AtomicU64::new(0),
            copies: AtomicU64::new(0),
        })
    }

    /// The platform that the device is one of.
    pub fn platform(&self) -> &'static Platform {
        self.platform
    }

    /// Reads an entry of a page table in any tile's pool; 0, and a record, where there is none.
    pub fn table_read(&self, table: Dpa, index: usize) -> u64 {
        self.tables.read(|pools| pools.entry(table, index)).unwrap_or_else(|| {
            self.log.record(Record::TableAccessOutsidePool { table, index });
            0
        })
    }

    /// Writes an entry of a page table; nothing but a record where there is none. Nothing is flushed.
    pub fn table_write(&self, table: Dpa, index: usize, entry: u64) {
        self.table_write_run(table, index, &[entry]);
    }

    /// Writes consecutive entries of one table in one go: no walk sees some of them only.
    pub fn table_write_run(&self, table: Dpa, first: usize, entries: &[u64]) {
        if !self.tables.write(table, first, entries) {
            self.log.record(Record::TableAccessOutsidePool { table, index: first });
        }
    }

    /// Tells a tile where the tables of an address space start, and whether VRAM leaves of 4K are forbidden
    /// in it. Does not flush.
    pub fn set_root(&self, tile: TileId, asid: Asid, root: Dpa, needs_64k: bool) {
        if let Some(mmu) = self.mmus.get(tile.index()) {
            mmu.set_root(asid, Space { root, needs_64k });
        }
    }

    /// Takes an address space from a tile: walks find nothing from now on. Does not flush.
    pub fn clear_root(&self, tile: TileId, asid: Asid) {
        if let Some(mmu) = self.mmus.get(tile.index()) {
            mmu.clear_root(asid);
        }
    }

    /// Flushes `range` (grown to the device's granules) of an address space from a tile's TLB. Returns when the
    /// accesses to VRAM that were in flight, and could have used an old translation, have ended; accesses to
    /// system memory are not waited for where they may block (see [`Bus::system_access_may_block`]).
    pub fn tlb_invalidate(&self, tile: TileId, asid: Asid, range: GpuRange) {
        let number = self.flushes.fetch_add(1);
        if self.injection.flush_delay_ns > 0 {
            sync::time::sleep_ns(self.injection.flush_delay_ns);
        }
        match self.injection.flush {
            FlushFault::LoseAll => return,
            FlushFault::Lose(lost) if lost == number => return,
            _ => {}
        }
        if let Some(mmu) = self.mmus.get(tile.index()) {
            mmu.flush(asid, range, self.injection.flush);
        }
    }

    /// Lets the device reach `pages` contiguous frames, at bus addresses that are nobody's yet.
    pub fn iommu_map(&self, frame: HostFrame, pages: usize, write: bool) -> Iova {
        self.iommu.map(frame, pages, write)
    }

    /// Ends that. An access that the IOMMU has already let through is not waited for.
    pub fn iommu_unmap(&self, iova: Iova, pages: usize) {
        if !self.iommu.unmap(iova, pages) {
            self.log.record(Record::BadUnmap { iova, pages });
        }
    }

    /// Pages that the device can reach in system memory at present.
    pub fn iommu_mapped_pages(&self) -> u64 {
        self.iommu.mapped_pages()
    }

    /// Takes the records since the last call.
    pub fn take_records(&self) -> Vec<Record> {
        self.log.take()
    }

    /// What the device did so far.
    pub fn counters(&self) -> Counters {
        let mut counters = self.log.counters();
        for mmu in &self.mmus {
            let of = mmu.counts();
            counters.tlb_hits += of.hits;
            counters.walks += of.walks;
            counters.flushes += of.flushes;
            counters.drains += of.drains;
        }
        self.engines.count(&mut counters);
        counters
    }

    /// The address bits that the device has: canonical addresses lose their sign.
    pub(crate) fn strip(&self, addr: GpuVa) -> GpuVa {
        GpuVa(addr.0 & ((1 << self.platform.va_bits) - 1))
    }

    /// Whether the page at `dpa` is a frame of some tile.
    pub(crate) fn is_frame(&self, dpa: Dpa) -> bool {
        self.frames_from(dpa) > 0
    }

    /// Frames from `dpa` to the end of its tile's VRAM; 0 where it is no frame.
    pub(crate) fn frames_from(&self, dpa: Dpa) -> u64 {
        let left = |tile: &xe_spec::platform::Tile| {
            tile.vram_size.checked_sub(dpa.0.checked_sub(tile.vram_base.0)?).filter(|left| *left > 0)
        };
        self.platform.tiles.iter().find_map(left).map_or(0, |bytes| bytes.div_ceil(SZ_4K))
    }
}
