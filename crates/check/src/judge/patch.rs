//! The posted patch, switch by switch: which of its nine changes are needed, which do harm, which do nothing.
//!
//! A subset of the switches is a list of behaviours on top of `patch=none`. Switches that change no rule leave the driver as it is,
//! so that the subsets which differ in such only are one and the same driver: each driver is judged once, and stands for all of
//! its subsets. Nothing else is left out.

use super::{Cell, Grade, Question, by_two_threads, cell};
use crate::script::Script;
use machine::behaviour::{VARIANTS, Variant};
use std::sync::Arc;

/// The key of its switches.
const KEY: &str = "patch";
/// What they are put on.
const BASE: &str = "none";

/// What the patch as a whole, and each part of it, comes to.
pub struct Verdicts {
    /// Names of the scenes.
    pub scenes: Vec<String>,
    /// The switches, in the order of the patch.
    pub switches: Vec<&'static Variant>,
    /// The switches that change a rule, as numbers among [`Self::switches`].
    deciding: Vec<usize>,
    /// A cell for each driver (a subset of the deciding switches, a bit each) and scene.
    pub cells: Vec<Vec<Cell>>,
}

/// A subset of the switches: a bit each.
pub type Subset = usize;

/// What a switch does to the patch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Role {
    /// Scenes that come out worse without it than with all.
    pub needed: Vec<String>,
    /// Scenes that come out worse with it, by the smallest subset that it makes worse.
    pub harmful: Vec<(Subset, String, Grade, Grade)>,
    /// No verdict changes with it, whatever else is there.
    pub redundant: bool,
    /// No run goes otherwise with it, whatever else is there.
    pub dead: bool,
}

/// The switches.
pub fn switches() -> Vec<&'static Variant> {
    VARIANTS.iter().filter(|variant| variant.key == KEY && variant.name != BASE).collect()
}

/// A subset as a list of behaviours.
pub fn behaviours(switches: &[&Variant], subset: Subset) -> String {
    let chosen = switches.iter().enumerate().filter(|(n, _)| subset >> n & 1 == 1);
    chosen.fold(format!("{KEY}={BASE}"), |list, (_, switch)| format!("{list},{KEY}={}", switch.name))
}

/// Judges every subset by these scenes.
pub fn judge(scripts: &[Arc<Script>], like: &Question) -> Verdicts {
    let switches = switches();
    let deciding: Vec<usize> = (0..switches.len()).filter(|&n| switches[n].changes_a_rule()).collect();
    let lists: Vec<String> =
        (0..1usize << deciding.len()).map(|driver| behaviours(&switches, spread(driver, &deciding))).collect();
    let columns = scripts.len().max(1);
    let cells = by_two_threads(lists.len() * scripts.len(), like.tick, |n| {
        let (script, behaviours) = (scripts[n % columns].clone(), lists[n / columns].clone());
        cell(&Question { script, behaviours, ..like.clone() })
    });
    let scenes = scripts.iter().map(|script| script.name.clone()).collect();
    Verdicts { scenes, switches, deciding, cells: cells.chunks(columns).map(<[Cell]>::to_vec).collect() }
}

/// The subset with these deciding switches.
fn spread(driver: usize, deciding: &[usize]) -> Subset {
    deciding.iter().enumerate().filter(|(bit, _)| driver >> bit & 1 == 1).fold(0, |subset, (_, n)| subset | 1 << n)
}

impl Verdicts {
    /// How many subsets there are.
    pub fn subsets(&self) -> usize {
        1 << self.switches.len()
    }

    /// All switches.
    pub fn all(&self) -> Subset {
        self.subsets() - 1
    }

    /// The cells of a subset, by scene.
    pub fn row(&self, subset: Subset) -> &[Cell] {
        let driver = self.deciding.iter().enumerate().fold(0, |driver, (bit, n)| driver | (subset >> n & 1) << bit);
        &self.cells[driver]
    }

    fn grades(&self, subset: Subset) -> impl Iterator<Item = Grade> {
        self.row(subset).iter().map(Cell::grade)
    }

    /// Scenes that come out worse under `then` than under `first`, with both grades.
    fn worse(&self, first: Subset, then: Subset) -> Vec<(String, Grade, Grade)> {
        let both = self.grades(first).zip(self.grades(then)).zip(&self.scenes);
        both.filter(|((a, b), _)| b > a).map(|((a, b), scene)| (scene.clone(), a, b)).collect()
    }

    /// Scenes that fail whatever is chosen, with what all switches make of them.
    pub fn hopeless(&self) -> Vec<(String, Grade)> {
        let fails = |scene: usize| self.cells.iter().all(|row| row[scene].failure.is_some());
        let all = self.grades(self.all()).zip(&self.scenes).enumerate();
        all.filter(|(n, _)| fails(*n)).map(|(_, (grade, scene))| (scene.clone(), grade)).collect()
    }

    /// The smallest subsets under which no scene comes out worse than under all switches: none of them has another one in it.
    pub fn minimal_sufficient(&self) -> Vec<Subset> {
        let mut found: Vec<Subset> = Vec::new();
        let mut by_size: Vec<Subset> = (0..self.subsets()).collect();
        by_size.sort_by_key(|subset| (subset.count_ones(), *subset));
        for subset in by_size {
            let has_smaller = found.iter().any(|smaller| smaller & subset == *smaller);
            if !has_smaller && self.worse(self.all(), subset).is_empty() {
                found.push(subset);
            }
        }
        found
    }

    /// What the switch of a number does.
    pub fn role(&self, switch: usize) -> Role {
        let bit = 1 << switch;
        let mut without: Vec<Subset> = (0..self.subsets()).filter(|subset| subset & bit == 0).collect();
        without.sort_by_key(|subset| (subset.count_ones(), *subset));
        let same = |what: fn(&Cell) -> u64| {
            without.iter().all(|&subset| self.row(subset).iter().map(what).eq(self.row(subset | bit).iter().map(what)))
        };
        let mut harmful: Vec<(Subset, String, Grade, Grade)> = Vec::new();
        for &subset in &without {
            for (scene, before, after) in self.worse(subset, subset | bit) {
                if !harmful.iter().any(|(_, known, ..)| *known == scene) {
                    harmful.push((subset, scene, before, after));
                }
            }
        }
        Role {
            needed: self.worse(self.all(), self.all() & !bit).into_iter().map(|(scene, ..)| scene).collect(),
            harmful,
            redundant: same(|cell| cell.grade() as u64),
            dead: same(|cell| cell.print),
        }
    }

    /// The names of a subset's switches.
    pub fn names(&self, subset: Subset) -> Vec<&'static str> {
        let chosen = self.switches.iter().enumerate().filter(|(n, _)| subset >> n & 1 == 1);
        chosen.map(|(_, switch)| switch.name).collect()
    }
}
