//! The engine's traits, each method in a line or a few.

use crate::LiveMm;
use crate::arena::{Arena, MAX_PAGEMAPS};
use crate::sys::access::{self, Fault};
use crate::sys::{mem, uffd::Watch};
use gpusvm::hostmm::{
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
        self.exclude(range);
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
        if matches!(place, Place::Device(_)) {
            self.gate.wait_open();
        }
        self.address(place).map(|base| base + offset as u64).ok_or(AccessError::Fault)
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
        Self::pieces(from, buf.len())
            .try_for_each(|(va, piece)| access::read(va.0, &mut buf[piece]).map_err(|_| AccessError::Fault))
    }

    fn copy_to_user(&self, to: HostVa, bytes: &[u8]) -> Result<(), AccessError> {
        Self::pieces(to, bytes.len())
            .try_for_each(|(va, piece)| access::write(va.0, &bytes[piece]).map_err(|_| AccessError::Fault))
    }
}
