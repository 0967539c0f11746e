//! Cases: VMAs, and what holds over many changes of them.

use super::engine::Bench;
use super::{Mapping, Recorder, World};
use crate::EventKind;
use units::HostRange;

/// Row *VMA facts*: extent, permissions and kind are told; a hole between mappings is none, and what is above it is found from there.
pub(super) fn vma_facts(world: &dyn World) {
    let mm = world.mm();
    let plain = world.mmap(3, Mapping::Anonymous);
    let vma = mm.vma_lookup(plain.page_at(1)).expect("mapped");
    assert!(vma.range.covers(plain) && vma.read && vma.write && vma.anonymous && !vma.io);
    let fixed = world.mmap(1, Mapping::ReadOnly);
    let vma = mm.vma_lookup(fixed.start).expect("mapped");
    assert!(vma.read && !vma.write);
    let shared = world.mmap(1, Mapping::Shared);
    assert!(!mm.vma_lookup(shared.start).expect("mapped").anonymous);
    world.munmap(Bench::page(plain, 1));
    world.settle();
    assert_eq!(mm.vma_lookup(plain.page_at(1)), None);
    assert_eq!(mm.vma_lookup(plain.start).expect("mapped").range.end, plain.page_at(1), "the mapping was cut");
    assert!(mm.vma_lookup(plain.page_at(2)).is_some());
    let next = mm.next_vma(plain.page_at(1)).expect("the rest of the mapping is above");
    assert!(next.range.contains(plain.page_at(2)) && next.anonymous, "{next:?}");
    assert_eq!(mm.next_vma(plain.page_at(2)), mm.vma_lookup(plain.page_at(2)));
}

/// Row *mremap*: the old range is told as unmapped, and the data is at the new place, wherever it was before.
pub(super) fn mremap_carries_the_data(world: &dyn World) {
    let bench = Bench::new(world);
    let range = bench.filled(4, 900);
    bench.to_tile(HostRange::new(range.start, range.page_at(2)), 0, 0);
    let (recorder, id) = Recorder::insert(&bench.mm, range);
    let seq = bench.mm.read_begin(id);
    let to = world.mremap(range);
    world.settle();
    assert_ne!(to.start, range.start);
    assert!(recorder.take().iter().any(|seen| seen.event.kind == EventKind::Unmap && seen.event.range.overlaps(range)));
    assert!(bench.mm.read_retry(id, seq));
    bench.mm.notifier_remove(id);
    assert_eq!(bench.mm.vma_lookup(range.start), None);
    bench.assert_filled(to, 900);
    bench.to_tile(to, 1, 0);
    bench.assert_filled(to, 900);
    bench.audit();
}

/// Row *frees*: over many migrations every frame that was filled is freed exactly once, and nothing is left.
pub(super) fn the_books_balance(world: &dyn World) {
    let bench = Bench::new(world);
    let range = bench.filled(8, 40);
    let part = |from, to| HostRange::new(range.page_at(from), range.page_at(to));
    bench.to_tile(range, 0, 0);
    bench.to_tile(part(0, 4), 1, 0);
    assert_eq!(world.load(range.page_at(0)), 40);
    world.store(range.page_at(7), 1);
    world.munmap(part(1, 3));
    world.settle();
    assert!(bench.migrate_back(part(3, 5)).iter().all(|moved| *moved));
    world.munmap(part(3, 8));
    world.munmap(part(0, 1));
    bench.audit();
    for i in 0..8 {
        assert_eq!(bench.tiles[0].freed(bench.frame(0, i)), 1, "frame {i} of tile 0");
        assert_eq!(bench.tiles[1].freed(bench.frame(1, i)), u32::from(i < 4), "frame {i} of tile 1");
    }
}
