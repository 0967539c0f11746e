//! A host mm that does nothing, and at once: what stands on it costs what engine, driver and hardware cost.
//!
//! Mappings of one size side by side, each wholly in system memory or wholly in VRAM; a migration is a note in a table.
//! It is right as far as it goes: notifiers are called, sequences move, frames are freed. It never faults, never fails
//! and never evicts, and its pages have no bytes; for the arguments of ioctls there is one page that has.
//!
//! Locking: leaf locks, none held over a callback.

use hostmm::{
    AccessError, AtomicOp, ClaimId, ClaimRequest, Claimed, CpuFault, DevicePage, DeviceRun, EventKind, HostMemory,
    HostMm, Migration, MmError, MmEvent, NotifierId, NotifierOps, Outcome, OwnerId, PagemapId, PagemapOps, Place,
    Report, Run, Seq, Toward, Vma, Walk, WalkRun,
};
use std::collections::BTreeMap;
use std::sync::Arc;
use sync::Mutex;
use sync::atomic::AtomicU64;
use sync::rank::{self, Rank};
use units::{HostFrame, HostRange, HostVa, SZ_4K};

/// The mappings, called blocks.
pub struct NullMm {
    range: HostRange,
    block: u64,
    /// Where each block is; `None`: in system memory.
    blocks: Mutex<Vec<Option<DevicePage>>>,
    pagemaps: Mutex<BTreeMap<PagemapId, Arc<dyn PagemapOps>>>,
    /// By start; no two overlap.
    notifiers: Mutex<BTreeMap<HostVa, Notifier>>,
    seq: AtomicU64,
    next: AtomicU64,
    /// The page of arguments.
    arguments: Mutex<Vec<u8>>,
}

struct Notifier {
    range: HostRange,
    id: NotifierId,
    ops: Arc<dyn NotifierOps>,
}

/// Where the page of arguments lies.
pub const ARGUMENTS: HostVa = HostVa(0x1000);

impl NullMm {
    /// `blocks` mappings of `block` bytes, a power of two, from an aligned address on.
    pub fn new(start: HostVa, block: u64, blocks: usize) -> Arc<Self> {
        Arc::new(Self {
            range: HostRange::sized(start, block * blocks as u64),
            block,
            blocks: rank::mutex(Rank::LEAF, vec![None; blocks]),
            pagemaps: rank::mutex(Rank::LEAF, BTreeMap::new()),
            notifiers: rank::mutex(Rank::LEAF, BTreeMap::new()),
            seq: AtomicU64::new(2),
            next: AtomicU64::new(1),
            arguments: rank::mutex(Rank::LEAF, vec![0; SZ_4K as usize]),
        })
    }
    /// Block `index`.
    pub fn block(&self, index: usize) -> HostRange {
        HostRange::sized(self.range.start.add(self.block * index as u64), self.block)
    }
    /// A CPU touches a block: its pagemap brings it back. Whether it was in VRAM.
    pub fn touch(&self, index: usize) -> bool {
        let Some(page) = self.blocks.lock()[index] else { return false };
        let Some(ops) = self.pagemaps.lock().get(&page.pagemap).cloned() else { return false };
        let vma = self.block(index);
        ops.migrate_to_ram(self, &CpuFault { addr: vma.start, page, vma, write: true, thread: 0 });
        true
    }
    /// Whether a block is in VRAM.
    pub fn is_away(&self, index: usize) -> bool {
        self.blocks.lock()[index].is_some()
    }

    fn index(&self, at: HostVa) -> usize {
        (at.offset_from(self.range.start) / self.block) as usize
    }
    fn place(block: HostRange, at: Option<DevicePage>) -> Place {
        at.map_or(Place::Host(HostFrame(block.start.page_number())), Place::Device)
    }
    /// What of each block lies in `range`, and where it is.
    fn runs(&self, range: HostRange, mut each: impl FnMut(Run)) {
        let blocks = self.blocks.lock();
        let last = self.index(HostVa(range.end.0 - 1));
        for index in self.index(range.start)..=last {
            let block = self.block(index);
            let run = Run { range: block, place: Some(Self::place(block, blocks[index])) };
            run.clipped(range).into_iter().for_each(&mut each);
        }
    }
    /// Tells whose range this is.
    fn tell(&self, event: &MmEvent) {
        self.seq.fetch_add(2);
        let told = {
            let notifiers = self.notifiers.lock();
            let found = notifiers.range(..event.range.end).next_back();
            found.filter(|(_, told)| told.range.overlaps(event.range)).map(|(_, told)| told.ops.clone())
        };
        if let Some(ops) = told {
            ops.invalidate(event);
        }
    }
}

impl HostMm for NullMm {
    fn next_vma(&self, addr: HostVa) -> Option<Vma> {
        let range = self.block(self.index(addr.max(self.range.start)));
        let vma = Vma { range, read: true, write: true, anonymous: true, io: false };
        (addr < self.range.end).then_some(vma)
    }
    fn pagemap_insert(&self, id: PagemapId, _owner: OwnerId, _frames: u64, ops: Arc<dyn PagemapOps>) {
        self.pagemaps.lock().insert(id, ops);
    }
    fn notifier_insert(&self, range: HostRange, ops: Arc<dyn NotifierOps>) -> Result<NotifierId, MmError> {
        let id = NotifierId(self.next.fetch_add(1));
        self.notifiers.lock().insert(range.start, Notifier { range, id, ops });
        Ok(id)
    }
    fn notifier_remove(&self, id: NotifierId) {
        self.notifiers.lock().retain(|_, notifier| notifier.id != id);
    }
    fn read_begin(&self, _id: NotifierId) -> Seq {
        Seq(self.seq.load())
    }
    fn read_retry(&self, _id: NotifierId, seq: Seq) -> bool {
        self.seq.load() != seq.0
    }
    fn walk(&self, walk: &Walk, runs: &mut Vec<WalkRun>) -> Result<(), MmError> {
        runs.clear();
        if walk.owner.is_none() && walk.fault {
            (self.index(walk.range.start)..=self.index(HostVa(walk.range.end.0 - 1))).for_each(|i| _ = self.touch(i));
        }
        self.runs(walk.range, |run| WalkRun::push(runs, WalkRun { run, write: true, order: 0 }));
        Ok(())
    }
    fn claim(&self, request: &ClaimRequest, migration: &mut Migration) -> Result<Claimed, MmError> {
        if let Toward::Vram(target) = request.toward {
            let mut there = true;
            self.runs(request.range, |run| {
                there &= run.place.and_then(Place::device).is_some_and(|page| page.pagemap == target);
            });
            if there {
                return Ok(Claimed::There);
            }
        }
        self.tell(&MmEvent { range: request.range, kind: EventKind::Migrate(request.owner) });
        migration.begin(ClaimId(self.next.fetch_add(1)));
        self.runs(request.range, |run| {
            if request.toward != Toward::Ram || matches!(run.place, Some(Place::Device(_))) {
                migration.collect(run);
            }
        });
        Ok(Claimed::Begun)
    }
    fn claim_device(&self, _pages: &[DeviceRun], migration: &mut Migration) -> Result<(), MmError> {
        migration.begin(ClaimId(self.next.fetch_add(1)));
        Ok(())
    }
    fn stage(&self, migration: &mut Migration) -> Result<(), MmError> {
        for part in migration.parts.iter_mut().filter(|part| part.to.is_none()) {
            part.to = Some(Place::Host(HostFrame(part.range.start.page_number())));
        }
        Ok(())
    }
    fn commit(&self, migration: &mut Migration) {
        let mut blocks = self.blocks.lock();
        for part in migration.parts.iter().filter(|part| part.carried()) {
            let (first, last) = (self.index(part.range.start), self.index(HostVa(part.range.end.0 - 1)));
            for index in first..=last {
                let at = part.range.page_index(self.block(index).start);
                blocks[index] = part.to_at(at).and_then(Place::device);
            }
        }
    }
    fn finish(&self, migration: &mut Migration) {
        if migration.id.take().is_none() {
            return;
        }
        for part in migration.parts.iter().filter(|part| part.carried()) {
            let Some(page) = part.from.and_then(Place::device) else { continue };
            let ops = self.pagemaps.lock().get(&page.pagemap).cloned();
            if let Some(ops) = ops {
                ops.folio_free(page, part.pages());
            }
        }
    }
}

impl HostMemory for NullMm {
    fn read(&self, _place: Place, _offset: usize, buf: &mut [u8]) -> Result<(), AccessError> {
        buf.fill(0);
        Ok(())
    }
    fn write(&self, _place: Place, _offset: usize, _bytes: &[u8]) -> Result<(), AccessError> {
        Ok(())
    }
    fn atomic(&self, _place: Place, _offset: usize, _size: usize, _op: AtomicOp) -> Result<u64, AccessError> {
        Ok(0)
    }
    fn transfer(&self, _src: Place, _dst: Place, pages: usize, report: &mut Report<'_>) {
        report(pages, Outcome::Moved);
    }
    fn object_create(&self, _pages: u64, _label: u64) -> Option<HostFrame> {
        None
    }
    fn object_purge(&self, _first: HostFrame, _pages: u64) {}
    fn object_destroy(&self, _first: HostFrame, _pages: u64) {}
    fn copy_from_user(&self, from: HostVa, buf: &mut [u8]) -> Result<(), AccessError> {
        let arguments = self.arguments.lock();
        let at = from.0.checked_sub(ARGUMENTS.0).ok_or(AccessError::Fault)? as usize;
        buf.copy_from_slice(arguments.get(at..at + buf.len()).ok_or(AccessError::Fault)?);
        Ok(())
    }
    fn copy_to_user(&self, to: HostVa, bytes: &[u8]) -> Result<(), AccessError> {
        let mut arguments = self.arguments.lock();
        let at = to.0.checked_sub(ARGUMENTS.0).ok_or(AccessError::Fault)? as usize;
        arguments.get_mut(at..at + bytes.len()).ok_or(AccessError::Fault)?.copy_from_slice(bytes);
        Ok(())
    }
}
