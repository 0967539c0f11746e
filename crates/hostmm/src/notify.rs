//! Interval notifiers: the host calls them when pages change (`mmu_interval_notifier`).

use super::OwnerId;
use units::HostRange;

/// Names an inserted notifier.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct NotifierId(pub u64);

/// A notifier's sequence count; odd while an invalidation runs.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Seq(pub u64);

/// What happened, or is about to (`enum mmu_notifier_event`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum EventKind {
    /// The mapping itself goes (munmap, the old range of mremap). Ranges there end.
    Unmap,
    /// Pages go or are replaced, the mapping stays (DONTNEED, COW break, reclaim).
    Clear,
    /// Permissions change.
    Protection,
    /// Pages are being collected for a migration, by this owner.
    Migrate(OwnerId),
    /// The address space ends.
    Release,
}

/// One event, not clipped to the notifier.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MmEvent {
    /// Where.
    pub range: HostRange,
    /// What.
    pub kind: EventKind,
}

/// What the engine does when a notifier is called.
pub trait NotifierOps: Send + Sync {
    /// On return no device translates to the old pages any more, and none writes to them. The host has
    /// already moved the notifier's sequence on (it is odd now, and becomes the next even number afterwards).
    /// Runs in reader class: notifier-level locks, no waiting but a TLB flush's drain.
    fn invalidate(&self, event: &MmEvent);
}
