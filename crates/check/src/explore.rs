//! Seeds: each is one scene under one schedule, run in both manners of the simulated mm.
//!
//! Two OS threads share the seeds; each run is on one thread and knows nothing of the other. The lowest seed that
//! breaks something is the one that is told, whatever thread was faster: a search is as reproducible as a run.

use crate::finding::Finding;
use crate::plan::Plan;
use crate::scene::{self, Manner, Reached};
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc;
use sync::sim::{self, Limits, Outcome, Replay, RunReport};

/// What to search.
#[derive(Clone, Debug)]
pub struct Search {
    /// Seeds, each a scene and a schedule.
    pub seeds: Range<u64>,
    /// Behaviours, as on the command line.
    pub behaviours: String,
    /// Manners of the simulated mm.
    pub manners: Vec<Manner>,
}

/// A seed that broke something.
#[derive(Clone, Debug)]
pub struct Caught {
    /// Which, and what it stands for.
    pub plan: Plan,
    /// In which manner.
    pub manner: Manner,
    /// What.
    pub finding: Finding,
    /// The run.
    pub report: RunReport,
    /// Whether the seed, run again, and its schedule, replayed, gave the same finding by the same steps.
    pub replays: bool,
}

/// What a search gave.
#[derive(Clone, Debug)]
pub struct Found {
    /// Runs that were made.
    pub runs: u64,
    /// What they came upon, added up.
    pub reached: Reached,
    /// The lowest seed that broke something.
    pub caught: Option<Caught>,
}

const THREADS: u64 = 2;

/// Runs the seeds until one breaks something.
pub fn search(search: &Search) -> Found {
    let lowest = AtomicU64::new(u64::MAX);
    let (runs, stale_binds) = (AtomicU64::new(0), AtomicU64::new(0));
    let (send, caught) = mpsc::channel();
    std::thread::scope(|scope| {
        for first in 0..THREADS {
            let (send, lowest, runs, stale_binds) = (send.clone(), &lowest, &runs, &stale_binds);
            scope.spawn(move || {
                for seed in search.seeds.clone().skip(first as usize).step_by(THREADS as usize) {
                    if seed > lowest.load(Ordering::Relaxed) {
                        break;
                    }
                    for &manner in &search.manners {
                        runs.fetch_add(1, Ordering::Relaxed);
                        let ran = run_plan(&Plan::of(seed), manner, &search.behaviours);
                        stale_binds.fetch_add(ran.reached.stale_binds, Ordering::Relaxed);
                        if let Some(finding) = ran.finding {
                            lowest.fetch_min(seed, Ordering::Relaxed);
                            let _ = send.send((seed, manner, finding, ran.report));
                            return;
                        }
                    }
                }
            });
        }
    });
    drop(send);
    let caught = caught.into_iter().min_by_key(|(seed, ..)| *seed).map(|(seed, manner, finding, report)| {
        let plan = Plan::of(seed);
        let replays = replays(&plan, manner, &search.behaviours, &finding, &report);
        Caught { plan, manner, finding, report, replays }
    });
    let reached = Reached { stale_binds: stale_binds.into_inner() };
    Found { runs: runs.into_inner(), reached, caught }
}

/// One run.
#[derive(Clone, Debug)]
pub struct Ran {
    /// How it went.
    pub report: RunReport,
    /// What it broke.
    pub finding: Option<Finding>,
    /// What it came upon.
    pub reached: Reached,
}

/// One run of what a seed stands for.
pub fn run_plan(plan: &Plan, manner: Manner, behaviours: &str) -> Ran {
    run(plan, &mut *plan.schedule(), manner, behaviours)
}

fn replays(plan: &Plan, manner: Manner, behaviours: &str, finding: &Finding, report: &RunReport) -> bool {
    let again = run_plan(plan, manner, behaviours);
    let replayed = run(plan, &mut Replay::new(report.deviations.clone()), manner, behaviours);
    let same = |ran: &Ran| {
        ran.report.trace_hash == report.trace_hash
            && ran.report.steps == report.steps
            && ran.finding.as_ref() == Some(finding)
    };
    same(&again) && same(&replayed)
}

fn run(plan: &Plan, schedule: &mut dyn sim::Schedule, manner: Manner, behaviours: &str) -> Ran {
    let (send, ended) = mpsc::channel();
    let behaviours = behaviours.to_owned();
    let limits = Limits { time: plan.time, ..Limits::default() };
    let scene = plan.scene;
    let report = sim::run(schedule, limits, move || {
        let mut reached = Reached::default();
        let outcome = scene::run(scene, manner, &behaviours, &mut reached);
        let _ = send.send((outcome, reached));
    });
    let (finding, reached) = match (&report.outcome, ended.try_recv()) {
        (Outcome::Finished, Ok((outcome, reached))) => (outcome.err(), reached),
        (outcome, _) => (Some(Finding::Run(outcome.clone())), Reached::default()),
    };
    Ran { report, finding, reached }
}
