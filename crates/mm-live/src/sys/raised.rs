//! Events of our own: a page of ours is mapped anew, and the message of that stays unread.
//!
//! Whoever raises an event waits until it is read. So a helper does it: a thread of the calling process that makes two system calls, by
//! instruction and without a stack. The page's first byte says that the event is pending: it becomes 0 with the change, and the
//! kernel refuses from before that.
//!
//! Locking: none. For one caller at a time.

use super::linux::Linux;
use super::{Errno, access, call, check, mem};
use crate::kernel::Watch;
use core::sync::atomic::{AtomicU32, Ordering};
use sync::atomic::AtomicU64;
use sync::time;
use units::{HostRange, HostVa, SZ_2M, SZ_4K, SZ_64K};

/// One may be pending still, two are raised, and the helpers of two that were read may be about to end.
const EVENTS: usize = 5;
/// How long it is looked for, and the pause between. A helper that is later has used up its event: where all are late nothing is raised
/// any more until somebody reads. Two are waited for within a turn, for which readers wait a second.
const PATIENCE_NS: u64 = 300_000_000;
const PAUSE_NS: u64 = 20_000;

#[derive(Debug, Default)]
pub(crate) struct Raised {
    /// Where the pages are, far from each other; 0: nowhere yet.
    start: AtomicU64,
    /// The helper of each event, as the kernel numbers it, which writes 0 when it has ended.
    helpers: [AtomicU32; EVENTS],
}

impl Raised {
    pub fn new() -> Self {
        Self::default()
    }

    /// Raises one: its page. `None` where the system lets us not, or not in time; then it may be raised later.
    pub fn raise(&self, linux: &Linux) -> Option<HostRange> {
        let event = self.helpers.iter().position(|helper| helper.load(Ordering::Acquire) == 0)?;
        let page = self.page(event)?;
        mem::map_page(page).ok()?;
        access::write(page.start.0, &[1]).ok()?;
        linux.program().register(page, Watch::Missing).ok()?;
        start_helper(page, &self.helpers[event]).ok()?;
        let (mut byte, end) = ([1], time::now_ns() + PATIENCE_NS);
        loop {
            access::read(page.start.0, &mut byte).ok()?;
            if byte == [0] {
                return Some(page);
            }
            if time::now_ns() > end {
                return None;
            }
            time::sleep_ns(PAUSE_NS);
        }
    }

    /// Whether an event is of ours.
    pub fn has_raised(&self, range: HostRange) -> bool {
        let start = self.start.load();
        start != 0 && HostRange::sized(HostVa(start), EVENTS as u64 * SZ_64K).contains(range.start)
    }

    fn page(&self, event: usize) -> Option<HostRange> {
        if self.start.load() == 0 {
            self.start.store(mem::reserve(SZ_2M).ok()?.start.0);
        }
        Some(HostRange::sized(HostVa(self.start.load()).add(event as u64 * SZ_64K), SZ_4K))
    }
}

/// Starts a thread that maps the page anew and ends. `number` is its number until it has ended.
fn start_helper(page: HostRange, number: &AtomicU32) -> Result<(), Errno> {
    const FLAGS: i32 = libc::CLONE_VM
        | libc::CLONE_FS
        | libc::CLONE_FILES
        | libc::CLONE_SIGHAND
        | libc::CLONE_THREAD
        | libc::CLONE_SYSVSEM
        | libc::CLONE_PARENT_SETTID
        | libc::CLONE_CHILD_CLEARTID;
    let before = set_signals(u64::MAX);
    let (number, result): (usize, isize) = (number.as_ptr() as usize, libc::SYS_clone as isize);
    let ret: isize;
    // SAFETY: the new thread has this one's registers and no stack of its own. It makes two system calls, touches no memory, takes no
    // signal, and never leaves this block. The page is ours, and no reference names its bytes. The kernel writes the number, which lives as
    // long as the process does.
    unsafe {
        core::arch::asm!(
            "syscall",
            "test rax, rax",
            "jnz 2f",
            "mov rdi, r12",
            "mov esi, {page_size}",
            "mov edx, {protection}",
            "mov r10d, {flags}",
            "mov r8, -1",
            "xor r9d, r9d",
            "mov eax, {mmap}",
            "syscall",
            "xor edi, edi",
            "mov eax, {exit}",
            "syscall",
            "ud2",
            "2:",
            page_size = const SZ_4K,
            protection = const libc::PROT_READ | libc::PROT_WRITE,
            flags = const mem::PAGE_FLAGS,
            mmap = const libc::SYS_mmap,
            exit = const libc::SYS_exit,
            inlateout("rax") result => ret,
            in("rdi") FLAGS as usize, in("rsi") 0, in("rdx") number, in("r10") number, in("r8") 0, in("r12") page.start.0,
            lateout("rcx") _, lateout("r11") _,
            options(nostack)
        )
    };
    set_signals(before);
    check(ret).map(drop)
}

/// Blocks these signals of the calling thread and no other; gives those that were blocked.
fn set_signals(blocked: u64) -> u64 {
    let mut before = 0u64;
    let (new, old) = (core::ptr::from_ref(&blocked) as usize, core::ptr::from_mut(&mut before) as usize);
    // SAFETY: the kernel reads and writes eight bytes.
    let _ = unsafe { call(libc::SYS_rt_sigprocmask, [libc::SIG_SETMASK as usize, new, old, size_of::<u64>(), 0, 0]) };
    before
}
