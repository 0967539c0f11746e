//! A program's buffers, syncobjs, binds and jobs that wait and signal.

use super::Program;
use units::{GpuVa, HostFrame, HostRange, HostVa};
use xe_kmd::Errno;
use xe_uapi::drm::GemClose;
use xe_uapi::exec::{self, Exec, Sync};
use xe_uapi::gem::{CACHING_WB, CACHING_WC, GemCreate, GemMmapOffset};
use xe_uapi::ioctl;
use xe_uapi::syncobj::{SyncobjCreate, SyncobjWait};
use xe_uapi::vm::{self, BindFlags, CreateFlags, VmBind, VmBindOp, VmCreate};

/// Syncobjs that a call waits for and signals.
#[derive(Clone, Copy, Default, Debug)]
pub struct Order {
    /// It begins behind this one's fence.
    pub behind: Option<u32>,
    /// This one gets its fence.
    pub signals: Option<u32>,
    /// A bind goes to this queue of binds; else to the VM's own.
    pub queue: Option<u32>,
}

impl Program {
    /// A VM without faults.
    pub fn vm_create_plain(&self) -> Result<u32, Errno> {
        self.vm_create_with(CreateFlags::empty())
    }

    /// The same; where nothing is bound, reads give zeros and writes are dropped.
    pub fn vm_create_scratch(&self) -> Result<u32, Errno> {
        self.vm_create_with(CreateFlags::SCRATCH_PAGE)
    }

    fn vm_create_with(&self, flags: CreateFlags) -> Result<u32, Errno> {
        let mut arg = VmCreate { flags: flags.bits(), ..Default::default() };
        self.ioctl(ioctl::VM_CREATE, &mut arg)?;
        Ok(arg.vm_id)
    }

    /// A buffer object of `size` bytes in the regions of a mask.
    pub fn bo_create(&self, size: u64, placement: u32) -> Result<u32, Errno> {
        let cpu_caching = if placement & !1 == 0 { CACHING_WB } else { CACHING_WC };
        let mut arg = GemCreate { size, placement, cpu_caching, ..Default::default() };
        self.ioctl(ioctl::GEM_CREATE, &mut arg)?;
        Ok(arg.handle)
    }

    /// The first frame of a buffer object's bytes, as a CPU would map them. `EFAULT`: it is another device's.
    pub fn bo_frame(&self, handle: u32) -> Result<HostFrame, Errno> {
        let mut arg = GemMmapOffset { handle, ..Default::default() };
        self.ioctl(ioctl::GEM_MMAP_OFFSET, &mut arg)?;
        self.file.mmap(arg.offset, units::SZ_4K)?.ok_or(Errno::EFAULT)
    }

    /// Gives a buffer object's handle up.
    pub fn bo_close(&self, handle: u32) -> Result<(), Errno> {
        self.ioctl(ioctl::GEM_CLOSE, &mut GemClose { handle, ..Default::default() })
    }

    /// Brings mirrored memory to a region, counted from 0 for system memory; all ones: where the VM's attributes say.
    pub fn prefetch(&self, vm_id: u32, span: HostRange, region: u32) -> Result<(), Errno> {
        self.bind(vm_id, prefetch_op(span, region), Order::default())
    }

    /// Shows memory of the process at another address; to be read only, where nobody may write there.
    pub fn bind_userptr(&self, vm_id: u32, memory: HostRange, at: HostRange, write: bool) -> Result<(), Errno> {
        let (addr, range, obj_offset) = (at.start.0, at.len(), memory.start.0);
        let flags = if write { BindFlags::empty() } else { BindFlags::READONLY }.bits();
        let op = VmBindOp { addr, range, obj_offset, flags, op: vm::BIND_OP_MAP_USERPTR, ..Default::default() };
        self.bind(vm_id, op, Order::default())
    }

    /// Unmaps what is at `at` and prefetches `span`, in one call.
    pub fn unbind_and_prefetch(&self, vm_id: u32, at: HostRange, span: HostRange, region: u32) -> Result<(), Errno> {
        let binds = [
            VmBindOp {
                pat_index: self.wb(),
                addr: at.start.0,
                range: at.len(),
                op: vm::BIND_OP_UNMAP,
                ..Default::default()
            },
            VmBindOp { pat_index: self.wb(), ..prefetch_op(span, region) },
        ];
        self.put(self.second(), &binds)?;
        let bind = VmBindOp { extensions: self.second().0, ..Default::default() };
        self.ioctl(ioctl::VM_BIND, &mut VmBind { vm_id, num_binds: 2, bind, ..Default::default() })
    }

    /// A syncobj without a fence.
    pub fn syncobj_create(&self) -> Result<u32, Errno> {
        let mut arg = SyncobjCreate::default();
        self.ioctl(ioctl::SYNCOBJ_CREATE, &mut arg)?;
        Ok(arg.handle)
    }

    /// Waits for a syncobj's fence.
    pub fn syncobj_wait(&self, handle: u32) -> Result<(), Errno> {
        self.put(self.second(), &handle)?;
        let (handles, timeout_nsec) = (self.second().0, i64::MAX);
        let mut arg = SyncobjWait { handles, timeout_nsec, count_handles: 1, ..Default::default() };
        self.ioctl(ioctl::SYNCOBJ_WAIT, &mut arg)
    }

    /// Maps a buffer object.
    pub fn bind_bo(&self, vm_id: u32, obj: u32, at: HostRange, order: Order) -> Result<(), Errno> {
        let (addr, range) = (at.start.0, at.len());
        self.bind(vm_id, VmBindOp { obj, addr, range, op: vm::BIND_OP_MAP, ..Default::default() }, order)
    }

    /// Unmaps what is there.
    pub fn unbind(&self, vm_id: u32, at: HostRange, order: Order) -> Result<(), Errno> {
        let (addr, range) = (at.start.0, at.len());
        self.bind(vm_id, VmBindOp { addr, range, op: vm::BIND_OP_UNMAP, ..Default::default() }, order)
    }

    fn bind(&self, vm_id: u32, op: VmBindOp, order: Order) -> Result<(), Errno> {
        let bind = VmBindOp { pat_index: self.wb(), ..op };
        let (num_syncs, syncs) = self.put_syncs(order)?;
        let exec_queue_id = order.queue.unwrap_or(0);
        let mut arg = VmBind { vm_id, exec_queue_id, num_binds: 1, bind, num_syncs, syncs, ..Default::default() };
        self.ioctl(ioctl::VM_BIND, &mut arg)
    }

    /// Runs the batch at `batch`.
    pub fn exec_behind(&self, exec_queue_id: u32, batch: GpuVa, order: Order) -> Result<(), Errno> {
        let (num_syncs, syncs) = self.put_syncs(order)?;
        let (address, num_batch_buffer) = (batch.0, 1);
        let mut arg = Exec { exec_queue_id, num_syncs, syncs, address, num_batch_buffer, ..Default::default() };
        self.ioctl(ioctl::EXEC, &mut arg)
    }

    /// How many syncs an order has, and where they lie.
    fn put_syncs(&self, order: Order) -> Result<(u32, u64), Errno> {
        let ways = [(order.behind, 0), (order.signals, exec::SYNC_FLAG_SIGNAL)];
        let mut count = 0;
        for (handle, flags) in ways {
            let Some(handle) = handle else { continue };
            let sync = Sync { sync_type: exec::SYNC_TYPE_SYNCOBJ, flags, addr: handle.into(), ..Default::default() };
            self.put(HostVa(self.second().0 + u64::from(count) * size_of::<Sync>() as u64), &sync)?;
            count += 1;
        }
        Ok((count, if count > 0 { self.second().0 } else { 0 }))
    }
}

fn prefetch_op(span: HostRange, region: u32) -> VmBindOp {
    let (addr, range, op) = (span.start.0, span.len(), vm::BIND_OP_PREFETCH);
    VmBindOp { addr, range, prefetch_mem_region_instance: region, op, ..Default::default() }
}
