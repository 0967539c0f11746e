//! Ranges whose mapping is gone: unbound and removed, before anything else looks at ranges.
//!
//! A notifier cannot remove a range (it runs in reader class), so it lists it. The list is emptied at the head
//! of every fault, bind and advice; there is no worker: a range that nobody asks after only takes a little memory.
//!
//! Locking: the VM's lock is held; takes the notifier lock and below.
//!
//! Upstream: `xe_svm_garbage_collector`, `xe_svm_flush`. Left out: the reset of a VMA's attributes
//! (MADVISE_AUTORESET is refused).

use gpusvm::RangeKey;
use units::HostRange;

use super::invalidate::Stale;
use super::{Space, Svm};
use crate::event::Event;

/// Removes every range on the list.
pub(crate) fn collect(space: &Space, svm: &Svm) {
    loop {
        let listed = std::mem::take(&mut *space.garbage.lock());
        if listed.is_empty() {
            return;
        }
        listed.into_iter().for_each(|key| remove(space, svm, key));
    }
}

/// Removes the ranges in `span` whose memory has no mapping any more, whether or not anybody told of it. The caller
/// holds the VM's lock.
pub(crate) fn remove_unmapped(space: &Space, svm: &Svm, span: HostRange) {
    for key in svm.ranges_in(span) {
        let range = svm.notifier_lock().range(key).map(|range| range.span());
        let is_mapped =
            |range: HostRange| (0..range.pages()).any(|page| svm.mm().vma_lookup(range.page_at(page)).is_some());
        if range.is_some_and(|range| !is_mapped(range)) {
            remove(space, svm, key);
        }
    }
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
