//! Cases: what a walk reports, faults in and refuses.

use super::engine::{Bench, BringHome, FRAMES, carry};
use super::{Mapping, Recorder, World};
use crate::{Backing, DevicePage, HostPage, MmError, OwnerId, Walk};
use alloc::vec;
use units::{HostRange, SZ_4K};

/// Row *walk*: device pages of the owner are reported where they are, with a fault too; nothing comes home.
pub(super) fn a_walk_tells_whose_pages(world: &dyn World) {
    let bench = Bench::new(world);
    let range = bench.filled(3, 1);
    bench.to_tile(Bench::page(range, 0), 0, 10);
    bench.to_tile(Bench::page(range, 1), 1, 11);
    for fault in [false, true] {
        let mut pages = [HostPage::HOLE; 3];
        let walk = Walk { range, valid_since: None, fault, write: fault, owner: Some(Bench::OWNER) };
        bench.mm.walk(&walk, &mut pages).expect("mapped");
        assert_eq!(pages[0].backing, Backing::Device(bench.frame(0, 10)));
        assert_eq!(pages[1].backing, Backing::Device(bench.frame(1, 11)));
        assert!(matches!(pages[2], HostPage { backing: Backing::System(_), write: true, .. }), "{:?}", pages[2]);
    }
    assert!(bench.tiles.iter().all(|tile| tile.faults().is_empty()));
    bench.audit();
}

/// Row *walk*: with a fault, a device page of another owner comes home; without, it is not reported.
pub(super) fn a_foreign_page_comes_home(world: &dyn World) {
    let bench = Bench::new(world);
    let foreign = OwnerId(2);
    let ops = BringHome::new(foreign, SZ_4K, &bench.memory);
    bench.mm.pagemap_insert(world.pagemap(2), foreign, FRAMES, ops.clone());
    let range = bench.filled(1, 77);
    let to = DevicePage { pagemap: world.pagemap(2), frame: 1 };
    assert_eq!(carry(&*bench.mm, &*bench.memory, range, foreign, to), Ok(vec![true]));
    assert!(!matches!(bench.look(range)[0].backing, Backing::Device(_)));
    let moved = bench.try_to_tile(range, 0, 0);
    assert_eq!(moved, [false], "no claim takes a foreign page");
    let mut pages = [HostPage::HOLE];
    let walk = Walk { range, valid_since: None, fault: true, write: false, owner: Some(Bench::OWNER) };
    bench.mm.walk(&walk, &mut pages).expect("mapped");
    assert!(matches!(pages[0].backing, Backing::System(_)));
    assert!(!ops.faults().is_empty() && ops.freed(to) == 1);
    assert_eq!(world.load(range.start), 77);
    bench.audit();
}

/// Row *walk*: without a fault a hole is told as one; with a fault it is filled.
pub(super) fn a_walk_fills_holes(world: &dyn World) {
    let bench = Bench::new(world);
    let range = world.mmap(3, Mapping::Anonymous);
    assert!(bench.look(range).iter().all(|page| page.backing == Backing::None));
    let mut pages = [HostPage::HOLE; 3];
    let walk = Walk { range, valid_since: None, fault: true, write: true, owner: Some(Bench::OWNER) };
    bench.mm.walk(&walk, &mut pages).expect("mapped");
    for page in pages {
        let HostPage { backing: Backing::System(frame), write: true, .. } = page else { panic!("{page:?}") };
        assert_eq!(bench.peek(crate::Place::Host(frame)), 0);
    }
    bench.audit();
}

/// Row *sequence*: a walk that demands a sequence which has moved is stale; with the new one it succeeds.
pub(super) fn a_late_walk_is_stale(world: &dyn World) {
    let bench = Bench::new(world);
    let range = bench.filled(2, 3);
    let (_recorder, id) = Recorder::insert(&bench.mm, range);
    let seq = bench.mm.read_begin(id);
    bench.to_tile(range, 0, 0);
    let mut pages = [HostPage::HOLE; 2];
    let walk = Walk { range, valid_since: Some((id, seq)), fault: true, write: false, owner: Some(Bench::OWNER) };
    assert_eq!(bench.mm.walk(&walk, &mut pages), Err(MmError::Stale));
    let walk = Walk { valid_since: Some((id, bench.mm.read_begin(id))), ..walk };
    assert_eq!(bench.mm.walk(&walk, &mut pages), Ok(()));
    assert_eq!(pages[1].backing, Backing::Device(bench.frame(0, 1)));
    bench.mm.notifier_remove(id);
    bench.audit();
}

/// Row *walk*: where nothing is mapped, or only half, a walk with a fault says so.
pub(super) fn a_walk_without_a_mapping(world: &dyn World) {
    let bench = Bench::new(world);
    let range = bench.filled(2, 3);
    world.munmap(Bench::page(range, 1));
    world.settle();
    let walk = Walk { range, valid_since: None, fault: true, write: false, owner: None };
    assert_eq!(bench.mm.walk(&walk, &mut [HostPage::HOLE; 2]), Err(MmError::NoVma));
    let walk = Walk { range: HostRange::new(range.page_at(1), range.end), ..walk };
    assert_eq!(bench.mm.walk(&walk, &mut [HostPage::HOLE]), Err(MmError::NoVma));
    bench.audit();
}
