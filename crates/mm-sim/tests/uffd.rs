//! The model's userfaultfd on every short schedule: what a mover can count on, and what it cannot.

mod every;

use every::explore;
use mm_live::kernel::{Descriptor, Errno, Kernel, Message, Progress, Watch};
use mm_sim::{Advice, Config, Injection, MapKind, Sim, SimKernel};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use sync::atomic::AtomicU32 as Shared;
use units::{HostRange, SZ_4K};

/// A process, its descriptors, two pages of the program that hold 1 and 2, and a buffer for each descriptor.
#[derive(Clone)]
struct Scene {
    sim: Arc<Sim>,
    kernel: Arc<SimKernel>,
    pages: HostRange,
    buffer: HostRange,
    arena: HostRange,
    stop: Arc<Shared>,
    /// Taken over a look at what is known and what is done by it, and over a read and what is learnt from it.
    books: Arc<sync::Mutex<Books>>,
}

/// What is known of the program's pages.
#[derive(Default)]
struct Books {
    unmapped: bool,
}

impl Scene {
    fn new(injection: Injection) -> Self {
        let sim = Sim::new(Config::default());
        let kernel = SimKernel::new(&sim, 1);
        let pages = sim.mmap(2, MapKind::Anonymous);
        sim.store_u64(pages.start, 1).expect("mapped");
        sim.store_u64(pages.page_at(1), 2).expect("mapped");
        let [buffer, arena] = [Descriptor::Program, Descriptor::Device].map(|by| {
            let range = kernel.map_arena(SZ_4K).expect("memory");
            kernel.register(by, range, Watch::Missing).expect("an arena");
            range
        });
        kernel.register(Descriptor::Program, pages, Watch::Missing).expect("anonymous");
        sim.inject(injection);
        Self { sim, kernel, pages, buffer, arena, stop: Arc::default(), books: Arc::default() }
    }
    fn spawn(&self, body: impl FnOnce(Scene) + Send + 'static) -> sync::JoinHandle {
        let scene = self.clone();
        sync::spawn("party", move || body(scene))
    }
    /// Reads until it is told to stop; faults are answered with zeros, events are noted.
    fn read(&self) {
        while self.stop.load() == 0 {
            if self.kernel.wait(-1).messages {
                self.read_once();
            }
        }
    }
    fn read_once(&self) {
        let mut books = self.books.lock();
        let mut message = [Message::Other(0)];
        if self.kernel.read_messages(&mut message) == 0 {
            return;
        }
        match message[0] {
            Message::Unmap(_) => books.unmapped = true,
            Message::Fault { addr, .. } => {
                let page = HostRange::sized(addr, SZ_4K);
                // Refused or filled by another one: it is woken, and asks again.
                let _ = self.kernel.zero(Descriptor::Program, page);
                self.kernel.wake(page);
            }
            Message::Remove(_) | Message::Remap { .. } | Message::Other(_) => {}
        }
    }
    fn end(self, readers: impl IntoIterator<Item = sync::JoinHandle>) {
        self.stop.store(1);
        self.kernel.kick();
        readers.into_iter().for_each(sync::JoinHandle::join);
        self.sim.check().expect("the books balance");
        assert_eq!(self.sim.waiting(), 0, "somebody waits still");
        self.sim.exit();
    }
}

/// How often something was seen, over all schedules.
fn counters<const N: usize>() -> [Arc<AtomicU32>; N] {
    std::array::from_fn(|_| Arc::default())
}

fn count(counter: &AtomicU32) {
    counter.fetch_add(1, Relaxed);
}

fn seen<const N: usize>(counters: &[Arc<AtomicU32>; N]) -> [u32; N] {
    std::array::from_fn(|index| counters[index].load(Relaxed))
}

/// A mover moves the first page of what it knows to be mapped, while one thread drops the second and unmaps both, and another
/// one maps the same place anew. Gives how often it took the old page, the new one, nothing.
fn reuse(by: Descriptor) -> [u32; 3] {
    let taken = counters::<3>();
    let notes = taken.clone();
    explore(2, move || {
        let scene = Scene::new(Injection::default());
        let reader = scene.spawn(|scene| scene.read());
        let unmapper = scene.spawn(|scene| {
            scene.sim.madvise_dontneed(HostRange::sized(scene.pages.page_at(1), SZ_4K));
            scene.sim.munmap(scene.pages);
        });
        let mapper = scene.spawn(|scene| {
            while scene.sim.mmap_at(scene.pages, MapKind::Anonymous).is_err() {
                sync::yield_now();
            }
            scene.sim.store_u64(scene.pages.start, 5).expect("mapped");
        });
        let notes = notes.clone();
        let mover = scene.spawn(move |scene| {
            let to = if by == Descriptor::Program { scene.buffer } else { scene.arena };
            let books = scene.books.lock();
            if books.unmapped {
                return;
            }
            let moved = scene.kernel.move_pages(by, to.start, scene.pages.start, SZ_4K);
            drop(books);
            let what = match moved {
                Progress { bytes: SZ_4K, error: None } => scene.sim.load_u64(to.start).expect("it moved"),
                _ => return count(&notes[2]),
            };
            count(if what == 5 { &notes[1] } else { &notes[0] });
        });
        [unmapper, mapper, mover].into_iter().for_each(sync::JoinHandle::join);
        scene.end([reader]);
    });
    seen(&taken)
}

#[test]
fn the_programs_descriptor_never_moves_what_another_thread_mapped() {
    let [old, new, none] = reuse(Descriptor::Program);
    assert!(old > 0 && none > 0, "{old} {none}");
    assert_eq!(new, 0);
}

#[test]
fn another_descriptor_moves_what_another_thread_mapped() {
    let [old, new, none] = reuse(Descriptor::Device);
    assert!(old > 0 && new > 0 && none > 0, "{old} {new} {none}");
}

/// After the read of a REMOVE a page may be moved away before it is dropped, and come back after: it survives.
#[test]
fn a_page_can_survive_its_dontneed() {
    let found = counters::<2>();
    let notes = found.clone();
    explore(2, move || {
        let scene = Scene::new(Injection::default());
        let dropper = scene.spawn(|scene| scene.sim.madvise_dontneed(scene.pages));
        let (there, away) = (scene.pages.start, scene.buffer.start);
        let mut read = 0;
        while read == 0 {
            read = scene.kernel.read_messages(&mut [Message::Other(0)]);
            sync::yield_now();
        }
        let moved = scene.kernel.move_pages(Descriptor::Program, away, there, SZ_4K).error.is_none();
        dropper.join();
        if moved {
            assert_eq!(scene.kernel.move_pages(Descriptor::Program, there, away, SZ_4K).error, None);
        }
        scene.kernel.unregister(Descriptor::Program, scene.pages).expect("mapped");
        let word = scene.sim.load_u64(there).expect("mapped");
        assert_eq!(word == 1, moved, "it is gone, unless it was away");
        count(&notes[usize::from(moved)]);
        scene.end([]);
    });
    let [gone, survived] = seen(&found);
    assert!(gone > 0 && survived > 0, "{gone} {survived}");
}

/// From the first message of an mremap to the end of the second the descriptor refuses, though nothing is to be read in
/// between for a moment.
#[test]
fn an_mremap_refuses_between_its_messages() {
    let found = counters::<2>();
    let notes = found.clone();
    explore(3, move || {
        let scene = Scene::new(Injection::default());
        let remapper = scene.spawn(|scene| assert!(scene.sim.mremap(scene.pages).is_ok()));
        let mut messages = Vec::new();
        let mut empty = 0;
        while messages.len() < 2 {
            let mut message = [Message::Other(0)];
            if scene.kernel.read_messages(&mut message) == 1 {
                messages.push(message[0]);
            } else if messages.len() == 1 {
                empty = 1;
            }
            assert!(messages.len() != 1 || scene.kernel.event_pending());
            sync::yield_now();
        }
        count(&notes[empty]);
        assert!(matches!(messages[..], [Message::Remap { .. }, Message::Unmap(_)]), "{messages:?}");
        remapper.join();
        assert!(!scene.kernel.event_pending());
        scene.end([]);
    });
    let [at_once, later] = seen(&found);
    assert!(at_once > 0 && later > 0, "{at_once} {later}");
}

/// What is read of an munmap frees its thread; the descriptor refuses until that thread has run.
#[test]
fn the_refusal_outlives_the_read() {
    let found = counters::<2>();
    let notes = found.clone();
    explore(2, move || {
        let scene = Scene::new(Injection::default());
        let unmapper = scene.spawn(|scene| scene.sim.munmap(scene.pages));
        while scene.kernel.read_messages(&mut [Message::Other(0)]) == 0 {
            sync::yield_now();
        }
        count(&notes[usize::from(scene.kernel.event_pending())]);
        unmapper.join();
        scene.end([]);
    });
    let [over, refused] = seen(&found);
    assert!(over > 0 && refused > 0, "{over} {refused}");
}

/// A change of what is watched does not begin in the middle of a move: all of it went, or nothing.
#[test]
fn no_change_begins_inside_of_a_move() {
    let found = counters::<3>();
    let notes = found.clone();
    explore(3, move || {
        let scene = Scene::new(Injection { cuts: 1, ..Injection::default() });
        let arena = scene.kernel.map_arena(SZ_4K).expect("memory");
        scene.kernel.register(Descriptor::Program, arena, Watch::Missing).expect("an arena");
        let reader = scene.spawn(|scene| scene.read());
        let unmapper = scene.spawn(|scene| scene.sim.munmap(scene.pages));
        let moved = scene.kernel.move_pages(Descriptor::Program, arena.start, scene.pages.start, 2 * SZ_4K);
        count(match moved {
            Progress { bytes, error: None } if bytes == 2 * SZ_4K => &notes[0],
            Progress { bytes: 0, error: Some(Errno::AGAIN) } => &notes[1],
            // Between the look for events and the look for the mapping.
            Progress { bytes: 0, error: Some(Errno::NOENT) } => &notes[2],
            other => panic!("{other:?}"),
        });
        unmapper.join();
        scene.end([reader]);
    });
    assert!(seen(&found).iter().all(|times| *times > 0), "{:?}", seen(&found));
}

/// Stores to pages that move to and fro: none is lost, whatever comes in between two pages of a move.
#[test]
fn moves_lose_no_store() {
    explore(2, || {
        let scene = Scene::new(Injection { cuts: 2, ..Injection::default() });
        let arena = scene.kernel.map_arena(SZ_4K).expect("memory");
        scene.kernel.register(Descriptor::Device, arena, Watch::Missing).expect("an arena");
        let cpu = scene.spawn(|scene| {
            for page in [1, 0] {
                scene.sim.fetch_add_u64(scene.pages.page_at(page), 10).expect("mapped");
            }
        });
        let (there, away, len) = (scene.pages, arena.start, 2 * SZ_4K);
        let moved = scene.kernel.move_pages(Descriptor::Device, away, there.start, len);
        assert_eq!(moved, Progress { bytes: len, error: None });
        let back = scene.kernel.move_pages(Descriptor::Program, there.start, away, len);
        assert_eq!(back, Progress { bytes: len, error: None });
        scene.kernel.unregister(Descriptor::Program, there).expect("mapped");
        cpu.join();
        let words = [0, 1].map(|page| scene.sim.load_u64(there.page_at(page)));
        assert_eq!(words, [Ok(11), Ok(12)]);
        scene.end([]);
    });
}

/// Linux 6.18: what moves after a passing EAGAIN is not counted, and is met again.
#[test]
fn a_passing_eagain_makes_moved_pages_uncounted() {
    let found = counters::<3>();
    let notes = found.clone();
    explore(0, move || {
        let scene = Scene::new(Injection { passing: 1, cuts: 1, ..Injection::default() });
        let arena = scene.kernel.map_arena(SZ_4K).expect("memory");
        scene.kernel.register(Descriptor::Device, arena, Watch::Missing).expect("an arena");
        let moved = scene.kernel.move_pages(Descriptor::Device, arena.start, scene.pages.start, 2 * SZ_4K);
        let there = [0, 1].map(|page| scene.kernel.read(arena.page_at(page), &mut [0; 8]).is_ok());
        count(match (moved, there) {
            (Progress { error: None, .. }, [true, true]) => &notes[0],
            (Progress { bytes: 0, error: Some(Errno::EXIST) }, [true, _]) => &notes[1],
            (Progress { bytes: SZ_4K, error: Some(Errno::AGAIN) }, [true, true]) => &notes[2],
            other => panic!("{other:?}"),
        });
        scene.end([]);
    });
    assert!(seen(&found).iter().all(|times| *times > 0), "{:?}", seen(&found));
}

/// What was given to FREE is there or zero, until it is written; then it is there.
#[test]
fn freed_pages_come_and_go_until_they_are_written() {
    let found = counters::<2>();
    let notes = found.clone();
    explore(1, move || {
        let scene = Scene::new(Injection { reclaims: 1, ..Injection::default() });
        scene.kernel.unregister(Descriptor::Program, scene.pages).expect("mapped");
        scene.sim.madvise(scene.pages, Advice::Free).expect("mapped");
        let word = scene.sim.load_u64(scene.pages.start).expect("mapped");
        count(&notes[usize::from(word == 1)]);
        scene.sim.store_u64(scene.pages.start, 7).expect("mapped");
        assert_eq!(scene.sim.load_u64(scene.pages.start), Ok(7));
        scene.end([]);
    });
    assert!(seen(&found).iter().all(|times| *times > 0), "{:?}", seen(&found));
}

/// Who answers a fault in place, over and over, while an event is unread does not come to an end: seen on the real kernel.
#[test]
fn a_fault_that_is_retried_in_place_never_ends() {
    let limits = sync::sim::Limits { steps: 20_000, ..Default::default() };
    let report = sync::sim::run(&mut sync::sim::Random::new(1), limits, || {
        let scene = Scene::new(Injection::default());
        scene.kernel.move_pages(Descriptor::Device, scene.arena.start, scene.pages.start, SZ_4K);
        let cpu = scene.spawn(|scene| assert!(scene.sim.load_u64(scene.pages.start).is_ok()));
        let unmapper = scene.spawn(|scene| scene.sim.munmap(HostRange::sized(scene.pages.page_at(1), SZ_4K)));
        while scene.sim.waiting() < 2 {
            sync::yield_now();
        }
        let mut message = [Message::Other(0)];
        assert_eq!(scene.kernel.read_messages(&mut message), 1);
        assert!(matches!(message[0], Message::Fault { .. }), "faults come first");
        let page = HostRange::sized(scene.pages.start, SZ_4K);
        while scene.kernel.zero(Descriptor::Program, page).error.is_some() {
            sync::yield_now();
        }
        cpu.join();
        unmapper.join();
    });
    assert!(matches!(report.outcome, sync::sim::Outcome::StepLimit { .. }), "{:?}", report.outcome);
}
