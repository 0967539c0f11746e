//! `pontoon check`: scenes under seeds; what a seed breaks, in one sentence, and its replay.

use crate::{colour, merge, progress};
use anyhow::{Context, Result, anyhow, bail};
use check::Manner;
use check::explore::{self, Caught, Ran, Search, Setting};
use check::finding::Finding;
use check::plan::{Explore, Order};
use check::play::reach::{MOMENTS, Moments};
use check::replay::{Record, manner_name};
use check::scenes;
use check::script::Script;
use clap::{Args, ValueEnum};
use serde_json::Value;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Options of `check`.
#[derive(Args)]
pub struct Options {
    /// Scenes: names of built-in ones (`pontoon scenes` lists them) or files; all built-in ones if none is named
    #[arg(value_name = "SCENE", value_parser = scene)]
    scenes: Vec<Arc<Script>>,
    /// Which seeds, of each scene; a seed names a schedule [default: 0..1000; with --time from 0 on, without an end]
    #[arg(long, value_name = "A..B", value_parser = seeds)]
    seeds: Option<Range<u64>>,
    /// End the search after this time, for example 60s or 5m; with `--explore exhaustive` of each scene in each manner [default
    /// there: 60s]
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub time: Option<Duration>,
    /// Run the I-th of N parts of the seeds, for array jobs; `pontoon merge` joins what they print with --json
    #[arg(long, value_name = "I/N", value_parser = Shard::parse)]
    shard: Option<Shard>,
    /// How schedules are chosen
    #[arg(long, value_enum, default_value_t = How::Pct)]
    explore: How,
    /// With `--explore exhaustive`: only schedules with so many deviations from the one in which nobody is preempted, at most,
    /// and of these 200,000 a scene and manner
    #[arg(long, value_name = "N")]
    pub deviations: Option<usize>,
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
    /// All schedules, one of each class that nobody can tell apart; takes no seeds
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

/// Seeds without an end: as many as no search gets through.
const NO_END: u64 = u64::MAX;

impl Options {
    /// An exhaustive search has none, and is not cut into parts.
    pub fn takes_no_seeds(&self) -> Result<()> {
        let given = [("--seeds", self.seeds.is_some()), ("--shard", self.shard.is_some())];
        match given.into_iter().find(|(_, given)| *given) {
            Some((name, _)) => bail!("{name} does not go with --explore exhaustive, which runs every schedule once"),
            None => Ok(()),
        }
    }

    fn all_seeds(&self) -> Range<u64> {
        let usual = if self.time.is_some() { 0..NO_END } else { 0..1000 };
        self.seeds.clone().unwrap_or(usual)
    }

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

/// A built-in scene by its name, or one in a file; `./NAME` is a file of a built-in one's name.
pub fn scene(text: &str) -> Result<Arc<Script>> {
    let path = Path::new(text);
    match scenes::named(text) {
        Ok(script) => return Ok(script),
        Err(message) if !text.contains(['/', '.']) && !path.is_file() => bail!(message),
        Err(_) => {}
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

/// Before a search, which may take hours: what it finds can be written there.
pub fn can_be_saved(path: Option<&Path>) -> Result<()> {
    let Some(path) = path else { return Ok(()) };
    let is_new = !path.exists();
    let opened = std::fs::OpenOptions::new().append(true).create(true).open(path);
    opened.with_context(|| format!("{} cannot be written", path.display()))?;
    if is_new { std::fs::remove_file(path).with_context(|| path.display().to_string()) } else { Ok(()) }
}

/// Before a search: a hardware model that does not see what a driver does wrong is not believed.
pub fn try_the_model() -> Result<()> {
    machine::trial::trial().map_err(|blind| anyhow!(blind))
}

/// Searches; exit code 1 where something was found.
pub fn run(options: &Options, explore: Explore) -> Result<ExitCode> {
    if options.deviations.is_some() {
        bail!("--deviations goes with --explore exhaustive: a search by seeds has as many as it draws");
    }
    can_be_saved(options.save.as_deref())?;
    try_the_model()?;
    let (all, shard) = (options.all_seeds(), options.shard.unwrap_or(Shard::WHOLE));
    let search = Search {
        scripts: options.scripts(),
        explore,
        seeds: shard.of(&all)?,
        behaviours: options.behaviour.clone(),
        manners: options.manners(),
    };
    let settings = (search.scripts.len() * search.manners.len()) as u64;
    let of = (search.seeds.end - search.seeds.start).checked_mul(settings).filter(|_| all.end != NO_END);
    let start = Instant::now();
    let found = explore::search_while(&search, &|runs| {
        progress::runs(runs, of);
        options.time.is_none_or(|time| start.elapsed() < time)
    });
    progress::end();
    let seconds = start.elapsed().as_secs_f64();
    found.never_met.iter().for_each(|never| say!("{never}: no run met it"));
    match &found.caught {
        None => say!(
            "{} runs in {seconds:.1} s{}, {} binds overtaken by a change and retried: {}",
            found.runs,
            if found.ended { ", ended by the time" } else { "" },
            found.reached.stale_binds,
            merge::nothing_found(found.never_met.len())
        ),
        Some(caught) => {
            can_be_played(&caught.finding)?;
            say!(
                "{} in {seconds:.2} s in scene {} at seed {}, after {} runs{}",
                colour::bad("found"),
                caught.script.name,
                caught.plan.seed,
                found.runs,
                caught.step.as_ref().map_or_else(String::new, |step| format!(", in {step}"))
            );
            tell(caught, "  ");
            if let Some(path) = &options.save {
                let written = std::fs::write(path, record(caught).to_string());
                written.with_context(|| format!("{} cannot be written", path.display()))?;
            }
        }
    }
    if options.json {
        say!("{}", shard_json(options, &search, &all, shard, &found));
    }
    Ok(if found.caught.is_some() { ExitCode::from(1) } else { ExitCode::SUCCESS })
}

/// A scene that cannot be played is no finding: nothing was searched.
pub fn can_be_played(finding: &Finding) -> Result<()> {
    if finding.is_of_the_scene() { Err(anyhow!("{finding}")) } else { Ok(()) }
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
    let explore = if caught.plan.order == Order::Uniform { " --explore random" } else { "" };
    say!(
        "{indent}again: pontoon check {} --seeds {} --manner {manner}{explore}{behaviour}",
        caught.script.name,
        caught.plan.seed
    );
}

fn record(caught: &Caught) -> Record {
    let setting = Setting::new(caught.script.clone(), caught.manner, caught.behaviours.clone(), Explore::Pct);
    let Caught { plan, report, finding, .. } = caught;
    let (deviations, trace) = (report.deviations.clone(), report.trace_hash);
    Record { setting, time: plan.time, deviations, trace, finding: finding.to_string() }
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

/// What a search is and what it gave, for `merge`.
fn shard_json(options: &Options, search: &Search, all: &Range<u64>, shard: Shard, found: &explore::Found) -> Value {
    let about = [
        ("format", merge::FORMAT.into()),
        ("version", env!("CARGO_PKG_VERSION").into()),
        ("texts", texts(&search.scripts).into()),
        ("scenes", search.scripts.iter().map(|script| script.name.as_str()).collect()),
        ("behaviour", options.behaviour.as_str().into()),
        ("explore", if search.explore == Explore::Random { "random" } else { "pct" }.into()),
        ("manners", search.manners.iter().map(|manner| manner_name(*manner)).collect()),
        ("seeds", vec![all.start, all.end].into()),
        ("shard", vec![shard.part, shard.parts].into()),
        ("ended_early", found.ended.into()),
    ];
    let mut whole = json(found);
    whole["moments"] = moments(search, found);
    about.into_iter().for_each(|(field, value): (&str, Value)| whole[field] = value);
    whole
}

/// Names what scenes say: a file may have been changed between two shards.
fn texts(scripts: &[Arc<Script>]) -> String {
    let mut hash = DefaultHasher::new();
    scripts.iter().for_each(|script| script.source.hash(&mut hash));
    format!("{:016x}", hash.finish())
}

/// Of each scene, in how many of its runs what came, as far as anything did.
fn moments(search: &Search, found: &explore::Found) -> Value {
    let came = |moments: &Moments| {
        let names = MOMENTS.iter().map(|(name, _)| *name);
        names.zip(*moments).filter(|(_, runs)| *runs > 0).map(|(name, runs)| (name.to_owned(), runs.into())).collect()
    };
    let of_scene = |(script, moments): (&Arc<Script>, &Moments)| (script.name.clone(), Value::Object(came(moments)));
    Value::Object(search.scripts.iter().zip(&found.moments).map(of_scene).collect())
}

/// The same for scripts.
pub fn json(found: &explore::Found) -> Value {
    serde_json::json!({
        "runs": found.runs,
        "stale_binds": found.reached.stale_binds,
        "never_met": found.never_met,
        "found": found.caught.as_ref().map(|caught| serde_json::json!({
            "scene": caught.script.name,
            "seed": caught.plan.seed,
            "manner": manner_name(caught.manner),
            "plan": caught.plan.to_string(),
            "finding": caught.finding.to_string(),
            "kind": caught.finding.kind(),
            "step": caught.step,
            "steps": caught.report.steps,
            "trace": format!("{:016x}", caught.report.trace_hash),
            "replays": caught.replays,
            "run": record(caught).to_string(),
        })),
    })
}

/// A part of the seeds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Shard {
    /// Which, from 1.
    part: u64,
    /// Of how many.
    parts: u64,
}

impl Shard {
    /// All seeds.
    const WHOLE: Self = Self { part: 1, parts: 1 };

    fn parse(text: &str) -> Result<Self> {
        let numbers = text.split_once('/').and_then(|(part, parts)| Some((part.parse().ok()?, parts.parse().ok()?)));
        match numbers {
            Some((part, parts)) if (1..=parts).contains(&part) => Ok(Self { part, parts }),
            _ => bail!("'{text}' is no shard: write I/N, the I-th of N parts, counted from 1"),
        }
    }

    /// Its seeds: as many as every other part has, but for one.
    fn of(self, all: &Range<u64>) -> Result<Range<u64>> {
        let size = u128::from(all.end - all.start);
        let cut = |n: u64| all.start + (size * u128::from(n) / u128::from(self.parts)) as u64;
        let own = cut(self.part - 1)..cut(self.part);
        if own.is_empty() {
            bail!(
                "part {} of {} of seeds {}..{} is empty: take fewer parts",
                self.part,
                self.parts,
                all.start,
                all.end
            );
        }
        Ok(own)
    }
}

/// Seconds or minutes.
fn duration(text: &str) -> Result<Duration> {
    let (number, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()));
    let seconds = match unit {
        "s" | "" => Some(1),
        "m" => Some(60),
        "h" => Some(3600),
        _ => None,
    };
    let time = seconds.and_then(|seconds| number.parse::<u64>().ok()?.checked_mul(seconds)).filter(|time| *time > 0);
    time.map(Duration::from_secs).ok_or_else(|| anyhow!("'{text}' is no time: write for example 60s, 5m or 2h"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shards_are_all_seeds_once() {
        for (all, parts) in [(0..1000, 7), (3..8, 5), (10..12, 1), (0..NO_END, 3)] {
            let of = |part| Shard { part, parts }.of(&all).unwrap();
            assert_eq!((of(1).start, of(parts).end), (all.start, all.end));
            assert!((1..parts).all(|part| of(part).end == of(part + 1).start));
        }
        assert!(Shard { part: 1, parts: 9 }.of(&(0..3)).is_err());
        assert_eq!(Shard::parse("2/3").unwrap(), Shard { part: 2, parts: 3 });
        for nonsense in ["", "0/3", "4/3", "1", "a/b", "1/0", "-1/2"] {
            assert!(Shard::parse(nonsense).is_err(), "{nonsense}");
        }
    }

    #[test]
    fn times_have_units() {
        let seconds = |text| duration(text).map(|time| time.as_secs()).ok();
        assert_eq!(["60s", "5m", "2h", "7"].map(seconds), [Some(60), Some(300), Some(7200), Some(7)]);
        assert_eq!(["", "s", "0s", "-5s", "5 minutes", "99999999999999999999s"].map(seconds), [None; 6]);
    }

    #[test]
    fn ranges_of_seeds_are_read_and_nonsense_is_refused() {
        assert_eq!(seeds("3..7").unwrap(), 3..7);
        assert_eq!(seeds("12").unwrap(), 12..13);
        for nonsense in ["", "7..3", "a..b", "1..", "18446744073709551615"] {
            assert!(seeds(nonsense).is_err(), "{nonsense}");
        }
    }
}
