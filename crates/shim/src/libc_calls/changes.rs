//! Calls that make, rename, remove or change what a path names: the device's files are not the program's to change, and
//! the real ones under their names are not meant.
//!
//! sysfs answers EPERM to these, root's calls too.

use super::{fail, interpose, look, real};
use crate::view::Look;
use core::ffi::{c_char, c_int, c_long, c_uint, c_void};
use libc::{AT_FDCWD, ENOENT, EPERM};

/// Functions of one path, which must be there (`change`) or not (`make`).
macro_rules! refused {
    ($($how:ident $name:ident($dirfd:expr, $path:ident)($($argument:ident: $type:ty),*);)*) => { interpose! { $(
        fn $name($($argument: $type),*) -> c_int {
            // SAFETY: the program's own path.
            match unsafe { $how($dirfd, $path) } {
                Some(errno) => fail(errno),
                // SAFETY: the program's own arguments.
                None => unsafe { real::$name($($argument),*) },
            }
        }
    )* } };
}

refused! {
    change unlink(AT_FDCWD, path)(path: *const c_char);
    change unlinkat(dirfd, path)(dirfd: c_int, path: *const c_char, flags: c_int);
    change rmdir(AT_FDCWD, path)(path: *const c_char);
    change remove(AT_FDCWD, path)(path: *const c_char);
    change chmod(AT_FDCWD, path)(path: *const c_char, mode: c_uint);
    change fchmodat(dirfd, path)(dirfd: c_int, path: *const c_char, mode: c_uint, flags: c_int);
    change chown(AT_FDCWD, path)(path: *const c_char, user: c_uint, group: c_uint);
    change lchown(AT_FDCWD, path)(path: *const c_char, user: c_uint, group: c_uint);
    change fchownat(dirfd, path)(dirfd: c_int, path: *const c_char, user: c_uint, group: c_uint, flags: c_int);
    change truncate(AT_FDCWD, path)(path: *const c_char, length: c_long);
    change truncate64(AT_FDCWD, path)(path: *const c_char, length: c_long);
    change utimensat(dirfd, path)(dirfd: c_int, path: *const c_char, times: *const c_void, flags: c_int);
    make mkdir(AT_FDCWD, path)(path: *const c_char, mode: c_uint);
    make mkdirat(dirfd, path)(dirfd: c_int, path: *const c_char, mode: c_uint);
    make mknod(AT_FDCWD, path)(path: *const c_char, mode: c_uint, device: u64);
    make mknodat(dirfd, path)(dirfd: c_int, path: *const c_char, mode: c_uint, device: u64);
    make symlink(AT_FDCWD, path)(target: *const c_char, path: *const c_char);
    make symlinkat(dirfd, path)(target: *const c_char, dirfd: c_int, path: *const c_char);
}

interpose! {
    fn rename(old: *const c_char, new: *const c_char) -> c_int {
        // SAFETY: the program's own paths.
        match unsafe { two(AT_FDCWD, old, AT_FDCWD, new) } {
            Some(errno) => fail(errno),
            // SAFETY: the program's own arguments.
            None => unsafe { real::rename(old, new) },
        }
    }
    fn renameat(old_dirfd: c_int, old: *const c_char, new_dirfd: c_int, new: *const c_char) -> c_int {
        // SAFETY: the program's own paths.
        match unsafe { two(old_dirfd, old, new_dirfd, new) } {
            Some(errno) => fail(errno),
            // SAFETY: the program's own arguments.
            None => unsafe { real::renameat(old_dirfd, old, new_dirfd, new) },
        }
    }
    fn renameat2(old_dirfd: c_int, old: *const c_char, new_dirfd: c_int, new: *const c_char, flags: c_uint) -> c_int {
        // SAFETY: the program's own paths.
        match unsafe { two(old_dirfd, old, new_dirfd, new) } {
            Some(errno) => fail(errno),
            // SAFETY: the program's own arguments.
            None => unsafe { real::renameat2(old_dirfd, old, new_dirfd, new, flags) },
        }
    }
    fn link(old: *const c_char, new: *const c_char) -> c_int {
        // SAFETY: the program's own paths.
        match unsafe { two(AT_FDCWD, old, AT_FDCWD, new) } {
            Some(errno) => fail(errno),
            // SAFETY: the program's own arguments.
            None => unsafe { real::link(old, new) },
        }
    }
    fn linkat(old_dirfd: c_int, old: *const c_char, new_dirfd: c_int, new: *const c_char, flags: c_int) -> c_int {
        // SAFETY: the program's own paths.
        match unsafe { two(old_dirfd, old, new_dirfd, new) } {
            Some(errno) => fail(errno),
            // SAFETY: the program's own arguments.
            None => unsafe { real::linkat(old_dirfd, old, new_dirfd, new, flags) },
        }
    }
}

/// What a change of an existing file fails with; `None` where it is none of ours.
///
/// # Safety
/// The program's own path.
unsafe fn change(dirfd: c_int, path: *const c_char) -> Option<c_int> {
    // SAFETY: the caller's contract.
    let there = unsafe { is_there(dirfd, path) }?;
    Some(if there { EPERM } else { ENOENT })
}

/// What the making of a file fails with; `None` where it is none of ours.
///
/// # Safety
/// The program's own path.
unsafe fn make(dirfd: c_int, path: *const c_char) -> Option<c_int> {
    // SAFETY: the caller's contract.
    let there = unsafe { is_there(dirfd, path) }?;
    Some(if there { libc::EEXIST } else { EPERM })
}

/// What a call of two paths fails with; `None` where both are none of ours.
///
/// # Safety
/// The program's own paths.
unsafe fn two(old_dirfd: c_int, old: *const c_char, new_dirfd: c_int, new: *const c_char) -> Option<c_int> {
    // SAFETY: the caller's contract.
    let old = unsafe { change(old_dirfd, old) };
    // SAFETY: the caller's contract.
    old.or_else(|| unsafe { is_there(new_dirfd, new) }.map(|_| EPERM))
}

/// Whether a file of ours is there; `None` where the path is none of ours.
///
/// # Safety
/// The program's own path.
unsafe fn is_there(dirfd: c_int, path: *const c_char) -> Option<bool> {
    // SAFETY: the caller's contract.
    let found = match unsafe { look(dirfd, path) } {
        Look::Foreign => return None,
        Look::Node(_) => 0,
        // SAFETY: a path of the tree.
        Look::Shown(shown) => unsafe { real::faccessat(AT_FDCWD, shown.as_ptr(), 0, libc::AT_SYMLINK_NOFOLLOW) },
        // SAFETY: the program's own arguments.
        Look::Inside => unsafe { real::faccessat(dirfd, path, 0, libc::AT_SYMLINK_NOFOLLOW) },
    };
    Some(found == 0)
}
