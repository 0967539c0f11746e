//! Error numbers: the only file of the driver that makes them.
//!
//! Ours → uAPI. Inside, every module has its own small error; here each becomes what a program of the real
//! driver would see (spec: the error-code map).

use core::fmt;

use gpusvm::{MigrateError, SvmError};

use crate::pt::NoTable;

/// A positive Linux error number, as an ioctl reports it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Errno(pub i32);

macro_rules! errnos {
    ($($(#[$doc:meta])* $name:ident = $value:literal;)*) => {
        impl Errno {
            $($(#[$doc])* pub const $name: Self = Self($value);)*
            /// Its symbolic name; empty where the driver never makes it.
            pub const fn name(self) -> &'static str {
                match self.0 { $($value => stringify!($name),)* _ => "" }
            }
        }
    };
}

errnos! {
    /// Not permitted.
    EPERM = 1;
    /// No such object.
    ENOENT = 2;
    /// A signal ended the wait.
    EINTR = 4;
    /// The context that was waited for is banned.
    EIO = 5;
    /// Out of slots for vectors of binds.
    E2BIG = 7;
    /// No such descriptor.
    EBADF = 9;
    /// Try again: too many jobs are queued, or pages changed under a bind.
    EAGAIN = 11;
    /// Memory, or table memory, is short.
    ENOMEM = 12;
    /// Access is not allowed by an attribute.
    EACCES = 13;
    /// An argument points nowhere.
    EFAULT = 14;
    /// The object is in use.
    EBUSY = 16;
    /// There is no such device part.
    ENODEV = 19;
    /// An argument has no meaning.
    EINVAL = 22;
    /// No descriptor is left.
    EMFILE = 24;
    /// Not an ioctl of this device.
    ENOTTY = 25;
    /// VRAM, or the reply's space, is short.
    ENOSPC = 28;
    /// No driver function for it.
    ENOSYS = 38;
    /// Time passed.
    ETIME = 62;
    /// No peer connection between devices.
    ENOLINK = 67;
    /// An address and a length have no sum.
    EOVERFLOW = 75;
    /// The real driver does this; this one does not (yet).
    EOPNOTSUPP = 95;
    /// The operation's memory for a batch of binds is short.
    ENOBUFS = 105;
    /// The queue is banned.
    ECANCELED = 125;
}

impl fmt::Debug for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            "" => write!(f, "Errno({})", self.0),
            name => f.write_str(name),
        }
    }
}

impl fmt::Display for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

impl From<SvmError> for Errno {
    fn from(error: SvmError) -> Self {
        match error {
            SvmError::Invalid => Self::EINVAL,
            SvmError::NoVma => Self::ENOENT,
            SvmError::Denied => Self::EPERM,
            SvmError::Io => Self::EIO,
            SvmError::Fault | SvmError::Gone => Self::EFAULT,
            SvmError::NoMemory => Self::ENOMEM,
            SvmError::Busy => Self::EBUSY,
            SvmError::Mixed => Self::EOPNOTSUPP,
        }
    }
}

impl From<MigrateError> for Errno {
    fn from(error: MigrateError) -> Self {
        match error {
            MigrateError::Busy | MigrateError::Settling | MigrateError::CpuTurn => Self::EBUSY,
            MigrateError::NoVma => Self::ENOENT,
            MigrateError::Invalid => Self::EINVAL,
            MigrateError::NoMemory => Self::ENOMEM,
            MigrateError::Map(_) | MigrateError::Copy(_) | MigrateError::Gone => Self::EFAULT,
        }
    }
}

impl From<NoTable> for Errno {
    fn from(NoTable: NoTable) -> Self {
        Self::ENOMEM
    }
}
