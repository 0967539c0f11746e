//! MADVISE and VM_QUERY_MEM_RANGE_ATTRS: how a program wants spans treated, and what it is told of it.
//!
//! Advice changes VMAs, and clears the leaves of the ranges under them: pages move at the next fault. A range
//! that straddles an edge of the advice is removed, so that no range has two kinds of attributes.
//!
//! Locking: the VM's lock; then the notifier lock, to clear leaves, or a BO's. Pointers of the program are followed without.
//!
//! Upstream: `xe_vm_madvise_ioctl`, `xe_vm_query_vmas_attrs_ioctl`.

use hostmm::PagemapId;
use units::{GpuRange, GpuVa, HostRange, SZ_4K};
use xe_spec::platform::Platform;
use xe_uapi::attr::{
    ATOMIC_CPU, ATOMIC_DEVICE, ATOMIC_GLOBAL, ATTR_ATOMIC, ATTR_PAT, ATTR_PREFERRED_LOC, ATTR_PURGEABLE,
    MIGRATE_ONLY_SYSTEM_PAGES, Madvise, MemRangeAttr, PREFERRED_LOC_DEFAULT_DEVICE, PREFERRED_LOC_DEFAULT_SYSTEM,
    PURGEABLE_DONTNEED, PURGEABLE_WILLNEED, VmQueryMemRangeAttr,
};
use xe_uapi::gem::CACHING_WC;
use xe_uapi::vm::CreateFlags;

use super::{Reply, require};
use crate::bo::Bo;
use crate::caller::Caller;
use crate::errno::Errno;
use crate::file::File;
use crate::svm::{Svm, garbage};
use crate::vm::Vm;
use crate::vma::{Kind, Vma};

/// Advice.
#[derive(Clone, Copy)]
enum Advice {
    PreferredLoc {
        devmem_fd: u32,
        region: u16,
        policy: u16,
        /// What the two name, once it is known.
        pagemap: Option<PagemapId>,
    },
    Atomic(u32),
    Pat(u16),
    /// Whether contents of BOs are needed.
    Purgeable(bool),
}

/// MADVISE.
pub(super) fn madvise(file: &File, args: &mut Madvise, caller: &dyn Caller) -> Reply {
    let vm = file.vm(args.vm_id).ok_or(Errno::EINVAL)?;
    let mut advice = parse(file.shared.platform(), args)?;
    let retained_at = if matches!(advice, Advice::Purgeable(_)) { args.ptr } else { 0 };
    if retained_at != 0 {
        require(file.shared.copy_in::<u32>(retained_at)? == 0)?;
    }
    if let Advice::PreferredLoc { devmem_fd, region, pagemap, .. } = &mut advice {
        *pagemap = find_place(file, caller, *devmem_fd, *region)?;
    }
    let retained = advise(&vm, span_of(&vm, args)?, advice)?;
    if retained_at != 0 {
        file.shared.copy_out(retained_at, &u32::from(retained))?;
    }
    Ok(0)
}

/// Gives the advice; false where contents of a BO are gone.
fn advise(vm: &Vm, span: GpuRange, advice: Advice) -> Result<bool, Errno> {
    let mut state = vm.state.write();
    if state.closed {
        return Err(Errno::ENOENT);
    }
    if let Some(svm) = &vm.svm {
        garbage::collect(&vm.space, svm, &mut state.vmas);
    }
    let vmas = state.vmas.overlapping(span);
    if let Advice::Purgeable(is_needed) = advice {
        let maps = || vmas.iter().filter_map(Vma::bo_map);
        let gone = maps().filter(|(span, map)| !map.advise(*span, is_needed)).count();
        if is_needed && vm.flags.contains(CreateFlags::SCRATCH_PAGE) {
            // Where it was touched meanwhile it shows the scratch page.
            maps().for_each(|(span, _)| vm.unbind(span, &vm.tiles()));
        }
        return Ok(gone == 0);
    }
    if let Advice::Atomic(value) = advice {
        let bos = || vmas.iter().filter_map(Vma::bo_map).map(|(_, map)| &map.bo);
        bos().try_for_each(|bo| check_atomic(vm.platform(), bo, value))?;
        bos().for_each(|bo| bo.leave_atomics_to_cpu(value == ATOMIC_CPU));
    }
    if let Advice::Pat(index) = advice {
        vmas.iter().try_for_each(|vma| check_coherence(vm.platform(), vma, index))?;
    }
    if let Some(svm) = &vm.svm {
        remove_straddlers(vm, svm, span);
    }
    state.vmas.advise(span, |vma| advice.apply(vm.platform(), vma));
    let others = state.vmas.overlapping(span).into_iter().filter(|vma| vma.kind != Kind::Mirror);
    let others = others.map(|vma| vma.span).chain(state.vmas.blocks_of(span));
    others.for_each(|span| vm.unbind(span, &vm.tiles()));
    if let Some(svm) = &vm.svm {
        vm.space.invalidate_span(svm, span.mirrored());
    }
    Ok(true)
}

/// The span that is advised, which may be named by canonical addresses. `EINVAL`: it ends beyond the VM.
fn span_of(vm: &Vm, args: &Madvise) -> Result<GpuRange, Errno> {
    let start = vm.strip(args.start);
    require(start.checked_add(args.range).is_some_and(|end| end <= vm.window().end.0))?;
    Ok(GpuRange::sized(GpuVa(start), args.range))
}

fn parse(platform: &Platform, args: &Madvise) -> Result<Advice, Errno> {
    require(args.start.is_multiple_of(SZ_4K) && args.range.is_multiple_of(SZ_4K) && args.range > 0)?;
    require(args.reserved == [0; 2])?;
    let (policy, region) = (args.policy_region as u16, (args.policy_region >> 16) as u16);
    match args.attr {
        ATTR_PREFERRED_LOC => {
            let fd = args.val as i32;
            require(fd >= PREFERRED_LOC_DEFAULT_SYSTEM as i32 && (fd > 0 || region == 0))?;
            require(u32::from(policy) <= MIGRATE_ONLY_SYSTEM_PAGES && args.ptr == 0)?;
            Ok(Advice::PreferredLoc { devmem_fd: args.val, region, policy, pagemap: None })
        }
        ATTR_ATOMIC => {
            require(args.val <= ATOMIC_CPU && args.policy_region == 0 && args.ptr == 0)?;
            Ok(Advice::Atomic(args.val))
        }
        ATTR_PAT => {
            require(platform.pat.entry(args.val).is_some() && args.policy_region == 0 && args.ptr == 0)?;
            Ok(Advice::Pat(args.val as u16))
        }
        ATTR_PURGEABLE => {
            require(args.val <= PURGEABLE_DONTNEED && args.policy_region == 0)?;
            Ok(Advice::Purgeable(args.val == PURGEABLE_WILLNEED))
        }
        _ => Err(Errno::EINVAL),
    }
}

/// A location by a device's descriptor is a region of that device's VRAM; by the two defaults it is `None`. `ENOENT`: there is
/// no such device, or region; `ENOLINK`: this device may not see its pages.
///
/// Upstream: `xe_drm_pagemap_from_fd`, `xe_madvise_details_init`.
fn find_place(file: &File, caller: &dyn Caller, devmem_fd: u32, region: u16) -> Result<Option<PagemapId>, Errno> {
    if matches!(devmem_fd, PREFERRED_LOC_DEFAULT_DEVICE | PREFERRED_LOC_DEFAULT_SYSTEM) {
        return Ok(None);
    }
    let place = caller.location(devmem_fd as i32, region).ok_or(Errno::ENOENT)?;
    let pagemap = place.pagemap.ok_or(Errno::ENOENT)?;
    if place.owner != file.shared.gpu.interconnect.owner() {
        return Err(Errno::ENOLINK);
    }
    Ok(Some(pagemap))
}

/// Whether a BO may be where atomics of a kind need it. Upstream: `check_bo_args_are_sane`.
fn check_atomic(platform: &Platform, bo: &Bo, value: u32) -> Result<(), Errno> {
    let (vram, system) = (bo.may_be_in_vram(), bo.may_be_in_system());
    require(match value {
        ATOMIC_CPU => system,
        ATOMIC_DEVICE => vram || system && platform.device_atomics_on_smem,
        ATOMIC_GLOBAL => vram && system,
        _ => true,
    })
}

/// An integrated GPU past the CPU's caches would read what was there before: what is cached is not mapped so.
///
/// Upstream: `check_pat_args_are_sane`.
fn check_coherence(platform: &Platform, vma: &Vma, index: u16) -> Result<(), Errno> {
    let is_coherent = platform.pat.entry(index.into()).is_some_and(|pat| pat.coherent);
    require(match &vma.kind {
        _ if is_coherent || platform.has_vram() => true,
        Kind::Mirror | Kind::Userptr(_) => false,
        _ => vma.bo_map().is_none_or(|(_, map)| map.bo.config.caching == CACHING_WC),
    })
}

impl Advice {
    /// A location is for mirrors, and atomics of the device are for memory that it can do them on.
    fn apply(self, platform: &Platform, vma: &mut Vma) {
        match self {
            Self::PreferredLoc { devmem_fd, policy, pagemap, .. } if vma.kind == Kind::Mirror => {
                (vma.attr.devmem_fd, vma.attr.pagemap, vma.attr.migration_policy) = (devmem_fd, pagemap, policy);
            }
            Self::Atomic(value) => {
                let is_user = matches!(vma.kind, Kind::Userptr(_));
                if !is_user || value == ATOMIC_DEVICE && platform.device_atomics_on_smem {
                    vma.attr.atomic = value;
                }
            }
            Self::Pat(value) => vma.attr.pat = value,
            Self::PreferredLoc { .. } | Self::Purgeable(_) => {}
        }
    }
}

/// Removes the ranges that lie on both sides of an edge of `span`.
///
/// Upstream: `xe_svm_unmap_address_range`.
pub(super) fn remove_straddlers(vm: &Vm, svm: &Svm, span: GpuRange) {
    for edge in [span.start.mirrored(), span.end.mirrored()] {
        for key in svm.ranges_in(HostRange::sized(edge, SZ_4K)) {
            let seen = svm.notifier_lock().range(key).map(|it| (it.span().start < edge, it.pages().has_devmem_pages()));
            let Some((true, is_marked)) = seen else { continue };
            // Smaller ranges will follow; pages that stayed in VRAM could not be mapped by them.
            if is_marked || !vm.shared.gpu.rules.unfit_vram.cuts_by_mark {
                let _ = svm.range_evict(key);
            }
            garbage::remove(&vm.space, svm, key);
        }
    }
}

/// VM_QUERY_MEM_RANGE_ATTRS: first how many VMAs, then their attributes. Upstream does not look at the span: it may end anywhere,
/// and where it has no bytes, or wraps, only a VMA on both sides of its end and its start is found.
pub(super) fn query(file: &File, args: &mut VmQueryMemRangeAttr) -> Reply {
    const ENTRY: u64 = size_of::<MemRangeAttr>() as u64;
    /// Upstream has them all in one allocation.
    const MAX_TOLD: u64 = i32::MAX as u64 / ENTRY;
    let count_only = args.num_mem_ranges == 0;
    require(count_only == (args.vector_of_mem_attr == 0))?;
    require(args.sizeof_mem_range_attr == if count_only { 0 } else { ENTRY })?;
    let vm = file.vm(args.vm_id).ok_or(Errno::EINVAL)?;
    if u64::from(args.num_mem_ranges) > MAX_TOLD {
        return Err(Errno::ENOBUFS);
    }
    let span = GpuRange::new(GpuVa(args.start), GpuVa(args.start.wrapping_add(args.range)));
    let found: Vec<MemRangeAttr> = {
        let state = vm.state.read();
        if state.closed {
            return Err(Errno::ENOENT);
        }
        state.vmas.overlapping(span).iter().map(describe).collect()
    };
    if !count_only {
        if found.len() > args.num_mem_ranges as usize {
            return Err(Errno::ENOSPC);
        }
        file.shared.copy_out(args.vector_of_mem_attr, found.as_slice())?;
    }
    args.num_mem_ranges = found.len() as u32;
    args.sizeof_mem_range_attr = ENTRY;
    Ok(0)
}

fn describe(vma: &Vma) -> MemRangeAttr {
    MemRangeAttr {
        start: vma.span.start.0,
        end: vma.span.end.0,
        devmem_fd: vma.attr.devmem_fd,
        migration_policy: u32::from(vma.attr.migration_policy),
        atomic_val: vma.attr.atomic,
        pat_val: u32::from(vma.attr.pat),
        ..MemRangeAttr::default()
    }
}
