//! DMA_BUF_IOCTL_SYNC, _EXPORT_SYNC_FILE, _IMPORT_SYNC_FILE and DMA_BUF_SET_NAME, on the descriptor of a dma-buf.
//!
//! CPU and device see the same bytes at once; SYNC moves what is to be read to system memory all the same, where it may be there, and waits for the
//! fences that programs put on the BO. A name is read and told to nobody.
//!
//! Locking: the BO's lock; none while SYNC waits.
//!
//! Upstream: `dma-buf.c` (`dma_buf_ioctl`), `xe_dma_buf_begin_cpu_access`.

use std::sync::Arc;

use sync::time::after_ns;
use xe_uapi::dma_buf::{
    DmaBufSync, DmaBufSyncFile, KIND, NAME_BYTES, NR_EXPORT_SYNC_FILE, NR_IMPORT_SYNC_FILE, NR_SET_NAME, NR_SYNC,
    SyncFlags,
};
use xe_uapi::ioctl as nr;

use super::{Call, Reply, require};
use crate::bo::Bo;
use crate::caller::{Caller, Kind, Passed};
use crate::errno::Errno;
use crate::file::File;
use crate::resv::Use;

/// Does what `call` asks of a dma-buf; `ENOTTY` where it does not know the request.
pub(super) fn dispatch(call: &Call<'_>, bo: &Arc<Bo>, caller: &dyn Caller) -> Reply {
    if nr::kind(call.cmd) != KIND {
        return Err(Errno::ENOTTY);
    }
    match nr::number(call.cmd) {
        NR_SYNC => call.with(|_, args: &mut DmaBufSync| sync(bo, args.flags, caller)),
        NR_SET_NAME => read_name(call.file, call.arg.0),
        NR_EXPORT_SYNC_FILE => call.with(|_, args| export(bo, args, caller)),
        NR_IMPORT_SYNC_FILE => call.with(|_, args| import(bo, args, caller)),
        _ => Err(Errno::ENOTTY),
    }
}

/// `EINVAL`: other flags than `known` ones, or neither reading nor writing.
fn use_of(flags: u64, known: SyncFlags) -> Result<Use, Errno> {
    let flags = SyncFlags::from_bits(flags).filter(|flags| known.contains(*flags)).ok_or(Errno::EINVAL)?;
    require(flags.intersects(SyncFlags::READ | SyncFlags::WRITE))?;
    Ok(if flags.contains(SyncFlags::WRITE) { Use::Write } else { Use::Read })
}

/// `EINTR`: a signal came while it waited.
fn sync(bo: &Bo, flags: u64, caller: &dyn Caller) -> Reply {
    let what = use_of(flags, SyncFlags::all())?;
    let flags = SyncFlags::from_bits_truncate(flags);
    if flags.contains(SyncFlags::END) {
        return Ok(0);
    }
    if flags.contains(SyncFlags::READ) {
        bo.begin_cpu_access();
    }
    let fence = bo.fences.before(what);
    while fence.wait(Some(after_ns(caller.slice_ns()))).is_none() {
        if caller.is_interrupted() {
            return Err(Errno::EINTR);
        }
    }
    Ok(0)
}

/// Reads a text up to its 0; `EINVAL` where it is too long.
fn read_name(file: &File, at: u64) -> Reply {
    for byte in 0..NAME_BYTES {
        if file.shared.copy_in::<u8>(at.wrapping_add(byte))? == 0 {
            return Ok(0);
        }
    }
    Err(Errno::EINVAL)
}

fn export(bo: &Bo, args: &mut DmaBufSyncFile, caller: &dyn Caller) -> Reply {
    let what = use_of(args.flags.into(), SyncFlags::READ | SyncFlags::WRITE)?;
    args.fd = super::syncobj::sync_file(&bo.fences.before(what), caller)?;
    Ok(0)
}

fn import(bo: &Bo, args: &DmaBufSyncFile, caller: &dyn Caller) -> Reply {
    let what = use_of(args.flags.into(), SyncFlags::READ | SyncFlags::WRITE)?;
    let Some(Passed(Kind::SyncFile(fence))) = caller.passed(args.fd) else { return Err(Errno::EINVAL) };
    bo.fences.add(what, fence);
    Ok(0)
}
