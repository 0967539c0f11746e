//! What a scene calls by a name of the language: what goes wrong in it, and what it counts.

/// What may go wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Injected {
    /// Page copies of the device: the one of this number fails.
    CopyFails,
    /// Page copies of the device: the one of this number ends its job without a word.
    CopyStops,
    /// Bus mappings: the one of this number is refused.
    MapFails,
    /// Walks that find a page: what the one of this number finds is lost for good.
    LosePage,
    /// The mmap lock takes so many nanoseconds.
    Slow,
    /// Mappings that somebody else watches.
    Strangers,
    /// The TLB takes so many nanoseconds to act on a flush.
    FlushDelay,
    /// Batches of pages that end early.
    Cuts,
    /// Calls that do not get their locks.
    Refusals,
    /// Pages that somebody holds for a moment.
    Busy,
    /// Allocations that fail.
    Shortages,
}

impl Injected {
    /// Each with its name.
    pub const ALL: [(&'static str, Self); 11] = [
        ("copy-fails", Self::CopyFails),
        ("copy-stops", Self::CopyStops),
        ("map-fails", Self::MapFails),
        ("lose-page", Self::LosePage),
        ("flush-delay", Self::FlushDelay),
        ("slow", Self::Slow),
        ("cuts", Self::Cuts),
        ("refusals", Self::Refusals),
        ("busy", Self::Busy),
        ("shortages", Self::Shortages),
        ("strangers", Self::Strangers),
    ];

    /// Its name.
    pub fn name(self) -> &'static str {
        Self::ALL.iter().find(|(_, injected)| *injected == self).map_or("", |(name, _)| name)
    }
}

/// What a scene counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Counted {
    /// GPU faults that were answered.
    Faults,
    /// Of these, refused.
    Refusals,
    /// Faults of leaves that are there and do not allow the access.
    Violations,
    /// Rounds of faults that did not serve.
    Retries,
    /// Those of them in which pages could not be brought to the VRAM that an atomic needs.
    Stranded,
    /// Touches of a CPU that were told to come later.
    Deferrals,
    /// Migrations.
    Migrations,
    /// Of these, from one VRAM to another.
    Pushes,
    /// Of these, to system memory.
    Returns,
    /// TLB flushes.
    Flushes,
}

impl Counted {
    /// Each with its name.
    pub const ALL: [(&'static str, Self); 10] = [
        ("faults", Self::Faults),
        ("refusals", Self::Refusals),
        ("violations", Self::Violations),
        ("retries", Self::Retries),
        ("stranded", Self::Stranded),
        ("deferrals", Self::Deferrals),
        ("migrations", Self::Migrations),
        ("pushes", Self::Pushes),
        ("returns", Self::Returns),
        ("flushes", Self::Flushes),
    ];

    /// Its name.
    pub fn name(self) -> &'static str {
        Self::ALL.iter().find(|(_, counted)| *counted == self).map_or("", |(name, _)| name)
    }
}
