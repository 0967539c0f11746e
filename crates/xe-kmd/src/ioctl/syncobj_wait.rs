//! SYNCOBJ_WAIT and SYNCOBJ_TIMELINE_WAIT.
//!
//! Each syncobj is asked for its fence first. Where one has none, the call fails, unless it may wait for one: then the
//! syncobj is watched, and the first fence that it gets is the one that is waited for, whatever becomes of the syncobj.
//!
//! Locking: leaf locks; none while it sleeps.
//!
//! Upstream: `drm_syncobj_array_wait_timeout`, `drm_syncobj_find_fence`.

use std::sync::Arc;

use sync::Mutex;
use sync::rank::mutex;
use sync::time::{after_ns, now_ns};
use xe_uapi::syncobj::{SyncobjTimelineWait, SyncobjWait, WAIT_ALL, WAIT_AVAILABLE, WAIT_DEADLINE, WAIT_FOR_SUBMIT};

use super::syncobj::find_all;
use super::{Reply, require};
use crate::caller::Caller;
use crate::errno::Errno;
use crate::fence::{Bell, Fence};
use crate::file::File;
use crate::ranks;
use crate::syncobj::{Syncobj, WatchId};

/// How long TRANSFER waits for a fence to transfer.
const SUBMIT_NS: u64 = 5_000_000_000;

/// SYNCOBJ_WAIT.
pub(super) fn wait(file: &File, args: &mut SyncobjWait, caller: &dyn Caller) -> Reply {
    require(args.flags & !(WAIT_ALL | WAIT_FOR_SUBMIT | WAIT_DEADLINE) == 0)?;
    if args.count_handles == 0 {
        return Ok(0);
    }
    let syncobjs = find_all(file, args.handles, args.count_handles)?;
    let wanted = syncobjs.into_iter().map(|syncobj| (syncobj, 0)).collect();
    args.first_signaled = Waits::new(wanted, args.flags)?.wait(args.timeout_nsec, caller)?;
    Ok(0)
}

/// SYNCOBJ_TIMELINE_WAIT.
pub(super) fn timeline_wait(file: &File, args: &mut SyncobjTimelineWait, caller: &dyn Caller) -> Reply {
    require(args.flags & !(WAIT_ALL | WAIT_FOR_SUBMIT | WAIT_AVAILABLE | WAIT_DEADLINE) == 0)?;
    if args.count_handles == 0 {
        return Ok(0);
    }
    let syncobjs = find_all(file, args.handles, args.count_handles)?;
    let points: Vec<u64> = match args.points {
        0 => vec![0; syncobjs.len()],
        at => file.shared.copy_in_vec(at, syncobjs.len())?,
    };
    let wanted = syncobjs.into_iter().zip(points).collect();
    args.first_signaled = Waits::new(wanted, args.flags)?.wait(args.timeout_nsec, caller)?;
    Ok(0)
}

/// The fence of a point; waits for it to be there, at most five seconds.
pub(super) fn find_or_wait(syncobj: &Arc<Syncobj>, point: u64, caller: &dyn Caller) -> Result<Arc<Fence>, Errno> {
    let waits = Waits::new(vec![(syncobj.clone(), point)], WAIT_FOR_SUBMIT | WAIT_AVAILABLE)?;
    waits.wait_until(after_ns(SUBMIT_NS), caller)?;
    waits.entries[0].fence().ok_or(Errno::EINVAL)
}

/// What one call waits for.
struct Waits {
    entries: Vec<Entry>,
    bell: Arc<Bell>,
    flags: u32,
}

struct Entry {
    syncobj: Arc<Syncobj>,
    fence: Arc<Mutex<Option<Arc<Fence>>>>,
    watch: Option<WatchId>,
}

impl Entry {
    fn fence(&self) -> Option<Arc<Fence>> {
        self.fence.lock().clone()
    }
}

impl Waits {
    fn new(wanted: Vec<(Arc<Syncobj>, u64)>, flags: u32) -> Result<Self, Errno> {
        let mut waits = Self { entries: Vec::with_capacity(wanted.len()), bell: Bell::new(), flags };
        let may_be_missing = flags & (WAIT_FOR_SUBMIT | WAIT_AVAILABLE) != 0;
        for (syncobj, point) in wanted {
            let found = syncobj.find(point).ok();
            require(may_be_missing || found.is_some())?;
            let missing = found.is_none();
            let (slot, bell) = (Arc::new(mutex(ranks::LEAF, found)), waits.bell.clone());
            let fence = slot.clone();
            let fill = move |found: Arc<Fence>| {
                *slot.lock() = Some(found.clone());
                // The fence itself rings from now on.
                found.ring(&bell);
                bell.ring();
            };
            let watch = if missing { syncobj.watch(point, fill) } else { None };
            waits.entries.push(Entry { syncobj, fence, watch });
        }
        Ok(waits)
    }

    /// Which was the first, of those that are over when it ends; -1 where that was none of them.
    fn wait(&self, timeout_ns: i64, caller: &dyn Caller) -> Result<u32, Errno> {
        self.wait_until(u64::try_from(timeout_ns).unwrap_or(0), caller)
    }

    fn wait_until(&self, deadline: u64, caller: &dyn Caller) -> Result<u32, Errno> {
        // What is there already may be all: nothing is listed for it then.
        if let Some(first) = self.outcome() {
            return Ok(first);
        }
        for fence in self.entries.iter().filter_map(Entry::fence) {
            fence.ring(&self.bell);
        }
        loop {
            if let Some(first) = self.outcome() {
                return Ok(first);
            }
            if deadline <= now_ns() {
                return Err(Errno::ETIME);
            }
            if caller.is_interrupted() {
                return Err(Errno::EINTR);
            }
            self.bell.wait(deadline.min(after_ns(caller.slice_ns())));
        }
    }

    /// The first of those that are over, where they are enough.
    fn outcome(&self) -> Option<u32> {
        let available = self.flags & WAIT_AVAILABLE != 0;
        let is_over = |entry: &Entry| entry.fence().is_some_and(|fence| available || fence.is_over());
        let mut over = (0..).zip(&self.entries).filter(|(_, entry)| is_over(entry)).map(|(n, _)| n);
        let first = over.next()?;
        let enough = self.flags & WAIT_ALL == 0 || over.count() + 1 == self.entries.len();
        enough.then_some(first)
    }
}

impl Drop for Waits {
    fn drop(&mut self) {
        for entry in &self.entries {
            if let Some(watch) = entry.watch {
                entry.syncobj.unwatch(watch);
            }
            if let Some(fence) = entry.fence() {
                fence.silence(&self.bell);
            }
        }
    }
}
