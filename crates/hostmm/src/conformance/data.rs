//! Cases: what a device does to bytes.

use super::engine::{Bench, word};
use super::{Held, World};
use crate::{AccessError, AtomicOp, Backing, Claimed, Destination, Place, Select, Transferred};
use units::HostVa;

/// Row *unstaged pairs*: a pair that no claim staged is copied, to whatever memory is there; the source keeps its page.
pub(super) fn an_unstaged_pair_is_copied(world: &dyn World) {
    let bench = Bench::new(world);
    let range = bench.filled(3, 200);
    bench.to_tile(bench_range(range, 0, 2), 0, 0);
    let (a, b) = (Place::Device(bench.frame(0, 0)), Place::Device(bench.frame(0, 1)));
    let mut done = [Transferred::Failed];
    bench.memory.transfer(a, b, &mut done);
    assert_eq!((done[0], bench.peek(a), bench.peek(b)), (Transferred::Copied, 200, 200));
    let Backing::System(frame) = bench.look(range)[2].backing else { panic!("the third page is in system memory") };
    bench.memory.transfer(Place::Host(frame), b, &mut done);
    assert_eq!((done[0], bench.peek(b)), (Transferred::Copied, 202));
    bench.memory.transfer(a, Place::Host(frame), &mut done);
    assert_eq!(done[0], Transferred::Copied);
    assert_eq!(bench.look(range)[2].backing, Backing::System(frame), "the page itself did not move");
    assert_eq!([0, 1, 2].map(|i| world.load(range.page_at(i))), [200, 202, 200]);
    bench.audit();
}

/// Row *unstaged pairs*: wrong page tables fill a staged frame from a wrong source; that is what commits.
pub(super) fn a_staged_destination_takes_what_comes(world: &dyn World) {
    let bench = Bench::new(world);
    let range = bench.filled(2, 300);
    bench.to_tile(Bench::page(range, 1), 1, 9);
    let (claim, _) = bench.claim(Bench::page(range, 0), Select::All);
    let dst = bench.frame(0, 0);
    bench.mm.stage(claim, &[Destination::Device(dst)], &mut [None]).expect("staged");
    let mut done = [Transferred::Failed];
    bench.memory.transfer(Place::Device(bench.frame(1, 9)), Place::Device(dst), &mut done);
    assert_eq!(done[0], Transferred::Copied);
    let mut moved = [false];
    bench.mm.commit(claim, &[true], &mut moved);
    bench.mm.finish(claim);
    assert!(moved[0]);
    assert_eq!((world.load(range.page_at(0)), world.load(range.page_at(1))), (301, 301));
    bench.audit();
}

/// Row *nothing carried*: a page committed though nothing was carried to it holds zeros, and its source is gone.
pub(super) fn nothing_carried_reads_zeros(world: &dyn World) {
    let bench = Bench::new(world);
    let range = bench.filled(2, 400);
    bench.to_tile(Bench::page(range, 1), 1, 3);
    let (claim, _) = bench.claim(range, Select::All);
    let to = [0, 1].map(|i| Destination::Device(bench.frame(0, i)));
    bench.mm.stage(claim, &to, &mut [None; 2]).expect("staged");
    let mut moved = [false; 2];
    bench.mm.commit(claim, &[true; 2], &mut moved);
    bench.mm.finish(claim);
    assert_eq!(moved, [true; 2]);
    assert_eq!([0, 1].map(|i| bench.peek(Place::Device(bench.frame(0, i)))), [0, 0]);
    assert_eq!(bench.tiles[1].freed(bench.frame(1, 3)), 1);
    assert_eq!([0, 1].map(|i| world.load(range.page_at(i))), [0, 0]);
    bench.audit();
}

/// Rows *empty frames*, *caller held*: an access to a frame that holds nothing is told, whatever the access; where
/// the notifiers are told late, it may be asked to try again until they were.
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
    let mut done = [Transferred::Copied; 2];
    bench.memory.transfer(empty, full, &mut done[..1]);
    bench.memory.transfer(full, empty, &mut done[1..]);
    assert_eq!(done, [Transferred::Failed; 2]);
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
    let (claim, pages) = bench.claim(Bench::page(range, 1), Select::All);
    bench.mm.finish(claim);
    let Claimed::System(frame) = pages[0] else { panic!("a system page is collected") };
    for (i, place) in [Place::Device(bench.frame(1, 5)), Place::Host(frame)].into_iter().enumerate() {
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
