//! Collecting a range's pages: from where, by which rules, and against which races.

mod world;

use gpusvm::*;
use hostmm::EventKind;
use mm_sim::MapKind;
use units::{HostRange, HostVa, SZ_2M, SZ_4K, SZ_64K};
use world::{BASE, Failure, World, fault_ctx};

fn page(range: HostRange, i: usize) -> HostRange {
    HostRange::sized(range.page_at(i), SZ_4K)
}

/// A filled block of 64K and its range.
fn block(world: &World) -> (HostRange, RangeKey) {
    let range = world.filled(16, 100);
    let key = world.range_at(BASE, &fault_ctx()).expect("a range is made");
    assert_eq!(world.span(key), range);
    (range, key)
}

fn pagemap_of(world: &World, key: RangeKey) -> Option<u16> {
    world.svm.notifier_lock().pages(key).and_then(Pages::pagemap).map(|id| id.0)
}

#[test]
fn system_pages_are_mapped_once_and_used_again() {
    let world = World::new();
    let (_, key) = block(&world);
    assert_eq!(world.svm.get_pages(key, &fault_ctx()), Ok(()));
    assert!(world.valid(key));
    assert_eq!(world.device_reads(key), (100..116).collect::<Vec<_>>());
    assert_eq!(world.device.mappings(), 1, "frames are contiguous: one mapping");
    let walks = world.mm.walks();
    assert_eq!(world.svm.get_pages(key, &fault_ctx()), Ok(()));
    assert_eq!(world.mm.walks(), walks, "nothing changed: nothing is walked");
    world.assert_empty();
}

#[test]
fn any_event_unmaps() {
    let world = World::new();
    let (range, key) = block(&world);
    world.svm.get_pages(key, &fault_ctx()).expect("pages are collected");
    world.mm.dontneed(page(range, 3));
    assert!(!world.valid(key));
    assert_eq!(world.device.mappings(), 0);
    world.svm.get_pages(key, &fault_ctx()).expect("pages are collected again");
    assert_eq!(world.device_reads(key)[2..5], [102, 0, 104]);
    world.assert_empty();
}

#[test]
fn a_huge_mapping_is_one_run() {
    let world = World::new();
    let range = HostRange::sized(BASE, SZ_2M);
    world.mm.mmap_as(range, MapKind::Huge);
    (0..512).for_each(|i| world.mm.store(range.page_at(i), i as u64));
    let key = world.range_at(BASE, &fault_ctx()).expect("a range is made");
    world.svm.get_pages(key, &fault_ctx()).expect("pages are collected");
    let runs: Vec<_> =
        world.svm.notifier_lock().pages(key).expect("there").dma_addr().iter().map(|addr| addr.pages()).collect();
    assert_eq!(runs, [512]);
    assert_eq!(world.device_reads(key), (0..512).collect::<Vec<_>>());
    world.assert_empty();
}

#[test]
fn vram_is_used_where_it_is() {
    let world = World::new();
    let (range, key) = block(&world);
    world.to_tile(1, range).expect("all can move");
    world.svm.get_pages(key, &fault_ctx()).expect("pages are collected");
    assert_eq!(pagemap_of(&world, key), Some(1));
    assert!(world.svm.notifier_lock().pages(key).is_some_and(Pages::has_devmem_pages));
    assert_eq!(world.device_reads(key), (100..116).collect::<Vec<_>>());
    assert_eq!(world.device.mappings(), 0);
    world.assert_filled(range, 100);
    assert!(!world.valid(key), "the CPU's touch migrated them back");
    world.assert_empty();
}

#[test]
fn without_an_owner_everything_comes_home() {
    let world = World::new();
    let (range, key) = block(&world);
    world.to_tile(0, range).expect("all can move");
    let ctx = Ctx { owner: None, ..fault_ctx() };
    world.svm.get_pages(key, &ctx).expect("pages are collected");
    assert_eq!(pagemap_of(&world, key), None);
    assert_eq!(world.device_reads(key), (100..116).collect::<Vec<_>>());
    world.assert_empty();
}

#[test]
fn a_mapping_that_does_not_satisfy_is_not_reused() {
    let world = World::new();
    let (range, key) = block(&world);
    world.to_tile(0, range).expect("all can move");
    world.svm.get_pages(key, &fault_ctx()).expect("pages are collected");
    // Still valid, and in VRAM: a request for system memory may not be given it.
    world.svm.get_pages(key, &Ctx { owner: None, ..fault_ctx() }).expect("pages are collected");
    assert_eq!(pagemap_of(&world, key), None);
    // Still valid, and in system memory: a request for VRAM may not be given that.
    assert_eq!(world.svm.get_pages(key, &Ctx { devmem_only: true, ..fault_ctx() }), Err(SvmError::Fault));
    // Mapped for reading: a request for writing maps again.
    let read_only = Ctx { read_only: true, ..fault_ctx() };
    world.svm.get_pages(key, &read_only).expect("pages are collected");
    assert!(!world.svm.notifier_lock().pages(key).is_some_and(Pages::writable));
    world.driver.told.lock().clear();
    world.svm.get_pages(key, &fault_ctx()).expect("pages are collected");
    assert!(world.svm.notifier_lock().pages(key).is_some_and(Pages::writable));
    let kinds: Vec<_> = world.driver.told.lock().iter().map(|event| event.kind).collect();
    assert_eq!(kinds, [EventKind::Protection], "the driver is told before the mapping goes");
    world.svm.get_pages(key, &read_only).expect("writable serves reading");
    assert!(world.svm.notifier_lock().pages(key).is_some_and(Pages::writable));
    world.assert_empty();
}

#[test]
fn mixes_are_told() {
    let mixed = Ctx { allow_mixed: true, ..fault_ctx() };
    // Two tiles; VRAM then system; system then VRAM; two allocations of one tile.
    let cases: [(&[(usize, usize)], bool); 4] =
        [(&[(0, 0), (1, 1)], false), (&[(0, 0)], true), (&[(5, 0)], true), (&[(0, 0), (1, 0)], true)];
    for (moves, allowed) in cases {
        let world = World::new();
        let (range, key) = block(&world);
        for &(i, tile) in moves {
            world.to_tile(tile, page(range, i)).expect("a page can move");
        }
        assert_eq!(world.svm.get_pages(key, &fault_ctx()), Err(SvmError::Mixed), "{moves:?}");
        assert_eq!(world.device.mappings(), 0, "what was mapped before the error is unmapped");
        let outcome = world.svm.get_pages(key, &mixed);
        assert_eq!(outcome.is_ok(), allowed, "{moves:?}: {outcome:?}");
        if allowed {
            assert_eq!(world.device_reads(key), (100..116).collect::<Vec<_>>());
            assert_eq!(world.svm.get_pages(key, &fault_ctx()), Err(SvmError::Mixed), "a mix is not reused");
        }
        world.svm.range_evict(key).expect("all can go back");
        assert_eq!(world.svm.get_pages(key, &fault_ctx()), Ok(()));
        world.assert_empty();
    }
}

#[test]
fn a_whole_range_in_two_allocations_of_one_tile_is_mixed() {
    let world = World::new();
    let (range, key) = block(&world);
    let (low, high) = (HostRange::sized(BASE, SZ_64K / 2), HostRange::sized(BASE.add(SZ_64K / 2), SZ_64K / 2));
    world.to_tile(0, low).expect("all can move");
    world.to_tile(0, high).expect("all can move");
    // The frames are contiguous, so only the allocation tells.
    assert_eq!(world.svm.get_pages(key, &fault_ctx()), Err(SvmError::Mixed));
    assert_eq!(world.svm.get_pages(key, &Ctx { allow_mixed: true, ..fault_ctx() }), Ok(()));
    world.assert_filled(range, 100);
    world.assert_empty();
}

#[test]
fn devmem_only_refuses_system_memory() {
    let world = World::new();
    let (range, key) = block(&world);
    let ctx = Ctx { devmem_only: true, ..fault_ctx() };
    assert_eq!(world.svm.get_pages(key, &ctx), Err(SvmError::Fault));
    world.to_tile(0, range).expect("all can move");
    assert_eq!(world.svm.get_pages(key, &ctx), Ok(()));
    world.assert_clean();
}

#[test]
fn a_notifier_after_the_walk_means_another_walk() {
    let world = World::new();
    let (range, key) = block(&world);
    let victim = page(range, 7);
    world.mm.after_walk(move |mm| mm.dontneed(victim));
    world.events();
    assert_eq!(world.svm.get_pages(key, &fault_ctx()), Ok(()));
    assert_eq!(world.events().iter().filter(|event| matches!(event, Event::Retried { .. })).count(), 1);
    assert_eq!(world.device_reads(key)[6..9], [106, 0, 108]);
    world.assert_empty();
}

#[test]
fn an_unmap_after_the_walk_is_final() {
    let world = World::new();
    let (range, key) = block(&world);
    let victim = page(range, 7);
    world.mm.after_walk(move |mm| mm.munmap(victim));
    assert_eq!(world.svm.get_pages(key, &fault_ctx()), Err(SvmError::Fault));
    assert!(!world.valid(key));
    world.assert_empty();
}

#[test]
fn an_unmap_before_the_sequence_is_final_too() {
    let world = World::new();
    let (range, key) = block(&world);
    world.mm.before_read_begin(move |mm| {
        mm.munmap(range);
        mm.mmap(range);
    });
    assert_eq!(world.svm.get_pages(key, &fault_ctx()), Err(SvmError::Fault), "the range was of the old mapping");
    assert_eq!(world.device.mappings(), 0);
    world.assert_empty();
}

#[test]
fn a_shared_page_in_vram_is_not_written_there() {
    let world = World::new();
    let (range, key) = block(&world);
    world.to_tile(0, range).expect("all can move");
    let child = world.mm.sim.fork();
    assert_eq!(world.svm.get_pages(key, &Ctx { read_only: true, ..fault_ctx() }), Ok(()));
    assert_eq!(world.svm.get_pages(key, &fault_ctx()), Err(SvmError::Mixed), "it migrates back, where COW is broken");
    world.mm.sim.child_exit(child);
    world.svm.range_evict(key).expect("all can go back");
    assert_eq!(world.svm.get_pages(key, &fault_ctx()), Ok(()));
    assert_eq!(world.device_reads(key), (100..116).collect::<Vec<_>>());
    world.assert_empty();
}

#[test]
fn a_failed_mapping_leaves_none() {
    let world = World::new();
    let (range, key) = block(&world);
    world.mm.dontneed(page(range, 4)); // so that frames are in three runs
    world.fail(Failure::Map(2));
    assert_eq!(world.svm.get_pages(key, &fault_ctx()), Err(SvmError::Fault));
    assert_eq!(world.device.mappings(), 0);
    world.fail(Failure::None);
    assert_eq!(world.svm.get_pages(key, &fault_ctx()), Ok(()));
    world.assert_empty();
}

#[test]
fn a_read_only_half_denies_writing() {
    let world = World::new();
    let (range, key) = block(&world);
    let half = HostRange::new(BASE.add(SZ_64K / 2), range.end);
    world.mm.munmap(half);
    world.svm.range_remove(key);
    world.mm.mmap_as(half, MapKind::ReadOnly);
    // Made by hand over both: the fault's own VMA is looked at, not the other.
    let both = HostRange::sized(BASE, SZ_64K);
    assert_eq!(world.svm.range_find_or_insert(HostVa(half.start.0), both, &fault_ctx()), Err(SvmError::Denied));
    let low = world.range_at(BASE, &fault_ctx()).expect("a range is made");
    assert_eq!(world.span(low).len(), SZ_4K);
    assert_eq!(world.svm.get_pages(low, &fault_ctx()), Ok(()));
    world.assert_empty();
}
