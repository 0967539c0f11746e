//! DMA_BUF_IOCTL_SYNC, _EXPORT_SYNC_FILE, _IMPORT_SYNC_FILE and DMA_BUF_SET_NAME, on the descriptor of a dma-buf.
//!
//! CPU and device see the same bytes at once, so SYNC has nothing to do. A name is read and told to nobody.
//!
//! Locking: none.
//!
//! Upstream: `dma-buf.c` (`dma_buf_ioctl`).

use std::sync::Arc;

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
        NR_SYNC => call.with(|_, args: &mut DmaBufSync| use_of(args.flags, SyncFlags::all()).map(|_| 0)),
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
