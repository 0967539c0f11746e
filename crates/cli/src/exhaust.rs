//! `pontoon check --explore exhaustive`: every schedule with at most so many deviations.

use crate::check::{Options, record_of};
use anyhow::{Context, Result};
use check::exhaust::exhaust;
use check::explore::Setting;
use check::plan::Explore;
use check::replay::manner_name;
use std::process::ExitCode;
use std::time::Instant;

/// Runs of one scene in one manner, at most.
const RUNS: u64 = 200_000;

/// Searches each scene in each manner; exit code 1 where something was found.
pub fn run(options: &Options) -> Result<ExitCode> {
    options.takes_no_seeds()?;
    let start = Instant::now();
    let (mut found, mut json) = (false, Vec::new());
    for script in options.scripts() {
        for manner in options.manners() {
            let setting = Setting::new(script.clone(), manner, options.behaviour.clone(), Explore::Pct);
            let done = exhaust(&setting, options.deviations, RUNS);
            let outcomes: Vec<String> = done.outcomes.iter().map(|(kind, count)| format!("{count} {kind}")).collect();
            say!(
                "{}, manner {}: {} schedules of at most {} deviations: {}{}",
                script.name,
                manner_name(manner),
                done.runs,
                options.deviations,
                outcomes.join(", "),
                if done.left > 0 { format!("; {} schedules were left", done.left) } else { String::new() }
            );
            json.push(serde_json::json!({
                "scene": script.name, "manner": manner_name(manner), "runs": done.runs, "left": done.left,
                "outcomes": done.outcomes,
            }));
            let Some((finding, deviations)) = done.failure else { continue };
            let schedule: Vec<String> = deviations.iter().map(ToString::to_string).collect();
            say!(
                "  {finding}\n  schedule: {}",
                if schedule.is_empty() { "nobody is preempted".into() } else { schedule.join(" ") }
            );
            if let (false, Some(path)) = (found, &options.save) {
                let record = record_of(setting, deviations, &finding);
                std::fs::write(path, record.to_string())
                    .with_context(|| format!("{} cannot be written", path.display()))?;
            }
            found = true;
        }
    }
    say!("{:.1} s", start.elapsed().as_secs_f64());
    if options.json {
        say!("{}", serde_json::Value::from(json));
    }
    Ok(if found { ExitCode::from(1) } else { ExitCode::SUCCESS })
}
