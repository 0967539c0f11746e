//! The engine's traits, each method in a line or a few.

use crate::LiveMm;
use crate::arena::{Arena, MAX_PAGEMAPS};
use crate::sys::access::{self, Fault};
use crate::sys::{mem, uffd::Watch};
use core::ops::Range;
use hostmm::{
    AccessError, AtomicOp, ClaimId, ClaimRequest, Claimed, Destination, DevicePage, EventKind, HostMemory, HostMm,
    HostPage, MmError, NotifierId, NotifierOps, OwnerId, PagemapId, PagemapOps, Place, Seq, Transferred, Vma, Walk,
};
use std::sync::Arc;
use units::{HostFrame, HostRange, HostVa, PAGE_SHIFT, SZ_4K};

impl HostMm for LiveMm {
    fn vma_lookup(&self, addr: HostVa) -> Option<Vma> {
        self.alive().ok()?;
        self.vma_at(addr)
    }

    fn pagemap_insert(&self, id: PagemapId, owner: OwnerId, frames: u64, ops: Arc<dyn PagemapOps>) {
        if id.index() >= MAX_PAGEMAPS {
            return;
        }
        let Ok(range) = mem::map_arena(frames << PAGE_SHIFT) else { return };
        if self.device.register(range, Watch::Missing).is_err() {
            return mem::unmap(range);
        }
        self.own(range);
        let mut map = self.map.lock();
        if map.arenas.len() <= id.index() {
            map.arenas.resize_with(id.index() + 1, || None);
        }
        map.arenas[id.index()] = Some(Arena::new(owner, frames, ops));
        drop(map);
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

    fn walk(&self, walk: &Walk, pages: &mut [HostPage]) -> Result<(), MmError> {
        self.walk_range(walk, pages)
    }

    fn claim(&self, request: &ClaimRequest, out: &mut [Claimed]) -> Result<ClaimId, MmError> {
        self.alive()?;
        self.claim_range(request, EventKind::Migrate(request.owner), out)
    }

    fn claim_device(&self, pages: &[DevicePage], out: &mut [Option<HostVa>]) -> Result<ClaimId, MmError> {
        self.claim_frames(pages, out)
    }

    fn stage(&self, claim: ClaimId, to: &[Destination], frames: &mut [Option<HostFrame>]) -> Result<(), MmError> {
        self.stage_claim(claim, to, frames)
    }

    fn commit(&self, claim: ClaimId, wanted: &[bool], moved: &mut [bool]) {
        if self.alive().is_ok() {
            self.commit_claim(claim, wanted, moved);
        }
    }

    fn finish(&self, claim: ClaimId) {
        if self.alive().is_ok() {
            self.finish_claim(claim);
        }
    }
}

impl LiveMm {
    /// The address of a place, once no event is being taken in; system memory need not wait for that.
    fn reach(&self, place: Place, offset: usize) -> Result<u64, AccessError> {
        if self.alive().is_err() {
            return Err(AccessError::Fault);
        }
        match place {
            Place::Device(_) => self.gate.wait_open(),
            Place::Host(frame) if self.ours.contains(HostVa(frame.0 << PAGE_SHIFT)) => return Err(AccessError::Fault),
            Place::Host(_) => {}
        }
        self.address(place).map(|base| base + offset as u64).ok_or(AccessError::Fault)
    }

    /// Bytes of the program, in pieces inside of pages; a piece of the library's own memory is refused.
    fn pieces(&self, from: HostVa, len: usize) -> impl Iterator<Item = Result<(HostVa, Range<usize>), AccessError>> {
        let mut at = 0;
        core::iter::from_fn(move || {
            let here = from.add(at as u64);
            let bytes = (len - at).min(SZ_4K as usize - here.page_offset());
            let piece = at..at + bytes;
            at += bytes;
            (bytes > 0).then(|| if self.ours.contains(here) { Err(AccessError::Fault) } else { Ok((here, piece)) })
        })
    }

    fn explain(&self, place: Place, fault: Fault) -> AccessError {
        match (place, fault) {
            (Place::Device(page), Fault::Bus) => self.explain_empty(page),
            _ => AccessError::Fault,
        }
    }
}

impl HostMemory for LiveMm {
    fn read(&self, place: Place, offset: usize, buf: &mut [u8]) -> Result<(), AccessError> {
        if offset + buf.len() > SZ_4K as usize {
            return Err(AccessError::Fault);
        }
        let at = self.reach(place, offset)?;
        access::read(at, buf).map_err(|fault| self.explain(place, fault))
    }

    fn write(&self, place: Place, offset: usize, bytes: &[u8]) -> Result<(), AccessError> {
        if offset + bytes.len() > SZ_4K as usize {
            return Err(AccessError::Fault);
        }
        let at = self.reach(place, offset)?;
        access::write(at, bytes).map_err(|fault| self.explain(place, fault))
    }

    fn atomic(&self, place: Place, offset: usize, size: usize, op: AtomicOp) -> Result<u64, AccessError> {
        if !matches!(size, 4 | 8) || !offset.is_multiple_of(size) || offset + size > SZ_4K as usize {
            return Err(AccessError::Fault);
        }
        let at = self.reach(place, offset)?;
        let old = match op {
            AtomicOp::Exchange(value) => access::exchange(at, size, value),
            AtomicOp::Add(value) => access::add(at, size, value),
            AtomicOp::Sub(value) => access::add(at, size, value.wrapping_neg()),
            AtomicOp::CompareExchange { expected, new } => access::compare_exchange(at, size, expected, new),
        };
        old.map_err(|fault| self.explain(place, fault))
    }

    fn transfer(&self, src: Place, dst: Place, done: &mut [Transferred]) {
        if self.alive().is_ok() {
            self.transfer_run(src, dst, done);
        } else {
            done.fill(Transferred::Failed);
        }
    }

    fn copy_from_user(&self, from: HostVa, buf: &mut [u8]) -> Result<(), AccessError> {
        self.pieces(from, buf.len()).try_for_each(|piece| {
            let (va, bytes) = piece?;
            access::read(va.0, &mut buf[bytes]).map_err(|_| AccessError::Fault)
        })
    }

    fn copy_to_user(&self, to: HostVa, bytes: &[u8]) -> Result<(), AccessError> {
        self.pieces(to, bytes.len()).try_for_each(|piece| {
            let (va, part) = piece?;
            access::write(va.0, &bytes[part]).map_err(|_| AccessError::Fault)
        })
    }
}
