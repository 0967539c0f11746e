//! Ranges: the chunks of the address space that are migrated, collected and mapped as one.
//!
//! A range is found by a fault's address, or made: as large a chunk as VMA, notifier and GPU VMA allow, as
//! long as it overlaps no other and, where it is small, all its pages are there. Ranges are never split or
//! merged; they end whole.
//!
//! Linux holds the mmap lock from the lookup of the VMA to the insertion of the range. A host mm has no such
//! lock, so the notifier's sequence takes its place: it is read before the lookup, checked under the notifier
//! lock before the insertion, and what was found is thrown away where it moved.
//!
//! Locking: callers hold the driver's SVM lock. Upstream: `struct drm_gpusvm_range`,
//! `drm_gpusvm_range_find_or_insert`, `drm_gpusvm_range_chunk_size`, `drm_gpusvm_range_remove`.

use crate::event::Event;
use crate::notifier::NotifierKey;
use crate::pages::{Pages, Patience};
use crate::svm::{Ctx, GpuSvm, GpuSvmOps, SvmError};
use alloc::vec::Vec;
use hostmm::{MmError, NotifierId, Seq, Vma, Walk};
use units::{HostRange, HostVa, SZ_4K};

slotmap::new_key_type! {
    /// Names a range; never one that came later.
    pub struct RangeKey;
}

/// A chunk of the mirror (`struct drm_gpusvm_range`). All of it is under the notifier lock.
pub struct Range<D> {
    /// What the driver keeps with it.
    pub data: D,
    pub(crate) span: HostRange,
    pub(crate) notifier: NotifierKey,
    pub(crate) pages: Pages,
    pub(crate) migrate_devmem: bool,
    pub(crate) unmapped: bool,
    pub(crate) partial_unmap: bool,
    /// The VMA as it was looked up last, and when: for the next collection, once.
    pub(crate) seen: Option<(Vma, Seq)>,
}

impl<D> Range<D> {
    /// Its extent: one of the chunk sizes, naturally aligned.
    pub fn span(&self) -> HostRange {
        self.span
    }
    /// The notifier that it belongs to.
    pub fn notifier(&self) -> NotifierKey {
        self.notifier
    }
    /// What its pages are for the device.
    pub fn pages(&self) -> &Pages {
        &self.pages
    }
    /// Whether it may migrate: known when it was made, and never changed.
    pub fn migrate_devmem(&self) -> bool {
        self.migrate_devmem
    }
    /// Whether a mapping under it is gone: it is to be removed, and collects no pages any more.
    pub fn unmapped(&self) -> bool {
        self.unmapped
    }
    /// Whether that was only a part of it: pages of the rest may be left in VRAM.
    pub fn partial_unmap(&self) -> bool {
        self.partial_unmap
    }
}

/// What is to be made of an address, as seen at a sequence.
struct Sight {
    notifier: NotifierKey,
    id: NotifierId,
    seq: Seq,
    vma: Vma,
}

impl<O: GpuSvmOps> GpuSvm<O> {
    /// The range around `addr`, or a new one inside of `gpuva` (`drm_gpusvm_range_find_or_insert`).
    ///
    /// `Invalid`: outside of the window, or no chunk fits. `NoVma`, `Denied`, `Io`: as the VMA around `addr`
    /// says. `Busy`: the address space changed for a whole second. `NoMemory`, `Gone`: from the host mm.
    /// The caller holds the driver's SVM lock and nothing below.
    pub fn range_find_or_insert(&self, addr: HostVa, gpuva: HostRange, ctx: &Ctx) -> Result<RangeKey, SvmError> {
        if !self.config.window.contains(addr) {
            return Err(SvmError::Invalid);
        }
        let (notifier, id) = self.notifier_find_or_insert(addr)?;
        let found = self.find_or_insert_in(notifier, id, addr, gpuva, ctx);
        if found.is_err() {
            self.notifier_remove_if_empty(notifier);
        }
        found
    }

    /// The same within a notifier that is there, as often as the address space changes under it.
    fn find_or_insert_in(
        &self,
        notifier: NotifierKey,
        id: NotifierId,
        addr: HostVa,
        gpuva: HostRange,
        ctx: &Ctx,
    ) -> Result<RangeKey, SvmError> {
        let mut patience = Patience::new();
        loop {
            let seq = self.mm.read_begin(id);
            let mut vma = self.mm.vma_part(addr).ok_or(SvmError::NoVma)?;
            if !ctx.read_only && !vma.write {
                return Err(SvmError::Denied);
            }
            if vma.io {
                return Err(SvmError::Io);
            }
            if let Some(key) = self.range_at(addr, (vma, seq)) {
                return Ok(key);
            }
            if !vma.range.covers(HostRange::around(addr, self.config.chunk_sizes[0])) {
                vma = self.mm.vma_lookup(addr).ok_or(SvmError::NoVma)?;
            }
            match self.try_insert(&Sight { notifier, id, seq, vma }, addr, gpuva, ctx) {
                Err(Attempt::Stale) if patience.wait() => {}
                Err(Attempt::Stale) => return Err(SvmError::Busy),
                Err(Attempt::Failed(error)) => return Err(error),
                Ok((key, range)) => {
                    self.tell(Event::RangeCreated { range });
                    return Ok(key);
                }
            }
        }
    }

    /// Chooses a chunk and inserts it, unless `sight` is out of date.
    fn try_insert(
        &self,
        sight: &Sight,
        addr: HostVa,
        gpuva: HostRange,
        ctx: &Ctx,
    ) -> Result<(RangeKey, HostRange), Attempt> {
        let span = self.choose_chunk(sight, addr, gpuva, ctx)?;
        let mut state = self.state.lock();
        if self.mm.read_retry(sight.id, sight.seq) {
            return Err(Attempt::Stale);
        }
        let range = Range {
            data: O::RangeData::default(),
            span,
            notifier: sight.notifier,
            pages: Pages::default(),
            migrate_devmem: ctx.devmem_possible && sight.vma.anonymous,
            unmapped: false,
            partial_unmap: false,
            seen: Some((sight.vma, sight.seq)),
        };
        let key = state.ranges.insert(range);
        let Some(notifier) = state.notifiers.get_mut(sight.notifier) else {
            state.ranges.remove(key);
            return Err(Attempt::Failed(SvmError::Gone));
        };
        notifier.ranges.insert(span.start, key);
        Ok((key, span))
    }

    /// The largest chunk around `addr` that may become a range (`drm_gpusvm_range_chunk_size`).
    fn choose_chunk(&self, sight: &Sight, addr: HostVa, gpuva: HostRange, ctx: &Ctx) -> Result<HostRange, Attempt> {
        let granule = HostRange::around(addr, self.config.notifier_size);
        for &size in self.config.chunk_sizes {
            let chunk = HostRange::around(addr, size);
            if ![sight.vma.range, granule, gpuva].iter().all(|outer| outer.covers(chunk)) {
                continue;
            }
            if size == SZ_4K {
                return Ok(chunk);
            }
            if self.has_ranges(chunk) {
                continue;
            }
            if size > ctx.check_pages_threshold || self.all_present(sight, chunk, ctx)? {
                return Ok(chunk);
            }
        }
        Err(Attempt::Failed(SvmError::Invalid))
    }

    /// Whether each page of `chunk` is there, without asking for any (`drm_gpusvm_check_pages`).
    fn all_present(&self, sight: &Sight, chunk: HostRange, ctx: &Ctx) -> Result<bool, Attempt> {
        let mut runs = self.walks.take();
        let valid_since = Some((sight.id, sight.seq));
        let vma = Some((sight.vma, sight.seq));
        let walk = Walk { range: chunk, valid_since, vma, fault: false, write: false, owner: ctx.owner };
        match self.mm.walk(&walk, &mut runs) {
            Ok(()) => Ok(runs.iter().all(|run| run.run.place.is_some())),
            Err(MmError::Stale) => Err(Attempt::Stale),
            Err(MmError::Gone) => Err(Attempt::Failed(SvmError::Gone)),
            Err(MmError::NoVma | MmError::Denied | MmError::NoMemory) => Ok(false),
        }
    }

    /// The range that `addr` lies in, which keeps what was just seen there.
    fn range_at(&self, addr: HostVa, seen: (Vma, Seq)) -> Option<RangeKey> {
        let mut state = self.state.lock();
        let key = state.range_at(addr)?;
        state.ranges.get_mut(key)?.seen = Some(seen);
        Some(key)
    }

    /// Removes a range: unmaps its pages and forgets it; its notifier goes with the last one
    /// (`drm_gpusvm_range_remove`). The device translates to nothing of it any more. A key that names no
    /// range is ignored. The caller holds the driver's SVM lock and nothing below.
    pub fn range_remove(&self, range: RangeKey) {
        let removed = {
            let mut state = self.state.lock();
            let Some(mut removed) = state.ranges.remove(range) else { return };
            removed.pages.unmap(&*self.device, &self.pagemaps);
            if let Some(notifier) = state.notifiers.get_mut(removed.notifier) {
                notifier.ranges.remove(&removed.span.start);
            }
            removed
        };
        self.notifier_remove_if_empty(removed.notifier);
        self.tell(Event::RangeRemoved { range: removed.span });
    }

    /// The ranges that share an address with `span`, by address. Takes the notifier lock; what it says holds
    /// as long as the driver's SVM lock is held.
    pub fn ranges_in(&self, span: HostRange) -> Vec<RangeKey> {
        self.state.lock().ranges_in(span).collect()
    }

    /// The first ranges in `span`, in order, at most `most`: for who goes through many of them, since the notifier lock
    /// is held meanwhile and readers wait for it.
    pub fn first_ranges_in(&self, span: HostRange, most: usize) -> Vec<RangeKey> {
        self.state.lock().ranges_in(span).take(most).collect()
    }

    /// Whether there is any (`drm_gpusvm_has_mapping`).
    pub fn has_ranges(&self, span: HostRange) -> bool {
        self.state.lock().ranges_in(span).next().is_some()
    }
}

/// How an attempt failed: whether looking again may help.
pub(crate) enum Attempt {
    /// The address space changed meanwhile.
    Stale,
    /// It would fail again.
    Failed(SvmError),
}

impl From<MmError> for Attempt {
    fn from(error: MmError) -> Self {
        match error {
            MmError::Stale => Self::Stale,
            other => Self::Failed(other.into()),
        }
    }
}
