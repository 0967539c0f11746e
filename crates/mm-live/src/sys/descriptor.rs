//! Descriptors of ours among those of the program.
//!
//! A program may close what it did not open: in a loop over all numbers, or by close_range. So ours have numbers that
//! loops do not reach, the preload library's wrappers step around them
//! ([`LiveMm::descriptors`](crate::LiveMm::descriptors)), and a file of /proc that is lost all the same is opened anew.
//! A userfaultfd that is lost cannot be had again: the kernel has forgotten its registrations.

use super::{Access, Errno, call, check, open};
use core::ffi::CStr;
use sync::atomic::AtomicU32;

/// Where our numbers begin. Above the usual soft limit, so that a loop up to the limit ends before.
const FLOOR: u64 = 4000;
/// Where they begin if the hard limit forbids that.
const LOW_FLOOR: u64 = 600;

/// Where numbers begin that programs do not reckon with, under a limit on descriptors: near its end where it is low.
#[must_use]
pub const fn high_numbers(limit: u64) -> u64 {
    let near_the_end = limit - limit.div_ceil(8);
    if near_the_end < LOW_FLOOR { near_the_end } else { LOW_FLOOR }
}

/// A descriptor, closed with its owner.
#[derive(Debug)]
pub(crate) struct Fd(AtomicU32);

impl Fd {
    /// Of a number that is nobody else's.
    pub const fn new(number: i32) -> Self {
        Self(AtomicU32::new(number as u32))
    }

    /// Its number.
    pub fn raw(&self) -> i32 {
        self.0.load() as i32
    }

    /// The same file under a high number.
    pub fn raised(self) -> Self {
        let high = with_room(FLOOR + 64, || duplicate(&self, FLOOR)).or_else(|_| {
            let [limit, _] = limits();
            duplicate(&self, high_numbers(limit)).or_else(|_| duplicate(&self, limit / 2))
        });
        high.unwrap_or(self)
    }

    /// Puts `new` in its place, under the same number if that is free, unless another thread did so since `number` was
    /// seen. What the number means by now is not ours.
    fn replace(&self, number: i32, new: Self) {
        let new = with_room(number as u64 + 64, || duplicate(&new, number as u64)).unwrap_or(new);
        if self.0.compare_exchange(number as u32, new.raw() as u32).is_ok() {
            core::mem::forget(new);
        }
    }
}

impl Drop for Fd {
    fn drop(&mut self) {
        // SAFETY: the descriptor is ours and nobody uses it after its owner.
        let _ = unsafe { call(libc::SYS_close, [self.raw() as usize, 0, 0, 0, 0, 0]) };
    }
}

/// The first free number from `floor` on.
fn duplicate(fd: &Fd, floor: u64) -> Result<Fd, Errno> {
    const F_DUPFD_CLOEXEC: usize = 1030;
    // SAFETY: fcntl reads no memory.
    check(unsafe { call(libc::SYS_fcntl, [fd.raw() as usize, F_DUPFD_CLOEXEC, floor as usize, 0, 0, 0]) })
        .map(|number| Fd::new(number as i32))
}

/// Runs `body` with a soft limit of at least `room` descriptors, where the hard one allows it.
fn with_room<R>(room: u64, body: impl FnOnce() -> R) -> R {
    static ONE_AT_A_TIME: sync::Mutex<()> = sync::Mutex::new(());
    let _alone = ONE_AT_A_TIME.lock();
    let old = limits();
    let raises = old[0] < room && room <= old[1];
    if raises {
        let _ = prlimit(Some(&[room, old[1]]), None);
    }
    let result = body();
    if raises {
        let _ = prlimit(Some(&old), None);
    }
    result
}

/// The soft and the hard limit on descriptors; none where the kernel does not tell.
fn limits() -> [u64; 2] {
    let mut now = [0; 2];
    let _ = prlimit(None, Some(&mut now));
    now
}

fn prlimit(new: Option<&[u64; 2]>, old: Option<&mut [u64; 2]>) -> Result<usize, Errno> {
    let new = new.map_or(0, |new| core::ptr::from_ref(new) as usize);
    let old = old.map_or(0, |old| core::ptr::from_mut(old) as usize);
    // SAFETY: the kernel reads and writes limits of two words each, or nothing where there is no pointer.
    check(unsafe { call(libc::SYS_prlimit64, [0, libc::RLIMIT_NOFILE as usize, new, old, 0, 0]) })
}

/// A file of /proc/self. It belongs to the memory of the opener: a forked child must not use it.
#[derive(Debug)]
pub(crate) struct ProcFile {
    path: &'static CStr,
    fd: Fd,
}

impl ProcFile {
    pub fn open(path: &'static CStr) -> Result<Self, Errno> {
        Ok(Self { path, fd: open(path, Access::Read)?.raised() })
    }

    /// Its number.
    pub fn raw(&self) -> i32 {
        self.fd.raw()
    }

    /// Runs `body`, and once more on the file opened anew where the descriptor is none any more, or another's.
    pub fn run<R>(&self, mut body: impl FnMut(&Fd) -> Result<R, Errno>) -> Result<R, Errno> {
        let number = self.fd.raw();
        match body(&self.fd) {
            Err(Errno::BADF | Errno::NOTTY) => {
                self.fd.replace(number, open(self.path, Access::Read)?);
                body(&self.fd)
            }
            result => result,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::read_at;

    /// Numbers that no other test uses.
    const OWN: u64 = 5000;

    fn numbered(path: &CStr) -> Fd {
        let file = open(path, Access::Read).expect("a file");
        with_room(OWN + 64, || duplicate(&file, OWN)).expect("a number")
    }

    #[test]
    fn a_file_of_proc_that_the_program_closed_is_opened_anew() {
        let file = ProcFile { path: c"/proc/self/maps", fd: numbered(c"/proc/self/maps") };
        let reads = || file.run(|file| read_at(file, &mut [0; 64], 0)) == Ok(64);
        let number = file.raw();
        // As a program that does not know it: closed behind its owner's back.
        drop(Fd::new(number));
        assert!(reads() && file.raw() == number);

        // The number is the program's by now, and no file that can be read: that one is left alone.
        drop(Fd::new(number));
        let root = numbered(c"/");
        assert_eq!(root.raw(), number);
        let asks = |file: &Fd| {
            // SAFETY: FIONREAD writes an int, and a directory has no such ioctl.
            unsafe { crate::sys::ioctl(file, 0x541b, &mut 0i32) }
        };
        let first = file.run(|file| if file.raw() == number { asks(file) } else { Ok(1) });
        assert_eq!(first, Ok(1));
        assert!(reads() && file.raw() != number && duplicate(&root, 0).is_ok());
    }
}
