//! dlopen, dlmopen, dlsym and dlvsym: libraries that would find libc's functions in the place of ours.
//!
//! * RTLD_DEEPBIND: such a library looks its functions up in itself and in what it needs, libc among them, before it
//!   looks here. So the addresses that it has got are changed where they are libc's, when the program asks it for
//!   its first function.
//! * `dlsym` and `dlvsym` on libc's own handle, or on any that leads to libc: the answer is our function.
//! * dlmopen: the library has a libc of its own, whose errno and streams are not those behind our functions. It sees no
//!   device, and a line on stderr says so.
//!
//! libc's dlopen and dlsym look at the address that they return to: it tells whose search path, and whose "next" is
//! meant. So these functions have no frame where libc's has to know that; they do their own work first and then jump.
//!
//! Locking: one leaf lock over the list of libraries that were looked at.

use super::objects::{self, Needed};
use super::{complain, inside};
use crate::marks;
use core::arch::naked_asm;
use core::ffi::{CStr, c_char, c_int, c_long, c_void};
use core::mem;
use core::ptr;
use core::sync::atomic::{AtomicBool, AtomicPtr, AtomicUsize, Ordering};
use rustix::fs::{Mode, OFlags};
use sync::Mutex;

/// libc's function: `dlsym` itself cannot be asked for it.
struct Behind(AtomicPtr<c_void>);

impl Behind {
    fn get(&self, name: &CStr) -> *mut c_void {
        let known = self.0.load(Ordering::Acquire);
        if !known.is_null() {
            return known;
        }
        let found = next(name) as *mut c_void;
        if found.is_null() {
            complain("this is no glibc: it has no dlsym");
            std::process::abort();
        }
        self.0.store(found, Ordering::Release);
        found
    }
}

/// The function of that name in the first object behind this one that has it; 0 where none has.
fn next(name: &CStr) -> u64 {
    let mut found = 0;
    objects::for_each_behind(|object| {
        object.defined(|defined, address| {
            if defined == name {
                found = address;
            }
        });
        found == 0
    });
    found
}

static DLOPEN: Behind = Behind(AtomicPtr::new(ptr::null_mut()));
static DLMOPEN: Behind = Behind(AtomicPtr::new(ptr::null_mut()));
static DLSYM: Behind = Behind(AtomicPtr::new(ptr::null_mut()));
static DLVSYM: Behind = Behind(AtomicPtr::new(ptr::null_mut()));

/// libc's `dlsym`, called from this library.
///
/// # Safety
/// A handle and a name that dlsym takes.
pub unsafe fn look_up(handle: *mut c_void, name: *const c_char) -> *mut c_void {
    // SAFETY: the function of this name has this type in libc's headers.
    let dlsym: unsafe extern "C" fn(*mut c_void, *const c_char) -> *mut c_void =
        unsafe { mem::transmute(DLSYM.get(c"dlsym")) };
    // SAFETY: the caller's contract.
    unsafe { dlsym(handle, name) }
}

/// The body of a function of three arguments that goes on where the one before it says, with its own caller and arguments.
macro_rules! go_on_behind {
    ($before:ident) => {
        naked_asm!(
            "push rdi",
            "push rsi",
            "push rdx",
            "call {before}",
            "pop rdx",
            "pop rsi",
            "pop rdi",
            "jmp rax",
            before = sym $before,
        )
    };
}

/// So many objects were loaded before the first of those with RTLD_DEEPBIND.
static BEFORE_DEEP: AtomicUsize = AtomicUsize::new(usize::MAX);
/// Handles of libraries whose words were changed since the last such load. A handle may be used again for another one.
static CHANGED: Mutex<Vec<usize>> = Mutex::new(Vec::new());

#[cfg_attr(not(test), unsafe(no_mangle))]
#[cfg_attr(test, allow(dead_code))]
#[unsafe(naked)]
unsafe extern "C" fn dlopen(path: *const c_char, flags: c_int) -> *mut c_void {
    naked_asm!(
        "push rdi",
        "push rsi",
        "sub rsp, 8",
        "mov edi, esi",
        "call {before}",
        "add rsp, 8",
        "pop rsi",
        "pop rdi",
        "jmp rax",
        before = sym before_dlopen,
    )
}

extern "C" fn before_dlopen(flags: c_int) -> *mut c_void {
    if flags & libc::RTLD_DEEPBIND != 0 {
        inside(|_| {
            let mut loaded = 0;
            objects::for_each(|index, _| loaded = index + 1);
            BEFORE_DEEP.fetch_min(loaded, Ordering::AcqRel);
            CHANGED.lock().clear();
        });
    }
    DLOPEN.get(c"dlopen")
}

#[cfg_attr(not(test), unsafe(no_mangle))]
#[cfg_attr(test, allow(dead_code))]
#[unsafe(naked)]
unsafe extern "C" fn dlmopen(space: c_long, path: *const c_char, flags: c_int) -> *mut c_void {
    go_on_behind!(before_dlmopen)
}

extern "C" fn before_dlmopen(space: c_long, path: *const c_char) -> *mut c_void {
    static SAID: AtomicBool = AtomicBool::new(false);
    const LM_ID_BASE: c_long = 0;
    if space != LM_ID_BASE && !SAID.swap(true, Ordering::AcqRel) {
        // SAFETY: the program's own path.
        let path = unsafe { super::c_string(path) }.map(String::from_utf8_lossy).unwrap_or_default();
        let text = format!("limited: {path} is loaded by dlmopen, with a libc of its own: it sees no device");
        inside(|_| marks::say_limit("dlmopen", &text));
    }
    DLMOPEN.get(c"dlmopen")
}

#[cfg_attr(not(test), unsafe(no_mangle))]
#[cfg_attr(test, allow(dead_code))]
#[unsafe(naked)]
unsafe extern "C" fn dlsym(handle: *mut c_void, name: *const c_char) -> *mut c_void {
    naked_asm!(
        "push rdi",
        "push rsi",
        "sub rsp, 8",
        "call {before}",
        "add rsp, 8",
        "pop rsi",
        "pop rdi",
        "jmp rax",
        before = sym before_dlsym,
    )
}

/// The function to jump to.
extern "C" fn before_dlsym(handle: *mut c_void) -> *mut c_void {
    if handle == libc::RTLD_NEXT || handle == libc::RTLD_DEFAULT {
        return DLSYM.get(c"dlsym");
    }
    if BEFORE_DEEP.load(Ordering::Acquire) != usize::MAX {
        inside(|_| change_deep(handle));
    }
    by_handle as *mut c_void
}

/// What `handle` has of that name, but ours where that is libc's.
unsafe extern "C" fn by_handle(handle: *mut c_void, name: *const c_char) -> *mut c_void {
    // SAFETY: the program's own arguments.
    let found = unsafe { look_up(handle, name) };
    // SAFETY: the program's own name.
    unsafe { ours_for(found, name) }
}

/// Ours, where libc's was found.
///
/// # Safety
/// `name` is null or a C string.
unsafe fn ours_for(found: *mut c_void, name: *const c_char) -> *mut c_void {
    // SAFETY: the caller's contract.
    let Some(name) = (unsafe { super::c_string(name) }).filter(|_| !found.is_null()) else { return found };
    let own = || ours().iter().find(|one| one.libcs == found as u64 && one.name.to_bytes() == name).map(|one| one.own);
    inside(|_| own()).map_or(found, |own| own as *mut c_void)
}

#[cfg_attr(not(test), unsafe(no_mangle))]
#[cfg_attr(test, allow(dead_code))]
#[unsafe(naked)]
unsafe extern "C" fn dlvsym(handle: *mut c_void, name: *const c_char, version: *const c_char) -> *mut c_void {
    go_on_behind!(before_dlvsym)
}

/// The function to jump to. A version is a libc's: by default, too, it passes ours by.
extern "C" fn before_dlvsym(handle: *mut c_void, name: *const c_char) -> *mut c_void {
    // SAFETY: the program's own name.
    let name = unsafe { super::c_string(name) };
    let is_ours = || inside(|_| ours().iter().any(|one| Some(one.name.to_bytes()) == name));
    if handle == libc::RTLD_NEXT || handle == libc::RTLD_DEFAULT && !is_ours() {
        return DLVSYM.get(c"dlvsym");
    }
    by_version as *mut c_void
}

/// As [`by_handle`], of that version.
unsafe extern "C" fn by_version(handle: *mut c_void, name: *const c_char, version: *const c_char) -> *mut c_void {
    // SAFETY: the function of this name has this type in libc's headers.
    let dlvsym: unsafe extern "C" fn(*mut c_void, *const c_char, *const c_char) -> *mut c_void =
        unsafe { mem::transmute(DLVSYM.get(c"dlvsym")) };
    // SAFETY: the program's own arguments.
    let found = unsafe { dlvsym(handle, name, version) };
    // SAFETY: the program's own name.
    unsafe { ours_for(found, name) }
}

/// A function of ours, and libc's that it stands for.
struct Ours {
    name: &'static CStr,
    own: u64,
    libcs: u64,
}

/// All of them, looked up once.
fn ours() -> &'static [Ours] {
    static OURS: AtomicPtr<Vec<Ours>> = AtomicPtr::new(ptr::null_mut());
    let known = OURS.load(Ordering::Acquire);
    if !known.is_null() {
        // SAFETY: stored below, and never freed.
        return unsafe { &*known };
    }
    let here = ours as *const () as u64;
    let mut found = Vec::new();
    objects::for_each(|_, object| {
        if object.contains(here) {
            // SAFETY: the names are this library's own, which stays loaded as long as the process.
            object.defined(|name, own| found.push((unsafe { CStr::from_ptr(name.as_ptr()) }, own)));
        }
    });
    let libcs = |(name, own): (&'static CStr, u64)| {
        // SAFETY: a C string, and a handle that dlsym takes.
        let libcs = unsafe { look_up(libc::RTLD_NEXT, name.as_ptr()) } as u64;
        Ours { name, own, libcs }
    };
    let table: Vec<Ours> = found.into_iter().map(libcs).filter(|one| one.libcs != 0).collect();
    // SAFETY: what our own questions left is no error of the program's.
    unsafe { libc::dlerror() };
    let table = Box::into_raw(Box::new(table));
    // Two threads at once: one table is lost, which holds nothing.
    OURS.store(table, Ordering::Release);
    // SAFETY: just made, and never freed.
    unsafe { &*table }
}

/// The library behind `handle` was perhaps loaded with RTLD_DEEPBIND, and others with it: where they have libc's functions,
/// they get ours. A function that the library finds elsewhere than in libc stays.
fn change_deep(handle: *mut c_void) {
    let (known, first) = (handle as usize, BEFORE_DEEP.load(Ordering::Acquire));
    if CHANGED.lock().contains(&known) {
        return;
    }
    // SAFETY: the program's own handle, and C strings.
    let is_libcs = |one: &&Ours| unsafe { look_up(handle, one.name.as_ptr()) } as u64 == one.libcs;
    let wanted: Vec<&Ours> = ours().iter().filter(is_libcs).collect();
    // SAFETY: what our own questions left is no error of the program's.
    unsafe { libc::dlerror() };
    let flags = OFlags::WRONLY | OFlags::CLOEXEC;
    let Ok(memory) = rustix::fs::open("/proc/self/mem", flags, Mode::empty()) else {
        return complain(
            "a library that is loaded with RTLD_DEEPBIND sees no device: /proc/self/mem cannot be written",
        );
    };
    objects::for_each(|index, object| {
        if index >= first {
            object.needed(|Needed { name, slot, value }| {
                let one = wanted.iter().find(|one| one.name == name);
                if let Some(one) = one.filter(|one| value == one.libcs || object.contains(value)) {
                    // The page may be read-only by now. A word, in one piece: another thread may call through it.
                    let _ = rustix::io::pwrite(&memory, &one.own.to_ne_bytes(), slot);
                }
            });
        }
    });
    CHANGED.lock().push(known);
}
