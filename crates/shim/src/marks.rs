//! What the processes of one `pontoon run` tell each other: that something was said, that a machine was
//! started.
//!
//! `PONTOON_RUN` names a folder of the run; a mark is a folder in it. Who makes it is the first. Without a run every process
//! speaks for itself. The environment counts as it was at the load: a program may clear it before it starts another.
//!
//! Locking: none.

use crate::libc_calls;
use rustix::fd::OwnedFd;
use rustix::fs::{FlockOperation, Mode, OFlags};
#[allow(
    clippy::disallowed_types,
    reason = "filled at the load, when the process has one thread, and read without a lock"
)]
use std::sync::OnceLock;

/// A machine runs, or ran.
pub const STARTED: &str = "started";
/// The report lacks a line that could not be written.
pub const UNREPORTED: &str = "unreported";
/// A program that was started from here sees no device.
pub const UNSEEN: &str = "unseen";

/// What the environment says of the run.
struct Run {
    /// Its folder; empty where there is no run.
    folder: Vec<u8>,
    is_quiet: bool,
}

#[allow(clippy::disallowed_types, reason = "see above")]
static RUN: OnceLock<Run> = OnceLock::new();

impl Run {
    fn from_env() -> Self {
        let folder = libc_calls::env_bytes("PONTOON_RUN").unwrap_or_default();
        Self { folder, is_quiet: libc_calls::env_bytes("PONTOON_QUIET").is_some_and(|quiet| !quiet.is_empty()) }
    }
}

/// The library is loaded: what the environment says now counts from now on.
pub fn loaded() {
    let _ = RUN.set(Run::from_env());
}

fn run<R>(look: impl FnOnce(&Run) -> R) -> R {
    match RUN.get() {
        Some(run) => look(run),
        None => look(&Run::from_env()),
    }
}

/// Whether this process is of a run.
pub fn is_in_run() -> bool {
    RUN.get().is_some_and(|run| !run.folder.is_empty())
}

/// Holds a lock on a file of the run, made for that, as long as the result lives. `None` where there is no run.
pub fn hold(mark: &str) -> Option<OwnedFd> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = rustix::fs::open(path(mark)?.as_slice(), flags, Mode::RUSR | Mode::WUSR).ok()?;
    rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive).ok()?;
    Some(file)
}

fn path(mark: &str) -> Option<Vec<u8>> {
    run(|run| (!run.folder.is_empty()).then(|| [run.folder.as_slice(), b"/", mark.as_bytes()].concat()))
}

/// Makes a mark. True for the first process of the run that does; true as well where that cannot be known.
pub fn is_first(mark: &str) -> bool {
    let Some(path) = path(mark) else { return true };
    rustix::fs::mkdir(path.as_slice(), Mode::RWXU) != Err(rustix::io::Errno::EXIST)
}

/// Says a limit of this machine once a run; not at all where the user wants it quiet.
pub fn say_limit(mark: &str, text: &str) {
    if is_first(mark) && !run(|run| run.is_quiet) {
        libc_calls::complain(text);
    }
}
