//! A trial of the hardware model before it is believed: what a driver that errs would do, done on purpose.
//!
//! A clean search says something only where the device notices mistakes. A correct driver never flushes a part of a large
//! page, leaves a group half written, or uses a bus address of the past, so no scene would show that the device has gone blind to
//! such things. Each step here makes one such mistake on a bare device and asks whether it is seen.

use crate::program::Batch;
use std::collections::BTreeMap;
use std::sync::Arc;
use sync::Mutex;
use sync::rank::{self, Rank};
use units::{Dpa, GpuRange, GpuVa, HostFrame, Iova, Report, SZ_2M, SZ_4K, TileId, bytes_of};
use xe_hw::port::{Bus, BusAddr, BusError, Interrupts, Rmw};
use xe_hw::{CopyJob, Gpu, Injection, Job, Step};
use xe_spec::cmd;
use xe_spec::fault::{Asid, ContextId, EngineId, FaultRecord};
use xe_spec::platform::PVC;
use xe_spec::pte::{ENTRIES, Entry, LEVEL_SHIFT, Leaf, TABLE_BYTES, table_entry};

const TILE: TileId = TileId(0);
const ASID: Asid = Asid(7);
/// Where batches lie, and their frame.
const BATCH: GpuVa = GpuVa(0x10_0000);
const BATCH_FRAME: HostFrame = HostFrame(0xba7c);
/// Where VRAM is mapped.
const VRAM: GpuVa = GpuVa(0x4000_0000);
/// Where the trials map what they need: one 2M block each.
const PLACE: GpuVa = GpuVa(0x8000_0000);

/// Tries everything.
///
/// # Errors
/// What the device did not notice.
pub fn trial() -> Result<(), String> {
    type Trial = (&'static str, fn(&mut Bench) -> bool);
    let all: [Trial; 9] = [
        ("a flush forgets a large page that begins before it", flush_inside),
        ("a translation ends with its page", end_of_page),
        ("a group of 64K that is half written is not used", half_group),
        ("a bus address is not given out again at once, and leads nowhere meanwhile", bus_address_of_the_past),
        ("what is unmapped from the middle of a mapping leaves its tail in place", tail_of_mapping),
        ("behind a mapping is nothing", behind_mapping),
        ("a read-only mapping is not written", read_only_mapping),
        ("pages that follow each other on one side only are copied one by one", apart),
        ("the end of a job wakes who waits for memory", waiter),
    ];
    let failed = all.into_iter().find(|(_, holds)| !holds(&mut Bench::new()));
    failed.map_or(Ok(()), |(what, _)| Err(format!("the hardware model is not to be trusted: it fails that {what}")))
}

type Page = [u8; SZ_4K as usize];

/// The board's memory.
struct Memory(Mutex<BTreeMap<(bool, u64), Box<Page>>>);

impl Memory {
    fn with<R>(&self, page: BusAddr, look: impl FnOnce(&mut Page) -> R) -> R {
        let key = match page {
            BusAddr::Vram(dpa) => (true, dpa.0 / SZ_4K),
            BusAddr::System(frame) => (false, frame.0),
        };
        look(self.0.lock().entry(key).or_insert_with(|| Box::new([0; SZ_4K as usize])))
    }
}

fn further(page: BusAddr, pages: usize) -> BusAddr {
    match page {
        BusAddr::Vram(dpa) => BusAddr::Vram(dpa.add(bytes_of(pages))),
        BusAddr::System(frame) => BusAddr::System(frame.add(pages as u64)),
    }
}

impl Bus for Memory {
    fn read(&self, page: BusAddr, offset: usize, buf: &mut [u8]) -> Result<(), BusError> {
        self.with(page, |bytes| buf.copy_from_slice(&bytes[offset..offset + buf.len()]));
        Ok(())
    }
    fn write(&self, page: BusAddr, offset: usize, bytes: &[u8]) -> Result<(), BusError> {
        self.with(page, |page| page[offset..offset + bytes.len()].copy_from_slice(bytes));
        Ok(())
    }
    fn rmw(&self, _: BusAddr, _: usize, _: usize, _: Rmw) -> Result<u64, BusError> {
        Err(BusError::Fault)
    }
    fn transfer(&self, src: BusAddr, dst: BusAddr, pages: usize, report: &mut Report<'_>) {
        for page in 0..pages {
            let bytes = self.with(further(src, page), |bytes| *bytes);
            self.with(further(dst, page), |page| *page = bytes);
        }
        report(pages, units::Outcome::Copied);
    }
    fn system_access_may_block(&self, _: HostFrame) -> bool {
        false
    }
}

/// What the device said.
#[derive(Default)]
struct Said {
    faults: u32,
    ready: Vec<EngineId>,
}

struct Notebook(Mutex<Said>);

impl Interrupts for Notebook {
    fn page_fault(&self, _: FaultRecord) {
        self.0.lock().faults += 1;
    }
    fn user_interrupt(&self, _: ContextId) {}
    fn job_done(&self, _: ContextId, _: u64) {}
    fn context_killed(&self, _: ContextId, _: u64) {}
    fn engine_ready(&self, engine: EngineId) {
        self.0.lock().ready.push(engine);
    }
}

/// A device with one address space: a batch page, and 4M of VRAM.
struct Bench {
    gpu: Arc<Gpu>,
    memory: Arc<Memory>,
    said: Arc<Notebook>,
    next_table: Dpa,
    root: Dpa,
}

impl Bench {
    fn new() -> Self {
        let memory = Arc::new(Memory(rank::mutex(Rank::LEAF, BTreeMap::new())));
        let said = Arc::new(Notebook(rank::mutex(Rank::LEAF, Said::default())));
        let gpu = Gpu::new(&PVC, memory.clone(), said.clone(), Injection::default());
        let root = PVC.tiles[0].tables_base;
        gpu.set_root(TILE, ASID, root, true);
        let mut bench = Self { gpu, memory, said, next_table: root.add(TABLE_BYTES), root };
        let batch = bench.gpu.iommu_map(BATCH_FRAME, 1, true);
        bench.map(BATCH, 0, system(batch));
        for block in 0..2 {
            bench.map(VRAM.add(block * SZ_2M), 1, device(vram(block * 512)));
        }
        bench
    }

    /// Writes a leaf, and the tables on its way.
    fn map(&mut self, va: GpuVa, level: u8, leaf: Leaf) {
        let index = |level: u8| (va.0 >> LEVEL_SHIFT[level as usize]) as usize % ENTRIES;
        let mut table = self.root;
        for above in (level + 1..=PVC.root_level).rev() {
            table = match Entry::decode(self.gpu.table_read(table, index(above)), above) {
                Entry::Table { table, .. } => table,
                _ => {
                    let fresh = self.next_table;
                    self.next_table = fresh.add(TABLE_BYTES);
                    self.gpu.table_write(table, index(above), table_entry(fresh, false));
                    fresh
                }
            };
        }
        self.gpu.table_write(table, index(level), leaf.encode(level));
    }

    /// Copies pages by the driver's engine.
    fn copy(&self, src: GpuVa, dst: GpuVa, pages: usize) {
        self.gpu.copy(TILE, &CopyJob { asid: ASID, src, dst, pages }, &mut |_, _| {});
    }

    /// Runs a batch on an engine until it does nothing more.
    fn run(&self, engine: EngineId, batch: &[u8]) -> Step {
        self.memory.with(BusAddr::System(BATCH_FRAME), |page| page[..batch.len()].copy_from_slice(batch));
        let context = self.gpu.context_create(engine, ASID);
        self.gpu.submit(context, Job { seqno: 1, batch: Some(BATCH), fence: None });
        loop {
            match self.gpu.step(engine) {
                Step::Ran => {}
                step => {
                    if !matches!(step, Step::Sleep(_)) {
                        // It is over, or waits for an answer that it never gets.
                        self.gpu.context_destroy(context);
                    }
                    return step;
                }
            }
        }
    }

    /// Whether a store to `at` gets through without a fault.
    fn stores(&self, at: GpuVa) -> bool {
        let before = self.said.0.lock().faults;
        let engine = self.gpu.engines().next();
        engine.is_some_and(|engine| self.run(engine, &Batch::default().store(at, 5).end()) == Step::Idle)
            && self.said.0.lock().faults == before
    }

    fn fill(&self, page: BusAddr, byte: u8) {
        self.memory.with(page, |bytes| bytes.fill(byte));
    }

    /// The first byte of a page.
    fn byte(&self, page: BusAddr) -> u8 {
        self.memory.with(page, |bytes| bytes[0])
    }
}

fn leaf(addr: u64) -> Leaf {
    Leaf { addr, device: false, write: true, atomic: false, null: false, ps64: false, pat: 3 }
}

fn system(iova: Iova) -> Leaf {
    leaf(iova.0)
}

fn device(page: BusAddr) -> Leaf {
    let BusAddr::Vram(dpa) = page else { return leaf(0) };
    Leaf { device: true, atomic: true, ..leaf(dpa.0) }
}

fn vram(page: u64) -> BusAddr {
    BusAddr::Vram(PVC.tiles[0].vram_base.add(page * SZ_4K))
}

fn frame(number: u64) -> BusAddr {
    BusAddr::System(HostFrame(number))
}

fn flush_inside(bench: &mut Bench) -> bool {
    let iova = bench.gpu.iommu_map(HostFrame(0x1000), 512, true);
    bench.map(PLACE, 1, system(iova));
    let (at, used) = (PLACE.add(5 * SZ_4K), bench.stores(PLACE.add(5 * SZ_4K)));
    bench.gpu.clear_root(TILE, ASID);
    let kept = bench.stores(at);
    bench.gpu.tlb_invalidate(TILE, ASID, GpuRange::sized(at, SZ_4K));
    used && kept && !bench.stores(at)
}

fn end_of_page(bench: &mut Bench) -> bool {
    let (iova, other) = (bench.gpu.iommu_map(HostFrame(10), 2, true), bench.gpu.iommu_map(HostFrame(20), 1, true));
    bench.map(PLACE, 0, system(iova));
    bench.map(PLACE.add(SZ_4K), 0, system(other));
    (0..2).for_each(|page| bench.fill(vram(page), 1 + page as u8));
    bench.copy(VRAM, PLACE, 2);
    [10, 11, 20].map(|number| bench.byte(frame(number))) == [1, 0, 2]
}

fn half_group(bench: &mut Bench) -> bool {
    let iova = bench.gpu.iommu_map(HostFrame(0x40), 16, true);
    for page in 0..15 {
        bench.map(PLACE.add(page * SZ_4K), 0, Leaf { ps64: true, ..system(iova.add(page * SZ_4K)) });
    }
    let half = bench.stores(PLACE);
    bench.map(PLACE.add(15 * SZ_4K), 0, Leaf { ps64: true, ..system(iova.add(15 * SZ_4K)) });
    !half && bench.stores(PLACE.add(SZ_4K))
}

fn bus_address_of_the_past(bench: &mut Bench) -> bool {
    let old = bench.gpu.iommu_map(HostFrame(1), 1, true);
    bench.gpu.iommu_unmap(old, 1);
    let new = bench.gpu.iommu_map(HostFrame(2), 1, true);
    bench.map(PLACE, 0, system(old));
    bench.copy(PLACE, VRAM, 1);
    old != new && bench.gpu.counters().stray_reads == 1
}

fn tail_of_mapping(bench: &mut Bench) -> bool {
    let iova = bench.gpu.iommu_map(HostFrame(0x80), 8, true);
    bench.gpu.iommu_unmap(iova.add(bytes_of(2)), 3);
    bench.fill(frame(0x85), 0x85);
    bench.map(PLACE, 0, system(iova.add(bytes_of(5))));
    bench.copy(PLACE, VRAM, 1);
    bench.byte(vram(0)) == 0x85
}

fn behind_mapping(bench: &mut Bench) -> bool {
    let iova = bench.gpu.iommu_map(HostFrame(3), 1, true);
    bench.map(PLACE, 0, system(iova.add(SZ_4K)));
    bench.copy(PLACE, VRAM, 1);
    bench.gpu.counters().stray_reads == 1
}

fn read_only_mapping(bench: &mut Bench) -> bool {
    let iova = bench.gpu.iommu_map(HostFrame(4), 1, false);
    bench.map(PLACE, 0, system(iova));
    let stored = bench.stores(PLACE);
    stored && bench.gpu.counters().stray_writes == 1 && bench.byte(frame(4)) == 0
}

fn apart(bench: &mut Bench) -> bool {
    for (page, number) in [30, 40].into_iter().enumerate() {
        let iova = bench.gpu.iommu_map(HostFrame(number), 1, true);
        bench.map(PLACE.add(bytes_of(page)), 0, system(iova));
        bench.fill(vram(page as u64), 1 + page as u8);
    }
    bench.copy(VRAM, PLACE, 2);
    [30, 31, 40].map(|number| bench.byte(frame(number))) == [1, 0, 2]
}

fn waiter(bench: &mut Bench) -> bool {
    let mut engines = bench.gpu.engines().filter(|engine| engine.tile == TILE);
    let (Some(first), Some(second)) = (engines.next(), engines.next()) else { return false };
    let wait =
        [cmd::MI_SEMAPHORE_WAIT << 23 | cmd::SEMAPHORE_POLL | 1 << 12 | 2, 4, VRAM.0 as u32, (VRAM.0 >> 32) as u32];
    let wait: Vec<u8> = wait.iter().flat_map(|dword| dword.to_le_bytes()).collect();
    let sleeps = matches!(bench.run(first, &wait), Step::Sleep(_));
    bench.said.0.lock().ready.clear();
    let ended = bench.run(second, &Batch::default().end()) == Step::Idle;
    sleeps && ended && bench.said.0.lock().ready.contains(&first)
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_model_passes() {
        assert_eq!(super::trial(), Ok(()));
    }
}
