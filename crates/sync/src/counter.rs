//! Counters that nobody decides by: no scheduling point, no order.
//!
//! Statistics are no part of what the checker explores. A counter that code branches on is an
//! [`AtomicU64`](crate::atomic::AtomicU64).

use core::sync::atomic::{AtomicU64, Ordering};

/// A count for reports.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// At zero.
    pub const fn new() -> Self {
        Self(AtomicU64::new(0))
    }
    /// Adds `n`.
    #[inline]
    pub fn add(&self, n: u64) {
        self.0.fetch_add(n, Ordering::Relaxed);
    }
    /// What it counted so far.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}
