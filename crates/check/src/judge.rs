//! Verdicts: every variant of a rule against every scene that is a trigger of its defect, each cell computed now.
//!
//! A cell is a number of runs of one scene under one behaviour. Its verdict is the kind of the first finding; where nothing is
//! found it says what that cost: pages that went from tile to tile, and pages that went to system memory on the way.
//!
//! [`orders`] asks in which order fixes may be merged: an order is safe where no scene that passes before a step fails
//! after it.

use crate::explore::{Ran, Setting};
use crate::finding::Finding;
use crate::plan::Explore;
use crate::play::Reached;
use crate::scenes;
use crate::script::Script;
use machine::behaviour::VARIANTS;
use machine::checked::Manner;
use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use sync::sim::Deviation;

/// A defect: its rule, and the scenes that are its triggers.
pub struct Subject {
    /// A, B or C.
    pub letter: char,
    /// The key of its behaviours.
    pub key: &'static str,
    /// Scenes, by name: those that begin so.
    prefix: &'static str,
}

/// The three defects.
pub const SUBJECTS: [Subject; 3] = [
    Subject { letter: 'A', key: "a", prefix: "a-" },
    Subject { letter: 'B', key: "b", prefix: "b-" },
    Subject { letter: 'C', key: "c", prefix: "c-" },
];

/// One cell of a table.
#[derive(Clone, Debug)]
pub struct Cell {
    /// Name of the scene.
    pub scene: String,
    /// Behaviours of the run.
    pub behaviours: String,
    /// Runs made.
    pub runs: u64,
    /// The first failing run.
    pub failure: Option<Failure>,
    /// What the first run came upon; nothing where it failed.
    pub reached: Reached,
}

/// A run that failed.
#[derive(Clone, Debug)]
pub struct Failure {
    /// Its seed.
    pub seed: u64,
    /// What it found.
    pub finding: Finding,
    /// Its schedule.
    pub deviations: Vec<Deviation>,
}

impl Cell {
    /// In a few words: `ok N/M` with pages that went from tile to tile and to system memory; `LOST`: data, silently;
    /// `LOST, strays`: with writes to bus addresses that nothing maps; `refused`: a legal access or ioctl; `under-waits`: a
    /// fence was over before its bind.
    pub fn verdict(&self) -> String {
        let Some(failure) = &self.failure else {
            let Reached { pages_between_tiles, pages_to_system, .. } = self.reached;
            return format!("ok {pages_between_tiles}/{pages_to_system}");
        };
        match failure.finding.kind() {
            "data lost" => "LOST".into(),
            "data lost, stray writes" => "LOST, strays".into(),
            "refused" => "refused".into(),
            "signalled too early" => "under-waits".into(),
            "no end" => "no end".into(),
            other => other.into(),
        }
    }
}

impl Subject {
    /// The scenes that are triggers of it.
    pub fn scenes(&self) -> Vec<Arc<Script>> {
        scenes::all().into_iter().filter(|script| script.name.starts_with(self.prefix)).collect()
    }

    /// Its behaviours, the correct one first.
    pub fn variants(&self) -> Vec<String> {
        let of_it = VARIANTS.iter().filter(|variant| variant.key == self.key);
        of_it.map(|variant| format!("{}={}", variant.key, variant.name)).collect()
    }
}

/// One cell.
pub fn cell(script: &Arc<Script>, behaviours: &str, seeds: Range<u64>, manner: Manner) -> Cell {
    let setting = Setting::new(script.clone(), manner, behaviours.into(), Explore::Pct);
    let mut cell = Cell {
        scene: script.name.clone(),
        behaviours: behaviours.into(),
        runs: 0,
        failure: None,
        reached: Reached::default(),
    };
    for seed in seeds {
        let Ran { report, finding, reached } = setting.run_seed(seed);
        cell.runs += 1;
        if cell.runs == 1 {
            cell.reached = reached;
        }
        if let Some(finding) = finding {
            cell.failure = Some(Failure { seed, finding, deviations: report.deviations });
            break;
        }
    }
    cell
}

/// Cells by behaviours and scenes, computed by two threads; in the order asked for.
pub fn cells(rows: &[String], scripts: &[Arc<Script>], seeds: &Range<u64>, manner: Manner) -> Vec<Vec<Cell>> {
    let jobs: Vec<(usize, usize)> = (0..rows.len()).flat_map(|r| (0..scripts.len()).map(move |c| (r, c))).collect();
    let (next, (send, done)) = (AtomicUsize::new(0), mpsc::channel());
    std::thread::scope(|scope| {
        for _ in 0..2 {
            let (jobs, next, send) = (&jobs, &next, send.clone());
            scope.spawn(move || {
                while let Some(&(row, column)) = jobs.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let _ = send.send(((row, column), cell(&scripts[column], &rows[row], seeds.clone(), manner)));
                }
            });
        }
    });
    drop(send);
    let mut done: Vec<_> = done.iter().collect();
    done.sort_by_key(|(at, _)| *at);
    let cells: Vec<Cell> = done.into_iter().map(|(_, cell)| cell).collect();
    cells.chunks(scripts.len().max(1)).map(<[Cell]>::to_vec).collect()
}

/// An order of fixes and what it breaks on the way.
#[derive(Clone, Debug)]
pub struct MergeOrder {
    /// The fixes, first to last.
    pub fixes: Vec<char>,
    /// Scenes that pass before some step and fail after it.
    pub breaks: BTreeSet<String>,
}

/// All orders of the three fixes, each fix either as upstream has it or as ours.
pub fn orders(seeds: &Range<u64>, manner: Manner) -> Vec<MergeOrder> {
    let scripts: Vec<Arc<Script>> = SUBJECTS.iter().flat_map(Subject::scenes).collect();
    let rows: Vec<String> = (0..8).map(behaviours_of).collect();
    let failing: Vec<BTreeSet<String>> = cells(&rows, &scripts, seeds, manner)
        .into_iter()
        .map(|row| row.into_iter().filter(|cell| cell.failure.is_some()).map(|cell| cell.scene).collect())
        .collect();
    let all = [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]];
    let order = |order: [usize; 3]| {
        let (mut applied, mut breaks) = (0usize, BTreeSet::new());
        for fix in order {
            let after = applied | 1 << fix;
            breaks.extend(failing[after].difference(&failing[applied]).cloned());
            applied = after;
        }
        MergeOrder { fixes: order.map(|fix| SUBJECTS[fix].letter).to_vec(), breaks }
    };
    all.map(order).to_vec()
}

/// Behaviours where the fixes of a mask are applied.
fn behaviours_of(mask: usize) -> String {
    let missing = SUBJECTS.iter().enumerate().filter(|(n, _)| mask >> n & 1 == 0);
    let list: Vec<String> = missing.map(|(_, subject)| format!("{}=upstream", subject.key)).collect();
    list.join(",")
}
