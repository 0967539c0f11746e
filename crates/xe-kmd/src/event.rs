//! What the driver tells an observer: one enum of plain data. Counters, traces and reports are folds over it.
//!
//! The engine has an event enum of its own (`gpusvm::Event`), and so has the hardware; `machine` joins them.
//! An observer is called with driver locks held, down to notifier rank: it takes no lock of the driver and
//! waits for nothing.
//!
//! Upstream: the counters of `xe_gt_stats.c` and the tracepoints of `xe_trace*.h` are folds over this.

use std::panic::Location;

use sync::time::now_ns;
use units::{Dpa, GpuRange, GpuVa, Iova, TileId};
use xe_spec::fault::{Access, Asid, ContextId, EngineId};

use crate::errno::Errno;

/// How a fault ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Serviced {
    /// Resolved: the access is tried again.
    Resolved,
    /// The mapping was there already (another engine's fault brought it): tried again.
    Valid,
    /// Cannot be served, for this reason: the context is killed.
    Refused(Errno),
}

/// Something that the driver did.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Event {
    /// A page fault was taken from its queue and answered.
    Fault {
        /// Address space.
        asid: Asid,
        /// Tile that faulted.
        tile: TileId,
        /// Its engine.
        engine: EngineId,
        /// The context that ran there.
        context: ContextId,
        /// Where.
        addr: GpuVa,
        /// How it was meant.
        access: Access,
        /// How it ended.
        outcome: Serviced,
        /// Time from queue to answer, nanoseconds.
        ns: u64,
    },
    /// A fault on mirrored memory was handled, by a range or by none.
    SvmFault {
        /// Tile that faulted.
        tile: TileId,
        /// Bytes of the range; 0 where none was found.
        bytes: u64,
        /// How it ended.
        outcome: Serviced,
        /// Time in the handler, nanoseconds.
        ns: u64,
        /// What of it the steps took, in all rounds.
        steps: Steps,
    },
    /// A fault was found to be on a VMA that mirrors nothing.
    VmaFault {
        /// Tile that faulted.
        tile: TileId,
        /// Bytes of the VMA.
        bytes: u64,
    },
    /// An event of a mirror took leaves away, and the TLB of a tile was flushed for it.
    SvmFlush {
        /// Tile.
        tile: TileId,
        /// Time from the first leaf to the last flush of the event, nanoseconds.
        ns: u64,
    },
    /// The handler of an SVM fault goes round again.
    Retry {
        /// Address space.
        asid: Asid,
        /// Where.
        addr: GpuVa,
        /// Which step wants it.
        step: RetryStep,
    },
    /// Between two tiles that a prefetch binds on, the range's pages changed.
    PrefetchOvertaken {
        /// Address space.
        asid: Asid,
        /// The second tile.
        tile: TileId,
        /// The range.
        span: GpuRange,
    },
    /// A span was bound in one tile's page table.
    Bind {
        /// Address space.
        asid: Asid,
        /// Tile.
        tile: TileId,
        /// What.
        span: GpuRange,
        /// Leaves written.
        leaves: u32,
        /// Nanoseconds.
        ns: u64,
    },
    /// Leaves of a span were cleared in one tile's page table.
    Zap {
        /// Address space.
        asid: Asid,
        /// Tile.
        tile: TileId,
        /// What.
        span: GpuRange,
    },
    /// A tile's TLB was flushed.
    TlbFlush {
        /// Address space.
        asid: Asid,
        /// Tile.
        tile: TileId,
        /// What was asked for; the device is told its normal form.
        span: GpuRange,
        /// Nanoseconds.
        ns: u64,
    },
    /// A copy job of a tile's own engine ended.
    Copy {
        /// Whose engine.
        tile: TileId,
        /// To VRAM of that tile, or away from it.
        direction: CopyDirection,
        /// Pages of the job.
        pages: u32,
        /// Of these, how many the device reports carried.
        carried: u32,
        /// Where the first page of the other side is, as the job addresses it.
        remote: OtherSide,
        /// How often each page crosses the system's bus.
        crossings: u32,
        /// Nanoseconds.
        ns: u64,
    },
    /// A range was removed after its mapping went.
    Collected {
        /// Address space.
        asid: Asid,
        /// Where it was.
        span: GpuRange,
    },
    /// A VM exists.
    VmCreated {
        /// Its address space.
        asid: Asid,
    },
    /// A VM begins to end: from here to [`VmClosed`](Self::VmClosed) what still comes for it meets it half gone.
    VmEnding {
        /// Its address space.
        asid: Asid,
    },
    /// A VM is closed.
    VmClosed {
        /// Its address space.
        asid: Asid,
    },
    /// A VM_BIND changed the VMAs.
    VmBind {
        /// Address space.
        asid: Asid,
        /// Where.
        span: GpuRange,
        /// `DRM_XE_VM_BIND_OP_*`.
        op: u32,
    },
    /// A buffer object gave up its VRAM for somebody else.
    BoEvicted {
        /// Whose VRAM.
        tile: TileId,
        /// Its size.
        bytes: u64,
    },
    /// A bind met pages in VRAM that no leaf can map, and was refused: the kernel warns.
    UnfitVram {
        /// Address space.
        asid: Asid,
        /// Tile.
        tile: TileId,
        /// The range.
        span: GpuRange,
    },
    /// The fences that a bind signals behind were miscounted: the kernel would take what is in an empty slot for a pointer.
    FenceArrayHole {
        /// Slots.
        count: u32,
        /// Of these, filled.
        filled: u32,
    },
    /// A job was handed to the device.
    JobSubmitted {
        /// Context.
        context: ContextId,
        /// Job.
        seqno: u64,
    },
    /// The device says that a job is done.
    JobDone {
        /// Context.
        context: ContextId,
        /// Job.
        seqno: u64,
    },
    /// A queue is banned.
    Banned {
        /// Context.
        context: ContextId,
        /// Job that ran.
        seqno: u64,
    },
    /// A program asked for something that this driver does not do.
    Stub {
        /// Number of the ioctl (its low byte).
        ioctl: u8,
        /// What was missing.
        what: &'static str,
    },
}

/// What the steps of the fault handler took, in nanoseconds.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Steps {
    /// Migrations to VRAM.
    pub migrations: u32,
    /// Their time.
    pub migrate_ns: u64,
    /// Collecting pages.
    pub pages_ns: u64,
    /// Binding them.
    pub bind_ns: u64,
}

impl Steps {
    /// Does `step`, and adds the time that it takes to the one that `of` says.
    pub(crate) fn add<R>(&mut self, of: impl Fn(&mut Self) -> &mut u64, step: impl FnOnce() -> R) -> R {
        let since = now_ns();
        let result = step();
        *of(self) += now_ns() - since;
        result
    }
}

/// Step of the fault handler that asks for another round.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RetryStep {
    /// Migration to the VRAM that an atomic needs failed.
    Migrate,
    /// Pages could not be collected as they are.
    Pages,
    /// Pages changed before they were bound.
    Bind,
}

/// Direction of a copy job, seen from the tile whose engine runs it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CopyDirection {
    /// Into the tile's VRAM.
    ToVram,
    /// Out of the tile's VRAM: to system memory, or to another tile's VRAM.
    FromVram,
}

/// How a copy job addresses the side that is not its own tile's VRAM.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum OtherSide {
    /// By a leaf with DM: VRAM of the device.
    Vram(Dpa),
    /// By a leaf without: the system's bus.
    Bus(Iova),
}

/// Receives events.
pub trait Observer: Send + Sync {
    /// Something happened.
    fn event(&self, event: &Event);
    /// The same, and where in the code it was told.
    fn event_at(&self, event: &Event, _at: &'static Location<'static>) {
        self.event(event);
    }
}

impl Observer for () {
    fn event(&self, _event: &Event) {}
}
