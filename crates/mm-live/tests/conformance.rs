//! The conformance suite of `hostmm` on this process's own memory: each case has a world of its own.
#![allow(
    unsafe_code,
    clippy::disallowed_types,
    clippy::disallowed_methods,
    reason = "tests play the program: raw memory, threads of its own"
)]

mod world;

use hostmm::conformance::{self, Body, Contract, Cpu, Join, Mapping, World};
use hostmm::{HostMemory, HostMm, PagemapId};
use mm_live::{Config, LiveMm, Transport};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use units::{HostRange, HostVa, SZ_2M, bytes_of};
use world::{load, map_at, store, unmap};

struct LiveWorld {
    mm: Arc<LiveMm>,
    mapped: Mutex<Vec<HostRange>>,
    pins: Mutex<Vec<(HostVa, i32)>>,
}

/// A CPU thread of the program: the machine's own.
struct Machine;

impl Cpu for Machine {
    fn load(&self, at: HostVa) -> u64 {
        load(at)
    }
    fn store(&self, at: HostVa, value: u64) {
        store(at, value);
    }
    fn fetch_add(&self, at: HostVa, value: u64) -> u64 {
        // SAFETY: an aligned word of mapped memory of the case.
        unsafe { AtomicU64::from_ptr(at.0 as *mut u64) }.fetch_add(value, Ordering::SeqCst)
    }
}

impl Cpu for LiveWorld {
    fn load(&self, at: HostVa) -> u64 {
        Machine.load(at)
    }
    fn store(&self, at: HostVa, value: u64) {
        Machine.store(at, value);
    }
    fn fetch_add(&self, at: HostVa, value: u64) -> u64 {
        Machine.fetch_add(at, value)
    }
}

impl World for LiveWorld {
    fn contract(&self) -> Contract {
        Contract::USERFAULTFD
    }
    fn mm(&self) -> Arc<dyn HostMm> {
        self.mm.clone()
    }
    fn memory(&self) -> Arc<dyn HostMemory> {
        self.mm.clone()
    }

    fn mmap(&self, pages: usize, kind: Mapping) -> HostRange {
        // A guard of no mapping on both sides: reserve much, keep the middle.
        let whole = world::map(bytes_of(pages).next_multiple_of(SZ_2M) + 2 * SZ_2M);
        let range = HostRange::sized(whole.start.add(SZ_2M), bytes_of(pages));
        unmap(HostRange::new(whole.start, range.start));
        unmap(HostRange::new(range.end, whole.end));
        let at = range.start.0 as *mut libc::c_void;
        match kind {
            Mapping::Anonymous => {}
            Mapping::Huge => drop(world::madvise(range, libc::MADV_HUGEPAGE)),
            Mapping::ReadOnly => self.protect_read_only(range),
            Mapping::Shared => {
                // SAFETY: the range is ours.
                let got = unsafe {
                    libc::mmap(
                        at,
                        range.len() as usize,
                        3,
                        libc::MAP_SHARED | libc::MAP_ANONYMOUS | libc::MAP_FIXED,
                        -1,
                        0,
                    )
                };
                assert_eq!(got, at);
            }
        }
        self.mapped.lock().unwrap().push(range);
        range
    }
    fn munmap(&self, range: HostRange) {
        unmap(range);
        self.forget(range);
    }
    fn dontneed(&self, range: HostRange) {
        assert_eq!(world::madvise(range, libc::MADV_DONTNEED), 0);
    }
    fn protect_read_only(&self, range: HostRange) {
        // SAFETY: the range is ours.
        assert_eq!(unsafe { libc::mprotect(range.start.0 as *mut _, range.len() as usize, libc::PROT_READ) }, 0);
    }
    fn mremap(&self, range: HostRange) -> HostRange {
        let target = self.mmap(range.pages(), Mapping::Anonymous);
        let len = range.len() as usize;
        let change = || {
            // SAFETY: both ranges are ours.
            unsafe { libc::mremap(range.start.0 as *mut _, len, len, 3, target.start.0 as *mut libc::c_void) }
        };
        // What the preload library's wrapper does.
        let moved = self.mm.while_in_system(range, Some(hostmm::EventKind::Unmap), change);
        assert_eq!(moved as u64, target.start.0);
        self.forget(range);
        target
    }
    fn pin(&self, at: HostVa) {
        let ring = world::pin(at).expect("io_uring pins a page");
        self.pins.lock().unwrap().push((at, ring));
    }
    fn unpin(&self, at: HostVa) {
        let mut pins = self.pins.lock().unwrap();
        while let Some(index) = pins.iter().position(|pin| pin.0 == at) {
            world::unpin(pins.remove(index).1);
        }
    }
    fn fork_loads(&self, at: &[HostVa]) -> Vec<u64> {
        let mut pipe = [0; 2];
        // SAFETY: two descriptors into an array of two.
        assert_eq!(unsafe { libc::pipe(pipe.as_mut_ptr()) }, 0);
        assert!(self.mm.migrate_all_back());
        // SAFETY: the child reads memory, writes to a pipe and exits.
        let child = unsafe { libc::fork() };
        if child == 0 {
            self.mm.after_fork_child();
            for &at in at {
                let word = load(at);
                // SAFETY: eight bytes of our own.
                unsafe { libc::write(pipe[1], (&raw const word).cast(), 8) };
            }
            // SAFETY: ends the child without running the parent's destructors.
            unsafe { libc::_exit(0) };
        }
        self.mm.thaw();
        let read = at.iter().map(|_| {
            let mut word = 0u64;
            // SAFETY: eight bytes of our own.
            assert_eq!(unsafe { libc::read(pipe[0], (&raw mut word).cast(), 8) }, 8);
            word
        });
        let words = read.collect();
        // SAFETY: our own child and descriptors.
        unsafe { libc::waitpid(child, std::ptr::null_mut(), 0) };
        for fd in pipe {
            // SAFETY: ours.
            unsafe { libc::close(fd) };
        }
        words
    }

    fn spawn(&self, body: Body) -> Join {
        let thread = std::thread::spawn(move || body(&Machine));
        Box::new(move || thread.join().expect("a CPU thread ends well"))
    }
    fn pause(&self) {
        std::thread::yield_now();
    }
    fn settle(&self) {
        self.mm.settle();
    }
    fn audit(&self) -> Result<(), String> {
        for id in (0..4).map(PagemapId) {
            let (accounted, real) = (self.mm.resident_frames(id), self.mm.mincore_frames(id));
            if accounted != real {
                return Err(format!("{id:?}: {accounted} frames accounted, {real} really resident"));
            }
        }
        Ok(())
    }
}

impl LiveWorld {
    /// What is unmapped may be somebody else's a moment later: it must not be unmapped again.
    fn forget(&self, gone: HostRange) {
        let mut mapped = self.mapped.lock().unwrap();
        let rest = |range: HostRange| {
            let before = HostRange::new(range.start, range.end.min(gone.start));
            let behind = HostRange::new(range.start.max(gone.end), range.end);
            [before, behind].into_iter().filter(|rest| !rest.is_empty())
        };
        *mapped = mapped.iter().copied().flat_map(rest).collect();
    }
}

/// Some cases look at an address at which nothing is mapped any more, so nobody else may map meanwhile.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

fn run(config: Config) {
    let _alone = alone();
    for (name, case) in conformance::all() {
        let mm = match LiveMm::start(config) {
            Ok(mm) => mm,
            Err(refused) => return world::skipped(&format!("userfaultfd refused: {refused}")),
        };
        if mm.transport() == Transport::Copy && *name == "a_pinned_page_fails_alone" {
            eprintln!("{name} is not for copies: a copy does not notice pins (docs/hostmm.md)");
            assert!(mm.stop());
            continue;
        }
        eprintln!("{:?}: {name}", mm.transport());
        let world = LiveWorld { mm, mapped: Mutex::default(), pins: Mutex::default() };
        case(&world);
        world.mapped.lock().unwrap().iter().for_each(|&range| unmap(range));
        world.mm.settle();
        assert!(world.mm.stop(), "{name}: everything migrates back");
    }
}

#[test]
fn moving_conforms() {
    run(Config::default());
}

#[test]
fn one_reader_is_enough() {
    run(Config { readers: Some(1), ..Config::default() });
}

#[test]
fn copying_conforms() {
    run(Config { transport: Transport::Copy, ..Config::default() });
}

#[test]
fn a_mapping_at_the_same_place_is_another() {
    let _alone = alone();
    let Ok(mm) = LiveMm::start(Config::default()) else { return world::skipped("userfaultfd refused") };
    let vram = world::Vram::insert(&mm, PagemapId(0), 2, SZ_2M);
    let range = world::map(SZ_2M);
    for round in 0..100 {
        (0..512).for_each(|i| store(world::page(range, i), round));
        // A page that somebody else holds for a moment (compaction, a look by the kernel) may stay; the first must not.
        let moved = world::migrate_to(&mm, &vram, range);
        assert!(moved > 500, "round {round}: {moved} of 512 pages moved");
        map_at(range);
        assert_eq!(load(range.start), 0, "round {round}");
        mm.settle();
    }
    unmap(range);
    mm.settle();
    assert!(mm.stop());
}
