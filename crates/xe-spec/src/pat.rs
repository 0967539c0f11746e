//! Page attribute tables: what a PAT index means for coherence and compression. What it says of caching has no effect here, and nothing
//! is compressed: a driver asks only whether a program may name an index.
//!
//! Upstream: `xe_pat.c`.

/// What an index means. No entry of the platforms here is coherent and compresses.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Entry {
    /// The GPU snoops the CPU's caches, at least.
    pub coherent: bool,
    /// What is mapped by it may be compressed.
    pub compresses: bool,
}

/// The table of a platform.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Table {
    /// Its entries, by their index. `None`: reserved.
    entries: &'static [Option<Entry>],
    /// The write-back entry: what the driver uses for its own mappings.
    pub wb: u8,
}

impl Table {
    /// The entry at an index that programs may name.
    pub fn entry(&self, index: u32) -> Option<Entry> {
        *self.entries.get(index as usize)?
    }
}

const NONE: Option<Entry> = Some(Entry { coherent: false, compresses: false });
const ONE_WAY: Option<Entry> = Some(Entry { coherent: true, compresses: false });
const COMPRESSED: Option<Entry> = Some(Entry { coherent: false, compresses: true });
const RESERVED: Option<Entry> = None;

/// PVC's eight entries: UC, WC, WT, WB, then WT and WB of two more classes of service.
pub const PVC: Table = Table { entries: &[NONE, NONE, NONE, ONE_WAY, NONE, ONE_WAY, NONE, ONE_WAY], wb: 3 };

/// Battlemage's 28 entries (Xe2 has 32; the last class of service is not for use on graphics 20.01, `Wa_16023588340`). Entries that snoop in both
/// directions are more than one way.
#[rustfmt::skip]
pub const BATTLEMAGE: Table = Table {
    entries: &[
        NONE, ONE_WAY, ONE_WAY, NONE, ONE_WAY, ONE_WAY, NONE, ONE_WAY,
        NONE, COMPRESSED, COMPRESSED, COMPRESSED, COMPRESSED, NONE, COMPRESSED, COMPRESSED,
        RESERVED, RESERVED, RESERVED, RESERVED,
        NONE, COMPRESSED, ONE_WAY, ONE_WAY, // the second class of service
        NONE, COMPRESSED, ONE_WAY, ONE_WAY, // the third
    ],
    wb: 2,
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn battlemages_table_says_what_is_reserved_and_what_compresses() {
        let compresses = |index: &u32| BATTLEMAGE.entry(*index).is_some_and(|entry| entry.compresses);
        assert!((0..28).filter(|index| BATTLEMAGE.entry(*index).is_none()).eq(16..20));
        assert!((0..28).filter(compresses).eq([9, 10, 11, 12, 14, 15, 21, 25]));
        assert_eq!((BATTLEMAGE.entry(28), BATTLEMAGE.entry(u32::MAX), PVC.entry(8)), (None, None, None));
    }
}
