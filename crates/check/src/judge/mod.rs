//! Verdicts: every variant of a rule against every scene that is a trigger of its defect, each cell computed now.
//!
//! A [`Cell`] is a number of runs of one scene under one list of behaviours. Its [`Grade`] is how bad the first finding is, and its
//! verdict the kind of it; where nothing is found the verdict says what that cost: pages that went from tile to tile, and
//! pages that went to system memory on the way.
//!
//! [`machines`] judges A on every layout of tiles, pagemaps and devices; [`patch`] the posted patch switch by switch; [`orders`] asks in which order fixes may be merged.

pub mod machines;
pub mod orders;
pub mod patch;

use crate::explore::{Ran, Setting};
use crate::finding::Finding;
use crate::plan::{Explore, Plan};
use crate::play::Reached;
use crate::replay::Record;
use crate::scenes;
use crate::script::Script;
use machine::behaviour::VARIANTS;
use machine::checked::Manner;
use machine::topology::Topology;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::ops::{AddAssign, Range};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};

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

/// How bad a cell is. What is refused is loud and leaves data where it is; behind it stand what nobody sees at once.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Grade {
    /// Nothing was found.
    Ok,
    /// Something that is legal was refused.
    Refused,
    /// A run does not end.
    Hangs,
    /// Data is right, and something else is not as it should be: what is left, counted, kept or allowed.
    Unsound,
    /// A fence was over before its bind.
    UnderWaits,
    /// Data is lost, or memory is written that is somebody else's.
    Wrong,
}

impl Grade {
    /// Of what a run found.
    pub fn of(finding: Option<&Finding>) -> Self {
        match finding {
            None => Self::Ok,
            Some(Finding::Refused { .. }) => Self::Refused,
            Some(finding) if matches!(finding.kind(), "deadlock" | "no end") => Self::Hangs,
            Some(Finding::TooEarly { .. }) => Self::UnderWaits,
            Some(finding) if matches!(finding.kind(), "audit" | "leak" | "cost" | "books" | "allowed") => Self::Unsound,
            Some(_) => Self::Wrong,
        }
    }

    /// In a word.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Refused => "refused",
            Self::Hangs => "hangs",
            Self::Unsound => "unsound",
            Self::UnderWaits => "under-waits",
            Self::Wrong => "wrong",
        }
    }
}

/// What the runs of a cell cost, added up.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Cost {
    /// GPU faults.
    pub faults: u64,
    /// Pages that copy engines carried.
    pub copied: u64,
    /// Pages that were evicted to system memory.
    pub evicted: u64,
    /// Crossings of the system's bus by pages that were copied.
    pub crossings: u64,
}

impl AddAssign for Cost {
    fn add_assign(&mut self, other: Self) {
        self.faults += other.faults;
        self.copied += other.copied;
        self.evicted += other.evicted;
        self.crossings += other.crossings;
    }
}

/// What a cell is about.
#[derive(Clone)]
pub struct Question {
    /// The scene.
    pub script: Arc<Script>,
    /// Behaviours, as on the command line.
    pub behaviours: String,
    /// Who manages the memory.
    pub manner: Manner,
    /// On which machine.
    pub topology: Topology,
    /// Schedules.
    pub seeds: Range<u64>,
    /// Who is told how many cells of a table are done, of how many.
    pub tick: fn(usize, usize),
}

/// One cell of a table.
#[derive(Clone, Debug)]
pub struct Cell {
    /// Name of the scene.
    pub scene: String,
    /// Behaviours of the run.
    pub behaviours: String,
    /// Who managed the memory.
    pub manner: Manner,
    /// On which machine.
    pub topology: Topology,
    /// Runs made.
    pub runs: u64,
    /// The first failing run.
    pub failure: Option<Failure>,
    /// What the first run came upon; nothing where it failed.
    pub reached: Reached,
    /// What all runs cost.
    pub cost: Cost,
    /// A hash over all that the runs did: equal where no run went otherwise.
    pub print: u64,
    /// Pages that the first run did not bring to VRAM, and that of the default behaviour does.
    pub skipped: u64,
}

/// A run that failed.
#[derive(Clone, Debug)]
pub struct Failure {
    /// Its seed.
    pub seed: u64,
    /// What it found.
    pub finding: Finding,
    /// The run, to be made again.
    pub record: Record,
}

impl Cell {
    /// How bad it is.
    pub fn grade(&self) -> Grade {
        Grade::of(self.failure.as_ref().map(|failure| &failure.finding))
    }

    /// Whether it asks of the machine what it says that it cannot do: memory in the VRAM of a device that nobody reaches.
    pub fn is_out_of_reach(&self) -> bool {
        let finding = self.failure.as_ref().map(|failure| &failure.finding);
        let is_refused = matches!(finding, Some(Finding::Refused { what }) if what.ends_with("ENOLINK"));
        self.topology == Topology::Strangers && is_refused
    }

    /// In a few words: `ok N/M` with pages that went from tile to tile and to system memory, `skips` where fewer went to VRAM than
    /// should; `LOST`: data, silently; `LOST, strays`: with writes to bus addresses that nothing maps; `refused`: a legal access
    /// or ioctl; `under-waits`: a fence was over before its bind; else the kind of the finding.
    pub fn verdict(&self) -> String {
        let Some(failure) = &self.failure else {
            let Reached { pages_between_tiles, pages_to_system, .. } = self.reached;
            let skips = if self.skipped > 0 { ", skips" } else { "" };
            return format!("ok {pages_between_tiles}/{pages_to_system}{skips}");
        };
        match failure.finding.kind() {
            "data lost" => "LOST".into(),
            "data lost, stray writes" => "LOST, strays".into(),
            "signalled too early" => "under-waits".into(),
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

/// The triggers of all three.
pub fn all_triggers() -> Vec<Arc<Script>> {
    SUBJECTS.iter().flat_map(Subject::scenes).collect()
}

/// One cell: runs until one fails.
pub fn cell(question: &Question) -> Cell {
    let Question { script, behaviours, manner, topology, seeds, .. } = question;
    let setting = Setting::new(script.clone(), *manner, behaviours.clone(), Explore::Pct).on(*topology);
    let mut cell = Cell {
        scene: script.name.clone(),
        behaviours: behaviours.clone(),
        manner: *manner,
        topology: *topology,
        runs: 0,
        failure: None,
        reached: Reached::default(),
        cost: Cost::default(),
        print: 0,
        skipped: 0,
    };
    let mut print = DefaultHasher::new();
    for seed in seeds.clone() {
        let Ran { report, finding, reached } = setting.run_seed(seed);
        cell.runs += 1;
        (report.trace_hash, report.steps, &finding.as_ref().map(ToString::to_string)).hash(&mut print);
        (reached.pages_to_vram, reached.pages_to_system, reached.copied_pages, reached.bus_pages).hash(&mut print);
        cell.cost += Cost {
            faults: reached.gpu_faults,
            copied: reached.copied_pages,
            evicted: reached.pages_to_system,
            crossings: reached.bus_pages,
        };
        if cell.runs == 1 {
            cell.reached = reached;
        }
        if let Some(finding) = finding {
            let (time, trace) = (Plan::of(script, Explore::Pct, seed).time, report.trace_hash);
            let record = Record { setting, time, deviations: report.deviations, trace, finding: finding.to_string() };
            cell.failure = Some(Failure { seed, finding, record });
            break;
        }
    }
    cell.print = print.finish();
    cell
}

/// Cells by behaviours and scenes; the first row is what the others are compared with.
pub fn cells(rows: &[String], scripts: &[Arc<Script>], like: &Question) -> Vec<Vec<Cell>> {
    let columns = scripts.len().max(1);
    let all = by_two_threads(rows.len() * scripts.len(), like.tick, |n| {
        let (script, behaviours) = (scripts[n % columns].clone(), rows[n / columns].clone());
        cell(&Question { script, behaviours, ..like.clone() })
    });
    let mut table: Vec<Vec<Cell>> = all.chunks(columns).map(<[Cell]>::to_vec).collect();
    let due: Vec<u64> = table.first().into_iter().flatten().map(|cell| cell.reached.pages_to_vram).collect();
    for (cell, due) in table.iter_mut().flat_map(|row| row.iter_mut().zip(&due)) {
        cell.skipped = due.saturating_sub(cell.reached.pages_to_vram);
    }
    table
}

/// The answers to questions 0 to `jobs` - 1, in their order.
fn by_two_threads<T: Send>(jobs: usize, tick: fn(usize, usize), answer: impl Fn(usize) -> T + Sync) -> Vec<T> {
    let (next, (send, done)) = (AtomicUsize::new(0), mpsc::channel());
    let mut answers: Vec<(usize, T)> = Vec::with_capacity(jobs);
    std::thread::scope(|scope| {
        for send in [send.clone(), send] {
            let (next, answer) = (&next, &answer);
            scope.spawn(move || {
                loop {
                    let job = next.fetch_add(1, Ordering::Relaxed);
                    if job >= jobs || send.send((job, answer(job))).is_err() {
                        break;
                    }
                }
            });
        }
        for answered in done {
            answers.push(answered);
            tick(answers.len(), jobs);
        }
    });
    answers.sort_by_key(|(job, _)| *job);
    answers.into_iter().map(|(_, answer)| answer).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_or_counted_wrong_is_no_lost_data() {
        let of = |finding: Finding| Grade::of(Some(&finding));
        let stray = Finding::Stray { writes: 1, reads: 0 };
        assert_eq!([of(Finding::Audit(String::new())), of(Finding::Books(String::new()))], [Grade::Unsound; 2]);
        assert_eq!([of(Finding::Leak { what: String::new() }), of(stray)], [Grade::Unsound, Grade::Wrong]);
        assert!(Grade::Hangs < Grade::Unsound && Grade::Unsound < Grade::UnderWaits);
    }
}
