//! Whole pages of the window: allocation from its start, stacks from its end.

use core::sync::atomic::{AtomicU64, Ordering};
use rustix::mm::{Advice, MapFlags, MprotectFlags, ProtFlags, madvise, mmap_anonymous, mprotect};
use sync::{Mutex, MutexGuard};
use units::{HostRange, HostVa, SZ_1G, SZ_2M, SZ_4K};

/// Where the window lies if nobody else does: far from what the kernel gives by itself.
const WINDOW_HINT: u64 = 0x6d00_0000_0000;
/// Sizes to try, the largest first: a limit of address space (RLIMIT_AS) may refuse it.
const WINDOW_SIZES: [u64; 4] = [64 * SZ_1G, 4 * SZ_1G, SZ_1G, SZ_1G / 4];

static START: AtomicU64 = AtomicU64::new(0);
static END: AtomicU64 = AtomicU64::new(0);
static SPACE: Mutex<Space> = Mutex::new(Space { low: 0, open: 0, high: 0, free: [(0, 0); FREE_RUNS] });

/// What is left of the window between allocations (below) and stacks (above), and the runs given back. It is out of
/// bounds but for what was handed out, so that mlockall does not fill it.
pub struct Space {
    low: u64,
    /// Where allocations may go up to without another call of the kernel.
    open: u64,
    high: u64,
    free: [(u64, u64); FREE_RUNS],
}

/// Runs of pages remembered for reuse; more are emptied but their addresses are lost.
const FREE_RUNS: usize = 512;
/// How much is opened at a time.
const OPEN_STEP: u64 = SZ_2M;

/// The window; `None` before its first use.
pub fn window() -> Option<HostRange> {
    let end = END.load(Ordering::Acquire);
    (end != 0).then(|| HostRange::new(HostVa(START.load(Ordering::Acquire)), HostVa(end)))
}

/// dlmalloc's source of memory.
pub struct Pages;

// SAFETY: runs are disjoint (handed out under one lock, each once until it is freed), readable and writable, and
// zeroed: fresh, or emptied by MADV_DONTNEED.
unsafe impl dlmalloc::Allocator for Pages {
    fn alloc(&self, size: usize) -> (*mut u8, usize, u32) {
        let size = HostVa(size as u64).align_up(SZ_4K).0;
        let start = SPACE.lock().take_low(size).unwrap_or(0);
        (start as *mut u8, size as usize, 0)
    }

    fn remap(&self, _ptr: *mut u8, _old: usize, _new: usize, _can_move: bool) -> *mut u8 {
        core::ptr::null_mut()
    }

    fn free_part(&self, ptr: *mut u8, old: usize, new: usize) -> bool {
        give_back(ptr as u64 + new as u64, (old - new) as u64)
    }

    fn free(&self, ptr: *mut u8, size: usize) -> bool {
        give_back(ptr as u64, size as u64)
    }

    fn can_release_part(&self, _flags: u32) -> bool {
        true
    }

    fn allocates_zeros(&self) -> bool {
        true
    }

    fn page_size(&self) -> usize {
        SZ_4K as usize
    }
}

/// A stack of `size` bytes whose lowest page cannot be touched; `None` where the window is used up.
/// Stacks are not given back: the threads live as long as the process.
pub fn stack(size: u64) -> Option<HostRange> {
    let mut space = SPACE.lock();
    let start = space.take_high(size)?;
    let stack = HostRange::new(HostVa(start + SZ_4K), HostVa(start + size));
    Space::open(stack)?;
    Some(stack)
}

/// Nobody else takes or gives pages while this lives.
pub type Held = MutexGuard<'static, Space>;

/// Takes the lock of the window's space.
pub fn hold() -> Held {
    SPACE.lock()
}

fn give_back(start: u64, size: u64) -> bool {
    // SAFETY: dlmalloc no longer uses the run, which lies in the window: losing its contents harms nobody.
    let emptied = unsafe { madvise(start as *mut _, size as usize, Advice::LinuxDontNeed) };
    if emptied.is_ok() {
        SPACE.lock().remember(start, size);
    }
    emptied.is_ok()
}

impl Space {
    fn take_low(&mut self, size: u64) -> Option<u64> {
        self.reserve()?;
        if let Some(run) = self.free.iter_mut().find(|run| run.1 >= size) {
            let start = run.0;
            *run = (start + size, run.1 - size);
            return Some(start);
        }
        let start = self.low;
        let end = start.checked_add(size).filter(|end| *end <= self.high)?;
        if end > self.open {
            let open = HostVa(end).align_up(OPEN_STEP).0.min(self.high);
            Self::open(HostRange::new(HostVa(self.open), HostVa(open)))?;
            self.open = open;
        }
        self.low = end;
        Some(start)
    }

    /// Lets a part of the window be used.
    fn open(part: HostRange) -> Option<()> {
        let flags = MprotectFlags::READ | MprotectFlags::WRITE;
        // SAFETY: the part lies in the window, and nobody was given it yet.
        unsafe { mprotect(part.start.0 as *mut _, part.len() as usize, flags) }.ok()
    }

    fn take_high(&mut self, size: u64) -> Option<u64> {
        self.reserve()?;
        // Not from what is open for allocations: the lowest page of a stack must stay out of bounds.
        self.high = self.high.checked_sub(size).filter(|start| *start >= self.open)?;
        Some(self.high)
    }

    /// Keeps a run for reuse, joined to its neighbours where they are free too.
    fn remember(&mut self, mut start: u64, mut size: u64) {
        for run in self.free.iter_mut().filter(|run| run.1 != 0) {
            if run.0 + run.1 == start {
                (start, size) = (run.0, run.1 + size);
                *run = (0, 0);
            } else if start + size == run.0 {
                size += run.1;
                *run = (0, 0);
            }
        }
        if let Some(slot) = self.free.iter_mut().find(|run| run.1 == 0) {
            *slot = (start, size);
        }
    }

    /// Reserves the window at its first use, with an untouchable page at either end, so that no mapping of the
    /// program ever joins it.
    fn reserve(&mut self) -> Option<()> {
        if self.high != 0 {
            return Some(());
        }
        let (base, size) = WINDOW_SIZES.iter().find_map(|size| {
            let flags = MapFlags::PRIVATE | MapFlags::NORESERVE;
            // SAFETY: an anonymous mapping at a hint, not fixed: it displaces nothing.
            let base = unsafe { mmap_anonymous(WINDOW_HINT as *mut _, *size as usize, ProtFlags::empty(), flags) };
            base.ok().map(|base| (base as u64, *size))
        })?;
        (self.low, self.open, self.high) = (base + SZ_4K, base + SZ_4K, base + size - SZ_4K);
        START.store(base, Ordering::Release);
        END.store(base + size, Ordering::Release);
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_that_come_back_are_joined_and_reused() {
        let mut space = Space { low: 0x10_0000, open: 0x1f_0000, high: 0x20_0000, free: [(0, 0); FREE_RUNS] };
        let runs: Vec<u64> = (0..3).map(|_| space.take_low(0x1000).expect("room")).collect();
        for run in [runs[0], runs[2], runs[1]] {
            space.remember(run, 0x1000);
        }
        assert_eq!(space.take_low(0x3000), Some(runs[0]), "three neighbours are one run");
        assert_eq!(space.take_low(0x10_0000), None, "more than is left");
        assert_eq!(space.take_high(0x2000), Some(0x1f_e000));
        assert_eq!(space.take_high(0xf000), None, "open for allocations");
    }

    #[test]
    fn memory_of_ours_lies_in_the_window() {
        let ours = Box::new([7u8; 64]);
        let window = window().expect("an allocation was made");
        assert!(window.contains(HostVa(ours.as_ptr() as u64)));
        let large = vec![1u8; 3 << 20];
        assert!(window.contains(HostVa(large.as_ptr() as u64)));
        let stack = stack(SZ_4K * 4).expect("room");
        assert!(window.covers(stack) && stack.len() == SZ_4K * 3);
    }
}
