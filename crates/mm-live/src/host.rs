//! The joint's traits, each method in a line or a few.

use crate::LiveMm;
use crate::books::{Arena, Frame, MAX_PAGEMAPS};
use crate::kernel::{Descriptor, Fault, Watch};
use crate::objects;
use core::ops::Range;
use hostmm::{
    AccessError, AtomicOp, ClaimRequest, Claimed, DevicePage, DeviceRun, EventKind, HostMemory, HostMm, Migration,
    MmError, NotifierId, NotifierOps, OwnerId, PagemapId, PagemapOps, Place, Seq, Vma, Walk, WalkRun,
};
use std::sync::Arc;
use units::{HostFrame, HostRange, HostVa, Outcome, PAGE_SHIFT, Report, SZ_4K, bytes_of};

impl HostMm for LiveMm {
    fn next_vma(&self, addr: HostVa) -> Option<Vma> {
        self.alive().ok()?;
        self.vma_from(addr)
    }

    fn vma_part(&self, addr: HostVa) -> Option<Vma> {
        self.alive().ok()?;
        self.single_vma_at(addr)
    }

    fn pagemap_insert(&self, id: PagemapId, owner: OwnerId, frames: u64, ops: Arc<dyn PagemapOps>) {
        if id.index() >= MAX_PAGEMAPS {
            return;
        }
        let range = match self.kernel.map_arena(frames << PAGE_SHIFT) {
            Ok(range) => range,
            Err(errno) => return self.unplaced.store(errno.0 as u32),
        };
        if let Err(errno) = self.kernel.register(Descriptor::Device, range, Watch::Missing) {
            self.unplaced.store(errno.0 as u32);
            return self.kernel.unmap_arena(range);
        }
        self.own(range);
        self.add_homes(id, frames);
        let mut books = self.books.lock();
        if books.arenas.len() <= id.index() {
            books.arenas.resize_with(id.index() + 1, || None);
        }
        books.arenas[id.index()] = Some(Arena::new(owner, frames, ops));
        drop(books);
        self.places.set(id, range, frames);
    }

    fn notifier_insert(&self, range: HostRange, ops: Arc<dyn NotifierOps>) -> Result<NotifierId, MmError> {
        self.alive()?;
        self.notifiers.insert(range, ops)
    }

    fn notifier_remove(&self, id: NotifierId) {
        if self.alive().is_ok() {
            self.notifiers.remove(id);
        }
    }

    fn read_begin(&self, id: NotifierId) -> Seq {
        if self.alive().is_err() { Seq(0) } else { self.notifiers.read_begin(id) }
    }

    fn read_retry(&self, id: NotifierId, seq: Seq) -> bool {
        self.alive().is_err() || self.notifiers.read_retry(id, seq)
    }

    fn walk(&self, walk: &Walk, runs: &mut Vec<WalkRun>) -> Result<(), MmError> {
        self.walk_range(walk, runs)
    }

    fn claim(&self, request: &ClaimRequest, migration: &mut Migration) -> Result<Claimed, MmError> {
        self.alive()?;
        self.claim_range(request, EventKind::Migrate(request.owner), migration)
    }

    fn claim_device(&self, pages: &[DeviceRun], migration: &mut Migration) -> Result<(), MmError> {
        self.claim_frames(pages, migration)
    }

    fn stage(&self, migration: &mut Migration) -> Result<(), MmError> {
        self.stage_claim(migration)
    }

    fn commit(&self, migration: &mut Migration) {
        if self.alive().is_ok() {
            self.commit_claim(migration);
        } else {
            migration.parts.iter_mut().for_each(|part| part.outcome = Outcome::Failed);
        }
    }

    fn finish(&self, migration: &mut Migration) {
        if self.alive().is_ok() {
            self.finish_claim(migration);
        }
    }
}

impl LiveMm {
    /// The address of a place, once no event is being taken in; system memory need not wait for that.
    fn reach(&self, place: Place, offset: usize, len: usize) -> Result<HostVa, AccessError> {
        if self.alive().is_err() || offset + len > SZ_4K as usize {
            return Err(AccessError::Fault);
        }
        match place {
            Place::Device(_) => self.wait_open(),
            Place::Host(frame) if self.ours.contains(HostVa(frame.0 << PAGE_SHIFT)) => return Err(AccessError::Fault),
            Place::Host(_) => {}
        }
        self.address(place).map(|base| base.add(offset as u64)).ok_or(AccessError::Fault)
    }

    /// The address of a run of VRAM or of an object; `None` where it is neither, or not all of it.
    fn never_blocks(&self, first: Place, pages: usize) -> Option<HostVa> {
        let reach = |page: usize| match first.add(page as u64) {
            Place::Host(frame) if objects::address(frame).is_none() => None,
            place => self.reach(place, 0, SZ_4K as usize).ok(),
        };
        let (start, last) = (reach(0)?, reach(pages.checked_sub(1)?)?);
        (start.add(bytes_of(pages - 1)) == last).then_some(start)
    }

    /// Bytes of the program, in pieces inside of pages; a piece of the library's own memory is refused.
    fn pieces(&self, from: HostVa, len: usize) -> impl Iterator<Item = Result<(HostVa, Range<usize>), AccessError>> {
        let mut at = 0;
        core::iter::from_fn(move || {
            let here = HostVa(from.0.wrapping_add(at as u64));
            let bytes = (len - at).min(SZ_4K as usize - here.page_offset());
            let piece = at..at + bytes;
            at += bytes;
            (bytes > 0).then(|| if self.ours.contains(here) { Err(AccessError::Fault) } else { Ok((here, piece)) })
        })
    }

    pub(crate) fn explain(&self, place: Place, fault: Fault) -> AccessError {
        match (place, fault) {
            (Place::Device(page), Fault::Bus) => self.explain_empty(page),
            _ => AccessError::Fault,
        }
    }

    /// Why a frame is empty: an event emptied it of which not all notifiers have been called, its page was brought home from
    /// outside, the kernel took back what the program had freed by MADV_FREE, or the translation is stale. An access in flight holds up the
    /// notifiers, so the frame cannot be free again meanwhile.
    fn explain_empty(&self, page: DevicePage) -> AccessError {
        let is_cancelled = || self.books.lock().frame(page) == Some(Frame::Cancelled);
        if self.has_rescued() || is_cancelled() {
            self.counters.notified_late.add(1);
            AccessError::Again
        } else if self.refill(page) || is_cancelled() {
            AccessError::Again
        } else {
            self.counters.stale.add(1);
            AccessError::Empty
        }
    }
}

impl HostMemory for LiveMm {
    fn read(&self, place: Place, offset: usize, buf: &mut [u8]) -> Result<(), AccessError> {
        let at = self.reach(place, offset, buf.len())?;
        self.kernel.read(at, buf).map_err(|fault| self.explain(place, fault))
    }

    fn write(&self, place: Place, offset: usize, bytes: &[u8]) -> Result<(), AccessError> {
        let at = self.reach(place, offset, bytes.len())?;
        self.kernel.write(at, bytes).map_err(|fault| self.explain(place, fault))
    }

    fn stream(&self, place: Place, page: &[u8]) -> Result<(), AccessError> {
        let at = self.reach(place, 0, page.len())?;
        self.kernel.stream(at, page).map_err(|fault| self.explain(place, fault))
    }

    fn stream_pages(&self, from: Place, to: Place, pages: usize) -> usize {
        let (Some(src), Some(dst)) = (self.never_blocks(from, pages), self.never_blocks(to, pages)) else { return 0 };
        let streams =
            |page: &usize| self.kernel.stream_page(dst.add(bytes_of(*page)), src.add(bytes_of(*page))).is_ok();
        (0..pages).take_while(streams).count()
    }

    fn drain(&self) {
        self.kernel.drain();
    }

    fn atomic(&self, place: Place, offset: usize, size: usize, op: AtomicOp) -> Result<u64, AccessError> {
        if !matches!(size, 4 | 8) || !offset.is_multiple_of(size) {
            return Err(AccessError::Fault);
        }
        let at = self.reach(place, offset, size)?;
        self.kernel.atomic(at, size, op).map_err(|fault| self.explain(place, fault))
    }

    fn transfer(&self, src: Place, dst: Place, pages: usize, report: &mut Report<'_>) {
        if self.alive().is_ok() {
            self.transfer_run(src, dst, pages, report);
        } else {
            report(pages, Outcome::Failed);
        }
    }

    fn object_create(&self, pages: u64, label: u64) -> Option<HostFrame> {
        self.create_object(pages, label)
    }

    fn object_purge(&self, first: HostFrame, pages: u64) {
        self.purge_object(first, pages);
    }

    fn object_destroy(&self, first: HostFrame, pages: u64) {
        self.destroy_object(first, pages);
    }

    fn copy_from_user(&self, from: HostVa, buf: &mut [u8]) -> Result<(), AccessError> {
        self.pieces(from, buf.len()).try_for_each(|piece| {
            let (va, bytes) = piece?;
            self.kernel.read(va, &mut buf[bytes]).map_err(|_| AccessError::Fault)
        })
    }

    fn copy_to_user(&self, to: HostVa, bytes: &[u8]) -> Result<(), AccessError> {
        self.pieces(to, bytes.len()).try_for_each(|piece| {
            let (va, part) = piece?;
            self.kernel.write(va, &bytes[part]).map_err(|_| AccessError::Fault)
        })
    }
}
