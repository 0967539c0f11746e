//! What C tells of a case of the table of the memory's promises.

use super::text;
use crate::conform;
use crate::memory::{Page, Step};
use std::ffi::{c_char, c_int, c_long};

/// A step, as C takes it.
#[repr(C)]
struct StepOfC {
    /// As `KFACE_DO_*`, which stand in the order of [`What`](crate::memory::What).
    what: c_int,
    first: c_int,
    pages: c_int,
    /// -1: none.
    vram: c_int,
    write: c_int,
    fault: c_int,
    since: c_int,
    number: u64,
}

impl StepOfC {
    fn new(step: &Step, number: u64) -> Self {
        Self {
            what: step.what as c_int,
            first: step.pages.start.into(),
            pages: (step.pages.end - step.pages.start).into(),
            vram: step.vram.map_or(-1, c_int::from),
            write: step.writes().into(),
            fault: step.has("fault").into(),
            since: step.has("since").into(),
            number,
        }
    }
}

#[unsafe(no_mangle)]
extern "C" fn kface_step(step: *mut StepOfC) -> c_int {
    let Some((next, number)) = conform::next() else { return 0 };
    // SAFETY: C passes a step of its own to be filled in.
    unsafe { step.write(StepOfC::new(&next, number)) };
    1
}

#[unsafe(no_mangle)]
extern "C" fn kface_said(what: *const c_char, how: *const c_char) {
    // SAFETY: C passes strings that stay for the call.
    let what = unsafe { text(what) };
    // SAFETY: as above.
    let how = unsafe { text(how) };
    conform::say(|answers| answers.say(format!("{what} {how}")));
}

#[unsafe(no_mangle)]
extern "C" fn kface_said_number(what: *const c_char, number: c_long) {
    // SAFETY: C passes strings that stay for the call.
    let what = unsafe { text(what) };
    conform::say(|answers| answers.say(format!("{what} {number}")));
}

#[unsafe(no_mangle)]
extern "C" fn kface_said_notice(kind: *const c_char, start: u64, end: u64, places: *const c_char) {
    // SAFETY: C passes strings that stay for the call.
    let kind = unsafe { text(kind) };
    // SAFETY: as above.
    let places = unsafe { text(places) };
    conform::say(|answers| answers.noticed(&kind, start, end, &places));
}

#[unsafe(no_mangle)]
extern "C" fn kface_said_freed(vram: c_int, page: c_int) {
    conform::say(|answers| answers.freed(vram as u8, page as u8));
}

#[unsafe(no_mangle)]
extern "C" fn kface_is_page(place: c_int, write: c_int) {
    conform::page(Page { place: char::from(place as u8), write: write != 0 });
}

#[unsafe(no_mangle)]
extern "C" fn kface_is_area(start: u64, end: u64, write: c_int) {
    conform::area((start, end, write != 0));
}

#[unsafe(no_mangle)]
extern "C" fn kface_step_done() {
    conform::step_done();
}
