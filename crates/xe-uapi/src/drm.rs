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
    /// Argument of GET_UNIQUE.
    Unique, 16 {
        /// Capacity on the way in, length of the name on the way out.
        length: u64 = 0,
        /// Buffer for the device's name on its bus.
        unique: u64 = 8,
    }
}

uapi! {
    /// Argument of GET_MAGIC.
    Magic, 4 {
        /// What a master is told to let the file's owner in.
        magic: u32 = 0,
    }
}

uapi! {
    /// Argument of SET_VERSION: -1 asks for nothing.
    SetVersion, 16 {
        /// Major version of the core's interface.
        di_major: i32 = 0,
        /// Minor version.
        di_minor: i32 = 4,
        /// Major version of the driver.
        dd_major: i32 = 8,
        /// Minor version.
        dd_minor: i32 = 12,
    }
}

uapi! {
    /// Argument of SET_CLIENT_NAME.
    SetClientName, 16 {
        /// Bytes of the name, up to [`CLIENT_NAME_MAX`]; 0 takes it away.
        name_len: u64 = 0,
        /// The name: printable, without spaces.
        name: u64 = 8,
    }
}

/// Bytes of a client's name.
pub const CLIENT_NAME_MAX: u64 = 64;

uapi! {
    /// Argument of GEM_CLOSE.
    GemClose, 8 {
        /// Handle to give up.
        handle: u32 = 0,
        /// Zero.
        pad: u32 = 4,
    }
}

uapi! {
    /// Argument of GEM_FLINK.
    GemFlink, 8 {
        /// BO.
        handle: u32 = 0,
        /// Its name for all files.
        name: u32 = 4,
    }
}

uapi! {
    /// Argument of GEM_OPEN.
    GemOpen, 16 {
        /// Name that GEM_FLINK gave.
        name: u32 = 0,
        /// A new handle.
        handle: u32 = 4,
        /// Bytes of the BO.
        size: u64 = 8,
    }
}

uapi! {
    /// Argument of MODE_CREATE_DUMB.
    CreateDumb, 32 {
        /// Lines.
        height: u32 = 0,
        /// Pixels of a line.
        width: u32 = 4,
        /// Bits of a pixel.
        bpp: u32 = 8,
        /// Nobody looks at them.
        flags: u32 = 12,
        /// The new BO.
        handle: u32 = 16,
        /// Bytes of a line.
        pitch: u32 = 20,
        /// Bytes of the BO.
        size: u64 = 24,
    }
}

uapi! {
    /// Argument of MODE_MAP_DUMB.
    MapDumb, 16 {
        /// BO.
        handle: u32 = 0,
        /// Nobody looks at it.
        pad: u32 = 4,
        /// Offset to mmap the device file at.
        offset: u64 = 8,
    }
}

uapi! {
    /// Argument of MODE_DESTROY_DUMB.
    DestroyDumb, 4 {
        /// Handle to give up.
        handle: u32 = 0,
    }
}

uapi! {
    /// Argument of PRIME_HANDLE_TO_FD and PRIME_FD_TO_HANDLE.
    PrimeHandle, 12 {
        /// BO.
        handle: u32 = 0,
        /// [`PrimeFlags`]; the way back does not look at them.
        flags: u32 = 4,
        /// Descriptor of a dma-buf.
        fd: i32 = 8,
    }
}

bitflags::bitflags! {
    /// Flags of PRIME_HANDLE_TO_FD.
    #[derive(Clone, Copy, PartialEq, Eq, Debug)]
    pub struct PrimeFlags: u32 {
        /// May be mapped for writing (`O_RDWR`).
        const RDWR = 0o2;
        /// Closed by exec (`O_CLOEXEC`).
        const CLOEXEC = 0o2_000_000;
    }
}

/// PRIME: a mask of import and export.
pub const CAP_PRIME: u64 = 0x5;
/// Import and export.
pub const PRIME_BOTH_WAYS: u64 = 3;
/// Timestamps are monotonic.
pub const CAP_TIMESTAMP_MONOTONIC: u64 = 0x6;
/// Syncobjs.
pub const CAP_SYNCOBJ: u64 = 0x13;
/// Timeline syncobjs.
pub const CAP_SYNCOBJ_TIMELINE: u64 = 0x14;
