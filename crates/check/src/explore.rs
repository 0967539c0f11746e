//! Searches: scenes under seeds, in one or both manners of the simulated mm.
//!
//! Two OS threads share the seeds; each run is on one thread and knows nothing of the other. The first finding in the order
//! of seeds, scenes and manners is the one that is told, whatever thread was faster: a search is as reproducible as a
//! run.

use crate::finding::Finding;
use crate::plan::{Counting, Explore, Plan};
use crate::play::{self, How, Reached, reach, shelf::Shelf};
use crate::script::Script;
use machine::checked::Manner;
use machine::story::Story;
use machine::topology::Topology;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, mpsc};
use sync::sim::{self, Deviation, Limits, Outcome, Replay, RunReport, TimeRule};

/// What to search.
#[derive(Clone, Debug)]
pub struct Search {
    /// What is played.
    pub scripts: Vec<Arc<Script>>,
    /// How.
    pub explore: Explore,
    /// Seeds: of each scene.
    pub seeds: Range<u64>,
    /// Behaviours, as on the command line.
    pub behaviours: String,
    /// Manners of the simulated mm.
    pub manners: Vec<Manner>,
}

/// A run that broke something.
#[derive(Clone, Debug)]
pub struct Caught {
    /// What was played.
    pub script: Arc<Script>,
    /// Under which seed.
    pub plan: Plan,
    /// In which manner.
    pub manner: Manner,
    /// With which behaviours.
    pub behaviours: String,
    /// What.
    pub finding: Finding,
    /// The step that found it, with its line.
    pub step: Option<String>,
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
    /// Of each scene, in how many of its runs each moment came.
    pub moments: Vec<reach::Moments>,
    /// Injections and moments that no run met, with the names of the scenes that are there for them; none where something was
    /// found.
    pub never_met: Vec<String>,
    /// The first run that broke something.
    pub caught: Option<Caught>,
    /// Whether it was ended before all seeds were run.
    pub ended: bool,
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

const THREADS: u64 = 2;

/// Runs the seeds until one breaks something.
pub fn search(search: &Search) -> Found {
    search_while(search, &|_| true)
}

/// Runs the seeds until one breaks something, or as long as `goes_on`, which is asked after each run with how many there were.
pub fn search_while(search: &Search, goes_on: &(dyn Fn(u64) -> bool + std::marker::Sync)) -> Found {
    // By number of seed, scene and manner.
    let lowest = AtomicU64::new(u64::MAX);
    let (runs, stale_binds, ended) = (AtomicU64::new(0), AtomicU64::new(0), AtomicBool::new(false));
    let mut met = vec![Met::default(); search.scripts.len()];
    let (send, caught) = mpsc::channel();
    let settings = settings(search);
    let per_seed = settings.len() as u64;
    std::thread::scope(|scope| {
        let threads = (0..THREADS).map(|first| {
            let (send, lowest, runs, stale_binds, settings) = (send.clone(), &lowest, &runs, &stale_binds, &settings);
            let (ended, mut met) = (&ended, met.clone());
            scope.spawn(move || {
                let all = (search.seeds.end - search.seeds.start).saturating_mul(per_seed);
                for number in (first..all).step_by(THREADS as usize) {
                    if number > lowest.load(Ordering::Relaxed) || ended.load(Ordering::Relaxed) {
                        break;
                    }
                    let seed = search.seeds.start + number / per_seed;
                    let setting = (number % per_seed) as usize;
                    let ran = settings[setting].run_seed(seed);
                    met[setting / search.manners.len()].note(&ran.reached);
                    let so_far = runs.fetch_add(1, Ordering::Relaxed) + 1;
                    stale_binds.fetch_add(ran.reached.stale_binds, Ordering::Relaxed);
                    if ran.finding.is_some() {
                        lowest.fetch_min(number, Ordering::Relaxed);
                        let _ = send.send((number, ran));
                        break;
                    }
                    if !goes_on(so_far) {
                        ended.store(true, Ordering::Relaxed);
                    }
                }
                met
            })
        });
        for thread in threads.collect::<Vec<_>>() {
            let of_thread = thread.join().expect("a run that panics is a finding");
            met.iter_mut().zip(of_thread).for_each(|(met, more)| met.add(&more));
        }
    });
    drop(send);
    let caught = caught.into_iter().min_by_key(|(number, _)| *number).and_then(|(number, ran)| {
        settings[(number % per_seed) as usize].caught(search.seeds.start + number / per_seed, ran)
    });
    let reached = Reached { stale_binds: stale_binds.into_inner(), ..Reached::default() };
    let (runs, ended) = (runs.into_inner(), ended.into_inner());
    let all = search.scripts.iter().zip(&met).filter(|_| caught.is_none() && runs > 0);
    let never_met = all.flat_map(|(script, met)| met.never(script)).collect();
    let moments = met.iter().map(|met| met.moments).collect();
    Found { runs, reached, moments, never_met, caught, ended }
}

/// What runs of a scene met of what it has go wrong, and is there for.
#[derive(Clone, Debug, Default)]
pub struct Met {
    /// A bit for each injection of the scene.
    injections: u64,
    /// In how many runs each moment came.
    moments: reach::Moments,
}

impl Met {
    /// One more run.
    pub(crate) fn note(&mut self, reached: &Reached) {
        let injections = (0..u64::BITS).zip(&reached.met).fold(0, |bits, (n, is_met)| bits | u64::from(*is_met) << n);
        self.add(&Self { injections, moments: reached.moments.map(|came| u64::from(came > 0)) });
    }

    /// The runs of another one, too.
    fn add(&mut self, other: &Self) {
        self.injections |= other.injections;
        self.moments.iter_mut().zip(&other.moments).for_each(|(runs, more)| *runs += more);
    }

    /// What no run met, in words; nothing where the scene has nothing of the kind.
    pub fn never(&self, script: &Script) -> Vec<String> {
        let injections = (0..u64::BITS).zip(&script.injections).filter(|(n, _)| self.injections >> n & 1 == 0);
        let injections = injections.map(|(_, (what, number))| format!("inject {} {number}", what.name()));
        let moments = script.meets.iter().filter(|number| self.moments[**number] == 0);
        let moments = moments.map(|number| format!("meets {}", reach::MOMENTS[*number].0));
        injections.chain(moments).map(|what| format!("{what} of scene {}", script.name)).collect()
    }
}

/// A scene with what is fixed for all of its runs.
#[derive(Clone, Debug)]
pub struct Setting {
    /// What is played.
    pub script: Arc<Script>,
    /// In which manner.
    pub manner: Manner,
    /// Behaviours, as on the command line.
    pub behaviours: String,
    /// On which machine.
    pub topology: Topology,
    explore: Explore,
    /// Whether everybody comes to rest between phases.
    calm: bool,
    /// Choices of a run in which nobody is preempted.
    choices: u64,
}

/// The C library gives the end of the heap back after each run and has it faulted in again in the next one, until it has
/// seen a large block come and go.
fn keep_the_heap() {
    drop(std::hint::black_box(Vec::<u8>::with_capacity(16 << 20)));
}

fn settings(search: &Search) -> Vec<Setting> {
    let with =
        |script: &Arc<Script>, manner| Setting::new(script.clone(), manner, search.behaviours.clone(), search.explore);
    search.scripts.iter().flat_map(|script| search.manners.iter().map(move |&manner| with(script, manner))).collect()
}

impl Setting {
    /// Makes one run, to know how long they are.
    pub fn new(script: Arc<Script>, manner: Manner, behaviours: String, explore: Explore) -> Self {
        keep_the_heap();
        Self { script, manner, behaviours, topology: Topology::default(), explore, calm: false, choices: 1 }.counted()
    }

    /// The same on another machine.
    pub fn on(self, topology: Topology) -> Self {
        if topology == self.topology { self } else { Self { topology, ..self }.counted() }
    }

    /// Whether everybody comes to rest between phases.
    pub const fn is_calm(&self) -> bool {
        self.calm
    }

    /// The same, where everybody comes to rest before a phase and behind the last one: what nobody waits for is not explored against
    /// what follows.
    pub fn calmly(self) -> Self {
        Self { calm: true, ..self }.counted()
    }

    fn counted(mut self) -> Self {
        let mut counting = Counting::default();
        self.run(&mut counting, TimeRule::WhenIdle);
        self.choices = counting.choices.max(1);
        self
    }

    /// Choices of a run in which nobody is preempted: decisions with more than one candidate.
    pub const fn choices(&self) -> u64 {
        self.choices
    }

    /// One run of what a seed stands for.
    pub fn run_seed(&self, seed: u64) -> Ran {
        let plan = Plan::of(&self.script, self.explore, seed);
        self.run(&mut *plan.schedule(self.choices), plan.time)
    }

    /// One run by its deviations.
    pub fn replay(&self, deviations: &[Deviation], time: TimeRule) -> Ran {
        self.run(&mut Replay::new(deviations.to_vec()), time)
    }

    /// The same, with the story of the run.
    pub fn tell(&self, deviations: &[Deviation], time: TimeRule) -> (Ran, Arc<Story>) {
        let story = Arc::new(Story::default());
        (self.run_with(&mut Replay::new(deviations.to_vec()), time, Some(story.clone())), story)
    }

    fn caught(&self, seed: u64, ran: Ran) -> Option<Caught> {
        let Ran { report, finding, reached: Reached { step, .. } } = ran;
        let finding = finding?;
        let plan = Plan::of(&self.script, self.explore, seed);
        let same = |ran: &Ran| {
            ran.report.trace_hash == report.trace_hash
                && ran.report.steps == report.steps
                && ran.finding.as_ref() == Some(&finding)
        };
        let replays = same(&self.run_seed(seed)) && same(&self.replay(&report.deviations, plan.time));
        let (script, behaviours) = (self.script.clone(), self.behaviours.clone());
        Some(Caught { script, plan, manner: self.manner, behaviours, finding, step, report, replays })
    }

    /// One run under any schedule.
    pub(crate) fn run(&self, schedule: &mut dyn sim::Schedule, time: TimeRule) -> Ran {
        self.run_with(schedule, time, None)
    }

    fn run_with(&self, schedule: &mut dyn sim::Schedule, time: TimeRule, story: Option<Arc<Story>>) -> Ran {
        let ended = Arc::new(Shelf::default());
        let (script, told) = (self.script.clone(), ended.clone());
        let how = How {
            behaviours: self.behaviours.clone(),
            manner: self.manner,
            topology: self.topology,
            calm: self.calm,
            story,
        };
        let limits = Limits { time, ..Limits::default() };
        let report = sim::run(schedule, limits, move || {
            let mut reached = Reached::default();
            let outcome = play::play(&script, &how, &mut reached);
            told.with(|told| *told = Some((outcome, reached)));
        });
        let (finding, reached) = match (&report.outcome, ended.with(Option::take)) {
            (Outcome::Finished, Some((outcome, reached))) => (outcome.err(), reached),
            (Outcome::Cut, _) => (None, Reached::default()),
            (outcome, _) => (Some(Finding::Run(outcome.clone())), Reached::default()),
        };
        Ran { report, finding, reached }
    }
}
