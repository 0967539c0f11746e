//! What the processes of one `pontoon run` tell each other: that something was said, that a machine was
//! started.
//!
//! `PONTOON_RUN` names a folder of the run; a mark is a folder in it. Who makes it is the first. Without a run every process
//! speaks for itself.
//!
//! Locking: none.

use crate::libc_calls;
use rustix::fd::OwnedFd;
use rustix::fs::{FlockOperation, Mode, OFlags};

/// A machine runs, or ran.
pub const STARTED: &str = "started";
/// The report lacks a line that could not be written.
pub const UNREPORTED: &str = "unreported";

/// Holds a lock on a file of the run, made for that, as long as the result lives. `None` where there is no run.
pub fn hold(mark: &str) -> Option<OwnedFd> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = rustix::fs::open(path(mark)?.as_slice(), flags, Mode::RUSR | Mode::WUSR).ok()?;
    rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive).ok()?;
    Some(file)
}

fn path(mark: &str) -> Option<Vec<u8>> {
    let mut path = libc_calls::env_bytes("PONTOON_RUN").filter(|run| !run.is_empty())?;
    path.push(b'/');
    path.extend_from_slice(mark.as_bytes());
    Some(path)
}

/// Makes a mark. True for the first process of the run that does; true as well where that cannot be known.
pub fn is_first(mark: &str) -> bool {
    let Some(path) = path(mark) else { return true };
    rustix::fs::mkdir(path.as_slice(), Mode::RWXU) != Err(rustix::io::Errno::EXIST)
}

/// Says a limit of this machine once a run; not at all where the user wants it quiet.
pub fn say_limit(mark: &str, text: &str) {
    if is_first(mark) && libc_calls::env_bytes("PONTOON_QUIET").is_none_or(|quiet| quiet.is_empty()) {
        libc_calls::complain(text);
    }
}
