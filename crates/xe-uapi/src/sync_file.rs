//! SYNC_IOC_*: what may be asked of a sync file. Requests of type `'>'`, on its own descriptor.

/// Type of these requests.
pub const KIND: u8 = b'>';
/// Number of `SYNC_IOC_MERGE`.
pub const NR_MERGE: u8 = 3;
/// Number of `SYNC_IOC_FILE_INFO`.
pub const NR_FILE_INFO: u8 = 4;
/// Number of `SYNC_IOC_SET_DEADLINE`.
pub const NR_SET_DEADLINE: u8 = 5;

uapi! {
    /// Argument of `SYNC_IOC_MERGE`.
    SyncMerge, 48 {
        /// Name of the new one.
        name: [u8; 32] = 0,
        /// The other sync file.
        fd2: i32 = 32,
        /// The new one.
        fence: i32 = 36,
        /// Zero.
        flags: u32 = 40,
        /// Zero.
        pad: u32 = 44,
    }
}

uapi! {
    /// Argument of `SYNC_IOC_FILE_INFO`.
    SyncFileInfo, 56 {
        /// Its name.
        name: [u8; 32] = 0,
        /// 1 where it is over, 0 where not, or a negative errno.
        status: i32 = 32,
        /// Zero.
        flags: u32 = 36,
        /// How many fences the array has room for; how many there are.
        num_fences: u32 = 40,
        /// Zero.
        pad: u32 = 44,
        /// Pointer to an array of [`SyncFenceInfo`].
        sync_fence_info: u64 = 48,
    }
}

uapi! {
    /// One fence of a sync file.
    SyncFenceInfo, 80 {
        /// Name of its timeline.
        obj_name: [u8; 32] = 0,
        /// Name of the driver.
        driver_name: [u8; 32] = 32,
        /// As that of the file.
        status: i32 = 64,
        /// Zero.
        flags: u32 = 68,
        /// When it was over.
        timestamp_ns: u64 = 72,
    }
}

uapi! {
    /// Argument of `SYNC_IOC_SET_DEADLINE`.
    SyncSetDeadline, 16 {
        /// A hint.
        deadline_ns: u64 = 0,
        /// Zero.
        pad: u64 = 8,
    }
}
