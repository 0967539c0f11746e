//! Faults that cannot be served at once, or not as they are: nobody is killed for them.

use super::*;

#[test]
fn an_atomic_outlasts_pages_that_are_busy() {
    let rig = Rig::new();
    let asid = start(&rig, SZ_2M);
    // Two claims a round: alone, then with everybody else kept out.
    rig.mm.refuse(2 * 40);
    assert_eq!(rig.fault(1, asid, DATA, Access::Atomic), FaultAck::Replay);
    let homes = [0, SZ_64K - SZ_4K, SZ_64K].map(|at| pagemap(&rig, DATA + at));
    assert_eq!(homes, [T1, T1, None], "a range that loses for long is made anew, smaller");
    check_leaves(&rig, asid, SZ_2M);
}

#[test]
fn an_address_space_that_changes_for_longer_than_a_walk_tries_kills_nobody() {
    let rig = Rig::new();
    let asid = start(&rig, SZ_2M);
    // In the first round a look at the range and its collection both give up, after a second each.
    rig.mm.unsettle(2_300_000_000);
    assert_eq!(rig.fault(0, asid, DATA, Access::Write), FaultAck::Replay);
    check_leaves(&rig, asid, SZ_2M);
}

#[test]
fn an_atomic_on_a_range_that_outgrew_its_vma_gets_a_smaller_one() {
    let rig = Rig::new();
    let asid = start(&rig, SZ_2M);
    assert_eq!(rig.fault(0, asid, DATA, Access::Write), FaultAck::Replay);
    rig.mm.protect(HostRange::sized(HostVa(DATA + SZ_2M - SZ_64K), SZ_64K));
    assert_eq!(rig.fault(1, asid, DATA, Access::Atomic), FaultAck::Replay);
    assert_eq!((pagemap(&rig, DATA), leaf(&rig, 1, asid, DATA).unwrap().0), (T1, 0));
    // Where VRAM is only better, the smaller range has its migration too.
    assert_eq!(rig.fault(1, asid, DATA + SZ_64K, Access::Write), FaultAck::Replay);
    assert_eq!(pagemap(&rig, DATA + SZ_64K), T1);
    check_leaves(&rig, asid, SZ_2M);
}

#[test]
fn who_gives_way_to_the_cpu_asks_for_no_longer_residency() {
    const MS: u64 = 1_000_000;
    let rig = Rig::new();
    let asid = start(&rig, SZ_64K);
    assert_eq!(rig.fault(0, asid, DATA, Access::Atomic), FaultAck::Replay);
    // It is deferred: its turn comes in 5 ms, and lasts for 4 ms more, as it does not come back.
    rig.mm.touch(HostVa(DATA));
    sync::time::sleep_ns(5 * MS);
    assert_eq!(rig.fault(1, asid, DATA, Access::Atomic), FaultAck::Replay);
    sync::time::sleep_ns(6 * MS);
    rig.mm.touch(HostVa(DATA));
    assert_eq!(pagemap(&rig, DATA), None, "5 ms again, however often the atomic gave way");
}

#[test]
fn an_atomic_populates_what_nobody_has_touched() {
    let rig = Rig::new();
    let asid = start(&rig, SZ_2M - SZ_64K);
    rig.mm.dontneed(HostRange::sized(HostVa(DATA), SZ_2M - SZ_64K));
    assert_eq!(rig.fault(0, asid, DATA + SZ_4K, Access::Atomic), FaultAck::Replay);
    assert_eq!((pagemap(&rig, DATA), pagemap(&rig, DATA + SZ_64K)), (T0, None));
    // A store makes a range of 4K: what is around it is absent. An atomic wants a larger one.
    assert_eq!(rig.fault(0, asid, DATA + SZ_64K, Access::Write), FaultAck::Replay);
    assert_eq!(pagemap(&rig, DATA + SZ_64K), None);
    assert_eq!(rig.fault(1, asid, DATA + SZ_64K, Access::Atomic), FaultAck::Replay);
    assert_eq!((pagemap(&rig, DATA + SZ_64K), pagemap(&rig, DATA + 2 * SZ_64K - SZ_4K)), (T1, T1));
    check_leaves(&rig, asid, SZ_2M - SZ_64K);
}

#[test]
fn an_atomic_is_refused_where_no_mapping_holds_a_page_of_vram() {
    let rig = Rig::new();
    let asid = start(&rig, SZ_64K);
    rig.mm.munmap(HostRange::sized(HostVa(DATA + SZ_64K - SZ_4K), SZ_4K));
    assert_eq!(rig.fault(0, asid, DATA, Access::Write), FaultAck::Replay);
    assert_eq!(rig.fault(0, asid, DATA, Access::Atomic), FaultAck::Kill);
    assert!(leaf(&rig, 0, asid, DATA).is_some(), "and the ranges that are there stay");
}
