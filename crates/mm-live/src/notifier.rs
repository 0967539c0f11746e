//! Interval notifiers: who is told, and the sequence counts (Linux: `mm/mmu_notifier.c`).
//!
//! Locking: one short lock over the table; callbacks run without it.

use gpusvm::hostmm::{MmError, MmEvent, NotifierId, NotifierOps, Seq};
use std::collections::BTreeMap;
use std::sync::Arc;
use sync::{Condvar, Mutex};
use units::HostRange;

struct Notifier {
    range: HostRange,
    ops: Arc<dyn NotifierOps>,
    seq: u64,
    /// Invalidations under way; the sequence is odd while there is one.
    active: u32,
    leaving: bool,
}

#[derive(Default)]
struct Table {
    last: u64,
    notifiers: BTreeMap<NotifierId, Notifier>,
}

pub(crate) struct Notifiers {
    table: Mutex<Table>,
    idle: Condvar,
}

/// Invalidations that were begun and not ended.
pub(crate) struct Begun {
    event: MmEvent,
    told: Vec<(NotifierId, Arc<dyn NotifierOps>)>,
}

impl Notifiers {
    pub fn new() -> Self {
        Self { table: Mutex::new(Table::default()), idle: Condvar::new() }
    }

    pub fn insert(&self, range: HostRange, ops: Arc<dyn NotifierOps>) -> Result<NotifierId, MmError> {
        let mut table = self.table.lock();
        table.last += 1;
        let id = NotifierId(table.last);
        table.notifiers.insert(id, Notifier { range, ops, seq: 2, active: 0, leaving: false });
        Ok(id)
    }

    pub fn remove(&self, id: NotifierId) {
        let mut table = self.table.lock();
        while let Some(notifier) = table.notifiers.get_mut(&id) {
            notifier.leaving = true;
            if notifier.active == 0 {
                table.notifiers.remove(&id);
                return;
            }
            self.idle.wait(&mut table);
        }
    }

    pub fn read_begin(&self, id: NotifierId) -> Seq {
        let mut table = self.table.lock();
        loop {
            match table.notifiers.get(&id) {
                Some(notifier) if notifier.active > 0 => self.idle.wait(&mut table),
                Some(notifier) => return Seq(notifier.seq),
                None => return Seq(0),
            }
        }
    }

    pub fn read_retry(&self, id: NotifierId, seq: Seq) -> bool {
        self.table.lock().notifiers.get(&id).is_none_or(|notifier| notifier.seq != seq.0)
    }

    /// Makes the sequences of all notifiers that `event` meets odd. The callbacks come with [`Self::tell`].
    pub fn begin(&self, event: MmEvent) -> Begun {
        let mut told = Vec::new();
        for (&id, notifier) in &mut self.table.lock().notifiers {
            if notifier.range.overlaps(event.range) && !notifier.leaving {
                notifier.seq += u64::from(notifier.active == 0);
                notifier.active += 1;
                told.push((id, Arc::clone(&notifier.ops)));
            }
        }
        Begun { event, told }
    }

    /// Calls back. With no lock held.
    pub fn tell(&self, begun: &Begun) {
        for (_, ops) in &begun.told {
            ops.invalidate(&begun.event);
        }
    }

    /// Makes the sequences even again, and wakes who waits for that.
    pub fn end(&self, begun: Begun) {
        if begun.told.is_empty() {
            return;
        }
        let mut table = self.table.lock();
        for (id, _) in &begun.told {
            if let Some(notifier) = table.notifiers.get_mut(id) {
                notifier.active -= 1;
                notifier.seq += u64::from(notifier.active == 0);
            }
        }
        drop(table);
        self.idle.notify_all();
    }
}
