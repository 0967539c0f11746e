//! Comparing: the tree's engine and another one do the same acts, one after the other, and what can be seen of them must be the same.
//!
//! The runner tells a hash a seed; only of a seed whose hashes differ are both told line by line, up to the first that differs.
//!
//! Key types: [`Compared`], [`Difference`].

use crate::explore::{Played, line, why_not_judged};
use crate::places::Places;
use crate::runner::play_with;
use crate::verdict::Outcome;
use crate::workshop::{Built, Workshop};
use anyhow::{Result, bail};
use kface::acts::{Act, acts};
use kface::stream::{Line, Stream};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

pub use kface::{acts, stream};

/// Differences of other kinds are counted and not told.
const MOST_KINDS: usize = 16;
/// Seeds that are played again to see which kind theirs is.
const MOST_LOOKED_AT: u64 = 400;

/// Another engine: what is seen of it while it does these acts.
pub type Other<'a> = &'a dyn Fn(&[Act]) -> Result<Stream>;

/// What is asked for.
pub struct Comparison<'a> {
    /// Of [`acts::SCENES`].
    pub scene: &'a str,
    /// Tiles of the device.
    pub tiles: u8,
    /// Seeds.
    pub seeds: Range<u64>,
    /// Whether to go on behind the first difference.
    pub all: bool,
}

/// The first line that differs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// The seed of the first that has it.
    pub seed: u64,
    /// Seeds that have it, of those that were looked at.
    pub seeds: u64,
    /// The act after which it is, and what both saw alike of it.
    pub before: Vec<Line>,
    /// The tree's line; none where it is at its end.
    pub theirs: Option<Line>,
    /// The other engine's.
    pub ours: Option<Line>,
}

/// What a comparison came to.
#[derive(Default)]
pub struct Compared {
    /// Seeds that both played.
    pub seeds: u64,
    /// Seeds with a difference.
    pub different: u64,
    /// Differences, one of each kind.
    pub differences: Vec<Difference>,
    /// What kept seeds from being compared, with seeds.
    pub not_judged: BTreeMap<String, u64>,
    /// What the tree's run says beside what is compared (warnings and the like), with seeds.
    pub said: BTreeMap<String, u64>,
}

impl Compared {
    /// What this says: a difference, or what the tree's run says beside, is a finding.
    pub fn outcome(&self) -> Outcome {
        match (self.different == 0 && self.said.is_empty(), self.not_judged.is_empty()) {
            (false, _) => Outcome::Found,
            (true, true) => Outcome::Clean,
            (true, false) => Outcome::NotJudged,
        }
    }

    /// Lines for programs: one a difference, one a thing that the tree's run says beside, one a reason that kept seeds from being
    /// compared, the last of all seeds. `about` is what all of them have, an object.
    pub fn json(&self, about: &Value) -> Vec<Value> {
        let side = |line: &Option<Line>| line.as_ref().map(|line| json!({"text": line.text, "at": line.at}));
        let differs = self.differences.iter().map(|one| {
            let before: Vec<&str> = one.before.iter().map(|line| line.text.as_str()).collect();
            line(about, Outcome::Found, json!({
                "seed": one.seed, "seeds": one.seeds, "before": before, "theirs": side(&one.theirs), "ours": side(&one.ours),
            }))
        });
        let said = self.said.iter();
        let said = said.map(|(what, seeds)| line(about, Outcome::Found, json!({"evidence": what, "seeds": seeds})));
        let left = self.not_judged.iter();
        let left = left.map(|(why, seeds)| line(about, Outcome::NotJudged, json!({"evidence": why, "seeds": seeds})));
        let all = line(about, self.outcome(), json!({"compared": self.seeds, "different": self.different}));
        differs.chain(said).chain(left).chain([all]).collect()
    }
}

/// The first difference of two streams.
pub fn first_difference(seed: u64, theirs: &[Line], ours: &[Line]) -> Option<Difference> {
    let most = theirs.len().max(ours.len());
    let text = |lines: &[Line], at: usize| lines.get(at).map(|line| line.text.clone());
    let at = (0..most).find(|at| text(theirs, *at) != text(ours, *at))?;
    let act = theirs[..at.min(theirs.len())].iter().rposition(|line| !line.text.starts_with(' ')).unwrap_or(0);
    let before = theirs[act..at.min(theirs.len())].to_vec();
    Some(Difference { seed, seeds: 1, before, theirs: theirs.get(at).cloned(), ours: ours.get(at).cloned() })
}

impl Difference {
    /// The same for differences that are alike: numbers do not count.
    fn kind(&self) -> String {
        let lines = [self.before.first(), self.theirs.as_ref(), self.ours.as_ref()];
        let words = lines.map(|line| line.map_or("", |line| line.text.as_str())).join(" | ");
        let words = words.split_ascii_whitespace().filter(|word| !word.starts_with("0x"));
        let text: String = words.collect::<Vec<_>>().join(" ");
        text.chars().filter(|letter| !letter.is_ascii_digit() && !":.".contains(*letter)).collect()
    }
}

/// Whether there is a scene of that name.
pub fn known(scene: &str) -> Result<()> {
    if !acts::SCENES.contains(&scene) {
        bail!("there is no scene {scene:?} to compare; there are {}", acts::SCENES.join(", "));
    }
    Ok(())
}

impl Workshop {
    /// Compares.
    pub fn compare(&self, built: &Built, asked: &Comparison<'_>, other: Other<'_>) -> Result<Compared> {
        known(asked.scene)?;
        let mut compared = Compared::default();
        let (mut kinds, mut said) = (BTreeMap::new(), BTreeMap::<String, BTreeSet<u64>>::new());
        let scene = format!("diff-{}", asked.scene);
        let played = Played { scene: &scene, number: asked.tiles.into(), seeds: &asked.seeds, words: &["serial"] };
        let done = self.play_seeds(built, &played, |event| {
            // What ends a runner, and not a run, has no seed.
            if let Some(why) = why_not_judged(&event) {
                *compared.not_judged.entry(why).or_default() += 1;
                return Ok(());
            }
            let Some(seed) = event["seed"].as_u64() else { return Ok(()) };
            if event["event"] != "stream" {
                let what = crate::explore::text_of(&event, &Places::default());
                said.entry(what).or_default().insert(seed);
            } else {
                compared.seeds += 1;
                let ours = other(&acts(asked.scene, asked.tiles, seed))?;
                if event["hash"] != format!("{:016x}", ours.hash()) {
                    compared.different += 1;
                    if compared.different <= MOST_LOOKED_AT {
                        self.look(built, &scene, asked.tiles, seed, &ours, &mut kinds)?;
                    }
                    if !asked.all {
                        bail!(Enough);
                    }
                }
            }
            Ok(())
        });
        match done {
            Err(error) if error.is::<Enough>() => {}
            done => done?,
        }
        let silent = (asked.seeds.end - asked.seeds.start).saturating_sub(compared.seeds);
        if silent > 0 && (asked.all || compared.different == 0) {
            compared.not_judged.insert("the runner told nothing of these".to_owned(), silent);
        }
        compared.said = said.into_iter().map(|(what, seeds)| (what, seeds.len() as u64)).collect();
        compared.differences = kinds.into_values().collect();
        compared.differences.sort_by_key(|difference: &Difference| difference.seed);
        Ok(compared)
    }

    fn look(
        &self,
        built: &Built,
        scene: &str,
        tiles: u8,
        seed: u64,
        ours: &Stream,
        kinds: &mut BTreeMap<String, Difference>,
    ) -> Result<()> {
        let words = [tiles.to_string(), seed.to_string(), (seed + 1).to_string(), "1".to_owned()];
        let words = [&words[..], &["serial".to_owned(), "trace".to_owned()]].concat();
        let facts = play_with(&built.runner, scene, &words, self.stop())?;
        let places = Places::of(&built.runner);
        let seen = facts.events.iter().filter(|event| event["event"] == "seen");
        let theirs: Vec<Line> = seen
            .map(|event| {
                let at = event["from"].as_str().and_then(|at| u64::from_str_radix(at, 16).ok());
                let text = event["text"].as_str().unwrap_or("").to_owned();
                Line { text, at: at.map_or(String::new(), |at| places.at(at)) }
            })
            .collect();
        if theirs.is_empty() {
            let why = facts.events.iter().rev().find(|event| event["seed"] == seed).map(Value::to_string);
            bail!("seed {seed} was played again and told nothing: {}", why.unwrap_or_default());
        }
        let Some(difference) = first_difference(seed, &theirs, ours.lines()) else {
            bail!("seed {seed} differs, and played again it does not: the runner is not to be trusted")
        };
        match kinds.get_mut(&difference.kind()) {
            Some(known) => {
                known.seeds += 1;
                if seed < known.seed {
                    *known = Difference { seeds: known.seeds, ..difference };
                }
            }
            None => {
                if kinds.len() < MOST_KINDS {
                    kinds.insert(difference.kind(), difference);
                }
            }
        }
        Ok(())
    }
}

/// The first difference was found, and no other is wanted.
#[derive(Debug)]
struct Enough;

impl std::fmt::Display for Enough {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a difference was found")
    }
}

impl std::error::Error for Enough {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_line_that_differs_is_told_with_its_act() {
        let line = |text: &str| Line { text: text.to_owned(), at: String::new() };
        let theirs = [line("a"), line("  1"), line("b"), line("  2"), line("  3")];
        let mut ours = theirs.to_vec();
        assert_eq!(first_difference(4, &theirs, &ours), None);
        ours[4].text = "  4".to_owned();
        let difference = first_difference(4, &theirs, &ours).expect("one");
        assert_eq!(difference.before, theirs[2..4]);
        assert_eq!((difference.theirs, difference.ours), (Some(line("  3")), Some(line("  4"))));
        let shorter = first_difference(4, &theirs, &theirs[..4]).expect("one");
        assert_eq!((shorter.theirs, shorter.ours), (Some(line("  3")), None));
    }
}
