//! The simulated kernel as mm-live asks for one.
//!
//! Its arenas are VMAs of the simulated process, which its program never touches.

use super::filling::Filling;
use super::{ContextId, Reports};
use crate::access::{CpuError, Touch};
use crate::calls::Advice;
use crate::sim::Sim;
use hostmm::{AtomicOp, Vma};
use mm_live::kernel::{
    Bytes, Descriptor, Errno, Fault, Held, Kernel, Mapping, Message, Populate, Progress, Ready, Watch,
};
use std::sync::Arc;
use units::{HostRange, HostVa, SZ_4K};

/// Two descriptors of a simulated process; closed with their owner. Several work side by side.
pub struct SimKernel {
    sim: Arc<Sim>,
    program: ContextId,
    device: ContextId,
    cpus: u32,
}

impl SimKernel {
    /// Opens them. `cpus` is how many readers are worth their while.
    pub fn new(sim: &Arc<Sim>, cpus: u32) -> Arc<Self> {
        let mut state = sim.lock();
        let (program, device) = (state.uffd.open(Reports::Messages), state.uffd.open(Reports::Signals));
        drop(state);
        Arc::new(Self { sim: sim.clone(), program, device, cpus })
    }
    /// The process.
    pub fn sim(&self) -> &Arc<Sim> {
        &self.sim
    }
    const fn context(&self, by: Descriptor) -> ContextId {
        match by {
            Descriptor::Program => self.program,
            Descriptor::Device => self.device,
        }
    }
}

impl Drop for SimKernel {
    fn drop(&mut self) {
        self.sim.close_context(self.program);
        self.sim.close_context(self.device);
    }
}

impl Kernel for SimKernel {
    fn read_messages(&self, out: &mut [Message]) -> usize {
        self.sim.read_messages_of(self.program, out)
    }
    fn event_pending(&self) -> bool {
        self.sim.look(self.program).is_err()
    }
    fn register(&self, by: Descriptor, range: HostRange, watch: Watch) -> Result<(), Errno> {
        self.sim.register_range(self.context(by), range, watch)
    }
    fn unregister(&self, by: Descriptor, range: HostRange) -> Result<(), Errno> {
        self.sim.unregister_range(self.context(by), range)
    }
    fn wake(&self, range: HostRange) {
        self.sim.wake_in(self.program, range);
    }
    fn move_pages(&self, by: Descriptor, dst: HostVa, src: HostVa, len: u64) -> Progress {
        self.sim.move_range(self.context(by), dst, src, len)
    }
    fn copy(&self, by: Descriptor, dst: HostVa, src: HostVa, len: u64) -> Progress {
        self.sim.fill_range(self.context(by), dst, len, Filling::Memory(src))
    }
    fn fill(&self, by: Descriptor, dst: HostVa, bytes: &[u8]) -> Progress {
        self.sim.fill_range(self.context(by), dst, bytes.len() as u64, Filling::Bytes(bytes))
    }
    fn zero(&self, by: Descriptor, range: HostRange) -> Progress {
        self.sim.fill_range(self.context(by), range.start, range.len(), Filling::Zeros)
    }
    fn poison(&self, range: HostRange) {
        let done = self.sim.fill_range(self.program, range.start, range.len(), Filling::Poison);
        if done.bytes > 0 {
            self.sim.wake_in(self.program, HostRange::sized(range.start, done.bytes));
        }
    }
    fn protect(&self, range: HostRange, protect: bool) -> Result<(), Errno> {
        self.sim.protect_range(self.program, range, protect)
    }

    fn map_arena(&self, bytes: u64) -> Result<HostRange, Errno> {
        self.sim.map_arena(bytes)
    }
    fn unmap_arena(&self, range: HostRange) {
        if !range.is_empty() {
            self.sim.munmap(range);
        }
    }
    fn reserve(&self, bytes: u64) -> Result<HostRange, Errno> {
        Ok(self.sim.reserve(bytes))
    }
    fn map_object(&self, at: HostRange, of: Bytes) -> Result<(), Errno> {
        match of {
            Bytes::New(_) => self.sim.map_at(at),
            // There are no files here.
            Bytes::File(_) => Err(Errno::BADF),
        }
    }
    fn purge_object(&self, at: HostRange) {
        self.sim.unmap_at(at);
    }
    fn unmap_object(&self, at: HostRange) {
        self.sim.unmap_at(at);
    }
    fn drop_pages(&self, range: HostRange) -> Result<(), Errno> {
        self.sim.madvise(range, Advice::DontNeed)
    }
    fn populate(&self, range: HostRange, access: Populate) -> Result<(), Errno> {
        match access {
            Populate::Read => self.sim.madvise(range, Advice::PopulateRead),
            Populate::Write => self.sim.madvise(range, Advice::PopulateWrite),
        }
    }

    fn mapping(&self, addr: HostVa) -> Option<Mapping> {
        let state = self.sim.lock();
        let mapped = state.space.vmas().find(|mapped| mapped.vma.range.end > addr)?;
        let Vma { range, read, write, anonymous, io } = mapped.vma;
        Some(Mapping { range, read, write, exec: false, plain: anonymous && !io, io })
    }
    fn scan(&self, range: HostRange, out: &mut [Held]) -> (usize, HostVa) {
        self.sim.scan(range, out)
    }

    fn read(&self, at: HostVa, buf: &mut [u8]) -> Result<(), Fault> {
        self.sim.load(at, buf).map_err(fault)
    }
    fn write(&self, at: HostVa, bytes: &[u8]) -> Result<(), Fault> {
        self.sim.store(at, bytes).map_err(fault)
    }
    fn atomic(&self, at: HostVa, size: usize, op: AtomicOp) -> Result<u64, Fault> {
        self.sim.with_page(at, Touch::Store, |content| content.atomic(at.page_offset(), size, op)).map_err(fault)
    }

    fn descriptors(&self) -> Vec<i32> {
        Vec::new()
    }

    fn wait(&self, timeout_ms: i32) -> Ready {
        self.sim.poll(self.program, timeout_ms)
    }
    fn kick(&self) {
        self.sim.set_kicked(self.program, true);
    }
    fn quiet(&self) {
        self.sim.set_kicked(self.program, false);
    }
    fn cpus(&self) -> u32 {
        self.cpus
    }
    fn become_reader(&self, _: u32) {}
    fn thread_memory(&self) -> Vec<HostRange> {
        Vec::new()
    }
}

const fn fault(error: CpuError) -> Fault {
    match error {
        CpuError::Segv => Fault::Segv,
        CpuError::Bus => Fault::Bus,
    }
}

impl Sim {
    /// `PAGEMAP_SCAN` for what is present, swapped out, or a marker: runs of pages that are alike.
    fn scan(&self, range: HostRange, out: &mut [Held]) -> (usize, HostVa) {
        let mut state = self.read_mappings();
        state.reclaim();
        let (mut found, mut upto) = (0usize, range.end);
        for (at, _) in state.space.entries(range) {
            let huge = state.space.order(at) > 0;
            let last = found.checked_sub(1).map(|last| out[last]);
            match last {
                Some(held) if held.range.end == at && held.huge == huge => out[found - 1].range.end = at.add(SZ_4K),
                _ if found == out.len() => {
                    upto = at;
                    break;
                }
                _ => {
                    out[found] = Held { range: HostRange::sized(at, SZ_4K), huge };
                    found += 1;
                }
            }
        }
        self.leave(&mut state);
        (found, upto)
    }
}
