//! The page-table walker: root to leaf through real tables, and the rules that a leaf must obey.
//!
//! [`walk`] says what an address is mapped to, whoever asks; [`Page::permit`] says whether an access may use it.
//! The TLB keeps [`Page`]s, so a hit and a walk are judged by the same rule.
//!
//! A group of 16 PS64 entries must be one 64K page. Entries of a group that are absent mean that the driver is
//! just writing or clearing it: that is an ordinary not-present fault. Entries that are there and do not fit
//! are a violation.

use super::walk_cache::{SHIFT_64K, Stop};
use crate::record::Violation;
use crate::tables::Reader;
use units::{Dpa, GpuVa, SZ_4K, SZ_64K};
use xe_spec::fault::{Access, FaultType};
use xe_spec::platform::Platform;
use xe_spec::pte::{Entry, Leaf, bits};

const SHIFT_4K: u32 = 12;
/// Entries that form one 64K page in a normal table.
const GROUP: usize = 16;

/// One address space of one tile, as the context registers hold it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Space {
    pub(crate) root: Dpa,
    pub(crate) needs_64k: bool,
}

/// A translation: what a naturally aligned page of the address space is mapped to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Page {
    /// First address.
    pub(crate) base: GpuVa,
    /// log2 of its size.
    pub(crate) shift: u32,
    /// Level of the table that the leaf stands in.
    pub(crate) level: u8,
    /// What it is mapped to.
    pub(crate) leaf: Leaf,
}

/// Why an access does not get its translation.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Refusal {
    /// What the driver is told.
    pub(crate) fault_type: FaultType,
    /// Level of the table at which the walk ended.
    pub(crate) level: u8,
    /// The forbidden thing that was found.
    pub(crate) violation: Option<Violation>,
}

impl Refusal {
    pub(crate) fn plain(fault_type: FaultType, level: u8) -> Self {
        Self { fault_type, level, violation: None }
    }

    pub(crate) fn malformed(level: u8, violation: Violation) -> Self {
        Self { fault_type: FaultType::Malformed, level, violation: Some(violation) }
    }
}

impl Page {
    /// The 4K page, DPA or bus address, that `addr` (inside this translation) leads to.
    pub(crate) fn target(&self, addr: GpuVa) -> u64 {
        self.leaf.addr + addr.page().offset_from(self.base)
    }

    pub(crate) fn contains(&self, addr: GpuVa) -> bool {
        addr.align_down(1 << self.shift) == self.base
    }

    /// Pages of this translation from `addr` (inside it) to its end.
    pub(crate) fn pages_from(&self, addr: GpuVa) -> u64 {
        (1 << (self.shift - SHIFT_4K)) - (addr.page().offset_from(self.base) >> SHIFT_4K)
    }

    /// Whether `access` may use this translation. A NULL page does nothing, and allows no more than another.
    pub(crate) fn permit(&self, access: Access, platform: &Platform) -> Result<(), Refusal> {
        if access != Access::Read && !self.leaf.write {
            return Err(Refusal::plain(FaultType::WriteViolation, self.level));
        }
        let reaches = self.leaf.device || platform.device_atomics_on_smem;
        if access == Access::Atomic && !(self.leaf.atomic && reaches) {
            return Err(Refusal::plain(FaultType::AtomicViolation, self.level));
        }
        Ok(())
    }
}

/// Where the walk of an address space begins, if nothing is known of its tables.
pub(crate) const fn root(platform: &Platform, space: Space) -> Stop {
    Stop { level: platform.root_level, table: space.root, compact: false }
}

/// Walks from `from`, a table of `space`, to the leaf of `addr`, which is already cut to the device's address bits. Tells
/// `passed` of every table below.
pub(crate) fn walk(
    tables: &mut Reader<'_>,
    space: Space,
    from: Stop,
    addr: GpuVa,
    mut passed: impl FnMut(Stop),
) -> Result<Page, Refusal> {
    let mut at = from;
    loop {
        let Stop { level, table, compact } = at;
        let shift = at.shift();
        let index = (addr.0 >> shift) as usize & (at.entries() - 1);
        let outside = || Refusal::malformed(level, Violation::TableOutsidePool(table));
        let entry = tables.entry(table, index).ok_or_else(outside)?;
        match Entry::decode(entry, level) {
            Entry::Absent => return Err(Refusal::plain(FaultType::NotPresent, level)),
            Entry::Table { table: next, compact: next_compact } => {
                at = Stop { level: level - 1, table: next, compact: next_compact };
                passed(at);
            }
            Entry::Leaf(leaf) if level == 0 && !compact => return small_leaf(tables, space, table, index, addr, leaf),
            Entry::Leaf(leaf) => return page(addr, shift, level, leaf),
        }
    }
}

/// A leaf of a normal level-0 table: 4K, or one of the 16 entries of a 64K page.
fn small_leaf(
    tables: &mut Reader<'_>,
    space: Space,
    table: Dpa,
    index: usize,
    addr: GpuVa,
    leaf: Leaf,
) -> Result<Page, Refusal> {
    if !leaf.ps64 {
        if space.needs_64k && leaf.device && !leaf.null {
            return Err(Refusal::malformed(0, Violation::SmallVramLeaf(Dpa(leaf.addr))));
        }
        return page(addr, SHIFT_4K, 0, leaf);
    }
    let first = index & !(GROUP - 1);
    let head = if leaf.null { 0 } else { leaf.addr.wrapping_sub((index - first) as u64 * SZ_4K) };
    let mut words = [0; GROUP];
    // Nearly all groups are whole; of another one each entry says why not.
    if leaf.null || !tables.group(table, first, &mut words) || !is_run(&words, index - first, head) {
        look_at_each(tables, table, first, Leaf { addr: head, ..leaf })?;
    }
    if head & (SZ_64K - 1) != 0 {
        return Err(Refusal::malformed(0, Violation::BrokenGroup));
    }
    page(addr, SHIFT_64K, 0, Leaf { addr: head, ..leaf })
}

/// Refuses a group whose entries are not all as `leaf`, each with the page behind the one before; absent ones may be on their way.
fn look_at_each(tables: &mut Reader<'_>, table: Dpa, first: usize, leaf: Leaf) -> Result<(), Refusal> {
    let mut absent = false;
    for at in first..first + GROUP {
        let expected = if leaf.null { 0 } else { leaf.addr.wrapping_add((at - first) as u64 * SZ_4K) };
        match Entry::decode(tables.entry(table, at).unwrap_or(0), 0) {
            Entry::Leaf(other) if other == (Leaf { addr: expected, ..leaf }) => {}
            Entry::Absent => absent = true,
            _ => return Err(Refusal::malformed(0, Violation::BrokenGroup)),
        }
    }
    if absent { Err(Refusal::plain(FaultType::NotPresent, 0)) } else { Ok(()) }
}

/// Whether all entries of a group are as that one, and lead to consecutive pages from `head` on.
fn is_run(words: &[u64; GROUP], one: usize, head: u64) -> bool {
    let alike = |word: u64| word & !bits::ADDR == words[one] & !bits::ADDR;
    (0..).zip(words).all(|(n, word)| alike(*word) && word & bits::ADDR == head.wrapping_add(n * SZ_4K))
}

fn page(addr: GpuVa, shift: u32, level: u8, leaf: Leaf) -> Result<Page, Refusal> {
    let size = 1u64 << shift;
    if leaf.addr & (size - 1) != 0 && !leaf.null {
        return Err(Refusal::malformed(level, Violation::MisalignedLeaf(leaf.addr)));
    }
    Ok(Page { base: addr.align_down(size), shift, level, leaf })
}
