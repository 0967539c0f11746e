//! SYNCOBJ_*: fences that have a handle.

uapi! {
    /// Argument of SYNCOBJ_CREATE.
    SyncobjCreate, 8 {
        /// The new syncobj.
        handle: u32 = 0,
        /// [`CREATE_SIGNALED`].
        flags: u32 = 4,
    }
}

/// It has a fence that is over.
pub const CREATE_SIGNALED: u32 = 1;

uapi! {
    /// Argument of SYNCOBJ_DESTROY.
    SyncobjDestroy, 8 {
        /// Which.
        handle: u32 = 0,
        /// Zero.
        pad: u32 = 4,
    }
}

uapi! {
    /// Argument of SYNCOBJ_HANDLE_TO_FD and of SYNCOBJ_FD_TO_HANDLE.
    SyncobjHandle, 24 {
        /// Syncobj.
        handle: u32 = 0,
        /// [`FD_SYNC_FILE`] | [`FD_TIMELINE`].
        flags: u32 = 4,
        /// Descriptor.
        fd: i32 = 8,
        /// Zero.
        pad: u32 = 12,
        /// Point of a timeline, with [`FD_TIMELINE`].
        point: u64 = 16,
    }
}

/// The descriptor is a sync file: the syncobj's present fence, and not the syncobj.
pub const FD_SYNC_FILE: u32 = 1;
/// There is a point.
pub const FD_TIMELINE: u32 = 2;

uapi! {
    /// Argument of SYNCOBJ_WAIT.
    SyncobjWait, 40 {
        /// Pointer to the handles.
        handles: u64 = 0,
        /// A point of the monotonic clock.
        timeout_nsec: i64 = 8,
        /// Number of handles.
        count_handles: u32 = 16,
        /// `WAIT_*`.
        flags: u32 = 20,
        /// The first that was over.
        first_signaled: u32 = 24,
        /// Zero.
        pad: u32 = 28,
        /// A hint.
        deadline_nsec: u64 = 32,
    }
}

uapi! {
    /// Argument of SYNCOBJ_TIMELINE_WAIT.
    SyncobjTimelineWait, 48 {
        /// Pointer to the handles.
        handles: u64 = 0,
        /// Pointer to the points.
        points: u64 = 8,
        /// A point of the monotonic clock.
        timeout_nsec: i64 = 16,
        /// Number of handles.
        count_handles: u32 = 24,
        /// `WAIT_*`.
        flags: u32 = 28,
        /// The first that was over.
        first_signaled: u32 = 32,
        /// Zero.
        pad: u32 = 36,
        /// A hint.
        deadline_nsec: u64 = 40,
    }
}

/// For all of them.
pub const WAIT_ALL: u32 = 1;
/// A syncobj without a fence is waited for, too.
pub const WAIT_FOR_SUBMIT: u32 = 2;
/// That there is a fence is enough.
pub const WAIT_AVAILABLE: u32 = 4;
/// The hint is given.
pub const WAIT_DEADLINE: u32 = 8;

uapi! {
    /// Argument of SYNCOBJ_RESET and of SYNCOBJ_SIGNAL.
    SyncobjArray, 16 {
        /// Pointer to the handles.
        handles: u64 = 0,
        /// Number of handles.
        count_handles: u32 = 8,
        /// Zero.
        pad: u32 = 12,
    }
}

uapi! {
    /// Argument of SYNCOBJ_QUERY and of SYNCOBJ_TIMELINE_SIGNAL.
    SyncobjTimelineArray, 24 {
        /// Pointer to the handles.
        handles: u64 = 0,
        /// Pointer to the points.
        points: u64 = 8,
        /// Number of handles.
        count_handles: u32 = 16,
        /// QUERY: [`QUERY_LAST_SUBMITTED`].
        flags: u32 = 20,
    }
}

/// The last point that there is, over or not.
pub const QUERY_LAST_SUBMITTED: u32 = 1;

uapi! {
    /// Argument of SYNCOBJ_TRANSFER.
    SyncobjTransfer, 32 {
        /// From.
        src_handle: u32 = 0,
        /// To.
        dst_handle: u32 = 4,
        /// Point of the timeline; 0: the whole.
        src_point: u64 = 8,
        /// Point of the timeline; 0: it becomes binary.
        dst_point: u64 = 16,
        /// [`WAIT_FOR_SUBMIT`].
        flags: u32 = 24,
        /// Zero.
        pad: u32 = 28,
    }
}

uapi! {
    /// Argument of SYNCOBJ_EVENTFD.
    SyncobjEventfd, 24 {
        /// Syncobj.
        handle: u32 = 0,
        /// [`WAIT_AVAILABLE`].
        flags: u32 = 4,
        /// Point of the timeline; 0: the whole.
        point: u64 = 8,
        /// The eventfd that is written.
        fd: i32 = 16,
        /// Zero.
        pad: u32 = 20,
    }
}
