//! Cases: what notifiers are called, when, and what the change does.

use super::engine::{Bench, transfer};
use super::{Mapping, Protected, Recorder, Seen, Told, World};
use crate::{DeviceRun, EventKind, HostMemory, HostMm, Migration, MmError, MmEvent, NotifierOps, Place, Walk};
use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use sync::Mutex;
use sync::rank::{self, Rank};
use units::HostRange;

/// The events of one kind that touch `range`.
fn of_kind(seen: &[Seen], kind: EventKind, range: HostRange) -> Vec<Seen> {
    seen.iter().filter(|seen| seen.event.kind == kind && seen.event.range.overlaps(range)).copied().collect()
}

/// Rows *claim told*, *sequence*: a claim tells, while the sequence is outdated already, and leaves it moved.
pub(super) fn a_claim_tells(world: &dyn World) {
    let bench = Bench::new(world);
    let range = bench.filled(2, 1);
    let (recorder, id) = Recorder::insert(&bench.mm, range);
    let seq = bench.mm.read_begin(id);
    recorder.arm(id, seq);
    assert!(!bench.mm.read_retry(id, seq));
    let mut migration = bench.claim(range, 0);
    let told = of_kind(&recorder.take(), EventKind::Migrate(Bench::OWNER), range);
    assert!(!told.is_empty(), "the claim is told");
    assert!(told.iter().all(|seen| seen.retry == Some(true)), "the sequence moved before the callback");
    assert!(bench.mm.read_retry(id, seq));
    bench.mm.finish(&mut migration);
    let seq = bench.mm.read_begin(id);
    assert!(!bench.mm.read_retry(id, seq), "at rest the sequence stands still");
    bench.mm.notifier_remove(id);
    bench.audit();
}

/// A notifier that completes a migration the first time that it is called.
struct Completer {
    mm: Weak<dyn HostMm>,
    memory: Weak<dyn HostMemory>,
    migration: Mutex<Option<Migration>>,
}

impl NotifierOps for Completer {
    fn invalidate(&self, _: &MmEvent) {
        let migration = self.migration.lock().take();
        if let (Some(mut migration), Some(mm), Some(memory)) = (migration, self.mm.upgrade(), self.memory.upgrade()) {
            transfer(&*memory, &mut migration);
            mm.commit(&mut migration);
            mm.finish(&mut migration);
        }
    }
}

/// Rows *eviction*, *claim told*: a page that comes to a frame while an eviction of that frame tells the notifiers is in no part,
/// or they were called for it as well. A device may have bound it since it came.
pub(super) fn what_comes_during_an_eviction_is_told_or_left(world: &dyn World) {
    let bench = Bench::new(world);
    let (there, comes) = (bench.filled(1, 1), bench.filled(1, 2));
    bench.to_tile(there, 0, 0);
    let (mm, memory) = (Arc::downgrade(&bench.mm), Arc::downgrade(&bench.memory));
    let completer = Arc::new(Completer { mm, memory, migration: rank::mutex(Rank::LEAF, None) });
    let completes = bench.mm.notifier_insert(there, completer.clone()).expect("a notifier can be inserted");
    let (recorder, records) = Recorder::insert(&bench.mm, comes);
    let mut migration = bench.claim(comes, 0);
    bench.stage(&mut migration, comes, 0, 1);
    *completer.migration.lock() = Some(migration);
    recorder.take();
    let mut eviction = bench.claim_device(&[DeviceRun { first: bench.frame(0, 0), pages: 2 }]);
    let takes = |range: HostRange| eviction.parts.iter().any(|part| part.range.overlaps(range));
    assert!(takes(there));
    let told = of_kind(&recorder.take(), EventKind::Clear, comes);
    assert!(!takes(comes) || !told.is_empty(), "what came is claimed, and nobody was told");
    bench.mm.stage(&mut eviction).expect("staged");
    bench.complete(&mut eviction);
    [completes, records].into_iter().for_each(|id| bench.mm.notifier_remove(id));
    bench.assert_filled(there, 1);
    bench.assert_filled(comes, 2);
    bench.audit();
}

/// Rows *told of unmap*, *frees*: munmap is told before or after, and frees each device page exactly once.
pub(super) fn an_unmap_tells_and_frees_once(world: &dyn World) {
    let bench = Bench::new(world);
    let range = bench.filled(4, 1);
    bench.to_tile(HostRange::new(range.start, range.page_at(3)), 0, 0);
    let (recorder, id) = Recorder::insert(&bench.mm, range);
    let seq = bench.mm.read_begin(id);
    recorder.arm(id, seq);
    let part = HostRange::new(range.page_at(1), range.end);
    world.munmap(part);
    world.settle();
    let told = of_kind(&recorder.take(), EventKind::Unmap, part);
    assert!(!told.is_empty(), "munmap is told");
    let before = world.contract().unmap == Told::Before;
    assert!(told.iter().all(|seen| seen.mapped == before && seen.retry == Some(true)), "{told:?}");
    assert!(bench.mm.read_retry(id, seq));
    assert_eq!([0, 1, 2].map(|i| bench.tiles[0].freed(bench.frame(0, i))), [0, 1, 1]);
    assert_eq!(
        bench.place(Bench::page(range, 0), 0),
        Some(Place::Device(bench.frame(0, 0))),
        "what stays mapped stays"
    );
    bench.mm.notifier_remove(id);
    world.munmap(Bench::page(range, 0));
    bench.audit();
    assert_eq!(bench.freed(), 3);
}

/// Rows *told of DONTNEED*, *frees*: it is told as a clear; the next load gives zeros, and the frame is free.
pub(super) fn dontneed_tells_and_reads_zero(world: &dyn World) {
    let bench = Bench::new(world);
    let range = bench.filled(3, 7);
    bench.to_tile(Bench::page(range, 1), 1, 4);
    let (recorder, id) = Recorder::insert(&bench.mm, range);
    let dropped = HostRange::new(range.start, range.page_at(2));
    world.dontneed(dropped);
    world.settle();
    let told = of_kind(&recorder.take(), EventKind::Clear, Bench::page(range, 1));
    assert!(!told.is_empty() && told.iter().all(|seen| seen.mapped), "DONTNEED is told, and the mapping stays");
    bench.mm.notifier_remove(id);
    assert_eq!([0, 1, 2].map(|i| world.load(range.page_at(i))), [0, 0, 9]);
    assert_eq!(bench.tiles[1].freed(bench.frame(1, 4)), 1);
    bench.audit();
}

/// Row *protection*: mprotect is told, or silent; a walk that demands writing is denied from then on.
pub(super) fn mprotect_tells_or_is_denied(world: &dyn World) {
    let bench = Bench::new(world);
    let range = bench.filled(2, 7);
    bench.to_tile(Bench::page(range, 1), 0, 4);
    let (recorder, id) = Recorder::insert(&bench.mm, range);
    world.protect_read_only(range);
    world.settle();
    if world.contract().protection == Protected::Told {
        assert!(!of_kind(&recorder.take(), EventKind::Protection, range).is_empty(), "mprotect is told");
    }
    bench.mm.notifier_remove(id);
    let walk =
        Walk { range: Bench::page(range, 0), valid_since: None, vma: None, fault: true, write: true, owner: None };
    assert_eq!(bench.mm.walk(&walk, &mut Vec::new()), Err(MmError::Denied));
    let walk = Walk { write: false, ..walk };
    assert_eq!(bench.mm.walk(&walk, &mut Vec::new()), Ok(()));
    bench.assert_filled(range, 7);
    bench.audit();
}

/// Row *notifiers*: a removed notifier is called no more; another one at the same place is.
pub(super) fn a_removed_notifier_is_silent(world: &dyn World) {
    let bench = Bench::new(world);
    let range = bench.filled(1, 7);
    let (first, first_id) = Recorder::insert(&bench.mm, range);
    let (second, second_id) = Recorder::insert(&bench.mm, range);
    bench.mm.notifier_remove(first_id);
    bench.to_tile(range, 0, 0);
    assert!(first.take().is_empty());
    assert!(!second.take().is_empty());
    bench.mm.notifier_remove(second_id);
    bench.audit();
}

/// Row *sequence*: a change moves the sequences of the notifiers that it touches, and of no other.
pub(super) fn the_sequence_moves_only_inside(world: &dyn World) {
    let bench = Bench::new(world);
    let range = bench.filled(2, 7);
    let other = world.mmap(2, Mapping::Anonymous);
    bench.to_tile(Bench::page(range, 1), 0, 0);
    let (_inside, inside) = Recorder::insert(&bench.mm, range);
    let (away, outside) = Recorder::insert(&bench.mm, other);
    let before = [inside, outside].map(|id| bench.mm.read_begin(id));
    world.munmap(range);
    world.settle();
    assert!(bench.mm.read_retry(inside, before[0]));
    assert!(!bench.mm.read_retry(outside, before[1]));
    assert!(away.take().is_empty());
    for id in [inside, outside] {
        bench.mm.notifier_remove(id);
    }
    bench.audit();
}
