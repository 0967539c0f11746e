//! Which of a device's files of the primary node is its master: the first one, until it ends or gives that up.
//!
//! A process has a device of its own, so each has a master of its own.
//!
//! Locking: none.
//!
//! Upstream: `drm_auth.c`.

use sync::atomic::AtomicU64;

/// The number of the file that is master; 0: none is.
pub(crate) struct Master(AtomicU64);

impl Master {
    pub(crate) const fn new() -> Self {
        Self(AtomicU64::new(0))
    }

    /// Makes a file master, unless another one is.
    pub(crate) fn take(&self, client: u64) -> bool {
        self.0.compare_exchange(0, client).is_ok() || self.is(client)
    }

    /// Whether a file is it.
    pub(crate) fn is(&self, client: u64) -> bool {
        self.0.load() == client
    }

    /// A file is master no more; false where it was not.
    pub(crate) fn give(&self, client: u64) -> bool {
        self.0.compare_exchange(client, 0).is_ok()
    }
}
