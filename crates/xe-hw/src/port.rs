//! What the hardware asks of the world around it. `machine` implements both; the hardware knows neither the
//! driver nor the host's memory.

use units::{Dpa, HostFrame, Report};
use xe_spec::fault::{ContextId, EngineId, FaultRecord};

/// Where a page is, after page tables (and, for system memory, the IOMMU).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum BusAddr {
    /// VRAM, by device physical address of the page.
    Vram(Dpa),
    /// System memory, by the frame that the IOMMU gave.
    System(HostFrame),
}

/// Why memory did not answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum BusError {
    /// A frame of VRAM that holds nothing: a stale translation led here.
    Empty,
    /// Nothing there.
    Fault,
    /// A read-modify-write that what is there does not do: another device's memory, by its window.
    NoAtomics,
    /// The host is changing what this VRAM holds, and the driver has not been told yet: nothing was done. The device
    /// lets go of the access (a flush may be waiting for it), translates again and retries.
    Again,
}

/// A read-modify-write.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Rmw {
    /// Store the operand.
    Exchange(u64),
    /// Add, wrapping.
    Add(u64),
    /// Subtract, wrapping.
    Sub(u64),
    /// Store `new` where memory equals `expected`.
    CompareExchange {
        /// Must be there.
        expected: u64,
        /// Is stored.
        new: u64,
    },
}

/// The memory behind VRAM frames and behind the IOMMU. Accesses do not cross a 4K page.
pub trait Bus: Send + Sync {
    /// Reads.
    fn read(&self, page: BusAddr, offset: usize, buf: &mut [u8]) -> Result<(), BusError>;
    /// Writes.
    fn write(&self, page: BusAddr, offset: usize, bytes: &[u8]) -> Result<(), BusError>;
    /// Writes a whole page of a long copy; it may go around the host's caches, and be seen late, up to [`drain`](Self::drain).
    fn stream(&self, page: BusAddr, bytes: &[u8]) -> Result<(), BusError> {
        self.write(page, 0, bytes)
    }
    /// Copies up to `pages` pages of a long copy between two contiguous runs, both translated, likewise, and blocks nowhere. How
    /// many; fewer, or none, where that cannot be done, or one does not answer.
    fn stream_pages(&self, _src: BusAddr, _dst: BusAddr, _pages: usize) -> usize {
        0
    }
    /// What this thread has streamed is seen by all others.
    fn drain(&self) {}
    /// Read-modify-write of 4 or 8 bytes, gives the old value.
    fn rmw(&self, page: BusAddr, offset: usize, size: usize, op: Rmw) -> Result<u64, BusError>;
    /// Carries `pages` pages between two contiguous runs, both translated; moves where the host mm has staged exactly
    /// these pairs, copies otherwise. Reports runs, in order.
    fn transfer(&self, src: BusAddr, dst: BusAddr, pages: usize, report: &mut Report<'_>);
    /// An entry of a page table that lies outside of the device's own pools, where the bus has memory for tables there: one
    /// load, as a walker does it, with nothing that holds off those who write.
    fn table_entry(&self, _table: Dpa, _index: usize) -> Option<u64> {
        None
    }
    /// Whether an access to that frame may block in a page fault of the host. If so, it runs outside of the
    /// window that a TLB flush waits for; if not, inside, as on silicon: after the flush nothing is in flight. What a peer's window on the
    /// bus shows never blocks: it is given to somebody else after the flush.
    fn system_access_may_block(&self, _frame: HostFrame) -> bool {
        true
    }
}

/// What the hardware tells the driver.
pub trait Interrupts: Send + Sync {
    /// A context faulted and waits for [`Gpu::fault_ack`](crate::Gpu::fault_ack).
    fn page_fault(&self, fault: FaultRecord);
    /// A batch of a context asks for an interrupt, or has begun to poll memory: what it stored before is there.
    fn user_interrupt(&self, context: ContextId);
    /// Job `seqno` of a context is done, its fence written.
    fn job_done(&self, context: ContextId, seqno: u64);
    /// A context was killed: `seqno` is the job that ran. Its later jobs do not run.
    fn context_killed(&self, context: ContextId, seqno: u64);
    /// An engine has work: somebody must call [`Gpu::step`](crate::Gpu::step) for it.
    fn engine_ready(&self, engine: EngineId);
}
