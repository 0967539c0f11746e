//! The event gate and the intake lock: why no device runs on a VRAM page whose `munmap` has returned.
//!
//! A thread that raises an event (munmap, mremap, DONTNEED) is held by the kernel until its message is *read*.
//! So whoever reads closes the gate first, then reads, then empties the VRAM frames that the events took away,
//! and opens the gate again. New accesses of VRAM wait while it is closed; those that began before it closed
//! began before the program's call returned, and count as earlier. After it opens, an access by a stale
//! translation meets an empty frame. No engine code runs behind the closed gate, so an access that waits for it
//! while it is counted "in flight" cannot hold up the drain that an engine's callback waits for.
//!
//! The intake lock makes reading and its bookkeeping one step (two readers would otherwise process UNMAP, REMAP,
//! UNMAP of one mremap out of order), and lets a mover be sure that between its look at the page map and its
//! ioctl no event is read: movers hold it shared, readers exclusively. An event that is *raised* in that time
//! makes the ioctl fail with EAGAIN; the mover lets go and reads the event itself.

use crate::sys::task::relax;
use sync::atomic::AtomicU32;
use sync::{RwLock, RwLockReadGuard, RwLockWriteGuard};

pub(crate) struct Gate {
    /// Threads that keep it closed.
    closers: AtomicU32,
    intake: RwLock<()>,
}

impl Gate {
    pub const fn new() -> Self {
        Self { closers: AtomicU32::new(0), intake: RwLock::new(()) }
    }

    /// Waits until no event is being taken in. One load where none is.
    pub fn wait_open(&self) {
        let mut spins = 0;
        while self.closers.load() != 0 {
            spins += 1;
            if spins < 64 { core::hint::spin_loop() } else { relax() }
        }
    }

    /// Keeps events unread while the guard lives. Waiting for the gate first lets readers in before movers.
    pub fn hold_events(&self) -> RwLockReadGuard<'_, ()> {
        self.wait_open();
        self.intake.read()
    }

    /// Closes the gate and keeps movers out while the guard lives.
    pub fn close(&self) -> Closed<'_> {
        self.closers.fetch_add(1);
        Closed { gate: self, intake: Some(self.intake.write()) }
    }
}

/// The gate is closed.
pub(crate) struct Closed<'a> {
    gate: &'a Gate,
    intake: Option<RwLockWriteGuard<'a, ()>>,
}

impl Drop for Closed<'_> {
    fn drop(&mut self) {
        self.intake = None;
        self.gate.closers.fetch_sub(1);
    }
}
