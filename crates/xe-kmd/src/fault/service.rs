//! Serving one fault: whose it is, what lies at its address, and who handles that.
//!
//! Locking: takes the VM's lock for all of it; answers without. Where page tables run out it lets go of the lock, has
//! all VMs swept, and tries once more.
//!
//! Upstream: `xe_pagefault_service`, `xe_pagefault_handle_vma`, `xe_vm_add_fault_entry_pf`.

use xe_spec::fault::{Access, FaultRecord, FaultType};
use xe_uapi::vm::CreateFlags;

use super::ack::ack;
use super::queue::Queued;
use crate::device::Device;
use crate::errno::Errno;
use crate::event::Serviced;
use crate::svm::handler::{self, Fault};
use crate::vm::{Vm, VmState};
use crate::vma::Kind;

/// Serves a fault and answers it.
pub(crate) fn service(device: &Device, fault: &Queued) {
    let outcome = serve(device, &fault.record);
    ack(&device.gpu, fault, outcome);
}

fn serve(device: &Device, record: &FaultRecord) -> Result<Serviced, Errno> {
    let vm = device.vm_of(record.asid).ok_or(Errno::EINVAL)?;
    let mut served = serve_in(&vm, &mut vm.state.lock(), record);
    if served == Err(Errno::ENOMEM) {
        // Page tables may be held for memory that is gone, in any VM.
        device.sweep();
        served = serve_in(&vm, &mut vm.state.lock(), record);
    }
    let gets_on = |outcome| match device.queue_of(record.slot.context) {
        Some(queue) => queue.makes_progress(record.addr, outcome),
        None => true,
    };
    let outcome = served.and_then(|outcome| if gets_on(outcome) { Ok(outcome) } else { Err(Errno::EFAULT) });
    if outcome.is_err() {
        vm.state.lock().note_fault(record);
    }
    outcome
}

fn serve_in(vm: &Vm, state: &mut VmState, record: &FaultRecord) -> Result<Serviced, Errno> {
    if record.fault_type == FaultType::Malformed {
        return Err(Errno::EFAULT);
    }
    if !vm.flags.contains(CreateFlags::FAULT_MODE) {
        return Err(Errno::EINVAL);
    }
    if state.closed {
        return Err(Errno::ENOENT);
    }
    let vma = state.vmas.find(record.addr).ok_or(Errno::EINVAL)?;
    if vma.read_only && record.access != Access::Read {
        return Err(Errno::EPERM);
    }
    let fault = Fault { tile: record.slot.engine.tile, addr: record.addr, access: record.access };
    match (vma.kind, &vm.svm) {
        (Kind::Mirror, Some(svm)) => {
            state.sweep.turn(&vm.space, svm, vm.window().mirrored());
            handler::handle(vm, svm, state, &fault)
        }
        (Kind::Null, _) => vm.bind_null(&vma, &fault),
        (Kind::Mirror, None) => Err(Errno::EINVAL),
    }
}
