//! The smallest driver: a GPU of one tile, and memory of this very process that goes to its VRAM on a GPU fault and comes
//! back when a CPU touches it.
//!
//! ```sh
//! cargo run -p pontoon-gpusvm --example smallest_driver
//! ```
//!
//! What a driver owes the engine is all here, in the order of a fault: page tables ([`Gpu::add`] translates),
//! a fault handler ([`Gpu::fault`]: find a range, migrate it, collect its pages, [bind](Gpu::bind) them), the notifier
//! ([`GpuSvmOps::invalidate`]: no translation is left when it returns), DMA mappings ([`Device`]), and VRAM with a copy engine
//! ([`DevmemOps`]). What is left out: permissions, eviction when VRAM is full, larger pages, retry limits. `xe-kmd` has them.
//!
//! Upstream: `drivers/gpu/drm/xe/xe_svm.c` is the driver, `drm_gpusvm.c` and `drm_pagemap.c` are the engine.

use gpusvm::{
    CopyError, CopyRun, Ctx, Device, Devmem, DevmemOps, Direction, GpuSvm, GpuSvmOps, MapError, MigrateDetails,
    NotifierKey, NotifierLocked, Observer, PagemapAddr, PagemapConfig, PagemapSet, Proto, RangeKey, SvmConfig,
    SvmError,
};
use hostmm::{AtomicOp, DevicePage, EventKind, HostMemory, HostMm, MmEvent, OwnerId, PagemapId, Place};
use mm_live::{LiveMm, PageSize, Region};
use std::collections::BTreeMap;
use std::sync::{Arc, Weak};
use sync::Mutex;
use units::{HostFrame, HostRange, HostVa, Iova, Report, SZ_2M, SZ_4K, SZ_64K};

/// All of the process' memory may be mirrored.
const PROCESS: HostRange = HostRange::new(HostVa(0), HostVa(1 << 47));
/// Pagemaps of one owner see each other's pages; there is one.
const OWNER: OwnerId = OwnerId(1);
const VRAM: PagemapId = PagemapId(0);
const VRAM_PAGES: u64 = 4096;

/// The hardware, and what the driver keeps of it.
struct Tile {
    /// What the copy engine reads and writes. Weak: the mm keeps the pagemap, which keeps this.
    memory: Weak<dyn HostMemory>,
    /// The GPU's page table: a leaf a page of 4K, at the CPU's own address.
    table: Mutex<BTreeMap<u64, Place>>,
    /// Blocks of VRAM that are in use: first frame, pages.
    used: Mutex<BTreeMap<u64, usize>>,
}

/// What an address of the device leads to: no IOMMU translates on this bus.
fn place(addr: PagemapAddr) -> Place {
    match addr.proto {
        Proto::Vram => Place::Device(DevicePage { pagemap: VRAM, frame: addr.addr / SZ_4K }),
        Proto::System | Proto::P2p => Place::Host(HostFrame(addr.addr / SZ_4K)),
    }
}

impl Tile {
    /// No access of the GPU uses a translation of `span` from now on. Who is in the middle of one holds the lock.
    fn zap(&self, span: HostRange) {
        self.table.lock().retain(|page, _| !span.contains(HostVa(*page)));
    }
}

impl Device for Tile {
    fn path(&self, pagemap: PagemapId) -> Option<Proto> {
        (pagemap == VRAM).then_some(Proto::Vram)
    }
    fn dma_map(&self, frame: HostFrame, _pages: usize, _dir: Direction) -> Result<Iova, MapError> {
        Ok(Iova(frame.0 * SZ_4K))
    }
    fn dma_unmap(&self, _iova: Iova, _pages: usize) {}
}

impl DevmemOps for Tile {
    fn device(&self) -> &dyn Device {
        self
    }
    fn pushes_to(&self, _target: PagemapId) -> bool {
        false
    }
    fn device_map(
        &self,
        _by: &dyn Device,
        page: DevicePage,
        pages: usize,
        dir: Direction,
    ) -> Result<PagemapAddr, MapError> {
        Ok(PagemapAddr { addr: page.frame * SZ_4K, proto: Proto::Vram, pages: pages as u32, dir })
    }
    fn devmem_alloc(&self, pages: usize) -> Option<Devmem> {
        let mut used = self.used.lock();
        let mut base = 0;
        for (&first, &len) in used.iter() {
            if base + pages as u64 <= first {
                break;
            }
            base = (first + len as u64).next_multiple_of(pages as u64);
        }
        (base + pages as u64 <= VRAM_PAGES).then(|| {
            used.insert(base, pages);
            Devmem { base: DevicePage { pagemap: VRAM, frame: base }, pages, cookie: base }
        })
    }
    fn copy_to_devmem(&self, runs: &[CopyRun], report: &mut Report<'_>) -> Result<(), CopyError> {
        let memory = self.memory.upgrade().ok_or(CopyError::Reset)?;
        let copy = |run: &CopyRun| memory.transfer(place(run.addr), Place::Device(run.page), run.addr.pages(), report);
        runs.iter().for_each(copy);
        Ok(())
    }
    fn copy_to_ram(&self, runs: &[CopyRun], report: &mut Report<'_>) -> Result<(), CopyError> {
        let memory = self.memory.upgrade().ok_or(CopyError::Reset)?;
        let copy = |run: &CopyRun| memory.transfer(Place::Device(run.page), place(run.addr), run.addr.pages(), report);
        runs.iter().for_each(copy);
        Ok(())
    }
    fn devmem_release(&self, devmem: Devmem) {
        self.used.lock().remove(&devmem.cookie);
    }
}

impl GpuSvmOps for Tile {
    type RangeData = ();

    fn invalidate(&self, locked: &mut NotifierLocked<'_, Self>, notifier: NotifierKey, event: &MmEvent) {
        for key in locked.ranges_of(notifier, event.range) {
            if let Some(range) = locked.range(key) {
                self.zap(range.span());
            }
            locked.unmap_pages(key);
            if matches!(event.kind, EventKind::Unmap | EventKind::Release) {
                locked.set_unmapped(key, event);
            }
        }
    }
}

/// The GPU as a program sees it.
pub struct Gpu {
    mm: Arc<LiveMm>,
    tile: Arc<Tile>,
    pagemaps: Arc<PagemapSet>,
    svm: Arc<GpuSvm<Tile>>,
    /// What keeps ranges from being removed while another thread works on them (Xe: the VM's lock).
    vm: Mutex<()>,
}

impl Gpu {
    /// A GPU that mirrors this process.
    fn new(mm: Arc<LiveMm>) -> Result<Self, SvmError> {
        let (host, memory): (Arc<dyn HostMm>, Arc<dyn HostMemory>) = (mm.clone(), mm.clone());
        let memory = Arc::downgrade(&memory);
        let tile = Arc::new(Tile { memory, table: Mutex::default(), used: Mutex::default() });
        let observer: Arc<dyn Observer> = Arc::new(());
        let pagemap = PagemapConfig { id: VRAM, owner: OWNER, frames: VRAM_PAGES, ops: tile.clone() };
        let pagemaps = PagemapSet::new(&host, &observer, &Arc::default(), vec![pagemap]);
        let config = SvmConfig { window: PROCESS, notifier_size: SZ_2M, chunk_sizes: &[SZ_2M, SZ_64K, SZ_4K] };
        let svm = GpuSvm::new(config, host, tile.clone(), pagemaps.clone(), Arc::downgrade(&tile), observer)?;
        Ok(Self { mm, tile, pagemaps, svm, vm: Mutex::default() })
    }

    /// Adds to a word, as one access: translates, and faults until there is a translation. Gives the old value.
    pub fn add(&self, at: HostVa, value: u64) -> Result<u64, SvmError> {
        loop {
            let hit = {
                let table = self.tile.table.lock();
                let offset = (at.0 % SZ_4K) as usize;
                let add = |page: &Place| self.mm.atomic(*page, offset, 8, AtomicOp::Add(value));
                table.get(&at.page().0).map(add)
            };
            match hit {
                Some(Ok(old)) => return Ok(old),
                Some(Err(_)) | None => self.fault(at)?,
            }
        }
    }

    /// Serves a fault, as far as it goes: the access is tried again in any case.
    fn fault(&self, at: HostVa) -> Result<(), SvmError> {
        let _vm = self.vm.lock();
        let ctx = Ctx { owner: Some(OWNER), check_pages_threshold: SZ_64K, devmem_possible: true, ..Ctx::default() };
        let key = self.svm.range_find_or_insert(at, PROCESS, &ctx)?;
        let seen =
            self.svm.notifier_lock().range(key).map(|range| (range.span(), range.unmapped(), range.migrate_devmem()));
        let Some((span, is_unmapped, migrates)) = seen else { return Ok(()) };
        if is_unmapped {
            self.svm.range_remove(key);
            return Ok(());
        }
        if let (true, Some(vram)) = (migrates, self.pagemaps.get(VRAM)) {
            // What cannot move is used where it is.
            let _ = vram.populate_mm(span, &MigrateDetails::default());
        }
        match self.svm.get_pages(key, &ctx) {
            Ok(()) => self.bind(key),
            // Some pages moved and others did not: all go to system memory.
            Err(SvmError::Mixed) => return self.svm.range_evict(key),
            Err(SvmError::Busy) => {}
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// Writes the leaves, unless the pages changed since they were collected: under this lock nobody can change them.
    fn bind(&self, key: RangeKey) {
        let locked = self.svm.notifier_lock();
        let Some(range) = locked.range(key).filter(|range| range.pages().valid()) else { return };
        let pages = range.pages().dma_addr().iter().flat_map(|run| (0..run.pages()).map(|n| place(*run).add(n as u64)));
        let addresses = (0..range.span().pages()).map(|n| range.span().page_at(n).0);
        self.tile.table.lock().extend(addresses.zip(pages));
    }

    /// Where a page is.
    fn tell(&self, at: HostVa) -> String {
        match self.mm.device_page(at) {
            Some(page) => format!("in VRAM, frame {}", page.frame),
            None => "in system memory".to_owned(),
        }
    }
}

/// A CPU's store: an instruction of this thread, with no word of where the page is.
fn cpu_store(mm: &LiveMm, at: HostVa, value: u64) {
    mm.copy_to_user(at, &value.to_le_bytes()).expect("the memory is this process' own");
}

fn cpu_load(mm: &LiveMm, at: HostVa) -> u64 {
    let mut word = [0; 8];
    mm.copy_from_user(at, &mut word).expect("the memory is this process' own");
    u64::from_le_bytes(word)
}

/// Plays it, and tells of each step.
///
/// # Errors
/// The kernel refuses userfaultfd.
pub fn play(mut say: impl FnMut(String)) -> Result<(), mm_live::Refused> {
    let mm = LiveMm::start(mm_live::Config::default())?;
    let gpu = Arc::new(Gpu::new(mm.clone()).expect("the sizes are sound"));
    let memory = Region::new(SZ_64K, PageSize::Small)?;
    let at = |page: u64, word: u64| memory.range().start.add(page * SZ_4K + word * 8);

    cpu_store(&mm, at(3, 0), 1);
    say(format!("the CPU stores 1: the page is {}", gpu.tell(at(3, 0))));
    let old = gpu.add(at(3, 0), 41).expect("it is served");
    say(format!("the GPU adds 41 to {old}: the page is {}", gpu.tell(at(3, 0))));
    let sum = cpu_load(&mm, at(3, 0));
    say(format!("the CPU loads {sum}: the page is {}", gpu.tell(at(3, 0))));

    // Each store takes the page away from the other side, and none is lost.
    const TIMES: u64 = 500;
    let adder = {
        let (gpu, words) = (gpu.clone(), (0..TIMES).map(|n| at(n % 16, 1)).collect::<Vec<_>>());
        sync::spawn("gpu", move || words.into_iter().for_each(|word| _ = gpu.add(word, 1).expect("it is served")))
    };
    (0..TIMES).for_each(|n| cpu_store(&mm, at(n % 16, 2), n));
    adder.join();
    let added: u64 = (0..16).map(|page| cpu_load(&mm, at(page, 1))).sum();
    let stored: u64 = (0..16).map(|page| u64::from(cpu_load(&mm, at(page, 2)) / 16 == (TIMES - 1 - page) / 16)).sum();
    say(format!("GPU and CPU at once: {added} of {TIMES} additions are there, and {stored} of 16 last stores"));

    gpu.svm.fini();
    assert!(mm.stop(), "all pages come back");
    mm.let_go();
    Ok(())
}

fn main() {
    if let Err(refused) = play(|line| println!("{line}")) {
        eprintln!("{refused}; any one of these helps: {}", refused.remedies().join("; "));
        std::process::exit(2);
    }
}
