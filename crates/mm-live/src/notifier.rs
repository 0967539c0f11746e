//! Interval notifiers: who is called, and the sequence counts (Linux: `mm/mmu_notifier.c`).
//!
//! A sequence is odd while an invalidation runs that meets the notifier's range. A notifier that is inserted in the
//! middle of one is not called, but counted in: what is looked up before its end may be of before the change.
//!
//! Locking: one short lock over the table; callbacks run without it.

use crate::rules::Rules;
use hostmm::{EventKind, MmError, MmEvent, NotifierId, NotifierOps, Seq};
use std::collections::BTreeMap;
use std::sync::Arc;
use sync::atomic::AtomicU32;
use sync::rank::{self, Rank};
use sync::{Condvar, Mutex};
use units::HostRange;

struct Notifier {
    range: HostRange,
    ops: Arc<dyn NotifierOps>,
    seq: u64,
    /// The sequence at the last event that was no migration's: mappings may have changed then.
    changed: u64,
    /// Invalidations under way; the sequence is odd while there is one.
    active: u32,
    /// Those of them that may call back.
    calling: u32,
    leaving: bool,
}

impl Notifier {
    const fn count_in(&mut self, kind: EventKind) {
        self.seq += (self.active == 0) as u64;
        self.active += 1;
        if !matches!(kind, EventKind::Migrate(_)) {
            self.changed = self.seq;
        }
    }
}

/// An invalidation under way, and the notifiers that it holds.
struct Running {
    event: MmEvent,
    met: Vec<NotifierId>,
}

#[derive(Default)]
struct Table {
    last: u64,
    notifiers: BTreeMap<NotifierId, Notifier>,
    running: BTreeMap<u64, Running>,
}

pub(crate) struct Notifiers {
    table: Mutex<Table>,
    idle: Condvar,
    /// Threads in [`read_begin`](Self::read_begin) that wait.
    waiters: AtomicU32,
    rules: Rules,
}

/// An invalidation that was begun and not ended.
#[must_use]
pub(crate) struct Begun {
    number: u64,
    event: MmEvent,
    called: Vec<(NotifierId, Arc<dyn NotifierOps>)>,
}

impl Notifiers {
    pub fn new(rules: Rules) -> Self {
        Self {
            table: rank::mutex(Rank::LEAF, Table::default()),
            idle: Condvar::new(),
            waiters: AtomicU32::new(0),
            rules,
        }
    }

    pub fn insert(&self, range: HostRange, ops: Arc<dyn NotifierOps>) -> Result<NotifierId, MmError> {
        let mut guard = self.table.lock();
        let table = &mut *guard;
        table.last += 1;
        let id = NotifierId(table.last);
        let mut notifier = Notifier { range, ops, seq: 2, changed: 0, active: 0, calling: 0, leaving: false };
        for running in table.running.values_mut().filter(|running| (self.rules.counts_in)(running.event.range, range)) {
            running.met.push(id);
            notifier.count_in(running.event.kind);
        }
        table.notifiers.insert(id, notifier);
        Ok(id)
    }

    /// No callback runs after this.
    pub fn remove(&self, id: NotifierId) {
        let mut table = self.table.lock();
        while let Some(notifier) = table.notifiers.get_mut(&id) {
            notifier.leaving = true;
            if notifier.calling == 0 {
                table.notifiers.remove(&id);
                return;
            }
            self.idle.wait(&mut table);
        }
    }

    /// A sequence that was even at some time since the call: at its end where nothing changes. The next invalidation may have
    /// begun by the time that a waiter runs; `read_retry` says so then.
    pub fn read_begin(&self, id: NotifierId) -> Seq {
        let mut table = self.table.lock();
        let mut first = None;
        let seq = loop {
            let Some(notifier) = table.notifiers.get(&id) else { break 0 };
            if notifier.active == 0 {
                break notifier.seq;
            }
            match first {
                None => {
                    first = Some(notifier.seq);
                    self.waiters.fetch_add(1);
                }
                Some(first) if notifier.seq > first => break notifier.seq - 1,
                Some(_) => {}
            }
            self.idle.wait(&mut table);
        };
        if first.is_some() {
            self.waiters.fetch_sub(1);
        }
        Seq(seq)
    }

    /// Whether somebody waits for invalidations to end.
    pub fn is_awaited(&self) -> bool {
        self.waiters.load() > 0
    }

    pub fn read_retry(&self, id: NotifierId, seq: Seq) -> bool {
        self.table.lock().notifiers.get(&id).is_none_or(|notifier| notifier.seq != seq.0)
    }

    /// Whether nothing but migrations was notified since `seq`, so that mappings are as they were.
    pub fn is_mapping_kept(&self, id: NotifierId, seq: Seq) -> bool {
        self.table.lock().notifiers.get(&id).is_some_and(|notifier| notifier.changed <= seq.0)
    }

    /// Makes the sequences of all notifiers that `event` meets odd. The callbacks come with [`Self::notify`].
    pub fn begin(&self, event: MmEvent) -> Begun {
        let mut guard = self.table.lock();
        let table = &mut *guard;
        let mut called = Vec::new();
        for (&id, notifier) in &mut table.notifiers {
            if notifier.range.overlaps(event.range) && !notifier.leaving {
                notifier.count_in(event.kind);
                notifier.calling += 1;
                called.push((id, Arc::clone(&notifier.ops)));
            }
        }
        table.last += 1;
        let met = called.iter().map(|&(id, _)| id).collect();
        table.running.insert(table.last, Running { event, met });
        Begun { number: table.last, event, called }
    }

    /// Calls back. With no lock held.
    pub fn notify(&self, begun: &Begun) {
        for (_, ops) in &begun.called {
            ops.invalidate(&begun.event);
        }
    }

    /// Makes the sequences even again, and wakes who waits for that.
    pub fn end(&self, begun: Begun) {
        let mut guard = self.table.lock();
        let table = &mut *guard;
        let met = table.running.remove(&begun.number).map_or_else(Vec::new, |running| running.met);
        for (index, id) in met.iter().enumerate() {
            if let Some(notifier) = table.notifiers.get_mut(id) {
                notifier.active -= 1;
                notifier.seq += u64::from(notifier.active == 0);
                notifier.calling -= u32::from(index < begun.called.len());
            }
        }
        drop(guard);
        if !met.is_empty() {
            self.idle.notify_all();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hostmm::OwnerId;
    use units::{HostVa, SZ_4K};

    struct Silent;

    impl NotifierOps for Silent {
        fn invalidate(&self, _: &MmEvent) {}
    }

    #[test]
    fn a_notifier_inserted_during_an_invalidation_is_counted_in() {
        let notifiers = Notifiers::new(Rules::CORRECT);
        let range = HostRange::sized(HostVa(0), 16 * SZ_4K);
        let elsewhere = HostRange::sized(range.end, SZ_4K);
        let begun = notifiers.begin(MmEvent { range, kind: EventKind::Unmap });
        let [inside, outside, removed] =
            [range, elsewhere, range].map(|range| notifiers.insert(range, Arc::new(Silent)).expect("a notifier"));
        // Nothing calls back, so it need not be waited for.
        notifiers.remove(removed);
        assert!(notifiers.read_retry(inside, Seq(2)), "its sequence is odd");
        assert!(!notifiers.read_retry(outside, Seq(2)));
        notifiers.notify(&begun);
        notifiers.end(begun);
        let seq = notifiers.read_begin(inside);
        assert!(seq != Seq(2) && !notifiers.read_retry(inside, seq));
    }

    #[test]
    fn a_migration_changes_no_mapping_and_everything_else_may() {
        let notifiers = Notifiers::new(Rules::CORRECT);
        let range = HostRange::sized(HostVa(0), 16 * SZ_4K);
        let id = notifiers.insert(range, Arc::new(Silent)).expect("a notifier");
        let migrate = EventKind::Migrate(OwnerId(1));
        let seq = notifiers.read_begin(id);
        let migration = notifiers.begin(MmEvent { range, kind: migrate });
        assert!(notifiers.read_retry(id, seq) && notifiers.is_mapping_kept(id, seq));
        // The sequence is odd already.
        let change = notifiers.begin(MmEvent { range, kind: EventKind::Protection });
        assert!(!notifiers.is_mapping_kept(id, seq));
        notifiers.end(migration);
        notifiers.end(change);
        assert!(!notifiers.is_mapping_kept(id, seq));
        let seq = notifiers.read_begin(id);
        notifiers.end(notifiers.begin(MmEvent { range, kind: migrate }));
        assert!(notifiers.is_mapping_kept(id, seq));
        let change = notifiers.begin(MmEvent { range, kind: EventKind::Unmap });
        let late = notifiers.insert(range, Arc::new(Silent)).expect("a notifier");
        assert!(!notifiers.is_mapping_kept(late, Seq(2)), "it was inserted in the middle");
        notifiers.end(change);
    }
}
