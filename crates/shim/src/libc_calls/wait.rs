//! WAIT_USER_FENCE, so that a signal ends it.
//!
//! The driver's own wait does not know of signals, which are blocked while it runs. So a long wait is made of short
//! ones, and between them it is asked whether the kernel would have ended it.

use super::signals::{Held, Pending};
use crate::device::{Errno, File};
use core::mem::offset_of;
use sync::time::now_ns;
use units::HostVa;
use xe_uapi::exec::{UFENCE_WAIT_FLAG_ABSTIME, WaitUserFence};
use zerocopy::IntoBytes;

/// How long a signal may go unnoticed, in nanoseconds.
pub const SLICE_NS: u64 = 5_000_000;

/// The ioctl; EFAULT where `argument` points nowhere. A relative timeout is what is left of it on return.
pub fn wait_user_fence(file: &dyn File, argument: HostVa, signals: &Held) -> Result<u32, Errno> {
    let mut asked = WaitUserFence::default();
    file.copy_from_user(argument, asked.as_mut_bytes())?;
    let is_absolute = asked.flags & UFENCE_WAIT_FLAG_ABSTIME != 0;
    let deadline = match u64::try_from(asked.timeout) {
        Ok(timeout) if is_absolute => timeout,
        Ok(timeout) => now_ns().saturating_add(timeout),
        Err(_) => u64::MAX,
    };
    let result = wait_in_slices(file, &asked, deadline, signals);
    if !is_absolute && asked.timeout >= 0 {
        let left = i64::try_from(deadline.saturating_sub(now_ns())).unwrap_or(i64::MAX);
        let timeout = argument.add(offset_of!(WaitUserFence, timeout) as u64);
        file.copy_to_user(timeout, left.as_bytes())?;
    }
    result
}

fn wait_in_slices(file: &dyn File, asked: &WaitUserFence, deadline: u64, signals: &Held) -> Result<u32, Errno> {
    let mut has_begun = false;
    loop {
        let until = deadline.min(now_ns().saturating_add(SLICE_NS));
        let mut slice =
            WaitUserFence { flags: asked.flags | UFENCE_WAIT_FLAG_ABSTIME, timeout: until as i64, ..*asked };
        let result = file.wait_user_fence(&mut slice);
        if has_begun && result == Err(Errno(libc::ENOENT)) {
            // Its queue ended between two of them: what the driver says to those who wait at that moment.
            return Err(Errno(libc::EIO));
        }
        if result != Err(Errno(libc::ETIME)) || now_ns() >= deadline {
            return result;
        }
        has_begun = true;
        if signals.pending() != Pending::Nothing {
            return Err(Errno(libc::EINTR));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::signals;
    use super::*;
    use crate::device::{Caller, Passed};
    use sync::Mutex;
    use units::HostFrame;

    /// Answers the waits in turn, each of which is without an end.
    struct Answers(Mutex<Vec<Result<u32, Errno>>>);

    impl File for Answers {
        fn adopt(&self, _fd: i32, _caller: &dyn Caller) -> Result<Passed, Errno> {
            Err(Errno(libc::EINVAL))
        }
        fn object_address(&self, _object: HostFrame) -> Option<HostVa> {
            None
        }
        fn adopt_object(&self, _file: i32, _bytes: u64) -> Option<HostFrame> {
            None
        }
        fn mmap(&self, _offset: u64, _bytes: u64) -> Result<Option<HostVa>, Errno> {
            Err(Errno(libc::EINVAL))
        }
        fn ioctl(&self, _command: u32, _argument: HostVa, _caller: &dyn Caller) -> Result<u32, Errno> {
            unreachable!("a wait is no ioctl of the program's memory")
        }
        fn ioctl_on(&self, _: &Passed, _: u32, _: HostVa, _: &dyn Caller) -> Result<u32, Errno> {
            unreachable!("a wait is no ioctl of another descriptor")
        }
        fn wait_user_fence(&self, _wait: &mut WaitUserFence) -> Result<u32, Errno> {
            self.0.lock().remove(0)
        }
        fn copy_from_user(&self, _from: HostVa, buf: &mut [u8]) -> Result<(), Errno> {
            buf.copy_from_slice(WaitUserFence { timeout: -1, ..WaitUserFence::default() }.as_bytes());
            Ok(())
        }
        fn copy_to_user(&self, _to: HostVa, _bytes: &[u8]) -> Result<(), Errno> {
            Ok(())
        }
        fn usage(&self) -> String {
            String::new()
        }
        fn close(&self) {}
    }

    #[test]
    fn a_queue_that_ends_between_two_slices_is_an_error_of_the_wait() {
        let [again, none] = [libc::ETIME, libc::ENOENT].map(|errno| Err(Errno(errno)));
        let wait = |answers: &[_]| {
            let file = Answers(Mutex::new(answers.to_vec()));
            wait_user_fence(&file, HostVa(0), &signals::hold())
        };
        assert_eq!(wait(&[again, again, none]), Err(Errno(libc::EIO)));
        assert_eq!(wait(&[none]), none, "there never was one");
        assert_eq!(wait(&[again, Ok(0)]), Ok(0));
    }
}
