//! Serving one fault: whose it is, what lies at its address, who handles that, and the answer.
//!
//! Success lets the stalled access be tried again. Failure kills the context; that the queue is banned for it
//! is learnt from the device's own report ([`Device::context_killed`](crate::Device::context_killed)).
//!
//! Locking: shares the VM's lock for all of it; answers without. Where page tables run out it lets go of the lock, has
//! all VMs swept, and tries once more; where a collection changes VMAs it lets go for that, too.
//!
//! Upstream: `xe_pagefault_queue_work`, `xe_pagefault_service`, `xe_pagefault_handle_vma`, `guc_ack_fault`,
//! `xe_vm_add_fault_entry_pf`.

use sync::time::now_ns;
use units::{GpuRange, GpuVa, SZ_2M, SZ_4K};
use xe_spec::fault::{Access, FaultAck, FaultRecord, FaultType};
use xe_uapi::vm::CreateFlags;

use crate::errno::Errno;
use crate::event::{Event, Serviced};
use crate::exec_queue::Queues;
use crate::fault_queue::Queued;
use crate::shared::Shared;
use crate::svm::handler::{self, Fault, Handled};
use crate::vm::{Vm, VmState, Vms};
use crate::vma::Kind;

/// Serves a fault and answers it.
pub(crate) fn service(shared: &Shared, vms: &Vms, queues: &Queues, fault: &Queued) {
    ack(shared, fault, serve(vms, queues, &fault.record));
}

fn serve(vms: &Vms, queues: &Queues, record: &FaultRecord) -> Result<Serviced, Errno> {
    let vm = vms.find(record.asid).ok_or(Errno::EINVAL)?;
    let mut served = serve_in(&vm, record);
    if served == Err(Errno::ENOMEM) {
        // Page tables may be held for memory that is gone, in any VM.
        vms.sweep();
        served = serve_in(&vm, record);
    }
    let gets_on = |outcome| match queues.of(record.slot.context) {
        Some(queue) => queue.makes_progress(record.addr, outcome),
        None => true,
    };
    let outcome = served.and_then(|outcome| if gets_on(outcome) { Ok(outcome) } else { Err(Errno::EFAULT) });
    if outcome.is_err() {
        vm.note_fault(record);
    }
    outcome
}

fn serve_in(vm: &Vm, record: &FaultRecord) -> Result<Serviced, Errno> {
    loop {
        let handled = serve_beside(vm, &vm.state.read(), record)?;
        match handled {
            Handled::Served(outcome) => return Ok(outcome),
            Handled::CollectFirst => vm.collect(),
        }
    }
}

/// What a scratch page is shown over: 2M where nothing else is, so that a batch that runs astray does not use up the tables.
fn hole_around(state: &VmState, addr: GpuVa) -> GpuRange {
    let large = GpuRange::around(addr, SZ_2M);
    let is_hole = state.vmas.overlapping(large).is_empty() && state.pending_in(large).next().is_none();
    if is_hole { large } else { GpuRange::around(addr, SZ_4K) }
}

fn serve_beside(vm: &Vm, state: &VmState, record: &FaultRecord) -> Result<Handled, Errno> {
    if record.fault_type == FaultType::Malformed {
        return Err(Errno::EFAULT);
    }
    if state.closed {
        return Err(Errno::ENOENT);
    }
    let fault = Fault { tile: record.slot.engine.tile, addr: record.addr, access: record.access };
    let scratch = |hole: GpuRange| match vm.flags.contains(CreateFlags::SCRATCH_PAGE) {
        true => vm.fault_scratch(&fault, hole).map(Handled::Served),
        false => Err(Errno::EINVAL),
    };
    let Some(vma) = state.vmas.find(record.addr) else {
        return scratch(hole_around(state, record.addr));
    };
    if vma.read_only && record.access != Access::Read {
        return Err(Errno::EPERM);
    }
    if !vm.has_faults() && state.pending_in(GpuRange::sized(fault.addr.page(), SZ_4K)).next().is_some() {
        // Its bind has not happened yet, whatever the VMAs say.
        return scratch(GpuRange::around(fault.addr, SZ_4K));
    }
    if let (Kind::Mirror, Some(mirror)) = (&vma.kind, vm.mirror()) {
        vm.sweep.turn(mirror.space, mirror.svm, vm.window().mirrored());
        return handler::handle(mirror, &state.vmas, &fault);
    }
    vm.shared.gpu.emit(Event::VmaFault { tile: fault.tile, bytes: vma.span.len() });
    let served = match (&vma.kind, vm.mirror()) {
        (Kind::Null, _) => vm.fault_null(&vma, &fault),
        (Kind::Bo(map), _) => vm.fault_bo(&vma, map, &fault),
        (Kind::Userptr(map), _) => {
            let userptrs = state.userptrs.as_ref().ok_or(Errno::EINVAL)?;
            vm.fault_userptr(userptrs, &vma, *map, &fault)
        }
        (Kind::Mirror, _) => Err(Errno::EINVAL),
    };
    served.map(Handled::Served)
}

/// Answers a fault by its outcome.
fn ack(shared: &Shared, fault: &Queued, outcome: Result<Serviced, Errno>) {
    let record = &fault.record;
    let (ack, outcome) = match outcome {
        Ok(outcome) => (FaultAck::Replay, outcome),
        Err(errno) => (FaultAck::Kill, Serviced::Refused(errno)),
    };
    shared.gpu.emit(Event::Fault {
        asid: record.asid,
        tile: record.slot.engine.tile,
        engine: record.slot.engine,
        context: record.slot.context,
        addr: record.addr,
        access: record.access,
        outcome,
        ns: now_ns() - fault.since_ns,
    });
    if (shared.gpu.rules.answers)(ack) {
        shared.gpu.hw.fault_ack(record.slot, ack);
    }
}
