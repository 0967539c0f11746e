//! Races that faults lose for a while: nobody is killed for them.

use super::*;

#[test]
fn an_atomic_outlasts_pages_that_are_busy() {
    let rig = Rig::new();
    let asid = start(&rig, SZ_2M);
    // Two claims a round: alone, then with everybody else kept out.
    rig.mm.refuse(2 * 40);
    assert_eq!(rig.fault(1, asid, DATA, Access::Atomic), FaultAck::Replay);
    assert_eq!(pagemap(&rig, DATA), T1);
    check_leaves(&rig, asid, SZ_2M);
}

#[test]
fn an_address_space_that_changes_for_longer_than_a_walk_has_patience_kills_nobody() {
    let rig = Rig::new();
    let asid = start(&rig, SZ_2M);
    // The first round's collection gives up after a second, and the next one finds it quiet.
    rig.mm.unsettle(1_200_000_000);
    assert_eq!(rig.fault(0, asid, DATA, Access::Write), FaultAck::Replay);
    check_leaves(&rig, asid, SZ_2M);
}
