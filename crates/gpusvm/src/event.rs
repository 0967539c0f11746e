//! What the engine tells an observer: the one source of counters, traces and reports.
//!
//! Locking: no engine lock is held during [`Observer::event`], unless the driver calls the engine with the
//! notifier lock held itself. Observers run in reader class too: they wait for nothing.
//! Upstream: `xe_gt_stats`, tracepoints.

use crate::call::MigrateError;
use core::panic::Location;
use hostmm::{EventKind, PagemapId};
use units::{HostRange, HostVa};

/// Where pages were, or are.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Where {
    /// System memory, holes included.
    System,
    /// The VRAM of a pagemap.
    Vram(PagemapId),
}

/// Why pages moved.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Why {
    /// The driver wanted them there: for a fault of the device, a prefetch, or of its own accord.
    Wanted,
    /// A CPU touched one of them.
    Touched,
    /// The VRAM was needed for others.
    Evicted,
    /// The host mm wanted them back, and nobody had touched them.
    BroughtBack,
}

/// Something that happened. Durations are `sync::time` nanoseconds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Event {
    /// A range came to be.
    RangeCreated {
        /// Its extent.
        range: HostRange,
    },
    /// A range ended.
    RangeRemoved {
        /// Its extent.
        range: HostRange,
    },
    /// A range's pages were collected and mapped for the device.
    PagesMapped {
        /// The range.
        range: HostRange,
        /// Pages of system memory.
        system: usize,
        /// Pages of VRAM.
        device: usize,
        /// Time it took, retries included.
        ns: u64,
    },
    /// A range's pages were still mapped, and were used as they are.
    PagesReused {
        /// The range.
        range: HostRange,
    },
    /// Collecting pages lost a race with a change of the address space, and starts again.
    Retried {
        /// The range.
        range: HostRange,
    },
    /// A notifier was called.
    Invalidated {
        /// Where, clipped to the notifier.
        range: HostRange,
        /// What.
        kind: EventKind,
    },
    /// Pages moved to a new place. One event for each place that they came from.
    Migrated {
        /// The range that the migration was asked for.
        range: HostRange,
        /// Where they were.
        from: Where,
        /// Where they are.
        to: Where,
        /// Why.
        why: Why,
        /// Pages that moved.
        pages: usize,
        /// Those of them whose bytes the device carried; the others were holes.
        carried: usize,
        /// Time the migration took; with several sources, their share by pages.
        ns: u64,
    },
    /// A migration ended with an error.
    MigrateFailed {
        /// The range that it was asked for.
        range: HostRange,
        /// Where to.
        to: Where,
        /// Why.
        error: MigrateError,
    },
    /// A CPU touched pages in VRAM, and they were brought back.
    CpuFault {
        /// The address touched.
        addr: HostVa,
        /// The thread that touched, by the kernel's number; 0 where that is not known.
        thread: u32,
        /// Pages that migrated back.
        pages: usize,
        /// Time it took.
        ns: u64,
    },
    /// A CPU touched a page in VRAM whose minimum residency has not passed.
    CpuFaultDeferred {
        /// The address touched.
        addr: HostVa,
    },
    /// An eviction of an allocation found less in it than the driver chose it for: others brought those pages back first.
    EvictionOvertaken {
        /// Pages that others took, as far as the eviction had still seen them; 0 where the allocation was empty already.
        pages: usize,
    },
    /// A range's pages were sent to system memory.
    Evicted {
        /// The range.
        range: HostRange,
        /// Time it took.
        ns: u64,
    },
}

/// Who wants to know.
pub trait Observer: Send + Sync {
    /// Something happened.
    fn event(&self, event: &Event);
    /// The same, and where in the code it was told.
    fn event_at(&self, event: &Event, _at: &'static Location<'static>) {
        self.event(event);
    }
}

/// Nobody wants to know.
impl Observer for () {
    fn event(&self, _: &Event) {}
}
