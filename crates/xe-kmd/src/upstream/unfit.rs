//! `b=...`: pages in VRAM that no leaf of 64K can map, as upstream meets them, and the remedies that were discussed one by one.
//!
//! Upstream 7.2 leaves whatever it finds in VRAM there; the walk that builds leaves warns of a 4K leaf that silicon would refuse,
//! and its `EINVAL` kills the context, or ends the ioctl. [`UnfitVram::OURS`] is [`NONE_BELOW_64K`] with [`RETRY_ONCE`] behind
//! it, and evicts as often as rounds are left. An atomic on a range below 64K is refused before any of this (defect D6).
//!
//! Userptrs are the one place of upstream that takes VRAM and system memory as they come (`allow_mixed`), and none of the remedies for
//! ranges of mirrors is for them. Not shown: a page that is read-only in VRAM, as behind a fork, is mapped for writing upstream.
//!
//! Upstream: `xe_pt_stage_bind_entry`, `__xe_svm_handle_pagefault`, `xe_vma_userptr_pin_pages`, `xe_svm_unmap_address_range`; the posted
//! patch's hunks for them.

use crate::errno::Errno;
use crate::rules::{UnfitVram, WhenMet};

/// As it is: they are met, warned of and refused.
pub const UPSTREAM: UnfitVram = UnfitVram {
    stays: |_, _| true,
    whole_granules: false,
    evicts_partial: false,
    userptrs_stay: true,
    cuts_by_mark: true,
    errno: Errno::EINVAL,
    when_met: |_, _| WhenMet::Refuse,
    unmaps: false,
    doubles_residency: false,
};

/// As posted: the walk says `ENOSPC`, and the handler evicts and starts again, without a bound, and without asking for
/// atomics any more. Not shown: `ENOSPC` also says that memory is short, which it takes for this.
pub const POSTED: UnfitVram =
    UnfitVram { errno: Errno::ENOSPC, when_met: posted_handler, unmaps: true, doubles_residency: true, ..UPSTREAM };

/// The posted handler alone: it knows its cue by the error's number.
pub fn posted_handler(errno: Errno, _met: u32) -> WhenMet {
    if errno == Errno::ENOSPC { WhenMet::EvictForEver } else { WhenMet::Refuse }
}

/// A range below 64K is collected without an owner: the walk brings its pages back. Moved pages are still met.
pub const NONE_BELOW_64K: UnfitVram = UnfitVram { stays: |is_large, _| is_large, ..UPSTREAM };

/// The garbage collector evicts what a munmap left of a range. What became small otherwise is still met.
pub const EVICT_PARTIAL: UnfitVram = UnfitVram { evicts_partial: true, ..UPSTREAM };

/// The collection refuses VRAM that does not cover aligned granules, so that its caller evicts the range, as it does where
/// system memory and VRAM mix.
pub const GRANULE: UnfitVram = UnfitVram { whole_granules: true, ..UPSTREAM };

/// The walk has an error of its own for them, and the handler one more round, in which the range is collected without an
/// owner.
pub const RETRY_ONCE: UnfitVram = UnfitVram {
    stays: |_, met| met == 0,
    when_met: |_, met| if met == 0 { WhenMet::Evict } else { WhenMet::Refuse },
    ..UPSTREAM
};
