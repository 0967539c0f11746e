//! Every schedule of a scene, in one of two ways.
//!
//! [`classes`] is for settings that are [calm](Setting::calmly). It makes one run of each class of schedules that nobody can tell
//! apart ([`sync::sim::Reduced`]), until there is no other class: then the scene is proved, as far as the model goes. Only small scenes come to that end.
//!
//! [`exhaust`] runs every schedule with at most so many deviations from run-to-block, the ones with fewer first. Where a
//! run makes a choice behind its last deviation, each alternative begins another schedule. So each list of deviations is
//! run once, and a finding has the fewest deviations that any schedule needs for it.

use crate::explore::{Met, Ran, Setting};
use crate::finding::Finding;
use std::collections::{BTreeMap, VecDeque};
use sync::sim::{Decision, Deviation, Outcome, Reduced, Replay, Schedule, Taken, TaskId, TimeRule};

/// What was run.
#[derive(Clone, Debug, Default)]
pub struct Exhausted {
    /// Runs.
    pub runs: u64,
    /// Schedules that were left when the limit came; 0: all were run.
    pub left: u64,
    /// How runs ended, and how often: the kind of a finding, or `ok`.
    pub outcomes: BTreeMap<&'static str, u64>,
    /// What the scene is there for.
    pub met: Met,
    /// The first finding, and its schedule.
    pub failure: Option<(Finding, Vec<Deviation>)>,
}

/// What was run of all classes of schedules.
#[derive(Clone, Debug, Default)]
pub struct Classes {
    /// Classes of which a run was made.
    pub classes: u64,
    /// Runs that were given up in the middle, as others show what they would.
    pub cuts: u64,
    /// Whether these are all classes that there are.
    pub all: bool,
    /// How the classes ended, and how many in each way: the kind of a finding, or `ok`.
    pub outcomes: BTreeMap<&'static str, u64>,
    /// What the scene is there for.
    pub met: Met,
    /// The first finding, and its schedule.
    pub failure: Option<(Finding, Vec<Deviation>)>,
}

/// Makes a run of each class, as long as `goes_on` says so of what was run. Time passes when nobody can run.
pub fn classes(setting: &Setting, mut goes_on: impl FnMut(&Classes) -> bool) -> Classes {
    let (mut done, mut every) = (Classes::default(), Reduced::default());
    while !done.all && goes_on(&done) {
        let Ran { report, finding, reached, .. } = setting.run(&mut every, TimeRule::WhenIdle);
        done.met.note(&reached);
        done.all = !every.next_run();
        (done.classes, done.cuts) = (every.classes(), every.cuts());
        if report.outcome != Outcome::Cut {
            *done.outcomes.entry(finding.as_ref().map_or("ok", Finding::kind)).or_default() += 1;
        }
        if let (Some(finding), None) = (finding, &done.failure) {
            done.failure = Some((finding, report.deviations));
        }
    }
    done
}

/// Runs all schedules with at most `most` deviations, as long as `goes_on` says so of what was run. Stops at the first finding.
pub fn exhaust(setting: &Setting, most: usize, mut goes_on: impl FnMut(&Exhausted) -> bool) -> Exhausted {
    let mut done = Exhausted::default();
    let mut next = VecDeque::from([Vec::new()]);
    while let Some(deviations) = next.pop_front() {
        if !goes_on(&done) {
            done.left = next.len() as u64 + 1;
            break;
        }
        let branches = deviations.len() < most;
        let mut schedule = Branching::new(deviations.clone(), branches);
        let Ran { finding, reached, .. } = setting.run(&mut schedule, TimeRule::WhenIdle);
        done.met.note(&reached);
        done.runs += 1;
        *done.outcomes.entry(finding.as_ref().map_or("ok", Finding::kind)).or_default() += 1;
        if let Some(finding) = finding {
            done.failure = Some((finding, deviations));
            break;
        }
        next.extend(schedule.branches.into_iter().map(|branch| [deviations.as_slice(), &[branch]].concat()));
    }
    done
}

/// Replays deviations, and notes every alternative behind the last one.
struct Branching {
    replay: Replay,
    after: u64,
    notes: bool,
    branches: Vec<Deviation>,
}

impl Branching {
    fn new(deviations: Vec<Deviation>, notes: bool) -> Self {
        let after = deviations.last().map_or(0, |last| last.step);
        Self { replay: Replay::new(deviations), after, notes, branches: Vec::new() }
    }

    fn note(&mut self, step: u64, to: Taken) {
        if self.notes && step > self.after {
            self.branches.push(Deviation { step, to });
        }
    }
}

impl Schedule for Branching {
    fn pick(&mut self, at: &Decision<'_>) -> TaskId {
        let others = at.candidates().into_iter().filter(|task| *task != at.default_task);
        others.for_each(|task| self.note(at.step, Taken::Task(task)));
        self.replay.pick(at)
    }

    fn choose(&mut self, step: u64, n: u32) -> u32 {
        (1..n).for_each(|choice| self.note(step, Taken::Choice(choice)));
        self.replay.choose(step, n)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::Explore;
    use crate::scenes;
    use crate::script::Script;
    use machine::checked::Manner;
    use std::sync::Arc;

    #[test]
    fn a_small_scene_has_few_classes_and_all_are_run() {
        let scene = "memory b 4K\nthread zero\n cpu write b[0]\nthread one\n cpu add b[0]\n";
        let script = Arc::new(Script::parse("two", scene).unwrap());
        let setting = Setting::new(script, Manner::Linux, String::new(), Explore::Pct).calmly();
        let done = classes(&setting, |so_far| so_far.classes < 20);
        assert!(done.all && done.failure.is_none() && done.classes > 1, "{done:?}");
        assert_eq!(done.outcomes["ok"], done.classes);
    }

    /// A fault of a tile, and the same beside a CPU that has nothing to do with it but the address space.
    #[test]
    fn a_fault_has_few_classes_and_what_is_apart_is_in_nobodys_way() {
        let classes_of = |scene: &str| {
            let script = Arc::new(Script::parse("fault", scene).unwrap());
            let setting = Setting::new(script, Manner::Linux, String::new(), Explore::Pct).calmly();
            let done = classes(&setting, |so_far| so_far.classes < 2000);
            assert!(done.all && done.outcomes["ok"] == done.classes, "{done:?}");
            done.classes
        };
        let alone = classes_of("memory a 64K\nthread zero\n tile0 write a[0]\n");
        let beside = "memory a 64K\nmemory b 64K\nthread zero\n tile0 write a[0]\nthread one\n cpu write b[9]\n";
        assert!(alone > 1 && classes_of(beside) <= 2 * alone, "{alone}");
    }

    fn exhausted(scene: &str, behaviours: &str, most: usize) -> Exhausted {
        let setting = Setting::new(scenes::named(scene).unwrap(), Manner::Linux, behaviours.into(), Explore::Pct);
        exhaust(&setting, most, |so_far| so_far.runs < 4000)
    }

    #[test]
    fn what_is_not_run_is_counted() {
        let setting = Setting::new(scenes::named("c-1").unwrap(), Manner::Linux, String::new(), Explore::Pct);
        let done = exhaust(&setting, 1, |so_far| so_far.runs < 3);
        assert!(done.runs == 3 && done.left > 10, "{done:?}");
    }

    /// P1: whoever is preempted where, both devices have their accesses done.
    #[test]
    fn two_devices_race_for_a_block_and_both_end_in_every_schedule_of_one_deviation() {
        let done = exhausted("p-1", "", 1);
        assert!(done.failure.is_none() && done.left == 0 && done.runs > 100, "{done:?}");
    }

    #[test]
    fn every_single_deviation_is_run_once() {
        let done = exhausted("c-1", "", 1);
        assert!(done.failure.is_none() && done.left == 0);
        assert!(done.runs > 10 && done.outcomes["ok"] == done.runs, "{done:?}");
    }

    #[test]
    fn a_finding_has_the_fewest_deviations() {
        let (finding, schedule) = exhausted("c-2", "c=posted", 2).failure.expect("found");
        assert_eq!((finding.kind(), schedule.len()), ("signalled too early", 1));
        assert!(exhausted("c-2", "c=posted", 0).failure.is_none());
    }
}
