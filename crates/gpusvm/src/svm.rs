//! GpuSvm: the mirror of a process's address space in one GPU VM.
//!
//! It owns the notifiers and ranges, and everything that Linux keeps under `notifier_lock` lies in one
//! [`State`] behind one lock; [`NotifierLocked`] is its guard. The driver plugs in through [`GpuSvmOps`],
//! and tells with each call, by [`Ctx`], what it will accept.
//!
//! Neighbours: `range` and `notifier` hold the trees, `pages` collects and maps, `evict` sends home.
//!
//! Locking: see the crate header. The driver's SVM lock keeps ranges from being inserted or removed while
//! one of the calls here runs; changes of the host's address space come in at any time.
//! Upstream: `struct drm_gpusvm`, `drm_gpusvm_init`, `drm_gpusvm_fini`.

use crate::device::Device;
use crate::event::{Event, Observer};
use crate::notifier::{Notifier, NotifierKey, NotifierLocked};
use crate::pagemap::PagemapSet;
use crate::range::{Range, RangeKey};
use crate::scratch::Pool;
use alloc::collections::BTreeMap;
use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use hostmm::{HostMm, MmError, MmEvent, OwnerId, WalkRun};
use slotmap::SlotMap;
use sync::Mutex;
use units::{HostRange, HostVa, SZ_4K};

/// How long the engine goes on losing races before it says so (`HMM_RANGE_DEFAULT_TIMEOUT`), in nanoseconds.
pub(crate) const HMM_TIMEOUT_NS: u64 = 1_000_000_000;

/// What a driver does for the engine (`struct drm_gpusvm_ops`).
pub trait GpuSvmOps: Send + Sync + Sized + 'static {
    /// What the driver keeps with each range, under the notifier lock (Xe: `tile_present`, `tile_invalidated`).
    type RangeData: Default + Send + Sync + 'static;

    /// Pages in `event.range` change, or are about to (`drm_gpusvm_ops.invalidate`). On return no translation
    /// of the device leads to them, and each range that the event touches was unmapped by
    /// [`NotifierLocked::unmap_pages`]; after [`EventKind::Unmap`](hostmm::EventKind::Unmap) also marked
    /// by [`NotifierLocked::set_unmapped`]. The notifier lock is held; runs in reader class.
    fn invalidate(&self, locked: &mut NotifierLocked<'_, Self>, notifier: NotifierKey, event: &MmEvent);
}

/// What a mirror is made from.
#[derive(Clone, Copy, Debug)]
pub struct SvmConfig {
    /// Label for logs.
    pub name: &'static str,
    /// The mirrored window.
    pub window: HostRange,
    /// Granule of notifiers in bytes, a power of two.
    pub notifier_size: u64,
    /// Sizes of ranges in bytes: powers of two, descending, the last 4K, none above `notifier_size`.
    pub chunk_sizes: &'static [u64],
}

/// What the caller of one call will accept (`struct drm_gpusvm_ctx`).
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Ctx {
    /// Pages in VRAM of this owner are used where they are, all others are brought to system memory first;
    /// `None`: all are (`device_private_page_owner`).
    pub owner: Option<OwnerId>,
    /// A new range of at most this many bytes (but 4K) is made only where all of its pages are present.
    pub check_pages_threshold: u64,
    /// The device will only read: write permission is not asked for, DMA is mapped one way.
    pub read_only: bool,
    /// A new range may migrate, if its VMA can.
    pub devmem_possible: bool,
    /// A page of system memory is an error ([`SvmError::Fault`]).
    pub devmem_only: bool,
    /// VRAM that does not cover aligned granules of so many bytes is as good as mixed ([`SvmError::Mixed`]); 0: any will do.
    pub device_granule: u64,
    /// System memory and VRAM may mix in a range, and so may allocations of one pagemap; two pagemaps never.
    pub allow_mixed: bool,
}

/// How a call of the engine failed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SvmError {
    /// An argument makes no sense, or no chunk size fits (`-EINVAL`).
    Invalid,
    /// No VMA at the address (`-ENOENT`).
    NoVma,
    /// Write wanted, and the VMA forbids it (`-EPERM`).
    Denied,
    /// A VMA of device registers (`-EIO`).
    Io,
    /// Pages could not be had: unmapped, not mappable, or in system memory against `devmem_only` (`-EFAULT`).
    Fault,
    /// Memory is short (`-ENOMEM`).
    NoMemory,
    /// Lost races for a whole second (`-EBUSY`).
    Busy,
    /// The pages lie in different places, and the context wants one (`-EOPNOTSUPP`).
    Mixed,
    /// The process ends, or there is no such range (any more).
    Gone,
}

impl From<MmError> for SvmError {
    fn from(error: MmError) -> Self {
        match error {
            MmError::Stale => Self::Busy,
            MmError::NoVma => Self::Fault,
            MmError::Denied => Self::Denied,
            MmError::NoMemory => Self::NoMemory,
            MmError::Gone => Self::Gone,
        }
    }
}

/// What the notifier lock protects.
pub(crate) struct State<D> {
    pub(crate) notifiers: SlotMap<NotifierKey, Notifier>,
    /// Start → notifier, for those that have ranges or are about to.
    pub(crate) notifier_tree: BTreeMap<HostVa, NotifierKey>,
    pub(crate) ranges: SlotMap<RangeKey, Range<D>>,
}

/// The mirror of a process in one GPU VM (`struct drm_gpusvm`).
pub struct GpuSvm<O: GpuSvmOps> {
    pub(crate) config: SvmConfig,
    pub(crate) mm: Arc<dyn HostMm>,
    pub(crate) device: Arc<dyn Device>,
    pub(crate) pagemaps: Arc<PagemapSet>,
    pub(crate) ops: Weak<O>,
    pub(crate) observer: Arc<dyn Observer>,
    pub(crate) state: Mutex<State<O::RangeData>>,
    pub(crate) walks: Pool<Vec<WalkRun>>,
    /// For the hooks that the host mm keeps.
    pub(crate) this: Weak<Self>,
}

impl<O: GpuSvmOps> GpuSvm<O> {
    /// A mirror without ranges (`drm_gpusvm_init`). [`SvmError::Invalid`] where `config` breaks its own rules.
    ///
    /// `ops` is weak: the driver's object owns the mirror. [`fini`](Self::fini) ends it, and must have been
    /// called before the last reference to either goes: else that may happen in a callback.
    pub fn new(
        config: SvmConfig,
        mm: Arc<dyn HostMm>,
        device: Arc<dyn Device>,
        pagemaps: Arc<PagemapSet>,
        ops: Weak<O>,
        observer: Arc<dyn Observer>,
    ) -> Result<Arc<Self>, SvmError> {
        if !config.is_sound() {
            return Err(SvmError::Invalid);
        }
        let state =
            State { notifiers: SlotMap::with_key(), notifier_tree: BTreeMap::new(), ranges: SlotMap::with_key() };
        Ok(Arc::new_cyclic(|this| Self {
            config,
            mm,
            device,
            pagemaps,
            ops,
            observer,
            state: sync::rank::mutex(sync::rank::Rank::NOTIFIER, state),
            walks: Pool::default(),
            this: this.clone(),
        }))
    }

    /// Ends all notifiers, then all ranges (`drm_gpusvm_fini`). The device translates to nothing here any more
    /// when this is called. Holds the driver's SVM lock, no other; a second call finds nothing to do.
    pub fn fini(&self) {
        let notifiers: Vec<_> = self.state.lock().notifier_tree.values().copied().collect();
        for notifier in notifiers {
            self.notifier_remove(notifier);
        }
    }

    /// Takes the notifier lock (`drm_gpusvm_notifier_lock`): while it is held, no invalidation passes, so
    /// what is valid stays valid.
    pub fn notifier_lock(&self) -> NotifierLocked<'_, O> {
        NotifierLocked { svm: self, state: self.state.lock() }
    }

    /// The pagemaps that this mirror finds pages in.
    pub fn pagemaps(&self) -> &Arc<PagemapSet> {
        &self.pagemaps
    }

    /// The host mm that it mirrors.
    pub fn mm(&self) -> &Arc<dyn HostMm> {
        &self.mm
    }

    /// Its label.
    pub fn name(&self) -> &'static str {
        self.config.name
    }

    pub(crate) fn tell(&self, event: Event) {
        self.observer.event(&event);
    }
}

impl SvmConfig {
    fn is_sound(&self) -> bool {
        let sizes = self.chunk_sizes;
        !self.window.is_empty()
            && self.notifier_size.is_power_of_two()
            && sizes.iter().all(|size| size.is_power_of_two() && *size <= self.notifier_size)
            && sizes.windows(2).all(|pair| pair[0] > pair[1])
            && sizes.last() == Some(&SZ_4K)
    }
}
