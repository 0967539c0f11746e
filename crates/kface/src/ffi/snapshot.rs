//! This process' memory as it was, again: what makes a run that comes after others the same as the first.
//!
//! [`take`] write-protects all that the process may write. Who writes to a page has it saved first (`saved`, from the signal handler);
//! the page stays writable from then on, because the next run will write there, too. [`back`] gives every saved page its bytes again,
//! and goes on behind `take` with stack and registers as they were: `take` returns once a run. So a second run costs the copies of
//! some hundred pages, where a copy of the process costs a page fault for each.
//!
//! The keeper does this: a context with stack and books of its own, which no snapshot has. A process that has mapped more memory during a
//! run cannot go back and ends; what the system knows of a process (open files, signals) is not restored, and no run changes it.
//!
//! Key types: [`Keeper`].
//!
//! Locking: none; one thread.

use super::super::runs::CLEAN;
use super::give_up;
use super::runs::end;
use libc::{c_int, c_void, ucontext_t};
use std::cell::{Cell, UnsafeCell};
use std::sync::atomic::{AtomicPtr, Ordering};

const PAGE: usize = 4096;
/// Most pages that all runs together may write. The kernel has a limit of mappings near.
const MOST_PAGES: usize = 16 << 10;
const MOST_AREAS: usize = 512;
const STACK_BYTES: usize = 256 << 10;

/// A run of addresses.
#[derive(Clone, Copy, Default)]
struct Area {
    start: usize,
    end: usize,
}

/// The books, in a mapping of their own.
#[repr(C)]
struct Keeper {
    /// Where a run begins.
    world: UnsafeCell<ucontext_t>,
    /// Where it ends.
    own: UnsafeCell<ucontext_t>,
    /// What is protected, but for the pages below.
    areas: [Cell<Area>; MOST_AREAS],
    area_count: Cell<usize>,
    /// Pages that are writable and saved.
    pages: [Cell<usize>; MOST_PAGES],
    page_count: Cell<usize>,
    /// Tells how much memory is mapped.
    statm: Cell<c_int>,
    mapped: Cell<u64>,
    stack: UnsafeCell<[u8; STACK_BYTES]>,
    signal_stack: UnsafeCell<[u8; STACK_BYTES]>,
    saved: UnsafeCell<[[u8; PAGE]; MOST_PAGES]>,
}

static KEEPER: AtomicPtr<Keeper> = AtomicPtr::new(std::ptr::null_mut());

fn keeper() -> Option<&'static Keeper> {
    let keeper = KEEPER.load(Ordering::Relaxed);
    // SAFETY: null, or the mapping that `take` made, which is never unmapped; what changes in it is in cells, and there is one thread.
    unsafe { keeper.as_ref() }
}

/// Whether the write that was refused at `address` was one to protected memory: it is saved, and the write can be done again.
pub(super) fn saved(address: usize) -> bool {
    keeper().is_some_and(|keeper| keeper.save(address))
}

/// Returns once a run, each time with memory, stack and registers as they are now.
pub(crate) fn take() {
    use rustix::mm::{MapFlags, ProtFlags, mmap_anonymous};
    let flags = MapFlags::PRIVATE | MapFlags::NORESERVE;
    let bytes = size_of::<Keeper>();
    // SAFETY: a new mapping at a place of the system's choice.
    let mapped = unsafe { mmap_anonymous(std::ptr::null_mut(), bytes, ProtFlags::READ | ProtFlags::WRITE, flags) };
    let Ok(memory) = mapped else { give_up("no memory to keep a snapshot in") };
    KEEPER.store(memory.cast(), Ordering::Relaxed);
    let Some(keeper) = keeper() else { return };
    keeper.look(memory as usize, memory as usize + bytes);
    keeper.own_signal_stack();
    let own = keeper.own.get();
    // SAFETY: a context of the keeper's, filled in before it is used.
    unsafe { libc::getcontext(own) };
    let stack = libc::stack_t { ss_sp: keeper.stack.get().cast(), ss_flags: 0, ss_size: STACK_BYTES };
    // SAFETY: nobody else uses it now.
    unsafe { (*own).uc_stack = stack };
    // SAFETY: the function takes nothing and does not return; its stack is the keeper's.
    unsafe { libc::makecontext(own, keep, 0) };
    // SAFETY: both contexts are the keeper's. This returns where the keeper goes on with the world.
    unsafe { libc::swapcontext(keeper.world.get(), own) };
}

/// Back to where [`take`] returns. Without a snapshot there is no way back.
pub(crate) fn back() -> ! {
    if let Some(keeper) = keeper() {
        // SAFETY: the context was filled in when the keeper let the run begin.
        unsafe { libc::setcontext(keeper.own.get()) };
    }
    give_up("there is no snapshot to go back to")
}

/// The keeper's own code: a run, and again. It touches nothing that a run does but the pages that it restores.
extern "C" fn keep() {
    let Some(keeper) = keeper() else { return };
    keeper.protect();
    loop {
        // SAFETY: both contexts are the keeper's; the world's is as `take` left it, its stack as restored.
        unsafe { libc::swapcontext(keeper.own.get(), keeper.world.get()) };
        // What a run mapped would stay, and the next one would find it: another process goes on.
        if keeper.mapped_now() != keeper.mapped.get() || keeper.page_count.get() + PAGE / 8 > MOST_PAGES {
            end(CLEAN);
        }
        keeper.restore();
    }
}

impl Keeper {
    /// Writes down what memory there is, without the keeper's own.
    fn look(&self, start: usize, behind: usize) {
        let maps = std::fs::read_to_string("/proc/self/maps").unwrap_or_default();
        let mut count = 0;
        for area in maps.lines().filter_map(writable) {
            if area.start < behind && start < area.end {
                continue;
            }
            match self.areas.get(count) {
                Some(place) => place.set(area),
                None => give_up("this process has more mappings than a snapshot has room for"),
            }
            count += 1;
        }
        self.area_count.set(count);
        // SAFETY: a string that ends with 0; the file stays open as long as the process.
        self.statm.set(unsafe { libc::open(c"/proc/self/statm".as_ptr(), libc::O_RDONLY | libc::O_CLOEXEC) });
        self.mapped.set(self.mapped_now());
    }

    /// Pages of address space.
    fn mapped_now(&self) -> u64 {
        let mut text = [0u8; 32];
        // SAFETY: `text` is ours and as long as that.
        let read = unsafe { libc::pread(self.statm.get(), text.as_mut_ptr().cast(), text.len(), 0) };
        let digits = text.iter().take(usize::try_from(read).unwrap_or(0)).take_while(|byte| byte.is_ascii_digit());
        digits.fold(0, |number, digit| number * 10 + u64::from(digit - b'0'))
    }

    /// Signals come on the keeper's stack, because the stack that was interrupted may be protected.
    fn own_signal_stack(&self) {
        let stack = libc::stack_t { ss_sp: self.signal_stack.get().cast(), ss_flags: 0, ss_size: STACK_BYTES };
        // SAFETY: the stack stays for the process.
        unsafe { libc::sigaltstack(&stack, std::ptr::null_mut()) };
    }

    fn protect(&self) {
        // The system writes about this thread here by itself, at any moment (rseq), and kills who has protected it even for one.
        // SAFETY: it has no conditions.
        let thread = unsafe { libc::pthread_self() } as usize & !(PAGE - 1);
        let open = Area { start: thread - PAGE, end: thread + 2 * PAGE };
        (open.start..open.end).step_by(PAGE).for_each(|page| _ = self.save(page));
        for area in self.areas.iter().take(self.area_count.get()) {
            let Area { start, end } = area.get();
            for part in [Area { start, end: end.min(open.start) }, Area { start: start.max(open.end), end }] {
                if part.start < part.end {
                    // SAFETY: of a mapping of this process; writes to it are refused and `save` admits them one by one.
                    unsafe { libc::mprotect(part.start as *mut c_void, part.end - part.start, libc::PROT_READ) };
                }
            }
        }
    }

    fn save(&self, address: usize) -> bool {
        let page = address & !(PAGE - 1);
        let (areas, at) = (&self.areas[..self.area_count.get()], self.page_count.get());
        let is_protected = areas.iter().any(|area| (area.get().start..area.get().end).contains(&page));
        if !is_protected || at == MOST_PAGES || self.pages[..at].iter().any(|known| known.get() == page) {
            return false;
        }
        self.copy(page, at, Direction::Save);
        self.pages[at].set(page);
        self.page_count.set(at + 1);
        // SAFETY: a page of a mapping that was writable before `protect`.
        unsafe { libc::mprotect(page as *mut c_void, PAGE, libc::PROT_READ | libc::PROT_WRITE) == 0 }
    }

    fn restore(&self) {
        for (at, page) in self.pages.iter().take(self.page_count.get()).enumerate() {
            self.copy(page.get(), at, Direction::Restore);
        }
    }

    fn copy(&self, page: usize, at: usize, direction: Direction) {
        let saved = self.saved.get().cast::<u8>().wrapping_add(at * PAGE);
        let page = page as *mut u8;
        let (from, to) = match direction {
            Direction::Save => (page, saved),
            Direction::Restore => (saved, page),
        };
        // SAFETY: a page that is mapped, and a place of the keeper's for it. Nobody runs who has a reference to either: the world stands
        // still, and goes on only as it was when the page was saved.
        unsafe { std::ptr::copy_nonoverlapping(from, to, PAGE) }
    }
}

#[derive(Clone, Copy)]
enum Direction {
    Save,
    Restore,
}

/// The addresses of a line of `maps`, where this process alone may write there.
fn writable(line: &str) -> Option<Area> {
    let mut words = line.split_ascii_whitespace();
    let (start, end) = words.next()?.split_once('-')?;
    let rights = words.next()?;
    let number = |text| usize::from_str_radix(text, 16).ok();
    let area = Area { start: number(start)?, end: number(end)? };
    (rights.starts_with("rw") && rights.ends_with('p')).then_some(area)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn private_writable_mappings_are_taken_and_others_are_not() {
        let area = |line| writable(line).map(|area| (area.start, area.end));
        assert_eq!(
            area("7f0000001000-7f0000003000 rw-p 00000000 00:00 0 [heap]"),
            Some((0x7f00_0000_1000, 0x7f00_0000_3000))
        );
        assert_eq!(area("7f0000001000-7f0000003000 rw-s 00000000 00:01 7 /dev/zero"), None);
        assert_eq!(area("7f0000001000-7f0000003000 r--p 00000000 08:01 7 /lib/x.so"), None);
        assert_eq!(area("nonsense"), None);
    }
}
