//! Binds that have to wait: for in-fences, for those before them on their queue, for others in the same span.

use super::*;
use crate::fence::Fence;
use std::sync::Arc;

const AT: u64 = 0x20_0000_0000;
/// Where user fences are written.
const FENCE: u64 = USER + 0x100;

struct Pending {
    rig: Rig,
    vm: u32,
    asid: Asid,
}

impl Pending {
    fn new() -> Self {
        Self::with(0)
    }

    fn with(flags: u32) -> Self {
        let rig = Rig::new();
        let mut args = VmCreate { flags, ..Default::default() };
        assert_eq!(rig.ioctl(nr::VM_CREATE, &mut args), OK);
        let asid = rig.file.vm(args.vm_id).unwrap().asid;
        Self { rig, vm: args.vm_id, asid }
    }

    /// A syncobj with that fence; its handle.
    fn syncobj(&self, fence: Option<Arc<Fence>>) -> u32 {
        let mut args = xe_uapi::syncobj::SyncobjCreate::default();
        assert_eq!(self.rig.ioctl(nr::SYNCOBJ_CREATE, &mut args), OK);
        self.rig.file.syncobj(args.handle).unwrap().replace(fence);
        args.handle
    }

    fn bo(&self, placement: u32) -> u32 {
        let cpu_caching = if placement == 1 { CACHING_WB } else { CACHING_WC };
        let mut args = GemCreate { size: SZ_64K, placement, cpu_caching, ..Default::default() };
        assert_eq!(self.rig.ioctl(nr::GEM_CREATE, &mut args), OK);
        args.handle
    }

    fn queue(&self) -> u32 {
        let engine = EngineClassInstance { engine_class: CLASS_VM_BIND, ..Default::default() };
        self.rig.put(USER, &engine);
        let mut args =
            ExecQueueCreate { width: 1, num_placements: 1, vm_id: self.vm, instances: USER, ..Default::default() };
        assert_eq!(self.rig.ioctl(nr::EXEC_QUEUE_CREATE, &mut args), OK);
        args.exec_queue_id
    }

    /// One bind behind `wait`, if there is one; the fence of what it signals.
    fn bind(&self, queue: u32, op: VmBindOp, wait: Option<u32>) -> Result<Arc<Fence>, Errno> {
        let out = self.syncobj(None);
        let sync = |handle: u32, flags| exec::Sync { addr: handle.into(), flags, ..Default::default() };
        let mut syncs = vec![sync(out, SYNC_FLAG_SIGNAL)];
        syncs.extend(wait.map(|handle| sync(handle, 0)));
        self.rig.put(USER + 0x1000, &syncs[..]);
        let mut args = VmBind {
            vm_id: self.vm,
            exec_queue_id: queue,
            num_binds: 1,
            bind: op,
            num_syncs: syncs.len() as u32,
            syncs: USER + 0x1000,
            ..Default::default()
        };
        self.rig.ioctl(nr::VM_BIND, &mut args)?;
        self.rig.file.syncobj(out).unwrap().find(0)
    }

    /// Some binds, and a user fence of that value behind them.
    fn bind_with_fence(&self, value: u64, ops: &[VmBindOp], wait: Option<u32>) -> Result<u32, Errno> {
        let fence = exec::Sync { sync_type: 2, flags: 1, addr: FENCE, timeline_value: value, ..Default::default() };
        let mut syncs = vec![fence];
        syncs.extend(wait.map(|handle| exec::Sync { addr: handle.into(), ..Default::default() }));
        self.rig.put(USER + 0x1000, &syncs[..]);
        self.rig.put(USER + 0x2000, ops);
        let bind = if let [op] = ops { *op } else { VmBindOp { extensions: USER + 0x2000, ..Default::default() } };
        let (num_binds, num_syncs) = (ops.len() as u32, syncs.len() as u32);
        let mut args =
            VmBind { vm_id: self.vm, num_binds, bind, num_syncs, syncs: USER + 0x1000, ..Default::default() };
        self.rig.ioctl(nr::VM_BIND, &mut args)
    }

    /// Waits for the user fence of that value.
    fn wait(&self, value: u64) {
        let mut wait = WaitUserFence { addr: FENCE, value, mask: !0, timeout: -1, ..Default::default() };
        assert_eq!(self.rig.ioctl(nr::WAIT_USER_FENCE, &mut wait), OK);
    }

    fn map(&self, bo: u32, n: u64) -> VmBindOp {
        VmBindOp { obj: bo, addr: AT + n * SZ_64K, range: SZ_64K, pat_index: 3, ..Default::default() }
    }

    fn unmap(&self, n: u64) -> VmBindOp {
        VmBindOp { op: BIND_OP_UNMAP, ..self.map(0, n) }
    }

    /// On which tiles a page is bound.
    fn bound(&self, n: u64) -> [bool; 2] {
        [0, 1].map(|tile| self.rig.hw.walk(TileId(tile), self.asid, GpuVa(AT + n * SZ_64K)).is_some())
    }
}

#[test]
fn a_bind_waits_for_its_in_fence_and_then_happens_on_all_tiles() {
    let test = Pending::new();
    let before = Fence::new();
    let wait = test.syncobj(Some(before.clone()));
    let done = test.bind(0, test.map(test.bo(1), 0), Some(wait)).unwrap();
    assert_eq!((test.bound(0), done.is_over()), ([false; 2], false));
    assert_eq!(test.rig.fault(0, test.asid, AT, Access::Read), FaultAck::Kill, "it has not happened yet");
    before.signal(Ok(()));
    assert_eq!(done.wait(None), Some(Ok(())));
    assert_eq!(test.bound(0), [true; 2]);
    // An in-fence that is over is no reason to wait.
    let done = test.bind(0, test.map(test.bo(1), 1), Some(wait)).unwrap();
    assert_eq!((done.is_over(), test.bound(1)), (true, [true; 2]));
}

/// The tables are as they were until the bind happens, so an access meets the scratch page.
#[test]
fn what_is_not_bound_yet_shows_the_scratch_page() {
    for (flags, ack) in [(1, FaultAck::Replay), (0, FaultAck::Kill)] {
        let test = Pending::with(flags);
        let gate = Fence::new();
        let fence = test.bind(0, test.map(test.bo(1), 0), Some(test.syncobj(Some(gate.clone())))).expect("a bind");
        assert_eq!(test.rig.fault(0, test.asid, AT, Access::Read), ack);
        gate.signal(Ok(()));
        assert_eq!(fence.wait(None), Some(Ok(())));
        let (_, leaf) = test.rig.hw.walk(TileId(0), test.asid, GpuVa(AT)).expect("a leaf");
        assert!(!leaf.null);
    }
}

/// Whether it is over or not.
#[test]
fn a_bind_without_work_takes_no_in_fence() {
    let test = Pending::new();
    let [over, not_over] = [Fence::over(Ok(())), Fence::new()].map(|fence| test.syncobj(Some(fence)));
    for wait in [over, not_over] {
        assert_eq!(test.bind(0, test.unmap(0), Some(wait)).err(), Some(Errno::EOPNOTSUPP));
    }
    assert!(test.bind(0, test.unmap(0), None).is_ok());
    assert!(test.bind(0, test.map(test.bo(1), 0), Some(over)).is_ok());
}

/// What has no leaves of its own at once has work all the same: a NULL span, which shows nothing at its first touch, and a prefetch.
#[test]
fn a_null_bind_and_a_prefetch_take_in_fences() {
    let test = Pending::new();
    let null = VmBindOp { flags: BindFlags::NULL.bits(), ..test.map(0, 0) };
    let prefetch = VmBindOp { op: BIND_OP_PREFETCH, ..test.map(0, 1) };
    let over = test.syncobj(Some(Fence::over(Ok(()))));
    assert!(test.bind(0, test.map(test.bo(1), 1), None).is_ok());
    for op in [null, prefetch] {
        let gate = Fence::new();
        assert!(test.bind(0, op, Some(over)).is_ok_and(|done| done.is_over()));
        let done = test.bind(0, op, Some(test.syncobj(Some(gate.clone())))).unwrap();
        assert!(!done.is_over());
        gate.signal(Ok(()));
        assert_eq!(done.wait(None), Some(Ok(())));
    }
    assert_eq!(test.rig.fault(0, test.asid, AT, Access::Read), FaultAck::Replay);
}

#[test]
fn one_queue_keeps_its_order_and_another_does_not_wait() {
    let test = Pending::new();
    let (before, other) = (Fence::new(), test.queue());
    let wait = test.syncobj(Some(before.clone()));
    let first = test.bind(0, test.map(test.bo(1), 0), Some(wait)).unwrap();
    let second = test.bind(0, test.map(test.bo(1), 1), None).unwrap();
    let beside = test.bind(other, test.map(test.bo(1), 64), None).unwrap();
    assert_eq!([&first, &second, &beside].map(|fence| fence.is_over()), [false, false, true]);
    assert_eq!([0, 1, 64].map(|n| test.bound(n)), [[false; 2], [false; 2], [true; 2]]);
    before.signal(Ok(()));
    assert_eq!(second.wait(None), Some(Ok(())));
    assert!(first.is_over() && test.bound(0) == [true; 2] && test.bound(1) == [true; 2]);
}

#[test]
fn what_overlaps_waits_whatever_its_queue() {
    let test = Pending::new();
    let (before, other) = (Fence::new(), test.queue());
    let wait = test.syncobj(Some(before.clone()));
    assert!(test.bind(0, test.map(test.bo(1), 0), None).unwrap().is_over());
    let unmapped = test.bind(0, test.unmap(0), Some(wait)).unwrap();
    assert_eq!(test.bound(0), [true; 2], "as long as the unmap waits, jobs find what was there");
    let mapped = test.bind(other, test.map(test.bo(2), 0), None).unwrap();
    assert!(!mapped.is_over());
    before.signal(Ok(()));
    assert_eq!((mapped.wait(None), unmapped.is_over()), (Some(Ok(())), true));
    let leaf = test.rig.hw.walk(TileId(1), test.asid, GpuVa(AT)).unwrap().1;
    assert!(leaf.device, "the later bind has the last word");
}

#[test]
fn a_bind_that_will_make_a_table_keeps_others_from_it() {
    let test = Pending::new();
    let (before, other) = (Fence::new(), test.queue());
    let wait = test.syncobj(Some(before.clone()));
    let first = test.bind(0, test.map(test.bo(1), 0), Some(wait)).unwrap();
    let beside = test.bind(other, test.map(test.bo(1), 1), None).unwrap();
    let apart = test.bind(other, test.map(test.bo(1), 64), None);
    assert!(!first.is_over() && !beside.is_over() && !apart.unwrap().is_over(), "the other queue keeps its order");
    before.signal(Ok(()));
    assert_eq!(beside.wait(None), Some(Ok(())));
}

#[test]
fn too_many_binds_cannot_wait() {
    let test = Pending::new();
    let (wait, bo) = (test.syncobj(Some(Fence::new())), test.bo(1));
    let ops: Vec<VmBindOp> = (0..512).map(|n| test.map(bo, n)).collect();
    let array = |syncs: u32| {
        test.rig.put(USER + 0x10000, &ops[..]);
        test.rig.put(USER + 0x1000, &exec::Sync { addr: wait.into(), ..Default::default() });
        let bind = VmBindOp { extensions: USER + 0x10000, ..Default::default() };
        let (num_binds, syncs_at) = (512, USER + 0x1000);
        let mut args =
            VmBind { vm_id: test.vm, num_binds, bind, num_syncs: syncs, syncs: syncs_at, ..Default::default() };
        test.rig.ioctl(nr::VM_BIND, &mut args)
    };
    assert_eq!((array(1), array(0)), (err(Errno::ENOBUFS), OK));
}

#[test]
fn nothing_to_do_follows_what_is_to_be_done() {
    let test = Pending::new();
    let before = Fence::new();
    let wait = test.syncobj(Some(before.clone()));
    let busy = test.bind(0, test.map(test.bo(1), 0), Some(wait)).unwrap();
    let nothing = test.bind(0, test.unmap(5), None).unwrap();
    assert!(!nothing.is_over());
    assert_eq!(test.bind(0, test.unmap(5), Some(wait)).err(), Some(Errno::EOPNOTSUPP), "as upstream");
    before.signal(Ok(()));
    assert_eq!(nothing.wait(None), Some(Ok(())));
    assert!(busy.is_over());
}

#[test]
fn a_vm_that_ends_ends_the_wait() {
    let test = Pending::new();
    let wait = test.syncobj(Some(Fence::new()));
    let done = test.bind(0, test.map(test.bo(1), 0), Some(wait)).unwrap();
    assert_eq!(test.rig.ioctl(nr::VM_DESTROY, &mut VmDestroy { vm_id: test.vm, ..Default::default() }), OK);
    assert_eq!(done.wait(None), Some(Err(Errno::ECANCELED)));
}

/// An unmap takes a leaf of 64K whole, and of what is left of it a job may be under way whose own unmap waits for it.
#[test]
fn what_an_unmap_leaves_is_bound_when_it_is_done() {
    let test = Pending::new();
    let page = |bo: u32, n: u64| VmBindOp { addr: AT + n * SZ_4K, range: SZ_4K, ..test.map(bo, 0) };
    let bound = |n: u64| test.rig.hw.walk(TileId(0), test.asid, GpuVa(AT + n * SZ_4K)).is_some();
    let (one, other) = (test.bo(1), test.bo(1));
    for op in [test.map(one, 0), page(other, 17)] {
        assert!(test.bind(0, op, None).unwrap().is_over());
    }
    for (gone, left) in [(3, [0, 2, 4, 15, 17]), (15, [0, 2, 4, 14, 17])] {
        let unmap = VmBindOp { op: BIND_OP_UNMAP, ..page(0, gone) };
        assert!(test.bind(0, unmap, None).unwrap().is_over());
        assert_eq!((left.map(bound), bound(gone)), ([true; 5], false), "page {gone}");
    }
    let unmap = VmBindOp { op: BIND_OP_UNMAP, ..page(0, 16) };
    assert!(test.bind(0, VmBindOp { obj_offset: SZ_4K, ..page(one, 16) }, None).unwrap().is_over());
    assert!(test.bind(0, unmap, None).unwrap().is_over());
    assert_eq!([15, 16, 17].map(bound), [false, false, true], "another bind's leaf is its own");
}

#[test]
fn what_a_user_fence_is_to_tell_of_stays_until_it_is_written() {
    let test = Pending::new();
    let (before, bo) = (Fence::new(), test.bo(1));
    let wait = test.syncobj(Some(before.clone()));
    let plain = |op| bind(&test.rig, test.vm, op);
    assert_eq!((plain(test.map(bo, 1)), test.bind_with_fence(1, &[test.map(bo, 0)], Some(wait))), (OK, OK));
    let part = VmBindOp { range: SZ_4K, ..test.map(bo, 0) };
    let all = VmBindOp { op: BIND_OP_UNMAP_ALL, obj: bo, pat_index: part.pat_index, ..Default::default() };
    assert_eq!([test.unmap(0), part, all].map(plain), [err(Errno::EBUSY); 3]);
    let array = [test.map(bo, 2), test.unmap(1), test.unmap(0)];
    assert_eq!(test.bind_with_fence(2, &array, None), err(Errno::EBUSY));
    let vm = test.rig.file.vm(test.vm).unwrap();
    let shows = |n: u64| vm.state.read().vmas.find(GpuVa(AT + n * SZ_64K)).is_some();
    assert_eq!([0, 1, 2].map(shows), [true, true, false], "all or none");
    let prefetch = VmBindOp { op: BIND_OP_PREFETCH, ..test.map(0, 0) };
    assert_eq!((plain(prefetch), plain(test.unmap(1))), (OK, OK), "what has no such fence may go");
    before.signal(Ok(()));
    test.wait(1);
    assert_eq!((plain(part), plain(test.unmap(0))), (OK, OK));
}

#[test]
fn a_prefetch_gives_its_user_fence_to_a_mirror_and_a_map_does_not() {
    let test = Pending::with(6);
    let (before, mirror) = (Fence::new(), VmBindOp { addr: DATA, range: SZ_2M, ..mirror_op() });
    let wait = test.syncobj(Some(before.clone()));
    let busy = VmBindOp { flags: BindFlags::IMMEDIATE.bits(), ..test.map(test.bo(1), 0) };
    assert_eq!(test.bind_with_fence(1, &[busy], Some(wait)), OK);
    assert_eq!((test.bind_with_fence(2, &[mirror], None), bind(&test.rig, test.vm, mirror)), (OK, OK));
    let prefetch = VmBindOp { op: BIND_OP_PREFETCH, flags: 0, ..mirror };
    assert_eq!(test.bind_with_fence(3, &[prefetch], None), OK);
    let beside = VmBindOp { addr: DATA + SZ_2M, ..mirror };
    let plain = |op| bind(&test.rig, test.vm, op);
    assert_eq!([unmap_op(DATA, SZ_2M), beside].map(plain), [err(Errno::EBUSY); 2], "what joins it takes it, too");
    before.signal(Ok(()));
    test.wait(3);
    assert_eq!([beside, unmap_op(DATA, SZ_2M)].map(plain), [OK; 2]);
}
