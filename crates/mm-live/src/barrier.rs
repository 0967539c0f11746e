//! The event barrier and the events lock: why no device runs on a VRAM page whose `munmap` has returned.
//!
//! A thread that raises an event (munmap, mremap, DONTNEED) is held by the kernel until its message is *read*.
//! So whoever reads closes the barrier first, then reads, then empties the VRAM frames that the events took away,
//! and opens the barrier again. New accesses of VRAM wait while it is closed; those that began before it closed
//! began before the program's call returned, and count as earlier. After it opens, an access by a stale
//! translation meets an empty frame. No engine code runs behind the closed barrier, so an access that waits for it
//! while it is counted "in flight" cannot hold up the drain that an engine's callback waits for.
//!
//! The events lock makes reading and its bookkeeping one step (two readers would otherwise process UNMAP, REMAP,
//! UNMAP of one mremap out of order), and lets a mover be sure that between its look at the books and its
//! ioctl no event is read: movers hold it shared, readers exclusively. An event that is *raised* in that time
//! makes the ioctl fail with EAGAIN; the mover lets go and reads the event itself.

use crate::ranks::EVENTS;
use sync::atomic::AtomicU32;
use sync::rank;
use sync::{RwLock, RwLockReadGuard, RwLockWriteGuard};

pub(crate) struct Barrier {
    /// Threads that keep it closed.
    closers: AtomicU32,
    events: RwLock<()>,
}

impl Barrier {
    pub const fn new() -> Self {
        Self { closers: AtomicU32::new(0), events: rank::rwlock(EVENTS, ()) }
    }

    /// Whether events are being taken in.
    pub fn is_closed(&self) -> bool {
        self.closers.load() != 0
    }

    /// Keeps events unread while the guard lives.
    pub fn hold_events(&self) -> RwLockReadGuard<'_, ()> {
        self.events.read()
    }

    /// Closes the barrier and keeps movers out while the guard lives.
    pub fn close(&self) -> Closed<'_> {
        self.closers.fetch_add(1);
        Closed { barrier: self, events: Some(self.events.write()) }
    }

    /// Closes it, for a process that reads and settles nothing, until [`let_go`](Self::let_go).
    pub fn hold(&self) {
        self.closers.fetch_add(1);
    }

    /// Ends that.
    pub fn let_go(&self) {
        self.closers.fetch_sub(1);
    }
}

/// The barrier is closed.
pub(crate) struct Closed<'a> {
    barrier: &'a Barrier,
    events: Option<RwLockWriteGuard<'a, ()>>,
}

impl Drop for Closed<'_> {
    fn drop(&mut self) {
        self.events = None;
        self.barrier.closers.fetch_sub(1);
    }
}
