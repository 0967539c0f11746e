//! Faults that are served while another one is, of the same VM.

use super::*;
use crate::testing::fault_record;
use xe_uapi::attr::{ATTR_PREFERRED_LOC, Madvise, PREFERRED_LOC_DEFAULT_SYSTEM};

/// Serves a fault of tile 1 while one of tile 0 migrates its range.
fn serve_during_migration(rig: &Rig, asid: Asid, addr: u64) {
    let device = rig.device.clone();
    rig.mm.during_claim(move || {
        let mut record = FaultRecord { asid, addr: GpuVa(addr), access: Access::Write, ..fault_record(0, 7) };
        record.slot.engine.tile = TileId(1);
        device.page_fault(record);
        assert!(device.service_fault(), "nobody is waited for");
    });
    assert_eq!(rig.fault(0, asid, DATA, Access::Write), FaultAck::Replay);
    assert_eq!(rig.hw.state.lock().acks.iter().map(|(_, ack)| *ack).collect::<Vec<_>>(), [FaultAck::Replay; 2]);
}

#[test]
fn faults_of_two_ranges_are_served_at_once() {
    let rig = Rig::new();
    let asid = start(&rig, 2 * SZ_64K);
    serve_during_migration(&rig, asid, DATA + SZ_64K);
    assert_eq!([0, SZ_64K].map(|at| pagemap(&rig, DATA + at)), [T0, T1]);
    check_leaves(&rig, asid, 2 * SZ_64K);
}

#[test]
fn a_fault_that_migrates_nothing_does_not_wait_for_one_that_does() {
    let rig = Rig::new();
    let asid = start(&rig, SZ_64K);
    rig.mm.mmap(HostRange::sized(HostVa(DATA + SZ_2M), SZ_4K));
    serve_during_migration(&rig, asid, DATA + SZ_2M);
    check_leaves(&rig, asid, SZ_64K);
}

/// What was advised of memory goes with it before a fault is served there, though others share the VM's lock then.
#[test]
fn advice_is_gone_with_its_memory_before_the_next_fault_is_served() {
    let rig = Rig::new();
    let memory = HostRange::sized(HostVa(DATA), SZ_64K);
    rig.mm.mmap(memory);
    let (vm_id, asid) = mirror_with(&rig, BindFlags::MADVISE_AUTORESET);
    let mut advice = Madvise {
        vm_id,
        start: DATA,
        range: SZ_64K,
        attr: ATTR_PREFERRED_LOC,
        val: PREFERRED_LOC_DEFAULT_SYSTEM,
        ..Default::default()
    };
    assert_eq!(rig.ioctl(nr::MADVISE, &mut advice), Ok(0));
    assert_eq!(rig.fault(0, asid, DATA, Access::Write), FaultAck::Replay);
    assert_eq!(pagemap(&rig, DATA), None, "as advised");
    rig.mm.munmap(memory);
    rig.mm.mmap(memory);
    assert_eq!(rig.fault(0, asid, DATA, Access::Write), FaultAck::Replay);
    assert_eq!(pagemap(&rig, DATA), T0, "nothing is advised of this memory");
    check_leaves(&rig, asid, SZ_64K);
}
