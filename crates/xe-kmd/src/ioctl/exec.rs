//! EXEC: a job for a queue.
//!
//! A VM that serves faults needs nothing prepared: the job runs and faults. One with dma-fences gets back what was evicted of it, or
//! the job is refused (`ENOMEM`). Its user fence is written by the
//! ring through the VM's own page tables, so that address is a GPU address. The ring gets the job when its in-fences are
//! over; syncobjs get a fence that is over when the device reports the job done, or its context killed.
//!
//! Upstream: `xe_exec_ioctl`.

use units::GpuVa;
use xe_uapi::exec::Exec;

use super::sync::{self, Syncs, UserFences};
use super::{Reply, require};
use crate::errno::Errno;
use crate::exec_queue::QueueKind;
use crate::file::File;

/// EXEC.
pub(super) fn exec(file: &File, args: &mut Exec) -> Reply {
    require(args.extensions == 0 && args.pad == [0; 3] && args.reserved == [0; 2])?;
    let syncs = sync::read(file, args.syncs, args.num_syncs)?;
    let queue = file.queue(args.exec_queue_id).ok_or(Errno::ENOENT)?;
    require(matches!(queue.kind, QueueKind::Engine(_)))?;
    require(args.num_batch_buffer <= 1)?;
    if queue.is_banned() {
        return Err(Errno::ECANCELED);
    }
    let Syncs { ins, outs, user } = Syncs::parse(file, &syncs?, &queue.vm, UserFences::Allowed)?;
    let has_fences = !queue.vm.is_long_running();
    if args.num_batch_buffer == 0 {
        if has_fences {
            // Upstream: nothing can be waited for here.
            let last = if ins.is_empty() { queue.last() } else { return Err(Errno::EOPNOTSUPP) };
            outs.install(&last);
        }
        return Ok(0);
    }
    let state = queue.vm.state.read();
    if state.closed {
        return Err(Errno::ECANCELED);
    }
    if has_fences {
        queue.vm.validate(&state)?;
    }
    drop(state);
    let user = user.map(|fence| (GpuVa(fence.addr), fence.value));
    let finished = queue.submit(GpuVa(args.address), user, ins)?;
    outs.install(&finished);
    Ok(0)
}
