//! Arguments of ioctls.

use super::Maker;
use crate::layout::{Block, Kind};
use crate::place::{ARENA, BOUND, CODE, DESK, DEVICE_FDS, EVENT_FD, FENCES, FIRST_FD, POINTED};
use crate::sequence::Step;
use units::{SZ_1G, SZ_2M, SZ_4K, SZ_64K};
use xe_uapi::{ExtSetProperty, UserExtension, attr, dma_buf, drm, exec, gem, query, sync_file, syncobj, vm};
use zerocopy::IntoBytes;

/// Where syncs lie.
const SYNCS: u64 = POINTED + 0x800;

impl Maker {
    pub(super) fn vm_create(&mut self) -> Step {
        let flags = self.mostly(&[6, 6, 6, 6, 0, 0, 2, 1, 14], &[7, 4, 16, 3]);
        self.taken.vms += 1;
        self.ioctl("VM_CREATE", vm::VmCreate { flags, ..Default::default() }.as_bytes().to_vec(), vec![])
    }

    pub(super) fn vm_destroy(&mut self) -> Step {
        let vm_id = self.name(self.taken.vms);
        self.ioctl("VM_DESTROY", vm::VmDestroy { vm_id, ..Default::default() }.as_bytes().to_vec(), vec![])
    }

    /// The mirror over all of a VM, or userptrs for what a plain VM needs.
    pub(super) fn bind_mostly_all(&mut self) -> Step {
        let vm_id = self.taken.vms as u32;
        let mirror = vm::VmBindOp {
            pat_index: self.device.wb(),
            range: self.device.window(),
            flags: vm::BindFlags::CPU_ADDR_MIRROR.bits() | self.one_of(&[0, 0x40]),
            ..Default::default()
        };
        let pat_index = self.device.wb();
        let userptr = |at: u64, bytes: u64| vm::VmBindOp {
            pat_index,
            obj_offset: at,
            addr: at,
            range: bytes,
            op: vm::BIND_OP_MAP_USERPTR,
            ..Default::default()
        };
        if self.rarely(3) {
            let ops = [userptr(CODE.start.0, CODE.len()), userptr(ARENA.start.0, SZ_2M)];
            let bind = vm::VmBindOp { extensions: POINTED, ..Default::default() };
            let arg = vm::VmBind { vm_id, num_binds: 2, bind, ..Default::default() };
            return self.ioctl("VM_BIND", arg.as_bytes().to_vec(), op_blocks(&ops));
        }
        let arg = vm::VmBind { vm_id, num_binds: 1, bind: mirror, ..Default::default() };
        self.ioctl("VM_BIND", arg.as_bytes().to_vec(), vec![])
    }

    pub(super) fn vm_bind(&mut self) -> Step {
        let count = self.one_of(&[1, 1, 1, 1, 1, 2, 2, 3, 0]);
        let ops: Vec<_> = (0..count).map(|_| self.bind_op()).collect();
        let (num_syncs, mut blocks) = self.syncs(true);
        let bind = match ops.as_slice() {
            [one] => *one,
            [] => vm::VmBindOp::default(),
            _ => vm::VmBindOp { extensions: POINTED, ..Default::default() },
        };
        if ops.len() > 1 {
            blocks.extend(op_blocks(&ops));
        }
        let exec_queue_id = if self.rarely(10) { self.name(self.taken.queues) } else { 0 };
        let vm_id = self.name(self.taken.vms);
        let syncs = if num_syncs > 0 { SYNCS } else { 0 };
        let arg = vm::VmBind { vm_id, exec_queue_id, num_binds: count, bind, num_syncs, syncs, ..Default::default() };
        self.ioctl("VM_BIND", arg.as_bytes().to_vec(), blocks)
    }

    fn bind_op(&mut self) -> vm::VmBindOp {
        let range = self.length();
        let (slot, part) = (self.below(8), self.below(32));
        let addr = match self.below(16) {
            0..=6 => BOUND + slot * SZ_2M,
            7..=11 => BOUND + slot * SZ_2M + part * SZ_64K,
            12..=13 => ARENA.start.0 + self.below(ARENA.len() / SZ_64K) * SZ_64K,
            14 => BOUND + self.below(1024) * SZ_4K,
            _ => self.gpu_address() & !(SZ_4K - 1),
        };
        let flags = self.one_of(&[0, 0, 2, 2, 1, 3, 8]);
        let op = vm::VmBindOp { pat_index: self.pat(), addr, range, flags, ..Default::default() };
        let obj = self.name(self.taken.bos);
        match self.below(16) {
            0..=4 => {
                // What the BO does not have is refused: mostly little of it, from its start.
                let obj_offset = if self.rarely(4) { self.below(8) * SZ_64K } else { 0 };
                let range = if self.rarely(3) { range } else { self.one_of(&[SZ_64K, SZ_64K, SZ_2M, 2 * SZ_2M]) };
                vm::VmBindOp { obj, obj_offset, range, ..op }
            }
            5..=7 => vm::VmBindOp { op: vm::BIND_OP_UNMAP, flags: 0, ..op },
            8..=9 => {
                let obj_offset = ARENA.start.0 + self.below(ARENA.len() / SZ_4K) * SZ_4K;
                vm::VmBindOp { op: vm::BIND_OP_MAP_USERPTR, obj_offset, ..op }
            }
            10 => vm::VmBindOp { op: vm::BIND_OP_UNMAP_ALL, obj, addr: 0, range: 0, flags: 0, ..op },
            11 => vm::VmBindOp { flags: vm::BindFlags::NULL.bits() | flags & 1, ..op },
            12 => {
                let autoreset = self.one_of(&[0, 0x40]);
                vm::VmBindOp { flags: vm::BindFlags::CPU_ADDR_MIRROR.bits() | autoreset, ..op }
            }
            _ => {
                let region = self.mostly(&[0, 1, 2, u32::MAX], &[3]);
                let prefetch_mem_region_instance = if region == 2 { self.device.tiles() as u32 } else { region };
                vm::VmBindOp { op: vm::BIND_OP_PREFETCH, flags: 0, prefetch_mem_region_instance, ..op }
            }
        }
    }

    fn pat(&mut self) -> u16 {
        // Two more than there are.
        let indices = self.device.pat_entries() + 2;
        if self.rarely(32) { self.below(indices) as u16 } else { self.device.wb() }
    }

    /// Syncs of a bind or of a job: how many, and where.
    fn syncs(&mut self, of_bind: bool) -> (u32, Vec<Block>) {
        let count = self.one_of(&[0, 0, 1, 1, 1, 1, 2]);
        let block = |maker: &mut Self, n: u64| {
            let at = SYNCS + n * size_of::<exec::Sync>() as u64;
            Block::of(at, Kind::Sync, &maker.sync(of_bind))
        };
        let blocks = (0..count).map(|n| block(self, n)).collect();
        (count as u32, blocks)
    }

    fn sync(&mut self, of_bind: bool) -> exec::Sync {
        let flags = self.mostly(&[1, 1, 1, 0], &[2]);
        self.value += 1;
        match self.below(8) {
            0..=4 => {
                let slot = self.below(16);
                let addr =
                    if of_bind || self.rarely(8) { FENCES + 8 * slot } else { self.one_of(&[FENCES, FENCES + 8]) };
                let timeline_value = self.value;
                exec::Sync {
                    sync_type: exec::SYNC_TYPE_USER_FENCE,
                    flags: 1,
                    addr,
                    timeline_value,
                    ..Default::default()
                }
            }
            5 => {
                let (addr, timeline_value) = (self.name(self.taken.syncobjs).into(), self.below(6));
                exec::Sync { sync_type: 1, flags, addr, timeline_value, ..Default::default() }
            }
            _ => exec::Sync { flags, addr: self.name(self.taken.syncobjs).into(), ..Default::default() },
        }
    }

    pub(super) fn queue_create(&mut self) -> Step {
        let engine_class = self.mostly(&[1, 1, 4, 4, 4, 5], &[0, 2, 6]);
        let gt_id = self.below(2).min(self.device.tiles() - 1) as u16;
        let engine_instance = if engine_class == 5 { 0 } else { self.mostly(&[0, 0, 0, 1], &[3, 9]) };
        let shapes: &[(u16, u16)] =
            if engine_class == 5 || engine_instance > 0 { &[(1, 1)] } else { &[(1, 1), (1, 1), (1, 2)] };
        let (width, num_placements) = self.mostly(shapes, &[(2, 1), (0, 1), (9, 9)]);
        let engine = exec::ExecQueueCreate { width, num_placements, ..Default::default() };
        let count = u64::from(width) * u64::from(num_placements);
        let instance = |n: u64| {
            let one = query::EngineClassInstance { engine_class, engine_instance, gt_id, pad: 0 };
            Block::of(
                POINTED + n * 8,
                Kind::EngineClassInstance,
                &query::EngineClassInstance { engine_instance: one.engine_instance + n as u16, ..one },
            )
        };
        let mut blocks: Vec<_> = (0..count.min(9)).map(instance).collect();
        let (extensions, chain) = self.extensions();
        blocks.extend(chain);
        self.taken.queues += 1;
        let (vm_id, flags) = (self.name(self.taken.vms), self.mostly(&[0, 1], &[2]));
        let arg = exec::ExecQueueCreate { extensions, vm_id, flags, instances: POINTED, ..engine };
        self.ioctl("EXEC_QUEUE_CREATE", arg.as_bytes().to_vec(), blocks)
    }

    /// A chain of properties, mostly none.
    fn extensions(&mut self) -> (u64, Vec<Block>) {
        let count = self.one_of(&[0, 0, 0, 0, 1, 2]);
        let place = |n: u64| SYNCS + n * size_of::<ExtSetProperty>() as u64;
        let block = |maker: &mut Self, n: u64| {
            let next_extension = if n + 1 < count { place(n + 1) } else { maker.mostly(&[0], &[SYNCS]) };
            let (property, value) = match maker.below(4) {
                0..=1 => (0, maker.mostly(&[0, 1, 2], &[3])),
                2 => (1, maker.mostly(&[1, 1000, 20_000], &[0, 10_000_001])),
                _ => (maker.mostly(&[0], &[2, 3, 4, 5, 8]), 1),
            };
            let base = UserExtension { next_extension, ..Default::default() };
            Block::of(place(n), Kind::ExtSetProperty, &ExtSetProperty { base, property, value, ..Default::default() })
        };
        let chain = (0..count).map(|n| block(self, n)).collect();
        (if count > 0 { SYNCS } else { 0 }, chain)
    }

    pub(super) fn queue_destroy(&mut self) -> Step {
        let exec_queue_id = self.name(self.taken.queues);
        let arg = exec::ExecQueueDestroy { exec_queue_id, ..Default::default() };
        self.ioctl("EXEC_QUEUE_DESTROY", arg.as_bytes().to_vec(), vec![])
    }

    pub(super) fn queue_property(&mut self) -> Step {
        let exec_queue_id = self.name(self.taken.queues);
        if self.rarely(4) {
            let property = self.below(7) as u32;
            let arg = exec::ExecQueueSetProperty { exec_queue_id, property, ..Default::default() };
            return self.ioctl("EXEC_QUEUE_SET_PROPERTY", arg.as_bytes().to_vec(), vec![]);
        }
        let property = self.one_of(&[0, 0, 0, 1]);
        let arg = exec::ExecQueueGetProperty { exec_queue_id, property, ..Default::default() };
        self.ioctl("EXEC_QUEUE_GET_PROPERTY", arg.as_bytes().to_vec(), vec![])
    }

    pub(super) fn exec(&mut self) -> Step {
        let (num_syncs, blocks) = self.syncs(false);
        let (exec_queue_id, address) = (self.name(self.taken.queues), self.batch_address());
        let num_batch_buffer = self.mostly(&[1, 1, 1, 1, 1, 0], &[2]);
        let syncs = if num_syncs > 0 { SYNCS } else { 0 };
        let arg = exec::Exec { exec_queue_id, num_syncs, syncs, address, num_batch_buffer, ..Default::default() };
        self.ioctl("EXEC", arg.as_bytes().to_vec(), blocks)
    }

    pub(super) fn wait_user_fence(&mut self) -> Step {
        let slot = self.below(4);
        let arg = exec::WaitUserFence {
            addr: FENCES + 8 * slot,
            op: self.mostly(&[0, 3, 3, 1, 2, 4, 5], &[6]),
            value: self.below(self.value + 2),
            mask: self.one_of(&[u64::MAX, u64::MAX, 0xff, 0]),
            timeout: self.one_of(&[0, 1, 10_000, 300_000, 300_000, 1_000_000]),
            flags: u16::from(self.rarely(12)),
            exec_queue_id: if self.rarely(2) { 0 } else { self.name(self.taken.queues) },
            ..Default::default()
        };
        self.ioctl("WAIT_USER_FENCE", arg.as_bytes().to_vec(), vec![])
    }

    pub(super) fn gem_create(&mut self) -> Step {
        let placement = self.mostly(&[1, 1, 2, 2, 4, 6, 7, 3], &[0, 8]);
        // The VRAM of a tile that is not there is that of the first.
        let placement = if self.device.tiles() == 1 && placement & 4 != 0 { placement & 3 | 2 } else { placement };
        let cpu_caching = match placement {
            1 => self.one_of(&[1, 1, 2]),
            _ => self.mostly(&[2], &[1, 0]),
        };
        let small = 1 + self.below(40);
        let fitting =
            [SZ_64K, SZ_2M, 2 * SZ_2M, 2 * SZ_2M, 3 * SZ_2M + SZ_64K, small * SZ_64K, small * SZ_64K, 8 * SZ_2M];
        let others = [small * SZ_4K, 9 * SZ_2M, SZ_64K + 1, 0, u64::MAX << 32, 64 * SZ_1G];
        let size = self.mostly(&fitting, &others);
        let vm_id = if self.rarely(8) { self.name(self.taken.vms) } else { 0 };
        self.taken.bos += 1;
        let flags = self.mostly(&[0, 0, 0, 1, 1], &[2, 4, 8, 16]);
        let arg = gem::GemCreate { size, placement, flags, vm_id, cpu_caching, ..Default::default() };
        self.ioctl("GEM_CREATE", arg.as_bytes().to_vec(), vec![])
    }

    pub(super) fn gem_close(&mut self) -> Step {
        let handle = self.name(self.taken.bos);
        self.ioctl("GEM_CLOSE", drm::GemClose { handle, pad: 0 }.as_bytes().to_vec(), vec![])
    }

    pub(super) fn madvise(&mut self) -> Step {
        let (range, page) = (self.length(), self.below(ARENA.len() / SZ_64K));
        let (attr, slot) = (self.mostly(&[0, 0, 1, 2, 3], &[4]), self.below(8));
        let start = self.one_of(&[ARENA.start.0 + page * SZ_64K, ARENA.start.0 + page * SZ_4K, BOUND + slot * SZ_2M]);
        let (val, policy_region) = match attr {
            attr::ATTR_PREFERRED_LOC => {
                let nodes = [0, self.devices as usize - 1].map(|device| DEVICE_FDS[device] as u32);
                let val = self.mostly(&[0, u32::MAX, nodes[0], nodes[1]], &[479]);
                let region = if nodes.contains(&val) { self.below(4) as u32 } else { 0 };
                (val, region << 16 | self.below(3) as u32 & 1)
            }
            attr::ATTR_ATOMIC => (self.mostly(&[0, 1, 2, 3], &[4]), 0),
            attr::ATTR_PAT => (self.mostly(&[3, 0, 7], &[8]), 0),
            _ => (self.mostly(&[0, 1], &[2]), 0),
        };
        let retained = attr == attr::ATTR_PURGEABLE && self.rarely(2);
        let ptr = if retained { POINTED } else { 0 };
        let blocks = if retained { vec![Block::words(POINTED, &[0])] } else { vec![] };
        let vm_id = self.name(self.taken.vms);
        let arg = attr::Madvise { start, range, vm_id, attr, val, policy_region, ptr, ..Default::default() };
        self.ioctl("MADVISE", arg.as_bytes().to_vec(), blocks)
    }

    pub(super) fn query_attrs(&mut self) -> Step {
        let count = self.one_of(&[0, 0, 1, 64]);
        let (vm_id, page) = (self.name(self.taken.vms), self.below(ARENA.len() / SZ_64K));
        let arg = attr::VmQueryMemRangeAttr {
            vm_id,
            num_mem_ranges: count,
            start: ARENA.start.0 + page * SZ_64K,
            range: self.length(),
            sizeof_mem_range_attr: if count > 0 { 64 } else { 0 },
            vector_of_mem_attr: if count > 0 { POINTED } else { 0 },
            ..Default::default()
        };
        self.ioctl("VM_QUERY_MEM_RANGE_ATTRS", arg.as_bytes().to_vec(), vec![])
    }

    pub(super) fn vm_property(&mut self) -> Step {
        let (vm_id, size) = (self.name(self.taken.vms), self.one_of(&[0, 0, 48, 96, 47]));
        let arg = vm::VmGetProperty { vm_id, size, data: POINTED, ..Default::default() };
        self.ioctl("VM_GET_PROPERTY", arg.as_bytes().to_vec(), vec![])
    }

    pub(super) fn syncobj_create(&mut self) -> Step {
        self.taken.syncobjs += 1;
        let arg = syncobj::SyncobjCreate { flags: self.mostly(&[0, 1, 1], &[2]), ..Default::default() };
        self.ioctl("SYNCOBJ_CREATE", arg.as_bytes().to_vec(), vec![])
    }

    pub(super) fn syncobj(&mut self) -> Step {
        let handle = self.name(self.taken.syncobjs);
        let count_handles = self.mostly(&[1, 1, 2, 3], &[0]);
        let names: Vec<u32> = (0..count_handles.max(1)).map(|_| self.name(self.taken.syncobjs)).collect();
        let points: Vec<u32> = (0..count_handles.max(1)).flat_map(|_| [self.below(6) as u32, 0]).collect();
        let arrays = vec![Block::words(POINTED, &names), Block::words(POINTED + 0x80, &points)];
        let (handles, points) = (POINTED, POINTED + 0x80);
        // Absolute times: 0 is over, small numbers are too.
        let timeout_nsec = self.one_of(&[0, 1, 0, 1_000_000_100, -1]);
        match self.below(14) {
            0..=2 => self.syncobj_create(),
            3 => {
                let arg = syncobj::SyncobjDestroy { handle, pad: 0 };
                self.ioctl("SYNCOBJ_DESTROY", arg.as_bytes().to_vec(), vec![])
            }
            4 => {
                let flags = self.mostly(&[0, 1, 2, 3, 8], &[4]);
                let arg = syncobj::SyncobjWait { handles, timeout_nsec, count_handles, flags, ..Default::default() };
                self.ioctl("SYNCOBJ_WAIT", arg.as_bytes().to_vec(), arrays)
            }
            5 => {
                let flags = self.mostly(&[0, 1, 2, 4, 6], &[16]);
                let wait = syncobj::SyncobjTimelineWait { handles, points, timeout_nsec, ..Default::default() };
                let arg = syncobj::SyncobjTimelineWait { count_handles, flags, ..wait };
                self.ioctl("SYNCOBJ_TIMELINE_WAIT", arg.as_bytes().to_vec(), arrays)
            }
            6..=7 => {
                let name = self.one_of(&["SYNCOBJ_RESET", "SYNCOBJ_SIGNAL"]);
                let arg = syncobj::SyncobjArray { handles, count_handles, pad: 0 };
                self.ioctl(name, arg.as_bytes().to_vec(), arrays)
            }
            8..=9 => {
                let name = self.one_of(&["SYNCOBJ_QUERY", "SYNCOBJ_TIMELINE_SIGNAL"]);
                let flags = u32::from(self.rarely(6));
                let arg = syncobj::SyncobjTimelineArray { handles, points, count_handles, flags };
                self.ioctl(name, arg.as_bytes().to_vec(), arrays)
            }
            10 => {
                let arg = syncobj::SyncobjTransfer {
                    src_handle: handle,
                    dst_handle: self.name(self.taken.syncobjs),
                    src_point: self.below(4),
                    dst_point: self.below(4),
                    flags: self.one_of(&[0, 0, 0, 1]),
                    ..Default::default()
                };
                self.ioctl("SYNCOBJ_TRANSFER", arg.as_bytes().to_vec(), vec![])
            }
            11 => {
                let (flags, fd) = (self.mostly(&[0, 4], &[1]), self.mostly(&[EVENT_FD], &[FIRST_FD, -1]));
                let arg = syncobj::SyncobjEventfd { handle, flags, point: self.below(4), fd, pad: 0 };
                self.ioctl("SYNCOBJ_EVENTFD", arg.as_bytes().to_vec(), vec![])
            }
            12 => {
                self.fds += 1;
                let arg = syncobj::SyncobjHandle { handle, flags: self.one_of(&[0, 0, 1, 1, 3]), ..Default::default() };
                self.ioctl("SYNCOBJ_HANDLE_TO_FD", arg.as_bytes().to_vec(), vec![])
            }
            _ => {
                let (flags, fd) = (self.one_of(&[0, 1, 2, 3]), self.fd());
                let arg = syncobj::SyncobjHandle { handle, flags, fd, ..Default::default() };
                self.ioctl("SYNCOBJ_FD_TO_HANDLE", arg.as_bytes().to_vec(), vec![])
            }
        }
    }

    pub(super) fn export(&mut self, handle: u32) -> Step {
        self.fds += 1;
        let flags = self.mostly(&[0o2_000_002, 0o2, 0, 0o2_000_000], &[1]);
        self.ioctl("PRIME_HANDLE_TO_FD", drm::PrimeHandle { handle, flags, fd: 0 }.as_bytes().to_vec(), vec![])
    }

    pub(super) fn import(&mut self) -> Step {
        let fd = self.fd();
        self.taken.bos += 1;
        self.ioctl("PRIME_FD_TO_HANDLE", drm::PrimeHandle { handle: 0, flags: 0, fd }.as_bytes().to_vec(), vec![])
    }

    pub(super) fn prime(&mut self) -> Step {
        let handle = self.name(self.taken.bos);
        match self.below(8) {
            0..=2 => self.export(handle),
            3..=4 => self.import(),
            5 => self.ioctl("GEM_FLINK", drm::GemFlink { handle, name: 0 }.as_bytes().to_vec(), vec![]),
            6 => {
                let arg = drm::GemOpen { name: 1 + self.below(3) as u32, ..Default::default() };
                self.ioctl("GEM_OPEN", arg.as_bytes().to_vec(), vec![])
            }
            _ => {
                let flags = u32::from(self.rarely(4));
                let handle = if flags == 1 { 0 } else { handle };
                let arg = gem::GemMmapOffset { handle, flags, ..Default::default() };
                self.ioctl("GEM_MMAP_OFFSET", arg.as_bytes().to_vec(), vec![])
            }
        }
    }

    /// On a descriptor that an ioctl gave out.
    pub(super) fn passed(&mut self) -> Step {
        let (fd, other) = (self.fd().max(FIRST_FD), self.fd());
        match self.below(6) {
            0 => {
                let arg = dma_buf::DmaBufSync { flags: self.below(8) };
                self.ioctl_on(fd, "DMA_BUF_SYNC", arg.as_bytes().to_vec(), vec![])
            }
            1 => self.ioctl_on(fd, "DMA_BUF_SET_NAME", vec![b'a', 0, 0, 0], vec![]),
            2 => {
                self.fds += 1;
                let arg = dma_buf::DmaBufSyncFile { flags: self.below(4) as u32, fd: -1 };
                self.ioctl_on(fd, "DMA_BUF_EXPORT", arg.as_bytes().to_vec(), vec![])
            }
            3 => {
                let arg = dma_buf::DmaBufSyncFile { flags: self.below(4) as u32, fd: other };
                self.ioctl_on(fd, "DMA_BUF_IMPORT", arg.as_bytes().to_vec(), vec![])
            }
            4 => {
                self.fds += 1;
                let arg = sync_file::SyncMerge { fd2: other, ..Default::default() };
                self.ioctl_on(fd, "SYNC_MERGE", arg.as_bytes().to_vec(), vec![])
            }
            _ => {
                let num_fences = self.below(2) as u32;
                let arg = sync_file::SyncFileInfo { num_fences, sync_fence_info: POINTED, ..Default::default() };
                self.ioctl_on(fd, "SYNC_FILE_INFO", arg.as_bytes().to_vec(), vec![])
            }
        }
    }

    pub(super) fn device_query(&mut self) -> Step {
        let query = self.below(12) as u32;
        let size = self.one_of(&[0, 0, 8, 24, 40, 48, 272]);
        let arg = query::DeviceQuery { query, size, data: POINTED, ..Default::default() };
        let blocks = match query {
            query::ENGINE_CYCLES => {
                let eci = query::EngineClassInstance { engine_class: 1, ..Default::default() };
                let clockid = self.one_of(&[0, 1, 4, 7, 11, 2]);
                vec![Block::of(
                    POINTED,
                    Kind::EngineCycles,
                    &query::EngineCycles { eci, clockid, ..Default::default() },
                )]
            }
            query::UC_FW_VERSION => {
                let asked = query::UcFwVersion { uc_type: self.below(3) as u16, ..Default::default() };
                vec![Block::of(POINTED, Kind::UcFwVersion, &asked)]
            }
            _ => vec![],
        };
        self.ioctl("DEVICE_QUERY", arg.as_bytes().to_vec(), blocks)
    }

    pub(super) fn core(&mut self) -> Step {
        match self.below(8) {
            0 => {
                let len = self.one_of(&[0, 2, 16]);
                let arg = drm::Version {
                    name_len: len,
                    name: POINTED,
                    date_len: len,
                    date: DESK.end.0 - 1,
                    ..Default::default()
                };
                self.ioctl("VERSION", arg.as_bytes().to_vec(), vec![])
            }
            1..=3 => {
                let capability = self.one_of(&[5, 6, 0x13, 0x14, 1, 99]);
                let name = self.one_of(&["GET_CAP", "GET_CAP", "SET_CLIENT_CAP"]);
                self.ioctl(name, drm::GetCap { capability, value: 0 }.as_bytes().to_vec(), vec![])
            }
            4 => self.ioctl("SET_MASTER", vec![], vec![]),
            5 => self.ioctl("DROP_MASTER", vec![], vec![]),
            _ => self.ioctl("OBSERVATION", vec![0; 32], vec![]),
        }
    }
}

fn op_blocks(ops: &[vm::VmBindOp]) -> Vec<Block> {
    let place = |n: usize| POINTED + (n * size_of::<vm::VmBindOp>()) as u64;
    ops.iter().enumerate().map(|(n, op)| Block::of(place(n), Kind::VmBindOp, op)).collect()
}
