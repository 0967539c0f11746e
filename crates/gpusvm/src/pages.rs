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
use crate::scratch::refill;
use crate::svm::{Ctx, GpuSvm, GpuSvmOps, HMM_TIMEOUT_NS, SvmError};
use crate::zdd::ZddView;
use alloc::vec::Vec;
use hostmm::{Backing, DevicePage, EventKind, HostPage, MmEvent, NotifierId, PagemapId, Seq, Walk};
use units::{HostFrame, HostRange, Iova, bytes_of};

/// A range's pages as the device reaches them (`struct drm_gpusvm_pages`).
#[derive(Default, Debug)]
pub struct Pages {
    dma_addr: Vec<PagemapAddr>,
    /// DMA mappings as they were made: contiguous frames, which may be several chunks.
    runs: Vec<(Iova, usize)>,
    pagemap: Option<PagemapId>,
    seq: Option<Seq>,
    system: usize,
    device: usize,
    /// Whether only `allow_mixed` made it possible.
    mixed: bool,
    writable: bool,
}

impl Pages {
    /// The chunks, in the order of their addresses and without gaps: an entry stands for `1 << order` pages.
    /// Empty where the pages are not valid.
    pub fn dma_addr(&self) -> &[PagemapAddr] {
        &self.dma_addr
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
    fn reserve(&mut self, walked: &[HostPage]) {
        let (mut in_all, mut chunks) = (0, 0);
        for (at, length) in runs(walked) {
            in_all += 1;
            chunks += match walked[at].backing {
                Backing::None => 0,
                Backing::System(frame) => chunks_of_run(frame.0, &walked[at..at + length]).count(),
                // How many allocations there are is known under the lock only.
                Backing::Device(_) => length,
            };
        }
        self.runs.reserve_exact(in_all);
        self.dma_addr.reserve_exact(chunks);
    }

    /// Unmaps everything; the mappings first, then what remembers them.
    pub(crate) fn unmap(&mut self, device: &dyn Device, pagemaps: &PagemapSet) {
        for &(iova, pages) in &self.runs {
            device.dma_unmap(iova, pages);
        }
        if let Some(pagemap) = self.pagemap.and_then(|id| pagemaps.get(id)) {
            for &addr in self.dma_addr.iter().filter(|addr| addr.proto != Proto::System) {
                pagemap.ops.device_unmap(addr);
            }
        }
        self.dma_addr.clear();
        self.runs.clear();
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

    /// Where a range is, unless it ended.
    fn locate(&self, key: RangeKey) -> Result<Located, SvmError> {
        let state = self.state.lock();
        let range = state.ranges.get(key).ok_or(SvmError::Gone)?;
        if range.unmapped {
            return Err(SvmError::Fault);
        }
        let id = state.notifiers.get(range.notifier).and_then(|notifier| notifier.id).ok_or(SvmError::Gone)?;
        Ok(Located { key, span: range.span, notifier: range.notifier, id })
    }

    /// Extent and notifier of a range, for a walk of it.
    pub(crate) fn span_of(&self, key: RangeKey) -> Result<(HostRange, NotifierId), SvmError> {
        self.locate(key).map(|located| (located.span, located.id))
    }

    fn try_get_pages(&self, located: &Located, ctx: &Ctx, walked: &mut Vec<HostPage>) -> Result<Got, Attempt> {
        let &Located { key, span, id, .. } = located;
        let seq = self.mm.read_begin(id);
        if self.try_reuse(located, seq, ctx) {
            return Ok(Got::Reused);
        }
        refill(walked, span.pages(), HostPage::HOLE);
        let walk =
            Walk { range: span, valid_since: Some((id, seq)), fault: true, write: !ctx.read_only, owner: ctx.owner };
        self.mm.walk(&walk, walked)?;

        // Allocated before the lock: nothing under it asks for memory.
        let mut fresh = Pages { writable: !ctx.read_only, seq: Some(seq), ..Pages::default() };
        fresh.reserve(walked);
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

/// Maps what a walk found, chunk by chunk, with the notifier lock held.
struct Mapper<'a, O: GpuSvmOps> {
    svm: &'a GpuSvm<O>,
    ctx: &'a Ctx,
    pages: &'a mut Pages,
    /// Allocation of the last page in VRAM.
    zdd: Option<ZddView>,
}

impl<O: GpuSvmOps> Mapper<'_, O> {
    fn map(&mut self, walked: &[HostPage]) -> Result<(), Attempt> {
        for (at, run) in runs(walked) {
            match walked[at].backing {
                Backing::System(frame) => self.map_system(frame, &walked[at..at + run])?,
                Backing::Device(page) => self.map_device(page, &walked[at..at + run])?,
                // The walk was asked to fault: what is absent now went away meanwhile.
                Backing::None => return Err(Attempt::Stale),
            }
        }
        Ok(())
    }

    fn direction(&self) -> Direction {
        if self.ctx.read_only { Direction::ToDevice } else { Direction::Both }
    }

    /// One DMA mapping for all of a run, one entry for each chunk of it.
    fn map_system(&mut self, frame: HostFrame, run: &[HostPage]) -> Result<(), Attempt> {
        if self.pages.device > 0 {
            self.mix()?;
        }
        if self.ctx.devmem_only {
            return Err(Attempt::Failed(SvmError::Fault));
        }
        let dir = self.direction();
        let mapped = self.svm.device.dma_map(frame, run.len(), dir);
        let iova = mapped.map_err(|_| Attempt::Failed(SvmError::Fault))?;
        self.pages.runs.push((iova, run.len()));
        self.pages.system += run.len();
        for (at, order) in chunks_of_run(frame.0, run) {
            let addr = iova.add(bytes_of(at)).0;
            self.pages.dma_addr.push(PagemapAddr { addr, proto: Proto::System, order, dir });
        }
        Ok(())
    }

    fn map_device(&mut self, first: DevicePage, run: &[HostPage]) -> Result<(), Attempt> {
        // Another device's VRAM, or a page that only a CPU write fault makes writable: home with it first.
        let Some(pagemap) = self.svm.pagemaps.get(first.pagemap) else {
            return Err(Attempt::Failed(SvmError::Mixed));
        };
        if !self.ctx.read_only && run.iter().any(|page| !page.write) {
            return Err(Attempt::Failed(SvmError::Mixed));
        }
        if self.pages.pagemap.is_some_and(|seen| seen != first.pagemap) {
            return Err(Attempt::Failed(SvmError::Mixed));
        }
        let mut at = 0;
        while at < run.len() {
            let page = first.add(at as u64);
            let zdd = match self.zdd.filter(|zdd| zdd.contains(page)) {
                Some(same) => same,
                None => pagemap.zdds.find(page).ok_or(Attempt::Stale)?,
            };
            if self.pages.valid() && self.zdd.is_none_or(|before| before.key != zdd.key) {
                self.mix()?;
            }
            // As much as the allocation holds: it is contiguous for the device, however the CPU maps it.
            let order = zdd.pages_from(page).min(run.len() - at).ilog2() as u8;
            let mapped = pagemap.ops.device_map(page, order, self.direction());
            let addr = mapped.map_err(|_| Attempt::Failed(SvmError::Fault))?;
            self.pages.dma_addr.push(addr);
            self.pages.device += 1 << order;
            self.pages.pagemap = Some(first.pagemap);
            self.zdd = Some(zdd);
            at += 1 << order;
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

/// The maximal runs of consecutive frames: (first page, length). What is absent is a run of its own.
fn runs(walked: &[HostPage]) -> impl Iterator<Item = (usize, usize)> {
    let mut at = 0;
    core::iter::from_fn(move || {
        let first = walked.get(at)?.backing;
        let follows = |(i, page): &(usize, &HostPage)| page.backing == step(first, *i as u64);
        let length = walked[at..].iter().enumerate().take_while(follows).count();
        at += length;
        Some((at - length, length))
    })
}

/// What backs the page `pages` further on, where all is contiguous.
fn step(first: Backing, pages: u64) -> Backing {
    match first {
        Backing::None => Backing::None,
        Backing::System(frame) => Backing::System(frame.add(pages)),
        Backing::Device(page) => Backing::Device(page.add(pages)),
    }
}

/// The chunks of a run of system memory that starts at `frame`: (first page, order). A chunk never leaves the CPU's mapping
/// that its first page is in (`drm_gpusvm_hmm_pfn_to_order`).
fn chunks_of_run(frame: u64, run: &[HostPage]) -> impl Iterator<Item = (usize, u8)> {
    let mut at = 0;
    core::iter::from_fn(move || {
        let mapping = 1u64 << run.get(at)?.order;
        let left = mapping - ((frame + at as u64) & (mapping - 1));
        let order = left.min((run.len() - at) as u64).ilog2() as u8;
        at += 1 << order;
        Some((at - (1 << order), order))
    })
}

/// How long to go on after lost races: [`HMM_TIMEOUT_NS`] in all.
pub(crate) struct Patience {
    end_ns: u64,
}

impl Patience {
    /// Time between tries, in nanoseconds: enough for whoever won to get on.
    const PAUSE_NS: u64 = 20_000;

    pub(crate) fn new() -> Self {
        Self { end_ns: sync::time::now_ns().saturating_add(HMM_TIMEOUT_NS) }
    }

    /// Lets others run; `false` where patience is at its end. Not in reader class.
    pub(crate) fn wait(&mut self) -> bool {
        if sync::time::now_ns() >= self.end_ns {
            return false;
        }
        sync::time::sleep_ns(Self::PAUSE_NS);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;

    fn system(frame: u64, order: u8) -> HostPage {
        HostPage { backing: Backing::System(HostFrame(frame)), write: true, order }
    }

    #[test]
    fn a_run_ends_where_frames_do() {
        let walked = [system(4, 0), system(5, 0), system(7, 0), HostPage::HOLE, HostPage::HOLE];
        assert_eq!(runs(&walked).collect::<Vec<_>>(), vec![(0, 2), (2, 1), (3, 2)]);
    }

    #[test]
    fn a_chunk_stays_in_its_mapping() {
        // Starts at page 5 of a mapping of 8, and goes on into single pages.
        let mut run: Vec<_> = (5..8).map(|frame| system(frame, 3)).collect();
        run.extend([system(8, 0), system(9, 0)]);
        assert_eq!(chunks_of_run(5, &run).collect::<Vec<_>>(), vec![(0, 1), (2, 0), (3, 0), (4, 0)]);
        let whole: Vec<_> = (512..1024).map(|frame| system(frame, 9)).collect();
        assert_eq!(chunks_of_run(512, &whole).collect::<Vec<_>>(), vec![(0, 9)]);
        assert_eq!(chunks_of_run(512, &whole[..16]).collect::<Vec<_>>(), vec![(0, 4)]);
    }
}
