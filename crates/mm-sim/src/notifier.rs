//! Interval notifiers and their sequence counts.
//!
//! A count is odd while at least one invalidation that touches the notifier runs. An invalidation begins
//! (counts move on, callbacks run without the lock), the memory changes, and the invalidation ends. A
//! notifier inserted in the middle of one is not called but counted in, so that `read_begin` waits.
//!
//! Upstream: mm/mmu_notifier.c.

use crate::sorted::Sorted;
use hostmm::{NotifierId, NotifierOps, Seq};
use std::sync::Arc;
use units::HostRange;

struct Notifier {
    range: HostRange,
    ops: Arc<dyn NotifierOps>,
    seq: u64,
    active: u32,
    calls: u32,
}

struct Running {
    range: HostRange,
    touched: Vec<NotifierId>,
}

/// All notifiers of a process, and the invalidations that run.
#[derive(Default)]
pub(crate) struct Notifiers {
    map: Sorted<NotifierId, Notifier>,
    running: Sorted<u64, Running>,
    next: u64,
}

/// An invalidation that has begun. Owed: [`Notifiers::end`].
#[must_use]
pub(crate) struct Invalidation(u64);

impl Notifiers {
    /// Adds a notifier.
    pub(crate) fn insert(&mut self, range: HostRange, ops: Arc<dyn NotifierOps>) -> NotifierId {
        self.next += 1;
        let id = NotifierId(self.next);
        let mut active = 0;
        for running in
            self.running.iter_mut().map(|(_, running)| running).filter(|running| running.range.overlaps(range))
        {
            running.touched.push(id);
            active += 1;
        }
        // An even number that the host never gave out before stands for "nothing seen yet".
        let seq = 2 + u64::from(active > 0);
        self.map.insert(id, Notifier { range, ops, seq, active, calls: 0 });
        id
    }
    /// Removes a notifier, unless a callback of it runs.
    pub(crate) fn remove(&mut self, id: NotifierId) -> bool {
        let idle = self.map.get(id).is_none_or(|notifier| notifier.calls == 0);
        if idle {
            self.map.remove(id);
        }
        idle
    }
    /// The count, while it is even. A removed notifier stands still.
    pub(crate) fn read_begin(&self, id: NotifierId) -> Option<Seq> {
        let seq = self.map.get(id).map_or(0, |notifier| notifier.seq);
        seq.is_multiple_of(2).then_some(Seq(seq))
    }
    /// Whether the count is another one now.
    pub(crate) fn read_retry(&self, id: NotifierId, seq: Seq) -> bool {
        self.map.get(id).is_none_or(|notifier| notifier.seq != seq.0)
    }

    /// Begins an invalidation: counts become odd. The callbacks are the caller's to run.
    pub(crate) fn begin(&mut self, range: HostRange) -> (Invalidation, Vec<NotifierId>) {
        let mut touched = Vec::new();
        for (id, notifier) in self.map.iter_mut().filter(|(_, notifier)| notifier.range.overlaps(range)) {
            if notifier.active == 0 {
                notifier.seq += 1;
            }
            notifier.active += 1;
            touched.push(id);
        }
        self.next += 1;
        self.running.insert(self.next, Running { range, touched: touched.clone() });
        (Invalidation(self.next), touched)
    }
    /// The notifiers that an invalidation holds.
    pub(crate) fn held_by(&self, invalidation: &Invalidation) -> &[NotifierId] {
        self.running.get(invalidation.0).map_or(&[], |running| &running.touched)
    }
    /// Begins a callback; none where the notifier was removed meanwhile.
    pub(crate) fn call(&mut self, id: NotifierId) -> Option<Arc<dyn NotifierOps>> {
        let notifier = self.map.get_mut(id)?;
        notifier.calls += 1;
        Some(notifier.ops.clone())
    }
    /// Ends a callback.
    pub(crate) fn called(&mut self, id: NotifierId) {
        if let Some(notifier) = self.map.get_mut(id) {
            notifier.calls -= 1;
        }
    }
    /// Ends an invalidation: counts that no other one holds become the next even number.
    pub(crate) fn end(&mut self, Invalidation(token): Invalidation) {
        for id in self.running.remove(token).map(|running| running.touched).unwrap_or_default() {
            if let Some(notifier) = self.map.get_mut(id) {
                notifier.active -= 1;
                notifier.seq += u64::from(notifier.active == 0);
            }
        }
    }
    /// Whether each count is odd exactly while an invalidation holds it.
    pub(crate) fn check(&self) -> Result<(), String> {
        match self.map.iter().find(|(_, notifier)| (notifier.active > 0) == notifier.seq.is_multiple_of(2)) {
            Some((id, notifier)) => Err(format!("{id:?} counts {} with {} active", notifier.seq, notifier.active)),
            None => Ok(()),
        }
    }
}
