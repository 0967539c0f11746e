//! MADVISE and VM_QUERY_MEM_RANGE_ATTRS: how a program wants spans treated, and what it is told of it.
//!
//! Advice changes VMAs, and clears the leaves of the ranges under them: pages move at the next fault. A range
//! that straddles an edge of the advice is removed, so that no range has two kinds of attributes.
//!
//! Locking: the VM's lock; then the notifier lock, to clear leaves.
//!
//! Upstream: `xe_vm_madvise_ioctl`, `xe_vm_query_vmas_attrs_ioctl`. Left out: purgeable BOs, other devices' VRAM.

use units::{GpuRange, GpuVa, HostRange, SZ_4K};
use xe_spec::pat;
use xe_uapi::attr::{
    ATOMIC_CPU, ATTR_ATOMIC, ATTR_PAT, ATTR_PREFERRED_LOC, ATTR_PURGEABLE, MIGRATE_ONLY_SYSTEM_PAGES, Madvise,
    MemRangeAttr, PREFERRED_LOC_DEFAULT_DEVICE, PREFERRED_LOC_DEFAULT_SYSTEM, VmQueryMemRangeAttr,
};

use super::stub::missing;
use super::{Reply, require};
use crate::errno::Errno;
use crate::file::File;
use crate::svm::{Svm, garbage};
use crate::vm::Vm;
use crate::vma::{Attr, Kind, Vma};

/// Advice.
#[derive(Clone, Copy)]
enum Advice {
    PreferredLoc { devmem_fd: u32, policy: u16 },
    Atomic(u32),
    Pat(u16),
}

/// MADVISE.
pub(super) fn madvise(file: &File, args: &mut Madvise) -> Reply {
    let vm = file.vm(args.vm_id).ok_or(Errno::EINVAL)?;
    let advice = parse(file, args)?;
    let span = span_of(args.start, args.range)?;
    let mut state = vm.state.lock();
    if state.closed {
        return Err(Errno::ENOENT);
    }
    if let Some(svm) = &vm.svm {
        garbage::collect(&vm.space, svm);
        remove_straddlers(&vm, svm, span);
    }
    state.vmas.advise(span, |attr| advice.apply(attr));
    let others = state.vmas.overlapping(span).into_iter().filter(|vma| vma.kind != Kind::Mirror);
    others.for_each(|vma| vm.unbind(vma.span, &vm.tiles()));
    if let Some(svm) = &vm.svm {
        vm.space.invalidate_span(svm, span.mirrored());
    }
    Ok(0)
}

fn span_of(start: u64, bytes: u64) -> Result<GpuRange, Errno> {
    let aligned = start.is_multiple_of(SZ_4K) && bytes.is_multiple_of(SZ_4K);
    require(aligned && bytes > 0 && start.checked_add(bytes).is_some())?;
    Ok(GpuRange::sized(GpuVa(start), bytes))
}

fn parse(file: &File, args: &Madvise) -> Result<Advice, Errno> {
    require(args.extensions == 0 && args.reserved == [0; 2])?;
    let (low, high) = (args.policy_region as u16, (args.policy_region >> 16) as u16);
    match args.attr {
        ATTR_PREFERRED_LOC => {
            let by_fd = !matches!(args.val, PREFERRED_LOC_DEFAULT_DEVICE | PREFERRED_LOC_DEFAULT_SYSTEM);
            require(by_fd || high == 0)?;
            require(u32::from(low) <= MIGRATE_ONLY_SYSTEM_PAGES && args.ptr == 0)?;
            if by_fd {
                return Err(missing(file, xe_uapi::ioctl::MADVISE, "preferred location by file descriptor"));
            }
            Ok(Advice::PreferredLoc { devmem_fd: args.val, policy: low })
        }
        ATTR_ATOMIC => {
            require(args.val <= ATOMIC_CPU && args.policy_region == 0 && args.ptr == 0)?;
            Ok(Advice::Atomic(args.val))
        }
        ATTR_PAT => {
            require((args.val as usize) < pat::PVC.len() && args.policy_region == 0 && args.ptr == 0)?;
            Ok(Advice::Pat(args.val as u16))
        }
        ATTR_PURGEABLE => Err(missing(file, xe_uapi::ioctl::MADVISE, "purgeable BO")),
        _ => Err(Errno::EINVAL),
    }
}

impl Advice {
    fn apply(self, attr: &mut Attr) {
        match self {
            Self::PreferredLoc { devmem_fd, policy } => {
                (attr.devmem_fd, attr.region, attr.migration_policy) = (devmem_fd, 0, policy);
            }
            Self::Atomic(value) => attr.atomic = value,
            Self::Pat(value) => attr.pat = value,
        }
    }
}

/// Removes the ranges that lie on both sides of an edge of `span`.
pub(super) fn remove_straddlers(vm: &Vm, svm: &Svm, span: GpuRange) {
    for edge in [span.start.mirrored(), span.end.mirrored()] {
        for key in svm.ranges_in(HostRange::sized(edge, SZ_4K)) {
            let straddles = svm.notifier_lock().range(key).is_some_and(|range| range.span().start < edge);
            if straddles {
                // Smaller ranges will follow; pages that stayed in VRAM could not be mapped by them.
                let _ = svm.range_evict(key);
                garbage::remove(&vm.space, svm, key);
            }
        }
    }
}

/// VM_QUERY_MEM_RANGE_ATTRS: first how many VMAs, then their attributes.
pub(super) fn query(file: &File, args: &mut VmQueryMemRangeAttr) -> Reply {
    const ENTRY: u64 = size_of::<MemRangeAttr>() as u64;
    require(args.extensions == 0 && args.reserved == [0; 2])?;
    let count_only = args.num_mem_ranges == 0;
    require(count_only == (args.vector_of_mem_attr == 0))?;
    require(args.sizeof_mem_range_attr == if count_only { 0 } else { ENTRY })?;
    let vm = file.vm(args.vm_id).ok_or(Errno::EINVAL)?;
    let span = span_of(args.start, args.range)?;
    let found: Vec<MemRangeAttr> = {
        let state = vm.state.lock();
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
