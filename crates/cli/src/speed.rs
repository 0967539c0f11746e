//! `pontoon bench --check`: schedules a second, on one CPU, beside a scheduler that does nothing else.
//!
//! With the cargo feature `shuttle` the same threads and lock run under that checker too, in the same run.
//!
//! Seconds are those that the thread had a CPU: a machine that is busy with other things shows the same.

use crate::progress;
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
/// The row that others are compared with.
const BARE: &str = "three threads and one lock";
/// Times that each thread of the floor takes the lock: about as many steps as a run of the scene has.
const TURNS: u32 = 200;

struct Row {
    name: String,
    /// Decisions of a run with more than one candidate, where that is known.
    choices: Option<u64>,
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
    let floor = measure(BARE.into(), None, |seed| Ok((1, speed::bare(seed, TURNS).steps)))?;
    let mut rows = vec![floor];
    #[cfg(feature = "shuttle")]
    rows.push(measure(format!("{BARE}, shuttle"), None, |seed| Ok((shuttled::RUNS, shuttled::bare(seed, TURNS))))?);
    for manner in [Manner::Linux, Manner::Userfaultfd] {
        let setting = Setting::new(speed::scene()?, manner, String::new(), Explore::Pct);
        let name = format!("2 GPU faults, 1 CPU fault, manner {}", manner_name(manner));
        rows.push(measure(name, Some(setting.choices()), |seed| {
            let ran = setting.run_seed(seed);
            match ran.finding {
                Some(finding) => bail!("seed {seed}: {finding}"),
                None => Ok((1, ran.report.steps)),
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
                    "steps_a_run": row.steps / row.runs, "choices_a_run": row.choices, "step_of_floor": row.ns_a_step() / floor_ns,
                })
            })
            .collect();
        say!("{}", serde_json::Value::from(rows));
    }
    Ok(ExitCode::SUCCESS)
}

fn measure(name: String, choices: Option<u64>, run: impl Fn(u64) -> Result<(u64, u64)>) -> Result<Row> {
    let (start, mut runs, mut steps) = (cpu_seconds(), 0, 0);
    while cpu_seconds() - start < SECONDS {
        let (made, of_them) = run(runs)?;
        runs += made;
        steps += of_them;
        progress::runs(runs, None);
    }
    progress::end();
    Ok(Row { name, choices, runs, steps, seconds: cpu_seconds() - start })
}

/// Seconds that this thread had a CPU.
fn cpu_seconds() -> f64 {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

fn table(rows: &[Row], floor_ns: f64) -> Table {
    let mut table = Table::new();
    table.load_preset(presets::UTF8_FULL_CONDENSED);
    table.set_header(["", "runs a second", "steps a run", "choices", "ns a step", "x floor"]);
    for row in rows {
        table.add_row([
            row.name.clone(),
            format!("{:.0}", row.runs as f64 / row.seconds),
            (row.steps / row.runs).to_string(),
            row.choices.map_or_else(String::new, |choices| choices.to_string()),
            format!("{:.0}", row.ns_a_step()),
            format!("{:.1}", row.ns_a_step() / floor_ns),
        ]);
    }
    for column in 1..6 {
        if let Some(column) = table.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table
}

/// The floor under another checker.
#[cfg(feature = "shuttle")]
mod shuttled {
    use shuttle::scheduler::{PctScheduler, Schedule, Scheduler, Task, TaskId};
    use std::cell::Cell;
    use std::rc::Rc;
    use std::sync::Arc;

    /// Counts the decisions.
    struct Counted(PctScheduler, Rc<Cell<u64>>);

    impl Scheduler for Counted {
        fn new_execution(&mut self) -> Option<Schedule> {
            self.0.new_execution()
        }

        fn next_task(&mut self, runnable: &[&Task], current: Option<TaskId>, yields: bool) -> Option<TaskId> {
            self.1.set(self.1.get() + 1);
            self.0.next_task(runnable, current, yields)
        }

        fn next_u64(&mut self) -> u64 {
            self.0.next_u64()
        }
    }

    /// Runs at once: they share their stacks.
    pub(super) const RUNS: u64 = 50;

    /// So many runs; their decisions.
    pub(super) fn bare(seed: u64, times: u32) -> u64 {
        let steps = Rc::new(Cell::new(0));
        let scheduler = Counted(PctScheduler::new_from_seed(seed, 3, RUNS as usize), steps.clone());
        shuttle::Runner::new(scheduler, shuttle::Config::default()).run(move || {
            let count = Arc::new(shuttle::sync::Mutex::new(0u32));
            let spawn = |_| {
                let count = count.clone();
                let turns = move || {
                    (0..times).for_each(|_| *count.lock().unwrap_or_else(|poisoned| poisoned.into_inner()) += 1)
                };
                shuttle::thread::spawn(turns)
            };
            for thread in (0..3).map(spawn).collect::<Vec<_>>() {
                let _ = thread.join();
            }
        });
        steps.get()
    }
}
