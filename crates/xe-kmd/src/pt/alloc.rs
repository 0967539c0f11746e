//! The pool of one tile's page tables: 4K each, in VRAM, apart from the pages.
//!
//! Every table in the pool is all zeros: the device's pool starts so, and whoever gives a table back has cleared
//! what it had written.
//!
//! Locking: a lock under which nothing is taken. In reader class only where a copy job needs another slot
//! (`migrate`): what is zapped keeps its tables.
//!
//! Upstream: `xe_pt_create` (a BO of 4K), `xe_pt_destroy`.

use sync::Mutex;
use sync::rank::mutex;
use units::Dpa;
use xe_spec::pte::TABLE_BYTES;

use crate::ranks;

/// The pool.
pub(crate) struct TablePool {
    base: Dpa,
    free: Mutex<Free>,
}

struct Free {
    /// Tables that came back.
    back: Vec<Dpa>,
    /// First table that was never given.
    next: Dpa,
    end: Dpa,
    /// Nobody gets one.
    held: bool,
}

impl TablePool {
    /// A pool of `bytes` bytes from `base`.
    pub(crate) const fn new(base: Dpa, bytes: u64) -> Self {
        Self {
            base,
            free: mutex(ranks::POOL, Free { back: Vec::new(), next: base, end: base.add(bytes), held: false }),
        }
    }

    /// An empty table; `None` where the pool is used up, or held.
    pub(crate) fn alloc(&self) -> Option<Dpa> {
        let mut free = self.free.lock();
        if free.held {
            return None;
        }
        if let Some(table) = free.back.pop() {
            return Some(table);
        }
        if free.end.0 - free.next.0 < TABLE_BYTES {
            return None;
        }
        let table = free.next;
        free.next = table.add(TABLE_BYTES);
        Some(table)
    }

    /// From now on nobody gets a table, or whoever asks does again.
    pub(crate) fn hold(&self, held: bool) {
        self.free.lock().held = held;
    }

    /// Tables that were given and did not come back.
    pub(crate) fn used(&self) -> u64 {
        let free = self.free.lock();
        free.next.offset_from(self.base) / TABLE_BYTES - free.back.len() as u64
    }

    /// Takes an empty table back; no walk of the device may lead to it any more.
    pub(crate) fn free(&self, table: Dpa) {
        self.free.lock().back.push(table);
    }
}
