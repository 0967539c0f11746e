//! SYNC_IOC_MERGE, _FILE_INFO and _SET_DEADLINE, on the descriptor of a sync file.
//!
//! A sync file here is one fence, though it may stand for several: so it is told.
//!
//! Locking: none.
//!
//! Upstream: `sync_file.c`.

use xe_uapi::ioctl as nr;
use xe_uapi::sync_file::{
    KIND, NR_FILE_INFO, NR_MERGE, NR_SET_DEADLINE, SyncFenceInfo, SyncFileInfo, SyncMerge, SyncSetDeadline,
};

use super::{Call, Reply, require};
use crate::caller::{Caller, Kind, Passed};
use crate::errno::Errno;
use crate::fence::Fence;
use crate::file::File;
use std::sync::Arc;

/// Does what `call` asks of a sync file; `ENOTTY` where it does not know the request.
pub(super) fn dispatch(call: &Call<'_>, fence: &Arc<Fence>, caller: &dyn Caller) -> Reply {
    if nr::kind(call.cmd) != KIND {
        return Err(Errno::ENOTTY);
    }
    match nr::number(call.cmd) {
        NR_MERGE => call.with(|_, args| merge(fence, args, caller)),
        NR_FILE_INFO => call.with(|file, args| info(file, fence, args)),
        NR_SET_DEADLINE => call.with(|_, args: &mut SyncSetDeadline| require(args.pad == 0).map(|()| 0)),
        _ => Err(Errno::ENOTTY),
    }
}

fn merge(fence: &Arc<Fence>, args: &mut SyncMerge, caller: &dyn Caller) -> Reply {
    require(args.flags == 0 && args.pad == 0)?;
    let Some(Passed(Kind::SyncFile(other))) = caller.passed(args.fd2) else { return Err(Errno::ENOENT) };
    args.fence = super::syncobj::sync_file(&Fence::all([fence.clone(), other]), caller)?;
    Ok(0)
}

fn info(file: &File, fence: &Fence, args: &mut SyncFileInfo) -> Reply {
    require(args.flags == 0 && args.pad == 0)?;
    let (status, timestamp_ns) = match fence.over_since() {
        None => (0, 0),
        Some((Ok(()), at)) => (1, at),
        Some((Err(Errno(errno)), at)) => (-errno, at),
    };
    if args.num_fences > 0 {
        let one = SyncFenceInfo {
            obj_name: name("fence"),
            driver_name: name("xe"),
            status,
            timestamp_ns,
            ..Default::default()
        };
        file.shared.copy_out(args.sync_fence_info, &one)?;
    }
    (args.name, args.status, args.num_fences) = (name("xe"), status, 1);
    Ok(0)
}

fn name(text: &str) -> [u8; 32] {
    let mut name = [0; 32];
    name[..text.len()].copy_from_slice(text.as_bytes());
    name
}
