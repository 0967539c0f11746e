//! Exploring: scenes with several tasks under seeded schedules, by as many processes as there are processors.
//!
//! A run that comes to something that is not modelled is counted apart and is no verdict; a search that did not come to the
//! places that its scene is about is not clean.

#![allow(clippy::disallowed_methods, reason = "it waits for other processes, and no checker schedules that")]

use crate::judge::GRADE;
use crate::places::Places;
use crate::verdict::Outcome;
use crate::workshop::{Built, Workshop};
use anyhow::{Context, Result, bail};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader};
use std::ops::Range;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// A scene, and the places that it must have come to.
pub struct Scene {
    /// Its name.
    pub name: &'static str,
    /// What its tasks do.
    pub about: &'static str,
    places: &'static [&'static str],
}

const BACK: &str = "a CPU fault migrated a page back";
/// Where a VM's lock is held alone, the second one waits for it.
const AT_ONCE: &str = "a fault came while another was served";
const CHANGED: &str = "memory changed while a fault was served";

/// All scenes.
pub const SCENES: &[Scene] = &[
    Scene { name: "faults", about: "two fault workers and a CPU writer on one block", places: &[BACK, AT_ONCE] },
    Scene {
        name: "munmap",
        about: "the end of a block is unmapped while faults of its beginning are served",
        places: &[CHANGED, "a tile touched memory that is gone"],
    },
    Scene {
        name: "evict",
        about: "buffers are evicted while a tile and the CPU write",
        places: &[BACK, "a buffer was evicted", CHANGED],
    },
    Scene {
        name: "cpufault",
        about: "two CPU threads migrate pages back that a tile takes away again",
        places: &[BACK, "a fault waited for a page that moves"],
    },
    Scene {
        name: "gc",
        about: "a whole block is unmapped and mapped again, ranges are collected, faults go on",
        places: &["what was unmapped waits for the collector", AT_ONCE],
    },
    Scene {
        name: "fork",
        about: "the process forks while a tile and the CPU write and buffers are evicted; the child has what was there then",
        places: &[
            "the process forked while a fault was served",
            "the process forked while a page was in VRAM",
            "the process forked while a page moved",
            "a tile stored after the fork",
        ],
    },
    Scene {
        name: "late",
        about: "fences signal late: the queue of copies and page tables has others' work, buffers are cleared in their turn",
        places: &[BACK, CHANGED, "a queue was busy when it was asked", "a job waited for what it depends on"],
    },
    Scene {
        name: "mixed",
        about: "a page of a block in VRAM is dropped and stored anew, while tiles go on in the others",
        places: &[AT_ONCE, CHANGED, "a block was in VRAM but for a page"],
    },
    Scene {
        name: "queue",
        about: "two VMs of a process, whose faults two workers of the driver's own queue serve, and a CPU writer",
        places: &[BACK, "two workers served faults at once"],
    },
    Scene {
        name: "close",
        about: "a VM is closed while its faults wait and are served; what it took is counted behind it",
        places: &[
            "a VM was closed while a fault was served",
            "a fault met a VM that is closed",
            "what a VM took was counted when it was gone",
        ],
    },
    Scene {
        name: "glue",
        about: "the glue itself: what it finds is a lie of ours",
        places: &["all promises were looked at"],
    },
    Scene {
        name: "memory",
        about: "what the memory promises an engine, a case a seed: an answer that is not in the table is a lie of ours",
        places: &["a case was played to its end"],
    },
];

/// What is asked for.
pub struct Search<'a> {
    /// Of [`SCENES`].
    pub scene: &'a str,
    /// Tiles of the device.
    pub tiles: u64,
    /// Seeds.
    pub seeds: Range<u64>,
    /// Whether to go on behind the first finding.
    pub all: bool,
    /// What is a scheduling point beside the glue's calls.
    pub points: Accesses,
}

/// Accesses of watched code that are scheduling points.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Accesses {
    /// Of those with READ_ONCE or WRITE_ONCE one in eight, drawn by the seed.
    #[default]
    Marked,
    /// Each, marked or not.
    Every,
}

impl Accesses {
    /// The runner's word for it.
    pub(crate) fn word(self) -> Option<&'static str> {
        (self == Self::Every).then_some("every")
    }
}

/// Runs that found the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// What, in one line.
    pub text: String,
    /// Runs.
    pub runs: u64,
    /// The lowest seed.
    pub seed: u64,
    /// The seeds of them: a run that tells it again is one run, whoever told something between.
    seeds: BTreeSet<u64>,
}

/// What exploring never says.
pub const LIMITS: &str = "GPU reset, firmware, weak memory, allocations that fail";

/// What a search came to.
#[derive(Default)]
pub struct Explored {
    /// Runs.
    pub runs: u64,
    /// Scheduling points of all of them.
    pub points: u64,
    /// What was found, by its text.
    pub found: Vec<Finding>,
    /// What kept runs from being judged, with runs.
    pub not_judged: BTreeMap<String, u64>,
    /// Places, and runs that came there.
    pub reached: BTreeMap<String, u64>,
    /// Places that no run came to.
    pub missed: Vec<&'static str>,
}

impl Explored {
    /// What this says.
    pub fn outcome(&self) -> Outcome {
        match (self.found.is_empty(), self.not_judged.is_empty() && self.missed.is_empty()) {
            (false, _) => Outcome::Found,
            (true, true) => Outcome::Clean,
            (true, false) => Outcome::NotJudged,
        }
    }

    /// Lines for programs: one a finding, one a reason that kept runs from being judged, the last of the whole search. `about` is
    /// what all of them have, an object.
    pub fn json(&self, about: &Value) -> Vec<Value> {
        let found = self.found.iter().map(|finding| {
            line(about, Outcome::Found, json!({"evidence": finding.text, "runs": finding.runs, "seed": finding.seed}))
        });
        let left = self.not_judged.iter();
        let left = left.map(|(why, runs)| line(about, Outcome::NotJudged, json!({"evidence": why, "runs": runs})));
        let all = json!({
            "schedules": self.runs, "points": self.points, "reached": self.reached, "missed": self.missed, "not_judged": LIMITS,
        });
        found.chain(left).chain([line(about, self.outcome(), all)]).collect()
    }

    /// Adds a line of a runner's.
    fn add(&mut self, event: &Value, places: &Places) {
        if event["event"] == "explored" {
            self.runs += event["runs"].as_u64().unwrap_or(0);
            self.points += event["points"].as_u64().unwrap_or(0);
            for (place, runs) in event["reached"].as_object().into_iter().flatten() {
                *self.reached.entry(place.clone()).or_default() += runs.as_u64().unwrap_or(0);
            }
            return;
        }
        // What ends a runner, and not a run, has no seed.
        match (why_not_judged(event), event["seed"].as_u64()) {
            (Some(why), _) => *self.not_judged.entry(why).or_default() += 1,
            (None, Some(seed)) => self.find(text_of(event, places), seed),
            (None, None) => {}
        }
    }

    fn find(&mut self, text: String, seed: u64) {
        match self.found.iter_mut().find(|finding| finding.text == text) {
            Some(finding) => {
                finding.runs += u64::from(finding.seeds.insert(seed));
                finding.seed = finding.seed.min(seed);
            }
            None => self.found.push(Finding { text, runs: 1, seed, seeds: BTreeSet::from([seed]) }),
        }
    }
}

pub(crate) fn why_not_judged(event: &Value) -> Option<String> {
    match event["event"].as_str()? {
        "not_modelled" => Some(format!("not modelled: {}", event["symbol"].as_str()?)),
        "gave_up" => Some(event["why"].as_str()?.to_owned()),
        "killed" if event["signal"].as_i64().is_some_and(|signal| FROM_OUTSIDE.contains(&signal)) => {
            Some(format!("a run was ended from outside, by signal {}", event["signal"]))
        }
        _ => None,
    }
}

/// Two objects, put together.
pub(crate) fn with(about: &Value, more: &Value) -> Value {
    let fields = |value: &Value| value.as_object().cloned().unwrap_or_default();
    Value::Object([about, more].into_iter().flat_map(fields).collect())
}

/// A line for programs that says something: what all lines have, an outcome with its grade, and more.
pub(crate) fn line(about: &Value, outcome: Outcome, more: Value) -> Value {
    with(&with(about, &json!({"outcome": outcome.word(), "grade": GRADE})), &more)
}

/// SIGINT, SIGKILL (of memory that is short, too), SIGALRM, SIGTERM: they say nothing of the code.
const FROM_OUTSIDE: &[i64] = &[2, 9, 14, 15];

/// A finding in one line, the same for the same cause.
pub(crate) fn text_of(event: &Value, places: &Places) -> String {
    let text = |field: &str| event[field].as_str().unwrap_or("?").to_owned();
    let place = |field: &str| event[field].as_u64().map_or(text(field), |ip| places.at(ip));
    let kind = text("event");
    match kind.as_str() {
        "warn" | "bug" => {
            let file = text("file").rsplit('/').next().unwrap_or("?").to_owned();
            format!(
                "{} {file}:{} {}",
                kind.to_uppercase(),
                event["line"],
                text("text").lines().next().unwrap_or("").trim()
            )
            .trim_end()
            .to_owned()
        }
        "lock_order" => {
            format!("lock order: {} is taken under {}, and they were taken the other way", text("taken"), text("under"))
        }
        "leak" if event["ip"].is_u64() => {
            let how = match event["holder"].as_u64() {
                Some(0) | None => "nothing leads there any more".to_owned(),
                Some(holder) => format!("held by what was asked for at {}", places.at(holder)),
            };
            format!("leak: {} bytes that were asked for at {}, {how}", event["bytes"], place("ip"))
        }
        "leak" => format!("leak: {} {}", event["count"], text("what")),
        "unfilled_fences" => {
            format!("an array of {} fences has {} filled in, {}", event["counted"], event["filled"], place("ip"))
        }
        "use_after_free" => format!("use after free: {} {}", place("ip"), text("what")),
        "crash" if event["poison"].is_string() => {
            format!("the kernel's code follows a pointer out of memory that is {}, at {}", text("poison"), place("ip"))
        }
        "crash" => format!("the kernel's code dies of an access to {}, at {}", text("address"), place("ip")),
        "killed" => format!("the run ends by signal {}", event["signal"]),
        "finding" => match text("text") {
            text if text.contains("is refused") || text.ends_with("is answered") => {
                format!("{text}: errno {}", event["value"].as_u64().unwrap_or(0) as i64)
            }
            text => text,
        },
        "deadlock" | "livelock" => format!("{kind}: {}", text("text")),
        "sleep_in_atomic" => format!("sleeps where it must not: {}", text("where")),
        "unlock_of_free_lock" | "ends_with_lock" => format!("{}: {}", kind.replace('_', " "), text("lock")),
        _ => kind.replace('_', " "),
    }
}

/// A runner at work; ended when this is dropped.
struct Worker(Child);

impl Drop for Worker {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Schedules for a runner: a scene, a number for it, seeds, and more words.
pub(crate) struct Played<'a> {
    pub(crate) scene: &'a str,
    pub(crate) number: u64,
    pub(crate) seeds: &'a Range<u64>,
    pub(crate) words: &'a [&'a str],
}

impl Workshop {
    /// Plays seeds in as many processes as there are processors, and gives away what they tell.
    pub(crate) fn play_seeds(
        &self,
        built: &Built,
        played: &Played<'_>,
        mut take: impl FnMut(Value) -> Result<()>,
    ) -> Result<()> {
        let jobs = std::thread::available_parallelism().map_or(1, usize::from) as u64;
        let (lines, all_lines) = std::sync::mpsc::channel();
        let mut workers = Vec::new();
        let Range { start, end } = *played.seeds;
        for job in 0..jobs.min(end.saturating_sub(start)) {
            let mut command = Command::new(&built.runner);
            let numbers = [played.number, start + job, end, jobs];
            command.arg(played.scene).args(numbers.map(|number| number.to_string())).args(played.words);
            command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
            let mut child = command.spawn().with_context(|| format!("cannot start {}", built.runner.display()))?;
            let output = child.stdout.take().context("the runner has an output")?;
            workers.push(Worker(child));
            let lines = lines.clone();
            std::thread::spawn(move || {
                let read = BufReader::new(output).lines().map_while(Result::ok);
                read.filter_map(|line| serde_json::from_str::<Value>(&line).ok())
                    .try_for_each(|event| lines.send(event))
                    .is_ok()
            });
        }
        drop(lines);
        loop {
            match all_lines.recv_timeout(Duration::from_millis(100)) {
                Ok(event) => take(event)?,
                Err(std::sync::mpsc::RecvTimeoutError::Timeout) => self.stop().check()?,
                Err(std::sync::mpsc::RecvTimeoutError::Disconnected) => break,
            }
        }
        for worker in &mut workers {
            let status = worker.0.wait()?;
            // One that says why it gives up ends so, too.
            if !status.success() {
                take(json!({"event": "gave_up", "why": format!("a runner ends early, {status}")}))?;
            }
        }
        Ok(())
    }

    /// Explores.
    pub fn explore(&self, built: &Built, search: &Search<'_>) -> Result<Explored> {
        let scene = scene(search.scene)?;
        let places = Places::of(&built.runner);
        let stop = (!search.all).then_some("stop");
        let words: Vec<&str> = stop.into_iter().chain(search.points.word()).collect();
        let played = Played { scene: scene.name, number: search.tiles, seeds: &search.seeds, words: &words };
        let mut explored = Explored::default();
        self.play_seeds(built, &played, |event| {
            explored.add(&event, &places);
            Ok(())
        })?;
        let missed = |place: &&&str| explored.reached.get(**place).copied().unwrap_or(0) == 0;
        explored.missed = scene.places.iter().filter(missed).copied().collect();
        Ok(explored)
    }
}

/// The scene of a name.
pub fn scene(name: &str) -> Result<&'static Scene> {
    match SCENES.iter().find(|scene| scene.name == name) {
        Some(scene) => Ok(scene),
        None => {
            let names: Vec<&str> = SCENES.iter().map(|scene| scene.name).collect();
            bail!("there is no scene {name:?}; there are {}", names.join(", "))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn explored(events: &[Value]) -> Explored {
        let mut explored = Explored::default();
        events.iter().for_each(|event| explored.add(event, &Places::default()));
        explored
    }

    #[test]
    fn the_same_finding_is_one_with_its_lowest_seed() {
        let warn =
            |seed: u64| json!({"event": "warn", "file": "drivers/x/xe_pt.c", "line": 620, "text": "", "seed": seed});
        // Another process tells of its run in the middle of the first.
        let found = explored(&[warn(9), warn(4), warn(9), warn(4)]).found;
        let seeds = BTreeSet::from([4, 9]);
        assert_eq!(found, [Finding { text: "WARN xe_pt.c:620".to_owned(), runs: 2, seed: 4, seeds }]);
    }

    #[test]
    fn what_is_not_modelled_is_counted_apart_and_never_found() {
        let explored = explored(&[json!({"event": "not_modelled", "symbol": "irq_work_queue", "seed": 3})]);
        assert_eq!(explored.outcome(), Outcome::NotJudged);
        assert_eq!(explored.not_judged["not modelled: irq_work_queue"], 1);
    }

    #[test]
    fn a_run_that_somebody_else_ended_is_not_judged() {
        let killed = |signal: u32| explored(&[json!({"event": "killed", "signal": signal, "seed": 3})]).outcome();
        assert_eq!([2, 9, 14, 15].map(killed), [Outcome::NotJudged; 4]);
        assert_eq!(killed(11), Outcome::Found);
    }

    #[test]
    fn a_search_that_missed_its_place_is_not_clean() {
        let missed = Explored { runs: 10, missed: vec![BACK], ..Explored::default() };
        assert_eq!(missed.outcome(), Outcome::NotJudged);
        assert_eq!(Explored { runs: 10, ..Explored::default() }.outcome(), Outcome::Clean);
    }
}
