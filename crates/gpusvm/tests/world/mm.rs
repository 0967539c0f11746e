//! The simulated mm, with what the engine's tests want besides: they count calls, and change things in the middle of one.

use hostmm::*;
use mm_sim::{Config, MapKind, Sim};
use std::sync::Arc;
use sync::Mutex;
use sync::atomic::AtomicU64;
use units::{HostRange, HostVa};

type Hook = Box<dyn FnOnce(&Mm) + Send>;

/// A process, and its memory.
pub struct Mm {
    pub sim: Arc<Sim>,
    after_walk: Mutex<Vec<Hook>>,
    before_begin: Mutex<Option<Hook>>,
    walks: AtomicU64,
    notifiers: AtomicU64,
}

impl Mm {
    pub fn new() -> Arc<Self> {
        let sim = Sim::new(Config::default());
        let (after_walk, before_begin) = (Mutex::new(Vec::new()), Mutex::new(None));
        Arc::new(Self { sim, after_walk, before_begin, walks: AtomicU64::new(0), notifiers: AtomicU64::new(0) })
    }
    pub fn mmap(&self, range: HostRange) {
        self.mmap_as(range, MapKind::Anonymous);
    }
    pub fn mmap_as(&self, range: HostRange, kind: MapKind) {
        self.sim.mmap_at(range, kind).expect("nothing is there");
    }
    pub fn munmap(&self, range: HostRange) {
        self.sim.munmap(range);
    }
    pub fn dontneed(&self, range: HostRange) {
        self.sim.madvise_dontneed(range);
    }
    pub fn store(&self, at: HostVa, value: u64) {
        self.sim.store_u64(at, value).expect("the program may store there");
    }
    pub fn load(&self, at: HostVa) -> u64 {
        self.sim.load_u64(at).expect("the program may load there")
    }
    /// Runs once, after the next walk found its pages and before its caller sees them.
    pub fn after_walk(&self, hook: impl FnOnce(&Self) + Send + 'static) {
        self.after_walk.lock().insert(0, Box::new(hook));
    }
    /// Runs once, before the next sequence is taken.
    pub fn before_read_begin(&self, hook: impl FnOnce(&Self) + Send + 'static) {
        *self.before_begin.lock() = Some(Box::new(hook));
    }
    pub fn walks(&self) -> u64 {
        self.walks.load()
    }
    pub fn notifiers(&self) -> u64 {
        self.notifiers.load()
    }
    pub fn place(&self, at: HostVa) -> Option<Place> {
        self.sim.residency(at)
    }
    /// The page of VRAM that is there.
    pub fn device(&self, at: HostVa) -> DevicePage {
        self.place(at).and_then(Place::device).expect("in VRAM")
    }
    /// The word at the start of a place, as a device reads it.
    pub fn word(&self, place: Place) -> u64 {
        let mut word = [0; 8];
        self.sim.read(place, 0, &mut word).expect("the place holds bytes");
        u64::from_le_bytes(word)
    }
}

impl HostMm for Mm {
    fn next_vma(&self, addr: HostVa) -> Option<Vma> {
        self.sim.next_vma(addr)
    }
    fn pagemap_insert(&self, id: PagemapId, owner: OwnerId, frames: u64, ops: Arc<dyn PagemapOps>) {
        self.sim.pagemap_insert(id, owner, frames, ops);
    }
    fn notifier_insert(&self, range: HostRange, ops: Arc<dyn NotifierOps>) -> Result<NotifierId, MmError> {
        self.notifiers.fetch_add(1);
        self.sim.notifier_insert(range, ops)
    }
    fn notifier_remove(&self, id: NotifierId) {
        self.notifiers.fetch_sub(1);
        self.sim.notifier_remove(id);
    }
    fn read_begin(&self, id: NotifierId) -> Seq {
        let hook = self.before_begin.lock().take();
        if let Some(hook) = hook {
            hook(self);
        }
        self.sim.read_begin(id)
    }
    fn read_retry(&self, id: NotifierId, seq: Seq) -> bool {
        self.sim.read_retry(id, seq)
    }
    fn walk(&self, walk: &Walk, runs: &mut Vec<WalkRun>) -> Result<(), MmError> {
        self.walks.fetch_add(1);
        self.sim.walk(walk, runs)?;
        let hook = self.after_walk.lock().pop();
        if let Some(hook) = hook {
            hook(self);
        }
        Ok(())
    }
    fn claim(&self, request: &ClaimRequest, migration: &mut Migration) -> Result<Claimed, MmError> {
        self.sim.claim(request, migration)
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
