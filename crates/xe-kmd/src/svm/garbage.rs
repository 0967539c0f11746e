//! Ranges whose mapping is gone: unbound and removed, before anything else looks at ranges.
//!
//! A notifier cannot remove a range (it runs in reader class), so it lists it. The list is emptied at the head
//! of every fault, bind and advice; there is no worker: a range that nobody asks after only takes a little memory.
//!
//! Not every host tells of every munmap (userfaultfd does not where nothing is in VRAM, nor does a wrapper where libc unmaps
//! by itself). Ranges of such memory are found by looking: a few with every so many faults ([`Sweep`]), and all of them where page tables run out.
//!
//! Locking: the VM's lock is held; takes the notifier lock and below.
//!
//! What was advised of memory goes with it, where its mirror was bound so (MADVISE_AUTORESET): for all of the range, as
//! upstream has it, though only a part of it may be gone.
//!
//! Upstream: `xe_svm_garbage_collector`, `xe_svm_range_set_default_attr`, `xe_svm_flush`.

use gpusvm::RangeKey;
use hostmm::{OwnerId, Walk};
use units::{HostRange, HostVa};

use super::invalidate::Stale;
use super::{RangeView, Space, Svm};
use crate::event::Event;
use crate::vma::VmaTree;

/// Removes every range on the list.
pub(crate) fn collect(space: &Space, svm: &Svm, vmas: &mut VmaTree) {
    loop {
        let listed = std::mem::take(&mut *space.garbage.lock());
        if listed.is_empty() {
            return;
        }
        for key in listed {
            if space.gpu.rules.unfit_vram.evicts_partial {
                evict_rest(svm, key);
            }
            forget(space, svm, vmas, key);
        }
    }
}

/// Sends back to system memory what a munmap left of a range (`b=evict-partial`).
fn evict_rest(svm: &Svm, key: RangeKey) {
    let span = svm.notifier_lock().range(key).filter(|range| range.partial_unmap()).map(|range| range.span());
    // What does not come is in VRAM, as if nobody had tried.
    let _ = span.map(|span| svm.evict_span(span));
}

/// Removes the ranges in `span` whose memory has no mapping any more, whether or not anybody told of it. The caller
/// holds the VM's lock.
pub(crate) fn remove_unmapped(space: &Space, svm: &Svm, vmas: &mut VmaTree, span: HostRange) {
    let mut rest = span;
    while let Some(start) = look(space, svm, vmas, rest) {
        rest = HostRange::new(start, span.end);
    }
}

/// Removes the ranges in `span` whose memory is not what it was when they were made, as far as can be seen: nothing is mapped
/// there, or something that never migrates, or nothing that was ever touched. The caller holds the VM's lock.
pub(crate) fn remove_replaced(space: &Space, svm: &Svm, vmas: &mut VmaTree, span: HostRange) {
    for key in svm.ranges_in(span) {
        let Some(view) = RangeView::of(svm, key) else { continue };
        let vma = svm.mm().next_vma(view.span.start).filter(|vma| vma.range.start < view.span.end);
        let is_other = vma.is_none_or(|vma| view.migrate_devmem && !vma.anonymous);
        if is_other || is_untouched(svm, space.gpu.interconnect.owner(), view.span) {
            forget(space, svm, vmas, key);
        }
    }
}

/// Whether no page is there. Ranges that were bound had theirs. A page that a CPU's touch brings back is nowhere for a
/// moment, so what is not there is looked for again.
fn is_untouched(svm: &Svm, owner: OwnerId, range: HostRange) -> bool {
    const LOOKS: u32 = 2;
    (0..LOOKS).all(|look| {
        if look > 0 {
            sync::time::sleep_ns(100_000);
        }
        is_empty(svm, owner, range)
    })
}

fn is_empty(svm: &Svm, owner: OwnerId, range: HostRange) -> bool {
    let walk = Walk { range, valid_since: None, fault: false, write: false, owner: Some(owner), vma: None };
    let mut runs = Vec::new();
    svm.mm().walk(&walk, &mut runs).is_ok() && runs.iter().all(|run| run.run.place.is_none())
}

/// Ranges that are looked at in one go: more than the faults between two goes can have made, so that what is gone does
/// not pile up. The list of them is made under the notifier lock, for which readers wait.
const LOOK: usize = 128;

/// Looks at the first ranges in `span` and removes those whose memory has no mapping any more. Where the next look
/// starts, if there are more.
pub(super) fn look(space: &Space, svm: &Svm, vmas: &mut VmaTree, span: HostRange) -> Option<HostVa> {
    let ahead = svm.first_ranges_in(span, LOOK + 1);
    let looked = ahead.iter().take(LOOK).filter_map(|key| remove_if_unmapped(space, svm, vmas, *key)).last();
    looked.filter(|_| ahead.len() > LOOK).map(|range| range.end)
}

/// Removes a range where its memory has no mapping any more; its span.
fn remove_if_unmapped(space: &Space, svm: &Svm, vmas: &mut VmaTree, key: RangeKey) -> Option<HostRange> {
    let range = svm.notifier_lock().range(key).map(|range| range.span())?;
    if svm.mm().next_vma(range.start).is_none_or(|vma| vma.range.start >= range.end) {
        forget(space, svm, vmas, key);
    }
    Some(range)
}

/// A hand that goes round the ranges of a VM, a little with every so many faults. Under the VM's lock.
#[derive(Default)]
pub(crate) struct Sweep {
    faults: u32,
    hand: HostVa,
}

impl Sweep {
    /// Faults from one look to the next.
    const EVERY: u32 = 64;

    /// A fault was served: takes its turn, if it is the one.
    pub(crate) fn turn(&mut self, space: &Space, svm: &Svm, vmas: &mut VmaTree, window: HostRange) {
        self.faults += 1;
        if self.faults < Self::EVERY {
            return;
        }
        self.faults = 0;
        self.hand = look(space, svm, vmas, HostRange::new(self.hand, window.end)).unwrap_or(window.start);
    }
}

/// The memory of a range is gone: so is the range.
fn forget(space: &Space, svm: &Svm, vmas: &mut VmaTree, key: RangeKey) {
    let span = svm.notifier_lock().range(key).map(|range| range.span().mirror());
    remove(space, svm, key);
    span.into_iter().for_each(|span| vmas.reset(span));
}

/// Unbinds a range and removes it: no tile translates it, and the engine forgets it.
pub(crate) fn remove(space: &Space, svm: &Svm, key: RangeKey) {
    let span = {
        let mut locked = svm.notifier_lock();
        let Some(span) = locked.range(key).map(|range| range.span().mirror()) else { return };
        let mut stale = Stale::default();
        space.zap_range(&mut locked, key, &mut stale);
        space.flush_stale(&stale);
        span
    };
    svm.range_remove(key);
    space.prune(span);
    space.gpu.tell(Event::Collected { asid: space.asid, span });
}
