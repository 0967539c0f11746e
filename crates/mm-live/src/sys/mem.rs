//! Mappings: making arenas, advising the kernel, and counting what is really there.

use super::{Errno, call, check};
use sync::atomic::AtomicU64;
use units::{HostRange, HostVa, SZ_2M};

/// What madvise shall do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(usize)]
pub(crate) enum Advice {
    /// Drop the pages.
    DontNeed = 4,
    /// Drop the pages of a file.
    Remove = 9,
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

const PROT_NONE: usize = 0;
const PROT_READ_WRITE: usize = 3;
/// Flags of a mapping in which nothing is.
const NOTHING: usize = (libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE) as usize;

/// Reserves `bytes` of private anonymous memory, 2M aligned, never dumped, never inherited.
pub(crate) fn map_arena(bytes: u64) -> Result<HostRange, Errno> {
    let bytes = bytes.next_multiple_of(SZ_2M);
    let whole = bytes + SZ_2M;
    // SAFETY: a fresh mapping, by a hint that replaces nothing, touches nothing that exists.
    let ret = unsafe { call(libc::SYS_mmap, [far(whole), whole as usize, PROT_READ_WRITE, NOTHING, usize::MAX, 0]) };
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

/// Where large mappings of ours would like to be: far from what programs and the kernel choose. A program may map
/// something at an address that it has in mind (MAP_FIXED), and must not find gigabytes of ours there.
static FAR: AtomicU64 = AtomicU64::new(0x6e00_0000_0000);

/// A hint for a mapping of so many bytes.
fn far(bytes: u64) -> usize {
    FAR.fetch_add(bytes.next_multiple_of(SZ_2M)) as usize
}

/// Reserves addresses, 2M aligned, never inherited: every touch of them is a fault.
pub(crate) fn reserve(bytes: u64) -> Result<HostRange, Errno> {
    let whole = bytes.next_multiple_of(SZ_2M) + SZ_2M;
    // SAFETY: a fresh mapping, by a hint that replaces nothing, touches nothing that exists.
    let ret = unsafe { call(libc::SYS_mmap, [far(whole), whole as usize, PROT_NONE, NOTHING, usize::MAX, 0]) };
    let got = HostRange::sized(HostVa(check(ret)? as u64), whole);
    advise(got, Advice::DontFork)?;
    Ok(HostRange::new(got.start.align_up(SZ_2M), got.end))
}

/// Puts the memory of a fresh memfd at addresses that [`reserve`] gave. The descriptor is closed: the mapping keeps the
/// memory, and is what others are made from. Who shares it with another process may seal its length. Where the process may not
/// have a file of that length the memory has no name and no seals, so it cannot be shared; to ask for more would be a signal.
pub(crate) fn map_object(at: HostRange, label: u64) -> Result<(), Errno> {
    if at.len() > file_limit() {
        return map_over(at, libc::MAP_ANONYMOUS as usize, usize::MAX);
    }
    const FLAGS: usize = (libc::MFD_CLOEXEC | libc::MFD_ALLOW_SEALING) as usize;
    let name = crate::objects::name(label);
    // SAFETY: the kernel reads the name, up to its 0.
    let fd = unsafe { call(libc::SYS_memfd_create, [name.as_ptr() as usize, FLAGS, 0, 0, 0, 0]) };
    let fd = check(fd)?;
    // SAFETY: a file of ours that nobody else knows.
    let sized = check(unsafe { call(libc::SYS_ftruncate, [fd, at.len() as usize, 0, 0, 0, 0]) });
    let mapped = sized.and_then(|_| map_shared(at, fd));
    // SAFETY: the same file; nobody else has its descriptor.
    let _ = unsafe { call(libc::SYS_close, [fd, 0, 0, 0, 0, 0]) };
    mapped
}

/// How long a file of this process may be.
fn file_limit() -> u64 {
    let mut limit = libc::rlimit { rlim_cur: libc::RLIM_INFINITY, rlim_max: libc::RLIM_INFINITY };
    let args = [0, libc::RLIMIT_FSIZE as usize, 0, core::ptr::from_mut(&mut limit) as usize, 0, 0];
    // SAFETY: the kernel writes one `struct rlimit`.
    let _ = unsafe { call(libc::SYS_prlimit64, args) };
    limit.rlim_cur
}

/// Puts the memory of a file there.
pub(crate) fn map_shared(at: HostRange, file: usize) -> Result<(), Errno> {
    map_over(at, 0, file)
}

fn map_over(at: HostRange, how: usize, file: usize) -> Result<(), Errno> {
    const FLAGS: usize = (libc::MAP_SHARED | libc::MAP_FIXED | libc::MAP_NORESERVE) as usize;
    let args = [at.start.0 as usize, at.len() as usize, PROT_READ_WRITE, FLAGS | how, file, 0];
    // SAFETY: what is replaced is reserved, and nobody's memory.
    check(unsafe { call(libc::SYS_mmap, args) })?;
    advise(at, Advice::DontFork)
}

/// Cuts the memfd that is mapped there: whoever touches it from now on, in any mapping, gets SIGBUS. The descriptor for that is
/// had from the mapping; who may not have one drops the pages, which read as zeros then.
pub(crate) fn purge_object(at: HostRange) {
    let path = format!("/proc/self/map_files/{:x}-{:x}\0", at.start.0, at.end.0);
    let file = core::ffi::CStr::from_bytes_with_nul(path.as_bytes()).map_err(|_| Errno::INVAL);
    let file = file.and_then(|path| super::open(path, super::Access::ReadWrite));
    // SAFETY: a file of ours, and no reference names its bytes.
    let cut = file.and_then(|file| check(unsafe { call(libc::SYS_ftruncate, [file.raw() as usize, 0, 0, 0, 0, 0]) }));
    if cut.is_err() {
        let _ = advise(at, Advice::Remove);
    }
}

/// Maps zeroed memory of ours, which a forked child does not have; a page of it is there when it is used.
pub(crate) fn map_table(bytes: u64) -> Result<HostRange, Errno> {
    // SAFETY: a fresh mapping, by a hint that replaces nothing, touches nothing that exists.
    let ret = unsafe { call(libc::SYS_mmap, [far(bytes), bytes as usize, PROT_READ_WRITE, NOTHING, usize::MAX, 0]) };
    let table = HostRange::sized(HostVa(check(ret)? as u64), bytes);
    advise(table, Advice::DontFork)?;
    Ok(table)
}

/// Flags of a page of ours at a place that [`reserve`] gave.
pub(crate) const PAGE_FLAGS: i32 = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED;

/// Puts such a page there, zeroed, in place of the one before. A forked child does not have it.
pub(crate) fn map_page(at: HostRange) -> Result<(), Errno> {
    let args = [at.start.0 as usize, at.len() as usize, PROT_READ_WRITE, PAGE_FLAGS as usize, usize::MAX, 0];
    // SAFETY: what is replaced was reserved by us, and no reference names its bytes.
    check(unsafe { call(libc::SYS_mmap, args) })?;
    advise(at, Advice::DontFork)
}

/// Takes that away.
pub(crate) fn unmap_object(at: HostRange) {
    let args = [at.start.0 as usize, at.len() as usize, PROT_NONE, NOTHING | libc::MAP_FIXED as usize, usize::MAX, 0];
    // SAFETY: the range was reserved by us, and no reference names its bytes.
    let _ = unsafe { call(libc::SYS_mmap, args) };
    let _ = advise(at, Advice::DontFork);
}

/// Maps `bytes` of private anonymous memory, 2M aligned, between guards that keep it a VMA of its own; gives the
/// memory, and the whole that [`unmap`] wants.
pub(crate) fn map_guarded(bytes: u64) -> Result<(HostRange, HostRange), Errno> {
    let len = bytes.next_multiple_of(SZ_2M) + 2 * SZ_2M;
    // SAFETY: a fresh mapping at an address of the kernel's choice touches nothing that exists.
    let ret = unsafe { call(libc::SYS_mmap, [0, len as usize, PROT_NONE, NOTHING, usize::MAX, 0]) };
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

/// Moves a mapping over another one.
#[cfg(test)]
pub(crate) fn remap(from: HostRange, to: HostVa) -> Result<(), Errno> {
    let flags = (libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED) as usize;
    let args = [from.start.0 as usize, from.len() as usize, from.len() as usize, flags, to.0 as usize, 0];
    // SAFETY: both belong to the test, and no reference names their bytes.
    check(unsafe { call(libc::SYS_mremap, args) }).map(drop)
}

/// madvise. `DontNeed` is for arenas only, `Remove` for objects: of the program's pages the program alone may say so.
pub(crate) fn advise(range: HostRange, advice: Advice) -> Result<(), Errno> {
    let args = [range.start.0 as usize, range.len() as usize, advice as usize, 0, 0, 0];
    // SAFETY: no reference names the bytes; populating changes none, and DontNeed is for memory of ours.
    check(unsafe { call(libc::SYS_madvise, args) }).map(drop)
}
