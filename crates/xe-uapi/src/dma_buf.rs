//! DMA_BUF_*: what may be asked of a dma-buf. Requests of type `'b'`, on its own descriptor.

/// Type of these requests.
pub const KIND: u8 = b'b';
/// Number of `DMA_BUF_IOCTL_SYNC`.
pub const NR_SYNC: u8 = 0;
/// Number of `DMA_BUF_SET_NAME`.
pub const NR_SET_NAME: u8 = 1;
/// Number of `DMA_BUF_IOCTL_EXPORT_SYNC_FILE`.
pub const NR_EXPORT_SYNC_FILE: u8 = 2;
/// `DMA_BUF_IOCTL_EXPORT_SYNC_FILE`, the whole request.
pub const EXPORT_SYNC_FILE: u32 = 0xc008_6202;
/// Number of `DMA_BUF_IOCTL_IMPORT_SYNC_FILE`.
pub const NR_IMPORT_SYNC_FILE: u8 = 3;

/// Room for a name, with the 0 at its end.
pub const NAME_BYTES: u64 = 32;

bitflags::bitflags! {
    /// Flags of all of these.
    #[derive(Clone, Copy, PartialEq, Eq, Debug)]
    pub struct SyncFlags: u64 {
        /// Reading.
        const READ = 1;
        /// Writing.
        const WRITE = 2;
        /// The end of an access; of SYNC only.
        const END = 4;
    }
}

uapi! {
    /// Argument of `DMA_BUF_IOCTL_SYNC`.
    DmaBufSync, 8 {
        /// [`SyncFlags`].
        flags: u64 = 0,
    }
}

uapi! {
    /// Argument of `DMA_BUF_IOCTL_EXPORT_SYNC_FILE` and `_IMPORT_SYNC_FILE`.
    DmaBufSyncFile, 8 {
        /// [`SyncFlags`].
        flags: u32 = 0,
        /// The sync file.
        fd: i32 = 4,
    }
}
