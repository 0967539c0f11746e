//! `pontoon check`: scenes under seeds; what a seed breaks, in one sentence, and its replay.

use anyhow::{Context, Result, anyhow, bail};
use check::Manner;
use check::explore::{self, Caught, Ran, Search, Setting};
use check::finding::Finding;
use check::plan::Explore;
use check::replay::{Deviation, Record, TimeRule, manner_name};
use check::scenes;
use check::script::Script;
use clap::{Args, ValueEnum};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Instant;

/// Options of `check`.
#[derive(Args)]
pub struct Options {
    /// Scenes: names of built-in ones (`pontoon scenes` lists them) or files; all built-in ones if none is named
    #[arg(value_name = "SCENE", value_parser = scene)]
    scenes: Vec<Arc<Script>>,
    /// Which seeds, of each scene; a seed names a schedule
    #[arg(long, value_name = "A..B", default_value = "0..1000", value_parser = seeds)]
    seeds: Range<u64>,
    /// How schedules are chosen
    #[arg(long, value_enum, default_value_t = How::Pct)]
    explore: How,
    /// With `--explore exhaustive`: deviations of a schedule at most
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub deviations: usize,
    /// Variants of rules, for example a=upstream; `pontoon behaviours` lists them
    #[arg(long, value_name = "KEY=VARIANT,...", default_value = "", hide_default_value = true, value_parser = crate::behaviours)]
    pub behaviour: String,
    /// Who manages the simulated process' memory
    #[arg(long, value_enum, default_value_t = Manners::Both)]
    manner: Manners,
    /// Write the first failing run to a file that `pontoon replay` takes
    #[arg(long, value_name = "FILE")]
    pub save: Option<PathBuf>,
    /// End with one line of JSON
    #[arg(long)]
    pub json: bool,
}

/// How schedules are chosen.
#[derive(Clone, Copy, ValueEnum)]
enum How {
    /// By priorities that change at a few choices
    Pct,
    /// Each candidate as likely as any other at every choice
    Random,
    /// All schedules with few deviations from the one in which nobody is preempted; takes no seeds
    Exhaustive,
}

/// Which manners of the simulated mm are run.
#[derive(Clone, Copy, ValueEnum)]
enum Manners {
    /// A kernel's own mm
    Linux,
    /// mm-live, as it ships, on a simulated userfaultfd
    Userfaultfd,
    /// Each seed in both
    Both,
}

impl Manners {
    fn list(self) -> Vec<Manner> {
        match self {
            Self::Linux => vec![Manner::Linux],
            Self::Userfaultfd => vec![Manner::Userfaultfd],
            Self::Both => vec![Manner::Linux, Manner::Userfaultfd],
        }
    }
}

impl Options {
    /// What is played.
    pub fn scripts(&self) -> Vec<Arc<Script>> {
        if self.scenes.is_empty() { scenes::all() } else { self.scenes.clone() }
    }

    /// How schedules are drawn; none where all are played.
    pub const fn drawn(&self) -> Option<Explore> {
        match self.explore {
            How::Pct => Some(Explore::Pct),
            How::Random => Some(Explore::Random),
            How::Exhaustive => None,
        }
    }

    /// In which manners.
    pub fn manners(&self) -> Vec<Manner> {
        self.manner.list()
    }
}

/// A built-in scene by its name, or one in a file.
pub fn scene(text: &str) -> Result<Arc<Script>> {
    let path = Path::new(text);
    if !text.contains(['/', '.']) && !path.is_file() {
        return scenes::named(text).map_err(|message| anyhow!(message));
    }
    let source = std::fs::read_to_string(path).with_context(|| format!("'{text}' cannot be read"))?;
    Ok(Arc::new(Script::parse(text, &source)?))
}

/// The built-in scenes, a line each.
pub fn list() {
    for script in scenes::all() {
        say!("{:<10} {}", script.name, script.shows);
    }
}

pub fn seeds(text: &str) -> Result<Range<u64>> {
    let explain = || anyhow!("'{text}' is no range of seeds: write A..B (B is not run), or one seed");
    let range = match text.split_once("..") {
        Some((from, to)) => from.parse().map_err(|_| explain())?..to.parse().map_err(|_| explain())?,
        None => {
            let seed: u64 = text.parse().map_err(|_| explain())?;
            seed..seed.checked_add(1).ok_or_else(explain)?
        }
    };
    if range.is_empty() {
        bail!("'{text}' has no seed in it: B must be above A");
    }
    Ok(range)
}

/// Searches; exit code 1 where something was found.
pub fn run(options: &Options, explore: Explore) -> Result<ExitCode> {
    let search = Search {
        scripts: options.scripts(),
        explore,
        seeds: options.seeds.clone(),
        behaviours: options.behaviour.clone(),
        manners: options.manners(),
    };
    let start = Instant::now();
    let found = explore::search(&search);
    let seconds = start.elapsed().as_secs_f64();
    match &found.caught {
        None => say!(
            "{} runs in {seconds:.1} s, {} binds overtaken by a change and retried: nothing found",
            found.runs,
            found.reached.stale_binds
        ),
        Some(caught) => {
            say!(
                "found in {seconds:.2} s in scene {} at seed {}, after {} runs",
                caught.script.name,
                caught.plan.seed,
                found.runs
            );
            tell(caught, "  ");
            if let Some(path) = &options.save {
                let written = std::fs::write(path, record(caught).to_string());
                written.with_context(|| format!("{} cannot be written", path.display()))?;
            }
        }
    }
    if options.json {
        say!("{}", json(&found));
    }
    Ok(if found.caught.is_some() { ExitCode::from(1) } else { ExitCode::SUCCESS })
}

/// What a seed broke, for people; every line begins with `indent`.
pub fn tell(caught: &Caught, indent: &str) {
    let report = &caught.report;
    let manner = manner_name(caught.manner);
    say!("{indent}{}", caught.finding);
    say!(
        "{indent}scene {}, {}, manner {manner}, {} steps, {} task switches, {} deviations from run-to-block, trace {:016x}",
        caught.script.name,
        caught.plan,
        report.steps,
        report.switches,
        report.deviations.len(),
        report.trace_hash
    );
    say!(
        "{indent}replay by seed and by schedule: {}",
        if caught.replays { "the same, step by step" } else { "DIFFERENT" }
    );
    let behaviour = match caught.behaviours.as_str() {
        "" => String::new(),
        list => format!(" --behaviour {list}"),
    };
    say!(
        "{indent}again: pontoon check {} --seeds {} --manner {manner}{behaviour}",
        caught.script.name,
        caught.plan.seed
    );
}

fn record(caught: &Caught) -> Record {
    let setting = Setting::new(caught.script.clone(), caught.manner, caught.behaviours.clone(), Explore::Pct);
    let record = record_of(setting, caught.report.deviations.clone(), &caught.finding);
    Record { time: caught.plan.time, ..record }
}

/// A run that found something, as a file has it; time passes when nobody can run.
pub fn record_of(setting: Setting, deviations: Vec<Deviation>, finding: &Finding) -> Record {
    Record { setting, time: TimeRule::WhenIdle, deviations, finding: finding.to_string() }
}

/// How a run from a file went.
pub fn tell_run(record: &Record, ran: &Ran) {
    match &ran.finding {
        Some(finding) => say!("{finding}"),
        None => say!("nothing found"),
    }
    let (scene, manner) = (&record.setting.script.name, manner_name(record.setting.manner));
    let (steps, trace) = (ran.report.steps, ran.report.trace_hash);
    say!("scene {scene}, manner {manner}, {} deviations, {steps} steps, trace {trace:016x}", record.deviations.len());
}

/// The same for scripts.
pub fn json(found: &explore::Found) -> serde_json::Value {
    serde_json::json!({
        "runs": found.runs,
        "stale_binds": found.reached.stale_binds,
        "found": found.caught.as_ref().map(|caught| serde_json::json!({
            "scene": caught.script.name,
            "seed": caught.plan.seed,
            "manner": manner_name(caught.manner),
            "plan": caught.plan.to_string(),
            "finding": caught.finding.to_string(),
            "steps": caught.report.steps,
            "trace": format!("{:016x}", caught.report.trace_hash),
            "replays": caught.replays,
        })),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_of_seeds_are_read_and_nonsense_is_refused() {
        assert_eq!(seeds("3..7").unwrap(), 3..7);
        assert_eq!(seeds("12").unwrap(), 12..13);
        for nonsense in ["", "7..3", "a..b", "1..", "18446744073709551615"] {
            assert!(seeds(nonsense).is_err(), "{nonsense}");
        }
    }
}
