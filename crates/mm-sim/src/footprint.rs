//! What a step under the lock touches, told to who explores by classes.
//!
//! The state has parts: what is mapped in a block of 64K, with the claims of its pages and the locks of their VRAM; the bytes of a
//! frame, with whether there are any and who aims there; the count of a notifier; whether 2M have a page table, and their VMA has pages. Everything else is the rest: VMAs, huge pages, watches,
//! pins, pagemaps. Who tells looks at the rest and does not change it, but for numbers that are never used twice, counters, and how many
//! read the mappings: the order of such changes is no matter to others that tell.
//!
//! A huge mapping is a page of many blocks, so that nobody tells while there is one; nor while events are kept.
//!
//! Key types: [`StatePart`]. Locking: called with the lock.

use crate::config::Log;
use crate::sim::Locked;
use crate::state::State;
use hostmm::{NotifierId, Place};
use sync::Told;
use units::{HostRange, HostVa, SZ_2M, SZ_64K};

/// A part of the state.
#[derive(Clone, Copy)]
pub(crate) enum StatePart {
    /// What is mapped in the block around an address.
    Block(HostVa),
    /// The bytes of a frame.
    Bytes(Place),
    /// The count of a notifier.
    Count(NotifierId),
    /// Whether there is a page table for 2M, and pages in the VMA there.
    Tables(HostVa),
}

impl StatePart {
    const fn number(self) -> u64 {
        match self {
            StatePart::Block(at) => (at.0 / SZ_64K) << 3,
            StatePart::Bytes(Place::Host(frame)) => frame.0 << 3 | 1,
            StatePart::Bytes(Place::Device(page)) => ((page.pagemap.0 as u64) << 40 | page.frame) << 3 | 2,
            StatePart::Count(id) => id.0 << 3 | 3,
            StatePart::Tables(at) => (at.0 / SZ_2M) << 3 | 4,
        }
    }

    /// It is looked at.
    pub(crate) const fn read(self) -> Told {
        Told::Reads(self.number())
    }

    /// It is changed.
    pub(crate) const fn written(self) -> Told {
        Told::Writes(self.number())
    }
}

/// The blocks of a range.
pub(crate) fn blocks(range: HostRange) -> impl Iterator<Item = StatePart> {
    let first = range.start.align_down(SZ_64K);
    (first.0..range.end.0).step_by(SZ_64K as usize).map(|at| StatePart::Block(HostVa(at)))
}

impl State {
    fn has_parts(&self) -> bool {
        self.config.log != Log::Keep && !self.space.has_huge()
    }
}

/// Tells that a step does no more than this.
pub(crate) fn tell(state: &Locked<'_>, told: impl IntoIterator<Item = Told>) {
    if state.has_parts() {
        sync::tell_each(state, [Told::Looks].into_iter().chain(told));
    }
}

/// What `told` gives, where somebody is told of it; nothing else needs it.
pub(crate) fn if_told<T>(told: impl FnOnce() -> Option<T>) -> Option<T> {
    if sync::is_told() { told() } else { None }
}
