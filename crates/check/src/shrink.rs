//! The smallest schedule that still fails: deviations are taken away as long as the same kind of finding is left.
//!
//! Delta debugging (Zeller and Hildebrandt, 2002): halves first, then ever smaller parts, and at last each one by itself.
//! Any subset of a list of deviations is a schedule, so nothing has to be repaired. What is left then needs each of its deviations, but
//! another schedule may need fewer: [`smallest`] also looks for one that has only one.

use crate::exhaust::exhaust;
use crate::explore::{Caught, Ran, Setting};
use sync::sim::{Deviation, TimeRule};

/// A failing run that lost what it does not need.
#[derive(Clone, Debug)]
pub struct Shrunk {
    /// What is left of the schedule.
    pub deviations: Vec<Deviation>,
    /// When time passes.
    pub time: TimeRule,
    /// The run.
    pub ran: Ran,
    /// Runs that it took.
    pub runs: u64,
}

/// Schedules of one deviation that are tried, at most.
const SINGLE: u64 = 5_000;

/// Shrinks the schedule of what was caught; where several deviations are left, one that fails likewise by a single one takes its place.
pub fn smallest(setting: &Setting, caught: &Caught) -> Shrunk {
    let shrunk = shrink(setting, caught);
    if shrunk.deviations.len() < 2 {
        return shrunk;
    }
    let single = exhaust(setting, 1, |so_far| so_far.runs < SINGLE);
    let runs = shrunk.runs + single.runs;
    match single.failure {
        Some((finding, deviations)) if finding.kind() == caught.finding.kind() => {
            let time = TimeRule::WhenIdle;
            Shrunk { ran: setting.replay(&deviations, time), deviations, time, runs }
        }
        _ => Shrunk { runs, ..shrunk },
    }
}

/// Shrinks the schedule of what was caught.
pub fn shrink(setting: &Setting, caught: &Caught) -> Shrunk {
    let mut search = Search { setting, kind: caught.finding.kind(), time: caught.plan.time, runs: 0 };
    let mut best = caught.report.deviations.clone();
    if search.time == TimeRule::Racing {
        search.time = TimeRule::WhenIdle;
        if !search.fails(&best) {
            search.time = TimeRule::Racing;
        }
    }
    if search.fails(&[]) {
        best.clear();
    }
    let mut part = best.len().div_ceil(2);
    while part > 0 && !best.is_empty() {
        let before = best.len();
        let mut at = 0;
        while at < best.len() {
            let mut fewer = best.clone();
            fewer.drain(at..(at + part).min(best.len()));
            if search.fails(&fewer) {
                best = fewer;
            } else {
                at += part;
            }
        }
        // Single ones are tried until none goes.
        part = if part > 1 { part / 2 } else { usize::from(best.len() < before) };
    }
    let ran = setting.replay(&best, search.time);
    Shrunk { deviations: ran.report.deviations.clone(), time: search.time, ran, runs: search.runs }
}

struct Search<'s> {
    setting: &'s Setting,
    kind: &'static str,
    time: TimeRule,
    runs: u64,
}

impl Search<'_> {
    fn fails(&mut self, deviations: &[Deviation]) -> bool {
        self.runs += 1;
        let ran = self.setting.replay(deviations, self.time);
        ran.finding.is_some_and(|finding| finding.kind() == self.kind)
    }
}
