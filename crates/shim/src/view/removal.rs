//! The end of a tree that lies on a disk: a process of its own removes it, when the program has ended.
//!
//! It begins at the end of the program, so it has no rights that the program gave up; other threads may make files until then. It allocates nothing, and calls the kernel only:
//! a thread of the program's that ended inside the heap, here or in libc, holds its lock for ever.
//!
//! Locking: none is held.

use crate::heap;
use crate::libc_calls::close_quietly;
use crate::libc_calls::outside::{close_all, die_by_faults, die_in};
use core::ffi::CStr;
use core::mem::MaybeUninit;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fd::{AsFd, BorrowedFd, IntoRawFd, OwnedFd};
use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, RawDir, openat, unlinkat};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use std::ffi::CString;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;
use sync::Mutex;

/// The process that ends, and what is to be removed then.
static FOLDER: Mutex<Option<(Pid, CString)>> = Mutex::new(None);

/// Whatever holds it up, it is gone by then.
const PATIENCE_S: u32 = 60;

/// Whether a file system is in memory.
pub fn is_quick(folder: &OwnedFd) -> bool {
    const TMPFS: i64 = 0x0102_1994;
    const RAMFS: i64 = 0x8584_58f6;
    rustix::fs::fstatfs(folder).is_ok_and(|stat| [TMPFS, RAMFS].contains(&stat.f_type))
}

/// Begins it. False where there can be no such process.
pub fn begin(folder: PathBuf) -> bool {
    let Ok(folder) = CString::new(folder.into_os_string().into_vec()) else { return false };
    *FOLDER.lock() = Some((rustix::process::getpid(), folder));
    heap::begin_outside(remove) && heap::is_lent()
}

fn remove(_: u32) {
    die_by_faults();
    let _ = rustix::thread::set_name(c"pontoon-removes");
    let _ = rustix::process::setpgid(None, None);
    // Somebody may wait for the end of a pipe that the program wrote to.
    close_all();
    if let Some((program, folder)) = &*FOLDER.lock() {
        wait_for_end(*program);
        die_in(PATIENCE_S);
        remove_folder(CWD, folder);
    }
}

fn wait_for_end(process: Pid) {
    let Ok(end) = pidfd_open(process, PidfdFlags::empty()) else { return };
    while poll(&mut [PollFd::new(&end, PollFlags::IN)], None) == Err(Errno::INTR) {}
    close_quietly(end.into_raw_fd());
}

/// Removes a folder with all that is in it, as far as this process may.
fn remove_folder(at: BorrowedFd<'_>, name: &CStr) {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let Ok(folder) = openat(at, name, flags, Mode::empty()) else { return };
    // A file system may pass over names while others are removed: again, until it shows none that goes.
    while empty(folder.as_fd()) && rustix::fs::seek(&folder, rustix::fs::SeekFrom::Start(0)).is_ok() {}
    close_quietly(folder.into_raw_fd());
    let _ = unlinkat(at, name, AtFlags::REMOVEDIR);
}

/// Removes what a folder shows. Whether any of it went.
fn empty(folder: BorrowedFd<'_>) -> bool {
    let mut room = [MaybeUninit::uninit(); 2048];
    let mut shown = RawDir::new(folder, &mut room);
    let mut has_gone = false;
    while let Some(Ok(entry)) = shown.next() {
        let name = entry.file_name();
        if name == c"." || name == c".." {
            continue;
        }
        if entry.file_type() == FileType::Directory {
            remove_folder(folder, name);
        }
        has_gone |= unlinkat(folder, name, AtFlags::empty()).is_ok();
    }
    has_gone
}
