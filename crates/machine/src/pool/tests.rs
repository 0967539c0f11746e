//! The pool among simulated processes, under many schedules.

use super::simulated::World;
use super::*;
use crate::topology::PVC_SMALL;
use sync::atomic::AtomicU64;
use sync::sim::{Limits, Outcome, Random, run};
use units::SZ_2M;
use xe_kmd::Budget as _;

const TILE: TileId = TileId(1);
const ALL: u64 = 8 * SZ_2M;

/// Plays under many schedules; each ends.
fn played(body: impl Fn() + Clone + Send + 'static) {
    for seed in 0..200 {
        let report = run(&mut Random::new(seed), Limits::default(), body.clone());
        assert_eq!(report.outcome, Outcome::Finished, "seed {seed}");
    }
}

fn budget(world: &Arc<World>, process: u32) -> Arc<Budget> {
    let pool = Pool::join(world.process(process), &[&PVC_SMALL, &PVC_SMALL]).expect("a slot");
    Arc::new(Budget { pool, device: DeviceId(1) })
}

/// Has memory, and gives what it is asked for.
struct Giver {
    budget: Arc<Budget>,
    has: AtomicU64,
}

impl Evict for Arc<Giver> {
    fn evict(&self, device: DeviceId, tile: TileId, bytes: u64) {
        assert_eq!((device, tile), (DeviceId(1), TILE));
        let gives = bytes.next_multiple_of(SZ_2M).min(self.has.load());
        self.has.fetch_sub(gives);
        self.budget.uncharge(TILE, gives);
    }
}

/// A process that has so much, used at that time, and serves.
fn giver(world: &Arc<World>, process: u32, has: u64, oldest_ns: u64) -> (Arc<Giver>, Server) {
    let budget = budget(world, process);
    assert!(budget.try_charge(TILE, has));
    budget.note_oldest(TILE, oldest_ns);
    let giver = Arc::new(Giver { budget, has: AtomicU64::new(has) });
    let server = Server::start(&giver.budget.pool, giver.clone()).expect("a task");
    (giver, server)
}

#[test]
fn nobody_ever_has_what_another_has() {
    played(|| {
        let (world, granted) = (World::new(), Arc::new(AtomicU64::new(0)));
        let budgets = [1, 2, 3].map(|process| budget(&world, process));
        let play = |budget: Arc<Budget>| {
            let granted = granted.clone();
            sync::spawn("process", move || {
                for _ in 0..3 {
                    if budget.try_charge(TILE, 3 * SZ_2M) {
                        assert!(granted.fetch_add(3 * SZ_2M) + 3 * SZ_2M <= ALL, "too much is charged");
                        granted.fetch_sub(3 * SZ_2M);
                        budget.uncharge(TILE, 3 * SZ_2M);
                    }
                }
            })
        };
        budgets.clone().map(play).into_iter().for_each(sync::JoinHandle::join);
        assert!(budgets[0].try_charge(TILE, ALL) && !budgets[1].try_charge(TILE, 1));
        assert!(budgets[1].try_charge(TileId(0), ALL), "each tile has its own");
        assert_eq!((budgets[1].used_by_others(TILE), budgets[0].used_by_others(TILE)), (ALL, 0));
    });
}

#[test]
fn the_process_with_the_oldest_memory_is_asked() {
    played(|| {
        let world = World::new();
        let (old, old_server) = giver(&world, 1, 4 * SZ_2M, 10);
        let (young, young_server) = giver(&world, 2, 4 * SZ_2M, 30);
        let asks = budget(&world, 3);
        assert!(!asks.try_charge(TILE, SZ_2M));
        assert_eq!(asks.make_room(TILE, SZ_2M, 5), Room::Ours, "what the asker has is older");
        assert_eq!(asks.make_room(TILE, SZ_2M, 20), Room::Theirs);
        assert!(!young.budget.try_charge(TILE, SZ_2M), "what was given is the asker's");
        assert!(asks.try_charge(TILE, SZ_2M));
        assert_eq!([&old, &young].map(|giver| giver.has.load()), [3 * SZ_2M, 4 * SZ_2M]);
        [old_server, young_server].iter().for_each(Server::stop);
    });
}

/// Two that want all of it get it in turn.
#[test]
fn who_wants_much_is_not_starved() {
    played(|| {
        let world = World::new();
        let givers = [1, 2].map(|process| giver(&world, process, 0, u64::MAX));
        let play = |giver: Arc<Giver>| {
            sync::spawn("process", move || {
                let takes = || {
                    let fits = giver.budget.try_charge(TILE, 5 * SZ_2M);
                    if !fits {
                        giver.budget.make_room(TILE, 5 * SZ_2M, u64::MAX);
                    }
                    fits
                };
                assert!((0..16).any(|_| takes()), "never had enough");
                giver.has.fetch_add(5 * SZ_2M);
                giver.budget.note_oldest(TILE, now_ns());
            })
        };
        let players: Vec<_> = givers.iter().map(|(giver, _)| play(giver.clone())).collect();
        players.into_iter().for_each(sync::JoinHandle::join);
        givers.into_iter().for_each(|(_, server)| server.stop());
    });
}

#[test]
fn a_killed_process_gives_its_share_back_at_once() {
    played(|| {
        let world = World::new();
        let (killed, looks, takes) = (budget(&world, 1), budget(&world, 2), budget(&world, 3));
        assert!(killed.try_charge(TILE, 4 * SZ_2M) && looks.try_charge(TILE, SZ_2M));
        let (then, shares) = (now_ns(), 4 * SZ_2M);
        world.kill(1);
        let taker = sync::spawn("takes", move || {
            let fits = || takes.try_charge(TILE, 7 * SZ_2M);
            let room = || takes.make_room(TILE, 7 * SZ_2M, u64::MAX) == Room::Theirs;
            assert!(fits() || room() && (fits() || room() && fits()));
        });
        // Whoever clears the slot, the other may have looked just before.
        assert!([0, 7 * SZ_2M, shares, shares + 7 * SZ_2M].contains(&looks.used_by_others(TILE)));
        taker.join();
        let next = budget(&world, 4);
        assert_eq!((next.pool.slot, looks.used_by_others(TILE), now_ns()), (0, 7 * SZ_2M, then));
    });
}

#[test]
fn a_process_that_does_not_answer_is_waited_for_once() {
    played(|| {
        let world = World::new();
        let (stopped, asks) = (budget(&world, 1), budget(&world, 2));
        assert!(stopped.try_charge(TILE, ALL));
        stopped.note_oldest(TILE, 1);
        let start = now_ns();
        assert_eq!(asks.make_room(TILE, SZ_2M, u64::MAX), Room::Theirs);
        let waited = now_ns() - start;
        assert!((PATIENCE_NS..2 * PATIENCE_NS).contains(&waited), "{waited}");
        assert_eq!((asks.make_room(TILE, SZ_2M, u64::MAX), now_ns() - start), (Room::Ours, waited));
        // It goes on, and serves what it was asked for: from now on it is asked again.
        let giver = Arc::new(Giver { budget: stopped, has: AtomicU64::new(ALL) });
        let server = Server::start(&giver.budget.pool, giver.clone()).expect("a task");
        while giver.has.load() == ALL {
            sync::time::sleep_ns(1000);
        }
        assert!(asks.try_charge(TILE, SZ_2M));
        assert_eq!(asks.make_room(TILE, SZ_2M, u64::MAX), Room::Theirs);
        assert!(asks.try_charge(TILE, SZ_2M));
        server.stop();
    });
}

#[test]
fn a_stopped_process_is_not_waited_for() {
    played(|| {
        let world = World::new();
        let (stopped, asks) = (budget(&world, 1), budget(&world, 2));
        assert!(stopped.try_charge(TILE, ALL));
        let start = now_ns();
        let stopper = sync::spawn("stopper", {
            let world = world.clone();
            move || world.stop(1)
        });
        // Where it was asked before it was stopped that is seen at the next look.
        asks.make_room(TILE, SZ_2M, u64::MAX);
        stopper.join();
        assert!(now_ns() - start <= PAUSE_NS + LOOK_NS, "{}", now_ns() - start);
        let then = now_ns();
        assert_eq!((asks.make_room(TILE, SZ_2M, u64::MAX), now_ns()), (Room::Ours, then));
    });
}

#[test]
fn who_dies_while_it_is_asked_or_in_its_turn_blocks_nobody() {
    played(|| {
        let world = World::new();
        let [dies, in_turn, asks] = [1, 2, 3].map(|process| budget(&world, process));
        assert!(dies.try_charge(TILE, ALL));
        dies.note_oldest(TILE, 1);
        let asker = sync::spawn("in turn", move || _ = in_turn.make_room(TILE, SZ_2M, u64::MAX));
        let killer = sync::spawn("killer", {
            let world = world.clone();
            move || (1..=2).for_each(|process| world.kill(process))
        });
        let fits = || asks.try_charge(TILE, SZ_2M);
        assert!((0..16).any(|_| fits() || asks.make_room(TILE, SZ_2M, u64::MAX) == Room::Ours && fits()));
        [asker, killer].into_iter().for_each(sync::JoinHandle::join);
    });
}

const fn bytes(inode: u64) -> BytesId {
    BytesId { device: 1, inode }
}

#[test]
fn a_buffer_that_several_processes_have_counts_once() {
    const HAS: u64 = 5 * SZ_2M;
    played(|| {
        let world = World::new();
        let [one, two, three] = [1, 2, 3].map(|process| budget(&world, process));
        let first = one.try_charge_buffer(TILE, HAS, bytes(7)).expect("room");
        let second = sync::spawn("two", {
            let two = two.clone();
            // It may have to give way to the third for a moment.
            move || while two.try_charge_buffer(TILE, HAS, bytes(7)).is_none() {}
        });
        assert!(!three.try_charge(TILE, ALL - HAS + 1));
        second.join();
        assert_eq!([&one, &two, &three].map(|budget| budget.used_by_others(TILE)), [0, 0, HAS]);
        assert!(three.try_charge(TILE, ALL - HAS) && !three.try_charge(TILE, 1));
        let ends = sync::spawn("one", {
            let one = one.clone();
            move || {
                one.leave(first);
                one.uncharge(TILE, HAS);
            }
        });
        assert!(!three.try_charge(TILE, 1), "the other has it");
        ends.join();
        assert_eq!([&one, &two, &three].map(|budget| budget.used_by_others(TILE)), [ALL, ALL - HAS, HAS]);
        world.kill(2);
        assert_eq!(three.used_by_others(TILE), 0);
        assert!(one.try_charge_buffer(TILE, HAS, bytes(7)).is_some_and(|entry| entry != Entry::NONE));
    });
}

#[test]
fn two_that_have_a_buffer_at_once_are_never_charged_too_little() {
    played(|| {
        let world = World::new();
        let budgets = [1, 2].map(|process| budget(&world, process));
        let play = |budget: Arc<Budget>| {
            sync::spawn("process", move || {
                for inode in [7, 8, 7] {
                    let entry = budget.try_charge_buffer(TILE, SZ_2M, bytes(inode)).expect("room");
                    let used = budget.pool.used_by_all(Place::of(DeviceId(1), TILE));
                    assert!((SZ_2M..=2 * SZ_2M).contains(&used), "{used}");
                    budget.leave(entry);
                    budget.uncharge(TILE, SZ_2M);
                }
            })
        };
        budgets.clone().map(play).into_iter().for_each(sync::JoinHandle::join);
        assert_eq!(budgets[0].pool.used_by_all(Place::of(DeviceId(1), TILE)), 0);
    });
}

#[test]
fn a_buffer_that_finds_no_entry_counts_for_each() {
    let world = World::new();
    let [one, two] = [1, 2].map(|process| budget(&world, process));
    let has = |budget: &Arc<Budget>, inode| budget.try_charge_buffer(TILE, 4096, bytes(inode)).expect("room");
    let entries: Vec<_> = (1..=buffers::MOST as u64).map(|inode| has(&one, inode)).collect();
    assert_eq!((has(&two, 9999), has(&two, 1)), (Entry::NONE, entries[0]));
    assert_eq!(has(&one, 1), Entry::NONE, "this process has it");
    one.leave(entries[5]);
    assert_eq!(has(&two, 9999), entries[5]);
    let of_others = one.used_by_others(TILE);
    two.leave(entries[0]);
    assert_eq!(one.used_by_others(TILE) - of_others, 4096);
}

#[test]
fn clients_have_numbers_of_their_own() {
    let world = World::new();
    let [one, two] = [1, 2].map(|process| budget(&world, process));
    assert_eq!([one.next_client(), two.next_client(), one.next_client()], [1, 2, 3]);
}
