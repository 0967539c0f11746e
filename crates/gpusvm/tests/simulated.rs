//! The engine on the simulated mm, under the kernel and under mm-live: random operations against a flat page map, and scenes of
//! several parties on many schedules.

use gpusvm::*;
use hostmm::*;
use mm_live::LiveMm;
use mm_sim::{Config, MapKind, Sim, SimKernel};
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::sync::{Arc, Weak};
use sync::Mutex;
use sync::atomic::AtomicU64;
use sync::rank::{self, Rank};
use sync::sim::{self, Limits, Pct, Random, Schedule};
use units::{HostFrame, HostRange, HostVa, Iova, SZ_2M, SZ_4K, SZ_64K};

const OWNER: OwnerId = OwnerId(1);
const EVERYWHERE: HostRange = HostRange::new(HostVa(0), HostVa(1 << 47));
const TILE_SHIFT: u32 = 40;

/// One tile of a device: copies by `HostMemory::transfer`, allocates frames that were released.
struct Tile {
    id: PagemapId,
    dma: Arc<Dma>,
    memory: Weak<dyn HostMemory>,
    allocated: Mutex<BTreeMap<u64, usize>>,
}

/// Bus addresses: each names a frame.
struct Dma {
    next: AtomicU64,
    mapped: Mutex<BTreeMap<u64, (HostFrame, usize)>>,
}

impl Dma {
    fn place(&self, addr: PagemapAddr, page: u64) -> Place {
        if addr.proto == Proto::Vram {
            let pagemap = PagemapId((addr.addr >> TILE_SHIFT) as u16 - 1);
            let frame = (addr.addr & ((1 << TILE_SHIFT) - 1)) >> 12;
            return Place::Device(DevicePage { pagemap, frame: frame + page });
        }
        let mapped = self.mapped.lock();
        let (start, (frame, pages)) = mapped.range(..=addr.addr).next_back().expect("mapped");
        let index = ((addr.addr - start) >> 12) + page;
        assert!(index < *pages as u64, "behind the mapping");
        Place::Host(frame.add(index))
    }
}

impl Device for Dma {
    fn path(&self, _pagemap: PagemapId) -> Option<Proto> {
        Some(Proto::Vram)
    }
    fn dma_map(&self, frame: HostFrame, pages: usize, _: Direction) -> Result<Iova, MapError> {
        let iova = self.next.fetch_add(0x1000_0000);
        self.mapped.lock().insert(iova, (frame, pages));
        Ok(Iova(iova))
    }
    fn dma_unmap(&self, iova: Iova, pages: usize) {
        let gone = self.mapped.lock().remove(&iova.0);
        assert_eq!(gone.map(|gone| gone.1), Some(pages), "unmapped as it was mapped");
    }
}

impl Tile {
    /// First fit, in blocks of their own size.
    fn alloc(&self, pages: usize) -> Devmem {
        let mut allocated = self.allocated.lock();
        let mut base = 0;
        for (&start, &len) in allocated.iter() {
            if base + pages as u64 <= start {
                break;
            }
            base = (start + len as u64).next_multiple_of(pages as u64);
        }
        allocated.insert(base, pages);
        Devmem { base: DevicePage { pagemap: self.id, frame: base }, pages, cookie: base }
    }
    fn copy(
        &self,
        runs: &[CopyRun],
        report: &mut Report<'_>,
        ends: fn(Place, Place) -> (Place, Place),
    ) -> Result<(), CopyError> {
        let memory = self.memory.upgrade().ok_or(CopyError::Reset)?;
        for run in runs {
            let (src, dst) = ends(Place::Device(run.page), self.dma.place(run.addr, 0));
            memory.transfer(src, dst, run.addr.pages(), report);
        }
        Ok(())
    }
}

impl DevmemOps for Tile {
    fn device(&self) -> &dyn Device {
        &*self.dma
    }
    fn pushes_to(&self, _target: PagemapId) -> bool {
        true
    }
    fn device_map(
        &self,
        _by: &dyn Device,
        page: DevicePage,
        pages: usize,
        dir: Direction,
    ) -> Result<PagemapAddr, MapError> {
        let addr = (u64::from(page.pagemap.0) + 1) << TILE_SHIFT | page.frame << 12;
        Ok(PagemapAddr { addr, proto: Proto::Vram, pages: pages as u32, dir })
    }
    fn devmem_alloc(&self, pages: usize) -> Option<Devmem> {
        Some(self.alloc(pages))
    }
    fn copy_to_devmem(&self, runs: &[CopyRun], report: &mut Report<'_>) -> Result<(), CopyError> {
        self.copy(runs, report, |local, remote| (remote, local))
    }
    fn copy_to_ram(&self, runs: &[CopyRun], report: &mut Report<'_>) -> Result<(), CopyError> {
        self.copy(runs, report, |local, remote| (local, remote))
    }
    fn devmem_release(&self, devmem: Devmem) {
        let gone = self.allocated.lock().remove(&devmem.cookie);
        assert_eq!(gone, Some(devmem.pages), "released once, as it was allocated");
    }
}

struct Driver;

impl GpuSvmOps for Driver {
    type RangeData = ();
    fn invalidate(&self, locked: &mut NotifierLocked<'_, Self>, notifier: NotifierKey, event: &MmEvent) {
        for key in locked.ranges_of(notifier, event.range) {
            locked.unmap_pages(key);
            if matches!(event.kind, EventKind::Unmap | EventKind::Release) {
                locked.set_unmapped(key, event);
            }
        }
    }
}

/// Who manages the memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Manager {
    Kernel,
    Live,
}

/// A process, two tiles, a mirror.
#[derive(Clone)]
struct Machine {
    sim: Arc<Sim>,
    live: Option<Arc<LiveMm>>,
    memory: Arc<dyn HostMemory>,
    dma: Arc<Dma>,
    tiles: [Arc<Tile>; 2],
    set: Arc<PagemapSet>,
    svm: Arc<GpuSvm<Driver>>,
    _driver: Arc<Driver>,
    /// The driver's SVM lock.
    vm: Arc<Mutex<()>>,
}

/// How a device's access ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Gpu {
    Done(u64),
    Failed(SvmError),
    /// Tried often enough.
    Gave,
}

impl Machine {
    fn new(manager: Manager) -> Self {
        let sim = Sim::new(Config::default());
        let live = (manager == Manager::Live).then(|| {
            let config = mm_live::Config { readers: Some(2), ..mm_live::Config::default() };
            LiveMm::on(SimKernel::new(&sim, 2), config).expect("there is memory")
        });
        let (mm, memory): (Arc<dyn HostMm>, Arc<dyn HostMemory>) = match &live {
            Some(live) => (live.clone(), live.clone()),
            None => (sim.clone(), sim.clone()),
        };
        let mapped = rank::mutex(Rank::TLB, BTreeMap::new());
        let dma = Arc::new(Dma { next: AtomicU64::new(0x1000_0000), mapped });
        let tiles = [0, 1].map(|id| {
            let (id, dma, memory) = (PagemapId(id), dma.clone(), Arc::downgrade(&memory));
            Arc::new(Tile { id, dma, memory, allocated: rank::mutex(Rank::LEAF, BTreeMap::new()) })
        });
        let observer: Arc<dyn Observer> = Arc::new(());
        let config = |tile: &Arc<Tile>| PagemapConfig { id: tile.id, owner: OWNER, frames: 4096, ops: tile.clone() };
        let set = PagemapSet::new(&mm, &observer, &Arc::default(), tiles.iter().map(config).collect());
        let driver = Arc::new(Driver);
        let config = SvmConfig { window: EVERYWHERE, notifier_size: 2 * SZ_2M, chunk_sizes: &[SZ_2M, SZ_64K, SZ_4K] };
        let svm = GpuSvm::new(config, mm, dma.clone(), set.clone(), Arc::downgrade(&driver), observer);
        let svm = svm.expect("the config is sound");
        Self { sim, live, memory, dma, tiles, set, svm, _driver: driver, vm: Arc::new(rank::mutex(Rank::VM, ())) }
    }

    fn to_tile(&self, tile: usize, range: HostRange) -> Result<(), MigrateError> {
        self.to_tile_for(tile, range, 0)
    }

    fn to_tile_for(&self, tile: usize, range: HostRange, timeslice_ms: u32) -> Result<(), MigrateError> {
        let pagemap = self.set.get(PagemapId(tile as u16)).expect("it is there");
        pagemap.populate_mm(range, &MigrateDetails { timeslice_ms, ..MigrateDetails::default() })
    }

    /// What a garbage collector does: ranges whose mapping went are removed.
    fn collect(&self) {
        for key in self.svm.ranges_in(EVERYWHERE) {
            if self.svm.notifier_lock().range(key).is_some_and(Range::unmapped) {
                self.svm.range_remove(key);
            }
        }
    }

    /// What a driver does with a range that its mapping does not hold any more: mm-live is not told of every munmap.
    fn remove_if_outgrown(&self, key: RangeKey) {
        let Some(span) = self.svm.notifier_lock().range(key).map(Range::span) else { return };
        if self.svm.mm().vma_lookup(span.start).is_none_or(|vma| !vma.range.covers(span)) {
            self.svm.range_remove(key);
        }
    }

    /// Adds to a word as a device does: find the range, collect, translate and access under the notifier lock.
    fn gpu_add(&self, at: HostVa, value: u64, ctx: &Ctx, tries: usize) -> Gpu {
        let mut last = Gpu::Gave;
        for _ in 0..tries {
            let _vm = self.vm.lock();
            self.collect();
            let key = match self.svm.range_find_or_insert(at, EVERYWHERE, ctx) {
                Ok(key) => key,
                Err(error) => return Gpu::Failed(error),
            };
            match self.svm.get_pages(key, ctx) {
                Ok(()) => {}
                Err(SvmError::Mixed) => {
                    let _ = self.svm.range_evict(key);
                    continue;
                }
                Err(error) => {
                    self.remove_if_outgrown(key);
                    last = Gpu::Failed(error);
                    continue;
                }
            }
            let locked = self.svm.notifier_lock();
            if !locked.pages_valid(key) {
                continue;
            }
            match self.memory.atomic(self.place(&locked, key, at), 0, 8, AtomicOp::Add(value)) {
                Ok(old) => return Gpu::Done(old),
                // Told after the change, a device may come too late, and is told so. An empty frame is nowhere met.
                Err(AccessError::Again | AccessError::Fault) if self.live.is_some() => {}
                Err(error) => panic!("a valid mapping leads to {error:?}"),
            }
        }
        last
    }

    /// Where a valid mapping leads to.
    fn place(&self, locked: &NotifierLocked<'_, Driver>, key: RangeKey, at: HostVa) -> Place {
        let range = locked.range(key).expect("it is there");
        let mut index = range.span().page_index(at.page());
        for &chunk in range.pages().dma_addr() {
            if index < chunk.pages() {
                return self.dma.place(chunk, index as u64);
            }
            index -= chunk.pages();
        }
        panic!("the mapping does not cover {at:?}");
    }

    /// Until the notifiers were called for every change so far.
    fn settle(&self) {
        if let Some(live) = &self.live {
            live.settle();
        }
    }
    /// Where a page is, if it is in VRAM.
    fn device_page(&self, at: HostVa) -> Option<DevicePage> {
        match (&self.live, self.sim.residency(at)) {
            (Some(live), _) => live.device_page(at),
            (None, Some(Place::Device(page))) => Some(page),
            (None, None | Some(Place::Host(_))) => None,
        }
    }

    fn check(&self) {
        self.settle();
        self.sim.check().expect("the mm's books balance");
        assert_eq!(self.sim.claims_in_progress(), 0);
        for (tile, map) in self.tiles.iter().zip(self.set.iter()) {
            let allocated = tile.allocated.lock().len();
            assert_eq!(allocated, map.allocations(), "allocations of the driver and the engine");
        }
    }

    /// The mirror and the process end: nothing is left.
    fn end(self) {
        self.check();
        self.svm.fini();
        if let Some(live) = &self.live {
            assert!(live.stop(), "everything migrates back");
            live.let_go();
        }
        assert!(self.dma.mapped.lock().is_empty(), "DMA mappings are left");
        self.sim.exit();
        for (tile, map) in self.tiles.iter().zip(self.set.iter()) {
            assert_eq!((map.allocations(), map.live_pages()), (0, 0));
            assert!(tile.allocated.lock().is_empty(), "VRAM is left");
        }
    }
}

fn fault_ctx() -> Ctx {
    Ctx { owner: Some(OWNER), check_pages_threshold: SZ_64K, devmem_possible: true, ..Ctx::default() }
}

// ---- random operations against a flat page map

const PAGES: usize = 40;

#[derive(Clone, Debug)]
enum Op {
    Store(usize, u64),
    Load(usize),
    ToTile(usize, usize, usize),
    Unmap(usize, usize),
    Map(usize, usize),
    DontNeed(usize, usize),
    Gpu(usize, u64),
    GpuFromSystem(usize, u64),
    EvictAllocation(usize),
    EvictRange(usize),
    Pin(usize),
    Unpin(usize),
}

fn op() -> impl Strategy<Value = Op> {
    let page = 0..PAGES;
    let span = || (0..PAGES, prop_oneof![1..4usize, Just(16), Just(8)]);
    prop_oneof![
        3 => (page.clone(), 1..1000u64).prop_map(|(i, value)| Op::Store(i, value)),
        3 => page.clone().prop_map(Op::Load),
        6 => (0..2usize, span()).prop_map(|(tile, (i, n))| Op::ToTile(tile, i, n)),
        1 => span().prop_map(|(i, n)| Op::Unmap(i, n)),
        2 => span().prop_map(|(i, n)| Op::Map(i, n)),
        1 => span().prop_map(|(i, n)| Op::DontNeed(i, n)),
        5 => (page.clone(), 1..1000u64).prop_map(|(i, value)| Op::Gpu(i, value)),
        2 => (page.clone(), 1..1000u64).prop_map(|(i, value)| Op::GpuFromSystem(i, value)),
        1 => page.clone().prop_map(Op::EvictAllocation),
        1 => page.clone().prop_map(Op::EvictRange),
        1 => page.clone().prop_map(Op::Pin),
        2 => page.prop_map(Op::Unpin),
    ]
}

/// Runs operations; a page that is mapped has a word, which nothing but the operations may change.
fn run_ops(machine: &Machine, area: HostRange, ops: &[Op]) {
    let sim = &machine.sim;
    let mut oracle: Vec<Option<u64>> = vec![Some(0); PAGES];
    let clip = |i: usize, n: usize| HostRange::new(area.page_at(i), area.page_at((i + n).min(PAGES)));
    for op in ops {
        match *op {
            Op::Store(i, value) => {
                let stored = sim.store_u64(area.page_at(i), value);
                assert_eq!(stored.is_ok(), oracle[i].is_some(), "{op:?}");
                oracle[i] = oracle[i].map(|_| value);
            }
            Op::Load(i) => assert_eq!(sim.load_u64(area.page_at(i)).ok(), oracle[i], "{op:?}"),
            Op::ToTile(tile, i, n) => {
                let _ = machine.to_tile(tile, clip(i, n));
            }
            Op::Unmap(i, n) => {
                sim.munmap(clip(i, n));
                oracle[i..(i + n).min(PAGES)].fill(None);
            }
            Op::Map(i, n) => {
                if sim.mmap_at(clip(i, n), MapKind::Anonymous).is_ok() {
                    oracle[i..(i + n).min(PAGES)].fill(Some(0));
                }
            }
            Op::DontNeed(i, n) => {
                sim.madvise_dontneed(clip(i, n));
                oracle[i..(i + n).min(PAGES)].iter_mut().flatten().for_each(|word| *word = 0);
            }
            Op::Gpu(i, value) => gpu_against(machine, area, i, value, &fault_ctx(), &mut oracle),
            Op::GpuFromSystem(i, value) => {
                let ctx = Ctx { owner: None, ..fault_ctx() };
                gpu_against(machine, area, i, value, &ctx, &mut oracle);
            }
            Op::EvictAllocation(i) => {
                if let Some(page) = machine.device_page(area.page_at(i)) {
                    let _ = machine.set.get(page.pagemap).expect("it is there").evict_to_ram(page);
                }
            }
            Op::EvictRange(i) => {
                let at = HostRange::sized(area.page_at(i), SZ_4K);
                for key in machine.svm.ranges_in(at) {
                    let _ = machine.svm.range_evict(key);
                }
            }
            Op::Pin(i) => {
                sim.unpin(area.page_at(i));
                let _ = sim.pin(area.page_at(i));
            }
            Op::Unpin(i) => {
                sim.unpin(area.page_at(i));
            }
        }
        machine.check();
    }
    for (i, word) in oracle.iter().enumerate() {
        while sim.unpin(area.page_at(i)) {}
        assert_eq!(sim.load_u64(area.page_at(i)).ok(), *word, "page {i} at the end");
    }
}

fn gpu_against(machine: &Machine, area: HostRange, i: usize, value: u64, ctx: &Ctx, oracle: &mut [Option<u64>]) {
    let outcome = machine.gpu_add(area.page_at(i), value, ctx, 8);
    match oracle[i] {
        Some(word) => {
            assert_eq!(outcome, Gpu::Done(word), "the device at page {i}");
            oracle[i] = Some(word.wrapping_add(value));
        }
        None => assert_eq!(outcome, Gpu::Failed(SvmError::NoVma), "the device at page {i}, unmapped"),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn no_operation_loses_a_word(ops in proptest::collection::vec(op(), 1..60), seed in 0..u64::MAX) {
        for manager in [Manager::Kernel, Manager::Live] {
            let ops = ops.clone();
            let report = sim::run(&mut Random::new(seed), Limits::default(), move || {
                let machine = Machine::new(manager);
                let area = machine.sim.mmap(PAGES, MapKind::Anonymous);
                run_ops(&machine, area, &ops);
                machine.end();
            });
            prop_assert!(!report.outcome.is_finding(), "{manager:?}: {:?}", report.outcome);
        }
    }
}

// ---- scenes on many schedules

/// Runs a scene on random and on priority schedules, under both managers.
fn explore(seeds: u64, scene: fn(Machine)) {
    for manager in [Manager::Kernel, Manager::Live] {
        for seed in 0..seeds {
            let schedules: [Box<dyn Schedule>; 2] = [Box::new(Random::new(seed)), Box::new(Pct::new(seed, 4, 400))];
            for mut schedule in schedules {
                let report = sim::run(&mut *schedule, Limits::default(), move || {
                    let machine = Machine::new(manager);
                    scene(machine.clone());
                    machine.end();
                });
                assert!(!report.outcome.is_finding(), "{manager:?} seed {seed}: {:?}", report.outcome);
            }
        }
    }
}

fn spawn(machine: &Machine, body: impl FnOnce(&Machine) + Send + 'static) -> sync::JoinHandle {
    let machine = machine.clone();
    sync::spawn("party", move || body(&machine))
}

/// Adds of the CPU and of the device, while the pages go from tile to tile: none is lost.
#[test]
fn cpu_and_device_add_while_pages_travel() {
    explore(300, |machine| {
        let range = machine.sim.mmap(2, MapKind::Anonymous);
        machine.sim.store_u64(range.start, 1).expect("mapped");
        let migrator = spawn(&machine, move |machine| {
            for tile in [0, 1, 0] {
                let _ = machine.to_tile(tile, range);
            }
        });
        let device = spawn(&machine, move |machine| {
            for _ in 0..2 {
                let outcome = machine.gpu_add(range.start, 10, &fault_ctx(), 1000);
                assert!(matches!(outcome, Gpu::Done(_)), "{outcome:?}");
            }
        });
        for _ in 0..2 {
            machine.sim.fetch_add_u64(range.start, 100).expect("mapped");
        }
        migrator.join();
        device.join();
        assert_eq!(machine.sim.load_u64(range.start), Ok(221));
        assert_eq!(machine.sim.load_u64(range.page_at(1)), Ok(0));
    });
}

/// The mapping goes while the device faults on it and a migration runs: whatever happens, nothing is left over.
#[test]
fn a_mapping_goes_under_fault_and_migration() {
    explore(300, |machine| {
        let range = machine.sim.mmap(2, MapKind::Anonymous);
        machine.sim.store_u64(range.start, 7).expect("mapped");
        machine.sim.store_u64(range.page_at(1), 8).expect("mapped");
        let migrator = spawn(&machine, move |machine| {
            let _ = machine.to_tile(0, range);
            let _ = machine.to_tile(1, range);
        });
        let device = spawn(&machine, move |machine| {
            let _ = machine.gpu_add(range.start, 1, &fault_ctx(), 20);
        });
        machine.sim.munmap(HostRange::sized(range.start, SZ_4K));
        migrator.join();
        device.join();
        assert_eq!(machine.sim.load_u64(range.page_at(1)), Ok(8));
        let outcome = machine.gpu_add(range.page_at(1), 1, &fault_ctx(), 1000);
        assert!(matches!(outcome, Gpu::Done(8)), "{outcome:?}");
        assert_eq!(machine.gpu_add(range.start, 1, &fault_ctx(), 20), Gpu::Failed(SvmError::NoVma));
    });
}

/// VRAM is wanted back while a CPU touches and a migration steals: the allocation is released once.
#[test]
fn an_eviction_meets_a_touch_and_a_steal() {
    explore(300, |machine| {
        let range = machine.sim.mmap(3, MapKind::Anonymous);
        for i in 0..3 {
            machine.sim.store_u64(range.page_at(i), 40 + i as u64).expect("mapped");
        }
        machine.to_tile(0, range).expect("nobody else is there");
        let page = machine.device_page(range.start).expect("in VRAM");
        let evictor = spawn(&machine, move |machine| {
            let _ = machine.set.get(page.pagemap).expect("it is there").evict_to_ram(page);
        });
        let thief = spawn(&machine, move |machine| {
            let _ = machine.to_tile(1, range);
        });
        assert_eq!(machine.sim.load_u64(range.page_at(1)), Ok(41));
        evictor.join();
        thief.join();
        for i in 0..3 {
            assert_eq!(machine.sim.load_u64(range.page_at(i)), Ok(40 + i as u64));
        }
    });
}

/// DONTNEED under a device that has the pages in VRAM: afterwards everyone sees zeros.
#[test]
fn dontneed_meets_the_device() {
    explore(300, |machine| {
        let range = machine.sim.mmap(1, MapKind::Anonymous);
        machine.sim.store_u64(range.start, 5).expect("mapped");
        let _ = machine.to_tile(0, range);
        let device = spawn(&machine, move |machine| {
            let _ = machine.gpu_add(range.start, 0, &fault_ctx(), 1000);
            let _ = machine.to_tile(1, range);
        });
        machine.sim.madvise_dontneed(range);
        device.join();
        assert_eq!(machine.sim.load_u64(range.start), Ok(0));
    });
}

/// Two tiles take the pages from each other, each for a minimum residency of 5 ms, and never stop. A CPU that touches
/// them has its turn when the residency that it met first ends: after as many moves as fit into it.
#[test]
fn a_touch_ends_while_tiles_take_turns() {
    const BETWEEN_NS: u64 = 300_000;
    const MOST_MOVES: u64 = 2 * (5_000_000 / BETWEEN_NS + 2);
    explore(40, |machine| {
        let range = machine.sim.mmap(2, MapKind::Anonymous);
        let (moves, over) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
        let tiles = [0, 1].map(|tile| {
            let (moves, over) = (moves.clone(), over.clone());
            spawn(&machine, move |machine| {
                while over.load() == 0 {
                    moves.fetch_add(u64::from(machine.to_tile_for(tile, range, 5).is_ok()));
                    sync::time::sleep_ns(BETWEEN_NS);
                }
            })
        });
        for touch in 0..4 {
            sync::time::sleep_ns(1_000_000);
            let before = moves.load();
            machine.sim.store_u64(range.page_at(1), touch).expect("mapped");
            let meanwhile = moves.load() - before;
            assert!(meanwhile <= MOST_MOVES, "{meanwhile} moves while a CPU waited");
        }
        over.store(1);
        tiles.into_iter().for_each(sync::JoinHandle::join);
    });
}
