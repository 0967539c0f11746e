//! VM_BIND: what spans of GPU addresses show.
//!
//! This file reads and checks; [`ops`](super::ops) does. VMAs change before the ioctl returns. So do page tables, and the user
//! fence is written right behind, unless the bind has to wait: for in-fences, for earlier binds of its queue, or for binds of
//! other queues that have work to do in the same span. Then a job a tile does the work ([`BindQueue`]).
//!
//! Locking: the VM's lock, alone from the collection of garbage to the last change of VMAs, then shared for what is
//! prefetched. Arguments are read before, fences written after.
//!
//! Upstream: `xe_vm_bind_ioctl`, `vm_bind_ioctl_check_args`, `vm_bind_ioctl_ops_create`.

use std::sync::Arc;

use ::sync::RwLockWriteGuard;
use ::sync::atomic::AtomicU64;
use units::{GpuRange, GpuVa, HostVa, SZ_2M, SZ_4K, SZ_64K, TileId};
use xe_uapi::gem::CACHING_WB;
use xe_uapi::vm::{
    BIND_OP_MAP, BIND_OP_MAP_USERPTR, BIND_OP_PREFETCH, BIND_OP_UNMAP, BIND_OP_UNMAP_ALL, BindFlags,
    CONSULT_MEM_ADVISE_PREF_LOC, VmBind, VmBindOp,
};

use super::ops::{self, Op, Work};
use super::sync::{self, Syncs, UserFences, UserSync};
use super::{Reply, require};
use crate::bind_queue::{BindQueue, UserFence};
use crate::bo::{Bo, region_mask};
use crate::errno::Errno;
use crate::exec_queue::QueueKind;
use crate::fence::Fence;
use crate::file::File;
use crate::jobs::Body;
use crate::svm::garbage;
use crate::vm::{Vm, VmState};
use crate::vma::VmaTree;

/// Binds that one call may carry; upstream is bounded by memory only.
const MAX_BINDS: u32 = 1 << 16;

/// Binds of one array that may wait for a fence: upstream has the batches of the whole array in a pool meanwhile.
const MAX_WAITING_BINDS: usize = 512;

/// VM_BIND.
pub(super) fn vm_bind(file: &File, args: &mut VmBind) -> Reply {
    let vm = file.vm(args.vm_id).ok_or(Errno::EINVAL)?;
    require(args.pad == 0 && args.pad2 == 0 && args.reserved == [0; 2] && args.extensions == 0)?;
    let syncs = sync::read(file, args.syncs, args.num_syncs)?;
    let ops = read_ops(file, args)?;
    ops.iter().try_for_each(|op| check_op(&vm, op))?;
    let queue = bind_queue(file, &vm, args.exec_queue_id)?;
    // Upstream reads here what the fence will overwrite: an address that is not there is refused now.
    let probe = syncs.as_ref().map_or(Ok(()), |syncs| probe_fences(file, syncs));

    let gate = Fence::new();
    let bound = {
        let mut state = vm.state.write();
        collect_garbage(&vm, &mut state.vmas);
        if state.closed {
            return Err(Errno::ENOENT);
        }
        let ops: Vec<Op> = ops.iter().map(|op| check_place(file, &vm, op)).collect::<Result<_, _>>()?;
        let fences = if ops.is_empty() { UserFences::Refused } else { UserFences::Allowed };
        let Syncs { ins, outs, user } = Syncs::parse(file, &syncs?, &vm, fences)?;
        probe?;
        let has_syncs = args.num_syncs > 0;
        let user = user.map(|UserSync { addr, value }| Arc::new(UserFence { addr: HostVa(addr), value }));
        let bind = Bind { vm: &vm, queue: &queue, ops: &ops, ins, has_syncs, user: user.as_ref(), gate: &gate };
        let done = bind.execute(&mut state);
        // Faults may be served beside what is prefetched.
        let state = RwLockWriteGuard::downgrade(state);
        done.and_then(|done| ops::prefetch_all(&vm, &state, &ops).map(|()| done)).map(|done| {
            outs.install(&done);
            if let Some(user) = user {
                queue.push(user, done);
            }
        })
    };
    // Jobs take the VM's lock: from now on they may.
    gate.signal(Ok(()));
    bound?;
    queue.write(&file.shared);
    Ok(0)
}

/// What one VM_BIND asks for, once it is checked.
struct Bind<'a> {
    vm: &'a Arc<Vm>,
    queue: &'a BindQueue,
    ops: &'a [Op],
    ins: Vec<Arc<Fence>>,
    has_syncs: bool,
    user: Option<&'a Arc<UserFence>>,
    /// Over when the VM's lock is free.
    gate: &'a Arc<Fence>,
}

impl Bind<'_> {
    /// Changes the VMAs; then page tables, now where nothing is to be waited for. What the syncs follow.
    fn execute(self, state: &mut VmState) -> Result<Arc<Fence>, Errno> {
        let behind = self.behind(state);
        let must_wait = self.queue.is_busy() || behind.iter().any(|fence| !fence.is_over());
        if must_wait { self.later(state, behind) } else { self.now(state) }
    }

    /// In-fences, and the binds of other queues that have work to do where this one has.
    fn behind(&self, state: &VmState) -> Vec<Arc<Fence>> {
        let touched = self.ops.iter().flat_map(|op| op.touches(&state.vmas));
        self.ins.iter().cloned().chain(touched.flat_map(|span| state.pending_in(span))).collect()
    }

    /// What a bind that waits has for itself: its span, or all that is under the tables that it will have to make.
    fn reserved(&self, span: GpuRange) -> GpuRange {
        let whole = GpuRange::new(span.start.align_down(SZ_2M), span.end.align_up(SZ_2M));
        let has_tables = [span.start, GpuVa(span.end.0 - 1)].iter().all(|va| self.vm.space.has_table(*va));
        if has_tables { span } else { whole }
    }

    fn now(&self, state: &mut VmState) -> Result<Arc<Fence>, Errno> {
        let (vm, tiles) = (self.vm, self.vm.tiles());
        let work = ops::change(vm, state, self.ops, self.user, |work, userptrs| {
            self.check_in_fences(work)?;
            work.write(vm, userptrs, &tiles)
        })?;
        work.forget(state.userptrs.as_ref());
        if work.is_some() { Ok(Fence::over(Ok(()))) } else { self.without_work() }
    }

    /// Where there is no work for page tables, no in-fence is taken, over or not.
    ///
    /// Upstream: `xe_sync_in_fence_get`.
    fn check_in_fences(&self, work: &Work) -> Result<(), Errno> {
        if work.is_some() || self.ins.is_empty() { Ok(()) } else { Err(Errno::EOPNOTSUPP) }
    }

    /// What a bind without work for page tables signals behind: nothing asks where it has no sync.
    ///
    /// Upstream: `vm_bind_ioctl_signal_fences`.
    fn without_work(&self) -> Result<Arc<Fence>, Errno> {
        if self.has_syncs { self.queue.last_fences(&self.vm.shared) } else { Ok(Fence::over(Ok(()))) }
    }

    fn later(self, state: &mut VmState, behind: Vec<Arc<Fence>>) -> Result<Arc<Fence>, Errno> {
        let vm = self.vm;
        if self.ops.len() >= MAX_WAITING_BINDS {
            return Err(Errno::ENOBUFS);
        }
        vm.shared.worker.start()?;
        let work = ops::change(vm, state, self.ops, self.user, |work, _| self.check_in_fences(work))?;
        if !work.is_some() {
            return self.without_work();
        }
        let spans = work.spans().into_iter().map(|span| self.reserved(span)).collect();
        let shared_work = Arc::new((work, AtomicU64::new(vm.tiles().len() as u64)));
        let job = |tile: usize| job(vm, &shared_work, TileId(tile as u8));
        let done = self.queue.submit(&vm.shared, &behind, self.gate, job)?;
        state.add_pending(spans, &done);
        Ok(done)
    }
}

/// A tile's part of a bind that had to wait. Upstream kills the VM where it fails; here what is missing is bound by a fault.
fn job(vm: &Arc<Vm>, work: &Arc<(Work, AtomicU64)>, tile: TileId) -> Body {
    let (vm, work) = (vm.clone(), work.clone());
    Box::new(move || {
        let state = vm.state.write();
        if state.closed {
            return Err(Errno::ECANCELED);
        }
        let (work, left) = &*work;
        let written = work.write(&vm, state.userptrs.as_ref(), &[tile]);
        // With the last tile, nothing translates what is gone.
        if left.fetch_sub(1) == 1 {
            work.forget(state.userptrs.as_ref());
        }
        written
    })
}

fn read_ops(file: &File, args: &VmBind) -> Result<Vec<VmBindOp>, Errno> {
    match args.num_binds {
        0 => Ok(Vec::new()),
        1 => Ok(vec![args.bind]),
        many if many > MAX_BINDS => Err(Errno::ENOBUFS),
        many => file.shared.copy_in_vec(args.vector_of_binds(), many as usize),
    }
}

/// What can be said of a bind by itself.
fn check_op(vm: &Vm, op: &VmBindOp) -> Result<(), Errno> {
    let flags = BindFlags::from_bits_retain(op.flags);
    let mirror = flags.contains(BindFlags::CPU_ADDR_MIRROR);
    let special = mirror || flags.contains(BindFlags::NULL);
    let decompress = flags.contains(BindFlags::DECOMPRESS);
    let (map, unmap_all) = (op.op == BIND_OP_MAP, op.op == BIND_OP_UNMAP_ALL);

    require(!mirror || vm.svm.is_some())?;
    let pat = vm.platform().pat.entry(op.pat_index.into()).ok_or(Errno::EINVAL)?;
    require(op.op <= BIND_OP_PREFETCH && BindFlags::all().contains(flags))?;
    require(!special || (op.obj == 0 && op.obj_offset == 0))?;
    require(map || !(special || decompress))?;
    require(!(decompress && pat.compresses))?;
    require(!map || special || op.obj != 0)?;
    require(!unmap_all || (op.obj != 0 && op.addr == 0 && op.range == 0))?;
    let no_obj = matches!(op.op, BIND_OP_MAP_USERPTR | BIND_OP_PREFETCH | BIND_OP_UNMAP);
    require(!no_obj || op.obj == 0)?;
    let is_cached = op.op == BIND_OP_MAP_USERPTR || mirror && !vm.platform().has_vram();
    require(pat.coherent || !is_cached)?;
    check_prefetch_region(vm, op)?;
    require(!flags.contains(BindFlags::MADVISE_AUTORESET) || (mirror && map))?;
    require([op.obj_offset, op.addr, op.range].iter().all(|at| at.is_multiple_of(SZ_4K)))?;
    require(op.range != 0 || unmap_all)?;
    let decompresses = vm.platform().compresses && vm.platform().has_vram();
    if decompress && !decompresses { Err(Errno::EOPNOTSUPP) } else { Ok(()) }
}

fn check_prefetch_region(vm: &Vm, op: &VmBindOp) -> Result<(), Errno> {
    let region = op.prefetch_mem_region_instance;
    if op.op != BIND_OP_PREFETCH {
        return require(region == 0);
    }
    let known = region < 32 && region_mask(vm.platform()) >> region & 1 != 0;
    require(region == CONSULT_MEM_ADVISE_PREF_LOC || known)
}

fn bind_queue(file: &File, vm: &Arc<Vm>, id: u32) -> Result<Arc<BindQueue>, Errno> {
    if id == 0 {
        return Ok(vm.binds.clone());
    }
    let queue = file.queue(id).ok_or(Errno::ENOENT)?;
    match &queue.kind {
        QueueKind::Bind(binds) if Arc::ptr_eq(&queue.vm, vm) => Ok(binds.clone()),
        QueueKind::Bind(_) | QueueKind::Engine(_) => Err(Errno::EINVAL),
    }
}

fn probe_fences(file: &File, syncs: &[xe_uapi::exec::Sync]) -> Result<(), Errno> {
    let user = |sync: &&xe_uapi::exec::Sync| sync.sync_type == xe_uapi::exec::SYNC_TYPE_USER_FENCE;
    syncs.iter().filter(user).try_for_each(|sync| file.shared.copy_in::<u64>(sync.addr).map(|_| ()))
}

fn collect_garbage(vm: &Vm, vmas: &mut VmaTree) {
    if let Some(svm) = &vm.svm {
        garbage::collect(&vm.space, svm, vmas);
    }
}

/// Whether a bind's span lies in the VM, and its BO exists and fits.
fn check_place(file: &File, vm: &Vm, args: &VmBindOp) -> Result<Op, Errno> {
    require(args.addr.checked_add(args.range).is_some_and(|end| end <= vm.window().end.0))?;
    if args.op == BIND_OP_MAP_USERPTR && args.obj_offset.checked_add(args.range - 1).is_none() {
        return Err(Errno::EOVERFLOW);
    }
    let bo = match args.obj {
        0 => None,
        handle => Some(file.bo(handle).ok_or(Errno::ENOENT)?),
    };
    if let Some(bo) = &bo {
        check_bo(vm, args, bo)?;
    }
    if let Some(bo) = bo.as_ref().filter(|_| args.op == BIND_OP_MAP) {
        require(bo.config.vm.is_none_or(|asid| asid == vm.asid))?;
        bo.standing().check()?;
    }
    Ok(Op { args: *args, bo })
}

/// What is asked of an UNMAP_ALL, too, though it uses neither offset nor PAT index.
///
/// Upstream: `xe_vm_bind_ioctl_validate_bo`.
fn check_bo(vm: &Vm, args: &VmBindOp, bo: &Bo) -> Result<(), Errno> {
    let pat = vm.platform().pat.entry(args.pat_index.into()).ok_or(Errno::EINVAL)?;
    require(!(bo.config.no_compression && pat.compresses))?;
    require(args.obj_offset.checked_add(args.range).is_some_and(|end| end <= bo.config.size))?;
    if bo.may_be_in_vram() && vm.platform().needs_64k {
        require([args.obj_offset, args.addr, args.range].iter().all(|at| at.is_multiple_of(SZ_64K)))?;
    }
    require(bo.config.caching != CACHING_WB || pat.coherent)
}
