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
use xe_uapi::ExtSetProperty;
use xe_uapi::exec::{
    CLASS_COMPUTE, CLASS_COPY, CLASS_RENDER, CLASS_VM_BIND, ExecQueueCreate, ExecQueueDestroy, ExecQueueGetProperty,
    ExecQueueSetProperty, MAX_ENGINE_INSTANCE, QUEUE_DISABLE_STATE_CACHE_PERF_FIX, QUEUE_GET_PROPERTY_BAN,
    QUEUE_HANG_REPLAY_STATE, QUEUE_LOW_LATENCY_HINT, QUEUE_PROPERTY_MULTI_GROUP, QUEUE_PROPERTY_MULTI_QUEUE_PRIORITY,
    QUEUE_PROPERTY_PRIORITY, QUEUE_PROPERTY_PXP_TYPE, QUEUE_PROPERTY_TIMESLICE,
};
use xe_uapi::query::EngineClassInstance;

use super::extensions::{self, check_protection};
use super::{Reply, require};
use crate::engine_class::ClassSchedule;
use crate::errno::Errno;
use crate::exec_queue::ExecQueue;
use crate::file::File;
use crate::vm::Vm;
use units::{HostVa, SZ_4K, TileId};

/// The highest priority inside of a group of queues.
const MAX_MULTI_QUEUE_PRIORITY: u64 = 2;
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
    // Upstream's runs on the copy engine that migrates.
    read_share(file, args.extensions, EngineClass::Copy, ClassSchedule::default())?;
    Ok(ExecQueue::bind(vm, &file.queues))
}

fn engine_queue(file: &File, args: &ExecQueueCreate, engines: &[EngineClassInstance]) -> Result<Arc<ExecQueue>, Errno> {
    let first = &engines[0];
    require(engines.iter().all(|one| (one.engine_class, one.gt_id) == (first.engine_class, first.gt_id)))?;
    let known: Result<Vec<_>, _> = engines.iter().map(|one| engine_id(file.shared.platform(), one)).collect();
    let placement = known?;
    require(is_contiguous(&placement, args.width.into()))?;
    if args.width > 1 {
        return Err(Errno::EOPNOTSUPP);
    }
    let vm = open_vm(file, args.vm_id)?;
    let EngineId { tile, class, .. } = *placement.first().ok_or(Errno::EINVAL)?;
    let schedule = file.shared.classes.get(tile, class);
    let share = read_share(file, args.extensions, class, schedule)?;
    ExecQueue::engine(vm, &file.queues, &placement, share, schedule.job_timeout_ns())
}

/// Whether the engines that run side by side are neighbours, placement by placement.
///
/// Upstream: `calc_validate_logical_mask`.
fn is_contiguous(engines: &[EngineId], width: usize) -> bool {
    let mask =
        |column: usize| engines.iter().skip(column).step_by(width).fold(0u32, |mask, one| mask | 1 << one.instance);
    (1..width).all(|column| mask(column) == mask(column - 1) << 1)
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

/// What the extensions of a queue set.
struct Settings {
    share: Share,
    has_replay: bool,
    /// What only a queue of a group may have.
    needs_group: bool,
}

/// What the chain of extensions sets of a share, which begins as the class has it.
///
/// Upstream: `exec_queue_user_extensions`.
fn read_share(file: &File, chain: u64, class: EngineClass, schedule: ClassSchedule) -> Result<Share, Errno> {
    let share = Share { priority: Priority::Normal, timeslice_us: schedule.timeslice_us.into() };
    let mut settings = Settings { share, has_replay: false, needs_group: false };
    extensions::for_each(file, chain, |ext| set_property(file, ext, class, schedule, &mut settings))?;
    // No engine of these platforms serves groups.
    require(!settings.needs_group)?;
    Ok(settings.share)
}

fn set_property(
    file: &File,
    ext: &ExtSetProperty,
    class: EngineClass,
    schedule: ClassSchedule,
    settings: &mut Settings,
) -> Result<(), Errno> {
    match ext.property {
        QUEUE_PROPERTY_PRIORITY => {
            let asked = usize::try_from(ext.value).ok().and_then(|at| PRIORITIES.get(at)).ok_or(Errno::EINVAL)?;
            if ext.value > max_priority(file) {
                return Err(Errno::EPERM);
            }
            settings.share.priority = *asked;
        }
        QUEUE_PROPERTY_TIMESLICE => {
            require(schedule.timeslices().contains(&ext.value))?;
            settings.share.timeslice_us = ext.value;
        }
        QUEUE_PROPERTY_PXP_TYPE => check_protection(ext.value)?,
        QUEUE_HANG_REPLAY_STATE => {
            require(!settings.has_replay)?;
            let mut image = vec![0; replay_bytes(file.shared.platform(), class)];
            file.shared.copy_in_bytes(HostVa(ext.value), &mut image)?;
            settings.has_replay = true;
        }
        QUEUE_PROPERTY_MULTI_GROUP => return Err(Errno::ENODEV),
        QUEUE_PROPERTY_MULTI_QUEUE_PRIORITY => {
            require(ext.value <= MAX_MULTI_QUEUE_PRIORITY)?;
            settings.needs_group = true;
        }
        QUEUE_DISABLE_STATE_CACHE_PERF_FIX if class != EngineClass::Render => return Err(Errno::EOPNOTSUPP),
        QUEUE_DISABLE_STATE_CACHE_PERF_FIX => {}
        _ => return Err(Errno::EINVAL),
    }
    Ok(())
}

/// Bytes of the context image that a program gives for a replay: it is read, and has no effect.
///
/// Upstream: `xe_gt_lrc_hang_replay_size`.
const fn replay_bytes(platform: &Platform, class: EngineClass) -> usize {
    let pages = match (class, platform.graphics_verx100 >= 2000) {
        (EngineClass::Copy, _) => 1,
        (EngineClass::Render, true) => 3,
        (EngineClass::Compute, true) => 2,
        (EngineClass::Render | EngineClass::Compute, false) => 13,
    };
    pages * SZ_4K as usize
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
    require(args.reserved == [0; 2])?;
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
