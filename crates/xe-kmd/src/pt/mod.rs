//! Page tables of one VM on one tile.
//!
//! The tables themselves lie in the tile's VRAM and are reached through the port only; [`PageTable`] is the
//! driver's own tree beside them, which knows where each table is and which of its entries are leaves. Three
//! verbs change it:
//!
//! 1. [`stage`](PageTable::stage) makes the tables that a plan needs. It may fail, and what it leaves behind
//!    is harmless: empty tables.
//! 2. [`commit`](PageTable::commit) writes the plan's leaves. It cannot fail for want of memory, so it can run
//!    under the notifier lock, behind the check that the pages are still those of the plan.
//! 3. [`zap`](PageTable::zap) clears leaves. It frees nothing: the notifier calls it, in reader class.
//!
//! [`prune`](PageTable::prune) takes out tables that are empty; their memory is free only after a flush.
//!
//! What the leaves are is decided in [`build`], from segments of device addresses.
//!
//! A 2M leaf may stand where a table of 4K entries was linked before. That table stays in the tree, empty
//! and unlinked, for the day when the entry is a table again: so no table is ever freed under the notifier lock.
//! So it is with the two forms of a last table, of 4K and of 64K entries ([`Form`]): each has its own memory, and one of
//! them is linked. A walk that read the entry before the change finds an empty table.
//!
//! Locking: each `PageTable` lies in its own lock, below the notifier lock. `stage` and `prune` need the VM's
//! lock besides, so between a `stage` and its `commit` tables only become more.
//!
//! Upstream: `xe_pt.c` (stage, commit, zap), `xe_pt_walk.c`.

mod alloc;
pub(crate) mod build;
mod zap;

use std::ops::Range;

use units::{Dpa, GpuRange, GpuVa, SZ_64K, bit_words, set_bits};
use xe_spec::pte::{COMPACT_ENTRIES, ENTRIES, LEVEL_SHIFT, Leaf, table_entry};

pub(crate) use alloc::TablePool;
use build::Run;

use crate::port::Hw;

/// Entries that are written at once, at most: whole groups of 64K.
const AT_ONCE: usize = 64;

/// Bytes that one entry of a table of `level` covers.
pub(crate) const fn entry_bytes(level: u8) -> u64 {
    1 << LEVEL_SHIFT[level as usize]
}

/// Index of the entry for `va` in a table of `level`.
pub(crate) const fn index_of(va: GpuVa, level: u8) -> usize {
    (va.0 >> LEVEL_SHIFT[level as usize]) as usize % ENTRIES
}

/// What the entries of a table are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Form {
    pub level: u8,
    /// Entries of 64K in the place of entries of 4K: only where all of the table's 2M are mapped so.
    pub compact: bool,
}

impl Form {
    /// A compact table.
    pub(crate) const COMPACT: Self = Self { level: 0, compact: true };

    /// The common table of a level.
    pub(crate) const fn of(level: u8) -> Self {
        Self { level, compact: false }
    }

    /// Bytes that an entry covers.
    pub(crate) const fn entry_bytes(self) -> u64 {
        if self.compact { SZ_64K } else { entry_bytes(self.level) }
    }

    /// Entries that are used.
    const fn entries(self) -> usize {
        if self.compact { COMPACT_ENTRIES } else { ENTRIES }
    }

    /// Bytes that the table covers.
    const fn table_bytes(self) -> u64 {
        self.entry_bytes() * self.entries() as u64
    }

    /// Index of the entry for `va`.
    const fn index_of(self, va: GpuVa) -> usize {
        (va.0 / self.entry_bytes()) as usize % self.entries()
    }
}

/// A bit for each entry of a table.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
struct EntrySet([u64; ENTRIES / 64]);

impl EntrySet {
    const fn contains(&self, index: usize) -> bool {
        self.0[index / 64] >> (index % 64) & 1 != 0
    }
    const fn insert(&mut self, index: usize) {
        self.0[index / 64] |= 1 << (index % 64);
    }
    const fn remove(&mut self, index: usize) {
        self.0[index / 64] &= !(1 << (index % 64));
    }
    /// How many entries below `index` in its word are in the set.
    const fn below_in_word(&self, index: usize) -> usize {
        (self.0[index / 64] & ((1 << (index % 64)) - 1)).count_ones() as usize
    }
    /// Those among `entries`, in order.
    fn among(&self, entries: Range<usize>) -> impl Iterator<Item = usize> {
        bit_words(entries).flat_map(|(word, mask)| set_bits(self.0[word] & mask).map(move |bit| word * 64 + bit))
    }
    fn is_empty(&self) -> bool {
        self.0.iter().all(|word| *word == 0)
    }
    fn any(&self, entries: Range<usize>) -> bool {
        bit_words(entries).any(|(word, mask)| self.0[word] & mask != 0)
    }
    fn insert_all(&mut self, entries: Range<usize>) {
        bit_words(entries).for_each(|(word, mask)| self.0[word] |= mask);
    }
    fn remove_all(&mut self, entries: Range<usize>) {
        bit_words(entries).for_each(|(word, mask)| self.0[word] &= !mask);
    }
    /// The first entries of the set from `entries.start` on that follow each other, inside of `entries`.
    fn first_run(&self, entries: Range<usize>) -> Range<usize> {
        let seek = |from: usize, flip: u64| {
            let found = bit_words(from..entries.end).find_map(|(word, mask)| {
                let bits = (self.0[word] ^ flip) & mask;
                (bits != 0).then(|| word * 64 + bits.trailing_zeros() as usize)
            });
            found.unwrap_or(entries.end)
        };
        let start = seek(entries.start, 0);
        start..seek(start, !0)
    }
}

/// One table, as the driver knows it.
struct Node {
    table: Dpa,
    form: Form,
    /// Entries that are leaves.
    leaves: EntrySet,
    below: Below,
    /// Compact tables; few tables ever have one below.
    compact: Option<Box<Below>>,
}

/// The tables of one form below a table.
#[derive(Default)]
struct Below {
    /// Entries that point to the child of the same index. A child without it is parked: empty.
    linked: EntrySet,
    children: Children,
}

/// The tables below one: which indices have one, and those, one after another.
#[derive(Default)]
struct Children {
    present: EntrySet,
    /// How many of them lie before each word of the set.
    before: [u16; ENTRIES / 64],
    nodes: Vec<Node>,
}

impl Children {
    /// Where the child of an index lies, or would lie.
    fn rank(&self, index: usize) -> usize {
        usize::from(self.before[index / 64]) + self.present.below_in_word(index)
    }
    /// Where the child of an index lies, if there is one.
    fn place(&self, index: usize) -> Option<usize> {
        self.present.contains(index).then(|| self.rank(index))
    }
    fn get(&self, index: usize) -> Option<&Node> {
        self.place(index).map(|place| &self.nodes[place])
    }
    fn get_mut(&mut self, index: usize) -> Option<&mut Node> {
        self.place(index).map(|place| &mut self.nodes[place])
    }
    /// The child of an index; where there is none, what `make` makes.
    fn get_or_make<E>(&mut self, index: usize, make: impl FnOnce() -> Result<Node, E>) -> Result<&mut Node, E> {
        let place = self.rank(index);
        if !self.present.contains(index) {
            self.nodes.insert(place, make()?);
            self.present.insert(index);
            self.before[index / 64 + 1..].iter_mut().for_each(|before| *before += 1);
        }
        Ok(&mut self.nodes[place])
    }
    /// Those among `entries`, by index.
    fn among(&mut self, entries: Range<usize>) -> impl Iterator<Item = (usize, &mut Node)> {
        let first = if entries.start < ENTRIES { self.rank(entries.start) } else { self.nodes.len() };
        self.present.among(entries).zip(&mut self.nodes[first..])
    }
    fn take(&mut self, index: usize) -> Option<Node> {
        let place = self.place(index)?;
        self.present.remove(index);
        self.before[index / 64 + 1..].iter_mut().for_each(|before| *before -= 1);
        Some(self.nodes.remove(place))
    }
    const fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }
}

impl Node {
    fn new(table: Dpa, form: Form) -> Self {
        Self { table, form, leaves: EntrySet::default(), below: Below::default(), compact: None }
    }

    /// The tables of that form below.
    fn below(&mut self, form: Form) -> &mut Below {
        if form.compact { self.compact.get_or_insert_default() } else { &mut self.below }
    }

    /// Those below, form by form.
    fn all_below(&mut self) -> impl Iterator<Item = &mut Below> {
        std::iter::once(&mut self.below).chain(self.compact.as_deref_mut())
    }

    /// Whether one of these entries points to a table.
    fn has_linked(&self, entries: Range<usize>) -> bool {
        self.below.linked.any(entries.clone()) || self.compact.as_ref().is_some_and(|below| below.linked.any(entries))
    }

    /// The form of the next table on the way to one of `form`.
    const fn next_form(&self, form: Form) -> Form {
        if self.form.level == form.level + 1 { form } else { Form::of(self.form.level - 1) }
    }

    /// Lets the entry point to its table of that form, which exists.
    fn link(&mut self, hw: &dyn Hw, index: usize, form: Form) {
        let table = self.table;
        let below = self.below(form);
        if let Some(child) = below.children.get(index) {
            hw.table_write(table, index, table_entry(child.table, form.compact));
            below.linked.insert(index);
        }
    }

    /// No entry points to a table of the forms that `which` says any more; whether such a table held leaves.
    fn unlink(&mut self, hw: &dyn Hw, index: usize, which: impl Fn(Form) -> bool) -> bool {
        let mut had_leaves = false;
        for below in self.all_below().filter(|below| below.linked.contains(index)) {
            let Some(child) = below.children.get_mut(index).filter(|child| which(child.form)) else { continue };
            had_leaves |= zap::clear(child, hw) > 0;
            below.linked.remove(index);
        }
        had_leaves
    }
}

/// No table could be had.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct NoTable;

/// What a commit did.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(crate) struct Committed {
    /// Leaves written.
    pub leaves: u32,
    /// A valid leaf was replaced by another: a TLB may know the old one.
    pub replaced: bool,
}

/// The tables of one VM on one tile.
pub(crate) struct PageTable {
    root: Node,
}

impl PageTable {
    /// An empty root of `level`.
    pub(crate) fn new(pool: &TablePool, level: u8) -> Result<Self, NoTable> {
        Ok(Self { root: Node::new(pool.alloc().ok_or(NoTable)?, Form::of(level)) })
    }

    /// Where the root table lies.
    pub(crate) const fn root(&self) -> Dpa {
        self.root.table
    }

    /// The table of `level` that `va` lies in, if it was staged; where that has two forms, the common one.
    pub(crate) fn table_at(&self, va: GpuVa, level: u8) -> Option<Dpa> {
        let mut node = &self.root;
        while node.form.level > level {
            node = node.below.children.get(node.form.index_of(va))?;
        }
        Some(node.table)
    }

    /// What tables below the root cover in which no leaf is, the smallest of them.
    pub(crate) fn empty_tables(&self) -> Vec<GpuRange> {
        let mut empty = Vec::new();
        self.root.empty_tables(GpuVa(0), &mut empty);
        empty
    }

    /// Makes sure that every table that `runs` write to exists and is linked.
    pub(crate) fn stage(&mut self, hw: &dyn Hw, pool: &TablePool, runs: &[Run]) -> Result<(), NoTable> {
        for run in runs {
            let mut va = run.va;
            while va.0 < run.end().0 {
                self.ensure(hw, pool, va, run.form)?;
                va = va.align_down(run.form.table_bytes()).add(run.form.table_bytes());
            }
        }
        Ok(())
    }

    fn ensure(&mut self, hw: &dyn Hw, pool: &TablePool, va: GpuVa, form: Form) -> Result<(), NoTable> {
        let mut node = &mut self.root;
        while node.form != form {
            let (index, next) = (node.form.index_of(va), node.next_form(form));
            if !node.below(next).linked.contains(index) {
                let made = || pool.alloc().map(|table| Node::new(table, next)).ok_or(NoTable);
                node.below(next).children.get_or_make(index, made)?;
                if !node.leaves.contains(index) && !node.has_linked(index..index + 1) {
                    node.link(hw, index, next);
                }
            }
            node = node.below(next).children.get_mut(index).ok_or(NoTable)?;
        }
        Ok(())
    }

    /// Writes the leaves of `runs`, which were staged. Gives what it did; `None` where a table is missing, with
    /// nothing lost: the plan can be staged again.
    pub(crate) fn commit(&mut self, hw: &dyn Hw, encode: fn(&Leaf, u8) -> u64, runs: &[Run]) -> Option<Committed> {
        let mut done = Committed::default();
        for run in runs {
            let mut n = 0;
            while n < run.count {
                let va = run.va.add(n * run.form.entry_bytes());
                let (node, replaced) = self.root.descend(hw, va, run.form)?;
                done.replaced |= replaced;
                let first = run.form.index_of(va);
                let here = (run.count - n).min((run.form.entries() - first) as u64);
                done.replaced |= node.set_leaves(hw, first..first + here as usize, |entry| {
                    encode(&run.leaf(n + (entry - first) as u64), run.form.level)
                });
                n += here;
                done.leaves += here as u32;
            }
        }
        Some(done)
    }

    /// Clears every leaf that covers an address of `span`; the number of leaves cleared.
    pub(crate) fn zap(&mut self, hw: &dyn Hw, span: GpuRange) -> u32 {
        zap::zap(&mut self.root, hw, GpuVa(0), span)
    }

    /// Takes out the tables below the root that cover an address of `span` and hold nothing; they can be freed
    /// once the span's tables were flushed from the TLB.
    #[must_use]
    pub(crate) fn prune(&mut self, hw: &dyn Hw, span: GpuRange) -> Vec<Dpa> {
        let mut out = Vec::new();
        zap::prune(&mut self.root, hw, GpuVa(0), span, &mut out);
        out
    }

    /// Clears all tables and gives them back. No walk of the device may lead to them any more.
    pub(crate) fn destroy(mut self, hw: &dyn Hw, pool: &TablePool) {
        zap::destroy(&mut self.root, hw, pool);
        pool.free(self.root.table);
    }
}

impl Node {
    /// Notes what empty tables below `self`, whose first address is `base`, cover; whether it is empty itself.
    fn empty_tables(&self, base: GpuVa, empty: &mut Vec<GpuRange>) -> bool {
        let mut is_empty = self.leaves.is_empty();
        for children in std::iter::once(&self.below).chain(self.compact.as_deref()).map(|below| &below.children) {
            for (index, child) in children.present.among(0..ENTRIES).zip(&children.nodes) {
                let bytes = self.form.entry_bytes();
                let span = GpuRange::sized(base.add(index as u64 * bytes), bytes);
                if child.empty_tables(span.start, empty) {
                    empty.push(span);
                }
                is_empty = false;
            }
        }
        is_empty
    }

    /// The table of `form` that `va` lies in. Where a leaf, or a table of the other form, stands on the way, it gives way to
    /// this parked one; the second value says whether leaves did.
    fn descend(&mut self, hw: &dyn Hw, va: GpuVa, form: Form) -> Option<(&mut Self, bool)> {
        let (mut node, mut replaced) = (self, false);
        while node.form != form {
            let (index, next) = (node.form.index_of(va), node.next_form(form));
            node.below(next).children.get(index)?;
            if node.leaves.contains(index) {
                node.leaves.remove(index);
                replaced = true;
            }
            if !node.below(next).linked.contains(index) {
                replaced |= node.unlink(hw, index, |other| other != next);
                node.link(hw, index, next);
            }
            node = node.below(next).children.get_mut(index)?;
        }
        Some((node, replaced))
    }

    /// Writes consecutive leaves; whether one took the place of another, or of a table with leaves.
    fn set_leaves(&mut self, hw: &dyn Hw, entries: Range<usize>, encode: impl Fn(usize) -> u64) -> bool {
        if self.leaves.any(entries.clone()) || self.has_linked(entries.clone()) {
            return entries.map(|index| self.set_leaf(hw, index, encode(index))).filter(|replaced| *replaced).count()
                > 0;
        }
        let mut words = [0; AT_ONCE];
        for first in entries.clone().step_by(AT_ONCE) {
            let words = &mut words[..AT_ONCE.min(entries.end - first)];
            words.iter_mut().enumerate().for_each(|(n, word)| *word = encode(first + n));
            hw.table_write_run(self.table, first, words);
        }
        self.leaves.insert_all(entries);
        false
    }

    /// Writes a leaf; whether it took the place of another, or of a table with leaves.
    fn set_leaf(&mut self, hw: &dyn Hw, index: usize, entry: u64) -> bool {
        let mut replaced = self.leaves.contains(index) && hw.table_read(self.table, index) != entry;
        replaced |= self.unlink(hw, index, |_| true);
        hw.table_write(self.table, index, entry);
        self.leaves.insert(index);
        replaced
    }
}

#[cfg(test)]
mod tests;
