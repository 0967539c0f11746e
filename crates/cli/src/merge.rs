//! `pontoon merge`: what the shards of a check printed with `--json`, joined. Together they are the check that was cut into parts: the
//! first finding in the order of seeds is the one that is told.

use crate::colour;
use anyhow::{Context, Result, anyhow, bail};
use clap::Args;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// What a shard's line begins with.
pub const FORMAT: &str = "pontoon-check 2";
/// What all shards of a check agree on.
const COMMON: [&str; 8] = ["format", "version", "scenes", "texts", "behaviour", "explore", "manners", "seeds"];

/// Options of `merge`.
#[derive(Args)]
pub struct Options {
    /// What `pontoon check --shard I/N --json` printed, a file a shard; the last line counts
    #[arg(value_name = "FILE", required = true)]
    files: Vec<PathBuf>,
    /// Write the first failing run to a file that `pontoon replay` takes
    #[arg(long, value_name = "FILE")]
    save: Option<PathBuf>,
    /// End with one line of JSON
    #[arg(long)]
    json: bool,
}

/// Joins them; exit code 1 where one found something.
pub fn run(options: &Options) -> Result<ExitCode> {
    let shards = options.files.iter().map(|path| read(path)).collect::<Result<Vec<_>>>()?;
    let whole = join(&shards)?;
    let (runs, parts) = (&whole["runs"], format!("{} shards{}", shards.len(), ended_by_time(&shards)));
    let never_met: Vec<&str> = whole["never_met"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    never_met.iter().for_each(|never| say!("{never}: no run met it"));
    match &whole["found"] {
        Value::Null => say!("{parts}, {runs} runs: {}", nothing_found(never_met.len())),
        found => {
            let [scene, finding] = ["scene", "finding"].map(|name| found[name].as_str().unwrap_or_default());
            say!("{parts}, {runs} runs: found in scene {scene} at seed {}\n  {finding}", found["seed"]);
            if let (Some(path), Some(run)) = (&options.save, found["run"].as_str()) {
                std::fs::write(path, run).with_context(|| format!("{} cannot be written", path.display()))?;
                say!("  again: pontoon replay {}", path.display());
            }
        }
    }
    if options.json {
        say!("{whole}");
    }
    Ok(if whole["found"].is_null() { ExitCode::SUCCESS } else { ExitCode::from(1) })
}

/// What is said of a search that found nothing. Where something never came that a scene is there for, it is no good news.
pub fn nothing_found(never_met: usize) -> String {
    match never_met {
        0 => colour::good("nothing found"),
        count => colour::bad(&format!("nothing found, and nothing shown of what never came ({count})")),
    }
}

fn read(path: &Path) -> Result<Value> {
    let name = path.display();
    let text = std::fs::read_to_string(path).with_context(|| format!("{name} cannot be read"))?;
    let last = text.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or_default();
    let shard: Value = serde_json::from_str(last)
        .map_err(|error| anyhow!("{name} does not end with a line of `pontoon check --json`: {error}"))?;
    if shard["format"] != FORMAT {
        bail!("{name} is not of this version of `pontoon check --json`: it must say '{FORMAT}'");
    }
    Ok(shard)
}

/// Which shards did not run all of their seeds, in words.
fn ended_by_time(shards: &[Value]) -> String {
    let ended = shards.iter().filter(|shard| shard["ended_early"] == true).map(|shard| shard["shard"][0].to_string());
    let ended: Vec<String> = ended.collect();
    if ended.is_empty() { String::new() } else { format!(" (ended by the time: {})", ended.join(", ")) }
}

/// Injections and moments that no shard met.
fn never_met(shards: &[Value]) -> Vec<&Value> {
    let of = |shard: &'_ Value| shard["never_met"].as_array().cloned().unwrap_or_default();
    let all = shards.first().and_then(|shard| shard["never_met"].as_array()).into_iter().flatten();
    all.filter(|never| shards.iter().all(|shard| of(shard).contains(never))).collect()
}

/// Runs of all shards in which each moment of each scene came.
fn moments(shards: &[Value]) -> Value {
    let mut all: BTreeMap<&str, BTreeMap<&str, u64>> = BTreeMap::new();
    for (scene, came) in shards.iter().filter_map(|shard| shard["moments"].as_object()).flatten() {
        let of_scene = all.entry(scene).or_default();
        for (moment, runs) in came.as_object().into_iter().flatten() {
            *of_scene.entry(moment).or_default() += runs.as_u64().unwrap_or(0);
        }
    }
    json!(all)
}

/// One answer of all shards. An error says what is missing, twice, or of another check.
fn join(shards: &[Value]) -> Result<Value> {
    let first = shards.first().ok_or_else(|| anyhow!("there is nothing to merge"))?;
    let mut parts = BTreeMap::new();
    let number = |value: &Value| value.as_u64().ok_or_else(|| anyhow!("a shard says '{value}' where a number belongs"));
    let of = number(&first["shard"][1])?;
    for shard in shards {
        if let Some(field) = COMMON.iter().find(|field| shard[**field] != first[**field]) {
            bail!("shards of different checks: '{field}' is {} and {}", first[*field], shard[*field]);
        }
        let (part, parts_of_it) = (number(&shard["shard"][0])?, number(&shard["shard"][1])?);
        if parts_of_it != of {
            bail!("shards of different checks: one is of {of} parts, one of {parts_of_it}");
        }
        if parts.insert(part, shard).is_some() {
            bail!("part {part} of {of} is there twice");
        }
    }
    if let Some(missing) = (1..=of).find(|part| !parts.contains_key(part)) {
        bail!("part {missing} of {of} is missing");
    }
    let runs = shards.iter().map(|shard| number(&shard["runs"])).sum::<Result<u64>>()?;
    let found = parts.values().map(|shard| &shard["found"]).find(|found| !found.is_null());
    let ended_early = shards.iter().any(|shard| shard["ended_early"] == true);
    let never_met = never_met(shards);
    let mut whole =
        json!({ "shard": [1, 1], "ended_early": ended_early, "runs": runs, "never_met": never_met, "found": found });
    whole["moments"] = moments(shards);
    COMMON.iter().for_each(|field| whole[*field] = first[*field].clone());
    Ok(whole)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shard(part: u64, seed: Option<u64>) -> Value {
        let found = seed.map(|seed| json!({ "scene": "a-1", "seed": seed }));
        json!({
            "format": FORMAT, "version": "1", "scenes": ["a-1"], "texts": "0", "behaviour": "", "explore": "pct", "manners": ["linux"],
            "seeds": [0, 30], "shard": [part, 3], "ended_early": false, "runs": 10, "found": found,
        })
    }

    #[test]
    fn the_first_finding_of_all_is_told() {
        let whole = join(&[shard(3, Some(20)), shard(1, None), shard(2, Some(15))]).unwrap();
        assert_eq!(
            (&whole["found"]["seed"], &whole["runs"], &whole["shard"]),
            (&json!(15), &json!(30), &json!([1, 1]))
        );
        assert!(join(&[shard(1, None), shard(2, None), shard(3, None)]).unwrap()["found"].is_null());
    }

    #[test]
    fn a_shard_that_did_not_run_all_of_its_seeds_is_told() {
        let mut shards = [shard(1, None), shard(2, None), shard(3, None)];
        assert_eq!(ended_by_time(&shards), "");
        shards[1]["ended_early"] = true.into();
        assert_eq!(ended_by_time(&shards), " (ended by the time: 2)");
    }

    #[test]
    fn an_injection_that_one_shard_met_is_met() {
        let of = |never: &[&str]| json!({ "never_met": never });
        assert_eq!(never_met(&[of(&["a", "b"]), of(&["b", "c"])]), [&json!("b")]);
    }

    #[test]
    fn runs_in_which_a_moment_came_add_up() {
        let of = |runs: u64| json!({ "moments": { "r-2": { "binds overtaken": runs } } });
        assert_eq!(moments(&[of(2), of(3), json!({})]), json!({ "r-2": { "binds overtaken": 5 } }));
    }

    #[test]
    fn what_does_not_belong_together_is_refused() {
        let other = |field: &str, value: Value| {
            let mut shard = shard(3, None);
            shard[field] = value;
            shard
        };
        let cases = [
            (shard(2, None), "part 2 of 3 is there twice"),
            (other("behaviour", json!("a=upstream")), "'behaviour' is"),
            (other("texts", json!("1")), "'texts' is"),
            (other("version", json!("2")), "'version' is"),
            (other("shard", json!([3, 4])), "one is of 3 parts, one of 4"),
            (other("shard", json!(["x", 3])), "where a number belongs"),
        ];
        for (third, expected) in cases {
            let error = join(&[shard(1, None), shard(2, None), third]).expect_err(expected).to_string();
            assert!(error.contains(expected), "{error}");
        }
        assert!(
            join(&[shard(1, None), shard(3, None)])
                .expect_err("one is missing")
                .to_string()
                .contains("part 2 of 3 is missing")
        );
    }
}
