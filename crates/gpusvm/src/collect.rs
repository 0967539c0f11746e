//! Collecting pages: what is behind a range now, and how the device reaches it.
//!
//! Collecting is optimistic: read the notifier's sequence, walk, take the notifier lock, and publish only if
//! the sequence did not move; otherwise start again, for a second at most. A range's pages are either all
//! in system memory or all in one allocation of one pagemap, unless the context allows a mix.
//!
//! Where a mapping from before is still valid it is used as it is, if it satisfies the context of *this*
//! call. (Linux does not look again; a caller that wants everything in system memory could be given VRAM.)
//! Where it does not, the driver invalidates the range first.
//!
//! Threads that collect one range at once do so in turn, or find that another has: its mapping is looked at again.
//!
//! Locking: pages are under the notifier lock; DMA is mapped and unmapped with it held.
//! Upstream: `drm_gpusvm_get_pages`.

use crate::call::{Ctx, SvmError};
use crate::device::{Direction, PagemapAddr};
use crate::event::Event;
use crate::mirror::{GpuSvm, GpuSvmOps};
use crate::pages::Pages;
use crate::retry::{Attempt, Retry};
use crate::tree::{NotifierKey, RangeKey};
use crate::zdd::ZddView;
use alloc::vec::Vec;
use hostmm::{DevicePage, EventKind, MmEvent, NotifierId, Place, Run, Seq, Vma, Walk, WalkRun};
use units::{HostFrame, HostRange, PAGE_SHIFT};

/// What a successful attempt found.
enum Got {
    Mapped { system: usize, device: usize },
    Reused,
}

/// How a collection came by its pages.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mapping {
    /// It mapped them.
    Anew,
    /// The mapping from before was still valid.
    AsBefore,
}

/// A range as an attempt sees it.
#[derive(Clone, Copy)]
struct Located {
    key: RangeKey,
    span: HostRange,
    notifier: NotifierKey,
    id: NotifierId,
    seen: Option<(Vma, Seq)>,
}

impl<O: GpuSvmOps> GpuSvm<O> {
    /// Collects the range's pages, faulting in what is absent, and maps them for the device
    /// (`drm_gpusvm_range_get_pages`). On `Ok` they were valid; the notifier lock and
    /// [`pages_valid`](crate::NotifierLocked::pages_valid) tell whether they still are.
    ///
    /// `Fault`: the range is unmapped, has no VMA everywhere, or a page is in system memory against
    /// `devmem_only`, or cannot be mapped. `Denied`: not writable. `Mixed`: not all in one place; evict and try
    /// again. `Busy`: changes went on for a second. `NoMemory`; `Gone`: no such range, or the process ends.
    /// The caller holds the driver's SVM lock and nothing below.
    pub fn get_pages(&self, range: RangeKey, ctx: &Ctx) -> Result<(), SvmError> {
        self.collect_pages(range, ctx).map(|_| ())
    }

    /// The same, for who wants to know whether what was collected before is still there.
    pub fn collect_pages(&self, range: RangeKey, ctx: &Ctx) -> Result<Mapping, SvmError> {
        let start_ns = sync::time::now_ns();
        let mut retry = Retry::new();
        let mut walked = self.walks.take();
        loop {
            let located = self.locate(range)?;
            match self.try_get_pages(&located, ctx, &mut walked) {
                Ok(Got::Mapped { system, device }) => {
                    let ns = sync::time::now_ns().saturating_sub(start_ns);
                    self.emit(Event::PagesMapped { range: located.span, system, device, ns });
                    return Ok(Mapping::Anew);
                }
                Ok(Got::Reused) => {
                    self.emit(Event::PagesReused { range: located.span });
                    return Ok(Mapping::AsBefore);
                }
                Err(Attempt::Failed(error)) => return Err(error),
                Err(Attempt::Raced) => {}
                Err(Attempt::Stale) => {
                    self.emit(Event::Retried { range: located.span });
                    if !retry.wait() {
                        return Err(SvmError::Busy);
                    }
                }
            }
        }
    }

    /// Where a range is, unless it ended. What was seen of its VMA is given once: a second attempt looks again.
    fn locate(&self, key: RangeKey) -> Result<Located, SvmError> {
        let tree = &mut *self.tree.lock();
        let range = tree.ranges.get_mut(key).ok_or(SvmError::Gone)?;
        if range.unmapped {
            return Err(SvmError::Fault);
        }
        let seen = range.seen.take();
        let id = tree.notifiers.get(range.notifier).and_then(|notifier| notifier.id).ok_or(SvmError::Gone)?;
        Ok(Located { key, span: range.span, notifier: range.notifier, id, seen })
    }

    /// Extent and notifier of a range, for a walk of it.
    pub(crate) fn span_of(&self, key: RangeKey) -> Result<(HostRange, NotifierId), SvmError> {
        self.locate(key).map(|located| (located.span, located.id))
    }

    fn try_get_pages(&self, located: &Located, ctx: &Ctx, walked: &mut Vec<WalkRun>) -> Result<Got, Attempt> {
        let &Located { key, span, id, seen, .. } = located;
        let seq = self.mm.read_begin(id);
        if self.try_reuse(located, ctx) {
            return Ok(Got::Reused);
        }
        let (valid_since, write) = (Some((id, seq)), !ctx.read_only);
        let walk = Walk { range: span, valid_since, vma: seen, fault: true, write, owner: ctx.owner };
        self.mm.walk(&walk, walked)?;

        // Allocated before the lock: nothing under it asks for memory.
        let mut fresh = Pages::with_capacity(most_runs(walked, ctx), write);
        let mut locked = self.notifier_lock();
        let range = locked.range(key).ok_or(SvmError::Gone)?;
        if range.unmapped {
            return Err(SvmError::Fault.into());
        }
        if self.mm.read_retry(id, seq) {
            return Err(Attempt::Stale);
        }
        if range.pages.valid() {
            return Err(Attempt::Raced);
        }
        let mut mapper = Mapper { svm: self, ctx, pages: &mut fresh, zdd: None };
        if let Err(error) = mapper.map(walked) {
            fresh.unmap(&*self.device);
            return Err(error);
        }
        let (system, device) = fresh.counts();
        if let Some(range) = locked.range_mut(key) {
            // What was there is empty; its memory is freed after the lock.
            core::mem::swap(&mut range.pages, &mut fresh);
        }
        drop(locked);
        Ok(Got::Mapped { system, device })
    }

    /// Whether the mapping from before serves. One that is valid but does not serve is taken down.
    fn try_reuse(&self, located: &Located, ctx: &Ctx) -> bool {
        let mut locked = self.notifier_lock();
        let Some(range) = locked.range_mut(located.key) else { return false };
        if !range.pages.valid() {
            return false;
        }
        if range.pages.satisfies(ctx, &self.pagemaps) {
            return true;
        }
        locked.invalidate(located.notifier, &MmEvent { range: located.span, kind: EventKind::Protection });
        locked.unmap_pages(located.key);
        false
    }
}

/// Maps what a walk found, run by run, with the notifier lock held.
struct Mapper<'a, O: GpuSvmOps> {
    svm: &'a GpuSvm<O>,
    ctx: &'a Ctx,
    pages: &'a mut Pages,
    /// Allocation of the last page in VRAM.
    zdd: Option<ZddView>,
}

impl<O: GpuSvmOps> Mapper<'_, O> {
    fn map(&mut self, walked: &[WalkRun]) -> Result<(), Attempt> {
        for (run, write) in joined(walked) {
            match run.place {
                Some(Place::Host(frame)) => self.map_system(frame, run.pages())?,
                Some(Place::Device(page)) if self.covers_granules(&run, page) => {
                    self.map_device(page, run.pages(), write)?;
                }
                Some(Place::Device(_)) => return Err(SvmError::Mixed.into()),
                // The walk was asked to fault: what is absent now went away meanwhile.
                None => return Err(Attempt::Stale),
            }
        }
        Ok(())
    }

    /// Whether a run in VRAM is whole granules of it, where that matters.
    fn covers_granules(&self, run: &Run, first: DevicePage) -> bool {
        let granule = self.ctx.device_granule;
        let edges = [run.range.start.0, run.range.end.0, first.frame << PAGE_SHIFT];
        granule == 0 || edges.iter().all(|edge| edge.is_multiple_of(granule))
    }

    fn direction(&self) -> Direction {
        if self.ctx.read_only { Direction::ToDevice } else { Direction::Both }
    }

    /// One DMA mapping for all of a run.
    fn map_system(&mut self, frame: HostFrame, pages: usize) -> Result<(), Attempt> {
        if self.pages.has_devmem_pages() {
            self.pages.mix(self.ctx)?;
        }
        if self.ctx.devmem_only {
            return Err(SvmError::Fault.into());
        }
        let dir = self.direction();
        let iova = self.svm.device.dma_map(frame, pages, dir).map_err(|_| SvmError::Fault)?;
        self.pages.push(PagemapAddr::system(iova, pages, dir), None);
        Ok(())
    }

    fn map_device(&mut self, first: DevicePage, pages: usize, write: bool) -> Result<(), Attempt> {
        // VRAM out of reach, or a page that only a CPU write fault makes writable: it migrates back first.
        let pagemap = self.svm.pagemaps.find(first.pagemap).ok_or(SvmError::Mixed)?;
        let is_elsewhere = self.pages.pagemap().is_some_and(|seen| seen != first.pagemap);
        if is_elsewhere || !(write || self.ctx.read_only) {
            return Err(SvmError::Mixed.into());
        }
        let mut at = 0;
        while at < pages {
            let page = first.add(at as u64);
            let zdd = match self.zdd.filter(|zdd| zdd.contains(page)) {
                Some(same) => same,
                None => pagemap.zdds.find(page).ok_or(Attempt::Stale)?,
            };
            if self.pages.valid() && self.zdd.is_none_or(|before| before.key != zdd.key) {
                self.pages.mix(self.ctx)?;
            }
            // As much as the allocation holds.
            let here = zdd.pages_from(page).min(pages - at);
            let by = &*self.svm.device;
            let addr = pagemap.ops.device_map(by, page, here, self.direction()).map_err(|_| SvmError::Fault)?;
            self.pages.push(addr, Some(first.pagemap));
            self.zdd = Some(zdd);
            at += here;
        }
        Ok(())
    }
}

/// The most entries that a mapping of `walked` may need.
fn most_runs(walked: &[WalkRun], ctx: &Ctx) -> usize {
    let entries = joined(walked).map(|(run, _)| match run.place {
        // How many allocations it is of is known under the lock only.
        Some(Place::Device(_)) if ctx.allow_mixed => run.pages(),
        _ => 1,
    });
    entries.sum()
}

/// What a walk found, joined where it goes on though the CPU maps it otherwise: a run, and whether all of it may be
/// written.
fn joined(walked: &[WalkRun]) -> impl Iterator<Item = (Run, bool)> {
    let mut rest = walked.iter();
    core::iter::from_fn(move || {
        let first = rest.next()?;
        let (mut run, mut write) = (first.run, first.write);
        while let Some(next) = rest.as_slice().first().filter(|next| run.goes_on(&next.run)) {
            run.range.end = next.run.range.end;
            write &= next.write;
            rest.next();
        }
        Some((run, write))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use units::{HostVa, bytes_of};

    #[test]
    fn what_goes_on_is_one_run_however_the_cpu_maps_it() {
        let walked = |first: usize, pages, frame, write, order| {
            let range = HostRange::sized(HostVa(bytes_of(first)), bytes_of(pages));
            WalkRun { run: Run { range, place: Some(Place::Host(HostFrame(frame))) }, write, order }
        };
        let walked = [walked(0, 4, 4, true, 0), walked(4, 8, 8, false, 3), walked(12, 1, 17, true, 0)];
        let joined: Vec<_> = joined(&walked).map(|(run, write)| (run.pages(), write)).collect();
        assert_eq!(joined, [(12, false), (1, true)]);
    }
}
