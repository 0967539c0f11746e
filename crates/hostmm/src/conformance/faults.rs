//! Cases: CPU threads that touch what is, or is about to be, in VRAM.

use super::engine::{Bench, FRAMES, carry, transfer, word};
use super::{ClaimedCpu, ForkWay, Recorder, World};
use crate::{ClaimRequest, DevicePage, DeviceRun, EventKind, Outcome, Place, Toward};
use alloc::boxed::Box;
use alloc::sync::Arc;
use sync::atomic::AtomicU64;

/// Row *CPU faults*: a touch calls `migrate_to_ram` of the page's own pagemap, with the address, the page and
/// the VMA; the touched page migrates back, its neighbours stay.
pub(super) fn a_touch_calls_the_pages_own_pagemap(world: &dyn World) {
    let bench = Bench::new(world);
    let range = bench.filled(4, 20);
    bench.to_tile(Bench::page(range, 0), 0, 0);
    bench.to_tile(Bench::page(range, 1), 1, 1);
    bench.to_tile(Bench::page(range, 2), 1, 2);
    assert_eq!(world.load(word(range, 1, 0)), 21);
    assert!(bench.tiles[0].faults().is_empty(), "nothing of tile 0 was touched");
    let faults = bench.tiles[1].faults();
    assert!(!faults.is_empty());
    for fault in faults {
        assert_eq!((fault.addr.page(), fault.page), (range.page_at(1), bench.frame(1, 1)));
        assert!(fault.vma.contains(fault.addr));
    }
    let places = bench.places(range);
    assert_eq!(places[0], Some(Place::Device(bench.frame(0, 0))));
    assert!(matches!(places[1], Some(Place::Host(_))));
    assert_eq!(places[2], Some(Place::Device(bench.frame(1, 2))));
    world.store(word(range, 0, 1), 5);
    assert_eq!(bench.tiles[0].faults()[0].page, bench.frame(0, 0));
    bench.assert_filled(range, 20);
    bench.audit();
}

/// Row *CPU during a claim*: a writer waits until the finish, or writes on until the transfer; either way its
/// word survives.
pub(super) fn a_claimed_page_and_its_writer(world: &dyn World) {
    let bench = Bench::new(world);
    let range = bench.filled(1, 30);
    let at = word(range, 0, 1);
    let mut migration = bench.claim(range, 0);
    assert!(matches!(migration.parts[0].from, Some(Place::Host(_))), "a written page is collected");
    let done = Arc::new(AtomicU64::new(0));
    let flag = done.clone();
    let writer = world.spawn(Box::new(move |cpu| {
        cpu.store(at, 31);
        flag.store(1);
    }));
    let mut writer = Some(writer);
    if world.contract().claimed == ClaimedCpu::WritesOn
        && let Some(join) = writer.take()
    {
        join();
    }
    bench.stage(&mut migration, range, 0, 0);
    transfer(&*bench.memory, &mut migration);
    assert!(matches!(migration.parts[0].outcome, Outcome::Moved | Outcome::Copied));
    for _ in 0..world.rounds() {
        world.pause();
    }
    bench.mm.commit(&mut migration);
    assert_eq!(migration.carried(), 1);
    if world.contract().claimed == ClaimedCpu::Blocks {
        assert_eq!(done.load(), 0, "the writer waits while the page is claimed");
    }
    bench.mm.finish(&mut migration);
    if let Some(join) = writer {
        join();
    }
    assert_eq!((done.load(), world.load(at), world.load(range.start)), (1, 31, 30));
    bench.audit();
}

/// Rows *CPU during a claim*, *eviction*: a touch of a page of VRAM that is claimed waits for the finish, and asks
/// nobody to bring it back.
pub(super) fn a_touch_of_a_claimed_page_waits(world: &dyn World) {
    let bench = Bench::new(world);
    let range = bench.filled(1, 33);
    bench.to_tile(range, 0, 0);
    let at = range.start;
    let mut migration = bench.claim_device(&[DeviceRun { first: bench.frame(0, 0), pages: 1 }]);
    assert_eq!(migration.parts[0].range.start, at);
    let seen = Arc::new(AtomicU64::new(0));
    let loaded = seen.clone();
    let toucher = world.spawn(Box::new(move |cpu| loaded.store(cpu.load(at))));
    for _ in 0..world.rounds() {
        world.pause();
    }
    assert_eq!(seen.load(), 0, "the touch waits");
    bench.mm.stage(&mut migration).expect("staged");
    bench.complete(&mut migration);
    toucher();
    assert_eq!((migration.carried(), seen.load()), (1, 33));
    assert!(bench.tiles[0].faults().is_empty(), "nobody was asked");
    bench.audit();
}

/// The frame for a round of two pages: none that the round before used, since a frame whose page just migrated back
/// is free only when `folio_free` says so.
fn next_frame(bench: &Bench<'_>, round: u64) -> DevicePage {
    bench.frame((round % 2) as u16, 2 * round % FRAMES)
}

/// Row *data*: a writer that goes on while its page is migrated to and fro loses no write.
pub(super) fn a_writer_loses_nothing(world: &dyn World) {
    let bench = Bench::new(world);
    let range = bench.filled(1, 0);
    let at = word(range, 0, 3);
    let rounds = world.rounds();
    let writer = world.spawn(Box::new(move |cpu| {
        for i in 0..rounds {
            assert_eq!(cpu.fetch_add(at, 1), i);
        }
    }));
    for round in 0..rounds {
        // Raced with by the writer's own faults: whether this round moves anything is open.
        let _ = carry(&*bench.mm, &*bench.memory, range, Bench::OWNER, next_frame(&bench, round));
        world.pause();
    }
    writer();
    assert_eq!(world.load(at), rounds);
    bench.audit();
}

/// Row *data*: two writers on the same pages, one migrator over two tiles, one evictor.
pub(super) fn two_writers_and_two_tiles(world: &dyn World) {
    let bench = Bench::new(world);
    let range = bench.filled(2, 0);
    let rounds = world.rounds();
    let join = [0, 1].map(|n| {
        world.spawn(Box::new(move |cpu| {
            for i in 0..rounds {
                cpu.fetch_add(word(range, (i % 2) as usize, 4), 1);
                assert_eq!(cpu.fetch_add(word(range, 1, 5 + n), 1), i);
            }
        }))
    });
    for round in 0..rounds {
        let _ = carry(&*bench.mm, &*bench.memory, range, Bench::OWNER, next_frame(&bench, round));
        let range = Bench::page(range, 0);
        let request = ClaimRequest { range, owner: Bench::OWNER, toward: Toward::Ram, fault: None };
        let _ = super::engine::carry_back(&*bench.mm, &*bench.memory, &request);
        world.pause();
    }
    for join in join {
        join();
    }
    let sum: u64 = (0..2).map(|i| world.load(word(range, i, 4))).sum();
    assert_eq!(sum, 2 * rounds);
    assert_eq!([5, 6].map(|w| world.load(word(range, 1, w))), [rounds; 2]);
    bench.audit();
}

/// Row *fork*: the child sees what was in VRAM; the parent's pages are protected and notified, or migrated back before.
pub(super) fn fork_shows_the_data(world: &dyn World) {
    let bench = Bench::new(world);
    let range = bench.filled(3, 60);
    bench.to_tile(Bench::page(range, 0), 0, 0);
    bench.to_tile(Bench::page(range, 1), 1, 0);
    let (recorder, id) = Recorder::insert(&bench.mm, range);
    let seen = world.fork_loads(&[range.page_at(0), range.page_at(1), range.page_at(2)]);
    assert_eq!(seen, [60, 61, 62]);
    world.settle();
    match world.contract().fork {
        ForkWay::Protects => {
            assert!(recorder.take().iter().any(|seen| seen.event.kind == EventKind::Protection));
            assert!(bench.look(range).iter().all(|page| !page.write), "nothing of it may be written as it is");
        }
        ForkWay::BringsHome => {
            assert!(bench.places(range).iter().all(|place| !matches!(place, Some(Place::Device(_)))));
        }
    }
    bench.mm.notifier_remove(id);
    bench.fill(range, 80);
    bench.assert_filled(range, 80);
    bench.audit();
}
