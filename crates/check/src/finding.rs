//! What a run can be found guilty of, each in one sentence.

use machine::Record;
use std::fmt;
use sync::sim::Outcome;

/// Words that do not hold what was written to them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lost {
    /// How many.
    pub words: usize,
    /// The memory where the first of them lies.
    pub memory: String,
    /// Its page there.
    pub page: usize,
    /// Who wrote it.
    pub writer: String,
    /// Who reads it.
    pub reader: String,
    /// What was written; 0 where nothing was.
    pub expected: u64,
    /// What is read.
    pub found: u64,
    /// Writes of the device, meanwhile, to bus addresses that nothing maps.
    pub stray_writes: u64,
    /// The first of these addresses.
    pub first_stray: Option<u64>,
}

/// Something that must not happen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Finding {
    /// A word does not hold what was written to it.
    DataLost(Box<Lost>),
    /// The device wrote where no mapping of its IOMMU is, and no data of the scene shows it.
    Stray {
        /// How often.
        writes: u64,
        /// Reads of that kind.
        reads: u64,
    },
    /// The device used a translation of a page that had left.
    Stale {
        /// How often.
        accesses: u64,
    },
    /// The driver or the device refused what is allowed.
    Refused {
        /// What, and with which error.
        what: String,
    },
    /// A bind's fence was over before the bind was done on a tile: a job behind it found nothing.
    TooEarly {
        /// Which tile.
        tile: u8,
    },
    /// The device noticed what no driver may do.
    Device {
        /// What.
        record: Record,
    },
    /// Something is left when everything is closed.
    Leak {
        /// What, and how much of it.
        what: String,
    },
    /// A step was done that must be refused.
    Allowed {
        /// As it was written.
        step: String,
    },
    /// Something was done more or less often than the rule is that a scene shows.
    Cost {
        /// What.
        what: &'static str,
        /// How often.
        times: u64,
        /// How often at least.
        least: u64,
        /// And at most.
        most: u64,
    },
    /// What tables, TLBs, driver and process say of a page does not agree, though nothing is on its way.
    Audit(String),
    /// The scene cannot be played as it is written.
    Scene(String),
    /// A load or store of the program got a signal.
    Signal {
        /// Which access.
        what: String,
    },
    /// Frames, mappings and owners do not add up.
    Books(String),
    /// The run itself went wrong: deadlock, panic, livelock.
    Run(Outcome),
}

impl Finding {
    /// Whether the scene is at fault, and not what plays it.
    pub const fn is_of_the_scene(&self) -> bool {
        matches!(self, Self::Scene(_))
    }

    /// Which kind of finding it is: what remains the same when a schedule is shrunk.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::DataLost(lost) if lost.stray_writes > 0 => "data lost, stray writes",
            Self::DataLost(_) => "data lost",
            Self::Stray { .. } => "stray accesses",
            Self::Stale { .. } => "stale translation",
            Self::Refused { .. } => "refused",
            Self::TooEarly { .. } => "signalled too early",
            Self::Device { .. } => "device",
            Self::Leak { .. } => "leak",
            Self::Allowed { .. } => "allowed",
            Self::Cost { .. } => "cost",
            Self::Audit(_) => "audit",
            Self::Scene(_) => "scene",
            Self::Signal { .. } => "signal",
            Self::Books(_) => "books",
            Self::Run(Outcome::Deadlock { .. }) => "deadlock",
            Self::Run(Outcome::StepLimit { .. }) => "no end",
            Self::Run(outcome) if outcome.is_lock_order() => "lock order",
            Self::Run(_) => "panic",
        }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::DataLost(lost) => write!(f, "data lost: {lost}"),
            Self::Stray { writes, reads } => {
                write!(f, "stray accesses: {writes} writes and {reads} reads of bus addresses that nothing maps")
            }
            Self::Stale { accesses } => {
                write!(f, "stale translation: {accesses} accesses reached VRAM that its page had left")
            }
            Self::Refused { what } => write!(f, "refused: {what}"),
            Self::TooEarly { tile } => write!(
                f,
                "signalled too early: a job of tile {tile} ran behind a bind's fence and did not find what was bound"
            ),
            Self::Device { record } => write!(f, "the device noticed: {record:?}"),
            Self::Leak { what } => write!(f, "left when all was closed: {what}"),
            Self::Allowed { step } => write!(f, "'{step}' was done, and must be refused"),
            Self::Cost { what, times, least, most } if least == most => {
                write!(f, "there were {times} {what}, and should be {least}")
            }
            Self::Cost { what, times, least, most: u64::MAX } => {
                write!(f, "there were {times} {what}, and should be {least} at least")
            }
            Self::Cost { what, times, least, most } => {
                write!(f, "there were {times} {what}, and should be {least} to {most}")
            }
            Self::Audit(what) => write!(f, "at rest: {what}"),
            Self::Scene(what) => write!(f, "the scene cannot be played: {what}"),
            Self::Signal { what } => write!(f, "signal: {what}"),
            Self::Books(text) => write!(f, "the books do not balance: {text}"),
            Self::Run(outcome) => write!(f, "{outcome}"),
        }
    }
}

impl fmt::Display for Lost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { words, memory, page, writer, reader, expected, found, .. } = self;
        write!(f, "{words} words are wrong, the first in page {page} of {memory}: ")?;
        write!(f, "{writer} wrote {expected:#x}, {reader} reads {found:#x}")?;
        match self.first_stray {
            None => f.write_str("; the device made no stray write"),
            Some(at) => {
                let writes = self.stray_writes;
                write!(f, "; meanwhile the device made {writes} stray writes, the first to bus address {at:#x}, ")?;
                f.write_str("which nothing maps")
            }
        }
    }
}
