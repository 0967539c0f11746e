//! Every schedule with at most so many deviations from run-to-block, the ones with fewer first.
//!
//! Where a run makes a choice behind its last deviation, each alternative begins another schedule. So each list of deviations is
//! run once, and a finding has the fewest deviations that any schedule needs for it. Nothing is left out but schedules
//! with more deviations: there is no reduction by independence yet.

use crate::explore::{Ran, Setting};
use crate::finding::Finding;
use std::collections::{BTreeMap, VecDeque};
use sync::sim::{Decision, Deviation, Replay, Schedule, Taken, TaskId, TimeRule};

/// What was run.
#[derive(Clone, Debug, Default)]
pub struct Exhausted {
    /// Runs.
    pub runs: u64,
    /// Schedules that were left when the limit came; 0: all were run.
    pub left: u64,
    /// How runs ended, and how often: the kind of a finding, or `ok`.
    pub outcomes: BTreeMap<&'static str, u64>,
    /// The first finding, and its schedule.
    pub failure: Option<(Finding, Vec<Deviation>)>,
}

/// Runs all schedules with at most `most` deviations, but no more than `runs`. Stops at the first finding.
pub fn exhaust(setting: &Setting, most: usize, runs: u64) -> Exhausted {
    let mut done = Exhausted::default();
    let mut next = VecDeque::from([Vec::new()]);
    while let Some(deviations) = next.pop_front() {
        if done.runs == runs {
            done.left = next.len() as u64 + 1;
            break;
        }
        let branches = deviations.len() < most;
        let mut schedule = Branching::new(deviations.clone(), branches);
        let Ran { finding, .. } = setting.run(&mut schedule, TimeRule::WhenIdle);
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
    use machine::checked::Manner;

    fn exhausted(scene: &str, behaviours: &str, most: usize) -> Exhausted {
        let setting = Setting::new(scenes::named(scene).unwrap(), Manner::Linux, behaviours.into(), Explore::Pct);
        exhaust(&setting, most, 4000)
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
