//! How one file's BO becomes another's: by the bytes that a descriptor shows (PRIME), or by a number (FLINK).
//!
//! A dma-buf is a descriptor of the BO's own bytes, so it is known by them ([`BytesId`]) however it came here: by a dup, by
//! a socket, from another process. What the bytes of a live BO are is that BO; of other bytes one is made.
//!
//! Locking: a leaf. Nothing is dropped under it.
//!
//! Upstream: `drm_prime.c`, `drm_gem_flink_ioctl`, `drm_gem_open_ioctl`.

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};

use sync::Mutex;
use sync::rank::mutex;

use crate::bo::Bo;
use crate::budget::BytesId;
use crate::ranks;

/// The BOs of a device that files share.
pub(crate) struct SharedBos(Mutex<Tables>);

#[derive(Default)]
struct Tables {
    by_bytes: BTreeMap<BytesId, Weak<Bo>>,
    by_number: BTreeMap<u32, Weak<Bo>>,
}

impl SharedBos {
    /// None.
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self(mutex(ranks::LEAF, Tables::default())))
    }

    /// The BO of these bytes.
    pub(crate) fn of_bytes(&self, id: BytesId) -> Option<Arc<Bo>> {
        self.0.lock().by_bytes.get(&id)?.upgrade()
    }

    /// `bo` is the one of these bytes, unless there is one: the one that counts.
    pub(crate) fn note_bytes(&self, id: BytesId, bo: &Arc<Bo>) -> Arc<Bo> {
        let mut tables = self.0.lock();
        let there = tables.by_bytes.get(&id).and_then(Weak::upgrade);
        if there.is_none() {
            tables.by_bytes.retain(|_, bo| bo.strong_count() > 0);
            tables.by_bytes.insert(id, Arc::downgrade(bo));
        }
        drop(tables);
        there.unwrap_or_else(|| bo.clone())
    }

    /// A BO's number: the one that it has, or the lowest that is free.
    pub(crate) fn number(&self, bo: &Arc<Bo>) -> u32 {
        // A BO that this was the last to look at ends behind the lock.
        let mut looked_at = Vec::new();
        let numbers = &mut self.0.lock().by_number;
        // One without a handle has lost its number.
        numbers.retain(|_, bo| {
            let bo = bo.upgrade();
            let has_handle = bo.as_ref().is_some_and(|bo| bo.has_handle());
            looked_at.extend(bo);
            has_handle
        });
        let has = numbers.iter().find(|(_, other)| std::ptr::eq(other.as_ptr(), Arc::as_ptr(bo)));
        if let Some((number, _)) = has {
            return *number;
        }
        let number = (1..).zip(numbers.keys()).find(|(free, taken)| free != *taken).map(|(free, _)| free);
        let number = number.unwrap_or(numbers.len() as u32 + 1);
        numbers.insert(number, Arc::downgrade(bo));
        number
    }

    /// All that have a number and a handle, by number.
    pub(crate) fn numbered(&self) -> Vec<(u32, Arc<Bo>)> {
        let numbers: Vec<_> =
            self.0.lock().by_number.iter().filter_map(|(number, bo)| Some((*number, bo.upgrade()?))).collect();
        numbers.into_iter().filter(|(_, bo)| bo.has_handle()).collect()
    }

    /// The BO of a number: while a handle of it is left.
    pub(crate) fn of_number(&self, number: u32) -> Option<Arc<Bo>> {
        let bo = self.0.lock().by_number.get(&number)?.upgrade();
        bo.filter(|bo| bo.has_handle())
    }
}
