//! Mappings: making arenas, advising the kernel, and counting what is really there.

use super::{Errno, call, check};
use units::{HostRange, HostVa, SZ_2M};

/// What madvise shall do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(usize)]
pub(crate) enum Advice {
    /// Drop the pages.
    DontNeed = 4,
    /// Not in a forked child.
    DontFork = 10,
    /// Huge pages wanted.
    HugePage = 14,
    /// No huge pages.
    NoHugePage = 15,
    /// Not in a core dump.
    DontDump = 16,
    /// Fault all pages in for reading.
    PopulateRead = 22,
    /// Fault all pages in for writing; breaks copy-on-write.
    PopulateWrite = 23,
}

/// Reserves `bytes` of private anonymous memory, 2M aligned, never dumped, never inherited.
pub(crate) fn map_arena(bytes: u64) -> Result<HostRange, Errno> {
    const PROT_READ_WRITE: usize = 3;
    const FLAGS: usize = (libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE) as usize;
    let bytes = bytes.next_multiple_of(SZ_2M);
    let whole = bytes + SZ_2M;
    // SAFETY: a fresh mapping at an address of the kernel's choice touches nothing that exists.
    let ret = unsafe { call(libc::SYS_mmap, [0, whole as usize, PROT_READ_WRITE, FLAGS, usize::MAX, 0]) };
    let got = HostRange::sized(HostVa(check(ret)? as u64), whole);
    let arena = HostRange::sized(got.start.align_up(SZ_2M), bytes);
    unmap(HostRange::new(got.start, arena.start));
    unmap(HostRange::new(arena.end, got.end));
    for advice in [Advice::HugePage, Advice::DontFork, Advice::DontDump] {
        // An arena without huge pages is slow, one that is inherited is a hazard: only the latter must not fail.
        match advise(arena, advice) {
            Err(errno) if advice != Advice::HugePage => return Err(errno),
            _ => {}
        }
    }
    Ok(arena)
}

/// Maps `bytes` of private anonymous memory, 2M aligned, between guards that keep it a VMA of its own; gives the
/// memory, and the whole that [`unmap`] wants.
pub(crate) fn map_guarded(bytes: u64) -> Result<(HostRange, HostRange), Errno> {
    const PROT_NONE: usize = 0;
    const PROT_READ_WRITE: usize = 3;
    const FLAGS: usize = (libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE) as usize;
    let len = bytes.next_multiple_of(SZ_2M) + 2 * SZ_2M;
    // SAFETY: a fresh mapping at an address of the kernel's choice touches nothing that exists.
    let ret = unsafe { call(libc::SYS_mmap, [0, len as usize, PROT_NONE, FLAGS, usize::MAX, 0]) };
    let whole = HostRange::sized(HostVa(check(ret)? as u64), len);
    let memory = HostRange::sized(whole.start.add(1).align_up(SZ_2M), bytes);
    let args = [memory.start.0 as usize, memory.len() as usize, PROT_READ_WRITE, 0, 0, 0];
    // SAFETY: the range lies in the mapping just made, of which nobody knows.
    match check(unsafe { call(libc::SYS_mprotect, args) }) {
        Ok(_) => Ok((memory, whole)),
        Err(errno) => {
            unmap(whole);
            Err(errno)
        }
    }
}

/// Gives a mapping of ours back.
pub(crate) fn unmap(range: HostRange) {
    if !range.is_empty() {
        // SAFETY: only arenas of ours are unmapped, by their owner, and no reference names their bytes.
        let _ = unsafe { call(libc::SYS_munmap, [range.start.0 as usize, range.len() as usize, 0, 0, 0, 0]) };
    }
}

/// Maps fresh memory at a place that is free.
#[cfg(test)]
pub(crate) fn map_at(range: HostRange) -> Result<(), Errno> {
    const FLAGS: usize =
        (libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE | libc::MAP_FIXED_NOREPLACE) as usize;
    // SAFETY: nothing that exists is replaced.
    check(unsafe { call(libc::SYS_mmap, [range.start.0 as usize, range.len() as usize, 3, FLAGS, usize::MAX, 0]) })
        .map(drop)
}

/// madvise. `DontNeed` is for arenas only: of the program's pages the program alone may say so.
pub(crate) fn advise(range: HostRange, advice: Advice) -> Result<(), Errno> {
    let args = [range.start.0 as usize, range.len() as usize, advice as usize, 0, 0, 0];
    // SAFETY: no reference names the bytes; populating changes none, and DontNeed is for memory of ours.
    check(unsafe { call(libc::SYS_madvise, args) }).map(drop)
}
