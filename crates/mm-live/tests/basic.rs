//! One thing at a time: each rule of the mechanism, with what the kernel says beside what we say.
#![allow(
    unsafe_code,
    clippy::disallowed_types,
    clippy::disallowed_methods,
    reason = "tests play the program: raw memory, threads of its own"
)]

mod world;

use hostmm::*;
use mm_live::{Config, LiveMm};
use std::sync::Arc;
use units::{HostFrame, HostRange, SZ_2M, SZ_4K, SZ_64K};
use world::*;

/// One rule, on a world with two tiles.
type Step = fn(&Arc<LiveMm>, &Vram, &Vram);

fn accounting_is_true(mm: &LiveMm) {
    mm.settle();
    for id in [PagemapId(0), PagemapId(1)] {
        assert_eq!(mm.resident_frames(id), mm.mincore_frames(id), "{id:?}");
    }
}

#[test]
fn the_mechanism_step_by_step() {
    let Some(mm) = start(Config::default()) else { return };
    let vram0 = Vram::insert(&mm, PagemapId(0), 8, SZ_2M);
    let vram1 = Vram::insert(&mm, PagemapId(1), 8, SZ_64K);
    eprintln!("transport {:?}, privilege {:?}", mm.transport(), mm.privilege());
    let steps: &[(&str, Step)] = &[
        ("there and back by a CPU touch", there_and_back),
        ("holes become zeros", holes),
        ("a huge page moves in one piece", huge),
        ("tile to tile", across),
        ("empty frames are found", stale),
        ("munmap frees the frames", munmap),
        ("DONTNEED reads zeros", dontneed),
        ("mremap takes the pages along", mremap),
        ("read-only meanwhile", read_only),
        ("fork finds everything", fork),
        ("an unwanted page goes back", unwanted),
        ("what cannot go back has moved", stranded),
        ("walks", walks),
        ("excluded ranges stay", excluded),
        ("shared after fork", cow),
        ("system calls reach it", syscalls),
        ("an unstaged copy", unstaged),
        ("a pinned huge page stays, in part or whole", pinned_huge),
    ];
    for (name, step) in steps {
        let begun = std::time::Instant::now();
        step(&mm, &vram0, &vram1);
        accounting_is_true(&mm);
        eprintln!("ok {name} ({:?})", begun.elapsed());
    }
    assert!(mm.stop());
    eprintln!("{:#?}", mm.stats());
}

fn filled(bytes: u64) -> HostRange {
    let range = map(bytes);
    (0..range.pages()).for_each(|i| store(page(range, i), 1000 + i as u64));
    range
}

fn there_and_back(mm: &Arc<LiveMm>, vram: &Vram, _: &Vram) {
    let range = filled(SZ_2M);
    assert_eq!(migrate_to(mm, vram, range), 512);
    assert_eq!(in_vram(mm, range), 512);
    let device = mm.device_page(page(range, 7)).unwrap();
    let mut word = [0; 8];
    mm.read(Place::Device(device), 0, &mut word).unwrap();
    assert_eq!(u64::from_le_bytes(word), 1007);
    assert_eq!(mm.atomic(Place::Device(device), 0, 8, AtomicOp::Add(5)), Ok(1007));
    let word_at = |offset, size, op| mm.atomic(Place::Device(device), offset, size, op).unwrap();
    assert_eq!(word_at(16, 4, AtomicOp::Exchange(0x1_0000_0007)), 0);
    assert_eq!(word_at(16, 4, AtomicOp::CompareExchange { expected: 7, new: 9 }), 7);
    assert_eq!(word_at(16, 4, AtomicOp::CompareExchange { expected: 7, new: 1 }), 9);
    assert_eq!(word_at(16, 8, AtomicOp::Sub(10)), 9);
    assert_eq!(word_at(16, 8, AtomicOp::Add(0)), u64::MAX);
    mm.write(Place::Device(device), 24, &[1, 2, 3]).unwrap();
    assert_eq!(load(page(range, 7)), 1012);
    assert_eq!(load(page(range, 7).add(24)), 0x03_0201);
    assert_eq!(in_vram(mm, range), 0);
    (0..512).filter(|&i| i != 7).for_each(|i| assert_eq!(load(page(range, i)), 1000 + i as u64));
    assert_eq!(vram.free_frames(), 8 * SLOT);
    unmap(range);
}

fn holes(mm: &Arc<LiveMm>, vram: &Vram, _: &Vram) {
    let range = map(SZ_2M);
    (0..512).step_by(3).for_each(|i| store(page(range, i), 77));
    assert_eq!(migrate_to(mm, vram, range), 512);
    for i in 0..512 {
        let mut word = [0; 8];
        mm.read(Place::Device(mm.device_page(page(range, i)).unwrap()), 0, &mut word).unwrap();
        assert_eq!(u64::from_le_bytes(word), if i % 3 == 0 { 77 } else { 0 });
    }
    store(page(range, 1), 5);
    assert_eq!((load(page(range, 1)), load(page(range, 3)), load(page(range, 2))), (5, 77, 0));
    unmap(range);
    // A hole of a chunk with pages in VRAM is filled by a reader.
    let range = map(SZ_2M);
    store(page(range, 0), 1);
    assert_eq!(migrate_to(mm, vram, HostRange::sized(range.start, SZ_64K)), 16);
    store(page(range, 100), 2);
    assert_eq!((load(page(range, 100)), load(page(range, 101))), (2, 0));
    assert_eq!(in_vram(mm, range), 16);
    assert!(mm.stats().hole_faults > 0);
    unmap(range);
}

fn huge(mm: &Arc<LiveMm>, vram: &Vram, _: &Vram) {
    let range = map(SZ_2M);
    madvise(range, libc::MADV_HUGEPAGE);
    (0..512).for_each(|i| store(page(range, i), i as u64));
    let mut runs = Vec::new();
    let walk = Walk { range, valid_since: None, vma: None, fault: false, write: false, owner: Some(OWNER) };
    mm.walk(&walk, &mut runs).unwrap();
    let whole = runs[0].order == 9;
    assert_eq!(migrate_to(mm, vram, range), 512);
    assert_eq!(load(page(range, 9)), 9);
    mm.walk(&walk, &mut runs).unwrap();
    assert!(!whole || runs[0].order == 9, "the huge page came back whole");
    unmap(range);
}

fn across(mm: &Arc<LiveMm>, vram0: &Vram, vram1: &Vram) {
    let range = filled(SZ_2M);
    assert_eq!(migrate_to(mm, vram0, range), 512);
    assert_eq!(migrate_to(mm, vram1, range), 512);
    assert_eq!(vram0.free_frames(), 8 * SLOT);
    assert_eq!(mm.device_page(page(range, 3)).unwrap().pagemap, PagemapId(1));
    // Tile 1 takes 64K back at a time.
    assert_eq!(load(page(range, 3)), 1003);
    assert_eq!(in_vram(mm, range), 496);
    let frames: Vec<_> = (0..512).filter_map(|i| mm.device_page(page(range, i))).collect();
    let frames: Vec<_> = frames.into_iter().map(|first| DeviceRun { first, pages: 1 }).collect();
    let mut migration = Migration::default();
    mm.claim_device(&frames, &mut migration).unwrap();
    assert_eq!(migration.pages(), 496);
    mm.finish(&mut migration);
    assert_eq!(in_vram(mm, range), 496);
    assert!(mm.migrate_back(range));
    (0..512).for_each(|i| assert_eq!(load(page(range, i)), 1000 + i as u64));
    unmap(range);
}

fn stale(mm: &Arc<LiveMm>, vram: &Vram, _: &Vram) {
    let nowhere = DevicePage { pagemap: PagemapId(0), frame: 5 };
    let mut word = [0; 8];
    assert_eq!(mm.read(Place::Device(nowhere), 0, &mut word), Err(AccessError::Empty));
    assert_eq!(mm.write(Place::Device(nowhere), 100, &[1; 300]), Err(AccessError::Empty));
    assert_eq!(mm.atomic(Place::Device(nowhere), 0, 4, AtomicOp::Add(1)), Err(AccessError::Empty));
    assert_eq!(mm.read(Place::Host(HostFrame(3)), 0, &mut word), Err(AccessError::Fault));
    let range = filled(SZ_64K);
    assert_eq!(migrate_to(mm, vram, range), 16);
    let device = mm.device_page(range.start).unwrap();
    assert_eq!(load(range.start), 1000);
    assert_eq!(mm.read(Place::Device(device), 0, &mut word), Err(AccessError::Empty));
    unmap(range);
}

fn settled(vram: &Vram) {
    for _ in 0..2000 {
        if vram.free_frames() == 8 * SLOT {
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
    panic!("{} frames are free", vram.free_frames());
}

fn munmap(mm: &Arc<LiveMm>, vram: &Vram, _: &Vram) {
    let range = filled(SZ_2M);
    assert_eq!(migrate_to(mm, vram, range), 512);
    unmap(range);
    settled(vram);
    assert_eq!(in_vram(mm, range), 0);
    map_at(range);
    (0..512).for_each(|i| assert_eq!(load(page(range, i)), 0));
    unmap(range);
}

fn dontneed(mm: &Arc<LiveMm>, vram: &Vram, _: &Vram) {
    let range = filled(SZ_2M);
    let half = HostRange::sized(range.start, SZ_2M / 2);
    assert_eq!(migrate_to(mm, vram, half), 256);
    madvise(range, libc::MADV_DONTNEED);
    (0..512).for_each(|i| assert_eq!(load(page(range, i)), 0, "page {i}"));
    settled(vram);
    unmap(range);
}

fn mremap(mm: &Arc<LiveMm>, vram: &Vram, _: &Vram) {
    let range = filled(SZ_2M);
    let target = map(SZ_2M);
    assert_eq!(migrate_to(mm, vram, range), 512);
    // SAFETY: both ranges belong to this test.
    let at = unsafe {
        libc::mremap(range.start.0 as *mut _, SZ_2M as usize, SZ_2M as usize, 3, target.start.0 as *mut libc::c_void)
    };
    assert_eq!(at as u64, target.start.0);
    assert_eq!(in_vram(mm, target), 512);
    (0..512).for_each(|i| assert_eq!(load(page(target, i)), 1000 + i as u64));
    settled(vram);
    unmap(target);
}

fn read_only(mm: &Arc<LiveMm>, vram: &Vram, _: &Vram) {
    let range = filled(SZ_64K);
    assert_eq!(migrate_to(mm, vram, range), 16);
    // SAFETY: the range belongs to this test.
    assert_eq!(unsafe { libc::mprotect(range.start.0 as *mut _, SZ_64K as usize, libc::PROT_READ) }, 0);
    (0..16).for_each(|i| assert_eq!(load(page(range, i)), 1000 + i as u64));
    assert_eq!(migrate_to(mm, vram, range), 0);
    assert!(!mm.vma_lookup(range.start).unwrap().anonymous);
    settled(vram);
    unmap(range);
}

fn fork(mm: &Arc<LiveMm>, vram: &Vram, _: &Vram) {
    let range = filled(SZ_2M);
    assert_eq!(migrate_to(mm, vram, range), 512);
    assert!(mm.migrate_all_back());
    // SAFETY: the child only reads memory and exits.
    let child = unsafe { libc::fork() };
    if child == 0 {
        mm.after_fork_child();
        let good = (0..512).all(|i| load(page(range, i)) == 1000 + i as u64);
        let gone = mm.claim_device(&[], &mut Migration::default()) == Err(MmError::Gone);
        // SAFETY: ends the child without running the parent's destructors.
        unsafe { libc::_exit(if good && gone { 0 } else { 1 }) };
    }
    mm.thaw();
    let mut status = 0;
    // SAFETY: waits for our own child.
    unsafe { libc::waitpid(child, &mut status, 0) };
    assert_eq!(status, 0);
    unmap(range);
}

fn unwanted(mm: &Arc<LiveMm>, vram: &Vram, _: &Vram) {
    let range = filled(SZ_64K);
    let frames = vram.alloc(16).unwrap();
    let request = ClaimRequest { range, owner: OWNER, toward: Toward::Vram(vram.id), fault: None };
    let (mut migration, mut second) = (Migration::default(), Migration::default());
    mm.claim(&request, &mut migration).unwrap();
    mm.claim(&request, &mut second).unwrap();
    assert!(second.parts.is_empty());
    mm.finish(&mut second);
    let device = DevicePage { pagemap: vram.id, frame: frames[0] };
    migration.aim(range, device);
    mm.stage(&mut migration).unwrap();
    store(page(range, 2), 4711);
    let mut done = Vec::new();
    let from = Place::Host(HostFrame(range.start.page_number()));
    mm.transfer(from, Place::Device(device), 16, &mut |pages, how| done.push((pages, how)));
    assert_eq!(done, [(16, Outcome::Moved)]);
    let mut report = migration.report_from(0);
    report.note(5, Outcome::Failed);
    report.note(1, Outcome::Moved);
    mm.commit(&mut migration);
    let moved: Vec<_> = migration.parts.iter().filter(|part| part.carried()).map(|part| part.range).collect();
    assert_eq!(moved, [HostRange::sized(page(range, 5), SZ_4K)]);
    mm.finish(&mut migration);
    assert_eq!(in_vram(mm, range), 1);
    assert_eq!((load(page(range, 2)), load(page(range, 3))), (4711, 1003));
    vram.release(frames.iter().enumerate().filter(|(i, _)| *i != 5).map(|(_, &frame)| frame));
    assert_eq!(load(page(range, 5)), 1005);
    settled(vram);
    unmap(range);
}

/// A page that is back already, and pinned there, cannot return to VRAM: the engine hears that it moved.
fn stranded(mm: &Arc<LiveMm>, vram: &Vram, _: &Vram) {
    let range = map(SZ_64K);
    store(range.start, 77);
    let window = HostRange::sized(range.start, SZ_4K);
    assert_eq!(migrate_to(mm, vram, window), 1);
    let from = mm.device_page(range.start).expect("in VRAM");
    let request = ClaimRequest { range: window, owner: OWNER, toward: Toward::Ram, fault: None };
    let mut migration = Migration::default();
    mm.claim(&request, &mut migration).expect("a claim");
    mm.stage(&mut migration).expect("a destination");
    let back = migration.parts[0].to.expect("a frame");
    let mut how = Outcome::Failed;
    mm.transfer(Place::Device(from), back, 1, &mut |_, outcome| how = outcome);
    assert_ne!(how, Outcome::Failed);
    let ring = pin(range.start);
    // The notifiers were not called, and the engine wants nothing.
    mm.commit(&mut migration);
    let moved = migration.parts[0].carried();
    assert_eq!(moved, mm.device_page(range.start).is_none(), "what is said is what is so");
    mm.finish(&mut migration);
    match ring {
        Some(ring) => {
            assert!(moved, "a pinned page moved");
            unpin(ring);
        }
        None => skipped("io_uring refused"),
    }
    assert_eq!(load(range.start), 77);
    settled(vram);
    unmap(range);
}

fn walks(mm: &Arc<LiveMm>, vram: &Vram, _: &Vram) {
    let range = map(SZ_64K);
    store(page(range, 1), 1);
    let look = Walk { range, valid_since: None, vma: None, fault: false, write: false, owner: Some(OWNER) };
    let mut runs = Vec::new();
    let place = |runs: &[WalkRun], index| {
        let run = runs.iter().find(|run| run.run.range.contains(page(range, index))).expect("no gaps").run;
        run.place_at(run.range.page_index(page(range, index)))
    };
    mm.walk(&look, &mut runs).unwrap();
    assert_eq!(place(&runs, 0), None);
    assert_eq!(place(&runs, 1), Some(Place::Host(HostFrame(page(range, 1).page_number()))));
    assert_eq!(migrate_to(mm, vram, HostRange::sized(page(range, 1), SZ_4K)), 1);
    let fault = Walk { fault: true, write: true, ..look };
    mm.walk(&fault, &mut runs).unwrap();
    assert!(matches!(place(&runs, 1), Some(Place::Device(_))));
    assert!(runs.iter().all(|run| run.run.place.is_some() && run.write));
    mm.walk(&Walk { owner: None, ..fault }, &mut runs).unwrap();
    assert!(matches!(place(&runs, 1), Some(Place::Host(_))));
    assert_eq!(load(page(range, 1)), 1);
    assert_eq!(
        mm.walk(&Walk { range: HostRange::sized(units::HostVa(SZ_4K), SZ_4K), ..fault }, &mut runs),
        Err(MmError::NoVma)
    );
    unmap(range);
}

fn excluded(mm: &Arc<LiveMm>, vram: &Vram, _: &Vram) {
    let range = filled(SZ_64K);
    mm.exclude(HostRange::sized(page(range, 4), SZ_4K));
    assert!(!mm.vma_lookup(page(range, 4)).unwrap().anonymous);
    let below = mm.vma_lookup(page(range, 1)).unwrap();
    assert!(below.anonymous && below.range.end == page(range, 4));
    assert_eq!(migrate_to(mm, vram, range), 0);
    mm.readmit(HostRange::sized(page(range, 4), SZ_4K));
    assert_eq!(migrate_to(mm, vram, range), 16);
    unmap(range);
}

fn cow(mm: &Arc<LiveMm>, vram: &Vram, _: &Vram) {
    let range = filled(SZ_64K);
    // SAFETY: the child waits to be killed and touches nothing.
    let child = unsafe { libc::fork() };
    if child == 0 {
        loop {
            // SAFETY: waits.
            unsafe { libc::pause() };
        }
    }
    let moved = migrate_to(mm, vram, range);
    // SAFETY: our own child.
    unsafe { libc::kill(child, libc::SIGKILL) };
    // SAFETY: our own child.
    unsafe { libc::waitpid(child, std::ptr::null_mut(), 0) };
    assert_eq!(moved, 16, "copy-on-write was broken first");
    (0..16).for_each(|i| assert_eq!(load(page(range, i)), 1000 + i as u64));
    unmap(range);
}

fn syscalls(mm: &Arc<LiveMm>, vram: &Vram, _: &Vram) {
    let range = filled(SZ_64K);
    assert_eq!(migrate_to(mm, vram, range), 16);
    let mut fds = [0; 2];
    // SAFETY: two descriptors into an array of two.
    assert_eq!(unsafe { libc::pipe(fds.as_mut_ptr()) }, 0);
    // SAFETY: the kernel reads eight mapped bytes.
    let wrote = unsafe { libc::write(fds[1], range.start.0 as *const _, 8) };
    assert_eq!(wrote, if mm.privilege() == mm_live::Privilege::Full { 8 } else { -1 });
    fds.iter().for_each(|&fd| {
        // SAFETY: ours.
        unsafe { libc::close(fd) };
    });
    let mut word = [0; 8];
    assert!(mm.migrate_back(range));
    assert_eq!(migrate_to(mm, vram, range), 16);
    mm.copy_from_user(page(range, 3), &mut word).unwrap();
    assert_eq!(u64::from_le_bytes(word), 1003);
    mm.copy_to_user(page(range, 3).add(4092), &[1; 8]).unwrap();
    assert_eq!(load(page(range, 4)), 0x01010101);
    unmap(range);
    assert_eq!(mm.copy_from_user(page(range, 3), &mut word), Err(AccessError::Fault));
}

fn unstaged(mm: &Arc<LiveMm>, vram: &Vram, _: &Vram) {
    // Page tables that are wrong by one page: the bytes go where the tables say, and that is copied.
    let range = filled(2 * SZ_4K);
    let other = filled(SZ_4K);
    let frames = vram.alloc(1).unwrap();
    let device = DevicePage { pagemap: vram.id, frame: frames[0] };
    let window = HostRange::sized(range.start, SZ_4K);
    let request = ClaimRequest { range: window, owner: OWNER, toward: Toward::Vram(vram.id), fault: None };
    let mut migration = Migration::default();
    mm.claim(&request, &mut migration).unwrap();
    migration.aim(window, device);
    mm.stage(&mut migration).unwrap();
    let from = Place::Host(HostFrame(other.start.page_number()));
    let mut report = migration.report_from(0);
    mm.transfer(from, Place::Device(device), 1, &mut |pages, how| report.note(pages, how));
    assert_eq!(migration.parts[0].outcome, Outcome::Copied);
    mm.commit(&mut migration);
    mm.finish(&mut migration);
    store(page(other, 0), 5);
    assert_eq!((load(page(range, 0)), load(page(other, 0))), (1000, 5), "the wrong page, as the tables said");
    settled(vram);
    unmap(range);
    unmap(other);
}

fn pinned_huge(mm: &Arc<LiveMm>, vram: &Vram, _: &Vram) {
    let range = map(SZ_2M);
    madvise(range, libc::MADV_HUGEPAGE);
    (0..512).for_each(|i| store(page(range, i), i as u64));
    let Some(ring) = pin(page(range, 3)) else { return skipped("io_uring refused") };
    for part in [range, HostRange::sized(range.start, SZ_64K), HostRange::sized(page(range, 64), SZ_64K)] {
        let moved = migrate_to(mm, vram, part);
        eprintln!("of {} pages of a huge page with a pin, {moved} moved", part.pages());
        assert!(mm.device_page(page(range, 3)).is_none(), "the pinned page stays");
        (0..512).for_each(|i| assert_eq!(load(page(range, i)), i as u64));
        assert!(mm.migrate_back(range));
    }
    unpin(ring);
    settled(vram);
    unmap(range);
}
