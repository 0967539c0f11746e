//! Clearing leaves, and taking out empty tables.
//!
//! Locking: the page-table lock; [`zap`] runs in reader class and frees nothing.
//!
//! Upstream: `xe_pt_zap_ptes`, `xe_pt_zap_ptes_range`, `xe_pt_abort_unbind`.

use units::{Dpa, GpuRange, GpuVa};
use xe_spec::pte::ENTRIES;

use std::ops::Range;

use super::{AT_ONCE, Node, TablePool, entry_bytes};
use crate::port::Hw;

/// Indices of the entries of `node`, which starts at `base`, that cover an address of `span`.
fn entries_of(node: &Node, base: GpuVa, span: GpuRange) -> std::ops::Range<usize> {
    let size = entry_bytes(node.level);
    let first = span.start.0.saturating_sub(base.0) / size;
    let last = span.end.0.saturating_sub(base.0).div_ceil(size);
    first.min(ENTRIES as u64) as usize..last.min(ENTRIES as u64) as usize
}

fn child_base(base: GpuVa, level: u8, index: usize) -> GpuVa {
    base.add(index as u64 * entry_bytes(level))
}

/// Clears the leaves at and below `node`, whose first address is `base`, that cover an address of `span`.
pub(super) fn zap(node: &mut Node, hw: &dyn Hw, base: GpuVa, span: GpuRange) -> u32 {
    let entries = entries_of(node, base, span);
    let mut cleared = clear_leaves(node, hw, entries.clone());
    let level = node.level;
    for (index, child) in node.children.among(entries) {
        cleared += zap(child, hw, child_base(base, level, index), span);
    }
    cleared
}

/// Clears the leaves among `entries`, run by run.
fn clear_leaves(node: &mut Node, hw: &dyn Hw, entries: Range<usize>) -> u32 {
    let mut cleared = 0;
    let mut run = node.leaves.first_run(entries.clone());
    while !run.is_empty() {
        for first in run.clone().step_by(AT_ONCE) {
            hw.table_write_run(node.table, first, &[0; AT_ONCE][..AT_ONCE.min(run.end - first)]);
        }
        node.leaves.remove_all(run.clone());
        cleared += run.len() as u32;
        run = node.leaves.first_run(run.end..entries.end);
    }
    cleared
}

/// Clears every leaf at and below `node`.
pub(super) fn clear(node: &mut Node, hw: &dyn Hw) -> u32 {
    let span = GpuRange::new(GpuVa(0), GpuVa(u64::MAX));
    zap(node, hw, GpuVa(0), span)
}

/// Takes out empty tables below `node`; whether `node` holds nothing now.
pub(super) fn prune(node: &mut Node, hw: &dyn Hw, base: GpuVa, span: GpuRange, out: &mut Vec<Dpa>) -> bool {
    let (entries, level) = (entries_of(node, base, span), node.level);
    let mut empty = Vec::new();
    for (index, child) in node.children.among(entries) {
        if prune(child, hw, child_base(base, level, index), span, out) {
            empty.push(index);
        }
    }
    for index in empty {
        if node.linked.contains(index) {
            hw.table_write(node.table, index, 0);
            node.linked.remove(index);
        }
        out.extend(node.children.take(index).map(|child| child.table));
    }
    node.children.is_empty() && node.leaves.is_empty()
}

/// Clears `node` and frees every table below it.
pub(super) fn destroy(node: &mut Node, hw: &dyn Hw, pool: &TablePool) {
    clear_leaves(node, hw, 0..ENTRIES);
    for index in node.linked.among(0..ENTRIES) {
        hw.table_write(node.table, index, 0);
    }
    for mut child in node.children.take_all() {
        destroy(&mut child, hw, pool);
        pool.free(child.table);
    }
}
