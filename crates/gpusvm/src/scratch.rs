//! Spare buffers, kept from one migration or walk to the next, so that the hot paths allocate nothing.
//!
//! Locking: a leaf lock, held for a push or a pop.

use crate::devmem::CopyRun;
use alloc::vec::Vec;
use core::ops::{Deref, DerefMut};
use hostmm::{DeviceRun, Migration};
use sync::Mutex;
use sync::rank::{self, Rank};
use units::Iova;

/// Buffers kept at most; more are in flight only when more threads are.
const SPARES: usize = 8;

/// Spare values of `T`, which are cleared by whoever takes one.
pub(crate) struct Pool<T> {
    spare: Mutex<Vec<T>>,
}

impl<T> Default for Pool<T> {
    fn default() -> Self {
        Self { spare: rank::mutex(Rank::LEAF, Vec::new()) }
    }
}

/// One of them, borrowed.
pub(crate) struct Borrowed<'a, T: Default> {
    pool: &'a Pool<T>,
    value: T,
}

impl<T: Default> Pool<T> {
    /// A spare one, holding whatever its last user left, or a new one.
    pub(crate) fn take(&self) -> Borrowed<'_, T> {
        let value = self.spare.lock().pop().unwrap_or_default();
        Borrowed { pool: self, value }
    }
}

impl<T: Default> Drop for Borrowed<'_, T> {
    fn drop(&mut self) {
        let value = core::mem::take(&mut self.value);
        let mut spare = self.pool.spare.lock();
        if spare.len() < SPARES {
            spare.push(value);
        }
    }
}

impl<T: Default> Deref for Borrowed<'_, T> {
    type Target = T;
    fn deref(&self) -> &T {
        &self.value
    }
}

impl<T: Default> DerefMut for Borrowed<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.value
    }
}

/// What a migration needs memory for; spare ones are kept by the pagemap, so that the next one allocates nothing.
#[derive(Default)]
pub(crate) struct Buffers {
    pub(crate) migration: Migration,
    pub(crate) work: Work,
}

/// What one batch needs memory for.
#[derive(Default)]
pub(crate) struct Work {
    /// What the copying engine is given.
    pub(crate) runs: Vec<CopyRun>,
    /// DMA mappings of system memory.
    pub(crate) dma: Vec<(Iova, usize)>,
    /// Pages of VRAM to evict.
    pub(crate) live: Vec<DeviceRun>,
}
