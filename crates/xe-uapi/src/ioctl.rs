//! Ioctl numbers, and how a request is put together.
//!
//! A request has a direction (bits 31:30: 1 write, 2 read), the argument's size (29:16), a type (15:8, always
//! `'d'`) and a number (7:0). Xe's own numbers start at 0x40.

/// The argument is copied in.
pub const WRITE: u32 = 1;
/// The argument is copied out.
pub const READ: u32 = 2;

/// Puts a request together.
pub const fn request(direction: u32, number: u8, size: usize) -> u32 {
    direction << 30 | (size as u32) << 16 | (b'd' as u32) << 8 | number as u32
}

/// Number of a request.
pub const fn number(request: u32) -> u8 {
    request as u8
}
/// Type of a request.
pub const fn kind(request: u32) -> u8 {
    (request >> 8) as u8
}
/// Size of a request's argument, as its caller compiled it.
pub const fn size(request: u32) -> usize {
    (request >> 16) as usize & 0x3fff
}
/// Direction of a request: [`WRITE`] | [`READ`].
pub const fn direction(request: u32) -> u32 {
    request >> 30
}

macro_rules! requests {
    ($($(#[$doc:meta])* $name:ident = $value:literal: $dir:expr, $number:literal, $arg:ty;)*) => {
        $($(#[$doc])* pub const $name: u32 = $value;
        const _: () = assert!($value == request($dir, $number, core::mem::size_of::<$arg>()));)*
    };
}

requests! {
    /// `DRM_IOCTL_VERSION`.
    VERSION = 0xc040_6400: READ | WRITE, 0x00, crate::drm::Version;
    /// `DRM_IOCTL_GET_UNIQUE`.
    GET_UNIQUE = 0xc010_6401: READ | WRITE, 0x01, crate::drm::Unique;
    /// `DRM_IOCTL_GET_MAGIC`.
    GET_MAGIC = 0x8004_6402: READ, 0x02, crate::drm::Magic;
    /// `DRM_IOCTL_SET_VERSION`.
    SET_VERSION = 0xc010_6407: READ | WRITE, 0x07, crate::drm::SetVersion;
    /// `DRM_IOCTL_SET_CLIENT_NAME`.
    SET_CLIENT_NAME = 0xc010_64d1: READ | WRITE, 0xd1, crate::drm::SetClientName;
    /// `DRM_IOCTL_GEM_CLOSE`.
    GEM_CLOSE = 0x4008_6409: WRITE, 0x09, crate::drm::GemClose;
    /// `DRM_IOCTL_GEM_FLINK`.
    GEM_FLINK = 0xc008_640a: READ | WRITE, 0x0a, crate::drm::GemFlink;
    /// `DRM_IOCTL_GEM_OPEN`.
    GEM_OPEN = 0xc010_640b: READ | WRITE, 0x0b, crate::drm::GemOpen;
    /// `DRM_IOCTL_GET_CAP`.
    GET_CAP = 0xc010_640c: READ | WRITE, 0x0c, crate::drm::GetCap;
    /// `DRM_IOCTL_SET_CLIENT_CAP`.
    SET_CLIENT_CAP = 0x4010_640d: WRITE, 0x0d, crate::drm::GetCap;
    /// `DRM_IOCTL_SET_MASTER`.
    SET_MASTER = 0x0000_641e: 0, 0x1e, ();
    /// `DRM_IOCTL_DROP_MASTER`.
    DROP_MASTER = 0x0000_641f: 0, 0x1f, ();
    /// `DRM_IOCTL_MODE_CREATE_DUMB`.
    MODE_CREATE_DUMB = 0xc020_64b2: READ | WRITE, 0xb2, crate::drm::CreateDumb;
    /// `DRM_IOCTL_MODE_MAP_DUMB`.
    MODE_MAP_DUMB = 0xc010_64b3: READ | WRITE, 0xb3, crate::drm::MapDumb;
    /// `DRM_IOCTL_MODE_DESTROY_DUMB`.
    MODE_DESTROY_DUMB = 0xc004_64b4: READ | WRITE, 0xb4, crate::drm::DestroyDumb;
    /// `DRM_IOCTL_PRIME_HANDLE_TO_FD`.
    PRIME_HANDLE_TO_FD = 0xc00c_642d: READ | WRITE, 0x2d, crate::drm::PrimeHandle;
    /// `DRM_IOCTL_PRIME_FD_TO_HANDLE`.
    PRIME_FD_TO_HANDLE = 0xc00c_642e: READ | WRITE, 0x2e, crate::drm::PrimeHandle;
    /// `DRM_IOCTL_SYNCOBJ_CREATE`.
    SYNCOBJ_CREATE = 0xc008_64bf: READ | WRITE, 0xbf, crate::syncobj::SyncobjCreate;
    /// `DRM_IOCTL_SYNCOBJ_DESTROY`.
    SYNCOBJ_DESTROY = 0xc008_64c0: READ | WRITE, 0xc0, crate::syncobj::SyncobjDestroy;
    /// `DRM_IOCTL_SYNCOBJ_HANDLE_TO_FD`; older programs have no point in it.
    SYNCOBJ_HANDLE_TO_FD = 0xc018_64c1: READ | WRITE, 0xc1, crate::syncobj::SyncobjHandle;
    /// `DRM_IOCTL_SYNCOBJ_FD_TO_HANDLE`.
    SYNCOBJ_FD_TO_HANDLE = 0xc018_64c2: READ | WRITE, 0xc2, crate::syncobj::SyncobjHandle;
    /// `DRM_IOCTL_SYNCOBJ_WAIT`.
    SYNCOBJ_WAIT = 0xc028_64c3: READ | WRITE, 0xc3, crate::syncobj::SyncobjWait;
    /// `DRM_IOCTL_SYNCOBJ_RESET`.
    SYNCOBJ_RESET = 0xc010_64c4: READ | WRITE, 0xc4, crate::syncobj::SyncobjArray;
    /// `DRM_IOCTL_SYNCOBJ_SIGNAL`.
    SYNCOBJ_SIGNAL = 0xc010_64c5: READ | WRITE, 0xc5, crate::syncobj::SyncobjArray;
    /// `DRM_IOCTL_SYNCOBJ_TIMELINE_WAIT`.
    SYNCOBJ_TIMELINE_WAIT = 0xc030_64ca: READ | WRITE, 0xca, crate::syncobj::SyncobjTimelineWait;
    /// `DRM_IOCTL_SYNCOBJ_QUERY`.
    SYNCOBJ_QUERY = 0xc018_64cb: READ | WRITE, 0xcb, crate::syncobj::SyncobjTimelineArray;
    /// `DRM_IOCTL_SYNCOBJ_TRANSFER`.
    SYNCOBJ_TRANSFER = 0xc020_64cc: READ | WRITE, 0xcc, crate::syncobj::SyncobjTransfer;
    /// `DRM_IOCTL_SYNCOBJ_TIMELINE_SIGNAL`.
    SYNCOBJ_TIMELINE_SIGNAL = 0xc018_64cd: READ | WRITE, 0xcd, crate::syncobj::SyncobjTimelineArray;
    /// `DRM_IOCTL_SYNCOBJ_EVENTFD`.
    SYNCOBJ_EVENTFD = 0xc018_64cf: READ | WRITE, 0xcf, crate::syncobj::SyncobjEventfd;
    /// `DRM_IOCTL_XE_DEVICE_QUERY`.
    DEVICE_QUERY = 0xc028_6440: READ | WRITE, 0x40, crate::query::DeviceQuery;
    /// `DRM_IOCTL_XE_GEM_CREATE`.
    GEM_CREATE = 0xc038_6441: READ | WRITE, 0x41, crate::gem::GemCreate;
    /// `DRM_IOCTL_XE_GEM_MMAP_OFFSET`.
    GEM_MMAP_OFFSET = 0xc028_6442: READ | WRITE, 0x42, crate::gem::GemMmapOffset;
    /// `DRM_IOCTL_XE_VM_CREATE`.
    VM_CREATE = 0xc020_6443: READ | WRITE, 0x43, crate::vm::VmCreate;
    /// `DRM_IOCTL_XE_VM_DESTROY`.
    VM_DESTROY = 0x4018_6444: WRITE, 0x44, crate::vm::VmDestroy;
    /// `DRM_IOCTL_XE_VM_BIND`.
    VM_BIND = 0x4088_6445: WRITE, 0x45, crate::vm::VmBind;
    /// `DRM_IOCTL_XE_EXEC_QUEUE_CREATE`.
    EXEC_QUEUE_CREATE = 0xc030_6446: READ | WRITE, 0x46, crate::exec::ExecQueueCreate;
    /// `DRM_IOCTL_XE_EXEC_QUEUE_DESTROY`.
    EXEC_QUEUE_DESTROY = 0x4018_6447: WRITE, 0x47, crate::exec::ExecQueueDestroy;
    /// `DRM_IOCTL_XE_EXEC_QUEUE_GET_PROPERTY`.
    EXEC_QUEUE_GET_PROPERTY = 0xc028_6448: READ | WRITE, 0x48, crate::exec::ExecQueueGetProperty;
    /// `DRM_IOCTL_XE_EXEC`.
    EXEC = 0x4038_6449: WRITE, 0x49, crate::exec::Exec;
    /// `DRM_IOCTL_XE_WAIT_USER_FENCE`.
    WAIT_USER_FENCE = 0xc048_644a: READ | WRITE, 0x4a, crate::exec::WaitUserFence;
    /// `DRM_IOCTL_XE_OBSERVATION`.
    OBSERVATION = 0x4020_644b: WRITE, 0x4b, crate::query::Observation;
    /// `DRM_IOCTL_XE_MADVISE`.
    MADVISE = 0x4040_644c: WRITE, 0x4c, crate::attr::Madvise;
    /// `DRM_IOCTL_XE_VM_QUERY_MEM_RANGE_ATTRS`.
    VM_QUERY_MEM_RANGE_ATTRS = 0xc040_644d: READ | WRITE, 0x4d, crate::attr::VmQueryMemRangeAttr;
    /// `DRM_IOCTL_XE_EXEC_QUEUE_SET_PROPERTY`.
    EXEC_QUEUE_SET_PROPERTY = 0x4028_644e: WRITE, 0x4e, crate::exec::ExecQueueSetProperty;
    /// `DRM_IOCTL_XE_VM_GET_PROPERTY`.
    VM_GET_PROPERTY = 0xc038_644f: READ | WRITE, 0x4f, crate::vm::VmGetProperty;
}
