//! Syncs: what an ioctl waits for and signals.
//!
//! Only user fences are there. A syncobj is named as the real driver would refuse it: no file has any, so every
//! handle is unknown.
//!
//! Locking: none. Syncs are read before the first lock ([`read`]) and judged where upstream judges them
//! ([`UserSync::parse`]).
//!
//! Upstream: `xe_sync.c` (`xe_sync_entry_parse`).

use xe_uapi::exec::{SYNC_FLAG_SIGNAL, SYNC_TYPE_SYNCOBJ, SYNC_TYPE_TIMELINE_SYNCOBJ, SYNC_TYPE_USER_FENCE, Sync};
use xe_uapi::vm::MAX_SYNCS;

use super::require;
use crate::errno::Errno;
use crate::file::File;
use crate::vm::Vm;

/// A user fence to signal.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct UserSync {
    pub addr: u64,
    pub value: u64,
}

/// Whether an ioctl may carry a user fence.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum UserFences {
    Allowed,
    /// There is nothing that it could follow.
    Refused,
}

/// Reads the syncs; says `EINVAL` to too many, but leaves `EFAULT` for whoever judges them.
pub(super) fn read(file: &File, syncs: u64, count: u32) -> Result<Result<Vec<Sync>, Errno>, Errno> {
    require(count <= MAX_SYNCS)?;
    Ok(file.shared.copy_in_vec(syncs, count as usize))
}

impl UserSync {
    /// Judges the syncs of one ioctl: the user fence among them, if there is one.
    pub(super) fn parse(syncs: &[Sync], vm: &Vm, user_fences: UserFences) -> Result<Option<Self>, Errno> {
        let mut found = None;
        for sync in syncs {
            let fence = Self::parse_one(sync, vm, user_fences)?;
            require(found.is_none())?;
            found = Some(fence);
        }
        Ok(found)
    }

    fn parse_one(sync: &Sync, vm: &Vm, user_fences: UserFences) -> Result<Self, Errno> {
        require(sync.extensions == 0 && sync.reserved == [0; 2] && sync.flags & !SYNC_FLAG_SIGNAL == 0)?;
        let signal = sync.flags & SYNC_FLAG_SIGNAL != 0;
        match sync.sync_type {
            SYNC_TYPE_SYNCOBJ | SYNC_TYPE_TIMELINE_SYNCOBJ => {
                if signal && vm.is_long_running() {
                    return Err(Errno::EOPNOTSUPP);
                }
                require(sync.addr >> 32 == 0)?;
                Err(Errno::ENOENT)
            }
            SYNC_TYPE_USER_FENCE => {
                if !signal || user_fences == UserFences::Refused {
                    return Err(Errno::EOPNOTSUPP);
                }
                require(sync.addr.is_multiple_of(8))?;
                Ok(Self { addr: sync.addr, value: sync.timeline_value })
            }
            _ => Err(Errno::EINVAL),
        }
    }
}
