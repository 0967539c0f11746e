//! How a queue ends, and what ends with it.

use super::*;
use crate::Rules;
use ::sync::sim::{Limits, Outcome, Random, run};
use std::sync::Arc;
use xe_spec::fault::{ContextId, EngineClass, EngineId};
use xe_spec::platform::BATTLEMAGE;
use xe_spec::share::{Priority, Share};

/// Longer than any test takes.
const LONG_NS: i64 = 20_000_000_000;

fn destroy(rig: &Rig, exec_queue_id: u32) -> Result<u32, Errno> {
    rig.ioctl(nr::EXEC_QUEUE_DESTROY, &mut ExecQueueDestroy { exec_queue_id, ..Default::default() })
}

/// The answer to a wait for a fence that is never written, on a new queue of class `class` that `end` ends, given
/// its name.
fn wait_until(class: u16, end: fn(&Rig, u32)) -> Result<u32, Errno> {
    let rig = Arc::new(Rig::new());
    let (vm, _) = mirrored(&rig);
    let exec_queue_id = queue(&rig, vm, class, 0).unwrap();
    let known = rig.file.queue(exec_queue_id).unwrap();
    let users = Arc::strong_count(&known);
    let other = {
        let rig = rig.clone();
        sync::spawn("end", move || {
            while Arc::strong_count(&known) == users {
                sync::time::sleep_ns(1_000_000);
            }
            // The wait knows the queue; give it time to sleep.
            sync::time::sleep_ns(5_000_000);
            end(&rig, exec_queue_id);
        })
    };
    let at = USER + 0x100;
    let wait = WaitUserFence { addr: at, value: 7, mask: !0, timeout: LONG_NS, exec_queue_id, ..Default::default() };
    // Not where the other thread's arguments are.
    const ARGS: u64 = USER + 0x4000;
    rig.put(ARGS, &wait);
    let reply = rig.file.ioctl(nr::WAIT_USER_FENCE, HostVa(ARGS));
    other.join();
    reply
}

#[test]
fn a_wait_ends_when_its_context_is_killed() {
    let kill = |rig: &Rig, _| {
        let context = *rig.hw.state.lock().contexts.keys().next().unwrap();
        rig.device.context_killed(context, 1);
    };
    assert_eq!(wait_until(CLASS_COPY, kill), err(Errno::EIO));
}

#[test]
fn a_wait_ends_with_its_queue() {
    for class in [CLASS_COPY, CLASS_VM_BIND] {
        assert_eq!(wait_until(class, |rig, id| assert_eq!(destroy(rig, id), OK)), err(Errno::EIO));
        assert_eq!(wait_until(class, |rig, _| rig.file.close()), err(Errno::EIO));
    }
}

/// A waiter looks at its memory when a job of its queue ends, or somebody writes its fence; for nobody else's jobs.
#[test]
fn a_wait_is_woken_by_what_concerns_it() {
    let report = run(&mut Random::new(3), Limits::default(), || {
        let rig = Arc::new(Rig::new());
        let (vm, _) = mirrored(&rig);
        let [own, other] = [0, 1].map(|tile| queue(&rig, vm, CLASS_COPY, tile).unwrap());
        let contexts: Vec<_> = rig.hw.state.lock().contexts.keys().copied().collect();
        let at = USER + 0x100;
        let exec = |exec_queue_id, fence: u64| {
            let sync =
                Sync { sync_type: SYNC_TYPE_USER_FENCE, flags: SYNC_FLAG_SIGNAL, addr: fence, ..Default::default() };
            rig.put(USER + 0x200, &sync);
            let mut args = Exec { exec_queue_id, num_syncs: 1, syncs: USER + 0x200, ..Default::default() };
            (args.address, args.num_batch_buffer) = (DATA, 1);
            assert_eq!(rig.ioctl(nr::EXEC, &mut args), OK);
        };
        (0..4).for_each(|_| exec(other, USER + 0x300));
        exec(other, at);
        exec(own, USER + 0x400);
        let waiter = sync::spawn("waiter", {
            let rig = rig.clone();
            move || {
                const ARGS: u64 = USER + 0x4000;
                rig.put(
                    ARGS,
                    &WaitUserFence {
                        addr: at,
                        value: 7,
                        mask: !0,
                        timeout: -1,
                        exec_queue_id: own,
                        ..Default::default()
                    },
                );
                assert_eq!(rig.file.ioctl(nr::WAIT_USER_FENCE, HostVa(ARGS)), OK);
            }
        });
        // Time passes when nobody can run: the waiter sleeps.
        let looks = || {
            sync::time::sleep_ns(1);
            rig.memory.reads(at)
        };
        assert_eq!(looks(), 1);
        (1..=4).for_each(|seqno| rig.device.job_done(contexts[1], seqno));
        assert_eq!(looks(), 1, "jobs of another queue");
        rig.device.job_done(contexts[1], 5);
        assert_eq!(looks(), 2, "its fence was written by another queue");
        rig.put(at, &7u64);
        rig.device.job_done(contexts[0], 1);
        assert_eq!(looks(), 3, "a job of its queue");
        waiter.join();
        rig.file.close();
    });
    assert_eq!(report.outcome, Outcome::Finished);
}

#[test]
fn a_fault_that_waits_ends_with_its_queue() {
    let rig = Rig::new();
    let (vm, asid) = mirrored(&rig);
    let id = queue(&rig, vm, CLASS_COPY, 0).unwrap();
    let context = *rig.hw.state.lock().contexts.keys().next().unwrap();
    rig.device.page_fault(crate::testing::fault_record(asid.0, context.0));
    assert_eq!(destroy(&rig, id), OK);
    assert_eq!((rig.service_faults(), rig.hw.state.lock().acks.len()), (0, 0), "nobody is left to answer");
}

#[test]
fn a_vm_whose_queues_are_preempted_outlives_them() {
    let rig = Rig::new();
    let vm_destroy = |vm_id| rig.ioctl(nr::VM_DESTROY, &mut VmDestroy { vm_id, ..Default::default() });
    let with_queue = |flags: u32, class: u16| {
        let mut args = VmCreate { flags, ..Default::default() };
        assert_eq!(rig.ioctl(nr::VM_CREATE, &mut args), OK);
        (args.vm_id, queue(&rig, args.vm_id, class, 0).unwrap())
    };
    let (fault, plain, other) = (6, 0, with_queue(2, CLASS_COPY).0);
    for (flags, class) in [(fault, CLASS_COPY), (plain, CLASS_COPY), (2, CLASS_VM_BIND)] {
        assert_eq!(vm_destroy(with_queue(flags, class).0), OK, "flags {flags}, class {class}");
    }
    let (vm, id) = with_queue(2, CLASS_COPY);
    assert_eq!(vm_destroy(vm), err(Errno::EBUSY));
    assert_eq!((destroy(&rig, id), vm_destroy(vm), vm_destroy(vm)), (OK, OK, ENOENT));
    assert_eq!(vm_destroy(other), err(Errno::EBUSY), "each by its own queues");
}

#[test]
fn a_queue_asks_for_its_vm_before_it_reads_its_properties() {
    let rig = Rig::new();
    for engine_class in [CLASS_COPY, CLASS_VM_BIND] {
        rig.put(USER, &EngineClassInstance { engine_class, ..Default::default() });
        let with = |vm_id| {
            let mut args = ExecQueueCreate { width: 1, num_placements: 1, vm_id, extensions: 8, ..Default::default() };
            args.instances = USER;
            rig.ioctl(nr::EXEC_QUEUE_CREATE, &mut args)
        };
        assert_eq!((with(99), with(fault_vm(&rig))), (ENOENT, err(Errno::EFAULT)));
    }
}

#[test]
fn placement_priority_and_timeslice_go_to_the_hardware() {
    let rig = Rig::new();
    let vm_id = fault_vm(&rig);
    let instance =
        |engine_instance| EngineClassInstance { engine_class: CLASS_COPY, engine_instance, gt_id: 1, pad: 0 };
    rig.put(USER, &[instance(1), instance(3)]);
    let set = |next_extension, property, value| {
        let base = UserExtension { next_extension, name: 0, pad: 0 };
        ExtSetProperty { base, property, value, ..Default::default() }
    };
    rig.put(USER + 64, &set(USER + 128, QUEUE_PROPERTY_PRIORITY, 0));
    rig.put(USER + 128, &set(0, QUEUE_PROPERTY_TIMESLICE, 77));
    let create = |num_placements, extensions| {
        let mut args = ExecQueueCreate { width: 1, num_placements, vm_id, ..Default::default() };
        (args.instances, args.extensions) = (USER, extensions);
        rig.ioctl(nr::EXEC_QUEUE_CREATE, &mut args)
    };
    let given = |n: u32| rig.hw.state.lock().contexts[&ContextId(n)].clone();
    let engine = |instance| EngineId { tile: TileId(1), class: EngineClass::Copy, instance };
    assert_eq!((create(2, USER + 64), create(1, 0)), (OK, OK));
    assert_eq!(given(1), (vec![engine(1), engine(3)], Share { priority: Priority::Low, timeslice_us: 77 }));
    assert_eq!(given(2), (vec![engine(1)], Share { priority: Priority::Normal, timeslice_us: 1000 }));
    // High is for those who may raise their own priority.
    rig.put(USER + 64, &set(0, QUEUE_PROPERTY_PRIORITY, 2));
    assert_eq!(create(1, USER + 64), err(Errno::EPERM));
    rig.device.ask_for_priority(|| true);
    assert_eq!((create(1, USER + 64), given(3).1.priority), (OK, Priority::High));
}

#[test]
fn a_file_tells_what_its_queues_and_bos_use() {
    let rig = Rig::new();
    let vm = fault_vm(&rig);
    let id = queue(&rig, vm, CLASS_COMPUTE, 0).unwrap();
    let create = |size, placement| {
        let mut args = GemCreate { size, placement, cpu_caching: CACHING_WC, ..Default::default() };
        assert_eq!(rig.ioctl(nr::GEM_CREATE, &mut args), OK);
        args.handle
    };
    create(SZ_4K, 1);
    let in_vram = create(SZ_64K, 4);
    let context = *rig.hw.state.lock().contexts.last_key_value().expect("the queue's").0;
    rig.hw.state.lock().ran_ns.insert(context, 2_000_000_000);
    let cycles = || rig.file.usage().engines.iter().map(|of| (of.name, of.cycles, of.capacity)).collect::<Vec<_>>();
    let used = [("bcs", 0, 8), ("ccs", 38_400_000, 4)];
    assert_eq!(cycles(), used);
    assert_eq!(destroy(&rig, id), OK);
    assert_eq!(cycles(), used, "what ended is not forgotten");
    let total = || rig.file.usage().memory.iter().map(|of| (of.name.clone(), of.total)).collect::<Vec<_>>();
    let names =
        |sizes: [u64; 4]| ["system", "gtt", "vram0", "vram1"].map(String::from).into_iter().zip(sizes).collect();
    let expected: Vec<_> = names([0, SZ_4K, 0, SZ_64K]);
    assert_eq!(total(), expected);
    assert_eq!(rig.ioctl(nr::GEM_CLOSE, &mut drm::GemClose { handle: in_vram, pad: 0 }), OK);
    let expected: Vec<_> = names([0, SZ_4K, 0, 0]);
    assert_eq!(total(), expected);
    assert_ne!(rig.device.open().usage().client, rig.file.usage().client);
}

#[test]
fn no_property_of_a_queue_can_be_changed() {
    let rig = Rig::new();
    let vm = fault_vm(&rig);
    let id = queue(&rig, vm, CLASS_COPY, 0).unwrap();
    let set = |exec_queue_id, property, reserved| {
        let mut args = ExecQueueSetProperty { exec_queue_id, property, ..Default::default() };
        args.reserved[1] = reserved;
        rig.ioctl(nr::EXEC_QUEUE_SET_PROPERTY, &mut args)
    };
    assert_eq!([set(id, 5, 0), set(99, 5, 0), set(99, 0, 0), set(99, 5, 1)], [EINVAL, ENOENT, EINVAL, EINVAL]);
}

#[test]
fn a_chain_has_up_to_sixteen_extensions() {
    let rig = Rig::new();
    let vm = fault_vm(&rig);
    let create = |count: u64| {
        rig.put(USER, &EngineClassInstance { engine_class: CLASS_COPY, pad: 1, ..Default::default() });
        for n in 1..=count {
            let next_extension = if n < count { USER + 64 * (n + 1) } else { 0 };
            let base = UserExtension { next_extension, ..Default::default() };
            rig.put(USER + 64 * n, &ExtSetProperty { base, value: 1, reserved: [1; 2], ..Default::default() });
        }
        let mut args = ExecQueueCreate { width: 1, num_placements: 1, vm_id: vm, ..Default::default() };
        (args.instances, args.extensions) = (USER, USER + 64);
        rig.ioctl(nr::EXEC_QUEUE_CREATE, &mut args)
    };
    assert_eq!([15, 16, 17].map(create), [OK, OK, err(Errno::E2BIG)]);
}

#[test]
fn engines_side_by_side_are_neighbours_and_refused_all_the_same() {
    let rig = Rig::new();
    let vm_id = fault_vm(&rig);
    let create = |instances: &[u16], width| {
        let engine =
            |&engine_instance| EngineClassInstance { engine_class: CLASS_COPY, engine_instance, ..Default::default() };
        rig.put(USER, instances.iter().map(engine).collect::<Vec<_>>().as_slice());
        let num_placements = instances.len() as u16 / width;
        let mut args = ExecQueueCreate { width, num_placements, vm_id, instances: USER, ..Default::default() };
        rig.ioctl(nr::EXEC_QUEUE_CREATE, &mut args)
    };
    let not_here = err(Errno::EOPNOTSUPP);
    assert_eq!([create(&[0, 1], 2), create(&[0, 0], 2), create(&[1, 0], 2)], [not_here, EINVAL, EINVAL]);
    assert_eq!([create(&[0, 1, 2, 3], 2), create(&[0, 1, 2, 2], 2), create(&[0, 0], 1)], [not_here, EINVAL, OK]);
}

#[test]
fn a_render_engine_may_do_without_a_fix_of_its_state_cache() {
    let rig = Rig::with(&BATTLEMAGE, Rules::default());
    let vm_id = fault_vm(&rig);
    for (engine_class, want) in [(CLASS_RENDER, OK), (CLASS_COMPUTE, err(Errno::EOPNOTSUPP))] {
        rig.put(USER, &EngineClassInstance { engine_class, ..Default::default() });
        rig.put(USER + 64, &ExtSetProperty { property: 6, value: 1, ..Default::default() });
        let mut args = ExecQueueCreate { width: 1, num_placements: 1, vm_id, instances: USER, ..Default::default() };
        args.extensions = USER + 64;
        assert_eq!(rig.ioctl(nr::EXEC_QUEUE_CREATE, &mut args), want);
    }
}
