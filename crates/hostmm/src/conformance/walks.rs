//! Cases: what a walk reports, faults in and refuses.

use super::engine::{Bench, BringHome, FRAMES, carry};
use super::{Mapping, Recorder, World};
use crate::{DevicePage, MmError, OwnerId, Place, Run, Walk, WalkRun};
use alloc::vec;
use alloc::vec::Vec;
use units::{HostRange, SZ_4K};

/// Row *walk*: device pages of the owner are reported where they are, with a fault too; nothing migrates back.
pub(super) fn a_walk_tells_whose_pages(world: &dyn World) {
    let bench = Bench::new(world);
    let range = bench.filled(3, 1);
    bench.to_tile(Bench::page(range, 0), 0, 10);
    bench.to_tile(Bench::page(range, 1), 1, 11);
    for fault in [false, true] {
        let mut runs = Vec::new();
        let walk = Walk { range, valid_since: None, vma: None, fault, write: fault, owner: Some(Bench::OWNER) };
        bench.mm.walk(&walk, &mut runs).expect("mapped");
        let places: Vec<_> = runs.iter().map(|run| run.run.place).collect();
        let vram = |tile, frame| Some(Place::Device(bench.frame(tile, frame)));
        assert_eq!(places[..2], [vram(0, 10), vram(1, 11)], "two tiles are two runs");
        assert!(
            matches!(runs[2], WalkRun { run: Run { place: Some(Place::Host(_)), .. }, write: true, .. }),
            "{runs:?}"
        );
    }
    assert!(bench.tiles.iter().all(|tile| tile.faults().is_empty()));
    bench.audit();
}

/// Row *walk*: with a fault, a device page of another owner migrates back; without, it is not reported.
pub(super) fn a_foreign_page_comes_home(world: &dyn World) {
    let bench = Bench::new(world);
    let foreign = OwnerId(2);
    let ops = BringHome::new(foreign, SZ_4K, &bench.memory);
    bench.mm.pagemap_insert(world.pagemap(2), foreign, FRAMES, ops.clone());
    let range = bench.filled(1, 77);
    let to = DevicePage { pagemap: world.pagemap(2), frame: 1 };
    assert_eq!(carry(&*bench.mm, &*bench.memory, range, foreign, to), Ok(vec![true]));
    assert!(!matches!(bench.place(range, 0), Some(Place::Device(_))));
    let moved = bench.try_to_tile(range, 0, 0);
    assert_eq!(moved, [false], "no claim takes a foreign page");
    let mut runs = Vec::new();
    let walk = Walk { range, valid_since: None, vma: None, fault: true, write: false, owner: Some(Bench::OWNER) };
    bench.mm.walk(&walk, &mut runs).expect("mapped");
    assert!(matches!(runs[0].run.place, Some(Place::Host(_))));
    assert!(!ops.faults().is_empty() && ops.freed(to) == 1);
    assert_eq!(world.load(range.start), 77);
    bench.audit();
}

/// Row *walk*: without a fault a hole is told as one; with a fault it is filled.
pub(super) fn a_walk_fills_holes(world: &dyn World) {
    let bench = Bench::new(world);
    let range = world.mmap(3, Mapping::Anonymous);
    assert!(bench.places(range).iter().all(Option::is_none));
    let mut runs = Vec::new();
    let walk = Walk { range, valid_since: None, vma: None, fault: true, write: true, owner: Some(Bench::OWNER) };
    bench.mm.walk(&walk, &mut runs).expect("mapped");
    for WalkRun { run, write, .. } in runs {
        assert!(write && matches!(run.place, Some(Place::Host(_))), "{run:?}");
        assert!((0..run.pages()).filter_map(|i| run.place_at(i)).all(|place| bench.peek(place) == 0));
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
    let mut runs = Vec::new();
    let walk =
        Walk { range, valid_since: Some((id, seq)), vma: None, fault: true, write: false, owner: Some(Bench::OWNER) };
    assert_eq!(bench.mm.walk(&walk, &mut runs), Err(MmError::Stale));
    let walk = Walk { valid_since: Some((id, bench.mm.read_begin(id))), ..walk };
    assert_eq!(bench.mm.walk(&walk, &mut runs), Ok(()));
    assert_eq!((runs.len(), runs[0].run.place), (1, Some(Place::Device(bench.frame(0, 0)))));
    bench.mm.notifier_remove(id);
    bench.audit();
}

/// Row *walk*: where nothing is mapped, or only half, a walk with a fault says so.
pub(super) fn a_walk_without_a_mapping(world: &dyn World) {
    let bench = Bench::new(world);
    let range = bench.filled(2, 3);
    world.munmap(Bench::page(range, 1));
    world.settle();
    let walk = Walk { range, valid_since: None, vma: None, fault: true, write: false, owner: None };
    assert_eq!(bench.mm.walk(&walk, &mut Vec::new()), Err(MmError::NoVma));
    let walk = Walk { range: HostRange::new(range.page_at(1), range.end), ..walk };
    assert_eq!(bench.mm.walk(&walk, &mut Vec::new()), Err(MmError::NoVma));
    bench.audit();
}
