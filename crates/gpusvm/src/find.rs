//! Finding ranges, and removing them.
//!
//! A range is found by a fault's address, or made: as large a chunk as VMA, notifier and GPU VMA allow, as
//! long as it overlaps no other and, where it is small, all its pages are there.
//!
//! Linux holds the mmap lock from the lookup of the VMA to the insertion of the range. A host mm has no such
//! lock, so the notifier's sequence takes its place: it is read before the lookup, checked under the notifier
//! lock before the insertion, and what was found is thrown away where it moved. The same moment decides among threads
//! that look for ranges at once: who finds a range in its place there, or its notifier gone, looks again.
//!
//! Locking: callers hold the driver's SVM lock, shared or alone. Upstream: `drm_gpusvm_range_find_or_insert`, `drm_gpusvm_range_chunk_size`, `drm_gpusvm_range_remove`.

use crate::call::{Ctx, SvmError};
use crate::event::Event;
use crate::mirror::{GpuSvm, GpuSvmOps};
use crate::pages::Pages;
use crate::retry::{Attempt, Retry};
use crate::tree::{NotifierKey, Range, RangeKey};
use hostmm::{MmError, NotifierId, Seq, Vma, Walk};
use units::{HostRange, HostVa, SZ_4K};

/// What a range is wanted for, and what was seen there at a sequence.
struct Sight<'a> {
    notifier: NotifierKey,
    id: NotifierId,
    seen: (Vma, Seq),
    addr: HostVa,
    gpuva: HostRange,
    ctx: &'a Ctx,
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
        let mut retry = Retry::new();
        loop {
            let notifier = self.notifier_find_or_insert(addr)?;
            match self.find_or_insert_in(notifier, &mut retry, addr, gpuva, ctx) {
                Err(Attempt::Raced) => {}
                Err(Attempt::Stale) => return Err(SvmError::Busy),
                Err(Attempt::Failed(error)) => {
                    self.notifier_remove_if_empty(notifier.0);
                    return Err(error);
                }
                Ok(key) => return Ok(key),
            }
        }
    }

    /// The same within a notifier that is there, as often as the address space changes under it.
    fn find_or_insert_in(
        &self,
        (notifier, id): (NotifierKey, NotifierId),
        retry: &mut Retry,
        addr: HostVa,
        gpuva: HostRange,
        ctx: &Ctx,
    ) -> Result<RangeKey, Attempt> {
        loop {
            let seq = self.mm.read_begin(id);
            let mut vma = self.mm.vma_part(addr).ok_or(SvmError::NoVma)?;
            if !ctx.read_only && !vma.write {
                return Err(SvmError::Denied.into());
            }
            if vma.io {
                return Err(SvmError::Io.into());
            }
            if let Some(key) = self.range_at(addr, (vma, seq)) {
                return Ok(key);
            }
            if !vma.range.covers(HostRange::around(addr, self.config.chunk_sizes[0])) {
                vma = self.mm.vma_lookup(addr).ok_or(SvmError::NoVma)?;
            }
            match self.try_insert(&Sight { notifier, id, seen: (vma, seq), addr, gpuva, ctx }) {
                Err(Attempt::Stale) if retry.wait() => {}
                Err(failed) => return Err(failed),
                Ok((key, range)) => {
                    self.emit(Event::RangeCreated { range });
                    return Ok(key);
                }
            }
        }
    }

    /// Chooses a chunk and inserts it, unless `sight` is out of date.
    fn try_insert(&self, sight: &Sight<'_>) -> Result<(RangeKey, HostRange), Attempt> {
        let span = self.choose_chunk(sight)?;
        let tree = &mut *self.tree.lock();
        if !tree.notifiers.contains_key(sight.notifier) || tree.ranges_of(sight.notifier, span).next().is_some() {
            return Err(Attempt::Raced);
        }
        if self.mm.read_retry(sight.id, sight.seen.1) {
            return Err(Attempt::Stale);
        }
        let notifier = tree.notifiers.get_mut(sight.notifier).ok_or(Attempt::Raced)?;
        let key = tree.ranges.insert(Range {
            data: O::RangeData::default(),
            span,
            notifier: sight.notifier,
            pages: Pages::default(),
            migrate_devmem: sight.ctx.devmem_possible && sight.seen.0.anonymous,
            unmapped: false,
            partial_unmap: false,
            seen: Some(sight.seen),
        });
        notifier.ranges.insert(span, key);
        Ok((key, span))
    }

    /// The largest chunk around the address that may become a range (`drm_gpusvm_range_chunk_size`).
    fn choose_chunk(&self, sight: &Sight<'_>) -> Result<HostRange, Attempt> {
        let granule = HostRange::around(sight.addr, self.config.notifier_size);
        for &size in self.config.chunk_sizes {
            let chunk = HostRange::around(sight.addr, size);
            if ![sight.seen.0.range, granule, sight.gpuva].iter().all(|outer| outer.covers(chunk)) {
                continue;
            }
            if size == SZ_4K {
                return Ok(chunk);
            }
            if self.has_ranges(chunk) {
                continue;
            }
            if size > sight.ctx.check_pages_threshold || self.all_present(sight, chunk)? {
                return Ok(chunk);
            }
        }
        Err(Attempt::Failed(SvmError::Invalid))
    }

    /// Whether each page of `chunk` is there, without asking for any (`drm_gpusvm_check_pages`).
    fn all_present(&self, sight: &Sight<'_>, chunk: HostRange) -> Result<bool, Attempt> {
        let mut runs = self.walks.take();
        let (valid_since, owner) = (Some((sight.id, sight.seen.1)), sight.ctx.owner);
        let walk = Walk { range: chunk, valid_since, vma: Some(sight.seen), fault: false, write: false, owner };
        match self.mm.walk(&walk, &mut runs) {
            Ok(()) => Ok(runs.iter().all(|run| run.run.place.is_some())),
            Err(MmError::Stale) => Err(Attempt::Stale),
            Err(MmError::Gone) => Err(Attempt::Failed(SvmError::Gone)),
            Err(MmError::NoVma | MmError::Denied | MmError::NoMemory) => Ok(false),
        }
    }

    /// The range that `addr` lies in, which keeps what was just seen there.
    fn range_at(&self, addr: HostVa, seen: (Vma, Seq)) -> Option<RangeKey> {
        let mut tree = self.tree.lock();
        let key = tree.range_at(addr)?;
        tree.ranges.get_mut(key)?.seen = Some(seen);
        Some(key)
    }

    /// Removes a range: unmaps its pages and forgets it; its notifier goes with the last one
    /// (`drm_gpusvm_range_remove`). The device translates to nothing of it any more. A key that names no
    /// range is ignored. The caller holds the driver's SVM lock, knows that nobody else works on the range, and holds
    /// nothing below.
    pub fn range_remove(&self, range: RangeKey) {
        let removed = {
            let mut tree = self.tree.lock();
            let Some(mut removed) = tree.ranges.remove(range) else { return };
            removed.pages.unmap(&*self.device);
            if let Some(notifier) = tree.notifiers.get_mut(removed.notifier) {
                notifier.ranges.remove(removed.span);
            }
            removed
        };
        self.notifier_remove_if_empty(removed.notifier);
        self.emit(Event::RangeRemoved { range: removed.span });
    }
}
