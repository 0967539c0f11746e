//! The driver's own ioctls, as `xe_drm.h` and the driver's checks have them, for the device that a sequence is for.

use super::{Asked, Bo, Expected, Model, Pointed, Queue, Vm, is_lowest};
use crate::layout::Kind;
use crate::place::{CODE, DESK, POINTED};
use machine::Errno;
use machine::profile::pat::Entry;
use units::{HostVa, SZ_4K, SZ_64K};
use xe_uapi::vm::{
    BIND_OP_MAP, BIND_OP_MAP_USERPTR, BIND_OP_PREFETCH, BIND_OP_UNMAP, BIND_OP_UNMAP_ALL, CONSULT_MEM_ADVISE_PREF_LOC,
};

const READONLY_TO_DUMPABLE: u64 = 0xff;
const NULL: u64 = 4;
const MIRROR: u64 = 0x20;
const AUTORESET: u64 = 0x40;
const DECOMPRESS: u64 = 0x80;

/// Memory is short, of one kind or another.
const SHORT: &[Errno] = &[Errno::ENOMEM, Errno::ENOSPC];

impl Model {
    /// What there is to say of a call.
    pub(super) fn say(&self, file: usize, asked: &Asked<'_>, e: &mut Expected) {
        let names = &self.files[file];
        let (vm, queue) = (asked.get32("vm_id"), asked.get32("exec_queue_id"));
        let has_queue = names.queues.contains_key(&queue);
        match asked.ioctl.call.name {
            "DEVICE_QUERY" => say_of_query(asked, e),
            "GEM_CREATE" => self.say_of_bo(file, asked, e),
            "GEM_MMAP_OFFSET" => {
                let (flags, handle) = (asked.get("flags"), asked.get32("handle"));
                e.require(asked.is_zero(&["extensions", "reserved"])).require(flags & !1 == 0);
                e.require(flags != 1 || handle == 0)
                    .wrong(Errno::ENOENT, flags == 0 && !names.bos.contains_key(&handle));
            }
            "VM_CREATE" => self.say_of_vm(asked, e),
            "VM_DESTROY" => {
                e.require(asked.is_zero(&["pad", "reserved"])).wrong(Errno::ENOENT, !names.vms.contains_key(&vm));
                let in_use = names.vms.get(&vm).is_some_and(|vm| {
                    let is_its = |queue: &Queue| !queue.is_bind && queue.vm.serial == vm.serial;
                    vm.is_long_running() && !vm.has_faults() && names.queues.values().any(is_its)
                });
                e.wrong(Errno::EBUSY, in_use);
            }
            "VM_GET_PROPERTY" => {
                e.require(asked.is_zero(&["extensions", "pad", "reserved"])).require(asked.get("property") == 0);
                e.wrong(Errno::ENOENT, !names.vms.contains_key(&vm));
                e.may(if asked.get("size") == 0 { &[] } else { &[Errno::EINVAL, Errno::EFAULT] });
            }
            "VM_BIND" => self.say_of_bind(file, asked, e),
            "EXEC_QUEUE_CREATE" => self.say_of_queue(file, asked, e),
            "EXEC_QUEUE_DESTROY" => {
                e.require(asked.is_zero(&["pad", "reserved"])).wrong(Errno::ENOENT, !has_queue);
            }
            "EXEC_QUEUE_GET_PROPERTY" => {
                e.require(asked.is_zero(&["reserved"])).require(asked.get("property") == 0);
                e.wrong(Errno::ENOENT, !has_queue);
            }
            "EXEC_QUEUE_SET_PROPERTY" => _ = e.require(false).wrong(Errno::ENOENT, !has_queue),
            "EXEC" => self.say_of_exec(file, asked, e),
            "WAIT_USER_FENCE" => {
                e.require(asked.is_zero(&["extensions", "pad", "pad2", "reserved"]));
                e.require(asked.get("flags") & !1 == 0 && asked.get("op") <= 5 && asked.get("addr").is_multiple_of(8));
                e.wrong(Errno::ENOENT, queue != 0 && !has_queue);
                e.may(&[Errno::ETIME, Errno::EFAULT]).may(if queue != 0 { &[Errno::EIO] } else { &[] });
            }
            "MADVISE" => self.say_of_advice(file, asked, e),
            "VM_QUERY_MEM_RANGE_ATTRS" => {
                let (count, at) = (asked.get("num_mem_ranges"), asked.get("vector_of_mem_attr"));
                let size = if count == 0 { 0 } else { 64 };
                e.require((count == 0) == (at == 0));
                e.require(asked.get("sizeof_mem_range_attr") == size).require(names.vms.contains_key(&vm));
                e.wrong(Errno::ENOBUFS, count * 64 > i32::MAX as u64);
                e.may(if count == 0 { &[] } else { &[Errno::ENOSPC, Errno::EFAULT] });
            }
            "OBSERVATION" => {
                let last_op = [2, 0].get(asked.get("observation_type") as usize);
                e.require(asked.is_zero(&["extensions"]));
                e.require(last_op.is_some_and(|last| asked.get("observation_op") <= *last));
                e.wrong(Errno::EOPNOTSUPP, true);
            }
            _ => self.say_of_core(file, asked, e),
        }
    }

    fn say_of_bo(&self, file: usize, asked: &Asked<'_>, e: &mut Expected) {
        let (size, placement, flags) = (asked.get("size"), asked.get32("placement"), asked.get("flags"));
        let (caching, vm) = (asked.get("cpu_caching"), asked.get32("vm_id"));
        e.require(asked.is_zero(&["reserved", "pad", "handle"]));
        e.require(placement != 0 && placement & !self.device.regions() == 0).require(flags & !15 == 0);
        e.wrong(Errno::EOPNOTSUPP, flags & 8 != 0 && !self.device.platform().compresses);
        e.require(caching == 1 || caching == 2);
        let in_vram = placement & !1 != 0;
        e.require(!(in_vram || flags & 2 != 0) || caching == 2).require(flags & 4 == 0 || in_vram);
        let granule = if in_vram { self.device.platform().min_vram_page() } else { SZ_4K };
        e.require(size != 0 && size.is_multiple_of(granule));
        e.wrong(Errno::ENOENT, vm != 0 && !self.files[file].vms.contains_key(&vm));
        e.may(SHORT);
        say_of_extensions(asked, asked.get("extensions"), e, |ext, e| {
            e.require(ext.get("property") == 0);
            say_of_protection(ext.get("value"), e);
        });
    }

    fn say_of_queue(&self, file: usize, asked: &Asked<'_>, e: &mut Expected) {
        let (width, placements) = (asked.get("width"), asked.get("num_placements"));
        let (count, names) = (width * placements, &self.files[file]);
        e.require(asked.is_zero(&["reserved"])).require(asked.get("flags") & !1 == 0).require((1..=9).contains(&count));
        e.may(&[Errno::ENOMEM]);
        let Some(engines) = asked.pointed(Kind::EngineClassInstance, asked.get("instances"), count.min(9)) else {
            e.may(&[Errno::EFAULT, Errno::EINVAL, Errno::ENOENT, Errno::EOPNOTSUPP, Errno::EPERM]);
            // Nor are the extensions looked at, of which there may be too many.
            e.may(&[Errno::E2BIG, Errno::ENODEV]);
            return;
        };
        let Some(first) = engines.first() else { return };
        let (class, gt) = (first.get("engine_class"), first.get("gt_id"));
        e.require(gt < self.device.tiles()).wrong(Errno::ENOENT, !names.vms.contains_key(&asked.get32("vm_id")));
        if class == 5 {
            e.require(width == 1 && placements == 1 && first.get("engine_instance") == 0);
        } else {
            let engines_of = self.device.engines(class);
            let is_known = |one: &Pointed| one.get("engine_instance") < engines_of;
            let is_same = |one: &Pointed| (one.get("engine_class"), one.get("gt_id")) == (class, gt);
            e.require(engines.iter().all(|one| is_known(one) && is_same(one)));
            // Which must be neighbours.
            e.wrong(Errno::EOPNOTSUPP, width > 1).may(if width > 1 { &[Errno::EINVAL] } else { &[] });
        }
        let (mut has_replay, mut in_group) = (false, false);
        say_of_extensions(asked, asked.get("extensions"), e, |ext, e| match (ext.get("property"), ext.get("value")) {
            (0, 2) => _ = e.may(&[Errno::EPERM]),
            (0, value) => _ = e.require(value < 2),
            (1, value) => _ = e.require((1..=10_000_000).contains(&value)),
            (2, value) => say_of_protection(value, e),
            // The image of a context is longer than what the model knows of.
            (3, _) => {
                e.require(!has_replay).may(&[Errno::EFAULT]);
                has_replay = true;
            }
            (4, _) => _ = e.wrong(Errno::ENODEV, true),
            (5, _) => in_group = true,
            // Render engines have such a cache.
            (6, value) if class == 0 => _ = e.require(value <= 1),
            (6, _) => _ = e.wrong(Errno::EOPNOTSUPP, true),
            _ => _ = e.require(false),
        });
        e.require(!in_group);
    }

    fn say_of_exec(&self, file: usize, asked: &Asked<'_>, e: &mut Expected) {
        e.require(asked.is_zero(&["extensions", "pad", "reserved"]));
        e.require(asked.get("num_syncs") <= 1024).require(asked.get("num_batch_buffer") <= 1);
        let Some(queue) = self.files[file].queues.get(&asked.get32("exec_queue_id")) else {
            e.wrong(Errno::ENOENT, true).may(&[Errno::EFAULT]);
            return;
        };
        e.require(!queue.is_bind);
        // It may be banned at any time.
        e.may(&[Errno::ECANCELED, Errno::EAGAIN, Errno::EFAULT, Errno::ENOMEM]);
        let has_ins = self.say_of_syncs(file, asked, queue.vm, true, e);
        if asked.get("num_batch_buffer") == 0 {
            let waits = has_ins && !queue.vm.is_long_running();
            e.wrong(Errno::EOPNOTSUPP, waits);
        }
    }

    /// Whether there is something to wait for.
    fn say_of_syncs(&self, file: usize, asked: &Asked<'_>, vm: Vm, ufences: bool, e: &mut Expected) -> bool {
        let count = asked.get("num_syncs");
        let Some(syncs) = asked.pointed(Kind::Sync, asked.get("syncs"), count) else {
            e.may(&[Errno::EFAULT, Errno::EINVAL, Errno::ENOENT, Errno::EOPNOTSUPP]);
            return true;
        };
        let (mut users, mut has_ins) = (0, false);
        for sync in &syncs {
            let (flags, signals) = (sync.get("flags"), sync.get("flags") & 1 != 0);
            e.require(sync.is_zero(&["reserved"])).require(flags & !1 == 0);
            match sync.get("sync_type") {
                kind @ 0..=1 => {
                    let addr = sync.get("addr");
                    let is_known = self.files[file].syncobjs.contains(&(addr as u32));
                    e.wrong(Errno::EOPNOTSUPP, signals && vm.is_long_running()).require(addr >> 32 == 0);
                    e.require(kind == 0 || sync.get("timeline_value") != 0).wrong(Errno::ENOENT, !is_known);
                    // It may have no fence.
                    e.may(if signals { &[] } else { &[Errno::EINVAL] });
                    has_ins |= !signals;
                }
                2 => {
                    users += 1;
                    let at = sync.get("addr");
                    e.wrong(Errno::EOPNOTSUPP, !signals || !ufences).require(at.is_multiple_of(8));
                    let is_there = CODE.contains(HostVa(at)) || DESK.contains(HostVa(at));
                    e.may(if is_there { &[] } else { &[Errno::EFAULT] });
                }
                _ => _ = e.require(false),
            }
        }
        e.require(users <= 1);
        has_ins
    }

    fn say_of_bind(&self, file: usize, asked: &Asked<'_>, e: &mut Expected) {
        let names = &self.files[file];
        e.require(asked.is_zero(&["extensions", "pad", "pad2", "reserved"])).require(asked.get("num_syncs") <= 1024);
        let Some(vm) = names.vms.get(&asked.get32("vm_id")).copied() else {
            e.require(false).may(&[Errno::EFAULT]);
            return;
        };
        match asked.get32("exec_queue_id") {
            0 => {}
            queue => match names.queues.get(&queue) {
                None => _ = e.wrong(Errno::ENOENT, true),
                Some(queue) => _ = e.require(queue.is_bind && queue.vm.serial == vm.serial),
            },
        }
        let count = asked.get("num_binds");
        let has_ins = self.say_of_syncs(file, asked, vm, count > 0, e);
        e.may(SHORT).may(&[Errno::EBUSY]).may(if has_ins { &[Errno::EOPNOTSUPP] } else { &[] });
        let ops = match count {
            0 => Some(vec![]),
            1 => Some(vec![Pointed { kind: Kind::VmBindOp, bytes: asked.ioctl.arg[24..104].to_vec() }]),
            _ => asked.pointed(Kind::VmBindOp, asked.get("bind.extensions"), count),
        };
        let Some(ops) = ops else {
            e.may(&[Errno::EFAULT, Errno::EINVAL, Errno::ENOENT, Errno::ENOBUFS]);
            return;
        };
        ops.iter().for_each(|op| self.say_of_op(file, vm, op, e));
        self.may_be_purged(e);
    }

    fn say_of_op(&self, file: usize, vm: Vm, op: &Pointed, e: &mut Expected) {
        let (what, flags, obj) = (op.get("op") as u32, op.get("flags"), op.get("obj") as u32);
        let (offset, addr, range) = (op.get("obj_offset"), op.get("addr"), op.get("range"));
        let (pat, region) = (op.get("pat_index"), op.get("prefetch_mem_region_instance") as u32);
        let is_special = flags & (NULL | MIRROR) != 0;
        let (is_map, is_all) = (what == BIND_OP_MAP, what == BIND_OP_UNMAP_ALL);
        e.require(what <= BIND_OP_PREFETCH && flags & !READONLY_TO_DUMPABLE == 0);
        let entry = self.device.pat(pat);
        e.require(entry.is_some_and(|entry| flags & DECOMPRESS == 0 || !entry.compresses));
        e.require(flags & MIRROR == 0 || vm.has_faults()).require(!is_special || (obj == 0 && offset == 0));
        e.require(is_map || flags & (NULL | MIRROR | DECOMPRESS) == 0).require(!is_map || is_special || obj != 0);
        e.require(!is_all || (obj != 0 && addr == 0 && range == 0));
        let without = matches!(what, BIND_OP_UNMAP | BIND_OP_MAP_USERPTR | BIND_OP_PREFETCH);
        e.require(!without || obj == 0);
        e.require(flags & AUTORESET == 0 || (is_map && flags & MIRROR != 0));
        let is_region =
            region == CONSULT_MEM_ADVISE_PREF_LOC || (region < 32 && self.device.regions() >> region & 1 != 0);
        e.require(if what == BIND_OP_PREFETCH { is_region } else { region == 0 });
        e.require(offset.is_multiple_of(SZ_4K) && addr.is_multiple_of(SZ_4K) && range.is_multiple_of(SZ_4K));
        e.require(range != 0 || is_all);
        e.wrong(Errno::EOPNOTSUPP, flags & DECOMPRESS != 0 && !self.device.platform().compresses);
        e.require(addr.checked_add(range).is_some_and(|end| end <= self.device.window()));
        if what == BIND_OP_MAP_USERPTR {
            e.require(entry.is_some_and(|entry| entry.coherent)).may(&[Errno::EINVAL]);
        }
        // The memory of a userptr that is bound, prefetched or cut may not be there, or not be writable.
        e.may(&[Errno::EFAULT, Errno::EPERM]);
        if what == BIND_OP_PREFETCH {
            // Of BOs that may not be there; of a hole.
            e.may(&[Errno::EINVAL]);
        }
        if obj != 0 {
            match self.files[file].bos.get(&obj) {
                None => _ = e.wrong(Errno::ENOENT, true),
                Some(bo) => {
                    let bo = &bo.seen_by(file);
                    self.say_of_bo_bind(bo, (offset, addr, range), entry, e);
                    e.require(!is_map || bo.vm.is_none_or(|own| own == vm.serial));
                }
            }
        }
    }

    fn say_of_advice(&self, file: usize, asked: &Asked<'_>, e: &mut Expected) {
        let (val, policy_region) = (asked.get32("val"), asked.get32("policy_region"));
        let (policy, region, ptr) = (policy_region & 0xffff, policy_region >> 16, asked.get("ptr"));
        e.require(asked.is_zero(&["reserved"]));
        e.require(self.files[file].vms.contains_key(&asked.get32("vm_id")));
        let (start, range) = (asked.get("start"), asked.get("range"));
        e.require(start.is_multiple_of(SZ_4K) && range.is_multiple_of(SZ_4K) && range != 0);
        e.require(
            (start & (self.device.window() - 1)).checked_add(range).is_some_and(|end| end <= self.device.window()),
        );
        match asked.get("attr") {
            0 => {
                let fd = val as i32;
                e.require(fd >= -1 && (fd > 0 || region == 0) && policy <= 1 && ptr == 0);
                e.may(if fd > 0 { &[Errno::ENOENT, Errno::EINVAL, Errno::ENODEV] } else { &[] });
            }
            // Whether the BOs below allow it the model does not know.
            1 => _ = e.require(val <= 3 && policy_region == 0 && ptr == 0).may(&[Errno::EINVAL]),
            2 => _ = e.require(self.device.pat(val.into()).is_some() && policy_region == 0 && ptr == 0),
            3 => {
                e.require(val <= 1 && policy_region == 0);
                e.may(if ptr == 0 { &[] } else { &[Errno::EFAULT] });
                if ptr != 0 && ptr != POINTED {
                    e.may(&[Errno::EINVAL]);
                }
                e.require(asked.words(ptr, 1).is_none_or(|words| words == [0]));
            }
            _ => _ = e.require(false),
        }
    }

    fn say_of_bo_bind(&self, bo: &Bo, (offset, addr, range): (u64, u64, u64), pat: Option<Entry>, e: &mut Expected) {
        e.require(offset.checked_add(range).is_some_and(|end| end <= bo.size));
        if bo.placement & !1 != 0 && self.device.platform().needs_64k {
            e.require([offset, addr, range].iter().all(|at| at.is_multiple_of(SZ_64K)));
        }
        e.require(pat.is_some_and(|pat| (bo.caching != 1 || pat.coherent) && !(bo.plain && pat.compresses)));
    }

    fn say_of_vm(&self, asked: &Asked<'_>, e: &mut Expected) {
        let flags = asked.get("flags");
        let (scratch, long, faults, strict) = (flags & 1 != 0, flags & 2 != 0, flags & 4 != 0, flags & 8 != 0);
        e.require(asked.is_zero(&["extensions", "reserved"])).require(flags & !15 == 0);
        e.require(!(scratch && faults) || self.device.platform().scratch_with_faults);
        e.require(!faults || long).require(!strict || faults).may(&[Errno::ENOMEM]);
    }

    /// What a call did.
    pub(super) fn learn(&mut self, file: usize, asked: &Asked<'_>) -> Result<(), String> {
        let names = &mut self.files[file];
        match asked.ioctl.call.name {
            "VM_CREATE" => {
                let new = asked.out("vm_id") as u32;
                is_lowest(new, names.vms.keys())?;
                names.vms_made += 1;
                names.vms.insert(new, Vm { flags: asked.get32("flags"), serial: names.vms_made });
            }
            "VM_DESTROY" => _ = names.vms.remove(&asked.get32("vm_id")),
            "EXEC_QUEUE_CREATE" => {
                let new = asked.out("exec_queue_id") as u32;
                is_lowest(new, names.queues.keys())?;
                let engine = asked.pointed(Kind::EngineClassInstance, asked.get("instances"), 1);
                let is_bind = engine.and_then(|all| Some(all.first()?.get("engine_class") == 5));
                match (names.vms.get(&asked.get32("vm_id")).copied(), is_bind) {
                    (Some(vm), Some(is_bind)) => _ = names.queues.insert(new, Queue { vm, is_bind }),
                    _ => names.is_lost = true,
                }
            }
            "EXEC_QUEUE_DESTROY" => _ = names.queues.remove(&asked.get32("exec_queue_id")),
            "GEM_CREATE" => {
                let new = asked.out("handle") as u32;
                is_lowest(new, names.bos.keys())?;
                let vm = names.vms.get(&asked.get32("vm_id")).map(|vm| vm.serial);
                self.next_bo += 1;
                let (size, placement) = (asked.get("size"), asked.get32("placement"));
                let caching = asked.get("cpu_caching") as u16;
                let plain = asked.get("flags") & 8 != 0;
                let device = file / 2;
                names.bos.insert(new, Bo { id: self.next_bo, device, size, placement, caching, plain, vm });
            }
            "MADVISE" => self.purges |= asked.get("attr") == 3,
            _ => return self.learn_of_core(file, asked),
        }
        Ok(())
    }
}

fn say_of_query(asked: &Asked<'_>, e: &mut Expected) {
    let (query, size) = (asked.get("query"), asked.get("size"));
    e.require(asked.is_zero(&["extensions", "reserved"])).require(query <= 10);
    e.wrong(Errno::ENODEV, query == 10);
    e.may(if size == 0 { &[] } else { &[Errno::EINVAL, Errno::EFAULT, Errno::ENODEV] });
}

/// A chain of properties.
fn say_of_extensions(asked: &Asked<'_>, mut at: u64, e: &mut Expected, mut say: impl FnMut(&Pointed, &mut Expected)) {
    for _ in 0..16 {
        if at == 0 {
            return;
        }
        let Some(all) = asked.pointed(Kind::ExtSetProperty, at, 1) else {
            e.may(&[Errno::EFAULT, Errno::EINVAL]);
            return;
        };
        let ext = &all[0];
        e.require(ext.is_zero(&["pad"]) && ext.get("base.pad") == 0 && ext.get("base.name") == 0);
        say(ext, e);
        at = ext.get("base.next_extension");
    }
    e.wrong(Errno::E2BIG, at != 0);
}

fn say_of_protection(kind: u64, e: &mut Expected) {
    e.wrong(Errno::ENODEV, kind == 1).require(kind <= 1);
}
