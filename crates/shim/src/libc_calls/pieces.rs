//! mremap of what is one mapping for the program and several for the kernel.
//!
//! A part of a mapping that was watched while the program first used it stays a mapping of its own for the kernel, which
//! refuses to resize across the two (EFAULT). Here such a range moves piece by piece, the last of them with the new length;
//! where one does not go, the others go back.
//!
//! Locking: the caller keeps the memory in system memory and unregistered.

use super::{errno, real, set_errno};
use crate::session;
use core::ffi::{c_int, c_void};
use libc::{EFAULT, MAP_FAILED, MREMAP_FIXED, MREMAP_MAYMOVE, PROT_NONE, size_t};
use units::{HostRange, HostVa, SZ_4K};

/// mremap as the program asks for it.
///
/// # Safety
/// As for mremap: the arguments are the program's own.
pub unsafe fn mremap(at: *mut c_void, old: size_t, new: size_t, flags: c_int, to: *mut c_void) -> *mut c_void {
    // SAFETY: the caller's promise; `to` is looked at only where the flags ask for it.
    let moved = unsafe { real::mremap(at, old, new, flags, to) };
    if moved != MAP_FAILED || errno() != EFAULT {
        return moved;
    }
    let moved = again(at as usize, old, new, flags, to as usize);
    set_errno(EFAULT);
    moved.map_or(MAP_FAILED, |moved| moved as *mut c_void)
}

/// The same, in pieces; `None` where that is not what is wrong.
fn again(at: usize, old: size_t, new: size_t, flags: c_int, to: usize) -> Option<usize> {
    let page = SZ_4K as usize;
    let (old, new) = (old.checked_next_multiple_of(page)?, new.checked_next_multiple_of(page)?);
    if flags & !(MREMAP_MAYMOVE | MREMAP_FIXED) != 0 || flags & MREMAP_MAYMOVE == 0 || new < old {
        return None;
    }
    let end = (at as u64).checked_add(old as u64)?;
    let pieces = session::running()?.pieces(HostRange::new(HostVa(at as u64), HostVa(end)));
    let last = pieces.len().checked_sub(1).filter(|last| *last > 0)?;
    let fixed = flags & MREMAP_FIXED != 0;
    let to = if fixed { to } else { reserve(new)? };
    for (n, piece) in pieces.iter().enumerate() {
        let (start, length) = (piece.start.0 as usize, piece.len() as usize);
        let grown = length + if n == last { new - old } else { 0 };
        if !carry(start, length, grown, to + (start - at)) {
            for back in &pieces[..n] {
                let (start, length) = (back.start.0 as usize, back.len() as usize);
                carry(to + (start - at), length, length, start);
            }
            if !fixed {
                // SAFETY: what was reserved here, and nothing else.
                unsafe { libc::munmap(to as *mut c_void, new) };
            }
            return None;
        }
    }
    Some(to)
}

/// Moves one mapping to a place; whether it went.
fn carry(start: usize, length: usize, grown: usize, to: usize) -> bool {
    let how = MREMAP_MAYMOVE | MREMAP_FIXED;
    // SAFETY: a part of what the program asks to be moved, to a part of where it shall be.
    unsafe { real::mremap(start as *mut c_void, length, grown, how, to as *mut c_void) != MAP_FAILED }
}

/// Addresses for so many bytes.
fn reserve(bytes: usize) -> Option<usize> {
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
    // SAFETY: a fresh mapping at an address of the kernel's choice touches nothing that exists.
    let at = unsafe { real::mmap64(core::ptr::null_mut(), bytes, PROT_NONE, flags, -1, 0) };
    (at != MAP_FAILED).then_some(at as usize)
}
