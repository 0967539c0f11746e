//! Notifiers: granules of the address space that the host mm reports changes of, and the notifier lock.
//!
//! A notifier comes with its first range and goes with its last. It is inserted in the host mm *before* the
//! VMA is looked up, so that its sequence tells whether what was found still holds. What arrives travels:
//! host mm (sequence odd) → [`Hook`] → notifier lock → [`GpuSvmOps::invalidate`] → host mm (sequence even).
//!
//! Locking: the trees are under the notifier lock; `notifier_insert` and `notifier_remove` of the host mm are
//! called without it, as the latter waits for callbacks that take it.
//! Upstream: `struct drm_gpusvm_notifier`, `drm_gpusvm_notifier_invalidate`.

use crate::event::Event;
use crate::pages::Pages;
use crate::range::{Range, RangeKey};
use crate::svm::{GpuSvm, GpuSvmOps, State, SvmError};
use alloc::collections::BTreeMap;
use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use hostmm::{EventKind, MmEvent, NotifierId, NotifierOps};
use sync::MutexGuard;
use units::{HostRange, HostVa};

slotmap::new_key_type! {
    /// Names a notifier; never one that came later.
    pub struct NotifierKey;
}

/// One granule (`struct drm_gpusvm_notifier`).
pub(crate) struct Notifier {
    pub(crate) span: HostRange,
    /// Its name in the host mm; `None` before it is inserted there.
    pub(crate) id: Option<NotifierId>,
    /// Start → range; no two overlap.
    pub(crate) ranges: BTreeMap<HostVa, RangeKey>,
}

impl Notifier {
    /// The ranges that share an address with `span`, by address, and perhaps one before them: from one look at the tree.
    pub(crate) fn ranges_around(&self, span: HostRange) -> Vec<RangeKey> {
        let mut reached = false;
        let back = self.ranges.range(..span.end).rev();
        // Chunks are naturally aligned and never larger than the notifier, so only the one before can reach in.
        let found = back.take_while(|(start, _)| !core::mem::replace(&mut reached, **start <= span.start));
        let mut found: Vec<_> = found.map(|(_, &key)| key).collect();
        found.reverse();
        found
    }

    /// The ranges that share an address with `span`, by address, and perhaps one before them.
    pub(crate) fn ranges_in(&self, span: HostRange) -> impl Iterator<Item = RangeKey> {
        // Chunks are naturally aligned and never larger than the notifier, so only the one before can reach in.
        let before = self.ranges.range(..=span.start).next_back().map(|(&start, _)| start);
        let first = before.unwrap_or(span.start);
        self.ranges.range(first..).take_while(move |(start, _)| **start < span.end).map(|(_, &key)| key)
    }
}

/// The notifier lock, held (`drm_gpusvm_notifier_lock` … `unlock`): what everything under it is reached through.
pub struct NotifierLocked<'a, O: GpuSvmOps> {
    pub(crate) svm: &'a GpuSvm<O>,
    pub(crate) state: MutexGuard<'a, State<O::RangeData>>,
}

impl<O: GpuSvmOps> NotifierLocked<'_, O> {
    /// A range; `None` where it was removed.
    pub fn range(&self, key: RangeKey) -> Option<&Range<O::RangeData>> {
        self.state.ranges.get(key)
    }

    /// A range, to change the driver's data of it.
    pub fn range_mut(&mut self, key: RangeKey) -> Option<&mut Range<O::RangeData>> {
        self.state.ranges.get_mut(key)
    }

    /// Whether the range's pages are mapped for the device, and stay so while the lock is held
    /// (`drm_gpusvm_range_pages_valid`).
    pub fn pages_valid(&self, key: RangeKey) -> bool {
        self.pages(key).is_some_and(Pages::valid)
    }

    /// The range's pages; `None` where it was removed.
    pub fn pages(&self, key: RangeKey) -> Option<&Pages> {
        self.range(key).map(Range::pages)
    }

    /// Unmaps the range's pages for the device, which translates to none of them any more
    /// (`drm_gpusvm_range_unmap_pages`).
    pub fn unmap_pages(&mut self, key: RangeKey) {
        if let Some(range) = self.state.ranges.get_mut(key) {
            range.pages.unmap(&*self.svm.device, &self.svm.pagemaps);
        }
    }

    /// Marks that a mapping under the range is gone (`drm_gpusvm_range_set_unmapped`): no pages will be
    /// collected for it again. Whether only a part of it went is kept too.
    pub fn set_unmapped(&mut self, key: RangeKey, event: &MmEvent) {
        if let Some(range) = self.state.ranges.get_mut(key) {
            range.unmapped = true;
            range.partial_unmap |= !event.range.covers(range.span);
        }
    }

    /// The ranges of a notifier that share an address with `span`, by address.
    pub fn ranges_of(&self, notifier: NotifierKey, span: HostRange) -> Vec<RangeKey> {
        let mut found =
            self.state.notifiers.get(notifier).map(|notifier| notifier.ranges_around(span)).unwrap_or_default();
        found.retain(|&key| self.range(key).is_some_and(|range| range.span.overlaps(span)));
        found
    }

    /// The ranges of the whole mirror that share an address with `span`, by address.
    pub fn ranges_in(&self, span: HostRange) -> Vec<RangeKey> {
        self.state.ranges_in(span).collect()
    }

    /// Extent of a notifier; `None` where it was removed.
    pub fn notifier_span(&self, notifier: NotifierKey) -> Option<HostRange> {
        self.state.notifiers.get(notifier).map(|notifier| notifier.span)
    }

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

impl<D> State<D> {
    /// The notifiers that share an address with `span`, by address.
    fn notifiers_in(&self, span: HostRange) -> impl Iterator<Item = &Notifier> {
        let before = self.notifier_tree.range(..=span.start).next_back().map(|(&start, _)| start);
        let first = before.unwrap_or(span.start);
        let found = self.notifier_tree.range(first..).take_while(move |(start, _)| **start < span.end);
        found.filter_map(|(_, &key)| self.notifiers.get(key))
    }

    pub(crate) fn ranges_in(&self, span: HostRange) -> impl Iterator<Item = RangeKey> {
        let found = self.notifiers_in(span).flat_map(move |notifier| notifier.ranges_in(span));
        found.filter(move |&key| self.ranges.get(key).is_some_and(|range| range.span.overlaps(span)))
    }

    /// The range that `addr` lies in.
    pub(crate) fn range_at(&self, addr: HostVa) -> Option<RangeKey> {
        let notifier = self.notifiers.get(self.notifier_at(addr)?)?;
        let (_, &key) = notifier.ranges.range(..=addr).next_back()?;
        self.ranges.get(key)?.span.contains(addr).then_some(key)
    }

    /// The notifier that `addr` lies in.
    pub(crate) fn notifier_at(&self, addr: HostVa) -> Option<NotifierKey> {
        let (_, &key) = self.notifier_tree.range(..=addr).next_back()?;
        self.notifiers.get(key)?.span.contains(addr).then_some(key)
    }
}

impl<O: GpuSvmOps> GpuSvm<O> {
    /// The notifier around `addr`, inserted in the host mm, and whether it is new.
    pub(crate) fn notifier_find_or_insert(&self, addr: HostVa) -> Result<(NotifierKey, NotifierId), SvmError> {
        let span = HostRange::around(addr, self.config.notifier_size);
        let key = {
            let mut state = self.state.lock();
            if let Some(key) = state.notifier_at(addr)
                && let Some(id) = state.notifiers[key].id
            {
                return Ok((key, id));
            }
            state.notifiers.insert(Notifier { span, id: None, ranges: BTreeMap::new() })
        };
        let hook = Arc::new(Hook { svm: self.this.clone(), notifier: key });
        let inserted = self.mm.notifier_insert(span, hook);
        let mut state = self.state.lock();
        let id = inserted.inspect_err(|_| drop(state.notifiers.remove(key)))?;
        state.notifiers[key].id = Some(id);
        state.notifier_tree.insert(span.start, key);
        Ok((key, id))
    }

    /// Removes a notifier that has no ranges.
    pub(crate) fn notifier_remove_if_empty(&self, key: NotifierKey) {
        let empty = self.state.lock().notifiers.get(key).is_some_and(|notifier| notifier.ranges.is_empty());
        if empty {
            self.notifier_remove(key);
        }
    }

    /// Removes a notifier from the host mm first, so that no callback comes any more, then its ranges.
    pub(crate) fn notifier_remove(&self, key: NotifierKey) {
        let id = {
            let mut state = self.state.lock();
            let Some(notifier) = state.notifiers.get(key) else { return };
            let (start, id) = (notifier.span.start, notifier.id);
            state.notifier_tree.remove(&start);
            id
        };
        if let Some(id) = id {
            self.mm.notifier_remove(id);
        }
        let removed = {
            let mut state = self.state.lock();
            let Some(notifier) = state.notifiers.remove(key) else { return };
            let ranges: Vec<_> = notifier.ranges.values().filter_map(|&key| state.ranges.remove(key)).collect();
            ranges
                .into_iter()
                .map(|mut range| {
                    range.pages.unmap(&*self.device, &self.pagemaps);
                    range.span
                })
                .collect::<Vec<_>>()
        };
        for range in removed {
            self.tell(Event::RangeRemoved { range });
        }
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
        let Some(span) = locked.notifier_span(self.notifier) else { return };
        locked.invalidate(self.notifier, event);
        drop(locked);
        if let Some(range) = span.intersect(event.range) {
            svm.tell(Event::Invalidated { range, kind: event.kind });
        }
    }
}
