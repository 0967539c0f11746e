//! EXEC_QUEUE_CREATE, _DESTROY, _GET_PROPERTY, _SET_PROPERTY.
//!
//! Priority and timeslice go to the hardware with the context; a queue of binds has neither, though it may be given
//! them. No engine of the platforms here runs several contexts in step (a width above 1), as upstream has it: its
//! mask of such classes names the video engines of these platforms only.
//!
//! Upstream: `xe_exec_queue_create_ioctl`, `xe_exec_queue_destroy_ioctl`, `xe_exec_queue_get_property_ioctl`,
//! `xe_exec_queue_set_property_ioctl`.

use std::sync::Arc;

use xe_spec::fault::{EngineClass, EngineId};
use xe_spec::platform::Platform;
use xe_spec::share::{Priority, Share};
use xe_uapi::exec::{
    CLASS_COMPUTE, CLASS_COPY, CLASS_RENDER, CLASS_VM_BIND, ExecQueueCreate, ExecQueueDestroy, ExecQueueGetProperty,
    ExecQueueSetProperty, MAX_ENGINE_INSTANCE, QUEUE_EXTENSION_SET_PROPERTY, QUEUE_GET_PROPERTY_BAN,
    QUEUE_LOW_LATENCY_HINT, QUEUE_PROPERTY_MULTI_QUEUE_PRIORITY, QUEUE_PROPERTY_PRIORITY, QUEUE_PROPERTY_TIMESLICE,
};
use xe_uapi::query::EngineClassInstance;
use xe_uapi::{ExtSetProperty, UserExtension};

use super::stub::missing;
use super::{Reply, require};
use crate::engine_class::ClassSchedule;
use crate::errno::Errno;
use crate::exec_queue::ExecQueue;
use crate::file::File;
use crate::vm::Vm;
use units::TileId;

/// Extensions in one chain.
const MAX_EXTENSIONS: usize = 16;
/// Priorities by their number.
const PRIORITIES: [Priority; Priority::COUNT] = [Priority::Low, Priority::Normal, Priority::High];
/// The highest priority that the caller may ask for: high is for those who may raise their own.
pub(super) fn max_priority(file: &File) -> u64 {
    if file.shared.may_raise_priority() { 2 } else { 1 }
}

/// EXEC_QUEUE_CREATE.
pub(super) fn create(file: &File, args: &mut ExecQueueCreate) -> Reply {
    require(args.flags & !QUEUE_LOW_LATENCY_HINT == 0 && args.reserved == [0; 2])?;
    let engines = usize::from(args.width) * usize::from(args.num_placements);
    require((1..=MAX_ENGINE_INSTANCE).contains(&engines))?;
    let engines: Vec<EngineClassInstance> = file.shared.copy_in_vec(args.instances, engines)?;
    require(usize::from(engines[0].gt_id) < file.shared.platform().tiles.len())?;
    let queue = if engines[0].engine_class == CLASS_VM_BIND {
        bind_queue(file, args, &engines)?
    } else {
        engine_queue(file, args, &engines)?
    };
    args.exec_queue_id = file.add_queue(&queue).inspect_err(|_| queue.close())?;
    Ok(0)
}

fn bind_queue(file: &File, args: &ExecQueueCreate, engines: &[EngineClassInstance]) -> Result<Arc<ExecQueue>, Errno> {
    require(args.width == 1 && args.num_placements == 1 && engines[0].engine_instance == 0)?;
    let vm = open_vm(file, args.vm_id)?;
    read_share(file, args.extensions, ClassSchedule::default())?;
    Ok(ExecQueue::bind(vm, &file.queues))
}

fn engine_queue(file: &File, args: &ExecQueueCreate, engines: &[EngineClassInstance]) -> Result<Arc<ExecQueue>, Errno> {
    let first = &engines[0];
    require(engines.iter().all(|one| (one.engine_class, one.gt_id, one.pad) == (first.engine_class, first.gt_id, 0)))?;
    let known: Result<Vec<_>, _> = engines.iter().map(|one| engine_id(file.shared.platform(), one)).collect();
    let placement = known?;
    if args.width > 1 {
        return Err(Errno::EOPNOTSUPP);
    }
    let vm = open_vm(file, args.vm_id)?;
    let EngineId { tile, class, .. } = *placement.first().ok_or(Errno::EINVAL)?;
    let schedule = file.shared.classes.get(tile, class);
    let share = read_share(file, args.extensions, schedule)?;
    ExecQueue::engine(vm, &file.queues, &placement, share, schedule.job_timeout_ns())
}

fn open_vm(file: &File, id: u32) -> Result<Arc<Vm>, Errno> {
    let vm = file.vm(id).ok_or(Errno::ENOENT)?;
    let closed = vm.state.read().closed;
    if closed { Err(Errno::ENOENT) } else { Ok(vm) }
}

/// The number that programs have for a class.
pub(super) const fn uapi_class(class: EngineClass) -> u16 {
    match class {
        EngineClass::Render => CLASS_RENDER,
        EngineClass::Copy => CLASS_COPY,
        EngineClass::Compute => CLASS_COMPUTE,
    }
}

/// The engine of that name, if programs may use it.
pub(super) fn engine_id(platform: &Platform, engine: &EngineClassInstance) -> Result<EngineId, Errno> {
    let known = EngineClass::ALL.into_iter().find(|class| uapi_class(*class) == engine.engine_class);
    let class = known.ok_or(Errno::EINVAL)?;
    let count = platform.engines_of(class);
    require(engine.engine_instance < count && usize::from(engine.gt_id) < platform.tiles.len())?;
    Ok(EngineId { tile: TileId(engine.gt_id as u8), class, instance: engine.engine_instance })
}

/// Walks the chain of extensions: what each sets of a share, which begins as the class has it.
fn read_share(file: &File, mut next: u64, schedule: ClassSchedule) -> Result<Share, Errno> {
    let mut share = Share { priority: Priority::Normal, timeslice_us: schedule.timeslice_us.into() };
    for _ in 0..MAX_EXTENSIONS {
        if next == 0 {
            return Ok(share);
        }
        let ext = read_property(file, next)?;
        set_property(file, &ext, schedule, &mut share)?;
        next = ext.base.next_extension;
    }
    Err(Errno::E2BIG)
}

/// Reads an extension once, whole: the program may change it meanwhile. One of another kind may be shorter, and be the
/// last before memory ends: so its head is judged by itself where the whole cannot be read.
fn read_property(file: &File, at: u64) -> Result<ExtSetProperty, Errno> {
    let is_known = |head: &UserExtension| require(head.pad == 0 && head.name == QUEUE_EXTENSION_SET_PROPERTY);
    let ext: Result<ExtSetProperty, Errno> = file.shared.copy_in(at);
    match ext {
        Ok(ext) => is_known(&ext.base).map(|()| ext),
        Err(error) => file.shared.copy_in(at).and_then(|head| is_known(&head)).and(Err(error)),
    }
}

fn set_property(file: &File, ext: &ExtSetProperty, schedule: ClassSchedule, share: &mut Share) -> Result<(), Errno> {
    require(ext.pad == 0 && ext.reserved == [0; 2])?;
    match ext.property {
        QUEUE_PROPERTY_PRIORITY => {
            let asked = usize::try_from(ext.value).ok().and_then(|at| PRIORITIES.get(at)).ok_or(Errno::EINVAL)?;
            if ext.value > max_priority(file) {
                return Err(Errno::EPERM);
            }
            share.priority = *asked;
            Ok(())
        }
        QUEUE_PROPERTY_TIMESLICE => {
            require(schedule.timeslices().contains(&ext.value))?;
            share.timeslice_us = ext.value;
            Ok(())
        }
        3..=6 => Err(Errno::EINVAL),
        2 => Err(missing(file, xe_uapi::ioctl::EXEC_QUEUE_CREATE, "protected content")),
        _ => Err(Errno::EINVAL),
    }
}

/// EXEC_QUEUE_DESTROY.
pub(super) fn destroy(file: &File, args: &mut ExecQueueDestroy) -> Reply {
    require(args.pad == 0 && args.reserved == [0; 2])?;
    let queue = file.names.lock().queues.remove(args.exec_queue_id).ok_or(Errno::ENOENT)?;
    file.client.note(&queue);
    queue.close();
    Ok(0)
}

/// EXEC_QUEUE_GET_PROPERTY.
pub(super) fn get_property(file: &File, args: &mut ExecQueueGetProperty) -> Reply {
    require(args.extensions == 0 && args.reserved == [0; 2])?;
    let queue = file.queue(args.exec_queue_id).ok_or(Errno::ENOENT)?;
    require(args.property == QUEUE_GET_PROPERTY_BAN)?;
    args.value = u64::from(queue.is_banned());
    Ok(0)
}

/// EXEC_QUEUE_SET_PROPERTY: the one property that a queue can change is that of a group of queues, which no queue of these
/// platforms is in.
pub(super) fn set_property_of(file: &File, args: &mut ExecQueueSetProperty) -> Reply {
    require(args.reserved == [0; 2] && args.property == QUEUE_PROPERTY_MULTI_QUEUE_PRIORITY)?;
    file.queue(args.exec_queue_id).ok_or(Errno::ENOENT)?;
    Err(Errno::EINVAL)
}
