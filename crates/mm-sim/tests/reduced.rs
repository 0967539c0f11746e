//! What the model tells of its footprints holds: small programs on it have the same outcomes with and without reduction.

use hostmm::conformance::{BringHome, carry};
use hostmm::{DevicePage, HostMemory, HostMm, MmEvent, NotifierId, NotifierOps, OwnerId, PagemapId, Place};
use mm_sim::{Advice, Config, MapKind, Sim};
use std::collections::BTreeSet;
use std::sync::{Arc, mpsc};
use sync::sim::{Every, Limits, Outcome, Reduced, Schedule, run};
use units::{HostRange, SZ_4K};

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

const OWNER: OwnerId = OwnerId(1);

/// The first page goes to VRAM: told, claimed, staged, carried, committed, finished.
const MIGRATE: Body = |sim, range| {
    let to = DevicePage { pagemap: PagemapId(0), frame: 3 };
    match carry(sim, sim, HostRange::sized(range.start, SZ_4K), OWNER, to) {
        Ok(moved) => u64::from(moved == [true]),
        Err(_) => 60,
    }
};
/// A device reads where that page goes to, whether it is there or not.
const DEVICE_AHEAD: Body = |sim, _| {
    let (place, mut word) = (Place::Device(DevicePage { pagemap: PagemapId(0), frame: 3 }), [0; 8]);
    sim.read(place, 0, &mut word).map_or(51, |()| u64::from_le_bytes(word))
};
/// Whether a notifier was told of anything between two looks.
const RETRY: Body = |sim, _| {
    let id = NotifierId(1);
    u64::from(sim.read_retry(id, sim.read_begin(id)))
};
const FORGET: Body = |sim, _| {
    sim.notifier_remove(NotifierId(1));
    0
};

/// Hears, and does nothing.
struct Hears;

impl NotifierOps for Hears {
    fn invalidate(&self, _: &MmEvent) {}
}

/// A tile and a notifier of all of the memory.
fn serve(sim: &Arc<Sim>, range: HostRange) {
    let memory: Arc<dyn HostMemory> = sim.clone();
    let ops = BringHome::new(OWNER, SZ_4K, &memory);
    sim.pagemap_insert(PagemapId(0), OWNER, 8, ops);
    sim.notifier_insert(range, Arc::new(Hears)).unwrap();
}

fn play_on(schedule: &mut dyn Schedule, prepare: fn(&Arc<Sim>, HostRange), bodies: &[Body]) -> (Outcome, String) {
    let (seen, all) = mpsc::channel();
    let bodies = bodies.to_vec();
    let report = run(schedule, Limits::default(), move || {
        let sim = Sim::new(Config::default());
        let range = sim.mmap(2, MapKind::Anonymous);
        sim.store_u64(range.page_at(0), 1).unwrap();
        prepare(&sim, range);
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

/// The outcomes of two bodies with and without reduction, which are the same; how many runs and classes that took.
fn compare(prepare: fn(&Arc<Sim>, HostRange), pair: &[Body], told: &str) -> (u64, u64) {
    let (mut every, mut reduced) = (Every::default(), Reduced::default());
    let (mut all, mut some, mut runs) = (BTreeSet::new(), BTreeSet::new(), 0);
    loop {
        all.insert(play_on(&mut every, prepare, pair).1);
        runs += 1;
        if !every.next_run() {
            break;
        }
    }
    loop {
        let (end, outcome) = play_on(&mut reduced, prepare, pair);
        some.extend((end != Outcome::Cut).then_some(outcome));
        if !reduced.next_run() {
            break;
        }
    }
    assert_eq!(all, some, "{told}");
    (runs, reduced.classes())
}

#[test]
fn what_the_model_tells_of_its_footprints_is_all_that_it_touches() {
    let bodies = [STORE, STORE_NEXT, LOAD, LOAD_NEXT, ADD, DROP, UNMAP, LOOK, FIND, DEVICE, DEVICE_WRITES];
    let (mut runs, mut classes) = (0, 0);
    for (n, one) in bodies.iter().enumerate() {
        for (m, other) in bodies.iter().enumerate().skip(n) {
            let (more, of_them) = compare(|_, _| (), &[*one, *other], &format!("bodies {n} and {m}"));
            (runs, classes) = (runs + more, classes + of_them);
        }
    }
    assert!(classes * 3 < runs, "{classes} classes of {runs} runs");
}

#[test]
fn what_a_migration_tells_of_its_footprints_is_all_that_it_touches() {
    let others = [DEVICE_AHEAD, RETRY, FORGET];
    let (mut runs, mut classes) = (0, 0);
    for (n, other) in others.iter().enumerate() {
        let (more, of_them) = compare(serve, &[MIGRATE, *other], &format!("a migration and body {n}"));
        (runs, classes) = (runs + more, classes + of_them);
    }
    assert!(classes * 3 < runs, "{classes} classes of {runs} runs");
}

/// A look comes before or behind what begins and ends an invalidation, claims, stages, commits and finishes; it need not be tried
/// around the bytes that travel, a callback, and one more reader of the mappings.
#[test]
fn a_look_is_not_in_the_way_of_what_a_migration_carries() {
    let (_, classes) = compare(serve, &[MIGRATE, LOOK], "a migration and a look");
    assert!(classes <= 8, "{classes} classes");
}
