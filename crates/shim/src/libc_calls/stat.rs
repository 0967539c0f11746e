//! stat, statx and their kin: a node shows as the character device that it stands for.
//!
//! Each calls the function of its own name: a library behind this one may make one of them by another (fakeroot).

use super::{c_string, inside, interpose, look, real};
use crate::minor::Minor;
use crate::nodes::{self, Entry};
use crate::view::{self, Look, Special};
use core::ffi::{c_char, c_int, c_uint};
use libc::{AT_EMPTY_PATH, AT_FDCWD, S_IFCHR, S_IFMT};

type Stat = libc::stat64;
type Statx = libc::statx;

/// Major number of DRM devices.
const DRM_MAJOR: u32 = 226;

interpose! {
    fn stat(path: *const c_char, out: *mut Stat) -> c_int {
        // SAFETY: the program's own arguments.
        let real = |path| unsafe { real::stat64(path, out) };
        // SAFETY: the program's own path.
        unsafe { by_path(AT_FDCWD, path, out, real) }
    }
    fn stat64(path: *const c_char, out: *mut Stat) -> c_int {
        // SAFETY: the program's own arguments; both structs are one where off_t has 64 bits.
        unsafe { stat(path, out) }
    }
    fn lstat(path: *const c_char, out: *mut Stat) -> c_int {
        // SAFETY: the program's own arguments.
        let real = |path| unsafe { real::lstat64(path, out) };
        // SAFETY: the program's own path.
        unsafe { by_path(AT_FDCWD, path, out, real) }
    }
    fn lstat64(path: *const c_char, out: *mut Stat) -> c_int {
        // SAFETY: the program's own arguments.
        unsafe { lstat(path, out) }
    }
    fn fstat(fd: c_int, out: *mut Stat) -> c_int {
        // SAFETY: the program's own arguments.
        let result = unsafe { real::fstat64(fd, out) };
        // SAFETY: filled where the call succeeded.
        unsafe { by_descriptor(result, fd, out) }
    }
    fn fstat64(fd: c_int, out: *mut Stat) -> c_int {
        // SAFETY: the program's own arguments.
        unsafe { fstat(fd, out) }
    }
    fn fstatat(dirfd: c_int, path: *const c_char, out: *mut Stat, flags: c_int) -> c_int {
        // SAFETY: the program's own arguments.
        let real = |path| unsafe { real::fstatat64(dirfd, path, out, flags) };
        // SAFETY: the program's own path.
        unsafe { at(dirfd, path, flags, out, real) }
    }
    fn fstatat64(dirfd: c_int, path: *const c_char, out: *mut Stat, flags: c_int) -> c_int {
        // SAFETY: the program's own arguments.
        unsafe { fstatat(dirfd, path, out, flags) }
    }
    fn __xstat(version: c_int, path: *const c_char, out: *mut Stat) -> c_int {
        // SAFETY: the program's own arguments; x86-64 and aarch64 have one version of the struct.
        let real = |path| unsafe { real::__xstat64(version, path, out) };
        // SAFETY: the program's own path.
        unsafe { by_path(AT_FDCWD, path, out, real) }
    }
    fn __xstat64(version: c_int, path: *const c_char, out: *mut Stat) -> c_int {
        // SAFETY: as for __xstat.
        unsafe { __xstat(version, path, out) }
    }
    fn __lxstat(version: c_int, path: *const c_char, out: *mut Stat) -> c_int {
        // SAFETY: as for __xstat.
        let real = |path| unsafe { real::__lxstat64(version, path, out) };
        // SAFETY: the program's own path.
        unsafe { by_path(AT_FDCWD, path, out, real) }
    }
    fn __lxstat64(version: c_int, path: *const c_char, out: *mut Stat) -> c_int {
        // SAFETY: as for __xstat.
        unsafe { __lxstat(version, path, out) }
    }
    fn __fxstat(version: c_int, fd: c_int, out: *mut Stat) -> c_int {
        // SAFETY: as for __xstat.
        let result = unsafe { real::__fxstat64(version, fd, out) };
        // SAFETY: filled where the call succeeded.
        unsafe { by_descriptor(result, fd, out) }
    }
    fn __fxstat64(version: c_int, fd: c_int, out: *mut Stat) -> c_int {
        // SAFETY: as for __xstat.
        unsafe { __fxstat(version, fd, out) }
    }
    fn __fxstatat(version: c_int, dirfd: c_int, path: *const c_char, out: *mut Stat, flags: c_int) -> c_int {
        // SAFETY: as for __xstat.
        let real = |path| unsafe { real::__fxstatat64(version, dirfd, path, out, flags) };
        // SAFETY: the program's own path.
        unsafe { at(dirfd, path, flags, out, real) }
    }
    fn __fxstatat64(version: c_int, dirfd: c_int, path: *const c_char, out: *mut Stat, flags: c_int) -> c_int {
        // SAFETY: as for __xstat.
        unsafe { __fxstatat(version, dirfd, path, out, flags) }
    }
    fn statx(dirfd: c_int, path: *const c_char, flags: c_int, mask: c_uint, out: *mut Statx) -> c_int {
        // SAFETY: the program's own arguments.
        if flags & AT_EMPTY_PATH != 0 && unsafe { c_string(path) }.is_some_and(<[u8]>::is_empty) {
            // SAFETY: the program's own arguments.
            let result = unsafe { real::statx(dirfd, path, flags, mask, out) };
            if let (0, Entry::Node(minor)) = (result, nodes::entry(dirfd)) {
                // SAFETY: statx succeeded, so it filled the program's room.
                show_extended(unsafe { &mut *out }, minor);
            }
            return result;
        }
        // SAFETY: the program's own arguments, or a path of the tree.
        let real = |path| unsafe { real::statx(dirfd, path, flags, mask, out) };
        // SAFETY: the program's own arguments.
        let result = match unsafe { look(dirfd, path) } {
            Look::Foreign => {
                let result = real(path);
                // SAFETY: filled where the call succeeded, by the program's own path.
                return unsafe { foreign(result, dirfd, path, out, is_bare_extended, show_extended) };
            }
            Look::Inside => real(path),
            Look::Shown(shown) => real(shown.as_ptr()),
            Look::Node(minor) => {
                let result = real(path);
                if result == 0 && flags & libc::AT_SYMLINK_NOFOLLOW == 0 {
                    // SAFETY: statx succeeded, so it filled the program's room.
                    show_extended(unsafe { &mut *out }, minor);
                }
                return result;
            }
        };
        // SAFETY: filled where the call succeeded.
        unsafe { patched_extended(result, out) }
    }
}

/// # Safety
/// As for stat(2); `real` fills `out`.
unsafe fn by_path(dirfd: c_int, path: *const c_char, out: *mut Stat, real: impl Fn(*const c_char) -> c_int) -> c_int {
    // SAFETY: the caller's contract.
    let result = match unsafe { look(dirfd, path) } {
        Look::Foreign => {
            let result = real(path);
            // SAFETY: filled where the call succeeded, by the program's own path.
            return unsafe { foreign(result, dirfd, path, out, is_bare, show) };
        }
        Look::Shown(shown) => real(shown.as_ptr()),
        Look::Inside => real(path),
        Look::Node(minor) => {
            let result = real(path);
            // SAFETY: where the call succeeded it filled the program's room.
            let is_link = result != 0 || unsafe { (*out).st_mode } & S_IFMT == libc::S_IFLNK;
            if !is_link {
                // SAFETY: as above.
                show(unsafe { &mut *out }, minor);
            }
            return result;
        }
    };
    if result == 0 {
        // SAFETY: the call succeeded, so it filled the program's room.
        let stat = unsafe { &mut *out };
        if let Some(Special::Node(minor)) = special(stat.st_dev, stat.st_ino) {
            show(stat, minor);
        }
    }
    result
}

/// What was found by a path that is not shown: it may be another process's node.
///
/// # Safety
/// `out` was filled where `result` is 0, by a path of the program.
unsafe fn foreign<T>(
    result: c_int,
    dirfd: c_int,
    path: *const c_char,
    out: *mut T,
    is_bare: fn(&T) -> bool,
    show: fn(&mut T, Minor),
) -> c_int {
    if result == 0 {
        // SAFETY: the caller's contract.
        let found = unsafe { &mut *out };
        // SAFETY: the caller's contract: the kernel has read the path.
        if let Some(minor) = is_bare(found).then(|| unsafe { others_node(dirfd, path) }).flatten() {
            show(found, minor);
        }
    }
    result
}

/// Whether it is a file that no folder has, as a memory file is.
fn is_bare(stat: &Stat) -> bool {
    stat.st_nlink == 0 && stat.st_mode & S_IFMT == libc::S_IFREG
}

fn is_bare_extended(stat: &Statx) -> bool {
    stat.stx_nlink == 0 && u32::from(stat.stx_mode) & S_IFMT == libc::S_IFREG
}

/// The node behind a link of `/proc/PID/fd`, where that is a memory file of another process.
///
/// # Safety
/// A path of the program that the kernel could read.
unsafe fn others_node(dirfd: c_int, path: *const c_char) -> Option<Minor> {
    let mut name = [0u8; 64];
    // SAFETY: the caller's contract, and room of ours.
    let length = unsafe { real::readlinkat(dirfd, path, name.as_mut_ptr().cast(), name.len()) };
    nodes::of_name(name.get(..usize::try_from(length).ok()?)?)
}

/// # Safety
/// `out` was filled where `result` is 0.
unsafe fn by_descriptor(result: c_int, fd: c_int, out: *mut Stat) -> c_int {
    if let (0, Entry::Node(minor)) = (result, nodes::entry(fd)) {
        // SAFETY: the caller's contract.
        show(unsafe { &mut *out }, minor);
    }
    result
}

/// # Safety
/// As for fstatat(2), which `real` is.
unsafe fn at(
    dirfd: c_int,
    path: *const c_char,
    flags: c_int,
    out: *mut Stat,
    real: impl Fn(*const c_char) -> c_int,
) -> c_int {
    // SAFETY: the caller's contract.
    if flags & AT_EMPTY_PATH != 0 && unsafe { c_string(path) }.is_some_and(<[u8]>::is_empty) {
        let result = real(path);
        // SAFETY: filled where the call succeeded: with an empty path it is fstat.
        return unsafe { by_descriptor(result, dirfd, out) };
    }
    // SAFETY: the program's own path.
    unsafe { by_path(dirfd, path, out, real) }
}

/// # Safety
/// `out` was filled where `result` is 0.
unsafe fn patched_extended(result: c_int, out: *mut Statx) -> c_int {
    if result == 0 {
        // SAFETY: the caller's contract.
        let stat = unsafe { &mut *out };
        let dev = libc::makedev(stat.stx_dev_major, stat.stx_dev_minor);
        if let Some(Special::Node(minor)) = special(dev, stat.stx_ino) {
            show_extended(stat, minor);
        }
    }
    result
}

fn special(dev: u64, ino: u64) -> Option<Special> {
    inside(|_| view::special(dev, ino))
}

/// A memory file, or the tree's placeholder, as the node.
fn show(stat: &mut Stat, minor: Minor) {
    if stat.st_mode & S_IFMT != libc::S_IFREG {
        return; // a stale entry: the descriptor is something else by now
    }
    if let Some((dev, ino)) = inside(|_| view::node_inode(minor)) {
        (stat.st_dev, stat.st_ino) = (dev, ino);
    }
    stat.st_mode = S_IFCHR | 0o666;
    stat.st_nlink = 1;
    stat.st_rdev = libc::makedev(DRM_MAJOR, minor.number());
    (stat.st_size, stat.st_blocks) = (0, 0);
}

fn show_extended(stat: &mut Statx, minor: Minor) {
    if u32::from(stat.stx_mode) & S_IFMT != libc::S_IFREG {
        return; // as above
    }
    if let Some((dev, ino)) = inside(|_| view::node_inode(minor)) {
        (stat.stx_dev_major, stat.stx_dev_minor, stat.stx_ino) = (libc::major(dev), libc::minor(dev), ino);
    }
    stat.stx_mode = (S_IFCHR | 0o666) as u16;
    stat.stx_nlink = 1;
    (stat.stx_rdev_major, stat.stx_rdev_minor) = (DRM_MAJOR, minor.number());
    (stat.stx_size, stat.stx_blocks) = (0, 0);
}
