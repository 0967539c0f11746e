//! What the threads of a scene share, beside the memory that it is about.

use sync::rank::{self, Rank};

/// A value that is looked at without a scheduling point: that a scene keeps books changes no run.
pub(crate) struct Shelf<T>(sync::Mutex<T>);

impl<T: Default> Default for Shelf<T> {
    fn default() -> Self {
        Self(rank::mutex(Rank::LEAF, T::default()))
    }
}

impl<T> Shelf<T> {
    /// With a value.
    pub fn new(value: T) -> Self {
        Self(rank::mutex(Rank::LEAF, value))
    }

    /// Looks at it. `look` waits for nobody.
    pub fn with<R>(&self, look: impl FnOnce(&mut T) -> R) -> R {
        sync::unscheduled(|| look(&mut self.0.lock()))
    }
}
