//! What the machines of a run counted, as tables: `pontoon run --stats` and `pontoon report`.

use comfy_table::{CellAlignment, Table, presets};
use machine::stats::{Sizes, Stats, Tile, Times};
use std::collections::BTreeMap;
use std::fmt::Write;

/// The tables as text.
pub fn text(stats: &Stats) -> String {
    let mut text = String::new();
    let rest = [
        ("CPU faults", format!("{}, {}", stats.cpu_faults.total(), took(&stats.cpu_faults))),
        ("CPU faults deferred", stats.cpu_faults_deferred.to_string()),
        ("invalidations", list(&stats.invalidations)),
        ("retries", list(&stats.retries)),
        ("evictions", stats.evictions.to_string()),
        ("failed migrations", list(&stats.failed)),
    ];
    let _ = writeln!(text, "GPU faults by tile\n{}\n\nMigrations by direction\n{}\n", tiles(stats), directions(stats));
    for (name, value) in rest {
        let _ = writeln!(text, "{name}: {value}");
    }
    text
}

fn table(head: Vec<String>) -> Table {
    let mut table = Table::new();
    table.load_preset(presets::ASCII_MARKDOWN).set_header(head);
    table
}

fn finish(mut table: Table) -> Table {
    table.column_iter_mut().skip(1).for_each(|column| column.set_cell_alignment(CellAlignment::Right));
    table
}

/// A row a counter: by the kernel's name where it has one.
fn tiles(stats: &Stats) -> Table {
    let mut table =
        table(["".into()].into_iter().chain(stats.tiles.keys().map(|tile| format!("tile{tile}"))).collect());
    let mut row = |name: &str, value: &dyn Fn(&Tile) -> String| {
        table.add_row([name.to_owned()].into_iter().chain(stats.tiles.values().map(value)));
    };
    row("svm_pagefault_count", &|tile| tile.faults.values().sum::<u64>().to_string());
    for access in ["read", "write", "atomic"] {
        row(&format!("  {access}"), &|tile| tile.faults.get(access).copied().unwrap_or(0).to_string());
    }
    row("  mapped by then (valid)", &|tile| tile.valid.to_string());
    row("  refused", &|tile| list(&tile.refused));
    row("bound: 4K, 64K, 2M", &|tile| sizes(tile.binds));
    row("tlb_inval_count", &|tile| tile.flushes.to_string());
    row("service p50", &|tile| duration(tile.service.percentile(50)));
    row("service p99", &|tile| duration(tile.service.percentile(99)));
    finish(table)
}

fn directions(stats: &Stats) -> Table {
    let head = ["", "times", "4K, 64K, 2M", "bytes", "p50", "p99"];
    let mut table = table(head.map(String::from).to_vec());
    for (way, direction) in &stats.directions {
        table.add_row([
            String::from(*way),
            direction.sizes.total().to_string(),
            sizes(direction.sizes),
            direction.bytes.to_string(),
            duration(direction.times.percentile(50)),
            duration(direction.times.percentile(99)),
        ]);
    }
    finish(table)
}

fn sizes(sizes: Sizes) -> String {
    format!("{}, {}, {}", sizes.small, sizes.medium, sizes.large)
}

fn took(times: &Times) -> String {
    format!("p50 {}, p99 {}", duration(times.percentile(50)), duration(times.percentile(99)))
}

/// Microseconds, as the kernel counts them.
fn duration(ns: u64) -> String {
    format!("{}.{} us", ns / 1000, ns % 1000 / 100)
}

/// The sum, and what it is made of.
fn list(counts: &BTreeMap<String, u64>) -> String {
    let mut text = counts.values().sum::<u64>().to_string();
    for (index, (name, count)) in counts.iter().enumerate() {
        let _ = write!(text, "{}{name} {count}", if index == 0 { ": " } else { ", " });
    }
    text
}
