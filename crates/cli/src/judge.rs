//! `pontoon judge`: every variant of A, B and C against every trigger and device, the posted patch switch by switch, and the
//! orders in which fixes may be merged.

use crate::check::try_the_model;
use crate::{judge_machines, progress};
use anyhow::{Result, bail};
use check::judge::machines::Machines;
use check::judge::orders::{self, MergeOrder};
use check::judge::patch::{self, Role, Verdicts};
use check::judge::{self, Cell, Cost, Question, SUBJECTS, Subject};
use check::replay::manner_name;
use check::{Manner, Topology, scenes};
use clap::Args;
use comfy_table::{Table, presets::UTF8_FULL_CONDENSED};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::ops::Range;
use std::process::ExitCode;
use std::time::Instant;

/// Schedules of a cell of the posted patch, which has many, of the other devices, and of the orders.
const FEWER: u64 = 40;
/// Schedules of a scene on each machine: those of A are steps of one thread.
const ON_MACHINES: u64 = 10;

/// Options of `judge`.
#[derive(Args)]
pub struct Options {
    /// A, B, C or all
    #[arg(value_name = "A|B|C|all", default_value = "all")]
    what: String,
    /// Schedules of each cell of the first tables
    #[arg(long, value_name = "A..B", default_value = "0..40", value_parser = crate::check::seeds)]
    seeds: Range<u64>,
    /// Who manages the simulated process' memory: linux or userfaultfd
    #[arg(long, default_value = "linux", value_parser = manner)]
    manner: Manner,
    /// End with one line of JSON: each cell with its first failing run, which `pontoon replay` takes
    #[arg(long)]
    json: bool,
}

fn manner(name: &str) -> Result<Manner> {
    let all = [Manner::Linux, Manner::Userfaultfd];
    match all.into_iter().find(|manner| manner_name(*manner) == name) {
        Some(manner) => Ok(manner),
        None => bail!("'{name}' is no manner: there are linux and userfaultfd"),
    }
}

/// Computes and prints the tables; exit code 1 where the default behaviour fails.
pub fn run(options: &Options) -> Result<ExitCode> {
    try_the_model()?;
    let all = options.what.eq_ignore_ascii_case("all");
    let chosen: Vec<&Subject> = SUBJECTS
        .iter()
        .filter(|subject| all || options.what.eq_ignore_ascii_case(&subject.letter.to_string()))
        .collect();
    if chosen.is_empty() {
        bail!("'{}' is no defect: there are A, B, C and all", options.what);
    }
    let start = Instant::now();
    let script = scenes::named("a-1").map_err(anyhow::Error::msg)?;
    let (behaviours, topology) = (String::new(), Topology::Two);
    let like = Question {
        script,
        behaviours,
        manner: options.manner,
        topology,
        seeds: options.seeds.clone(),
        tick: progress::cells,
    };
    legend();
    let (mut ours_holds, mut all_cells, mut json) = (true, Vec::new(), json!({}));
    for subject in &chosen {
        let mut cells = subject_tables(subject, &like);
        if subject.letter == 'A' {
            let seeds = 0..ON_MACHINES.min(like.seeds.end - like.seeds.start);
            let machines = Machines::judge(subject, &Question { seeds: seeds.clone(), ..like.clone() });
            progress::end();
            judge_machines::tell(&machines, seeds.end);
            say!();
            cells.extend(machines.cells().cloned());
            json["machines"] = judge_machines::json(&machines);
        }
        let ours = &subject.variants()[0];
        ours_holds &= cells.iter().filter(|cell| cell.behaviours == *ours).all(judge_machines::holds);
        all_cells.extend(cells);
    }
    if all {
        let fewer = Question { seeds: 0..FEWER, ..like };
        let verdicts = patch::judge(&judge::all_triggers(), &fewer);
        progress::end();
        tell_patch(&verdicts);
        let (ours, cells) = orders::of_ours(&judge::all_triggers(), &fewer);
        let posted = orders::of_posted(&verdicts);
        progress::end();
        tell_orders("our fixes", &ours);
        tell_orders("the parts of the posted patch", &posted);
        json["patch"] = patch_json(&verdicts);
        json["orders"] = orders_json(&ours);
        json["posted_orders"] = orders_json(&posted);
        all_cells.extend(verdicts.cells.into_iter().chain(cells).flatten());
    }
    say!(
        "computed in {:.1} s; every failing cell: pontoon explain SCENE --behaviour LIST",
        start.elapsed().as_secs_f64()
    );
    if options.json {
        json["cells"] = all_cells.iter().map(cell_json).collect();
        say!("{json}");
    }
    Ok(if ours_holds { ExitCode::SUCCESS } else { ExitCode::from(1) })
}

fn legend() {
    for line in [
        "ok N/M: nothing found, N pages went from tile to tile and M to system memory; skips: fewer went to VRAM than by default.",
        "LOST: data, silently; LOST, strays: data, by writes to bus addresses that nothing maps; refused: what is legal;",
        "under-waits: a fence was over before its bind; audit, leak, cost, books, allowed: data is right, and what is left, counted,",
        "kept or allowed is not.",
        "",
    ] {
        say!("{line}");
    }
}

fn passes(cell: &Cell) -> bool {
    cell.failure.is_none()
}

/// Tables and what follows from them; all cells.
fn subject_tables(subject: &Subject, like: &Question) -> Vec<Cell> {
    let (rows, scripts) = (subject.variants(), subject.scenes());
    let cells = judge::cells(&rows, &scripts, like);
    progress::end();
    say!("{}: each cell {} schedules, until one fails", subject.letter, like.seeds.end - like.seeds.start);
    for script in &scripts {
        say!("  {:<8} {}", script.name, script.shows);
    }
    say!("{}", table(&rows, &cells));
    let holding: Vec<&str> =
        rows.iter().zip(&cells).filter(|(_, row)| row.iter().all(passes)).map(|(name, _)| name.as_str()).collect();
    say!("  nothing found in any scene: {}", holding.join(", "));
    let mut all: Vec<Cell> = cells.iter().flatten().cloned().collect();
    // A has a table of its own over machines.
    let others: &[Topology] =
        if subject.letter == 'A' { &[] } else { &[Topology::One, Topology::Four, Topology::Apart] };
    for &topology in others {
        let seeds = 0..FEWER.min(like.seeds.end - like.seeds.start);
        let there = judge::cells(&rows, &scripts, &Question { topology, seeds, ..like.clone() });
        progress::end();
        tell_machine(topology, &cells, &there);
        all.extend(there.into_iter().flatten());
    }
    say!();
    all
}

/// A row a behaviour, a column a scene; at the end what a fault costs, over all scenes where nothing was found.
fn table(rows: &[String], cells: &[Vec<Cell>]) -> Table {
    let mut table = Table::new();
    table.load_preset(UTF8_FULL_CONDENSED);
    let scenes = cells.first().into_iter().flatten().map(|cell| cell.scene.clone());
    let costs = ["copied", "evicted", "bus"].map(|what| format!("{what}\n/fault"));
    table.set_header(std::iter::once(String::new()).chain(scenes).chain(costs));
    for (behaviour, row) in rows.iter().zip(cells) {
        let mut cost = Cost::default();
        row.iter().filter(|cell| passes(cell)).for_each(|cell| cost += cell.cost);
        let verdicts = row.iter().map(|cell| cell.verdict().replace(", ", "\n"));
        let costs = per_fault(cost).map(|pages| pages.map_or("-".into(), |pages| format!("{pages:.1}")));
        table.add_row(std::iter::once(behaviour.clone()).chain(verdicts).chain(costs));
    }
    table
}

/// Pages that were copied, evicted, and that crossed the bus, for each fault.
fn per_fault(cost: Cost) -> [Option<f64>; 3] {
    [cost.copied, cost.evicted, cost.crossings].map(|n| (cost.faults > 0).then(|| n as f64 / cost.faults as f64))
}

/// What is otherwise on another machine.
fn tell_machine(topology: Topology, usual: &[Vec<Cell>], others: &[Vec<Cell>]) {
    let mut changed: BTreeMap<(String, &str), Vec<&str>> = BTreeMap::new();
    for (usual, other) in usual.iter().flatten().zip(others.iter().flatten()) {
        if usual.grade() != other.grade() {
            let row = (other.behaviours.clone(), other.grade().name());
            changed.entry(row).or_default().push(&other.scene);
        }
    }
    say!("  {}:{}", topology.about(), if changed.is_empty() { " the same verdicts" } else { "" });
    for ((behaviours, grade), scenes) in changed {
        say!("    {behaviours} is {grade} in {}", scenes.join(", "));
    }
}

fn tell_patch(verdicts: &Verdicts) {
    let idle: Vec<&str> =
        verdicts.switches.iter().filter(|switch| !switch.changes_a_rule()).map(|switch| switch.name).collect();
    say!(
        "The posted patch: {} switches, {} subsets, which are {} drivers, as nothing reads what {} set;",
        verdicts.switches.len(),
        verdicts.subsets(),
        verdicts.cells.len(),
        idle.join(", ")
    );
    say!("each driver plays {} scenes, {FEWER} schedules each, until one fails", verdicts.scenes.len());
    for (n, switch) in verdicts.switches.iter().enumerate() {
        say!("  {:<15} {}", switch.name, role_in_words(&verdicts.role(n), verdicts));
    }
    for subset in verdicts.minimal_sufficient() {
        say!("  as good as all nine, and not smaller: {}", verdicts.names(subset).join(", "));
    }
    for (scene, grade) in verdicts.hopeless() {
        say!("  no subset passes {scene}; with all nine: {}", grade.name());
    }
    say!();
}

fn role_in_words(role: &Role, verdicts: &Verdicts) -> String {
    let mut words = Vec::new();
    if !role.needed.is_empty() {
        words.push(format!("needed by {}", role.needed.join(", ")));
    }
    for (subset, scene, before, after) in &role.harmful {
        let on = verdicts.names(*subset);
        let on = if on.is_empty() { "by itself".into() } else { format!("behind {}", on.join(", ")) };
        words.push(format!("harmful {on}: {scene} is {} and becomes {}", before.name(), after.name()));
    }
    if role.dead {
        words.push("dead: no run goes otherwise with it".into());
    } else if role.redundant {
        words.push("redundant: runs change, no verdict does".into());
    }
    words.join("; ")
}

fn tell_orders(what: &str, orders: &[MergeOrder]) {
    say!("Orders in which {what} may be merged, from upstream on:");
    for order in orders {
        let fixes: Vec<String> = order.fixes.iter().map(ToString::to_string).collect();
        let breaks = order.breaks.iter().map(|(scene, before, after)| format!("{scene} was {before} and is {after}"));
        let breaks: Vec<String> = breaks.collect();
        let verdict = if breaks.is_empty() { "no step makes a scene worse".into() } else { breaks.join(", ") };
        say!("  {}: {verdict}", fixes.join(", "));
    }
    say!();
}

fn cell_json(cell: &Cell) -> Value {
    json!({
        "scene": cell.scene,
        "behaviour": cell.behaviours,
        "manner": manner_name(cell.manner),
        "device": cell.topology.name(),
        "runs": cell.runs,
        "verdict": cell.verdict(),
        "pages_between_tiles": cell.reached.pages_between_tiles,
        "pages_to_system": cell.reached.pages_to_system,
        "faults": cell.cost.faults,
        "pages_copied": cell.cost.copied,
        "pages_evicted": cell.cost.evicted,
        "pages_over_the_bus": cell.cost.crossings,
        "failure": cell.failure.as_ref().map(|failure| json!({
            "seed": failure.seed,
            "kind": failure.finding.kind(),
            "finding": failure.finding.to_string(),
            "schedule": failure.record.deviations.iter().map(ToString::to_string).collect::<Vec<_>>().join(" "),
            "run": failure.record.to_string(),
        })),
    })
}

fn patch_json(verdicts: &Verdicts) -> Value {
    let role = |n: usize| {
        let Role { needed, harmful, redundant, dead } = verdicts.role(n);
        let harmful: Vec<Value> = harmful
            .into_iter()
            .map(|(subset, scene, before, after)| {
                json!({ "behind": verdicts.names(subset), "scene": scene, "before": before.name(), "after": after.name() })
            })
            .collect();
        json!({ "switch": verdicts.switches[n].name, "needed": needed, "harmful": harmful, "redundant": redundant, "dead": dead })
    };
    let sufficient: Vec<_> = verdicts.minimal_sufficient().into_iter().map(|subset| verdicts.names(subset)).collect();
    json!({
        "switches": (0..verdicts.switches.len()).map(role).collect::<Vec<_>>(),
        "minimal_sufficient": sufficient,
        "never": verdicts.hopeless().into_iter().map(|(scene, _)| scene).collect::<Vec<_>>(),
    })
}

fn orders_json(orders: &[MergeOrder]) -> Value {
    let order = |order: &MergeOrder| {
        let breaks: Vec<&str> = order.breaks.iter().map(|(scene, ..)| scene.as_str()).collect();
        json!({ "fixes": order.fixes.iter().collect::<String>(), "breaks": breaks })
    };
    orders.iter().map(order).collect()
}
