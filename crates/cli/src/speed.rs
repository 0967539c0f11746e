//! `pontoon bench --check`: schedules a second, on one CPU, beside a scheduler that does nothing else.
//!
//! Seconds are those that the thread had a CPU: a machine that is busy with other things shows the same.

use anyhow::{Result, bail};
use check::Manner;
use check::explore::Setting;
use check::plan::Explore;
use check::replay::manner_name;
use check::speed;
use comfy_table::{CellAlignment, Table, presets};
use rustix::time::{ClockId, clock_gettime};
use std::process::ExitCode;

/// How many seconds a row is measured.
const SECONDS: f64 = 1.0;
/// Times that each thread of the floor takes the lock: about as many steps as a run of the scene has.
const TURNS: u32 = 200;

struct Row {
    name: String,
    runs: u64,
    steps: u64,
    seconds: f64,
}

impl Row {
    fn ns_a_step(&self) -> f64 {
        self.seconds * 1e9 / self.steps as f64
    }
}

/// Measures and prints the table.
pub fn run(json: bool) -> Result<ExitCode> {
    let floor = measure("three threads and one lock".into(), |seed| Ok(speed::bare(seed, TURNS).steps))?;
    let mut rows = vec![floor];
    for manner in [Manner::Linux, Manner::Userfaultfd] {
        let setting = Setting::new(speed::scene()?, manner, String::new(), Explore::Pct);
        rows.push(measure(format!("2 GPU faults, 1 CPU fault, manner {}", manner_name(manner)), |seed| {
            let ran = setting.run_seed(seed);
            match ran.finding {
                Some(finding) => bail!("seed {seed}: {finding}"),
                None => Ok(ran.report.steps),
            }
        })?);
    }
    let floor_ns = rows[0].ns_a_step();
    say!("The checker on one CPU, all oracles on; each run builds and closes a device.\n");
    say!("{}", table(&rows, floor_ns));
    if json {
        let rows: Vec<_> = rows
            .iter()
            .map(|row| {
                serde_json::json!({
                    "row": row.name, "runs_a_second": row.runs as f64 / row.seconds,
                    "steps_a_run": row.steps / row.runs, "step_of_floor": row.ns_a_step() / floor_ns,
                })
            })
            .collect();
        say!("{}", serde_json::Value::from(rows));
    }
    Ok(ExitCode::SUCCESS)
}

fn measure(name: String, run: impl Fn(u64) -> Result<u64>) -> Result<Row> {
    let (start, mut runs, mut steps) = (cpu_seconds(), 0, 0);
    while cpu_seconds() - start < SECONDS {
        steps += run(runs)?;
        runs += 1;
    }
    Ok(Row { name, runs, steps, seconds: cpu_seconds() - start })
}

/// Seconds that this thread had a CPU.
fn cpu_seconds() -> f64 {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

fn table(rows: &[Row], floor_ns: f64) -> Table {
    let mut table = Table::new();
    table.load_preset(presets::UTF8_FULL_CONDENSED);
    table.set_header(["", "runs a second", "steps a run", "ns a step", "x floor"]);
    for row in rows {
        table.add_row([
            row.name.clone(),
            format!("{:.0}", row.runs as f64 / row.seconds),
            (row.steps / row.runs).to_string(),
            format!("{:.0}", row.ns_a_step()),
            format!("{:.1}", row.ns_a_step() / floor_ns),
        ]);
    }
    for column in 1..5 {
        if let Some(column) = table.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table
}
