//! A stack of ours for a thread of the program.
//!
//! The program's own stacks are memory like any other: pages of them may be in VRAM. A thread that touches such a page
//! waits for the threads that answer faults; if it did so while it holds a lock that those need, all would wait for
//! ever. So what a thread of the program runs in our world, it runs on a stack of the window.
//!
//! Locking: none; free stacks are a few words that are exchanged.

use super::pages;
use core::num::NonZeroUsize;
use core::sync::atomic::{AtomicU64, Ordering};
use corosensei::stack::{Stack, StackPointer};
use units::{HostRange, HostVa, SZ_4K};

/// Bytes of a stack, its guard page included.
const SIZE: u64 = 1 << 20;

/// First addresses of stacks that nobody uses; 0: no stack.
static FREE: [AtomicU64; 512] = [const { AtomicU64::new(0) }; 512];

/// Runs `body` on a stack of ours; as it is, where this thread is on one already.
pub fn on_own_stack<R>(body: impl FnOnce() -> R) -> R {
    let here = 0u8;
    let is_inside = pages::window().is_some_and(|window| window.contains(HostVa(&raw const here as u64)));
    if is_inside {
        return body();
    }
    match take() {
        Some(stack) => {
            let result = corosensei::on_stack(Borrowed(stack), body);
            give_back(stack);
            result
        }
        None => body(), // the window is used up: as good as it gets
    }
}

/// A stack for the time of one call.
struct Borrowed(HostRange);

// SAFETY: the range is readable and writable memory of ours that no other thread uses, and the page below it cannot be
// touched (see `pages::stack`).
unsafe impl Stack for Borrowed {
    fn base(&self) -> StackPointer {
        pointer(self.0.end)
    }

    fn limit(&self) -> StackPointer {
        pointer(HostVa(self.0.start.0 - SZ_4K))
    }
}

fn pointer(at: HostVa) -> StackPointer {
    NonZeroUsize::new(at.0 as usize).unwrap_or(NonZeroUsize::MIN)
}

fn take() -> Option<HostRange> {
    let free = FREE.iter().map(|slot| slot.load(Ordering::Relaxed));
    let taken = free
        .zip(&FREE)
        .filter(|(start, _)| *start != 0)
        .find(|(start, slot)| slot.compare_exchange(*start, 0, Ordering::Acquire, Ordering::Relaxed).is_ok());
    match taken {
        Some((start, _)) => Some(HostRange::sized(HostVa(start), SIZE - SZ_4K)),
        None => pages::stack(SIZE),
    }
}

/// Keeps a stack for the next call; more than there is room for are lost.
fn give_back(stack: HostRange) {
    let is_kept =
        |slot: &AtomicU64| slot.compare_exchange(0, stack.start.0, Ordering::Release, Ordering::Relaxed).is_ok();
    FREE.iter().any(is_kept);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_nest_and_stacks_are_used_again() {
        let place = || {
            let here = 0u8;
            HostVa(&raw const here as u64)
        };
        let (outer, inner) = on_own_stack(|| (place(), on_own_stack(place)));
        let window = pages::window().expect("in use");
        assert!(window.contains(outer) && !window.contains(place()));
        assert!(outer.0 - inner.0 < SIZE, "one stack for both");
        assert_eq!(on_own_stack(|| vec![7; 3]), [7, 7, 7]);
    }
}
