//! VM_BIND: what spans of GPU addresses show.
//!
//! A bind of a VM that serves faults changes VMAs only: page tables follow at the first fault. So a bind is done
//! when its ioctl returns, and its user fence is written right behind, in the order of the queue's binds.
//!
//! An array of binds is all or nothing: the VMAs are as they were unless every bind of the array went well.
//!
//! Locking: the VM's lock, from the collection of garbage to the last change of VMAs. Arguments are read before,
//! fences written after.
//!
//! Upstream: `xe_vm_bind_ioctl`, `vm_bind_ioctl_check_args`, `vm_bind_ioctl_ops_create`.

use std::sync::Arc;

use units::{GpuRange, GpuVa, HostVa, SZ_4K};
use xe_spec::pat;
use xe_uapi::vm::{
    BIND_OP_MAP, BIND_OP_MAP_USERPTR, BIND_OP_PREFETCH, BIND_OP_UNMAP, BIND_OP_UNMAP_ALL, BindFlags,
    CONSULT_MEM_ADVISE_PREF_LOC, VmBind, VmBindOp,
};

use super::attr::remove_straddlers;
use super::stub::missing;
use super::sync::{self, UserFences, UserSync};
use super::{Reply, require};
use crate::errno::Errno;
use crate::event::Event;
use crate::exec_queue::{ExecQueue, QueueKind};
use crate::fence::{BindFences, UserFence};
use crate::file::File;
use crate::gem::region_mask;
use crate::svm::{Mirror, Svm, garbage, policy, prefetch};
use crate::vm::{Vm, VmState};
use crate::vma::{Kind, Vma, VmaTree};

/// Binds that one call may carry; upstream is bounded by memory only.
const MAX_BINDS: u32 = 1 << 16;

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

    {
        let mut state = vm.state.lock();
        collect_garbage(&vm);
        if state.closed {
            return Err(Errno::ENOENT);
        }
        ops.iter().try_for_each(|op| check_place(file, &vm, op))?;
        let fences = if ops.is_empty() { UserFences::Refused } else { UserFences::Allowed };
        let fence = UserSync::parse(&syncs?, &vm, fences)?;
        probe?;
        execute(file, &vm, &mut state, &ops)?;
        if let Some(UserSync { addr, value }) = fence {
            fences_of(&vm, queue.as_deref()).push(UserFence { addr: HostVa(addr), value });
        }
    }
    fences_of(&vm, queue.as_deref()).write(&*file.shared.memory, &file.shared.waiters);
    Ok(0)
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
    let (map, unmap_all) = (op.op == BIND_OP_MAP, op.op == BIND_OP_UNMAP_ALL);

    require(op.pad == 0 && op.pad2 == 0 && op.reserved == [0; 3])?;
    require(!mirror || vm.svm.is_some())?;
    let coherence = pat::PVC.get(usize::from(op.pat_index)).ok_or(Errno::EINVAL)?;
    require(op.op <= BIND_OP_PREFETCH && BindFlags::all().contains(flags))?;
    require(!special || (op.obj == 0 && op.obj_offset == 0))?;
    require(map || !(special || flags.contains(BindFlags::DECOMPRESS)))?;
    require(!map || special || op.obj != 0)?;
    require(!unmap_all || (op.obj != 0 && op.addr == 0 && op.range == 0))?;
    let no_obj = matches!(op.op, BIND_OP_MAP_USERPTR | BIND_OP_PREFETCH | BIND_OP_UNMAP);
    require(!no_obj || op.obj == 0)?;
    require(op.op != BIND_OP_MAP_USERPTR || *coherence != pat::Coherence::None)?;
    check_prefetch_region(vm, op)?;
    require(!flags.contains(BindFlags::MADVISE_AUTORESET) || (mirror && map))?;
    require([op.obj_offset, op.addr, op.range].iter().all(|at| at.is_multiple_of(SZ_4K)))?;
    require(op.range != 0 || unmap_all)
}

fn check_prefetch_region(vm: &Vm, op: &VmBindOp) -> Result<(), Errno> {
    let region = op.prefetch_mem_region_instance;
    if op.op != BIND_OP_PREFETCH {
        return require(region == 0);
    }
    let known = region < 32 && region_mask(vm.platform()) >> region & 1 != 0;
    require(region == CONSULT_MEM_ADVISE_PREF_LOC || known)
}

fn bind_queue(file: &File, vm: &Arc<Vm>, id: u32) -> Result<Option<Arc<ExecQueue>>, Errno> {
    if id == 0 {
        return Ok(None);
    }
    let queue = file.queue(id).ok_or(Errno::ENOENT)?;
    require(matches!(queue.kind, QueueKind::Bind(_)) && Arc::ptr_eq(&queue.vm, vm))?;
    Ok(Some(queue))
}

fn fences_of<'a>(vm: &'a Vm, queue: Option<&'a ExecQueue>) -> &'a BindFences {
    match queue.map(|queue| &queue.kind) {
        Some(QueueKind::Bind(fences)) => fences,
        Some(QueueKind::Engine(_)) | None => &vm.fences,
    }
}

fn probe_fences(file: &File, syncs: &[xe_uapi::exec::Sync]) -> Result<(), Errno> {
    let user = |sync: &&xe_uapi::exec::Sync| sync.sync_type == xe_uapi::exec::SYNC_TYPE_USER_FENCE;
    syncs.iter().filter(user).try_for_each(|sync| file.shared.copy_in::<u64>(sync.addr).map(|_| ()))
}

fn collect_garbage(vm: &Vm) {
    if let Some(svm) = &vm.svm {
        garbage::collect(&vm.space, svm);
    }
}

/// Whether a bind's span lies in the VM, and its BO exists.
fn check_place(file: &File, vm: &Vm, op: &VmBindOp) -> Result<(), Errno> {
    require(op.addr.checked_add(op.range).is_some_and(|end| end <= vm.window().end.0))?;
    if op.obj != 0 && file.names.lock().gem.get(op.obj).is_none() {
        return Err(Errno::ENOENT);
    }
    Ok(())
}

/// Does the binds, all or none. What they prefetch is best effort.
fn execute(file: &File, vm: &Vm, state: &mut VmState, ops: &[VmBindOp]) -> Result<(), Errno> {
    let mut gone = Vec::new();
    let mut wanted = Vec::new();
    state.vmas.all_or_none(|vmas| {
        ops.iter().try_for_each(|op| {
            let span = GpuRange::sized(GpuVa(op.addr), op.range);
            match op.op {
                BIND_OP_MAP if op.obj == 0 => map(vm, vmas, op, span, &mut gone)?,
                BIND_OP_UNMAP => {
                    refuse_live(vm, vmas, span)?;
                    gone.extend(vmas.unmap(span));
                }
                BIND_OP_PREFETCH => wanted.push((span, op.prefetch_mem_region_instance)),
                BIND_OP_MAP => return Err(missing(file, xe_uapi::ioctl::VM_BIND, "bind of a BO")),
                BIND_OP_MAP_USERPTR => return Err(missing(file, xe_uapi::ioctl::VM_BIND, "bind of a userptr")),
                _ => return Err(missing(file, xe_uapi::ioctl::VM_BIND, "unmap of a BO")),
            }
            Ok(())
        })
    })?;
    for op in ops {
        let span = GpuRange::sized(GpuVa(op.addr), op.range);
        vm.shared.gpu.tell(Event::VmBind { asid: vm.asid, span, op: op.op });
    }
    gone.iter().filter(|vma| vma.kind == Kind::Null).for_each(|vma| unbind(vm, vma.span));
    if let Some(mirror) = vm.mirror() {
        gone.iter().for_each(|old| refresh(vm, mirror.svm, &state.vmas, old));
        wanted.iter().for_each(|(span, region)| prefetch_span(mirror, &state.vmas, *span, *region));
    }
    Ok(())
}

/// MAP of a mirror or of NULL. A mirror may be laid over a mirror whose ranges live: they are found by address, and
/// [`refresh`] makes them follow it.
fn map(vm: &Vm, vmas: &mut VmaTree, op: &VmBindOp, span: GpuRange, gone: &mut Vec<Vma>) -> Result<(), Errno> {
    let flags = BindFlags::from_bits_retain(op.flags);
    let kind = if flags.contains(BindFlags::CPU_ADDR_MIRROR) { Kind::Mirror } else { Kind::Null };
    if flags.contains(BindFlags::MADVISE_AUTORESET) {
        // Without the reset the attributes merely stay longer than asked for.
        vm.shared.gpu.tell(Event::Stub { ioctl: xe_uapi::ioctl::VM_BIND as u8, what: "MADVISE_AUTORESET" });
    }
    if kind != Kind::Mirror {
        refuse_live(vm, vmas, span)?;
    }
    let read_only = flags.contains(BindFlags::READONLY);
    gone.extend(vmas.map(Vma { read_only, ..Vma::new(span, kind, op.pat_index) }));
    Ok(())
}

/// Where the VMAs in the place of `old` say something else than it did, its ranges are bound anew at the next fault,
/// and none lies on both sides of its edges.
fn refresh(vm: &Vm, svm: &Svm, vmas: &VmaTree, old: &Vma) {
    let is_same = |new: &Vma| Vma { span: old.span, ..*new } == *old;
    if !vmas.overlapping(old.span).iter().all(is_same) {
        remove_straddlers(vm, svm, old.span);
        vm.space.invalidate_span(svm, old.span.mirrored());
    }
}

/// `EBUSY` where a mirror in `span` has live ranges: the program must unmap the memory first. A host that is not told
/// of every munmap (userfaultfd: memory of which nothing is in VRAM) may leave ranges of memory that is gone: those
/// are collected here.
fn refuse_live(vm: &Vm, vmas: &VmaTree, span: GpuRange) -> Result<(), Errno> {
    let Some(svm) = &vm.svm else { return Ok(()) };
    let mirrored = vmas.overlapping(span).into_iter().filter(|vma| vma.kind == Kind::Mirror);
    let mut parts = mirrored.filter_map(|vma| vma.span.intersect(span));
    let is_live = |part: GpuRange| {
        garbage::remove_unmapped(&vm.space, svm, part.mirrored());
        svm.has_ranges(part.mirrored())
    };
    if parts.any(is_live) { Err(Errno::EBUSY) } else { Ok(()) }
}

/// Takes a span out of every tile's page table.
fn unbind(vm: &Vm, span: GpuRange) {
    for tile in &vm.shared.gpu.tiles {
        vm.space.zap(tile.id, span);
        vm.shared.gpu.flush(tile.id, vm.asid, span);
    }
    vm.space.prune(span);
}

/// PREFETCH of the mirrors in `span`. Region 0 is system memory, 1 + n tile n, -1 what MADVISE said.
fn prefetch_span(mirror: Mirror<'_>, vmas: &VmaTree, span: GpuRange, region: u32) {
    let Some(first_tile) = mirror.shared.gpu.tiles.first() else { return };
    for vma in vmas.overlapping(span).into_iter().filter(|vma| vma.kind == Kind::Mirror) {
        let Some(part) = vma.span.intersect(span) else { continue };
        let target = match region {
            CONSULT_MEM_ADVISE_PREF_LOC => policy::resolve_pagemap(&mirror.shared.gpu, &vma, first_tile.id),
            region => policy::region_pagemap(&mirror.shared.gpu, region),
        };
        prefetch::prefetch(mirror, &vma, part, &policy::Want::prefetch(mirror.shared.platform(), &vma, target));
    }
}
