//! The tour: a C program's memory goes to both tiles and back; then defects A, B and C, as upstream has them and as we do.
//!
//! The program is compiled here by the machine's own C compiler and runs as a separate process under the preload
//! library: nothing in it knows of Pontoon. What it prints (data right or wrong, by its own comparison of every
//! byte) and what the library reports (migrations, stray accesses) are two witnesses of one run.

use crate::picture::Picture;
use crate::{Device, check, colour, shim_library};
use ::check::Manner;
use ::check::explore::{self, Search};
use ::check::plan::Explore;
use ::check::scenes;
use anyhow::{Context, Result, bail};
use clap::Args;
use comfy_table::{CellAlignment, Table, presets};
use machine::report::{Move, Report};
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

/// The clients and their headers, so that the command needs no source tree beside it.
const SOURCES: [(&str, &str); 5] = [
    ("tour.c", include_str!("../../../clients/tour.c")),
    ("peek.c", include_str!("../../../clients/peek.c")),
    ("rest.c", include_str!("../../../clients/rest.c")),
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
    /// What it complained of.
    errors: Vec<String>,
    report: Report,
}

impl Act {
    fn summary(&self) -> serde_json::Value {
        serde_json::json!({
            "data_ok": self.data_ok,
            "stray_writes": self.report.stray_writes,
            "unfit_vram": self.report.unfit_vram,
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
        std::fs::write(dir.join(name), text)
            .with_context(|| format!("cannot write to {} (set TMPDIR to a folder)", dir.display()))?;
    }
    let (tour, peek, rest) = (compile(dir, "tour")?, compile(dir, "peek")?, compile(dir, "rest")?);

    say!("Pontoon: a C program under a preload library sees a PVC with two tiles.\n");
    say!("1. Its malloc'ed memory goes system -> VRAM0 -> VRAM1 and back to system; it compares every byte itself.");
    let mut picture = Picture::on_terminal();
    let whole = watched(&tour, &[], &options.device, dir, |line| {
        picture.iter_mut().for_each(|picture| picture.step(line));
    })?;
    tell_steps(&whole);
    tell_moves(&whole.report);

    say!("2. Defect A: Linux 7.2 copies from tile to tile as if the other tile's VRAM were system memory.");
    say!("   The CPU fills 64K, tile 0 stores a word into each page, then tile 1 stores the next word; the CPU looks.");
    say!("   A line a page: its number, tile 0's word, tile 1's word | the last word, which the CPU wrote.");
    let a = Defect::show(&peek, &CROSS, "a", &options.device, dir)?;
    tell_cross("as upstream does it, the remote side written as system memory:", &a.upstream);
    tell_cross("as Pontoon does it, both ends marked as device memory:", &a.ours);

    say!("\n3. Defect B: Linux 7.2 refuses to map VRAM by less than 64K, and leaves it where it must be mapped so.");
    say!(
        "   64K in VRAM0; the program unmaps the last 4K, then tile 0 stores into each of the 15 pages that are left."
    );
    let b = Defect::show(&rest, &[], "b", &options.device, dir)?;
    tell_rest("as upstream does it, they stay in VRAM", &b.upstream);
    tell_rest("as Pontoon does it, they migrate back first", &b.ours);

    say!("\n4. Defect C: Linux 7.2 counts the fences of a bind by tile and fills those of tile 0 only.");
    say!("   The first bind of the program: its mirror, with a user fence, on the VM's default queue.");
    let c = Defect::show(&peek, &FIRST_BIND, "c", &options.device, dir)?;
    tell_counted(&c);

    say!("\n5. The same engine, driver and hardware on a simulated mm, one schedule a seed.");
    let checked = checked_world();
    say!("   the tour took {:.1} s", start.elapsed().as_secs_f64());

    let went_all_ways = ["SYSTEM->VRAM0", "VRAM0->VRAM1", "VRAM1->SYSTEM"];
    let moved = went_all_ways.iter().all(|way| whole.report.migrations.get(*way).is_some_and(|n| *n > 0));
    let shown = [
        a.is_shown(|report| report.stray_writes),
        b.is_shown(|report| report.unfit_vram),
        c.is_shown(|report| report.fence_array_holes),
    ];
    let ok = whole.data_ok && moved && shown == [true; 3] && checked.ok;
    say!(
        "{}",
        colour::verdict(
            if ok {
                "\nEverything that was compared was right."
            } else {
                "\nNOT everything that was compared was right."
            },
            ok
        )
    );
    if options.json {
        let line = serde_json::json!({
            "data_ok": whole.data_ok,
            "migrations": whole.report.migrations,
            "a": a.json(shown[0]),
            "b": b.json(shown[1]),
            "c": c.json(shown[2]),
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

/// A defect, as upstream has it and as we do: two runs of one client.
struct Defect {
    upstream: Act,
    ours: Act,
}

impl Defect {
    fn show(client: &Path, arguments: &[&str], key: &str, device: &Device, dir: &Path) -> Result<Self> {
        let upstream = act(client, arguments, &behaving(&format!("{key}=upstream"), device), dir)?;
        Ok(Self { upstream, ours: act(client, arguments, device, dir)? })
    }

    /// Whether upstream's way did harm, by the client's word and by the library's, and ours none.
    fn is_shown(&self, harm: fn(&Report) -> u64) -> bool {
        let (upstream, ours) = (harm(&self.upstream.report), harm(&self.ours.report));
        !self.upstream.data_ok && upstream > 0 && self.ours.data_ok && ours == 0
    }

    fn json(&self, ok: bool) -> serde_json::Value {
        serde_json::json!({ "ok": ok, "upstream": self.upstream.summary(), "ours": self.ours.summary() })
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
    watched(client, arguments, device, dir, |_| ())
}

/// Runs a client, and shows each line that it prints, at once.
fn watched(client: &Path, arguments: &[&str], device: &Device, dir: &Path, mut look: impl FnMut(&str)) -> Result<Act> {
    let report_file = dir.join("report.json");
    let _ = std::fs::remove_file(&report_file);
    // What is limited is said in the first act.
    static IS_SAID: AtomicBool = AtomicBool::new(false);
    let mut preloaded = shim_library::preloaded(client, device, Some(&report_file))?;
    if IS_SAID.swap(true, Ordering::Relaxed) {
        preloaded.command.env("PONTOON_QUIET", "1");
    }
    let mut child = preloaded.command.args(arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    let printed = child.stdout.take().context("no pipe from the client")?;
    let steps = BufReader::new(printed).lines().map_while(Result::ok).inspect(|line| look(line)).collect();
    let output = child.wait_with_output()?;
    let errors: Vec<_> = String::from_utf8_lossy(&output.stderr).lines().map(str::to_owned).collect();
    let written = report_file.is_file().then_some(report_file.as_path());
    preloaded.hand_on(written)?;
    let Ok(report) = std::fs::read(&report_file) else {
        errors.iter().for_each(|line| say!("   {line}"));
        bail!("the device did not start, so there is nothing to show (`pontoon doctor` says what this kernel allows)");
    };
    Ok(Act {
        data_ok: output.status.success(),
        steps,
        errors,
        report: serde_json::from_slice(&report).context("the report is no JSON")?,
    })
}

fn tell_steps(act: &Act) {
    // Steps that compare no bytes are of interest only where they fail.
    let steps = act.steps.iter().filter(|step| step.contains(" BAD") || !step.ends_with("bytes=0"));
    steps.chain(&act.errors).for_each(|step| say!("   {}", colour::verdict(step, !step.contains(" BAD"))));
    say!("   how pages travel: {}\n", act.report.memory.mechanism);
}

fn tell_cross(title: &str, act: &Act) {
    say!("   {title}");
    act.steps.iter().chain(&act.errors).for_each(|step| say!("     {step}"));
    say!("     stray writes of the device: {}", act.report.stray_writes);
    if let Some(first) = act.report.records.first() {
        say!("     the first: {first}");
    }
}

fn tell_rest(title: &str, act: &Act) {
    let Report { unfit_vram, bans, .. } = act.report;
    let what =
        if unfit_vram == 0 { "no warning".into() } else { format!("warnings {unfit_vram}, queues banned {bans}") };
    say!(
        "   {title}: {}; {what}",
        act.steps.iter().chain(&act.errors).map(String::as_str).collect::<Vec<_>>().join("; ")
    );
}

fn tell_counted(shown: &Defect) {
    let holes = shown.upstream.report.fence_array_holes;
    say!(
        "   as upstream does it: {holes} array of fences with slots that nobody filled; a kernel takes them for pointers,"
    );
    say!("     here the bind is refused: {}", shown.upstream.errors.join("; "));
    let verdict = if shown.ours.data_ok { "bound, the job ran, every word is right" } else { "BAD" };
    say!("   as Pontoon does it, behind the last binds of all tiles: {verdict}");
    shown.ours.errors.iter().for_each(|line| say!("     {line}"));
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
    let wrong = ["a=upstream", "b=upstream", "c=posted"].map(|behaviours| {
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
    let ours = search("", 0..10);
    match &ours.caught {
        Some(caught) => check::tell(caught, "     "),
        None => say!("   ours: {} runs, nothing found", ours.runs),
    }
    let all_found = wrong.iter().all(|found| found.caught.as_ref().is_some_and(|caught| caught.replays));
    let [upstream_a, upstream_b, posted_c] = wrong.each_ref().map(check::json);
    say!("   every remedy against every trigger: pontoon judge all; the smallest failing run: pontoon explain A");
    CheckedWorld {
        ok: ours.caught.is_none() && all_found,
        json: serde_json::json!({
            "upstream_a": upstream_a, "upstream_b": upstream_b, "posted_c": posted_c, "ours": check::json(&ours),
        }),
    }
}
