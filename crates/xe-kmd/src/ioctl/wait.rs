//! WAIT_USER_FENCE: until eight bytes of memory compare as wished, or the queue is banned or ended, or time is over.
//!
//! The bytes are read as the program would read them, so a page in VRAM migrates back for it.
//!
//! Locking: none while memory is read.
//!
//! Upstream: `xe_wait_user_fence_ioctl`.

use sync::time::now_ns;
use xe_uapi::exec::{
    UFENCE_WAIT_EQ, UFENCE_WAIT_FLAG_ABSTIME, UFENCE_WAIT_GT, UFENCE_WAIT_GTE, UFENCE_WAIT_LT, UFENCE_WAIT_LTE,
    UFENCE_WAIT_NEQ, WaitUserFence,
};

use super::{Reply, require};
use crate::errno::Errno;
use crate::exec_queue::ExecQueue;
use crate::file::File;

/// WAIT_USER_FENCE. A relative timeout is what is left of it on return.
pub(crate) fn wait_user_fence(file: &File, args: &mut WaitUserFence) -> Reply {
    require(args.extensions == 0 && args.pad == 0 && args.pad2 == 0 && args.reserved == [0; 2])?;
    require(args.flags & !UFENCE_WAIT_FLAG_ABSTIME == 0 && args.op <= UFENCE_WAIT_LTE && args.addr.is_multiple_of(8))?;
    let queue = match args.exec_queue_id {
        0 => None,
        id => Some(file.queue(id).ok_or(Errno::ENOENT)?),
    };
    let start = now_ns();
    let absolute = args.flags & UFENCE_WAIT_FLAG_ABSTIME != 0;
    let deadline = deadline(args.timeout, absolute, start);
    let reply = wait(file, args, queue.as_deref(), deadline);
    if !absolute && args.timeout >= 0 {
        let passed = i64::try_from(now_ns() - start).unwrap_or(i64::MAX);
        args.timeout = args.timeout.saturating_sub(passed).max(0);
    }
    reply.map(|()| 0)
}

/// When to give up; `None`: never.
fn deadline(timeout: i64, absolute: bool, now: u64) -> Option<u64> {
    let timeout = u64::try_from(timeout).ok()?;
    Some(if absolute { timeout } else { now.saturating_add(timeout) })
}

fn wait(file: &File, args: &WaitUserFence, queue: Option<&ExecQueue>, deadline: Option<u64>) -> Result<(), Errno> {
    loop {
        let listening = file.shared.waiters.listen(args.addr, queue.map(|queue| queue.id));
        if holds(args, file.shared.copy_in(args.addr)?) {
            return Ok(());
        }
        if queue.is_some_and(ExecQueue::is_banned) {
            return Err(Errno::EIO);
        }
        // What it waits for may be behind a wait of the device's own.
        file.shared.gpu.hw.look_again();
        match listening.wait(deadline) {
            // The last job before the queue's end may have been the one.
            Ok(()) | Err(Errno::EIO) => {}
            Err(error) => return Err(error),
        }
    }
}

/// Whether memory that holds `value` is what is waited for.
fn holds(args: &WaitUserFence, value: u64) -> bool {
    let (memory, wanted) = (value & args.mask, args.value & args.mask);
    match args.op {
        UFENCE_WAIT_EQ => memory == wanted,
        UFENCE_WAIT_NEQ => memory != wanted,
        UFENCE_WAIT_GT => memory > wanted,
        UFENCE_WAIT_GTE => memory >= wanted,
        UFENCE_WAIT_LT => memory < wanted,
        _ => memory <= wanted,
    }
}
