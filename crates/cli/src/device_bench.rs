//! `bench --device`: what the device costs a program, beside floors of the same run and the targets that it has.
//!
//! A floor is measured in turn with what stands on it, so that whatever else the machine is busy with falls on both alike.
//! A row without a floor is a count, or a share of a CPU.

use crate::progress;
use anyhow::Result;
use comfy_table::{CellAlignment, Table, presets};
use machine::live::{Live, LiveConfig};
use machine::measure::device::Device;
use machine::measure::floor::BareMove;
use machine::measure::{PageSize, Region, Stand};
use machine::profile::Profile;
use std::process::ExitCode;
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

const MIB: u64 = 1 << 20;
/// Bytes of a copy.
const COPIED: u64 = 64 * MIB;
/// Rounds of what takes milliseconds, and of what takes microseconds.
const ROUNDS: usize = 15;
const MANY: usize = 2000;
/// Moves of a floor's round: long enough for a second thread to start meanwhile.
const MOVES: usize = 256;
/// Queues of the crowd.
const QUEUES: usize = 4096;
/// How long the idle ring is watched.
const WATCH: Duration = Duration::from_secs(2);

/// What a row should be.
#[derive(Clone, Copy)]
enum Target {
    AtMost(f64),
    AtLeast(f64),
}

/// A measured thing: the number that the target is about comes first.
struct Row {
    what: &'static str,
    value: f64,
    unit: &'static str,
    target: Target,
    /// What it stands beside.
    beside: String,
}

impl Target {
    /// How many times the target is missed by: above 1.
    fn missed_by(self, value: f64) -> Option<f64> {
        let by = match self {
            Self::AtMost(most) => value / most,
            Self::AtLeast(least) => least / value,
        };
        (by > 1.0).then_some(by)
    }

    fn text(self, unit: &str) -> String {
        match self {
            Self::AtMost(most) => format!("<= {most} {unit}"),
            Self::AtLeast(least) => format!(">= {least} {unit}"),
        }
    }
}

/// Measures and prints the table.
pub fn run(json: bool) -> Result<ExitCode> {
    let roomy = Profile { vram: "4G".parse().map_err(anyhow::Error::msg)?, ..Profile::default() };
    let live = Live::start(&LiveConfig { devices: vec![roomy], ..LiveConfig::default() })?;
    let rows = measure(&live);
    anyhow::ensure!(live.shutdown(), "memory did not migrate back from VRAM");
    let rows = rows?;
    say!(
        "The device as a program has it; medians. Floors are of this run, measured in turn with what stands on them.\n"
    );
    say!("{}", table(&rows));
    if json {
        let rows: Vec<_> = rows.iter().map(Row::json).collect();
        say!("{}", serde_json::json!({ "device": rows }));
    }
    Ok(ExitCode::SUCCESS)
}

fn measure(live: &Arc<Live>) -> Result<Vec<Row>> {
    let mut device = Device::new(live.clone(), COPIED)?;
    // Before anything gives memory back: what queues take is seen by the growth of all.
    let queues = queues(&device)?;
    let mut rows = Vec::new();
    type Part<'a> = &'a dyn Fn(&mut Device) -> Result<Vec<Row>>;
    let parts: [Part<'_>; 5] = [
        &copies,
        &|_| Ok(vec![exec(live)?]),
        &|device| binds(device),
        &|device| Ok(vec![faults(device)?]),
        &|device| Ok(vec![ring(device)?]),
    ];
    for (done, part) in parts.iter().enumerate() {
        progress::parts(done + 1, parts.len() + 1);
        rows.extend(part(&mut device)?);
    }
    progress::end();
    let last = rows.len() - 1;
    rows.splice(last..last, queues);
    Ok(rows)
}

/// MEM_COPY, as a share of what a memcpy of as much reaches.
fn copies(device: &mut Device) -> Result<Vec<Row>> {
    let (from, mut to) = (vec![1u8; COPIED as usize], vec![0u8; COPIED as usize]);
    let mut samples = [const { Vec::new() }; 3];
    for _ in 0..=ROUNDS {
        // A copy that nobody looks at need not be made.
        samples[0].push(time(|| std::hint::black_box(&mut to).copy_from_slice(std::hint::black_box(&from))));
        samples[1].push(device.copy(false)?);
        samples[2].push(device.copy(true)?);
    }
    // The first of each binds buffers and touches memory.
    let [memcpy, vram, system] = samples.map(|samples| median(&samples[1..]));
    let speed = |ns: f64| COPIED as f64 / ns;
    let row = |what, ns| Row {
        what,
        value: memcpy / ns,
        unit: "of memcpy",
        target: Target::AtLeast(0.9),
        beside: format!("{:.1} GB/s; memcpy {:.1} GB/s", speed(ns), speed(memcpy)),
    };
    Ok(vec![row("MEM_COPY 64M, VRAM to VRAM", vram), row("MEM_COPY 64M, system to VRAM", system)])
}

fn exec(live: &Arc<Live>) -> Result<Row> {
    let mut stand = Stand::new(live.clone())?;
    let block = Region::new(64 << 10, PageSize::Small)?;
    let samples = std::thread::scope(|scope| {
        let ((there, asked), (answer, back)) = (mpsc::channel(), mpsc::channel());
        scope.spawn(move || asked.iter().try_for_each(|()| answer.send(())));
        let mut samples = [const { Vec::new() }; 3];
        for round in 0..MANY as u32 {
            samples[0].push(stand.store(0, &block, round)?);
            samples[1].push(call_pair());
            samples[2].push(time(|| _ = there.send(()).ok().and_then(|()| back.recv().ok())));
        }
        Ok::<_, anyhow::Error>(samples)
    })?;
    let [exec, pair, hand_off] = samples.map(|samples| median(&samples) / 1000.0);
    let beside = format!("two system calls {pair:.2} us; to a thread and back {hand_off:.1} us");
    Ok(Row { what: "EXEC to fence, no fault", value: exec, unit: "us", target: Target::AtMost(8.0), beside })
}

fn binds(device: &Device) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    let sizes = [
        (64 << 10, MANY / 4, 5.0, ["VM_BIND of a 64K buffer", "UNMAP of it"]),
        (1024 * MIB, ROUNDS * 4, 50.0, ["VM_BIND of a 1G buffer, 2M leaves", "UNMAP of it"]),
    ];
    for (bytes, rounds, most, names) in sizes {
        let mut samples = [const { Vec::new() }; 3];
        for _ in 0..rounds {
            let [bind, unmap] = device.bind(bytes)?;
            samples[0].push(bind);
            samples[1].push(unmap);
            samples[2].push(call_pair());
        }
        let [bind, unmap, pair] = samples.map(|samples| median(&samples) / 1000.0);
        let row = |what, value| {
            let beside = format!("two system calls {pair:.2} us");
            Row { what, value, unit: "us", target: Target::AtMost(most), beside }
        };
        rows.extend([row(names[0], bind), row(names[1], unmap)]);
    }
    Ok(rows)
}

/// Throughput of four queues on two tiles over that of one queue. Beside it: what the kernel gives two threads that do
/// nothing but the moves, over what it gives one.
fn faults(device: &mut Device) -> Result<Row> {
    let mut samples = [const { Vec::new() }; 4];
    let (mut first, mut second) = (Moves::new()?, Moves::new()?);
    for _ in 0..=ROUNDS {
        samples[0].push(device.fault(1)?);
        samples[1].push(device.fault(4)?);
        samples[2].push(first.run()?);
        let start = Instant::now();
        std::thread::scope(|scope| {
            let other = scope.spawn(|| second.run());
            first.run().and(other.join().map_err(|_| anyhow::anyhow!("a thread of the floor ended"))?)
        })?;
        samples[3].push(start.elapsed().as_nanos() as u64);
    }
    let [one, four, moves, both] = samples.map(|samples| median(&samples[1..]));
    let rate = |ns: f64| device.faults() as f64 / ns * 1e6;
    Ok(Row {
        what: "served faults, 4 queues of 2 tiles",
        value: one / four,
        unit: "of one queue",
        target: Target::AtLeast(1.6),
        beside: format!(
            "{:.0} thousand a second; one queue {:.0}; bare moves of two threads {:.2} of one",
            rate(four),
            rate(one),
            2.0 * moves / both
        ),
    })
}

/// Moves of 64K and back, by one thread.
struct Moves(BareMove);

impl Moves {
    fn new() -> Result<Self> {
        Ok(Self(BareMove::new(64 << 10, PageSize::Small)?))
    }

    /// As many as a round has faults; how long they took.
    fn run(&mut self) -> Result<u64> {
        let start = Instant::now();
        for _ in 0..MOVES {
            self.0.sample()?;
        }
        Ok(start.elapsed().as_nanos() as u64)
    }
}

fn queues(device: &Device) -> Result<Vec<Row>> {
    let (bytes, threads) = (resident_bytes(), threads());
    let queues = device.queues(QUEUES)?;
    let (more, more_threads) = (resident_bytes().saturating_sub(bytes), self::threads().saturating_sub(threads));
    device.end(queues)?;
    let row = |what, value, unit, most, beside| Row { what, value, unit, target: Target::AtMost(most), beside };
    Ok(vec![
        row("4096 queues", more as f64 / MIB as f64, "MiB", 64.0, format!("{} bytes each", more / QUEUES as u64)),
        row("  their threads", more_threads as f64, "threads", 0.0, format!("{threads} before")),
    ])
}

fn ring(device: &mut Device) -> Result<Row> {
    let share = device.ring(|| {
        // It has looked at once, and often, by now.
        pause(WATCH / 4);
        let (start, before) = (Instant::now(), cpu_ns());
        pause(WATCH);
        (cpu_ns() - before) as f64 / start.elapsed().as_nanos() as f64 * 100.0
    })?;
    let beside = "all threads of the process".into();
    Ok(Row {
        what: "an idle direct-submission ring",
        value: share,
        unit: "% of a CPU",
        target: Target::AtMost(1.0),
        beside,
    })
}

fn pause(long: Duration) {
    let (_silent, heard) = mpsc::channel::<()>();
    let _ = heard.recv_timeout(long);
}

fn time(work: impl FnOnce()) -> u64 {
    let start = Instant::now();
    work();
    start.elapsed().as_nanos() as u64
}

/// Two system calls that do nothing.
fn call_pair() -> u64 {
    time(|| {
        std::hint::black_box((rustix::process::getppid(), rustix::process::getppid()));
    })
}

fn median(samples: &[u64]) -> f64 {
    let mut sorted = samples.to_vec();
    sorted.sort_unstable();
    sorted.get(sorted.len() / 2).copied().unwrap_or_default() as f64
}

/// CPU time of this process so far: all of its threads.
fn cpu_ns() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}

fn threads() -> u64 {
    std::fs::read_dir("/proc/self/task").map_or(0, |all| all.count() as u64)
}

/// Memory that this process has, in bytes.
pub(crate) fn resident_bytes() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    statm.split(' ').nth(1).and_then(|pages| pages.parse::<u64>().ok()).unwrap_or(0) * 4096
}

impl Row {
    fn json(&self) -> serde_json::Value {
        let Self { what, value, unit, target, beside } = self;
        let (target, missed_by) = (target.text(unit), target.missed_by(*value));
        serde_json::json!({
            "what": what.trim_start(), "value": value, "unit": unit, "beside": beside, "target": target,
            "missed_by": missed_by,
        })
    }
}

fn table(rows: &[Row]) -> Table {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING);
    table.set_header(["what", "measured", "target", "missed by", "beside"]);
    for Row { what, value, unit, target, beside } in rows {
        let missed = target.missed_by(*value).map_or_else(String::new, |by| format!("{by:.2}x"));
        let measured = format!("{value:.2} {unit}");
        table.add_row([(*what).to_owned(), measured, target.text(unit), missed, beside.clone()]);
    }
    for column in [1, 2, 3] {
        if let Some(column) = table.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_says_by_how_much_it_is_missed() {
        assert_eq!(Target::AtMost(8.0).missed_by(8.0), None);
        assert_eq!(Target::AtMost(8.0).missed_by(12.0), Some(1.5));
        assert_eq!(Target::AtLeast(1.6).missed_by(1.6), None);
        assert_eq!(Target::AtLeast(1.6).missed_by(0.8), Some(2.0));
    }
}
