//! Threads of the machine: stacks from the window, the program's signals blocked.
//!
//! The stack carries the thread's control block and its static thread-locals, so they are never migrated either. What
//! ld.so allocates besides (the thread's DTV, on the program's heap) is told to the session as never to be migrated.
//!
//! SIGSEGV and SIGBUS stay unblocked: an access to memory that is gone is answered by a fixup, and a thread that
//! blocks a synchronous signal is killed by it.

use super::pages;
use crate::{libc_calls, session};
use core::ffi::c_void;
use core::mem::MaybeUninit;
use core::ptr;
use core::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::Arc;
use sync::{Body, SpawnError};
use units::{HostRange, HostVa, SZ_4K};

/// Bytes of a stack, its guard page included.
pub const STACK_SIZE: u64 = 1 << 20;

/// A stack that no thread came to, 0: none. It may be asked for over and over.
static SPARE: AtomicU64 = AtomicU64::new(0);
static ALIVE: AtomicUsize = AtomicUsize::new(0);

/// How many threads of ours there are.
pub fn alive() -> usize {
    ALIVE.load(Ordering::Acquire)
}

/// A forked child has none.
pub fn forget() {
    ALIVE.store(0, Ordering::Release);
}

/// What the new thread is given.
struct Start {
    name: &'static str,
    body: Body,
    running: Arc<AtomicU32>,
}

/// The spawner of `sync::spawn` in a preloaded process. Returns when the thread runs and its memory is known.
pub fn spawn_thread(name: &'static str, body: Body) -> Result<(), SpawnError> {
    let spare = Some(SPARE.swap(0, Ordering::Relaxed)).filter(|start| *start != 0);
    let stack = spare.map(|start| HostRange::sized(HostVa(start), STACK_SIZE - SZ_4K));
    let stack = stack.or_else(|| pages::stack(STACK_SIZE)).ok_or(SpawnError)?;
    let running = Arc::new(AtomicU32::new(0));
    let start = Box::into_raw(Box::new(Start { name, body, running: running.clone() }));
    let quiet = libc_calls::signals::hold();
    let created = create(stack, start.cast());
    drop(quiet);
    if !created {
        // SAFETY: no thread was made, so the box is still this function's alone.
        drop(unsafe { Box::from_raw(start) });
        SPARE.store(stack.start.0, Ordering::Relaxed);
        return Err(SpawnError);
    }
    while running.load(Ordering::Acquire) == 0 {
        sync::yield_now();
    }
    Ok(())
}

/// Makes a detached thread on that stack; it inherits this thread's blocked signals.
fn create(stack: HostRange, start: *mut c_void) -> bool {
    let mut attributes = MaybeUninit::<libc::pthread_attr_t>::uninit();
    let attributes = attributes.as_mut_ptr();
    // SAFETY: the attributes are room for what init writes.
    if unsafe { libc::pthread_attr_init(attributes) } != 0 {
        return false;
    }
    // SAFETY: the attributes are initialised; the stack is ours, writable, and given to nobody else.
    let on_stack = unsafe { libc::pthread_attr_setstack(attributes, stack.start.0 as *mut _, stack.len() as usize) };
    // SAFETY: the attributes are initialised.
    let detached = unsafe { libc::pthread_attr_setdetachstate(attributes, libc::PTHREAD_CREATE_DETACHED) };
    let mut thread = 0;
    if on_stack != 0 || detached != 0 {
        return false;
    }
    // SAFETY: the attributes are initialised, and `run` takes what `start` points to.
    unsafe { libc_calls::pthread_create(&mut thread, attributes, Some(run), start) == 0 }
}

extern "C" fn run(start: *mut c_void) -> *mut c_void {
    // SAFETY: spawn_thread made this pointer from a box and gave it to this thread alone.
    let start = unsafe { Box::from_raw(start.cast::<Start>()) };
    let Start { name, body, running } = *start;
    let short = &name.as_bytes()[..name.len().min(15)];
    if let Ok(short) = std::ffi::CString::new(short) {
        let _ = rustix::thread::set_name(&short);
    }
    session::never_migrate(dtv_pages());
    ALIVE.fetch_add(1, Ordering::AcqRel);
    running.store(1, Ordering::Release);
    drop(running);
    body();
    ALIVE.fetch_sub(1, Ordering::AcqRel);
    ptr::null_mut()
}

/// The pages of this thread's dynamic thread vector: its pointer is the second word of the thread control block, its
/// length stands in the entry before it, an entry has two words.
#[cfg(target_arch = "x86_64")]
fn dtv_pages() -> HostRange {
    let vector: *const u64;
    // SAFETY: reads one word of the control block that %fs points to on every thread of glibc.
    unsafe { core::arch::asm!("mov {}, fs:[8]", out(reg) vector, options(nostack, readonly, preserves_flags)) };
    // SAFETY: the entry before the first one is part of the vector's allocation.
    let count = unsafe { vector.sub(2) };
    // SAFETY: it holds the number of entries.
    let length = unsafe { *count };
    let start = HostVa(vector as u64 - 16).page();
    HostRange::new(start, HostVa(vector as u64 + (length + 1) * 16).align_up(SZ_4K))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_run_on_stacks_of_the_window_with_signals_blocked() {
        let seen = Arc::new(AtomicU32::new(0));
        let report = seen.clone();
        let body: Body = Box::new(move || {
            let here = 0u8;
            let inside = super::super::window().expect("in use").contains(HostVa(&raw const here as u64));
            let blocked =
                libc_calls::signals::is_blocked(libc::SIGALRM) && !libc_calls::signals::is_blocked(libc::SIGSEGV);
            report.store(1 + u32::from(inside) * 2 + u32::from(blocked) * 4, Ordering::Release);
        });
        spawn_thread("test", body).expect("a thread");
        while seen.load(Ordering::Acquire) == 0 {
            sync::yield_now();
        }
        assert_eq!(seen.load(Ordering::Acquire), 7);
        assert!(!libc_calls::signals::is_blocked(libc::SIGALRM), "the spawner's own mask is as it was");
    }
}
