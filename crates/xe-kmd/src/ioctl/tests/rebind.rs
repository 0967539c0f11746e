//! What a bind over a bind does to what is bound, and to what follows.

use super::*;

fn mirror_over(rig: &Rig, vm: u32, addr: u64, range: u64, more: BindFlags) {
    let flags = (BindFlags::CPU_ADDR_MIRROR | more).bits();
    assert_eq!(bind(rig, vm, VmBindOp { addr, range, flags, ..mirror_op() }), OK);
}

/// Whether the leaf of an address allows writes, if there is one.
fn writable(rig: &Rig, asid: Asid, addr: u64) -> Option<bool> {
    rig.hw.walk(TileId(0), asid, GpuVa(addr)).map(|(_, leaf)| leaf.write)
}

#[test]
fn a_read_only_mirror_over_a_mirror_takes_the_right_to_write() {
    let rig = Rig::new();
    let (vm, asid) = mirrored(&rig);
    mapped(&rig, DATA, SZ_64K);
    assert_eq!(rig.fault(0, asid, DATA, Access::Write), FaultAck::Replay);
    assert_eq!(writable(&rig, asid, DATA), Some(true));
    rig.hw.state.lock().flushes.clear();
    mirror_over(&rig, vm, 0, EVERYTHING, BindFlags::READONLY);
    assert_eq!(writable(&rig, asid, DATA), None);
    assert_eq!(rig.hw.state.lock().flushes.len(), 1, "and no TLB remembers it");
    assert_eq!(rig.fault(0, asid, DATA, Access::Read), FaultAck::Replay);
    assert_eq!(writable(&rig, asid, DATA), Some(false));
    assert_eq!((rig.fault(0, asid, DATA, Access::Write), refusal(&rig)), (FaultAck::Kill, Some(Errno::EPERM)));
}

#[test]
fn a_mirror_over_a_read_only_mirror_gives_it() {
    let rig = Rig::new();
    let vm = fault_vm(&rig);
    let asid = rig.file.vm(vm).unwrap().asid;
    mirror_over(&rig, vm, 0, EVERYTHING, BindFlags::READONLY);
    mapped(&rig, DATA, SZ_64K);
    assert_eq!(rig.fault(0, asid, DATA, Access::Read), FaultAck::Replay);
    assert_eq!(writable(&rig, asid, DATA), Some(false));
    mirror_over(&rig, vm, 0, EVERYTHING, BindFlags::empty());
    assert_eq!(rig.fault(0, asid, DATA, Access::Write), FaultAck::Replay);
    assert_eq!(writable(&rig, asid, DATA), Some(true), "one fault is enough");
}

#[test]
fn no_range_lies_on_both_sides_of_an_edge() {
    let rig = Rig::new();
    let (vm, asid) = mirrored(&rig);
    mapped(&rig, DATA, SZ_2M);
    assert_eq!(rig.fault(0, asid, DATA, Access::Write), FaultAck::Replay);
    mirror_over(&rig, vm, DATA + SZ_64K, SZ_64K, BindFlags::READONLY);
    assert_eq!(rig.fault(0, asid, DATA + SZ_64K, Access::Read), FaultAck::Replay);
    assert_eq!([0, SZ_64K, 2 * SZ_64K].map(|at| writable(&rig, asid, DATA + at)), [None, Some(false), None]);
    for outside in [DATA, DATA + 2 * SZ_64K] {
        assert_eq!(rig.fault(0, asid, outside, Access::Write), FaultAck::Replay);
        assert_eq!(writable(&rig, asid, outside), Some(true));
    }
    assert_eq!(rig.fault(0, asid, DATA + SZ_64K, Access::Write), FaultAck::Kill);
}

#[test]
fn another_pat_index_is_in_the_next_leaf_and_the_same_bind_changes_none() {
    let rig = Rig::new();
    let (vm, asid) = mirrored(&rig);
    mapped(&rig, DATA, SZ_64K);
    assert_eq!(rig.fault(0, asid, DATA, Access::Write), FaultAck::Replay);
    let pat = || rig.hw.walk(TileId(0), asid, GpuVa(DATA)).map(|(_, leaf)| leaf.pat);
    mirror_over(&rig, vm, DATA, SZ_64K, BindFlags::empty());
    assert_eq!(pat(), Some(3), "nothing differs, so nothing is cleared");
    assert_eq!(bind(&rig, vm, VmBindOp { pat_index: 1, ..mirror_op() }), OK);
    assert_eq!(rig.fault(0, asid, DATA, Access::Write), FaultAck::Replay);
    assert_eq!(pat(), Some(1));
}

#[test]
fn advice_parts_a_range_at_its_edges() {
    let rig = Rig::new();
    rig.mm.pin();
    let (vm, asid) = mirrored(&rig);
    mapped(&rig, DATA, SZ_64K);
    assert_eq!(rig.fault(0, asid, DATA, Access::Write), FaultAck::Replay);
    let half = SZ_64K / 2;
    let mut args = Madvise { start: DATA, range: half, vm_id: vm, attr: ATTR_PAT, val: 1, ..Default::default() };
    assert_eq!(rig.ioctl(nr::MADVISE, &mut args), OK);
    for at in [DATA, DATA + half] {
        assert_eq!(rig.fault(0, asid, at, Access::Write), FaultAck::Replay);
    }
    let pats = [DATA, DATA + half].map(|at| rig.hw.walk(TileId(0), asid, GpuVa(at)).map(|(_, leaf)| leaf.pat));
    assert_eq!(pats, [Some(1), Some(3)]);
}

#[test]
fn a_read_only_null_span_refuses_writes_before_and_after_a_read() {
    let flags = (BindFlags::NULL | BindFlags::READONLY).bits();
    let null = VmBindOp { range: SZ_2M, flags, pat_index: 3, ..Default::default() };
    for reads in [0, 1] {
        let rig = Rig::new();
        let vm = fault_vm(&rig);
        let asid = rig.file.vm(vm).unwrap().asid;
        assert_eq!(bind(&rig, vm, null), OK);
        for _ in 0..reads {
            assert_eq!(rig.fault(0, asid, 0, Access::Read), FaultAck::Replay);
            let (_, leaf) = rig.hw.walk(TileId(0), asid, GpuVa(0)).unwrap();
            assert!(leaf.null && !leaf.write && !leaf.atomic, "so the device asks again for anything but a read");
        }
        assert_eq!((rig.fault(0, asid, 0, Access::Write), refusal(&rig)), (FaultAck::Kill, Some(Errno::EPERM)));
        assert_eq!(rig.fault(0, asid, 0, Access::Atomic), FaultAck::Kill);
    }
}
