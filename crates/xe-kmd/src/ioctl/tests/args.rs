//! Arguments: errno by errno.

use super::*;

#[test]
fn foreign_and_unknown_requests() {
    let rig = Rig::new();
    assert_eq!(rig.file.ioctl(0x5401, HostVa(USER)), err(Errno::ENOTTY));
    assert_eq!(rig.file.ioctl(nr::request(3, 0x7f, 8), HostVa(USER)), EINVAL);
    let observe = |observation_type, observation_op, extensions| {
        let mut args = Observation { observation_type, observation_op, extensions, param: 0 };
        rig.ioctl(nr::OBSERVATION, &mut args)
    };
    assert_eq!([observe(0, 2, 0), observe(1, 0, 0)], [err(Errno::EOPNOTSUPP); 2]);
    assert_eq!([observe(0, 3, 0), observe(1, 1, 0), observe(2, 0, 0), observe(0, 0, 1)], [EINVAL; 4]);
    assert_eq!(rig.file.ioctl(nr::VM_CREATE, HostVa(8)), err(Errno::EFAULT));
    assert_eq!(rig.file.ioctl(nr::SET_MASTER, HostVa(0)), OK);
}

#[test]
fn version_copies_what_fits_and_says_the_length() {
    let rig = Rig::new();
    let mut args = drm::Version { name_len: 1, name: USER, ..Default::default() };
    assert_eq!(rig.ioctl(nr::VERSION, &mut args), OK);
    assert_eq!((args.name_len, rig.get::<[u8; 2]>(USER)), (2, *b"x\0"));
    args.name_len = 11;
    assert_eq!(rig.ioctl(nr::VERSION, &mut args), OK);
    assert_eq!(rig.get::<[u8; 3]>(USER), *b"xe\0");
}

#[test]
fn queries_are_asked_twice() {
    let rig = Rig::new();
    let sizes =
        [(CONFIG, 48), (GT_LIST, 200), (ENGINES, 8 + 32 * 12), (MEM_REGIONS, 272), (HWCONFIG, 72), (OA_UNITS, 8)];
    for (what, size) in sizes {
        let mut args = DeviceQuery { query: what, ..Default::default() };
        assert_eq!((rig.ioctl(nr::DEVICE_QUERY, &mut args), args.size), (OK, size), "query {what}");
        args.data = USER;
        assert_eq!(rig.ioctl(nr::DEVICE_QUERY, &mut args), OK);
        args.size = size + 1;
        assert_eq!(rig.ioctl(nr::DEVICE_QUERY, &mut args), EINVAL);
        if size > 0 {
            (args.size, args.data) = (size, 8);
            assert_eq!(rig.ioctl(nr::DEVICE_QUERY, &mut args), err(Errno::EFAULT));
        }
    }
    let bad = |change: fn(&mut DeviceQuery)| {
        let mut args = DeviceQuery { query: CONFIG, ..Default::default() };
        change(&mut args);
        rig.ioctl(nr::DEVICE_QUERY, &mut args)
    };
    assert_eq!(bad(|args| args.extensions = 1), EINVAL);
    assert_eq!(bad(|args| args.reserved[1] = 1), EINVAL);
    assert_eq!(bad(|args| args.query = 77), EINVAL);
    assert_eq!(bad(|args| args.query = EU_STALL), err(Errno::ENODEV));
}

#[test]
fn the_device_is_a_two_tile_ponte_vecchio() {
    let rig = Rig::new();
    let ask = |query, size| {
        assert_eq!(rig.ioctl(nr::DEVICE_QUERY, &mut DeviceQuery { query, size, data: USER, ..Default::default() }), OK);
    };
    ask(CONFIG, 48);
    assert_eq!(rig.get::<[u64; 6]>(USER), [5, 0x2f_0bd5, 0x37, SZ_64K, 57, 1]);
    ask(GT_LIST, 200);
    let gts: [Gt; 2] = [rig.get(USER + 8), rig.get(USER + 104)];
    assert_eq!(gts.map(|gt| (gt.tile_id, gt.gt_id)), [(0, 0), (1, 1)]);
    assert_eq!(gts.map(|gt| (gt.near_mem_regions, gt.far_mem_regions)), [(2, 5), (4, 3)]);
    ask(MEM_REGIONS, 272);
    let regions: [MemRegion; 3] = [0, 1, 2].map(|n| rig.get(USER + 8 + 88 * n));
    assert_eq!(regions.map(|region| (region.mem_class, region.instance)), [(0, 0), (1, 1), (1, 2)]);
    assert_eq!(regions.map(|region| region.min_page_size), [4096, 65536, 65536]);
    ask(ENGINES, 8 + 32 * 12);
    let engine: query::Engine = rig.get(USER + 8 + 11 * 32);
    let EngineClassInstance { engine_class, engine_instance, gt_id, .. } = engine.instance;
    assert_eq!((engine_class, engine_instance, gt_id), (CLASS_COMPUTE, 1, 1));
    ask(HWCONFIG, 72);
    let facts: [[u32; 3]; 6] = rig.get(USER);
    assert_eq!(facts, [[1, 1, 8], [2, 1, 64], [3, 1, 8], [15, 1, 8], [23, 1, 0], [24, 1, 2]]);
}

#[test]
fn the_firmware_that_there_is_tells_its_version() {
    let rig = Rig::new();
    let ask = |size, wanted: UcFwVersion| {
        rig.put(USER, &wanted);
        let mut args = DeviceQuery { query: UC_FW_VERSION, size, data: USER, ..Default::default() };
        (rig.ioctl(nr::DEVICE_QUERY, &mut args), args.size)
    };
    assert_eq!((ask(0, UcFwVersion::default()), ask(31, UcFwVersion::default()).0), ((OK, 32), EINVAL));
    assert_eq!(ask(32, UcFwVersion::default()).0, OK);
    let version: UcFwVersion = rig.get(USER);
    assert!(version.major_ver > 0 && version.uc_type == UC_TYPE_GUC_SUBMISSION);
    assert_eq!(ask(32, UcFwVersion { uc_type: UC_TYPE_HUC, ..Default::default() }).0, err(Errno::ENODEV));
    let bad: [Change<UcFwVersion>; 4] = [|fw| fw.uc_type = 2, |fw| fw.pad = 1, |fw| fw.pad2 = 1, |fw| fw.reserved = 1];
    for change in bad {
        let mut wanted = UcFwVersion::default();
        change(&mut wanted);
        assert_eq!(ask(32, wanted).0, EINVAL);
    }
}

#[test]
fn protected_content_tells_its_size_and_is_not_there() {
    let rig = Rig::new();
    let ask = |size| {
        let mut args = DeviceQuery { query: PXP_STATUS, size, data: USER, ..Default::default() };
        (rig.ioctl(nr::DEVICE_QUERY, &mut args), args.size)
    };
    assert_eq!([ask(0), ask(7), ask(8)], [(OK, 8), (EINVAL, 7), (err(Errno::ENODEV), 8)]);
}

#[test]
fn cycles_are_read_beside_each_clock() {
    let rig = Rig::new();
    let ask = |clockid, engine_instance| {
        let eci = EngineClassInstance { engine_class: CLASS_COPY, engine_instance, ..Default::default() };
        rig.put(USER, &EngineCycles { eci, clockid, ..Default::default() });
        let mut args = DeviceQuery { query: ENGINE_CYCLES, size: 40, data: USER, ..Default::default() };
        rig.ioctl(nr::DEVICE_QUERY, &mut args).map(|_| rig.get::<EngineCycles>(USER))
    };
    let monotonic = ask(1, 0).unwrap();
    let ticks = monotonic.cpu_timestamp as u128 * 19_200_000 / 1_000_000_000 % (1 << 36);
    assert!((monotonic.engine_cycles as u128).abs_diff(ticks) < 19_200_000, "one clock, two units");
    let real = ask(0, 3).unwrap();
    assert!(real.cpu_timestamp > 1_600_000_000_000_000_000, "the time of day");
    assert!(ask(11, 0).unwrap().cpu_timestamp >= real.cpu_timestamp);
    assert!([4, 7].iter().all(|&clock| ask(clock, 0).unwrap().cpu_timestamp < real.cpu_timestamp));
    assert_eq!((ask(2, 0).map(drop), ask(0, 4).map(drop)), (Err(Errno::EINVAL), Err(Errno::EINVAL)));
}

#[test]
fn vm_create_checks_its_flags() {
    let rig = Rig::new();
    let create = |flags: u32, change: fn(&mut VmCreate)| {
        let mut args = VmCreate { flags, ..Default::default() };
        change(&mut args);
        rig.ioctl(nr::VM_CREATE, &mut args)
    };
    for (flags, want) in [
        (0, OK),
        (1, OK),
        (2, OK),
        (3, OK),
        (4, EINVAL),
        (5, EINVAL),
        (6, OK),
        (7, EINVAL),
        (8, EINVAL),
        (14, OK),
        (16, EINVAL),
    ] {
        assert_eq!(create(flags, |_| ()), want, "flags {flags}");
    }
    assert_eq!(create(6, |args| args.extensions = 1), EINVAL);
    assert_eq!(create(6, |args| args.reserved[0] = 1), EINVAL);
}

#[test]
fn a_destroyed_vm_is_gone_and_its_name_is_free() {
    let rig = Rig::new();
    let (first, second) = (fault_vm(&rig), fault_vm(&rig));
    assert_eq!((first, second), (1, 2));
    let destroy = |vm_id, pad| rig.ioctl(nr::VM_DESTROY, &mut VmDestroy { vm_id, pad, ..Default::default() });
    assert_eq!((destroy(first, 1), destroy(first, 0), destroy(first, 0)), (EINVAL, OK, ENOENT));
    assert_eq!([0, 0xffff, 0xdead_beef].map(|id| destroy(id, 0)), [ENOENT; 3]);
    assert_eq!(fault_vm(&rig), 1);
}

#[test]
fn vm_bind_checks_each_op() {
    let rig = Rig::new();
    let (vm, _) = mirrored(&rig);
    let cases: [(&str, Change<VmBindOp>, Result<u32, Errno>); 24] = [
        ("nothing wrong", |_| (), OK),
        ("pat index", |op| op.pat_index = 8, EINVAL),
        ("op", |op| op.op = 5, EINVAL),
        ("flag", |op| op.flags |= 1 << 30, EINVAL),
        ("mirror with an object", |op| op.obj = 1, EINVAL),
        ("mirror with an offset", |op| op.obj_offset = SZ_4K, EINVAL),
        ("mirror on unmap", |op| op.op = BIND_OP_UNMAP, EINVAL),
        ("map of nothing", |op| op.flags = 0, EINVAL),
        ("map of no such object", |op| (op.flags, op.obj) = (0, 9), ENOENT),
        ("unmap all of nothing", |op| (op.op, op.flags) = (BIND_OP_UNMAP_ALL, 0), EINVAL),
        ("userptr with an object", |op| (op.op, op.flags, op.obj) = (BIND_OP_MAP_USERPTR, 0, 1), EINVAL),
        ("incoherent userptr", |op| (op.op, op.flags, op.pat_index) = (BIND_OP_MAP_USERPTR, 0, 0), EINVAL),
        ("userptr of nothing", |op| (op.op, op.flags) = (BIND_OP_MAP_USERPTR, 2), err(Errno::EFAULT)),
        (
            "userptr that goes round",
            |op| (op.op, op.flags, op.obj_offset) = (BIND_OP_MAP_USERPTR, 0, !0xfff),
            err(Errno::EOVERFLOW),
        ),
        ("region on map", |op| op.prefetch_mem_region_instance = 1, EINVAL),
        ("no such region", |op| (op.op, op.flags, op.prefetch_mem_region_instance) = (BIND_OP_PREFETCH, 0, 3), EINVAL),
        ("autoreset of NULL", |op| op.flags = 0x44, EINVAL),
        ("decompress", |op| op.flags = BindFlags::DECOMPRESS.bits() | 4, err(Errno::EOPNOTSUPP)),
        ("decompress on unmap", |op| (op.op, op.flags) = (BIND_OP_UNMAP, 1 << 7), EINVAL),
        ("address", |op| (op.addr, op.range) = (1, SZ_4K), EINVAL),
        ("range", |op| op.range = 1, EINVAL),
        ("no range", |op| op.range = 0, EINVAL),
        ("beyond the VM", |op| op.addr = SZ_4K, EINVAL),
        ("padding, which upstream does not read", |op| (op.pad, op.pad2, op.reserved) = (1, 1, [1; 3]), OK),
    ];
    for (what, change, want) in cases {
        let mut op = mirror_op();
        change(&mut op);
        assert_eq!(bind(&rig, vm, op), want, "{what}");
    }
    let other = {
        let mut args = VmCreate { flags: 2, ..Default::default() };
        assert_eq!(rig.ioctl(nr::VM_CREATE, &mut args), OK);
        args.vm_id
    };
    assert_eq!(bind(&rig, other, mirror_op()), EINVAL, "only a VM that serves faults can mirror");
    assert_eq!(bind(&rig, 77, mirror_op()), EINVAL);
}

#[test]
fn vm_bind_checks_its_frame_and_its_syncs() {
    let rig = Rig::new();
    let (vm, _) = mirrored(&rig);
    let fence = exec::Sync { sync_type: 2, flags: 1, addr: USER + 64, timeline_value: 7, ..Default::default() };
    let with = |sync: exec::Sync, change: &dyn Fn(&mut VmBind)| {
        rig.put(USER, &[sync, sync]);
        let mut args =
            VmBind { vm_id: vm, num_binds: 1, bind: mirror_op(), num_syncs: 1, syncs: USER, ..Default::default() };
        change(&mut args);
        rig.ioctl(nr::VM_BIND, &mut args)
    };
    assert_eq!(with(fence, &|_| ()), OK);
    assert_eq!(with(exec::Sync { extensions: 4, ..fence }, &|_| ()), OK, "upstream does not read them");
    assert_eq!(with(fence, &|args| args.num_syncs = 2), EINVAL, "one user fence only");
    assert_eq!(with(fence, &|args| args.num_syncs = 1025), EINVAL);
    assert_eq!(with(fence, &|args| args.num_binds = 0), err(Errno::EOPNOTSUPP));
    assert_eq!(with(fence, &|args| args.pad = 1), EINVAL);
    assert_eq!(with(fence, &|args| args.syncs = 8), err(Errno::EFAULT));
    assert_eq!(with(fence, &|args| args.exec_queue_id = 0xffff), ENOENT);
    assert_eq!(with(fence, &|args| args.num_binds = u32::MAX), err(Errno::ENOBUFS));
    assert_eq!(with(exec::Sync { addr: USER + 4, ..fence }, &|_| ()), EINVAL);
    assert_eq!(with(exec::Sync { addr: 64, ..fence }, &|_| ()), err(Errno::EFAULT));
    assert_eq!(with(exec::Sync { flags: 0, ..fence }, &|_| ()), err(Errno::EOPNOTSUPP));
    assert_eq!(with(exec::Sync { flags: 3, ..fence }, &|_| ()), EINVAL);
    assert_eq!(with(exec::Sync { sync_type: 0, addr: 1, ..fence }, &|_| ()), err(Errno::EOPNOTSUPP));
    assert_eq!(with(exec::Sync { sync_type: 0, addr: 1, flags: 0, ..fence }, &|_| ()), ENOENT);
    assert_eq!(with(exec::Sync { sync_type: 9, ..fence }, &|_| ()), EINVAL);
}

#[test]
fn a_binds_fence_is_written_and_found_by_a_wait() {
    let rig = Rig::new();
    let vm = fault_vm(&rig);
    let q = queue(&rig, vm, CLASS_VM_BIND, 0).unwrap();
    let at = USER + 0x100;
    rig.put(USER, &exec::Sync { sync_type: 2, flags: 1, addr: at, timeline_value: 0xdead_beef, ..Default::default() });
    let mut args =
        VmBind { vm_id: vm, num_binds: 1, bind: mirror_op(), num_syncs: 1, syncs: USER, ..Default::default() };
    args.exec_queue_id = q;
    assert_eq!(rig.ioctl(nr::VM_BIND, &mut args), OK);
    let mut wait = WaitUserFence { addr: at, value: 0xdead_beef, mask: !0, timeout: 1 << 40, ..Default::default() };
    assert_eq!(rig.ioctl(nr::WAIT_USER_FENCE, &mut wait), OK);
    assert!(wait.timeout > 0 && wait.timeout <= 1 << 40);
    let other = fault_vm(&rig);
    args.vm_id = other;
    assert_eq!(rig.ioctl(nr::VM_BIND, &mut args), EINVAL, "another VM's queue");
}

#[test]
fn an_array_of_binds_is_all_or_nothing() {
    let rig = Rig::new();
    let vm = fault_vm(&rig);
    let null = VmBindOp { range: SZ_2M, flags: BindFlags::NULL.bits(), pat_index: 3, ..Default::default() };
    let array = |ops: &[VmBindOp]| {
        rig.put(USER, ops);
        let bind = VmBindOp { extensions: USER, ..Default::default() };
        rig.ioctl(nr::VM_BIND, &mut VmBind { vm_id: vm, num_binds: ops.len() as u32, bind, ..Default::default() })
    };
    let flags = BindFlags::IMMEDIATE.bits();
    let userptr = VmBindOp { op: BIND_OP_MAP_USERPTR, range: SZ_4K, pat_index: 3, flags, ..Default::default() };
    assert_eq!(array(&[null, userptr]), err(Errno::EFAULT), "no memory is there");
    let asid = rig.file.vm(vm).unwrap().asid;
    assert_eq!(rig.fault(0, asid, 0, Access::Read), FaultAck::Kill, "the first bind was taken back");
    assert_eq!(array(&[null, VmBindOp { addr: SZ_2M, ..null }]), OK);
    assert_eq!(rig.fault(0, asid, SZ_2M, Access::Write), FaultAck::Replay);
}

#[test]
fn queues_check_their_engines() {
    let rig = Rig::new();
    let vm = fault_vm(&rig);
    let create = |engine: EngineClassInstance, change: &dyn Fn(&mut ExecQueueCreate)| {
        rig.put(USER, &[engine, engine]);
        let mut args =
            ExecQueueCreate { width: 1, num_placements: 1, vm_id: vm, instances: USER, ..Default::default() };
        change(&mut args);
        rig.ioctl(nr::EXEC_QUEUE_CREATE, &mut args)
    };
    let copy = EngineClassInstance { engine_class: CLASS_COPY, ..Default::default() };
    assert_eq!(create(copy, &|_| ()), OK);
    assert_eq!(create(copy, &|args| args.flags = 1), OK);
    assert_eq!(create(copy, &|args| args.flags = 2), EINVAL);
    assert_eq!(create(copy, &|args| args.width = 0), EINVAL);
    assert_eq!(create(copy, &|args| (args.width, args.num_placements) = (9, 9)), EINVAL);
    assert_eq!(create(copy, &|args| args.num_placements = 2), OK);
    assert_eq!(create(copy, &|args| args.width = 2), EINVAL, "one engine twice at a time");
    assert_eq!(create(copy, &|args| args.instances = 8), err(Errno::EFAULT));
    assert_eq!(create(copy, &|args| args.vm_id = 99), ENOENT);
    assert_eq!(create(EngineClassInstance { gt_id: 2, ..copy }, &|_| ()), EINVAL);
    assert_eq!(create(EngineClassInstance { engine_instance: 4, ..copy }, &|_| ()), EINVAL, "the driver's own engine");
    assert_eq!(create(EngineClassInstance { engine_class: 0, ..copy }, &|_| ()), EINVAL);
    assert_eq!(create(EngineClassInstance { engine_class: 6, ..copy }, &|_| ()), EINVAL);
    let bind = EngineClassInstance { engine_class: CLASS_VM_BIND, ..copy };
    assert_eq!(create(bind, &|_| ()), OK);
    assert_eq!(create(bind, &|args| args.num_placements = 2), EINVAL);
    assert_eq!(create(bind, &|args| args.vm_id = 0), ENOENT);
}

#[test]
fn queue_properties_are_checked_along_the_chain() {
    let rig = Rig::new();
    let vm = fault_vm(&rig);
    let with = |next: u64, property: u32, value: u64| {
        rig.put(USER, &EngineClassInstance { engine_class: CLASS_COPY, ..Default::default() });
        let base = UserExtension { next_extension: next, name: 0, pad: 0 };
        rig.put(USER + 64, &ExtSetProperty { base, property, value, ..Default::default() });
        let mut args = ExecQueueCreate { width: 1, num_placements: 1, vm_id: vm, ..Default::default() };
        (args.instances, args.extensions) = (USER, USER + 64);
        rig.ioctl(nr::EXEC_QUEUE_CREATE, &mut args)
    };
    assert_eq!((with(0, 0, 1), rig.memory.reads(USER + 64)), (OK, 1), "what is judged is what was read");
    assert_eq!([0, 1, 2, 3].map(|n| with(0, 0, n)), [OK, OK, err(Errno::EPERM), EINVAL]);
    assert_eq!([0, 1, 10_000_000, 10_000_001].map(|n| with(0, 1, n)), [EINVAL, OK, OK, EINVAL]);
    assert_eq!([0, 1, 5].map(|kind| with(0, 2, kind)), [OK, err(Errno::ENODEV), EINVAL], "protected content");
    assert_eq!((with(0, 3, USER), with(0, 3, 8)), (OK, err(Errno::EFAULT)), "the image for a replay");
    assert_eq!(with(0, 4, 1 << 63), err(Errno::ENODEV), "a group of queues");
    assert_eq!((with(0, 5, 1), with(8, 5, 3), with(8, 5, 1)), (EINVAL, EINVAL, err(Errno::EFAULT)));
    assert_eq!((with(0, 6, 1), with(0, 7, 0)), (err(Errno::EOPNOTSUPP), EINVAL));
    assert_eq!(with(8, 0, 1), err(Errno::EFAULT));
    assert_eq!(with(USER + 64, 0, 1), err(Errno::E2BIG), "a chain that bites its tail");
}

#[test]
fn exec_hands_over_jobs_until_the_queue_is_banned() {
    let rig = Rig::new();
    let (vm, _) = mirrored(&rig);
    let q = queue(&rig, vm, CLASS_COPY, 0).unwrap();
    let binds = queue(&rig, vm, CLASS_VM_BIND, 0).unwrap();
    rig.put(USER, &exec::Sync { sync_type: 2, flags: 1, addr: DATA, timeline_value: 5, ..Default::default() });
    let exec = |id: u32, change: &dyn Fn(&mut Exec)| {
        let mut args = Exec { exec_queue_id: id, num_batch_buffer: 1, address: 0x4000, ..Default::default() };
        (args.num_syncs, args.syncs) = (1, USER);
        change(&mut args);
        rig.ioctl(nr::EXEC, &mut args)
    };
    assert_eq!(exec(q, &|_| ()), OK);
    assert_eq!(exec(q, &|args| args.num_batch_buffer = 0), OK);
    assert_eq!(exec(q, &|args| args.num_batch_buffer = 2), EINVAL);
    assert_eq!(exec(q, &|args| args.pad[0] = 1), EINVAL);
    assert_eq!(exec(q, &|args| args.num_syncs = 1025), EINVAL);
    assert_eq!(exec(q, &|args| args.syncs = 8), err(Errno::EFAULT));
    assert_eq!((exec(binds, &|_| ()), exec(99, &|_| ())), (EINVAL, ENOENT));
    let (context, job) = {
        let state = rig.hw.state.lock();
        assert_eq!(state.jobs.len(), 1);
        state.jobs[0]
    };
    assert_eq!((job.seqno, job.batch, job.fence), (1, Some(GpuVa(0x4000)), Some((GpuVa(DATA), 5))));
    for _ in 1..1000 {
        assert_eq!(exec(q, &|_| ()), OK);
    }
    assert_eq!(exec(q, &|_| ()), err(Errno::EAGAIN));
    rig.device.job_done(context, 1);
    assert_eq!(exec(q, &|_| ()), OK);

    let ban = |rig: &Rig| {
        let mut args = ExecQueueGetProperty { exec_queue_id: q, ..Default::default() };
        assert_eq!(rig.ioctl(nr::EXEC_QUEUE_GET_PROPERTY, &mut args), OK);
        args.value
    };
    assert_eq!(ban(&rig), 0);
    rig.device.context_killed(context, 2);
    assert_eq!((ban(&rig), exec(q, &|_| ())), (1, err(Errno::ECANCELED)));
    let mut wait = WaitUserFence { addr: USER + 0x200, value: 1, mask: !0, timeout: -1, ..Default::default() };
    wait.exec_queue_id = q;
    assert_eq!(rig.ioctl(nr::WAIT_USER_FENCE, &mut wait), err(Errno::EIO));
    let destroy =
        |id| rig.ioctl(nr::EXEC_QUEUE_DESTROY, &mut ExecQueueDestroy { exec_queue_id: id, ..Default::default() });
    assert_eq!((destroy(q), destroy(q), destroy(0xffff)), (OK, ENOENT, ENOENT));
}

#[test]
fn waits_compare_under_the_mask_and_end_in_time() {
    let rig = Rig::new();
    let at = USER + 0x100;
    rig.put(at, &0xff05u64);
    let wait = |op: u16, value: u64, change: &dyn Fn(&mut WaitUserFence)| {
        let mut args = WaitUserFence { addr: at, op, value, mask: 0xff, ..Default::default() };
        change(&mut args);
        (rig.ioctl(nr::WAIT_USER_FENCE, &mut args), args.timeout)
    };
    let holds = |op, value| wait(op, value, &|_| ()).0 == OK;
    assert_eq!([4, 5, 6].map(|n| holds(UFENCE_WAIT_EQ, n)), [false, true, false]);
    assert_eq!([4, 5, 6].map(|n| holds(UFENCE_WAIT_NEQ, n)), [true, false, true]);
    assert_eq!([4, 5, 6].map(|n| holds(UFENCE_WAIT_GT, n)), [true, false, false]);
    assert_eq!([4, 5, 6].map(|n| holds(UFENCE_WAIT_GTE, n)), [true, true, false]);
    assert_eq!([4, 5, 6].map(|n| holds(UFENCE_WAIT_LT, n)), [false, false, true]);
    assert_eq!([4, 5, 6].map(|n| holds(UFENCE_WAIT_LTE, n)), [false, true, true]);
    assert_eq!(wait(0, 9, &|args| args.timeout = 2_000_000), (err(Errno::ETIME), 0));
    assert_eq!(wait(0, 9, &|args| (args.flags, args.timeout) = (1, 1)), (err(Errno::ETIME), 1), "long ago");
    assert_eq!(wait(0, 5, &|args| args.addr = 8).0, err(Errno::EFAULT));
    assert_eq!(wait(0, 5, &|args| args.addr += 4).0, EINVAL);
    assert_eq!(wait(6, 5, &|_| ()).0, EINVAL);
    assert_eq!(wait(0, 5, &|args| args.flags = 2).0, EINVAL);
    assert_eq!(wait(0, 5, &|args| args.exec_queue_id = 3).0, ENOENT);
}

#[test]
fn a_wait_wakes_when_a_job_is_done() {
    let rig = std::sync::Arc::new(Rig::new());
    let (vm, _) = mirrored(&rig);
    let exec_queue_id = queue(&rig, vm, CLASS_COPY, 0).unwrap();
    let context = *rig.hw.state.lock().contexts.keys().next().unwrap();
    let at = USER + 0x100;
    let mut exec = Exec { exec_queue_id, address: DATA, num_batch_buffer: 1, ..Default::default() };
    assert_eq!(rig.ioctl(nr::EXEC, &mut exec), OK);
    let device = {
        let rig = rig.clone();
        sync::spawn("device", move || {
            sync::time::sleep_ns(5_000_000);
            rig.put(at, &7u64);
            rig.device.job_done(context, 1);
        })
    };
    let mut wait = WaitUserFence { addr: at, value: 7, mask: !0, timeout: -1, ..Default::default() };
    assert_eq!(rig.ioctl(nr::WAIT_USER_FENCE, &mut wait), OK);
    device.join();
}

#[test]
fn buffer_objects_check_their_arguments() {
    let rig = Rig::new();
    let vm = fault_vm(&rig);
    let create = |change: &dyn Fn(&mut GemCreate)| {
        let mut args =
            GemCreate { size: SZ_4K, placement: 1, vm_id: vm, cpu_caching: CACHING_WB, ..Default::default() };
        change(&mut args);
        (rig.ioctl(nr::GEM_CREATE, &mut args), args.handle)
    };
    assert_eq!(create(&|_| ()), (OK, 1));
    assert_eq!(create(&|args| (args.placement, args.size, args.cpu_caching) = (2, SZ_64K, CACHING_WC)), (OK, 2));
    let refused: [(Change<GemCreate>, Errno); 15] = [
        (|args| args.size = 100, Errno::EINVAL),
        (|args| args.size = 0, Errno::EINVAL),
        (|args| args.size = u64::MAX << 32, Errno::ENOSPC),
        (|args| args.placement = 0, Errno::EINVAL),
        (|args| args.placement = 8, Errno::EINVAL),
        (|args| (args.placement, args.cpu_caching) = (2, CACHING_WC), Errno::EINVAL),
        (|args| (args.placement, args.size) = (2, SZ_64K), Errno::EINVAL),
        (|args| args.cpu_caching = 0, Errno::EINVAL),
        (|args| args.flags = 16, Errno::EINVAL),
        (|args| args.flags = 4, Errno::EINVAL),
        (|args| args.flags = 8, Errno::EOPNOTSUPP),
        (|args| (args.flags, args.size) = (8, 0), Errno::EINVAL),
        (|args| (args.placement, args.cpu_caching, args.vm_id) = (2, CACHING_WC, 77), Errno::ENOENT),
        (|args| args.vm_id = 77, Errno::ENOENT),
        (|args| args.pad[1] = 1, Errno::EINVAL),
    ];
    for (n, (change, errno)) in refused.into_iter().enumerate() {
        assert_eq!(create(&change).0, err(errno), "case {n}");
    }
    let offset = |handle, flags| {
        let mut args = GemMmapOffset { handle, flags, ..Default::default() };
        rig.ioctl(nr::GEM_MMAP_OFFSET, &mut args).map(|_| args.offset)
    };
    assert_eq!((offset(1, 0), offset(2, 0)), (Ok(0x1_0000_0000), Ok(0x1_0000_1000)));
    assert_eq!((offset(0, 1), offset(1, 1), offset(9, 0)), (Ok(0x50000), Err(Errno::EINVAL), Err(Errno::ENOENT)));
    let close = |handle| rig.ioctl(nr::GEM_CLOSE, &mut drm::GemClose { handle, pad: 0 });
    assert_eq!((close(1), close(1), close(0)), (OK, EINVAL, EINVAL));
    assert_eq!(create(&|_| ()), (OK, 1), "the lowest free handle");
    assert_eq!(offset(1, 0), Ok(0x1_0000_0000), "and the lowest free place in the file");
    let mmap = |offset, bytes| rig.file.mmap(offset, bytes).map(|_| ());
    assert_eq!((mmap(0x1_0000_0000, SZ_4K), mmap(0x1_0000_1000, SZ_64K)), (Ok(()), Ok(())));
    let bad = [(0x1_0000_0000, 2 * SZ_4K), (0x1_0000_2000, SZ_4K), (0, SZ_4K), (0x2_0000_0000, SZ_4K)];
    assert_eq!(bad.map(|(offset, bytes)| mmap(offset, bytes)), [Err(Errno::EINVAL); 4]);
    let other = rig.device.open();
    let theirs = |bytes| other.mmap(0x1_0000_1000, bytes).map(|_| ());
    assert_eq!((theirs(SZ_64K), theirs(SZ_1G)), (Err(Errno::EACCES), Err(Errno::EINVAL)), "a BO of another file's");
    other.import_bo(&rig.file.bo(2).unwrap()).unwrap();
    assert_eq!((theirs(SZ_64K), close(2)), (Ok(()), OK), "one offset for all files");
    assert_eq!((theirs(SZ_4K), mmap(0x1_0000_1000, SZ_4K)), (Ok(()), Err(Errno::EACCES)), "it lives");
}

#[test]
fn no_bytes_make_the_driver_panic() {
    let rig = Rig::new();
    let (vm, _) = mirrored(&rig);
    queue(&rig, vm, CLASS_COPY, 0).unwrap();
    let mut state = 7u64;
    let mut random = move || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        state >> 11
    };
    for _ in 0..5_000 {
        let number = if random() % 8 == 0 { random() as u8 } else { 0x40 + (random() % 16) as u8 };
        let words: [u64; 20] = std::array::from_fn(|_| match random() % 8 {
            0..=3 => 0,
            4 => 1 + random() % 4,
            5 => USER + random() % 64,
            6 => DATA + random() % 4 * SZ_4K,
            _ => random(),
        });
        // A wait without an end would be one.
        if number == nr::number(nr::WAIT_USER_FENCE) {
            continue;
        }
        rig.put(USER + 0x4000, &words);
        let _ = rig.file.ioctl(nr::request(3, number, 8 + random() as usize % 150), HostVa(USER + 0x4000));
    }
}
