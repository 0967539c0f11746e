//! mmap of a node; mprotect, mremap, mlock and their kin, with their memory migrated back before.
//!
//! munmap, mmap over something, and most of madvise need little here: the kernel tells of them where something is watched, also
//! if libc calls them by itself. It tells when they are done; so jobs that may count on that memory are waited for here, before.
//! Of what is not watched only a wrapper knows that it went, so the GPU forgets it here. The kernel does not tell of guards
//! (MADV_GUARD_INSTALL, also by process_madvise) and of shmat over something (SHM_REMAP).

use super::{buffers, events, interpose, pci_barrier, peek, pieces, raw, real, set_errno, shared};
use crate::device::{Change, Errno};
use crate::nodes::{self, Entry};
use crate::session;
use core::ffi::{c_int, c_uint, c_void};
use libc::{iovec, off64_t, size_t, ssize_t};
use xe_uapi::gem::PCI_BARRIER_OFFSET;

interpose! {
    fn mmap(at: *mut c_void, length: size_t, prot: c_int, flags: c_int, fd: c_int, offset: off64_t) -> *mut c_void {
        let entry = if flags & libc::MAP_ANONYMOUS == 0 { nodes::entry(fd) } else { Entry::Foreign };
        let is_node = matches!(entry, Entry::Node(_));
        let is_ours = is_node || entry == Entry::Buffer;
        if is_node && !may_map(fd, prot, flags) {
            set_errno(libc::EACCES);
            return libc::MAP_FAILED;
        }
        if is_ours && is_private(flags) || entry == Entry::Buffer && !shared::may_map(fd, length, offset) {
            set_errno(libc::EINVAL);
            return libc::MAP_FAILED;
        }
        let map = || {
            if is_node {
                return map_node(at, length, prot, flags, fd, offset);
            }
            // SAFETY: the program's own arguments.
            unsafe { real::mmap64(at, length, prot, flags, fd, offset) }
        };
        if flags & (libc::MAP_FIXED | libc::MAP_FIXED_NOREPLACE) != libc::MAP_FIXED {
            return map();
        }
        session::around_change(at as usize, length, Change::Unmap, map)
    }
    fn munmap(at: *mut c_void, length: size_t) -> c_int {
        // SAFETY: the program's own arguments.
        session::around_change(at as usize, length, Change::Unmap, || unsafe { real::munmap(at, length) })
    }
    fn mmap64(at: *mut c_void, length: size_t, prot: c_int, flags: c_int, fd: c_int, offset: off64_t) -> *mut c_void {
        // SAFETY: the program's own arguments; the two forms are one where off_t has 64 bits.
        unsafe { mmap(at, length, prot, flags, fd, offset) }
    }
    fn mprotect(at: *mut c_void, length: size_t, prot: c_int) -> c_int {
        // SAFETY: the program's own arguments.
        session::around_change(at as usize, length, Change::Protect, || unsafe { real::mprotect(at, length, prot) })
    }
    fn pkey_mprotect(at: *mut c_void, length: size_t, prot: c_int, key: c_int) -> c_int {
        session::around_change(at as usize, length, Change::Protect, || {
            // SAFETY: the program's own arguments.
            unsafe { real::pkey_mprotect(at, length, prot, key) }
        })
    }
    fn mremap(at: *mut c_void, old: size_t, new: size_t, flags: c_int, to: *mut c_void) -> *mut c_void {
        // SAFETY: the program's own arguments.
        let remap = || unsafe { pieces::mremap(at, old, new, flags, to) };
        session::around_change(at as usize, old, Change::Remap, || {
            if flags & libc::MREMAP_FIXED == 0 {
                return remap();
            }
            session::around_change(to as usize, new, Change::Unmap, remap)
        })
    }
    fn madvise(at: *mut c_void, length: size_t, advice: c_int) -> c_int {
        // SAFETY: the program's own arguments.
        let advise = || unsafe { real::madvise(at, length, advice) };
        match advice {
            libc::MADV_DONTNEED | libc::MADV_REMOVE => session::around_change(at as usize, length, Change::Empty, advise),
            MADV_GUARD_INSTALL => session::around_change(at as usize, length, Change::Protect, advise),
            _ => advise(),
        }
    }
    fn process_madvise(process: c_int, parts: *const iovec, count: size_t, advice: c_int, flags: c_uint) -> ssize_t {
        let advise = || {
            let arguments = (process as usize, parts as usize, advice as usize, flags as usize);
            // SAFETY: the program's own arguments. Not every libc has a function of this name.
            unsafe { raw::call(libc::SYS_process_madvise, arguments.0, arguments.1, count, arguments.2, arguments.3, 0) as ssize_t }
        };
        if advice != MADV_GUARD_INSTALL || count > MAX_PARTS {
            return advise();
        }
        // SAFETY: the program's own array, which it leaves alone for the time of the call.
        let Some(parts) = (unsafe { peek::array(parts, count) }) else { return advise() };
        // Of another process's memory nothing is here, so it does not matter whose it is.
        let start = parts.iter().map(|part| part.iov_base as usize).min().unwrap_or(0);
        let end = parts.iter().map(|part| (part.iov_base as usize).saturating_add(part.iov_len)).max().unwrap_or(0);
        session::around_change(start, end.min(ALL).saturating_sub(start), Change::Protect, advise)
    }
    fn shmat(id: c_int, at: *const c_void, flags: c_int) -> *mut c_void {
        // SAFETY: the program's own arguments.
        let attach = || unsafe { real::shmat(id, at, flags) };
        if flags & libc::SHM_REMAP == 0 {
            return attach();
        }
        session::around_change(at as usize, segment_size(id), Change::Remap, attach)
    }
    fn mlock(at: *const c_void, length: size_t) -> c_int {
        // SAFETY: the program's own arguments.
        session::around_change(at as usize, length, Change::Lock, || unsafe { real::mlock(at, length) })
    }
    fn mlock2(at: *const c_void, length: size_t, flags: c_uint) -> c_int {
        // SAFETY: the program's own arguments.
        session::around_change(at as usize, length, Change::Lock, || unsafe { real::mlock2(at, length, flags) })
    }
    fn mlockall(flags: c_int) -> c_int {
        // SAFETY: the program's own argument.
        let lock = || unsafe { real::mlockall(flags) };
        if flags & libc::MCL_CURRENT == 0 {
            return lock();
        }
        session::around_change(0, ALL, Change::Lock, lock)
    }
}

/// Whether a node was opened for what a mapping of it does.
///
/// Upstream: `do_mmap`.
fn may_map(fd: c_int, prot: c_int, flags: c_int) -> bool {
    match events::opened(fd) & libc::O_ACCMODE {
        libc::O_RDONLY => is_private(flags) || prot & libc::PROT_WRITE == 0,
        opened => opened == libc::O_RDWR,
    }
}

/// Whether a mapping would have a copy of its own of what is written there: no driver's mapping may.
///
/// Upstream: `is_cow_mapping`, in `ttm_bo_mmap_obj` and `xe_pci_barrier_mmap`.
fn is_private(flags: c_int) -> bool {
    flags & libc::MAP_TYPE == libc::MAP_PRIVATE
}

/// The barrier's page, or a buffer.
fn map_node(at: *mut c_void, length: size_t, prot: c_int, flags: c_int, fd: c_int, offset: off64_t) -> *mut c_void {
    if offset as u64 == PCI_BARRIER_OFFSET {
        return pci_barrier::map(at, length, prot, flags);
    }
    let failed = |Errno(errno)| {
        set_errno(errno);
        libc::MAP_FAILED
    };
    buffers::map(at, length, prot, flags, fd, offset as u64).map_or_else(failed, |at| at as *mut c_void)
}

/// Parts that process_madvise takes at most: UIO_MAXIOV.
const MAX_PARTS: size_t = 1024;

/// Linux 6.13; libc has no name for it yet.
const MADV_GUARD_INSTALL: c_int = 102;

/// The bytes of a segment of shared memory; none where there is no such segment.
fn segment_size(id: c_int) -> size_t {
    let mut state = core::mem::MaybeUninit::<libc::shmid_ds>::zeroed();
    // SAFETY: IPC_STAT writes this struct.
    let found = unsafe { libc::shmctl(id, libc::IPC_STAT, state.as_mut_ptr()) };
    // SAFETY: zeroed before, and zeros are a valid one.
    if found == 0 { unsafe { state.assume_init() }.shm_segsz } else { 0 }
}

/// The program's half of the address space.
const ALL: usize = 1 << 47;
