//! Cases: claim, stage, transfer, commit, finish.

use super::engine::{Bench, carry, moved};
use super::{ClaimedCpu, FailureKnown, FrameName, Mapping, Recorder, World};
use crate::{AccessError, ClaimRequest, Claimed, DeviceRun, Migration, MmError, Outcome, Part, Place, Toward};
use alloc::vec::Vec;
use units::{HostRange, ORDER_2M, SZ_2M, SZ_4K, bytes_of, pages_of};

/// Row *claim*: system pages and holes are collected, a device page of the owner too, and a claim that is
/// finished with nothing staged changes nothing.
pub(super) fn claim_collects_pages_and_holes(world: &dyn World) {
    let bench = Bench::new(world);
    let range = world.mmap(4, Mapping::Anonymous);
    for i in [0, 2, 3] {
        world.store(range.page_at(i), 10 + i as u64);
    }
    bench.to_tile(Bench::page(range, 3), 0, 3);
    let mut migration = bench.claim(range, 1);
    let from = |i: usize| {
        let part = migration.parts.iter().find(|part| part.range.contains(range.page_at(i))).expect("collected");
        part.from_at(part.range.page_index(range.page_at(i)))
    };
    assert!(matches!(from(0), Some(Place::Host(_))), "a written page: {:?}", from(0));
    assert_eq!([from(1), from(3)], [None, Some(Place::Device(bench.frame(0, 3)))]);
    if world.contract().frames == FrameName::ByAddress {
        assert!(matches!(from(2), Some(Place::Host(frame)) if frame.0 == range.page_at(2).page_number()));
    }
    bench.mm.finish(&mut migration);
    let mut migration = bench.claim_home(range);
    let device: Vec<_> = migration.parts.iter().map(|part| part.range).collect();
    assert_eq!(device, [Bench::page(range, 3)], "only device pages were asked for");
    bench.mm.finish(&mut migration);
    for (i, value) in [(0, 10), (1, 0), (2, 12), (3, 13)] {
        assert_eq!(world.load(range.page_at(i)), value);
    }
    bench.audit();
}

/// Row *data*: system memory → tile 0 → tile 1 → system memory, and the bytes are the same at each station.
pub(super) fn data_survives_every_home(world: &dyn World) {
    let bench = Bench::new(world);
    let range = bench.filled(8, 100);
    bench.to_tile(range, 0, 16);
    let at = |tile, i| bench.peek(Place::Device(bench.frame(tile, i)));
    assert!((0..8).all(|i| at(0, 16 + i) == 100 + i), "tile 0 shows what the CPU wrote");
    bench.to_tile(range, 1, 32);
    assert!((0..8).all(|i| at(1, 32 + i) == 100 + i), "tile 1 shows what tile 0 had");
    assert_eq!(bench.tiles[0].freed_in_all(), 8, "the frames of tile 0 are free again");
    assert!(bench.migrate_back(range).iter().all(|moved| *moved));
    bench.assert_filled(range, 100);
    assert!(bench.places(range).iter().all(|place| matches!(place, Some(Place::Host(_)))));
    assert_eq!(bench.freed(), 16);
    bench.audit();
}

/// Row *holes*: a hole migrates as a page of zeros.
pub(super) fn a_hole_arrives_as_zeros(world: &dyn World) {
    let bench = Bench::new(world);
    let range = world.mmap(2, Mapping::Anonymous);
    bench.to_tile(range, 1, 0);
    for i in 0..2 {
        assert_eq!(bench.peek(Place::Device(bench.frame(1, i))), 0);
    }
    bench.memory.write(Place::Device(bench.frame(1, 1)), 8, &7u64.to_le_bytes()).expect("the frame holds a page");
    assert_eq!(world.load(super::engine::word(range, 1, 1)), 7);
    bench.audit();
}

/// Row *holes*: a hole that the CPU fills between claim and commit does not move, and keeps the write.
pub(super) fn a_hole_filled_meanwhile_keeps_its_write(world: &dyn World) {
    let bench = Bench::new(world);
    let range = world.mmap(2, Mapping::Anonymous);
    let mut migration = bench.claim(range, 0);
    assert!(
        matches!(migration.parts[..], [Part { range: all, from: None, .. }] if all == range),
        "two holes, one part"
    );
    bench.stage(&mut migration, range, 0, 0);
    world.store(range.page_at(0), 41);
    bench.complete(&mut migration);
    assert_eq!(moved(&migration, range), [false, true]);
    assert_eq!(world.load(range.page_at(0)), 41);
    assert_eq!(bench.place(range, 1), Some(Place::Device(bench.frame(0, 1))));
    bench.audit();
}

/// Row *abort*: what the device did not report as carried, and what was carried but not wanted, is as before.
pub(super) fn abort_restores_the_sources(world: &dyn World) {
    let bench = Bench::new(world);
    let range = bench.filled(3, 50);
    bench.to_tile(Bench::page(range, 2), 1, 2);
    let mut migration = bench.claim(range, 0);
    bench.stage(&mut migration, range, 0, 0);
    for part in migration.parts.clone() {
        for i in (0..part.pages()).filter(|i| part.range.page_at(*i) != range.page_at(1)) {
            let (Some(from), Some(to)) = (part.from_at(i), part.to_at(i)) else {
                panic!("{part:?} is collected and aimed")
            };
            let how = bench.transfer(from, to);
            assert!(matches!(how, Outcome::Moved | Outcome::Copied), "page {i} of {part:?}: {how:?}");
        }
    }
    bench.mm.commit(&mut migration);
    assert_eq!(migration.carried(), 0, "nothing was reported");
    bench.mm.finish(&mut migration);
    assert_eq!(bench.place(range, 2), Some(Place::Device(bench.frame(1, 2))), "a device page is back in VRAM");
    for i in 0..3 {
        let empty = bench.memory.read(Place::Device(bench.frame(0, i)), 0, &mut [0; 8]);
        assert_eq!(empty, Err(AccessError::Empty), "destination {i} is empty again");
    }
    assert_eq!(bench.freed(), 0, "empty destinations belong to the caller: they are not freed");
    bench.assert_filled(range, 50);
    bench.audit();
}

/// Row *one claim a page*: what a claim holds, a second one does not get; the rest it does.
pub(super) fn a_second_claim_gets_nothing(world: &dyn World) {
    let bench = Bench::new(world);
    let range = bench.filled(4, 1);
    let mut first = bench.claim(HostRange::new(range.start, range.page_at(2)), 0);
    let request = ClaimRequest { range, owner: Bench::OWNER, toward: Toward::Vram(bench.pagemap(0)), fault: None };
    let mut second = Migration::default();
    match bench.mm.claim(&request, &mut second) {
        Ok(claimed) => {
            assert_eq!(claimed, Claimed::Begun);
            assert_eq!(second.pages(), 2, "{second:?}");
            assert!(second.parts.iter().all(|part| part.range.start >= range.page_at(2)), "{second:?}");
            bench.mm.finish(&mut second);
        }
        Err(error) => assert_eq!(error, MmError::Stale),
    }
    bench.mm.finish(&mut first);
    bench.to_tile(range, 0, 0);
    bench.assert_filled(range, 1);
    bench.audit();
}

/// Row *failure known*: a pinned page stays, whenever that becomes known; its neighbours move.
pub(super) fn a_pinned_page_fails_alone(world: &dyn World) {
    let bench = Bench::new(world);
    let range = bench.filled(4, 70);
    world.pin(range.page_at(1));
    if world.contract().failure == FailureKnown::AtClaim {
        let mut migration = bench.claim(range, 0);
        assert!(migration.parts.iter().all(|part| !part.range.contains(range.page_at(1))), "{migration:?}");
        bench.mm.finish(&mut migration);
    }
    let moved = bench.try_to_tile(range, 0, 0);
    assert_eq!(moved, [true, false, true, true]);
    assert!(matches!(bench.place(range, 1), Some(Place::Host(_))));
    world.unpin(range.page_at(1));
    bench.to_tile(Bench::page(range, 1), 0, 1);
    bench.assert_filled(range, 70);
    bench.audit();
}

/// Row *eviction*: a claim by device pages finds where they are mapped; a frame that holds nothing is left out.
pub(super) fn claim_device_finds_the_address(world: &dyn World) {
    let bench = Bench::new(world);
    let range = bench.filled(2, 90);
    bench.to_tile(range, 0, 7);
    let run = |frame, pages| DeviceRun { first: bench.frame(0, frame), pages };
    let mut migration = bench.claim_device(&[run(8, 1), run(100, 2), run(7, 1)]);
    let found: Vec<_> = migration.parts.iter().map(|part| (part.range, part.from)).collect();
    let part = |i, frame| (Bench::page(range, i), Some(Place::Device(bench.frame(0, frame))));
    assert_eq!(found, [part(1, 8), part(0, 7)]);
    bench.mm.stage(&mut migration).expect("staged");
    assert!(migration.parts.iter().all(|part| matches!(part.to, Some(Place::Host(_)))), "{migration:?}");
    bench.complete(&mut migration);
    assert_eq!(migration.carried(), 2);
    assert_eq!([7, 8].map(|frame| bench.tiles[0].freed(bench.frame(0, frame))), [1, 1]);
    bench.assert_filled(range, 90);
    assert!(bench.tiles[0].faults().is_empty(), "nothing was left to fault on");
    bench.audit();
}

/// Rows *data*, *order*: a 2M mapping travels in one claim; its order is told truthfully, or as 0.
pub(super) fn two_megabytes_travel(world: &dyn World) {
    let bench = Bench::new(world);
    let pages = pages_of(SZ_2M);
    let range = world.mmap(pages, Mapping::Huge);
    bench.fill(range, 1000);
    let order = |range| {
        let orders: Vec<_> = bench.look(range).iter().map(|run| run.order).collect();
        assert!(orders.iter().all(|order| *order == orders[0]) && [0, ORDER_2M].contains(&orders[0]), "{orders:?}");
    };
    order(range);
    bench.to_tile(range, 0, 512);
    assert_eq!(bench.peek(Place::Device(bench.frame(0, 512 + 300))), 1300);
    order(range);
    assert!(bench.migrate_back(range).iter().all(|moved| *moved));
    bench.assert_filled(range, 1000);
    world.munmap(HostRange::sized(range.start, bytes_of(1)));
    assert_eq!(bench.look(HostRange::new(range.start.add(SZ_4K), range.end))[0].order, 0, "a mapping cut is small");
    bench.audit();
}

/// Rows *claim*, *VMA facts*: what cannot migrate is not collected, and no mapping is told as such.
pub(super) fn what_no_claim_takes(world: &dyn World) {
    let bench = Bench::new(world);
    let shared = world.mmap(1, Mapping::Shared);
    world.store(shared.start, 5);
    match bench.try_to_tile(shared, 0, 0)[..] {
        [went] => assert!(!went, "a shared page stays"),
        _ => panic!("one page, one answer"),
    }
    assert_eq!(world.load(shared.start), 5);
    let gone = bench.filled(1, 5);
    world.munmap(gone);
    world.settle();
    let none = carry(&*bench.mm, &*bench.memory, gone, Bench::OWNER, bench.frame(0, 1));
    assert_eq!(none, Err(MmError::NoVma));
    if world.contract().claimed == ClaimedCpu::Blocks {
        assert_eq!(bench.freed(), 0);
    }
    bench.audit();
}

/// Row *all there*: a claim of what is at its destination pagemap already collects nothing, calls no notifier, and owes no
/// finish; a claim of which one page is elsewhere is a claim.
pub(super) fn what_is_there_is_not_claimed(world: &dyn World) {
    let bench = Bench::new(world);
    let range = bench.filled(3, 10);
    bench.to_tile(range, 0, 0);
    let (recorder, id) = Recorder::insert(&bench.mm, range);
    let request = |range, tile| ClaimRequest {
        range,
        owner: Bench::OWNER,
        toward: Toward::Vram(bench.pagemap(tile)),
        fault: None,
    };
    let mut migration = Migration::default();
    assert_eq!(bench.mm.claim(&request(range, 0), &mut migration), Ok(Claimed::There));
    assert!(recorder.take().is_empty(), "no notifier was called");
    bench.to_tile(Bench::page(range, 1), 1, 0);
    recorder.take();
    for (tile, pages) in [(0, 3), (1, 3)] {
        assert_eq!(bench.mm.claim(&request(range, tile), &mut migration), Ok(Claimed::Begun));
        assert_eq!((migration.pages(), migration.parts.len()), (pages, 3), "{migration:?}");
        bench.mm.finish(&mut migration);
    }
    assert_eq!(bench.mm.claim(&request(Bench::page(range, 1), 1), &mut migration), Ok(Claimed::There));
    bench.mm.notifier_remove(id);
    bench.assert_filled(range, 10);
    bench.audit();
}

/// Row *claim*: each source is a part of its own, in the order of the addresses; all of it moves, and arrives as it was.
pub(super) fn a_mixed_range_is_a_leg_each(world: &dyn World) {
    let bench = Bench::new(world);
    let range = world.mmap(6, Mapping::Anonymous);
    [0, 1, 2, 5].into_iter().for_each(|i| world.store(range.page_at(i), 40 + i as u64));
    bench.to_tile(Bench::page(range, 2), 1, 7);
    let mut migration = bench.claim(range, 0);
    let parts: Vec<_> = migration.parts.iter().map(|part| (range.page_index(part.range.start), part.from)).collect();
    assert!(matches!(parts[0], (0, Some(Place::Host(_)))), "{parts:?}");
    let vram = Some(Place::Device(bench.frame(1, 7)));
    assert!(parts.contains(&(2, vram)) && parts.contains(&(3, None)), "{parts:?}");
    assert!(matches!(parts.last(), Some((5, Some(Place::Host(_))))), "{parts:?}");
    bench.stage(&mut migration, range, 0, 16);
    bench.complete(&mut migration);
    assert_eq!(moved(&migration, range), [true; 6]);
    assert_eq!(bench.look(range).len(), 1, "one run in VRAM");
    assert_eq!([0, 1, 2, 3, 4, 5].map(|i| world.load(range.page_at(i))), [40, 41, 42, 0, 0, 45]);
    bench.audit();
}

/// Row *failure known*: where a part of a run does not commit, the rest of it does, and the part says which.
pub(super) fn a_commit_fails_in_the_middle_of_a_run(world: &dyn World) {
    let bench = Bench::new(world);
    let range = world.mmap(5, Mapping::Anonymous);
    let mut migration = bench.claim(range, 1);
    assert_eq!(migration.parts.len(), 1, "{migration:?}");
    bench.stage(&mut migration, range, 1, 0);
    world.store(range.page_at(2), 9);
    bench.complete(&mut migration);
    assert_eq!(moved(&migration, range), [true, true, false, true, true]);
    assert_eq!(migration.parts.len(), 3, "{migration:?}");
    assert_eq!(bench.place(range, 3), Some(Place::Device(bench.frame(1, 3))));
    assert_eq!([1, 2, 3].map(|i| world.load(range.page_at(i))), [0, 9, 0]);
    bench.audit();
}

/// Rows *told of DONTNEED*, *claims and locks*: a part of a claimed run is dropped; that part is gone, the rest arrives.
pub(super) fn a_part_of_a_claim_is_dropped(world: &dyn World) {
    let bench = Bench::new(world);
    let range = bench.filled(4, 60);
    let mut migration = bench.claim(range, 0);
    bench.stage(&mut migration, range, 0, 0);
    world.dontneed(Bench::page(range, 1));
    world.settle();
    bench.complete(&mut migration);
    assert_eq!([0, 1, 2, 3].map(|i| world.load(range.page_at(i))), [60, 0, 62, 63]);
    bench.audit();
}

/// Rows *claim*, *order*: a huge page is one run of a walk, one part of a claim, and one run in system memory again.
pub(super) fn a_huge_page_is_one_run(world: &dyn World) {
    let bench = Bench::new(world);
    let range = world.mmap(pages_of(SZ_2M), Mapping::Huge);
    bench.fill(range, 0);
    let looked = bench.look(range);
    if looked.iter().all(|run| run.order == ORDER_2M) {
        assert_eq!(looked.len(), 1, "{looked:?}");
        let mut migration = bench.claim(range, 0);
        assert_eq!(migration.parts.len(), 1, "{migration:?}");
        bench.stage(&mut migration, range, 0, 512);
        bench.complete(&mut migration);
        assert_eq!((migration.parts.len(), migration.carried()), (1, 512));
        assert_eq!(bench.look(range).len(), 1);
    }
    world.munmap(HostRange::new(range.page_at(100), range.page_at(101)));
    world.settle();
    assert_eq!([99, 101].map(|i| world.load(range.page_at(i))), [99, 101]);
    bench.audit();
}
