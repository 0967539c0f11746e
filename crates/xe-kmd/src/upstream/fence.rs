//! `c=upstream`, `c=posted` and `c=one-queue`: what a bind without work for page tables signals behind.
//!
//! The default queues of a VM, one a tile, are in no list of each other; those of a queue that a program made are. So who
//! collects along the list finds tile 0 only, for the default queue.
//!
//! Upstream: `xe_sync_in_fence_get` in `xe_sync.c`; the posted patch's hunk for it; what is merged for 7.4.

use crate::rules::{Rules, SLOTS_OF_A_TILE};

/// Slots are counted by tile and filled along the list: of the default queue's, those of the other tiles stay empty.
pub fn counted_by_tile(tiles: usize, is_default: bool) -> Vec<Option<usize>> {
    let mut slots = posted(tiles, is_default);
    slots.resize(SLOTS_OF_A_TILE * tiles, None);
    slots
}

/// Slots are counted along the list, too: there is no hole, but nothing waits for the default queues of the other tiles.
pub fn posted(tiles: usize, is_default: bool) -> Vec<Option<usize>> {
    let listed = if is_default { 1 } else { tiles };
    (0..listed).flat_map(|tile| [Some(tile); SLOTS_OF_A_TILE]).collect()
}

/// A bind queue is one queue, whose jobs cross tiles: one loop over it counts and fills, so there is nothing to miscount. What
/// one tile is slow at, the others wait for.
pub fn one_queue(rules: Rules) -> Rules {
    Rules { bind_lines: |_| 1, bind_fence_slots: |_, _| vec![Some(0); SLOTS_OF_A_TILE], ..rules }
}
