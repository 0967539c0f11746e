//! What only the process around the driver can do for a call of it: notice signals, and make descriptors.
//!
//! The driver owns these traits; the preload library implements them, and [`Nobody`] is for who calls without a
//! process around.
//!
//! Upstream: `signal_pending`, `anon_inode_getfile`, `sync_file.c`, `dma-buf.c`, `eventfd_ctx_fdget`.

use std::sync::Arc;

use hostmm::{OwnerId, PagemapId};
use units::HostFrame;
use xe_uapi::drm::PrimeFlags;

use crate::bo::Bo;
use crate::budget::BytesId;
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
    /// A BO, for as long as the descriptor lives.
    DmaBuf(Arc<Bo>),
}

/// Bytes that a descriptor shows.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SharedBytes {
    /// Which they are.
    pub id: BytesId,
    /// How many.
    pub bytes: u64,
    /// The label that their object was made with.
    pub label: u64,
}

/// A region of a device's VRAM.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Location {
    /// Who may see its pages.
    pub owner: OwnerId,
    /// It; `None`: the device has no such region.
    pub pagemap: Option<PagemapId>,
}

/// Whom an ioctl is done for. No lock of the driver is held while one of these is called.
pub trait Caller {
    /// Whether a signal wants the call to end.
    fn is_interrupted(&self) -> bool;

    /// How long a wait may go on before that is asked again, nanoseconds.
    fn slice_ns(&self) -> u64;

    /// A new descriptor that stands for `passed`. `EMFILE`: there is none left.
    fn descriptor(&self, passed: Passed) -> Result<Descriptor, Errno>;

    /// What a descriptor that was made so stands for; `None`: it is another, or of another device.
    fn passed(&self, fd: i32) -> Option<Passed>;

    /// A new descriptor that shows the bytes of an object, `bytes` from its first frame `object` on, and stands for `passed`;
    /// and what they are. `EMFILE`: there is none left; `EPERM`: the process may not.
    fn share(&self, object: HostFrame, bytes: u64, how: PrimeFlags, passed: Passed) -> Result<(i32, BytesId), Errno>;

    /// What a descriptor that was made so shows, whoever made it. `EBADF`: there is no such descriptor; `EINVAL`: it is
    /// another.
    fn shared(&self, fd: i32) -> Result<SharedBytes, Errno>;

    /// An object over all of what such a descriptor shows; who has it destroys it. `ENOMEM`: there is no room for it.
    fn adopt(&self, fd: i32, bytes: u64) -> Result<HostFrame, Errno>;

    /// The VRAM of a region of the device that a descriptor is an open file of; `None`: it is none.
    fn location(&self, fd: i32, region: u16) -> Option<Location>;

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

    fn slice_ns(&self) -> u64 {
        u64::MAX
    }

    fn descriptor(&self, _passed: Passed) -> Result<Descriptor, Errno> {
        Err(Errno::EMFILE)
    }

    fn passed(&self, _fd: i32) -> Option<Passed> {
        None
    }

    fn share(&self, _object: HostFrame, _bytes: u64, _: PrimeFlags, _: Passed) -> Result<(i32, BytesId), Errno> {
        Err(Errno::EMFILE)
    }

    fn shared(&self, _fd: i32) -> Result<SharedBytes, Errno> {
        Err(Errno::EBADF)
    }

    fn adopt(&self, _fd: i32, _bytes: u64) -> Result<HostFrame, Errno> {
        Err(Errno::ENOMEM)
    }

    fn location(&self, _fd: i32, _region: u16) -> Option<Location> {
        None
    }

    fn eventfd(&self, _fd: i32) -> Result<Arc<dyn Doorbell>, Errno> {
        Err(Errno::EBADF)
    }
}
