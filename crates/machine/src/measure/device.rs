//! What the bench of the whole device asks of it: copies, binds, faults of several queues, thousands of queues, a ring
//! that waits.
//!
//! Each answer is a time in nanoseconds from the call to the end that a program sees, or the object itself, for others to
//! look at what it costs while it is there.

use super::{Failed, PageSize, Region};
use crate::live::Live;
use crate::program::{Batch, Class, Order, Program};
use hostmm::HostMemory;
use std::sync::Arc;
use sync::time::now_ns;
use units::{HostRange, HostVa, SZ_1G, SZ_4K, SZ_64K, TileId};
use xe_kmd::Errno;

/// Where buffers are bound.
const BUFFERS: HostVa = HostVa(0x40_0000_0000);
/// Queues of the throughput of faults: tile, and number of its compute engine.
const FOUR: [(u8, u16); 4] = [(0, 0), (1, 0), (0, 1), (1, 1)];
/// Blocks that each of them faults on in a round.
pub const BLOCKS: usize = 64;

/// After which a job counts as hung: the first copy touches all of its memory, on a machine that may be busy.
const PATIENCE_NS: i64 = 60_000_000_000;

fn refused(what: &'static str) -> impl Fn(Errno) -> Failed {
    move |errno| Failed::Ioctl(what, errno)
}

/// A queue with memory of its own for a batch and its fence.
struct Lane {
    queue: u32,
    batch: Region,
    fence: Region,
    serial: u64,
}

/// A program with a VM that serves faults, and one that does not.
pub struct Device {
    live: Arc<Live>,
    program: Program,
    faulting: u32,
    plain: u32,
    /// Of [`FOUR`].
    lanes: Vec<Lane>,
    /// For copies, beside a buffer in system memory and two in VRAM, 1G apart.
    copier: Lane,
    copied: u64,
    /// What is faulted on.
    blocks: Vec<Region>,
    /// The arguments of ioctls.
    _scratch: Region,
}

impl Device {
    /// Opens the device; copies are of `copied` bytes.
    pub fn new(live: Arc<Live>, copied: u64) -> Result<Self, Failed> {
        let scratch = Region::new(SZ_4K, PageSize::Small)?;
        let program = Program::new(live.open(), live.mm().clone(), scratch.range().start);
        let faulting = program.vm_create().map_err(refused("VM_CREATE"))?;
        program.bind_mirror(faulting, None).map_err(refused("VM_BIND"))?;
        let plain = program.vm_create_plain().map_err(refused("VM_CREATE"))?;
        let lanes = FOUR.iter().map(|&(tile, engine)| Lane::new(&program, faulting, Class::Compute, engine, tile));
        let lanes = lanes.collect::<Result<_, _>>()?;
        let copier = Lane::new(&program, faulting, Class::Copy, 0, 0)?;
        for (index, placement) in [1, 2, 2].into_iter().enumerate() {
            let buffer = program.bo_create(copied, placement).map_err(refused("GEM_CREATE"))?;
            let at = HostRange::sized(BUFFERS.add(index as u64 * SZ_1G), copied);
            program.bind_bo(faulting, buffer, at, Order::default()).map_err(refused("VM_BIND"))?;
        }
        let block = || Region::new(SZ_64K, PageSize::Small);
        let blocks = (0..FOUR.len() * BLOCKS).map(|_| block()).collect::<Result<_, _>>()?;
        Ok(Self { live, program, faulting, plain, lanes, copier, copied, blocks, _scratch: scratch })
    }

    /// MEM_COPY to VRAM, from system memory or from VRAM, to the fence seen.
    pub fn copy(&mut self, from_system: bool) -> Result<u64, Failed> {
        let at = |index: u64| BUFFERS.add(index * SZ_1G).mirror();
        let bytes = Batch::default().mem_copy(at(if from_system { 0 } else { 1 }), at(2), self.copied).end();
        let start = now_ns();
        self.copier.begin(&self.live, &self.program, &bytes)?;
        self.copier.end(&self.program)?;
        Ok(now_ns() - start)
    }

    /// VM_BIND of a buffer in VRAM, and its UNMAP.
    pub fn bind(&self, bytes: u64) -> Result<[u64; 2], Failed> {
        let buffer = self.program.bo_create(bytes, 2).map_err(refused("GEM_CREATE"))?;
        let at = HostRange::sized(BUFFERS, bytes);
        let start = now_ns();
        self.program.bind_bo(self.plain, buffer, at, Order::default()).map_err(refused("VM_BIND"))?;
        let bound = now_ns();
        self.program.unbind(self.plain, at, Order::default()).map_err(refused("VM_BIND"))?;
        let unbound = now_ns();
        self.program.bo_close(buffer).map_err(refused("GEM_CLOSE"))?;
        Ok([bound - start, unbound - bound])
    }

    /// All blocks, each in system memory, are faulted on: by the first so many queues, to the last fence seen.
    pub fn fault(&mut self, queues: usize) -> Result<u64, Failed> {
        for block in &self.blocks {
            self.live.mm().copy_to_user(block.range().start, &[0; 4]).map_err(|_| Failed::Touch)?;
        }
        let start = now_ns();
        for (lane, blocks) in self.lanes.iter_mut().zip(self.blocks.chunks(self.blocks.len() / queues)) {
            let mut batch = Batch::default();
            blocks.iter().for_each(|block| _ = batch.store(block.range().start.mirror(), 1));
            lane.begin(&self.live, &self.program, &batch.end())?;
        }
        self.lanes[..queues].iter().try_for_each(|lane| lane.end(&self.program))?;
        Ok(now_ns() - start)
    }

    /// Blocks of a round.
    pub fn faults(&self) -> usize {
        self.blocks.len()
    }

    /// So many queues more.
    pub fn queues(&self, count: usize) -> Result<Vec<u32>, Failed> {
        let engine = |n: usize| FOUR[n % FOUR.len()];
        let queue = |(tile, engine)| self.program.queue_create_on(self.faulting, Class::Compute, engine, TileId(tile));
        (0..count).map(|n| queue(engine(n)).map_err(refused("EXEC_QUEUE_CREATE"))).collect()
    }

    /// Ends queues.
    pub fn end(&self, queues: Vec<u32>) -> Result<(), Failed> {
        queues
            .into_iter()
            .try_for_each(|queue| self.program.queue_destroy(queue).map_err(refused("EXEC_QUEUE_DESTROY")))
    }

    /// A ring as direct submission has it: a batch that waits for a word of memory, for as long as `meanwhile` takes.
    pub fn ring<T>(&mut self, meanwhile: impl FnOnce() -> T) -> Result<T, Failed> {
        let lane = &mut self.lanes[0];
        let word = lane.fence.range().start.add(SZ_4K / 2);
        self.live.mm().copy_to_user(word, &[0; 4]).map_err(|_| Failed::Touch)?;
        lane.begin(&self.live, &self.program, &Batch::default().wait_equal(word.mirror(), 1).end())?;
        let seen = meanwhile();
        self.live.mm().copy_to_user(word, &[1, 0, 0, 0]).map_err(|_| Failed::Touch)?;
        lane.end(&self.program)?;
        Ok(seen)
    }
}

impl Lane {
    fn new(program: &Program, vm: u32, class: Class, engine: u16, tile: u8) -> Result<Self, Failed> {
        let queue = program.queue_create_on(vm, class, engine, TileId(tile)).map_err(refused("EXEC_QUEUE_CREATE"))?;
        let bytes = (Batch::STORE_BYTES * FOUR.len() * BLOCKS) as u64 + SZ_4K;
        let (batch, fence) = (Region::new(bytes.next_multiple_of(SZ_4K), PageSize::Small)?, SZ_4K);
        Ok(Self { queue, batch, fence: Region::new(fence, PageSize::Small)?, serial: 0 })
    }

    /// EXEC.
    fn begin(&mut self, live: &Live, program: &Program, batch: &[u8]) -> Result<(), Failed> {
        self.serial += 1;
        let (at, fence) = (self.batch.range().start, self.fence.range().start);
        live.mm().copy_to_user(at, batch).map_err(|_| Failed::Touch)?;
        program.exec(self.queue, at.mirror(), fence.mirror(), self.serial).map_err(refused("EXEC"))
    }

    /// Waits for its end.
    fn end(&self, program: &Program) -> Result<(), Failed> {
        let done = program.wait(self.fence.range().start, self.serial, PATIENCE_NS, self.queue);
        done.map_err(refused("WAIT_USER_FENCE"))
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        let _ = self.end(self.lanes.iter().chain([&self.copier]).map(|lane| lane.queue).collect());
        let _ = self.program.vm_destroy(self.faulting);
        let _ = self.program.vm_destroy(self.plain);
    }
}
