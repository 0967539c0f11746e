//! Binding of what is no mirror: BOs, userptrs and NULL become leaves, when they are bound or at a fault.
//!
//! A bind takes the whole VMA, on the tiles that ask for it. A VM that serves no faults has everything bound by its
//! binds. Where an eviction or a cut through a large leaf took leaves away, they come back at the next touch in every VM:
//! upstream, without faults, binds such VMAs again before the next job, having preempted or waited for those that run. A VM with
//! dma-fences does so here, too, for BOs that may be in VRAM only ([`Vm::validate`]).
//!
//! A BO is placed where all tiles reach it that it is bound for: in system memory where no VRAM will do. Where it may not be
//! there, bind or fault is refused. (Upstream has no tile that does not reach all VRAM of its device.)
//!
//! Locking: the VM's lock is held, for a fault or a prefetch shared; takes a BO's and below.
//!
//! Upstream: `xe_vma_rebind`, `xe_pagefault_begin`, `xe_pt_update_ops_run`, `xe_vm_ops_execute` (prefetch).

use sync::time::now_ns;
use units::{GpuRange, SZ_2M, SZ_4K, TileId};
use xe_spec::fault::{Access, Asid};
use xe_uapi::attr;
use xe_uapi::vm::{CONSULT_MEM_ADVISE_PREF_LOC, CreateFlags};

use crate::bo::{Bo, BoMap, Placed, Prefer, Standing};
use crate::errno::Errno;
use crate::event::{Event, Serviced};
use crate::pt::build::{self, PlanError, Run, null_runs};
use crate::svm::handler::Fault;
use crate::svm::policy;
use crate::svm::userptr::Userptrs;
use crate::vm::{Vm, VmState};
use crate::vma::{Kind, UserMap, Vma};

impl Vm {
    /// Serves a fault of a BO's span. An atomic wants it in VRAM.
    pub(crate) fn fault_bo(&self, vma: &Vma, map: &BoMap, fault: &Fault) -> Result<Serviced, Errno> {
        if map.bo.standing() != Standing::Needed {
            let has_scratch = self.flags.contains(CreateFlags::SCRATCH_PAGE);
            let page = GpuRange::around(fault.addr, SZ_4K);
            return if has_scratch { self.fault_scratch(fault, page) } else { Err(Errno::EACCES) };
        }
        let atomic = fault.access == Access::Atomic;
        let may = self.access_of(vma);
        let needs_vram = atomic && !self.does_atomics_on_system(may);
        let refuses = map.bo.has_cpu_atomics() || !may.atomic_vram;
        if atomic && refuses || needs_vram && !map.bo.may_be_in_vram() {
            return Err(Errno::EACCES);
        }
        let prefer = if needs_vram { Prefer::Vram(fault.tile) } else { Prefer::Anything };
        let placed = map.bo.placed_for(&[fault.tile], prefer, None)?;
        if needs_vram && placed.tile().is_none() {
            return Err(Errno::ENOMEM);
        }
        self.bind_placed(vma, map, placed, &[fault.tile])?;
        Ok(Serviced::Resolved)
    }

    /// Its tiles.
    pub(crate) fn tiles(&self) -> Vec<TileId> {
        self.shared.gpu.tiles.iter().map(|tile| tile.id).collect()
    }

    /// Binds a BO's span on `tiles`, with the BO where `prefer` says; not where its contents are not needed. Tiles that do not
    /// reach where it is to go are left out: a fault of theirs fetches it. `EOPNOTSUPP`: it may be nowhere that all reach.
    pub(crate) fn bind_bo(
        &self,
        vma: &Vma,
        map: &BoMap,
        prefer: Prefer,
        tiles: &[TileId],
        spare: Option<Asid>,
    ) -> Result<(), Errno> {
        let gpu = &self.shared.gpu;
        let target = if let Prefer::Tile(tile) = prefer { gpu.pagemap(tile) } else { None };
        let reaches = |tile: &TileId| target.is_none_or(|target| gpu.reaches(*tile, target));
        let tiles: Vec<_> = tiles.iter().copied().filter(reaches).collect();
        match map.bo.placed_for(&tiles, prefer, spare) {
            Ok(placed) => self.bind_placed(vma, map, placed, &tiles),
            Err(Errno::EACCES) => Ok(()),
            Err(errno) => Err(errno),
        }
    }

    /// Moves a BO to where a PREFETCH wants it: region 0 is system memory, 1 + n tile n, -1 the first VRAM that it may be in. VRAM that
    /// not all tiles reach is left to a bind's choice, as is another device's BO. `ENOMEM`: there is no room.
    ///
    /// Upstream: `xe_bo_migrate`.
    pub(crate) fn migrate_bo(&self, bo: &Bo, region: u32) -> Result<(), Errno> {
        let vram = bo.config.placement & !1;
        let first = if vram == 0 { 0 } else { vram.trailing_zeros() };
        let region = if region == CONSULT_MEM_ADVISE_PREF_LOC { first } else { region };
        if bo.is_imported() {
            return Ok(());
        }
        let Some(tile) = region.checked_sub(1).map(|tile| TileId(tile as u8)) else {
            let placed = bo.placed_for(&self.tiles(), Prefer::System, None)?;
            return if placed.tile().is_none() { Ok(()) } else { Err(Errno::ENOMEM) };
        };
        match bo.placed_for(&self.tiles(), Prefer::Exactly(tile), None) {
            Ok(_) | Err(Errno::EOPNOTSUPP) => Ok(()),
            Err(errno) => Err(errno),
        }
    }

    /// Brings back the BOs that were evicted since the last time and may be in VRAM only, and spares all that the VM shows. One that may
    /// be in system memory comes back at a touch, and so does what a bind has still to do. `ENOMEM`: there is no room for all of them.
    /// The caller holds the VM's lock, as `state` says.
    ///
    /// Upstream: `xe_vm_validate_rebind`.
    pub(crate) fn validate(&self, state: &VmState) -> Result<(), Errno> {
        if !self.space.lost.swap(false) {
            return Ok(());
        }
        let mut evicted = state.vmas.overlapping(self.window()).into_iter().filter(|vma| {
            let is_away = |map: &BoMap| !map.bo.may_be_in_system() && !map.bo.region().1;
            vma.bo_map().is_some_and(|(_, map)| is_away(map)) && state.pending_in(vma.span).next().is_none()
        });
        let bind = |vma: Vma| match &vma.kind {
            Kind::Bo(map) => self.bind_bo(&vma, map, Prefer::Anything, &self.tiles(), Some(self.asid)),
            _ => Ok(()),
        };
        evicted.try_for_each(bind).inspect_err(|_| self.space.lost.store(true))
    }

    fn bind_placed(&self, vma: &Vma, map: &BoMap, placed: Placed<'_>, tiles: &[TileId]) -> Result<(), Errno> {
        let access = self.access_of_bo(vma, &map.bo);
        let (placed, runs) = match build::plan(&placed.segments(map, vma.span), access, self.shared.gpu.granule()) {
            Ok(runs) => (placed, runs),
            Err(PlanError::Granule) => {
                placed.stay_in_system();
                let placed = map.bo.placed(Prefer::System)?;
                let runs = build::plan(&placed.segments(map, vma.span), access, self.shared.gpu.granule());
                (placed, runs.map_err(|PlanError::Granule| Errno::EFAULT)?)
            }
        };
        // With the BO in its place, so that no eviction comes between its address and the leaf.
        tiles.iter().try_for_each(|tile| self.write_leaves(*tile, vma.span, &runs))?;
        placed.touch();
        Ok(())
    }

    /// Serves a fault of a userptr's span. Atomics need system memory that takes them: a userptr's pages never go to VRAM for one.
    pub(crate) fn fault_userptr(
        &self,
        userptrs: &Userptrs,
        vma: &Vma,
        map: UserMap,
        fault: &Fault,
    ) -> Result<Serviced, Errno> {
        let access = self.access_of(vma);
        if fault.access == Access::Atomic && !self.does_atomics_on_system(access) {
            return Err(Errno::EACCES);
        }
        userptrs.bind(vma.span, map, fault.addr, access, &[fault.tile])?;
        Ok(Serviced::Resolved)
    }

    /// Binds all of a userptr's span on `tiles`. `EFAULT`: there is no memory.
    pub(crate) fn bind_userptr(
        &self,
        userptrs: &Userptrs,
        vma: &Vma,
        map: UserMap,
        tiles: &[TileId],
    ) -> Result<(), Errno> {
        userptrs.bind_all(vma.span, map, self.access_of(vma), tiles)
    }

    /// Whether an atomic on system memory gets done: a leaf that allows it is not enough where the device cannot.
    fn does_atomics_on_system(&self, access: build::Access) -> bool {
        access.atomic_system && self.platform().device_atomics_on_smem
    }

    /// What leaves of no mirror allow: without faults, atomics are not told apart.
    fn access_of(&self, vma: &Vma) -> build::Access {
        let mut access = policy::leaf_access(self.platform(), vma);
        access.atomic_system |= !self.has_faults();
        access
    }

    /// What leaves of a BO allow. One that has nowhere else to go keeps atomics where it is; a fault of one wants VRAM all the same.
    ///
    /// Upstream: `xe_atomic_for_system`, `xe_vma_need_vram_for_atomic`.
    fn access_of_bo(&self, vma: &Vma, bo: &Bo) -> build::Access {
        let mut access = self.access_of(vma);
        let stays = bo.config.placement.count_ones() == 1 && self.platform().device_atomics_on_smem;
        access.atomic_system |= stays && vma.attr.atomic != attr::ATOMIC_CPU;
        access
    }

    /// Binds the part of a NULL span around a fault. Atomics on it are refused, as no leaf of it allows them.
    pub(crate) fn fault_null(&self, vma: &Vma, fault: &Fault) -> Result<Serviced, Errno> {
        if fault.access == Access::Atomic {
            return Err(Errno::EACCES);
        }
        let block = GpuRange::around(fault.addr, SZ_2M).intersect(vma.span).ok_or(Errno::EINVAL)?;
        self.write_leaves(fault.tile, block, &null_runs(block, !vma.read_only, false))?;
        Ok(Serviced::Resolved)
    }

    /// An address where nothing is, in a VM that was made with a scratch page: reads zeros; writes and atomics are dropped.
    /// It is shown over `hole`.
    pub(crate) fn fault_scratch(&self, fault: &Fault, hole: GpuRange) -> Result<Serviced, Errno> {
        self.write_leaves(fault.tile, hole, &null_runs(hole, true, true))?;
        Ok(Serviced::Resolved)
    }

    fn write_leaves(&self, tile: TileId, span: GpuRange, runs: &[Run]) -> Result<(), Errno> {
        let start = now_ns();
        let done = loop {
            let staged = self.space.stage(tile, runs)?;
            if let Some(done) = self.space.commit(tile, runs, staged) {
                break done;
            }
        };
        if done.replaced {
            self.shared.gpu.flush(tile, self.asid, span);
        }
        let (asid, leaves, ns) = (self.asid, done.leaves, now_ns() - start);
        self.shared.gpu.emit(Event::Bind { asid, tile, span, leaves, ns });
        Ok(())
    }

    /// Takes a span out of the page tables of `tiles`, and the tables that are empty then.
    pub(crate) fn unbind(&self, span: GpuRange, tiles: &[TileId]) {
        for tile in tiles {
            self.space.zap(*tile, span);
            self.shared.gpu.flush(*tile, self.asid, span);
        }
        self.space.prune(span);
    }
}
