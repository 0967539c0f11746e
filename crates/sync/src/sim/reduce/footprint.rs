//! What a step does that another step may notice: its footprint.
//!
//! Two steps are *dependent* where one of them touches an object in a way that conflicts with how the other does. There are two
//! questions, and [`How`] has a table for each: whether two touches could have come in the other order ([`How::races`]), and
//! whether the later one comes after the earlier one at all ([`How::orders_all`], [`How::follows_shares`]). A lock shows the difference: who takes it
//! comes after who gave it back, but that order cannot be turned round; what can be is who took it first.
//!
//! Who takes a mutex and gives it back in one step, and tells what it does in between ([`crate::tell`]), does not take it, for others:
//! it looks at what the mutex protects, and touches a part of it.

use crate::hook::{OpKind, Told};
use crate::sim::Op;
use crate::sim::schedule::Touch;
use std::vec::Vec;

/// The number of virtual time among the objects, which are numbered from 1.
const TIME: u32 = 0;

/// How an object is touched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum How {
    /// Looks at it, or holds it beside others: a load, a read lock, the time, a notification that nobody waits for.
    Share,
    /// Looks at what a mutex protects, and gives it back at once.
    Look,
    /// Takes it once it is free: a mutex, a write lock that was queued for.
    Take,
    /// Takes it or queues up, and holds up others by that: a write lock.
    Queue,
    /// Takes it if it is free.
    Try,
    /// Changes it: a store, a wait for a condition variable and its end, time that passes.
    Change,
    /// Gives back what it held beside others.
    Unshare,
    /// Gives back what it held alone.
    Free,
}

impl How {
    /// Whether the two could have come in the other order, and that would have been another run.
    pub(super) const fn races(self, other: How) -> bool {
        use How::{Change, Free, Look, Queue, Share, Take, Try, Unshare};
        match (self, other) {
            (Share | Look, Share | Look) => false,
            (Take | Share | Look, Free | Unshare) | (Free | Unshare, Take | Share | Look) => false,
            (Free | Unshare, Free | Unshare) | (Take, Share) | (Share, Take) => false,
            (Share | Look | Take | Queue | Try | Change | Free | Unshare, _) => true,
        }
    }

    /// Whether all that touch the object later, but for those that give back a share, come after this.
    pub(super) const fn orders_all(self) -> bool {
        !matches!(self, How::Share | How::Look | How::Unshare)
    }

    /// Whether this comes after those that shared the object before it.
    pub(super) const fn follows_shares(self) -> bool {
        !matches!(self, How::Share | How::Look | How::Unshare | How::Free)
    }
}

/// A touch of an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Access {
    pub(super) object: u32,
    /// A part of it; 0: itself.
    pub(super) part: u64,
    pub(super) how: How,
}

impl Access {
    pub(super) const fn whole(object: u32, how: How) -> Self {
        Self { object, part: 0, how }
    }

    /// What an operation does to its object.
    pub(super) const fn of(op: Op) -> Option<Self> {
        let how = match op.kind {
            OpKind::Lock => How::Take,
            OpKind::Read | OpKind::Load | OpKind::Notify => How::Share,
            OpKind::Write => How::Queue,
            OpKind::TryLock | OpKind::TryRead | OpKind::TryWrite => How::Try,
            OpKind::Wait | OpKind::Store | OpKind::Update => How::Change,
            OpKind::Start | OpKind::End | OpKind::Unlock | OpKind::Fence | OpKind::Spawn | OpKind::Join => return None,
            OpKind::Sleep | OpKind::Yield | OpKind::Choose | OpKind::Point => return None,
        };
        Some(Self::whole(op.object, how))
    }

    /// What a touch does to an object.
    pub(super) const fn by(touch: Touch) -> Option<Self> {
        match touch {
            Touch::Released { object, shared: false } => Some(Self::whole(object, How::Free)),
            Touch::Released { object, shared: true } => Some(Self::whole(object, How::Unshare)),
            Touch::Notified { object } | Touch::Waits { object } => Some(Self::whole(object, How::Change)),
            Touch::TimeRead => Some(Self::whole(TIME, How::Share)),
            Touch::Told { object, told: Told::Reads(part) } => Some(Self { object, part, how: How::Share }),
            Touch::Told { object, told: Told::Writes(part) } => Some(Self { object, part, how: How::Change }),
            Touch::Told { told: Told::Looks, .. } | Touch::Woke(_) | Touch::Joined(_) | Touch::Idle => None,
        }
    }

    fn races(self, other: Access) -> bool {
        (self.object, self.part) == (other.object, other.part) && self.how.races(other.how)
    }
}

/// Whether two steps of different tasks, both of which can be done now, do the same in either order.
pub(super) fn independent(one: &[Access], other: &[Access]) -> bool {
    !one.iter().any(|access| other.iter().any(|with| access.races(*with)))
}

/// Touches among which one that is there already is looked for.
const LAST: usize = 8;

/// Adds a touch, unless it is one of the last ones: a step that tells of many pages tells of what they have in common again and again.
/// That a touch is there twice changes nothing.
pub(super) fn add(accesses: &mut Vec<Access>, access: Access) {
    if !accesses.iter().rev().take(LAST).any(|other| *other == access) {
        accesses.push(access);
    }
}

/// The lock is given back in the step that took it: the step did what it told. Whether it is so.
pub(super) fn was_told(accesses: &mut [Access], object: u32) -> bool {
    let takes = |how| matches!(how, How::Take | How::Queue | How::Share);
    let taken = accesses.iter_mut().find(|access| (access.object, access.part) == (object, 0) && takes(access.how));
    taken.map(|access| access.how = How::Look).is_some()
}
