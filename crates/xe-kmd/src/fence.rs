//! User fences: eight bytes of the program's memory that the driver writes when a bind is done, and the threads
//! that wait for such bytes to change.
//!
//! **Writing.** Binds are done when their ioctl has done them, so a fence needs no job; but it lies in memory
//! that may be in VRAM, so it is written after every lock is released. Fences of one bind queue are written
//! in the order of their binds: each is listed while the VM's lock is held, and one thread at a time
//! empties the list. A second thread leaves its fence to the first and returns.
//!
//! **Waiting.** [`Waiters`] counts whatever may have changed some fence: a job done, a fence written, a queue
//! banned. A waiter reads the count, then memory, then sleeps until the count has moved.
//!
//! Locking: both are leaf locks, held for no call.
//!
//! Upstream: `xe_sync.c` (`struct xe_user_fence`), `xe_wait_user_fence.c` (`ufence_wq`). Fence arrays of binds
//! (`xe_sync_in_fence_get`) have no counterpart: no bind is ever pending.

use std::collections::VecDeque;

use gpusvm::hostmm::HostMemory;
use sync::rank::mutex;
use sync::time::now_ns;
use sync::{Condvar, Mutex};
use units::HostVa;

use crate::ranks;

/// A fence that a bind will write.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct UserFence {
    pub addr: HostVa,
    pub value: u64,
}

/// Fences of one bind queue, in the order of its binds.
pub(crate) struct BindFences {
    list: Mutex<FenceList>,
}

#[derive(Default)]
struct FenceList {
    pending: VecDeque<UserFence>,
    /// Somebody writes them.
    writing: bool,
}

impl BindFences {
    /// None yet.
    pub(crate) fn new() -> Self {
        Self { list: mutex(ranks::LEAF, FenceList::default()) }
    }

    /// Lists a fence. Called with the VM's lock held: that makes the order.
    pub(crate) fn push(&self, fence: UserFence) {
        self.list.lock().pending.push_back(fence);
    }

    /// Writes what is listed, unless another thread is at it already. Called with no lock held.
    pub(crate) fn write(&self, memory: &dyn HostMemory, waiters: &Waiters) {
        let mut holds = false;
        while let Some(fence) = self.next(&mut holds) {
            // Memory that is gone meanwhile is the program's own affair: nobody is told, as upstream.
            let _ = memory.copy_to_user(fence.addr, &fence.value.to_le_bytes());
            waiters.wake();
        }
    }

    fn next(&self, holds: &mut bool) -> Option<UserFence> {
        let mut list = self.list.lock();
        if list.writing && !*holds {
            return None;
        }
        let next = list.pending.pop_front();
        *holds = next.is_some();
        list.writing = *holds;
        next
    }
}

/// Threads that wait for memory to change.
pub(crate) struct Waiters {
    count: Mutex<u64>,
    moved: Condvar,
}

impl Waiters {
    /// None yet.
    pub(crate) const fn new() -> Self {
        Self { count: mutex(ranks::LEAF, 0), moved: Condvar::new() }
    }

    /// Something may have changed.
    pub(crate) fn wake(&self) {
        *self.count.lock() += 1;
        self.moved.notify_all();
    }

    /// The count, to be read before memory is.
    pub(crate) fn seen(&self) -> u64 {
        *self.count.lock()
    }

    /// Sleeps until the count is not `seen`, or until `deadline_ns`; false where that time came.
    pub(crate) fn wait(&self, seen: u64, deadline_ns: Option<u64>) -> bool {
        let mut count = self.count.lock();
        while *count == seen {
            match deadline_ns {
                None => self.moved.wait(&mut count),
                Some(deadline) => {
                    let now = now_ns();
                    if now >= deadline {
                        return false;
                    }
                    self.moved.wait_for(&mut count, deadline - now);
                }
            }
        }
        true
    }
}
