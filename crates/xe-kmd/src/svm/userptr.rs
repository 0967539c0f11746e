//! Userptrs: the CPU's memory bound at GPU addresses of its own.
//!
//! One mirror a VM ([`Userptrs`]) stands beside the VM's own. Its ranges are pieces of the *process's* address space, found
//! by host address; [`UserSpace`] knows which GPU spans show which host memory, and so what an invalidation must zap. Its
//! pages never migrate for a userptr, and what is in VRAM is brought to system memory first: a GPU address that is not
//! congruent with the host's could not be mapped by leaves of 64K. (Upstream maps VRAM here, where the VM has faults: trigger B-7, a
//! variant of [`UnfitVram`](crate::UnfitVram).)
//!
//! Locking: the VM's lock is held over everything but an invalidation, shared by faults and prefetches. Who binds a range holds the
//! range's lock, as for the VM's own mirror, from the collection of its pages on, and so does who removes it. An invalidation comes with the notifier lock of this mirror
//! held, in reader class; the list of spans is a leaf under it.
//!
//! Upstream: `xe_userptr.c`, `xe_vma_userptr_pin_pages`.

use std::sync::{Arc, Weak};

use gpusvm::{Ctx, GpuSvm, GpuSvmOps, NotifierKey, NotifierLocked, RangeKey, SvmConfig, SvmError};
use hostmm::{EventKind, MmEvent, PagemapId};
use sync::Mutex;
use sync::atomic::AtomicU64;
use sync::rank::mutex;
use units::{GpuRange, GpuVa, HostRange, HostVa, TileId, bytes_of};

use super::bind::{BindError, memory_of};
use super::devmem::Dma;
use super::{CHUNK_SIZES, NOTIFIER_SIZE, Space};
use crate::bo::Shows;
use crate::errno::Errno;
use crate::event::Event;
use crate::patience::Patience;
use crate::pt::build::{self, Access, Segment};
use crate::ranks;
use crate::rules::WhenMet;
use crate::shared::Shared;
use crate::vma::UserMap;

/// What the mirror's invalidations need.
pub(crate) struct UserSpace {
    space: Arc<Space>,
    /// Spans that show host memory.
    spans: Mutex<Vec<(GpuRange, UserMap)>>,
    /// Ranges whose mapping is gone.
    garbage: Mutex<Vec<RangeKey>>,
}

/// The userptrs of one VM.
pub(crate) struct Userptrs {
    svm: Arc<GpuSvm<UserSpace>>,
    space: Arc<UserSpace>,
    has_faults: bool,
    last_id: AtomicU64,
}

impl GpuSvmOps for UserSpace {
    type RangeData = ();

    fn invalidate(&self, locked: &mut NotifierLocked<'_, Self>, notifier: NotifierKey, event: &MmEvent) {
        let touched = locked.ranges_of(notifier, event.range);
        for key in touched {
            // All of a range's pages are unmapped for the device, whatever part of it changes.
            if let Some(range) = locked.range(key).filter(|range| range.pages().valid()) {
                self.unbind_host(range.span());
            }
            locked.unmap_pages(key);
            if matches!(event.kind, EventKind::Unmap | EventKind::Release) {
                locked.set_unmapped(key, event);
                self.garbage.lock().push(key);
            }
        }
    }
}

impl UserSpace {
    /// Nothing translates to that memory any more.
    fn unbind_host(&self, host: HostRange) {
        let spans = self.spans.lock().clone();
        for (span, map) in spans {
            if let Some(part) = map.host_range(span).intersect(host) {
                self.space.unbind(gpu_span(map, part));
            }
        }
    }
}

/// Where `map` shows `host`, a part of what it shows.
fn gpu_span(map: UserMap, host: HostRange) -> GpuRange {
    GpuRange::sized(map.start.add(host.start.offset_from(map.host)), host.len())
}

impl Userptrs {
    /// None yet.
    pub(crate) fn new(shared: &Shared, space: &Arc<Space>, has_faults: bool) -> Result<Self, Errno> {
        let config = SvmConfig {
            window: HostRange::new(HostVa(0), HostVa(1 << shared.gpu.platform.va_bits)),
            notifier_size: NOTIFIER_SIZE,
            chunk_sizes: CHUNK_SIZES,
        };
        let lists = (mutex(ranks::LEAF, Vec::new()), mutex(ranks::GARBAGE, Vec::new()));
        let space = Arc::new(UserSpace { space: space.clone(), spans: lists.0, garbage: lists.1 });
        let dma = Arc::new(Dma::new(shared.gpu.clone()));
        let (mm, pagemaps) = (shared.mm.clone(), shared.pagemaps.clone());
        let ops: Weak<UserSpace> = Arc::downgrade(&space);
        let svm = GpuSvm::new(config, mm, dma, pagemaps, ops, shared.svm_observer.clone())?;
        Ok(Self { svm, space, has_faults, last_id: AtomicU64::new(0) })
    }

    /// A number for a bind.
    pub(crate) fn next_id(&self) -> u64 {
        self.last_id.fetch_add(1) + 1
    }

    /// Whether some span shows a part of `host`.
    pub(crate) fn shows(&self, host: HostRange) -> bool {
        self.space.spans.lock().iter().any(|(span, map)| map.host_range(*span).intersect(host).is_some())
    }

    /// `span` shows what `map` says.
    pub(crate) fn add(&self, span: GpuRange, map: UserMap) {
        self.space.spans.lock().push((span, map));
    }

    /// `span` shows nothing of `map` any more. Its leaves are the caller's to take out first; ranges that no other span shows
    /// go.
    pub(crate) fn cut(&self, span: GpuRange, of: UserMap) {
        let mut gone = Vec::new();
        {
            let mut spans = self.space.spans.lock();
            for (old, map) in std::mem::take(&mut *spans) {
                if map != of {
                    spans.push((old, map));
                    continue;
                }
                gone.extend(old.intersect(span).map(|part| map.host_range(part)));
                spans.extend(old.without(span).map(|part| (part, map)));
            }
        }
        for key in gone.into_iter().flat_map(|host| self.svm.ranges_in(host)) {
            let Some(range) = self.svm.notifier_lock().range(key).map(|range| range.span()) else { continue };
            if !self.shows(range) {
                self.svm.range_remove(key);
            }
        }
    }

    /// The VM ends; the device translates nothing any more.
    pub(crate) fn close(&self) {
        self.svm.fini();
    }

    /// Collects all pages that `span` shows. `EFAULT`: no memory is there; `EPERM`: it may not be written.
    ///
    /// Upstream: `xe_vma_userptr_pin_pages`.
    pub(crate) fn pin(&self, span: GpuRange, map: UserMap, read_only: bool) -> Result<(), Errno> {
        let host = map.host_range(span);
        let end_of = |key| Ok(self.svm.notifier_lock().range(key).ok_or(SvmError::Gone)?.span().end);
        let mut at = host.start;
        while at < host.end {
            at = self.with_pages(at, host, read_only, |key| end_of(key).map(Ok))?;
        }
        Ok(())
    }

    /// Binds all of `span` on `tiles`; fails as [`pin`](Self::pin) does.
    pub(crate) fn bind_all(&self, span: GpuRange, map: UserMap, access: Access, tiles: &[TileId]) -> Result<(), Errno> {
        let mut at = span.start;
        while at < span.end {
            at = self.bind(span, map, at, access, tiles)?.end;
        }
        Ok(())
    }

    /// Binds the range around `at` as far as `span` shows it: which part that is.
    pub(crate) fn bind(
        &self,
        span: GpuRange,
        map: UserMap,
        at: GpuVa,
        access: Access,
        tiles: &[TileId],
    ) -> Result<GpuRange, Errno> {
        let host = map.host_range(span);
        let addr = map.host.add(at.offset_from(map.start));
        self.with_pages(addr, host, !access.write, |key| self.write_leaves(key, host, map, access, tiles))
    }

    /// What a collection accepts, behind so many binds that met pages in VRAM which no leaf can map.
    fn ctx(&self, read_only: bool, met: u32) -> Ctx {
        let gpu = &self.space.space.gpu;
        let rule = &gpu.rules.unfit_vram;
        let stays = rule.userptrs_stay && self.has_faults && (rule.stays)(true, met);
        let owner = stays.then(|| gpu.interconnect.owner());
        let device_granule = if rule.whole_granules { gpu.platform.min_vram_page() } else { 0 };
        Ctx { owner, read_only, allow_mixed: stays, device_granule, ..Ctx::default() }
    }

    /// Brings pages back that could not be bound where they are, unless the rule is that this is refused.
    fn bring_back(&self, range: Option<RangeKey>, why: BindError, met: u32) -> Result<(), Errno> {
        let Space { gpu, asid, .. } = &*self.space.space;
        let rule = &gpu.rules.unfit_vram;
        if why == BindError::Unfit && (rule.when_met)(rule.errno, met) != WhenMet::Evict {
            let span = range.and_then(|key| Some(self.svm.notifier_lock().range(key)?.span().mirror()));
            span.into_iter().for_each(|span| gpu.emit(Event::UnfitVram { asid: *asid, tile: TileId(0), span }));
            return Err(rule.errno);
        }
        range.into_iter().for_each(|key| _ = self.svm.range_evict(key));
        Ok(())
    }

    /// Brings pages back that could not be collected from where they are. Upstream, which takes a userptr's as they come, refuses those of two tiles.
    fn mixed(&self, range: Option<RangeKey>) -> Result<(), Errno> {
        let rule = &self.space.space.gpu.rules.unfit_vram;
        if rule.userptrs_stay && self.has_faults && !rule.whole_granules {
            return Err(Errno::EOPNOTSUPP);
        }
        range.into_iter().for_each(|key| _ = self.svm.range_evict(key));
        Ok(())
    }

    /// Collects the pages of the range around `addr`, a part of `host`, and does `then` with it, again where a race says so.
    fn with_pages<T>(
        &self,
        addr: HostVa,
        host: HostRange,
        read_only: bool,
        then: impl Fn(RangeKey) -> Result<Result<T, BindError>, SvmError>,
    ) -> Result<T, Errno> {
        let (mut patience, mut met) = (Patience::default(), 0);
        loop {
            self.collect();
            let (ctx, mut range) = (self.ctx(read_only, met), None);
            let done = self.svm.range_find_or_insert(addr, host, &ctx).and_then(|key| {
                range = Some(key);
                // Or another server collects pages anew behind the plan of this one, which then looks valid and is not.
                let _held = self.space.space.hold(key);
                self.svm.get_pages(key, &ctx)?;
                then(key)
            });
            match done {
                Ok(Ok(done)) => return Ok(done),
                Ok(Err(BindError::NoMemory)) => return Err(Errno::ENOMEM),
                Ok(Err(unusable)) => {
                    self.bring_back(range, unusable, met)?;
                    met += u32::from(unusable == BindError::Unfit);
                    patience.spend(Errno::EINVAL)?;
                }
                Err(SvmError::Mixed) => {
                    self.mixed(range)?;
                    patience.spend(Errno::EAGAIN)?;
                }
                Err(SvmError::Busy | SvmError::Gone) => patience.spend(Errno::EAGAIN)?,
                Err(SvmError::Fault) if self.has_memory(addr) => patience.spend(Errno::EFAULT)?,
                Err(SvmError::NoMemory) => return Err(Errno::ENOMEM),
                Err(SvmError::Denied) => return Err(Errno::EPERM),
                Err(SvmError::Fault | SvmError::NoVma | SvmError::Io | SvmError::Invalid) => {
                    return Err(Errno::EFAULT);
                }
            }
        }
    }

    /// Something is mapped there: what went wrong was a race.
    fn has_memory(&self, addr: HostVa) -> bool {
        self.svm.mm().vma_lookup(addr).is_some()
    }

    /// Writes a range's leaves, if its pages are still what they were. `Gone`: they are not.
    fn write_leaves(
        &self,
        key: RangeKey,
        host: HostRange,
        map: UserMap,
        access: Access,
        tiles: &[TileId],
    ) -> Result<Result<GpuRange, BindError>, SvmError> {
        let (part, vram, segments) = self.segments(key, host, map).ok_or(SvmError::Gone)?;
        let space = &self.space.space;
        if vram.is_some_and(|vram| !tiles.iter().all(|tile| space.gpu.reaches(*tile, vram))) {
            return Ok(Err(BindError::Unreachable));
        }
        let runs = match build::plan(&segments, access, space.gpu.granule()) {
            Ok(runs) => runs,
            Err(unfit) => return Ok(Err(unfit.into())),
        };
        let staged: Result<Vec<_>, _> = tiles.iter().map(|tile| space.stage(*tile, &runs)).collect();
        let Ok(staged) = staged else { return Ok(Err(BindError::NoMemory)) };
        let locked = self.svm.notifier_lock();
        if !locked.pages_valid(key) {
            return Err(SvmError::Gone);
        }
        for (tile, staged) in tiles.iter().zip(staged) {
            let done = space.commit(*tile, &runs, staged).ok_or(SvmError::Gone)?;
            if done.replaced {
                space.gpu.flush(*tile, space.asid, part);
            }
        }
        Ok(Ok(part))
    }

    /// What a range's pages are for the device, as far as `host` goes, and whose VRAM some are in.
    fn segments(
        &self,
        key: RangeKey,
        host: HostRange,
        map: UserMap,
    ) -> Option<(GpuRange, Option<PagemapId>, Vec<Segment>)> {
        let locked = self.svm.notifier_lock();
        let range = locked.range(key).filter(|range| range.pages().valid())?;
        let part = range.span().intersect(host)?;
        let mut start = range.span().start;
        let pieces = range.pages().dma_addr().iter().filter_map(|chunk| {
            let piece = HostRange::sized(start, bytes_of(chunk.pages()));
            start = piece.end;
            let shown = piece.intersect(part)?;
            let addr = chunk.addr + shown.start.offset_from(piece.start);
            let va = gpu_span(map, shown).start;
            Some(Segment { va, addr, bytes: shown.len(), memory: memory_of(chunk.proto) })
        });
        Some((gpu_span(map, part), range.pages().pagemap(), build::coalesce(pieces)))
    }

    fn collect(&self) {
        let listed = std::mem::take(&mut *self.space.garbage.lock());
        for key in listed {
            let _held = self.space.space.hold(key);
            self.svm.range_remove(key);
        }
    }
}
