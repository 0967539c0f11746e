//! `bench --engine`: what engine, driver, page tables and TLB cost by themselves, on a host mm that does nothing.
//!
//! Blocks go round between system memory, tile 0 and tile 1; no byte is copied, no system call is made. The same few
//! blocks are measured among a thousand live ranges and among many: what depends on the number of ranges shows.

use crate::device_bench::resident_bytes;
use crate::progress;
use anyhow::Result;
use comfy_table::{CellAlignment, Table, presets};
use machine::bare::{Bare, PhaseTimes};
use std::process::ExitCode;

/// Blocks that go round; the other ranges stand still.
const HOT: usize = 500;
/// Ranges of the small crowd.
const FEW: usize = 1_000;

/// A size of block, and how many of them a crowd of ranges at most has: as much as a tile's VRAM. A crowd's memory is
/// measured by its growth: before the small crowd of its size, and the smaller of the large ones first, so that little was given back.
const SIZES: [(&str, u64, usize); 2] = [("2M", 2 << 20, 32_000), ("64K", 64 << 10, 1_000_000)];

/// Measures and prints the tables.
pub fn run(rounds: usize, json: bool) -> Result<ExitCode> {
    let mut rows = Vec::new();
    let mut metadata = Vec::new();
    for (size, bytes, many) in SIZES {
        for ranges in [many, FEW] {
            let bare =
                Bare::new(bytes, ranges).map_err(|errno| anyhow::anyhow!("the machine does not start: {errno}"))?;
            let empty = resident_bytes();
            (0..ranges).for_each(|block| _ = bare.fault(0, block));
            anyhow::ensure!((0..ranges).all(|block| bare.is_away(block)), "a block did not migrate");
            if ranges == many {
                let each = resident_bytes().saturating_sub(empty) / ranges as u64;
                metadata.push((size, each, each * (2 << 20) / bytes));
            }
            rows.extend(go_round(&bare, size, ranges, rounds));
        }
    }
    progress::end();
    say!("Engine, driver, page tables and TLB on a host mm that does nothing; medians, microseconds.\n");
    say!("{}\n", table(&rows));
    for (size, bytes, whole) in &metadata {
        say!("metadata: {bytes} bytes a mapped range of {size} in VRAM, {whole} for 2M of them");
    }
    if json {
        let rows: Vec<_> = rows.iter().map(Row::json).collect();
        let metadata: Vec<_> = metadata
            .iter()
            .map(|(size, bytes, whole)| serde_json::json!({ "size": size, "bytes": bytes, "bytes_for_2m": whole }))
            .collect();
        say!("{}", serde_json::json!({ "engine": rows, "metadata": metadata }));
    }
    Ok(ExitCode::SUCCESS)
}

struct Row {
    what: &'static str,
    size: &'static str,
    ranges: usize,
    median_ns: u64,
    /// Medians of what the steps of a fault took.
    phases: Option<PhaseTimes>,
}

/// Lets the hot blocks, which lie evenly among all, go round.
fn go_round(bare: &Bare, size: &'static str, ranges: usize, rounds: usize) -> Vec<Row> {
    let hot: Vec<usize> = (0..HOT).map(|n| n * (ranges / HOT)).collect();
    let mut samples = [const { Vec::new() }; 3];
    let mut phases = [const { Vec::new() }; 2];
    for round in 0..rounds {
        progress::rounds(round, rounds);
        samples[0].extend(hot.iter().map(|block| bare.touch(*block)));
        for (tile, phases) in phases.iter_mut().enumerate() {
            for block in &hot {
                let before = bare.phases();
                samples[1 + tile].push(bare.fault(tile as u8, *block));
                phases.push(bare.phases().since(before));
            }
        }
    }
    let row = |what, samples: &mut Vec<u64>, phases: Option<&Vec<PhaseTimes>>| {
        let phases = phases.map(|phases| PhaseTimes::median(phases));
        Row { what, size, ranges, median_ns: median(samples), phases }
    };
    let [back, first, second] = &mut samples;
    vec![
        row("GPU fault, SYSTEM->VRAM0", first, Some(&phases[0])),
        row("GPU fault, VRAM0->VRAM1", second, Some(&phases[1])),
        row("CPU fault, VRAM1->SYSTEM", back, None),
    ]
}

fn median(samples: &mut [u64]) -> u64 {
    samples.sort_unstable();
    samples.get(samples.len() / 2).copied().unwrap_or_default()
}

impl Row {
    fn json(&self) -> serde_json::Value {
        let phases = self.phases.map(|p| {
            serde_json::json!({ "migration": p.migration, "copy": p.copy, "pages": p.pages, "bind": p.bind, "flush": p.flush })
        });
        serde_json::json!({
            "what": self.what, "size": self.size, "ranges": self.ranges, "median_ns": self.median_ns, "phases_ns": phases,
        })
    }
}

fn table(rows: &[Row]) -> Table {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING);
    table.set_header(["what", "size", "ranges", "median us", "migration", "(copy)", "(flush)", "pages", "bind"]);
    let us = |ns: u64| format!("{:.2}", ns as f64 / 1000.0);
    for row in rows {
        let mut cells = vec![row.what.to_owned(), row.size.to_owned(), row.ranges.to_string(), us(row.median_ns)];
        if let Some(p) = row.phases {
            cells.extend([p.migration, p.copy, p.flush, p.pages, p.bind].map(us));
        }
        table.add_row(cells);
    }
    for column in table.column_iter_mut().skip(2) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}
