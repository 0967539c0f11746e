//! What the binds of one VM_BIND do to a VM: VMAs first, then page tables.
//!
//! All of them or none: VMAs are changed so that it can be undone ([`change`]). What page tables are to lose and to get is
//! [`Work`]: done at once, so that its failure undoes the change, or by a job a tile, where the bind has to wait.
//!
//! Locking: the VM's lock.
//!
//! Upstream: `vm_bind_ioctl_ops_create`, `_parse`, `_execute`, `_unwind`; `drm_gpuvm_sm_map`, `drm_gpuvm_sm_unmap`.

use std::sync::Arc;

use units::{GpuRange, GpuVa, HostVa, SZ_64K};
use xe_spec::fault::Asid;
use xe_uapi::vm::{
    BIND_OP_MAP, BIND_OP_MAP_USERPTR, BIND_OP_PREFETCH, BIND_OP_UNMAP, BIND_OP_UNMAP_ALL, BindFlags,
    CONSULT_MEM_ADVISE_PREF_LOC, CreateFlags, VmBindOp,
};

use super::attr::remove_straddlers;
use super::require;
use crate::bind_queue::UserFence;
use crate::bo::{Bo, Prefer};
use crate::errno::Errno;
use crate::event::Event;
use crate::svm::userptr::Userptrs;
use crate::svm::{Mirror, Svm, garbage, policy, prefetch};
use crate::vm::{Vm, VmState};
use crate::vma::{Kind, UserMap, Vma, VmaTree};
use units::TileId;

/// A bind, and the BO that it names.
pub(super) struct Op {
    pub args: VmBindOp,
    pub bo: Option<Arc<Bo>>,
}

impl Op {
    fn span(&self) -> GpuRange {
        GpuRange::sized(GpuVa(self.args.addr), self.args.range)
    }

    /// The spans that it may change.
    pub(super) fn touches(&self, vmas: &VmaTree) -> Vec<GpuRange> {
        match &self.bo {
            Some(bo) if self.args.op == BIND_OP_UNMAP_ALL => vmas.of_bo(bo),
            _ => vec![self.span()],
        }
    }

    fn flags(&self) -> BindFlags {
        BindFlags::from_bits_retain(self.args.flags)
    }
}

/// What binds have still to do once the VMAs are changed.
#[derive(Default)]
pub(super) struct Work {
    /// What was taken: it has leaves to lose.
    gone: Vec<Vma>,
    /// What loses its leaves beside that, and gets leaves of its own at the next touch, or at once: the rest of its pages of 64K; holes, which may
    /// show the scratch page, where something was put that has no leaves yet.
    cut: Vec<GpuRange>,
    /// What gets them at once: without faults, jobs may touch it that came before the binds that take it away.
    again: Vec<Vma>,
    /// What must have leaves now; a NULL span gets them at its first touch all the same.
    eager: Vec<Vma>,
    /// Spans of these, before the binds behind them are known.
    wanted: Vec<GpuRange>,
    /// Something is prefetched: its leaves come behind the binds ([`prefetch_all`]).
    prefetches: bool,
    /// The VM, where nothing of it goes to make room.
    spare: Option<Asid>,
}

impl Work {
    /// Whether page tables are to be changed. Upstream: `xe_vma_ops_incr_pt_update_ops`.
    pub(super) fn is_some(&self) -> bool {
        let comes = !self.eager.is_empty() || self.prefetches;
        comes || !self.cut.is_empty() || self.gone.iter().any(|vma| vma.kind != Kind::Mirror)
    }

    /// Where.
    pub(super) fn spans(&self) -> Vec<GpuRange> {
        self.gone
            .iter()
            .chain(&self.eager)
            .chain(&self.again)
            .map(|vma| vma.span)
            .chain(self.cut.iter().copied())
            .collect()
    }

    /// Changes the page tables of `tiles`. The caller holds the VM's lock.
    pub(super) fn write(&self, vm: &Vm, userptrs: Option<&Userptrs>, tiles: &[TileId]) -> Result<(), Errno> {
        let gone = self.gone.iter().filter(|vma| vma.kind != Kind::Mirror);
        gone.map(|vma| vma.span).chain(self.cut.iter().copied()).for_each(|span| vm.unbind(span, tiles));
        let bind = |vma: &Vma| match (&vma.kind, userptrs) {
            (Kind::Bo(map), _) => vm.bind_bo(vma, map, Prefer::Anything, tiles, self.spare),
            (Kind::Userptr(map), Some(userptrs)) => vm.bind_userptr(userptrs, vma, *map, tiles),
            (Kind::Userptr(_), None) | (Kind::Mirror | Kind::Null, _) => Ok(()),
        };
        // Without room or memory it stays unbound, and a fault will say so.
        self.again.iter().for_each(|vma| _ = bind(vma));
        self.eager.iter().try_for_each(bind)
    }

    /// No tile translates what is gone: nobody needs to know where it was.
    pub(super) fn forget(&self, userptrs: Option<&Userptrs>) {
        for vma in &self.gone {
            match (&vma.kind, userptrs) {
                (Kind::Bo(map), _) => map.cut(vma.span),
                (Kind::Userptr(map), Some(userptrs)) => userptrs.cut(vma.span, *map),
                (Kind::Userptr(_), None) | (Kind::Mirror | Kind::Null, _) => {}
            }
        }
    }
}

/// Changes the VMAs as the binds ask, all or none, and then runs `write`: where that fails, they are as they were, too, and
/// what lost its leaves gets them back at the next touch. `EBUSY`: the user fence of what they take away is not written.
pub(super) fn change(
    vm: &Vm,
    state: &mut VmState,
    ops: &[Op],
    fence: Option<&Arc<UserFence>>,
    write: impl FnOnce(&Work, Option<&Userptrs>) -> Result<(), Errno>,
) -> Result<Work, Errno> {
    if state.userptrs.is_none() && ops.iter().any(|op| op.args.op == BIND_OP_MAP_USERPTR) {
        state.userptrs = Some(Userptrs::new(&vm.shared, &vm.space, vm.has_faults())?);
    }
    let VmState { vmas, userptrs, .. } = state;
    let userptrs = userptrs.as_ref();
    let work = vmas.all_or_none(|vmas| {
        let mut work = Work { spare: vm.spared(ops.len() > 1), ..Work::default() };
        ops.iter().try_for_each(|op| change_vmas(vm, vmas, userptrs, op, &mut work))?;
        // A later bind of the same array may have replaced what an earlier one wanted.
        let eager = work.wanted.iter().flat_map(|span| vmas.overlapping(*span));
        let gone = work.gone.iter().filter(|vma| vma.kind != Kind::Mirror);
        let rest = |gone: &Vma| {
            let blocks = GpuRange::new(gone.span.start.align_down(SZ_64K), gone.span.end.align_up(SZ_64K));
            let rest = vmas.rest_of(gone).filter(|vma| vma.kind != Kind::Null);
            rest.map(move |vma| (vma.span.intersect(blocks), vma)).collect::<Vec<_>>()
        };
        let (cut, again): (Vec<_>, Vec<Vma>) = gone.flat_map(rest).unzip();
        work.cut.extend(cut.into_iter().flatten());
        work.again = if vm.has_faults() { Vec::new() } else { again };
        work.eager = eager.filter(|vma| vma.kind != Kind::Mirror).collect();
        let new: Vec<_> = vmas_of(vmas, ops, BIND_OP_MAP_USERPTR).filter_map(|vma| vma.user_map()).collect();
        // There are none where there is no mirror for them.
        let for_each = |tell: fn(&Userptrs, GpuRange, UserMap)| {
            userptrs.iter().for_each(|all| new.iter().for_each(|(span, map)| tell(all, *span, *map)));
        };
        for_each(Userptrs::add);
        let written = pin(vmas, userptrs, ops, &work)
            .and_then(|()| if vmas.took_held() { Err(Errno::EBUSY) } else { Ok(()) })
            .and_then(|()| migrate_bos(vm, vmas, ops))
            .and_then(|()| write(&work, userptrs));
        if written.is_err() {
            work.eager.iter().for_each(|vma| vm.unbind(vma.span, &vm.tiles()));
            for_each(Userptrs::cut);
        } else if let Some(fence) = fence {
            let prefetches = ops.iter().filter(|op| op.args.op == BIND_OP_PREFETCH);
            vmas.hold(fence, prefetches.map(Op::span));
        }
        written.map(|()| work)
    })?;
    for op in ops {
        vm.shared.gpu.emit(Event::VmBind { asid: vm.asid, span: op.span(), op: op.args.op });
    }
    if let Some(mirror) = vm.mirror() {
        work.gone.iter().for_each(|old| refresh(vm, mirror.svm, vmas, old));
    }
    Ok(work)
}

/// Does what the binds prefetch; BOs are in their places by now ([`change`]). What fails is found by a fault later; an error is a
/// variant's (defect B), and undoes nothing.
pub(super) fn prefetch_all(vm: &Vm, state: &VmState, ops: &[Op]) -> Result<(), Errno> {
    let mut prefetches = ops.iter().filter(|op| op.args.op == BIND_OP_PREFETCH);
    prefetches.try_for_each(|op| prefetch_span(vm, &state.vmas, state.userptrs.as_ref(), op))
}

/// What is in the spans of the binds that do `what`.
fn vmas_of(vmas: &VmaTree, ops: &[Op], what: u32) -> impl Iterator<Item = Vma> {
    ops.iter().filter(move |op| op.args.op == what).flat_map(|op| vmas.overlapping(op.span()))
}

/// Collects the pages of the userptrs that these binds made or prefetch, and of what they left of others: upstream does it at
/// once, whatever binds at a fault.
fn pin(vmas: &VmaTree, userptrs: Option<&Userptrs>, ops: &[Op], work: &Work) -> Result<(), Errno> {
    let Some(userptrs) = userptrs else { return Ok(()) };
    let wanted = [BIND_OP_MAP_USERPTR, BIND_OP_PREFETCH].into_iter().flat_map(|what| vmas_of(vmas, ops, what));
    let all = wanted.chain(work.gone.iter().flat_map(|gone| vmas.rest_of(gone)));
    let mut all = all.filter_map(|vma| vma.user_map().map(|(span, map)| (span, map, vma.read_only)));
    all.try_for_each(|(span, map, read_only)| userptrs.pin(span, map, read_only))
}

/// Moves the BOs that these binds prefetch to where they shall be.
fn migrate_bos(vm: &Vm, vmas: &VmaTree, ops: &[Op]) -> Result<(), Errno> {
    let prefetches = ops.iter().filter(|op| op.args.op == BIND_OP_PREFETCH);
    let all = prefetches.flat_map(|op| vmas.overlapping(op.span()).into_iter().map(move |vma| (op, vma)));
    all.into_iter().try_for_each(|(op, vma)| {
        let bo = vma.bo_map().map(|(_, map)| &map.bo);
        bo.map_or(Ok(()), |bo| vm.migrate_bo(bo, op.args.prefetch_mem_region_instance))
    })
}

/// Changes the VMAs as one bind asks.
fn change_vmas(
    vm: &Vm,
    vmas: &mut VmaTree,
    userptrs: Option<&Userptrs>,
    op: &Op,
    work: &mut Work,
) -> Result<(), Errno> {
    let (span, flags) = (op.span(), op.flags());
    let kind = match (op.args.op, &op.bo) {
        (BIND_OP_MAP, Some(bo)) => Kind::Bo(bo.map(vm.shown_by(), span, op.args.obj_offset)),
        (BIND_OP_MAP, None) if flags.contains(BindFlags::CPU_ADDR_MIRROR) => Kind::Mirror,
        (BIND_OP_MAP, None) => Kind::Null,
        (BIND_OP_MAP_USERPTR, _) => {
            let id = userptrs.map_or(0, Userptrs::next_id);
            Kind::Userptr(UserMap { id, start: span.start, host: HostVa(op.args.obj_offset) })
        }
        (BIND_OP_UNMAP, _) => {
            refuse_live(vm, vmas, span)?;
            work.gone.extend(vmas.unmap(span));
            return Ok(());
        }
        (BIND_OP_PREFETCH, _) => {
            work.prefetches |= !vmas.overlapping(span).is_empty();
            return check_prefetch(vmas, op);
        }
        (_, bo) => {
            let spans = bo.as_ref().map(|bo| vmas.of_bo(bo)).unwrap_or_default();
            spans.into_iter().for_each(|span| work.gone.extend(vmas.unmap(span)));
            return Ok(());
        }
    };
    // A mirror may be laid over a mirror whose ranges live: they are found by address, and `refresh` makes them follow it.
    if kind != Kind::Mirror {
        refuse_live(vm, vmas, span)?;
    }
    let at_once = kind != Kind::Mirror && (flags.contains(BindFlags::IMMEDIATE) || !vm.has_faults());
    if at_once {
        work.wanted.push(span);
    }
    if vm.flags.contains(CreateFlags::SCRATCH_PAGE) && (!at_once || kind == Kind::Null) {
        work.cut.extend(vmas.holes(span));
    }
    let (read_only, autoreset) = (flags.contains(BindFlags::READONLY), flags.contains(BindFlags::MADVISE_AUTORESET));
    work.gone.extend(vmas.map(Vma { read_only, autoreset, ..Vma::new(span, kind, op.args.pat_index) }));
    Ok(())
}

/// `EINVAL` where a BO in the span may not be in that region; that, or `EBUSY`, where its contents are not needed.
fn check_prefetch(vmas: &VmaTree, op: &Op) -> Result<(), Errno> {
    let region = op.args.prefetch_mem_region_instance;
    vmas.overlapping(op.span()).iter().filter_map(Vma::bo_map).try_for_each(|(_, map)| {
        map.bo.standing().check()?;
        require(region == CONSULT_MEM_ADVISE_PREF_LOC || map.bo.config.placement >> region & 1 != 0)
    })
}

/// Where the VMAs in the place of `old` say something else than it did, its ranges are bound anew at the next fault,
/// and none lies on both sides of its edges.
fn refresh(vm: &Vm, svm: &Svm, vmas: &VmaTree, old: &Vma) {
    let is_same = |new: &Vma| Vma { span: old.span, ..new.clone() } == *old;
    if !vmas.overlapping(old.span).iter().all(is_same) {
        remove_straddlers(vm, svm, old.span);
        vm.space.invalidate_span(svm, old.span.mirrored());
    }
}

/// `EBUSY` where a mirror in `span` has live ranges: the program must unmap the memory first. A host that is not told
/// of every munmap (see `svm/garbage.rs`) may leave ranges of memory that is gone, and other
/// memory may be in its place by now: those are collected here.
fn refuse_live(vm: &Vm, vmas: &mut VmaTree, span: GpuRange) -> Result<(), Errno> {
    let Some(svm) = &vm.svm else { return Ok(()) };
    let mirrored = vmas.overlapping(span).into_iter().filter(|vma| vma.kind == Kind::Mirror);
    let mut parts = mirrored.filter_map(|vma| vma.span.intersect(span));
    let is_live = |part: GpuRange| {
        if !svm.has_ranges(part.mirrored()) {
            return false;
        }
        // A page on its way is nowhere, for who only looks.
        let _alone = vm.shared.migrate_lock.write();
        garbage::remove_replaced(&vm.space, svm, vmas, part.mirrored());
        svm.has_ranges(part.mirrored())
    };
    if parts.any(is_live) { Err(Errno::EBUSY) } else { Ok(()) }
}

/// PREFETCH of what is in a span. Region 0 is system memory, 1 + n tile n, -1 what MADVISE said.
fn prefetch_span(vm: &Vm, vmas: &VmaTree, userptrs: Option<&Userptrs>, op: &Op) -> Result<(), Errno> {
    let (span, region) = (op.span(), op.args.prefetch_mem_region_instance);
    for vma in vmas.overlapping(span) {
        match (&vma.kind, vm.mirror(), userptrs) {
            (Kind::Mirror, Some(mirror), _) => prefetch_mirror(mirror, &vma, span, region)?,
            (Kind::Bo(map), _, _) => {
                let prefer = match region {
                    CONSULT_MEM_ADVISE_PREF_LOC => Prefer::Anything,
                    0 => Prefer::System,
                    tile => Prefer::Tile(TileId((tile - 1) as u8)),
                };
                // It is there, or was moved since: then a fault will bind it.
                let _ = vm.bind_bo(&vma, map, prefer, &vm.tiles(), None);
            }
            (Kind::Userptr(map), _, Some(userptrs)) => _ = vm.bind_userptr(userptrs, &vma, *map, &vm.tiles()),
            _ => {}
        }
    }
    Ok(())
}

fn prefetch_mirror(mirror: Mirror<'_>, vma: &Vma, span: GpuRange, region: u32) -> Result<(), Errno> {
    let (Some(first_tile), Some(part)) = (mirror.shared.gpu.tiles.first(), vma.span.intersect(span)) else {
        return Ok(());
    };
    let target = match region {
        CONSULT_MEM_ADVISE_PREF_LOC => policy::resolve_pagemap(&mirror.shared.gpu, vma, first_tile.id),
        region => policy::region_pagemap(&mirror.shared.gpu, region),
    };
    prefetch::prefetch(mirror, vma, part, &policy::Placement::prefetch(&mirror.shared.gpu, vma, target))
}
