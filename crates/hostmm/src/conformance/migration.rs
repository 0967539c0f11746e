//! Cases: claim, stage, transfer, commit, finish.

use super::engine::{Bench, carry};
use super::{ClaimedCpu, FailureKnown, FrameName, Mapping, World};
use crate::{AccessError, Backing, Claimed, Destination, MmError, Place, Select, Transferred};
use alloc::vec;
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
    let (claim, pages) = bench.claim(range, Select::All);
    assert!(matches!(pages[0], Claimed::System(_)), "a written page: {:?}", pages[0]);
    assert_eq!(pages[1], Claimed::Hole);
    assert_eq!(pages[3], Claimed::Device(bench.frame(0, 3)));
    if world.contract().frames == FrameName::ByAddress {
        assert!(matches!(pages[2], Claimed::System(frame) if frame.0 == range.page_at(2).page_number()));
    }
    bench.mm.finish(claim);
    let (claim, pages) = bench.claim(range, Select::DeviceOnly);
    assert_eq!(pages[..3], [Claimed::No; 3], "only device pages were asked for");
    bench.mm.finish(claim);
    for (i, value) in [(0, 10), (1, 0), (2, 12), (3, 13)] {
        assert_eq!(world.load(range.page_at(i)), value);
    }
    bench.audit();
}

/// Row *data*: system memory → tile 0 → tile 1 → home, and the bytes are the same at each station.
pub(super) fn data_survives_every_home(world: &dyn World) {
    let bench = Bench::new(world);
    let range = bench.filled(8, 100);
    bench.to_tile(range, 0, 16);
    let at = |tile, i| bench.peek(Place::Device(bench.frame(tile, i)));
    assert!((0..8).all(|i| at(0, 16 + i) == 100 + i), "tile 0 shows what the CPU wrote");
    bench.to_tile(range, 1, 32);
    assert!((0..8).all(|i| at(1, 32 + i) == 100 + i), "tile 1 shows what tile 0 had");
    assert_eq!(bench.tiles[0].freed_in_all(), 8, "the frames of tile 0 are free again");
    assert!(bench.home(range).iter().all(|moved| *moved));
    bench.assert_filled(range, 100);
    assert!(bench.look(range).iter().all(|page| matches!(page.backing, Backing::System(_))));
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
    let (claim, pages) = bench.claim(range, Select::All);
    assert_eq!(pages, [Claimed::Hole; 2]);
    let to = [0, 1].map(|i| Destination::Device(bench.frame(0, i)));
    bench.mm.stage(claim, &to, &mut [None; 2]).expect("staged");
    world.store(range.page_at(0), 41);
    let mut moved = [true; 2];
    bench.mm.commit(claim, &[true; 2], &mut moved);
    bench.mm.finish(claim);
    assert_eq!(moved, [false, true]);
    assert_eq!(world.load(range.page_at(0)), 41);
    assert_eq!(bench.look(range)[1].backing, Backing::Device(bench.frame(0, 1)));
    bench.audit();
}

/// Row *abort*: what the device did not report as carried, and what was carried but not wanted, is as before.
pub(super) fn abort_restores_the_sources(world: &dyn World) {
    let bench = Bench::new(world);
    let range = bench.filled(3, 50);
    bench.to_tile(Bench::page(range, 2), 1, 2);
    let (claim, pages) = bench.claim(range, Select::All);
    let to = [0, 1, 2].map(|i| Destination::Device(bench.frame(0, i)));
    bench.mm.stage(claim, &to, &mut [None; 3]).expect("staged");
    for i in [0, 2] {
        let src = match pages[i as usize] {
            Claimed::System(frame) => Place::Host(frame),
            Claimed::Device(page) => Place::Device(page),
            other => panic!("page {i} is collected: {other:?}"),
        };
        let mut done = [Transferred::Failed];
        bench.memory.transfer(src, Place::Device(bench.frame(0, i)), &mut done);
        assert!(matches!(done[0], Transferred::Moved | Transferred::Copied), "page {i}: {done:?}");
    }
    let mut moved = [true; 3];
    bench.mm.commit(claim, &[false; 3], &mut moved);
    assert_eq!(moved, [false; 3]);
    bench.mm.finish(claim);
    assert_eq!(bench.look(range)[2].backing, Backing::Device(bench.frame(1, 2)), "a device page is back in VRAM");
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
    let (first, _) = bench.claim(HostRange::new(range.start, range.page_at(2)), Select::All);
    let request = crate::ClaimRequest { range, owner: Bench::OWNER, select: Select::All, fault: None };
    let mut out = vec![Claimed::Hole; 4];
    match bench.mm.claim(&request, &mut out) {
        Ok(second) => {
            assert_eq!(out[..2], [Claimed::No; 2]);
            assert!(out[2..].iter().all(|page| matches!(page, Claimed::System(_))), "{out:?}");
            bench.mm.finish(second);
        }
        Err(error) => assert_eq!(error, MmError::Stale),
    }
    bench.mm.finish(first);
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
        let (claim, pages) = bench.claim(range, Select::All);
        assert_eq!(pages[1], Claimed::No);
        bench.mm.finish(claim);
    }
    let moved = bench.try_to_tile(range, 0, 0);
    assert_eq!(moved, [true, false, true, true]);
    assert!(matches!(bench.look(range)[1].backing, Backing::System(_)));
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
    let pages = [bench.frame(0, 8), bench.frame(0, 100), bench.frame(0, 7)];
    let mut at = [None; 3];
    let claim = bench.mm.claim_device(&pages, &mut at).expect("an eviction is begun");
    assert_eq!(at, [Some(range.page_at(1)), None, Some(range.page_at(0))]);
    let to = [Destination::Ram, Destination::Stay, Destination::Ram];
    let mut frames = [None; 3];
    bench.mm.stage(claim, &to, &mut frames).expect("staged");
    let wanted = [0, 1, 2].map(|i| {
        let mut done = [Transferred::Failed];
        if let Some(frame) = frames[i] {
            bench.memory.transfer(Place::Device(pages[i]), Place::Host(frame), &mut done);
        }
        matches!(done[0], Transferred::Moved | Transferred::Copied)
    });
    assert_eq!(wanted, [true, false, true]);
    let mut moved = [false; 3];
    bench.mm.commit(claim, &wanted, &mut moved);
    bench.mm.finish(claim);
    assert_eq!(moved, [true, false, true]);
    assert_eq!((bench.tiles[0].freed(pages[0]), bench.tiles[0].freed(pages[2])), (1, 1));
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
        let orders: alloc::vec::Vec<_> = bench.look(range).iter().map(|page| page.order).collect();
        assert!(orders.iter().all(|order| *order == orders[0]) && [0, ORDER_2M].contains(&orders[0]), "{orders:?}");
    };
    order(range);
    bench.to_tile(range, 0, 512);
    assert_eq!(bench.peek(Place::Device(bench.frame(0, 512 + 300))), 1300);
    order(range);
    assert!(bench.home(range).iter().all(|moved| *moved));
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
        [moved] => assert!(!moved, "a shared page stays"),
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
