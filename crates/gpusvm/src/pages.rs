//! Pages: what is behind a range now, and how the device reaches it.
//!
//! Collecting is optimistic: read the notifier's sequence, walk, take the notifier lock, and publish only if
//! the sequence did not move; otherwise start again, for a second at most. A range's pages are either all
//! in system memory or all in one allocation of one pagemap, unless the context allows a mix.
//!
//! Where a mapping from before is still valid it is used as it is, if it satisfies the context of *this*
//! call. (Linux does not look again; a caller that wants everything in system memory could be given VRAM.)
//! Where it does not, the driver is told to invalidate the range first.
//!
//! Locking: pages are under the notifier lock; DMA is mapped and unmapped with it held.
//! Upstream: `struct drm_gpusvm_pages`, `drm_gpusvm_get_pages`, `drm_gpusvm_unmap_pages`.

use crate::device::{Device, Direction, PagemapAddr, Proto};
use crate::event::Event;
use crate::notifier::NotifierKey;
use crate::pagemap::PagemapSet;
use crate::range::{Attempt, RangeKey};
use crate::svm::{Ctx, GpuSvm, GpuSvmOps, HMM_TIMEOUT_NS, SvmError};
use crate::zdd::ZddView;
use alloc::vec::Vec;
use hostmm::{DevicePage, EventKind, MmEvent, NotifierId, PagemapId, Place, Run, Seq, Vma, Walk, WalkRun};
use units::{HostFrame, HostRange, Iova, PAGE_SHIFT};

/// A range's pages as the device reaches them (`struct drm_gpusvm_pages`).
#[derive(Default, Debug)]
pub struct Pages {
    dma_addr: Few<PagemapAddr>,
    pagemap: Option<PagemapId>,
    seq: Option<Seq>,
    system: usize,
    device: usize,
    /// Whether only `allow_mixed` made it possible.
    mixed: bool,
    writable: bool,
}

impl Pages {
    /// The runs, in the order of their addresses and without gaps: a run of system memory is one DMA mapping. Empty where
    /// the pages are not valid.
    pub fn dma_addr(&self) -> &[PagemapAddr] {
        self.dma_addr.as_slice()
    }
    /// The pagemap that all pages in VRAM are of; `None` where there are none.
    pub fn pagemap(&self) -> Option<PagemapId> {
        self.pagemap
    }
    /// Whether the device may use the mapping: no change of the address space came since it was made.
    pub fn valid(&self) -> bool {
        self.system + self.device > 0
    }
    /// Whether a valid mapping leads to VRAM. `false` does *not* say that no page is in VRAM: any event
    /// clears it.
    pub fn has_devmem_pages(&self) -> bool {
        self.device > 0
    }
    /// The same as [`valid`](Self::valid): anything is mapped.
    pub fn has_dma_mapping(&self) -> bool {
        self.valid()
    }
    /// The notifier's sequence that they were collected at; `None` before the first time.
    pub fn seq(&self) -> Option<Seq> {
        self.seq
    }
    /// Whether they were collected for writing.
    pub fn writable(&self) -> bool {
        self.writable
    }

    /// Has memory for whatever mapping `walked` may need.
    fn reserve(&mut self, walked: &[WalkRun], ctx: &Ctx) {
        let entries = joined(walked).map(|(run, _)| match run.place {
            // How many allocations it is of is known under the lock only.
            Some(Place::Device(_)) if ctx.allow_mixed => run.pages(),
            _ => 1,
        });
        self.dma_addr.reserve(entries.sum());
    }

    /// Unmaps everything; the mappings first, then what remembers them.
    pub(crate) fn unmap(&mut self, device: &dyn Device, pagemaps: &PagemapSet) {
        let pagemap = self.pagemap.and_then(|id| pagemaps.get(id));
        for &addr in self.dma_addr.as_slice() {
            match (addr.proto, pagemap) {
                (Proto::System, _) => device.dma_unmap(Iova(addr.addr), addr.pages()),
                (Proto::Vram | Proto::P2p, Some(pagemap)) => pagemap.ops.device_unmap(addr),
                (Proto::Vram | Proto::P2p, None) => {}
            }
        }
        self.dma_addr.clear();
        (self.system, self.device, self.mixed) = (0, 0, false);
        self.pagemap = None;
    }

    /// Whether a valid mapping is what a call with `ctx` would get.
    fn satisfies(&self, ctx: &Ctx, pagemaps: &PagemapSet) -> bool {
        let owner = self.pagemap.and_then(|id| pagemaps.get(id)).map(|pagemap| pagemap.owner);
        let stays = self.device == 0 || (owner.is_some() && owner == ctx.owner);
        stays
            && !(ctx.devmem_only && self.system > 0)
            && (ctx.allow_mixed || !self.mixed)
            && (ctx.read_only || self.writable)
    }
}

/// What a successful attempt found.
enum Got {
    Mapped { system: usize, device: usize },
    Reused,
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
        let start_ns = sync::time::now_ns();
        let mut patience = Patience::new();
        let mut walked = self.walks.take();
        loop {
            let located = self.locate(range)?;
            match self.try_get_pages(&located, ctx, &mut walked) {
                Ok(Got::Mapped { system, device }) => {
                    let ns = sync::time::now_ns().saturating_sub(start_ns);
                    self.tell(Event::PagesMapped { range: located.span, system, device, ns });
                    return Ok(());
                }
                Ok(Got::Reused) => {
                    self.tell(Event::PagesReused { range: located.span });
                    return Ok(());
                }
                Err(Attempt::Failed(error)) => return Err(error),
                Err(Attempt::Stale) => {
                    self.tell(Event::Retried { range: located.span });
                    if !patience.wait() {
                        return Err(SvmError::Busy);
                    }
                }
            }
        }
    }

    /// Where a range is, unless it ended. What was seen of its VMA is given once: a second attempt looks again.
    fn locate(&self, key: RangeKey) -> Result<Located, SvmError> {
        let mut guard = self.state.lock();
        let state = &mut *guard;
        let range = state.ranges.get_mut(key).ok_or(SvmError::Gone)?;
        if range.unmapped {
            return Err(SvmError::Fault);
        }
        let seen = range.seen.take();
        let id = state.notifiers.get(range.notifier).and_then(|notifier| notifier.id).ok_or(SvmError::Gone)?;
        Ok(Located { key, span: range.span, notifier: range.notifier, id, seen })
    }

    /// Extent and notifier of a range, for a walk of it.
    pub(crate) fn span_of(&self, key: RangeKey) -> Result<(HostRange, NotifierId), SvmError> {
        self.locate(key).map(|located| (located.span, located.id))
    }

    fn try_get_pages(&self, located: &Located, ctx: &Ctx, walked: &mut Vec<WalkRun>) -> Result<Got, Attempt> {
        let &Located { key, span, id, seen, .. } = located;
        let seq = self.mm.read_begin(id);
        if self.try_reuse(located, seq, ctx) {
            return Ok(Got::Reused);
        }
        let (valid_since, write) = (Some((id, seq)), !ctx.read_only);
        let walk = Walk { range: span, valid_since, vma: seen, fault: true, write, owner: ctx.owner };
        self.mm.walk(&walk, walked)?;

        // Allocated before the lock: nothing under it asks for memory.
        let mut fresh = Pages { writable: !ctx.read_only, seq: Some(seq), ..Pages::default() };
        fresh.reserve(walked, ctx);
        let mut locked = self.notifier_lock();
        if locked.range(key).ok_or(Attempt::Failed(SvmError::Gone))?.unmapped {
            return Err(Attempt::Failed(SvmError::Fault));
        }
        if self.mm.read_retry(id, seq) {
            return Err(Attempt::Stale);
        }
        let mut mapper = Mapper { svm: self, ctx, pages: &mut fresh, zdd: None };
        if let Err(error) = mapper.map(walked) {
            fresh.unmap(&*self.device, &self.pagemaps);
            return Err(error);
        }
        let got = Got::Mapped { system: fresh.system, device: fresh.device };
        if let Some(range) = locked.range_mut(key) {
            // What was there is empty; its memory is freed after the lock.
            core::mem::swap(&mut range.pages, &mut fresh);
        }
        drop(locked);
        Ok(got)
    }

    /// Whether the mapping from before serves. One that is valid but does not serve is taken down.
    fn try_reuse(&self, located: &Located, seq: Seq, ctx: &Ctx) -> bool {
        let mut locked = self.notifier_lock();
        let Some(range) = locked.range_mut(located.key) else { return false };
        if !range.pages.valid() {
            return false;
        }
        if range.pages.satisfies(ctx, &self.pagemaps) {
            range.pages.seq = Some(seq);
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
                Some(Place::Device(_)) => return Err(Attempt::Failed(SvmError::Mixed)),
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
        if self.pages.device > 0 {
            self.mix()?;
        }
        if self.ctx.devmem_only {
            return Err(Attempt::Failed(SvmError::Fault));
        }
        let dir = self.direction();
        let mapped = self.svm.device.dma_map(frame, pages, dir);
        let iova = mapped.map_err(|_| Attempt::Failed(SvmError::Fault))?;
        self.pages.dma_addr.push(PagemapAddr::system(iova, pages, dir));
        self.pages.system += pages;
        Ok(())
    }

    fn map_device(&mut self, first: DevicePage, pages: usize, write: bool) -> Result<(), Attempt> {
        // Another device's VRAM, or a page that only a CPU write fault makes writable: home with it first.
        let Some(pagemap) = self.svm.pagemaps.get(first.pagemap) else {
            return Err(Attempt::Failed(SvmError::Mixed));
        };
        if !self.ctx.read_only && !write {
            return Err(Attempt::Failed(SvmError::Mixed));
        }
        if self.pages.pagemap.is_some_and(|seen| seen != first.pagemap) {
            return Err(Attempt::Failed(SvmError::Mixed));
        }
        let mut at = 0;
        while at < pages {
            let page = first.add(at as u64);
            let zdd = match self.zdd.filter(|zdd| zdd.contains(page)) {
                Some(same) => same,
                None => pagemap.zdds.find(page).ok_or(Attempt::Stale)?,
            };
            if self.pages.valid() && self.zdd.is_none_or(|before| before.key != zdd.key) {
                self.mix()?;
            }
            // As much as the allocation holds.
            let here = zdd.pages_from(page).min(pages - at);
            let mapped = pagemap.ops.device_map(page, here, self.direction());
            let addr = mapped.map_err(|_| Attempt::Failed(SvmError::Fault))?;
            self.pages.dma_addr.push(addr);
            self.pages.device += here;
            self.pages.pagemap = Some(first.pagemap);
            self.zdd = Some(zdd);
            at += here;
        }
        Ok(())
    }

    /// The page at hand is elsewhere than those before it.
    fn mix(&mut self) -> Result<(), Attempt> {
        if !self.ctx.allow_mixed {
            return Err(Attempt::Failed(SvmError::Mixed));
        }
        self.pages.mixed = true;
        Ok(())
    }
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

/// A list that is short: one entry needs no memory of its own.
#[derive(Debug)]
struct Few<T> {
    one: Option<T>,
    many: Vec<T>,
}

impl<T> Default for Few<T> {
    fn default() -> Self {
        Self { one: None, many: Vec::new() }
    }
}

impl<T: Copy> Few<T> {
    fn as_slice(&self) -> &[T] {
        if self.many.is_empty() { self.one.as_slice() } else { &self.many }
    }
    /// Has memory for `len` entries in all.
    fn reserve(&mut self, len: usize) {
        if len > 1 {
            self.many.reserve_exact(len);
        }
    }
    fn push(&mut self, entry: T) {
        match self.one.take() {
            None if self.many.is_empty() => self.one = Some(entry),
            before => self.many.extend(before.into_iter().chain([entry])),
        }
    }
    fn clear(&mut self) {
        self.one = None;
        self.many.clear();
    }
}

/// How long to go on after lost races: [`HMM_TIMEOUT_NS`] from the first one on.
#[derive(Default)]
pub(crate) struct Patience {
    end_ns: Option<u64>,
}

impl Patience {
    /// Time between tries, in nanoseconds: enough for whoever won to get on.
    const PAUSE_NS: u64 = 20_000;

    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// Lets others run; `false` where patience is at its end. Not in reader class.
    pub(crate) fn wait(&mut self) -> bool {
        let now_ns = sync::time::now_ns();
        if now_ns >= *self.end_ns.get_or_insert(now_ns.saturating_add(HMM_TIMEOUT_NS)) {
            return false;
        }
        sync::time::sleep_ns(Self::PAUSE_NS);
        true
    }
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
