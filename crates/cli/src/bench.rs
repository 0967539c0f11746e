//! The bench: what a fault costs, beside what nobody can avoid paying for it.
//!
//! A block of memory goes round: a CPU touch migrates it back, tile 0 stores to it, then tile 1. Between these steps
//! its floors are measured, so that whatever else the machine is busy with falls on both alike. What counts are the
//! ratios: times move by a factor of two from run to run on a shared machine.
//!
//! A memcpy of 2M leaves nothing in the caches and in the CPU's TLB, and whatever comes next pays for that: 10 to 20 us,
//! more where the program's text lies scattered in the page cache. So memcpy is measured in rounds of its own, and the
//! fault that comes next has a row of its own. All other things and floors find the caches as a fault leaves them.
//!
//! Fault service is the driver's own figure, from queue to answer, migration and bind included.

use crate::calls::{self, Steps};
use crate::progress;
use anyhow::{Context, Result, bail};
use clap::Args;
use comfy_table::{CellAlignment, Table, presets};
use machine::live::{Live, LiveConfig};
use machine::measure::floor::{self, BareCopy, BareMove, RoundTrip};
use machine::measure::{PageSize, Region, Stand};
use std::process::ExitCode;

/// Rounds whose times are not counted.
const WARM: usize = 10;
/// A round of the engine alone, over many blocks, counts as so many of them.
const ENGINE_WEIGHT: usize = 20;
/// Blocks that are touched once.
const FRESH: usize = 50;
/// One round of so many begins with a memcpy.
const COLD_EVERY: usize = 4;
/// A block that goes round: its size, and how many rounds of 64K it costs as much as.
const BLOCKS: [Block; 2] = [
    Block { name: "64K", bytes: 64 << 10, pages: PageSize::Small, weight: 1 },
    Block { name: "2M THP", bytes: 2 << 20, pages: PageSize::Huge, weight: 3 },
];

/// Options of `bench`.
#[derive(Args)]
pub struct Options {
    /// Rounds for blocks of 64K; blocks of 2M go a third as often
    #[arg(long, value_name = "N", default_value_t = 600, value_parser = clap::value_parser!(u16).range(10..=900))]
    rounds: u16,
    /// Use every CPU; without it all threads share one, which spares the figures the price of hand-offs
    #[arg(long)]
    all_cpus: bool,
    /// Measure engine, driver and hardware model alone, on a host mm that does nothing
    #[arg(long)]
    engine: bool,
    /// Measure the checker: schedules a second
    #[arg(long, conflicts_with = "engine")]
    check: bool,
    /// Measure the device as a program has it: copies, EXEC, binds, faults of several queues, thousands of queues
    #[arg(long, conflicts_with_all = ["engine", "check"])]
    device: bool,
    /// End with one line of JSON
    #[arg(long)]
    json: bool,
}

struct Block {
    name: &'static str,
    bytes: u64,
    pages: PageSize,
    weight: usize,
}

/// Measures and prints the table.
pub fn run(options: &Options) -> Result<ExitCode> {
    if options.check {
        return crate::speed::run(options.json);
    }
    if options.device {
        return crate::device_bench::run(options.json);
    }
    if options.engine {
        return crate::engine::run(usize::from(options.rounds) / ENGINE_WEIGHT, options.json);
    }
    if !options.all_cpus {
        floor::stay_on_this_cpu();
    }
    let config = LiveConfig::default();
    let live = Live::start(&config)?;
    let mut calls = Vec::new();
    let measured = measure(&live, usize::from(options.rounds), &mut calls);
    anyhow::ensure!(live.shutdown(), "memory did not migrate back from VRAM");
    progress::end();
    let rows = measured?;
    say!("Fault service beside its floors, all of this run; x is how many times the floor's median.");
    say!("Threads share {}.\n", if options.all_cpus { "all CPUs" } else { "one CPU" });
    say!("{}\n", table(&rows));
    say!("{}\n", calls::table(&calls));
    say!("memcpy: of that size, over 32M.  move: one UFFDIO_MOVE of that size.  round trip: a touch of a missing");
    say!(
        "4K page until a handler thread has moved it there.  after a memcpy: with caches and TLB that hold nothing of it."
    );
    if options.json {
        let rows: Vec<_> = rows.iter().map(Row::json).collect();
        let calls: Vec<_> = calls.iter().map(Steps::json).collect();
        say!(
            "{}",
            serde_json::json!({ "bench": rows, "calls": calls, "cpus": if options.all_cpus { "all" } else { "one" } })
        );
    }
    Ok(ExitCode::SUCCESS)
}

fn measure(live: &std::sync::Arc<Live>, rounds: usize, calls: &mut Vec<Steps>) -> Result<Vec<Row>> {
    let mut stand = Stand::new(live.clone())?;
    // All of them live to the end: the ledger knows a block by its addresses.
    let memories = BLOCKS.each_ref().map(|block| Region::new(block.bytes, block.pages));
    let mut rows = Vec::new();
    for (block, memory) in BLOCKS.iter().zip(&memories) {
        let memory = memory.as_ref().map_err(|refused| *refused)?;
        let rounds = rounds / block.weight;
        rows.extend(go_round(&mut stand, block, memory, rounds, calls).with_context(|| block.name)?);
    }
    Ok(rows)
}

/// Steps of a round whose calls of the kernel are counted.
const STEPS: [&str; 4] =
    ["CPU fault-back", "GPU fault, SYSTEM->VRAM0", "GPU fault, VRAM0->VRAM1", "GPU fault, first on a block"];

/// Samples of the steps and floors of one block, a round an entry.
#[derive(Default)]
struct Samples {
    copy: Vec<u64>,
    bare_move: Vec<u64>,
    round_trip: Vec<u64>,
    back: Vec<u64>,
    faulting: Vec<u64>,
    mapped: Vec<u64>,
    first: Vec<u64>,
    /// Services and migrations SYSTEM->VRAM0 that came after a memcpy: their numbers.
    cold: [Vec<usize>; 2],
}

/// Lets a block go round and gives its rows.
fn go_round(
    stand: &mut Stand,
    block: &Block,
    memory: &Region,
    rounds: usize,
    calls: &mut Vec<Steps>,
) -> Result<Vec<Row>> {
    let mut steps = STEPS.map(|what| Steps::new(what, block.name));
    let mut copy = BareCopy::new(block.bytes, block.pages)?;
    let mut bare_move = BareMove::new(block.bytes, block.pages)?;
    let mut round_trip = RoundTrip::new()?;
    let mut samples = Samples { first: first_faults(stand, block, &mut steps[3])?, ..Samples::default() };
    let mut last = 0;
    for round in 0..(WARM + rounds) as u32 {
        progress::rounds(round as usize, WARM + rounds);
        let before = stand.calls();
        let (found, ns) = stand.touch(memory)?;
        let touched = stand.calls();
        if found != last {
            bail!("the CPU read {found:#x} where tile 1 had stored {last:#x}");
        }
        last = round + 0x1000;
        if round as usize % COLD_EVERY == COLD_EVERY - 1 {
            let so_far = faults_so_far(stand, memory);
            samples.copy.push(copy.sample()?);
            stand.store(0, memory, round)?;
            let now = faults_so_far(stand, memory);
            (0..2).for_each(|list| samples.cold[list].extend(so_far[list].len()..now[list].len()));
            stand.store(1, memory, last)?;
            continue;
        }
        steps[0].push(&before, &touched);
        samples.back.push(ns);
        let before = stand.calls();
        samples.faulting.push(stand.store(0, memory, round)?);
        steps[1].push(&before, &stand.calls());
        samples.bare_move.push(bare_move.sample()?);
        samples.mapped.push(stand.store(0, memory, round)?);
        samples.round_trip.push(round_trip.sample()?);
        let before = stand.calls();
        stand.store(1, memory, last)?;
        steps[2].push(&before, &stand.calls());
    }
    calls.extend(steps);
    // The first touch found the block in system memory.
    samples.back.remove(0);
    Ok(rows_of(stand, block, memory, &samples))
}

/// Services and migrations SYSTEM->VRAM0 of a block.
fn faults_so_far(stand: &Stand, memory: &Region) -> [Vec<u64>; 2] {
    [stand.services(memory, 0), stand.migrations(memory, "SYSTEM", "VRAM0")]
}

/// Takes those out that have these numbers.
fn split(all: &[u64], numbers: &[usize]) -> (Vec<u64>, Vec<u64>) {
    let (out, rest): (Vec<_>, Vec<_>) = all.iter().enumerate().partition(|(number, _)| numbers.contains(number));
    (rest.into_iter().map(|(_, ns)| *ns).collect(), out.into_iter().map(|(_, ns)| *ns).collect())
}

/// Service of the first fault on blocks that no device has seen: ranges and tables have yet to be made.
fn first_faults(stand: &mut Stand, block: &Block, calls: &mut Steps) -> Result<Vec<u64>> {
    let mut fresh = Vec::new();
    for _ in 0..WARM + FRESH {
        fresh.push(Region::new(block.bytes, block.pages)?);
    }
    for memory in &fresh {
        let before = stand.calls();
        stand.store(0, memory, 1)?;
        calls.push(&before, &stand.calls());
    }
    // An address may have been another block's before.
    Ok(fresh.iter().filter_map(|memory| stand.services(memory, 0).pop()).collect())
}

fn rows_of(stand: &Stand, block: &Block, memory: &Region, samples: &Samples) -> Vec<Row> {
    let size = block.name;
    let floor = |what, size, samples: &[u64]| Row::new(what, size, samples);
    let floors = [
        floor("floor: memcpy", size, &samples.copy),
        floor("floor: move", size, &samples.bare_move),
        floor("floor: round trip", "4K", &samples.round_trip),
    ];
    let medians = floors.each_ref().map(|row| row.times.median);
    let [services, migrations] = faults_so_far(stand, memory);
    let (services, after_copy) = split(&services, &samples.cold[0]);
    let things = [
        ("GPU fault, first on a block", samples.first.clone()),
        ("GPU fault, SYSTEM->VRAM0", services),
        ("  of it, migration", split(&migrations, &samples.cold[1]).0),
        ("  the fault, after a memcpy", after_copy),
        ("GPU fault, VRAM0->VRAM1", stand.services(memory, 1)),
        ("  of it, migration", stand.migrations(memory, "VRAM0", "VRAM1")),
        ("CPU fault-back, touch of 4K", samples.back.clone()),
        ("EXEC to fence, SYSTEM->VRAM0", samples.faulting.clone()),
        ("EXEC to fence, no fault", samples.mapped.clone()),
    ];
    let things = things.map(|(what, samples)| Row::new(what, size, &samples).against(medians));
    floors.into_iter().chain(things).collect()
}

/// Nanoseconds.
#[derive(Clone, Copy, Default)]
struct Times {
    n: usize,
    median: u64,
    min: u64,
    p90: u64,
}

impl Times {
    /// Of the samples behind the warm-up.
    fn of(samples: &[u64]) -> Self {
        let mut sorted = samples.get(WARM..).unwrap_or_default().to_vec();
        sorted.sort_unstable();
        let at = |percent: usize| sorted.get(sorted.len() * percent / 100).copied().unwrap_or_default();
        Self { n: sorted.len(), median: at(50), min: at(0), p90: at(90) }
    }
}

struct Row {
    what: &'static str,
    size: &'static str,
    times: Times,
    /// Medians of memcpy, move and round trip; none for a floor itself.
    floors: Option<[u64; 3]>,
}

impl Row {
    fn new(what: &'static str, size: &'static str, samples: &[u64]) -> Self {
        Self { what, size, times: Times::of(samples), floors: None }
    }

    fn against(self, floors: [u64; 3]) -> Self {
        Self { floors: Some(floors), ..self }
    }

    /// How many times each floor it takes; `None` where there is none.
    fn ratios(&self) -> [Option<f64>; 3] {
        let ratio = |floor: u64| (floor > 0 && self.times.n > 0).then(|| self.times.median as f64 / floor as f64);
        self.floors.map_or([None; 3], |floors| floors.map(ratio))
    }

    fn json(&self) -> serde_json::Value {
        let us = |ns: u64| ns as f64 / 1000.0;
        let [memcpy, bare_move, round_trip] = self.ratios();
        serde_json::json!({
            "what": self.what.trim_start(), "size": self.size, "n": self.times.n,
            "median_us": us(self.times.median), "min_us": us(self.times.min), "p90_us": us(self.times.p90),
            "x_memcpy": memcpy, "x_move": bare_move, "x_round_trip": round_trip,
        })
    }
}

fn table(rows: &[Row]) -> Table {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING);
    table.set_header(["what", "size", "n", "median us", "min", "p90", "x memcpy", "x move", "x round trip"]);
    for row in rows {
        let us = |ns: u64| if row.times.n == 0 { "-".into() } else { format!("{:.1}", ns as f64 / 1000.0) };
        let mut cells = vec![row.what.to_owned(), row.size.to_owned(), row.times.n.to_string()];
        cells.extend([row.times.median, row.times.min, row.times.p90].map(us));
        cells.extend(row.ratios().map(|ratio| ratio.map_or_else(String::new, |x| format!("{x:.2}"))));
        table.add_row(cells);
    }
    for column in table.column_iter_mut().skip(2) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_warm_up_is_not_counted() {
        let samples: Vec<u64> = (0..WARM as u64).map(|_| 1_000_000).chain(1..=100).collect();
        let times = Times::of(&samples);
        assert_eq!((times.n, times.median, times.min, times.p90), (100, 51, 1, 91));
    }

    #[test]
    fn a_thing_that_never_happened_has_no_ratio() {
        let row = Row::new("nothing", "4K", &[]).against([10, 10, 10]);
        assert_eq!((row.times.n, row.ratios()), (0, [None; 3]));
    }
}
