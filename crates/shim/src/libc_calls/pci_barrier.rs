//! The page that orders a device's view of memory (the PCI barrier): a store to it is dropped, and it reads as 0xdeadbeef.
//!
//! It is mapped for reading only. A store raises SIGSEGV, and the handler goes on behind the instruction. One that does more than
//! store (an atomic), or is not known, is done after all: that mapping is plain memory from then on. A mapping is forgotten before it
//! changes. So it costs a signal a store, some microseconds, and a thread that blocks SIGSEGV is killed by one, as the kernel does it.
//!
//! Locking: none; a handler reads atomics only.
//!
//! Upstream: `xe_pci_barrier_mmap`.

use super::{real, set_errno, stores};
use crate::device::Change;
use core::ffi::{c_int, c_void};
use core::slice;
use core::sync::atomic::{AtomicUsize, Ordering};
use libc::{EINVAL, MAP_ANONYMOUS, MAP_FAILED, MAP_FIXED, MAP_FIXED_NOREPLACE, MAP_SHARED};
use libc::{PROT_READ, PROT_WRITE, SIGSEGV, siginfo_t, size_t, ucontext_t};

const PAGE: usize = 4096;
/// What a load gives.
const READS: u32 = 0xdead_beef;
/// Of a SIGSEGV: a mapping that does not allow it.
const SEGV_ACCERR: c_int = 2;
/// Of a page fault's error code: it was a store.
const IS_STORE: i64 = 2;

/// Where the page is mapped, 0: nowhere; with [`PLAIN`] where that is plain memory by now. More mappings than these are so from the start.
static MAPPED: [AtomicUsize; 64] = [const { AtomicUsize::new(0) }; 64];
const PLAIN: usize = 1;
/// How many of these there are at most.
static COUNT: AtomicUsize = AtomicUsize::new(0);

/// Maps the page, shared.
pub fn map(at: *mut c_void, length: size_t, prot: c_int, flags: c_int) -> *mut c_void {
    if !(1..=PAGE).contains(&length) || prot & !PROT_WRITE != 0 {
        set_errno(EINVAL);
        return MAP_FAILED;
    }
    let place = flags & (MAP_FIXED | MAP_FIXED_NOREPLACE);
    // SAFETY: the program's own arguments; what is replaced, it asked to.
    let page = unsafe { real::mmap64(at, PAGE, prot, place | MAP_SHARED | MAP_ANONYMOUS, -1, 0) };
    if page != MAP_FAILED && prot != 0 {
        // SAFETY: a page that was just mapped for writing, of which nobody knows yet.
        unsafe { slice::from_raw_parts_mut(page.cast::<u32>(), PAGE / 4) }.fill(READS);
        let is_new = |mapped: &&AtomicUsize| {
            mapped.compare_exchange(0, page as usize, Ordering::AcqRel, Ordering::Relaxed).is_ok()
        };
        if MAPPED.iter().find(is_new).is_some() {
            COUNT.fetch_add(1, Ordering::AcqRel);
            // SAFETY: the same page.
            unsafe { real::mprotect(page, PAGE, PROT_READ) };
        }
    }
    page
}

/// The mapping of these bytes is about to change: what is done there later is done as to any memory.
pub fn forget(start: usize, length: usize, change: Change) {
    if COUNT.load(Ordering::Acquire) == 0 || matches!(change, Change::Lock | Change::Empty) {
        return;
    }
    for mapped in &MAPPED {
        let word = mapped.load(Ordering::Acquire);
        let page = word & !PLAIN;
        let changes = page != 0 && page < start.saturating_add(length) && start < page + PAGE;
        if changes && mapped.compare_exchange(word, 0, Ordering::AcqRel, Ordering::Relaxed).is_ok() {
            COUNT.fetch_sub(1, Ordering::AcqRel);
            // The change may be refused, and the page stay.
            make_plain(page);
        }
    }
}

fn make_plain(page: usize) {
    // SAFETY: the page of the barrier, which is still mapped there.
    unsafe { real::mprotect(page as *mut c_void, PAGE, PROT_READ | PROT_WRITE) };
}

/// Whether a signal is of a store to the page: the thread then goes on behind it, once the handler returns.
///
/// # Safety
/// `info` and `context` are what the kernel gave a handler of SA_SIGINFO that has not returned yet.
pub unsafe fn drops(signal: c_int, info: *mut siginfo_t, context: *mut c_void) -> bool {
    if signal != SIGSEGV || COUNT.load(Ordering::Acquire) == 0 {
        return false;
    }
    // SAFETY: the caller's contract.
    let info = unsafe { &*info };
    if info.si_code != SEGV_ACCERR {
        return false;
    }
    // SAFETY: a signal of this code has an address.
    let page = unsafe { info.si_addr() } as usize & !(PAGE - 1);
    let context: *mut ucontext_t = context.cast();
    // SAFETY: the caller's contract.
    let registers = unsafe { &mut (*context).uc_mcontext.gregs };
    let is_page = |mapped: &&AtomicUsize| mapped.load(Ordering::Acquire) & !PLAIN == page;
    let Some(mapped) = MAPPED.iter().find(is_page).filter(|_| page != 0) else { return false };
    if registers[libc::REG_ERR as usize] & IS_STORE == 0 {
        return false;
    }
    let pc = registers[libc::REG_RIP as usize] as usize;
    // SAFETY: bytes of the instruction that was just fetched; no byte behind its end is asked for.
    match stores::length(|index| unsafe { *((pc + index) as *const u8) }) {
        _ if mapped.load(Ordering::Acquire) & PLAIN != 0 => {}
        Some(length) => registers[libc::REG_RIP as usize] += length as i64,
        None => {
            make_plain(page);
            let _ = mapped.compare_exchange(page, page | PLAIN, Ordering::AcqRel, Ordering::Relaxed);
        }
    }
    true
}
