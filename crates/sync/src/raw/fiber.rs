//! Stackful coroutines: a task has a stack of its own, so ordinary blocking code can be set aside anywhere.
//!
//! Stacks are expensive to map and cheap to keep: those of finished fibers are reused by the thread.

use core::cell::{Cell, RefCell};
use core::ptr;
use corosensei::stack::DefaultStack;
use corosensei::{Coroutine, CoroutineResult, Yielder};
use std::vec::Vec;

/// How many stacks a thread keeps.
const KEPT_STACKS: usize = 128;

std::thread_local! {
    /// The yielder of the innermost fiber that runs on this thread, or null.
    static RUNNING: Cell<*const Yielder<(), ()>> = const { Cell::new(ptr::null()) };
    static STACKS: RefCell<Vec<(usize, DefaultStack)>> = const { RefCell::new(Vec::new()) };
}

/// Code with a stack of its own.
pub(crate) struct Fiber {
    coroutine: Coroutine<(), (), ()>,
    stack_bytes: usize,
}

/// Why [`Fiber::resume`] returned.
pub(crate) enum Ran {
    /// The body called [`suspend`].
    Suspended,
    /// The body returned.
    Ended,
}

impl Fiber {
    /// A fiber that will run `body`, which must not unwind.
    ///
    /// # Panics
    /// Where the system has no memory for a stack.
    pub(crate) fn new(stack_bytes: usize, body: impl FnOnce() + 'static) -> Self {
        let start = move |yielder: &Yielder<(), ()>, ()| {
            RUNNING.with(|running| running.set(ptr::from_ref(yielder)));
            body();
        };
        Self { coroutine: Coroutine::with_stack(take_stack(stack_bytes), start), stack_bytes }
    }

    /// Runs the body until it suspends itself or ends.
    pub(crate) fn resume(&mut self) -> Ran {
        let outer = RUNNING.with(Cell::get);
        let result = self.coroutine.resume(());
        RUNNING.with(|running| running.set(outer));
        match result {
            CoroutineResult::Yield(()) => Ran::Suspended,
            CoroutineResult::Return(()) => Ran::Ended,
        }
    }

    /// Keeps the stack of a fiber that has ended.
    pub(crate) fn recycle(self) {
        let stack = (self.stack_bytes, self.coroutine.into_stack());
        STACKS.with_borrow_mut(|stacks| {
            if stacks.len() < KEPT_STACKS {
                stacks.push(stack);
            }
        });
    }

    /// Gives up a fiber that can be neither finished nor unwound: its stack stays for ever, as it is.
    pub(crate) fn leak(self) {
        core::mem::forget(self);
    }
}

/// Suspends the fiber that runs; returns when it is resumed.
///
/// # Panics
/// Outside of any fiber.
pub(crate) fn suspend() {
    let yielder = RUNNING.with(Cell::get);
    assert!(!yielder.is_null(), "suspended outside of a fiber");
    // SAFETY: a fiber sets the pointer to its own yielder, which lives on its stack, whenever it gets control, and
    // `resume` takes it away when control leaves; so this is the yielder of the fiber that is running right now.
    let running = unsafe { &*yielder };
    running.suspend(());
    RUNNING.with(|running| running.set(yielder));
}

fn take_stack(bytes: usize) -> DefaultStack {
    let kept = STACKS.with_borrow_mut(|stacks| {
        let place = stacks.iter().rposition(|(kept_bytes, _)| *kept_bytes == bytes)?;
        Some(stacks.swap_remove(place).1)
    });
    kept.unwrap_or_else(|| DefaultStack::new(bytes).expect("no memory for a stack"))
}
