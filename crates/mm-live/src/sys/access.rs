//! Bytes at addresses that may vanish under us: a few assembly routines, and a signal handler that knows them.
//!
//! All routines lie in one span of text, use no stack and report in `rax`. When one of them faults, the handler of
//! SIGSEGV and SIGBUS finds the instruction pointer in the span, puts the signal's number into `rax` and continues
//! at the span's end, a `ret`: so a fault costs about 2 us and an access that does not fault costs nothing.
//! Any other fault goes to whoever handled the signal before. Who puts a handler in front of ours later asks [`fix_up`] first.

use super::call;
use crate::kernel::Fault;
use core::sync::atomic::{AtomicUsize, Ordering};
use hostmm::AtomicOp;
use units::SZ_4K;

core::arch::global_asm!(
    ".pushsection .text.pontoon_access,\"ax\",@progbits",
    ".p2align 4",
    ".globl pontoon_access_begin",
    ".hidden pontoon_access_begin",
    "pontoon_access_begin:",
    // copy(dst, src, len) -> fault
    ".globl pontoon_access_copy",
    ".hidden pontoon_access_copy",
    "pontoon_access_copy:",
    "mov rcx, rdx",
    "rep movsb",
    "xor eax, eax",
    "ret",
    // stream(dst, src, len) -> fault: both 16-byte aligned, len a multiple of 64; not ordered before other stores. A prefetch
    // never faults, wherever it leads.
    ".globl pontoon_access_stream",
    ".hidden pontoon_access_stream",
    "pontoon_access_stream:",
    "2:",
    "prefetcht0 [rsi + 512]",
    "movdqa xmm0, [rsi]",
    "movdqa xmm1, [rsi + 16]",
    "movdqa xmm2, [rsi + 32]",
    "movdqa xmm3, [rsi + 48]",
    "movntdq [rdi], xmm0",
    "movntdq [rdi + 16], xmm1",
    "movntdq [rdi + 32], xmm2",
    "movntdq [rdi + 48], xmm3",
    "add rsi, 64",
    "add rdi, 64",
    "sub rdx, 64",
    "ja 2b",
    "xor eax, eax",
    "ret",
    // load8/4/2(dst: *mut u64, src) -> fault
    ".globl pontoon_access_load8",
    ".hidden pontoon_access_load8",
    "pontoon_access_load8:",
    "mov rcx, [rsi]",
    "mov [rdi], rcx",
    "xor eax, eax",
    "ret",
    ".globl pontoon_access_load4",
    ".hidden pontoon_access_load4",
    "pontoon_access_load4:",
    "mov ecx, [rsi]",
    "mov [rdi], ecx",
    "xor eax, eax",
    "ret",
    // xchg8/4(value: *mut u64, addr), xadd8/4(value: *mut u64, addr) -> fault; the old value comes back
    ".globl pontoon_access_xchg8",
    ".hidden pontoon_access_xchg8",
    "pontoon_access_xchg8:",
    "mov rcx, [rdi]",
    "xchg [rsi], rcx",
    "mov [rdi], rcx",
    "xor eax, eax",
    "ret",
    ".globl pontoon_access_xchg4",
    ".hidden pontoon_access_xchg4",
    "pontoon_access_xchg4:",
    "mov ecx, [rdi]",
    "xchg [rsi], ecx",
    "mov [rdi], rcx",
    "xor eax, eax",
    "ret",
    ".globl pontoon_access_xadd8",
    ".hidden pontoon_access_xadd8",
    "pontoon_access_xadd8:",
    "mov rcx, [rdi]",
    "lock xadd [rsi], rcx",
    "mov [rdi], rcx",
    "xor eax, eax",
    "ret",
    ".globl pontoon_access_xadd4",
    ".hidden pontoon_access_xadd4",
    "pontoon_access_xadd4:",
    "mov ecx, [rdi]",
    "lock xadd [rsi], ecx",
    "mov [rdi], rcx",
    "xor eax, eax",
    "ret",
    // cmpxchg8/4(expected: *mut u64, addr, new) -> fault; the old value comes back
    ".globl pontoon_access_cmpxchg8",
    ".hidden pontoon_access_cmpxchg8",
    "pontoon_access_cmpxchg8:",
    "mov rax, [rdi]",
    "lock cmpxchg [rsi], rdx",
    "mov [rdi], rax",
    "xor eax, eax",
    "ret",
    ".globl pontoon_access_cmpxchg4",
    ".hidden pontoon_access_cmpxchg4",
    "pontoon_access_cmpxchg4:",
    "mov eax, [rdi]",
    "lock cmpxchg [rsi], edx",
    "mov [rdi], rax",
    "xor eax, eax",
    "ret",
    ".globl pontoon_access_end",
    ".hidden pontoon_access_end",
    "pontoon_access_end:",
    "ret",
    // what a signal handler returns to
    ".globl pontoon_access_restorer",
    ".hidden pontoon_access_restorer",
    "pontoon_access_restorer:",
    "mov eax, 15",
    "syscall",
    "ud2",
    ".popsection",
);

unsafe extern "C" {
    fn pontoon_access_begin();
    fn pontoon_access_end();
    fn pontoon_access_restorer();
    fn pontoon_access_copy(dst: u64, src: u64, len: usize) -> i64;
    fn pontoon_access_stream(dst: u64, src: u64, len: usize) -> i64;
    fn pontoon_access_load8(dst: *mut u64, src: u64) -> i64;
    fn pontoon_access_load4(dst: *mut u64, src: u64) -> i64;
    fn pontoon_access_xchg8(value: *mut u64, addr: u64) -> i64;
    fn pontoon_access_xchg4(value: *mut u64, addr: u64) -> i64;
    fn pontoon_access_xadd8(value: *mut u64, addr: u64) -> i64;
    fn pontoon_access_xadd4(value: *mut u64, addr: u64) -> i64;
    fn pontoon_access_cmpxchg8(value: *mut u64, addr: u64, new: u64) -> i64;
    fn pontoon_access_cmpxchg4(value: *mut u64, addr: u64, new: u64) -> i64;
}

fn outcome(ret: i64) -> Result<(), Fault> {
    match ret {
        0 => Ok(()),
        code if code == i64::from(libc::SIGBUS) => Err(Fault::Bus),
        _ => Err(Fault::Segv),
    }
}

/// Copies bytes out of `src`. Naturally aligned words of 4 and 8 are read in one piece.
pub(crate) fn read(src: u64, buf: &mut [u8]) -> Result<(), Fault> {
    let mut word = 0u64;
    let to = core::ptr::from_mut(&mut word);
    match buf.len() {
        8 if src.is_multiple_of(8) => {
            // SAFETY: `to` is ours; the source may fault, which the handler turns into a result.
            outcome(unsafe { pontoon_access_load8(to, src) })?;
            buf.copy_from_slice(&word.to_le_bytes());
            Ok(())
        }
        4 if src.is_multiple_of(4) => {
            // SAFETY: as above.
            outcome(unsafe { pontoon_access_load4(to, src) })?;
            buf.copy_from_slice(&(word as u32).to_le_bytes());
            Ok(())
        }
        // SAFETY: the destination is a slice of that length; the source may fault, which becomes a result.
        len => outcome(unsafe { pontoon_access_copy(buf.as_mut_ptr() as u64, src, len) }),
    }
}

/// Copies bytes to `dst`. Naturally aligned words of 4 and 8 are written in one piece.
pub(crate) fn write(dst: u64, bytes: &[u8]) -> Result<(), Fault> {
    match bytes.len() {
        8 if dst.is_multiple_of(8) => {
            exchange(dst, 8, u64::from_le_bytes(core::array::from_fn(|i| bytes[i]))).map(drop)
        }
        4 if dst.is_multiple_of(4) => {
            exchange(dst, 4, u64::from(u32::from_le_bytes(core::array::from_fn(|i| bytes[i])))).map(drop)
        }
        // SAFETY: the source is a slice of that length; the destination is memory that no reference names, and
        // a fault of it becomes a result.
        len => outcome(unsafe { pontoon_access_copy(dst, bytes.as_ptr() as u64, len) }),
    }
}

/// Copies whole lines of the caches to `dst`, around the caches. What the processor may still hold back afterwards is in
/// order again with [`drain`].
pub(crate) fn stream(dst: u64, bytes: &[u8]) -> Result<(), Fault> {
    let from = bytes.as_ptr() as u64;
    if bytes.is_empty() || !bytes.len().is_multiple_of(64) || !dst.is_multiple_of(64) || !from.is_multiple_of(16) {
        return write(dst, bytes);
    }
    // SAFETY: the source is a slice of that length, and lines are whole; the destination is memory that no reference names,
    // and a fault of it becomes a result.
    outcome(unsafe { pontoon_access_stream(dst, from, bytes.len()) })
}

/// Copies a page from `src` to `dst`, both page aligned, likewise.
pub(crate) fn stream_page(dst: u64, src: u64) -> Result<(), Fault> {
    // SAFETY: both are pages of memory that no reference names, and a fault of either becomes a result.
    outcome(unsafe { pontoon_access_stream(dst, src, SZ_4K as usize) })
}

/// Stores of this thread so far are seen before any later one, streams too.
pub(crate) fn drain() {
    // SAFETY: every x86-64 has this instruction, and it touches no memory.
    unsafe { core::arch::x86_64::_mm_sfence() }
}

/// Copies `len` bytes from `src` to `dst`; the ranges do not overlap.
pub(crate) fn copy(dst: u64, src: u64, len: usize) -> Result<(), Fault> {
    // SAFETY: both are memory that no reference names, and a fault of either becomes a result.
    outcome(unsafe { pontoon_access_copy(dst, src, len) })
}

/// An atomic on a word of 4 or 8 bytes; gives the old one.
pub(crate) fn atomic(addr: u64, size: usize, op: AtomicOp) -> Result<u64, Fault> {
    match op {
        AtomicOp::Exchange(value) => exchange(addr, size, value),
        AtomicOp::Add(value) => add(addr, size, value),
        AtomicOp::Sub(value) => add(addr, size, value.wrapping_neg()),
        AtomicOp::CompareExchange { expected, new } => compare_exchange(addr, size, expected, new),
    }
}

/// Stores a word of 4 or 8 bytes and gives the old one.
fn exchange(addr: u64, size: usize, value: u64) -> Result<u64, Fault> {
    let mut word = value;
    let at = core::ptr::from_mut(&mut word);
    let ret = if size == 8 {
        // SAFETY: `at` is ours; a fault of the address becomes a result.
        unsafe { pontoon_access_xchg8(at, addr) }
    } else {
        // SAFETY: as above.
        unsafe { pontoon_access_xchg4(at, addr) }
    };
    outcome(ret).map(|()| word)
}

/// Adds to a word of 4 or 8 bytes and gives the old one.
fn add(addr: u64, size: usize, value: u64) -> Result<u64, Fault> {
    let mut word = value;
    let at = core::ptr::from_mut(&mut word);
    let ret = if size == 8 {
        // SAFETY: `at` is ours; a fault of the address becomes a result.
        unsafe { pontoon_access_xadd8(at, addr) }
    } else {
        // SAFETY: as above.
        unsafe { pontoon_access_xadd4(at, addr) }
    };
    outcome(ret).map(|()| word)
}

/// Compares and exchanges a word of 4 or 8 bytes and gives the old one.
fn compare_exchange(addr: u64, size: usize, expected: u64, new: u64) -> Result<u64, Fault> {
    let mut word = expected;
    let at = core::ptr::from_mut(&mut word);
    let ret = if size == 8 {
        // SAFETY: `at` is ours; a fault of the address becomes a result.
        unsafe { pontoon_access_cmpxchg8(at, addr, new) }
    } else {
        // SAFETY: as above.
        unsafe { pontoon_access_cmpxchg4(at, addr, new) }
    };
    outcome(ret).map(|()| word)
}

/// Who handled SIGSEGV and SIGBUS before us: handler and flags. Written before our handler is there to read them, and never
/// again, so the two are of one action. Who is in front of a program that changes its mind (the preload library) has a handler of
/// its own there.
static CHAINED: [[AtomicUsize; 2]; 2] = [const { [const { AtomicUsize::new(0) }; 2] }; 2];
static INSTALLED: AtomicUsize = AtomicUsize::new(0);

fn slot(signal: i32) -> &'static [AtomicUsize; 2] {
    &CHAINED[usize::from(signal == libc::SIGBUS)]
}

/// `struct kernel_sigaction` of x86-64.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct KernelAction {
    handler: usize,
    flags: usize,
    restorer: usize,
    mask: u64,
}

/// Installs the fixup for SIGSEGV and SIGBUS, once in a process; who was there before is chained.
pub(crate) fn install() {
    if INSTALLED.swap(1, Ordering::SeqCst) == 0 {
        for signal in [libc::SIGSEGV, libc::SIGBUS] {
            let old = set_action(signal, KernelAction::default(), Change::Ask);
            let [handler, flags] = slot(signal);
            handler.store(old.handler, Ordering::SeqCst);
            flags.store(old.flags, Ordering::SeqCst);
            set_action(signal, own_action(), Change::Set);
        }
    }
}

fn own_action() -> KernelAction {
    const SA_RESTORER: usize = 0x0400_0000;
    let flags = (libc::SA_SIGINFO | libc::SA_ONSTACK | libc::SA_NODEFER) as usize | SA_RESTORER;
    KernelAction {
        handler: on_signal as *const () as usize,
        flags,
        restorer: pontoon_access_restorer as *const () as usize,
        mask: 0,
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Change {
    Ask,
    Set,
}

fn set_action(signal: i32, new: KernelAction, change: Change) -> KernelAction {
    let mut old = KernelAction::default();
    let new_at = if change == Change::Set { core::ptr::from_ref(&new) as usize } else { 0 };
    let args = [signal as usize, new_at, core::ptr::from_mut(&mut old) as usize, 8, 0, 0];
    // SAFETY: both structs are the kernel's, and the handler is a function of the right type.
    let _ = unsafe { call(libc::SYS_rt_sigaction, args) };
    old
}

/// The handler: no stack to speak of, no thread-locals, no locks.
extern "C" fn on_signal(signal: i32, info: *mut libc::siginfo_t, context: *mut libc::c_void) {
    // SAFETY: the kernel gives a handler of SA_SIGINFO a context that is valid until it returns.
    if !unsafe { fix_up(signal, context) } {
        forward(signal, info, context);
    }
}

/// Whether a SIGSEGV or SIGBUS is of one of these accesses: it then ends with an error, once the handler returns.
///
/// # Safety
/// `context` is what the kernel gave a handler of SA_SIGINFO that has not returned yet.
pub unsafe fn fix_up(signal: i32, context: *mut libc::c_void) -> bool {
    let context_at: *mut libc::ucontext_t = context.cast();
    // SAFETY: the caller's contract.
    let registers = unsafe { &mut (*context_at).uc_mcontext.gregs };
    let pc = registers[libc::REG_RIP as usize] as usize;
    let (begin, end) = (pontoon_access_begin as *const () as usize, pontoon_access_end as *const () as usize);
    if (begin..end).contains(&pc) {
        registers[libc::REG_RAX as usize] = i64::from(signal);
        registers[libc::REG_RIP as usize] = end as i64;
        return true;
    }
    false
}

fn forward(signal: i32, info: *mut libc::siginfo_t, context: *mut libc::c_void) {
    let [handler, flags] = slot(signal);
    let (handler, flags) = (handler.load(Ordering::SeqCst), flags.load(Ordering::SeqCst));
    match handler {
        0 | 1 => {
            // Nobody: the default action, by the same instruction faulting again without a handler.
            set_action(signal, KernelAction::default(), Change::Set);
        }
        at if flags & libc::SA_SIGINFO as usize != 0 => {
            // SAFETY: this address came from a sigaction with SA_SIGINFO, so it is a function of this type.
            let function: extern "C" fn(i32, *mut libc::siginfo_t, *mut libc::c_void) =
                unsafe { core::mem::transmute(at) };
            function(signal, info, context);
        }
        at => {
            // SAFETY: this address came from a sigaction without SA_SIGINFO, so it is a function of this type.
            let function: extern "C" fn(i32) = unsafe { core::mem::transmute(at) };
            function(signal);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_arrives_whole_and_a_fault_of_it_is_a_result() {
        install();
        #[repr(align(64))]
        struct Lines([u8; 4096]);
        let from = Lines(core::array::from_fn(|at| (at % 251) as u8));
        let mut to = Lines([0; 4096]);
        let dst = to.0.as_mut_ptr() as u64;
        stream(dst, &from.0).expect("memory");
        drain();
        assert!(to.0 == from.0);
        // No line of the caches: bytes all the same.
        stream(dst + 1, &from.0[..100]).expect("memory");
        assert!(to.0[1..101] == from.0[..100] && to.0[101] == from.0[101]);
        assert!(matches!(stream(64, &from.0), Err(Fault::Segv)));
    }
}
