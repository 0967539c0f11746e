//! Judging: scenes for known defects on the tree as it is, and on each state of a series.

use crate::explore::text_of;
use crate::facts::Facts;
use crate::overlay::{Overlay, Patched};
use crate::places::Places;
use crate::runner::play;
use crate::series::{Patch, subsets};
use crate::verdict::{self, Reading};
use crate::workshop::{Built, Points, Workshop};
use anyhow::{Result, bail};
use serde_json::{Value, json};

pub use crate::verdict::Outcome;

/// Where a verdict comes from; it stands in each.
pub const GRADE: &str = "kernel code";
/// What no verdict of this kind says.
pub const LIMITS: &str = "GPU reset, firmware, weak memory, other interleavings than one after the other";
/// Most patches that all subsets are judged of.
const MOST_SUBSETS: usize = 5;
/// Allocations that are made to fail, one a run.
const MOST_ALLOCATIONS: u64 = 64;

/// A known defect and the scene that shows it.
struct Defect {
    id: &'static str,
    title: &'static str,
    read: fn(&Facts) -> Reading,
    /// Kinds of findings that are a part of what it reads.
    own: &'static [&'static str],
}

/// D1 is not in the list: it is one run an allocation.
const DEFECTS: &[Defect] = &[
    Defect { id: "A", title: "cross-tile copy", read: verdict::a, own: &["warn", "stray_write", "malformed_table"] },
    Defect { id: "B", title: "64K VM, one page cut", read: verdict::b, own: &["warn", "malformed_table"] },
    Defect { id: "C", title: "default queue's fence", read: verdict::c, own: &["warn", "unfilled_fences"] },
    Defect { id: "D1", title: "get_pages fails", read: |_| Reading::not_judged("one run an allocation"), own: &[] },
    Defect { id: "D2", title: "half becomes read-only", read: verdict::d2, own: &["endless_retry"] },
    Defect { id: "F", title: "fork, then a GPU store", read: verdict::f, own: &[] },
];

/// What one scene said of one state of the tree.
pub struct Verdict {
    /// The defect's name.
    pub id: &'static str,
    /// In a few words.
    pub title: &'static str,
    /// What was found.
    pub outcome: Outcome,
    /// The evidence, in one line.
    pub evidence: String,
    /// What of the patches it is about.
    pub patched: Patched,
}

impl Verdict {
    /// As a line for people.
    pub fn line(&self) -> String {
        let word = match self.outcome {
            Outcome::Found => "",
            Outcome::Clean => "not found: ",
            Outcome::NotJudged => "NOT JUDGED: ",
        };
        format!("{:<3} {:<24} {word}{}", self.id, self.title, self.evidence)
    }

    /// As a line for programs.
    pub fn json(&self, tree: &str, state: &str) -> Value {
        json!({
            "tree": tree, "state": state, "defect": self.id, "outcome": self.outcome.word(), "evidence": self.evidence,
            "grade": GRADE, "not_judged": LIMITS, "not_compiled": self.patched.not_compiled,
        })
    }
}

/// A state of a series that could not be made, as a line for programs.
pub fn not_made(tree: &str, state: &str, why: &anyhow::Error) -> Value {
    json!({
        "tree": tree, "state": state, "defect": null, "outcome": Outcome::NotJudged.word(), "evidence": format!("{why:#}"),
        "grade": GRADE, "not_judged": LIMITS, "not_compiled": [],
    })
}

/// The names of all defects.
pub fn names() -> impl Iterator<Item = &'static str> {
    DEFECTS.iter().map(|defect| defect.id)
}

/// The defects that were asked for; all where none was. `B-1` is B.
pub fn chosen(asked: &[String]) -> Result<Vec<&'static str>> {
    let find = |name: &String| {
        let name = name.to_ascii_uppercase();
        let name = if name == "B-1" { "B" } else { &name };
        DEFECTS.iter().find(|defect| defect.id == name).map(|defect| defect.id)
    };
    if asked.is_empty() {
        return Ok(names().collect());
    }
    let mut ids = Vec::new();
    for name in asked {
        let Some(id) = find(name) else {
            bail!("there is no scene for {name:?}; there are {}", names().collect::<Vec<_>>().join(", "));
        };
        ids.push(id);
    }
    Ok(ids)
}

/// What a run finds beside what its scene is about, each in one line.
fn beside(built: &Built, facts: &Facts, own: &[&str]) -> Vec<String> {
    let places = Places::of(&built.runner);
    verdict::findings(facts, own).map(|event| text_of(event, &places)).collect()
}

impl Workshop {
    /// What the tree says it is.
    pub fn title(&self) -> String {
        format!("linux {}", self.tree.version)
    }

    /// How many files of the tree are compiled.
    pub fn files(&self) -> usize {
        self.units.len()
    }

    /// Plays the scene of a defect on a runner, and reads its evidence.
    pub fn judge(&self, built: &Built, id: &str) -> Result<Verdict> {
        let Some(defect) = DEFECTS.iter().find(|defect| defect.id == id) else { bail!("there is no scene for {id:?}") };
        let reading = match id {
            "D1" => self.judge_allocations(built)?,
            _ => {
                let facts = play(&built.runner, defect.id, 0, self.stop())?;
                (defect.read)(&facts).beside(&beside(built, &facts, defect.own), &facts)
            }
        };
        let Reading { outcome, evidence } = reading;
        Ok(Verdict { id: defect.id, title: defect.title, outcome, evidence, patched: built.patched.clone() })
    }

    /// Makes each allocation of a fault fail, one a run.
    fn judge_allocations(&self, built: &Built) -> Result<Reading> {
        let (mut clean, mut found, mut lost): (u32, Vec<String>, Vec<String>) = (0, Vec::new(), Vec::new());
        let mut are_all = false;
        for allocation in 0..MOST_ALLOCATIONS {
            let facts = play(&built.runner, "D1", allocation, self.stop())?;
            let beside = beside(built, &facts, &[]);
            let Some(reading) = verdict::d1(&facts) else {
                found.extend(beside);
                match facts.unjudged() {
                    Some(why) => lost.push(why),
                    None if allocation == 0 && found.is_empty() => {
                        return Ok(Reading::not_judged("no allocation was made".to_owned()));
                    }
                    None => {}
                }
                are_all = true;
                break;
            };
            let reading = reading.beside(&beside, &facts);
            match reading.outcome {
                Outcome::Found => found.push(reading.evidence),
                Outcome::Clean => clean += 1,
                Outcome::NotJudged => lost.push(reading.evidence),
            }
        }
        if !are_all {
            lost.push(format!("there are more than {MOST_ALLOCATIONS} allocations"));
        }
        let rest = format!("{clean} other allocations: answered as they should");
        let unjudged = if lost.is_empty() { String::new() } else { format!("; {} not judged", lost.len()) };
        Ok(match (found.is_empty(), lost.first()) {
            (false, _) => {
                Reading { outcome: Outcome::Found, evidence: format!("{}; {rest}{unjudged}", found.join("; ")) }
            }
            (true, Some(first)) => Reading::not_judged(format!("{first}; {rest}{unjudged}")),
            (true, None) => Reading {
                outcome: Outcome::Clean,
                evidence: format!("{clean} allocations fail, each answered as it should"),
            },
        })
    }

    /// Judges each state of a series: patch by patch, each with those before it, and then, if wanted, each subset. `told` is given
    /// a state's name and what was found, or why it could not be made.
    pub fn judge_series(
        &self,
        series: &[Patch],
        all_subsets: bool,
        ids: &[&'static str],
        mut told: impl FnMut(&str, Result<Vec<Verdict>>),
    ) -> Result<()> {
        if all_subsets && series.len() > MOST_SUBSETS {
            bail!("--subsets is for up to {MOST_SUBSETS} patches, and this series has {}", series.len());
        }
        for last in 0..series.len() {
            let patches: Vec<&Patch> = series[..=last].iter().collect();
            let name = format!("patch {}/{} {}", last + 1, series.len(), series[last].subject);
            told(&name, self.judge_state(&patches, ids));
            self.stop().check()?;
        }
        let prefix = |subset: &Vec<usize>| subset.iter().enumerate().all(|(at, number)| at == *number);
        let others = subsets(if all_subsets { series.len() } else { 0 });
        for subset in others.iter().filter(|subset| !prefix(subset)) {
            let patches: Vec<&Patch> = subset.iter().map(|&at| &series[at]).collect();
            let numbers: Vec<String> = subset.iter().map(|at| (at + 1).to_string()).collect();
            told(&format!("only {}", numbers.join(" + ")), self.judge_state(&patches, ids));
            self.stop().check()?;
        }
        Ok(())
    }

    fn judge_state(&self, patches: &[&Patch], ids: &[&'static str]) -> Result<Vec<Verdict>> {
        let overlay = Overlay::new(self, patches)?;
        let built = self.link_with(Some(&overlay), Points::Calls)?;
        ids.iter().map(|id| self.judge(&built, id)).collect()
    }
}
