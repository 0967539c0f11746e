//! Clearing leaves, and taking out empty tables.
//!
//! Locking: the page-table lock; [`zap`] runs in reader class and frees nothing.
//!
//! Upstream: `xe_pt_zap_ptes`, `xe_pt_zap_ptes_range`, `xe_pt_abort_unbind`.

use units::{Dpa, GpuRange, GpuVa};
use xe_spec::pte::ENTRIES;

use super::{Node, TablePool, entry_bytes};
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
    let mut cleared = 0;
    for index in entries.clone() {
        if node.leaves.contains(index) {
            hw.table_write(node.table, index, 0);
            node.leaves.remove(index);
            cleared += 1;
        }
    }
    let level = node.level;
    for (&index, child) in node.children.range_mut(entries) {
        cleared += zap(child, hw, child_base(base, level, index), span);
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
    for (&index, child) in node.children.range_mut(entries) {
        if prune(child, hw, child_base(base, level, index), span, out) {
            empty.push(index);
        }
    }
    for index in empty {
        if node.linked.contains(index) {
            hw.table_write(node.table, index, 0);
            node.linked.remove(index);
        }
        out.extend(node.children.remove(&index).map(|child| child.table));
    }
    node.children.is_empty() && node.leaves.is_empty()
}

/// Clears `node` and frees every table below it.
pub(super) fn destroy(node: &mut Node, hw: &dyn Hw, pool: &TablePool) {
    for index in 0..ENTRIES {
        if node.leaves.contains(index) || node.linked.contains(index) {
            hw.table_write(node.table, index, 0);
        }
    }
    for child in std::mem::take(&mut node.children).values_mut() {
        destroy(child, hw, pool);
        pool.free(child.table);
    }
}
