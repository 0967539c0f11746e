//! Syncs: what an ioctl waits for and signals.
//!
//! An ioctl waits for the fences that syncobjs have when it is called, and gives syncobjs the fence of what it does
//! ([`Outs::install`]). It may have one user fence: eight bytes that a job's ring writes, or the driver behind a bind.
//!
//! Locking: none. Syncs are read before the first lock ([`read`]) and judged where upstream judges them
//! ([`Syncs::parse`]).
//!
//! Upstream: `xe_sync.c` (`xe_sync_entry_parse`, `xe_sync_entry_signal`).

use std::sync::Arc;

use xe_uapi::exec::{SYNC_FLAG_SIGNAL, SYNC_TYPE_SYNCOBJ, SYNC_TYPE_TIMELINE_SYNCOBJ, SYNC_TYPE_USER_FENCE, Sync};
use xe_uapi::vm::MAX_SYNCS;

use super::require;
use crate::errno::Errno;
use crate::fence::Fence;
use crate::file::File;
use crate::syncobj::Syncobj;
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

/// What an ioctl waits for and signals.
#[derive(Default)]
pub(super) struct Syncs {
    /// It waits for these, over or not.
    pub ins: Vec<Arc<Fence>>,
    pub outs: Outs,
    pub user: Option<UserSync>,
}

/// Syncobjs that get the fence of what an ioctl does, each with its point; 0: as a binary one.
#[derive(Default)]
pub(super) struct Outs(Vec<(Arc<Syncobj>, u64)>);

impl Outs {
    /// Gives all of them that fence.
    pub(super) fn install(&self, fence: &Arc<Fence>) {
        for (syncobj, point) in &self.0 {
            match point {
                0 => syncobj.replace(Some(fence.clone())),
                point => syncobj.add_point(*point, fence.clone()),
            }
        }
    }
}

impl Syncs {
    /// Judges the syncs of one ioctl, in their order.
    pub(super) fn parse(file: &File, syncs: &[Sync], vm: &Vm, user_fences: UserFences) -> Result<Self, Errno> {
        let mut parsed = Self::default();
        let mut count = 0;
        for sync in syncs {
            require(sync.reserved == [0; 2] && sync.flags & !SYNC_FLAG_SIGNAL == 0)?;
            let signal = sync.flags & SYNC_FLAG_SIGNAL != 0;
            match sync.sync_type {
                SYNC_TYPE_SYNCOBJ => parsed.add_syncobj(file, sync, vm, 0)?,
                SYNC_TYPE_TIMELINE_SYNCOBJ => parsed.add_syncobj(file, sync, vm, sync.timeline_value)?,
                SYNC_TYPE_USER_FENCE => {
                    if !signal || user_fences == UserFences::Refused {
                        return Err(Errno::EOPNOTSUPP);
                    }
                    require(sync.addr.is_multiple_of(8))?;
                    parsed.user = Some(UserSync { addr: sync.addr, value: sync.timeline_value });
                    count += 1;
                }
                _ => return Err(Errno::EINVAL),
            }
        }
        require(count <= 1)?;
        Ok(parsed)
    }

    fn add_syncobj(&mut self, file: &File, sync: &Sync, vm: &Vm, point: u64) -> Result<(), Errno> {
        let signal = sync.flags & SYNC_FLAG_SIGNAL != 0;
        if signal && vm.is_long_running() {
            return Err(Errno::EOPNOTSUPP);
        }
        let handle = u32::try_from(sync.addr).map_err(|_| Errno::EINVAL)?;
        require(sync.sync_type == SYNC_TYPE_SYNCOBJ || point != 0)?;
        let syncobj = file.syncobj(handle).ok_or(Errno::ENOENT)?;
        match signal {
            true => self.outs.0.push((syncobj, point)),
            false => self.ins.push(syncobj.find(point)?),
        }
        Ok(())
    }
}
