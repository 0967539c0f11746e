//! Pages on their way to VRAM and back: data, references, and every way to fail.

mod world;

use gpusvm::*;
use hostmm::*;
use mm_sim::MapKind;
use units::{HostRange, SZ_4K, SZ_64K};
use world::{BASE, Failure, World, fault_ctx};

fn page(range: HostRange, i: usize) -> HostRange {
    HostRange::sized(range.page_at(i), SZ_4K)
}

fn tile_of(world: &World, range: HostRange, i: usize) -> Option<u16> {
    world.mm.place(range.page_at(i)).and_then(Place::device).map(|page| page.pagemap.0)
}

fn all_in(world: &World, range: HostRange, tile: Option<u16>) -> bool {
    (0..range.pages()).all(|i| tile_of(world, range, i) == tile)
}

#[test]
fn from_system_to_one_tile_to_the_other_and_home() {
    let world = World::new();
    let range = world.filled(16, 100);
    world.to_tile(0, range).expect("all can move");
    assert!(all_in(&world, range, Some(0)));
    assert_eq!((world.pagemap(0).live_pages(), world.tiles[0].outstanding()), (16, 1));

    world.to_tile(1, range).expect("all can move");
    assert!(all_in(&world, range, Some(1)));
    assert_eq!(*world.tiles[0].pushes.lock(), 16, "the source's engine pushes");
    assert_eq!((world.pagemap(0).live_pages(), world.tiles[0].outstanding()), (0, 0), "the source is released");
    assert_eq!(world.pagemap(1).live_pages(), 16);

    assert_eq!(world.mm.load(range.page_at(9)), 109);
    assert!(all_in(&world, range, None), "one touch brings the allocation back");
    world.assert_filled(range, 100);
    world.assert_empty();
}

#[test]
fn events_say_what_moved() {
    let world = World::new();
    let range = world.filled(16, 100);
    world.mm.dontneed(page(range, 0));
    world.to_tile(1, page(range, 1)).expect("a page can move");
    world.events();
    world.to_tile(0, range).expect("all can move");
    let moved: Vec<_> = world
        .events()
        .into_iter()
        .filter_map(|event| match event {
            Event::Migrated { from, to, pages, carried, .. } => Some((from, to, pages, carried)),
            _ => None,
        })
        .collect();
    let vram = |tile| Where::Vram(PagemapId(tile));
    assert_eq!(moved, [(Where::System, vram(0), 15, 14), (vram(1), vram(0), 1, 1)]);
    world.mm.load(range.start);
    let events = world.events();
    assert!(events.iter().any(|event| matches!(event, Event::CpuFault { pages: 16, .. })), "{events:?}");
    world.assert_empty();
}

#[test]
fn sources_share_the_time_of_a_migration_by_their_pages() {
    let world = World::new();
    let range = world.filled(16, 100);
    world.to_tile(1, HostRange::sized(range.start, 4 * SZ_4K)).expect("all can move");
    world.events();
    world.to_tile(0, range).expect("all can move");
    let time = |event| match event {
        Event::Migrated { pages, ns, .. } => Some((pages, ns)),
        _ => None,
    };
    let shares: Vec<_> = world.events().into_iter().filter_map(time).collect();
    let [(4, few), (12, many)] = shares[..] else { panic!("{shares:?}") };
    assert!((3 * few..3 * few + 3).contains(&many), "three times as many pages: {shares:?}");
    world.assert_filled(range, 100);
    world.assert_empty();
}

#[test]
fn holes_arrive_as_zeros() {
    let world = World::new();
    let range = HostRange::sized(BASE, SZ_64K);
    world.mm.mmap(range);
    world.mm.store(range.page_at(3), 33);
    world.to_tile(0, range).expect("all can move");
    assert!(all_in(&world, range, Some(0)));
    for i in 0..16 {
        assert_eq!(world.mm.load(range.page_at(i)), if i == 3 { 33 } else { 0 });
    }
    world.assert_empty();
}

#[test]
fn all_there_already_is_fine() {
    let world = World::new();
    let range = world.filled(16, 100);
    world.to_tile(0, range).expect("all can move");
    assert_eq!(world.to_tile(0, range), Ok(()));
    assert_eq!(world.tiles[0].outstanding(), 1, "the second allocation was not needed");
    world.assert_filled(range, 100);
    world.assert_empty();
}

#[test]
fn a_fragmented_range_is_busy_until_it_was_home() {
    let world = World::new();
    let range = world.filled(16, 100);
    let key = world.range_at(BASE, &fault_ctx()).expect("a range is made");
    world.to_tile(0, page(range, 5)).expect("a page can move");
    assert_eq!(world.to_tile(0, range), Err(MigrateError::Busy));
    assert_eq!(world.tiles[0].outstanding(), 1);
    assert_eq!(tile_of(&world, range, 5), Some(0));
    world.svm.range_evict(key).expect("all can go back");
    assert_eq!(world.to_tile(0, range), Ok(()));
    world.assert_filled(range, 100);
    world.assert_empty();
}

#[test]
fn a_mix_of_system_and_the_other_tile_moves() {
    let world = World::new();
    let range = world.filled(16, 100);
    world.to_tile(0, page(range, 5)).expect("a page can move");
    world.to_tile(0, page(range, 6)).expect("a page can move");
    assert_eq!(world.to_tile(1, range), Ok(()));
    assert!(all_in(&world, range, Some(1)));
    assert_eq!(world.tiles[0].outstanding(), 0);
    world.assert_filled(range, 100);
    world.assert_empty();
}

#[test]
fn whatever_fails_everything_is_where_it_was() {
    let failures = [
        (Failure::Copy(5), MigrateError::Copy(CopyError::Fault)),
        (Failure::Map(0), MigrateError::Map(MapError::NoSpace)),
        (Failure::Map(1), MigrateError::Map(MapError::NoSpace)),
    ];
    for (failure, error) in failures {
        let world = World::new();
        let range = world.filled(16, 100);
        // Pages 0..8 in the other tile: two batches, of which the second or the first fails.
        world.to_tile(1, HostRange::sized(BASE, SZ_64K / 2)).expect("all can move");
        world.fail(failure);
        assert_eq!(world.to_tile(0, range), Err(error), "{failure:?}");
        world.fail(Failure::None);
        assert_eq!(world.device.mappings(), 0, "{failure:?}");
        assert_eq!((world.tiles[0].outstanding(), world.tiles[1].outstanding()), (0, 1), "{failure:?}");
        assert!((0..16).all(|i| tile_of(&world, range, i) == (i < 8).then_some(1)), "{failure:?}");
        assert_eq!(world.to_tile(0, range), Ok(()), "{failure:?}");
        world.assert_filled(range, 100);
        world.assert_empty();
    }
}

#[test]
fn a_page_that_stays_makes_it_busy_and_the_rest_is_released_later() {
    let world = World::new();
    let range = world.filled(16, 100);
    for (fail, undo) in [(Failure::LeaveBehind(3), false), (Failure::None, true)] {
        world.fail(fail);
        if undo {
            assert!(world.mm.sim.inject_race(range.page_at(3)));
        }
        assert_eq!(world.to_tile(0, range), Err(MigrateError::Busy));
        assert_eq!((tile_of(&world, range, 3), tile_of(&world, range, 4)), (None, Some(0)));
        assert_eq!((world.pagemap(0).live_pages(), world.tiles[0].outstanding()), (15, 1));
        world.fail(Failure::None);
        world.assert_filled(range, 100);
        assert_eq!(world.tiles[0].outstanding(), 0);
    }
    world.assert_empty();
}

#[test]
fn a_pinned_page_keeps_all_at_home() {
    let world = World::new();
    let range = world.filled(16, 100);
    world.mm.sim.pin(range.page_at(15)).expect("mapped");
    assert_eq!(world.to_tile(0, range), Err(MigrateError::Busy));
    assert!(all_in(&world, range, None));
    assert_eq!(world.tiles[0].allocations(), 0, "no VRAM was asked for");
    world.assert_filled(range, 100);
    world.assert_empty();
}

#[test]
fn what_cannot_be_asked_for_is_released_too() {
    let world = World::new();
    let range = world.filled(16, 100);
    let migrate = |pages, range| {
        let alloc = || Some(world.tiles[0].alloc(pages));
        world.pagemap(0).migrate_to_devmem(range, &MigrateDetails::default(), alloc)
    };
    let beyond = HostRange::sized(BASE, 2 * SZ_64K);
    let nowhere = HostRange::sized(BASE.add(1 << 30), SZ_64K);
    let crooked = HostRange::new(BASE.add(8), range.end);
    assert_eq!(migrate(32, beyond), Err(MigrateError::Invalid));
    assert_eq!(migrate(16, nowhere), Err(MigrateError::NoVma));
    assert_eq!(migrate(16, crooked), Err(MigrateError::Invalid));
    let file = HostRange::sized(BASE.add(1 << 31), SZ_64K);
    world.mm.mmap_as(file, MapKind::Shared);
    assert_eq!(migrate(16, file), Err(MigrateError::Busy));
    assert_eq!(world.tiles[0].allocations(), 0, "no VRAM was asked for");
    assert_eq!(migrate(15, range), Err(MigrateError::Invalid), "too small an allocation");
    let none = world.pagemap(0).migrate_to_devmem(range, &MigrateDetails::default(), || None);
    assert_eq!(none, Err(MigrateError::NoMemory));
    assert!(all_in(&world, range, None));
    assert_eq!(world.mm.sim.claims_in_progress(), 0);
    assert_eq!(world.tiles[0].outstanding(), 0);
    world.assert_empty();
}

#[test]
fn without_its_set_a_pagemap_ends_well() {
    let world = World::new();
    let range = world.filled(16, 100);
    let map = world.pagemap(0).clone();
    let World { set, svm, tiles, mm, .. } = world;
    drop((set, svm));
    let migrated = map.migrate_to_devmem(range, &MigrateDetails::default(), || Some(tiles[0].alloc(16)));
    assert_eq!(migrated, Err(MigrateError::Gone));
    assert_eq!((tiles[0].allocations(), mm.sim.claims_in_progress()), (0, 0));
}

#[test]
fn the_way_home_fails_without_loss() {
    let world = World::new();
    let range = world.filled(16, 100);
    let key = world.range_at(BASE, &fault_ctx()).expect("a range is made");
    world.to_tile(0, range).expect("all can move");
    world.fail(Failure::Copy(7));
    assert_eq!(world.svm.range_evict(key), Err(SvmError::Fault), "SIGBUS, in this mm's words");
    assert!(all_in(&world, range, Some(0)));
    assert_eq!(world.device.mappings(), 0);
    // One page is left behind by each try, and tried again.
    world.fail(Failure::LeaveBehind(2));
    world.mm.load(range.page_at(0));
    assert_eq!((0..16).filter(|&i| tile_of(&world, range, i).is_some()).collect::<Vec<_>>(), [2]);
    world.fail(Failure::None);
    world.assert_filled(range, 100);
    world.assert_empty();
}

#[test]
fn a_shortage_on_the_way_home_passes() {
    let world = World::new();
    let range = world.filled(16, 100);
    let failed = |error| {
        let to = Where::System;
        let events = world.events();
        events.iter().filter(|event| **event == Event::MigrateFailed { range, to, error }).count()
    };
    world.to_tile(0, range).expect("all can move");
    world.mm.sim.inject_shortage(3);
    assert_eq!(world.mm.load(range.start), 100);
    assert_eq!(failed(MigrateError::NoMemory), 3);

    world.to_tile(0, range).expect("all can move");
    world.fail(Failure::Passing(2));
    assert_eq!(world.mm.load(range.start), 100);
    assert_eq!(failed(MigrateError::Map(MapError::NoSpace)), 2);
    world.assert_filled(range, 100);
    world.assert_empty();
}

#[test]
fn a_touch_takes_home_its_own_allocation_only() {
    let world = World::new();
    let range = world.filled(16, 100);
    let (low, high) = (HostRange::sized(BASE, SZ_64K / 2), HostRange::sized(BASE.add(SZ_64K / 2), SZ_64K / 2));
    world.to_tile(0, range).expect("all can move");
    // The upper half moves on; a touch of the lower half has a window over both.
    world.to_tile(1, high).expect("all can move");
    assert_eq!(world.mm.load(range.start), 100);
    assert!(all_in(&world, low, None) && all_in(&world, high, Some(1)));
    assert_eq!((world.tiles[0].outstanding(), world.tiles[1].outstanding()), (0, 1));
    world.assert_filled(range, 100);

    // Two allocations of one tile in a window.
    world.to_tile(0, range).expect("all can move");
    world.to_tile(1, high).expect("all can move");
    world.to_tile(0, high).expect("all can move");
    assert_eq!(world.mm.load(range.start), 100);
    assert!(all_in(&world, low, None) && all_in(&world, high, Some(0)));
    world.assert_filled(range, 100);
    world.assert_empty();
}

#[test]
fn a_timeslice_defers_the_touch_but_not_the_eviction() {
    let world = World::new();
    let range = world.filled(16, 100);
    let migrate = |timeslice_ms| {
        let alloc = || Some(world.tiles[0].alloc(16));
        world.pagemap(0).migrate_to_devmem(range, &MigrateDetails { timeslice_ms, ..MigrateDetails::default() }, alloc)
    };
    migrate(20).expect("all can move");
    let start_ns = sync::time::now_ns();
    world.assert_filled(range, 100);
    assert!(sync::time::now_ns() - start_ns >= 15_000_000, "the touch waited");
    assert!(world.events().iter().any(|event| matches!(event, Event::CpuFaultDeferred { .. })));

    // The pages stay for the CPU that had to wait for them, then they may go again.
    while migrate(60_000) == Err(MigrateError::CpuTurn) {
        sync::time::sleep_ns(100_000);
    }
    assert!(all_in(&world, range, Some(0)));
    let first = world.mm.device(range.start);
    assert_eq!(world.pagemap(0).evict_to_ram(first), Ok(()));
    assert!(all_in(&world, range, None));
    world.assert_filled(range, 100);
    world.assert_empty();
}

#[test]
fn an_eviction_empties_the_allocation_or_says_so() {
    let world = World::new();
    let range = world.filled(16, 100);
    world.to_tile(0, range).expect("all can move");
    world.mm.munmap(page(range, 0));
    let some = world.mm.device(range.page_at(8));
    // Somebody else's migration has one page.
    let mut other = Migration::default();
    let held = DeviceRun { first: world.mm.device(range.page_at(4)), pages: 1 };
    world.mm.claim_device(&[held], &mut other).expect("begun");
    assert_eq!(world.pagemap(0).evict_to_ram(some), Err(MigrateError::Busy));
    assert_eq!((world.pagemap(0).live_pages(), world.tiles[0].outstanding()), (1, 1));
    world.mm.finish(&mut other);
    assert_eq!(world.pagemap(0).evict_to_ram(some), Ok(()));
    assert_eq!(world.tiles[0].outstanding(), 0);
    assert_eq!(world.pagemap(0).evict_to_ram(some), Ok(()), "gone already");
    world.assert_filled(HostRange::new(range.page_at(1), range.end), 101);
    world.assert_empty();
}

#[test]
fn a_partial_unmap_keeps_the_rest_and_the_last_page_releases() {
    let world = World::new();
    let range = world.filled(16, 100);
    world.to_tile(0, range).expect("all can move");
    world.mm.munmap(HostRange::sized(BASE, SZ_64K / 2));
    assert_eq!((world.pagemap(0).live_pages(), world.tiles[0].outstanding()), (8, 1));
    world.mm.dontneed(HostRange::sized(range.page_at(8), 7 * SZ_4K));
    assert_eq!((world.pagemap(0).live_pages(), world.tiles[0].outstanding()), (1, 1));
    assert_eq!(world.mm.load(range.page_at(15)), 115);
    assert_eq!(world.tiles[0].outstanding(), 0);
    world.assert_empty();
}

#[test]
fn a_migration_invalidates_the_range() {
    let world = World::new();
    let range = world.filled(16, 100);
    let key = world.range_at(BASE, &fault_ctx()).expect("a range is made");
    world.svm.get_pages(key, &fault_ctx()).expect("pages are collected");
    world.to_tile(0, range).expect("all can move");
    assert!(!world.valid(key));
    world.svm.get_pages(key, &fault_ctx()).expect("pages are collected");
    world.to_tile(1, range).expect("all can move");
    assert!(!world.valid(key));
    world.svm.get_pages(key, &fault_ctx()).expect("pages are collected");
    assert_eq!(world.device_reads(key), (100..116).collect::<Vec<_>>());
    world.assert_clean();
}
