//! Plain fakes for the driver's own tests: hardware that records, memory that is a map, an mm without migration.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use gpusvm::hostmm::*;
use sync::Mutex;
use units::*;
use xe_spec::fault::*;
use xe_spec::platform::PVC;
use xe_spec::pte::{Entry, LEVEL_SHIFT, Leaf};
use xe_uapi::ioctl;
use zerocopy::{FromBytes, Immutable, IntoBytes};

use crate::event::{Event, Observer};
use crate::port::{Hw, HwJob, PageOutcome};
use crate::{Device, Errno, File, Parts, Rules};

/// A read fault of context `n` in space `asid`.
pub(crate) fn fault_record(asid: u32, n: u32) -> FaultRecord {
    FaultRecord {
        engine: EngineId { tile: TileId(0), class: EngineClass::Copy, instance: 0 },
        context: ContextId(n),
        asid: Asid(asid),
        addr: GpuVa(0),
        access: Access::Read,
        fault_type: FaultType::NotPresent,
        level: 0,
    }
}

/// Hardware that does nothing but remember.
#[derive(Default)]
pub(crate) struct FakeHw {
    pub state: Mutex<HwState>,
}

#[derive(Default)]
pub(crate) struct HwState {
    pub entries: BTreeMap<(Dpa, usize), u64>,
    pub roots: BTreeMap<(TileId, Asid), Dpa>,
    pub flushes: Vec<(TileId, Asid, GpuRange)>,
    pub iommu: BTreeMap<Iova, (HostFrame, usize)>,
    pub next_iova: u64,
    pub contexts: BTreeMap<ContextId, EngineId>,
    pub jobs: Vec<(ContextId, HwJob)>,
    pub acks: Vec<(GpuVa, FaultAck)>,
}

impl FakeHw {
    /// What a tile's tables say of an address, and at which level.
    pub fn walk(&self, tile: TileId, asid: Asid, va: GpuVa) -> Option<(u8, Leaf)> {
        let state = self.state.lock();
        let mut table = *state.roots.get(&(tile, asid))?;
        for level in (0..=4u8).rev() {
            let index = (va.0 >> LEVEL_SHIFT[level as usize]) as usize % 512;
            let entry = state.entries.get(&(table, index)).copied().unwrap_or(0);
            match Entry::decode(entry, level) {
                Entry::Absent => return None,
                Entry::Leaf(leaf) => return Some((level, leaf)),
                Entry::Table { table: next, .. } => table = next,
            }
        }
        None
    }

    /// Entries that are not zero.
    pub fn live_entries(&self) -> usize {
        self.state.lock().entries.values().filter(|entry| **entry != 0).count()
    }
}

impl Hw for FakeHw {
    fn table_write(&self, table: Dpa, index: usize, entry: u64) {
        assert!(index < 512);
        self.state.lock().entries.insert((table, index), entry);
    }
    fn table_read(&self, table: Dpa, index: usize) -> u64 {
        self.state.lock().entries.get(&(table, index)).copied().unwrap_or(0)
    }
    fn set_root(&self, tile: TileId, asid: Asid, root: Dpa, _needs_64k: bool) {
        self.state.lock().roots.insert((tile, asid), root);
    }
    fn clear_root(&self, tile: TileId, asid: Asid) {
        self.state.lock().roots.remove(&(tile, asid));
    }
    fn tlb_invalidate(&self, tile: TileId, asid: Asid, range: GpuRange) {
        self.state.lock().flushes.push((tile, asid, range));
    }
    fn iommu_map(&self, frame: HostFrame, pages: usize, _write: bool) -> Option<Iova> {
        let mut state = self.state.lock();
        let iova = Iova(0x8000_0000 + state.next_iova);
        state.next_iova += bytes_of(pages) + SZ_64K;
        state.iommu.insert(iova, (frame, pages));
        Some(iova)
    }
    fn iommu_unmap(&self, iova: Iova, pages: usize) {
        let gone = self.state.lock().iommu.remove(&iova);
        assert_eq!(gone.map(|(_, pages)| pages), Some(pages));
    }
    fn context_create(&self, engine: EngineId, _asid: Asid) -> ContextId {
        let mut state = self.state.lock();
        let id = ContextId(1 + state.contexts.len() as u32);
        state.contexts.insert(id, engine);
        id
    }
    fn context_destroy(&self, _context: ContextId) {}
    fn submit(&self, context: ContextId, job: HwJob) {
        self.state.lock().jobs.push((context, job));
    }
    fn fault_ack(&self, fault: &FaultRecord, ack: FaultAck) {
        self.state.lock().acks.push((fault.addr, ack));
    }
    fn copy(&self, _tile: TileId, _asid: Asid, _src: GpuVa, _dst: GpuVa, done: &mut [PageOutcome]) {
        done.fill(PageOutcome::Copied);
    }
}

/// An mm whose pages are all in system memory and never migrate.
#[derive(Default)]
pub(crate) struct FakeMm {
    state: Mutex<MmState>,
}

#[derive(Default)]
struct MmState {
    vmas: Vec<Vma>,
    notifiers: BTreeMap<u64, (HostRange, Arc<dyn NotifierOps>)>,
    seq: u64,
    next: u64,
}

impl FakeMm {
    /// Maps writable anonymous memory.
    pub fn mmap(&self, range: HostRange) {
        self.state.lock().vmas.push(Vma { range, read: true, write: true, anonymous: true, io: false });
    }
    /// Makes `range`, cut out of its VMA, read-only.
    pub fn protect(&self, range: HostRange) {
        self.cut(range, |vma| Some(Vma { write: false, ..vma }));
        self.event(range, EventKind::Protection);
    }
    /// Takes `range` out.
    pub fn munmap(&self, range: HostRange) {
        self.cut(range, |_| None);
        self.event(range, EventKind::Unmap);
    }
    /// Tells the notifiers.
    pub fn event(&self, range: HostRange, kind: EventKind) {
        let told: Vec<_> = {
            let mut state = self.state.lock();
            state.seq += 2;
            state.notifiers.values().filter(|(span, _)| span.overlaps(range)).map(|(_, ops)| ops.clone()).collect()
        };
        told.iter().for_each(|ops| ops.invalidate(&MmEvent { range, kind }));
    }
    fn cut(&self, range: HostRange, middle: impl Fn(Vma) -> Option<Vma>) {
        let mut state = self.state.lock();
        let old = std::mem::take(&mut state.vmas);
        for vma in old {
            let Some(both) = vma.range.intersect(range) else {
                state.vmas.push(vma);
                continue;
            };
            let head = HostRange::new(vma.range.start, both.start);
            let tail = HostRange::new(both.end, vma.range.end);
            let parts = [
                Some(Vma { range: head, ..vma }),
                middle(Vma { range: both, ..vma }),
                Some(Vma { range: tail, ..vma }),
            ];
            state.vmas.extend(parts.into_iter().flatten().filter(|vma| !vma.range.is_empty()));
        }
    }
}

impl HostMm for FakeMm {
    fn vma_lookup(&self, addr: HostVa) -> Option<Vma> {
        self.state.lock().vmas.iter().find(|vma| vma.range.contains(addr)).copied()
    }
    fn pagemap_insert(&self, _id: PagemapId, _owner: OwnerId, _frames: u64, _ops: Arc<dyn PagemapOps>) {}
    fn notifier_insert(&self, range: HostRange, ops: Arc<dyn NotifierOps>) -> Result<NotifierId, MmError> {
        let mut state = self.state.lock();
        state.next += 1;
        let id = state.next;
        state.notifiers.insert(id, (range, ops));
        Ok(NotifierId(id))
    }
    fn notifier_remove(&self, id: NotifierId) {
        self.state.lock().notifiers.remove(&id.0);
    }
    fn read_begin(&self, _id: NotifierId) -> Seq {
        Seq(self.state.lock().seq)
    }
    fn read_retry(&self, _id: NotifierId, seq: Seq) -> bool {
        self.state.lock().seq != seq.0
    }
    fn walk(&self, walk: &Walk, pages: &mut [HostPage]) -> Result<(), MmError> {
        for (n, page) in pages.iter_mut().enumerate() {
            let va = walk.range.page_at(n);
            let vma = self.vma_lookup(va).ok_or(MmError::NoVma)?;
            if walk.write && !vma.write {
                return Err(MmError::Denied);
            }
            // Frames scatter at every 64K, so that no mapping is contiguous for long.
            let frame = va.page_number() ^ (va.page_number() >> 4 & 1) << 20;
            *page = HostPage { backing: Backing::System(HostFrame(frame)), write: vma.write, order: 0 };
        }
        Ok(())
    }
    fn claim(&self, _request: &ClaimRequest, _out: &mut [Claimed]) -> Result<ClaimId, MmError> {
        Err(MmError::Stale)
    }
    fn claim_device(&self, _pages: &[DevicePage], _out: &mut [Option<HostVa>]) -> Result<ClaimId, MmError> {
        Err(MmError::Stale)
    }
    fn stage(&self, _: ClaimId, _: &[Destination], _: &mut [Option<HostFrame>]) -> Result<(), MmError> {
        Err(MmError::NoMemory)
    }
    fn commit(&self, _claim: ClaimId, _wanted: &[bool], _moved: &mut [bool]) {}
    fn finish(&self, _claim: ClaimId) {}
}

/// First address of the program's memory; below it everything faults.
pub(crate) const USER: u64 = 0x10_0000;

/// The program's bytes.
#[derive(Default)]
pub(crate) struct FakeMemory {
    bytes: Mutex<BTreeMap<u64, u8>>,
}

impl HostMemory for FakeMemory {
    fn read(&self, _: Place, _: usize, _: &mut [u8]) -> Result<(), AccessError> {
        Err(AccessError::Fault)
    }
    fn write(&self, _: Place, _: usize, _: &[u8]) -> Result<(), AccessError> {
        Err(AccessError::Fault)
    }
    fn atomic(&self, _: Place, _: usize, _: usize, _: AtomicOp) -> Result<u64, AccessError> {
        Err(AccessError::Fault)
    }
    fn transfer(&self, _: Place, _: Place, done: &mut [Transferred]) {
        done.fill(Transferred::Failed);
    }
    fn copy_from_user(&self, from: HostVa, buf: &mut [u8]) -> Result<(), AccessError> {
        if !buf.is_empty() && from.0 < USER {
            return Err(AccessError::Fault);
        }
        let bytes = self.bytes.lock();
        buf.iter_mut().zip(from.0..).for_each(|(byte, at)| *byte = bytes.get(&at).copied().unwrap_or(0));
        Ok(())
    }
    fn copy_to_user(&self, to: HostVa, bytes: &[u8]) -> Result<(), AccessError> {
        if !bytes.is_empty() && to.0 < USER {
            return Err(AccessError::Fault);
        }
        self.bytes.lock().extend((to.0..).zip(bytes.iter().copied()));
        Ok(())
    }
}

/// Remembers every event.
#[derive(Default)]
pub(crate) struct Log(pub Mutex<Vec<Event>>);

impl Observer for Log {
    fn event(&self, event: &Event) {
        self.0.lock().push(*event);
    }
}

/// A device on fakes, one open file, and the program's side of both.
pub(crate) struct Rig {
    pub hw: Arc<FakeHw>,
    pub mm: Arc<FakeMm>,
    pub memory: Arc<FakeMemory>,
    pub log: Arc<Log>,
    pub device: Arc<Device>,
    pub file: Arc<File>,
}

impl Rig {
    pub fn new() -> Self {
        let (hw, mm) = (Arc::new(FakeHw::default()), Arc::new(FakeMm::default()));
        let (memory, log) = (Arc::new(FakeMemory::default()), Arc::new(Log::default()));
        let parts = Parts {
            platform: &PVC,
            hw: hw.clone(),
            mm: mm.clone(),
            memory: memory.clone(),
            rules: Rules::default(),
            observer: log.clone(),
            svm_observer: Arc::new(()),
        };
        let device = Device::new(parts).expect("probe");
        let file = device.open();
        Self { hw, mm, memory, log, device, file }
    }

    /// Writes a value where the program can point to it.
    pub fn put<T: IntoBytes + Immutable + ?Sized>(&self, at: u64, value: &T) {
        self.memory.copy_to_user(HostVa(at), value.as_bytes()).expect("user memory");
    }

    /// Reads a value of the program's.
    pub fn get<T: FromBytes + IntoBytes>(&self, at: u64) -> T {
        let mut value = T::new_zeroed();
        self.memory.copy_from_user(HostVa(at), value.as_mut_bytes()).expect("user memory");
        value
    }

    /// An ioctl with `args`, which take its answer.
    pub fn ioctl<T: FromBytes + IntoBytes + Immutable>(&self, cmd: u32, args: &mut T) -> Result<u32, Errno> {
        const ARGS: u64 = USER + 0x8000;
        assert!(ioctl::size(cmd) <= 0x1000);
        self.put(ARGS, args);
        let reply = self.file.ioctl(cmd, HostVa(ARGS));
        *args = self.get(ARGS);
        reply
    }

    /// Reports a fault of context 99 and serves it; the answer.
    pub fn fault(&self, tile: u8, asid: Asid, addr: u64, access: Access) -> FaultAck {
        let mut record = FaultRecord { asid, addr: GpuVa(addr), access, ..fault_record(0, 99) };
        record.engine.tile = TileId(tile);
        self.device.page_fault(record);
        assert_eq!(self.device.service_faults(), 1);
        self.hw.state.lock().acks.last().expect("an answer").1
    }

    /// Frames that the device may reach.
    pub fn dma_frames(&self) -> BTreeSet<u64> {
        let state = self.hw.state.lock();
        state.iommu.values().flat_map(|(frame, pages)| frame.0..frame.0 + *pages as u64).collect()
    }
}
