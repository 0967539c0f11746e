//! EXEC's fences: what a job waits for, what follows it, and how it ends that does not end by itself.

use super::*;
use crate::ClassSchedule;
use ::sync::sim::{Limits, Outcome, Random, run};
use std::sync::Arc;
use xe_spec::fault::{ContextId, EngineClass};
use xe_uapi::syncobj::*;

const SYNCS: u64 = USER + 0x200;
/// How long a job may run.
const TIMEOUT_NS: u64 = 5_000_000_000;

fn vm(rig: &Rig, flags: u32) -> u32 {
    let mut args = VmCreate { flags, ..Default::default() };
    assert_eq!(rig.ioctl(nr::VM_CREATE, &mut args), OK);
    args.vm_id
}

/// A VM with dma-fences, two queues of it, and their contexts.
fn two_queues(rig: &Rig) -> ([u32; 2], [ContextId; 2]) {
    let vm = vm(rig, 0);
    let queues = [0, 1].map(|tile| queue(rig, vm, CLASS_COPY, tile).unwrap());
    let contexts: Vec<_> = rig.hw.state.lock().contexts.keys().copied().collect();
    (queues, [contexts[0], contexts[1]])
}

fn syncobj(rig: &Rig, flags: u32) -> u32 {
    let mut args = SyncobjCreate { flags, ..Default::default() };
    assert_eq!(rig.ioctl(nr::SYNCOBJ_CREATE, &mut args), OK);
    args.handle
}

fn wait_for(handle: u32) -> Sync {
    Sync { addr: handle.into(), ..Default::default() }
}

fn signals(handle: u32) -> Sync {
    Sync { flags: SYNC_FLAG_SIGNAL, ..wait_for(handle) }
}

fn point(sync: Sync, timeline_value: u64) -> Sync {
    Sync { sync_type: SYNC_TYPE_TIMELINE_SYNCOBJ, timeline_value, ..sync }
}

fn user(addr: u64) -> Sync {
    Sync { sync_type: SYNC_TYPE_USER_FENCE, flags: SYNC_FLAG_SIGNAL, addr, ..Default::default() }
}

fn exec(rig: &Rig, exec_queue_id: u32, batches: u16, syncs: &[Sync]) -> Result<u32, Errno> {
    (0..).zip(syncs).for_each(|(n, sync): (u64, _)| rig.put(SYNCS + 48 * n, sync));
    let num_syncs = syncs.len() as u32;
    let mut args = Exec { exec_queue_id, num_syncs, syncs: SYNCS, address: DATA, ..Default::default() };
    args.num_batch_buffer = batches;
    rig.ioctl(nr::EXEC, &mut args)
}

/// Whether a syncobj's fence is over; `None`: it has none.
fn is_over(rig: &Rig, handle: u32) -> Option<bool> {
    rig.file.syncobj(handle).unwrap().find(0).ok().map(|fence| fence.is_over())
}

fn result(rig: &Rig, handle: u32) -> Option<Result<(), Errno>> {
    rig.file.syncobj(handle).unwrap().find(0).unwrap().result()
}

/// Jobs that a context's ring was given.
fn ring(rig: &Rig, context: ContextId) -> usize {
    rig.hw.state.lock().jobs.iter().filter(|(own, _)| *own == context).count()
}

/// Runs a scene on threads of the checker.
fn checked(scene: fn()) {
    for seed in 0..10 {
        let report = run(&mut Random::new(seed), Limits::default(), scene);
        assert_eq!(report.outcome, Outcome::Finished, "seed {seed}");
    }
}

#[test]
fn out_syncs_follow_the_job() {
    let rig = Rig::new();
    let ([queue, _], [context, _]) = two_queues(&rig);
    let (plain, line) = (syncobj(&rig, 0), syncobj(&rig, 0));
    let both = [signals(plain), point(signals(line), 7)];
    assert_eq!(exec(&rig, queue, 1, &both), OK);
    let line_at = |point| rig.file.syncobj(line).unwrap().find(point).map(|fence| fence.is_over());
    assert_eq!((is_over(&rig, plain), line_at(7), line_at(8)), (Some(false), Ok(false), Err(Errno::EINVAL)));
    // Without a batch the syncs follow the last job.
    let last = syncobj(&rig, 0);
    assert_eq!((exec(&rig, queue, 0, &[signals(last)]), is_over(&rig, last)), (OK, Some(false)));
    rig.device.job_done(context, 1);
    assert_eq!([plain, line, last].map(|handle| result(&rig, handle)), [Some(Ok(())); 3]);
    assert_eq!(exec(&rig, queue, 0, &[wait_for(plain), signals(last)]), err(Errno::EOPNOTSUPP));
    rig.device.stop_jobs();
}

#[test]
fn a_job_reaches_the_ring_when_its_in_fences_are_over() {
    checked(|| {
        let rig = Rig::new();
        let ([first, second], [one, two]) = two_queues(&rig);
        let (between, after) = (syncobj(&rig, 0), syncobj(&rig, 0));
        assert_eq!(exec(&rig, first, 1, &[signals(between)]), OK);
        assert_eq!(exec(&rig, second, 1, &[wait_for(between), signals(after)]), OK);
        assert_eq!(exec(&rig, second, 1, &[]), OK, "behind the other");
        sync::time::sleep_ns(1000);
        assert_eq!((ring(&rig, one), ring(&rig, two), is_over(&rig, after)), (1, 0, Some(false)));
        rig.device.job_done(one, 1);
        sync::time::sleep_ns(1000);
        assert_eq!((ring(&rig, two), is_over(&rig, after)), (2, Some(false)));
        rig.device.job_done(two, 2);
        assert_eq!(result(&rig, after), Some(Ok(())));
        rig.file.close();
        rig.device.stop_jobs();
    });
}

#[test]
fn a_banned_queue_cancels_what_is_to_come() {
    checked(|| {
        let rig = Rig::new();
        let ([first, second], [one, two]) = two_queues(&rig);
        let all = [0; 4].map(|_| syncobj(&rig, 0));
        assert_eq!(exec(&rig, first, 1, &[signals(all[0])]), OK);
        assert_eq!(exec(&rig, second, 1, &[signals(all[1])]), OK);
        assert_eq!(exec(&rig, second, 1, &[wait_for(all[0]), signals(all[2])]), OK);
        rig.device.context_killed(two, 1);
        assert_eq!([all[1], all[2]].map(|handle| result(&rig, handle)), [Some(Err(Errno::ECANCELED)); 2]);
        assert_eq!(exec(&rig, second, 1, &[signals(all[3])]), err(Errno::ECANCELED));
        assert_eq!((is_over(&rig, all[3]), is_over(&rig, all[0])), (None, Some(false)));
        rig.device.job_done(one, 1);
        sync::time::sleep_ns(1000);
        assert_eq!((ring(&rig, two), result(&rig, all[0])), (1, Some(Ok(()))));
        rig.file.close();
        rig.device.stop_jobs();
    });
}

#[test]
fn the_end_of_a_queue_ends_its_fences() {
    checked(|| {
        let rig = Rig::new();
        let ([first, second], _) = two_queues(&rig);
        let (own, waits) = (syncobj(&rig, 0), syncobj(&rig, 0));
        assert_eq!(exec(&rig, first, 1, &[signals(own)]), OK);
        assert_eq!(exec(&rig, second, 1, &[wait_for(own), signals(waits)]), OK);
        for (id, handle) in [(second, waits), (first, own)] {
            let mut args = ExecQueueDestroy { exec_queue_id: id, ..Default::default() };
            assert_eq!(rig.ioctl(nr::EXEC_QUEUE_DESTROY, &mut args), OK);
            assert_eq!(result(&rig, handle), Some(Err(Errno::ECANCELED)));
        }
        rig.device.stop_jobs();
    });
}

#[test]
fn a_job_that_runs_too_long_is_killed_and_others_are_not() {
    checked(|| {
        let rig = Rig::new();
        let ([first, second], [one, two]) = two_queues(&rig);
        let long_running = queue(&rig, vm(&rig, 2), CLASS_COPY, 0).unwrap();
        let (hung, behind, quick) = (syncobj(&rig, 0), syncobj(&rig, 0), syncobj(&rig, 0));
        assert_eq!(exec(&rig, long_running, 1, &[]), OK);
        assert_eq!(exec(&rig, second, 1, &[signals(quick)]), OK);
        rig.device.job_done(two, 1);
        assert_eq!(exec(&rig, first, 1, &[signals(hung)]), OK);
        assert_eq!(exec(&rig, first, 1, &[signals(behind)]), OK);
        sync::time::sleep_ns(TIMEOUT_NS - 1_000_000);
        assert_eq!(is_over(&rig, hung), Some(false));
        rig.hw.state.lock().ran_ns.insert(one, TIMEOUT_NS);
        sync::time::sleep_ns(2_000_000);
        assert_eq!(
            [hung, behind, quick].map(|handle| result(&rig, handle).unwrap()),
            [Err(Errno::ETIME), Err(Errno::ECANCELED), Ok(())]
        );
        sync::time::sleep_ns(10 * TIMEOUT_NS);
        let is_banned = |id| rig.file.queue(id).unwrap().is_banned();
        assert_eq!([first, second, long_running].map(is_banned), [true, false, false]);
        assert_eq!((exec(&rig, first, 1, &[]), exec(&rig, second, 1, &[])), (err(Errno::ECANCELED), OK));
        rig.file.close();
        rig.device.stop_jobs();
    });
}

/// Under the checker, which watches the order of locks.
#[test]
fn a_bind_without_work_writes_its_user_fence() {
    checked(|| {
        let rig = Rig::new();
        let flags = BindFlags::NULL.bits();
        let null = VmBindOp { range: SZ_2M, flags, pat_index: 3, ..Default::default() };
        rig.put(SYNCS, &Sync { timeline_value: 7, ..user(USER) });
        let vm_id = vm(&rig, 0);
        let bind = VmBind { vm_id, num_binds: 1, bind: null, num_syncs: 1, syncs: SYNCS, ..Default::default() };
        assert_eq!(rig.ioctl(nr::VM_BIND, &mut { bind }), OK);
        assert_eq!(rig.get::<u64>(USER), 7);
    });
}

#[test]
fn a_queue_has_what_its_class_had_when_it_was_made() {
    checked(|| {
        let rig = Rig::new();
        let vm = vm(&rig, 0);
        let old = queue(&rig, vm, CLASS_COPY, 0).unwrap();
        let (job_timeout_ms, timeslice_us, timeslice_max_us) = (100, 77, 500);
        let schedule = ClassSchedule { job_timeout_ms, timeslice_us, timeslice_max_us, ..Default::default() };
        rig.device.set_class_schedule(TileId(0), EngineClass::Copy, schedule);
        let new = queue(&rig, vm, CLASS_COPY, 0).unwrap();
        let elsewhere = queue(&rig, vm, CLASS_COPY, 1).unwrap();
        let slices: Vec<u64> = rig.hw.state.lock().contexts.values().map(|(_, share)| share.timeslice_us).collect();
        assert_eq!(slices, [1000, 77, 1000]);
        let fences = [0; 3].map(|_| syncobj(&rig, 0));
        for (id, handle) in [old, new, elsewhere].into_iter().zip(fences) {
            assert_eq!(exec(&rig, id, 1, &[signals(handle)]), OK);
        }
        let ran: Vec<_> = rig.hw.state.lock().contexts.keys().map(|context| (*context, 200_000_000)).collect();
        rig.hw.state.lock().ran_ns.extend(ran);
        sync::time::sleep_ns(200_000_000);
        assert_eq!(fences.map(|handle| result(&rig, handle)), [None, Some(Err(Errno::ETIME)), None]);
        for (value, want) in [(500, OK), (501, EINVAL)] {
            rig.put(USER, &EngineClassInstance { engine_class: CLASS_COPY, ..Default::default() });
            rig.put(SYNCS, &ExtSetProperty { property: QUEUE_PROPERTY_TIMESLICE, value, ..Default::default() });
            let one = ExecQueueCreate { width: 1, num_placements: 1, vm_id: vm, instances: USER, ..Default::default() };
            assert_eq!(rig.ioctl(nr::EXEC_QUEUE_CREATE, &mut ExecQueueCreate { extensions: SYNCS, ..one }), want);
        }
        rig.file.close();
        rig.device.stop_jobs();
    });
}

#[test]
fn a_reset_kills_what_had_begun_on_its_gt() {
    checked(|| {
        let rig = Rig::new();
        let ([first, second], [one, two]) = two_queues(&rig);
        let waiting = queue(&rig, vm(&rig, 0), CLASS_COPY, 0).unwrap();
        let (long, idle) = (vm(&rig, 6), vm(&rig, 6));
        let [long, idle] = [long, idle].map(|vm| queue(&rig, vm, CLASS_COPY, 0).unwrap());
        let fences = [0; 3].map(|_| syncobj(&rig, 0));
        for (id, handle) in [first, second, waiting].into_iter().zip(fences) {
            assert_eq!(exec(&rig, id, 1, &[signals(handle)]), OK);
        }
        assert_eq!(exec(&rig, long, 1, &[]), OK);
        rig.hw.state.lock().ran_ns.extend([(one, 5), (two, 5)]);
        rig.device.reset_gt(TileId(0));
        assert_eq!(fences.map(|handle| result(&rig, handle)), [Some(Err(Errno::ECANCELED)), None, None]);
        let is_banned = |id| rig.file.queue(id).unwrap().is_banned();
        assert_eq!([first, second, waiting, long, idle].map(is_banned), [true, false, false, true, false]);
        rig.device.job_done(two, 1);
        assert_eq!(result(&rig, fences[1]), Some(Ok(())));
        rig.file.close();
        rig.device.stop_jobs();
    });
}

#[test]
fn jobs_that_wait_are_counted() {
    checked(|| {
        let rig = Rig::new();
        let ([first, second], [one, _]) = two_queues(&rig);
        let gate = syncobj(&rig, 0);
        assert_eq!(exec(&rig, first, 1, &[signals(gate)]), OK);
        (0..1000).for_each(|_| assert_eq!(exec(&rig, second, 1, &[wait_for(gate)]), OK));
        assert_eq!(exec(&rig, second, 1, &[]), err(Errno::EAGAIN));
        rig.device.job_done(one, 1);
        rig.file.close();
        rig.device.stop_jobs();
    });
}

#[test]
fn a_wrong_sync_gets_upstreams_errno() {
    let rig = Rig::new();
    let ([queue_id, _], [context, _]) = two_queues(&rig);
    let long_running = queue(&rig, vm(&rig, 2), CLASS_COPY, 0).unwrap();
    let (empty, over) = (syncobj(&rig, 0), syncobj(&rig, CREATE_SIGNALED));
    let change = |sync: Sync, with: Change<Sync>| {
        let mut sync = sync;
        with(&mut sync);
        sync
    };
    let cases: &[(Sync, Errno)] = &[
        (change(wait_for(over), |sync| sync.flags = 2), Errno::EINVAL),
        (change(wait_for(over), |sync| sync.reserved[1] = 1), Errno::EINVAL),
        (change(wait_for(over), |sync| sync.sync_type = 3), Errno::EINVAL),
        (change(wait_for(over), |sync| sync.addr |= 1 << 32), Errno::EINVAL),
        (wait_for(77), Errno::ENOENT),
        (signals(77), Errno::ENOENT),
        (wait_for(empty), Errno::EINVAL),
        (point(wait_for(over), 0), Errno::EINVAL),
        (point(signals(over), 0), Errno::EINVAL),
        (point(wait_for(over), 1), Errno::EINVAL),
        (change(user(DATA), |sync| sync.flags = 0), Errno::EOPNOTSUPP),
        (user(DATA + 4), Errno::EINVAL),
    ];
    for (sync, errno) in cases {
        assert_eq!(exec(&rig, queue_id, 1, &[wait_for(over), *sync]), err(*errno), "{sync:?}");
    }
    for sync in [signals(empty), signals(77), point(signals(empty), 0)] {
        assert_eq!(exec(&rig, long_running, 1, &[sync]), err(Errno::EOPNOTSUPP), "{sync:?}");
    }
    assert_eq!(exec(&rig, long_running, 1, &[wait_for(over), user(DATA)]), OK);
    assert_eq!(exec(&rig, queue_id, 1, &[user(DATA), user(DATA)]), EINVAL);
    assert_eq!(exec(&rig, queue_id, 1, &[user(DATA), user(DATA), wait_for(77)]), ENOENT);
    assert_eq!((ring(&rig, context), is_over(&rig, empty)), (0, None), "nothing was done");
    rig.device.stop_jobs();
}

/// Two submitters, a device that reports jobs done, and somebody who ends things: every fence is over in the end.
#[test]
fn fences_end_whatever_ends_their_jobs() {
    for seed in 0..300 {
        let report = run(&mut Random::new(seed), Limits::default(), move || {
            let rig = Arc::new(Rig::new());
            let (queues, contexts) = two_queues(&rig);
            let fences = [0; 6].map(|_| syncobj(&rig, 0));
            // Arguments of each thread lie elsewhere.
            let submit = |own: usize| {
                let rig = rig.clone();
                sync::spawn("submitter", move || {
                    let base = USER + 0x10_0000 * (1 + own as u64);
                    for n in 0..3 {
                        let waits: Vec<_> = if n > 0 { vec![wait_for(fences[3 * (1 - own) + n - 1])] } else { vec![] };
                        let syncs: Vec<_> = waits.into_iter().chain([signals(fences[3 * own + n])]).collect();
                        (0..).zip(&syncs).for_each(|(at, sync): (u64, _)| rig.put(base + 48 * at, sync));
                        let args = Exec {
                            exec_queue_id: queues[own],
                            num_syncs: syncs.len() as u32,
                            syncs: base,
                            address: DATA,
                            num_batch_buffer: 1,
                            ..Default::default()
                        };
                        rig.put(base + 0x1000, &args);
                        // Refused where its in-fence is not there yet, or its queue is gone.
                        let _ = rig.file.ioctl(nr::EXEC, HostVa(base + 0x1000));
                    }
                })
            };
            let submitters = [submit(0), submit(1)];
            let device = {
                let rig = rig.clone();
                sync::spawn("device", move || {
                    for seqno in 1..=3 {
                        contexts.iter().filter(|context| ring(&rig, **context) as u64 >= seqno).for_each(|context| {
                            rig.device.job_done(*context, seqno);
                        });
                        sync::yield_now();
                    }
                })
            };
            match seed % 3 {
                0 => rig.device.context_killed(contexts[0], 1),
                1 => {
                    rig.hw.state.lock().ran_ns.insert(contexts[0], 5);
                    rig.device.reset_gt(TileId(0));
                }
                _ => {
                    let gone = rig.file.names.lock().queues.remove(queues[0]);
                    gone.expect("the queue").close();
                }
            }
            submitters.into_iter().chain([device]).for_each(sync::JoinHandle::join);
            let left = rig.file.names.lock().queues.take_all();
            left.iter().for_each(|queue| queue.close());
            for handle in fences {
                assert_ne!(is_over(&rig, handle), Some(false), "seed {seed}");
            }
            rig.file.close();
            rig.device.stop_jobs();
        });
        assert_eq!(report.outcome, Outcome::Finished, "seed {seed}");
    }
}

#[test]
fn memory_is_active_while_a_job_may_use_it() {
    let rig = Rig::new();
    let bo = |vm_id| {
        let mut args = GemCreate { size: SZ_64K, placement: 1, cpu_caching: CACHING_WB, vm_id, ..Default::default() };
        assert_eq!(rig.ioctl(nr::GEM_CREATE, &mut args), OK);
        args.handle
    };
    let active = || rig.file.usage().memory.iter().map(|of| of.active).sum::<u64>();
    // With dma-fences: what is the VM's own, and what it shows, while a job is under way.
    let busy = vm(&rig, 0);
    let (_own, shown, _other) = (bo(busy), bo(0), bo(0));
    assert_eq!(bind(&rig, busy, super::bos::map(shown, 1 << 20, SZ_64K)), OK);
    let id = queue(&rig, busy, CLASS_COPY, 0).unwrap();
    assert_eq!((active(), exec(&rig, id, 1, &[]), active()), (0, OK, 2 * SZ_64K));
    let context = *rig.hw.state.lock().contexts.last_key_value().expect("the queue's").0;
    rig.device.job_done(context, 1);
    assert_eq!(active(), 0);
    // A long-running VM's, as long as a queue of it can be preempted; where faults are served, none.
    let long = vm(&rig, 2);
    let _own = bo(long);
    assert_eq!(active(), 0);
    queue(&rig, long, CLASS_COPY, 0).unwrap();
    assert_eq!(active(), SZ_64K);
    let faults = vm(&rig, 6);
    let _own = bo(faults);
    let id = queue(&rig, faults, CLASS_COPY, 0).unwrap();
    assert_eq!((exec(&rig, id, 1, &[]), active()), (OK, SZ_64K));
    rig.file.close();
    rig.device.stop_jobs();
}
