//! User fences: eight bytes of the program's memory that the driver writes when a bind is done, and the threads
//! that wait for such bytes to change.
//!
//! **Writing.** Binds are done when their ioctl has done them, so a fence needs no job; but it lies in memory
//! that may be in VRAM, so it is written after every lock is released. Fences of one bind queue are written
//! in the order of their binds: each is listed while the VM's lock is held, and one thread at a time
//! empties the list. A second thread leaves its fence to the first and returns.
//!
//! **Waiting.** A waiter is listed by its address and its queue ([`Waiters`]), then reads memory, then waits for the
//! [`Fence`] that it was given. Whatever may have changed memory, a job done or a fence written, signals the fences of
//! those whom it concerns and of nobody else: to read a fence means to bring its page home.
//!
//! Locking: leaf locks, held for no call.
//!
//! Upstream: `xe_sync.c` (`struct xe_user_fence`), `xe_wait_user_fence.c` (`ufence_wq`). Fence arrays of binds
//! (`xe_sync_in_fence_get`) have no counterpart: no bind is ever pending.

use std::collections::VecDeque;
use std::sync::Arc;

use hostmm::HostMemory;
use sync::rank::mutex;
use sync::time::now_ns;
use sync::{Condvar, Mutex};
use units::HostVa;

use crate::errno::Errno;
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
            waiters.wake(Happened::Written(fence.addr.0));
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

/// Something that comes to an end once, with a result, and wakes who waits for it. A clone of its `Arc` gets it, a drop
/// puts it.
pub(crate) struct Fence {
    result: Mutex<Option<Result<(), Errno>>>,
    signalled: Condvar,
}

impl Fence {
    /// One that has not come to its end.
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self { result: mutex(ranks::LEAF, None), signalled: Condvar::new() })
    }

    /// Its end. The first one counts.
    pub(crate) fn signal(&self, result: Result<(), Errno>) {
        self.result.lock().get_or_insert(result);
        self.signalled.notify_all();
    }

    /// Waits for its end; `ETIME` where `deadline_ns` came first.
    pub(crate) fn wait(&self, deadline_ns: Option<u64>) -> Result<(), Errno> {
        let mut state = self.result.lock();
        loop {
            if let Some(result) = *state {
                return result;
            }
            match deadline_ns.map(|deadline| deadline.saturating_sub(now_ns())) {
                None => self.signalled.wait(&mut state),
                Some(0) => return Err(Errno::ETIME),
                Some(left) => _ = self.signalled.wait_for(&mut state, left),
            }
        }
    }
}

/// Names a queue to those who wait; never one that came later.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct QueueId(pub u64);

/// What a waiter may wait for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Happened {
    /// The driver wrote the fence at this address.
    Written(u64),
    /// A job of this queue ended, and wrote the fence at this address if it had one.
    JobDone(QueueId, Option<u64>),
    /// The queue was banned, or closed.
    Ended(QueueId),
}

/// Threads that wait for memory to change.
pub(crate) struct Waiters {
    list: Mutex<Vec<Waiter>>,
}

struct Waiter {
    addr: u64,
    queue: Option<QueueId>,
    fence: Arc<Fence>,
}

impl Waiter {
    /// How this ends its wait, if it does.
    fn answer(&self, happened: Happened) -> Option<Result<(), Errno>> {
        let concerns = match happened {
            Happened::Written(addr) => addr == self.addr,
            // Without a queue nobody is named who will write: it may be a store of any batch.
            Happened::JobDone(queue, addr) => self.queue.is_none_or(|own| own == queue) || addr == Some(self.addr),
            Happened::Ended(queue) => return (self.queue == Some(queue)).then_some(Err(Errno::EIO)),
        };
        concerns.then_some(Ok(()))
    }
}

impl Waiters {
    /// None yet.
    pub(crate) const fn new() -> Self {
        Self { list: mutex(ranks::LEAF, Vec::new()) }
    }

    /// From now on what happens to the memory at `addr`, or to `queue`, is not missed. To be called before memory is
    /// read, and again before it is read again.
    pub(crate) fn listen(&self, addr: u64, queue: Option<QueueId>) -> Listening<'_> {
        let fence = Fence::new();
        self.list.lock().push(Waiter { addr, queue, fence: fence.clone() });
        Listening { waiters: self, fence }
    }

    /// Wakes those whom it concerns.
    pub(crate) fn wake(&self, happened: Happened) {
        let woken = |waiter: &Waiter| Some((waiter.fence.clone(), waiter.answer(happened)?));
        let woken: Vec<_> = self.list.lock().iter().filter_map(woken).collect();
        woken.into_iter().for_each(|(fence, result)| fence.signal(result));
    }
}

/// A waiter that is listed.
pub(crate) struct Listening<'a> {
    waiters: &'a Waiters,
    fence: Arc<Fence>,
}

impl Listening<'_> {
    /// Sleeps until something happened that concerns the waiter: `EIO` where its queue came to an end, `ETIME` where
    /// nothing happened before `deadline_ns`.
    pub(crate) fn wait(self, deadline_ns: Option<u64>) -> Result<(), Errno> {
        self.fence.wait(deadline_ns)
    }
}

impl Drop for Listening<'_> {
    fn drop(&mut self) {
        self.waiters.list.lock().retain(|waiter| !Arc::ptr_eq(&waiter.fence, &self.fence));
    }
}
