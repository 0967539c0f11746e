//! The report of this process: one line of JSON in the file that `PONTOON_REPORT` names.
//!
//! The file is opened when the machine starts, since the program may give up its rights to open it later. The line is
//! written when the program begins to end, and again in the same place when it has ended: in between the destructors of its libraries
//! run, which may use the device, or end the process in ways of their own. Several processes write to one file, so a
//! lock on the file is held over each write: a process' own one, for a fork child has its parent's open file.
//!
//! Locking: none of its own; it lies under `session`'s `START`.

use crate::libc_calls::{self, signals};
use crate::{marks, nodes, outside};
use rustix::fd::{AsFd, AsRawFd, OwnedFd};
use rustix::fs::{FileType, FlockOperation, Mode, OFlags};
use rustix::io;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// Spaces after a line that is going to be written again: numbers grow.
const SPARE: usize = 256;

/// An open report.
pub struct Report {
    file: OwnedFd,
    path: Vec<u8>,
    is_regular: bool,
    /// The process that wrote a line, where, and how many bytes with its end.
    line: Option<(u32, u64, usize)>,
    /// Some line could not be written, and that was said.
    has_failed: bool,
}

impl Report {
    /// Opens the file that the environment names. Links are not followed: the name may lie in a folder of others.
    pub fn open() -> Option<Self> {
        let path = libc_calls::env_bytes("PONTOON_REPORT").filter(|path| !path.is_empty())?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::NOCTTY | OFlags::CLOEXEC;
        let opened = rustix::fs::open(path.as_slice(), flags, Mode::from_raw_mode(0o644));
        let file = match opened {
            Ok(file) => libc_calls::raise(file),
            Err(error) => {
                complain(&path, error);
                return None;
            }
        };
        nodes::mark_library(file.as_raw_fd());
        let is_regular = rustix::fs::fstat(&file).is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode).is_file());
        Some(Self { file, path, is_regular, line: None, has_failed: false })
    }

    /// Writes the line, in the place of an earlier one. It is not the last where more may happen.
    pub fn write(&mut self, text: &str, is_last: bool) {
        let spare = if is_last { 0 } else { SPARE };
        let written = match self.is_regular {
            true => self.put(&format!("{text}{:spare$}\n", "")),
            false if is_last => put_all(&self.file, None, format!("{text}\n").as_bytes()),
            false => Ok(()),
        };
        if let Err(error) = written
            && !core::mem::replace(&mut self.has_failed, true)
            && marks::is_first(marks::UNREPORTED)
        {
            complain(&self.path, error);
        }
    }

    fn put(&mut self, line: &str) -> io::Result<()> {
        lock(&self.file, FlockOperation::LockExclusive)?;
        let written = self.put_locked(line);
        let _ = lock(&self.file, FlockOperation::Unlock);
        written
    }

    fn put_locked(&mut self, line: &str) -> io::Result<()> {
        let end = rustix::fs::fstat(&self.file)?.st_size as u64;
        // A fork child has its parent's record, which is none of its own.
        let own = self.line.filter(|(process, ..)| *process == outside::process());
        let (at, line) = match own {
            Some((_, at, length)) if at + length as u64 == end => {
                rustix::fs::ftruncate(&self.file, at)?;
                (at, line.to_owned())
            }
            Some((_, at, length)) if line.len() <= length => (at, padded(line, length)),
            _ => (end, line.to_owned()),
        };
        put_all(&self.file, Some(at), line.as_bytes())?;
        self.line = Some((outside::process(), at, line.len()));
        Ok(())
    }
}

/// Takes the file's lock or gives it back. It is the process' (`fcntl`), not the open file's (`flock`), which a fork child shares.
fn lock(file: impl AsFd, how: FlockOperation) -> io::Result<()> {
    rustix::fs::fcntl_lock(file, how)
}

/// A line that takes `length` bytes, of a shorter one: with spaces before its end.
fn padded(line: &str, length: usize) -> String {
    let mut line = line.trim_end().to_owned();
    // Not by a width of a format, which ends at 65,535.
    line.extend(std::iter::repeat_n(' ', length.saturating_sub(line.len() + 1)));
    line.push('\n');
    line
}

/// Writes all of it, at an offset where the file has them.
fn put_all(file: &OwnedFd, mut at: Option<u64>, mut rest: &[u8]) -> io::Result<()> {
    while !rest.is_empty() {
        let done = signals::within_file_limit(|| match at {
            Some(at) => io::pwrite(file, rest, at),
            None => io::write(file, rest),
        })?;
        rest = &rest[done..];
        at = at.map(|at| at + done as u64);
    }
    Ok(())
}

fn complain(path: &[u8], error: io::Errno) {
    let path = Path::new(OsStr::from_bytes(path));
    libc_calls::complain(&format!("cannot write the report to {}: {error}", path.display()));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(file: &std::fs::File) -> Report {
        let file = OwnedFd::from(file.try_clone().expect("a descriptor"));
        Report { file, path: Vec::new(), is_regular: true, line: None, has_failed: false }
    }

    #[test]
    fn a_line_is_padded_to_any_length() {
        assert_eq!(padded("{}\n", 5), "{}  \n");
        assert_eq!((padded("{}\n", 3), padded("{}\n", 200_000).len()), ("{}\n".into(), 200_000));
    }

    #[test]
    fn a_process_that_has_the_same_open_file_waits_too() {
        const CHILD: &str = "PONTOON_TEST_LOCK";
        if std::env::var_os(CHILD).is_some() {
            let locked = lock(std::io::stdin(), FlockOperation::NonBlockingLockExclusive);
            std::process::exit(if locked.is_ok() { 4 } else { 3 });
        }
        let file = rustix::fs::memfd_create("report", rustix::fs::MemfdFlags::CLOEXEC).expect("a memory file");
        lock(&file, FlockOperation::LockExclusive).expect("the lock");
        let me = std::env::current_exe().expect("this test");
        let name = "report::tests::a_process_that_has_the_same_open_file_waits_too";
        let mut child = std::process::Command::new(me);
        let status =
            child.args(["--exact", name]).env(CHILD, "1").stdin(file.try_clone().expect("a duplicate")).status();
        assert_eq!(status.expect("a child").code(), Some(3), "the lock is a process' own");
    }

    #[test]
    fn a_line_is_written_again_in_its_place() {
        let text = |file: &std::fs::File| {
            let mut text = String::new();
            std::io::Read::read_to_string(&mut &*file, &mut text).expect("text");
            text
        };
        let name = rustix::fs::memfd_create("report", rustix::fs::MemfdFlags::CLOEXEC).expect("a memory file");
        let path = format!("/proc/self/fd/{}", name.as_raw_fd());
        let file = std::fs::OpenOptions::new().read(true).write(true).open(&path).expect("opens");
        let (mut one, mut other) = (report(&file), report(&file));
        one.write("1", false);
        one.write("12", true);
        assert_eq!(text(&file), "12\n", "it is the file's last line");
        other.write("a", false);
        one.write("9", true);
        other.write("abc", true);
        let file = std::fs::File::open(&path).expect("opens");
        assert_eq!(text(&file).split_whitespace().collect::<Vec<_>>(), ["9", "abc"]);
    }
}
