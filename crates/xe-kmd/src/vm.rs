//! A VM: an address space of the GPU, and what a program has put in it.
//!
//! This is the half that [`Vm::state`]'s lock protects: VMAs, and whether the VM still lives. The other half,
//! which an invalidation may touch, is [`Space`].
//!
//! A VM ends in a fixed order: the device stops translating, then the engine forgets ranges and notifiers, then
//! the address space's number is free. Queues keep the object alive, and find it closed.
//!
//! [`Vms`] finds a VM by its address space's number.
//!
//! Locking: `state` is the outermost lock of the driver, a reader-writer lock: shared by all who serve faults or prefetch,
//! held alone by who changes VMAs. Nothing of the reader class takes it. No argument of an ioctl is read or written with it
//! held. The table of numbers and the list of refused faults are leaves.
//!
//! Upstream: `xe_vm.c` (`xe_vm_create`, `xe_vm_close_and_put`), `struct xe_vm`.

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};

use sync::atomic::AtomicBool;
use sync::rank::{mutex, rwlock};
use sync::{Mutex, RwLock};
use units::{GpuRange, GpuVa, HostRange, HostVa};
use xe_spec::fault::{Asid, FaultRecord};
use xe_spec::platform::Platform;
use xe_uapi::vm::CreateFlags;

use crate::bind_queue::BindQueue;
use crate::bo::Shows;
use crate::errno::Errno;
use crate::event::Event;
use crate::fence::Fence;
use crate::pt::NoTable;
use crate::ranks;
use crate::shared::Shared;
use crate::svm::garbage::Sweep;
use crate::svm::userptr::Userptrs;
use crate::svm::{CHUNK_SIZES, Mirror, NOTIFIER_SIZE, Space, Svm, devmem, garbage};
use crate::vma::VmaTree;

/// Faults that a VM remembers.
const MAX_FAULTS_SAVED: usize = 50;

/// Numbers of address spaces: 1 to this, less one (`XE_MAX_ASID`).
const MAX_ASID: u32 = 1 << 20;

/// All VMs of a device, by the number of their address space.
pub(crate) struct Vms {
    spaces: Mutex<Spaces>,
    /// The first number that is a VM's.
    first: u32,
    /// A VM with dma-fences was made.
    fences: AtomicBool,
}

struct Spaces {
    vms: BTreeMap<Asid, Weak<Vm>>,
    next: u32,
}

impl Vms {
    /// None; numbers from `first` on.
    pub(crate) fn new(first: u32) -> Arc<Self> {
        let spaces = mutex(ranks::LEAF, Spaces { vms: BTreeMap::new(), next: first });
        Arc::new(Self { spaces, first, fences: AtomicBool::new(false) })
    }

    /// The VM of an address space.
    pub(crate) fn find(&self, asid: Asid) -> Option<Arc<Vm>> {
        self.spaces.lock().vms.get(&asid)?.upgrade()
    }

    /// Whether there ever was one with dma-fences.
    pub(crate) fn has_fences(&self) -> bool {
        self.fences.load()
    }

    /// Sweeps every VM for page tables that are held for memory that is gone. The caller holds no lock.
    pub(crate) fn sweep(&self) {
        self.all().iter().for_each(|vm| vm.sweep_all());
    }

    /// Those that live.
    pub(crate) fn all(&self) -> Vec<Arc<Vm>> {
        self.spaces.lock().vms.values().filter_map(Weak::upgrade).collect()
    }

    /// A free number, taken in turn so that one is not used again at once.
    fn alloc(&self) -> Option<Asid> {
        let mut spaces = self.spaces.lock();
        let free = |asid: &u32| !spaces.vms.contains_key(&Asid(*asid));
        let asid = (spaces.next..MAX_ASID).chain(self.first..spaces.next).find(free)?;
        spaces.next = if asid + 1 == MAX_ASID { self.first } else { asid + 1 };
        spaces.vms.insert(Asid(asid), Weak::new());
        Some(Asid(asid))
    }

    /// From now on faults find the VM.
    fn publish(&self, vm: &Arc<Vm>) {
        self.spaces.lock().vms.insert(vm.asid, Arc::downgrade(vm));
    }

    /// Gives a number back.
    fn free(&self, asid: Asid) {
        self.spaces.lock().vms.remove(&asid);
    }
}

/// One VM.
pub(crate) struct Vm {
    pub shared: Arc<Shared>,
    vms: Arc<Vms>,
    pub asid: Asid,
    pub flags: CreateFlags,
    pub space: Arc<Space>,
    /// The mirror; only a VM that serves faults has one.
    pub svm: Option<Arc<Svm>>,
    pub state: RwLock<VmState>,
    /// Faults that were refused, the first ones, for the program to ask after.
    pub faults: Mutex<Vec<FaultRecord>>,
    /// Looks after ranges whose end nobody told of.
    pub sweep: Sweep,
    /// The default queue of binds.
    pub binds: Arc<BindQueue>,
}

/// What the VM's lock protects.
#[derive(Default)]
pub(crate) struct VmState {
    pub vmas: VmaTree,
    pub closed: bool,
    /// From the first userptr on.
    pub userptrs: Option<Userptrs>,
    /// Spans whose page tables a bind has still to change.
    pending: Vec<(Vec<GpuRange>, Arc<Fence>)>,
}

impl VmState {
    /// A bind is over with `fence`; until then its work in `spans` is not done.
    pub(crate) fn add_pending(&mut self, spans: Vec<GpuRange>, fence: &Arc<Fence>) {
        self.pending.retain(|(_, fence)| !fence.is_over());
        self.pending.push((spans, fence.clone()));
    }

    /// The fences of binds that have work to do in `span`.
    pub(crate) fn pending_in(&self, span: GpuRange) -> impl Iterator<Item = Arc<Fence>> {
        let has_work = move |(spans, fence): &&(Vec<GpuRange>, Arc<Fence>)| {
            !fence.is_over() && spans.iter().any(|one| one.intersect(span).is_some())
        };
        self.pending.iter().filter(has_work).map(|(_, fence)| fence.clone())
    }

    /// Whether a userptr shows some of that memory.
    pub(crate) fn shows_user_memory(&self, range: HostRange) -> bool {
        self.userptrs.as_ref().is_some_and(|userptrs| userptrs.shows(range))
    }
}

impl Vm {
    /// A new VM.
    pub(crate) fn create(shared: &Arc<Shared>, vms: &Arc<Vms>, flags: CreateFlags) -> Result<Arc<Self>, Errno> {
        let asid = vms.alloc().ok_or(Errno::ENOSPC)?;
        let made = Self::build(shared, vms, flags, asid);
        match &made {
            Ok(vm) => {
                if !vm.is_long_running() {
                    vms.fences.store(true);
                }
                vms.publish(vm);
            }
            Err(_) => vms.free(asid),
        }
        made
    }

    fn build(shared: &Arc<Shared>, vms: &Arc<Vms>, flags: CreateFlags, asid: Asid) -> Result<Arc<Self>, Errno> {
        let space = Space::new(&shared.gpu, asid).or_else(|NoTable| {
            vms.sweep();
            Space::new(&shared.gpu, asid)
        })?;
        let svm = if flags.contains(CreateFlags::FAULT_MODE) {
            let svm = mirror(shared, &space);
            Some(svm.inspect_err(|_| space.close())?)
        } else {
            None
        };
        shared.gpu.emit(Event::VmCreated { asid });
        let (state, faults) = (rwlock(ranks::VM, VmState::default()), mutex(ranks::LEAF, Vec::new()));
        let (shared, vms, sweep, binds) =
            (shared.clone(), vms.clone(), Sweep::default(), BindQueue::new(&shared.gpu, true));
        Ok(Arc::new(Self { shared, vms, asid, flags, space, svm, state, faults, sweep, binds }))
    }

    /// Remembers a fault that was refused.
    pub(crate) fn note_fault(&self, record: &FaultRecord) {
        let mut faults = self.faults.lock();
        if faults.len() < MAX_FAULTS_SAVED {
            faults.push(*record);
        }
    }

    /// Ends the VM. Idempotent.
    pub(crate) fn close(&self) {
        {
            let mut state = self.state.write();
            if std::mem::replace(&mut state.closed, true) {
                return;
            }
            self.shared.gpu.emit(Event::VmEnding { asid: self.asid });
            // Their BOs may end with them: not before nothing translates to these any more.
            let vmas = std::mem::take(&mut state.vmas);
            self.space.close();
            drop(vmas);
            if let Some(svm) = &self.svm {
                svm.fini();
            }
            if let Some(userptrs) = &state.userptrs {
                userptrs.close();
            }
        }
        self.binds.cancel();
        self.vms.free(self.asid);
        self.shared.gpu.emit(Event::VmClosed { asid: self.asid });
    }

    /// Removes the ranges that are known to be gone, and resets the VMAs that they leave behind.
    pub(crate) fn collect(&self) {
        let mut state = self.state.write();
        if let Some(svm) = self.svm.as_ref().filter(|_| !state.closed) {
            garbage::collect(&self.space, svm, &mut state.vmas);
        }
    }

    /// Removes all ranges of memory that is gone, and with them their page tables.
    pub(crate) fn sweep_all(&self) {
        if let Some(svm) = &self.svm {
            garbage::list_unmapped(&self.space, svm, self.window().mirrored());
        }
        self.collect();
    }

    /// All addresses that the VM has.
    pub(crate) fn window(&self) -> GpuRange {
        GpuRange::new(GpuVa(0), GpuVa(1 << self.shared.gpu.platform.va_bits))
    }

    /// An address without the extension of its sign.
    pub(crate) fn strip(&self, addr: u64) -> u64 {
        addr & (self.window().end.0 - 1)
    }

    /// An address of the window as programs name it: its sign extended.
    pub(crate) fn canonical(&self, addr: u64) -> u64 {
        let unused = u64::BITS - u32::from(self.platform().va_bits);
        ((addr << unused).cast_signed() >> unused).cast_unsigned()
    }

    /// What a BO's eviction reaches of it.
    pub(crate) fn shown_by(&self) -> Weak<dyn Shows> {
        let space: Weak<Space> = Arc::downgrade(&self.space);
        space
    }

    /// For a fault or a prefetch; only a VM that serves faults has a mirror. The caller holds the lock, shared or alone.
    pub(crate) fn mirror(&self) -> Option<Mirror<'_>> {
        Some(Mirror { shared: &self.shared, space: &self.space, svm: self.svm.as_deref()? })
    }

    /// Platform facts.
    pub(crate) fn platform(&self) -> &'static Platform {
        self.shared.gpu.platform
    }

    /// Whether it serves faults of programs' memory.
    pub(crate) const fn has_faults(&self) -> bool {
        self.flags.contains(CreateFlags::FAULT_MODE)
    }

    /// Whether it is a VM without dma-fences.
    pub(crate) const fn is_long_running(&self) -> bool {
        self.flags.contains(CreateFlags::LR_MODE)
    }

    /// The VM itself, where a bind may not make room by what the VM shows: binds of an array must not evict each other's, and some
    /// VMs have no more than there is.
    ///
    /// Upstream: `xe_vm_allow_vm_eviction`, `xe_vm_set_validating`.
    pub(crate) fn spared(&self, is_array: bool) -> Option<Asid> {
        let is_strict = self.flags.contains(CreateFlags::NO_VM_OVERCOMMIT) || self.is_preempt_mode();
        (is_array || is_strict).then_some(self.asid)
    }

    /// Whether its mappings change by preempting its queues: it is long-running, and serves no faults.
    pub(crate) const fn is_preempt_mode(&self) -> bool {
        self.is_long_running() && !self.flags.contains(CreateFlags::FAULT_MODE)
    }
}

fn mirror(shared: &Shared, space: &Arc<Space>) -> Result<Arc<Svm>, Errno> {
    let config = gpusvm::SvmConfig {
        window: HostRange::new(HostVa(0), HostVa(1 << shared.gpu.platform.va_bits)),
        notifier_size: NOTIFIER_SIZE,
        chunk_sizes: CHUNK_SIZES,
    };
    let dma = Arc::new(devmem::Dma::new(shared.gpu.clone()));
    let (mm, pagemaps) = (shared.mm.clone(), shared.pagemaps.clone());
    Ok(Svm::new(config, mm, dma, pagemaps, Arc::downgrade(space), shared.svm_observer.clone())?)
}
