//! BOs and userptrs: where they are, what their binds write, and what takes them away.

use super::*;
use crate::Rules;
use crate::testing::HwState;
use units::Dpa;
use xe_spec::platform::{BATTLEMAGE, PVC, Platform, Reach};

pub(super) const AT: u64 = 0x10_0000_0000;

pub(super) fn create(rig: &Rig, size: u64, placement: u32) -> u32 {
    let cpu_caching = if placement & !1 == 0 { CACHING_WB } else { CACHING_WC };
    let mut args = GemCreate { size, placement, cpu_caching, ..Default::default() };
    assert_eq!(rig.ioctl(nr::GEM_CREATE, &mut args), OK);
    args.handle
}

pub(super) fn map(obj: u32, addr: u64, range: u64) -> VmBindOp {
    VmBindOp { obj, addr, range, pat_index: 3, flags: BindFlags::IMMEDIATE.bits(), ..Default::default() }
}

pub(super) fn leaf(rig: &Rig, tile: u8, asid: Asid, addr: u64) -> Option<(u8, bool, u64)> {
    rig.hw.walk(TileId(tile), asid, GpuVa(addr)).map(|(level, leaf)| (level, leaf.device, leaf.addr))
}

pub(super) fn vm_of(rig: &Rig, flags: u32) -> (u32, Asid) {
    let mut args = VmCreate { flags, ..Default::default() };
    assert_eq!(rig.ioctl(nr::VM_CREATE, &mut args), OK);
    (args.vm_id, rig.file.vm(args.vm_id).unwrap().asid)
}

/// The first frame that backs VRAM from an address on, if an object does.
fn backed(state: &HwState, dpa: u64) -> Option<u64> {
    state.backed.get(&Dpa(dpa)).map(|(_, first)| first.0)
}

#[test]
fn a_bo_in_vram_is_bound_by_large_leaves_on_all_tiles() {
    let rig = Rig::new();
    let (vm, asid) = vm_of(&rig, 6);
    let bo = create(&rig, 4 * SZ_2M, 4);
    assert_eq!(bind(&rig, vm, map(bo, AT, 4 * SZ_2M)), OK);
    for tile in [0, 1] {
        let (level, device, addr) = leaf(&rig, tile, asid, AT + SZ_2M + 5).unwrap();
        assert_eq!((level, device), (1, true));
        assert!(backed(&rig.hw.state.lock(), addr).is_some());
        assert!(addr >= PVC.tiles[1].vram_base.0, "in the VRAM that it was made for");
    }
    assert_eq!(rig.device.vram_used(TileId(1)), 4 * SZ_2M);
    let close = |handle| rig.ioctl(nr::GEM_CLOSE, &mut drm::GemClose { handle, pad: 0 });
    assert_eq!(close(bo), OK);
    assert_eq!(rig.device.vram_used(TileId(1)), 4 * SZ_2M, "a bind keeps it");
    assert_eq!(bind(&rig, vm, VmBindOp { op: BIND_OP_UNMAP, ..map(0, AT, 4 * SZ_2M) }), OK);
    assert_eq!((leaf(&rig, 0, asid, AT), rig.device.vram_used(TileId(1)), rig.memory.objects()), (None, 0, 0));
    assert!(rig.hw.state.lock().backed.is_empty());
}

#[test]
fn a_bind_without_immediate_waits_for_the_fault_of_its_tile() {
    let rig = Rig::new();
    let (vm, asid) = vm_of(&rig, 6);
    let bo = create(&rig, SZ_2M, 1);
    assert_eq!(bind(&rig, vm, VmBindOp { flags: 0, ..map(bo, AT, SZ_2M) }), OK);
    assert_eq!(leaf(&rig, 0, asid, AT), None);
    assert_eq!(rig.fault(1, asid, AT + 0x5000, Access::Write), FaultAck::Replay);
    assert_eq!(leaf(&rig, 0, asid, AT), None);
    assert!(matches!(leaf(&rig, 1, asid, AT), Some((_, false, _))), "all of it, in system memory");
    assert_eq!((rig.fault(1, asid, AT, Access::Atomic), refusal(&rig)), (FaultAck::Kill, Some(Errno::EACCES)));
    let (other, asid) = vm_of(&rig, 0);
    assert_eq!(bind(&rig, other, VmBindOp { flags: 0, ..map(bo, AT, SZ_2M) }), OK);
    assert!(leaf(&rig, 0, asid, AT).is_some(), "a VM without faults has all bound at once");
}

#[test]
fn an_atomic_brings_a_bo_to_the_vram_of_its_tile() {
    let rig = Rig::new();
    let (vm, asid) = vm_of(&rig, 6);
    let bo = create(&rig, SZ_64K, 7);
    let prefetch = |region| VmBindOp {
        op: BIND_OP_PREFETCH,
        prefetch_mem_region_instance: region,
        flags: 0,
        ..map(0, AT, SZ_64K)
    };
    assert_eq!(bind(&rig, vm, map(bo, AT, SZ_64K)), OK);
    assert_eq!(bind(&rig, vm, prefetch(0)), OK);
    assert!(matches!(leaf(&rig, 1, asid, AT), Some((0, false, _))));
    assert_eq!(rig.fault(1, asid, AT, Access::Atomic), FaultAck::Replay);
    assert_eq!((rig.device.vram_used(TileId(0)), rig.device.vram_used(TileId(1))), (0, SZ_64K));
    assert!(matches!(leaf(&rig, 1, asid, AT), Some((0, true, _))));
    assert_eq!(leaf(&rig, 0, asid, AT), None, "what led to the old place is gone on every tile");
    assert_eq!(bind(&rig, vm, prefetch(1)), OK);
    assert_eq!((rig.device.vram_used(TileId(0)), rig.device.vram_used(TileId(1))), (SZ_64K, 0));
    let system = create(&rig, SZ_64K, 1);
    assert_eq!(bind(&rig, vm, map(system, AT, SZ_64K)), OK);
    assert_eq!(bind(&rig, vm, prefetch(1)), EINVAL, "it may not be there");
}

/// No leaf leads to VRAM that its tile does not reach.
#[test]
fn a_bo_is_where_all_tiles_reach_it_that_it_is_bound_for() {
    static APART: Platform = Platform { reach: Reach::OwnTile, ..PVC };
    let rig = Rig::with(&APART, Rules::default());
    let ((vm, asid), (plain, plain_asid)) = (vm_of(&rig, 6), vm_of(&rig, 0));
    let [first, both, any] = [2, 6, 7].map(|placement| create(&rig, SZ_64K, placement));
    let at = |tile, asid, addr| leaf(&rig, tile, asid, addr).map(|(_, device, addr)| (device, addr));
    let vram = |tile: usize| Some((true, APART.tiles[tile].vram_base.0));
    let lazily = |bo, addr| bind(&rig, vm, VmBindOp { flags: 0, ..map(bo, addr, SZ_64K) });
    let [a, b, c] = [0, 1, 2].map(|n| AT + n * SZ_2M);

    assert_eq!((lazily(first, a), rig.fault(0, asid, a, Access::Write)), (OK, FaultAck::Replay));
    assert_eq!(at(0, asid, a), vram(0));
    for access in [Access::Write, Access::Atomic] {
        assert_eq!((rig.fault(1, asid, a, access), refusal(&rig)), (FaultAck::Kill, Some(Errno::EOPNOTSUPP)));
    }
    assert_eq!(bind(&rig, plain, map(first, a, SZ_64K)), err(Errno::EOPNOTSUPP), "a VM without faults has all tiles");
    assert_eq!((at(0, plain_asid, a), at(1, plain_asid, a)), (None, None));

    assert_eq!((lazily(both, b), rig.fault(1, asid, b, Access::Write)), (OK, FaultAck::Replay));
    assert_eq!((at(0, asid, b), at(1, asid, b)), (None, vram(1)));
    assert_eq!(rig.fault(0, asid, b, Access::Atomic), FaultAck::Replay);
    assert_eq!((at(0, asid, b).map(|(device, _)| device), at(1, asid, b)), (Some(true), None), "it went along");

    assert_eq!(bind(&rig, plain, map(any, c, SZ_64K)), OK);
    let system = at(0, plain_asid, c).filter(|(device, _)| !device);
    assert!(system.is_some() && at(1, plain_asid, c) == system, "where both reach it");
    let prefetch = VmBindOp { op: BIND_OP_PREFETCH, prefetch_mem_region_instance: 2, flags: 0, ..map(0, c, SZ_64K) };
    assert_eq!(bind(&rig, plain, prefetch), OK);
    assert_eq!((at(0, plain_asid, c), at(1, plain_asid, c)), (None, vram(1)), "where it was asked for");
    assert_eq!(rig.fault(0, plain_asid, c, Access::Read), FaultAck::Replay);
    assert_eq!((at(0, plain_asid, c).map(|(device, _)| device), at(1, plain_asid, c)), (Some(false), None));
}

#[test]
fn advice_on_atomics_is_the_bos_whichever_bind_it_came_by() {
    let rig = Rig::new();
    let (vm, asid) = vm_of(&rig, 6);
    let bo = create(&rig, SZ_64K, 3);
    for at in [AT, AT + SZ_2M] {
        assert_eq!(bind(&rig, vm, VmBindOp { flags: 0, ..map(bo, at, SZ_64K) }), OK);
    }
    let advise = |val| {
        let mut args = Madvise { start: AT, range: SZ_64K, vm_id: vm, attr: ATTR_ATOMIC, val, ..Default::default() };
        rig.ioctl(nr::MADVISE, &mut args)
    };
    let atomics = || [AT, AT + SZ_2M].map(|at| rig.fault(0, asid, at, Access::Atomic));
    assert_eq!((advise(ATOMIC_CPU), atomics()), (OK, [FaultAck::Kill; 2]));
    assert_eq!((advise(ATOMIC_GLOBAL), atomics()), (OK, [FaultAck::Replay; 2]));
}

#[test]
fn bos_that_do_not_fit_together_take_turns() {
    let rig = Rig::new();
    let (vm, asid) = vm_of(&rig, 6);
    let most = PVC.tiles[0].vram_size / 4 * 3;
    let (first, second) = (create(&rig, most, 2), create(&rig, most, 2));
    assert!(rig.device.vram_used(TileId(0)) <= PVC.tiles[0].vram_size);
    for (n, bo) in [first, second].into_iter().enumerate() {
        assert_eq!(bind(&rig, vm, VmBindOp { flags: 0, ..map(bo, AT + n as u64 * SZ_1G, most) }), OK);
    }
    for n in [0, 1, 0, 1] {
        assert_eq!(rig.fault(0, asid, AT + n * SZ_1G, Access::Write), FaultAck::Replay);
        assert!(matches!(leaf(&rig, 0, asid, AT + n * SZ_1G), Some((_, true, _))));
        assert_eq!(leaf(&rig, 0, asid, AT + (1 - n) * SZ_1G), None, "who gave its VRAM up is bound nowhere");
        assert!(rig.device.vram_used(TileId(0)) <= PVC.tiles[0].vram_size);
    }
    let mut args = GemCreate { size: 2 * SZ_1G, placement: 2, cpu_caching: CACHING_WC, ..Default::default() };
    assert_eq!(rig.ioctl(nr::GEM_CREATE, &mut args), err(Errno::ENOSPC), "more than there is at all");
}

/// Which VMs have a bind evict what they show, and that another VM's goes for it, however young it is.
#[test]
fn a_bind_spares_the_bos_of_its_vm_where_that_may_not_ask_for_more_than_there_is() {
    const ENOMEM: Result<u32, Errno> = err(Errno::ENOMEM);
    let most = PVC.tiles[0].vram_size / 4 * 3;
    let deferred = |rig: &Rig, vm_id, placement| {
        let mut args =
            GemCreate { size: most, placement, flags: 1, cpu_caching: CACHING_WC, vm_id, ..Default::default() };
        assert_eq!(rig.ioctl(nr::GEM_CREATE, &mut args), OK);
        args.handle
    };
    let bound = |flags, is_array, is_private| {
        let rig = Rig::new();
        let ((vm, _), (other, _)) = (vm_of(&rig, flags), vm_of(&rig, 0));
        let ops: Vec<_> =
            [0, 1].map(|n| map(deferred(&rig, if is_private { vm } else { 0 }, 2), AT + n * SZ_1G, most)).into();
        let answer = if is_array {
            rig.put(USER, &ops[..]);
            rig.ioctl(
                nr::VM_BIND,
                &mut VmBind {
                    vm_id: vm,
                    num_binds: 2,
                    bind: VmBindOp { extensions: USER, ..Default::default() },
                    ..Default::default()
                },
            )
        } else {
            assert_eq!(bind(&rig, vm, ops[0]), OK);
            bind(&rig, vm, ops[1])
        };
        let theirs = map(deferred(&rig, 0, 2), AT, most);
        assert_eq!((bind(&rig, other, theirs), bind(&rig, vm, VmBindOp { addr: AT + 2 * SZ_1G, ..ops[0] })), (OK, OK));
        let either = map(deferred(&rig, 0, 3), AT + 3 * SZ_1G, most);
        assert_eq!(bind(&rig, vm, either), OK, "anywhere is better than nowhere");
        answer
    };
    for is_private in [false, true] {
        for (flags, one) in [(0, OK), (6, OK), (2, ENOMEM), (14, ENOMEM)] {
            assert_eq!(bound(flags, false, is_private), one, "flags {flags}");
            assert_eq!(bound(flags, true, is_private), ENOMEM, "flags {flags}, an array");
        }
    }
}

#[test]
fn a_cut_through_64k_of_vram_goes_to_system_memory() {
    let rig = Rig::new();
    let (vm, asid) = vm_of(&rig, 6);
    let bo = create(&rig, SZ_2M, 2);
    assert_eq!(bind(&rig, vm, map(bo, AT, SZ_2M)), OK);
    assert_eq!(bind(&rig, vm, VmBindOp { op: BIND_OP_UNMAP, flags: 0, ..map(0, AT + SZ_4K, SZ_4K) }), OK);
    assert_eq!(leaf(&rig, 0, asid, AT + SZ_64K), None, "the 2M leaf had to go");
    for at in [AT, AT + 2 * SZ_4K, AT + SZ_64K] {
        assert_eq!(rig.fault(0, asid, at, Access::Write), FaultAck::Replay);
        assert!(leaf(&rig, 0, asid, at).is_some());
    }
    assert!(matches!(leaf(&rig, 0, asid, AT), Some((0, false, _))), "no leaf below 64K leads to VRAM");
    assert_eq!(rig.fault(0, asid, AT + SZ_4K, Access::Write), FaultAck::Kill);
}

#[test]
fn binds_of_bos_check_what_they_are_given() {
    let rig = Rig::new();
    let (vm, _) = vm_of(&rig, 6);
    let (vram, system) = (create(&rig, SZ_2M, 2), create(&rig, SZ_64K, 1));
    let all = |obj| VmBindOp { op: BIND_OP_UNMAP_ALL, flags: 0, ..map(obj, 0, 0) };
    let cases: [(VmBindOp, Result<u32, Errno>); 14] = [
        (map(vram, AT, SZ_2M + SZ_64K), EINVAL),
        (VmBindOp { obj_offset: SZ_64K, ..map(vram, AT, SZ_2M) }, EINVAL),
        (map(vram, AT + SZ_4K, SZ_64K), EINVAL),
        (map(system, AT + SZ_4K, SZ_4K), OK),
        (VmBindOp { pat_index: 0, ..map(system, AT, SZ_64K) }, EINVAL),
        (VmBindOp { pat_index: 0, ..map(vram, AT + SZ_2M, SZ_2M) }, OK),
        (all(77), ENOENT),
        (all(system), OK),
        (VmBindOp { pat_index: 0, ..all(system) }, EINVAL),
        (VmBindOp { pat_index: 0, ..all(vram) }, OK),
        (VmBindOp { obj_offset: SZ_64K, ..all(system) }, OK),
        (VmBindOp { obj_offset: 2 * SZ_64K, ..all(system) }, EINVAL),
        (VmBindOp { obj_offset: SZ_4K, ..all(system) }, OK),
        (VmBindOp { obj_offset: SZ_4K, ..all(vram) }, EINVAL),
    ];
    for (n, (op, want)) in cases.into_iter().enumerate() {
        assert_eq!(bind(&rig, vm, op), want, "case {n}");
    }
    let mut args = GemCreate { size: SZ_64K, placement: 1, vm_id: vm, cpu_caching: CACHING_WB, ..Default::default() };
    assert_eq!(rig.ioctl(nr::GEM_CREATE, &mut args), OK);
    let (other, _) = vm_of(&rig, 6);
    assert_eq!(bind(&rig, other, map(args.handle, AT, SZ_64K)), EINVAL, "another VM's own");
    assert_eq!(bind(&rig, other, all(args.handle)), OK, "which it does not show");
}

#[test]
fn what_compresses_is_refused_where_nothing_may_be_compressed() {
    let rig = Rig::with(&BATTLEMAGE, Rules::default());
    let (vm, _) = vm_of(&rig, 6);
    let no_compression = GemFlags::NO_COMPRESSION.bits();
    let [plain, bare] = [0, no_compression].map(|flags| {
        let (placement, cpu_caching) = (1, CACHING_WC);
        let mut args = GemCreate { size: SZ_64K, placement, cpu_caching, flags, ..Default::default() };
        assert_eq!(rig.ioctl(nr::GEM_CREATE, &mut args), OK);
        args.handle
    });
    let with = |bo, pat_index, flags: BindFlags| {
        let op = VmBindOp { pat_index, flags: flags.bits(), ..map(bo, AT, SZ_64K) };
        bind(&rig, vm, op)
    };
    let none = BindFlags::empty();
    assert_eq!([8, 9, 16, 19, 20, 28].map(|pat| with(plain, pat, none)), [OK, OK, EINVAL, EINVAL, OK, EINVAL]);
    assert_eq!((with(bare, 8, none), with(bare, 9, none)), (OK, EINVAL));
    assert_eq!([8, 9].map(|pat| with(plain, pat, BindFlags::DECOMPRESS)), [OK, EINVAL]);
    let advise = |val| {
        let mut args = Madvise { vm_id: vm, start: AT, range: SZ_64K, attr: ATTR_PAT, val, ..Default::default() };
        rig.ioctl(nr::MADVISE, &mut args)
    };
    assert_eq!([9, 15, 16, 19, 20, 28].map(advise), [OK, OK, EINVAL, EINVAL, OK, EINVAL]);
}

#[test]
fn a_buffer_object_says_that_it_is_not_protected() {
    let rig = Rig::new();
    let create = |extensions| {
        let mut args =
            GemCreate { size: SZ_4K, placement: 1, cpu_caching: CACHING_WB, extensions, ..Default::default() };
        rig.ioctl(nr::GEM_CREATE, &mut args)
    };
    let with = |property, value| {
        rig.put(USER, &ExtSetProperty { property, value, ..Default::default() });
        create(USER)
    };
    assert_eq!([0, 1, 7].map(|kind| with(0, kind)), [OK, err(Errno::ENODEV), EINVAL]);
    assert_eq!((with(1, 0), create(8)), (EINVAL, err(Errno::EFAULT)));
    assert_eq!(rig.memory.objects(), 1, "what is refused leaves nothing");
}

#[test]
fn unmap_all_finds_every_bind_of_a_bo_and_no_other() {
    let rig = Rig::new();
    let (vm, asid) = vm_of(&rig, 6);
    let (a, b) = (create(&rig, SZ_64K, 1), create(&rig, SZ_64K, 1));
    for (n, bo) in [a, b, a].into_iter().enumerate() {
        assert_eq!(bind(&rig, vm, map(bo, AT + n as u64 * SZ_64K, SZ_64K)), OK);
    }
    let all = VmBindOp { op: BIND_OP_UNMAP_ALL, flags: 0, ..map(a, 0, 0) };
    assert_eq!(bind(&rig, vm, all), OK);
    assert_eq!([0, 1, 2].map(|n| leaf(&rig, 0, asid, AT + n * SZ_64K).is_some()), [false, true, false]);
}

#[test]
fn an_array_that_fails_leaves_bos_as_they_were() {
    let rig = Rig::new();
    let (vm, asid) = vm_of(&rig, 6);
    let (a, b) = (create(&rig, SZ_64K, 2), create(&rig, SZ_64K, 2));
    assert_eq!(bind(&rig, vm, map(a, AT, SZ_64K)), OK);
    let before = leaf(&rig, 0, asid, AT);
    let userptr = VmBindOp { op: BIND_OP_MAP_USERPTR, obj_offset: 0x7000_0000, ..map(0, AT + SZ_2M, SZ_4K) };
    rig.put(USER, &[map(b, AT, SZ_64K), userptr]);
    let bind = VmBindOp { extensions: USER, ..Default::default() };
    let mut args = VmBind { vm_id: vm, num_binds: 2, bind, ..Default::default() };
    assert_eq!(rig.ioctl(nr::VM_BIND, &mut args), err(Errno::EFAULT));
    assert_eq!(rig.fault(0, asid, AT, Access::Write), FaultAck::Replay);
    assert_eq!(leaf(&rig, 0, asid, AT), before);
    assert_eq!(rig.fault(0, asid, AT + SZ_2M, Access::Read), FaultAck::Kill);
}

#[test]
fn a_userptr_follows_its_memory() {
    let rig = Rig::new();
    let (vm, asid) = vm_of(&rig, 6);
    mapped(&rig, DATA, SZ_2M);
    // Not congruent with its address in the process.
    let userptr = VmBindOp { op: BIND_OP_MAP_USERPTR, obj_offset: DATA + SZ_4K, ..map(0, AT, SZ_64K) };
    assert_eq!(bind(&rig, vm, userptr), OK);
    let bound =
        |at: u64| leaf(&rig, 1, asid, at).inspect(|(_, device, addr)| assert!(!device && rig.hw.dma_reaches(*addr)));
    assert!(bound(AT).is_some() && bound(AT + SZ_64K - SZ_4K).is_some() && bound(AT + SZ_64K).is_none());
    assert_eq!(bind(&rig, vm, userptr), OK);
    assert!(bound(AT).is_some(), "the same again");
    rig.mm.dontneed(HostRange::sized(HostVa(DATA + SZ_4K), SZ_4K));
    assert_eq!(bound(AT), None, "what changed is not translated any more");
    assert_eq!(rig.fault(1, asid, AT, Access::Write), FaultAck::Replay);
    assert!(bound(AT).is_some());
    assert_eq!(rig.fault(1, asid, AT, Access::Atomic), FaultAck::Kill, "it never is in VRAM");
    rig.mm.munmap(HostRange::sized(HostVa(DATA), SZ_2M));
    assert_eq!(bound(AT + SZ_4K), None);
    assert_eq!((rig.fault(1, asid, AT, Access::Read), refusal(&rig)), (FaultAck::Kill, Some(Errno::EFAULT)));
    assert_eq!(bind(&rig, vm, VmBindOp { op: BIND_OP_UNMAP, flags: 0, obj_offset: 0, ..map(0, AT, SZ_64K) }), OK);
    assert!(rig.hw.state.lock().iommu.is_empty(), "and nothing stays mapped for it");
}

#[test]
fn a_userptr_is_collected_when_it_is_bound() {
    let rig = Rig::new();
    let (vm, asid) = vm_of(&rig, 6);
    mapped(&rig, DATA, SZ_64K);
    let userptr =
        |host, range, flags| VmBindOp { op: BIND_OP_MAP_USERPTR, obj_offset: host, flags, ..map(0, AT, range) };
    assert_eq!(bind(&rig, vm, userptr(DATA + SZ_64K, SZ_4K, 0)), err(Errno::EFAULT), "no memory is there");
    assert_eq!(bind(&rig, vm, userptr(DATA + SZ_4K, SZ_64K, 0)), err(Errno::EFAULT), "nor at its end");
    assert!(rig.dma_frames().is_empty(), "and nothing of the rest stays mapped");
    assert_eq!((bind(&rig, vm, userptr(DATA, SZ_64K, 0)), leaf(&rig, 0, asid, AT)), (OK, None));
    assert_eq!(rig.dma_frames().len(), 16, "all of it, before its first fault");
    assert_eq!(rig.fault(0, asid, AT, Access::Write), FaultAck::Replay);
    let span = |op, range| VmBindOp { op, flags: 0, ..map(0, AT, range) };
    rig.mm.munmap(HostRange::sized(HostVa(DATA), SZ_64K));
    assert_eq!(bind(&rig, vm, span(BIND_OP_PREFETCH, SZ_64K)), err(Errno::EFAULT));
    assert_eq!(bind(&rig, vm, span(BIND_OP_UNMAP, SZ_4K)), err(Errno::EFAULT), "what it leaves is collected anew");
    assert_eq!(bind(&rig, vm, span(BIND_OP_UNMAP, SZ_64K)), OK);
    rig.mm.protect(mapped(&rig, DATA, SZ_64K));
    let read_only = BindFlags::READONLY.bits();
    assert_eq!([0, read_only].map(|flags| bind(&rig, vm, userptr(DATA, SZ_64K, flags))), [err(Errno::EPERM), OK]);
}

#[test]
fn a_userptr_ends_with_its_vm() {
    let rig = Rig::new();
    let (vm, _) = vm_of(&rig, 6);
    mapped(&rig, DATA, SZ_64K);
    let userptr = VmBindOp { op: BIND_OP_MAP_USERPTR, obj_offset: DATA, ..map(0, AT, SZ_64K) };
    assert_eq!(bind(&rig, vm, userptr), OK);
    assert!(!rig.dma_frames().is_empty());
    assert_eq!(rig.ioctl(nr::VM_DESTROY, &mut VmDestroy { vm_id: vm, ..Default::default() }), OK);
    assert!(rig.dma_frames().is_empty(), "nothing stays mapped for it");
}

#[test]
fn an_eviction_gives_up_what_no_vma_needs() {
    let rig = Rig::new();
    let (vm, asid) = vm_of(&rig, 6);
    let (scratch, its) = vm_of(&rig, 1);
    let bo = create(&rig, SZ_2M, 2);
    let advise = |vm_id, val| {
        rig.put(USER, &0u32);
        let mut args =
            Madvise { start: AT, range: SZ_2M, vm_id, attr: ATTR_PURGEABLE, val, ptr: USER, ..Default::default() };
        (rig.ioctl(nr::MADVISE, &mut args), rig.get::<u32>(USER))
    };
    let press = || {
        let other = create(&rig, SZ_1G, 2);
        assert_eq!(rig.ioctl(nr::GEM_CLOSE, &mut drm::GemClose { handle: other, pad: 0 }), OK);
    };
    let purged = || rig.memory.purged.lock().len();
    assert_eq!((bind(&rig, vm, map(bo, AT, SZ_2M)), bind(&rig, scratch, map(bo, AT, SZ_2M))), (OK, OK));
    assert_eq!(advise(vm, 1), (OK, 1));
    press();
    assert_eq!((purged(), advise(vm, 0)), (0, (OK, 1)), "the other VM needs it");
    assert_eq!(rig.fault(0, asid, AT, Access::Read), FaultAck::Replay);
    assert_eq!((advise(vm, 1), advise(scratch, 1)), ((OK, 1), (OK, 1)));
    let prefetch = VmBindOp { op: BIND_OP_PREFETCH, flags: 0, ..map(0, AT, SZ_2M) };
    let use_again = || [map(bo, AT + SZ_2M, SZ_2M), prefetch].map(|op| bind(&rig, vm, op));
    assert_eq!(use_again(), [err(Errno::EBUSY); 2]);
    press();
    assert_eq!((purged(), advise(vm, 0)), (1, (OK, 0)));
    assert_eq!(use_again(), [EINVAL; 2]);
    assert_eq!((rig.fault(0, asid, AT, Access::Read), refusal(&rig)), (FaultAck::Kill, Some(Errno::EACCES)));
    assert_eq!(rig.fault(0, its, AT, Access::Read), FaultAck::Replay, "zeros");
    assert_eq!(rig.device.vram_used(TileId(0)), 0);
}

#[test]
fn leaves_of_1g_64k_and_4k_are_split_and_come_back() {
    let rig = Rig::new();
    let (vm, asid) = vm_of(&rig, 6);
    let bo = create(&rig, SZ_1G, 2);
    assert_eq!(bind(&rig, vm, map(bo, AT, SZ_1G)), OK);
    let (level, _, base) = leaf(&rig, 0, asid, AT + 5).unwrap();
    assert_eq!((level, leaf(&rig, 1, asid, AT + SZ_1G - 1).map(|leaf| leaf.0)), (2, Some(2)), "1G on all tiles");
    let cut = VmBindOp { op: BIND_OP_UNMAP, flags: 0, ..map(0, AT + SZ_2M, SZ_2M) };
    assert_eq!(bind(&rig, vm, cut), OK);
    assert_eq!(leaf(&rig, 0, asid, AT), None, "the leaf goes whole");
    for at in [0, 2 * SZ_2M, SZ_1G - SZ_4K] {
        assert_eq!(rig.fault(0, asid, AT + at, Access::Write), FaultAck::Replay);
        let (level, device, addr) = leaf(&rig, 0, asid, AT + at).unwrap();
        let found = addr + if level == 1 { at % SZ_2M } else { 0 };
        assert_eq!((level, device, found), (1, true, base + at), "the rest is mapped by 2M, to the same bytes");
    }
    assert_eq!(rig.fault(0, asid, AT + SZ_2M, Access::Read), FaultAck::Kill);
}

#[test]
fn what_is_not_congruent_by_2m_is_mapped_by_compact_tables() {
    let rig = Rig::new();
    let (vm, asid) = vm_of(&rig, 0);
    let (size, at) = (4 * SZ_2M, AT + SZ_64K);
    let bo = create(&rig, size, 2);
    assert_eq!(bind(&rig, vm, map(bo, at, size)), OK);
    let base = leaf(&rig, 0, asid, at).unwrap().2;
    let compact = |va: u64| rig.hw.is_compact(TileId(0), asid, GpuVa(va));
    assert_eq!([at, AT + SZ_2M, AT + 3 * SZ_2M, at + size - SZ_64K].map(compact), [false, true, true, false]);
    let is_right = |offset: u64| {
        let found = leaf(&rig, 0, asid, at + offset);
        found.map(|(level, device, addr)| level == 0 && device && addr == base + offset / SZ_4K * SZ_4K)
    };
    assert!((0..size).step_by(SZ_4K as usize).all(|offset| is_right(offset) == Some(true)));
    // A part goes, and the rest stays; what is bound there next is right as well.
    let hole = 2 * SZ_2M;
    assert_eq!(bind(&rig, vm, VmBindOp { op: BIND_OP_UNMAP, flags: 0, ..map(0, at + hole, SZ_64K) }), OK);
    assert_eq!([hole - SZ_64K, hole, hole + SZ_64K].map(is_right), [Some(true), None, Some(true)]);
    let other = create(&rig, SZ_64K, 1);
    assert_eq!(bind(&rig, vm, map(other, at + hole, SZ_64K)), OK);
    assert!(matches!(leaf(&rig, 0, asid, at + hole), Some((0, false, _))));
    for offset in [hole - SZ_64K, hole + SZ_64K] {
        // A common table has taken the place of the compact one: its other pages come back when they are touched.
        if is_right(offset).is_none() {
            assert_eq!(rig.fault(0, asid, at + offset, Access::Write), FaultAck::Replay);
        }
        assert_eq!(is_right(offset), Some(true));
    }
    assert!(matches!(leaf(&rig, 0, asid, at + hole), None | Some((0, false, _))));
}

/// Where the device does atomics on system memory, leaves allow them of a BO that can be nowhere else, and a fault of one refuses it.
#[test]
fn atomics_stay_with_a_bo_that_has_one_place() {
    let rig = Rig::with(&BATTLEMAGE, Rules::default());
    let (vm, asid) = vm_of(&rig, 6);
    let atomic = |at| rig.hw.walk(TileId(0), asid, GpuVa(at)).map(|(_, leaf)| leaf.atomic);
    for (n, (placement, allows)) in [(1, true), (3, false)].into_iter().enumerate() {
        let at = AT + n as u64 * SZ_2M;
        let pat_index = BATTLEMAGE.pat.wb.into();
        let lazily = VmBindOp { flags: 0, pat_index, ..map(create(&rig, SZ_64K, placement), at, SZ_64K) };
        let to_system = VmBindOp { op: BIND_OP_PREFETCH, flags: 0, ..map(0, at, SZ_64K) };
        assert_eq!((bind(&rig, vm, lazily), bind(&rig, vm, to_system), atomic(at)), (OK, OK, Some(allows)));
    }
    assert_eq!((rig.fault(0, asid, AT, Access::Atomic), refusal(&rig)), (FaultAck::Kill, Some(Errno::EACCES)));
    let advice =
        Madvise { vm_id: vm, start: AT, range: SZ_64K, attr: ATTR_ATOMIC, val: ATOMIC_CPU, ..Default::default() };
    assert_eq!(rig.ioctl(nr::MADVISE, &mut advice.clone()), OK);
    assert_eq!((rig.fault(0, asid, AT, Access::Write), atomic(AT)), (FaultAck::Replay, Some(false)));
}

/// A leaf that allows an atomic does not make the device able to do it: the fault would come again for ever.
#[test]
fn an_atomic_that_the_device_cannot_do_ends_the_context_without_faults_too() {
    let rig = Rig::new();
    let (vm, asid) = vm_of(&rig, 2);
    mapped(&rig, DATA, SZ_64K);
    let (system, both) = (create(&rig, SZ_64K, 1), create(&rig, SZ_64K, 3));
    let userptr = VmBindOp { op: BIND_OP_MAP_USERPTR, obj_offset: DATA, ..map(0, AT, SZ_64K) };
    for op in [userptr, map(system, AT + SZ_2M, SZ_64K), map(both, AT + 2 * SZ_2M, SZ_64K)] {
        assert_eq!(bind(&rig, vm, op), OK);
    }
    for at in [AT, AT + SZ_2M] {
        assert_eq!((rig.fault(0, asid, at, Access::Atomic), refusal(&rig)), (FaultAck::Kill, Some(Errno::EACCES)));
    }
    let prefetch = VmBindOp { op: BIND_OP_PREFETCH, flags: 0, ..map(0, AT + 2 * SZ_2M, SZ_64K) };
    assert_eq!((bind(&rig, vm, prefetch), rig.device.vram_used(TileId(0))), (OK, 0));
    assert_eq!(rig.fault(0, asid, AT + 2 * SZ_2M, Access::Atomic), FaultAck::Replay);
    assert_eq!(rig.device.vram_used(TileId(0)), SZ_64K, "where it can be in VRAM, it goes there");
}

#[test]
fn bos_take_no_more_system_memory_than_there_is() {
    let rig = Rig::new();
    let most = PVC.system_bytes;
    let (vm, _) = vm_of(&rig, 0);
    let defer = |size, placement| {
        let cpu_caching = CACHING_WC;
        let mut args = GemCreate { size, placement, cpu_caching, flags: 1, ..Default::default() };
        (rig.ioctl(nr::GEM_CREATE, &mut args), args.handle)
    };
    let [(_, a), (_, b)] = [defer(most - SZ_2M, 1), defer(2 * SZ_2M, 1)];
    assert_eq!((rig.device.system_used(), bind(&rig, vm, map(a, AT, SZ_2M))), (0, OK), "taken at the first use");
    assert_eq!(rig.device.system_used(), most - SZ_2M);
    assert_eq!(bind(&rig, vm, map(b, 2 * AT, SZ_2M)), err(Errno::ENOMEM));
    let mut args = GemCreate { size: 2 * SZ_2M, placement: 1, cpu_caching: CACHING_WB, ..Default::default() };
    assert_eq!(rig.ioctl(nr::GEM_CREATE, &mut args), err(Errno::ENOMEM));
    // What is evicted is in system memory, and is there no more when it is back.
    let (first, second) = (create(&rig, SZ_1G, 2), create(&rig, SZ_1G, 2));
    assert_eq!(rig.device.system_used(), most - SZ_2M + SZ_1G);
    assert_eq!(bind(&rig, vm, map(first, 3 * AT, SZ_1G)), OK);
    let close = |handle| rig.ioctl(nr::GEM_CLOSE, &mut drm::GemClose { handle, pad: 0 });
    assert_eq!((close(second), rig.device.system_used()), (OK, most - SZ_2M));
    assert_eq!(bind(&rig, vm, unmap_op(AT, SZ_2M)), OK);
    assert_eq!((close(a), rig.device.system_used(), bind(&rig, vm, map(b, 2 * AT, SZ_2M))), (OK, 0, OK));
}
