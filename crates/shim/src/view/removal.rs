//! The end of a tree that lies on a disk: a process of its own removes it, when the program has long ended.
//!
//! It begins at the end of the program, so it has no rights that the program gave up.
//!
//! Locking: none is held.

use crate::heap;
use crate::libc_calls::outside::{close_all, die_by_faults, die_in};
use rustix::fd::OwnedFd;
use std::path::PathBuf;
use sync::Mutex;

/// What the process is to remove.
static FOLDER: Mutex<Option<PathBuf>> = Mutex::new(None);

/// A thread of the program's that ends just then may hold the lock of the heap: the process waits for no longer.
const PATIENCE_S: u32 = 60;

/// Whether a file system is in memory.
pub fn is_quick(folder: &OwnedFd) -> bool {
    const TMPFS: i64 = 0x0102_1994;
    const RAMFS: i64 = 0x8584_58f6;
    rustix::fs::fstatfs(folder).is_ok_and(|stat| [TMPFS, RAMFS].contains(&stat.f_type))
}

/// Begins it. False where there can be no such process.
pub fn begin(folder: PathBuf) -> bool {
    *FOLDER.lock() = Some(folder);
    heap::begin_outside(remove) && heap::is_lent()
}

fn remove(_: u32) {
    die_by_faults();
    die_in(PATIENCE_S);
    let _ = rustix::thread::set_name(c"pontoon-removes");
    let _ = rustix::process::setpgid(None, None);
    // Somebody may wait for the end of a pipe that the program wrote to.
    close_all();
    if let Some(folder) = FOLDER.lock().take() {
        let _ = std::fs::remove_dir_all(folder);
    }
}
