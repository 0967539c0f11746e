//! Memory object control: how what a command names is cached. It has no effect here; tools read what the driver wrote.
//!
//! Upstream: `xe_mocs.c`.

/// What a platform's registers hold.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Table {
    /// What kind of registers they are.
    pub kind: Kind,
    /// What the driver has for the first of them.
    entries: &'static [u32],
    /// Which of these is for the rest.
    rest: usize,
    /// Entries that the hardware has.
    pub count: usize,
}

/// Where the entries are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// Two to a register, for the L3 cache alone (`LNCFCMOCS`).
    L3,
    /// One to a register, for the L3 and L4 caches (`GLOB_MOCS`).
    Global,
}

impl Table {
    /// An entry, whether the hardware counts it or not.
    pub fn entry(&self, index: usize) -> u32 {
        self.entries.get(index).or_else(|| self.entries.get(self.rest)).copied().unwrap_or(0)
    }
}

/// Bits 5:4 of an entry of [`Kind::L3`]: 1 is uncached, 3 write-back.
pub const fn l3_cacheability(entry: u32) -> u32 {
    entry >> 4 & 3
}
/// An entry of [`Kind::Global`] is taken in place of the PAT's.
pub const IGNORE_PAT: u32 = 1 << 8;
/// Bits 7:6 of such an entry: the L3 cache's class of service.
pub const fn l3_class(entry: u32) -> u32 {
    entry >> 6 & 3
}
/// Bits 3:2 of such an entry: 0 is write-back in the L4 cache, 1 write-through, 3 uncached.
pub const fn l4_policy(entry: u32) -> u32 {
    entry >> 2 & 3
}

/// PVC's: one for errors, uncached, write-back.
pub const PVC: Table = Table { kind: Kind::L3, entries: &[3 << 4, 1 << 4, 3 << 4], rest: 2, count: 3 };

/// Xe2's: as the PAT says, L3 alone, L4 alone, none, both.
pub const XE2: Table = Table {
    kind: Kind::Global,
    entries: &[3 << 2, IGNORE_PAT | 3 << 2, IGNORE_PAT | 3 << 4, IGNORE_PAT | 3 << 4 | 3 << 2, IGNORE_PAT],
    rest: 4,
    count: 16,
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_without_a_use_are_the_most_cached() {
        assert_eq!([0, 1, 2, 3].map(|index| l3_cacheability(PVC.entry(index))), [3, 1, 3, 3]);
        assert_eq!([3, 4, 15].map(|index| XE2.entry(index)), [0x13c, 0x100, 0x100]);
    }
}
