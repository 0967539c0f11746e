//! What binds, faults and advice do to page tables.

use super::*;
use crate::replays::MOST_VALID;
use crate::testing::pagemap;

#[test]
fn closing_the_file_ends_everything() {
    let rig = Rig::new();
    rig.mm.pin();
    let before = rig.hw.live_entries();
    let (vm, asid) = mirrored(&rig);
    mapped(&rig, DATA, SZ_2M);
    queue(&rig, vm, CLASS_COPY, 0).unwrap();
    assert_eq!(rig.fault(0, asid, DATA, Access::Write), FaultAck::Replay);
    assert!(!rig.dma_frames().is_empty());
    rig.file.close();
    assert_eq!(rig.hw.live_entries(), before, "every table is empty again");
    assert!(rig.dma_frames().is_empty() && rig.hw.walk(TileId(0), asid, GpuVa(DATA)).is_none());
    assert_eq!(rig.fault(0, asid, DATA, Access::Read), FaultAck::Kill);
    assert_eq!(rig.ioctl(nr::VM_CREATE, &mut VmCreate::default()), err(Errno::ENOSPC));
}

#[test]
fn null_spans_read_zeros_until_they_are_unmapped() {
    let rig = Rig::new();
    let vm = fault_vm(&rig);
    let asid = rig.file.vm(vm).unwrap().asid;
    let null = VmBindOp { range: 4 * SZ_2M, flags: BindFlags::NULL.bits(), pat_index: 3, ..Default::default() };
    assert_eq!(bind(&rig, vm, null), OK);
    assert_eq!(rig.fault(1, asid, SZ_2M + 8, Access::Write), FaultAck::Replay);
    let (level, leaf) = rig.hw.walk(TileId(1), asid, GpuVa(SZ_2M)).unwrap();
    assert!(level == 1 && leaf.null && leaf.write);
    assert_eq!(bind(&rig, vm, unmap_op(SZ_2M + SZ_64K, SZ_64K)), OK);
    assert_eq!(rig.hw.walk(TileId(1), asid, GpuVa(SZ_2M)), None);
    assert_eq!(rig.fault(1, asid, SZ_2M, Access::Atomic), FaultAck::Kill);
    assert_eq!(rig.fault(1, asid, SZ_2M, Access::Read), FaultAck::Replay);
    assert_eq!(rig.fault(1, asid, SZ_2M + SZ_64K, Access::Read), FaultAck::Kill);
}

#[test]
fn a_mapping_that_the_device_does_not_accept_is_given_up() {
    let rig = Rig::new();
    let (vm, asid) = mirrored(&rig);
    mapped(&rig, DATA, SZ_2M);
    let own = queue(&rig, vm, CLASS_COPY, 0).unwrap();
    queue(&rig, vm, CLASS_COPY, 0).unwrap();
    let contexts: Vec<_> = rig.hw.state.lock().contexts.keys().copied().collect();
    let fault = |n: usize, addr| rig.fault_of(contexts[n], 0, asid, addr, Access::Read);
    let replays = |n| (0..100).take_while(|_| fault(n, DATA) == FaultAck::Replay).count() as u32;
    assert_eq!(replays(0), MOST_VALID, "the first one was not mapped");
    assert_eq!([fault(0, DATA + SZ_4K), fault(0, DATA)], [FaultAck::Replay; 2], "another page starts the count again");
    assert_eq!(replays(1), MOST_VALID - 1, "another context has its own");
    assert_eq!(
        rig.ioctl(nr::EXEC_QUEUE_DESTROY, &mut ExecQueueDestroy { exec_queue_id: own, ..Default::default() }),
        OK
    );
    let dead: Vec<_> = (0..100).map(|_| fault(0, DATA)).collect();
    assert!(dead.iter().all(|ack| *ack == FaultAck::Replay), "nothing is kept of a context that ended");
}

#[test]
fn a_fault_binds_system_memory_on_the_faulting_tile_alone() {
    let rig = Rig::new();
    rig.mm.pin();
    let (_, asid) = mirrored(&rig);
    mapped(&rig, DATA, SZ_2M);
    assert_eq!(rig.fault(1, asid, DATA + 0x1_2345, Access::Write), FaultAck::Replay);
    assert_eq!(rig.hw.walk(TileId(0), asid, GpuVa(DATA)), None);
    for page in [0, 0xf000, 0x1_0000, SZ_2M - SZ_4K] {
        let (_, leaf) = rig.hw.walk(TileId(1), asid, GpuVa(DATA + page)).expect("bound");
        assert!(leaf.write && !leaf.device && !leaf.atomic);
        let frame = rig.mm.frame_of(HostVa(DATA + page)).0;
        let state = rig.hw.state.lock();
        let (iova, (first, pages)) = state.iommu.range(..=units::Iova(leaf.addr)).next_back().unwrap();
        let offset = (leaf.addr - iova.0) >> 12;
        assert!(offset < *pages as u64 && first.0 + offset == frame, "the leaf leads to the page's own frame");
    }
    assert_eq!(rig.fault(1, asid, DATA, Access::Read), FaultAck::Replay);
    let log = rig.log.0.lock();
    let outcomes = log.iter().filter_map(|event| match event {
        Event::Fault { outcome, .. } => Some(*outcome),
        _ => None,
    });
    assert_eq!(outcomes.collect::<Vec<_>>(), [Serviced::Resolved, Serviced::Valid]);
}

#[test]
fn an_invalidation_zaps_flushes_and_unmaps_and_the_next_fault_binds_again() {
    let rig = Rig::new();
    rig.mm.pin();
    let (vm, asid) = mirrored(&rig);
    let range = mapped(&rig, DATA, SZ_2M);
    let prefetch = VmBindOp { op: BIND_OP_PREFETCH, addr: DATA, range: SZ_2M, ..Default::default() };
    assert_eq!(bind(&rig, vm, prefetch), OK);
    rig.hw.state.lock().flushes.clear();
    rig.mm.dontneed(HostRange::sized(range.start.add(0x5000), SZ_4K));
    for tile in [0, 1] {
        assert_eq!(rig.hw.walk(TileId(tile), asid, GpuVa(DATA + 0x5000)), None);
    }
    assert!(rig.dma_frames().is_empty());
    let flushed: Vec<_> = rig.hw.state.lock().flushes.iter().map(|(tile, asid, _)| (*tile, *asid)).collect();
    assert_eq!(flushed, [(TileId(0), asid), (TileId(1), asid)]);
    assert_eq!(rig.fault(0, asid, DATA + 0x5000, Access::Write), FaultAck::Replay);
    rig.hw.state.lock().flushes.clear();
    rig.mm.dontneed(range);
    let flushes = rig.hw.state.lock().flushes.clone();
    assert_eq!(flushes.len(), 1, "only the tile that was bound: {flushes:?}");
    assert!(flushes[0].2.covers(GpuRange::sized(GpuVa(DATA), SZ_2M)));
}

#[test]
fn a_mirror_is_busy_while_ranges_live_and_free_after_munmap() {
    let rig = Rig::new();
    let (vm, asid) = mirrored(&rig);
    let range = mapped(&rig, DATA, SZ_64K);
    assert_eq!(rig.fault(0, asid, DATA, Access::Write), FaultAck::Replay);
    assert_eq!(bind(&rig, vm, unmap_op(0, EVERYTHING)), err(Errno::EBUSY));
    assert_eq!(bind(&rig, vm, unmap_op(DATA + 2 * SZ_2M, SZ_2M)), OK, "elsewhere it is not");
    assert_eq!(bind(&rig, vm, mirror_op()), OK, "a mirror over a mirror keeps its ranges");
    assert!(rig.hw.walk(TileId(0), asid, GpuVa(DATA)).is_some());
    rig.mm.munmap(range);
    assert_eq!(rig.hw.walk(TileId(0), asid, GpuVa(DATA)), None);
    assert_eq!(bind(&rig, vm, unmap_op(0, EVERYTHING)), OK);
    assert_eq!(rig.fault(0, asid, DATA, Access::Read), FaultAck::Kill);
}

#[test]
fn faults_that_cannot_be_served_are_refused_with_their_reason() {
    let rig = Rig::new();
    let (vm, asid) = mirrored(&rig);
    assert_eq!((rig.fault(0, asid, DATA, Access::Read), refusal(&rig)), (FaultAck::Kill, Some(Errno::ENOENT)));
    mapped(&rig, DATA, SZ_4K);
    assert_eq!((rig.fault(0, asid, DATA, Access::Atomic), refusal(&rig)), (FaultAck::Kill, Some(Errno::EACCES)));
    assert_eq!((rig.fault(0, Asid(999), DATA, Access::Read), refusal(&rig)), (FaultAck::Kill, Some(Errno::EINVAL)));
    let range = mapped(&rig, DATA + SZ_2M, SZ_64K);
    rig.mm.protect(range);
    assert_eq!((rig.fault(0, asid, DATA + SZ_2M, Access::Write), refusal(&rig)), (FaultAck::Kill, Some(Errno::EPERM)));
    let mut args = VmGetProperty { vm_id: vm, ..Default::default() };
    assert_eq!((rig.ioctl(nr::VM_GET_PROPERTY, &mut args), args.size), (OK, 3 * 48));
    args.data = USER;
    assert_eq!(rig.ioctl(nr::VM_GET_PROPERTY, &mut args), OK);
    let saved: [vm::VmFault; 3] = [0, 48, 96].map(|at| rig.get(USER + at));
    assert_eq!(saved.map(|fault| (fault.address, fault.access_type)), [(DATA, 0), (DATA, 2), (DATA + SZ_2M, 1)]);
}

#[test]
fn an_atomic_that_never_gets_vram_ends() {
    let rig = Rig::new();
    let (_, asid) = mirrored(&rig);
    mapped(&rig, DATA, SZ_64K);
    // Nothing migrates: three tries, then the truth.
    rig.mm.pin();
    assert_eq!(rig.fault(0, asid, DATA, Access::Atomic), FaultAck::Kill);
    assert!(refusal(&rig).is_some());
    assert_eq!(rig.device.vram_used(TileId(0)), 0, "every block came back");
}

#[test]
fn a_range_that_outgrew_its_vma_is_made_anew() {
    let rig = Rig::new();
    let (_, asid) = mirrored(&rig);
    mapped(&rig, DATA, SZ_64K);
    assert_eq!(rig.fault(0, asid, DATA, Access::Write), FaultAck::Replay);
    rig.mm.protect(HostRange::sized(HostVa(DATA + 0x8000), 0x8000));
    assert_eq!(rig.fault(0, asid, DATA + 0x1000, Access::Write), FaultAck::Replay, "its half is still writable");
    assert!(rig.hw.walk(TileId(0), asid, GpuVa(DATA + 0x1000)).is_some());
    assert_eq!(rig.hw.walk(TileId(0), asid, GpuVa(DATA + 0x8000)), None);
    assert_eq!(rig.fault(0, asid, DATA + 0x8000, Access::Write), FaultAck::Kill);
}

#[test]
fn advice_splits_vmas_and_is_told_back() {
    let rig = Rig::new();
    let (vm, asid) = mirrored(&rig);
    let range = mapped(&rig, DATA, SZ_2M);
    assert_eq!(rig.fault(0, asid, DATA, Access::Read), FaultAck::Replay);
    let advise = |attr: u32, val: u32, change: &dyn Fn(&mut Madvise)| {
        let mut args = Madvise { start: DATA, range: SZ_64K, vm_id: vm, attr, val, ..Default::default() };
        change(&mut args);
        rig.ioctl(nr::MADVISE, &mut args)
    };
    assert_eq!(advise(ATTR_ATOMIC, ATOMIC_CPU, &|_| ()), OK);
    assert_eq!(rig.hw.walk(TileId(0), asid, GpuVa(DATA)), None, "it takes effect at the next fault");
    assert_eq!(rig.fault(0, asid, DATA, Access::Atomic), FaultAck::Kill);
    assert_eq!(rig.fault(0, asid, DATA, Access::Write), FaultAck::Replay);
    assert_eq!(advise(ATTR_ATOMIC, 4, &|_| ()), EINVAL);
    assert_eq!(advise(ATTR_PAT, 8, &|_| ()), EINVAL);
    assert_eq!(advise(ATTR_PREFERRED_LOC, u32::MAX, &|_| ()), OK);
    assert_eq!(advise(ATTR_PREFERRED_LOC, 0, &|args| args.policy_region = 1 << 16), EINVAL);
    assert_eq!(advise(ATTR_PREFERRED_LOC, 5, &|args| args.policy_region = 1 << 16), ENOENT, "no device's descriptor");
    assert_eq!(advise(9, 0, &|_| ()), EINVAL);
    assert_eq!(advise(ATTR_PAT, 0, &|args| args.start = 1), EINVAL);
    assert_eq!(advise(ATTR_PAT, 0, &|args| args.vm_id = 9), EINVAL);
    assert_eq!(advise(ATTR_PAT, 3, &|args| args.extensions = 1), OK, "upstream does not read them");
    assert_eq!(advise(ATTR_PAT, 3, &|args| (args.start, args.range) = (EVERYTHING - SZ_4K, SZ_4K)), OK);
    assert_eq!(advise(ATTR_PAT, 3, &|args| (args.start, args.range) = (EVERYTHING - SZ_4K, SZ_64K)), EINVAL);
    assert_eq!(advise(ATTR_PAT, 3, &|args| args.range = u64::MAX - 4095), EINVAL);

    let mut args = VmQueryMemRangeAttr { vm_id: vm, start: DATA, range: range.len(), ..Default::default() };
    assert_eq!(rig.ioctl(nr::VM_QUERY_MEM_RANGE_ATTRS, &mut args), OK);
    assert_eq!((args.num_mem_ranges, args.sizeof_mem_range_attr), (2, 64));
    args.vector_of_mem_attr = USER;
    assert_eq!(rig.ioctl(nr::VM_QUERY_MEM_RANGE_ATTRS, &mut args), OK);
    let attrs: [MemRangeAttr; 2] = [rig.get(USER), rig.get(USER + 64)];
    assert_eq!(
        attrs.map(|attr| (attr.start, attr.atomic_val, attr.devmem_fd)),
        [(DATA, ATOMIC_CPU, u32::MAX), (DATA + SZ_64K, 0, 0)]
    );
    args.num_mem_ranges = 1;
    assert_eq!(rig.ioctl(nr::VM_QUERY_MEM_RANGE_ATTRS, &mut args), err(Errno::ENOSPC));
    args.sizeof_mem_range_attr = 63;
    assert_eq!(rig.ioctl(nr::VM_QUERY_MEM_RANGE_ATTRS, &mut args), EINVAL);
}

#[test]
fn a_prefetch_binds_every_tile_before_any_fault() {
    let rig = Rig::new();
    let (vm, asid) = mirrored(&rig);
    mapped(&rig, DATA, SZ_2M + SZ_64K);
    let op = VmBindOp { op: BIND_OP_PREFETCH, addr: DATA, range: 4 * SZ_2M, ..Default::default() };
    let (t0, t1) = (Some(pagemap(0)), Some(pagemap(1)));
    for (region, tile) in [(0, None), (1, t0), (2, t1), (0, None), (u32::MAX, t0)] {
        assert_eq!(bind(&rig, vm, VmBindOp { prefetch_mem_region_instance: region, ..op }), OK);
        for page in [0, SZ_2M - SZ_4K, SZ_2M + SZ_64K - SZ_4K] {
            let home = rig.mm.home(DATA + page).map(|page| page.pagemap);
            assert_eq!(home, tile, "region {region}, {page:#x}");
            for tile in [0, 1] {
                let (_, leaf) = rig.hw.walk(TileId(tile), asid, GpuVa(DATA + page)).expect("bound on every tile");
                assert_eq!(leaf.device, home.is_some());
            }
        }
    }
    assert!(rig.log.0.lock().iter().all(|event| !matches!(event, Event::Fault { .. })));
    assert_eq!(bind(&rig, vm, VmBindOp { addr: 0, range: EVERYTHING, ..op }), OK, "and a whole VM takes no eternity");
}

/// Row of `docs/hostmm.md`, *VMA facts*: the next mapping is asked for, however far away it is.
#[test]
fn a_prefetch_goes_on_behind_a_hole() {
    let rig = Rig::new();
    let (vm, asid) = mirrored(&rig);
    let far = DATA + 3 * SZ_1G + SZ_64K;
    mapped(&rig, DATA, SZ_64K);
    mapped(&rig, far, SZ_64K);
    let op = VmBindOp { op: BIND_OP_PREFETCH, addr: DATA, range: 4 * SZ_1G, ..Default::default() };
    assert_eq!(bind(&rig, vm, VmBindOp { prefetch_mem_region_instance: 1, ..op }), OK);
    for at in [DATA, far] {
        assert!(rig.mm.home(at).is_some() && rig.hw.walk(TileId(1), asid, GpuVa(at)).is_some(), "{at:#x}");
    }
    assert!(rig.mm.vma_questions() < 40, "{} questions", rig.mm.vma_questions());
}

#[test]
fn advice_takes_canonical_addresses_and_refused_faults_tell_them() {
    let rig = Rig::new();
    let (vm, asid) = mirrored(&rig);
    let (high, canonical) = (EVERYTHING / 2, !0 << 56);
    let mut args = Madvise { start: canonical, range: SZ_2M, vm_id: vm, attr: ATTR_PAT, val: 1, ..Default::default() };
    assert_eq!(rig.ioctl(nr::MADVISE, &mut args), OK);
    assert_eq!(rig.file.vm(vm).unwrap().state.read().vmas.find(GpuVa(high)).map(|vma| vma.attr.pat), Some(1));
    assert_eq!(rig.fault(0, asid, high, Access::Read), FaultAck::Kill);
    let mut args = VmGetProperty { vm_id: vm, size: 48, data: USER, ..Default::default() };
    assert_eq!(rig.ioctl(nr::VM_GET_PROPERTY, &mut args), OK);
    assert_eq!(rig.get::<vm::VmFault>(USER).address, canonical);
}

#[test]
fn what_is_asked_of_attributes_may_begin_and_end_anywhere() {
    let rig = Rig::new();
    let vm = fault_vm(&rig);
    for at in [0, 2, 4] {
        let null = VmBindOp { addr: at * SZ_2M, range: SZ_2M, flags: BindFlags::NULL.bits(), ..mirror_op() };
        assert_eq!(bind(&rig, vm, null), OK);
    }
    let count = |start: u64, range: u64| {
        let mut args = VmQueryMemRangeAttr { vm_id: vm, start, range, extensions: 7, ..Default::default() };
        args.reserved = [1; 2];
        rig.ioctl(nr::VM_QUERY_MEM_RANGE_ATTRS, &mut args).map(|_| args.num_mem_ranges)
    };
    let (inside, hole) = (2 * SZ_2M + 2, SZ_2M + 2);
    assert_eq!([count(0, !0), count(inside, 2 * SZ_2M), count(hole, 8), count(!0, 1)], [3, 2, 0, 0].map(Ok));
    assert_eq!([count(inside, 0), count(2 * SZ_2M, 0), count(hole, 0)], [1, 0, 0].map(Ok), "no bytes");
    assert_eq!([count(inside, !0), count(hole, !0), count(1, !0)], [1, 0, 0].map(Ok), "it wraps");
    let mut args =
        VmQueryMemRangeAttr { vm_id: vm, num_mem_ranges: 1 << 25, sizeof_mem_range_attr: 64, ..Default::default() };
    args.vector_of_mem_attr = USER;
    assert_eq!(rig.ioctl(nr::VM_QUERY_MEM_RANGE_ATTRS, &mut args), err(Errno::ENOBUFS));
}
