//! The program's side of the uAPI, for scenes, benches and tests: ioctls whose arguments lie in the program's own
//! memory, whichever world that is in.
//!
//! Key types: [`Program`] (an open file and a scratch page for arguments), [`Batch`] (GPU commands in the making). `objects`:
//! buffers, syncobjs, and what waits and signals.
//! A `Program` belongs to one thread: its scratch page is not shared.

mod caller;
mod objects;

pub use objects::Order;

use caller::Process;
use hostmm::HostMemory;
use std::sync::Arc;
use units::{GpuVa, HostRange, HostVa, TileId};
use xe_kmd::{Errno, File};
use xe_spec::cmd::{self, blt};
use xe_spec::regs;
use xe_uapi::attr::{self, Madvise};
use xe_uapi::exec::{self, Exec, ExecQueueCreate, ExecQueueDestroy, Sync, WaitUserFence};
use xe_uapi::ioctl;
use xe_uapi::query::EngineClassInstance;
pub use xe_uapi::vm::BindFlags;
use xe_uapi::vm::{self, CreateFlags, VmBind, VmBindOp, VmCreate, VmDestroy};
use zerocopy::{FromBytes, Immutable, IntoBytes};

/// Where the second argument of an ioctl lies in the scratch page.
const SECOND: u64 = 1024;
/// Where the third does.
const THIRD: u64 = 2048;

/// A thread of a program with an open DRM file.
#[derive(Clone)]
pub struct Program {
    file: Arc<File>,
    memory: Arc<dyn HostMemory>,
    scratch: HostVa,
}

/// An engine of the uAPI's classes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Class {
    /// Blitter.
    Copy,
    /// Compute.
    Compute,
}

impl Class {
    const fn uapi(self) -> u16 {
        match self {
            Self::Copy => exec::CLASS_COPY,
            Self::Compute => exec::CLASS_COMPUTE,
        }
    }
}

/// What MADVISE is told of a span.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Advice {
    /// Its pages stay in system memory.
    SystemMemory,
    /// They go where they are used.
    FaultingTile,
    /// They go to the VRAM of this tile, by the device's descriptor and its region.
    Tile(TileId),
    /// This entry of the PAT table.
    Pat(u32),
}

impl Program {
    /// `scratch` is a page of the program's memory that nothing else uses.
    pub fn new(file: Arc<File>, memory: Arc<dyn HostMemory>, scratch: HostVa) -> Self {
        Self { file, memory, scratch }
    }

    /// Write-back, as user-mode drivers ask for it.
    fn wb(&self) -> u16 {
        self.file.platform().pat.wb.into()
    }

    /// The open file.
    pub fn file(&self) -> &Arc<File> {
        &self.file
    }

    /// A fault-mode VM.
    pub fn vm_create(&self) -> Result<u32, Errno> {
        let flags = (CreateFlags::LR_MODE | CreateFlags::FAULT_MODE).bits();
        let mut arg = VmCreate { flags, ..Default::default() };
        self.ioctl(ioctl::VM_CREATE, &mut arg)?;
        Ok(arg.vm_id)
    }

    /// Ends a VM.
    pub fn vm_destroy(&self, vm_id: u32) -> Result<(), Errno> {
        self.ioctl(ioctl::VM_DESTROY, &mut VmDestroy { vm_id, ..Default::default() })
    }

    /// Mirrors the process's addresses over the whole VM; `fence` gets `value` when that is done.
    pub fn bind_mirror(&self, vm_id: u32, fence: Option<(HostVa, u64)>) -> Result<(), Errno> {
        self.bind_mirror_with(vm_id, BindFlags::empty(), fence)
    }

    /// The same, with more flags.
    pub fn bind_mirror_with(&self, vm_id: u32, flags: BindFlags, fence: Option<(HostVa, u64)>) -> Result<(), Errno> {
        let sync = fence.map(|(addr, value)| user_fence(addr.0, value));
        let mut arg = VmBind {
            vm_id,
            num_binds: 1,
            bind: VmBindOp {
                pat_index: self.wb(),
                range: 1 << self.file.platform().va_bits,
                op: vm::BIND_OP_MAP,
                flags: (BindFlags::CPU_ADDR_MIRROR | flags).bits(),
                ..Default::default()
            },
            num_syncs: u32::from(sync.is_some()),
            syncs: if sync.is_some() { self.second().0 } else { 0 },
            ..Default::default()
        };
        if let Some(sync) = sync {
            self.put(self.second(), &sync)?;
        }
        self.ioctl(ioctl::VM_BIND, &mut arg)
    }

    /// A queue on the first engine of a class on a tile.
    pub fn queue_create(&self, vm_id: u32, class: Class, tile: TileId) -> Result<u32, Errno> {
        self.queue_create_on(vm_id, class, 0, tile)
    }

    /// A queue on a certain engine of it.
    pub fn queue_create_on(&self, vm_id: u32, class: Class, instance: u16, tile: TileId) -> Result<u32, Errno> {
        self.queue_create_with(vm_id, class.uapi(), instance, tile, 0)
    }

    /// A queue on the first engine, of high priority.
    pub fn queue_create_high(&self, vm_id: u32, class: Class, tile: TileId) -> Result<u32, Errno> {
        let at = self.scratch.add(THIRD);
        let property = exec::QUEUE_PROPERTY_PRIORITY;
        self.put(at, &xe_uapi::ExtSetProperty { property, value: 2, ..Default::default() })?;
        self.queue_create_with(vm_id, class.uapi(), 0, tile, at.0)
    }

    /// A queue of binds.
    pub fn bind_queue_create(&self, vm_id: u32) -> Result<u32, Errno> {
        self.queue_create_with(vm_id, exec::CLASS_VM_BIND, 0, TileId(0), 0)
    }

    fn queue_create_with(
        &self,
        vm_id: u32,
        engine_class: u16,
        instance: u16,
        tile: TileId,
        extensions: u64,
    ) -> Result<u32, Errno> {
        let engine =
            EngineClassInstance { engine_class, engine_instance: instance, gt_id: tile.0.into(), ..Default::default() };
        self.put(self.second(), &engine)?;
        let mut arg = ExecQueueCreate {
            width: 1,
            num_placements: 1,
            vm_id,
            instances: self.second().0,
            extensions,
            ..Default::default()
        };
        self.ioctl(ioctl::EXEC_QUEUE_CREATE, &mut arg)?;
        Ok(arg.exec_queue_id)
    }

    /// Ends a queue.
    pub fn queue_destroy(&self, exec_queue_id: u32) -> Result<(), Errno> {
        self.ioctl(ioctl::EXEC_QUEUE_DESTROY, &mut ExecQueueDestroy { exec_queue_id, ..Default::default() })
    }

    /// Runs the batch at `batch`; its end stores `value` at `fence`.
    pub fn exec(&self, exec_queue_id: u32, batch: GpuVa, fence: GpuVa, value: u64) -> Result<(), Errno> {
        self.put(self.second(), &user_fence(fence.0, value))?;
        let mut arg = Exec {
            exec_queue_id,
            num_syncs: 1,
            syncs: self.second().0,
            address: batch.0,
            num_batch_buffer: 1,
            ..Default::default()
        };
        self.ioctl(ioctl::EXEC, &mut arg)
    }

    /// Waits until eight bytes at `fence` equal `value`, at most `timeout_ns`.
    pub fn wait(&self, fence: HostVa, value: u64, timeout_ns: i64, exec_queue_id: u32) -> Result<(), Errno> {
        let mut arg = WaitUserFence {
            addr: fence.0,
            op: exec::UFENCE_WAIT_EQ,
            value,
            mask: u64::MAX,
            timeout: timeout_ns,
            exec_queue_id,
            ..Default::default()
        };
        self.ioctl(ioctl::WAIT_USER_FENCE, &mut arg)
    }

    /// Advises on mirrored memory.
    pub fn madvise(&self, vm_id: u32, span: HostRange, advice: Advice) -> Result<(), Errno> {
        self.advise(vm_id, span, advice, &self.file)
    }

    /// The same of the VRAM of a tile of another device, whose open file is `peer`.
    pub fn madvise_peer(&self, vm_id: u32, span: HostRange, peer: &Arc<File>, tile: TileId) -> Result<(), Errno> {
        self.advise(vm_id, span, Advice::Tile(tile), peer)
    }

    /// Advice, whose device's descriptor is one of `device`.
    fn advise(&self, vm_id: u32, span: HostRange, advice: Advice, device: &Arc<File>) -> Result<(), Errno> {
        let (attr, val, region) = match advice {
            Advice::SystemMemory => (attr::ATTR_PREFERRED_LOC, attr::PREFERRED_LOC_DEFAULT_SYSTEM, 0),
            Advice::FaultingTile => (attr::ATTR_PREFERRED_LOC, attr::PREFERRED_LOC_DEFAULT_DEVICE, 0),
            Advice::Tile(tile) => (attr::ATTR_PREFERRED_LOC, Process::DEVICE, 1 + u32::from(tile.0)),
            Advice::Pat(index) => (attr::ATTR_PAT, index, 0),
        };
        let (start, range, policy_region) = (span.start.0, span.len(), region << 16);
        let mut arg = Madvise { vm_id, start, range, attr, val, policy_region, ..Default::default() };
        self.ioctl_with(device, ioctl::MADVISE, &mut arg)
    }

    /// One ioctl; what the driver writes back is in `arg` afterwards.
    pub fn ioctl<T: IntoBytes + FromBytes + Immutable>(&self, request: u32, arg: &mut T) -> Result<(), Errno> {
        self.ioctl_with(&self.file, request, arg)
    }

    fn ioctl_with<T: IntoBytes + FromBytes + Immutable>(
        &self,
        named: &Arc<File>,
        request: u32,
        arg: &mut T,
    ) -> Result<(), Errno> {
        self.put(self.scratch, arg)?;
        self.file.ioctl_for(&Process { named: named.clone() }, request, self.scratch)?;
        self.memory.copy_from_user(self.scratch, arg.as_mut_bytes()).map_err(|_| Errno::EFAULT)
    }

    fn second(&self) -> HostVa {
        self.scratch.add(SECOND)
    }

    fn put<T: IntoBytes + Immutable>(&self, at: HostVa, value: &T) -> Result<(), Errno> {
        self.memory.copy_to_user(at, value.as_bytes()).map_err(|_| Errno::EFAULT)
    }
}

fn user_fence(addr: u64, timeline_value: u64) -> Sync {
    Sync {
        sync_type: exec::SYNC_TYPE_USER_FENCE,
        flags: exec::SYNC_FLAG_SIGNAL,
        addr,
        timeline_value,
        ..Default::default()
    }
}

/// Commands of the copy engines: their client.
const BLITTER: u32 = 2;

/// GPU commands in the making.
#[derive(Clone, Default, Debug)]
pub struct Batch {
    dwords: Vec<u32>,
}

impl Batch {
    /// Bytes that a store or an increment takes at most.
    pub const STORE_BYTES: usize = 16;
    /// Bytes that a copy takes.
    pub const COPY_BYTES: usize = 32;

    /// MI_STORE_DATA_IMM of 32 bits.
    pub fn store(&mut self, at: GpuVa, value: u32) -> &mut Self {
        self.command(cmd::MI_STORE_DATA_IMM, 0, &[at.0 as u32, (at.0 >> 32) as u32, value])
    }

    /// MI_ATOMIC: 32-bit increment.
    pub fn increment(&mut self, at: GpuVa) -> &mut Self {
        self.command(cmd::MI_ATOMIC, cmd::atomic::INC << 8, &[at.0 as u32, (at.0 >> 32) as u32])
    }

    /// A dword from memory to memory, by a general register: MI_LOAD_REGISTER_MEM, MI_STORE_REGISTER_MEM.
    pub fn copy(&mut self, from: GpuVa, to: GpuVa) -> &mut Self {
        let through = |at: GpuVa| [regs::CS_GPR, at.0 as u32, (at.0 >> 32) as u32];
        self.command(cmd::MI_LOAD_REGISTER_MEM, cmd::REGISTER_RELATIVE, &through(from));
        self.command(cmd::MI_STORE_REGISTER_MEM, cmd::REGISTER_RELATIVE, &through(to))
    }

    /// MI_SEMAPHORE_WAIT: polls a dword until it equals `value`.
    pub fn wait_equal(&mut self, at: GpuVa, value: u32) -> &mut Self {
        let flags = cmd::SEMAPHORE_POLL | (cmd::Compare::Equal as u32) << 12;
        self.command(cmd::MI_SEMAPHORE_WAIT, flags, &[value, at.0 as u32, (at.0 >> 32) as u32])
    }

    /// MEM_COPY of `bytes`, a multiple of [`blt::MEM_PAGE_BYTES`], for copy engines.
    pub fn mem_copy(&mut self, from: GpuVa, to: GpuVa, bytes: u64) -> &mut Self {
        let width = (bytes / blt::MEM_PAGE_BYTES) as u32 - 1;
        let addresses = [from, to].map(|at| [at.0 as u32, (at.0 >> 32) as u32]);
        let operands = [&[width, 0, 0, 0], addresses.as_flattened(), &[0]].concat();
        self.dwords.push(BLITTER << 29 | blt::MEM_COPY << 22 | blt::MEM_PAGES | (operands.len() as u32 - 1));
        self.dwords.extend(operands);
        self
    }

    /// MI_BATCH_BUFFER_END; the batch as the bytes to put into memory.
    pub fn end(&mut self) -> Vec<u8> {
        self.dwords.push(cmd::MI_BATCH_BUFFER_END << 23);
        self.dwords.iter().flat_map(|dword| dword.to_le_bytes()).collect()
    }

    fn command(&mut self, opcode: u32, flags: u32, operands: &[u32]) -> &mut Self {
        self.dwords.push(opcode << 23 | flags | (operands.len() as u32 - 1));
        self.dwords.extend_from_slice(operands);
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_have_the_published_encodings() {
        let bytes = Batch::default().store(GpuVa(0x7f00_0000_1000), 5).increment(GpuVa(0x8)).end();
        let dwords: Vec<u32> = bytes.chunks_exact(4).map(|c| u32::from_le_bytes([c[0], c[1], c[2], c[3]])).collect();
        assert_eq!(dwords, [0x1000_0002, 0x1000, 0x7f00, 5, 0x1780_0501, 8, 0, 0x0500_0000]);
    }
}
