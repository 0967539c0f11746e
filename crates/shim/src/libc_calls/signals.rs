//! Signals: blocked while we work, and SIGSEGV and SIGBUS kept for the machine's fixups.
//!
//! A handler of the program may jump out of whatever it interrupted, so a call that is ours runs with the program's
//! signals blocked ([`hold`]). A long wait asks now and then what has arrived meanwhile ([`Held::pending`]).
//!
//! The machine's accesses to memory that may be gone end in SIGSEGV or SIGBUS at known instructions. When a machine
//! starts, [`install`] puts a handler of ours in front of the program's, and the machine puts its own in front of that;
//! from then on sigaction and signal change a record that our handler obeys as the kernel would. They also make our
//! handler the kernel's anew, in front of the machine's: so ours asks the machine first, each time.
//!
//! Locking: none; handlers read atomics only.

use super::actions::{Action, Current};
use super::{fail, interpose, pci_barrier, real};
use core::ffi::{c_int, c_void};
use core::mem;
use core::mem::MaybeUninit;
use core::ptr;
use core::sync::atomic::{AtomicBool, Ordering};
use libc::{SIG_BLOCK, SIG_DFL, SIG_IGN, SIG_SETMASK, SIGBUS, SIGSEGV};

/// Signals that are never blocked by us: faults of the thread itself, and what a debugger uses.
const FAULTS: [c_int; 2] = [SIGSEGV, SIGBUS];

/// The program's signals are blocked on this thread while this lives.
pub struct Held {
    before: u64,
}

/// What waits for this thread to unblock it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Pending {
    /// Nothing that would end a wait.
    Nothing,
    /// Handlers that ask for the call to be made again.
    Restarts,
    /// A handler that wants the call to end, or a signal that ends the process.
    Interrupts,
}

/// Blocks the program's signals, and unblocks the faults.
pub fn hold() -> Held {
    let unblocked = FAULTS.iter().fold(0, |set, signal| set | bit(*signal));
    Held { before: set_mask(!unblocked) }
}

impl Drop for Held {
    fn drop(&mut self) {
        set_mask(self.before);
    }
}

impl Held {
    /// Signals that arrived meanwhile and that the program itself has not blocked.
    pub fn pending(&self) -> Pending {
        pending_beyond(self.before)
    }
}

/// Does what may write more than the process allows its files, with the program's signals blocked: the signal of
/// that (SIGXFSZ) is ours and not the program's.
pub fn within_file_limit<T>(write: impl FnOnce() -> rustix::io::Result<T>) -> rustix::io::Result<T> {
    let result = write();
    if matches!(result, Err(rustix::io::Errno::FBIG)) {
        let mut set = MaybeUninit::<libc::sigset_t>::zeroed();
        // SAFETY: a set begins with the 64 bits of the kernel's own.
        unsafe { *set.as_mut_ptr().cast::<u64>() = bit(libc::SIGXFSZ) };
        let at_once = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        // SAFETY: a valid set and time; nothing is told of the signal.
        unsafe { libc::sigtimedwait(set.as_ptr(), ptr::null_mut(), &raw const at_once) };
    }
    result
}

/// Whether this thread blocks a signal.
#[cfg(test)]
pub fn is_blocked(signal: c_int) -> bool {
    let held = hold();
    held.before & bit(signal) != 0
}

fn bit(signal: c_int) -> u64 {
    1 << (signal - 1)
}

fn pending_beyond(before: u64) -> Pending {
    let mut set = MaybeUninit::<libc::sigset_t>::zeroed();
    // SAFETY: room for the set.
    unsafe { libc::sigpending(set.as_mut_ptr()) };
    // SAFETY: a set begins with the 64 bits of the kernel's own; zeroed before.
    let set = unsafe { *set.as_ptr().cast::<u64>() } & !before;
    let ends = |signal: &c_int| set & bit(*signal) != 0 && disposition(*signal) != Pending::Nothing;
    (1..=64).filter(ends).map(disposition).fold(Pending::Nothing, |all, one| match (all, one) {
        (Pending::Interrupts, _) | (_, Pending::Interrupts) => Pending::Interrupts,
        _ => Pending::Restarts,
    })
}

/// What the delivery of a signal would do to a system call that waits.
fn disposition(signal: c_int) -> Pending {
    let mut action = MaybeUninit::<libc::sigaction>::zeroed();
    // SAFETY: asks only; room for the answer.
    if unsafe { real::sigaction(signal, ptr::null(), action.as_mut_ptr()) } != 0 {
        return Pending::Nothing;
    }
    // SAFETY: filled by sigaction, and all bit patterns are valid.
    let action = unsafe { action.assume_init() };
    let harmless = [libc::SIGCHLD, libc::SIGCONT, libc::SIGURG, libc::SIGWINCH].contains(&signal);
    match action.sa_sigaction {
        SIG_IGN => Pending::Nothing,
        SIG_DFL if harmless => Pending::Nothing,
        SIG_DFL => Pending::Interrupts,
        _ if action.sa_flags & libc::SA_RESTART != 0 => Pending::Restarts,
        _ => Pending::Interrupts,
    }
}

/// Sets this thread's blocked signals, gives those before.
fn set_mask(mask: u64) -> u64 {
    let mut new = MaybeUninit::<libc::sigset_t>::zeroed();
    // SAFETY: a set begins with the 64 bits of the kernel's own.
    unsafe { *new.as_mut_ptr().cast::<u64>() = mask };
    let mut old = MaybeUninit::<libc::sigset_t>::zeroed();
    // SAFETY: two sets.
    unsafe { libc::pthread_sigmask(SIG_SETMASK, new.as_ptr(), old.as_mut_ptr()) };
    // SAFETY: as above.
    unsafe { *old.as_ptr().cast::<u64>() }
}

/// What the program wants done with SIGSEGV and SIGBUS.
static WANTED: [Current; 2] = [const { Current::new() }; 2];
static INSTALLED: AtomicBool = AtomicBool::new(false);

fn wanted(signal: c_int) -> Option<&'static Current> {
    match signal {
        SIGSEGV => Some(&WANTED[0]),
        SIGBUS => Some(&WANTED[1]),
        _ => None,
    }
}

/// Puts our handler in front of the program's. Once in a process.
pub fn install() {
    for signal in [SIGSEGV, SIGBUS] {
        let mut old = MaybeUninit::<libc::sigaction>::zeroed();
        // SAFETY: asks only; room for the answer.
        if unsafe { real::sigaction(signal, ptr::null(), old.as_mut_ptr()) } == 0 {
            // SAFETY: filled by sigaction.
            let old = unsafe { old.assume_init() };
            exchange(signal, Some(&old));
        }
    }
    INSTALLED.store(true, Ordering::Release);
}

/// Makes our handler the kernel's, with what the program wants of the kernel: system calls made again, its own stack.
fn install_ours(signal: c_int, wanted: &Current) {
    loop {
        let (theirs, number) = wanted.get();
        let mut ours = MaybeUninit::<libc::sigaction>::zeroed();
        // SAFETY: all bits zero is a valid action.
        let action = unsafe { ours.assume_init_mut() };
        action.sa_sigaction = on_signal as *const () as usize;
        let flags = match theirs.handler {
            SIG_DFL | SIG_IGN => libc::SA_RESTART | libc::SA_ONSTACK,
            _ => theirs.flags & (libc::SA_RESTART | libc::SA_ONSTACK),
        };
        action.sa_flags = libc::SA_SIGINFO | libc::SA_NODEFER | flags;
        // SAFETY: a valid action with a handler of the right type.
        unsafe { real::sigaction(signal, ours.as_ptr(), ptr::null_mut()) };
        // Of two threads the one that tells the kernel last tells what counts.
        if wanted.number() == number {
            return;
        }
    }
}

/// The program's action for SIGSEGV or SIGBUS, changed where there is a new one.
fn exchange(signal: c_int, new: Option<&libc::sigaction>) -> libc::sigaction {
    let mut old = MaybeUninit::<libc::sigaction>::zeroed();
    // SAFETY: all bits zero is a valid action.
    let old = unsafe { old.assume_init_mut() };
    let Some(wanted) = wanted(signal) else { return *old };
    let before = match new {
        None => wanted.get().0,
        Some(new) => {
            // SAFETY: a set begins with the 64 bits of the kernel's own.
            let mask = unsafe { *ptr::from_ref(&new.sa_mask).cast::<u64>() };
            let before = wanted.set(Action { handler: new.sa_sigaction, flags: new.sa_flags, mask });
            install_ours(signal, wanted);
            before
        }
    };
    (old.sa_sigaction, old.sa_flags) = (before.handler, before.flags);
    // SAFETY: a set begins with the 64 bits of the kernel's own.
    unsafe { *ptr::from_mut(&mut old.sa_mask).cast::<u64>() = before.mask };
    *old
}

/// The action that a signal meets; one that is for once is taken back.
fn take(wanted: &Current) -> Action {
    loop {
        let (action, number) = wanted.get();
        let is_handler = !matches!(action.handler, SIG_DFL | SIG_IGN);
        let for_once = is_handler && action.flags & libc::SA_RESETHAND != 0;
        if !for_once || wanted.replace(number, Action { handler: SIG_DFL, ..action }) {
            return action;
        }
    }
}

/// Behind the machine's fixups, in front of the program's handler: does what the kernel would.
extern "C" fn on_signal(signal: c_int, info: *mut libc::siginfo_t, context: *mut c_void) {
    // SAFETY: the kernel's own context of this handler.
    if unsafe { machine::live::fix_up(signal, context) } {
        return;
    }
    // SAFETY: the kernel's own arguments of this handler.
    if unsafe { pci_barrier::drops(signal, info, context) } {
        return;
    }
    let Some(wanted) = wanted(signal) else { return };
    // SAFETY: the kernel's own info of this signal.
    let was_sent = unsafe { (*info).si_code } <= 0;
    let Action { handler, flags, mask } = take(wanted);
    match handler {
        SIG_IGN if was_sent => return,
        SIG_DFL | SIG_IGN => return die(signal, was_sent),
        _ => {}
    }
    let itself = if flags & libc::SA_NODEFER == 0 { bit(signal) } else { 0 };
    block(mask | itself);
    if flags & libc::SA_SIGINFO != 0 {
        // SAFETY: the program registered this address with SA_SIGINFO, so it is a function of this type.
        let handler: extern "C" fn(c_int, *mut libc::siginfo_t, *mut c_void) = unsafe { mem::transmute(handler) };
        handler(signal, info, context);
    } else {
        // SAFETY: the program registered this address without SA_SIGINFO, so it is a function of this type.
        let handler: extern "C" fn(c_int) = unsafe { mem::transmute(handler) };
        handler(signal);
    }
}

/// Blocks more; returning from the signal restores what was before.
fn block(mask: u64) {
    let mut set = MaybeUninit::<libc::sigset_t>::zeroed();
    // SAFETY: a set begins with the 64 bits of the kernel's own.
    unsafe { *set.as_mut_ptr().cast::<u64>() = mask };
    // SAFETY: a valid set.
    unsafe { libc::pthread_sigmask(SIG_BLOCK, set.as_ptr(), ptr::null_mut()) };
}

/// The default action: the instruction faults again without a handler, or the signal is sent again.
fn die(signal: c_int, was_sent: bool) {
    let default = MaybeUninit::<libc::sigaction>::zeroed();
    // SAFETY: all bits zero is the default action.
    unsafe { real::sigaction(signal, default.as_ptr(), ptr::null_mut()) };
    if was_sent {
        // SAFETY: no precondition.
        unsafe { libc::raise(signal) };
    }
}

interpose! {
    fn sigaction(signal: c_int, new: *const libc::sigaction, old: *mut libc::sigaction) -> c_int {
        if wanted(signal).is_none() || !INSTALLED.load(Ordering::Acquire) {
            // SAFETY: the program's own arguments.
            return unsafe { real::sigaction(signal, new, old) };
        }
        // SAFETY: null, or the program's own action.
        let before = exchange(signal, unsafe { new.as_ref() });
        // SAFETY: null, or room of the program's own.
        if let Some(old) = unsafe { old.as_mut() } {
            *old = before;
        }
        0
    }
    fn signal(signal: c_int, handler: usize) -> usize {
        // SAFETY: the program's own arguments.
        simple(signal, handler, libc::SA_RESTART, |signal, handler| unsafe { real::signal(signal, handler) })
    }
    fn bsd_signal(signal: c_int, handler: usize) -> usize {
        // SAFETY: the program's own arguments.
        simple(signal, handler, libc::SA_RESTART, |signal, handler| unsafe { real::signal(signal, handler) })
    }
    fn sysv_signal(signal: c_int, handler: usize) -> usize {
        // SAFETY: the program's own arguments.
        unsafe { __sysv_signal(signal, handler) }
    }
    fn __sysv_signal(signal: c_int, handler: usize) -> usize {
        let flags = libc::SA_RESETHAND | libc::SA_NODEFER;
        // SAFETY: the program's own arguments.
        simple(signal, handler, flags, |signal, handler| unsafe { real::__sysv_signal(signal, handler) })
    }
}

/// signal(2) in one of its manners.
fn simple(signal: c_int, handler: usize, flags: c_int, real: impl Fn(c_int, usize) -> usize) -> usize {
    if wanted(signal).is_none() || !INSTALLED.load(Ordering::Acquire) {
        return real(signal, handler);
    }
    if handler == libc::SIG_ERR {
        fail(libc::EINVAL);
        return libc::SIG_ERR;
    }
    let mut action = MaybeUninit::<libc::sigaction>::zeroed();
    // SAFETY: all bits zero is a valid action.
    let action = unsafe { action.assume_init_mut() };
    (action.sa_sigaction, action.sa_flags) = (handler, flags);
    exchange(signal, Some(action)).sa_sigaction
}
