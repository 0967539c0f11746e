//! A device of tiles, a driver and an mm, all small: what the engine's tests run on.
#![allow(dead_code)] // each test crate uses its part

pub mod mm;

use gpusvm::*;
use hostmm::*;
use mm::Mm;
use std::collections::BTreeMap;
use std::sync::{Arc, Weak};
use sync::Mutex;
use units::{HostFrame, HostRange, HostVa, Iova, SZ_2M, SZ_4K, SZ_64K};

pub const OWNER: OwnerId = OwnerId(1);
pub const FOREIGN: OwnerId = OwnerId(2);
pub const FRAMES: u64 = 4096;
/// A 2M-aligned place to map at.
pub const BASE: HostVa = HostVa(0x7f00_0000_0000);

/// What goes wrong, and when.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Failure {
    #[default]
    None,
    /// The copy fails after it carried this many pages.
    Copy(usize),
    /// The copy succeeds but leaves this page of each batch behind.
    LeaveBehind(usize),
    /// Mapping fails after this many mappings.
    Map(usize),
    /// Mapping fails this many times.
    Passing(usize),
}

/// The DMA side of the device; every mapping is remembered.
#[derive(Default)]
pub struct FakeDevice {
    mapped: Mutex<BTreeMap<Iova, (HostFrame, usize, Direction)>>,
    next: Mutex<u64>,
    pub failure: Mutex<Failure>,
}

impl FakeDevice {
    pub fn mappings(&self) -> usize {
        self.mapped.lock().len()
    }
    /// The frame behind a bus address, for a read or a write.
    pub fn translate(&self, iova: u64, write: bool) -> HostFrame {
        let mapped = self.mapped.lock();
        let (start, (frame, pages, dir)) = mapped.range(..=Iova(iova)).next_back().expect("a bus address is mapped");
        let page = (iova - start.0) >> 12;
        assert!(page < *pages as u64, "bus address {iova:#x} is behind its mapping");
        let allowed = if write { *dir != Direction::ToDevice } else { *dir != Direction::FromDevice };
        assert!(allowed, "direction {dir:?} forbids it");
        frame.add(page)
    }
    fn count_down(&self) -> Result<(), MapError> {
        match &mut *self.failure.lock() {
            Failure::Map(0) => Err(MapError::NoSpace),
            Failure::Map(left) => {
                *left -= 1;
                Ok(())
            }
            Failure::Passing(left) if *left > 0 => {
                *left -= 1;
                Err(MapError::NoSpace)
            }
            _ => Ok(()),
        }
    }
}

impl Device for FakeDevice {
    fn path(&self, _pagemap: PagemapId) -> Option<Proto> {
        Some(Proto::Vram)
    }
    fn dma_map(&self, frame: HostFrame, pages: usize, dir: Direction) -> Result<Iova, MapError> {
        self.count_down()?;
        let mut next = self.next.lock();
        *next += 0x1000_0000;
        self.mapped.lock().insert(Iova(*next), (frame, pages, dir));
        Ok(Iova(*next))
    }
    fn dma_unmap(&self, iova: Iova, pages: usize) {
        let gone = self.mapped.lock().remove(&iova).expect("what is unmapped was mapped");
        assert_eq!(gone.1, pages, "a mapping is unmapped as it was mapped");
    }
}

/// One tile: its copy engine and its allocations.
pub struct FakeTile {
    pub pagemap: PagemapId,
    device: Arc<FakeDevice>,
    mm: Weak<Mm>,
    /// cookie → times released.
    pub released: Mutex<BTreeMap<u64, usize>>,
    allocated: Mutex<u64>,
    next_frame: Mutex<u64>,
    pub pushes: Mutex<usize>,
}

const TILE_SHIFT: u32 = 40;

impl FakeTile {
    pub fn new(pagemap: u16, device: &Arc<FakeDevice>, mm: &Arc<Mm>) -> Arc<Self> {
        Arc::new(Self {
            pagemap: PagemapId(pagemap),
            device: device.clone(),
            mm: Arc::downgrade(mm),
            released: Mutex::default(),
            allocated: Mutex::default(),
            next_frame: Mutex::new(0),
            pushes: Mutex::default(),
        })
    }
    /// A fresh allocation.
    pub fn alloc(&self, pages: usize) -> Devmem {
        let mut next = self.next_frame.lock();
        let mut allocated = self.allocated.lock();
        let base = next.next_multiple_of(pages.next_power_of_two() as u64);
        *next = base + pages as u64;
        *allocated += 1;
        Devmem { base: DevicePage { pagemap: self.pagemap, frame: base }, pages, cookie: *allocated }
    }
    /// Allocations that were made.
    pub fn allocations(&self) -> u64 {
        *self.allocated.lock()
    }
    /// Allocations that were made and not released. Panics where one was released twice.
    pub fn outstanding(&self) -> u64 {
        let released = self.released.lock();
        assert!(released.values().all(|times| *times == 1), "released once each: {released:?}");
        *self.allocated.lock() - released.len() as u64
    }
    /// Transfers run by run, as far as the failure allows.
    fn copy(
        &self,
        runs: &[CopyRun],
        report: &mut Report<'_>,
        pair: impl Fn(&CopyRun) -> (Place, Place),
    ) -> Result<(), CopyError> {
        let mm = self.mm.upgrade().expect("the mm is there");
        let failure = *self.device.failure.lock();
        let mut done = 0;
        for run in runs {
            assert_eq!(run.page.pagemap, self.pagemap);
            let (src, dst) = pair(run);
            let pages = run.addr.pages();
            let bad = match failure {
                Failure::Copy(at) | Failure::LeaveBehind(at) if (done..done + pages).contains(&at) => Some(at - done),
                _ => None,
            };
            let Some(bad) = bad else {
                mm.sim.transfer(src, dst, pages, report);
                done += pages;
                continue;
            };
            mm.sim.transfer(src, dst, bad, report);
            if matches!(failure, Failure::Copy(_)) {
                return Err(CopyError::Fault);
            }
            report(1, Outcome::Failed);
            let further = bad as u64 + 1;
            mm.sim.transfer(src.add(further), dst.add(further), pages - bad - 1, report);
            done += pages;
        }
        Ok(())
    }
}

/// The page behind a device address.
pub fn page_of(addr: u64) -> DevicePage {
    let pagemap = PagemapId((addr >> TILE_SHIFT) as u16 - 1);
    DevicePage { pagemap, frame: (addr & ((1 << TILE_SHIFT) - 1)) >> 12 }
}

impl DevmemOps for FakeTile {
    fn device(&self) -> &dyn Device {
        &*self.device
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
        assert_eq!(page.pagemap, self.pagemap, "each pagemap maps its own pages");
        self.device.count_down()?;
        let addr = (u64::from(page.pagemap.0) + 1) << TILE_SHIFT | page.frame << 12;
        Ok(PagemapAddr { addr, proto: Proto::Vram, pages: pages as u32, dir })
    }
    fn devmem_alloc(&self, pages: usize) -> Option<Devmem> {
        Some(self.alloc(pages))
    }
    fn copy_to_devmem(&self, runs: &[CopyRun], report: &mut Report<'_>) -> Result<(), CopyError> {
        self.copy(runs, report, |run| {
            assert_eq!(run.addr.proto, Proto::System);
            (Place::Host(self.device.translate(run.addr.addr, false)), Place::Device(run.page))
        })
    }
    fn copy_to_ram(&self, runs: &[CopyRun], report: &mut Report<'_>) -> Result<(), CopyError> {
        self.copy(runs, report, |run| {
            let to = match run.addr.proto {
                Proto::System => Place::Host(self.device.translate(run.addr.addr, true)),
                Proto::Vram => {
                    *self.pushes.lock() += run.addr.pages();
                    Place::Device(page_of(run.addr.addr))
                }
                Proto::P2p => unreachable!(),
            };
            (Place::Device(run.page), to)
        })
    }
    fn devmem_release(&self, devmem: Devmem) {
        *self.released.lock().entry(devmem.cookie).or_insert(0) += 1;
    }
}

/// The driver: zaps nothing (it has no page tables), but unmaps and remembers.
#[derive(Default)]
pub struct Driver {
    pub told: Mutex<Vec<MmEvent>>,
}

impl GpuSvmOps for Driver {
    type RangeData = u32;
    fn invalidate(&self, locked: &mut NotifierLocked<'_, Self>, notifier: NotifierKey, event: &MmEvent) {
        self.told.lock().push(*event);
        for key in locked.ranges_of(notifier, event.range) {
            locked.unmap_pages(key);
            if event.kind == EventKind::Unmap {
                locked.set_unmapped(key, event);
            }
        }
    }
}

/// Remembers all events.
#[derive(Default)]
pub struct Log(pub Mutex<Vec<Event>>);

impl Observer for Log {
    fn event(&self, event: &Event) {
        self.0.lock().push(*event);
    }
}

/// All of it.
pub struct World {
    pub mm: Arc<Mm>,
    pub device: Arc<FakeDevice>,
    pub tiles: Vec<Arc<FakeTile>>,
    pub set: Arc<PagemapSet>,
    pub driver: Arc<Driver>,
    pub svm: Arc<GpuSvm<Driver>>,
    pub log: Arc<Log>,
}

pub const ALL: HostRange = HostRange::new(HostVa(0), HostVa(1 << 47));

impl World {
    pub fn new() -> Self {
        Self::with_window(ALL)
    }

    pub fn with_window(window: HostRange) -> Self {
        let mm = Mm::new();
        let device = Arc::new(FakeDevice::default());
        let tiles: Vec<_> = (0..2).map(|n| FakeTile::new(n, &device, &mm)).collect();
        let log = Arc::new(Log::default());
        let (dyn_mm, observer): (Arc<dyn HostMm>, Arc<dyn Observer>) = (mm.clone(), log.clone());
        let config =
            |tile: &Arc<FakeTile>| PagemapConfig { id: tile.pagemap, owner: OWNER, frames: FRAMES, ops: tile.clone() };
        let set = PagemapSet::new(&dyn_mm, &observer, &Arc::default(), tiles.iter().map(config).collect());
        let driver = Arc::new(Driver::default());
        let config = SvmConfig { window, notifier_size: 512 << 20, chunk_sizes: &[SZ_2M, SZ_64K, SZ_4K] };
        let ops = Arc::downgrade(&driver);
        let svm = GpuSvm::new(config, dyn_mm, device.clone(), set.clone(), ops, observer).expect("the config is sound");
        Self { mm, device, tiles, set, driver, svm, log }
    }

    /// Maps `pages` anonymous pages at [`BASE`] and stores `first + i` in page `i`.
    pub fn filled(&self, pages: usize, first: u64) -> HostRange {
        let range = HostRange::sized(BASE, pages as u64 * SZ_4K);
        self.mm.mmap(range);
        for i in 0..pages {
            self.mm.store(range.page_at(i), first + i as u64);
        }
        range
    }

    pub fn assert_filled(&self, range: HostRange, first: u64) {
        for i in 0..range.pages() {
            assert_eq!(self.mm.load(range.page_at(i)), first + i as u64, "page {i} of {range}");
        }
    }

    pub fn range_at(&self, addr: HostVa, ctx: &Ctx) -> Result<RangeKey, SvmError> {
        self.svm.range_find_or_insert(addr, ALL, ctx)
    }

    pub fn span(&self, key: RangeKey) -> HostRange {
        self.svm.notifier_lock().range(key).expect("the range is there").span()
    }

    pub fn valid(&self, key: RangeKey) -> bool {
        self.svm.notifier_lock().pages_valid(key)
    }

    pub fn pagemap(&self, tile: usize) -> &Arc<Pagemap> {
        self.set.get(PagemapId(tile as u16)).expect("the tile has a pagemap")
    }

    pub fn to_tile(&self, tile: usize, range: HostRange) -> Result<(), MigrateError> {
        let alloc = || Some(self.tiles[tile].alloc(range.pages()));
        self.pagemap(tile).migrate_to_devmem(range, &MigrateDetails::default(), alloc)
    }

    /// What the device reads at each page of a mapped range.
    pub fn device_reads(&self, key: RangeKey) -> Vec<u64> {
        let addr = self.svm.notifier_lock().pages(key).expect("the range is there").dma_addr().to_vec();
        let mut words = Vec::new();
        for chunk in addr {
            for page in 0..chunk.pages() as u64 {
                words.push(self.mm.word(match chunk.proto {
                    Proto::System => Place::Host(self.device.translate(chunk.addr + page * SZ_4K, false)),
                    _ => Place::Device(page_of(chunk.addr).add(page)),
                }));
            }
        }
        words
    }

    pub fn fail(&self, failure: Failure) {
        *self.device.failure.lock() = failure;
    }

    pub fn events(&self) -> Vec<Event> {
        std::mem::take(&mut *self.log.0.lock())
    }

    /// Nothing is left over: no mapping, no migration, no allocation, no notifier.
    pub fn assert_clean(&self) {
        self.svm.fini();
        assert_eq!(self.device.mappings(), 0, "DMA mappings are left");
        assert_eq!(self.mm.sim.claims_in_progress(), 0, "migrations are left");
        assert_eq!(self.mm.notifiers(), 0, "notifiers are left");
        for (tile, map) in self.tiles.iter().zip(self.set.iter()) {
            assert_eq!(tile.outstanding(), map.allocations() as u64, "tile {}", tile.pagemap.0);
        }
    }

    /// The same, and all VRAM is free.
    pub fn assert_empty(&self) {
        self.assert_clean();
        for map in self.set.iter() {
            assert_eq!((map.allocations(), map.live_pages()), (0, 0), "VRAM is free");
        }
    }
}

/// What a GPU fault of a discrete device asks for.
pub fn fault_ctx() -> Ctx {
    Ctx { owner: Some(OWNER), check_pages_threshold: SZ_64K, devmem_possible: true, ..Ctx::default() }
}
