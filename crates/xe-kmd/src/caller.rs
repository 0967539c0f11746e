//! What only the process around the driver can do for a call of it: notice signals, and make descriptors.
//!
//! The driver owns these traits; the preload library implements them, and [`Nobody`] is for who calls without a
//! process around.
//!
//! Upstream: `signal_pending`, `anon_inode_getfile`, `sync_file.c`, `eventfd_ctx_fdget`.

use std::sync::Arc;

use crate::errno::Errno;
use crate::fence::Fence;
use crate::syncobj::Syncobj;

/// What a descriptor stands for.
#[derive(Clone)]
pub struct Passed(pub(crate) Kind);

/// What it is.
#[derive(Clone)]
pub(crate) enum Kind {
    Syncobj(Arc<Syncobj>),
    /// A fence that cannot be replaced.
    SyncFile(Arc<Fence>),
}

/// Whom an ioctl is done for. No lock of the driver is held while one of these is called.
pub trait Caller {
    /// Whether a signal wants the call to end.
    fn is_interrupted(&self) -> bool;

    /// How long a wait may go on before that is asked again, nanoseconds.
    fn patience_ns(&self) -> u64;

    /// A new descriptor that stands for `passed`. `EMFILE`: there is none left.
    fn descriptor(&self, passed: Passed) -> Result<Descriptor, Errno>;

    /// What a descriptor that was made so stands for; `None`: it is another, or of another device.
    fn passed(&self, fd: i32) -> Option<Passed>;

    /// The program's own eventfd. `EBADF`: there is no such descriptor; `EINVAL`: it is none.
    fn eventfd(&self, fd: i32) -> Result<Arc<dyn Doorbell>, Errno>;
}

/// A descriptor that was just made.
pub struct Descriptor {
    /// Its number.
    pub fd: i32,
    /// From its ring on the descriptor polls as readable.
    pub readable: Arc<dyn Doorbell>,
}

/// Something that a program polls.
pub trait Doorbell: Send + Sync {
    /// Adds one to what it counts. May be called with any lock of the driver held, and waits for nothing.
    fn ring(&self);
}

/// No process: nothing interrupts, and there are no descriptors.
pub struct Nobody;

impl Caller for Nobody {
    fn is_interrupted(&self) -> bool {
        false
    }

    fn patience_ns(&self) -> u64 {
        u64::MAX
    }

    fn descriptor(&self, _passed: Passed) -> Result<Descriptor, Errno> {
        Err(Errno::EMFILE)
    }

    fn passed(&self, _fd: i32) -> Option<Passed> {
        None
    }

    fn eventfd(&self, _fd: i32) -> Result<Arc<dyn Doorbell>, Errno> {
        Err(Errno::EBADF)
    }
}
