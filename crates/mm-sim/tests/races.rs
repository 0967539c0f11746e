//! Scenes of two and three parties, on many schedules: mappings that change under a migration, and a device
//! whose translations are torn down by a notifier.

mod world;

use hostmm::{
    AccessError, AtomicOp, DevicePage, DeviceRun, Migration, MmEvent, NotifierId, NotifierOps, PagemapId, Place, Walk,
};
use mm_live::Transport;
use mm_sim::{Config, MapKind};
use std::sync::Arc;
use sync::Mutex;
use sync::atomic::AtomicU64;
use sync::rank::{self, Rank};
use sync::sim::{self, Limits, Pct, Random, Schedule};
use units::{HostRange, HostVa, SZ_4K};
use world::scene::{OWNER, Scene};
use world::{LIVE, Manager};

/// Schedules a scene is run on, of each kind and for each manager.
const SEEDS: u64 = 200;

/// Pages of 2M: what is watched as one.
const CHUNK: usize = 512;

/// Runs a scene for each manager on many schedules.
fn explore(scene: fn(Scene)) {
    for manager in [Manager::Kernel, LIVE, Manager::Live(Transport::Move, 1)] {
        for seed in 0..SEEDS {
            let schedules: [Box<dyn Schedule>; 2] = [Box::new(Random::new(seed)), Box::new(Pct::new(seed, 4, 300))];
            for mut schedule in schedules {
                let report = sim::run(&mut *schedule, Limits::default(), move || {
                    let party = Scene::new(Config::default(), manager);
                    scene(party.clone());
                    party.end();
                });
                assert!(!report.outcome.is_finding(), "{manager:?} seed {seed}: {:?}", report.outcome);
            }
        }
    }
}

/// A hole that is mapped anew shows nothing of what VRAM had of the old mapping.
#[test]
fn unmapped_and_mapped_anew_under_a_migration() {
    explore(|scene| {
        let range = scene.filled(2, 10);
        let migrator = scene.spawn(move |scene| scene.migrate(range, 3, 0));
        scene.process.munmap(range);
        scene.sim.mmap_at(range, MapKind::Anonymous).expect("nothing is there");
        assert_eq!(scene.sim.load_u64(range.page_at(1)), Ok(0));
        scene.fill(range, 20);
        migrator.join();
        for i in 0..2 {
            assert_eq!(scene.sim.load_u64(range.page_at(i)), Ok(20 + i as u64));
        }
    });
}

/// What was given to DONTNEED is gone, wherever it was at that moment.
#[test]
fn dropped_under_a_migration() {
    explore(|scene| {
        let range = scene.filled(2, 10);
        let migrator = scene.spawn(move |scene| scene.migrate(range, 3, 0));
        scene.sim.madvise_dontneed(range);
        for i in 0..2 {
            assert_eq!(scene.sim.load_u64(range.page_at(i)), Ok(0));
        }
        scene.fill(range, 30);
        migrator.join();
        assert_eq!(scene.sim.load_u64(range.page_at(1)), Ok(31));
    });
}

/// A mapping that moves keeps its data, wherever its pages are at that moment.
#[test]
fn moved_under_a_migration() {
    explore(|scene| {
        let range = scene.filled(2, 40);
        let migrator = scene.spawn(move |scene| scene.migrate(range, 2, 0));
        let to = scene.process.mremap(range);
        let second = scene.spawn(move |scene| scene.migrate(to, 2, 8));
        for i in 0..2 {
            assert_eq!(scene.sim.load_u64(to.page_at(i)), Ok(40 + i as u64));
        }
        migrator.join();
        second.join();
        assert_eq!(scene.sim.load_u64(to.start), Ok(40));
    });
}

/// A mapping of two chunks of which one is watched moves whole, also in the moment in which another thread's call has the
/// watch ended.
#[test]
fn moved_while_its_watch_ends() {
    explore(|scene| {
        let range = scene.sim.mmap(2 * CHUNK, MapKind::Anonymous);
        let part = HostRange::sized(range.start, 2 * SZ_4K);
        scene.fill(part, 40);
        scene.migrate(part, 1, 0);
        let other = scene.spawn(move |scene| scene.process.around_change(part, || ()));
        let to = scene.process.mremap(range);
        assert_eq!(scene.sim.load_u64(to.page_at(1)), Ok(41));
        other.join();
    });
}

/// A child sees what was there at the fork, and later stores of the parent are its own.
#[test]
fn forked_under_a_migration() {
    explore(|scene| {
        let range = scene.filled(2, 50);
        let migrator = scene.spawn(move |scene| {
            scene.migrate(range, 3, 0);
            scene.evict(range);
        });
        let child = scene.process.fork();
        scene.fill(range, 60);
        for i in 0..2 {
            assert_eq!(scene.sim.child_load_u64(child, range.page_at(i)), Ok(50 + i as u64));
            assert_eq!(scene.sim.load_u64(range.page_at(i)), Ok(60 + i as u64));
        }
        scene.sim.child_exit(child);
        migrator.join();
    });
}

/// A device: one translation, torn down by its notifier under the lock that its accesses hold.
struct Device {
    translation: Mutex<Option<Place>>,
}

impl Device {
    fn insert(scene: &Scene, range: HostRange) -> (Arc<Self>, NotifierId) {
        let device = Arc::new(Self { translation: rank::mutex(Rank::TLB, None) });
        let id = scene.mm.notifier_insert(range, device.clone()).expect("inserted");
        (device, id)
    }
}

impl NotifierOps for Device {
    fn invalidate(&self, _: &MmEvent) {
        *self.translation.lock() = None;
    }
}

/// Adds to the word at `at`, as a device with SVM does: translate, check the sequence, access, or begin again.
/// Gives the old value.
fn device_add(scene: &Scene, device: &Device, id: NotifierId, at: HostVa) -> u64 {
    let add = |place| scene.memory.atomic(place, at.page_offset(), 8, AtomicOp::Add(1));
    loop {
        let translation = device.translation.lock();
        let old = match *translation {
            Some(place @ Place::Host(_)) if scene.process.live.is_some() => {
                drop(translation); // By address, and it may wait for a reader: outside of what a flush drains.
                add(place)
            }
            Some(place) => match add(place) {
                // Told late, and the notifier needs our lock.
                Err(AccessError::Again) => {
                    drop(translation);
                    scene.process.settle();
                    continue;
                }
                done => done,
            },
            None => {
                drop(translation);
                translate(scene, device, id, at.page());
                continue;
            }
        };
        match old {
            Ok(old) => return old,
            Err(error) => panic!("the device went by a stale translation: {error:?}"),
        }
    }
}

fn translate(scene: &Scene, device: &Device, id: NotifierId, page: HostVa) {
    let seq = scene.mm.read_begin(id);
    let mut found = Vec::new();
    let range = HostRange::sized(page, SZ_4K);
    let walk = Walk { range, valid_since: Some((id, seq)), vma: None, fault: true, write: true, owner: Some(OWNER) };
    if scene.mm.walk(&walk, &mut found).is_err() {
        return sync::yield_now();
    }
    let mut translation = device.translation.lock();
    if !scene.mm.read_retry(id, seq) {
        *translation = found[0].run.place;
    }
}

/// CPU and device add to one word while its page is migrated and evicted: no addition is lost, and the device
/// never uses a translation that is stale.
#[test]
fn a_device_and_a_cpu_on_one_word() {
    explore(|scene| {
        let range = scene.filled(1, 0);
        let migrator = scene.spawn(move |scene| {
            scene.migrate(range, 3, 0);
            scene.evict(range);
        });
        let gpu = scene.spawn(move |scene| {
            let (device, id) = Device::insert(&scene, range);
            let mut last = 0;
            for _ in 0..4 {
                let old = device_add(&scene, &device, id, range.start);
                assert!(old >= last, "the word went back from {last} to {old}");
                last = old + 1;
            }
            scene.mm.notifier_remove(id);
        });
        for _ in 0..4 {
            scene.sim.fetch_add_u64(range.start, 1).expect("mapped");
        }
        migrator.join();
        gpu.join();
        assert_eq!(scene.sim.load_u64(range.start), Ok(8));
    });
}

/// The same device, while the mapping goes and comes: it never reaches what is gone.
#[test]
fn a_device_and_a_changing_mapping() {
    explore(|scene| {
        let range = scene.filled(1, 0);
        let gpu = scene.spawn(move |scene| {
            let (device, id) = Device::insert(&scene, range);
            for frame in 0..3 {
                scene.migrate(range, 1, frame);
                device_add(&scene, &device, id, range.start.add(8));
            }
            scene.mm.notifier_remove(id);
        });
        scene.sim.madvise_dontneed(range);
        scene.sim.protect_read_write(range);
        assert_eq!(scene.sim.load_u64(range.start), Ok(0));
        gpu.join();
        assert!(scene.sim.load_u64(range.start.add(8)).is_ok_and(|sum| sum <= 3));
    });
}

/// What a device reads after the program mapped the range anew and stored is what was stored.
#[test]
fn nothing_old_after_a_mapping_anew() {
    explore(|scene| {
        let range = scene.filled(1, 1);
        scene.migrate(range, 1, 0);
        let (device, id) = Device::insert(&scene, range);
        device_add(&scene, &device, id, range.start);
        let stored = Arc::new(AtomicU64::new(0));
        let flag = stored.clone();
        let gpu = scene.spawn(move |scene| {
            while flag.load() == 0 {
                sync::yield_now();
            }
            assert_eq!(device_add(&scene, &device, id, range.start), 100);
            scene.mm.notifier_remove(id);
        });
        scene.process.munmap(range);
        scene.sim.mmap_at(range, MapKind::Anonymous).expect("nothing is there");
        scene.fill(range, 100);
        stored.store(1);
        gpu.join();
    });
}

/// The same where another thread takes the hole at once, before the thread that made it goes on. With mm-live the event of
/// the munmap is unread for a moment then, so what the thread has a device do must wait until the engine was told.
#[test]
fn nothing_old_after_another_thread_mapped() {
    explore(|scene| {
        let range = scene.filled(1, 1);
        scene.migrate(range, 1, 0);
        let (device, id) = Device::insert(&scene, range);
        device_add(&scene, &device, id, range.start);
        let unmapper = scene.spawn(move |scene| scene.process.munmap(range));
        while scene.sim.mmap_at(range, MapKind::Anonymous).is_err() {
            sync::yield_now();
        }
        scene.fill(range, 100);
        scene.process.settle();
        assert_eq!(device_add(&scene, &device, id, range.start), 100);
        unmapper.join();
        scene.mm.notifier_remove(id);
    });
}

/// Two engines' faults, an eviction and a CPU on the same pages: everything ends, nothing is lost.
#[test]
fn everybody_wants_the_same_pages() {
    explore(|scene| {
        let range = scene.filled(2, 70);
        let parties = [
            scene.spawn(move |scene| scene.migrate(range, 2, 0)),
            scene.spawn(move |scene| scene.migrate(range, 2, 32)),
            scene.spawn(move |scene| {
                let first = |frame| DevicePage { pagemap: PagemapId(0), frame };
                let mut migration = Migration::default();
                let pages = [0, 16].map(|frame| DeviceRun { first: first(frame), pages: 2 });
                scene.mm.claim_device(&pages, &mut migration).expect("begun");
                scene.mm.finish(&mut migration);
                scene.check();
            }),
        ];
        for i in 0..2 {
            assert_eq!(scene.sim.fetch_add_u64(range.page_at(i), 1), Ok(70 + i as u64));
        }
        for party in parties {
            party.join();
        }
        for i in 0..2 {
            assert_eq!(scene.sim.load_u64(range.page_at(i)), Ok(71 + i as u64));
        }
    });
}
