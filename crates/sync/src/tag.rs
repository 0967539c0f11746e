//! How the checker recognises an object: a number that the object carries, given at its first use in a run.
//!
//! Addresses differ from run to run, numbers in the order of first use do not. The number is valid for one run
//! only, so it is kept together with the run's epoch; a live run never looks at it. Epochs come round after 4095
//! runs: make what tasks share inside the run, and the question does not arise.

use core::sync::atomic::AtomicU32;
#[cfg(feature = "std")]
use core::sync::atomic::Ordering;

/// The number of an object in the current run.
#[derive(Default)]
#[cfg_attr(not(feature = "std"), expect(dead_code))]
pub(crate) struct Tag(AtomicU32);

impl Tag {
    /// Of an object that no run has seen.
    pub(crate) const fn new() -> Self {
        Self(AtomicU32::new(0))
    }
}

#[cfg(feature = "std")]
impl Tag {
    const NUMBER_BITS: u32 = 20;
    /// The largest number.
    pub(crate) const MAX: u32 = (1 << Self::NUMBER_BITS) - 1;

    /// An epoch for a new run: not 0, which stands for no run.
    pub(crate) fn next_epoch() -> u32 {
        static RUNS: AtomicU32 = AtomicU32::new(0);
        RUNS.fetch_add(1, Ordering::Relaxed) % (u32::MAX >> Self::NUMBER_BITS) + 1
    }

    /// The number given in the run of that epoch.
    #[inline]
    pub(crate) fn get(&self, epoch: u32) -> Option<u32> {
        let word = self.0.load(Ordering::Relaxed);
        (word >> Self::NUMBER_BITS == epoch).then_some(word & Self::MAX)
    }

    /// Gives the number for the run of that epoch.
    pub(crate) fn set(&self, epoch: u32, number: u32) {
        self.0.store(epoch << Self::NUMBER_BITS | number, Ordering::Relaxed);
    }
}
