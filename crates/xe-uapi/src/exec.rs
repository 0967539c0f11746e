//! EXEC_QUEUE_*, EXEC, WAIT_USER_FENCE, and syncs.

/// Render.
pub const CLASS_RENDER: u16 = 0;
/// Blitter.
pub const CLASS_COPY: u16 = 1;
/// Compute.
pub const CLASS_COMPUTE: u16 = 4;
/// Not an engine: a queue of binds.
pub const CLASS_VM_BIND: u16 = 5;
/// Highest number of instances of a class in a GT.
pub const MAX_ENGINE_INSTANCE: usize = 9;

uapi! {
    /// Argument of EXEC_QUEUE_CREATE.
    ExecQueueCreate, 48 {
        /// Chain of extensions.
        extensions: u64 = 0,
        /// Engines that one submission runs on.
        width: u16 = 8,
        /// Choices for each of them.
        num_placements: u16 = 10,
        /// VM.
        vm_id: u32 = 12,
        /// [`QUEUE_LOW_LATENCY_HINT`].
        flags: u32 = 16,
        /// The new queue.
        exec_queue_id: u32 = 20,
        /// Pointer to `width * num_placements` engines.
        instances: u64 = 24,
        /// Zero.
        reserved: [u64; 2] = 32,
    }
}

/// Flag of EXEC_QUEUE_CREATE.
pub const QUEUE_LOW_LATENCY_HINT: u32 = 1;
/// Property: 0 low, 1 normal, 2 high.
pub const QUEUE_PROPERTY_PRIORITY: u32 = 0;
/// Property: timeslice, microseconds.
pub const QUEUE_PROPERTY_TIMESLICE: u32 = 1;
/// Property: protected content.
pub const QUEUE_PROPERTY_PXP_TYPE: u32 = 2;
/// Property: address of the context image that a replay of a hang begins with.
pub const QUEUE_HANG_REPLAY_STATE: u32 = 3;
/// Property: a group of queues that share a context slot.
pub const QUEUE_PROPERTY_MULTI_GROUP: u32 = 4;
/// Property: the render engine's state cache without its performance fix.
pub const QUEUE_DISABLE_STATE_CACHE_PERF_FIX: u32 = 6;

uapi! {
    /// Argument of EXEC_QUEUE_DESTROY.
    ExecQueueDestroy, 24 {
        /// Which.
        exec_queue_id: u32 = 0,
        /// Zero.
        pad: u32 = 4,
        /// Zero.
        reserved: [u64; 2] = 8,
    }
}

uapi! {
    /// Argument of EXEC_QUEUE_GET_PROPERTY.
    ExecQueueGetProperty, 40 {
        /// Zero.
        extensions: u64 = 0,
        /// Which queue.
        exec_queue_id: u32 = 8,
        /// Which property.
        property: u32 = 12,
        /// Its value.
        value: u64 = 16,
        /// Zero.
        reserved: [u64; 2] = 24,
    }
}

uapi! {
    /// Argument of EXEC_QUEUE_SET_PROPERTY.
    ExecQueueSetProperty, 40 {
        /// Zero.
        extensions: u64 = 0,
        /// Which queue.
        exec_queue_id: u32 = 8,
        /// Which property.
        property: u32 = 12,
        /// Its new value.
        value: u64 = 16,
        /// Zero.
        reserved: [u64; 2] = 24,
    }
}

/// Property: priority inside of a group of queues.
pub const QUEUE_PROPERTY_MULTI_QUEUE_PRIORITY: u32 = 5;

/// Property of EXEC_QUEUE_GET_PROPERTY: whether the queue is banned.
pub const QUEUE_GET_PROPERTY_BAN: u32 = 0;

uapi! {
    /// A sync: something to wait for or to signal.
    Sync, 48 {
        /// Zero.
        extensions: u64 = 0,
        /// `SYNC_TYPE_*`.
        sync_type: u32 = 8,
        /// [`SYNC_FLAG_SIGNAL`].
        flags: u32 = 12,
        /// Union: handle of a syncobj (low half), or address of a user fence.
        addr: u64 = 16,
        /// Point of a timeline, or value of a user fence.
        timeline_value: u64 = 24,
        /// Zero.
        reserved: [u64; 2] = 32,
    }
}

/// Binary syncobj.
pub const SYNC_TYPE_SYNCOBJ: u32 = 0;
/// Timeline syncobj.
pub const SYNC_TYPE_TIMELINE_SYNCOBJ: u32 = 1;
/// Eight bytes of memory.
pub const SYNC_TYPE_USER_FENCE: u32 = 2;
/// Signal (else wait).
pub const SYNC_FLAG_SIGNAL: u32 = 1;

uapi! {
    /// Argument of EXEC.
    Exec, 56 {
        /// Zero.
        extensions: u64 = 0,
        /// Queue.
        exec_queue_id: u32 = 8,
        /// Number of syncs.
        num_syncs: u32 = 12,
        /// Pointer to the syncs.
        syncs: u64 = 16,
        /// Batch, or pointer to addresses of batches.
        address: u64 = 24,
        /// Number of batches: the queue's width, or 0.
        num_batch_buffer: u16 = 32,
        /// Zero.
        pad: [u16; 3] = 34,
        /// Zero.
        reserved: [u64; 2] = 40,
    }
}

uapi! {
    /// Argument of WAIT_USER_FENCE: waits until `(memory & mask) op (value & mask)`.
    WaitUserFence, 72 {
        /// Zero.
        extensions: u64 = 0,
        /// Eight bytes, naturally aligned.
        addr: u64 = 8,
        /// `UFENCE_WAIT_*`.
        op: u16 = 16,
        /// [`UFENCE_WAIT_FLAG_ABSTIME`].
        flags: u16 = 18,
        /// Zero.
        pad: u32 = 20,
        /// Compared with.
        value: u64 = 24,
        /// Bits that count.
        mask: u64 = 32,
        /// Nanoseconds; negative: for ever. Relative: the rest on return.
        timeout: i64 = 40,
        /// Queue whose ban ends the wait; 0: none.
        exec_queue_id: u32 = 48,
        /// Zero.
        pad2: u32 = 52,
        /// Zero.
        reserved: [u64; 2] = 56,
    }
}

/// Equal.
pub const UFENCE_WAIT_EQ: u16 = 0;
/// Not equal.
pub const UFENCE_WAIT_NEQ: u16 = 1;
/// Memory is greater.
pub const UFENCE_WAIT_GT: u16 = 2;
/// Memory is greater or equal.
pub const UFENCE_WAIT_GTE: u16 = 3;
/// Memory is less.
pub const UFENCE_WAIT_LT: u16 = 4;
/// Memory is less or equal.
pub const UFENCE_WAIT_LTE: u16 = 5;
/// The timeout is a point of the monotonic clock.
pub const UFENCE_WAIT_FLAG_ABSTIME: u16 = 1;
