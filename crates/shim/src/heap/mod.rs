//! This library's own memory: one window of address space, apart from the program's.
//!
//! If the engine's own structures lay on the program's heap they could be migrated to VRAM, and the thread that
//! answers the fault would fault on them. So the allocator, and the stacks of our threads, live in a window that is
//! reserved once, never shared with the program and given to the machine as never to be migrated.
//!
//! Allocations grow from the window's start, stacks from its end. Runs of pages that dlmalloc gives back are emptied
//! and reused.
//!
//! Locking: the heap's lock is the lowest of all; nothing is called under it but the kernel. It is held across a fork
//! ([`hold`]).
#![allow(unsafe_code)]

mod outside;
mod pages;
mod stack;
mod thread;

pub use outside::{begin as begin_outside, is_lent, wait_briefly};
pub use stack::on_own_stack;
pub use thread::{alive as threads_alive, forget as forget_threads, spawn_thread};

use core::alloc::{GlobalAlloc, Layout};
use dlmalloc::Dlmalloc;
use pages::Pages;
use sync::{Mutex, MutexGuard};
use units::HostRange;

/// The global allocator of everything that is linked into this library.
struct Heap(Mutex<Dlmalloc<Pages>>);

#[global_allocator]
static HEAP: Heap = Heap(Mutex::new(Dlmalloc::new_with_allocator(Pages)));

// SAFETY: dlmalloc gives disjoint blocks of the size and alignment asked for, and its state is under the lock.
unsafe impl GlobalAlloc for Heap {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the layout is valid (GlobalAlloc's contract), and the lock makes this the only call inside.
        unsafe { self.0.lock().malloc(layout.size(), layout.align()) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as for `alloc`.
        unsafe { self.0.lock().calloc(layout.size(), layout.align()) }
    }

    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        // SAFETY: the block came from this allocator with this layout (GlobalAlloc's contract).
        unsafe { self.0.lock().free(ptr, layout.size(), layout.align()) }
    }

    unsafe fn realloc(&self, ptr: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        // SAFETY: the block came from this allocator with this layout (GlobalAlloc's contract).
        unsafe { self.0.lock().realloc(ptr, layout.size(), layout.align(), new_size) }
    }
}

/// The window, never to be migrated; `None` before the first allocation.
pub fn window() -> Option<HostRange> {
    pages::window()
}

/// Nobody else is inside the heap while this lives: for the time of a fork.
pub struct Held {
    _heap: MutexGuard<'static, Dlmalloc<Pages>>,
    _pages: pages::Held,
}

/// Takes the heap's locks: nothing may be allocated or freed on this thread until the result is dropped.
pub fn hold() -> Held {
    Held { _heap: HEAP.0.lock(), _pages: pages::hold() }
}
