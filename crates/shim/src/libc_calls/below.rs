//! Libraries that wrap the same functions as this one, and are called by it: where their code lies.
//!
//! Found once, when this library is loaded or at the first call before that. Such a library belongs to the start of the program: one that is
//! loaded later stands behind libc.
//!
//! Locking: the dynamic linker's own, once; none later.

use super::loading;
use core::ffi::{CStr, c_int, c_void};
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
            // SAFETY: the callback is of the right type, and what it is given outlives the call.
            unsafe { libc::dl_iterate_phdr(Some(add_its), (&raw const function).cast_mut().cast()) };
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

/// Takes the code of the object that a function lies in; then there is no need to look at others.
unsafe extern "C" fn add_its(object: *mut libc::dl_phdr_info, _size: usize, function: *mut c_void) -> c_int {
    // SAFETY: ld.so gives a valid object for the time of the call.
    let object = unsafe { &*object };
    // SAFETY: `find` gave this pointer to a number that lives meanwhile.
    let function = unsafe { *function.cast::<usize>() };
    // SAFETY: it has so many program headers there.
    let headers = unsafe { core::slice::from_raw_parts(object.dlpi_phdr, object.dlpi_phnum.into()) };
    let code = headers.iter().filter(|header| header.p_type == libc::PT_LOAD).find_map(|header| {
        let start = (object.dlpi_addr + header.p_vaddr) as usize;
        let end = start + header.p_memsz as usize;
        (start..end).contains(&function).then_some((start, end))
    });
    let Some((start, end)) = code else { return 0 };
    if let Some([from, to]) = CODE.iter().find(|[_, end]| end.load(Ordering::Acquire) == 0) {
        from.store(start, Ordering::Release);
        to.store(end, Ordering::Release);
    }
    1
}

#[cfg(test)]
mod tests {
    #[test]
    fn code_of_libc_is_below_and_this_code_is_not() {
        assert!(super::contains(libc::getpid as *const () as usize));
        assert!(!super::contains(super::find as *const () as usize));
    }
}
