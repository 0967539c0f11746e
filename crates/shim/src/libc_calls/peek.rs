//! The program's strings and arrays, which need not be readable memory: the kernel says EFAULT then, and so must we.
//!
//! The kernel is asked once a page by a call that reads eight bytes there and then refuses its other argument. Where
//! it may not bring a page back itself (userfaultfd for user mode only), the machine does.

use super::{errno, set_errno};
use crate::device::Change;
use crate::session;
use core::ffi::c_char;
use core::slice;

const PAGE: usize = 4096;
/// Where user space ends.
const END: usize = 1 << 47;

/// The bytes of a C string without its end; `None` where it is not all in readable memory, and for null, none.
///
/// # Safety
/// What is readable at `string` stays so, and unchanged, for `'a`.
pub unsafe fn c_string<'a>(string: *const c_char) -> Option<&'a [u8]> {
    let start = string as usize;
    if start == 0 {
        return Some(&[]);
    }
    let mut end = start;
    loop {
        if !is_readable(end) {
            return None;
        }
        let next = (end & !(PAGE - 1)) + PAGE;
        // SAFETY: bytes of one page, which is readable.
        let part = unsafe { slice::from_raw_parts(end as *const u8, next - end) };
        if let Some(length) = part.iter().position(|byte| *byte == 0) {
            // SAFETY: all pages up to here are readable.
            return Some(unsafe { slice::from_raw_parts(start as *const u8, end + length - start) });
        }
        end = next;
    }
}

/// Elements of the program's array; `None` where it is not all in readable memory.
///
/// # Safety
/// What is readable there stays so, and unchanged, for `'a`; any bytes are elements.
pub unsafe fn array<'a, T: Copy>(first: *const T, count: usize) -> Option<&'a [T]> {
    let (start, bytes) = (first as usize, count.checked_mul(size_of::<T>())?);
    if bytes == 0 {
        return Some(&[]);
    }
    let end = start.checked_add(bytes).filter(|_| first.is_aligned())?;
    let pages = (start & !(PAGE - 1)..end).step_by(PAGE);
    // SAFETY: all its pages are readable, and it is aligned.
    pages.into_iter().all(|page| is_readable(page.max(start))).then(|| unsafe { slice::from_raw_parts(first, count) })
}

fn is_readable(at: usize) -> bool {
    if !(PAGE..END).contains(&at) {
        return false;
    }
    if kernel_reads(at) {
        return true;
    }
    session::around_change(at & !(PAGE - 1), PAGE, Change::Protect, || kernel_reads(at))
}

fn kernel_reads(at: usize) -> bool {
    let before = errno();
    // SAFETY: a signal set is read there if that is memory; there is no such change of the mask, so nothing changes.
    unsafe { libc::syscall(libc::SYS_rt_sigprocmask, -1, at & !7, 0usize, 8usize) };
    let is_readable = errno() != libc::EFAULT;
    set_errno(before);
    is_readable
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::ffi::CString;

    #[test]
    fn arrays_are_read_whole_or_not_at_all() {
        let words: Vec<u64> = (0..2000).collect();
        // SAFETY: the words live to the end of the test; nothing is readable at the other place.
        let read = |first, count| unsafe { array(first, count) };
        assert_eq!(read(words.as_ptr(), words.len()), Some(words.as_slice()));
        assert_eq!(read(END as *const u64, 1), None);
    }

    #[test]
    fn strings_are_read_to_their_end_or_not_at_all() {
        for length in [0, 1, 4095, 4096, 9000] {
            let string = CString::new(vec![b'x'; length]).expect("no zero in it");
            // SAFETY: the string lives to the end of this turn.
            assert_eq!(unsafe { c_string(string.as_ptr()) }.map(<[u8]>::len), Some(length));
        }
        for nowhere in [1, PAGE - 1, PAGE, END - 1, END, usize::MAX] {
            // SAFETY: nothing is readable there.
            assert_eq!(unsafe { c_string(nowhere as *const c_char) }, None, "{nowhere:#x}");
        }
    }
}
