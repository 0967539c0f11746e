//! Page-table entries: 64 bits each, 512 a table, five levels on a 57-bit device.
//!
//! Two views. [`bits`] is what stands in memory. [`Entry`] is what it means at a given level: absent, a table,
//! or a leaf. Encoding is [`Leaf::encode`] and [`table_entry`]; decoding is [`Entry::decode`].
//!
//! Level 0 maps 4K pages (or, in a *compact* table, 64K pages, 32 entries used); level 1 maps 2M, level 2 1G.

use units::Dpa;

/// Entries of a table.
pub const ENTRIES: usize = 512;
/// Entries of a compact table that are used: 64K each, for the 2M of one entry of the table above.
pub const COMPACT_ENTRIES: usize = 32;
/// Bytes of a table.
pub const TABLE_BYTES: u64 = 4096;
/// Address bits that one normal table of `level` entry covers: 4K, 2M, 1G, 512G, 256T.
pub const LEVEL_SHIFT: [u32; 5] = [12, 21, 30, 39, 48];

/// The bits of an entry.
pub mod bits {
    /// The entry is valid.
    pub const PRESENT: u64 = 1 << 0;
    /// Writes are allowed.
    pub const RW: u64 = 1 << 1;
    /// PAT index, bit 0.
    pub const PAT0: u64 = 1 << 3;
    /// PAT index, bit 1.
    pub const PAT1: u64 = 1 << 4;
    /// Level-1 table entry: the child is a compact 64K table.
    pub const PDE_64K: u64 = 1 << 6;
    /// Level 0: PAT index bit 2.
    pub const PAT2_L0: u64 = 1 << 7;
    /// Levels 1 and 2: the entry is a leaf of 2M or 1G.
    pub const PS: u64 = 1 << 7;
    /// Level 0, normal table: the 16 entries around form one 64K page. Set in all 16.
    pub const PS64: u64 = 1 << 8;
    /// Leaf: reads give zero, writes are dropped.
    pub const NULL: u64 = 1 << 9;
    /// Leaf: atomics are allowed.
    pub const AE: u64 = 1 << 10;
    /// Leaf: device memory; the address is a DPA. Clear: system memory; the address is a bus address.
    pub const DM: u64 = 1 << 11;
    /// Levels 1 and 2, leaf: PAT index bit 2.
    pub const PAT2_HUGE: u64 = 1 << 12;
    /// Leaf: PAT index, bit 3 (Xe2).
    pub const PAT3: u64 = 1 << 62;
    /// Leaf: PAT index, bit 4 (Xe2).
    pub const PAT4: u64 = 1 << 61;
    /// The address field.
    pub const ADDR: u64 = ((1 << 52) - 1) & !0xfff;
}

/// What a leaf maps.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Leaf {
    /// A DPA (with `device`) or a bus address of the IOMMU, aligned to the leaf's size.
    pub addr: u64,
    /// DM: the address is device memory.
    pub device: bool,
    /// RW.
    pub write: bool,
    /// AE: atomics allowed.
    pub atomic: bool,
    /// NULL: reads give zero, writes are dropped; `addr` means nothing.
    pub null: bool,
    /// PS64: one of 16 entries of a 64K page in a 4K table.
    pub ps64: bool,
    /// PAT index, 0..32; below 8 on platforms whose table has so many entries.
    pub pat: u8,
}

impl Leaf {
    /// The entry's 64 bits at `level`.
    pub const fn encode(&self, level: u8) -> u64 {
        let mut pte = bits::PRESENT | pat_bits(self.pat, level);
        if !self.null {
            pte |= self.addr & bits::ADDR;
        }
        if self.device {
            pte |= bits::DM;
        }
        if self.write {
            pte |= bits::RW;
        }
        if self.atomic {
            pte |= bits::AE;
        }
        if self.null {
            pte |= bits::NULL;
        }
        if self.ps64 && level == 0 {
            pte |= bits::PS64;
        }
        if level > 0 {
            pte |= bits::PS;
        }
        pte
    }

    const fn decode(pte: u64, level: u8) -> Self {
        let addr = pte & bits::ADDR & !(if level > 0 { bits::PAT2_HUGE } else { 0 });
        Self {
            addr,
            device: pte & bits::DM != 0,
            write: pte & bits::RW != 0,
            atomic: pte & bits::AE != 0,
            null: pte & bits::NULL != 0,
            ps64: level == 0 && pte & bits::PS64 != 0,
            pat: pat_of(pte, level),
        }
    }
}

const fn pat_bits(pat: u8, level: u8) -> u64 {
    let mut out = 0;
    if pat & 1 != 0 {
        out |= bits::PAT0;
    }
    if pat & 2 != 0 {
        out |= bits::PAT1;
    }
    if pat & 4 != 0 {
        out |= if level == 0 { bits::PAT2_L0 } else { bits::PAT2_HUGE };
    }
    if pat & 8 != 0 {
        out |= bits::PAT3;
    }
    if pat & 16 != 0 {
        out |= bits::PAT4;
    }
    out
}

const fn pat_of(pte: u64, level: u8) -> u8 {
    let pat2 = if level == 0 { bits::PAT2_L0 } else { bits::PAT2_HUGE };
    let low = (pte & bits::PAT0 != 0) as u8 | ((pte & bits::PAT1 != 0) as u8) << 1 | ((pte & pat2 != 0) as u8) << 2;
    low | ((pte & bits::PAT3 != 0) as u8) << 3 | ((pte & bits::PAT4 != 0) as u8) << 4
}

/// The entry that points to the table at `table`, which lies in VRAM (PAT NONE).
pub const fn table_entry(table: Dpa, compact: bool) -> u64 {
    let pde = (table.0 & bits::ADDR) | bits::PRESENT | bits::RW;
    if compact { pde | bits::PDE_64K } else { pde }
}

/// What an entry means.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Entry {
    /// Nothing is mapped.
    Absent,
    /// The next table.
    Table {
        /// Where it lies, in VRAM.
        table: Dpa,
        /// Whether it is a compact table of 64K pages.
        compact: bool,
    },
    /// A page.
    Leaf(Leaf),
}

impl Entry {
    /// Reads the 64 bits of an entry that stands in a table of `level`.
    pub const fn decode(pte: u64, level: u8) -> Self {
        if pte & bits::PRESENT == 0 {
            Self::Absent
        } else if level == 0 || (level <= 2 && pte & bits::PS != 0) {
            Self::Leaf(Leaf::decode(pte, level))
        } else {
            Self::Table { table: Dpa(pte & bits::ADDR), compact: level == 1 && pte & bits::PDE_64K != 0 }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    const WB: u8 = 3;

    fn leaf(addr: u64) -> Leaf {
        Leaf { addr, device: false, write: true, atomic: false, null: false, ps64: false, pat: WB }
    }

    #[test]
    fn encodes_the_published_examples_of_pvc() {
        let dpa = 0x10_0001_0000;
        assert_eq!(leaf(0x5000).encode(0), 0x5000 | 0x1b);
        assert_eq!(Leaf { device: true, atomic: true, ps64: true, ..leaf(dpa) }.encode(0), dpa | 0xd1b);
        assert_eq!(Leaf { device: true, atomic: true, ..leaf(dpa) }.encode(0), dpa | 0xc1b);
        assert_eq!(Leaf { device: true, atomic: true, ..leaf(0x10_0020_0000) }.encode(1), 0x10_0020_0000 | 0xc9b);
        assert_eq!(Leaf { pat: 26, ..leaf(0x5000) }.encode(0), 0x6000_0000_0000_5000 | 0x13, "Xe2's bits");
        assert_eq!(table_entry(Dpa(0x7000), false), 0x7003);
        assert_eq!(table_entry(Dpa(0x7000), true), 0x7043);
    }

    #[test]
    fn every_leaf_reads_back_at_every_level() {
        for level in 0..=2u8 {
            for n in 0..512u32 {
                let leaf = Leaf {
                    addr: 0x12_4000_0000,
                    device: n & 1 != 0,
                    write: n & 2 != 0,
                    atomic: n & 4 != 0,
                    null: false,
                    ps64: level == 0 && n & 8 != 0,
                    pat: (n >> 4) as u8,
                };
                assert_eq!(Entry::decode(leaf.encode(level), level), Entry::Leaf(leaf));
            }
        }
    }
}
