//! VM_CREATE, VM_DESTROY, VM_GET_PROPERTY.
//!
//! Upstream: `xe_vm_create_ioctl`, `xe_vm_destroy_ioctl`, `xe_vm_get_property_ioctl`.

use xe_spec::fault::{Access, FaultRecord, FaultType};
use xe_uapi::vm::{CreateFlags, PROPERTY_FAULTS, VmCreate, VmDestroy, VmFault, VmGetProperty};

use super::{Reply, require};
use crate::errno::Errno;
use crate::file::File;
use crate::vm::Vm;

/// VM_CREATE.
pub(super) fn create(file: &File, args: &mut VmCreate) -> Reply {
    require(args.extensions == 0 && args.reserved == [0; 2])?;
    let flags = CreateFlags::from_bits(args.flags).ok_or(Errno::EINVAL)?;
    let faults = flags.contains(CreateFlags::FAULT_MODE);
    let has_both = file.shared.platform().scratch_with_faults;
    require(has_both || !(faults && flags.contains(CreateFlags::SCRATCH_PAGE)))?;
    require(!faults || flags.contains(CreateFlags::LR_MODE))?;
    require(faults || !flags.contains(CreateFlags::NO_VM_OVERCOMMIT))?;
    let vm = Vm::create(&file.shared, &file.vms, flags)?;
    args.vm_id = file.add_vm(&vm).inspect_err(|_| vm.close())?;
    Ok(0)
}

/// VM_DESTROY.
pub(super) fn destroy(file: &File, args: &mut VmDestroy) -> Reply {
    require(args.pad == 0 && args.reserved == [0; 2])?;
    let vm = {
        let mut names = file.names.lock();
        let vm = names.vms.get(args.vm_id).ok_or(Errno::ENOENT)?;
        // Without faults, such queues are preempted for a change of mappings: the VM must outlive them.
        if vm.is_preempt_mode() && names.queues.values().any(|queue| queue.is_engine_of(&vm)) {
            return Err(Errno::EBUSY);
        }
        names.vms.remove(args.vm_id);
        vm
    };
    vm.close();
    Ok(0)
}

/// VM_GET_PROPERTY: the faults that were refused.
pub(super) fn get_property(file: &File, args: &mut VmGetProperty) -> Reply {
    require(args.extensions == 0 && args.pad == 0 && args.reserved == [0; 3])?;
    let vm = file.vm(args.vm_id).ok_or(Errno::ENOENT)?;
    require(args.property == PROPERTY_FAULTS)?;
    let faults: Vec<VmFault> = vm.faults.lock().iter().map(|record| describe(&vm, record)).collect();
    let bytes = size_of_val(faults.as_slice());
    if args.size == 0 {
        args.size = bytes as u32;
        return Ok(0);
    }
    let size = args.size as usize;
    require(size <= bytes && size.is_multiple_of(size_of::<VmFault>()))?;
    file.shared.copy_out(args.data, &faults[..size / size_of::<VmFault>()])?;
    Ok(0)
}

fn describe(vm: &Vm, record: &FaultRecord) -> VmFault {
    let access_type = match record.access {
        Access::Read => 0,
        Access::Write => 1,
        Access::Atomic => 2,
    };
    let fault_type = match record.fault_type {
        FaultType::NotPresent | FaultType::Malformed => 0,
        FaultType::WriteViolation => 1,
        FaultType::AtomicViolation => 2,
    };
    let (address, fault_level) = (vm.canonical(record.addr.page().0), record.level);
    VmFault { address, address_precision: 4096, access_type, fault_type, fault_level, ..VmFault::default() }
}
