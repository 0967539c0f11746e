//! What the driver may ask of a device ([`Hw`]), the one door between driver and hardware; and of the machine that the
//! device stands in ([`Interconnect`]).
//!
//! The driver owns this trait and knows no implementor; `machine` implements it over the hardware model. All
//! meaning that crosses it besides these calls is in bits of `xe-spec`: so a page table that the driver wrote
//! wrongly does to the device what it would do to silicon.
//!
//! Interrupts come the other way, as calls of [`Device::page_fault`](crate::Device::page_fault),
//! [`job_done`](crate::Device::job_done), [`user_interrupt`](crate::Device::user_interrupt) and
//! [`context_killed`](crate::Device::context_killed).
//!
//! Locking: everything here may be called with any driver lock held, the innermost included, and takes no
//! lock of the driver. Nothing waits for another thread but [`Hw::tlb_invalidate`] and [`Hw::context_destroy`],
//! which wait for a bounded drain.
//!
//! Upstream: MMIO, GuC messages, `xe_migrate.c`'s job submission, the DMA API.

use gpusvm::Proto;
use hostmm::{OwnerId, PagemapId};
use units::{Dpa, GpuRange, GpuVa, HostFrame, Iova, Report, TileId};
use xe_spec::fault::{Asid, ContextId, EngineId, FaultAck, FaultSlot};
use xe_spec::share::Share;

/// One job of a context: a batch, then a fence.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct HwJob {
    /// Counts the jobs of its context from 1.
    pub seqno: u64,
    /// Batch to run; `None`: the fence only.
    pub batch: Option<GpuVa>,
    /// Eight bytes that the ring stores when the batch is done, through the context's own page tables.
    pub fence: Option<(GpuVa, u64)>,
}

/// The device, as its driver reaches it.
pub trait Hw: Send + Sync + 'static {
    /// Writes entry `index` of the table at `table`, 64 bits, atomically.
    fn table_write(&self, table: Dpa, index: usize, entry: u64);
    /// Writes consecutive entries from `first` on, all of one table: the device sees none of them or all.
    fn table_write_run(&self, table: Dpa, first: usize, entries: &[u64]);
    /// Reads an entry back.
    fn table_read(&self, table: Dpa, index: usize) -> u64;
    /// Gives an address space its root table on a tile (context image: PDP0). `needs_64k`: leaves in VRAM
    /// below 64K are malformed (`XE_VM_FLAG_64K`).
    fn set_root(&self, tile: TileId, asid: Asid, root: Dpa, needs_64k: bool);
    /// Takes it away: every access of the address space faults. Follow it by a flush.
    fn clear_root(&self, tile: TileId, asid: Asid);
    /// Forgets cached translations of an address space in `range`. On return no walk that began before it is under
    /// way (tables taken out before the call may be used for something else), and no access that used one of
    /// those translations to reach VRAM. Accesses through other translations are not waited for.
    fn tlb_invalidate(&self, tile: TileId, asid: Asid, range: GpuRange);

    /// Lets the device reach `pages` contiguous frames; `None` where bus addresses ran out. An address is
    /// never the frame's number and is not given again at once.
    fn iommu_map(&self, frame: HostFrame, pages: usize, write: bool) -> Option<Iova>;
    /// Ends that. The range is exactly one that [`iommu_map`](Hw::iommu_map) gave.
    fn iommu_unmap(&self, iova: Iova, pages: usize);

    /// The VRAM of `bytes` bytes from `dpa` on, whole blocks of 64K, shows a buffer object's frames from the given one on;
    /// `None`: pages that migrate, as at first. Silicon has the bytes of a BO in its VRAM; here they stay where they are, and
    /// what leads to them changes. No translation leads there when this is called.
    fn vram_back(&self, dpa: Dpa, bytes: u64, frames: Option<HostFrame>);

    /// A new context of `asid` (an LRC), which runs on any of the engines of `placement`, all of one class and tile, and has
    /// that share of them; `None` where there is nothing to run it by.
    fn context_create(&self, placement: &[EngineId], asid: Asid, share: Share) -> Option<ContextId>;
    /// The program waits for what its queues do: those that poll memory look at once.
    fn look_again(&self);
    /// Time that a context had an engine so far, in nanoseconds.
    fn context_ran_ns(&self, context: ContextId) -> u64;
    /// Ends a context; on return it runs nothing and reports nothing any more. Faults of it that wait for an
    /// answer are dropped.
    fn context_destroy(&self, context: ContextId);
    /// Appends a job to a context's ring.
    fn submit(&self, context: ContextId, job: HwJob);
    /// Answers a fault. An answer to one that is not pending any more is ignored.
    fn fault_ack(&self, slot: FaultSlot, ack: FaultAck);

    /// Carries `pages` pages from `src` to `dst`, two contiguous runs of addresses of `asid`, by the tile's own copy
    /// engine; returns when it is done. The engine translates both sides, and reports how the pages travelled, in order.
    fn copy(&self, tile: TileId, asid: Asid, src: GpuVa, dst: GpuVa, pages: usize, report: &mut Report<'_>);
}

/// Where the VRAM of the device's tiles is among that of the machine, and who reaches it. Takes no lock.
pub trait Interconnect: Send + Sync + 'static {
    /// Whose pages this device may see: of its own tiles, and of peers that reach each other.
    fn owner(&self) -> OwnerId;
    /// The pagemap of a tile of this device; `None` where it has no such tile.
    fn pagemap(&self, tile: TileId) -> Option<PagemapId>;
    /// Which way an engine of `tile` reaches the VRAM behind `pagemap`, of this device or a peer; `None`: not at all.
    fn path(&self, tile: TileId, pagemap: PagemapId) -> Option<Proto>;
    /// The window on the system's bus in which peers see this device's VRAM: the frame that shows device address 0.
    fn window(&self) -> HostFrame;
}
