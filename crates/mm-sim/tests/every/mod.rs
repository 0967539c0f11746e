//! Every schedule that leaves run-to-block at most so often: for scenes of a few steps.

use sync::sim::{self, Decision, Limits, Outcome, Schedule, TaskId};

/// One choice of a run: which alternative was taken, and how many there were.
#[derive(Clone, Copy)]
struct Choice {
    taken: u32,
    of: u32,
}

/// Takes the alternatives it is told to, and the first from there on.
struct Path<'a> {
    choices: &'a mut Vec<Choice>,
    at: usize,
    left: u32,
}

impl Path<'_> {
    fn take(&mut self, of: u32) -> u32 {
        if self.at == self.choices.len() {
            self.choices.push(Choice { taken: 0, of });
        }
        let taken = self.choices[self.at].taken;
        assert_eq!(self.choices[self.at].of, of, "the scene does the same again");
        self.at += 1;
        taken
    }
}

impl Schedule for Path<'_> {
    fn pick(&mut self, at: &Decision<'_>) -> TaskId {
        if self.left == 0 {
            return at.default_task;
        }
        let all = (0..at.runnable.len()).filter_map(|n| at.runnable.nth(n));
        let others: Vec<TaskId> = all.filter(|task| *task != at.default_task).collect();
        match self.take(1 + others.len() as u32) {
            0 => at.default_task,
            other => {
                self.left -= 1;
                others[other as usize - 1]
            }
        }
    }
    fn choose(&mut self, _: u64, n: u32) -> u32 {
        self.take(n)
    }
}

/// Runs a scene on every schedule with at most `deviations`; gives how many there were.
///
/// # Panics
/// Where one is a finding.
pub fn explore(deviations: u32, scene: impl Fn() + Clone + Send + 'static) -> u32 {
    let mut choices = Vec::new();
    let mut runs = 0;
    loop {
        let mut path = Path { choices: &mut choices, at: 0, left: deviations };
        let report = sim::run(&mut path, Limits { steps: 20_000, ..Limits::default() }, scene.clone());
        let outcome = report.outcome;
        assert!(outcome == Outcome::Finished, "run {runs}: {outcome:?}, by {:?}", report.deviations);
        runs += 1;
        while choices.last().is_some_and(|choice| choice.taken + 1 == choice.of) {
            choices.pop();
        }
        match choices.last_mut() {
            Some(choice) => choice.taken += 1,
            None => return runs,
        }
    }
}
