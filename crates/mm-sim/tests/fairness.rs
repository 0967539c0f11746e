//! Nobody starves where a thread changes its mappings without a pause: a bound, counted in changes.
//!
//! One thread empties pages over and over, as the preload library lets it: another thread's touch of such a page needs a call that the
//! kernel refuses while a change is under way, and so does a tile that takes the pages.

mod world;

use hostmm::conformance::carry;
use hostmm::{DevicePage, PagemapId};
use mm_live::{LiveMm, Transport};
use mm_sim::Config;
use std::sync::Arc;
use sync::atomic::AtomicU64;
use sync::sim::{self, Limits, Pct, Random, Schedule, TimeRule};
use units::HostRange;
use world::scene::{OWNER, Scene};
use world::{LIVE, Manager};

const SEEDS: u64 = 300;
/// How often one thing that is done may be refused.
const MOST: u64 = 32;
/// After so many the thread ends: schedules may let it run alone for as long as it likes.
const DROPS: u64 = 200;

/// Two pages that are dropped all the time, beside two in VRAM, so that the drops are told.
struct Dropped {
    scene: Scene,
    stop: Arc<AtomicU64>,
    dropper: sync::JoinHandle,
    range: HostRange,
}

impl Dropped {
    fn new(scene: Scene) -> Self {
        let all = scene.filled(4, 1);
        let (range, away) = (HostRange::new(all.start, all.page_at(2)), HostRange::new(all.page_at(2), all.end));
        let to = DevicePage { pagemap: PagemapId(0), frame: 60 };
        carry(&*scene.mm, &*scene.memory, away, OWNER, to).expect("nobody else is there");
        let stop = Arc::new(AtomicU64::new(0));
        let dropper = scene.spawn({
            let stop = stop.clone();
            move |scene| {
                for _ in (0..DROPS).take_while(|_| stop.load() == 0) {
                    live(&scene).let_pass();
                    scene.sim.madvise_dontneed(range);
                }
            }
        });
        Self { scene, stop, dropper, range }
    }

    /// How often something is refused meanwhile.
    fn refusals(&self, body: impl FnOnce(&Scene)) -> u64 {
        let count = || {
            let stats = live(&self.scene).stats();
            stats.again + stats.postponed_faults
        };
        let before = count();
        body(&self.scene);
        count() - before
    }

    fn end(self) {
        self.stop.store(1);
        self.dropper.join();
    }
}

fn live(scene: &Scene) -> &LiveMm {
    scene.process.live.as_ref().expect("mm-live")
}

/// Runs it on many schedules; none may be a finding.
fn explore(scene: fn(Dropped)) {
    for seed in 0..SEEDS {
        let manager = if seed % 2 == 0 { LIVE } else { Manager::Live(Transport::Move, 1) };
        let schedules: [Box<dyn Schedule>; 2] = [Box::new(Random::new(seed)), Box::new(Pct::new(seed, 3, 800))];
        for (mut schedule, time) in schedules.into_iter().zip([TimeRule::WhenIdle, TimeRule::Racing]) {
            let report = sim::run(&mut *schedule, Limits { time, ..Limits::default() }, move || {
                let party = Scene::new(Config::default(), manager);
                scene(Dropped::new(party.clone()));
                party.end();
            });
            assert!(!report.outcome.is_finding(), "{manager:?} {time:?} seed {seed}: {:?}", report.outcome);
        }
    }
}

#[test]
fn a_touch_is_refused_a_few_times() {
    explore(|dropped| {
        for round in 0..3 {
            let page = dropped.range.page_at(round % 2);
            let refusals = dropped.refusals(|scene| scene.sim.store_u64(page, 7).expect("mapped"));
            assert!(refusals <= MOST, "{refusals} refusals before a touch was served");
        }
        dropped.end();
    });
}

#[test]
fn a_migration_is_refused_a_few_times() {
    explore(|dropped| {
        for round in 0..2 {
            let to = DevicePage { pagemap: PagemapId(1), frame: 8 * round };
            let refusals = dropped.refusals(|scene| _ = carry(&*scene.mm, &*scene.memory, dropped.range, OWNER, to));
            assert!(refusals <= MOST, "{refusals} refusals before a migration had ended");
        }
        dropped.end();
    });
}
