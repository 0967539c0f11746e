//! What a seed decides before a run begins: the scene, by which rule its tasks take turns, and when time passes.
//!
//! Two seeds go to one scene, the next two to the next. Even seeds are uniform: everybody is as likely to go on, at
//! every step. That tries many fine interleavings, but two threads then go about equally fast, so a race that needs one
//! of them to stand still while another one does hundreds of steps is never seen. Odd seeds have priorities ([`Pct`]):
//! the first task runs as long as it can, and at a few steps of the seed's choice it falls behind all others.
//!
//! In every second six dozen of seeds, time may pass while others work: a residency ends early, a sleeper is back
//! before anybody else has moved.
//!
//! All of it is a function of the seed, so that a seed is the name of a run.

use crate::scene::Scene;
use std::fmt;
use sync::sim::{Pct, Random, Schedule, TimeRule};

/// What a seed stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plan {
    /// The seed.
    pub seed: u64,
    /// What is played.
    pub scene: Scene,
    /// Who goes on.
    pub order: Order,
    /// When time passes.
    pub time: TimeRule,
}

/// How the tasks of a run take turns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// Each as likely as any other, at every step.
    Uniform,
    /// By priorities that change `depth - 1` times.
    Priorities {
        /// Ordering constraints of the bugs that it is good at.
        depth: u32,
    },
}

/// The least number of ordering constraints that is looked for with priorities; uniform schedules find the rest.
const SHALLOWEST: u32 = 3;
/// How many numbers from there.
const DEPTHS: u64 = 6;
/// Steps of a run, roughly: the falls of a task are spread over so many.
const fn length(scene: Scene) -> u64 {
    match scene {
        Scene::Block | Scene::Wide | Scene::Owners | Scene::Movers => 3000,
        Scene::Binds => 600,
        Scene::Guests => 6000,
    }
}

const SCENES: [Scene; 6] = [Scene::Block, Scene::Wide, Scene::Owners, Scene::Movers, Scene::Guests, Scene::Binds];
/// Seeds with which every scene has had every order.
const KINDS: u64 = 2 * SCENES.len() as u64 * DEPTHS;

impl Plan {
    /// That of a seed.
    pub fn of(seed: u64) -> Self {
        let scene = SCENES[(seed / 2 % SCENES.len() as u64) as usize];
        let order = match seed % 2 {
            0 => Order::Uniform,
            _ => Order::Priorities { depth: SHALLOWEST + (seed / (2 * SCENES.len() as u64) % DEPTHS) as u32 },
        };
        // Jobs without faults have a timeout: where time races, one that is merely slow is killed.
        let racing = scene != Scene::Binds && !(seed / KINDS).is_multiple_of(2);
        let time = if racing { TimeRule::Racing } else { TimeRule::WhenIdle };
        Self { seed, scene, order, time }
    }

    /// Its schedule.
    pub fn schedule(&self) -> Box<dyn Schedule> {
        match self.order {
            Order::Uniform => Box::new(Random::new(self.seed)),
            Order::Priorities { depth } => Box::new(Pct::new(self.seed, depth, length(self.scene))),
        }
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "scene {}, ", self.scene)?;
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_scene_gets_uniform_seeds_and_priorities_of_every_depth() {
        for (seeds, time) in [(0..KINDS, TimeRule::WhenIdle), (KINDS..2 * KINDS, TimeRule::Racing)] {
            let plans: Vec<Plan> = seeds.map(Plan::of).collect();
            assert!(plans.iter().all(|plan| plan.time == time || plan.scene == Scene::Binds));
            for scene in SCENES {
                let count = |order| plans.iter().filter(|plan| (plan.scene, plan.order) == (scene, order)).count();
                assert_eq!(count(Order::Uniform), 6, "{scene}");
                for depth in 3..=8 {
                    assert_eq!(count(Order::Priorities { depth }), 1, "{scene} {depth}");
                }
            }
        }
    }
}
