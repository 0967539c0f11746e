//! GpuSvm: the mirror of a process's address space in one GPU VM.
//!
//! It owns the notifiers and ranges: everything that Linux keeps under `notifier_lock` lies in one [`Tree`] behind one
//! lock, and [`NotifierLocked`] is its guard. The driver plugs in through [`GpuSvmOps`], and says with each call, by
//! [`Ctx`](crate::Ctx), what it will accept.
//!
//! The calls that need the host mm stand in files of their own: `invalidate`, `find`, `collect`, `evict`.
//!
//! Locking: see the crate header. Several threads may call at once; the driver sees to it that nobody removes a range
//! which another works on. Changes of the host's address space come in at any time.
//! Upstream: `struct drm_gpusvm`, `drm_gpusvm_init`.

use crate::call::SvmError;
use crate::device::Device;
use crate::event::{Event, Observer};
use crate::pagemap::PagemapSet;
use crate::pages::Pages;
use crate::scratch::Pool;
use crate::tree::{Notifier, NotifierKey, Range, RangeKey, Tree};
use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use hostmm::{HostMm, MmEvent, WalkRun};
use sync::{Mutex, MutexGuard};
use units::{HostRange, SZ_4K};

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
    /// The mirrored window.
    pub window: HostRange,
    /// Granule of notifiers in bytes, a power of two.
    pub notifier_size: u64,
    /// Sizes of ranges in bytes: powers of two, descending, the last 4K, none above `notifier_size`.
    pub chunk_sizes: &'static [u64],
}

/// The notifier lock, held (`drm_gpusvm_notifier_lock` … `unlock`): what everything under it is reached through.
pub struct NotifierLocked<'a, O: GpuSvmOps> {
    pub(crate) svm: &'a GpuSvm<O>,
    pub(crate) tree: MutexGuard<'a, Tree<O::RangeData>>,
}

impl<O: GpuSvmOps> NotifierLocked<'_, O> {
    /// A range; `None` where it was removed.
    pub fn range(&self, key: RangeKey) -> Option<&Range<O::RangeData>> {
        self.tree.ranges.get(key)
    }

    /// A range, to change the driver's data of it.
    pub fn range_mut(&mut self, key: RangeKey) -> Option<&mut Range<O::RangeData>> {
        self.tree.ranges.get_mut(key)
    }

    /// Whether the range's pages are mapped for the device, and stay so while the lock is held
    /// (`drm_gpusvm_range_pages_valid`).
    pub fn pages_valid(&self, key: RangeKey) -> bool {
        self.pages(key).is_some_and(Pages::valid)
    }

    /// The range's pages; `None` where it was removed.
    pub fn pages(&self, key: RangeKey) -> Option<&Pages> {
        self.range(key).map(Range::pages)
    }

    /// Unmaps the range's pages for the device, which translates to none of them any more
    /// (`drm_gpusvm_range_unmap_pages`).
    pub fn unmap_pages(&mut self, key: RangeKey) {
        if let Some(range) = self.tree.ranges.get_mut(key) {
            range.pages.unmap(&*self.svm.device);
        }
    }

    /// Marks that a mapping under the range is gone, all or a part of it (`drm_gpusvm_range_set_unmapped`): no pages
    /// will be collected for it again. Whether only a part of it went is kept too.
    pub fn set_unmapped(&mut self, key: RangeKey, event: &MmEvent) {
        if let Some(range) = self.tree.ranges.get_mut(key) {
            range.unmapped = true;
            range.partial_unmap |= !event.range.covers(range.span);
        }
    }

    /// The ranges of a notifier that share an address with `span`, by address.
    pub fn ranges_of(&self, notifier: NotifierKey, span: HostRange) -> Vec<RangeKey> {
        self.tree.ranges_of(notifier, span).collect()
    }

    /// The ranges of the whole mirror that share an address with `span`, by address.
    pub fn ranges_in(&self, span: HostRange) -> Vec<RangeKey> {
        self.tree.ranges_in(span).collect()
    }
}

/// The mirror of a process in one GPU VM (`struct drm_gpusvm`).
pub struct GpuSvm<O: GpuSvmOps> {
    pub(crate) config: SvmConfig,
    pub(crate) mm: Arc<dyn HostMm>,
    pub(crate) device: Arc<dyn Device>,
    pub(crate) pagemaps: Arc<PagemapSet>,
    pub(crate) ops: Weak<O>,
    pub(crate) observer: Arc<dyn Observer>,
    pub(crate) tree: Mutex<Tree<O::RangeData>>,
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
        Ok(Arc::new_cyclic(|this| Self {
            config,
            mm,
            device,
            pagemaps,
            ops,
            observer,
            tree: sync::rank::mutex(sync::rank::Rank::NOTIFIER, Tree::default()),
            walks: Pool::default(),
            this: this.clone(),
        }))
    }

    /// Takes the notifier lock (`drm_gpusvm_notifier_lock`): while it is held, no invalidation passes, so
    /// what is valid stays valid.
    pub fn notifier_lock(&self) -> NotifierLocked<'_, O> {
        NotifierLocked { svm: self, tree: self.tree.lock() }
    }

    /// The host mm that it mirrors.
    pub fn mm(&self) -> &Arc<dyn HostMm> {
        &self.mm
    }

    /// The ranges that share an address with `span`, by address. Takes the notifier lock; what it says holds
    /// as long as nobody else makes or removes ranges there.
    pub fn ranges_in(&self, span: HostRange) -> Vec<RangeKey> {
        self.tree.lock().ranges_in(span).collect()
    }

    /// The first ranges in `span`, in order, at most `most`: for who goes through many of them, since the notifier lock
    /// is held meanwhile and readers wait for it.
    pub fn first_ranges_in(&self, span: HostRange, most: usize) -> Vec<RangeKey> {
        self.tree.lock().ranges_in(span).take(most).collect()
    }

    /// Notifiers that have no range: none, where nobody is just making the first one. For an observer.
    pub fn idle_notifiers(&self) -> usize {
        let tree = self.tree.lock();
        let has_ranges = |notifier: &&Notifier| notifier.ranges.values().any(|key| tree.ranges.contains_key(key));
        tree.notifiers.values().filter(|notifier| !has_ranges(notifier)).count()
    }

    /// Whether there is any (`drm_gpusvm_has_mapping`).
    pub fn has_ranges(&self, span: HostRange) -> bool {
        self.tree.lock().ranges_in(span).next().is_some()
    }

    #[track_caller]
    pub(crate) fn emit(&self, event: Event) {
        self.observer.event_at(&event, core::panic::Location::caller());
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
