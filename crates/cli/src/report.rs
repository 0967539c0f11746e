//! `pontoon report`: a report or a record of a run, on this machine or another, as tables, as a page, or as a trace.

use crate::{page, stats, trace};
use anyhow::{Context, Result, ensure};
use clap::Args;
use machine::report::Report;
use machine::stats::Stats;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Options of `report`.
#[derive(Args)]
pub struct Options {
    /// What `pontoon run --record` (or --report) wrote
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Write one self-contained HTML page: what moved, when, why, and what it cost
    #[arg(long, value_name = "OUT")]
    html: Option<PathBuf>,
    /// Write a Perfetto trace (opens in ui.perfetto.dev)
    #[arg(long, value_name = "OUT")]
    trace: Option<PathBuf>,
}

/// Prints the tables, or writes what is asked for.
pub fn run(options: &Options) -> Result<ExitCode> {
    let processes = read(&options.file)?;
    if processes.is_empty() {
        eprintln!("pontoon: {} is empty: no process of the run opened the device", options.file.display());
    }
    note_lost(&processes);
    if let Some(out) = &options.html {
        write(out, page::html(&processes)?.as_bytes())?;
    }
    if let Some(out) = &options.trace {
        let is_recorded = processes.is_empty() || processes.iter().any(|report| !report.timeline.is_empty());
        ensure!(is_recorded, "{} has no events in order: make it with pontoon run --record", options.file.display());
        write(out, &trace::encode(&processes))?;
    }
    if options.html.is_none() && options.trace.is_none() && !processes.is_empty() {
        say!("{}", stats::text(&sum(&processes)).trim_end());
    }
    Ok(ExitCode::SUCCESS)
}

/// The lines of a report, a process each.
pub fn read(report: &Path) -> Result<Vec<Report>> {
    let text = std::fs::read_to_string(report).with_context(|| format!("cannot read {}", report.display()))?;
    let line = |(index, line): (usize, &str)| {
        serde_json::from_str(line)
            .with_context(|| format!("{}:{}: no report of a process", report.display(), index + 1))
    };
    text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()).map(line).collect()
}

/// Says of which processes the record ends before they did.
pub fn note_lost(processes: &[Report]) {
    for Report { process, timeline_lost, .. } in processes.iter().filter(|report| report.timeline_lost > 0) {
        eprintln!("pontoon: the record of process {process} is full: {timeline_lost} later events are not in it");
    }
}

/// The counters of all processes.
pub fn sum(processes: &[Report]) -> Stats {
    let mut all = Stats::default();
    processes.iter().for_each(|report| all.add(&report.stats));
    all
}

/// Writes a file that was asked for.
pub fn write(out: &Path, bytes: &[u8]) -> Result<()> {
    std::fs::write(out, bytes).with_context(|| format!("cannot write {}", out.display()))
}
