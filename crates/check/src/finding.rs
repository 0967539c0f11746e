//! What a run can be found guilty of, each in one sentence.

use std::fmt;
use sync::sim::Outcome;

/// Something that must not happen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Finding {
    /// A word does not hold what was written to it.
    DataLost {
        /// Words that are wrong.
        words: usize,
        /// Page of the block where the first of them lies.
        page: usize,
        /// Who wrote it.
        writer: &'static str,
        /// What was written.
        expected: u64,
        /// What a CPU reads.
        found: u64,
        /// Writes of the device, meanwhile, to bus addresses that nothing maps.
        stray_writes: u64,
        /// The first of these addresses.
        first_stray: Option<u64>,
    },
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

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::DataLost { words, page, writer, expected, found, stray_writes, first_stray } => {
                write!(
                    f,
                    "data lost: {words} words are wrong, the first in page {page}: {writer} wrote {expected:#x}, a CPU reads {found:#x}"
                )?;
                match first_stray {
                    Some(at) => write!(
                        f,
                        "; meanwhile the device made {stray_writes} stray writes, the first to bus address {at:#x}, which nothing maps"
                    ),
                    None => f.write_str("; the device made no stray write"),
                }
            }
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
            Self::Signal { what } => write!(f, "signal: {what}"),
            Self::Books(text) => write!(f, "the books do not balance: {text}"),
            Self::Run(outcome) => write!(f, "{outcome}"),
        }
    }
}
