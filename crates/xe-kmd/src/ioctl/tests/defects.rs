//! Defects that upstream has and this driver has not, where no other test is about them (`docs/coverage.md` lists all).

use super::bos::{AT, create, leaf, map};
use super::*;

/// D1: an error of the collection is the answer to the fault, and no success.
#[test]
fn what_a_collection_fails_by_refuses_the_fault() {
    let rig = Rig::new();
    let (_, asid) = mirrored(&rig);
    mapped(&rig, DATA, SZ_4K);
    rig.mm.starve(true);
    assert_eq!((rig.fault(0, asid, DATA, Access::Write), refusal(&rig)), (FaultAck::Kill, Some(Errno::ENOMEM)));
    rig.mm.starve(false);
    assert_eq!(rig.fault(0, asid, DATA, Access::Write), FaultAck::Replay);
}

/// D7: a prefetch goes on behind a VMA of another kind.
#[test]
fn a_prefetch_of_several_vmas_forgets_none() {
    let rig = Rig::new();
    let (vm, asid) = mirrored(&rig);
    mapped(&rig, AT, 4 * SZ_2M);
    let bos = [0, 2].map(|n| (create(&rig, SZ_2M, 7), AT + n * SZ_2M));
    for (bo, at) in bos {
        rig.mm.munmap(HostRange::sized(HostVa(at), SZ_2M));
        assert_eq!(bind(&rig, vm, VmBindOp { flags: 0, ..map(bo, at, SZ_2M) }), OK);
    }
    let span = VmBindOp { op: BIND_OP_PREFETCH, flags: 0, ..map(0, AT, 4 * SZ_2M) };
    assert_eq!(bind(&rig, vm, VmBindOp { prefetch_mem_region_instance: 2, ..span }), OK);
    let in_vram1 = |n: u64| leaf(&rig, 1, asid, AT + n * SZ_2M).is_some_and(|(_, device, _)| device);
    assert_eq!([0, 1, 2, 3].map(in_vram1), [true; 4], "BO, mirror, BO, mirror");
    assert_eq!(rig.device.vram_used(TileId(1)), 4 * SZ_2M);
}

/// D12: what is flushed begins with the first range that an event touches, and not with the last.
#[test]
fn one_flush_is_of_all_ranges_of_an_event() {
    let rig = Rig::new();
    let (_, asid) = mirrored(&rig);
    mapped(&rig, DATA, 3 * SZ_2M);
    (0..3).for_each(|n| assert_eq!(rig.fault(0, asid, DATA + n * SZ_2M, Access::Write), FaultAck::Replay));
    rig.log.0.lock().clear();
    rig.mm.munmap(HostRange::new(HostVa(DATA + SZ_4K), HostVa(DATA + 3 * SZ_2M - SZ_4K)));
    let log = rig.log.0.lock();
    let flushed = log.iter().filter_map(|event| match event {
        Event::TlbFlush { span, .. } => Some(*span),
        _ => None,
    });
    assert_eq!(flushed.collect::<Vec<_>>(), [GpuRange::sized(GpuVa(DATA), 3 * SZ_2M)]);
}

/// D22: a part of a userptr that is advised shows the memory that it showed before.
#[test]
fn advice_on_half_of_a_userptr_keeps_what_it_shows() {
    let rig = Rig::new();
    let (vm, asid) = mirrored(&rig);
    mapped(&rig, DATA, SZ_64K);
    let userptr = VmBindOp { op: BIND_OP_MAP_USERPTR, obj_offset: DATA, ..map(0, AT, SZ_64K) };
    assert_eq!(bind(&rig, vm, userptr), OK);
    let at = |page: u64| leaf(&rig, 0, asid, AT + page * SZ_4K).map(|(_, _, addr)| addr);
    let before = [4, 8, 12].map(|page| at(page).map(|addr| rig.hw.frame_behind(addr)));
    let (start, range) = (AT + SZ_64K / 4, SZ_64K / 2);
    let mut args = Madvise { start, range, vm_id: vm, attr: ATTR_PAT, val: 2, ..Default::default() };
    assert_eq!(rig.ioctl(nr::MADVISE, &mut args), OK);
    for page in [4, 8, 12] {
        assert_eq!(rig.fault(0, asid, AT + page * SZ_4K, Access::Read), FaultAck::Replay);
    }
    assert_eq!([4, 8, 12].map(|page| at(page).map(|addr| rig.hw.frame_behind(addr))), before);
}
