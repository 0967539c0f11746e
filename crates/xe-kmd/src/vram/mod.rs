//! A tile's VRAM: blocks, who owns each, and which was used the longest time ago.
//!
//! A block belongs to an [`Owner`]: an allocation of SVM. Where a request finds no room, the owners of the blocks that were
//! used the longest time ago are asked to give them back. Used means bound for a fault or a prefetch
//! ([`Vram::touch`]): an access that hits a page table is seen by nobody.
//!
//! Locking: one lock a tile, for bookkeeping only; owners are asked without it. The reader class takes it, for
//! [`Vram::free`].
//!
//! Upstream: `xe_ttm_vram_mgr.c`, `ttm_bo_evict_first`, `xe_svm_bo_evict`.

mod buddy;
mod lru;

use std::sync::Arc;

use sync::Mutex;
use sync::rank::mutex;
use units::SZ_2M;

use crate::ranks;
use buddy::Buddy;
use lru::Lru;

/// Times that one request asks owners for room.
const MAX_EVICTIONS: usize = 16;

/// Who has a block.
pub(crate) trait Owner: Send + Sync {
    /// Gives the block at `offset` back by [`Vram::free`], before this returns or soon after; or keeps it, where its
    /// memory cannot go now. Called with no lock held but a VM's and the migrate lock.
    fn evict(&self, offset: u64);
}

/// A block that is in use.
struct Block {
    bytes: u64,
    owner: Arc<dyn Owner>,
}

struct State {
    free: Buddy,
    used: Lru<Block>,
}

/// The VRAM of one tile; all offsets are bytes from its start.
pub(crate) struct Vram {
    state: Mutex<State>,
}

impl Vram {
    /// `size` bytes, in blocks of at least `min` bytes.
    pub(crate) fn new(size: u64, min: u64) -> Self {
        Self { state: mutex(ranks::VRAM, State { free: Buddy::new(size, min), used: Lru::new(size, min) }) }
    }

    /// A block for `owner`; where there is none, those that were used the longest time ago go until there is.
    pub(crate) fn alloc(&self, bytes: u64, owner: &Arc<dyn Owner>) -> Option<u64> {
        for _ in 0..MAX_EVICTIONS {
            if let Some(offset) = self.take(bytes, owner) {
                return Some(offset);
            }
            // One that cannot go now is young again; the next one may.
            self.oldest(bytes).into_iter().for_each(|(offset, owner)| owner.evict(offset));
        }
        self.take(bytes, owner)
    }

    fn take(&self, bytes: u64, owner: &Arc<dyn Owner>) -> Option<u64> {
        let mut state = self.state.lock();
        let offset = state.free.alloc(bytes)?;
        state.used.insert(offset, Block { bytes, owner: owner.clone() });
        Some(offset)
    }

    /// What should go so that `bytes` can be had: the block that was used (or named by this) the longest time ago, and
    /// for a large request its neighbours in the same slot of 2M. They count as young from now on.
    fn oldest(&self, bytes: u64) -> Vec<(u64, Arc<dyn Owner>)> {
        let mut state = self.state.lock();
        let Some(oldest) = state.used.oldest() else { return Vec::new() };
        let slot = oldest / SZ_2M * SZ_2M;
        let span = if bytes < SZ_2M { oldest..oldest + 1 } else { slot..slot + SZ_2M };
        let blocks: Vec<_> = state.used.starts_in(span).map(|(start, block)| (start, block.owner.clone())).collect();
        blocks.iter().for_each(|(start, _)| state.used.touch(*start));
        blocks
    }

    /// The blocks that have a part of the `bytes` bytes at `offset` were used just now. No matter if one is gone.
    pub(crate) fn touch(&self, offset: u64, bytes: u64) {
        let used = &mut self.state.lock().used;
        let mut at = offset;
        while at < offset + bytes {
            let inside = |(start, block): &(u64, &Block)| at < start + block.bytes;
            let Some((start, block)) = used.around(at).filter(inside) else { return };
            at = start + block.bytes;
            used.touch(start);
        }
    }

    /// The block at `offset` is its owner's no more. Reader class.
    pub(crate) fn free(&self, offset: u64) {
        let mut state = self.state.lock();
        let block = state.used.remove(offset);
        debug_assert!(block.is_some(), "a block of VRAM is given back twice: {offset:#x}");
        if let Some(block) = block {
            state.free.free(offset, block.bytes);
        }
    }

    /// Bytes that are allocated.
    pub(crate) fn used(&self) -> u64 {
        self.state.lock().free.used()
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
                self.vram.free(offset);
            }
        }
    }

    fn tenant(vram: &Arc<Vram>, stubborn: bool) -> (Arc<Tenant>, Arc<dyn Owner>) {
        let tenant = Arc::new(Tenant { vram: vram.clone(), stubborn, asked: Mutex::new(Vec::new()) });
        (tenant.clone(), tenant)
    }

    #[test]
    fn the_owner_of_what_was_used_the_longest_time_ago_is_asked_first() {
        let vram = Arc::new(Vram::new(3 * SZ_2M, SZ_64K));
        let ((svm, svm_owner), (bo, bo_owner)) = (tenant(&vram, false), tenant(&vram, false));
        let [a, b] = [(); 2].map(|()| vram.alloc(SZ_2M, &svm_owner).unwrap());
        let c = vram.alloc(SZ_2M, &bo_owner).unwrap();
        vram.touch(a + SZ_64K, SZ_64K);
        assert_eq!(vram.alloc(SZ_2M, &bo_owner), Some(b), "a was given first, and used last");
        assert_eq!((&svm.asked.lock()[..], &bo.asked.lock()[..]), (&[b][..], &[][..]));
        assert_eq!(vram.alloc(SZ_2M, &svm_owner), Some(c));
        assert_eq!(bo.asked.lock()[..], [c]);
    }

    #[test]
    fn a_span_touches_all_of_its_blocks_and_one_that_stays_is_passed_over() {
        let vram = Arc::new(Vram::new(4 * SZ_64K, SZ_64K));
        let ((stays, stays_owner), (goes, goes_owner)) = (tenant(&vram, true), tenant(&vram, false));
        let first = vram.alloc(SZ_64K, &stays_owner).unwrap();
        let rest: Vec<_> = (0..3).map(|_| vram.alloc(SZ_64K, &goes_owner).unwrap()).collect();
        vram.touch(rest[0] + 0x1000, SZ_64K);
        assert_eq!(vram.alloc(SZ_64K, &goes_owner), Some(rest[2]));
        assert_eq!((&stays.asked.lock()[..], &goes.asked.lock()[..]), (&[first][..], &rest[2..]));
        assert_eq!(vram.used(), 4 * SZ_64K);
    }

    #[test]
    fn a_large_request_asks_for_a_whole_slot() {
        let vram = Arc::new(Vram::new(SZ_2M, SZ_64K));
        let (owner, dyn_owner) = tenant(&vram, false);
        (0..32).for_each(|_| _ = vram.alloc(SZ_64K, &dyn_owner).unwrap());
        assert_eq!(vram.alloc(SZ_2M, &dyn_owner), Some(0));
        assert_eq!((owner.asked.lock().len(), vram.used()), (32, SZ_2M));
    }
}
