//! Ranges whose mapping is gone: unbound and removed, before anything else looks at ranges.
//!
//! A notifier cannot remove a range (it runs in reader class), so it lists it. The list is emptied at the head
//! of every fault, bind and advice; there is no worker: a range that nobody asks after only takes a little memory.
//!
//! Not every host tells of every munmap (userfaultfd does not where nothing is in VRAM, nor does a wrapper where libc unmaps
//! by itself). Ranges of such memory are found by looking: a few with every so many faults ([`Sweep`]), and all of them where
//! page tables run out. What is found is listed too.
//!
//! What was advised of memory goes with it, where its mirror was bound so (MADVISE_AUTORESET): for all of the range, as
//! upstream has it, though only a part of it may be gone. That changes VMAs, which others look at that serve faults: who
//! shares the VM's lock with them leaves such a range on the list and comes back with the lock held alone
//! ([`collect_beside`]). Linux' next release collects with the lock shared and changes VMAs all the same (N1).
//!
//! Several threads collect at once: each takes one range off the list after the other. A range that is listed twice, or
//! removed meanwhile, is found gone.
//!
//! Locking: the VM's lock is held. Who shares it holds a range's lock over its removal; takes the notifier lock and below.
//!
//! Upstream: `xe_svm_garbage_collector`, `xe_svm_range_set_default_attr`, `xe_svm_flush`.

use gpusvm::RangeKey;
use hostmm::{OwnerId, Walk};
use sync::atomic::{AtomicU32, AtomicU64};
use units::{HostRange, HostVa};

use super::invalidate::Stale;
use super::{RangeView, Space, Svm};
use crate::event::Event;
use crate::vma::VmaTree;

impl Space {
    /// Lists a range to be removed. Reader class.
    pub(super) fn list_garbage(&self, key: RangeKey) {
        self.garbage.lock().push(key);
    }

    fn next_garbage(&self) -> Option<RangeKey> {
        self.garbage.lock().pop()
    }
}

/// Removes every range on the list. The caller holds the VM's lock alone.
pub(crate) fn collect(space: &Space, svm: &Svm, vmas: &mut VmaTree) {
    while let Some(key) = space.next_garbage() {
        evict_rest(space, svm, key);
        forget(space, svm, vmas, key);
    }
}

/// What a collection beside others came to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use]
pub(crate) enum Collected {
    /// The list is empty.
    All,
    /// Not all: VMAs are to be changed, so the VM's lock is to be held alone.
    NeedsAlone,
}

/// Removes the ranges on the list, as far as no VMA changes for it. The caller shares the VM's lock and holds no range's.
pub(crate) fn collect_beside(space: &Space, svm: &Svm, vmas: &VmaTree) -> Collected {
    while let Some(key) = space.next_garbage() {
        let _held = space.hold(key);
        let Some(view) = RangeView::of(space, svm, key) else { continue };
        if vmas.resets(view.span.mirror()) {
            space.list_garbage(key);
            return Collected::NeedsAlone;
        }
        evict_rest(space, svm, key);
        remove(space, svm, key);
    }
    Collected::All
}

/// Sends back to system memory what a munmap left of a range (`b=evict-partial`).
fn evict_rest(space: &Space, svm: &Svm, key: RangeKey) {
    if space.gpu.rules.unfit_vram.evicts_partial {
        let span = svm.notifier_lock().range(key).filter(|range| range.partial_unmap()).map(|range| range.span());
        // What does not come is in VRAM, as if nobody had tried.
        let _ = span.map(|span| svm.evict_span(span));
    }
}

/// Lists the ranges in `span` whose memory has no mapping any more, whether or not anybody told of it.
pub(crate) fn list_unmapped(space: &Space, svm: &Svm, span: HostRange) {
    let mut rest = span;
    while let Some(start) = look(space, svm, rest) {
        rest = HostRange::new(start, span.end);
    }
}

/// Removes the ranges in `span` whose memory is not what it was when they were made, as far as can be seen: nothing is mapped
/// there, or something that never migrates, or nothing that was ever touched. The caller holds the VM's lock
/// alone.
pub(crate) fn remove_replaced(space: &Space, svm: &Svm, vmas: &mut VmaTree, span: HostRange) {
    for key in svm.ranges_in(span) {
        let Some(view) = RangeView::of(space, svm, key) else { continue };
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

/// Looks at the first ranges in `span` and lists those whose memory has no mapping any more. Where the next look
/// starts, if there are more.
pub(super) fn look(space: &Space, svm: &Svm, span: HostRange) -> Option<HostVa> {
    let ahead = svm.first_ranges_in(span, LOOK + 1);
    let looked = ahead.iter().take(LOOK).filter_map(|key| list_if_unmapped(space, svm, *key)).last();
    looked.filter(|_| ahead.len() > LOOK).map(|range| range.end)
}

/// Lists a range where its memory has no mapping any more; its span.
fn list_if_unmapped(space: &Space, svm: &Svm, key: RangeKey) -> Option<HostRange> {
    let range = svm.notifier_lock().range(key).map(|range| range.span())?;
    if svm.mm().next_vma(range.start).is_none_or(|vma| vma.range.start >= range.end) {
        space.list_garbage(key);
    }
    Some(range)
}

/// A hand that goes round the ranges of a VM, a little with every so many faults. Two servers may take the same turn of it.
#[derive(Default)]
pub(crate) struct Sweep {
    faults: AtomicU32,
    hand: AtomicU64,
}

impl Sweep {
    /// Faults from one look to the next.
    const EVERY: u32 = 64;

    /// A fault is to be served: takes its turn, if it is the one.
    pub(crate) fn turn(&self, space: &Space, svm: &Svm, window: HostRange) {
        if (self.faults.fetch_add(1) + 1).is_multiple_of(Self::EVERY) {
            let next = look(space, svm, HostRange::new(HostVa(self.hand.load()), window.end));
            self.hand.store(next.unwrap_or(window.start).0);
        }
    }
}

/// The memory of a range is gone: so is the range. The caller holds the VM's lock alone.
fn forget(space: &Space, svm: &Svm, vmas: &mut VmaTree, key: RangeKey) {
    let span = svm.notifier_lock().range(key).map(|range| range.span().mirror());
    remove(space, svm, key);
    span.into_iter().for_each(|span| vmas.reset(span));
}

/// Removes another range than the one at hand, where `wants` says so; unless the collector will. The caller shares the VM's
/// lock and holds no range's.
pub(super) fn remove_beside(space: &Space, svm: &Svm, key: RangeKey, wants: impl FnOnce(&RangeView) -> bool) {
    let _held = space.hold(key);
    if RangeView::of(space, svm, key).is_some_and(|view| !view.unmapped && wants(&view)) {
        remove(space, svm, key);
    }
}

/// Unbinds a range and removes it: no tile translates it, and the engine forgets it. The caller holds the range's lock, or
/// the VM's alone.
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
    space.gpu.emit(Event::Collected { asid: space.asid, span });
}
