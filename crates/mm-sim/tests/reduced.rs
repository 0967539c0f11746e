//! What the model tells of its footprints holds: small programs on it have the same outcomes with and without reduction.

use hostmm::{HostMemory, HostMm, Place};
use mm_sim::{Advice, Config, MapKind, Sim};
use std::collections::BTreeSet;
use std::sync::mpsc;
use sync::sim::{Every, Limits, Outcome, Reduced, Schedule, run};
use units::HostRange;

/// What a thread does to two pages, of which the first is there; what it saw.
type Body = fn(&Sim, HostRange) -> u64;

const STORE: Body = |sim, range| sim.store_u64(range.page_at(0), 7).map_or(99, |()| 0);
const STORE_NEXT: Body = |sim, range| sim.store_u64(range.page_at(1), 8).map_or(99, |()| 0);
const LOAD: Body = |sim, range| sim.load_u64(range.page_at(0)).unwrap_or(99);
const LOAD_NEXT: Body = |sim, range| sim.load_u64(range.page_at(1)).unwrap_or(99);
const ADD: Body = |sim, range| sim.fetch_add_u64(range.page_at(0), 1).unwrap_or(99);
const DROP: Body = |sim, range| sim.madvise(range, Advice::DontNeed).map_or(99, |()| 0);
const UNMAP: Body = |sim, range| {
    sim.munmap(range);
    0
};
const LOOK: Body = |sim, range| u64::from(sim.residency(range.page_at(0)).is_some());
const FIND: Body = |sim, range| sim.next_vma(range.start).map_or(0, |vma| vma.range.pages() as u64);
/// A device reads the frame that it saw before, whatever became of it.
const DEVICE: Body = |sim, range| {
    let Some(place @ Place::Host(_)) = sim.residency(range.page_at(0)) else { return 50 };
    let mut word = [0; 8];
    sim.read(place, 0, &mut word).map_or(51, |()| u64::from_le_bytes(word))
};
const DEVICE_WRITES: Body = |sim, range| {
    let Some(place @ Place::Host(_)) = sim.residency(range.page_at(0)) else { return 50 };
    sim.write(place, 0, &9u64.to_le_bytes()).map_or(51, |()| 0)
};

fn play(schedule: &mut dyn Schedule, bodies: &[Body]) -> (Outcome, String) {
    let (seen, all) = mpsc::channel();
    let bodies = bodies.to_vec();
    let report = run(schedule, Limits::default(), move || {
        let sim = Sim::new(Config::default());
        let range = sim.mmap(2, MapKind::Anonymous);
        sim.store_u64(range.page_at(0), 1).unwrap();
        let start = |(n, body): (usize, &Body)| {
            let (sim, body, seen) = (sim.clone(), *body, seen.clone());
            sync::spawn("one", move || seen.send((n, body(&sim, range))).unwrap())
        };
        bodies.iter().enumerate().map(start).collect::<Vec<_>>().into_iter().for_each(sync::JoinHandle::join);
        [0, 1].iter().for_each(|page| seen.send((9, sim.load_u64(range.page_at(*page)).unwrap_or(99))).unwrap());
        sim.check().unwrap();
    });
    let mut saw: Vec<_> = all.try_iter().collect();
    saw.sort_unstable();
    let end = report.outcome.to_string();
    (report.outcome, format!("{end} {saw:?}"))
}

#[test]
fn what_the_model_tells_of_its_footprints_is_all_that_it_touches() {
    let bodies = [STORE, STORE_NEXT, LOAD, LOAD_NEXT, ADD, DROP, UNMAP, LOOK, FIND, DEVICE, DEVICE_WRITES];
    let (mut runs, mut classes) = (0, 0);
    for (n, one) in bodies.iter().enumerate() {
        for (m, other) in bodies.iter().enumerate().skip(n) {
            let (mut every, mut reduced) = (Every::default(), Reduced::default());
            let (mut all, mut some) = (BTreeSet::new(), BTreeSet::new());
            loop {
                all.insert(play(&mut every, &[*one, *other]).1);
                runs += 1;
                if !every.next_run() {
                    break;
                }
            }
            loop {
                let (end, outcome) = play(&mut reduced, &[*one, *other]);
                some.extend((end != Outcome::Cut).then_some(outcome));
                if !reduced.next_run() {
                    break;
                }
            }
            assert_eq!(all, some, "bodies {n} and {m}");
            classes += reduced.classes();
        }
    }
    assert!(classes * 3 < runs, "{classes} classes of {runs} runs");
}
