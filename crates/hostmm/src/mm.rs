//! The host's side of the joint: [`HostMm`], what it is asked and what it answers; [`PagemapOps`], by which it asks back.
//!
//! Locking and protocol: see the crate's header.

use crate::{DevicePage, DeviceRun, Migration, NotifierId, NotifierOps, OwnerId, PagemapId, Seq, WalkRun};
use alloc::sync::Arc;
use alloc::vec::Vec;
use units::{HostRange, HostVa};

/// One VMA, clipped to nothing: its whole extent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Vma {
    /// Its extent.
    pub range: HostRange,
    /// `VM_READ`.
    pub read: bool,
    /// `VM_WRITE`.
    pub write: bool,
    /// Whether its pages can migrate at all: private anonymous, not hugetlb, and (live) a mapping that
    /// userfaultfd can move.
    pub anonymous: bool,
    /// `VM_IO | VM_PFNMAP`.
    pub io: bool,
}

/// A request to [`HostMm::walk`] (`struct hmm_range`).
#[derive(Clone, Copy, Debug)]
pub struct Walk {
    /// Pages to report, 4K aligned, inside of one notifier.
    pub range: HostRange,
    /// Sequence that must still hold, and of which notifier; `None`: an advisory look.
    pub valid_since: Option<(NotifierId, Seq)>,
    /// What the caller has just looked up there, and at which sequence of that notifier. The host mm may go by it, and
    /// ask for nothing, while nothing but migrations came since; permissions are then those of that moment.
    pub vma: Option<(Vma, Seq)>,
    /// Fault in what is absent or belongs to another owner.
    pub fault: bool,
    /// Demand write permission (with `fault`).
    pub write: bool,
    /// Device pages of this owner are reported; all others are, with `fault`, brought to system memory first.
    pub owner: Option<OwnerId>,
}

/// Why a walk, a lookup or a claim gave nothing. Outcomes that a retry can heal are not mixed with those it cannot.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum MmError {
    /// The notifier's sequence moved, or a page is in another migration: look again. (`-EBUSY`)
    Stale,
    /// No mapping there, or one that no device may see. (`-EFAULT`)
    NoVma,
    /// Write wanted and the VMA forbids it. (`-EPERM`)
    Denied,
    /// Memory is short. (`-ENOMEM`)
    NoMemory,
    /// The process is ending, or the mechanism is closed. (`-ESRCH`)
    Gone,
}

/// Which way a migration goes, and so what a claim collects (`MIGRATE_VMA_SELECT_*`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Toward {
    /// To the VRAM of this pagemap: system pages, holes, and device pages of the owner are collected.
    Vram(PagemapId),
    /// To system memory: device pages of the owner only.
    Ram,
}

/// A request to [`HostMm::claim`] (`struct migrate_vma`).
#[derive(Clone, Copy, Debug)]
pub struct ClaimRequest {
    /// Pages to collect, 4K aligned, inside one VMA.
    pub range: HostRange,
    /// Whose device pages are collected (all others are left alone).
    pub owner: OwnerId,
    /// Which way.
    pub toward: Toward,
    /// The page whose CPU fault asked for this, which its faulter holds (`fault_page`).
    pub fault: Option<HostVa>,
}

/// What a claim came to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Claimed {
    /// A migration has begun, whatever was collected; it ends with [`HostMm::finish`].
    Begun,
    /// Every page of the range is in the pagemap that it shall go to: nothing was collected, no notifier was called, and there
    /// is nothing to finish.
    There,
}

/// A CPU touch of a device page (`struct vm_fault` of `migrate_to_ram`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CpuFault {
    /// The page touched.
    pub addr: HostVa,
    /// Where it is.
    pub page: DevicePage,
    /// The VMA around it: the window of the migration is clipped to it.
    pub vma: HostRange,
    /// Whether the touch is a write.
    pub write: bool,
    /// The thread that touches, by the kernel's number, for whoever reports it; 0 where that is not known.
    pub thread: u32,
}

/// How an attempt to serve a CPU fault ended. In each case the toucher looks again.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FaultOutcome {
    /// The page is back, or somebody else is at it; the toucher tries again.
    Retry,
    /// Not now: minimum residency has not passed. The toucher tries again later.
    Defer,
    /// It cannot be brought back: SIGBUS (`VM_FAULT_SIGBUS`).
    Fatal,
}

/// What an engine does for a pagemap's pages (`dev_pagemap_ops`).
pub trait PagemapOps: Send + Sync {
    /// A CPU touched `fault.page`: bring its surroundings back. Runs in reader class (see the module header).
    fn migrate_to_ram(&self, mm: &dyn HostMm, fault: &CpuFault) -> FaultOutcome;
    /// The last mapping of each of `pages` pages from `first` on is gone (`folio_free`): their frames may be used
    /// again once the device's TLBs were flushed, which the notifier of the same change did. Called with no lock of
    /// the mm held.
    fn folio_free(&self, first: DevicePage, pages: usize);
    /// The host mm brought pages back that nobody here asked for (before a fork or an mremap, say): `pages` of `range`. For
    /// those who count.
    fn brought_back(&self, _range: HostRange, _pages: usize, _ns: u64) {}
}

/// A host's memory management, as far as shared virtual memory needs it. Implementors: `mm-live`, `mm-sim`.
pub trait HostMm: Send + Sync {
    /// The VMA that `addr` lies in, or the first one behind it (`find_vma`).
    fn next_vma(&self, addr: HostVa) -> Option<Vma>;
    /// The VMA that `addr` lies in (`vma_lookup`).
    fn vma_lookup(&self, addr: HostVa) -> Option<Vma> {
        self.next_vma(addr).filter(|vma| vma.range.contains(addr))
    }
    /// The same, where it need not reach as far: perhaps a part of what [`vma_lookup`](Self::vma_lookup) gives, for less.
    fn vma_part(&self, addr: HostVa) -> Option<Vma> {
        self.vma_lookup(addr)
    }

    /// Introduces a pagemap of `frames` pages (`devm_memremap_pages`). Once per id.
    fn pagemap_insert(&self, id: PagemapId, owner: OwnerId, frames: u64, ops: Arc<dyn PagemapOps>);

    /// Calls `ops` at changes inside `range` from now on (`mmu_interval_notifier_insert`).
    fn notifier_insert(&self, range: HostRange, ops: Arc<dyn NotifierOps>) -> Result<NotifierId, MmError>;
    /// Ends that; on return no callback of it runs any more. Not to be called from a callback.
    fn notifier_remove(&self, id: NotifierId);
    /// A sequence to check by; waits while an invalidation is under way (`mmu_interval_read_begin`).
    fn read_begin(&self, id: NotifierId) -> Seq;
    /// Whether something changed since `seq` (`mmu_interval_read_retry`). Exact under the lock that the
    /// notifier's callback takes.
    fn read_retry(&self, id: NotifierId, seq: Seq) -> bool;

    /// Reports the pages of a range as runs, in order and without gaps; `runs` is emptied first (`hmm_range_fault`).
    /// What the host mm knows by its own books, such as what a migration has just brought to VRAM, it need not look
    /// at again.
    fn walk(&self, walk: &Walk, runs: &mut Vec<WalkRun>) -> Result<(), MmError>;

    /// Starts a migration: calls the notifiers, and collects runs as parts of `migration`, by address. A page that is
    /// pinned, foreign, shared, absent in a way that cannot migrate, or in another migration is in no part. `Stale`
    /// where the VMA changed meanwhile. On [`Claimed::Begun`] the caller owes a [`finish`](HostMm::finish).
    fn claim(&self, request: &ClaimRequest, migration: &mut Migration) -> Result<Claimed, MmError>;

    /// Starts a migration to system memory by device pages, wherever they are mapped, for eviction (`migrate_device_pfns`). The
    /// parts come in the order of `pages`; what was not collected is in none. On `Ok` the caller owes a `finish`.
    fn claim_device(&self, pages: &[DeviceRun], migration: &mut Migration) -> Result<(), MmError>;

    /// Names the destinations: from now on exactly these pairs may move. Pages of parts that the caller took out, or
    /// that have no destination, stay.
    ///
    /// Towards VRAM the caller has set `to`, frames of VRAM that are empty, and may have split parts. Home, the host mm
    /// sets `to` of each part (live: the page's own place; simulated: a fresh frame) and splits those whose frames do
    /// not follow each other. A part that the host mm cannot stage loses its `to`. `NoMemory` leaves nothing staged.
    fn stage(&self, migration: &mut Migration) -> Result<(), MmError>;

    /// Makes the destinations of what was [carried](crate::Part::carried) the pages' homes. A hole is carried without a
    /// transfer: the caller sets its outcome to `Zeroed`. Afterwards the outcome is `Failed` where a run does not live
    /// at its destination, and a part of which only a part does is split. A destination that is reported carried, but
    /// that nothing was carried to, holds zeros.
    fn commit(&self, migration: &mut Migration);

    /// Ends the migration, if it has one to end: frees the sources of what committed (through
    /// [`PagemapOps::folio_free`] for device pages), restores the rest, wakes the waiters. Destination frames of pages
    /// that did not move are empty again, and belong to the caller. The parts stay readable.
    fn finish(&self, migration: &mut Migration);
}
