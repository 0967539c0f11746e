//! statfs and fstatfs: a file of the tree is one of sysfs, debugfs or devtmpfs, as its path says; what is told of an open file is one of
//! procfs. libudev takes nothing for a device that is not in sysfs.
//!
//! Upstream: `simple_statfs` (sysfs, debugfs, procfs); `shmem_statfs` (devtmpfs).

use super::{inside, interpose, look, real};
use crate::view::{self, FileSystem, Look};
use core::ffi::{c_char, c_int};
use libc::AT_FDCWD;
use rustix::fd::AsRawFd;
use rustix::fs::{CWD, Mode, OFlags};

type StatFs = libc::statfs64;

interpose! {
    fn statfs(path: *const c_char, out: *mut StatFs) -> c_int {
        // SAFETY: the program's own arguments, or a path of the tree.
        let real = |path| unsafe { real::statfs64(path, out) };
        // SAFETY: the program's own path.
        let (result, of) = match unsafe { look(AT_FDCWD, path) } {
            Look::Foreign => return real(path),
            Look::Node(_) => (real(path), Some(FileSystem::Devices)),
            // SAFETY: a path that the tree has just made, a C string.
            Look::Shown(shown) => (real(shown.as_ptr()), unsafe { of_path(shown.as_ptr()) }),
            // SAFETY: the program's own path, which was looked at.
            Look::Inside => (real(path), unsafe { of_path(path) }),
        };
        // SAFETY: filled where the call succeeded.
        unsafe { show(result, of, out) }
    }
    fn statfs64(path: *const c_char, out: *mut StatFs) -> c_int {
        // SAFETY: the program's own arguments; both structs are one on 64 bits.
        unsafe { statfs(path, out) }
    }
    fn fstatfs(fd: c_int, out: *mut StatFs) -> c_int {
        // SAFETY: the program's own arguments.
        let result = unsafe { real::fstatfs64(fd, out) };
        let of = (result == 0 && view::is_made()).then(|| inside(|_| view::file_system(fd))).flatten();
        // SAFETY: filled where the call succeeded.
        unsafe { show(result, of, out) }
    }
    fn fstatfs64(fd: c_int, out: *mut StatFs) -> c_int {
        // SAFETY: the program's own arguments; both structs are one on 64 bits.
        unsafe { fstatfs(fd, out) }
    }
}

/// Which of the device's file systems a path leads to, behind all links.
///
/// # Safety
/// A C string.
unsafe fn of_path(path: *const c_char) -> Option<FileSystem> {
    // SAFETY: the caller's contract.
    let path = unsafe { core::ffi::CStr::from_ptr(path) };
    inside(|_| {
        let file = rustix::fs::openat(CWD, path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).ok()?;
        view::file_system(file.as_raw_fd())
    })
}

/// # Safety
/// `out` was filled where `result` is 0.
unsafe fn show(result: c_int, of: Option<FileSystem>, out: *mut StatFs) -> c_int {
    if let (0, Some(of)) = (result, of) {
        // SAFETY: the caller's contract.
        as_told_by(of, unsafe { &mut *out });
    }
    result
}

/// What these file systems tell of themselves: the first three of nothing but their kind, and of names of 255 bytes.
fn as_told_by(of: FileSystem, told: &mut StatFs) {
    told.f_type = match of {
        FileSystem::Sysfs => libc::SYSFS_MAGIC,
        FileSystem::Debugfs => libc::DEBUGFS_MAGIC,
        FileSystem::Proc => libc::PROC_SUPER_MAGIC,
        FileSystem::Devices => libc::TMPFS_MAGIC,
    };
    if of != FileSystem::Devices {
        (told.f_blocks, told.f_bfree, told.f_bavail, told.f_files, told.f_ffree) = (0, 0, 0, 0, 0);
        (told.f_bsize, told.f_frsize, told.f_namelen) = (4096, 4096, 255);
    }
}
