//! What the driver's own tests stand on: hardware that records, arguments in a map, the simulated mm.

mod hw;
mod mm;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use gpusvm::Proto;
use hostmm::*;
use sync::Mutex;
use units::*;
use xe_spec::fault::*;
use xe_spec::platform::{PVC, Platform};
use xe_uapi::ioctl;
use zerocopy::{FromBytes, Immutable, IntoBytes};

use crate::event::{Event, Observer};
use crate::{Alone, Budget, Device, Errno, File, Interconnect, MigrateLock, Parts, Rules};
pub(crate) use hw::{Copied, FakeHw, HwState};
pub(crate) use mm::Mm;
use xe_spec::platform::VRAM_BAR;

/// A read fault of context `n` in space `asid`.
pub(crate) fn fault_record(asid: u32, n: u32) -> FaultRecord {
    let engine = EngineId { tile: TileId(0), class: EngineClass::Copy, instance: 0 };
    FaultRecord {
        slot: FaultSlot { engine, context: ContextId(n), serial: 0 },
        asid: Asid(asid),
        addr: GpuVa(0),
        access: Access::Read,
        fault_type: FaultType::NotPresent,
        level: 0,
    }
}

/// First address of the program's memory; below it everything faults.
pub(crate) const USER: u64 = 0x10_0000;

/// The program's bytes.
#[derive(Default)]
pub(crate) struct FakeMemory {
    bytes: Mutex<BTreeMap<u64, u8>>,
    /// How often the driver read from each address.
    reads: Mutex<BTreeMap<u64, usize>>,
    /// Objects by their first frame.
    objects: Mutex<BTreeMap<HostFrame, u64>>,
    /// Those whose bytes were given up.
    pub purged: Mutex<BTreeSet<HostFrame>>,
}

impl FakeMemory {
    /// How often the driver read from `addr`.
    pub fn reads(&self, addr: u64) -> usize {
        self.reads.lock().get(&addr).copied().unwrap_or(0)
    }

    /// Objects that there are.
    pub fn objects(&self) -> usize {
        self.objects.lock().len()
    }
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
    fn transfer(&self, _: Place, _: Place, pages: usize, report: &mut Report<'_>) {
        report(pages, Outcome::Failed);
    }
    fn object_create(&self, pages: u64, _label: u64) -> Option<HostFrame> {
        let mut objects = self.objects.lock();
        let first = objects.last_key_value().map_or(HostFrame(1 << 30), |(first, pages)| first.add(*pages));
        objects.insert(first, pages);
        Some(first)
    }
    fn object_purge(&self, first: HostFrame, pages: u64) {
        assert_eq!(self.objects.lock().get(&first), Some(&pages));
        self.purged.lock().insert(first);
    }
    fn object_destroy(&self, first: HostFrame, pages: u64) {
        assert_eq!(self.objects.lock().remove(&first), Some(pages));
    }
    fn copy_from_user(&self, from: HostVa, buf: &mut [u8]) -> Result<(), AccessError> {
        if !buf.is_empty() && from.0 < USER {
            return Err(AccessError::Fault);
        }
        *self.reads.lock().entry(from.0).or_default() += 1;
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

/// The pagemap of tile `n`: no tile's own number.
pub(crate) const fn pagemap(n: u16) -> PagemapId {
    PagemapId(3 + n)
}

/// A machine of one device.
struct OneDevice(&'static Platform);

impl Interconnect for OneDevice {
    fn owner(&self) -> OwnerId {
        OwnerId(1)
    }
    fn pagemap(&self, tile: TileId) -> Option<PagemapId> {
        Some(pagemap(tile.0.into()))
    }
    fn window(&self) -> HostFrame {
        VRAM_BAR
    }
    fn path(&self, tile: TileId, to: PagemapId) -> Option<Proto> {
        let to = self.0.tiles.len().min(to.index().wrapping_sub(pagemap(0).index()));
        self.0.reaches(tile, TileId(to as u8)).then_some(Proto::Vram)
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
    pub mm: Arc<Mm>,
    pub memory: Arc<FakeMemory>,
    pub log: Arc<Log>,
    pub device: Arc<Device>,
    pub file: Arc<File>,
}

impl Rig {
    /// A PVC as it should be.
    pub fn new() -> Self {
        Self::with(&PVC, Rules::default())
    }

    /// Another device, or other behaviours.
    pub fn with(platform: &'static Platform, rules: Rules) -> Self {
        Self::sharing(platform, rules, Arc::new(Alone::default()))
    }

    /// A device that other processes use, too.
    pub fn sharing(platform: &'static Platform, rules: Rules, budget: Arc<dyn Budget>) -> Self {
        let (hw, mm) = (Arc::new(FakeHw::default()), Mm::new());
        let (memory, log) = (Arc::new(FakeMemory::default()), Arc::new(Log::default()));
        let parts = Parts {
            platform,
            hw: hw.clone(),
            interconnect: Arc::new(OneDevice(platform)),
            budget,
            mm: mm.clone(),
            memory: memory.clone(),
            rules,
            observer: log.clone(),
            svm_observer: Arc::new(()),
            migrate_lock: MigrateLock::new(),
            registry: Arc::default(),
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

    /// Serves all faults that wait; how many.
    pub fn service_faults(&self) -> usize {
        std::iter::from_fn(|| self.device.service_fault().then_some(())).count()
    }

    /// Reports a fault of context 99 and serves it; the answer.
    pub fn fault(&self, tile: u8, asid: Asid, addr: u64, access: Access) -> FaultAck {
        self.fault_of(ContextId(99), tile, asid, addr, access)
    }

    /// The same of another context.
    pub fn fault_of(&self, context: ContextId, tile: u8, asid: Asid, addr: u64, access: Access) -> FaultAck {
        let mut record = FaultRecord { asid, addr: GpuVa(addr), access, ..fault_record(0, context.0) };
        record.slot.engine.tile = TileId(tile);
        self.device.page_fault(record);
        assert_eq!(self.service_faults(), 1);
        self.hw.state.lock().acks.last().expect("an answer").1
    }

    /// Frames that the device may reach.
    pub fn dma_frames(&self) -> BTreeSet<u64> {
        let state = self.hw.state.lock();
        state.iommu.values().flat_map(|(frame, pages)| frame.0..frame.0 + *pages as u64).collect()
    }
}
