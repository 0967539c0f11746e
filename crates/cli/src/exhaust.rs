//! `pontoon check --explore exhaustive`: one schedule of each class that nobody can tell apart, or every schedule with at most so
//! many deviations.

use crate::check::{Options, can_be_played, can_be_saved, try_the_model};
use crate::explain::schedule;
use crate::progress;
use anyhow::{Context, Result};
use check::exhaust::{classes, exhaust};
use check::explore::{Met, Setting};
use check::finding::Finding;
use check::plan::Explore;
use check::replay::{Deviation, Record, TimeRule, manner_name};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// Runs of one scene in one manner with few deviations, at most: each leaves hundreds of schedules that wait for their turn.
const RUNS: u64 = 200_000;
/// How long a scene in one manner is searched, if nothing else is asked for.
const TIME: Duration = Duration::from_secs(60);

/// What was done with a scene.
struct Done {
    told: String,
    json: Value,
    met: Met,
    failure: Option<(Finding, Vec<Deviation>)>,
}

/// Searches each scene in each manner; exit code 1 where something was found.
pub fn run(options: &Options) -> Result<ExitCode> {
    options.takes_no_seeds()?;
    can_be_saved(options.save.as_deref())?;
    try_the_model()?;
    let start = Instant::now();
    let (mut found, mut json) = (false, Vec::new());
    for script in options.scripts() {
        for manner in options.manners() {
            let setting = Setting::new(script.clone(), manner, options.behaviour.clone(), Explore::Pct);
            let setting = if options.deviations.is_none() { setting.calmly() } else { setting };
            let time = options.time.unwrap_or(TIME);
            let mut done =
                options.deviations.map_or_else(|| every_class(&setting, time), |most| few(&setting, most, time));
            done.failure.as_ref().map_or(Ok(()), |(finding, _)| can_be_played(finding))?;
            say!("{}, manner {}: {}", script.name, manner_name(manner), done.told);
            done.json["scene"] = script.name.as_str().into();
            done.json["manner"] = manner_name(manner).into();
            let never_met = if done.failure.is_none() { done.met.never(&script) } else { Vec::new() };
            never_met.iter().for_each(|never| say!("  {never}: no run met it"));
            done.json["never_met"] = never_met.into();
            let record = done.failure.map(|(finding, deviations)| (record(setting, deviations, &finding), finding));
            done.json["found"] = record.as_ref().map(|(record, finding)| found_json(record, finding)).into();
            json.push(done.json);
            let Some((record, finding)) = record else { continue };
            say!("  {finding}\n  schedule: {}", schedule(&record));
            if let (false, Some(path)) = (found, &options.save) {
                std::fs::write(path, record.to_string())
                    .with_context(|| format!("{} cannot be written", path.display()))?;
            }
            found = true;
        }
    }
    say!("{:.1} s", start.elapsed().as_secs_f64());
    if options.json {
        say!("{}", Value::from(json));
    }
    Ok(if found { ExitCode::from(1) } else { ExitCode::SUCCESS })
}

/// A run that found something, as a file has it.
fn record(setting: Setting, deviations: Vec<Deviation>, finding: &Finding) -> Record {
    let (time, finding) = (TimeRule::WhenIdle, finding.to_string());
    let trace = setting.replay(&deviations, time).report.trace_hash;
    Record { setting, time, deviations, trace, finding }
}

/// The same for scripts.
fn found_json(record: &Record, finding: &Finding) -> Value {
    json!({ "finding": record.finding, "kind": finding.kind(), "deviations": record.deviations.len(), "run": record.to_string() })
}

fn every_class(setting: &Setting, time: Duration) -> Done {
    let start = Instant::now();
    let done = classes(setting, |so_far| {
        progress::runs(so_far.classes, None);
        so_far.failure.is_none() && start.elapsed() < time
    });
    progress::end();
    let end = match (done.all, &done.failure) {
        (true, _) => "all there are",
        (false, Some(_)) => "up to the first finding",
        (false, None) => "there are more: the time is over",
    };
    let told = format!("{} classes, {} runs cut, {end}: {}", done.classes, done.cuts, counts(&done.outcomes));
    let json = json!({ "classes": done.classes, "cuts": done.cuts, "all": done.all, "outcomes": done.outcomes });
    Done { told, json, met: done.met, failure: done.failure }
}

fn few(setting: &Setting, most: usize, time: Duration) -> Done {
    let start = Instant::now();
    let done = exhaust(setting, most, |so_far| {
        progress::runs(so_far.runs, None);
        so_far.runs < RUNS && start.elapsed() < time
    });
    progress::end();
    let left = if done.left > 0 { format!("; {} schedules were left", done.left) } else { String::new() };
    let outcomes = counts(&done.outcomes);
    let told = format!("{} schedules of at most {most} deviations: {outcomes}{left}", done.runs);
    let json = json!({ "runs": done.runs, "left": done.left, "outcomes": done.outcomes });
    Done { told, json, met: done.met, failure: done.failure }
}

fn counts(outcomes: &BTreeMap<&str, u64>) -> String {
    let told: Vec<String> = outcomes.iter().map(|(kind, count)| format!("{count} {kind}")).collect();
    told.join(", ")
}
