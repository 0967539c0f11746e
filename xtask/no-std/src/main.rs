//! A program without std that holds the engine: the linker proves that gpusvm and hostmm need no std.
//!
//! It is built and never run; its own allocator and panic handler stand in for a kernel's.
#![no_std]
#![no_main]

#[global_allocator]
static HEAP: dlmalloc::GlobalDlmalloc = dlmalloc::GlobalDlmalloc;

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

/// The prebuilt `alloc` was compiled to unwind and names this; nothing unwinds here.
#[unsafe(no_mangle)]
pub extern "C" fn rust_eh_personality() {}

/// The C runtime's entry; names something of the engine so that it must be linked.
#[unsafe(no_mangle)]
pub extern "C" fn main() -> i32 {
    core::mem::size_of::<gpusvm::Pages>() as i32 - core::mem::size_of::<gpusvm::Pages>() as i32
}
