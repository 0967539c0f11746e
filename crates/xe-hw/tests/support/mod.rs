//! A board for the device: a bus of byte arrays, a notebook of interrupts, page tables built by hand.
#![allow(dead_code)] // each test binary uses its part

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use sync::{Condvar, Mutex};
use units::{Dpa, GpuRange, GpuVa, HostFrame, Iova, Outcome, Report, SZ_4K, TileId};
use xe_hw::port::{Bus, BusAddr, BusError, Interrupts, Rmw};
use xe_hw::{Gpu, Injection, Job, Step};
use xe_spec::fault::{Asid, ContextId, EngineClass, EngineId, FaultRecord};
use xe_spec::platform::{PVC, Platform, VRAM_BAR};
use xe_spec::pte::{Leaf, table_entry};

pub const ASID: Asid = Asid(5);
pub const TILE: TileId = TileId(0);
pub const CCS: EngineId = EngineId { tile: TILE, class: EngineClass::Compute, instance: 0 };
pub const BCS: EngineId = EngineId { tile: TILE, class: EngineClass::Copy, instance: 0 };
pub const BATCH: GpuVa = GpuVa(0x10_0000);

/// A frame of VRAM on the first tile.
pub fn vram(offset: u64) -> Dpa {
    PVC.tiles[0].vram_base.add(offset)
}

/// A frame of VRAM on the second tile.
pub fn far_vram(offset: u64) -> Dpa {
    PVC.tiles[1].vram_base.add(offset)
}

type Page = Box<[u8; SZ_4K as usize]>;

#[derive(Default)]
struct Memory {
    pages: BTreeMap<(bool, u64), Page>,
    empty: BTreeSet<u64>,
    gone: BTreeSet<u64>,
    lent: BTreeSet<u64>,
    writes: Vec<(BusAddr, usize, usize)>,
    transfers: Vec<(BusAddr, BusAddr, usize)>,
    /// Pages that were streamed from memory to memory.
    streamed: usize,
}

#[derive(Default)]
struct Gate {
    shut_for: Option<BusAddr>,
    waiting: bool,
}

/// Memory of byte arrays. Pages start as zeros; a frame may be emptied; one page may be behind a gate.
#[derive(Default)]
pub struct TestBus {
    memory: Mutex<Memory>,
    gate: Mutex<Gate>,
    turned: Condvar,
    pub blocks: bool,
}

/// Page `n` of a run.
fn page_of(first: BusAddr, n: usize) -> BusAddr {
    match first {
        BusAddr::Vram(dpa) => BusAddr::Vram(dpa.add(n as u64 * SZ_4K)),
        BusAddr::System(frame) => BusAddr::System(frame.add(n as u64)),
    }
}

fn key(page: BusAddr) -> (bool, u64) {
    match page {
        BusAddr::Vram(dpa) => (true, dpa.0),
        BusAddr::System(frame) => (false, frame.0),
    }
}

impl Memory {
    fn page(&mut self, at: BusAddr) -> Result<&mut Page, BusError> {
        match at {
            BusAddr::Vram(dpa) if self.empty.contains(&dpa.0) => return Err(BusError::Empty),
            BusAddr::System(frame) if self.gone.contains(&frame.0) => return Err(BusError::Fault),
            _ => {}
        }
        Ok(self.pages.entry(key(at)).or_insert_with(|| Box::new([0; SZ_4K as usize])))
    }

    fn copy(&mut self, src: BusAddr, dst: BusAddr) -> Result<(), BusError> {
        let bytes = self.page(src)?.clone();
        *self.page(dst)? = bytes;
        Ok(())
    }
}

impl TestBus {
    fn pass_gate(&self, page: BusAddr) {
        let mut gate = self.gate.lock();
        while gate.shut_for == Some(page) {
            gate.waiting = true;
            self.turned.notify_all();
            self.turned.wait(&mut gate);
        }
    }
    /// Accesses of this page wait from now on.
    pub fn shut_gate(&self, page: BusAddr) {
        *self.gate.lock() = Gate { shut_for: Some(page), waiting: false };
    }
    pub fn open_gate(&self) {
        self.gate.lock().shut_for = None;
        self.turned.notify_all();
    }
    pub fn await_visitor(&self) {
        let mut gate = self.gate.lock();
        while !gate.waiting {
            self.turned.wait(&mut gate);
        }
    }
    /// The frame holds nothing from now on.
    pub fn empty(&self, dpa: Dpa) {
        self.memory.lock().empty.insert(dpa.0);
    }
    /// Page tables may lie in the frame from now on.
    pub fn lend(&self, dpa: Dpa) {
        self.memory.lock().lent.insert(dpa.0);
    }
    /// The host takes the page away, or gives it back.
    pub fn vanish(&self, frame: HostFrame) {
        self.memory.lock().gone.insert(frame.0);
    }
    pub fn restore(&self, frame: HostFrame) {
        self.memory.lock().gone.remove(&frame.0);
    }
    pub fn word(&self, page: BusAddr, offset: usize) -> u32 {
        let mut memory = self.memory.lock();
        let bytes = &memory.page(page).expect("page")[offset..offset + 4];
        u32::from_le_bytes(bytes.try_into().expect("four"))
    }
    pub fn quad(&self, page: BusAddr, offset: usize) -> u64 {
        self.word(page, offset) as u64 | (self.word(page, offset + 4) as u64) << 32
    }
    pub fn poke(&self, page: BusAddr, offset: usize, words: &[u32]) {
        let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        self.memory.lock().page(page).expect("page")[offset..offset + bytes.len()].copy_from_slice(&bytes);
    }
    pub fn fill(&self, page: BusAddr, byte: u8) {
        self.memory.lock().page(page).expect("page").fill(byte);
    }
    pub fn is_all(&self, page: BusAddr, byte: u8) -> bool {
        self.memory.lock().page(page).expect("page").iter().all(|&b| b == byte)
    }
    pub fn take_writes(&self) -> Vec<(BusAddr, usize, usize)> {
        core::mem::take(&mut self.memory.lock().writes)
    }
    pub fn take_streamed(&self) -> usize {
        core::mem::take(&mut self.memory.lock().streamed)
    }
    pub fn take_transfers(&self) -> Vec<(BusAddr, BusAddr, usize)> {
        core::mem::take(&mut self.memory.lock().transfers)
    }
}

impl Bus for TestBus {
    fn read(&self, page: BusAddr, offset: usize, buf: &mut [u8]) -> Result<(), BusError> {
        self.pass_gate(page);
        let mut memory = self.memory.lock();
        buf.copy_from_slice(&memory.page(page)?[offset..offset + buf.len()]);
        Ok(())
    }
    fn write(&self, page: BusAddr, offset: usize, bytes: &[u8]) -> Result<(), BusError> {
        self.pass_gate(page);
        let mut memory = self.memory.lock();
        memory.page(page)?[offset..offset + bytes.len()].copy_from_slice(bytes);
        memory.writes.push((page, offset, bytes.len()));
        Ok(())
    }
    fn stream_pages(&self, src: BusAddr, dst: BusAddr, pages: usize) -> usize {
        let blocks = |addr| matches!(addr, BusAddr::System(frame) if self.system_access_may_block(frame));
        let streams = |page: &usize| {
            self.pass_gate(page_of(dst, *page));
            self.memory.lock().copy(page_of(src, *page), page_of(dst, *page)).is_ok()
        };
        let streamed = if blocks(src) || blocks(dst) { 0 } else { (0..pages).take_while(streams).count() };
        self.memory.lock().streamed += streamed;
        streamed
    }
    fn rmw(&self, page: BusAddr, offset: usize, size: usize, op: Rmw) -> Result<u64, BusError> {
        let mut memory = self.memory.lock();
        let mut word = [0; 8];
        word[..size].copy_from_slice(&memory.page(page)?[offset..offset + size]);
        let old = u64::from_le_bytes(word);
        let new = match op {
            Rmw::Exchange(new) => new,
            Rmw::Add(by) => old.wrapping_add(by),
            Rmw::Sub(by) => old.wrapping_sub(by),
            Rmw::CompareExchange { expected, new } if expected == old => new,
            Rmw::CompareExchange { .. } => old,
        };
        memory.page(page)?[offset..offset + size].copy_from_slice(&new.to_le_bytes()[..size]);
        Ok(old)
    }
    fn transfer(&self, src: BusAddr, dst: BusAddr, pages: usize, report: &mut Report<'_>) {
        let mut memory = self.memory.lock();
        memory.transfers.push((src, dst, pages));
        for page in 0..pages {
            let copied = memory.copy(page_of(src, page), page_of(dst, page));
            let outcome = if copied.is_ok() { Outcome::Copied } else { Outcome::Failed };
            report(1, outcome);
        }
    }
    fn table_entry(&self, table: Dpa, index: usize) -> Option<u64> {
        let lent = self.memory.lock().lent.contains(&table.0);
        lent.then(|| self.quad(BusAddr::Vram(table), 8 * index))
    }
    fn system_access_may_block(&self, frame: HostFrame) -> bool {
        self.blocks && frame < VRAM_BAR
    }
}

/// What the device told its driver.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Told {
    Fault(FaultRecord),
    Done(ContextId, u64),
    Killed(ContextId, u64),
}

#[derive(Default)]
pub struct Notebook {
    told: Mutex<Vec<Told>>,
    ready: Mutex<Vec<EngineId>>,
    interrupts: Mutex<Vec<ContextId>>,
}

impl Notebook {
    pub fn take(&self) -> Vec<Told> {
        core::mem::take(&mut self.told.lock())
    }
    pub fn take_interrupts(&self) -> Vec<ContextId> {
        core::mem::take(&mut self.interrupts.lock())
    }
    pub fn take_ready(&self) -> Vec<EngineId> {
        core::mem::take(&mut self.ready.lock())
    }
    pub fn the_fault(&self) -> FaultRecord {
        match self.take()[..] {
            [Told::Fault(fault)] => fault,
            ref other => panic!("one fault expected: {other:?}"),
        }
    }
}

impl Interrupts for Notebook {
    fn page_fault(&self, fault: FaultRecord) {
        self.told.lock().push(Told::Fault(fault));
    }
    fn user_interrupt(&self, context: ContextId) {
        self.interrupts.lock().push(context);
    }
    fn job_done(&self, context: ContextId, seqno: u64) {
        self.told.lock().push(Told::Done(context, seqno));
    }
    fn context_killed(&self, context: ContextId, seqno: u64) {
        self.told.lock().push(Told::Killed(context, seqno));
    }
    fn engine_ready(&self, engine: EngineId) {
        self.ready.lock().push(engine);
    }
}

/// Page tables of one address space, built by hand.
pub struct Tables {
    pub root: Dpa,
    tile: TileId,
    next: Dpa,
    children: BTreeMap<(u8, u64), Dpa>,
}

impl Tables {
    /// Tables from `offset` on in the pool of `tile`.
    pub fn new(tile: TileId, offset: u64) -> Self {
        let root = PVC.tiles[tile.index()].tables_base.add(offset);
        Self { root, tile, next: root.add(SZ_4K), children: BTreeMap::new() }
    }

    fn shift(level: u8, compact: bool) -> u32 {
        if compact { 16 } else { [12, 21, 30, 39, 48][level as usize] }
    }

    /// The table of `level` around `va`, made where it is missing. A new kind of level-0 table replaces the old.
    pub fn table(&mut self, gpu: &Gpu, va: GpuVa, level: u8, compact: bool) -> Dpa {
        let mut table = self.root;
        for parent in (level + 1..=4).rev() {
            let block = va.0 >> Self::shift(parent, false);
            let compact = compact && parent == 1;
            let fresh = self.next;
            let child = *self.children.entry((parent + if compact { 8 } else { 0 }, block)).or_insert(fresh);
            self.next = if child == fresh { fresh.add(SZ_4K) } else { fresh };
            gpu.table_write(table, block as usize & 511, table_entry(child, compact));
            table = child;
        }
        table
    }

    /// Writes the entry for `va` at `level` (in a compact table: the 64K entry).
    pub fn write(&mut self, gpu: &Gpu, va: GpuVa, level: u8, compact: bool, entry: u64) {
        let table = self.table(gpu, va, level, compact);
        let mask = if compact { 31 } else { 511 };
        gpu.table_write(table, (va.0 >> Self::shift(level, compact)) as usize & mask, entry);
    }

    pub fn map(&mut self, gpu: &Gpu, va: GpuVa, level: u8, leaf: Leaf) {
        self.write(gpu, va, level, false, leaf.encode(level));
    }

    pub fn map_compact(&mut self, gpu: &Gpu, va: GpuVa, leaf: Leaf) {
        self.write(gpu, va, 0, true, leaf.encode(0));
    }

    /// A 64K page of 16 PS64 entries.
    pub fn map_group(&mut self, gpu: &Gpu, va: GpuVa, leaf: Leaf) {
        for i in 0..16 {
            let entry = Leaf { addr: leaf.addr + i * SZ_4K, ps64: true, ..leaf };
            self.map(gpu, va.add(i * SZ_4K), 0, entry);
        }
    }
}

pub fn system(iova: Iova) -> Leaf {
    Leaf { addr: iova.0, device: false, write: true, atomic: false, null: false, ps64: false, pat: 3 }
}

pub fn device(dpa: Dpa) -> Leaf {
    Leaf { addr: dpa.0, device: true, write: true, atomic: true, null: false, ps64: false, pat: 3 }
}

/// A device on a board, with one address space on tile 0 and a batch page in system memory at [`BATCH`].
pub struct Rig {
    pub gpu: Arc<Gpu>,
    pub bus: Arc<TestBus>,
    pub irq: Arc<Notebook>,
    pub tables: Tables,
    pub batch_frame: HostFrame,
}

impl Rig {
    pub fn new() -> Self {
        Self::with(&PVC, Injection::default(), true)
    }

    pub fn with(platform: &'static Platform, injection: Injection, blocks: bool) -> Self {
        let bus = Arc::new(TestBus { blocks, ..TestBus::default() });
        let irq = Arc::new(Notebook::default());
        let gpu = Gpu::new(platform, bus.clone(), irq.clone(), injection);
        let mut tables = Tables::new(TILE, 0);
        gpu.set_root(TILE, ASID, tables.root, true);
        let batch_frame = HostFrame(0xba7c);
        let iova = gpu.iommu_map(batch_frame, 1, true);
        tables.map(&gpu, BATCH, 0, system(iova));
        Self { gpu, bus, irq, tables, batch_frame }
    }

    pub fn context(&self) -> ContextId {
        self.gpu.context_create(CCS, ASID)
    }

    /// Writes `words` into the batch page at dword `at` and gives the GPU address.
    pub fn batch_at(&self, at: usize, words: &[u32]) -> GpuVa {
        self.bus.poke(BusAddr::System(self.batch_frame), at * 4, words);
        BATCH.add(at as u64 * 4)
    }

    pub fn submit(&self, context: ContextId, seqno: u64, words: &[u32]) {
        let batch = Some(self.batch_at(0, words));
        self.gpu.submit(context, Job { seqno, batch, fence: None });
    }

    /// Steps until nothing runs; the last answer.
    pub fn run(&self) -> Step {
        for _ in 0..10_000 {
            match self.gpu.step(CCS) {
                Step::Ran | Step::Fault => {}
                end => return end,
            }
        }
        panic!("still running");
    }

    pub fn flush(&self, va: GpuVa, bytes: u64) {
        self.gpu.tlb_invalidate(TILE, ASID, GpuRange::sized(va, bytes));
    }
}

pub const BBE: u32 = 0x0500_0000;

/// An address in a command.
pub fn at(va: GpuVa) -> [u32; 2] {
    [va.0 as u32, (va.0 >> 32) as u32]
}

/// MEM_COPY: flags, width, height and pitches as they stand in the command.
pub fn mem_copy(flags: u32, [width, height, src_pitch, dst_pitch]: [u32; 4], src: GpuVa, dst: GpuVa) -> Vec<u32> {
    let ([sl, sh], [dl, dh]) = (at(src), at(dst));
    vec![0x5680_0008 | flags, width, height, src_pitch, dst_pitch, sl, sh, dl, dh, 0x0600_0003]
}

/// A batch with a MEM_COPY of whole pages.
pub fn copy_batch(src: GpuVa, dst: GpuVa, pages: usize) -> Vec<u32> {
    let units = pages as u32 * (SZ_4K as u32 / 256);
    [mem_copy(1 << 19, [units - 1, 0, 0, 0], src, dst), vec![BBE]].concat()
}

pub fn store(to: GpuVa, value: u32) -> [u32; 4] {
    [0x1000_0002, to.0 as u32, (to.0 >> 32) as u32, value]
}

/// A batch of one dword store.
pub fn store_batch(to: GpuVa, value: u32) -> Vec<u32> {
    [&store(to, value)[..], &[BBE]].concat()
}

pub fn atomic_inc(at: GpuVa) -> [u32; 3] {
    [0x1780_0001 | 5 << 8, at.0 as u32, (at.0 >> 32) as u32]
}
