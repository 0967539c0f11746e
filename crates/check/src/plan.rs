//! What a seed decides before a run of a scene begins: by which rule its tasks take turns, and whether time races.
//!
//! A search goes by priorities ([`Pct`]): the first task runs as long as it can, and at a few choices of the seed's choosing
//! whoever would go on falls behind all others. That finds what needs one thread to stand still while another does hundreds
//! of steps. Consecutive seeds have depths 2 to 8. Uniform schedules, in which everybody is as likely to go on at every
//! choice, are there on request: two threads then go about equally fast.
//!
//! Where a scene races time, every second seed lets time pass while others work: a residency ends early, a sleeper is
//! back before anybody else has moved.
//!
//! All of it is a function of the scene and the seed, so that both together are the name of a run.

use crate::script::Script;
use std::fmt;
use sync::sim::{Decision, Pct, Random, Schedule, TaskId, TimeRule};

/// How a search goes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Explore {
    /// By priorities.
    #[default]
    Pct,
    /// Uniform.
    Random,
}

/// What a seed stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plan {
    /// The seed.
    pub seed: u64,
    /// Who goes on.
    pub order: Order,
    /// When time passes.
    pub time: TimeRule,
}

/// How the tasks of a run take turns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// Each as likely as any other, at every choice.
    Uniform,
    /// By priorities that change `depth - 1` times.
    Priorities {
        /// Ordering constraints of the bugs that it is good at.
        depth: u32,
    },
}

/// The least number of ordering constraints.
const SHALLOWEST: u64 = 2;
/// How many numbers from there.
const DEPTHS: u64 = 7;

impl Plan {
    /// That of a seed.
    pub fn of(script: &Script, explore: Explore, seed: u64) -> Self {
        let order = match explore {
            Explore::Random => Order::Uniform,
            Explore::Pct => Order::Priorities { depth: (SHALLOWEST + seed / 2 % DEPTHS) as u32 },
        };
        let races = script.races_time && !seed.is_multiple_of(2);
        Self { seed, order, time: if races { TimeRule::Racing } else { TimeRule::WhenIdle } }
    }

    /// Its schedule, for runs of about so many choices.
    pub fn schedule(&self, choices: u64) -> Box<dyn Schedule> {
        match self.order {
            Order::Uniform => Box::new(Random::new(self.seed)),
            Order::Priorities { depth } => Box::new(Pct::new(self.seed, depth, choices)),
        }
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.order {
            Order::Uniform => f.write_str("random schedule")?,
            Order::Priorities { depth } => write!(f, "pct schedule of depth {depth}")?,
        }
        match self.time {
            TimeRule::WhenIdle => Ok(()),
            TimeRule::Racing => f.write_str(", racing time"),
        }
    }
}

/// Nobody is preempted; the choices are counted.
#[derive(Default)]
pub(crate) struct Counting {
    pub choices: u64,
}

impl Schedule for Counting {
    fn pick(&mut self, at: &Decision<'_>) -> TaskId {
        self.choices += 1;
        at.default_task
    }

    fn choose(&mut self, _: u64, _: u32) -> u32 {
        0
    }
}
