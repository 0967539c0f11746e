//! Runs under schedules: which, what they found, and what all of them together came to.
//!
//! A scene is set up once, in a process that never runs it. A copy of it (`ffi::runs`) plays one seed after the other, each from the
//! memory that the first began with (`ffi::snapshot`), up to one that is not clean: that ends the copy, and the next seed is another's.
//! What a run notices is written at once, with its seed, step and task; a run that notices nothing writes nothing.
//!
//! Key types: [`Plan`], what was asked for.
//!
//! Locking: none; one thread.

use crate::evidence::Line;
use crate::ffi::runs::{Counts, Ended, be_patient, copy, counts, end};
use crate::ffi::snapshot;
use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::sync::atomic::Ordering;
use sync::sim::{Decision, Pct, Random, Rng, Schedule, TaskId};

/// Exit statuses of a run.
pub(crate) const CLEAN: i32 = 0;
const FOUND: i32 = 1;
/// Something that is not modelled was reached.
pub(crate) const NOT_JUDGED: i32 = 3;
/// The kernel's own code ended it: a BUG, or an access to no memory.
pub(crate) const DIED: i32 = 4;

/// More points than this are a livelock.
const MOST_POINTS: u64 = 200_000;
/// Tasks and bytes that there is room for in every run.
const ROOM_TASKS: usize = 12;
const ROOM_BYTES: usize = 16 << 20;
/// Points among which priorities change.
const PCT_POINTS: u64 = 500;
/// A search that stops at what it finds goes on behind so many runs that say nothing: a later one may find something.
const MOST_NOT_JUDGED: u64 = 100;
/// Of so many marked accesses one is a point, on average.
const PASSED_BY: u64 = 8;

/// Which schedules.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Plan {
    pub(crate) first: u64,
    /// Behind the last.
    pub(crate) end: u64,
    /// Every so many.
    pub(crate) stride: u64,
    /// Whether each step is told.
    pub(crate) trace: bool,
    /// Whether the first that finds something is the last.
    pub(crate) stop: bool,
    /// Whether nobody is stopped: who runs goes on until he waits.
    pub(crate) serial: bool,
    /// Whether each access of what is watched is a point.
    pub(crate) every: bool,
}

impl Plan {
    /// Reads `FIRST END STRIDE [trace] [stop] [serial] [every]`.
    pub(crate) fn read(words: &[String]) -> Option<Self> {
        let number = |at: usize| words.get(at)?.parse().ok();
        let has = |word: &str| words.iter().any(|have| have == word);
        let [trace, stop, serial, every] = ["trace", "stop", "serial", "every"].map(has);
        Some(Self { first: number(0)?, end: number(1)?, stride: number(2)?, trace, stop, serial, every })
            .filter(|plan| plan.stride > 0)
    }
}

/// What is under way in this process.
#[derive(Clone, Copy)]
struct Run {
    seed: u64,
    trace: bool,
    points: u64,
    hash: u64,
    /// How often [`pass_by`] has drawn.
    drawn: u64,
    found: bool,
}

impl Run {
    fn new(seed: u64, trace: bool) -> Self {
        Self { seed, trace, points: 0, hash: 0xcbf2_9ce4_8422_2325, drawn: 0, found: false }
    }
}

thread_local! {
    static PLAN: Cell<Option<Plan>> = const { Cell::new(None) };
    static RUN: Cell<Option<Run>> = const { Cell::new(None) };
    static REACHED: RefCell<BTreeSet<String>> = const { RefCell::new(BTreeSet::new()) };
    static OVER: Cell<bool> = const { Cell::new(false) };
}

/// Says which schedules this process is to play.
pub(crate) fn plan(plan: Plan) {
    PLAN.set(Some(plan));
}

/// The schedule of the whole process: run to block until a run begins, and then that of its seed.
#[derive(Default)]
pub(crate) struct Seeded {
    seeded: Option<(u64, Box<dyn Schedule>)>,
    started: Vec<TaskId>,
}

impl Seeded {
    /// The schedule of the run that is under way; every other one is by priorities, the rest uniform.
    fn now(&mut self) -> Option<&mut dyn Schedule> {
        let run = RUN.get().filter(|_| PLAN.get().is_some_and(|plan| !plan.serial))?;
        if self.seeded.is_none() {
            let mut schedule: Box<dyn Schedule> = match run.seed % 2 {
                0 => Box::new(Pct::new(run.seed, 3 + (run.seed / 2 % 4) as u32, PCT_POINTS)),
                _ => Box::new(Random::new(run.seed)),
            };
            self.started.iter().for_each(|task| schedule.started(*task));
            self.seeded = Some((run.seed, schedule));
        }
        Some(&mut *self.seeded.as_mut()?.1)
    }
}

impl Schedule for Seeded {
    fn pick(&mut self, at: &Decision<'_>) -> TaskId {
        self.now().map_or(at.default_task, |schedule| schedule.pick(at))
    }

    fn choose(&mut self, step: u64, n: u32) -> u32 {
        self.now().map_or(0, |schedule| schedule.choose(step, n))
    }

    fn started(&mut self, task: TaskId) {
        match self.now() {
            Some(schedule) => schedule.started(task),
            None => self.started.push(task),
        }
    }
}

/// Whether a copy ended in clean runs; where a signal ended it, it says so.
fn is_clean(seed: u64, ended: &Ended) -> bool {
    if let Ended::By(signal) = *ended {
        Line::new("killed").with("seed", seed).with("signal", signal).write();
    }
    matches!(ended, Ended::With(CLEAN))
}

/// Plays all that was asked for in copies of this process, in which this returns once a run. Without a plan there is one run, here.
pub(crate) fn begin() {
    let Some(plan) = PLAN.get() else { return };
    make_room();
    let (mut next, mut runs, mut not_judged) = (plan.first, 0u64, 0u64);
    while next < plan.end {
        let Counts { seed, next: to_begin, .. } = counts();
        seed.store(next, Ordering::Relaxed);
        to_begin.store(next, Ordering::Relaxed);
        let Some(ended) = copy() else { return begin_run(plan) };
        let last = seed.load(Ordering::Relaxed);
        runs += 1 + (last - next) / plan.stride;
        not_judged += u64::from(matches!(ended, Ended::With(NOT_JUDGED)));
        let says_nothing = matches!(ended, Ended::With(NOT_JUDGED)) && not_judged < MOST_NOT_JUDGED;
        if !is_clean(last, &ended) && !says_nothing && plan.stop {
            break;
        }
        next = last.saturating_add(plan.stride);
    }
    let reached: serde_json::Map<_, _> =
        counts().places().map(|(place, runs)| (place, serde_json::Value::from(runs))).collect();
    Line::new("explored")
        .with("runs", runs)
        .with("points", counts().points.load(Ordering::Relaxed))
        .with("reached", reached)
        .write();
    end(CLEAN)
}

/// Returns once a run of this copy.
fn begin_run(plan: Plan) {
    snapshot::take();
    be_patient();
    let seed = counts().next.load(Ordering::Relaxed);
    counts().seed.store(seed, Ordering::Relaxed);
    RUN.set(Some(Run::new(seed, plan.trace)));
}

/// What a run takes for itself, stacks and memory of the allocator, is there before the first: a run that had to ask the system
/// for more could not be taken back.
fn make_room() {
    let tasks: Vec<_> = (0..ROOM_TASKS).map(|_| sync::spawn("room", || ())).collect();
    tasks.into_iter().for_each(sync::JoinHandle::join);
    // Freed memory of this size stays with the allocator from the second time on.
    (0..2).for_each(|_| drop(std::hint::black_box(Vec::<u8>::with_capacity(ROOM_BYTES))));
}

/// Whether the scene has come to its end.
pub(crate) fn is_over() -> bool {
    OVER.get()
}

/// Ends this process, where a run is under way in it.
pub(crate) fn finish() -> ! {
    OVER.set(true);
    let Some(run) = RUN.get() else { end(NOT_JUDGED) };
    counts().points.fetch_add(run.points, Ordering::Relaxed);
    REACHED.with_borrow(|reached| reached.iter().for_each(|place| counts().reached(place)));
    if run.trace {
        let hash = format!("{:016x}", run.hash);
        Line::new("run").with("seed", run.seed).with("points", run.points).with("hash", hash).write();
    }
    let next = PLAN.get().and_then(|plan| Some(run.seed.checked_add(plan.stride)?).filter(|next| *next < plan.end));
    match next {
        Some(next) if !run.found => {
            counts().next.store(next, Ordering::Relaxed);
            snapshot::back()
        }
        _ => end(if run.found { FOUND } else { CLEAN }),
    }
}

/// The scene has played to its end.
pub(crate) fn scene_ended() {
    OVER.set(true);
    if RUN.get().is_some() {
        finish();
    }
}

/// The run came to `place`.
pub(crate) fn reached(place: &str) {
    if RUN.get().is_some() {
        REACHED.with_borrow_mut(|reached| {
            if !reached.contains(place) {
                reached.insert(place.to_owned());
            }
        });
    }
}

/// The seed of the run.
pub(crate) fn seed() -> u64 {
    RUN.get().map_or(0, |run| run.seed)
}

/// Whether each access of what is watched is a point.
pub(crate) fn every_access() -> bool {
    PLAN.get().is_some_and(|plan| plan.every)
}

/// How many marked accesses there are to the next that is a point. All are while no run is under way.
pub(crate) fn pass_by() -> u64 {
    let Some(mut run) = RUN.get().filter(|_| !every_access()) else { return 1 };
    run.drawn += 1;
    RUN.set(Some(run));
    1 + Rng::new(run.seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ run.drawn).below(2 * PASSED_BY - 1)
}

/// A task comes to a point.
pub(crate) fn step(task: &str, serial: u32, ip: u64, about: impl FnOnce() -> (String, String)) {
    let Some(mut run) = RUN.get() else { return };
    run.points += 1;
    run.hash = (run.hash ^ ip ^ u64::from(serial) << 48).wrapping_mul(0x0100_0000_01b3);
    RUN.set(Some(run));
    if run.trace {
        let (what, object) = about();
        let line = Line::new("point").with("task", task).with("serial", serial).with("what", what);
        line.with("object", object).with("ip", ip).write();
    }
    if run.points == MOST_POINTS {
        Line::new("livelock").with("text", format!("{MOST_POINTS} scheduling points and no end")).write();
        finish();
    }
}

/// Events that a run is about: all others are told where steps are, too.
pub const FINDINGS: &[&str] = &[
    "warn",
    "bug",
    "crash",
    "deadlock",
    "livelock",
    "lock_order",
    "sleep_in_atomic",
    "unlock_of_free_lock",
    "ends_with_lock",
    "double_free",
    "use_after_free",
    "endless_retry",
    "leak",
    "unfilled_fences",
    "stray_write",
    "stray_read",
    "malformed_table",
    "no_memory_there",
    "bad_unmap",
    "finding",
];
const ALWAYS: &[&str] = &["not_modelled", "gave_up", "stream"];

/// Whether an event of this name is written now: who would have to put it together asks first.
pub(crate) fn is_told(event: &str) -> bool {
    RUN.get().is_none_or(|run| run.trace || FINDINGS.contains(&event) || ALWAYS.contains(&event))
}

/// Whether an event is written, and with what else: called before each.
pub(crate) fn witness(event: &str) -> Option<Vec<(&'static str, serde_json::Value)>> {
    let Some(mut run) = RUN.get() else { return Some(Vec::new()) };
    // A run that is compared goes on: what it says is told beside.
    if FINDINGS.contains(&event) && !crate::compare::is_under_way() {
        run.found = true;
        RUN.set(Some(run));
    }
    if !is_told(event) {
        return None;
    }
    let mut more = vec![("seed", run.seed.into()), ("at", run.points.into())];
    if let Some(here) = sync::sim::here()
        && event != "point"
    {
        more.push(("task", here.name.into()));
    }
    Some(more)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_is_read_and_nonsense_is_none() {
        let words = |text: &str| text.split(' ').map(str::to_owned).collect::<Vec<_>>();
        let plan = Plan { first: 3, end: 9, stride: 2, trace: false, stop: true, serial: false, every: false };
        assert_eq!(Plan::read(&words("3 9 2 stop")), Some(plan));
        assert_eq!(Plan::read(&words("3 9 0")), None);
        assert_eq!(Plan::read(&words("3 x 1")), None);
    }
}
