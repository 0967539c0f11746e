//! SYNCOBJ_*: CREATE, DESTROY, RESET, SIGNAL, TIMELINE_SIGNAL, QUERY, TRANSFER, EVENTFD, and the two ways to and from a
//! descriptor. The waits are in [`syncobj_wait`](super::syncobj_wait).
//!
//! Locking: none; arguments are read before a syncobj is changed.
//!
//! Upstream: `drm_syncobj.c` (the ioctls).

use std::sync::Arc;

use xe_uapi::syncobj::{
    CREATE_SIGNALED, FD_SYNC_FILE, FD_TIMELINE, QUERY_LAST_SUBMITTED, SyncobjArray, SyncobjCreate, SyncobjDestroy,
    SyncobjEventfd, SyncobjHandle, SyncobjTimelineArray, SyncobjTransfer, WAIT_AVAILABLE, WAIT_FOR_SUBMIT,
};

use super::syncobj_wait::find_or_wait;
use super::{Reply, require};
use crate::caller::{Caller, Descriptor, Kind, Passed};
use crate::errno::Errno;
use crate::fence::Fence;
use crate::file::File;
use crate::syncobj::Syncobj;

/// Handles in one call: what upstream can allocate an array for.
const MAX_HANDLES: u32 = 1 << 20;

/// SYNCOBJ_CREATE.
pub(super) fn create(file: &File, args: &mut SyncobjCreate) -> Reply {
    require(args.flags & !CREATE_SIGNALED == 0)?;
    let syncobj = Syncobj::new();
    if args.flags & CREATE_SIGNALED != 0 {
        syncobj.replace(Some(Fence::over(Ok(()))));
    }
    args.handle = file.add_syncobj(&syncobj)?;
    Ok(0)
}

/// SYNCOBJ_DESTROY.
pub(super) fn destroy(file: &File, args: &mut SyncobjDestroy) -> Reply {
    require(args.pad == 0)?;
    let gone = file.names.lock().syncobjs.remove(args.handle);
    require(gone.is_some())?;
    Ok(0)
}

/// SYNCOBJ_RESET.
pub(super) fn reset(file: &File, args: &mut SyncobjArray) -> Reply {
    require(args.pad == 0 && args.count_handles != 0)?;
    let syncobjs = find_all(file, args.handles, args.count_handles)?;
    syncobjs.iter().for_each(|syncobj| syncobj.replace(None));
    Ok(0)
}

/// SYNCOBJ_SIGNAL.
pub(super) fn signal(file: &File, args: &mut SyncobjArray) -> Reply {
    require(args.pad == 0 && args.count_handles != 0)?;
    let syncobjs = find_all(file, args.handles, args.count_handles)?;
    syncobjs.iter().for_each(|syncobj| syncobj.replace(Some(Fence::over(Ok(())))));
    Ok(0)
}

/// SYNCOBJ_TIMELINE_SIGNAL.
pub(super) fn timeline_signal(file: &File, args: &mut SyncobjTimelineArray) -> Reply {
    require(args.flags == 0 && args.count_handles != 0)?;
    let syncobjs = find_all(file, args.handles, args.count_handles)?;
    let points = read_points(file, args.points, syncobjs.len())?;
    for (syncobj, point) in syncobjs.iter().zip(points) {
        syncobj.add_point(point, Fence::over(Ok(())));
    }
    Ok(0)
}

/// SYNCOBJ_QUERY.
pub(super) fn query(file: &File, args: &mut SyncobjTimelineArray) -> Reply {
    require(args.flags & !QUERY_LAST_SUBMITTED == 0 && args.count_handles != 0)?;
    let syncobjs = find_all(file, args.handles, args.count_handles)?;
    for (syncobj, at) in syncobjs.iter().zip((0..).map(|n: u64| args.points.wrapping_add(8 * n))) {
        file.shared.copy_out(at, &syncobj.query(args.flags & QUERY_LAST_SUBMITTED != 0))?;
    }
    Ok(0)
}

/// SYNCOBJ_TRANSFER.
pub(super) fn transfer(file: &File, args: &mut SyncobjTransfer, caller: &dyn Caller) -> Reply {
    require(args.pad == 0)?;
    let to = file.syncobj(args.dst_handle).ok_or(Errno::ENOENT)?;
    require(args.flags & !WAIT_FOR_SUBMIT == 0)?;
    let from = file.syncobj(args.src_handle).ok_or(Errno::ENOENT)?;
    let fence = match args.flags {
        0 => from.find(args.src_point)?,
        _ => find_or_wait(&from, args.src_point, caller)?,
    };
    match args.dst_point {
        0 => to.replace(Some(fence)),
        point => to.add_point(point, fence),
    }
    Ok(0)
}

/// SYNCOBJ_HANDLE_TO_FD.
pub(super) fn handle_to_fd(file: &File, args: &mut SyncobjHandle, caller: &dyn Caller) -> Reply {
    require(args.pad == 0 && args.flags & !(FD_SYNC_FILE | FD_TIMELINE) == 0)?;
    let point = if args.flags & FD_TIMELINE != 0 { args.point } else { 0 };
    let syncobj = file.syncobj(args.handle);
    if args.flags & FD_SYNC_FILE != 0 {
        let fence = syncobj.ok_or(Errno::ENOENT)?.find(point)?;
        args.fd = sync_file(&fence, caller)?;
        return Ok(0);
    }
    require(args.point == 0)?;
    args.fd = caller.descriptor(Passed(Kind::Syncobj(syncobj.ok_or(Errno::EINVAL)?)))?.fd;
    Ok(0)
}

/// A descriptor that is a fence.
pub(super) fn sync_file(fence: &Arc<Fence>, caller: &dyn Caller) -> Result<i32, Errno> {
    let Descriptor { fd, readable } = caller.descriptor(Passed(Kind::SyncFile(fence.clone())))?;
    fence.on_signal(move |_| readable.ring());
    Ok(fd)
}

/// SYNCOBJ_FD_TO_HANDLE.
pub(super) fn fd_to_handle(file: &File, args: &mut SyncobjHandle, caller: &dyn Caller) -> Reply {
    require(args.pad == 0 && args.flags & !(FD_SYNC_FILE | FD_TIMELINE) == 0)?;
    let point = if args.flags & FD_TIMELINE != 0 { args.point } else { 0 };
    let passed = caller.passed(args.fd).map(|Passed(kind)| kind);
    if args.flags & FD_SYNC_FILE != 0 {
        let Some(Kind::SyncFile(fence)) = passed else { return Err(Errno::EINVAL) };
        let syncobj = file.syncobj(args.handle).ok_or(Errno::ENOENT)?;
        match point {
            0 => syncobj.replace(Some(fence)),
            point => syncobj.add_point(point, fence),
        }
        return Ok(0);
    }
    require(args.point == 0)?;
    let Some(Kind::Syncobj(syncobj)) = passed else { return Err(Errno::EINVAL) };
    args.handle = file.add_syncobj(&syncobj)?;
    Ok(0)
}

/// SYNCOBJ_EVENTFD.
pub(super) fn eventfd(file: &File, args: &mut SyncobjEventfd, caller: &dyn Caller) -> Reply {
    require(args.flags & !WAIT_AVAILABLE == 0 && args.pad == 0)?;
    let syncobj = file.syncobj(args.handle).ok_or(Errno::ENOENT)?;
    let event = caller.eventfd(args.fd)?;
    let is_available_enough = args.flags & WAIT_AVAILABLE != 0;
    syncobj.watch(
        args.point,
        move |fence| {
            if is_available_enough { event.ring() } else { fence.on_signal(move |_| event.ring()) }
        },
    );
    Ok(0)
}

/// The syncobjs of an array of handles.
pub(super) fn find_all(file: &File, handles: u64, count: u32) -> Result<Vec<Arc<Syncobj>>, Errno> {
    if count > MAX_HANDLES {
        return Err(Errno::ENOMEM);
    }
    let handles: Vec<u32> = file.shared.copy_in_vec(handles, count as usize)?;
    handles.into_iter().map(|handle| file.syncobj(handle).ok_or(Errno::ENOENT)).collect()
}

/// An array of points; all 0 where there is no array.
fn read_points(file: &File, points: u64, count: usize) -> Result<Vec<u64>, Errno> {
    if points == 0 { Ok(vec![0; count]) } else { file.shared.copy_in_vec(points, count) }
}
