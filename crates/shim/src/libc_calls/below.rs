//! Libraries that wrap the same functions as this one, and are called by it: where their code lies.
//!
//! Found once, when this library is loaded or at the first call before that. Such a library belongs to the start of the program: one that is
//! loaded later stands behind libc.
//!
//! Locking: the dynamic linker's own, once; none later.

use super::{loading, objects};
use core::ffi::CStr;
use core::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// Functions that such libraries have.
const WRAPPED: [&CStr; 9] =
    [c"mmap64", c"munmap", c"mremap", c"mprotect", c"madvise", c"close", c"dup2", c"fcntl", c"ioctl"];

/// First byte, and the one behind the last; libc's own are among them.
static CODE: [[AtomicUsize; 2]; 4] = [const { [const { AtomicUsize::new(0) }; 2] }; 4];
static IS_KNOWN: AtomicBool = AtomicBool::new(false);

/// Finds them. Takes the dynamic linker's lock, so it is called before there are threads.
pub fn find() {
    for name in WRAPPED {
        // SAFETY: a symbol name that is a C string; RTLD_NEXT is allowed in a loaded library.
        let function = unsafe { loading::look_up(libc::RTLD_NEXT, name.as_ptr()) } as usize;
        if function != 0 && !is_in(function) {
            add(function);
        }
    }
    IS_KNOWN.store(true, Ordering::Release);
}

/// Whether code of theirs lies there.
pub fn contains(at: usize) -> bool {
    if !IS_KNOWN.load(Ordering::Acquire) {
        find();
    }
    is_in(at)
}

fn is_in(at: usize) -> bool {
    CODE.iter().any(|[start, end]| (start.load(Ordering::Acquire)..end.load(Ordering::Acquire)).contains(&at))
}

/// Adds the code of the object that a function lies in.
fn add(function: usize) {
    objects::for_each(|_, object| {
        let free = CODE.iter().find(|[_, end]| end.load(Ordering::Acquire) == 0);
        if let Some([start, end]) = free.filter(|_| object.contains(function as u64)) {
            start.store(object.range().start as usize, Ordering::Release);
            end.store(object.range().end as usize, Ordering::Release);
        }
    });
}

#[cfg(test)]
mod tests {
    #[test]
    fn code_of_libc_is_below_and_this_code_is_not() {
        assert!(super::contains(libc::getpid as *const () as usize));
        assert!(!super::contains(super::find as *const () as usize));
    }
}
