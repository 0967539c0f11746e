//! Words of memory that several processes share: a file that each of them maps, locks of its bytes, and sleep on its words.
//!
//! A word is reached by the access routines, so no reference names it, and a file that somebody cut reads as zeros instead of
//! being a signal. A byte's lock is the kernel's (`F_OFD_SETLK`): it ends with the process that has it, whatever ends
//! that. A fork child does not have the mapping, and closes the descriptor.

use super::descriptor::Fd;
use super::{access, call, check, mem};
use crate::kernel::Errno;
use hostmm::AtomicOp;
use std::os::fd::{IntoRawFd, OwnedFd};
use units::HostRange;

/// Words that all processes see, and locks that end with who has them.
pub trait Words: Send + Sync + 'static {
    /// Reads a word.
    fn load(&self, word: usize) -> u64;
    /// Stores a word, and gives the old one.
    fn swap(&self, word: usize, value: u64) -> u64;
    /// Adds to a word (wrapping), and gives the old one.
    fn add(&self, word: usize, value: u64) -> u64;
    /// Stores `new` where the word is `old`; gives what it was.
    fn compare_exchange(&self, word: usize, old: u64, new: u64) -> u64;
    /// Sleeps while the lower half of a word is as `seen`, at most until that time; returns early for no reason now and then.
    fn wait(&self, word: usize, seen: u64, until_ns: u64);
    /// Wakes all who sleep on a word.
    fn wake(&self, word: usize);
    /// Takes a lock for this process; false where another one has it.
    fn try_lock(&self, lock: usize) -> bool;
    /// Gives it back.
    fn unlock(&self, lock: usize);
    /// The number of this process.
    fn process(&self) -> u32;
    /// Whether a process is stopped: by a signal, or by a tracer. Where that cannot be known it is not.
    fn is_stopped(&self, process: u32) -> bool;
}

/// The words of a file, the first at 0.
pub struct SharedWords {
    file: Fd,
    at: HostRange,
}

impl SharedWords {
    /// Maps the file, which is made as long as `words` words where it is shorter.
    ///
    /// # Errors
    /// The number of the kernel's error.
    pub fn map(file: OwnedFd, words: usize) -> Result<Self, i32> {
        access::install();
        let file = Fd::new(file.into_raw_fd()).raised();
        Self::over(file, words as u64 * 8).map_err(|errno| errno.0)
    }

    fn over(file: Fd, bytes: u64) -> Result<Self, Errno> {
        let number = file.raw() as usize;
        // SAFETY: no memory is named; the file's first bytes stay, since it only grows or keeps its length.
        check(unsafe { call(libc::SYS_fallocate, [number, 0, 0, bytes as usize, 0, 0]) })?;
        let at = mem::reserve(bytes)?;
        // By another open file: a mapping keeps its own open, and the locks with it, in any process that shares this memory.
        let path = format!("/proc/self/fd/{number}\0");
        let mapped = match core::ffi::CStr::from_bytes_with_nul(path.as_bytes()) {
            Ok(path) => super::open(path, super::Access::ReadWrite),
            Err(_) => Err(Errno::INVAL),
        };
        match mapped.and_then(|mapped| mem::map_shared(at, mapped.raw() as usize)) {
            Ok(()) => Ok(Self { file, at }),
            Err(errno) => {
                mem::unmap(at);
                Err(errno)
            }
        }
    }

    /// Where they are: memory of the library.
    pub fn range(&self) -> HostRange {
        self.at
    }

    /// The descriptor's number.
    pub fn descriptor(&self) -> i32 {
        self.file.raw()
    }

    fn address(&self, word: usize) -> u64 {
        self.at.start.0 + 8 * word as u64
    }

    fn set_lock(&self, byte: usize, kind: i32) -> bool {
        const OFD_SETLK: usize = 37;
        let lock = libc::flock {
            l_type: kind as i16,
            l_whence: libc::SEEK_SET as i16,
            l_start: byte as i64,
            l_len: 1,
            l_pid: 0,
        };
        let args = [self.file.raw() as usize, OFD_SETLK, core::ptr::from_ref(&lock) as usize, 0, 0, 0];
        // SAFETY: the kernel reads one `struct flock`.
        check(unsafe { call(libc::SYS_fcntl, args) }).is_ok()
    }
}

impl Words for SharedWords {
    fn load(&self, word: usize) -> u64 {
        let mut bytes = [0; 8];
        let _ = access::read(self.address(word), &mut bytes);
        u64::from_le_bytes(bytes)
    }

    fn swap(&self, word: usize, value: u64) -> u64 {
        access::atomic(self.address(word), 8, AtomicOp::Exchange(value)).unwrap_or(0)
    }

    fn add(&self, word: usize, value: u64) -> u64 {
        access::atomic(self.address(word), 8, AtomicOp::Add(value)).unwrap_or(0)
    }

    fn compare_exchange(&self, word: usize, old: u64, new: u64) -> u64 {
        access::atomic(self.address(word), 8, AtomicOp::CompareExchange { expected: old, new }).unwrap_or(new)
    }

    fn wait(&self, word: usize, seen: u64, until_ns: u64) {
        const WAIT_BITSET: usize = 9;
        const NS_PER_S: u64 = 1_000_000_000;
        let until = [until_ns / NS_PER_S, until_ns % NS_PER_S];
        let until = if until_ns == u64::MAX { 0 } else { core::ptr::from_ref(&until) as usize };
        let all = u32::MAX as usize;
        let args = [self.address(word) as usize, WAIT_BITSET, seen as u32 as usize, until, 0, all];
        // SAFETY: the kernel reads the word, of which it says EFAULT where there is none, and a time of two words.
        let _ = unsafe { call(libc::SYS_futex, args) };
    }

    fn wake(&self, word: usize) {
        const WAKE: usize = 1;
        // SAFETY: the word is a number to the kernel.
        let _ = unsafe { call(libc::SYS_futex, [self.address(word) as usize, WAKE, i32::MAX as usize, 0, 0, 0]) };
    }

    fn try_lock(&self, lock: usize) -> bool {
        self.set_lock(lock, libc::F_WRLCK)
    }

    fn unlock(&self, lock: usize) {
        self.set_lock(lock, libc::F_UNLCK);
    }

    fn process(&self) -> u32 {
        std::process::id()
    }

    fn is_stopped(&self, process: u32) -> bool {
        is_stopped(process)
    }
}

/// Whether a process is stopped, by a signal or a tracer: nobody waits for that.
#[must_use]
pub fn is_stopped(process: u32) -> bool {
    let path = format!("/proc/{process}/stat\0");
    let path = core::ffi::CStr::from_bytes_with_nul(path.as_bytes()).unwrap_or_default();
    let mut text = [0; 128];
    let length = super::open(path, super::Access::Read).and_then(|file| super::read_at(&file, &mut text, 0));
    let text = &text[..length.unwrap_or(0)];
    // The state follows the name, which ends with the last parenthesis and may have others in it.
    let name_end = text.iter().rposition(|byte| *byte == b')');
    let state = name_end.and_then(|end| text.get(end + 2));
    matches!(state, Some(b'T' | b't'))
}

impl std::fmt::Debug for SharedWords {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SharedWords").field("at", &self.at).finish_non_exhaustive()
    }
}

impl Drop for SharedWords {
    fn drop(&mut self) {
        mem::unmap(self.at);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;

    fn open(path: &str) -> SharedWords {
        let file = File::options().read(true).write(true).open(path).expect("a file");
        SharedWords::map(file.into(), 1024).expect("words")
    }

    /// A process that a test starts has what the others have open, and their locks with it, until its exec.
    static ONE_AT_A_TIME: sync::Mutex<()> = sync::Mutex::new(());

    /// Two open descriptions of one file are to the kernel what two processes have.
    #[test]
    fn two_mappings_share_words_and_exclude_each_other_by_locks() {
        let _alone = ONE_AT_A_TIME.lock();
        let memory = SharedWords::map(memfd(), 8).expect("a file");
        let path = format!("/proc/self/fd/{}", memory.descriptor());
        let (one, two) = (open(&path), open(&path));
        assert_eq!((one.swap(3, 7), two.load(3), two.add(3, 5), one.load(3)), (0, 7, 7, 12));
        assert_eq!((one.load(1023), memory.load(3)), (0, 12), "the file grew, and kept its bytes");
        assert!(one.try_lock(5) && one.try_lock(5) && !two.try_lock(5) && two.try_lock(6) && !one.try_lock(6));
        one.unlock(5);
        assert!(two.try_lock(5));
        drop(two);
        assert!(one.try_lock(5) && one.try_lock(6), "a lock ends with who has it");
    }

    #[test]
    fn who_sleeps_on_a_word_is_woken_by_another_mapping_or_by_time() {
        let memory = SharedWords::map(memfd(), 8).expect("a file");
        let other = open(&format!("/proc/self/fd/{}", memory.descriptor()));
        let sleeper = sync::spawn("sleeper", move || {
            while other.load(2) == 0 {
                other.wait(2, 0, u64::MAX);
            }
            other.wait(2, 1, sync::time::after_ns(1000));
        });
        memory.swap(2, 1);
        memory.wake(2);
        sleeper.join();
    }

    #[test]
    fn a_file_that_was_cut_reads_as_zeros() {
        let words = SharedWords::map(memfd(), 1024).expect("a file");
        words.swap(600, 9);
        let path = format!("/proc/self/fd/{}", words.descriptor());
        File::options().write(true).open(path).expect("the file").set_len(0).expect("it can be cut");
        assert_eq!((words.load(600), words.add(600, 1), words.swap(0, 1)), (0, 0, 0));
    }

    #[test]
    fn a_stopped_process_is_told_from_one_that_runs() {
        let _alone = ONE_AT_A_TIME.lock();
        let mut child = std::process::Command::new("sleep").arg("60").spawn().expect("a process");
        let words = SharedWords::map(memfd(), 8).expect("a file");
        let is_stopped = || words.is_stopped(child.id());
        let signal = |signal: &str| {
            let sent = std::process::Command::new("kill").args([signal, &child.id().to_string()]).status();
            assert!(sent.expect("kill").success());
        };
        assert!(!is_stopped() && !words.is_stopped(u32::MAX));
        for (name, stops) in [("-STOP", true), ("-CONT", false)] {
            signal(name);
            while is_stopped() != stops {
                sync::yield_now();
            }
        }
        child.kill().and_then(|()| child.wait()).expect("it ends");
    }

    fn memfd() -> OwnedFd {
        use std::os::fd::FromRawFd;
        // SAFETY: the name is a string that lives for ever.
        let fd = check(unsafe { call(libc::SYS_memfd_create, [c"words".as_ptr() as usize, 0, 0, 0, 0, 0]) });
        // SAFETY: the descriptor was just made, and is nobody else's.
        unsafe { OwnedFd::from_raw_fd(fd.expect("a memfd") as i32) }
    }
}
