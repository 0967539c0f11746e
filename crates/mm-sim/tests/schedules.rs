//! The conformance suite again, under the deterministic scheduler: the same cases on many schedules.

mod world;

use hostmm::conformance;
use mm_live::Transport;
use mm_sim::Config;
use sync::sim::{self, Limits, Pct, Random, Schedule, TimeRule};
use world::{LIVE, Manager, SimWorld};

/// Schedules a case is run on, of each kind.
const SEEDS: u64 = 12;

/// Runs every case on one schedule each, and asserts that none is a finding.
fn run(manager: Manager, time: TimeRule, schedule: impl Fn(u64) -> Box<dyn Schedule>) {
    for (name, case) in conformance::all() {
        for seed in 0..SEEDS {
            let limits = Limits { time, ..Limits::default() };
            let report = sim::run(&mut *schedule(seed), limits, move || {
                let world = SimWorld::new(Config::default(), manager, 4);
                case(&world);
                world.end();
            });
            assert!(!report.outcome.is_finding(), "{manager:?} {name}, seed {seed}: {:?}", report.outcome);
        }
    }
}

fn random(seed: u64) -> Box<dyn Schedule> {
    Box::new(Random::new(seed))
}

fn pct(seed: u64) -> Box<dyn Schedule> {
    Box::new(Pct::new(seed, 3, 400))
}

#[test]
fn the_kernel_on_random_schedules() {
    run(Manager::Kernel, TimeRule::WhenIdle, random);
}

#[test]
fn the_kernel_on_pct_schedules() {
    run(Manager::Kernel, TimeRule::Racing, pct);
}

#[test]
fn live_on_random_schedules() {
    run(LIVE, TimeRule::WhenIdle, random);
}

#[test]
fn live_on_pct_schedules() {
    run(LIVE, TimeRule::Racing, pct);
}

#[test]
fn live_with_one_reader() {
    run(Manager::Live(Transport::Move, 1), TimeRule::WhenIdle, random);
}
