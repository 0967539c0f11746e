//! The DRM core's ioctls.

uapi! {
    /// Argument of VERSION. Each length is the buffer's capacity on the way in, the true length on the way out.
    Version, 64 {
        /// Major version.
        version_major: i32 = 0,
        /// Minor version.
        version_minor: i32 = 4,
        /// Patch level.
        version_patchlevel: i32 = 8,
        /// Padding of the C struct.
        pad: u32 = 12,
        /// Length of the name.
        name_len: u64 = 16,
        /// Buffer for the driver's name.
        name: u64 = 24,
        /// Length of the date.
        date_len: u64 = 32,
        /// Buffer for the date.
        date: u64 = 40,
        /// Length of the description.
        desc_len: u64 = 48,
        /// Buffer for the description.
        desc: u64 = 56,
    }
}

uapi! {
    /// Argument of GET_CAP (and of SET_CLIENT_CAP).
    GetCap, 16 {
        /// Which capability.
        capability: u64 = 0,
        /// Its value.
        value: u64 = 8,
    }
}

uapi! {
    /// Argument of GEM_CLOSE.
    GemClose, 8 {
        /// Handle to give up.
        handle: u32 = 0,
        /// Zero.
        pad: u32 = 4,
    }
}

/// PRIME import and export.
pub const CAP_PRIME: u64 = 0x5;
/// Timestamps are monotonic.
pub const CAP_TIMESTAMP_MONOTONIC: u64 = 0x6;
/// Syncobjs.
pub const CAP_SYNCOBJ: u64 = 0x13;
/// Timeline syncobjs.
pub const CAP_SYNCOBJ_TIMELINE: u64 = 0x14;
