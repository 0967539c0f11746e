//! access, extended attributes, readlink, realpath, chdir, getcwd: paths go in as the program knows them, and come out so.

use super::{inside, interpose, look, real};
use crate::minor::Minor;
use crate::nodes;
use crate::view::{self, Look};
use core::ffi::{CStr, c_char, c_int, c_void};
use core::ptr;
use libc::{AT_FDCWD, PATH_MAX, size_t, ssize_t};

interpose! {
    fn access(path: *const c_char, mode: c_int) -> c_int {
        // SAFETY: the program's own arguments.
        let real = |path| unsafe { real::access(path, mode) };
        // SAFETY: the program's own path.
        unsafe { with_path(AT_FDCWD, path, real) }
    }
    fn euidaccess(path: *const c_char, mode: c_int) -> c_int {
        // SAFETY: the program's own arguments.
        let real = |path| unsafe { real::euidaccess(path, mode) };
        // SAFETY: the program's own path.
        unsafe { with_path(AT_FDCWD, path, real) }
    }
    fn eaccess(path: *const c_char, mode: c_int) -> c_int {
        // SAFETY: the program's own arguments.
        unsafe { euidaccess(path, mode) }
    }
    fn faccessat(dirfd: c_int, path: *const c_char, mode: c_int, flags: c_int) -> c_int {
        // SAFETY: the program's own arguments.
        let real = |path| unsafe { real::faccessat(dirfd, path, mode, flags) };
        // SAFETY: the program's own path.
        unsafe { with_path(dirfd, path, real) }
    }
    fn getxattr(path: *const c_char, name: *const c_char, out: *mut c_void, size: size_t) -> ssize_t {
        // SAFETY: the program's own arguments.
        let real = |path| unsafe { real::getxattr(path, name, out, size) };
        // SAFETY: the program's own path.
        unsafe { with_path(AT_FDCWD, path, real) }
    }
    fn lgetxattr(path: *const c_char, name: *const c_char, out: *mut c_void, size: size_t) -> ssize_t {
        // SAFETY: the program's own arguments.
        let real = |path| unsafe { real::lgetxattr(path, name, out, size) };
        // SAFETY: the program's own path.
        unsafe { with_path(AT_FDCWD, path, real) }
    }
    fn listxattr(path: *const c_char, out: *mut c_char, size: size_t) -> ssize_t {
        // SAFETY: the program's own arguments.
        let real = |path| unsafe { real::listxattr(path, out, size) };
        // SAFETY: the program's own path.
        unsafe { with_path(AT_FDCWD, path, real) }
    }
    fn llistxattr(path: *const c_char, out: *mut c_char, size: size_t) -> ssize_t {
        // SAFETY: the program's own arguments.
        let real = |path| unsafe { real::llistxattr(path, out, size) };
        // SAFETY: the program's own path.
        unsafe { with_path(AT_FDCWD, path, real) }
    }
    fn chdir(path: *const c_char) -> c_int {
        // SAFETY: the program's own arguments.
        let real = |path| unsafe { real::chdir(path) };
        // SAFETY: the program's own path.
        moved(unsafe { with_path(AT_FDCWD, path, real) })
    }
    fn fchdir(fd: c_int) -> c_int {
        // SAFETY: the program's own argument.
        moved(unsafe { real::fchdir(fd) })
    }
    fn getcwd(out: *mut c_char, size: size_t) -> *mut c_char {
        // SAFETY: the program's own arguments.
        let found = unsafe { real::getcwd(out, size) };
        // SAFETY: null, or a path in writable memory.
        unsafe { rename(found) }
    }
    fn readlink(path: *const c_char, out: *mut c_char, size: size_t) -> ssize_t {
        // SAFETY: the program's own arguments.
        let real = |path| unsafe { real::readlink(path, out, size) };
        // SAFETY: the program's own path.
        unsafe { read_link(AT_FDCWD, path, out, real) }
    }
    fn readlinkat(dirfd: c_int, path: *const c_char, out: *mut c_char, size: size_t) -> ssize_t {
        // SAFETY: the program's own arguments.
        let real = |path| unsafe { real::readlinkat(dirfd, path, out, size) };
        // SAFETY: the program's own path.
        unsafe { read_link(dirfd, path, out, real) }
    }
    fn __readlink_chk(path: *const c_char, out: *mut c_char, size: size_t, _room: size_t) -> ssize_t {
        // SAFETY: the program's own arguments, whose room its compiler has checked.
        unsafe { readlink(path, out, size) }
    }
    fn __readlinkat_chk(dirfd: c_int, path: *const c_char, out: *mut c_char, size: size_t, _room: size_t) -> ssize_t {
        // SAFETY: as for __readlink_chk.
        unsafe { readlinkat(dirfd, path, out, size) }
    }
    fn realpath(path: *const c_char, out: *mut c_char) -> *mut c_char {
        // SAFETY: the program's own arguments, or a path of the tree.
        let real = |path| unsafe { real::realpath(path, out) };
        // SAFETY: the program's own arguments.
        let found = match unsafe { look(AT_FDCWD, path) } {
            Look::Foreign => return real(path),
            Look::Inside => real(path),
            Look::Shown(shown) => real(shown.as_ptr()),
            // SAFETY: null, or room for PATH_MAX bytes by realpath's contract.
            Look::Node(minor) => return unsafe { node_path(minor, out) },
        };
        // SAFETY: null, or a path in writable memory.
        unsafe { rename(found) }
    }
    fn __realpath_chk(path: *const c_char, out: *mut c_char, _room: size_t) -> *mut c_char {
        // SAFETY: the program's own arguments, whose room its compiler has checked.
        unsafe { realpath(path, out) }
    }
    fn canonicalize_file_name(path: *const c_char) -> *mut c_char {
        // SAFETY: the program's own argument.
        unsafe { realpath(path, ptr::null_mut()) }
    }
}

/// Calls `real` with the path as it is in the tree.
///
/// # Safety
/// `path` is the program's own.
unsafe fn with_path<T>(dirfd: c_int, path: *const c_char, real: impl Fn(*const c_char) -> T) -> T {
    // SAFETY: the caller's contract.
    match unsafe { look(dirfd, path) } {
        Look::Shown(shown) => real(shown.as_ptr()),
        Look::Node(minor) => match inside(|_| view::look(AT_FDCWD, minor.path().to_bytes())) {
            Look::Shown(shown) => real(shown.as_ptr()),
            _ => real(path),
        },
        Look::Foreign | Look::Inside => real(path),
    }
}

/// # Safety
/// `out` is null, for a result from malloc, or has room for `PATH_MAX` bytes.
unsafe fn node_path(minor: Minor, out: *mut c_char) -> *mut c_char {
    // SAFETY: no precondition.
    let room = if out.is_null() { unsafe { libc::calloc(1, PATH_MAX as usize).cast() } } else { out };
    if !room.is_null() {
        let bytes = minor.path().to_bytes_with_nul();
        // SAFETY: the room is longer than any node's path.
        unsafe { ptr::copy_nonoverlapping(bytes.as_ptr().cast(), room, bytes.len()) };
    }
    room
}

fn moved(result: c_int) -> c_int {
    if result == 0 && view::is_made() {
        inside(|_| view::working_directory_changed());
    }
    result
}

/// # Safety
/// As for readlink(2).
unsafe fn read_link(
    dirfd: c_int,
    path: *const c_char,
    out: *mut c_char,
    real: impl Fn(*const c_char) -> ssize_t,
) -> ssize_t {
    // SAFETY: the caller's contract.
    let length = match unsafe { look(dirfd, path) } {
        Look::Shown(shown) => real(shown.as_ptr()),
        Look::Foreign | Look::Inside => real(path),
        Look::Node(minor) => {
            // The kernel's own name of a memory file is longer: where that went, this goes.
            let length = real(path).min(minor.path().count_bytes() as ssize_t);
            if length > 0 {
                // SAFETY: readlink wrote that many bytes, and the name is as long.
                unsafe { ptr::copy_nonoverlapping(minor.path().as_ptr(), out, length as usize) };
            }
            return length;
        }
    };
    if length <= 0 {
        return length;
    }
    // SAFETY: readlink wrote that many bytes.
    let link = unsafe { core::slice::from_raw_parts_mut(out.cast::<u8>(), length as usize) };
    if let Some(minor) = nodes::of_name(link) {
        // Another process's node: the kernel's name of its memory file is longer.
        let name = minor.path().to_bytes();
        link[..name.len()].copy_from_slice(name);
        return name.len() as ssize_t;
    }
    if !view::is_made() {
        return length;
    }
    let Some(shown) = shown_length(link) else { return length };
    link.copy_within(link.len() - shown.., 0);
    shown as ssize_t
}

/// Cuts the tree's own place off a path.
///
/// # Safety
/// `path` is null or a C string in memory that may be written.
unsafe fn rename(path: *mut c_char) -> *mut c_char {
    if path.is_null() || !view::is_made() {
        return path;
    }
    // SAFETY: not null, so a C string.
    let length = unsafe { CStr::from_ptr(path) }.to_bytes().len();
    // SAFETY: the string's own bytes, writable by the caller's contract; with its end.
    let bytes = unsafe { core::slice::from_raw_parts_mut(path.cast::<u8>(), length + 1) };
    if let Some(shown) = shown_length(&bytes[..length]) {
        bytes.copy_within(length - shown.., 0);
    }
    path
}

/// How much of the end of a path the program shall see; `None` for paths outside of the tree.
fn shown_length(path: &[u8]) -> Option<usize> {
    inside(|_| view::shown_name(path).map(<[u8]>::len))
}
