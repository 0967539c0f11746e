//! What the program does to its mappings meanwhile: one function a thread, each for ever until the stage ends.

use super::*;

/// An address that two threads use in turn, far from what the kernel gives by itself.
pub(super) const PLACE: HostRange = HostRange::sized(HostVa(0x5e00_0000_0000), SZ_64K);

/// Has the place for a while. Gives it up by DONTNEED and munmap, while the other one takes it as soon as it is free.
pub(super) fn owner(stage: &Stage, number: usize) {
    let mut random = Random(17 + number as u64);
    let mut round = 0;
    while stage.beat(11 + number) {
        if stage.turn.load(SeqCst) % 2 != number as u64 {
            std::thread::yield_now();
            continue;
        }
        // SAFETY: nothing is replaced.
        let got = unsafe { libc::mmap(PLACE.start.0 as *mut _, PLACE.len() as usize, 3, 0x10_0022, -1, 0) };
        if got as u64 != PLACE.start.0 {
            // The other one has it still.
            continue;
        }
        round += 2;
        let word = round + number as u64;
        (0..PLACE.pages()).for_each(|i| verify(stage, "owner zero", page(PLACE, i), 0));
        (0..PLACE.pages()).for_each(|i| store(page(PLACE, i), word));
        for _ in 0..random.below(4) {
            std::thread::sleep(Duration::from_micros(random.below(300)));
            (0..PLACE.pages()).for_each(|i| verify(stage, "owner", page(PLACE, i), word));
        }
        stage.turn.fetch_add(1, SeqCst);
        if random.below(4) != 0 {
            assert_eq!(madvise(PLACE, libc::MADV_DONTNEED), 0);
        }
        unmap(PLACE);
        stage.counts.owners.fetch_add(1, SeqCst);
    }
}

/// mmap over, and munmap with mmap at the same place.
pub(super) fn mapper(stage: &Stage) {
    let mut random = Random(7);
    let mut round = 1;
    while stage.beat(5) {
        let area = stage.area(0);
        round += 1;
        (0..512).step_by(5).for_each(|i| store(page(area, i), round));
        std::thread::sleep(Duration::from_micros(random.below(300)));
        (0..512).step_by(5).for_each(|i| verify(stage, "mapper", page(area, i), round));
        let first = random.below(31) as usize * 16;
        let part = HostRange::new(page(area, first), page(area, first + 16));
        if random.below(2) == 0 {
            map_at(part);
        } else {
            unmap(part);
            // SAFETY: nothing is replaced.
            let got = unsafe { libc::mmap(part.start.0 as *mut _, SZ_64K as usize, 3, 0x10_0022, -1, 0) };
            if got as u64 != part.start.0 {
                // Somebody else's mapping took the place: leave it to them, and begin elsewhere.
                let fresh = map(SZ_2M);
                stage.areas[0].start.store(fresh.start.0, SeqCst);
                unmap(HostRange::new(area.start, part.start));
                unmap(HostRange::new(part.end, area.end));
                continue;
            }
        }
        (first..first + 16).for_each(|i| verify(stage, "mapper zero", page(area, i), 0));
        stage.counts.maps.fetch_add(1, SeqCst);
    }
}

/// DONTNEED.
pub(super) fn dropper(stage: &Stage) {
    let mut random = Random(9);
    let mut round = 1;
    let area = stage.area(1);
    while stage.beat(6) {
        round += 1;
        let first = random.below(500) as usize;
        let count = 1 + random.below(12) as usize;
        (first..first + count).for_each(|i| store(page(area, i), round));
        if random.below(3) == 0 {
            std::thread::sleep(Duration::from_micros(random.below(200)));
        }
        (first..first + count).for_each(|i| verify(stage, "dropper", page(area, i), round));
        assert_eq!(madvise(HostRange::new(page(area, first), page(area, first + count)), libc::MADV_DONTNEED), 0);
        (first..first + count).for_each(|i| verify(stage, "dropper zero", page(area, i), 0));
        stage.counts.drops.fetch_add(1, SeqCst);
    }
}

/// mremap to another place, raw where the kernel allows it, else as a wrapper would.
pub(super) fn remapper(stage: &Stage) {
    guard(stage);
    let mut random = Random(11);
    let mut round = 1;
    while stage.beat(7) {
        let area = stage.area(2);
        round += 1;
        (0..512).step_by(3).for_each(|i| store(page(area, i), round));
        std::thread::sleep(Duration::from_micros(random.below(500)));
        let target = map(SZ_2M);
        let go = || {
            // SAFETY: both ranges belong to this thread.
            let at = unsafe {
                libc::mremap(
                    area.start.0 as *mut _,
                    SZ_2M as usize,
                    SZ_2M as usize,
                    3,
                    target.start.0 as *mut libc::c_void,
                )
            };
            at as u64 == target.start.0
        };
        let mut done = go();
        while !done {
            // A piece of it is registered and a piece is not.
            stage.counts.raw_remaps_refused.fetch_add(1, SeqCst);
            stage.mm.migrate_back(area);
            done = go();
        }
        stage.areas[2].start.store(target.start.0, SeqCst);
        (0..512).step_by(3).for_each(|i| verify(stage, "remapper", page(target, i), round));
        stage.counts.remaps.fetch_add(1, SeqCst);
    }
}

/// mremap that grows.
pub(super) fn grower(stage: &Stage) {
    guard(stage);
    let mut round = 1;
    while stage.beat(10) {
        round += 1;
        let area = map(SZ_2M);
        store(area.start, round);
        store(page(area, 511), round);
        stage.areas[3].start.store(area.start.0, SeqCst);
        std::thread::sleep(Duration::from_micros(400));
        let go = || {
            // SAFETY: the range belongs to this thread.
            unsafe { libc::mremap(area.start.0 as *mut _, SZ_2M as usize, 2 * SZ_2M as usize, libc::MREMAP_MAYMOVE) }
        };
        // As the C library's realloc does it, unseen by any wrapper, and as a wrapper does.
        let mut at = if round % 2 == 0 { go() } else { libc::MAP_FAILED };
        if at == libc::MAP_FAILED {
            at = stage.mm.while_in_system(area, Some(EventKind::Unmap), go);
        }
        assert_ne!(at, libc::MAP_FAILED);
        let at = at as u64;
        let grown = HostRange::sized(HostVa(at), 2 * SZ_2M);
        verify(stage, "grower", grown.start, round);
        verify(stage, "grower", page(grown, 511), round);
        verify(stage, "grower zero", page(grown, 512), 0);
        unmap(grown);
        stage.counts.grown.fetch_add(1, SeqCst);
    }
}

pub(super) fn forker(stage: &Stage) {
    guard(stage);
    while stage.beat(8) {
        std::thread::sleep(Duration::from_millis(100));
        // On a busy machine its ten seconds may be over before a thread that holds a page has run. Who watches says how long is too long.
        while !stage.mm.migrate_all_back() {
            stage.mm.thaw();
        }
        // SAFETY: the child reads memory and exits.
        let child = unsafe { libc::fork() };
        if child == 0 {
            stage.mm.after_fork_child();
            let good = (0..512).all(|i| load(page(stage.constant, i)) == 7 + i as u64);
            // SAFETY: ends the child without running the parent's destructors.
            unsafe { libc::_exit(i32::from(!good)) };
        }
        stage.mm.thaw();
        let mut status = 0;
        // SAFETY: our own child.
        unsafe { libc::waitpid(child, &mut status, 0) };
        if status != 0 {
            stage.lose("child", stage.constant.start, status as u64, 0);
        }
        stage.counts.forks.fetch_add(1, SeqCst);
    }
}

pub(super) fn loader(stage: &Stage) {
    let names = [c"libresolv.so.2", c"libutil.so.1", c"libanl.so.1", c"libthread_db.so.1", c"libnss_dns.so.2"];
    let mut turn = 0;
    while stage.beat(9) {
        turn += 1;
        // SAFETY: a library of the C library's own, opened and closed.
        let library = unsafe { libc::dlopen(names[turn % names.len()].as_ptr(), libc::RTLD_NOW) };
        if !library.is_null() {
            // SAFETY: just opened.
            unsafe { libc::dlclose(library) };
            stage.counts.loads.fetch_add(1, SeqCst);
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Buffer objects: each has bytes of its own, from zeros on.
pub(super) fn objects(stage: &Stage) {
    guard(stage);
    let mut random = Random(23);
    while stage.beat(13) {
        std::thread::sleep(Duration::from_micros(random.below(500)));
        let pages = 1 + random.below(16);
        let Some(first) = stage.mm.object_create(pages, 0) else { continue };
        for page in 0..pages {
            let place = Place::Host(first.add(page));
            for old in [0, 1] {
                let got = stage.mm.atomic(place, 8, 8, AtomicOp::Add(1)).expect("the object has this page");
                if got != old {
                    stage.lose("object", HostVa(first.0), got, old);
                }
            }
        }
        stage.mm.object_destroy(first, pages);
        stage.counts.objects.fetch_add(1, SeqCst);
    }
}
