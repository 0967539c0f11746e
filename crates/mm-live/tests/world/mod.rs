//! A test's own small world: memory of the program, a frame allocator, and the least that an engine would do.
#![allow(
    dead_code,
    unsafe_code,
    reason = "shared by several test binaries; tests play the program, which uses raw memory"
)]

use hostmm::*;
use mm_live::kernel::Kernel;
use mm_live::{Config, LiveMm, Refused, Transport};
use std::sync::Arc;
use std::sync::Mutex as StdMutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use units::{HostFrame, HostRange, HostVa, SZ_2M, SZ_4K};

pub const OWNER: OwnerId = OwnerId(1);
pub const SLOT: usize = 512;

/// A heap apart from the program's, as the preload library has: what the mechanism itself allocates must never
/// migrate. Powers of two with a free list each, in one region that is excluded at the start.
struct PrivateHeap {
    locked: AtomicBool,
    next: AtomicUsize,
    free: [AtomicUsize; 48],
}

#[global_allocator]
static HEAP: PrivateHeap = PrivateHeap {
    locked: AtomicBool::new(false),
    next: AtomicUsize::new(0),
    free: [const { AtomicUsize::new(0) }; 48],
};
const HEAP_BASE: usize = 0x6d00_0000_0000;
const HEAP_BYTES: usize = 1 << 33;

// SAFETY: each block is handed out once until it is given back: both lists are under one lock.
unsafe impl std::alloc::GlobalAlloc for PrivateHeap {
    unsafe fn alloc(&self, layout: std::alloc::Layout) -> *mut u8 {
        let size = layout.size().max(layout.align()).max(16).next_power_of_two();
        self.locked(|| {
            let list = &self.free[size.trailing_zeros() as usize];
            let block = list.load(SeqCst);
            if block != 0 {
                // SAFETY: a free block's first word is the next one's address.
                list.store(unsafe { *(block as *const usize) }, SeqCst);
                return block as *mut u8;
            }
            if self.next.load(SeqCst) == 0 {
                // SAFETY: a fresh mapping at an address that nothing else uses.
                unsafe { libc::mmap(HEAP_BASE as *mut _, HEAP_BYTES, 3, 0x10_4022, -1, 0) };
                self.next.store(HEAP_BASE, SeqCst);
            }
            let block = self.next.load(SeqCst).next_multiple_of(size);
            self.next.store(block + size, SeqCst);
            block as *mut u8
        })
    }
    unsafe fn dealloc(&self, block: *mut u8, layout: std::alloc::Layout) {
        let size = layout.size().max(layout.align()).max(16).next_power_of_two();
        self.locked(|| {
            let list = &self.free[size.trailing_zeros() as usize];
            // SAFETY: the block is free, and at least 16 bytes.
            unsafe { *block.cast::<usize>() = list.load(SeqCst) };
            list.store(block as usize, SeqCst);
        });
    }
}

impl PrivateHeap {
    fn locked<R>(&self, body: impl FnOnce() -> R) -> R {
        while self.locked.swap(true, SeqCst) {
            std::thread::yield_now();
        }
        let result = body();
        self.locked.store(false, SeqCst);
        result
    }
}

/// The heap that never migrates.
pub fn heap() -> HostRange {
    HostRange::sized(HostVa(HEAP_BASE as u64), HEAP_BYTES as u64)
}

/// Memory of the program, as it would get it: mmap by libc.
pub fn map(bytes: u64) -> HostRange {
    // SAFETY: a fresh anonymous mapping.
    let at = unsafe { libc::mmap(std::ptr::null_mut(), (bytes + SZ_2M) as usize, 3, 0x22, -1, 0) };
    assert_ne!(at, libc::MAP_FAILED);
    let whole = HostRange::sized(HostVa(at as u64), bytes + SZ_2M);
    let kept = HostRange::sized(whole.start.align_up(SZ_2M), bytes);
    unmap(HostRange::new(whole.start, kept.start));
    unmap(HostRange::new(kept.end, whole.end));
    kept
}

/// mmap at a fixed place, over what is there.
pub fn map_at(range: HostRange) {
    // SAFETY: the range belongs to the test.
    let at = unsafe { libc::mmap(range.start.0 as *mut _, range.len() as usize, 3, 0x32, -1, 0) };
    assert_eq!(at as u64, range.start.0);
}

pub fn unmap(range: HostRange) {
    if !range.is_empty() {
        // SAFETY: the range belongs to the test.
        unsafe { libc::munmap(range.start.0 as *mut _, range.len() as usize) };
    }
}

pub fn madvise(range: HostRange, advice: i32) -> i32 {
    // SAFETY: the range belongs to the test.
    unsafe { libc::madvise(range.start.0 as *mut _, range.len() as usize, advice) }
}

/// A word of the program's memory, by the CPU.
pub fn load(va: HostVa) -> u64 {
    // SAFETY: the word is mapped memory of the test.
    unsafe { std::ptr::read_volatile(va.0 as *const u64) }
}

pub fn store(va: HostVa, value: u64) {
    // SAFETY: the word is mapped memory of the test.
    unsafe { std::ptr::write_volatile(va.0 as *mut u64, value) }
}

/// The least engine: pages migrate back by a window around the fault; freed frames go back to a pool.
pub struct Vram {
    pub id: PagemapId,
    used: StdMutex<Vec<bool>>,
    pub window: u64,
}

impl Vram {
    pub fn insert(mm: &LiveMm, id: PagemapId, slots: usize, window: u64) -> Arc<Self> {
        let vram = Arc::new(Self { id, used: StdMutex::new(vec![false; slots * SLOT]), window });
        mm.pagemap_insert(id, OWNER, (slots * SLOT) as u64, vram.clone());
        vram
    }

    /// Frames, lowest first; a whole 2M slot where one is free and wanted.
    pub fn alloc(&self, pages: usize) -> Option<Vec<u64>> {
        let mut used = self.used.lock().unwrap();
        let slot = (pages == SLOT).then(|| used.chunks(SLOT).position(|slot| slot.iter().all(|&used| !used)));
        let frames: Vec<u64> = match slot.flatten() {
            Some(slot) => (slot * SLOT..(slot + 1) * SLOT).map(|frame| frame as u64).collect(),
            None => (0u64..).zip(used.iter()).filter(|(_, used)| !**used).map(|(frame, _)| frame).take(pages).collect(),
        };
        if frames.len() < pages {
            return None;
        }
        frames.iter().for_each(|&frame| used[frame as usize] = true);
        Some(frames)
    }

    pub fn release(&self, frames: impl IntoIterator<Item = u64>) {
        let mut used = self.used.lock().unwrap();
        for frame in frames {
            assert!(std::mem::take(&mut used[frame as usize]), "frame {frame} is freed once");
        }
    }

    pub fn free_frames(&self) -> usize {
        self.used.lock().unwrap().iter().filter(|&&used| !used).count()
    }
}

impl PagemapOps for Vram {
    fn migrate_to_ram(&self, mm: &dyn HostMm, fault: &CpuFault) -> FaultOutcome {
        let window = HostRange::around(fault.addr, self.window).intersect(fault.vma).unwrap();
        with_memory(mm, |mm, memory| migrate_back(mm, memory, window));
        FaultOutcome::Retry
    }

    fn folio_free(&self, first: DevicePage, pages: usize) {
        assert_eq!(first.pagemap, self.id);
        self.release((0..pages as u64).map(|index| first.frame + index));
    }
}

/// The one `LiveMm` of a test, for the callback, which is given a `HostMm` only.
pub static WORLD: std::sync::OnceLock<Arc<LiveMm>> = std::sync::OnceLock::new();

fn with_memory<R>(mm: &dyn HostMm, body: impl FnOnce(&dyn HostMm, &dyn HostMemory) -> R) -> R {
    body(mm, WORLD.get().expect("a world").as_ref())
}

/// Starts, or says loudly why not.
/// Says that a test did not run, past the harness, which keeps what passing tests print. In CI nothing may skip.
pub fn skipped(why: &str) {
    assert!(std::env::var_os("PONTOON_CI").is_none(), "CI must not skip: {why}");
    say(&format!("SKIPPED: {why}"));
}

/// Past the harness.
pub fn say(line: &str) {
    use std::io::Write;
    let _ = writeln!(std::io::stderr(), "{line}");
}

pub fn start(config: Config) -> Option<Arc<LiveMm>> {
    begin(LiveMm::start(config))
}

/// The same over a kernel of the test's.
pub fn start_on(kernel: Arc<dyn Kernel>, config: Config) -> Option<Arc<LiveMm>> {
    begin(LiveMm::on(kernel, config))
}

/// The real one.
pub fn kernel(transport: Transport) -> Option<Arc<dyn Kernel>> {
    allowed(mm_live::linux(transport))
}

fn begin(started: Result<Arc<LiveMm>, Refused>) -> Option<Arc<LiveMm>> {
    let mm = allowed(started)?;
    mm.exclude(heap());
    assert!(WORLD.set(mm.clone()).is_ok(), "one world a process");
    Some(mm)
}

fn allowed<T>(opened: Result<T, Refused>) -> Option<T> {
    opened.inspect_err(|refused| skipped(&format!("userfaultfd refused: {refused}"))).ok()
}

pub fn migrate_back(mm: &dyn HostMm, memory: &dyn HostMemory, window: HostRange) -> usize {
    let request = ClaimRequest { range: window, owner: OWNER, toward: Toward::Ram, fault: None };
    let mut migration = Migration::default();
    let Ok(_) = mm.claim(&request, &mut migration) else { return 0 };
    carry(mm, memory, &mut migration);
    migration.carried()
}

/// Stage, transfer, commit, finish. A hole is carried by its address.
pub fn carry(mm: &dyn HostMm, memory: &dyn HostMemory, migration: &mut Migration) {
    if mm.stage(migration).is_ok() {
        let mut index = 0;
        while let Some(part) = migration.parts.get(index).copied() {
            let mut report = migration.report_from(index);
            let from = part.from.unwrap_or(Place::Host(HostFrame(part.range.start.page_number())));
            match part.to {
                Some(to) => memory.transfer(from, to, part.pages(), &mut |pages, how| report.note(pages, how)),
                None => report.note(part.pages(), Outcome::Failed),
            }
            index = report.part();
        }
        mm.commit(migration);
    }
    mm.finish(migration);
}

/// A claim, tried again as an engine does while notifiers are still to be called for what was mapped there before:
/// `munmap` returns when its event is read, before that.
fn claim_patiently(mm: &LiveMm, request: &ClaimRequest, migration: &mut Migration) -> Result<Claimed, MmError> {
    for _ in 0..1_000 {
        match mm.claim(request, migration) {
            Err(MmError::Stale) => sync::yield_now(),
            answer => return answer,
        }
    }
    Err(MmError::Stale)
}

/// Migrates a range to VRAM; gives the number of pages that moved.
pub fn migrate_to(mm: &LiveMm, vram: &Vram, window: HostRange) -> usize {
    let Some(mut frames) = vram.alloc(window.pages()) else { return 0 };
    let request = ClaimRequest { range: window, owner: OWNER, toward: Toward::Vram(vram.id), fault: None };
    let mut migration = Migration::default();
    if claim_patiently(mm, &request, &mut migration) != Ok(Claimed::Begun) {
        vram.release(frames);
        return 0;
    }
    for part in std::mem::take(&mut migration.parts) {
        for n in 0..part.pages() {
            let range = HostRange::sized(part.range.page_at(n), SZ_4K);
            let frame = frames[window.page_index(range.start)];
            let there = part.from.and_then(Place::device).is_some_and(|page| page.pagemap == vram.id);
            let to = (!there).then_some(Place::Device(DevicePage { pagemap: vram.id, frame }));
            migration.add(Part { range, from: part.from_at(n), to, ..part });
        }
    }
    carry(mm, mm, &mut migration);
    let arrived = |frame: &u64| {
        migration.parts.iter().filter(|part| part.carried()).any(|part| {
            let first = part.to.and_then(Place::device).expect("carried to VRAM");
            (first.frame..first.frame + part.pages() as u64).contains(frame)
        })
    };
    frames.retain(|frame| !arrived(frame));
    vram.release(frames);
    migration.carried()
}

/// Pages of `range` as the page map has them.
pub fn in_vram(mm: &LiveMm, range: HostRange) -> usize {
    (0..range.pages()).filter(|&i| mm.device_page(range.page_at(i)).is_some()).count()
}

pub fn page(range: HostRange, index: usize) -> HostVa {
    range.start.add(index as u64 * SZ_4K)
}

/// Pins the page at `at` as direct IO does: an io_uring that registers it as a buffer. Gives the ring.
pub fn pin(at: HostVa) -> Option<i32> {
    let mut params = [0u8; 120];
    // SAFETY: the kernel reads and writes one io_uring_params of 120 bytes.
    let ring = unsafe { libc::syscall(libc::SYS_io_uring_setup, 1, params.as_mut_ptr()) } as i32;
    let buffer = libc::iovec { iov_base: at.0 as *mut _, iov_len: SZ_4K as usize };
    // SAFETY: IORING_REGISTER_BUFFERS (0) with one iovec.
    let done = unsafe { libc::syscall(libc::SYS_io_uring_register, ring, 0, &raw const buffer, 1) };
    (ring >= 0 && done == 0).then_some(ring)
}

/// Ends that: the buffers are unregistered, and the page is let go a moment later.
pub fn unpin(ring: i32) {
    // SAFETY: IORING_UNREGISTER_BUFFERS (1) takes nothing.
    unsafe { libc::syscall(libc::SYS_io_uring_register, ring, 1, 0, 0) };
    // SAFETY: our own descriptor.
    unsafe { libc::close(ring) };
}
