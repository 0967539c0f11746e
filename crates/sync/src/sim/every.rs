//! Every schedule of a program, one after another, with nothing left out: what [`Reduced`](super::Reduced) is measured by.

use super::schedule::{Decision, Schedule};
use super::task::TaskId;
use crate::hook::OpKind;
use std::vec::Vec;

/// A schedule for one run after another, until there is no other. Only for programs of a few steps. Who yields does not go on
/// before somebody else has done a step, where somebody can.
#[derive(Clone, Debug, Default)]
pub struct Every {
    /// What was taken at each decision, and of how many.
    taken: Vec<(u32, u32)>,
    passed: usize,
}

impl Every {
    /// The run is over: goes back to the last decision where something is left. False where there is none.
    pub fn next_run(&mut self) -> bool {
        self.passed = 0;
        while let Some((taken, of)) = self.taken.pop() {
            if taken + 1 < of {
                self.taken.push((taken + 1, of));
                return true;
            }
        }
        false
    }

    fn take(&mut self, of: u32) -> u32 {
        if self.passed == self.taken.len() {
            self.taken.push((0, of));
        }
        self.passed += 1;
        self.taken[self.passed - 1].0
    }
}

impl Schedule for Every {
    fn pick(&mut self, at: &Decision<'_>) -> TaskId {
        let mut all = at.runnable;
        if at.pending(at.current).kind == OpKind::Yield {
            all.remove(at.current);
        }
        let n = self.take(all.len());
        all.nth(n).unwrap_or(at.default_task)
    }

    fn choose(&mut self, _: u64, n: u32) -> u32 {
        self.take(n)
    }
}
