//! Page attribute tables: what a PAT index means for coherence and compression. What it says of caching has no effect here, and nothing
//! is compressed: a driver asks only whether a program may name an index, and tools read the table.
//!
//! Upstream: `xe_pat.c`.

/// What an index means, as its register has it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Entry {
    /// The GPU snoops the CPU's caches, at least. No entry of the platforms here does and compresses.
    pub coherent: bool,
    /// What is mapped by it may be compressed.
    pub compresses: bool,
    /// The register.
    pub value: u32,
}

/// How a platform's registers are divided.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Layout {
    /// [`memory_type`], [`class`].
    XeHpc,
    /// [`xe2`].
    Xe2,
}

/// The table of a platform.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Table {
    /// Its entries, by their index. `None`: reserved.
    entries: &'static [Option<Entry>],
    /// How their registers are divided.
    pub layout: Layout,
    /// The write-back entry: what the driver uses for its own mappings.
    pub wb: u8,
}

impl Table {
    /// The entry at an index that programs may name.
    pub fn entry(&self, index: u32) -> Option<Entry> {
        *self.entries.get(index as usize)?
    }

    /// All of them.
    pub const fn entries(&self) -> &'static [Option<Entry>] {
        self.entries
    }
}

/// A register of [`Layout::XeHpc`]: uncached (0), write-combining, write-through or write-back (3).
pub const fn memory_type(value: u32) -> u32 {
    value & 3
}
/// A register of [`Layout::XeHpc`]: class of service.
pub const fn class(value: u32) -> u32 {
    value >> 2 & 3
}
/// A register of [`Layout::Xe2`]: not to be promoted, compressed, class of service, policy of the L3 and the L4 cache, coherence
/// (0, 2: one way, 3: both ways).
pub const fn xe2(value: u32) -> [u32; 6] {
    [value >> 10 & 1, value >> 9 & 1, value >> 6 & 3, value >> 4 & 3, value >> 2 & 3, value & 3]
}

const fn xehpc(class: u32, memory_type: u32) -> Option<Entry> {
    Some(Entry { coherent: memory_type == 3, compresses: false, value: class << 2 | memory_type })
}

/// The fields of [`xe2`] as six digits.
const fn xe2_of(fields: u32) -> Option<Entry> {
    let value = digit(fields, 5) << 10 | digit(fields, 4) << 9 | digit(fields, 3) << 6;
    let value = value | digit(fields, 2) << 4 | digit(fields, 1) << 2 | digit(fields, 0);
    Some(Entry { coherent: digit(fields, 0) != 0, compresses: digit(fields, 4) != 0, value })
}

const fn digit(number: u32, n: u32) -> u32 {
    number >> (4 * n) & 0xf
}

const RESERVED: Option<Entry> = None;

/// PVC's eight entries: UC, WC, WT, WB, then WT and WB of two more classes of service.
pub const PVC: Table = Table {
    entries: &[xehpc(0, 0), xehpc(0, 1), xehpc(0, 2), xehpc(0, 3), xehpc(1, 2), xehpc(1, 3), xehpc(2, 2), xehpc(2, 3)],
    layout: Layout::XeHpc,
    wb: 3,
};

/// Xe2's 32 entries.
#[rustfmt::skip]
pub const XE2: Table = Table {
    entries: &[
        xe2_of(0x000030), xe2_of(0x000032), xe2_of(0x000033), xe2_of(0x000330),
        xe2_of(0x000302), xe2_of(0x000332), xe2_of(0x100130), xe2_of(0x000303),
        xe2_of(0x000300), xe2_of(0x010030), xe2_of(0x010300), xe2_of(0x110130),
        xe2_of(0x010330), xe2_of(0x000000), xe2_of(0x010000), xe2_of(0x110110),
        RESERVED, RESERVED, RESERVED, RESERVED,
        xe2_of(0x001030), xe2_of(0x011030), xe2_of(0x001032), xe2_of(0x001033), // the second class of service
        xe2_of(0x002030), xe2_of(0x012030), xe2_of(0x002032), xe2_of(0x002033), // the third
        xe2_of(0x003030), xe2_of(0x013030), xe2_of(0x003032), xe2_of(0x003033), // the fourth
    ],
    layout: Layout::Xe2,
    wb: 2,
};

/// Battlemage's: of them the first 28, as the last class of service is not for use on graphics 20.01 (`Wa_16023588340`).
pub const BATTLEMAGE: Table = Table { entries: XE2.entries.split_at(28).0, ..XE2 };

/// By which Xe2 reads page tables.
pub const XE2_TABLES: u32 = 3 << 2;
/// By which Xe2 has addresses translated on the bus.
pub const XE2_ATS: u32 = 3 << 2 | 3;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn battlemages_table_says_what_is_reserved_and_what_compresses() {
        let compresses = |index: &u32| BATTLEMAGE.entry(*index).is_some_and(|entry| entry.compresses);
        assert!((0..28).filter(|index| BATTLEMAGE.entry(*index).is_none()).eq(16..20));
        assert!((0..28).filter(compresses).eq([9, 10, 11, 12, 14, 15, 21, 25]));
        assert!((28..32).filter(|index| XE2.entry(*index).is_some_and(|entry| entry.coherent)).eq([30, 31]));
        assert_eq!((BATTLEMAGE.entry(28), BATTLEMAGE.entry(u32::MAX), PVC.entry(8)), (None, None, None));
    }

    #[test]
    fn what_is_coherent_is_snooped_one_way_or_both() {
        let coherent =
            |table: Table| (0..32).filter(move |index| table.entry(*index).is_some_and(|entry| entry.coherent));
        assert!(coherent(PVC).eq([3, 5, 7]));
        assert!(coherent(BATTLEMAGE).eq([1, 2, 4, 5, 7, 22, 23, 26, 27]));
        let value = |table: Table, index| table.entry(index).map(|entry| entry.value);
        assert_eq!((value(PVC, 6), value(BATTLEMAGE, 11), value(BATTLEMAGE, 23)), (Some(0xa), Some(0x61c), Some(0x4f)));
    }
}
