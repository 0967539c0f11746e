//! What the model does beyond the contract: splits, injected failures, events, calls that Linux alone has.

use hostmm::conformance::{BringHome, carry};
use hostmm::{
    ClaimRequest, Claimed, DevicePage, HostMemory, HostMm, Migration, MmError, Outcome, OwnerId, PagemapId, Place,
    Toward, Walk,
};
use mm_sim::{Config, Event, Log, MapKind, Sim};
use std::sync::Arc;
use units::{HostRange, ORDER_2M, SZ_2M, SZ_4K, pages_of};

const OWNER: OwnerId = OwnerId(1);
const TO_TILE: Toward = Toward::Vram(PagemapId(0));

/// A process with one tile.
fn process() -> (Arc<Sim>, Arc<BringHome>) {
    let sim = Sim::new(Config { log: Log::Keep, ..Config::default() });
    let memory: Arc<dyn HostMemory> = sim.clone();
    let ops = BringHome::new(OWNER, SZ_4K, &memory);
    sim.pagemap_insert(PagemapId(0), OWNER, 1024, ops.clone());
    (sim, ops)
}

fn frame(frame: u64) -> DevicePage {
    DevicePage { pagemap: PagemapId(0), frame }
}

fn carry_to(sim: &Sim, range: HostRange, to: u64) -> Vec<bool> {
    carry(sim, sim, range, OWNER, frame(to)).expect("the migration is begun")
}

/// A claim that begins.
fn claim(sim: &Sim, range: HostRange, toward: Toward) -> Migration {
    let mut migration = Migration::default();
    let request = ClaimRequest { range, owner: OWNER, toward, fault: None };
    assert_eq!(sim.claim(&request, &mut migration), Ok(Claimed::Begun));
    migration
}

/// A claim towards the tile, staged to its frames from 0 on.
fn staged(sim: &Sim, range: HostRange) -> Migration {
    let mut migration = claim(sim, range, TO_TILE);
    migration.aim(range, frame(0));
    sim.stage(&mut migration).expect("staged");
    migration
}

fn order_at(sim: &Sim, range: HostRange) -> u8 {
    let mut runs = Vec::new();
    let walk = Walk {
        range: HostRange::sized(range.start, SZ_4K),
        valid_since: None,
        vma: None,
        fault: false,
        write: false,
        owner: Some(OWNER),
    };
    sim.walk(&walk, &mut runs).expect("mapped");
    runs[0].order
}

/// A huge mapping, touched once.
fn huge(sim: &Sim) -> HostRange {
    let range = sim.mmap(pages_of(SZ_2M), MapKind::Huge);
    sim.store_u64(range.start, 1).expect("mapped");
    assert_eq!(order_at(sim, range), ORDER_2M);
    range
}

#[test]
fn a_huge_mapping_keeps_its_order_only_as_a_whole() {
    let (sim, _ops) = process();
    let whole = huge(&sim);
    assert!(carry_to(&sim, whole, 512).iter().all(|moved| *moved));
    assert_eq!(order_at(&sim, whole), ORDER_2M, "an aligned run in VRAM");

    let protected = huge(&sim);
    sim.protect_read_only(HostRange::new(protected.page_at(100), protected.end));
    assert_eq!(order_at(&sim, protected), 0);

    let cut = huge(&sim);
    sim.madvise_dontneed(HostRange::new(cut.page_at(100), cut.page_at(101)));
    assert_eq!(order_at(&sim, cut), 0);

    let shared = huge(&sim);
    let child = sim.fork();
    sim.store_u64(shared.page_at(5), 2).expect("mapped");
    assert_eq!(order_at(&sim, shared), 0, "a copy of one page is no part of a huge one");
    sim.child_exit(child);

    let scattered = huge(&sim);
    assert!(carry_to(&sim, HostRange::new(scattered.start, scattered.page_at(1)), 3)[0]);
    assert_eq!(order_at(&sim, scattered), 0);
    sim.exit();
    sim.check().expect("the books balance");
}

#[test]
fn a_shortage_leaves_nothing_staged() {
    let (sim, ops) = process();
    let range = sim.mmap(1, MapKind::Anonymous);
    sim.store_u64(range.start, 8).expect("mapped");
    carry_to(&sim, range, 0);
    sim.inject_shortage(1);
    let mut migration = claim(&sim, range, Toward::Ram);
    assert_eq!(sim.stage(&mut migration), Err(MmError::NoMemory));
    sim.finish(&mut migration);
    assert_eq!(sim.residency(range.start), Some(Place::Device(frame(0))));
    assert_eq!(sim.load_u64(range.start), Ok(8));
    assert_eq!(ops.faults().len(), 1);
    sim.exit();
}

#[test]
fn a_shortage_in_a_fault_is_a_sigbus() {
    let (sim, _ops) = process();
    let range = sim.mmap(1, MapKind::Anonymous);
    sim.store_u64(range.start, 8).expect("mapped");
    carry_to(&sim, range, 0);
    sim.inject_shortage(1);
    assert_eq!(sim.load_u64(range.start), Err(mm_sim::CpuError::Bus));
    assert_eq!(sim.load_u64(range.start), Ok(8));
    sim.exit();
}

#[test]
fn a_raced_reference_fails_its_page_alone() {
    let (sim, _ops) = process();
    let range = sim.mmap(2, MapKind::Anonymous);
    (0..2).for_each(|i| sim.store_u64(range.page_at(i), 9).expect("mapped"));
    assert!(sim.inject_race(range.start));
    assert_eq!(carry_to(&sim, range, 0), [false, true]);
    assert_eq!(carry_to(&sim, range, 0), [true, false], "the second page is at its place already");
    assert_eq!(sim.load_u64(range.start), Ok(9));
    sim.exit();
}

#[test]
fn one_fault_serves_all_who_touch() {
    for seed in 0..200 {
        let mut schedule = sync::sim::Random::new(seed);
        let report = sync::sim::run(&mut schedule, sync::sim::Limits::default(), || {
            let (sim, ops) = process();
            let range = sim.mmap(1, MapKind::Anonymous);
            sim.store_u64(range.start, 4).expect("mapped");
            carry_to(&sim, range, 0);
            let touchers = [0, 1].map(|_| {
                let sim = sim.clone();
                sync::spawn("cpu", move || assert_eq!(sim.load_u64(range.start), Ok(4)))
            });
            touchers.into_iter().for_each(sync::JoinHandle::join);
            assert_eq!(ops.faults().len(), 1, "the page is locked while it is brought back");
            sim.exit();
        });
        assert!(!report.outcome.is_finding(), "seed {seed}: {:?}", report.outcome);
    }
}

#[test]
fn mappings_do_not_change_under_a_claim() {
    for seed in 0..200 {
        let mut schedule = sync::sim::Random::new(seed);
        let report = sync::sim::run(&mut schedule, sync::sim::Limits::default(), || {
            let (sim, _ops) = process();
            let range = sim.mmap(1, MapKind::Anonymous);
            sim.store_u64(range.start, 4).expect("mapped");
            let mut migration = claim(&sim, range, TO_TILE);
            let other = sim.clone();
            let unmapper = sync::spawn("cpu", move || other.munmap(range));
            (0..5).for_each(|_| sync::yield_now());
            assert!(sim.vma_lookup(range.start).is_some(), "the claim holds the mmap lock");
            sim.finish(&mut migration);
            unmapper.join();
            assert!(sim.vma_lookup(range.start).is_none());
            sim.exit();
        });
        assert!(!report.outcome.is_finding(), "seed {seed}: {:?}", report.outcome);
    }
}

#[test]
fn an_inserted_page_is_locked_until_the_finish() {
    for seed in 0..100 {
        let mut schedule = sync::sim::Random::new(seed);
        let report = sync::sim::run(&mut schedule, sync::sim::Limits::default(), || {
            let (sim, ops) = process();
            let range = sim.mmap(1, MapKind::Anonymous);
            let mut migration = staged(&sim, range);
            migration.report_from(0).note(1, Outcome::Zeroed);
            sim.commit(&mut migration);
            assert_eq!(sim.residency(range.start), Some(Place::Device(frame(0))));
            let other = sim.clone();
            let toucher = sync::spawn("cpu", move || assert_eq!(other.load_u64(range.start), Ok(0)));
            (0..5).for_each(|_| sync::yield_now());
            assert!(ops.faults().is_empty());
            sim.finish(&mut migration);
            toucher.join();
            assert_eq!(ops.faults().len(), 1);
            sim.exit();
        });
        assert!(!report.outcome.is_finding(), "seed {seed}: {:?}", report.outcome);
    }
}

#[test]
fn no_device_sees_an_io_mapping() {
    let (sim, _ops) = process();
    let range = sim.mmap(1, MapKind::Io);
    let walk = Walk { range, valid_since: None, vma: None, fault: true, write: false, owner: None };
    assert_eq!(sim.walk(&walk, &mut Vec::new()), Err(MmError::NoVma));
    assert_eq!(carry_to(&sim, range, 0), [false]);
    sim.exit();
}

#[test]
fn a_hole_takes_the_pages_behind_it_home_in_linux() {
    let (sim, ops) = process();
    let range = sim.mmap(3, MapKind::Anonymous);
    sim.store_u64(range.page_at(2), 6).expect("mapped");
    carry_to(&sim, HostRange::new(range.page_at(2), range.end), 0);
    let walk = Walk { range, valid_since: None, vma: None, fault: true, write: false, owner: Some(OWNER) };
    let mut runs = Vec::new();
    sim.walk(&walk, &mut runs).expect("mapped");
    assert!(runs.iter().all(|run| matches!(run.run.place, Some(Place::Host(_)))));
    assert_eq!(ops.faults().len(), 1);
    sim.exit();
}

#[test]
fn events_tell_what_counters_count() {
    let (sim, _ops) = process();
    let range = sim.mmap(2, MapKind::Anonymous);
    sim.store_u64(range.start, 1).expect("mapped");
    carry_to(&sim, range, 0);
    assert_eq!(sim.load_u64(range.start), Ok(1));
    sim.munmap(range);
    let log = sim.take_log();
    let count = |wanted: fn(&Event) -> bool| log.iter().filter(|event| wanted(event)).count() as u64;
    let counters = sim.counters();
    assert_eq!(counters.freed, count(|event| matches!(event, Event::Freed(_))));
    assert_eq!((counters.to_vram, counters.to_ram, counters.freed, counters.faults), (2, 1, 2, 1));
    sim.exit();
}

#[test]
fn a_pin_keeps_all_of_a_huge_page() {
    let (sim, _ops) = process();
    let range = huge(&sim);
    sim.pin(range.page_at(7)).expect("mapped");
    assert!(carry_to(&sim, range, 512).iter().all(|moved| !moved));
    let part = HostRange::new(range.page_at(100), range.page_at(116));
    assert!(carry_to(&sim, part, 0).iter().all(|moved| !moved), "it cannot be split either");
    assert_eq!(order_at(&sim, range), ORDER_2M);
    sim.unpin(range.page_at(7));
    assert!(carry_to(&sim, part, 0).iter().all(|moved| *moved));
    assert_eq!(order_at(&sim, range), 0);
    sim.check().expect("the books balance");
    sim.exit();
}
