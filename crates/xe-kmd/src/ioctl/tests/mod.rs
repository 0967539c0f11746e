//! What a program sees: errno by errno, and what its calls do to a recorded device.

use units::{GpuRange, GpuVa, HostRange, HostVa, SZ_1G, SZ_2M, SZ_4K, SZ_64K, TileId};
use xe_spec::fault::{Access, Asid, FaultAck};
use xe_uapi::attr::*;
use xe_uapi::exec::{self, *};
use xe_uapi::gem::*;
use xe_uapi::ioctl as nr;
use xe_uapi::query::{self, *};
use xe_uapi::vm::{self, *};
use xe_uapi::{drm, *};

mod args;
mod bos;
mod defects;
mod faults;
mod integrated;
mod jobs;
mod pending;
mod primary;
mod queues;
mod rebind;
mod residency;
mod room;
mod scratch;

use crate::Errno;
use crate::event::{Event, Serviced};
use crate::testing::{Rig, USER};

const OK: Result<u32, Errno> = Ok(0);
const fn err(errno: Errno) -> Result<u32, Errno> {
    Err(errno)
}
const EINVAL: Result<u32, Errno> = err(Errno::EINVAL);
const ENOENT: Result<u32, Errno> = err(Errno::ENOENT);
/// Makes an argument wrong.
type Change<T> = fn(&mut T);
/// The whole of a VM.
const EVERYTHING: u64 = 1 << 57;
/// Where tests map memory.
const DATA: u64 = 0x7f00_0000_0000;

fn fault_vm(rig: &Rig) -> u32 {
    let mut args = VmCreate { flags: 6, ..Default::default() };
    assert_eq!(rig.ioctl(nr::VM_CREATE, &mut args), OK);
    args.vm_id
}

fn mirror_op() -> VmBindOp {
    VmBindOp { range: EVERYTHING, flags: BindFlags::CPU_ADDR_MIRROR.bits(), pat_index: 3, ..Default::default() }
}

fn bind(rig: &Rig, vm_id: u32, op: VmBindOp) -> Result<u32, Errno> {
    rig.ioctl(nr::VM_BIND, &mut VmBind { vm_id, num_binds: 1, bind: op, ..Default::default() })
}

/// A fault VM that mirrors everything.
fn mirrored(rig: &Rig) -> (u32, Asid) {
    let vm = fault_vm(rig);
    assert_eq!(bind(rig, vm, mirror_op()), OK);
    (vm, rig.file.vm(vm).unwrap().asid)
}

fn unmap_op(addr: u64, range: u64) -> VmBindOp {
    VmBindOp { op: BIND_OP_UNMAP, addr, range, ..Default::default() }
}

fn queue(rig: &Rig, vm_id: u32, class: u16, gt_id: u16) -> Result<u32, Errno> {
    rig.put(USER, &EngineClassInstance { engine_class: class, engine_instance: 0, gt_id, pad: 0 });
    let mut args = ExecQueueCreate { width: 1, num_placements: 1, vm_id, instances: USER, ..Default::default() };
    rig.ioctl(nr::EXEC_QUEUE_CREATE, &mut args).map(|_| args.exec_queue_id)
}

fn mapped(rig: &Rig, start: u64, bytes: u64) -> HostRange {
    let range = HostRange::sized(HostVa(start), bytes);
    rig.mm.mmap(range);
    range
}

fn refusal(rig: &Rig) -> Option<Errno> {
    let log = rig.log.0.lock();
    log.iter().rev().find_map(|event| match event {
        Event::Fault { outcome: Serviced::Refused(errno), .. } => Some(*errno),
        _ => None,
    })
}
