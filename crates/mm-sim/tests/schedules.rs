//! The conformance suite again, under the deterministic scheduler: the same cases on many schedules.

mod world;

use hostmm::conformance;
use mm_sim::Config;
use sync::sim::{self, Limits, Pct, Random, Schedule, TimeRule};
use world::SimWorld;

/// Schedules a case is run on, of each kind.
const SEEDS: u64 = 12;

/// Runs every case on one schedule each, and asserts that none is a finding.
fn run(config: Config, time: TimeRule, schedule: impl Fn(u64) -> Box<dyn Schedule>) {
    for (name, case) in conformance::all() {
        for seed in 0..SEEDS {
            let limits = Limits { time, ..Limits::default() };
            let report = sim::run(&mut *schedule(seed), limits, move || {
                let world = SimWorld::new(config, 4);
                case(&world);
                world.end();
            });
            assert!(!report.outcome.is_finding(), "{:?} {name}, seed {seed}: {:?}", config.manner, report.outcome);
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
fn linux_on_random_schedules() {
    run(Config::LINUX, TimeRule::WhenIdle, random);
}

#[test]
fn linux_on_pct_schedules() {
    run(Config::LINUX, TimeRule::Racing, pct);
}

#[test]
fn userfaultfd_on_random_schedules() {
    run(Config::USERFAULTFD, TimeRule::WhenIdle, random);
}

#[test]
fn userfaultfd_on_pct_schedules() {
    run(Config::USERFAULTFD, TimeRule::Racing, pct);
}

#[test]
fn userfaultfd_with_one_reader() {
    run(Config { readers: 1, ..Config::USERFAULTFD }, TimeRule::WhenIdle, random);
}
