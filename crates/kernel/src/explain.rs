//! Explaining: one schedule, step by step, in columns by actor, each step with the kernel's own file and line.

use crate::explore::{Accesses, scene, text_of, why_not_judged, with};
use crate::places::Places;
use crate::runner::play_with;
use crate::workshop::{Built, Workshop};
use anyhow::Result;
use serde_json::{Value, json};
use std::ops::Range;

/// Width of a column.
const WIDTH: usize = 34;

/// Whose a line is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Whose {
    /// A step of an actor, by number.
    Actor(usize),
    /// What the run noticed beside.
    Run,
    /// What it found.
    Finding,
    /// Why it says nothing.
    NotJudged,
}

/// A schedule, told.
pub struct Told {
    /// Names of the actors, in the order of their first step.
    pub actors: Vec<String>,
    /// What happened, in order.
    pub steps: Vec<(Whose, String)>,
    /// Scheduling points, and a hash over who came to which.
    pub run: Option<(u64, String)>,
}

impl Told {
    /// Lines for people: a step of an actor in its column, what the run noticed across.
    pub fn lines(&self) -> Vec<String> {
        let line = |(whose, text): &(Whose, String)| match whose {
            Whose::Actor(column) => format!("{:width$}{text}", "", width = column * WIDTH),
            Whose::Run => format!("  . {text}"),
            Whose::Finding => format!("!!! {text}"),
            Whose::NotJudged => format!("!!! NOT JUDGED: {text}"),
        };
        self.steps.iter().map(line).collect()
    }

    /// Lines for programs: one a step, the last of the whole run. `about` is what all of them have, an object.
    pub fn json(&self, about: &Value) -> Vec<Value> {
        let kind = |whose| match whose {
            Whose::Actor(_) => "step",
            Whose::Run => "noticed",
            Whose::Finding => "found",
            Whose::NotJudged => "not judged",
        };
        let step = |(whose, text): &(Whose, String)| {
            let actor = if let Whose::Actor(number) = whose { self.actors.get(*number) } else { None };
            with(about, &json!({"kind": kind(*whose), "actor": actor, "text": text}))
        };
        let (points, hash) = self.run.clone().unzip();
        let run = with(about, &json!({"kind": "run", "actors": self.actors, "points": points, "hash": hash}));
        self.steps.iter().map(step).chain([run]).collect()
    }
}

impl Workshop {
    /// Plays these seeds, one after the other in one process, and tells the last. Steps that repeat the one before are left out.
    pub fn explain(&self, built: &Built, name: &str, tiles: u64, seeds: Range<u64>, points: Accesses) -> Result<Told> {
        let seed = seeds.end.saturating_sub(1);
        let numbers = [tiles, seeds.start, seeds.end, 1].map(|number| number.to_string());
        let more = ["trace"].into_iter().chain(points.word()).map(str::to_owned);
        let words: Vec<String> = numbers.into_iter().chain(more).collect();
        let mut facts = play_with(&built.runner, scene(name)?.name, &words, self.stop())?;
        facts.events.retain(|event| event["seed"] == seed);
        let places = Places::of(&built.runner);
        places.learn(facts.events.iter().filter_map(|event| event["ip"].as_u64()));
        Ok(tell(&facts.events, &places))
    }
}

fn tell(events: &[Value], places: &Places) -> Told {
    let mut told = Told { actors: Vec::new(), steps: Vec::new(), run: None };
    let mut last = None;
    for event in events {
        let text = |field: &str| event[field].as_str().unwrap_or("").to_owned();
        match event["event"].as_str() {
            Some("point") => {
                let actor = format!("{} ({})", text("task"), event["serial"]);
                let column = told.actors.iter().position(|known| *known == actor).unwrap_or_else(|| {
                    told.actors.push(actor);
                    told.actors.len() - 1
                });
                let place = event["ip"].as_u64().map_or(String::new(), |ip| places.at(ip));
                let step = [text("what"), text("object").trim_start_matches('&').to_owned(), place];
                let step = step.into_iter().filter(|word| !word.is_empty()).collect::<Vec<_>>().join(" ");
                let step = (Whose::Actor(column), step);
                if last.as_ref() != Some(&step) {
                    told.steps.push(step.clone());
                }
                last = Some(step);
            }
            Some("run") => told.run = event["points"].as_u64().zip(event["hash"].as_str().map(str::to_owned)),
            Some("debug" | "note") => told.steps.push((Whose::Run, text("text").trim().to_owned())),
            Some("job") => {
                told.steps.push((Whose::Run, format!("the copy engine of tile {} is done", event["tile"])));
            }
            Some("step") | None => {}
            Some(_) if why_not_judged(event).is_some() => {
                told.steps.push((Whose::NotJudged, why_not_judged(event).unwrap_or_default()));
            }
            Some(kind) if kind != "killed" && !kface::FINDINGS.contains(&kind) => {
                told.steps.push((Whose::Run, text_of(event, places)));
            }
            Some(_) => told.steps.push((Whose::Finding, text_of(event, places))),
        }
    }
    told
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn each_actor_has_a_column_and_findings_go_across() {
        let point = |task: &str, serial: u64| json!({"event": "point", "task": task, "serial": serial, "what": "down_read", "object": "&mm->mmap_lock", "seed": 1});
        let found = json!({"event": "deadlock", "text": "all wait", "seed": 1});
        let run = json!({"event": "run", "points": 2, "hash": "00ff", "seed": 1});
        let not_modelled = json!({"event": "not_modelled", "symbol": "schedule", "seed": 1});
        let events =
            [point("CPU", 4), point("tile 0", 5), found, json!({"event": "device", "seed": 1}), not_modelled, run];
        let told = tell(&events, &Places::default());
        assert_eq!(told.actors, ["CPU (4)", "tile 0 (5)"]);
        let lines = told.lines();
        assert_eq!(lines[0], "down_read mm->mmap_lock");
        assert_eq!(lines[1], format!("{:34}down_read mm->mmap_lock", ""));
        assert_eq!(lines[2..], ["!!! deadlock: all wait", "  . device", "!!! NOT JUDGED: not modelled: schedule"]);
        assert_eq!(told.run, Some((2, "00ff".to_owned())));
        let json = told.json(&json!({"seed": 1}));
        let step = json!({"seed": 1, "kind": "step", "actor": "tile 0 (5)", "text": "down_read mm->mmap_lock"});
        assert_eq!((json.len(), &json[1]), (6, &step));
        assert_eq!((&json[2]["kind"], &json[2]["actor"]), (&json!("found"), &Value::Null));
        let run = json!({"seed": 1, "kind": "run", "actors": ["CPU (4)", "tile 0 (5)"], "points": 2, "hash": "00ff"});
        assert_eq!(json[5], run);
    }
}
