//! `pontoon explain`: the smallest failing run of a scene, told for a mail; `pontoon replay`: a run from its file.

use crate::check::{can_be_played, scene, tell_run, try_the_model};
use crate::merge;
use anyhow::{Context, Result, anyhow, bail};
use check::Manner;
use check::explain::{self, Names, Rows, html::About};
use check::explore::{self, Caught, Ran, Search, Setting};
use check::finding::Finding;
use check::plan::Explore;
use check::replay::{Record, manner_name};
use check::script::Script;
use check::shrink::smallest;
use clap::Args;
use serde_json::json;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

/// Uniform schedules that are tried, to say how often a failure is met.
const TRIED: u64 = 200;

/// Options of `explain`.
#[derive(Args)]
pub struct Options {
    /// A, B or C (a defect of Linux 7.2), the name of a built-in scene, or a file
    #[arg(value_name = "A|B|C|SCENE")]
    what: String,
    /// Variants of rules; a defect's letter stands for upstream's
    #[arg(long, value_name = "KEY=VARIANT,...", value_parser = crate::behaviours)]
    behaviour: Option<String>,
    /// Which seeds are searched
    #[arg(long, value_name = "A..B", default_value = "0..2000", value_parser = crate::check::seeds)]
    seeds: std::ops::Range<u64>,
    /// Write the run to a file that `pontoon replay` takes
    #[arg(long, value_name = "FILE")]
    save: Option<PathBuf>,
    /// Write the same as one page with a time line, for a browser
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
    /// End with one line of JSON
    #[arg(long)]
    json: bool,
}

/// A defect by its letter: the scene that shows it, and upstream's behaviour.
fn subject(options: &Options) -> Result<(Arc<Script>, String)> {
    let (name, behaviour) = match options.what.as_str() {
        "A" => ("a-1", "a=upstream"),
        "B" => ("b-1", "b=upstream"),
        "C" => ("c-1", "c=upstream"),
        other => (other, ""),
    };
    Ok((scene(name)?, options.behaviour.clone().unwrap_or_else(|| behaviour.into())))
}

/// Searches, shrinks and tells; exit code 1 where something was found.
pub fn run(options: &Options) -> Result<ExitCode> {
    let (script, behaviours) = subject(options)?;
    try_the_model()?;
    let search = Search {
        scripts: vec![script.clone()],
        explore: Explore::Pct,
        seeds: options.seeds.clone(),
        behaviours: behaviours.clone(),
        manners: vec![Manner::Linux, Manner::Userfaultfd],
    };
    let found = explore::search(&search);
    let Some(caught) = found.caught else {
        found.never_met.iter().for_each(|never| say!("{never}: no run met it"));
        let nothing = merge::nothing_found(found.never_met.len());
        say!("{}: {} runs, {nothing}{}", script.name, found.runs, with(&behaviours));
        options.html.iter().chain(&options.save).for_each(|path| say!("{} is not written", path.display()));
        if options.json {
            let (scene, behaviour) = (&script.name, &behaviours);
            let (runs, never_met) = (found.runs, &found.never_met);
            let json = json!({ "scene": scene, "behaviour": behaviour, "runs": runs, "finding": null, "never_met": never_met });
            say!("{json}");
        }
        return Ok(ExitCode::SUCCESS);
    };
    can_be_played(&caught.finding)?;
    let setting = Setting::new(script, caught.manner, behaviours, Explore::Random);
    let shrunk = smallest(&setting, &caught);
    let hits = (0..TRIED).filter(|seed| setting.run_seed(*seed).finding.is_some()).count();
    let finding = shrunk.ran.finding.as_ref().unwrap_or(&caught.finding).to_string();
    let (time, deviations, trace) = (shrunk.time, shrunk.deviations, shrunk.ran.report.trace_hash);
    let record = Record { setting: setting.clone(), time, deviations, trace, finding };
    let told = story(&record, &caught)?;
    let switches = record.deviations.len();
    let needs = match switches {
        0 => "It needs no race: it happens when nobody is preempted".to_owned(),
        1 => "It needs one switch at the right place".to_owned(),
        n => format!("It needs {n} switches at the right places at most"),
    };
    say!();
    let notes = [
        format!("When: {}. {needs}; {hits} of {TRIED} uniform schedules meet it.", sentence(&setting.script.shows)),
        format!(
            "Found at seed {}, shrunk in {} runs from {} deviations to {switches}: {}",
            caught.plan.seed,
            shrunk.runs,
            caught.report.deviations.len(),
            schedule(&record)
        ),
        "Not modelled: weak memory order, caches, compression (docs/hardware.md).".to_owned(),
    ];
    notes.iter().flat_map(|text| explain::wrap(text, "  ")).for_each(|line| say!("{line}"));
    if let Some(path) = &options.html {
        let (title, source) = (title(&record), &setting.script.source);
        let about = About { title: &title, source, finding: &record.finding, notes: &notes };
        let written = std::fs::write(path, explain::html::page(&about, &told));
        written.with_context(|| format!("{} cannot be written", path.display()))?;
    }
    if let Some(path) = &options.save {
        std::fs::write(path, record.to_string()).with_context(|| format!("{} cannot be written", path.display()))?;
        say!("again: pontoon replay {}", path.display());
    }
    if options.json {
        let json = json!({
            "scene": setting.script.name, "behaviour": setting.behaviours, "manner": manner_name(setting.manner),
            "seed": caught.plan.seed, "finding": record.finding, "kind": caught.finding.kind(),
            "deviations": switches, "uniform_hits": hits, "uniform_runs": TRIED,
        });
        say!("{json}");
    }
    Ok(ExitCode::from(1))
}

fn with(behaviours: &str) -> String {
    if behaviours.is_empty() { String::new() } else { format!(" with {behaviours}") }
}

fn sentence(shows: &str) -> &str {
    shows.trim_end_matches('.')
}

/// Its deviations, in words where there are none.
pub fn schedule(record: &Record) -> String {
    let all: Vec<String> = record.deviations.iter().map(ToString::to_string).collect();
    if all.is_empty() { "nobody is preempted".into() } else { all.join(" ") }
}

fn title(record: &Record) -> String {
    let Setting { script, manner, behaviours, .. } = &record.setting;
    format!("scene {}, manner {}{}", script.name, manner_name(*manner), with(behaviours))
}

/// Head, story and finding of a run.
fn story(record: &Record, caught: &Caught) -> Result<Rows> {
    let setting = &record.setting;
    let (ran, story) = setting.tell(&record.deviations, record.time);
    if ran.finding.as_ref().map(Finding::kind) != Some(caught.finding.kind()) {
        bail!("the shrunk run does not fail again: this is a defect of the checker");
    }
    say!("{}", title(record));
    let names = Names { script: &setting.script, places: &ran.reached.places };
    let told = explain::rows(&names, &story.lines());
    explain::tell(&told).iter().for_each(|line| say!("{line}"));
    let wrapped = explain::wrap(&format!("==> {}", record.finding), "    ");
    wrapped.iter().for_each(|line| say!("{line}"));
    Ok(told)
}

/// Options of `replay`.
#[derive(Args)]
pub struct ReplayOptions {
    /// A file that `check --save` or `explain --save` wrote, or `run` of a cell of `judge --json`; - reads it from standard input
    file: PathBuf,
    /// End with one line of JSON
    #[arg(long)]
    json: bool,
}

/// Makes a run again; exit code 1 where it finds what it found, 2 where it does not.
pub fn replay(options: &ReplayOptions) -> Result<ExitCode> {
    let path = options.file.display();
    let text = match options.file.as_os_str() == "-" {
        true => std::io::read_to_string(std::io::stdin()),
        false => std::fs::read_to_string(&options.file),
    };
    let text = text.with_context(|| format!("{path} cannot be read"))?;
    let record = Record::parse(&text).map_err(|message| anyhow!("{path}: {message}"))?;
    let ran = record.run();
    tell_run(&record, &ran);
    let met = record.is_met_by(&ran);
    if options.json {
        say!("{}", replay_json(&record, &ran, met.is_ok()));
    }
    if let Err(difference) = met {
        bail!("{path}: {difference}: the file, the engine, the driver or the checker changed since");
    }
    Ok(if ran.finding.is_some() { ExitCode::from(1) } else { ExitCode::SUCCESS })
}

/// How it went, for scripts.
fn replay_json(record: &Record, ran: &Ran, same: bool) -> serde_json::Value {
    let Setting { script, manner, behaviours, .. } = &record.setting;
    json!({
        "scene": script.name, "behaviour": behaviours, "manner": manner_name(*manner),
        "finding": ran.finding.as_ref().map(ToString::to_string), "kind": ran.finding.as_ref().map(Finding::kind),
        "steps": ran.report.steps, "trace": format!("{:016x}", ran.report.trace_hash), "same": same,
    })
}
