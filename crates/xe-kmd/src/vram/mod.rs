//! A tile's VRAM: blocks, who owns each, and which was used the longest time ago.
//!
//! A block belongs to an [`Owner`]: an allocation of SVM, or a BO. A part of it can be given back alone; what is left are
//! blocks then. Where a request finds no room, the owners of the blocks that were used the longest time ago are asked to give
//! them back. Used means bound for a fault or a prefetch ([`Vram::touch`]): an access that hits a page table is seen by nobody.
//!
//! Other processes may use the same VRAM: all blocks are charged to a [`Budget`]. The process whose memory is the oldest
//! evicts: this one, or another that is asked; [`Vram::evict`] is what another asks for.
//!
//! A request for a VM may spare what that VM shows: its blocks are passed over, and stay as old as they are.
//!
//! Locking: one lock a tile, for bookkeeping only; owners and other processes are asked without it. The reader class takes
//! it, for [`Vram::free`].
//!
//! Upstream: `xe_ttm_vram_mgr.c`, `ttm_bo_evict_first`, `xe_svm_bo_evict`.

mod buddy;
mod lru;

use std::ops::Range;
use std::sync::Arc;

use sync::Mutex;
use sync::rank::mutex;
use sync::time::now_ns;
use units::{SZ_2M, TileId};
use xe_spec::fault::Asid;

use crate::budget::{Budget, BytesId, Entry, Room};
use crate::ranks;
use buddy::{Buddy, aligned};
use lru::Lru;

/// Times that one request for a block asks owners for room.
const MAX_EVICTIONS: usize = 16;

/// The same for a request of so many bytes: each time frees 2M at most.
const fn evictions(bytes: u64) -> usize {
    MAX_EVICTIONS + (bytes / SZ_2M) as usize
}

/// Why a request for VRAM got none.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum NoRoom {
    /// There is not so much, or nobody who has some can be asked for it.
    Full,
    /// There is, but what was to go was busy: it may go in a moment.
    Busy,
}

/// Who has a block.
pub(crate) trait Owner: Send + Sync {
    /// Gives the block at `offset` back by [`Vram::free`], before this returns or soon after; or keeps it, where its
    /// memory cannot go now. Called with no lock held but a VM's and the migrate lock.
    fn evict(&self, offset: u64);

    /// Whether it is that VM's: made for it, or shown by it. Called likewise.
    fn is_of(&self, _: Asid) -> bool {
        false
    }
}

/// A block that is in use.
struct Block {
    bytes: u64,
    owner: Arc<dyn Owner>,
    /// When it was used last.
    used_ns: u64,
}

struct State {
    free: Buddy,
    used: Lru<Block>,
    /// What the budget was told of the oldest block.
    oldest_ns: u64,
}

/// What is said of a block without the lock: its start, when it was used, its owner.
fn named((start, block): (u64, &Block)) -> (u64, u64, Arc<dyn Owner>) {
    (start, block.used_ns, block.owner.clone())
}

/// Whether what somebody has may go for a request that spares a VM.
fn goes(owner: &Arc<dyn Owner>, spare: Option<Asid>) -> bool {
    spare.is_none_or(|vm| !owner.is_of(vm))
}

/// The VRAM of one tile; all offsets are bytes from its start.
pub(crate) struct Vram {
    tile: TileId,
    budget: Arc<dyn Budget>,
    state: Mutex<State>,
}

impl Vram {
    /// `size` bytes of a tile, in blocks of at least `min` bytes.
    pub(crate) fn new(tile: TileId, size: u64, min: u64, budget: Arc<dyn Budget>) -> Self {
        let state = State { free: Buddy::new(size, min), used: Lru::new(size, min), oldest_ns: u64::MAX };
        Self { tile, budget, state: mutex(ranks::VRAM, state) }
    }

    /// A block for `owner`; where there is none, those that were used the longest time ago go until there is, whichever
    /// process has them.
    pub(crate) fn alloc(&self, bytes: u64, owner: &Arc<dyn Owner>) -> Result<u64, NoRoom> {
        let bytes = self.state.lock().free.rounded(bytes).ok_or(NoRoom::Full)?;
        self.charge(bytes, None, None)?;
        self.take(bytes, owner, None)
    }

    /// Blocks of at most `largest` bytes for all of `bytes`, a multiple of the smallest block, or none: each with its bytes. All
    /// are charged at once, so that two who each have a part do not wait for the rest of the other; as those of a buffer that
    /// processes share, where it has an `id`. What is of `spare` does not go for them.
    pub(crate) fn alloc_blocks(
        &self,
        bytes: u64,
        largest: u64,
        owner: &Arc<dyn Owner>,
        id: Option<BytesId>,
        spare: Option<Asid>,
    ) -> Result<(Vec<(u64, u64)>, Entry), NoRoom> {
        let entry = self.charge(bytes, id, spare)?;
        let (mut blocks, mut rest) = (Vec::new(), bytes);
        while rest > 0 {
            let block = (1 << rest.ilog2()).min(largest);
            rest -= block;
            match self.take(block, owner, spare) {
                Ok(offset) => blocks.push((offset, block)),
                Err(why) => {
                    self.leave(entry);
                    self.budget.uncharge(self.tile, rest);
                    blocks.iter().for_each(|(offset, bytes)| self.free(*offset, *bytes));
                    return Err(why);
                }
            }
        }
        Ok((blocks, entry))
    }

    /// A buffer that has so many bytes of it is one that processes share from now on.
    pub(crate) fn enter(&self, bytes: u64, id: BytesId) -> Entry {
        self.budget.enter(self.tile, bytes, id)
    }

    /// The blocks of such a buffer are about to be given back.
    pub(crate) fn leave(&self, entry: Entry) {
        self.budget.leave(entry);
    }

    /// Has owners give back `bytes` bytes, as far as they can, because another process needs them.
    pub(crate) fn evict(&self, bytes: u64) {
        let enough = self.used().saturating_sub(bytes);
        for _ in 0..evictions(bytes) {
            if self.used() <= enough || !self.evict_oldest(bytes, None) {
                return;
            }
        }
    }

    /// Charges so many bytes to this process; where there are not so many left, the oldest memory goes, whoever has it.
    fn charge(&self, bytes: u64, id: Option<BytesId>, spare: Option<Asid>) -> Result<Entry, NoRoom> {
        let try_charge = || match id {
            Some(id) => self.budget.try_charge_buffer(self.tile, bytes, id),
            None => self.budget.try_charge(self.tile, bytes).then_some(Entry::NONE),
        };
        let mut why = NoRoom::Full;
        for _ in 0..evictions(bytes) {
            if let Some(entry) = try_charge() {
                return Ok(entry);
            }
            let oldest_ns = self.oldest(spare).map_or(u64::MAX, |(_, used_ns)| used_ns);
            // Ours may be gone by then: another process asked for it meanwhile.
            let asked =
                self.budget.make_room(self.tile, bytes, oldest_ns) == Room::Theirs || self.evict_oldest(bytes, spare);
            why = if asked { NoRoom::Busy } else { NoRoom::Full };
        }
        try_charge().ok_or(why)
    }

    /// A block of bytes that were charged; where there is no such run of addresses, the oldest of this process's goes. Else
    /// they are charged no more.
    fn take(&self, bytes: u64, owner: &Arc<dyn Owner>, spare: Option<Asid>) -> Result<u64, NoRoom> {
        let mut why = NoRoom::Busy;
        for _ in 0..=MAX_EVICTIONS {
            if let Some(offset) = self.try_take(bytes, owner) {
                return Ok(offset);
            }
            if !self.evict_oldest(bytes, spare) {
                why = NoRoom::Full;
                break;
            }
        }
        self.budget.uncharge(self.tile, bytes);
        Err(why)
    }

    fn try_take(&self, bytes: u64, owner: &Arc<dyn Owner>) -> Option<u64> {
        let mut state = self.state.lock();
        let offset = state.free.alloc(bytes)?;
        state.used.insert(offset, Block { bytes, owner: owner.clone(), used_ns: now_ns() });
        self.tell_age(&mut state);
        Some(offset)
    }

    /// Asks the owners of the oldest memory to give it back: of the block that was used (or named by this) the longest time ago,
    /// and for a large request of its neighbours in the same slot of 2M. False where there is none.
    fn evict_oldest(&self, bytes: u64, spare: Option<Asid>) -> bool {
        let Some((oldest, _)) = self.oldest(spare) else { return false };
        let slot = oldest / SZ_2M * SZ_2M;
        let span = if bytes < SZ_2M { oldest..oldest + 1 } else { slot..slot + SZ_2M };
        let mut blocks: Vec<_> = self.state.lock().used.starts_in(span).map(named).collect();
        blocks.retain(|(.., owner)| goes(owner, spare));
        // One that cannot go now is young from now on; the next one may.
        blocks.iter().for_each(|(start, ..)| self.touch(*start, 1));
        blocks.iter().for_each(|(start, _, owner)| owner.evict(*start));
        true
    }

    /// The block that was used the longest time ago, and when; of those that do not stay for `spare`.
    fn oldest(&self, spare: Option<Asid>) -> Option<(u64, u64)> {
        let by_age = |count| -> Vec<_> { self.state.lock().used.by_age().take(count).map(named).collect() };
        let blocks = by_age(if spare.is_some() { usize::MAX } else { 1 });
        blocks.into_iter().find(|(.., owner)| goes(owner, spare)).map(|(start, used_ns, _)| (start, used_ns))
    }

    /// Tells the budget how old the oldest block is, where that has changed.
    fn tell_age(&self, state: &mut State) {
        let oldest = state.used.oldest().and_then(|start| state.used.get(start));
        let oldest_ns = oldest.map_or(u64::MAX, |block| block.used_ns);
        if std::mem::replace(&mut state.oldest_ns, oldest_ns) != oldest_ns {
            self.budget.note_oldest(self.tile, oldest_ns);
        }
    }

    /// The blocks that have a part of the `bytes` bytes at `offset` were used just now. No matter if one is gone.
    pub(crate) fn touch(&self, offset: u64, bytes: u64) {
        let mut state = self.state.lock();
        let (mut at, now) = (offset, now_ns());
        while at < offset + bytes {
            let Some(block) = state.block_at(at) else { break };
            at = block.end;
            state.touch(block.start, now);
        }
        self.tell_age(&mut state);
    }

    /// The `bytes` bytes at `offset` are their owner's no more: a block, several, or parts of them. Reader class.
    pub(crate) fn free(&self, offset: u64, bytes: u64) {
        let mut state = self.state.lock();
        let end = offset + bytes.next_multiple_of(state.free.min());
        let mut at = offset;
        while at < end {
            let Some(block) = state.block_at(at) else {
                debug_assert!(false, "a block of VRAM is given back twice: {at:#x}");
                break;
            };
            let part = at..end.min(block.end);
            at = part.end;
            state.cut(block, part);
        }
        self.tell_age(&mut state);
        self.budget.uncharge(self.tile, at - offset);
    }

    /// Bytes that are allocated, by this process.
    pub(crate) fn used(&self) -> u64 {
        self.state.lock().free.used()
    }

    /// Bytes that are allocated, by whomever.
    pub(crate) fn used_by_all(&self) -> u64 {
        self.used() + self.budget.used_by_others(self.tile)
    }
}

impl State {
    /// The block that has this byte.
    fn block_at(&self, at: u64) -> Option<Range<u64>> {
        let (start, block) = self.used.around(at)?;
        Some(start..start + block.bytes).filter(|block| block.contains(&at))
    }

    /// Takes a part out of a block. What is left of it are blocks as old as it was.
    fn cut(&mut self, block: Range<u64>, part: Range<u64>) {
        for rest in aligned(block.start..part.start).chain(aligned(part.end..block.end)) {
            let Some(whole) = self.used.get_mut(block.start) else { return };
            let bytes = rest.end - rest.start;
            if rest.start == block.start {
                whole.bytes = bytes;
            } else {
                let of = Block { bytes, owner: whole.owner.clone(), used_ns: whole.used_ns };
                self.used.insert_beside(block.start, rest.start, of);
            }
        }
        if block.start == part.start {
            self.used.remove(block.start);
        }
        aligned(part).for_each(|free| self.free.free(free.start, free.end - free.start));
    }

    fn touch(&mut self, start: u64, now: u64) {
        self.used.touch(start);
        if let Some(block) = self.used.get_mut(start) {
            block.used_ns = now;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use units::SZ_64K;

    /// Gives back what it is asked for, unless it is stubborn.
    struct Tenant {
        vram: Arc<Vram>,
        stubborn: bool,
        asked: Mutex<Vec<u64>>,
    }

    impl Owner for Tenant {
        fn evict(&self, offset: u64) {
            self.asked.lock().push(offset);
            if !self.stubborn {
                let block = self.vram.state.lock().block_at(offset);
                block.into_iter().for_each(|block| self.vram.free(block.start, block.end - block.start));
            }
        }
    }

    fn alone(size: u64) -> Arc<Vram> {
        Arc::new(Vram::new(TileId(0), size, SZ_64K, Arc::new(crate::budget::Alone::default())))
    }

    fn tenant(vram: &Arc<Vram>, stubborn: bool) -> (Arc<Tenant>, Arc<dyn Owner>) {
        let tenant = Arc::new(Tenant { vram: vram.clone(), stubborn, asked: Mutex::new(Vec::new()) });
        (tenant.clone(), tenant)
    }

    #[test]
    fn the_owner_of_what_was_used_the_longest_time_ago_is_asked_first() {
        let vram = alone(3 * SZ_2M);
        let ((svm, svm_owner), (bo, bo_owner)) = (tenant(&vram, false), tenant(&vram, false));
        let [a, b] = [(); 2].map(|()| vram.alloc(SZ_2M, &svm_owner).unwrap());
        let c = vram.alloc(SZ_2M, &bo_owner).unwrap();
        vram.touch(a + SZ_64K, SZ_64K);
        assert_eq!(vram.alloc(SZ_2M, &bo_owner), Ok(b), "a was given first, and used last");
        assert_eq!((&svm.asked.lock()[..], &bo.asked.lock()[..]), (&[b][..], &[][..]));
        assert_eq!(vram.alloc(SZ_2M, &svm_owner), Ok(c));
        assert_eq!(bo.asked.lock()[..], [c]);
    }

    #[test]
    fn a_span_touches_all_of_its_blocks_and_one_that_stays_is_passed_over() {
        let vram = alone(4 * SZ_64K);
        let ((stays, stays_owner), (goes, goes_owner)) = (tenant(&vram, true), tenant(&vram, false));
        let first = vram.alloc(SZ_64K, &stays_owner).unwrap();
        let rest: Vec<_> = (0..3).map(|_| vram.alloc(SZ_64K, &goes_owner).unwrap()).collect();
        vram.touch(rest[0] + 0x1000, SZ_64K);
        assert_eq!(vram.alloc(SZ_64K, &goes_owner), Ok(rest[2]));
        assert_eq!((&stays.asked.lock()[..], &goes.asked.lock()[..]), (&[first][..], &rest[2..]));
        assert_eq!(vram.used(), 4 * SZ_64K);
    }

    #[test]
    fn a_large_request_asks_for_a_whole_slot() {
        let vram = alone(SZ_2M);
        let (owner, dyn_owner) = tenant(&vram, false);
        (0..32).for_each(|_| _ = vram.alloc(SZ_64K, &dyn_owner).unwrap());
        assert_eq!(vram.alloc(SZ_2M, &dyn_owner), Ok(0));
        assert_eq!((owner.asked.lock().len(), vram.used()), (32, SZ_2M));
    }

    #[test]
    fn a_part_is_free_at_once_and_the_rest_as_old_as_it_was() {
        let vram = alone(2 * SZ_2M);
        let (owner, dyn_owner) = tenant(&vram, false);
        let [old, young] = [(); 2].map(|()| vram.alloc(SZ_2M, &dyn_owner).unwrap());
        vram.free(old + 3 * SZ_64K, 4 * SZ_64K);
        assert_eq!(vram.used(), 2 * SZ_2M - 4 * SZ_64K);
        vram.touch(young, SZ_2M);
        assert_eq!(vram.alloc(2 * SZ_64K, &dyn_owner), Ok(old + 4 * SZ_64K));
        assert_eq!(owner.asked.lock()[..], []);
        vram.free(old + 4 * SZ_64K, 2 * SZ_64K);
        assert_eq!(vram.alloc(SZ_2M, &dyn_owner), Ok(old));
        let parts = [0, 2, 7, 8, 16].map(|n| old + n * SZ_64K);
        assert_eq!(owner.asked.lock()[..], parts, "all that is left in the slot of the oldest");
        vram.free(old, SZ_2M);
        vram.free(young, SZ_2M);
        assert_eq!(vram.used(), 0);
    }

    /// Other processes have the rest: so much is left, and each request to them gives so much.
    struct Tight {
        left: Mutex<u64>,
        gives: u64,
        /// The ages with which they were asked.
        asked: Mutex<Vec<u64>>,
        oldest_ns: Mutex<u64>,
    }

    impl Budget for Tight {
        fn try_charge(&self, _: TileId, bytes: u64) -> bool {
            let mut left = self.left.lock();
            let fits = *left >= bytes;
            *left -= if fits { bytes } else { 0 };
            fits
        }
        fn uncharge(&self, _: TileId, bytes: u64) {
            *self.left.lock() += bytes;
        }
        fn note_oldest(&self, _: TileId, used_ns: u64) {
            *self.oldest_ns.lock() = used_ns;
        }
        fn make_room(&self, _: TileId, _: u64, oldest_ns: u64) -> Room {
            self.asked.lock().push(oldest_ns);
            *self.left.lock() += self.gives;
            if self.gives > 0 { Room::Theirs } else { Room::Ours }
        }
        fn used_by_others(&self, _: TileId) -> u64 {
            SZ_64K
        }
        fn next_client(&self) -> u64 {
            0
        }
    }

    fn tight(left: u64, gives: u64) -> (Arc<Tight>, Arc<Vram>) {
        let (left, asked, oldest_ns) = (Mutex::new(left), Mutex::new(Vec::new()), Mutex::new(u64::MAX));
        let budget = Arc::new(Tight { left, gives, asked, oldest_ns });
        (budget.clone(), Arc::new(Vram::new(TileId(0), 8 * SZ_2M, SZ_64K, budget)))
    }

    #[test]
    fn what_others_have_they_are_asked_for_and_what_is_taken_is_charged() {
        let (budget, vram) = tight(SZ_2M, SZ_2M);
        let (owner, dyn_owner) = tenant(&vram, false);
        let first = vram.alloc(SZ_2M, &dyn_owner).unwrap();
        let age = *budget.oldest_ns.lock();
        assert!(age != u64::MAX && budget.asked.lock().is_empty());
        let blocks = vram.alloc_blocks(2 * SZ_2M + SZ_64K, SZ_2M, &dyn_owner, None, None).unwrap().0;
        assert_eq!(blocks.iter().map(|(_, bytes)| *bytes).collect::<Vec<_>>(), [SZ_2M, SZ_2M, SZ_64K]);
        assert_eq!((&budget.asked.lock()[..], &owner.asked.lock()[..]), (&[age; 3][..], &[][..]));
        vram.touch(first, SZ_2M);
        assert!(*budget.oldest_ns.lock() > age);
        assert_eq!(vram.used_by_all(), 3 * SZ_2M + 2 * SZ_64K);
        vram.free(first, SZ_2M);
        blocks.iter().for_each(|(offset, bytes)| vram.free(*offset, *bytes));
        assert_eq!((*budget.left.lock(), *budget.oldest_ns.lock(), vram.used()), (4 * SZ_2M, u64::MAX, 0));
    }

    #[test]
    fn where_others_give_nothing_the_oldest_of_ours_goes_and_a_failure_charges_nothing() {
        let (budget, vram) = tight(2 * SZ_2M, 0);
        let (owner, dyn_owner) = tenant(&vram, false);
        let [a, b] = [(); 2].map(|()| vram.alloc(SZ_2M, &dyn_owner).unwrap());
        let c = vram.alloc(SZ_2M, &dyn_owner).unwrap();
        assert_eq!(owner.asked.lock()[..], [a]);
        let (_, stubborn) = tenant(&vram, true);
        [b, c].into_iter().for_each(|block| vram.free(block, SZ_2M));
        let stays = vram.alloc(SZ_2M, &stubborn).unwrap();
        assert_eq!(
            (vram.alloc_blocks(2 * SZ_2M, SZ_2M, &dyn_owner, None, None), *budget.left.lock()),
            (Err(NoRoom::Busy), SZ_2M)
        );
        vram.evict(SZ_2M);
        assert_eq!(vram.used(), SZ_2M);
        vram.free(stays, SZ_2M);
        let gone = [(); 2].map(|()| vram.alloc(SZ_2M, &dyn_owner).unwrap());
        vram.evict(SZ_2M + SZ_64K);
        assert_eq!((vram.used(), *budget.left.lock(), gone.len()), (0, 2 * SZ_2M, 2), "as much as was asked for");
    }
}
