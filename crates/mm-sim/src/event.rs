//! What happens in a simulated mm, as plain data. Counters are a fold over it.

use hostmm::{ClaimId, CpuFault, DevicePage, FaultOutcome, MmEvent, Place};
use units::{HostRange, HostVa};

/// One thing that happened.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Event {
    /// A mapping was made.
    Mapped(HostRange),
    /// A mapping went.
    Unmapped(HostRange),
    /// A mapping moved.
    Remapped {
        /// From here.
        from: HostRange,
        /// To here.
        to: HostRange,
    },
    /// Notifiers are called.
    Told(MmEvent),
    /// A migration claimed a page that was here.
    Claimed {
        /// Which migration.
        claim: ClaimId,
        /// Which page.
        at: HostVa,
        /// Where it was; none for a hole.
        was: Option<Place>,
    },
    /// A committed page lives here from the finish on.
    Moved {
        /// Which migration.
        claim: ClaimId,
        /// Which page.
        at: HostVa,
        /// Where it is.
        now: Option<Place>,
    },
    /// A claimed page stayed.
    Stayed {
        /// Which migration.
        claim: ClaimId,
        /// Which page.
        at: HostVa,
    },
    /// A CPU touched a page of VRAM, and its pagemap was asked to bring it back.
    Fault(CpuFault),
    /// What came of that.
    Served {
        /// The address touched.
        at: HostVa,
        /// How it ended.
        outcome: FaultOutcome,
    },
    /// A page of VRAM lost its last mapping.
    Freed(DevicePage),
    /// The process forked.
    Forked,
}

/// How often each thing happened.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Counters {
    /// Times that notifiers were told.
    pub told: u64,
    /// Pages claimed.
    pub claimed: u64,
    /// Pages moved to VRAM.
    pub to_vram: u64,
    /// Pages moved back.
    pub to_ram: u64,
    /// Pages claimed that stayed.
    pub stayed: u64,
    /// CPU faults on pages of VRAM.
    pub faults: u64,
    /// Pages of VRAM freed.
    pub freed: u64,
}

impl Counters {
    /// Counts one event.
    pub fn fold(&mut self, event: &Event) {
        match event {
            Event::Told(_) => self.told += 1,
            Event::Claimed { .. } => self.claimed += 1,
            Event::Moved { now: Some(Place::Device(_)), .. } => self.to_vram += 1,
            Event::Moved { .. } => self.to_ram += 1,
            Event::Stayed { .. } => self.stayed += 1,
            Event::Fault(_) => self.faults += 1,
            Event::Freed(_) => self.freed += 1,
            Event::Mapped(_) | Event::Unmapped(_) | Event::Remapped { .. } | Event::Served { .. } | Event::Forked => {}
        }
    }
}
