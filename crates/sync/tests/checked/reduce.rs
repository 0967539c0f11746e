//! The reduction leaves nothing out: small programs have the same set of outcomes with and without it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, mpsc};
use sync::atomic::AtomicU32;
use sync::sim::{Every, Limits, Outcome, Reduced, Rng, RunReport, Schedule, run};
use sync::{Condvar, Mutex, RwLock, Told, spawn, time};

/// What a program does to its world; what it saw is its outcome.
type Program = Arc<dyn Fn(&Arc<World>) + Send + Sync>;

/// What tasks share.
struct World {
    words: [AtomicU32; 3],
    locks: [Mutex<u32>; 2],
    shared: RwLock<u32>,
    pages: Mutex<[u32; 2]>,
    changed: Condvar,
    seen: mpsc::Sender<(usize, u32)>,
}

impl World {
    /// Task `task` saw this.
    fn see(&self, task: usize, what: u32) {
        self.seen.send((task, what)).unwrap();
    }
}

/// Runs a program once; how it ended, and what each task saw.
fn play(schedule: &mut dyn Schedule, program: &Program) -> (RunReport, String) {
    let (seen, all) = mpsc::channel();
    let program = program.clone();
    let report = run(schedule, Limits { steps: 2000, ..Limits::default() }, move || {
        let locks = [Mutex::new(0), Mutex::new(0)];
        let (shared, pages, changed) = (RwLock::new(0), Mutex::new([0; 2]), Condvar::new());
        let words = [AtomicU32::new(0), AtomicU32::new(0), AtomicU32::new(0)];
        let world = Arc::new(World { words, locks, shared, pages, changed, seen });
        program(&world);
        let last = world.words.iter().map(AtomicU32::load).collect::<Vec<_>>();
        world.see(9, last.into_iter().fold(0, |all, word| all * 100 + word));
    });
    let mut tasks: BTreeMap<usize, Vec<u32>> = BTreeMap::new();
    all.try_iter().for_each(|(task, what)| tasks.entry(task).or_default().push(what));
    let end = match &report.outcome {
        Outcome::Deadlock { .. } => "deadlock".into(),
        other => other.to_string(),
    };
    (report, format!("{end} {tasks:?}"))
}

/// The outcomes without and with reduction are the same; gives how many runs each took.
#[track_caller]
fn same(name: &str, program: Program) -> (u64, u64) {
    let (mut every, mut reduced) = (Every::default(), Reduced::default());
    let (mut all, mut some, mut runs) = (BTreeSet::new(), BTreeSet::new(), 0);
    loop {
        all.insert(play(&mut every, &program).1);
        runs += 1;
        if !every.next_run() {
            break;
        }
    }
    loop {
        let (report, outcome) = play(&mut reduced, &program);
        if report.outcome != Outcome::Cut {
            some.insert(outcome);
        }
        if !reduced.next_run() {
            break;
        }
    }
    assert_eq!(all, some, "{name}");
    assert!(reduced.classes() + reduced.cuts() <= runs, "{name}: {} + {} of {runs}", reduced.classes(), reduced.cuts());
    (runs, reduced.classes())
}

/// Tasks that run at the same time, and are waited for.
fn tasks(bodies: &[fn(&World)]) -> Program {
    let bodies = bodies.to_vec();
    Arc::new(move |world| {
        let start = |body: &fn(&World)| {
            let (world, body) = (world.clone(), *body);
            spawn("one", move || body(&world))
        };
        bodies.iter().map(start).collect::<Vec<_>>().into_iter().for_each(sync::JoinHandle::join);
    })
}

#[test]
fn what_touches_nothing_in_common_is_one_class() {
    let (_, classes) =
        same("apart", tasks(&[|w| w.words[0].store(1), |w| w.words[1].store(1), |w| w.words[2].store(1)]));
    assert_eq!(classes, 1);
    let look: fn(&World) = |w| w.see(0, w.words[0].load());
    assert_eq!(same("lookers", tasks(&[look, look])).1, 1);
}

#[test]
fn classes_are_counted() {
    let store: [fn(&World); 3] = [|w| w.words[0].store(1), |w| w.words[0].store(2), |w| w.words[0].store(3)];
    assert_eq!(same("three stores", tasks(&store)).1, 6);
    let notify: fn(&World) = |w| w.changed.notify_all();
    assert_eq!(same("notifications that nobody waits for", tasks(&[notify, notify])).1, 1);
    let lock: fn(&World) = |w| *w.locks[0].lock() += 1;
    assert_eq!(same("three locks", tasks(&[lock, lock, lock])).1, 6);
}

#[test]
fn small_programs_have_the_same_outcomes() {
    let add: fn(&World) = |w| w.words[0].store(w.words[0].load() + 1);
    same("lost update", tasks(&[add, add]));
    same(
        "store buffering",
        tasks(&[
            |w| {
                w.words[0].store(1);
                w.see(0, w.words[1].load());
            },
            |w| {
                w.words[1].store(1);
                w.see(1, w.words[0].load());
            },
        ]),
    );
    same(
        "deadlock",
        tasks(&[
            |w| {
                let _a = w.locks[0].lock();
                let _b = w.locks[1].lock();
            },
            |w| {
                let _b = w.locks[1].lock();
                let _a = w.locks[0].lock();
            },
        ]),
    );
    same(
        "try",
        tasks(&[
            |w| {
                let _held = w.locks[0].lock();
                w.words[0].store(1);
            },
            |w| w.see(1, u32::from(w.locks[0].try_lock().is_some())),
        ]),
    );
    same(
        "reader twice",
        tasks(&[
            |w| {
                let _first = w.shared.read();
                w.words[0].store(1);
                let _second = w.shared.read();
            },
            |w| *w.shared.write() += 1,
        ]),
    );
    same(
        "readers and writers",
        tasks(&[|w| *w.shared.write() += 1, |w| w.see(1, *w.shared.read()), |w| *w.shared.write() *= 3]),
    );
}

#[test]
fn waits_have_the_same_outcomes() {
    same(
        "lost wake-up",
        tasks(&[
            |w| {
                if w.words[0].load() == 0 {
                    w.changed.wait(&mut w.locks[0].lock());
                }
            },
            |w| {
                w.words[0].store(1);
                w.changed.notify_all();
            },
        ]),
    );
    let wait: fn(&World) = |w| {
        let mut held = w.locks[0].lock();
        let woken = w.changed.wait_for(&mut held, 100);
        *held += 1;
        w.see(*held as usize, u32::from(woken));
    };
    same("one of two wakes", tasks(&[wait, |w| w.changed.notify_one(), |w| w.changed.notify_all()]));
    same("whom to wake", tasks(&[wait, wait, |w| w.changed.notify_one()]));
    same(
        "time",
        tasks(&[
            |w| {
                time::sleep_ns(10);
                w.see(0, w.words[0].load());
            },
            |w| {
                w.words[0].store(1);
                time::sleep_ns(10);
                w.words[0].store(2);
            },
        ]),
    );
    same(
        "polling",
        tasks(&[
            |w| {
                while w.words[0].load() == 0 {
                    sync::yield_now();
                }
                w.see(0, w.words[1].load());
            },
            |w| {
                w.words[0].store(1);
                w.words[1].store(1);
            },
        ]),
    );
    same(
        "choice",
        tasks(&[
            |w| {
                let n = sync::choose(3);
                w.words[n as usize].store(7);
            },
            |w| w.see(1, w.words[1].load()),
        ]),
    );
}

#[test]
fn parts_that_are_told_are_classes_of_their_own() {
    let all: fn(&World) = |w| w.see(4, w.pages.lock().iter().sum());
    let zero: fn(&World) = |w| write_of(w, 0);
    let one: fn(&World) = |w| write_of(w, 1);
    assert_eq!(same("two parts", tasks(&[zero, one])).1, 1);
    assert_eq!(same("one part", tasks(&[one, one])).1, 2);
    assert_eq!(same("a part that is read", tasks(&[one, |w| read_of(w, 1), |w| read_of(w, 0)])).1, 2);
    assert_eq!(same("a part and the whole", tasks(&[zero, one, all])).1, 4);
    // The mutex is held over a point: what was told counts for nothing.
    let held_on: fn(&World) = |w| {
        let mut held = w.pages.lock();
        sync::tell(&held, Told::Writes(1));
        w.words[0].load();
        held[1] += 10;
    };
    same("told, and held on", tasks(&[held_on, |w| read_of(w, 1), one]));
}

/// Changes a part, and tells so.
fn write_of(world: &World, part: usize) {
    let mut held = world.pages.lock();
    sync::tell(&held, Told::Writes(1 + part as u64));
    held[part] += 1;
}

/// Looks at a part, and tells so.
fn read_of(world: &World, part: usize) {
    let held = world.pages.lock();
    sync::tell(&held, Told::Reads(1 + part as u64));
    world.see(3 + part, held[part]);
}

/// What one task of a random program does.
fn step(world: &World, task: usize, op: u64) {
    let word = &world.words[(op / 16 % 2) as usize];
    match op % 16 {
        0..3 => world.see(task, word.load()),
        3..6 => word.store(task as u32 + 1),
        6 => world.see(task, word.fetch_add(1)),
        7 | 8 => {
            let mut held = world.locks[(op / 32 % 2) as usize].lock();
            *held += 1;
            world.see(task, 10 + *held);
            word.store(*held);
        }
        9 => world.see(task, u32::from(world.locks[0].try_lock().is_some())),
        10 => world.see(task, 20 + *world.shared.read()),
        11 => {
            let held = world.shared.read();
            world.see(task, 20 + *held + 5 * word.load());
        }
        12 => *world.shared.write() += 1,
        13 => world.see(task, u32::from(world.shared.try_write().is_some())),
        14 => world.changed.notify_one(),
        _ => {
            let mut held = world.locks[0].lock();
            let woken = world.changed.wait_for(&mut held, 5);
            world.see(task, 30 + u32::from(woken));
        }
    }
}

#[test]
fn random_programs_have_the_same_outcomes() {
    let (mut runs, mut classes) = (0, 0);
    for seed in 0..20 {
        let mut rng = Rng::new(seed);
        let tasks = 2 + rng.below(2);
        let steps = if tasks == 2 { 2 } else { 1 };
        let bodies: Vec<Vec<u64>> = (0..tasks).map(|_| (0..steps).map(|_| rng.below(1 << 20)).collect()).collect();
        let named = bodies.clone();
        let program: Program = Arc::new(move |world| {
            let start = |(task, body): (usize, &Vec<u64>)| {
                let (world, body) = (world.clone(), body.clone());
                spawn("one", move || body.iter().for_each(|op| step(&world, task, *op)))
            };
            bodies.iter().enumerate().map(start).collect::<Vec<_>>().into_iter().for_each(sync::JoinHandle::join);
        });
        let named: Vec<Vec<u64>> = named.iter().map(|ops| ops.iter().map(|op| op % 64).collect()).collect();
        let (all, some) = same(&format!("seed {seed}: {named:?}"), program);
        (runs, classes) = (runs + all, classes + some);
    }
    assert!(classes * 4 < runs, "{classes} classes of {runs} runs");
}
