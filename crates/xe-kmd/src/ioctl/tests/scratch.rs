//! VMs with a scratch page: what is shown where nothing is, and what takes its place.

use super::bos::{AT, create, map, vm_of};
use super::*;
use crate::Rules;
use xe_spec::platform::BATTLEMAGE;

#[test]
fn a_vm_with_a_scratch_page_reads_zeros_where_nothing_is() {
    let rig = Rig::new();
    let ((vm, asid), (_, bare)) = (vm_of(&rig, 1), vm_of(&rig, 0));
    assert_eq!(rig.fault(0, asid, AT, Access::Write), FaultAck::Replay);
    assert_eq!(rig.fault(0, bare, AT, Access::Write), FaultAck::Kill);
    assert_eq!(rig.fault(0, asid, 4 * AT, Access::Atomic), FaultAck::Replay);
    let shown = rig.hw.walk(TileId(0), asid, GpuVa(4 * AT));
    assert!(
        matches!(shown, Some((_, leaf)) if leaf.null && leaf.atomic && leaf.device),
        "an atomic is not asked for again"
    );
    let bo = create(&rig, SZ_64K, 1);
    assert_eq!(bind(&rig, vm, map(bo, AT, SZ_64K)), OK);
    assert!(matches!(rig.hw.walk(TileId(0), asid, GpuVa(AT)), Some((0, leaf)) if !leaf.null));
    assert_eq!(rig.fault(0, asid, AT + SZ_64K, Access::Read), FaultAck::Replay);
    assert!(matches!(rig.hw.walk(TileId(0), asid, GpuVa(AT + SZ_64K)), Some((0, leaf)) if leaf.null));
    assert!(matches!(rig.hw.walk(TileId(0), asid, GpuVa(AT)), Some((0, leaf)) if !leaf.null), "and stays");
    // A batch that runs through a gigabyte of it takes no more than one table.
    let before = rig.device.tables_used(TileId(0));
    for at in (0..SZ_1G).step_by(SZ_2M as usize) {
        assert_eq!(rig.fault(0, asid, 2 * AT + at, Access::Read), FaultAck::Replay);
    }
    assert!(rig.device.tables_used(TileId(0)) <= before + 3);
}

/// Where the scratch page was touched, a bind that waits for a fault would never see one.
#[test]
fn what_is_put_over_the_scratch_page_is_seen_at_the_next_touch() {
    let rig = Rig::with(&BATTLEMAGE, Rules::default());
    let (vm, asid) = vm_of(&rig, 7);
    let is_null = |at| rig.hw.walk(TileId(0), asid, GpuVa(at)).map(|(_, leaf)| leaf.null);
    let touch = |at| assert_eq!(rig.fault(0, asid, at, Access::Read), FaultAck::Replay);
    touch(AT);
    touch(AT + SZ_2M);
    assert_eq!([AT, AT + SZ_2M].map(is_null), [Some(true); 2]);
    let pat_index = BATTLEMAGE.pat.wb.into();
    let lazily = VmBindOp { flags: 0, pat_index, ..map(create(&rig, SZ_64K, 1), AT + SZ_64K, SZ_64K) };
    assert_eq!((bind(&rig, vm, lazily), is_null(AT + SZ_64K)), (OK, None));
    touch(AT + SZ_64K);
    assert_eq!((is_null(AT + SZ_64K), is_null(AT + SZ_2M)), (Some(false), Some(true)));
    let range = 1 << BATTLEMAGE.va_bits;
    mapped(&rig, AT + SZ_2M, SZ_64K);
    let mirror = VmBindOp { range: range - 2 * AT, addr: AT + SZ_2M, pat_index, ..mirror_op() };
    assert_eq!((bind(&rig, vm, mirror), is_null(AT + SZ_2M)), (OK, None));
    touch(AT + SZ_2M);
    assert_eq!(is_null(AT + SZ_2M), Some(false));
}

/// Nor would one that may not be written.
#[test]
fn a_null_span_takes_the_place_of_the_scratch_page() {
    let rig = Rig::new();
    let (vm, asid) = vm_of(&rig, 1);
    assert_eq!(rig.fault(0, asid, AT, Access::Write), FaultAck::Replay);
    let flags = (BindFlags::NULL | BindFlags::READONLY).bits();
    assert_eq!(bind(&rig, vm, VmBindOp { flags, ..map(0, AT, SZ_64K) }), OK);
    assert!(rig.hw.walk(TileId(0), asid, GpuVa(AT)).is_none());
    assert_eq!((rig.fault(0, asid, AT, Access::Write), refusal(&rig)), (FaultAck::Kill, Some(Errno::EPERM)));
}

#[test]
fn what_is_needed_again_is_shown_again() {
    let rig = Rig::new();
    let (vm, asid) = vm_of(&rig, 1);
    assert_eq!(bind(&rig, vm, map(create(&rig, 2 * SZ_2M, 2), AT, 2 * SZ_2M)), OK);
    let advise = |val| {
        let mut args =
            Madvise { start: AT, range: 2 * SZ_2M, vm_id: vm, attr: ATTR_PURGEABLE, val, ..Default::default() };
        assert_eq!(rig.ioctl(nr::MADVISE, &mut args), OK);
    };
    let shows = |at| {
        assert_eq!(rig.fault(0, asid, at, Access::Read), FaultAck::Replay);
        rig.hw.walk(TileId(0), asid, GpuVa(at)).map(|(_, leaf)| leaf.null)
    };
    advise(1);
    assert_eq!(bind(&rig, vm, VmBindOp { op: BIND_OP_UNMAP, flags: 0, ..map(0, AT, SZ_64K) }), OK);
    assert_eq!(shows(AT + SZ_2M / 2), Some(true));
    advise(0);
    let stale = rig.hw.walk(TileId(0), asid, GpuVa(AT + SZ_2M / 2)).is_some_and(|(_, leaf)| leaf.null);
    assert!(!stale);
    assert_eq!(shows(AT + SZ_2M / 2), Some(false));
}
