//! Which range a fault finds or makes.

mod world;

use gpusvm::*;
use hostmm::EventKind;
use mm_sim::MapKind;
use units::{HostRange, HostVa, SZ_2M, SZ_4K, SZ_64K};
use world::{ALL, BASE, World, fault_ctx};

fn at(bytes: u64) -> HostVa {
    BASE.add(bytes)
}

fn map(world: &World, from: u64, to: u64) -> HostRange {
    let range = HostRange::new(at(from), at(to));
    world.mm.mmap(range);
    range
}

fn populate(world: &World, range: HostRange) {
    for i in 0..range.pages() {
        world.mm.store(range.page_at(i), i as u64);
    }
}

fn len_at(world: &World, addr: HostVa) -> u64 {
    world.range_at(addr, &fault_ctx()).map(|key| world.span(key).len()).expect("a range is made")
}

#[test]
fn two_megabytes_are_never_looked_at() {
    let world = World::new();
    map(&world, 0, SZ_2M);
    assert_eq!(len_at(&world, at(0x5000)), SZ_2M);
    assert_eq!(world.mm.walks(), 0);
    world.assert_empty();
}

#[test]
fn a_hole_in_64k_leaves_4k() {
    let world = World::new();
    let range = map(&world, 0, SZ_64K);
    populate(&world, range);
    world.mm.dontneed(HostRange::sized(at(0x7000), SZ_4K));
    assert_eq!(len_at(&world, at(0x1000)), SZ_4K);
    assert_eq!(world.mm.walks(), 1);
    world.assert_empty();
}

#[test]
fn full_64k_is_taken_and_found_again() {
    let world = World::new();
    let range = map(&world, 0, SZ_64K);
    populate(&world, range);
    let key = world.range_at(at(0x1234), &fault_ctx()).expect("a range is made");
    assert_eq!(world.span(key), range);
    for offset in [0, 0xffff] {
        assert_eq!(world.range_at(at(offset), &fault_ctx()), Ok(key));
    }
    assert_eq!(world.mm.notifiers(), 1);
    world.assert_empty();
}

#[test]
fn a_threshold_of_zero_takes_64k_with_holes() {
    let world = World::new();
    map(&world, 0, SZ_64K);
    let key = world.range_at(at(0), &Ctx { check_pages_threshold: 0, ..fault_ctx() }).expect("a range is made");
    assert_eq!(world.span(key).len(), SZ_64K);
    world.assert_empty();
}

#[test]
fn a_chunk_stays_in_its_vma() {
    let world = World::new();
    let range = map(&world, 0, SZ_2M - SZ_4K);
    populate(&world, range);
    assert_eq!(len_at(&world, at(0)), SZ_64K);
    assert_eq!(len_at(&world, at(SZ_2M - 0x2000)), SZ_4K, "the last 64K are not all mapped");
    world.assert_empty();
}

#[test]
fn a_chunk_stays_in_the_gpu_vma() {
    let world = World::new();
    map(&world, 0, SZ_2M);
    let gpuva = HostRange::new(at(0), at(SZ_2M - SZ_4K));
    let key = world.svm.range_find_or_insert(at(0), gpuva, &Ctx { check_pages_threshold: 0, ..fault_ctx() });
    assert_eq!(world.span(key.expect("a range is made")).len(), SZ_64K);
    let outside = world.svm.range_find_or_insert(at(SZ_2M - SZ_4K), gpuva, &fault_ctx());
    assert_eq!(outside, Err(SvmError::Invalid));
    world.assert_empty();
}

#[test]
fn neighbours_do_not_overlap() {
    let world = World::new();
    let low = map(&world, 0, SZ_64K - SZ_4K);
    populate(&world, low);
    assert_eq!(len_at(&world, at(0x3000)), SZ_4K);
    // The rest of the block comes, so that 64K and 2M would fit, but for the range that is there.
    world.mm.munmap(HostRange::sized(at(0x8000), SZ_4K));
    let world = World::new();
    let low = map(&world, 0, SZ_64K);
    populate(&world, HostRange::sized(low.start, 0x4000));
    assert_eq!(len_at(&world, at(0x3000)), SZ_4K);
    populate(&world, low);
    assert_eq!(len_at(&world, at(0x5000)), SZ_4K, "64K would overlap");
    assert_eq!(world.svm.ranges_in(ALL).len(), 2);
    assert_eq!(world.svm.ranges_in(HostRange::sized(at(0x4000), SZ_4K)), []);
    assert!(world.svm.has_ranges(HostRange::sized(at(0x2fff), 2)));
    world.assert_empty();
}

#[test]
fn the_window_ends_where_it_ends() {
    let window = HostRange::new(at(SZ_64K), at(2 * SZ_64K));
    let world = World::with_window(window);
    map(&world, 0, 4 * SZ_64K);
    let try_at = |offset| world.range_at(at(offset), &Ctx { check_pages_threshold: 0, ..fault_ctx() }).err();
    assert_eq!(try_at(SZ_64K - 1), Some(SvmError::Invalid));
    assert_eq!(try_at(2 * SZ_64K), Some(SvmError::Invalid), "the end itself lies outside");
    assert_eq!(try_at(2 * SZ_64K - 1), None);
    assert_eq!(try_at(SZ_64K), None);
    world.assert_empty();
}

#[test]
fn what_the_vma_says() {
    let world = World::new();
    world.mm.mmap_as(HostRange::new(at(0), at(SZ_4K)), MapKind::ReadOnly);
    world.mm.mmap_as(HostRange::new(at(SZ_64K), at(2 * SZ_64K)), MapKind::Io);
    world.mm.mmap_as(HostRange::new(at(SZ_2M), at(2 * SZ_2M)), MapKind::Shared);
    assert_eq!(world.range_at(at(0x5000), &fault_ctx()), Err(SvmError::NoVma));
    assert_eq!(world.range_at(at(0), &fault_ctx()), Err(SvmError::Denied));
    assert_eq!(world.range_at(at(SZ_64K), &fault_ctx()), Err(SvmError::Io));
    assert_eq!(world.mm.notifiers(), 0, "a notifier without a range is removed");
    let key = world.range_at(at(0), &Ctx { read_only: true, ..fault_ctx() }).expect("reading is allowed");
    assert!(world.svm.notifier_lock().range(key).is_some_and(Range::migrate_devmem));
    let file = world.range_at(at(SZ_2M), &fault_ctx()).expect("a file is mirrored");
    assert!(!world.svm.notifier_lock().range(file).is_some_and(Range::migrate_devmem));
    world.assert_empty();
}

#[test]
fn the_last_range_takes_its_notifier_along() {
    let world = World::new();
    map(&world, 0, 2 * SZ_2M);
    let [low, high] = [0, SZ_2M].map(|offset| world.range_at(at(offset), &fault_ctx()).expect("a range is made"));
    world.svm.range_remove(low);
    world.svm.range_remove(low);
    assert_eq!(world.mm.notifiers(), 1);
    world.svm.range_remove(high);
    assert_eq!(world.mm.notifiers(), 0);
    assert!(world.svm.notifier_lock().range(high).is_none());
    assert_eq!(world.svm.get_pages(high, &fault_ctx()), Err(SvmError::Gone));
    world.assert_empty();
}

#[test]
fn an_unmap_marks_what_it_touches() {
    let world = World::new();
    map(&world, 0, 3 * SZ_2M);
    let keys: Vec<_> = (0..3).map(|i| world.range_at(at(i * SZ_2M), &fault_ctx()).expect("a range is made")).collect();
    world.mm.munmap(HostRange::new(at(SZ_64K), at(2 * SZ_2M)));
    let locked = world.svm.notifier_lock();
    let flags: Vec<_> =
        keys.iter().map(|key| locked.range(*key).map(|range| (range.unmapped(), range.partial_unmap()))).collect();
    assert_eq!(flags, [Some((true, true)), Some((true, false)), Some((false, false))]);
    drop(locked);
    assert_eq!(world.svm.get_pages(keys[0], &fault_ctx()), Err(SvmError::Fault));
    let told = world.driver.told.lock().clone();
    assert!(matches!(told[..], [event] if event.kind == EventKind::Unmap));
    world.assert_empty();
}

#[test]
fn a_change_during_the_choice_starts_it_again() {
    let world = World::new();
    let range = map(&world, 0, SZ_64K);
    populate(&world, range);
    // The walk that looks at 64K sees them all; then the upper half goes.
    world.mm.after_walk(move |mm| mm.munmap(HostRange::new(range.start.add(SZ_64K / 2), range.end)));
    assert_eq!(len_at(&world, at(0x1000)), SZ_4K);
    world.assert_empty();
}

#[test]
fn a_config_has_rules() {
    let world = World::new();
    let config = SvmConfig { window: ALL, notifier_size: SZ_2M, chunk_sizes: &[SZ_2M, SZ_4K] };
    let make = |config| {
        let (svm, ops) = (&world.svm, std::sync::Arc::downgrade(&world.driver));
        GpuSvm::new(config, svm.mm().clone(), world.device.clone(), world.set.clone(), ops, world.log.clone()).err()
    };
    assert_eq!(make(config), None);
    let broken = [
        SvmConfig { notifier_size: 3 * SZ_4K, ..config },
        SvmConfig { notifier_size: SZ_64K, ..config },
        SvmConfig { chunk_sizes: &[SZ_2M], ..config },
        SvmConfig { chunk_sizes: &[], ..config },
        SvmConfig { chunk_sizes: &[SZ_4K, SZ_2M], ..config },
        SvmConfig { window: HostRange::new(at(1), at(1)), ..config },
    ];
    assert!(broken.into_iter().all(|config| make(config) == Some(SvmError::Invalid)));
}
