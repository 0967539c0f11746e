//! How long pages that came for an atomic stay.

use super::*;
use sync::sim::{self, Limits, Outcome, Replay};

/// An atomic of tile 0, and then touches of the CPU; where the page is after each. In virtual time.
fn touched_after(waits_ns: [u64; 2], access: Access) -> [bool; 2] {
    let seen = std::sync::Arc::new(sync::Mutex::new([false; 2]));
    let out = seen.clone();
    let report = sim::run(&mut Replay::new(Vec::new()), Limits::default(), move || {
        let rig = Rig::new();
        let (_, asid) = mirrored(&rig);
        mapped(&rig, DATA, SZ_64K);
        assert_eq!(rig.fault(0, asid, DATA, access), FaultAck::Replay);
        assert!(rig.mm.home(DATA).is_some(), "in VRAM");
        *out.lock() = waits_ns.map(|ns| {
            sync::time::sleep_ns(ns);
            rig.mm.touch(HostVa(DATA));
            rig.mm.home(DATA).is_some()
        });
    });
    assert_eq!(report.outcome, Outcome::Finished);
    *seen.lock()
}

#[test]
fn pages_of_an_atomic_are_not_taken_home_at_once() {
    assert_eq!(touched_after([4_000_000, 2_000_000], Access::Atomic), [true, false], "five milliseconds");
    assert_eq!(touched_after([0, 0], Access::Write), [false, false], "a write has no such right");
}
