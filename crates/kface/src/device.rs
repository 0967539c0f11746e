//! The device under the tree's driver: `xe-hw` on memory that the C half lends.
//!
//! VRAM is one run of bytes a tile, in which the driver's page tables, batches and pages lie as on silicon; system memory is
//! reached by page frame through the device's IOMMU, and a bus address that it does not map is a stray access.
//!
//! Key types: [`Device`]; [`Memory`], bytes that somebody else owns.
//!
//! Locking: none of its own.

use crate::compare;
use crate::evidence::Line;
use crate::ffi::Memory;
use crate::runs::is_told;
use crate::stream::{Stream, owner};
use std::collections::BTreeMap;
use std::sync::Arc;
use sync::Mutex;
use sync::rank::{self, Rank};
use units::{Dpa, GpuRange, GpuVa, HostFrame, Iova, Outcome, Report, SZ_4K, TileId, bytes_of};
use xe_hw::port::{Bus, BusAddr, BusError, Interrupts, Rmw};
use xe_hw::{Gpu, Injection, Job, Record, Step};
use xe_spec::fault::{Asid, ContextId, EngineClass, EngineId, FaultRecord};
use xe_spec::platform::{PVC, Platform, Tile};

const PAGE: usize = SZ_4K as usize;
/// Most commands of one batch: a batch that goes on longer hangs.
const MOST_STEPS: u32 = 1 << 20;

/// A tile's VRAM.
pub(crate) struct Vram {
    pub(crate) base: Dpa,
    pub(crate) memory: Memory,
}

/// The bus: VRAM by address, system memory by frame, which lies at its own address.
struct Flat {
    vram: Vec<Vram>,
    /// What a comparison sees of copies.
    copied: Mutex<Copied>,
}

/// Whole pages that engines copied since somebody asked.
#[derive(Default)]
struct Copied {
    /// Where the last page that was read is.
    last: String,
    /// By where from and where to.
    pages: BTreeMap<(String, String), u64>,
}

impl Flat {
    fn bytes(&self, page: BusAddr) -> Result<(Memory, usize), BusError> {
        match page {
            BusAddr::Vram(dpa) => self.vram(dpa).ok_or(BusError::Fault),
            BusAddr::System(frame) => Memory::system(frame.0 * SZ_4K).map(|memory| (memory, 0)).ok_or(BusError::Fault),
        }
    }

    /// What a comparison calls a place of the bus.
    fn owner(&self, page: BusAddr) -> String {
        match page {
            BusAddr::Vram(dpa) => owner(self.vram.iter().map(|vram| vram.base.0), dpa.0),
            BusAddr::System(_) => "ram".to_owned(),
        }
    }

    fn vram(&self, dpa: Dpa) -> Option<(Memory, usize)> {
        self.vram.iter().find_map(|vram| {
            let offset = dpa.0.checked_sub(vram.base.0)? as usize;
            (offset + PAGE <= vram.memory.len()).then_some((vram.memory, offset))
        })
    }

    fn copy(&self, from: BusAddr, to: BusAddr) -> Result<(), BusError> {
        let mut page = [0; PAGE];
        self.read(from, 0, &mut page)?;
        self.write(to, 0, &page)
    }
}

impl Bus for Flat {
    fn read(&self, page: BusAddr, offset: usize, buf: &mut [u8]) -> Result<(), BusError> {
        let (memory, at) = self.bytes(page)?;
        memory.read(at + offset, buf);
        if buf.len() == PAGE && compare::is_under_way() {
            self.copied.lock().last = self.owner(page);
        }
        Ok(())
    }

    fn write(&self, page: BusAddr, offset: usize, bytes: &[u8]) -> Result<(), BusError> {
        let (memory, at) = self.bytes(page)?;
        memory.write(at + offset, bytes);
        if bytes.len() == PAGE && compare::is_under_way() {
            let mut copied = self.copied.lock();
            let way = (copied.last.clone(), self.owner(page));
            *copied.pages.entry(way).or_default() += 1;
        }
        Ok(())
    }

    fn rmw(&self, page: BusAddr, offset: usize, size: usize, op: Rmw) -> Result<u64, BusError> {
        let mut bytes = [0; 8];
        self.read(page, offset, &mut bytes[..size])?;
        let old = u64::from_le_bytes(bytes);
        let new = match op {
            Rmw::Exchange(value) => value,
            Rmw::Add(value) => old.wrapping_add(value),
            Rmw::Sub(value) => old.wrapping_sub(value),
            Rmw::CompareExchange { expected, new } if old == expected => new,
            Rmw::CompareExchange { .. } => return Ok(old),
        };
        self.write(page, offset, &new.to_le_bytes()[..size])?;
        Ok(old)
    }

    fn transfer(&self, src: BusAddr, dst: BusAddr, pages: usize, report: &mut Report<'_>) {
        let page = |first, n: usize| match first {
            BusAddr::Vram(Dpa(dpa)) => BusAddr::Vram(Dpa(dpa + bytes_of(n))),
            BusAddr::System(frame) => BusAddr::System(frame.add(n as u64)),
        };
        for n in 0..pages {
            let copied = self.copy(page(src, n), page(dst, n));
            report(1, if copied.is_ok() { Outcome::Copied } else { Outcome::Failed });
        }
    }

    fn table_entry(&self, table: Dpa, index: usize) -> Option<u64> {
        let (memory, at) = self.vram(table)?;
        Some(memory.word(at + 8 * index))
    }

    fn system_access_may_block(&self, _: HostFrame) -> bool {
        false
    }
}

/// What the device said of the job that runs.
#[derive(Default)]
struct Said {
    done: bool,
    failed: bool,
    fault: Option<FaultRecord>,
}

#[derive(Clone)]
struct Irq(Arc<Mutex<Said>>);

impl Interrupts for Irq {
    fn page_fault(&self, fault: FaultRecord) {
        self.0.lock().fault = Some(fault);
    }
    fn user_interrupt(&self, _: ContextId) {}
    fn job_done(&self, _: ContextId, _: u64) {
        self.0.lock().done = true;
    }
    fn context_killed(&self, _: ContextId, _: u64) {
        self.0.lock().failed = true;
    }
    fn engine_ready(&self, _: EngineId) {}
}

/// The device, and what was told about it.
pub(crate) struct Device {
    gpu: Arc<Gpu>,
    said: Arc<Mutex<Said>>,
    bus: Arc<Flat>,
}

impl Device {
    /// Powered on. The platform lives as long as the process, as devices do.
    pub(crate) fn new(vram: Vec<Vram>, needs_64k: bool, va_bits: u8) -> Self {
        let tiles: Vec<Tile> = vram
            .iter()
            .map(|vram| {
                let end = Dpa(vram.base.0 + vram.memory.len() as u64);
                // All tables lie in VRAM: the device has no pool of its own.
                Tile { vram_base: vram.base, vram_size: vram.memory.len() as u64, tables_base: end, tables_size: 0 }
            })
            .collect();
        let platform = Platform { name: "kernel", va_bits, needs_64k, tiles: Box::leak(tiles.into()), ..PVC };
        let said = Arc::new(rank::mutex(Rank::LEAF, Said::default()));
        let bus = Arc::new(Flat { vram, copied: rank::mutex(Rank::LEAF, Copied::default()) });
        let irq = Arc::new(Irq(said.clone()));
        let gpu = Gpu::new(Box::leak(Box::new(platform)), bus.clone(), irq, Injection::default());
        Self { gpu, said, bus }
    }

    pub(crate) fn root(&self, tile: TileId, asid: Asid, root: Dpa, needs_64k: bool) {
        self.gpu.set_root(tile, asid, root, needs_64k);
    }

    pub(crate) fn flush(&self, tile: TileId, asid: Asid, start: GpuVa, end: GpuVa) {
        self.gpu.tlb_invalidate(tile, asid, GpuRange::sized(start, end.0.saturating_sub(start.0)));
    }

    /// Runs a batch to its end on the tile's first copy engine; whether it got there.
    pub(crate) fn batch(&self, tile: TileId, asid: Asid, batch: GpuVa) -> bool {
        *self.said.lock() = Said::default();
        let engine = EngineId { tile, class: EngineClass::Copy, instance: 0 };
        let context = self.gpu.context_create(engine, asid);
        self.gpu.submit(context, Job { seqno: 1, batch: Some(batch), fence: None });
        for _ in 0..MOST_STEPS {
            if self.gpu.step(engine) != Step::Ran {
                break;
            }
        }
        self.gpu.context_destroy(context);
        let said = std::mem::take(&mut *self.said.lock());
        if let Some(fault) = said.fault {
            Line::new("engine_fault")
                .with("tile", tile.0)
                .with("address", format!("{:#x}", fault.addr.0))
                .with("access", format!("{:?}", fault.access))
                .with("level", fault.level)
                .write();
        }
        said.done && !said.failed && said.fault.is_none()
    }

    /// One access of a program of 8 bytes; `None` where it faults.
    pub(crate) fn access(&self, tile: TileId, asid: Asid, addr: GpuVa, store: Option<u64>) -> Option<u64> {
        let engine = EngineId { tile, class: EngineClass::Compute, instance: 0 };
        self.gpu.access(engine, asid, addr, store).ok()
    }

    pub(crate) fn map(&self, frame: HostFrame, pages: usize, write: bool) -> Iova {
        self.gpu.iommu_map(frame, pages, write)
    }

    pub(crate) fn unmap(&self, iova: Iova, pages: usize) {
        self.gpu.iommu_unmap(iova, pages);
    }

    /// Pages that device addresses lead to.
    pub(crate) fn mapped_pages(&self) -> u64 {
        self.gpu.iommu_mapped_pages()
    }

    /// Pages that were copied since the last call, by where from and where to.
    pub(crate) fn take_copies(&self) -> BTreeMap<(String, String), u64> {
        std::mem::take(&mut self.bus.copied.lock().pages)
    }

    /// How things are, for a comparison.
    pub(crate) fn tell(&self, stream: &mut Stream, asid: Asid) {
        let bases = || self.bus.vram.iter().map(|vram| vram.base.0);
        for tile in 0..self.bus.vram.len() as u8 {
            stream.leaves(tile, &self.gpu.leaves(TileId(tile), asid), |dpa| owner(bases(), dpa));
        }
        stream.is("mapped for the device", &format!("{} pages", self.mapped_pages()));
    }

    /// What the device noticed since the last call: one line a kind of event and tile, with the first place and the pages.
    pub(crate) fn tell_records(&self) {
        let mut kinds: BTreeMap<(&str, u8), (u64, u64)> = BTreeMap::new();
        for record in self.gpu.take_records() {
            if let Some((tile, write, bytes)) = record.stray().filter(|_| compare::is_under_way()) {
                compare::saw(|stream| stream.strayed(tile.0, write, bytes));
                continue;
            }
            let (kind, tile, at, bytes) = match record {
                Record::StrayWrite { tile, iova, bytes } => ("stray_write", tile.0, iova.0, bytes),
                Record::StrayRead { tile, iova, bytes } => ("stray_read", tile.0, iova.0, bytes),
                Record::Malformed { tile, addr, .. } => ("malformed_table", tile.0, addr.0, SZ_4K),
                Record::SystemFault { engine, frame, .. } => ("no_memory_there", engine.tile.0, frame.0, SZ_4K),
                Record::UnknownCommand { at, dword, .. } => {
                    Line::new("unknown_command").with("at", at.0).with("dword", format!("{dword:#x}")).write();
                    continue;
                }
                Record::BadUnmap { iova, pages } => ("bad_unmap", 0, iova.0, pages as u64 * SZ_4K),
                other => {
                    if is_told("device") {
                        Line::new("device").with("text", format!("{other:?}")).write();
                    }
                    continue;
                }
            };
            kinds.entry((kind, tile)).or_insert((at, 0)).1 += bytes;
        }
        for ((kind, tile), (at, bytes)) in kinds {
            let pages = bytes.div_ceil(SZ_4K);
            Line::new(kind).with("tile", tile).with("address", format!("{at:#x}")).with("pages", pages).write();
        }
    }
}
