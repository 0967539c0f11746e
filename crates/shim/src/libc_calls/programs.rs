//! Programs that this one becomes or starts (exec, posix_spawn): where the library will not be in one of them it sees no device, and that
//! is said once a run. All else is libc's.
//!
//! Left out: `execl` and its kin, which have no fixed arguments, and calls by number.
//!
//! Locking: none.

use super::peek::{array, c_string};
use super::{inside, interpose, real};
use crate::marks;
use core::ffi::{c_char, c_int, c_void};
use machine::unseen;
use std::borrow::Cow;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// Strings with a null behind them.
pub type Strings = *const *const c_char;

/// What the library's file is called; where it was inside of the command, more follows.
const LIBRARY: &[u8] = b"libpontoon_shim";
/// In the environment of a process of the command's own, which is no part of the run and wants no device.
const NO_PART: &[u8] = b"PONTOON_NO_PART=1";

interpose! {
    fn execve(path: *const c_char, arguments: Strings, environment: Strings) -> c_int {
        // SAFETY: the program's own arguments.
        unsafe { look(path, false, environment) };
        // SAFETY: the program's own arguments.
        unsafe { real::execve(path, arguments, environment) }
    }
    fn execv(path: *const c_char, arguments: Strings) -> c_int {
        // SAFETY: the program's own arguments.
        unsafe { look(path, false, own_environment()) };
        // SAFETY: the program's own arguments.
        unsafe { real::execv(path, arguments) }
    }
    fn execvp(name: *const c_char, arguments: Strings) -> c_int {
        // SAFETY: the program's own arguments.
        unsafe { look(name, true, own_environment()) };
        // SAFETY: the program's own arguments.
        unsafe { real::execvp(name, arguments) }
    }
    fn execvpe(name: *const c_char, arguments: Strings, environment: Strings) -> c_int {
        // SAFETY: the program's own arguments.
        unsafe { look(name, true, environment) };
        // SAFETY: the program's own arguments.
        unsafe { real::execvpe(name, arguments, environment) }
    }
    fn posix_spawn(
        process: *mut libc::pid_t,
        path: *const c_char,
        actions: *const c_void,
        attributes: *const c_void,
        arguments: Strings,
        environment: Strings,
    ) -> c_int {
        // SAFETY: the program's own arguments.
        unsafe { look(path, false, environment) };
        // SAFETY: the program's own arguments.
        unsafe { real::posix_spawn(process, path, actions, attributes, arguments, environment) }
    }
    fn posix_spawnp(
        process: *mut libc::pid_t,
        name: *const c_char,
        actions: *const c_void,
        attributes: *const c_void,
        arguments: Strings,
        environment: Strings,
    ) -> c_int {
        // SAFETY: the program's own arguments.
        unsafe { look(name, true, environment) };
        // SAFETY: the program's own arguments.
        unsafe { real::posix_spawnp(process, name, actions, attributes, arguments, environment) }
    }
}

unsafe extern "C" {
    static mut environ: Strings;
}

/// What libc gives to a program of which nothing else is said.
fn own_environment() -> Strings {
    // SAFETY: the program does not change its environment in another thread meanwhile (libc's own rule).
    unsafe { environ }
}

/// Says that a program will see no device, where that is so.
///
/// # Safety
/// The program's own name of it, and its environment.
unsafe fn look(program: *const c_char, is_searched: bool, environment: Strings) {
    if !marks::is_in_run() {
        return;
    }
    // SAFETY: the caller's contract.
    let Some(program) = (unsafe { c_string(program) }).filter(|program| !program.is_empty()) else { return };
    // SAFETY: the caller's contract.
    let Some(is_preloaded) = (unsafe { is_preloaded(environment) }) else { return };
    inside(|_| tell(OsStr::from_bytes(program), is_searched, is_preloaded));
}

fn tell(program: &OsStr, is_searched: bool, is_preloaded: bool) {
    let found = if is_searched { unseen::find(program).map(Cow::Owned) } else { Some(Path::new(program).into()) };
    let Some(file) = found.filter(|file| unseen::is_program(file)) else { return };
    let ids = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    let why = if is_preloaded { unseen::why(&file, ids) } else { Some("its LD_PRELOAD does not name the library") };
    if let Some(why) = why {
        marks::say_limit(marks::UNSEEN, &format!("{} sees no device: {why}", file.display()));
    }
}

/// Whether an environment has the library loaded; `None` where it is not all in readable memory.
///
/// # Safety
/// As for [`c_string`].
unsafe fn is_preloaded(mut environment: Strings) -> Option<bool> {
    if environment.is_null() {
        return Some(false);
    }
    loop {
        // SAFETY: the caller's contract.
        let next = *unsafe { array(environment, 1) }?.first()?;
        if next.is_null() {
            return Some(false);
        }
        // SAFETY: the caller's contract.
        let variable = unsafe { c_string(next) }?;
        if variable == NO_PART {
            return Some(true);
        }
        if let Some(list) = variable.strip_prefix(b"LD_PRELOAD=") {
            return Some(list.windows(LIBRARY.len()).any(|part| part == LIBRARY));
        }
        environment = environment.wrapping_add(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::ptr;

    #[test]
    fn an_environment_names_the_library_or_does_not() {
        let named = |variables: &[*const c_char]| {
            let list: Vec<_> = variables.iter().copied().chain([ptr::null()]).collect();
            // SAFETY: strings that live for ever, or no memory.
            unsafe { is_preloaded(list.as_ptr()) }
        };
        let ours = c"LD_PRELOAD=/a.so:/x/libpontoon_shim-0123.so".as_ptr();
        let others = c"LD_PRELOAD=/a.so".as_ptr();
        assert_eq!(named(&[c"A=1".as_ptr(), ours]), Some(true));
        assert_eq!(named(&[others, c"LD_PRELOAD2=libpontoon_shim.so".as_ptr()]), Some(false));
        assert_eq!(named(&[]), Some(false));
        assert_eq!(named(&[c"PONTOON_NO_PART=1".as_ptr()]), Some(true));
        assert_eq!(named(&[ptr::without_provenance(8)]), None);
        // SAFETY: no memory is read.
        assert_eq!(unsafe { is_preloaded(ptr::null()) }, Some(false));
    }
}
