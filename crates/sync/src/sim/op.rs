//! What a task is about to do at a scheduling point.

/// The kinds of visible operations. Two operations on one object commute only where both are [`OpKind::Load`] or
/// [`OpKind::Read`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
#[allow(missing_docs)]
pub enum OpKind {
    /// The task runs for the first time.
    Start,
    /// The task has ended.
    End,
    Lock,
    TryLock,
    /// Only under [`super::UnlockRule::Point`].
    Unlock,
    /// A reader-writer lock, shared.
    Read,
    TryRead,
    /// A reader-writer lock, exclusively: take it or queue up.
    Write,
    TryWrite,
    /// Release the mutex and wait for a notification.
    Wait,
    Notify,
    Load,
    Store,
    /// Read and write in one.
    Update,
    Fence,
    Spawn,
    Join,
    Sleep,
    Yield,
    /// A choice of data, not of a task.
    Choose,
    /// A place that the code under test named by [`crate::point`].
    Point,
}

/// An operation: its kind and the object it is done to (numbered from 1 in the order of first use; 0 for none).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs)]
pub struct Op {
    pub kind: OpKind,
    pub object: u32,
}

impl Op {
    pub(crate) const fn new(kind: OpKind, object: u32) -> Self {
        Self { kind, object }
    }

    /// On no object.
    pub(crate) const fn bare(kind: OpKind) -> Self {
        Self { kind, object: 0 }
    }
}

/// What an object is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum ObjectKind {
    Mutex,
    RwLock,
    Condvar,
    Atomic,
}
