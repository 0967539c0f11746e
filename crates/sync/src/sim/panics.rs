//! Panics of tasks are findings, not noise.
//!
//! A panic hook, put before the program's own one, hands the panic of a task to its run, which ends there. All
//! other panics, and those of a task that unwinds already, go to the hook that was there.

use super::scheduler::message_of;
use crate::hook;
use alloc::boxed::Box;
use core::sync::atomic::{AtomicBool, Ordering};
use std::format;
use std::panic::{self, PanicHookInfo};
use std::string::String;

/// Installs the hook, once a process.
pub(super) fn install() {
    static INSTALLED: AtomicBool = AtomicBool::new(false);
    if INSTALLED.swap(true, Ordering::Relaxed) {
        return;
    }
    let before = panic::take_hook();
    panic::set_hook(Box::new(move |info| {
        if !hand_over(info) {
            before(info);
        }
    }));
}

/// Tells the run of the task that panics, if that is who panics.
fn hand_over(info: &PanicHookInfo<'_>) -> bool {
    let location = info.location().map_or_else(String::new, |at| format!("{at}"));
    hook::with(|hook| hook.panicked(message_of(info.payload()), location)).unwrap_or(false)
}
