//! Notifiers at the host mm: inserted, called when the address space changes, removed.
//!
//! Threads may insert a notifier for one granule at once: the first that is ready is everybody's, the others go.
//!
//! A notifier is inserted in the host mm *before* the VMA is looked up, so that its sequence tells whether what was found still holds. What arrives travels:
//! host mm (sequence odd) → [`Hook`] → notifier lock → [`GpuSvmOps::invalidate`] → host mm (sequence even).
//!
//! Locking: the trees are under the notifier lock; `notifier_insert` and `notifier_remove` of the host mm are
//! called without it, as the latter waits for callbacks that take it.
//! Upstream: `drm_gpusvm_notifier_invalidate`, `drm_gpusvm_fini`.

use crate::call::SvmError;
use crate::event::Event;
use crate::mirror::{GpuSvm, GpuSvmOps, NotifierLocked};
use crate::tree::{Notifier, NotifierKey, Range, Spans};
use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use hostmm::{EventKind, MmEvent, NotifierId, NotifierOps};
use units::{HostRange, HostVa};

impl<O: GpuSvmOps> GpuSvm<O> {
    /// The notifier around `addr`, inserted in the host mm.
    pub(crate) fn notifier_find_or_insert(&self, addr: HostVa) -> Result<(NotifierKey, NotifierId), SvmError> {
        let span = HostRange::around(addr, self.config.notifier_size);
        let key = {
            let mut tree = self.tree.lock();
            if let Some(key) = tree.notifier_at(addr)
                && let Some(id) = tree.notifiers[key].id
            {
                return Ok((key, id));
            }
            tree.notifiers.insert(Notifier { span, id: None, ranges: Spans::new() })
        };
        let hook = Arc::new(Hook { svm: self.this.clone(), notifier: key });
        let inserted = self.mm.notifier_insert(span, hook);
        let mut tree = self.tree.lock();
        let id = inserted.inspect_err(|_| drop(tree.notifiers.remove(key)))?;
        if let Some(faster) = tree.notifier_at(addr)
            && let Some(its) = tree.notifiers[faster].id
        {
            tree.notifiers.remove(key);
            drop(tree);
            self.mm.notifier_remove(id);
            return Ok((faster, its));
        }
        tree.notifiers[key].id = Some(id);
        tree.granules.insert(span, key);
        Ok((key, id))
    }

    /// Ends all notifiers, then all ranges (`drm_gpusvm_fini`). The device translates to nothing here any more
    /// when this is called. Holds the driver's SVM lock, no other; a second call finds nothing to do.
    pub fn fini(&self) {
        let notifiers: Vec<_> = self.tree.lock().granules.values().collect();
        for notifier in notifiers {
            self.notifier_remove(notifier);
        }
    }

    /// Removes a notifier that has no ranges: from here first, in the step that finds it empty, so that no range comes to it
    /// any more.
    pub(crate) fn notifier_remove_if_empty(&self, key: NotifierKey) {
        let id = {
            let mut tree = self.tree.lock();
            let Some(&Notifier { span, id, .. }) = tree.notifiers.get(key).filter(|it| it.ranges.is_empty()) else {
                return;
            };
            tree.granules.remove(span);
            tree.notifiers.remove(key);
            id
        };
        if let Some(id) = id {
            self.mm.notifier_remove(id);
        }
    }

    /// Removes a notifier from the host mm first, so that no callback comes any more, then its ranges.
    fn notifier_remove(&self, key: NotifierKey) {
        let id = {
            let mut tree = self.tree.lock();
            let Some(&Notifier { span, id, .. }) = tree.notifiers.get(key) else { return };
            tree.granules.remove(span);
            id
        };
        if let Some(id) = id {
            self.mm.notifier_remove(id);
        }
        let removed = {
            let mut tree = self.tree.lock();
            let Some(notifier) = tree.notifiers.remove(key) else { return };
            let unmap = |mut range: Range<_>| {
                range.pages.unmap(&*self.device);
                range.span
            };
            let ranges = notifier.ranges.values().filter_map(|key| tree.ranges.remove(key));
            ranges.map(unmap).collect::<Vec<_>>()
        };
        removed.into_iter().for_each(|range| self.emit(Event::RangeRemoved { range }));
    }
}

/// What the host mm holds: the way back to a notifier, which may have ended meanwhile.
struct Hook<O: GpuSvmOps> {
    svm: Weak<GpuSvm<O>>,
    notifier: NotifierKey,
}

impl<O: GpuSvmOps> NotifierOps for Hook<O> {
    /// `drm_gpusvm_notifier_invalidate`.
    fn invalidate(&self, event: &MmEvent) {
        let Some(svm) = self.svm.upgrade() else { return };
        let mut locked = svm.notifier_lock();
        let Some(span) = locked.tree.notifiers.get(self.notifier).map(|notifier| notifier.span) else { return };
        locked.invalidate(self.notifier, event);
        drop(locked);
        if let Some(range) = span.intersect(event.range) {
            svm.emit(Event::Invalidated { range, kind: event.kind });
        }
    }
}

impl<O: GpuSvmOps> NotifierLocked<'_, O> {
    /// Tells the driver of `event`. Whatever it leaves mapped is unmapped here: without its mirror's driver
    /// nothing translates any more.
    pub(crate) fn invalidate(&mut self, notifier: NotifierKey, event: &MmEvent) {
        if let Some(ops) = self.svm.ops.upgrade() {
            ops.invalidate(self, notifier, event);
            return;
        }
        for key in self.ranges_of(notifier, event.range) {
            self.unmap_pages(key);
            if matches!(event.kind, EventKind::Unmap | EventKind::Release) {
                self.set_unmapped(key, event);
            }
        }
    }
}
