//! Tasks of C: coroutines of the run's scheduler.

use super::text;
use crate::tasks;
use std::ffi::{c_char, c_int, c_ulong, c_void};

type Body = unsafe extern "C" fn(*mut c_void);

/// What C wants run: its function, and what that is given.
struct Call(Body, *mut c_void);

// SAFETY: all tasks are coroutines of one thread.
unsafe impl Send for Call {}

impl Call {
    fn run(self) {
        // SAFETY: C passes a function with what it takes, which stays for the process.
        unsafe { (self.0)(self.1) }
    }
}

#[unsafe(no_mangle)]
extern "C" fn kface_spawn(name: *const c_char, body: Body, arg: *mut c_void, daemon: c_int) {
    // SAFETY: C passes strings that stay for the call.
    let name = unsafe { text(name) }.into_owned();
    let call = Call(body, arg);
    tasks::spawn(name, daemon != 0, move || call.run());
}

#[unsafe(no_mangle)]
extern "C" fn kface_point(what: *const c_char, object: *const c_char, ip: c_ulong) {
    tasks::point(ip, || {
        // SAFETY: C passes strings that stay for the call.
        let what = unsafe { text(what) };
        // SAFETY: the same.
        let object = unsafe { text(object) };
        (what.into_owned(), object.into_owned())
    });
}

#[unsafe(no_mangle)]
extern "C" fn kface_yield() {
    tasks::yield_now();
}

#[unsafe(no_mangle)]
extern "C" fn kface_block(channel: c_ulong, what: *const c_char) {
    // SAFETY: C passes strings that stay for the call.
    tasks::block(channel, || unsafe { text(what) }.into_owned());
}

#[unsafe(no_mangle)]
extern "C" fn kface_wake(channel: c_ulong) {
    tasks::wake(channel);
}
