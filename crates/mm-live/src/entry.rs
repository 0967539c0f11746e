//! An entry: one page of a migration, where it was, where it goes, and how far it is.

use hostmm::{Destination, DevicePage, Transferred};
use units::HostVa;

/// Where a claimed page was.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum From {
    /// Not collected.
    Nowhere,
    /// Absent from system memory when it was claimed.
    Hole,
    /// In system memory.
    System,
    /// In VRAM.
    Device(DevicePage),
}

/// One page of a migration.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Entry {
    pub va: HostVa,
    pub from: From,
    pub to: Destination,
    /// What the transfer of exactly the staged pair gave.
    pub carried: Option<Transferred>,
    /// Something else was copied to the destination.
    pub strayed: bool,
    /// The page's mapping changed meanwhile.
    pub dead: bool,
    /// mremap took it elsewhere meanwhile: what the device translated is another page's place by now.
    pub remapped: bool,
    /// The destination is the page's home.
    pub committed: bool,
    /// The mover itself may be waiting for this page: a hole of it is answered with zeros at once.
    pub filling: bool,
    /// A hole that the CPU has filled since.
    pub filled: bool,
    /// A reader is at it, to fill the hole.
    pub zeroing: bool,
    /// A hole that nobody fills any more: it is being committed.
    pub sealed: bool,
}

/// A migration.
#[derive(Debug, Default)]
pub(crate) struct Claim {
    pub entries: Vec<Entry>,
}

impl Entry {
    pub const fn new(va: HostVa, from: From) -> Self {
        Self {
            va,
            from,
            to: Destination::Stay,
            carried: None,
            strayed: false,
            dead: false,
            remapped: false,
            committed: false,
            filling: false,
            filled: false,
            zeroing: false,
            sealed: false,
        }
    }

    /// Whether it is still to be carried.
    pub fn is_open(&self) -> bool {
        !self.dead && self.carried.is_none_or(|how| how == Transferred::Failed)
    }

    /// Whether the page itself, or all of its bytes, went to the destination.
    pub const fn is_carried(&self) -> bool {
        matches!(self.carried, Some(Transferred::Moved | Transferred::Copied))
    }
}
