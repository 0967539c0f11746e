//! Cases: what a device does to bytes.

use super::engine::{Bench, word};
use super::{Held, World};
use crate::{AccessError, AtomicOp, Outcome, Place};
use units::HostVa;

/// Row *unstaged pairs*: a pair that no claim staged is copied, to whatever memory is there; the source keeps its page.
pub(super) fn an_unstaged_pair_is_copied(world: &dyn World) {
    let bench = Bench::new(world);
    let range = bench.filled(3, 200);
    bench.to_tile(bench_range(range, 0, 2), 0, 0);
    let (a, b) = (Place::Device(bench.frame(0, 0)), Place::Device(bench.frame(0, 1)));
    assert_eq!((bench.transfer(a, b), bench.peek(a), bench.peek(b)), (Outcome::Copied, 200, 200));
    let Some(host @ Place::Host(_)) = bench.place(range, 2) else { panic!("the third page is in system memory") };
    assert_eq!((bench.transfer(host, b), bench.peek(b)), (Outcome::Copied, 202));
    assert_eq!(bench.transfer(a, host), Outcome::Copied);
    assert_eq!(bench.place(range, 2), Some(host), "the page itself did not move");
    assert_eq!([0, 1, 2].map(|i| world.load(range.page_at(i))), [200, 202, 200]);
    bench.audit();
}

/// Row *unstaged pairs*: wrong page tables fill a staged frame from a wrong source; that is what commits.
pub(super) fn a_staged_destination_takes_what_comes(world: &dyn World) {
    let bench = Bench::new(world);
    let range = bench.filled(2, 300);
    bench.to_tile(Bench::page(range, 1), 1, 9);
    let first = Bench::page(range, 0);
    let mut migration = bench.claim(first, 0);
    bench.stage(&mut migration, first, 0, 0);
    let wrong = bench.transfer(Place::Device(bench.frame(1, 9)), Place::Device(bench.frame(0, 0)));
    assert_eq!(wrong, Outcome::Copied);
    migration.report_from(0).note(1, wrong);
    bench.mm.commit(&mut migration);
    bench.mm.finish(&mut migration);
    assert_eq!(migration.carried(), 1);
    assert_eq!((world.load(range.page_at(0)), world.load(range.page_at(1))), (301, 301));
    bench.audit();
}

/// Row *nothing carried*: a page committed though nothing was carried to it holds zeros, and its source is gone.
pub(super) fn nothing_carried_reads_zeros(world: &dyn World) {
    let bench = Bench::new(world);
    let range = bench.filled(2, 400);
    bench.to_tile(Bench::page(range, 1), 1, 3);
    let mut migration = bench.claim(range, 0);
    bench.stage(&mut migration, range, 0, 0);
    migration.report_from(0).note(2, Outcome::Copied);
    bench.mm.commit(&mut migration);
    bench.mm.finish(&mut migration);
    assert_eq!(migration.carried(), 2);
    assert_eq!([0, 1].map(|i| bench.peek(Place::Device(bench.frame(0, i)))), [0, 0]);
    assert_eq!(bench.tiles[1].freed(bench.frame(1, 3)), 1);
    assert_eq!([0, 1].map(|i| world.load(range.page_at(i))), [0, 0]);
    bench.audit();
}

/// Rows *empty frames*, *caller held*: an access to a frame that holds nothing is told, whatever the access; where
/// the notifiers are called late, it may be asked to try again until they were.
pub(super) fn an_empty_frame_is_told(world: &dyn World) {
    let bench = Bench::new(world);
    let range = bench.filled(1, 500);
    let empty = Place::Device(bench.frame(0, 40));
    let told = |place| {
        assert_eq!(bench.memory.read(place, 0, &mut [0; 8]), Err(AccessError::Empty));
        assert_eq!(bench.memory.write(place, 0, &[0; 8]), Err(AccessError::Empty));
        assert_eq!(bench.memory.atomic(place, 0, 8, AtomicOp::Add(1)), Err(AccessError::Empty));
    };
    told(empty);
    bench.to_tile(range, 0, 39);
    let full = Place::Device(bench.frame(0, 39));
    assert_eq!([bench.transfer(empty, full), bench.transfer(full, empty)], [Outcome::Failed; 2]);
    assert_eq!(world.load(range.start), 500);
    told(full);
    bench.to_tile(range, 0, 41);
    let gone = Place::Device(bench.frame(0, 41));
    world.munmap(range);
    let late = bench.memory.read(gone, 0, &mut [0; 8]);
    let untold = world.contract().held == Held::UntilRead && late == Err(AccessError::Again);
    assert!(untold || late == Err(AccessError::Empty), "{late:?}");
    world.settle();
    told(gone);
    bench.audit();
}

/// Row *data*: what a device writes to VRAM and to system memory, atomically too, the CPU loads.
pub(super) fn device_writes_reach_the_cpu(world: &dyn World) {
    let bench = Bench::new(world);
    let range = bench.filled(2, 600);
    bench.to_tile(Bench::page(range, 0), 1, 5);
    let mut migration = bench.claim(Bench::page(range, 1), 0);
    bench.mm.finish(&mut migration);
    let Some(host @ Place::Host(_)) = migration.parts[0].from else { panic!("a system page is collected") };
    for (i, place) in [Place::Device(bench.frame(1, 5)), host].into_iter().enumerate() {
        bench.memory.write(place, 16, &11u64.to_le_bytes()).expect("a device can write");
        let first = 600 + i as u64;
        assert_eq!(bench.memory.atomic(place, 0, 8, AtomicOp::Add(1000)), Ok(first));
        assert_eq!(
            bench.memory.atomic(place, 0, 8, AtomicOp::CompareExchange { expected: 1, new: 2 }),
            Ok(first + 1000)
        );
        assert_eq!(bench.memory.atomic(place, 16, 4, AtomicOp::Exchange(12)), Ok(11));
        assert_eq!((world.load(word(range, i, 0)), world.load(word(range, i, 2))), (first + 1000, 12));
    }
    bench.audit();
}

/// Row *user copies*: they serve faults as the program's own accesses do, and tell where nothing is mapped.
pub(super) fn user_copies_serve_faults(world: &dyn World) {
    let bench = Bench::new(world);
    let range = bench.filled(3, 700);
    bench.to_tile(bench_range(range, 1, 3), 0, 0);
    let across = HostVa(range.page_at(1).0 - 4);
    let mut bytes = [0; 12];
    bench.memory.copy_from_user(across, &mut bytes).expect("mapped");
    assert_eq!(bytes[4..], 701u64.to_le_bytes());
    bench.memory.copy_to_user(HostVa(range.page_at(2).0 - 4), &[1; 12]).expect("mapped");
    assert_eq!(world.load(range.page_at(2)), u64::from_le_bytes([1; 8]));
    world.munmap(range);
    world.settle();
    assert_eq!(bench.memory.copy_from_user(range.start, &mut bytes), Err(AccessError::Fault));
    assert_eq!(bench.memory.copy_to_user(range.start, &bytes), Err(AccessError::Fault));
    bench.audit();
}

/// Pages `from..to` of a range.
fn bench_range(range: units::HostRange, from: usize, to: usize) -> units::HostRange {
    units::HostRange::new(range.page_at(from), range.page_at(to))
}
