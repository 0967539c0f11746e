//! Page attribute tables: what a PAT index means for coherence. What it says of caching and compression has no effect here.
//!
//! Upstream: `xe_pat.c`.

/// Coherence of a PAT index with the CPU's caches.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Coherence {
    /// Not coherent.
    None,
    /// The GPU snoops the CPU, at least.
    OneWay,
}

/// The table of a platform.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Table {
    /// Its entries, by their index.
    pub coherence: &'static [Coherence],
    /// The write-back entry: what the driver uses for its own mappings.
    pub wb: u8,
}

const NONE: Coherence = Coherence::None;
const ONE_WAY: Coherence = Coherence::OneWay;

/// PVC's eight entries: UC, WC, WT, WB, then WT and WB of two more classes of service.
pub const PVC: Table = Table { coherence: &[NONE, NONE, NONE, ONE_WAY, NONE, ONE_WAY, NONE, ONE_WAY], wb: 3 };

/// Battlemage's 28 entries (Xe2 has 32; the last class of service is not for use on graphics 20.01, `Wa_16023588340`). Entries that snoop in both
/// directions are more than one way; 16 to 19 are reserved.
pub const BATTLEMAGE: Table = Table {
    coherence: &[
        NONE, ONE_WAY, ONE_WAY, NONE, ONE_WAY, ONE_WAY, NONE, ONE_WAY, // plain
        NONE, NONE, NONE, NONE, NONE, NONE, NONE, NONE, // mostly compressed
        NONE, NONE, NONE, NONE, NONE, NONE, ONE_WAY, ONE_WAY, // the second class of service
        NONE, NONE, ONE_WAY, ONE_WAY, // the third
    ],
    wb: 2,
};
