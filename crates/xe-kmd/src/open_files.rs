//! Which open files a device has, and what each is to the DRM core: who it is, whether it is known to a master.
//!
//! A process has a device of its own, so these are its own.
//!
//! Locking: leaves.
//!
//! Upstream: `dev->filelist`, `struct drm_file`.

use std::collections::BTreeMap;
use std::sync::Arc;

use sync::Mutex;
use sync::atomic::{AtomicBool, AtomicU64};
use sync::rank::mutex;

use crate::ranks;

/// What one is to the core.
pub(crate) struct Entry {
    /// Its number: no other of the device has it.
    pub id: u64,
    /// What the program calls it (SET_CLIENT_NAME).
    pub name: Mutex<Option<String>>,
    /// Of the render node.
    pub is_render: bool,
    /// Its program administrates the system, or it was ever master.
    pub authenticated: AtomicBool,
    /// The number that GET_MAGIC told; 0: nobody asked.
    pub magic: AtomicU64,
}

/// All of a device, by their numbers: the oldest first.
pub(crate) struct OpenFiles(Mutex<BTreeMap<u64, Arc<Entry>>>);

impl OpenFiles {
    /// None.
    pub(crate) const fn new() -> Self {
        Self(mutex(ranks::LEAF, BTreeMap::new()))
    }

    /// One more.
    pub(crate) fn add(&self, id: u64, is_render: bool, authenticated: bool) -> Arc<Entry> {
        let entry = Arc::new(Entry {
            id,
            name: mutex(ranks::LEAF, None),
            is_render,
            authenticated: AtomicBool::new(authenticated),
            magic: AtomicU64::new(0),
        });
        self.0.lock().insert(id, entry.clone());
        entry
    }

    /// It is closed.
    pub(crate) fn remove(&self, id: u64) {
        self.0.lock().remove(&id);
    }

    /// All.
    pub(crate) fn all(&self) -> Vec<Arc<Entry>> {
        self.0.lock().values().cloned().collect()
    }
}
