//! Schedules by chance: uniform, and with priorities (PCT).

use super::schedule::{Decision, Schedule};
use super::task::{MAX_TASKS, TaskId};
use crate::hook::OpKind;
use std::vec::Vec;

/// A small random generator (splitmix64): the same numbers for the same seed, on every machine, for ever.
#[derive(Clone, Debug)]
pub struct Rng(u64);

impl Rng {
    /// Starts at `seed`.
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// 64 random bits.
    pub fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `n`, which is not 0.
    pub fn below(&mut self, n: u64) -> u64 {
        ((u128::from(self.next_u64()) * u128::from(n)) >> 64) as u64
    }
}

/// Every candidate is as likely as every other one, at every step.
#[derive(Clone, Debug)]
pub struct Random(Rng);

impl Random {
    /// The schedule of that seed.
    pub const fn new(seed: u64) -> Self {
        Self(Rng::new(seed))
    }
}

/// A task whose time has not come is this many times less likely to be picked than one that can run.
const RARELY: u64 = 32;

impl Schedule for Random {
    fn pick(&mut self, at: &Decision<'_>) -> TaskId {
        let from = if !at.sleeping.is_empty() && self.0.below(RARELY) == 0 { at.sleeping } else { at.runnable };
        let n = self.0.below(u64::from(from.len())) as u32;
        from.nth(n).unwrap_or(at.default_task)
    }

    fn choose(&mut self, _: u64, n: u32) -> u32 {
        self.0.below(u64::from(n)) as u32
    }
}

/// Probabilistic concurrency testing: tasks have random priorities, the highest runs, and at `depth - 1` random
/// choices the one that would go on falls to the bottom. Finds a bug of that depth with a probability of at least
/// 1 / (tasks * choices^(depth-1)) in every run (Burckhardt et al., ASPLOS 2010). A step with one candidate is no choice:
/// nothing is decided there, so nothing is spent on it.
#[derive(Clone, Debug)]
pub struct Pct {
    rng: Rng,
    /// By task; the higher, the sooner.
    priorities: [u64; MAX_TASKS],
    /// Choices made.
    made: u64,
    /// Choices at which a task falls, the next one last.
    falls: Vec<u64>,
    /// The priority of whoever falls next: each falls below all before.
    bottom: u64,
}

impl Pct {
    /// For bugs that need `depth` ordering constraints, in runs of about so many choices.
    pub fn new(seed: u64, depth: u32, choices: u64) -> Self {
        let mut rng = Rng::new(seed);
        let mut falls: Vec<u64> = (1..depth).map(|_| 1 + rng.below(choices.max(1))).collect();
        falls.sort_unstable_by(|a, b| b.cmp(a));
        Self { rng, priorities: [0; MAX_TASKS], made: 0, falls, bottom: u64::MAX / 2 }
    }

    /// The candidate of the highest priority.
    fn first(&self, at: &Decision<'_>) -> TaskId {
        at.runnable.into_iter().max_by_key(|task| self.priorities[task.index()]).unwrap_or(at.default_task)
    }

    fn fall(&mut self, task: TaskId) {
        self.bottom -= 1;
        self.priorities[task.index()] = self.bottom;
    }
}

impl Schedule for Pct {
    fn pick(&mut self, at: &Decision<'_>) -> TaskId {
        self.made += 1;
        // Who yields waits for others: at the top it would keep them from running for ever.
        if at.pending(at.current).kind == OpKind::Yield {
            self.fall(at.current);
        }
        if !at.sleeping.is_empty() && self.rng.below(RARELY) == 0 {
            let n = self.rng.below(u64::from(at.sleeping.len())) as u32;
            return at.sleeping.nth(n).unwrap_or(at.default_task);
        }
        while self.falls.last().is_some_and(|choice| *choice <= self.made) {
            self.falls.pop();
            let first = self.first(at);
            self.fall(first);
        }
        self.first(at)
    }

    fn goes_on(&self) -> u64 {
        self.falls.last().map_or(u64::MAX, |choice| choice.saturating_sub(self.made + 1))
    }

    fn went_on(&mut self, times: u64) {
        self.made += times;
    }

    fn choose(&mut self, _: u64, n: u32) -> u32 {
        self.rng.below(u64::from(n)) as u32
    }

    fn started(&mut self, task: TaskId) {
        self.priorities[task.index()] = u64::MAX / 2 + self.rng.next_u64() / 2;
    }
}
