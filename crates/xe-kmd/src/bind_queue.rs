//! A queue of binds: what is to be done to page tables, a line of jobs a tile, and the user fences behind it.
//!
//! A bind changes VMAs at once, and page tables when its in-fences are over and all before it on its queue are done. Each
//! tile has page tables of its own, so each bind is a job a tile. A VM has a default queue, a program may make others.
//!
//! A bind that has nothing to do to page tables is no job. What it signals follows the last jobs of *all* tiles
//! ([`last_fences`](BindQueue::last_fences), a rule with variants: defect C).
//!
//! **User fences.** Eight bytes of the program's memory, written when a bind is done, in the order of the queue's binds:
//! each is listed while the VM's lock is held, and one thread at a time writes from the front what is over. Memory may
//! be in VRAM, so none is written with a lock held, nor by who signals a fence: the worker does it. VMAs know the fence of their
//! bind ([`Hold`](crate::vma::Hold)) while it is listed: it is taken from the list before it is written, so that who sees it written
//! may unmap.
//!
//! Locking: a lock for the list, under which fences are asked whether they are over.
//!
//! Upstream: `xe_exec_queue.c` (`last_fence`, `multi_gt_list`), `xe_sync.c` (`struct xe_user_fence`), `xe_vm_bind_ioctl`.

use std::collections::VecDeque;
use std::sync::Arc;

use sync::Mutex;
use sync::rank::mutex;
use units::HostVa;

use crate::errno::Errno;
use crate::event::Event;
use crate::fence::{Ended, Fence, Happened};
use crate::gpu::Gpu;
use crate::jobs::{Body, JobQueue};
use crate::ranks;
use crate::shared::Shared;

/// A fence that a bind will write. Its queue holds it until it does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct UserFence {
    pub addr: HostVa,
    pub value: u64,
}

/// Binds of one queue.
pub(crate) struct BindQueue {
    /// It is the VM's own.
    is_default: bool,
    tiles: usize,
    /// By tile; fewer than there are tiles where some share one.
    lines: Vec<JobQueue>,
    user: Mutex<UserFences>,
}

#[derive(Default)]
struct UserFences {
    /// Each behind the fence of its bind.
    pending: VecDeque<(Arc<UserFence>, Arc<Fence>)>,
    /// Somebody writes them.
    writing: bool,
}

impl BindQueue {
    /// An empty one of a device.
    pub(crate) fn new(gpu: &Gpu, is_default: bool) -> Arc<Self> {
        let tiles = gpu.tiles.len();
        let lines = (0..(gpu.rules.bind_lines)(tiles)).map(|_| JobQueue::new()).collect();
        Arc::new(Self { is_default, tiles, lines, user: mutex(ranks::SYNCOBJ, UserFences::default()) })
    }

    fn line(&self, tile: usize) -> &JobQueue {
        &self.lines[tile % self.lines.len()]
    }

    /// Whether a bind would have to wait for those before it.
    pub(crate) fn is_busy(&self) -> bool {
        self.lines.iter().any(|line| !line.last().is_over())
    }

    /// Runs a job on each tile, behind the tile's others and `deps`, and not before `gate` is over: the caller holds the VM's
    /// lock, which jobs take. The fence is over when all of them are. The device's worker runs already.
    pub(crate) fn submit(
        &self,
        shared: &Shared,
        deps: &[Arc<Fence>],
        gate: &Arc<Fence>,
        job: impl Fn(usize) -> Body,
    ) -> Result<Arc<Fence>, Errno> {
        let deps = || deps.iter().chain([gate]).cloned().collect();
        let submit = |tile: usize| self.line(tile).submit(&shared.worker, deps(), job(tile));
        let done: Vec<_> = (0..self.tiles).map(submit).collect::<Result<_, Errno>>()?;
        Ok(Fence::all(done))
    }

    /// What a bind without work for page tables signals behind. `EFAULT`: the rule left a hole, which silicon's driver takes
    /// for a pointer.
    ///
    /// Upstream: `xe_sync_in_fence_get`.
    pub(crate) fn last_fences(&self, shared: &Shared) -> Result<Arc<Fence>, Errno> {
        let slots = (shared.gpu.rules.bind_fence_slots)(self.tiles, self.is_default);
        let (count, filled) = (slots.len() as u32, slots.iter().flatten().count() as u32);
        if filled < count {
            shared.gpu.emit(Event::FenceArrayHole { count, filled });
            return Err(Errno::EFAULT);
        }
        Ok(Fence::all(slots.into_iter().flatten().map(|tile| self.line(tile).last())))
    }

    /// Lists a user fence. Called with the VM's lock held: that makes the order.
    pub(crate) fn push(&self, fence: Arc<UserFence>, after: Arc<Fence>) {
        self.user.lock().pending.push_back((fence, after));
    }

    /// Writes what is listed and over, unless another thread is at it already; the rest follows by itself. Called with no
    /// lock held.
    pub(crate) fn write(self: &Arc<Self>, shared: &Arc<Shared>) {
        let mut holds = false;
        loop {
            match self.next(&mut holds) {
                Next::Write(fence) => {
                    // Memory that is gone meanwhile is the program's own affair: nobody is told, as upstream.
                    let _ = shared.memory.copy_to_user(fence.addr, &fence.value.to_le_bytes());
                    shared.waiters.wake(Happened::Written(fence.addr.0));
                }
                Next::After(fence) => return self.write_after(shared, &fence),
                Next::Nothing => return,
            }
        }
    }

    fn write_after(self: &Arc<Self>, shared: &Arc<Shared>, fence: &Fence) {
        let (queue, shared) = (self.clone(), shared.clone());
        fence.on_signal(move |_: Ended| {
            let again = shared.clone();
            // It runs, since something had to wait. If it has ended, so has the process.
            let _ = again.worker.at(0, Box::new(move || queue.write(&shared)));
        });
    }

    fn next(&self, holds: &mut bool) -> Next {
        let mut user = self.user.lock();
        if user.writing && !*holds {
            return Next::Nothing;
        }
        let next = match user.pending.front() {
            None => Next::Nothing,
            Some((_, after)) if !after.is_over() => Next::After(after.clone()),
            Some(_) => user.pending.pop_front().map_or(Next::Nothing, |(fence, _)| Next::Write(*fence)),
        };
        *holds = matches!(next, Next::Write(_));
        user.writing = *holds;
        next
    }

    /// The VM ends: what waits is not done any more.
    pub(crate) fn cancel(&self) {
        self.lines.iter().for_each(|line| line.cancel(Errno::ECANCELED));
    }
}

enum Next {
    Write(UserFence),
    After(Arc<Fence>),
    Nothing,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::Rules;
    use crate::testing::Rig;
    use crate::upstream;
    use xe_spec::platform::PVC;

    /// A default queue on which tile 1 alone is slow: what a bind without work signals behind, and the end of the slow job.
    fn behind_a_slow_tile(
        rules: Rules,
        is_default: bool,
    ) -> (Result<Arc<Fence>, Errno>, Arc<Fence>, Rig, Arc<BindQueue>) {
        let rig = Rig::with(&PVC, rules);
        let shared = &rig.device.shared;
        let (queue, slow) = (BindQueue::new(&shared.gpu, is_default), Fence::new());
        queue.line(1).submit(&shared.worker, vec![slow.clone()], Box::new(|| Ok(()))).unwrap();
        let fence = queue.last_fences(shared);
        (fence, slow, rig, queue)
    }

    #[test]
    fn a_bind_without_work_follows_the_last_jobs_of_all_tiles() {
        for is_default in [true, false] {
            let (fence, slow, _rig, _queue) = behind_a_slow_tile(Rules::CORRECT, is_default);
            let fence = fence.unwrap();
            assert!(!fence.is_over());
            slow.signal(Ok(()));
            assert_eq!(fence.wait(None), Some(Ok(())));
        }
    }

    #[test]
    fn upstream_counts_slots_that_it_does_not_fill() {
        let rules = Rules { bind_fence_slots: upstream::fence::counted_by_tile, ..Rules::CORRECT };
        let (fence, _slow, rig, _queue) = behind_a_slow_tile(rules, true);
        assert_eq!(fence.err(), Some(Errno::EFAULT));
        assert!(rig.log.0.lock().contains(&Event::FenceArrayHole { count: 6, filled: 3 }));
        assert!(behind_a_slow_tile(rules, false).0.is_ok(), "a queue of the program's has its tiles in a list");
    }

    #[test]
    fn the_posted_count_does_not_wait_for_the_other_tiles() {
        let rules = Rules { bind_fence_slots: upstream::fence::posted, ..Rules::CORRECT };
        let (fence, _slow, _rig, _queue) = behind_a_slow_tile(rules, true);
        assert!(fence.unwrap().is_over(), "signalled before the bind on tile 1");
        let (fence, _slow, _rig, _queue) = behind_a_slow_tile(rules, false);
        assert!(!fence.unwrap().is_over());
    }

    #[test]
    fn one_queue_of_all_tiles_counts_right_and_has_tiles_wait_for_each_other() {
        let rules = upstream::fence::one_queue(Rules::CORRECT);
        let (fence, slow, rig, queue) = behind_a_slow_tile(rules, true);
        let other_tile = |queue: &BindQueue, rig: &Rig| {
            queue.line(0).submit(&rig.device.shared.worker, Vec::new(), Box::new(|| Ok(()))).unwrap()
        };
        let (fence, behind) = (fence.unwrap(), other_tile(&queue, &rig));
        assert!(!fence.is_over() && !behind.is_over());
        slow.signal(Ok(()));
        assert_eq!([fence, behind].map(|fence| fence.wait(None)), [Some(Ok(())); 2]);
        let (_, _slow, rig, queue) = behind_a_slow_tile(Rules::CORRECT, true);
        assert_eq!(other_tile(&queue, &rig).wait(None), Some(Ok(())), "with a line a tile, none waits");
    }
}
