//! What the processes of one `pontoon run` tell each other: that something was said, that a machine was
//! started.
//!
//! `PONTOON_RUN` names a folder of the run; a mark is a folder in it. Who makes it is the first. Without a run every process
//! speaks for itself.
//!
//! Locking: none.

use crate::libc_calls;
use rustix::fs::Mode;

/// A machine runs, or ran.
pub const STARTED: &str = "started";

/// Makes a mark. True for the first process of the run that does; true as well where that cannot be known.
pub fn is_first(mark: &str) -> bool {
    let Some(mut path) = libc_calls::env_bytes("PONTOON_RUN").filter(|run| !run.is_empty()) else { return true };
    path.push(b'/');
    path.extend_from_slice(mark.as_bytes());
    rustix::fs::mkdir(path.as_slice(), Mode::RWXU) != Err(rustix::io::Errno::EXIST)
}

/// Says a limit of this machine once a run; not at all where the user wants it quiet.
pub fn say_limit(mark: &str, text: &str) {
    if is_first(mark) && libc_calls::env_bytes("PONTOON_QUIET").is_none_or(|quiet| quiet.is_empty()) {
        libc_calls::complain(text);
    }
}
