//! The end of a process whose program filters its own system calls (seccomp).
//!
//! A filter is a thread's, and kills for a call that it does not know. So the machine is not ended by the thread that ends the
//! program, but by one of ours that was there before the filter. The other asks by a word and waits for a word, by looking at it:
//! even a wait is a system call. For the same reason ours has to look now and then.
//!
//! A vfork child that leaves asks, too: it has the memory of its parent, but it is none of its threads. While it lives, the
//! thread that it is a copy of stands in the kernel, and whoever asks in earnest runs.
//!
//! Locking: none.

use crate::{heap, libc_calls};
use core::hint;
use core::sync::atomic::{AtomicU32, Ordering};

const NOBODY: u32 = 0;
const READY: u32 = 1;
const ASKED: u32 = 2;
/// Refused, or done.
const ANSWERED: u32 = 3;

static STATE: AtomicU32 = AtomicU32::new(NOBODY);
static ASKER: AtomicU32 = AtomicU32::new(0);

/// How often our thread looks.
const LOOK_NS: u64 = 1_000_000;

/// Whether a thread of ours ends the machine.
pub fn is_elsewhere() -> bool {
    STATE.load(Ordering::Acquire) != NOBODY
}

/// Starts it, unless it is there, or the system gives none.
pub fn prepare(finish: fn()) {
    let knows_thread = libc_calls::threads::own_id() == Some(rustix::thread::gettid().as_raw_nonzero().get() as u32);
    if knows_thread && STATE.compare_exchange(NOBODY, READY, Ordering::AcqRel, Ordering::Acquire).is_ok() {
        let wait = move || {
            while !is_in_earnest() {
                sync::time::sleep_ns(LOOK_NS);
            }
            finish();
            STATE.store(ANSWERED, Ordering::Release);
        };
        if heap::spawn_thread("pontoon-end", Box::new(wait)).is_err() {
            STATE.store(NOBODY, Ordering::Release);
        }
    }
}

/// A fork child has no such thread.
pub fn forget() {
    STATE.store(NOBODY, Ordering::Release);
}

/// Lets the machine be ended, and waits for that. Without a system call.
pub fn ask() {
    // A vfork child may have been refused before.
    let waits = |state| matches!(state, READY).then_some(ASKED);
    let Some(own) = libc_calls::threads::own_id() else { return };
    ASKER.store(own, Ordering::Release);
    if STATE.fetch_update(Ordering::AcqRel, Ordering::Acquire, waits).is_ok() {
        while STATE.load(Ordering::Acquire) == ASKED {
            hint::spin_loop();
        }
    }
}

/// Whether somebody asks who is a thread of this process. Who is not is answered at once.
fn is_in_earnest() -> bool {
    if STATE.load(Ordering::Acquire) != ASKED {
        return false;
    }
    let path = format!("/proc/self/task/{}/stat", ASKER.load(Ordering::Acquire));
    let stat = std::fs::read_to_string(path).unwrap_or_default();
    let stands = stat.rsplit(')').next().is_some_and(|rest| rest.trim_start().starts_with('D'));
    if stands {
        STATE.store(READY, Ordering::Release);
    }
    !stands
}
