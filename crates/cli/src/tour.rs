//! The tour: a C program's memory goes to both tiles and home; then defects A and C, as upstream has them and as we do.
//!
//! The program is compiled here by the machine's own C compiler and runs as a separate process under the preload
//! library: nothing in it knows of Pontoon. What it prints (data right or wrong, by its own comparison of every
//! byte) and what the library reports (migrations, stray accesses) are two witnesses of one run.

use crate::{Device, check, shim_library};
use ::check::Manner;
use ::check::explore::{self, Search};
use ::check::plan::Explore;
use ::check::scenes;
use anyhow::{Context, Result, bail};
use clap::Args;
use comfy_table::{CellAlignment, Table, presets};
use machine::report::{Move, Report};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Instant;

/// The clients and their headers, so that the command needs no source tree beside it.
const SOURCES: [(&str, &str); 4] = [
    ("tour.c", include_str!("../../../clients/tour.c")),
    ("peek.c", include_str!("../../../clients/peek.c")),
    ("gpu.h", include_str!("../../../clients/gpu.h")),
    ("xe.h", include_str!("../../../clients/xe.h")),
];
/// Defect A's trigger: 64K in VRAM0 that tile 1 touches next.
const CROSS: [&str; 6] = ["-s", "65536", "-t", "01", "-p", "2"];

/// Defect C's trigger is the first bind of any program: one store is enough behind it.
const FIRST_BIND: [&str; 4] = ["-t", "0", "-p", "1"];

/// Options of `tour`.
#[derive(Args, Default)]
pub struct Options {
    #[command(flatten)]
    device: Device,
    /// End with one line of JSON
    #[arg(long)]
    json: bool,
}

/// One run of the client.
struct Act {
    /// The client's own verdict: it exited 0.
    data_ok: bool,
    /// What it printed, a step a line.
    steps: Vec<String>,
    report: Report,
}

impl Act {
    fn summary(&self) -> serde_json::Value {
        serde_json::json!({
            "data_ok": self.data_ok,
            "stray_writes": self.report.stray_writes,
            "fence_array_holes": self.report.fence_array_holes,
            "migrations": self.report.migrations,
            "wrong": self.steps.iter().filter(|step| step.contains(" BAD")).collect::<Vec<_>>(),
        })
    }
}

/// Gives the tour; success only where all of ours was right.
pub fn run(options: &Options) -> Result<ExitCode> {
    let start = Instant::now();
    shim_library::path()?;
    let dir = tempfile::tempdir().context("cannot make a temporary folder")?;
    let dir = dir.path();
    for (name, text) in SOURCES {
        std::fs::write(dir.join(name), text)?;
    }
    let (tour, peek) = (compile(dir, "tour")?, compile(dir, "peek")?);

    say!("Pontoon: a C program under a preload library sees a PVC with two tiles.\n");
    say!("1. Its malloc'ed memory goes system -> VRAM0 -> VRAM1 and home; it compares every byte itself.");
    let whole = act(&tour, &[], &options.device, dir)?;
    tell_steps(&whole);
    tell_moves(&whole.report);

    say!("2. Defect A: Linux 7.2 copies from tile to tile as if the other tile's VRAM were system memory.");
    say!("   The CPU fills 64K, tile 0 stores a word into each page, then tile 1 stores the next word; the CPU looks.");
    say!("   A line a page: its number, tile 0's word, tile 1's word | the last word, which the CPU wrote.");
    let upstream = act(&peek, &CROSS, &behaving("a=upstream", &options.device), dir)?;
    tell_cross("as upstream does it, the far side written as system memory:", &upstream);
    let ours = act(&peek, &CROSS, &options.device, dir)?;
    tell_cross("as Pontoon does it, both ends marked as device memory:", &ours);

    say!("\n3. Defect C: Linux 7.2 counts the fences of a bind by tile and fills those of tile 0 only.");
    say!("   The first bind of the program: its mirror, with a user fence, on the VM's default queue.");
    let c = Counted {
        upstream: act(&peek, &FIRST_BIND, &behaving("c=upstream", &options.device), dir)?,
        ours: act(&peek, &FIRST_BIND, &options.device, dir)?,
    };
    c.tell();

    say!("\n4. The same engine, driver and hardware on a simulated mm, one schedule a seed.");
    let checked = checked_world();
    say!("   the tour took {:.1} s", start.elapsed().as_secs_f64());

    let a_ok = !upstream.data_ok && upstream.report.stray_writes > 0 && ours.data_ok && ours.report.stray_writes == 0;
    let went_all_ways = ["SYSTEM->VRAM0", "VRAM0->VRAM1", "VRAM1->SYSTEM"];
    let moved = went_all_ways.iter().all(|way| whole.report.migrations.get(*way).is_some_and(|n| *n > 0));
    let ok = whole.data_ok && moved && a_ok && c.is_right() && checked.ok;
    say!(
        "{}",
        if ok { "\nEverything that was compared was right." } else { "\nNOT everything that was compared was right." }
    );
    if options.json {
        let line = serde_json::json!({
            "data_ok": whole.data_ok,
            "migrations": whole.report.migrations,
            "a": { "ok": a_ok, "upstream": upstream.summary(), "ours": ours.summary() },
            "c": { "ok": c.is_right(), "upstream": c.upstream.summary(), "ours": c.ours.summary() },
            "checked": checked.json,
            "mechanism": whole.report.memory.mechanism,
        });
        say!("{line}");
    }
    Ok(if ok { ExitCode::SUCCESS } else { ExitCode::from(1) })
}

/// The device, with one behaviour.
fn behaving(behaviour: &str, device: &Device) -> Device {
    Device { behaviour: behaviour.into(), ..device.clone() }
}

/// Defect C, both ways.
struct Counted {
    upstream: Act,
    ours: Act,
}

impl Counted {
    fn is_right(&self) -> bool {
        let holes = |act: &Act| act.report.fence_array_holes;
        !self.upstream.data_ok && holes(&self.upstream) > 0 && self.ours.data_ok && holes(&self.ours) == 0
    }

    fn tell(&self) {
        let holes = self.upstream.report.fence_array_holes;
        say!(
            "   as upstream does it: {holes} array of fences with slots that nobody filled; a kernel takes them for pointers,"
        );
        say!("     here the bind is refused (Bad address)");
        let verdict = if self.ours.data_ok { "bound, the job ran, every word is right" } else { "BAD" };
        say!("   as Pontoon does it, behind the last binds of all tiles: {verdict}");
    }
}

/// Compiles a client with the C compiler at hand.
fn compile(dir: &Path, name: &str) -> Result<PathBuf> {
    let compiler = std::env::var("CC").unwrap_or_else(|_| "cc".into());
    let source = format!("{name}.c");
    let output = Command::new(&compiler).current_dir(dir).args(["-O1", "-o", name, &source]).output();
    let output = output.with_context(|| {
        format!(
            "cannot start the C compiler '{compiler}': install one (Debian: apt-get install gcc libc6-dev) or set CC"
        )
    })?;
    if !output.status.success() {
        bail!("{compiler} refused {source}:\n{}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(dir.join(name))
}

fn act(client: &Path, arguments: &[&str], device: &Device, dir: &Path) -> Result<Act> {
    let report_file = dir.join("report.json");
    let _ = std::fs::remove_file(&report_file);
    let output = shim_library::preloaded(client, device, Some(&report_file))?.command.args(arguments).output()?;
    let errors = String::from_utf8_lossy(&output.stderr);
    if !errors.trim().is_empty() {
        say!("   {}", errors.trim().replace('\n', "\n   "));
    }
    let Ok(report) = std::fs::read(&report_file) else {
        bail!("the device did not start, so there is nothing to show (`pontoon doctor` says what this kernel allows)");
    };
    Ok(Act {
        data_ok: output.status.success(),
        steps: String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect(),
        report: serde_json::from_slice(&report).context("the report is no JSON")?,
    })
}

fn tell_steps(act: &Act) {
    // Steps that compare no bytes are of interest only where they fail.
    for step in act.steps.iter().filter(|step| step.contains(" BAD") || !step.ends_with("bytes=0")) {
        say!("   {step}");
    }
    say!("   how pages travel: {}\n", act.report.memory.mechanism);
}

fn tell_cross(title: &str, act: &Act) {
    say!("   {title}");
    for step in &act.steps {
        say!("     {step}");
    }
    say!("     stray writes of the device: {}", act.report.stray_writes);
    if let Some(first) = act.report.records.first() {
        say!("     the first: {first}");
    }
}

/// What moved where, and how long that took, beside a memcpy of that size.
fn tell_moves(report: &Report) {
    let mut kinds: BTreeMap<(String, String, u64), Vec<&Move>> = BTreeMap::new();
    for migration in &report.moves {
        let key = (migration.from.clone(), migration.to.clone(), migration.bytes);
        kinds.entry(key).or_default().push(migration);
    }
    let mut table = Table::new();
    table.load_preset(presets::UTF8_FULL_CONDENSED);
    table.set_header(["from", "to", "size", "times", "median us", "memcpy us", "x memcpy"]);
    for ((from, to, bytes), migrations) in kinds {
        let mut ns: Vec<u64> = migrations.iter().map(|m| m.ns).collect();
        ns.sort_unstable();
        let median = ns[ns.len() / 2] as f64 / 1000.0;
        let floor = memcpy_us(bytes as usize);
        table.add_row([
            from,
            to,
            size_name(bytes),
            ns.len().to_string(),
            format!("{median:.1}"),
            format!("{floor:.1}"),
            format!("{:.2}", median / floor),
        ]);
    }
    for column in 2..7 {
        if let Some(column) = table.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    say!("{table}\n");
}

fn size_name(bytes: u64) -> String {
    if bytes.is_multiple_of(1 << 20) { format!("{}M", bytes >> 20) } else { format!("{}K", bytes >> 10) }
}

/// Median of some copies of that size, in microseconds. Each copies other bytes of two buffers that no cache holds,
/// as the pages of a migration are in none; both were touched before.
fn memcpy_us(bytes: usize) -> f64 {
    const ROUNDS: usize = 8;
    let whole = (bytes * ROUNDS).max(64 << 20);
    let (source, mut target) = (vec![1u8; whole], vec![2u8; whole]);
    let mut times: Vec<f64> = (0..ROUNDS)
        .map(|round| {
            let at = round * (whole / ROUNDS);
            let start = Instant::now();
            target[at..at + bytes].copy_from_slice(std::hint::black_box(&source[at..at + bytes]));
            let time = start.elapsed();
            std::hint::black_box(&mut target);
            time.as_secs_f64() * 1e6
        })
        .collect();
    times.sort_by(f64::total_cmp);
    times[ROUNDS / 2].max(0.01)
}

struct CheckedWorld {
    ok: bool,
    json: serde_json::Value,
}

/// Short searches of the checked world: what is wrong must be found, ours must not.
fn checked_world() -> CheckedWorld {
    let search = |behaviours: &str, seeds| {
        let manners = vec![Manner::Linux, Manner::Userfaultfd];
        let (scripts, explore) = (scenes::all(), Explore::Pct);
        explore::search(&Search { scripts, explore, seeds, behaviours: behaviours.into(), manners })
    };
    let wrong = ["a=upstream", "c=posted"].map(|behaviours| {
        let found = search(behaviours, 0..50);
        match &found.caught {
            Some(caught) => {
                say!("   {behaviours}: found in scene {} at seed {}", caught.script.name, caught.plan.seed);
                check::tell(caught, "     ");
            }
            None => say!("   {behaviours}: NOT found in {} runs", found.runs),
        }
        found
    });
    let ours = search("", 0..30);
    match &ours.caught {
        Some(caught) => check::tell(caught, "     "),
        None => say!("   ours: {} runs, nothing found", ours.runs),
    }
    let all_found = wrong.iter().all(|found| found.caught.as_ref().is_some_and(|caught| caught.replays));
    let [upstream, posted] = wrong.each_ref().map(check::json);
    CheckedWorld {
        ok: ours.caught.is_none() && all_found,
        json: serde_json::json!({ "upstream": upstream, "posted_c": posted, "ours": check::json(&ours) }),
    }
}
