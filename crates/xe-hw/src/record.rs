//! What the device noticed: records of things that must not happen, and counters of all that does.
//!
//! A record is plain data; a test, the checker or a report reads them with [`Gpu::take_records`](crate::Gpu::take_records).
//! The first [`KEPT`] are kept, later ones are only counted.
//!
//! Locking: one leaf lock, held to push a record.

use sync::rank::{self, Rank};
use sync::{Mutex, MutexGuard, Told};
use units::{Dpa, GpuVa, HostFrame, Iova, Outcome, TileId};
use xe_spec::fault::{Access, Asid, ContextId, EngineId, FaultSlot, FaultType};

/// Records kept until somebody takes them.
pub const KEPT: usize = 4096;

/// What the walker found that no page table of this device may contain.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Violation {
    /// An entry or a root points to a table outside of every tile's pool.
    TableOutsidePool(Dpa),
    /// A VRAM leaf of 4K without PS64 in an address space that needs 64K.
    SmallVramLeaf(Dpa),
    /// PS64 is set, but the 16 entries around do not form one aligned 64K page.
    BrokenGroup,
    /// The address of a leaf is not aligned to its size.
    MisalignedLeaf(u64),
    /// A DM leaf leads to an address that is in no tile's frames, or in those of a tile that is not reached.
    OutsideVram(Dpa),
}

/// Something that must not happen, with what a report needs to explain it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Record {
    /// A walk met a forbidden entry; the access got a `Malformed` fault.
    Malformed {
        /// Whose walker.
        tile: TileId,
        /// Address space.
        asid: Asid,
        /// Address of the access.
        addr: GpuVa,
        /// What was found.
        violation: Violation,
    },
    /// A write to a bus address that the IOMMU does not map, or maps read-only. It was dropped.
    StrayWrite {
        /// Whose engine.
        tile: TileId,
        /// First byte.
        iova: Iova,
        /// Length.
        bytes: u64,
    },
    /// A read of a bus address that the IOMMU does not map. It gave all ones.
    StrayRead {
        /// Whose engine.
        tile: TileId,
        /// First byte.
        iova: Iova,
        /// Length.
        bytes: u64,
    },
    /// An access reached a frame of VRAM that holds nothing: a stale translation. A write was lost, a read
    /// gave all ones.
    StaleVram {
        /// Which engine.
        engine: EngineId,
        /// Address space.
        asid: Asid,
        /// Address of the access.
        addr: GpuVa,
        /// The page that was reached.
        dpa: Dpa,
        /// How it was meant.
        access: Access,
    },
    /// The IOMMU gave a frame, but the host had no memory there (any more). The access became a page fault.
    SystemFault {
        /// Which engine.
        engine: EngineId,
        /// Address space.
        asid: Asid,
        /// Address of the access.
        addr: GpuVa,
        /// The frame that was reached.
        frame: HostFrame,
        /// How it was meant.
        access: Access,
    },
    /// An atomic that a leaf allows led to another device's memory, by its window, which does none. The access became an atomic violation.
    PeerAtomic {
        /// Which engine.
        engine: EngineId,
        /// Address space.
        asid: Asid,
        /// Address of the access.
        addr: GpuVa,
        /// The frame of the window.
        frame: HostFrame,
    },
    /// The driver's copy engine met an address that does not translate; the page failed.
    CopyFault {
        /// Whose copy engine.
        tile: TileId,
        /// Address space of the migrations.
        asid: Asid,
        /// The page.
        addr: GpuVa,
        /// Read for a source, write for a destination.
        access: Access,
        /// Why it was refused.
        fault_type: FaultType,
    },
    /// A batch contained what the command streamer does not know; the context hangs and is killed.
    UnknownCommand {
        /// Which context.
        context: ContextId,
        /// Where.
        at: GpuVa,
        /// The first dword.
        dword: u32,
    },
    /// The driver read or wrote a table entry outside of every pool (or beyond a table's end); ignored.
    TableAccessOutsidePool {
        /// The table.
        table: Dpa,
        /// The entry.
        index: usize,
    },
    /// The driver unmapped bus addresses that were not mapped.
    BadUnmap {
        /// First address.
        iova: Iova,
        /// Length in pages.
        pages: usize,
    },
    /// The driver unmapped bus addresses that a TLB still leads to.
    StillTranslated {
        /// Whose TLB.
        tile: TileId,
        /// Address space.
        asid: Asid,
        /// Where the translation begins.
        addr: GpuVa,
        /// First bus address of those that were unmapped.
        iova: Iova,
    },
    /// The driver named an engine that the platform does not have.
    NoSuchEngine(EngineId),
    /// The driver named a context that does not exist (any more).
    NoSuchContext(ContextId),
    /// The driver answered a fault that its context does not have (any more).
    BadAck(FaultSlot),
}

impl Record {
    /// Whose access went where no mapping covers a bus address, whether it was a write, and how many bytes.
    #[must_use]
    pub const fn stray(&self) -> Option<(TileId, bool, u64)> {
        match *self {
            Self::StrayWrite { tile, bytes, .. } => Some((tile, true, bytes)),
            Self::StrayRead { tile, bytes, .. } => Some((tile, false, bytes)),
            _ => None,
        }
    }
}

/// What the device did so far.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Counters {
    /// Accesses of command streamers that the TLB answered.
    pub tlb_hits: u64,
    /// Walks for command streamers (TLB misses).
    pub walks: u64,
    /// Faults: nothing mapped.
    pub faults_not_present: u64,
    /// Faults: leaf without RW.
    pub faults_write: u64,
    /// Faults: leaf without AE, or an atomic that the platform cannot do there.
    pub faults_atomic: u64,
    /// TLB flushes that were done.
    pub flushes: u64,
    /// Flushes that had to wait for accesses in flight.
    pub drains: u64,
    /// Commands executed.
    pub commands: u64,
    /// Jobs done.
    pub jobs: u64,
    /// Contexts killed.
    pub kills: u64,
    /// Pages that copy jobs moved.
    pub pages_moved: u64,
    /// Pages that copy jobs copied.
    pub pages_copied: u64,
    /// Pages of copy jobs whose source was empty.
    pub pages_hole: u64,
    /// Pages of copy jobs that failed.
    pub pages_failed: u64,
    /// Pages of copy jobs whose writes went nowhere.
    pub pages_dropped: u64,
    /// Writes that no mapping of the IOMMU covered.
    pub stray_writes: u64,
    /// Reads that no mapping of the IOMMU covered.
    pub stray_reads: u64,
    /// Accesses to empty frames of VRAM.
    pub stale_vram: u64,
    /// Walks that met a forbidden entry, those of copy engines too.
    pub malformed: u64,
    /// Records that were not kept, because too many waited.
    pub records_lost: u64,
}

/// Records and the counters of rare events.
pub(crate) struct Log {
    state: Mutex<LogState>,
}

#[derive(Default)]
struct LogState {
    records: Vec<Record>,
    counters: Counters,
}

impl Log {
    pub(crate) fn new() -> Self {
        Self { state: rank::mutex(Rank::LEAF, LogState::default()) }
    }

    /// Keeps a record and counts it.
    pub(crate) fn record(&self, record: Record) {
        let mut log = self.state.lock();
        match record {
            Record::StrayWrite { .. } => log.counters.stray_writes += 1,
            Record::StrayRead { .. } => log.counters.stray_reads += 1,
            Record::StaleVram { .. } => log.counters.stale_vram += 1,
            Record::Malformed { .. } => log.counters.malformed += 1,
            _ => {}
        }
        if log.records.len() < KEPT {
            log.records.push(record);
        } else {
            log.counters.records_lost += 1;
        }
    }

    /// Takes the lock to count something: the order in which that is done is no matter.
    fn count(&self) -> MutexGuard<'_, LogState> {
        let state = self.state.lock();
        sync::tell(&state, Told::Looks);
        state
    }

    /// Counts a fault that goes to the driver.
    pub(crate) fn count_fault(&self, fault_type: FaultType) {
        let mut state = self.count();
        let counters = &mut state.counters;
        match fault_type {
            FaultType::NotPresent => counters.faults_not_present += 1,
            FaultType::WriteViolation => counters.faults_write += 1,
            FaultType::AtomicViolation => counters.faults_atomic += 1,
            // Its record is counted.
            FaultType::Malformed => {}
        }
    }

    /// Counts how pages of a copy job travelled.
    pub(crate) fn count_copies(&self, pages: usize, outcome: Outcome) {
        let mut state = self.count();
        let counters = &mut state.counters;
        let counter = match outcome {
            Outcome::Moved => &mut counters.pages_moved,
            Outcome::Copied => &mut counters.pages_copied,
            Outcome::Zeroed => &mut counters.pages_hole,
            Outcome::Failed | Outcome::Pending => &mut counters.pages_failed,
            Outcome::Dropped => &mut counters.pages_dropped,
        };
        *counter += pages as u64;
    }

    /// Takes the records that waited.
    pub(crate) fn take(&self) -> Vec<Record> {
        core::mem::take(&mut self.state.lock().records)
    }

    /// The first records that wait, at most `most`.
    pub(crate) fn first(&self, most: usize) -> Vec<Record> {
        self.state.lock().records.iter().take(most).copied().collect()
    }

    /// The counters of this log; those of TLBs and engines are kept with them.
    pub(crate) fn counters(&self) -> Counters {
        self.state.lock().counters
    }
}
