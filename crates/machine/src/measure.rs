//! A program for measuring: blocks of memory that tiles and CPU touch in turn on the live machine.
//!
//! Only a [`Region`] is ever touched by the device, so nothing else of the process migrates. Batch, fence and the
//! arguments of ioctls lie in regions of 4K, which a device that needs 64K leaves where they are.
//!
//! What the driver did is read from the [`ledger`](crate::ledger); what it took, seen from outside, is timed here.
//! All times are nanoseconds.

use crate::ledger::{GpuFault, Migration, place_name};
use crate::live::Live;
use crate::program::{Batch, Class, Program};
use hostmm::HostMemory;
use std::fmt;
use std::sync::Arc;
use sync::time::now_ns;
use units::{SZ_4K, TileId};
use xe_kmd::Errno;

pub mod device;

pub use mm_live::{Calls, PageSize, Refused, Region, floor};

/// After which a job counts as hung.
const TIMEOUT_NS: i64 = 2_000_000_000;

/// Why something was not measured.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Failed {
    /// The kernel refused memory or userfaultfd.
    Refused(Refused),
    /// The driver refused an ioctl.
    Ioctl(&'static str, Errno),
    /// A touch of the CPU ended with a signal.
    Touch,
}

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused(refused) => refused.fmt(f),
            Self::Ioctl(what, errno) => write!(f, "{what}: {errno}"),
            Self::Touch => f.write_str("a touch by the CPU ended with a signal"),
        }
    }
}

impl std::error::Error for Failed {}

impl From<Refused> for Failed {
    fn from(refused: Refused) -> Self {
        Self::Refused(refused)
    }
}

/// A program with a queue on each tile.
pub struct Stand {
    live: Arc<Live>,
    program: Program,
    vm: u32,
    queues: Vec<u32>,
    batch: Region,
    fence: Region,
    /// The arguments of ioctls.
    _scratch: Region,
    serial: u64,
}

impl Stand {
    /// Opens the device and mirrors the process.
    pub fn new(live: Arc<Live>) -> Result<Self, Failed> {
        let page = || Region::new(SZ_4K, PageSize::Small);
        let (batch, fence, scratch) = (page()?, page()?, page()?);
        let platform = live.core().device().platform();
        let program = Program::new(live.open(), live.mm().clone(), scratch.range().start);
        let vm = program.vm_create().map_err(|errno| Failed::Ioctl("VM_CREATE", errno))?;
        program.bind_mirror(vm, None).map_err(|errno| Failed::Ioctl("VM_BIND", errno))?;
        let queue = |tile| program.queue_create(vm, Class::Compute, TileId(tile as u8));
        let queues: Result<_, _> = (0..platform.tiles.len()).map(queue).collect();
        let queues = queues.map_err(|errno| Failed::Ioctl("EXEC_QUEUE_CREATE", errno))?;
        Ok(Self { live, program, vm, queues, batch, fence, _scratch: scratch, serial: 0 })
    }

    /// A tile stores `value` at the start of `block`; from EXEC to the fence seen.
    pub fn store(&mut self, tile: usize, block: &Region, value: u32) -> Result<u64, Failed> {
        self.serial += 1;
        let bytes = Batch::default().store(block.range().start.mirror(), value).end();
        self.live.mm().copy_to_user(self.batch.range().start, &bytes).map_err(|_| Failed::Touch)?;
        let (batch, fence, queue) = (self.batch.range().start, self.fence.range().start, self.queues[tile]);
        let start = now_ns();
        self.program
            .exec(queue, batch.mirror(), fence.mirror(), self.serial)
            .map_err(|errno| Failed::Ioctl("EXEC", errno))?;
        self.program
            .wait(fence, self.serial, TIMEOUT_NS, queue)
            .map_err(|errno| Failed::Ioctl("WAIT_USER_FENCE", errno))?;
        Ok(now_ns() - start)
    }

    /// The CPU reads what is at the start of `block`, with the time that took.
    pub fn touch(&self, block: &Region) -> Result<(u32, u64), Failed> {
        let mut word = [0; 4];
        let start = now_ns();
        self.live.mm().copy_from_user(block.range().start, &mut word).map_err(|_| Failed::Touch)?;
        let ns = now_ns() - start;
        Ok((u32::from_le_bytes(word), ns))
    }

    /// Calls of the kernel so far, by kind.
    pub fn calls(&self) -> Calls {
        self.live.mm().calls()
    }

    /// How long the faults of `tile` on `block` took, from queue to answer, in order.
    pub fn services(&self, block: &Region, tile: usize) -> Vec<u64> {
        let span = block.range().mirror();
        let is_one = |f: &&GpuFault| f.tile.index() == tile && span.contains(units::GpuVa(f.addr));
        self.live.core().ledger().look(|book| book.gpu_faults.iter().filter(is_one).map(|f| f.ns).collect())
    }

    /// How long migrations of `block` from one place to another took, in order; places are named as in reports.
    pub fn migrations(&self, block: &Region, from: &str, to: &str) -> Vec<u64> {
        let is_one =
            |m: &&Migration| block.range().covers(m.range) && place_name(m.from) == from && place_name(m.to) == to;
        self.live.core().ledger().look(|book| book.migrations.iter().filter(is_one).map(|m| m.ns).collect())
    }
}

impl Drop for Stand {
    fn drop(&mut self) {
        for queue in &self.queues {
            let _ = self.program.queue_destroy(*queue);
        }
        let _ = self.program.vm_destroy(self.vm);
    }
}
