//! `pontoon judge`: every variant of A, B and C against every trigger, and the orders in which fixes may be merged.

use anyhow::{Result, bail};
use check::Manner;
use check::judge::{self, Cell, MergeOrder, SUBJECTS, Subject};
use clap::Args;
use comfy_table::{Table, presets::UTF8_FULL_CONDENSED};
use std::ops::Range;
use std::process::ExitCode;
use std::time::Instant;

/// Options of `judge`.
#[derive(Args)]
pub struct Options {
    /// A, B, C or all
    #[arg(value_name = "A|B|C|all", default_value = "all")]
    what: String,
    /// Schedules of each cell
    #[arg(long, value_name = "A..B", default_value = "0..40", value_parser = crate::check::seeds)]
    seeds: Range<u64>,
    /// End with one line of JSON
    #[arg(long)]
    json: bool,
}

/// Computes and prints the tables; exit code 1 where the default behaviour fails.
pub fn run(options: &Options) -> Result<ExitCode> {
    let all = options.what.eq_ignore_ascii_case("all");
    let chosen: Vec<&Subject> = SUBJECTS
        .iter()
        .filter(|subject| all || options.what.eq_ignore_ascii_case(&subject.letter.to_string()))
        .collect();
    if chosen.is_empty() {
        bail!("'{}' is no defect: there are A, B, C and all", options.what);
    }
    let start = Instant::now();
    say!(
        "ok N/M: nothing found, N pages went from tile to tile and M to system memory; LOST: data, silently; LOST, strays:"
    );
    say!(
        "data, by writes to bus addresses that nothing maps; refused: what is legal; under-waits: a fence before its bind\n"
    );
    let (mut ours_holds, mut json) = (true, Vec::new());
    for subject in chosen {
        let (rows, scripts) = (subject.variants(), subject.scenes());
        let cells = judge::cells(&rows, &scripts, &options.seeds, Manner::Linux);
        say!("{}: each cell {} schedules, until one fails", subject.letter, options.seeds.end - options.seeds.start);
        for script in &scripts {
            say!("  {:<6} {}", script.name, script.shows);
        }
        say!("{}", table(&rows, &cells));
        summary(&rows, &cells);
        ours_holds &= cells.first().is_some_and(|row| row.iter().all(|cell| cell.failure.is_none()));
        json.extend(cells.iter().flatten().map(cell_json));
    }
    let orders = if all { judge::orders(&(0..8), Manner::Linux) } else { Vec::new() };
    if all {
        tell_orders(&orders);
    }
    say!(
        "computed in {:.1} s; every failing cell: pontoon explain SCENE --behaviour KEY=VARIANT",
        start.elapsed().as_secs_f64()
    );
    if options.json {
        let orders: Vec<_> = orders.iter().map(order_json).collect();
        say!("{}", serde_json::json!({ "cells": json, "orders": orders }));
    }
    Ok(if ours_holds { ExitCode::SUCCESS } else { ExitCode::from(1) })
}

fn table(rows: &[String], cells: &[Vec<Cell>]) -> Table {
    let mut table = Table::new();
    table.load_preset(UTF8_FULL_CONDENSED);
    let scenes = cells.first().into_iter().flatten().map(|cell| cell.scene.clone());
    table.set_header(std::iter::once(String::new()).chain(scenes));
    for (behaviour, row) in rows.iter().zip(cells) {
        table.add_row(
            std::iter::once(behaviour.clone()).chain(row.iter().map(|cell| cell.verdict().replace(", ", "\n"))),
        );
    }
    table
}

fn summary(rows: &[String], cells: &[Vec<Cell>]) {
    let holds = |row: &[Cell]| row.iter().all(|cell| cell.failure.is_none());
    let holding: Vec<&str> =
        rows.iter().zip(cells).filter(|(_, row)| holds(row)).map(|(name, _)| name.as_str()).collect();
    say!("  nothing found in any scene: {}\n", holding.join(", "));
}

fn tell_orders(orders: &[MergeOrder]) {
    say!("Orders in which the fixes (ours, from upstream) may be merged:");
    for order in orders {
        let fixes: Vec<String> = order.fixes.iter().map(ToString::to_string).collect();
        let breaks: Vec<&str> = order.breaks.iter().map(String::as_str).collect();
        let verdict =
            if breaks.is_empty() { "no step breaks a scene".into() } else { format!("breaks {}", breaks.join(", ")) };
        say!("  {}: {verdict}", fixes.join(", "));
    }
}

fn cell_json(cell: &Cell) -> serde_json::Value {
    serde_json::json!({
        "scene": cell.scene,
        "behaviour": cell.behaviours,
        "manner": "linux",
        "runs": cell.runs,
        "verdict": cell.verdict(),
        "pages_between_tiles": cell.reached.pages_between_tiles,
        "pages_to_system": cell.reached.pages_to_system,
        "failure": cell.failure.as_ref().map(|failure| serde_json::json!({
            "seed": failure.seed,
            "kind": failure.finding.kind(),
            "finding": failure.finding.to_string(),
            "schedule": failure.deviations.iter().map(ToString::to_string).collect::<Vec<_>>().join(" "),
        })),
    })
}

fn order_json(order: &MergeOrder) -> serde_json::Value {
    serde_json::json!({ "fixes": order.fixes.iter().collect::<String>(), "breaks": order.breaks })
}
