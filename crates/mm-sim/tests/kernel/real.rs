//! The real kernel as a stage: the program's calls by libc, its threads by threads.
#![allow(
    unsafe_code,
    clippy::disallowed_types,
    clippy::disallowed_methods,
    reason = "tests play the program: raw memory, threads of its own"
)]

use crate::cases;
use crate::script::{Call, Case, Kind, Outcome, Place, Stage, by_kernel, play};
use mm_live::kernel::{Errno, Fault, Kernel};
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, AtomicU64, Ordering::SeqCst};
use std::thread::JoinHandle;
use std::time::Duration;
use units::{HostRange, HostVa, SZ_2M, SZ_4K};

/// Where no kernel puts a mapping by itself. Each case has a part of its own.
static NEXT_AREA: AtomicU64 = AtomicU64::new(0x5000_0000_0000);
const AREA: u64 = 8 * SZ_2M;

struct Real {
    kernel: Arc<dyn Kernel>,
    area: HostVa,
    begun: BTreeMap<usize, JoinHandle<Outcome>>,
}

fn last(failed: bool) -> Outcome {
    if failed {
        Outcome::Failed(Errno(std::io::Error::last_os_error().raw_os_error().unwrap_or(0)))
    } else {
        Outcome::Fine
    }
}

fn map(range: HostRange, protection: i32, flags: i32) -> Outcome {
    let flags = flags | libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
    // SAFETY: the range belongs to the case.
    let got = unsafe { libc::mmap(range.start.0 as *mut _, range.len() as usize, protection, flags, -1, 0) };
    last(got == libc::MAP_FAILED)
}

fn advise(range: HostRange, advice: i32) -> Outcome {
    // SAFETY: the range belongs to the case.
    last(unsafe { libc::madvise(range.start.0 as *mut _, range.len() as usize, advice) } != 0)
}

fn protect(range: HostRange, protection: i32) -> Outcome {
    // SAFETY: the range belongs to the case.
    last(unsafe { libc::mprotect(range.start.0 as *mut _, range.len() as usize, protection) } != 0)
}

fn remap(from: HostRange, len: u64, flags: i32, to: HostVa) -> Outcome {
    let (at, old) = (from.start.0 as *mut libc::c_void, from.len() as usize);
    // SAFETY: both ranges belong to the case.
    last(unsafe { libc::mremap(at, old, len as usize, flags, to.0 as *mut libc::c_void) } == libc::MAP_FAILED)
}

fn fork_load(kernel: &dyn Kernel, at: HostVa) -> Outcome {
    let mut pipe = [0; 2];
    // SAFETY: two descriptors into an array of two.
    assert_eq!(unsafe { libc::pipe(pipe.as_mut_ptr()) }, 0);
    // SAFETY: the child reads memory, writes to a pipe and exits.
    let child = unsafe { libc::fork() };
    if child == 0 {
        let mut word = [0; 8];
        if kernel.read(at, &mut word).is_ok() {
            // SAFETY: eight bytes of our own.
            unsafe { libc::write(pipe[1], word.as_ptr().cast(), 8) };
        }
        // SAFETY: ends the child without running the parent's destructors.
        unsafe { libc::_exit(0) };
    }
    let mut word = [0u8; 8];
    // SAFETY: our own descriptor.
    unsafe { libc::close(pipe[1]) };
    // SAFETY: eight bytes of our own.
    let got = unsafe { libc::read(pipe[0], word.as_mut_ptr().cast(), 8) };
    // SAFETY: our own child.
    unsafe { libc::waitpid(child, std::ptr::null_mut(), 0) };
    // SAFETY: our own descriptor.
    unsafe { libc::close(pipe[0]) };
    if got == 8 { Outcome::Word(u64::from_le_bytes(word)) } else { Outcome::Signal(Fault::Segv) }
}

fn call(kernel: &dyn Kernel, place: &Place, what: Call) -> Outcome {
    const READ_WRITE: i32 = libc::PROT_READ | libc::PROT_WRITE;
    let nowhere = HostVa(0);
    match what {
        Call::Map(span, kind) => {
            let range = place.range(span);
            let protection = if matches!(kind, Kind::Unwritable) { libc::PROT_READ } else { READ_WRITE };
            let mapped = map(range, protection, libc::MAP_FIXED_NOREPLACE);
            if matches!(kind, Kind::Huge) { advise(range, libc::MADV_HUGEPAGE) } else { mapped }
        }
        Call::MapOver(span) => map(place.range(span), READ_WRITE, libc::MAP_FIXED),
        Call::Munmap(span) => {
            let range = place.range(span);
            // SAFETY: the range belongs to the case.
            last(unsafe { libc::munmap(range.start.0 as *mut _, range.len() as usize) } != 0)
        }
        Call::Move(span, to) => {
            let from = place.range(span);
            remap(from, from.len(), libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED, place.at(to))
        }
        Call::MoveKeeping(span, to) => {
            const DONTUNMAP: i32 = 4;
            let from = place.range(span);
            remap(from, from.len(), libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED | DONTUNMAP, place.at(to))
        }
        Call::Resize(span, pages) => remap(place.range(span), pages * SZ_4K, libc::MREMAP_MAYMOVE, nowhere),
        Call::DontNeed(span) => advise(place.range(span), libc::MADV_DONTNEED),
        Call::Free(span) => advise(place.range(span), libc::MADV_FREE),
        Call::PageOut(span) => advise(place.range(span), libc::MADV_PAGEOUT),
        Call::ReadOnly(span) => protect(place.range(span), libc::PROT_READ),
        Call::ReadWrite(span) => protect(place.range(span), READ_WRITE),
        Call::ForkLoad(at) => fork_load(kernel, place.at(at)),
        Call::Load(_) | Call::Store(..) | Call::Populate(..) | Call::Copy(..) => unreachable!("the kernel does that"),
    }
}

/// Whether a thread of ours sleeps: state S or D, several times in a row, as a lock of the kernel is waited for shortly.
fn sleeps(thread: i32) -> bool {
    let asleep = || {
        let stat = std::fs::read_to_string(format!("/proc/self/task/{thread}/stat")).unwrap_or_default();
        let state = stat.rsplit(") ").next().and_then(|rest| rest.chars().next());
        std::thread::sleep(Duration::from_micros(200));
        matches!(state, Some('S' | 'D'))
    };
    (0..4).all(|_| asleep())
}

impl Stage for Real {
    fn kernel(&self) -> Arc<dyn Kernel> {
        self.kernel.clone()
    }
    fn area(&self) -> HostVa {
        self.area
    }
    fn call(&self, place: &Place, what: Call) -> Outcome {
        call(&*self.kernel, place, what)
    }
    fn begin(&mut self, thread: usize, place: &Place, what: Call) {
        let begun = Arc::new(AtomicI32::new(0));
        let (kernel, place, mine) = (self.kernel.clone(), *place, begun.clone());
        let handle = std::thread::spawn(move || {
            // SAFETY: gives a number.
            mine.store(unsafe { libc::gettid() }, SeqCst);
            by_kernel(&*kernel, &place, what).unwrap_or_else(|| call(&*kernel, &place, what))
        });
        while begun.load(SeqCst) == 0 || !handle.is_finished() && !sleeps(begun.load(SeqCst)) {
            std::thread::yield_now();
        }
        assert!(!handle.is_finished(), "{what:?} came back: {:?}", handle.join());
        self.begun.insert(thread, handle);
    }
    fn is_back(&mut self, thread: usize) -> bool {
        self.begun[&thread].is_finished()
    }
    fn end(&mut self, thread: usize) -> Outcome {
        let handle = self.begun.remove(&thread).expect("begun");
        let mut tries = 10_000;
        while !handle.is_finished() {
            std::thread::sleep(Duration::from_millis(1));
            tries -= 1;
            assert!(tries > 0, "thread {thread} does not come back");
        }
        handle.join().expect("the thread ends well")
    }
    fn collapse(&self, range: HostRange) -> bool {
        const MADV_COLLAPSE: i32 = 25;
        advise(range, MADV_COLLAPSE) == Outcome::Fine
    }
}

/// What is wrong with a case.
fn run(case: &Case) -> Option<String> {
    let kernel = match mm_live::linux(case.transport) {
        Ok(kernel) => kernel,
        Err(refused) => {
            skipped(&format!("userfaultfd refused: {refused}"));
            return None;
        }
    };
    println!("{}", case.name);
    let area = HostVa(NEXT_AREA.fetch_add(AREA, SeqCst));
    let mut real = Real { kernel, area, begun: BTreeMap::new() };
    let played = catch_unwind(AssertUnwindSafe(|| play(&mut real, case)));
    let left = real.begun.len();
    drop(real);
    if played.is_ok() && left == 0 {
        // SAFETY: the area belongs to the case, and nobody watches it any more.
        unsafe { libc::munmap(area.0 as *mut _, AREA as usize) };
    }
    match played {
        Ok(true) if left == 0 => return None,
        Ok(true) => return Some(format!("{}: a thread is left", case.name)),
        Ok(false) => skipped(&format!("{}: no 2M page to be had", case.name)),
        Err(_) => return Some(case.name.into()),
    }
    None
}

#[test]
fn every_case_holds_on_the_real_kernel() {
    let wrong: Vec<String> = cases::all().filter_map(run).collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Says that a test did not run, past the harness. In CI nothing may skip.
fn skipped(why: &str) {
    use std::io::Write;
    assert!(std::env::var_os("PONTOON_CI").is_none(), "CI must not skip: {why}");
    let _ = writeln!(std::io::stderr(), "SKIPPED: {why}");
}
