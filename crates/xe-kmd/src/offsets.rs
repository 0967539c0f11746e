//! Where to mmap the device files for BOs: a span of offsets for each BO, for as long as it lives.
//!
//! An offset is the BO's, whichever file asks: all files that have the BO are told the same. A file that has no handle of the
//! BO may not use it.
//!
//! Locking: a leaf.
//!
//! Upstream: `drm_vma_manager.c`, `ttm_bo_init_reserved`.

use std::collections::BTreeMap;
use std::sync::Arc;

use sync::Mutex;
use sync::rank::mutex;
use units::{SZ_1G, SZ_4K, Spans};

use crate::ranks;

/// The first one.
const FIRST: u64 = 4 * SZ_1G;
/// The end of them.
const END: u64 = 1 << 44;

/// All offsets of a device.
pub(crate) struct Offsets(Mutex<Table>);

struct Table {
    free: Spans,
    /// Bytes of what is taken, by where it starts.
    taken: BTreeMap<u64, u64>,
}

impl Offsets {
    /// All free.
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self(mutex(ranks::LEAF, Table { free: Spans::new(FIRST..END), taken: BTreeMap::new() })))
    }

    /// The lowest that are free for so many bytes.
    pub(crate) fn take(self: &Arc<Self>, bytes: u64) -> Option<Offset> {
        let mut table = self.0.lock();
        let start = table.free.take(bytes, SZ_4K)?;
        table.taken.insert(start, bytes);
        Some(Offset { all: self.clone(), start })
    }

    /// Whether a BO of at least so many bytes starts there.
    pub(crate) fn has(&self, start: u64, bytes: u64) -> bool {
        self.0.lock().taken.get(&start).is_some_and(|taken| *taken >= bytes)
    }
}

/// Where one BO starts. Dropped, it is free.
pub(crate) struct Offset {
    all: Arc<Offsets>,
    pub start: u64,
}

impl Drop for Offset {
    fn drop(&mut self) {
        let mut table = self.all.0.lock();
        if let Some(bytes) = table.taken.remove(&self.start) {
            table.free.give(self.start, bytes);
        }
    }
}
