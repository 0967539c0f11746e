//! The joint between an engine of shared virtual memory and a host's memory management: traits, and what crosses.
//!
//! A leaf: it knows no engine and no host mm. Two worlds implement [`HostMm`]: `mm-live` (the memory of this very process, moved by userfaultfd) and
//! `mm-sim` (a model of Linux' mm, in two manners). `docs/hostmm.md` is the contract, one row a guarantee;
//! the engine may assume the weaker side of each row only, and the suite in
//! `conformance` (a feature) runs one file against all.
//!
//! # Migration: claim → stage → (the device transfers) → commit → finish
//!
//! 1. [`HostMm::claim`] tells every notifier ([`EventKind::Migrate`]) and collects the pages of a range.
//!    A claimed page belongs to this migration until `finish`: no second claim gets it, a CPU fault on it waits.
//!    Linux: `migrate_vma_setup` (migration entries, the CPU cannot touch the page).
//!    Live: the CPU *goes on writing* a claimed system page until the very instant of its transfer.
//! 2. [`HostMm::stage`] names the destination of each page. From now on exactly these pairs may *move*.
//! 3. The device's copy engine walks its page tables and asks [`HostMemory::transfer`] to carry what it
//!    translated. A staged pair moves (live: `UFFDIO_MOVE`, no byte is copied) or is copied while the CPU is
//!    kept out; any other pair is copied, just as the wrong page tables said.
//! 4. [`HostMm::commit`] makes the destinations the pages' homes and says of each whether that succeeded
//!    (Linux: `migrate_vma_pages`; a page may fail there on its own).
//! 5. [`HostMm::finish`] frees the sources of what was committed, puts back what was not, and wakes every
//!    CPU thread that waits (Linux: `migrate_vma_finalize`).
//!
//! # Locking
//!
//! `claim`, `commit` and `finish` may call notifiers and pagemap operations, so call them with no engine lock
//! of notifier rank or below held. CPU faults call [`PagemapOps::migrate_to_ram`] from a thread of the
//! *reader class* in the live world: it takes notifier-level locks only, and waits for nothing but the bounded
//! drain of a TLB flush.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

#[cfg(feature = "conformance")]
pub mod conformance;
mod memory;
mod notify;
pub mod runs;

use alloc::sync::Arc;
use units::{HostFrame, HostRange, HostVa, TileId};

pub use memory::{AccessError, AtomicOp, HostMemory, Place, Transferred};
pub use notify::{EventKind, MmEvent, NotifierId, NotifierOps, Seq};

/// Pagemaps that may see each other's pages (`dev_pagemap.owner`): the tiles of a device share one.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct OwnerId(pub u32);

/// One pagemap: the VRAM of one tile as device-private pages (`dev_pagemap`).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct PagemapId(pub u16);

impl PagemapId {
    /// Place in a slice of all pagemaps.
    pub const fn index(self) -> usize {
        self.0 as usize
    }
    /// The pagemap of a tile, on a machine of one device: the same number.
    pub const fn of_tile(tile: TileId) -> Self {
        Self(tile.0 as u16)
    }
}

/// One 4K page of VRAM: `frame` counts from the start of the pagemap (device-private pfn minus the base's).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct DevicePage {
    /// Whose VRAM.
    pub pagemap: PagemapId,
    /// Which 4K frame of it.
    pub frame: u64,
}

impl DevicePage {
    /// The page `pages` further on in a contiguous run.
    pub const fn add(self, pages: u64) -> Self {
        Self { pagemap: self.pagemap, frame: self.frame + pages }
    }
}

/// What a virtual page of the process is backed by.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Backing {
    /// Nothing yet: a hole, or the shared zero page.
    None,
    /// A page of system memory.
    System(HostFrame),
    /// A page of VRAM; a CPU touch faults (device-private entry).
    Device(DevicePage),
}

/// One page as [`HostMm::walk`] reports it (an `hmm_pfn`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct HostPage {
    /// Where the page is.
    pub backing: Backing,
    /// Whether a device may write it.
    pub write: bool,
    /// log2 of the 4K pages of the CPU mapping that this page lies in (0, or 9 for a THP).
    pub order: u8,
}

impl HostPage {
    /// A hole.
    pub const HOLE: Self = Self { backing: Backing::None, write: false, order: 0 };
}

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

/// A request to [`HostMm::claim`] (`struct migrate_vma`).
#[derive(Clone, Copy, Debug)]
pub struct ClaimRequest {
    /// Pages to collect, 4K aligned, inside one VMA.
    pub range: HostRange,
    /// Collect device pages of this owner too (else they are left alone).
    pub owner: OwnerId,
    /// Which kinds to collect.
    pub select: Select,
    /// The page whose CPU fault asked for this, which its faulter holds (`fault_page`).
    pub fault: Option<HostVa>,
}

/// What a claim collects (`MIGRATE_VMA_SELECT_*`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Select {
    /// System pages, holes, and device pages of the owner: on the way to VRAM.
    All,
    /// Device pages of the owner only: on the way home.
    DeviceOnly,
}

/// One page of a claim.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Claimed {
    /// Not collected: pinned, foreign, shared, absent in a way that cannot migrate, or in another migration.
    No,
    /// A hole of an anonymous VMA: migrates as a fresh zero page.
    Hole,
    /// A page of system memory.
    System(HostFrame),
    /// A page of VRAM.
    Device(DevicePage),
}

/// Names a migration between `claim` and `finish`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ClaimId(pub u64);

/// Where a claimed page shall go.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Destination {
    /// Nowhere: it stays.
    Stay,
    /// This frame of VRAM, which is empty.
    Device(DevicePage),
    /// Home, to system memory. [`HostMm::stage`] allocates and reports the frame.
    Ram,
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
}

/// How an attempt to serve a CPU fault ended. In each case the toucher looks again.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FaultOutcome {
    /// The page is home, or somebody else is at it; the toucher tries again.
    Retry,
    /// Not now: minimum residency has not passed, or something is short. The toucher tries again later.
    Defer,
    /// It cannot be brought home: SIGBUS (`VM_FAULT_SIGBUS`).
    Fatal,
}

/// What an engine does for a pagemap's pages (`dev_pagemap_ops`).
pub trait PagemapOps: Send + Sync {
    /// A CPU touched `fault.page`: bring its surroundings home. Runs in reader class (see the module header).
    fn migrate_to_ram(&self, mm: &dyn HostMm, fault: &CpuFault) -> FaultOutcome;
    /// The last mapping of each of `pages` pages from `first` on is gone (`folio_free`): their frames may be used
    /// again once the device's TLBs were flushed, which the notifier of the same change did. Called with no lock of
    /// the mm held.
    fn folio_free(&self, first: DevicePage, pages: usize);
}

/// A host's memory management, as far as shared virtual memory needs it. Implementors: `mm-live`, `mm-sim`.
pub trait HostMm: Send + Sync {
    /// The VMA that `addr` lies in (`vma_lookup`).
    fn vma_lookup(&self, addr: HostVa) -> Option<Vma>;

    /// Introduces a pagemap of `frames` pages (`devm_memremap_pages`). Once per id.
    fn pagemap_insert(&self, id: PagemapId, owner: OwnerId, frames: u64, ops: Arc<dyn PagemapOps>);

    /// Tells `ops` of changes inside `range` from now on (`mmu_interval_notifier_insert`).
    fn notifier_insert(&self, range: HostRange, ops: Arc<dyn NotifierOps>) -> Result<NotifierId, MmError>;
    /// Ends that; on return no callback of it runs any more. Not to be called from a callback.
    fn notifier_remove(&self, id: NotifierId);
    /// A sequence to check by; waits while an invalidation is under way (`mmu_interval_read_begin`).
    fn read_begin(&self, id: NotifierId) -> Seq;
    /// Whether something changed since `seq` (`mmu_interval_read_retry`). Exact under the lock that the
    /// notifier's callback takes.
    fn read_retry(&self, id: NotifierId, seq: Seq) -> bool;

    /// Reports the pages of a range, one entry a page (`hmm_range_fault`).
    fn walk(&self, walk: &Walk, pages: &mut [HostPage]) -> Result<(), MmError>;

    /// Starts a migration: tells the notifiers, collects, one entry a page. `Stale` where the VMA changed
    /// meanwhile. On `Ok` the caller owes a [`finish`](HostMm::finish).
    fn claim(&self, request: &ClaimRequest, out: &mut [Claimed]) -> Result<ClaimId, MmError>;

    /// Starts a migration by device pages, wherever they are mapped, for eviction (`migrate_device_pfns`).
    /// `out[i]` is the page's virtual address, `None` where it was not collected.
    fn claim_device(&self, pages: &[DevicePage], out: &mut [Option<HostVa>]) -> Result<ClaimId, MmError>;

    /// Names the destinations, one a page. For `Ram` the frame is written to `frames[i]` (live: the page's own
    /// place; simulated: a fresh frame), for others it stays untouched. `NoMemory` leaves nothing staged.
    fn stage(&self, claim: ClaimId, to: &[Destination], frames: &mut [Option<HostFrame>]) -> Result<(), MmError>;

    /// Makes the destinations the pages' homes; `wanted[i]` says whether the device reports page `i` carried
    /// (a hole counts as carried). `moved[i]` says whether the page now lives at its destination.
    /// A destination that nothing was carried to holds zeros.
    fn commit(&self, claim: ClaimId, wanted: &[bool], moved: &mut [bool]);

    /// Ends the migration: frees the sources of moved pages (through [`PagemapOps::folio_free`] for device
    /// pages), restores the others, wakes the waiters. Destination frames of pages that did not move are
    /// empty again, and belong to the caller.
    fn finish(&self, claim: ClaimId);
}
