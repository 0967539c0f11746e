//! Syncobjs: fences that have a handle, and may be replaced.
//!
//! A syncobj has no fence, one, or a timeline: points that rise, each over when its own fence and all before it are. What is
//! over is forgotten, but for how far the timeline came. Who needs a fence that is not there yet [`watch`](Syncobj::watch)es.
//!
//! A point that does not rise begins a timeline of its own behind what was there, as upstream: it keeps the number of the
//! last one, and what was before it is no point any more.
//!
//! Locking: each has a lock, held over looks at fences and no call; watchers are called without it.
//!
//! Upstream: `drm_syncobj.c`, `dma-fence-chain.c`.

use std::collections::VecDeque;
use std::sync::Arc;

use sync::Mutex;
use sync::rank::mutex;

use crate::errno::Errno;
use crate::fence::Fence;
use crate::ranks;

/// A fence with a handle.
pub struct Syncobj {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    payload: Payload,
    watchers: Vec<Watcher>,
    last_watcher: u64,
}

/// What it has.
#[derive(Default)]
enum Payload {
    #[default]
    Nothing,
    Binary(Arc<Fence>),
    Timeline(Timeline),
}

/// Points that rise.
struct Timeline {
    /// Those that are not known to be over, and the last one. Each fence is over when all before it are, too.
    points: VecDeque<(u64, Arc<Fence>)>,
    /// All up to this are over.
    reached: u64,
    last: u64,
}

struct Watcher {
    id: WatchId,
    point: u64,
    found: Found,
}

/// Called with the fence that was waited for, once.
type Found = Box<dyn FnOnce(Arc<Fence>) + Send>;

/// Names a watcher of a syncobj.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct WatchId(u64);

impl Syncobj {
    /// One without a fence.
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self { state: mutex(ranks::SYNCOBJ, State::default()) })
    }

    /// Gives it a fence, or none. Upstream: `drm_syncobj_replace_fence`.
    pub(crate) fn replace(&self, fence: Option<Arc<Fence>>) {
        self.change(|payload| *payload = fence.map_or(Payload::Nothing, Payload::Binary));
    }

    /// Adds a point to its timeline. Upstream: `drm_syncobj_add_point`.
    pub(crate) fn add_point(&self, point: u64, fence: Arc<Fence>) {
        self.change(|payload| {
            let (before, last) = match std::mem::take(payload) {
                Payload::Timeline(mut timeline) if timeline.last < point => {
                    timeline.push(point, fence);
                    *payload = Payload::Timeline(timeline);
                    return;
                }
                Payload::Timeline(timeline) => (timeline.whole(), timeline.last),
                Payload::Binary(before) => (Some(before), 0),
                Payload::Nothing => (None, 0),
            };
            let mut timeline = Timeline::new();
            timeline.push(point.max(last), Fence::all(before.into_iter().chain([fence])));
            *payload = Payload::Timeline(timeline);
        });
    }

    /// The fence that stands for `point`; 0: for all that there is. `EINVAL`: there is none (yet). Upstream:
    /// `drm_syncobj_find_fence`, `dma_fence_chain_find_seqno`.
    pub(crate) fn find(&self, point: u64) -> Result<Arc<Fence>, Errno> {
        self.state.lock().payload.find(point).ok_or(Errno::EINVAL)
    }

    /// The last point up to which all is over; with `submitted` the last that there is. 0 where there is no timeline.
    pub(crate) fn query(&self, submitted: bool) -> u64 {
        match &mut self.state.lock().payload {
            Payload::Nothing | Payload::Binary(_) => 0,
            Payload::Timeline(timeline) if submitted => timeline.last,
            Payload::Timeline(timeline) => timeline.forget_what_is_over(),
        }
    }

    /// Calls `found` with the fence of `point`: now, or as soon as there is one. The call takes leaf locks only.
    pub(crate) fn watch(&self, point: u64, found: impl FnOnce(Arc<Fence>) + Send + 'static) -> Option<WatchId> {
        let mut state = self.state.lock();
        if let Some(fence) = state.payload.find(point) {
            drop(state);
            found(fence);
            return None;
        }
        state.last_watcher += 1;
        let id = WatchId(state.last_watcher);
        state.watchers.push(Watcher { id, point, found: Box::new(found) });
        Some(id)
    }

    /// Calls that one no more.
    pub(crate) fn unwatch(&self, id: WatchId) {
        let gone = {
            let mut state = self.state.lock();
            let at = state.watchers.iter().position(|watcher| watcher.id == id);
            at.map(|at| state.watchers.remove(at))
        };
        drop(gone);
    }

    /// Changes what it has, and calls those who waited for that.
    fn change(&self, change: impl FnOnce(&mut Payload)) {
        let mut state = self.state.lock();
        change(&mut state.payload);
        let State { payload, watchers, .. } = &mut *state;
        let mut found = Vec::new();
        for watcher in std::mem::take(watchers) {
            match payload.find(watcher.point) {
                Some(fence) => found.push((watcher, fence)),
                None => watchers.push(watcher),
            }
        }
        drop(state);
        found.into_iter().for_each(|(watcher, fence)| (watcher.found)(fence));
    }
}

impl Payload {
    fn find(&self, point: u64) -> Option<Arc<Fence>> {
        match self {
            Self::Binary(fence) if point == 0 => Some(fence.clone()),
            Self::Timeline(timeline) => timeline.find(point),
            Self::Nothing | Self::Binary(_) => None,
        }
    }
}

impl Timeline {
    fn new() -> Self {
        Self { points: VecDeque::new(), reached: 0, last: 0 }
    }

    /// A point above all others.
    fn push(&mut self, point: u64, fence: Arc<Fence>) {
        self.forget_what_is_over();
        let fence = Fence::all(self.whole().into_iter().chain([fence]));
        self.points.push_back((point, fence));
        self.last = point;
    }

    /// All of it.
    fn whole(&self) -> Option<Arc<Fence>> {
        self.points.back().map(|(_, fence)| fence.clone())
    }

    fn find(&self, point: u64) -> Option<Arc<Fence>> {
        let at = if point == 0 { self.points.len() - 1 } else { self.points.partition_point(|(own, _)| *own < point) };
        match self.points.get(at) {
            Some(_) if point != 0 && point <= self.reached => Some(Fence::over(Ok(()))),
            Some((_, fence)) => Some(fence.clone()),
            None => None,
        }
    }

    /// How far it came.
    fn forget_what_is_over(&mut self) -> u64 {
        while let Some((point, fence)) = self.points.front()
            && fence.is_over()
        {
            self.reached = *point;
            if self.points.len() == 1 {
                break;
            }
            self.points.pop_front();
        }
        self.reached
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sync::atomic::AtomicU64;

    fn is_over(syncobj: &Syncobj, point: u64) -> Option<bool> {
        syncobj.find(point).ok().map(|fence| fence.is_over())
    }

    #[test]
    fn a_binary_syncobj_has_no_points() {
        let syncobj = Syncobj::new();
        assert_eq!((is_over(&syncobj, 0), syncobj.query(false), syncobj.query(true)), (None, 0, 0));
        let fence = Fence::new();
        syncobj.replace(Some(fence.clone()));
        assert_eq!((is_over(&syncobj, 0), is_over(&syncobj, 1), syncobj.query(true)), (Some(false), None, 0));
        fence.signal(Err(Errno::EIO));
        assert_eq!(is_over(&syncobj, 0), Some(true));
        syncobj.replace(None);
        assert_eq!(is_over(&syncobj, 0), None);
    }

    #[test]
    fn a_point_is_over_when_all_before_it_are() {
        let syncobj = Syncobj::new();
        let fences = [Fence::new(), Fence::new(), Fence::new()];
        fences.iter().zip([10, 20, 40]).for_each(|(fence, point)| syncobj.add_point(point, fence.clone()));
        fences[1].signal(Ok(()));
        assert_eq!([10, 15, 40, 0].map(|point| is_over(&syncobj, point)), [Some(false); 4]);
        assert_eq!((is_over(&syncobj, 41), syncobj.query(false), syncobj.query(true)), (None, 0, 40));
        fences[0].signal(Ok(()));
        assert_eq!([1, 10, 20].map(|point| is_over(&syncobj, point)), [Some(true); 3]);
        assert_eq!([21, 40, 0].map(|point| is_over(&syncobj, point)), [Some(false); 3]);
        assert_eq!(syncobj.query(false), 20);
        fences[2].signal(Ok(()));
        assert_eq!((syncobj.query(false), is_over(&syncobj, 0), is_over(&syncobj, 7)), (40, Some(true), Some(true)));
    }

    #[test]
    fn a_point_that_does_not_rise_begins_anew_behind_the_others() {
        let syncobj = Syncobj::new();
        let (first, second) = (Fence::new(), Fence::new());
        syncobj.add_point(5, first.clone());
        syncobj.add_point(3, second.clone());
        second.signal(Ok(()));
        assert_eq!((is_over(&syncobj, 3), syncobj.query(false), syncobj.query(true)), (Some(false), 0, 5));
        first.signal(Ok(()));
        assert_eq!((is_over(&syncobj, 3), syncobj.query(false)), (Some(true), 5));
        let binary = Fence::new();
        syncobj.replace(Some(binary.clone()));
        syncobj.add_point(1, Fence::over(Ok(())));
        assert_eq!(is_over(&syncobj, 1), Some(false), "behind the binary one");
        binary.signal(Ok(()));
        assert_eq!(is_over(&syncobj, 1), Some(true));
    }

    #[test]
    fn what_is_over_is_forgotten() {
        let syncobj = Syncobj::new();
        (1..1000).for_each(|point| syncobj.add_point(point, Fence::over(Ok(()))));
        let Payload::Timeline(timeline) = &syncobj.state.lock().payload else { panic!("a timeline") };
        assert!(timeline.points.len() <= 2, "{}", timeline.points.len());
    }

    #[test]
    fn a_watcher_is_told_once_of_the_first_fence_that_will_do() {
        let syncobj = Syncobj::new();
        let told = Arc::new(AtomicU64::new(0));
        let watch = |point| {
            let told = told.clone();
            syncobj.watch(point, move |_| _ = told.fetch_add(point.max(1)))
        };
        let (whole, seven, none) = (watch(0), watch(7), watch(1000).expect("not there"));
        assert!(whole.is_some() && seven.is_some());
        syncobj.add_point(5, Fence::new());
        assert_eq!(told.load(), 1);
        syncobj.add_point(9, Fence::new());
        assert_eq!((told.load(), watch(2), told.load()), (8, None, 10));
        syncobj.unwatch(none);
        syncobj.add_point(2000, Fence::new());
        assert_eq!(told.load(), 10);
    }
}
