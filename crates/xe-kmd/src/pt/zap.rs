//! Clearing leaves, and taking out empty tables.
//!
//! Locking: the page-table lock; [`zap`] runs in reader class and frees nothing.
//!
//! Upstream: `xe_pt_zap_ptes`, `xe_pt_zap_ptes_range`, `xe_pt_abort_unbind`.

use units::{Dpa, GpuRange, GpuVa};
use xe_spec::pte::ENTRIES;

use std::ops::Range;

use super::{AT_ONCE, Below, Form, Node, TablePool};
use crate::port::Hw;

/// Indices of the entries of `node`, which starts at `base`, that cover an address of `span`.
fn entries_of(node: &Node, base: GpuVa, span: GpuRange) -> std::ops::Range<usize> {
    let (size, entries) = (node.form.entry_bytes(), node.form.entries() as u64);
    let first = span.start.0.saturating_sub(base.0) / size;
    let last = span.end.0.saturating_sub(base.0).div_ceil(size);
    first.min(entries) as usize..last.min(entries) as usize
}

fn child_base(base: GpuVa, form: Form, index: usize) -> GpuVa {
    base.add(index as u64 * form.entry_bytes())
}

/// Clears the leaves at and below `node`, whose first address is `base`, that cover an address of `span`.
pub(super) fn zap(node: &mut Node, hw: &dyn Hw, base: GpuVa, span: GpuRange) -> u32 {
    let entries = entries_of(node, base, span);
    let mut cleared = clear_leaves(node, hw, entries.clone());
    let form = node.form;
    for below in node.all_below() {
        for (index, child) in below.children.among(entries.clone()) {
            cleared += zap(child, hw, child_base(base, form, index), span);
        }
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
    let (entries, form, table) = (entries_of(node, base, span), node.form, node.table);
    let mut is_empty = node.leaves.is_empty();
    for below in node.all_below() {
        let mut empty = Vec::new();
        for (index, child) in below.children.among(entries.clone()) {
            if prune(child, hw, child_base(base, form, index), span, out) {
                empty.push(index);
            }
        }
        for index in empty {
            if below.linked.contains(index) {
                hw.table_write(table, index, 0);
                below.linked.remove(index);
            }
            out.extend(below.children.take(index).map(|child| child.table));
        }
        is_empty &= below.children.is_empty();
    }
    is_empty
}

/// Clears `node` and frees every table below it.
pub(super) fn destroy(node: &mut Node, hw: &dyn Hw, pool: &TablePool) {
    clear_leaves(node, hw, 0..ENTRIES);
    let table = node.table;
    for below in node.all_below() {
        for index in below.linked.among(0..ENTRIES) {
            hw.table_write(table, index, 0);
        }
        for (_, child) in below.children.among(0..ENTRIES) {
            destroy(child, hw, pool);
            pool.free(child.table);
        }
        *below = Below::default();
    }
}
