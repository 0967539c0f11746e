//! The simulated mm, with what the driver's tests want besides: pages that do not migrate, changes that nobody is told of.

use std::collections::BTreeMap;
use std::sync::Arc;

use hostmm::*;
use mm_sim::{Config, MapKind, Remap, Sim};
use sync::Mutex;
use sync::atomic::AtomicU64;
use units::*;

/// A process' memory.
pub(crate) struct Mm {
    sim: Arc<Sim>,
    pagemaps: Mutex<BTreeMap<PagemapId, Arc<dyn PagemapOps>>>,
    /// Claims that get no page of system memory from now on.
    refused: AtomicU64,
    /// Walks find nothing that holds before this time.
    stale_until_ns: AtomicU64,
    /// Walks that fault have no memory.
    starved: AtomicU64,
    /// Notifiers hear nothing.
    muted: Arc<AtomicU64>,
    /// Times that a VMA was asked for.
    questions: AtomicU64,
    /// What happens during the next claim.
    during_claim: Mutex<Option<Box<dyn FnOnce() + Send>>>,
}

/// A notifier that may be muted.
struct Ear {
    ops: Arc<dyn NotifierOps>,
    muted: Arc<AtomicU64>,
}

impl NotifierOps for Ear {
    fn invalidate(&self, event: &MmEvent) {
        if self.muted.load() == 0 {
            self.ops.invalidate(event);
        }
    }
}

impl Mm {
    /// Without mappings.
    pub fn new() -> Arc<Self> {
        let zero = || AtomicU64::new(0);
        let pagemaps = Mutex::new(BTreeMap::new());
        let (sim, muted) = (Sim::new(Config::default()), Arc::new(zero()));
        Arc::new(Self {
            sim,
            pagemaps,
            refused: zero(),
            starved: zero(),
            stale_until_ns: zero(),
            muted,
            questions: zero(),
            during_claim: Mutex::new(None),
        })
    }
    /// Maps writable anonymous memory, and touches all of it. Frames scatter at every 64K, so that nothing is contiguous
    /// for long.
    pub fn mmap(&self, range: HostRange) {
        self.sim.mmap_at(range, MapKind::Anonymous).expect("nothing is there");
        let blocks = range.start.align_down(SZ_64K).0..range.end.0;
        for odd in [true, false] {
            for block in blocks.clone().step_by(SZ_64K as usize).filter(|block| (block >> 16 & 1 != 0) == odd) {
                let Some(block) = HostRange::sized(HostVa(block), SZ_64K).intersect(range) else { continue };
                self.populate(block);
            }
        }
    }
    /// From now on no page migrates.
    pub fn pin(&self) {
        self.refuse(u64::MAX);
    }
    /// The next `claims` get nothing of system memory.
    pub fn refuse(&self, claims: u64) {
        self.refused.store(claims);
    }
    /// Does that during the next claim.
    pub fn during_claim(&self, happens: impl FnOnce() + Send + 'static) {
        *self.during_claim.lock() = Some(Box::new(happens));
    }
    /// Empties `range`.
    pub fn dontneed(&self, range: HostRange) {
        self.sim.madvise_dontneed(range);
    }
    /// A CPU reads every page of `range`.
    pub fn populate(&self, range: HostRange) {
        (0..range.pages()).for_each(|page| _ = self.sim.load_u64(range.page_at(page)).expect("mapped"));
    }
    /// Moves a mapping.
    pub fn mremap(&self, from: HostRange, to: HostVa) {
        self.sim.mremap_as(Remap::fixed(from, to)).expect("nothing is in the way");
    }
    /// For `ns` from now the address space changes faster than it can be walked.
    pub fn unsettle(&self, ns: u64) {
        self.stale_until_ns.store(sync::time::now_ns() + ns);
    }
    /// Whether there is no memory for pages from now on.
    pub fn starve(&self, starved: bool) {
        self.starved.store(starved.into());
    }
    /// Makes `range`, cut out of its VMA, read-only.
    pub fn protect(&self, range: HostRange) {
        self.sim.protect_read_only(range);
    }
    /// Takes `range` out.
    pub fn munmap(&self, range: HostRange) {
        self.sim.munmap(range);
    }
    /// Takes `range` out, and tells nobody.
    pub fn forget(&self, range: HostRange) {
        self.muted.store(1);
        self.sim.munmap(range);
        self.muted.store(0);
    }
    /// Where a page is, if it is in VRAM.
    pub fn home(&self, va: u64) -> Option<DevicePage> {
        self.sim.residency(HostVa(va)).and_then(Place::device)
    }
    /// Times that the driver, or the engine, asked for a VMA.
    pub fn vma_questions(&self) -> u64 {
        self.questions.load()
    }
    /// The frame of a page in system memory.
    pub fn frame_of(&self, va: HostVa) -> HostFrame {
        self.sim.residency(va).and_then(Place::host).expect("in system memory")
    }
    /// A CPU touches a page, once.
    pub fn touch(&self, va: HostVa) {
        let va = va.page();
        let Some(page) = self.home(va.0) else { return };
        let vma = self.vma_lookup(va).expect("mapped").range;
        let ops = self.pagemaps.lock()[&page.pagemap].clone();
        ops.migrate_to_ram(&*self.sim, &CpuFault { addr: va, page, vma, write: true, thread: 0 });
    }
}

impl HostMm for Mm {
    fn next_vma(&self, addr: HostVa) -> Option<Vma> {
        self.questions.fetch_add(1);
        self.sim.next_vma(addr)
    }
    fn pagemap_insert(&self, id: PagemapId, owner: OwnerId, frames: u64, ops: Arc<dyn PagemapOps>) {
        self.pagemaps.lock().insert(id, ops.clone());
        self.sim.pagemap_insert(id, owner, frames, ops);
    }
    fn notifier_insert(&self, range: HostRange, ops: Arc<dyn NotifierOps>) -> Result<NotifierId, MmError> {
        self.sim.notifier_insert(range, Arc::new(Ear { ops, muted: self.muted.clone() }))
    }
    fn notifier_remove(&self, id: NotifierId) {
        self.sim.notifier_remove(id);
    }
    fn read_begin(&self, id: NotifierId) -> Seq {
        self.sim.read_begin(id)
    }
    fn read_retry(&self, id: NotifierId, seq: Seq) -> bool {
        self.sim.read_retry(id, seq)
    }
    fn walk(&self, walk: &Walk, runs: &mut Vec<WalkRun>) -> Result<(), MmError> {
        if sync::time::now_ns() < self.stale_until_ns.load() {
            return Err(MmError::Stale);
        }
        if walk.fault && self.starved.load() > 0 {
            return Err(MmError::NoMemory);
        }
        self.sim.walk(walk, runs)
    }
    fn claim(&self, request: &ClaimRequest, migration: &mut Migration) -> Result<Claimed, MmError> {
        let happens = self.during_claim.lock().take();
        if let Some(happens) = happens {
            happens();
        }
        let claimed = self.sim.claim(request, migration)?;
        let refused = self.refused.load();
        if refused > 0 && claimed == Claimed::Begun {
            self.refused.store(refused - 1);
            migration.parts.retain(|part| !matches!(part.from, Some(Place::Host(_))));
        }
        Ok(claimed)
    }
    fn claim_device(&self, pages: &[DeviceRun], migration: &mut Migration) -> Result<(), MmError> {
        self.sim.claim_device(pages, migration)
    }
    fn stage(&self, migration: &mut Migration) -> Result<(), MmError> {
        self.sim.stage(migration)
    }
    fn commit(&self, migration: &mut Migration) {
        self.sim.commit(migration);
    }
    fn finish(&self, migration: &mut Migration) {
        self.sim.finish(migration);
    }
}
