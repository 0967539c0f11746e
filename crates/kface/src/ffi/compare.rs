//! What C tells of a run that is compared with another engine.

use super::{device, has_device, text};
use crate::acts::Act;
use crate::compare;
use crate::stream::RangeState;
use std::ffi::{c_char, c_int, c_long, c_uint, c_ulong};
use xe_spec::fault::Asid;

/// An act, as C takes it.
#[repr(C)]
struct ActOfC {
    what: c_int,
    tile: c_int,
    first: c_int,
    pages: c_int,
    write: c_int,
}

impl From<Act> for ActOfC {
    fn from(act: Act) -> Self {
        let of = |what, tile: u8, first: u8, pages: u8, write| Self {
            what,
            tile: tile.into(),
            first: first.into(),
            pages: pages.into(),
            write: c_int::from(write),
        };
        match act {
            Act::Tile { tile, page, write } => of(0, tile, page, 1, write),
            Act::Cpu { page, write } => of(1, 0, page, 1, write),
            Act::Unmap { first, pages } => of(2, 0, first, pages, false),
            Act::Map { first, pages } => of(3, 0, first, pages, false),
            Act::Evict { tile } => of(4, tile, 0, 0, false),
        }
    }
}

fn at(ip: c_ulong) -> String {
    format!("{ip:x}")
}

#[unsafe(no_mangle)]
extern "C" fn kface_act(scene: *const c_char, tiles: c_int, act: *mut ActOfC) -> c_int {
    // SAFETY: C passes strings that stay for the call.
    let scene = unsafe { text(scene) };
    let Some(next) = compare::next(&scene, tiles as u8) else { return 0 };
    // SAFETY: C passes an act of its own to be filled in.
    unsafe { act.write(next.into()) };
    1
}

#[unsafe(no_mangle)]
extern "C" fn kface_saw_answer(errno: c_long) {
    compare::saw(|stream| stream.answered(errno, String::new()));
}

#[unsafe(no_mangle)]
extern "C" fn kface_saw_notice(kind: *const c_char, start: u64, end: u64, ip: c_ulong) {
    // SAFETY: C passes strings that stay for the call.
    compare::saw(|stream| stream.noticed(&unsafe { text(kind) }, start, end, at(ip)));
}

#[unsafe(no_mangle)]
extern "C" fn kface_saw_flush(number: c_int, start: u64, end: u64, ip: c_ulong) {
    compare::saw(|stream| stream.flushed(number as u8, start, end, at(ip)));
}

#[unsafe(no_mangle)]
extern "C" fn kface_saw_copies(number: c_int, ip: c_ulong) {
    compare::saw(|stream| {
        for ((from, to), pages) in device(|device| device.take_copies()) {
            stream.copied(number as u8, &from, &to, pages, at(ip));
        }
    });
}

#[unsafe(no_mangle)]
extern "C" fn kface_has_range(start: u64, end: u64, tiles: c_int, unmapped: c_int, mapped: c_int) {
    compare::has_range(RangeState { start, end, tiles: tiles as u8, unmapped: unmapped != 0, mapped: mapped != 0 });
}

#[unsafe(no_mangle)]
extern "C" fn kface_act_done(value: u64, places: *const c_char, asid: c_uint) {
    // SAFETY: C passes strings that stay for the call.
    let places = unsafe { text(places) };
    compare::act_done(value, &places, |stream| {
        if has_device() {
            device(|device| device.tell(stream, Asid(asid)));
        }
    });
}
