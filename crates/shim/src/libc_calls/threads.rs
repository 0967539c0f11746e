//! Threads of the program: the page of a thread's control block never migrates.
//!
//! When a thread ends the kernel clears a word in its control block and wakes the joiner. It does not wait for a page
//! there: were the page in VRAM, the word would stay, and the joiner with it. libc's `pthread_t` is that block's address.
//! On a stack of the program's own the block lies at its upper end, so it is known before the thread is.
//!
//! Locking: none; pages are noted in a table of atomics, as most programs that make threads have no machine.

use super::{inside, interpose, real};
use crate::session;
use core::ffi::{c_int, c_void};
use core::sync::atomic::{AtomicU64, Ordering};
use libc::{pthread_attr_t, pthread_t};
use units::{HostRange, HostVa, SZ_4K};

/// What a thread begins with.
pub type Body = Option<extern "C" fn(*mut c_void) -> *mut c_void>;

/// Bytes of a control block, at most: of how much of a stack's upper end may be one.
const BLOCK: u64 = SZ_4K;
/// Bytes from its start that the kernel touches when a thread ends: its id, and its list of robust mutexes. The rest of the block
/// may be short of this page's end, and what follows may be the program's.
const TOUCHED: u64 = 0x300;

/// Pages of control blocks, 0: none. libc uses stacks again, so they are few; what is beyond is not protected.
static PAGES: [AtomicU64; 2048] = [const { AtomicU64::new(0) }; 2048];

interpose! {
    fn pthread_create(thread: *mut pthread_t, with: *const pthread_attr_t, body: Body, argument: *mut c_void) -> c_int {
        // SAFETY: null, or the program's own attributes.
        if let Some(end) = unsafe { end_of_own_stack(with) } {
            keep(HostRange::new(HostVa(end.saturating_sub(BLOCK)), HostVa(end)));
        }
        // SAFETY: the program's own arguments.
        let result = unsafe { real::pthread_create(thread, with, body, argument) };
        if result == 0 {
            // SAFETY: the thread was made, so this was filled.
            keep(block_of(unsafe { *thread }));
        }
        result
    }
}

/// Notes the calling thread, which nobody made.
pub fn keep_own() {
    // SAFETY: no precondition.
    keep(block_of(unsafe { libc::pthread_self() }));
}

/// All pages known so far, for a machine that just began.
pub fn known() -> impl Iterator<Item = HostRange> {
    let pages = PAGES.iter().map(|page| page.load(Ordering::Acquire)).take_while(|page| *page != 0);
    pages.map(|page| HostRange::sized(HostVa(page), SZ_4K))
}

fn block_of(thread: pthread_t) -> HostRange {
    HostRange::sized(HostVa(thread), TOUCHED)
}

/// The upper end of the stack that a thread is given; `None` where libc makes it.
///
/// # Safety
/// Null, or initialised attributes.
unsafe fn end_of_own_stack(with: *const pthread_attr_t) -> Option<u64> {
    if with.is_null() {
        return None;
    }
    let (mut start, mut size) = (core::ptr::null_mut(), 0);
    // SAFETY: initialised attributes, and room for two words.
    let found = unsafe { libc::pthread_attr_getstack(with, &raw mut start, &raw mut size) };
    // libc keeps the upper end: without a stack it is 0.
    Some((start as u64).wrapping_add(size as u64)).filter(|end| found == 0 && *end != 0)
}

fn keep(block: HostRange) {
    let mut page = block.start.page();
    while page < block.end {
        if note(page.0) && session::is_active() {
            inside(|_| session::never_migrate(HostRange::sized(page, SZ_4K)));
        }
        page = page.add(SZ_4K);
    }
}

/// Whether the page was not known yet.
fn note(page: u64) -> bool {
    for slot in &PAGES {
        match slot.compare_exchange(0, page, Ordering::AcqRel, Ordering::Acquire) {
            Ok(_) => return true,
            Err(known) if known == page => return false,
            Err(_) => {}
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The end of the calling thread's stack, as libc has it.
    fn stack_end() -> u64 {
        // SAFETY: attributes are plain data, which libc fills.
        let mut with: pthread_attr_t = unsafe { core::mem::zeroed() };
        // SAFETY: no precondition.
        let this = unsafe { libc::pthread_self() };
        // SAFETY: the calling thread's own, and room for its attributes.
        assert_eq!(unsafe { libc::pthread_getattr_np(this, &raw mut with) }, 0);
        // SAFETY: they were just filled.
        let end = unsafe { end_of_own_stack(&raw const with) };
        // SAFETY: they are not used again.
        unsafe { libc::pthread_attr_destroy(&raw mut with) };
        end.expect("a stack")
    }

    #[test]
    fn nothing_behind_a_threads_stack_is_kept() {
        static SEEN: [AtomicU64; 2] = [const { AtomicU64::new(0) }; 2];
        let thread = sync::spawn("kept", || {
            // SAFETY: no precondition.
            let block = block_of(unsafe { libc::pthread_self() });
            SEEN[0].store(block.end.align_up(SZ_4K).0, Ordering::Release);
            SEEN[1].store(stack_end(), Ordering::Release);
        });
        thread.join();
        let [end, stack] = [0, 1].map(|n| SEEN[n].load(Ordering::Acquire));
        assert!(stack > 0, "the thread ended early");
        assert!(end <= stack, "{end:#x} is behind {stack:#x}");
    }
}
