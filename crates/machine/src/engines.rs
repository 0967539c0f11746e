//! One thread an engine: it steps the hardware, and services the faults that its own steps raise.
//!
//! A thread starts with the first context of its engine, so that it is known to be there before the engine has work:
//! a program that may have no more threads is told so when it asks for a queue. It sleeps while the engine says `Idle` or
//! `Wait`, or until the time that `Sleep` names, and can be parked: a fork, a shutdown and a quiet moment for a test need all engines outside of a step.
//!
//! Faults are serviced inline: the thread whose step faulted serves the fault itself where nobody serves its queue,
//! which saves the hand-off to another thread (tens of microseconds, more than a 64K migration). It may find the faults
//! of other engines there: between two of them it does a step, so that its own contexts get on.
//!
//! Locking: `Engines::threads`, which is held over the start of a thread, then each thread's `state`; neither is held
//! over a step.

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};
use sync::time::now_ns;
use sync::{Condvar, JoinHandle, Mutex, Polling, SpawnError, Told};
use xe_hw::Step;
use xe_spec::fault::EngineId;

/// What an engine's thread does, again and again.
pub trait Work: Send + Sync + 'static {
    /// One step of an engine.
    fn step(&self, engine: EngineId) -> Step;
    /// Serves a fault that waits and that nobody serves, of whatever engine; false where there is none.
    fn service_fault(&self) -> bool;
}

/// All engine threads of a machine.
#[derive(Default)]
pub struct Engines {
    threads: Mutex<Threads>,
}

#[derive(Default)]
struct Threads {
    of: BTreeMap<EngineId, Arc<EngineThread>>,
    /// How many want all engines outside of a step: threads that start meanwhile too.
    parkers: u32,
    /// No thread starts any more.
    stopped: bool,
}

struct EngineThread {
    state: Mutex<State>,
    changed: Condvar,
    /// How soon work comes.
    polling: Polling,
    join: Mutex<Option<JoinHandle>>,
}

/// The part of a thread's state that says whether it was told of work.
const READY: u64 = 1;

#[derive(Default)]
struct State {
    /// The engine was told of work since its last step.
    ready: bool,
    /// How many want the engine outside of a step.
    parkers: u32,
    /// It is.
    parked: bool,
    /// It shall end.
    stop: bool,
}

impl Engines {
    /// The engine gets a context: starts its thread, unless it has one.
    ///
    /// # Errors
    /// The system gave no thread; the engine has none then.
    pub fn start<W: Work>(&self, work: &Weak<W>, engine: EngineId) -> Result<(), SpawnError> {
        let mut threads = self.threads.lock();
        if threads.stopped || threads.of.contains_key(&engine) {
            return Ok(());
        }
        let state = State { parkers: threads.parkers, ..State::default() };
        let thread = Arc::new(EngineThread {
            state: Mutex::new(state),
            changed: Condvar::new(),
            polling: Polling::new(),
            join: Mutex::new(None),
        });
        let (work, me) = (work.clone(), thread.clone());
        let handle = sync::try_spawn_daemon(name(engine), move || run(&work, engine, &me))?;
        *thread.join.lock() = Some(handle);
        threads.of.insert(engine, thread);
        Ok(())
    }

    /// The engine has work: wakes its thread.
    pub fn ready(&self, engine: EngineId) {
        let threads = self.threads.lock();
        sync::tell(&threads, Told::Looks);
        let thread = threads.of.get(&engine).cloned();
        drop(threads);
        if let Some(thread) = thread {
            let mut state = thread.state.lock();
            state.ready = true;
            thread.changed.notify_all_held(&state);
            sync::tell(&state, Told::Writes(READY));
        }
    }

    /// Returns when no engine is inside a step; undone by [`unpark`](Self::unpark). A step that waits for the host
    /// (a page fault on system memory) ends once the readers have served it, so they must be running.
    pub fn park(&self) {
        let threads = {
            let mut threads = self.threads.lock();
            threads.parkers += 1;
            let all: Vec<_> = threads.of.values().cloned().collect();
            for thread in &all {
                thread.state.lock().parkers += 1;
                thread.changed.notify_all();
            }
            all
        };
        for thread in &threads {
            let mut state = thread.state.lock();
            while !state.parked {
                thread.changed.wait(&mut state);
            }
        }
    }

    /// Lets the engines go on.
    pub fn unpark(&self) {
        let mut threads = self.threads.lock();
        threads.parkers = threads.parkers.saturating_sub(1);
        for thread in threads.of.values() {
            let mut state = thread.state.lock();
            state.parkers = state.parkers.saturating_sub(1);
            drop(state);
            thread.changed.notify_all();
        }
    }

    /// Ends all threads after their current step.
    pub fn stop(&self) {
        let all: Vec<_> = {
            let mut threads = self.threads.lock();
            threads.stopped = true;
            threads.of.values().cloned().collect()
        };
        for thread in all {
            thread.state.lock().stop = true;
            thread.changed.notify_all();
            let handle = thread.join.lock().take();
            if let Some(handle) = handle {
                handle.join();
            }
        }
    }
}

fn run<W: Work>(work: &Weak<W>, engine: EngineId, me: &EngineThread) {
    let mut until = u64::MAX;
    while me.wait_for_work(until) {
        let Some(work) = work.upgrade() else { break };
        // Where a fault was served others may have been left to this thread; so it may be after an interruption.
        let mut owes = true;
        until = loop {
            let step = work.step(engine);
            if owes || step != Step::Ran {
                owes = work.service_fault();
            }
            let until = match step {
                Step::Wait | Step::Idle => Some(u64::MAX),
                Step::Sleep(until) => Some(until),
                Step::Ran | Step::Fault => None,
            };
            if let Some(until) = until.filter(|_| !owes) {
                break until;
            }
            if me.interrupted() {
                break u64::MAX;
            }
        };
    }
    me.state.lock().parked = true;
    me.changed.notify_all();
}

impl EngineThread {
    /// Sleeps until there is work, or that time, and nobody wants the engine parked; false where it shall end.
    fn wait_for_work(&self, until_ns: u64) -> bool {
        let mut state = self.state.lock();
        loop {
            if state.stop {
                return false;
            }
            let parks = state.parkers > 0;
            let was_parked = std::mem::replace(&mut state.parked, parks);
            if parks {
                self.changed.notify_all_held(&state);
            } else {
                if state.ready || (until_ns != u64::MAX && until_ns <= now_ns()) {
                    state.ready = false;
                    if !was_parked {
                        sync::tell(&state, Told::Writes(READY));
                    }
                    return true;
                }
            }
            if !parks && !was_parked {
                sync::tell(&state, Told::Reads(READY));
            }
            let until_ns = if parks { u64::MAX } else { until_ns };
            self.changed.poll_until(&mut state, until_ns, &self.polling);
        }
    }

    /// Whether the thread shall leave its loop; work that remains is not forgotten.
    fn interrupted(&self) -> bool {
        let mut state = self.state.lock();
        let leave = state.stop || state.parkers > 0;
        state.ready |= leave;
        if !leave {
            sync::tell(&state, Told::Looks);
        }
        leave
    }
}

/// The name of an engine's thread.
fn name(engine: EngineId) -> &'static str {
    match engine.tile.0 {
        0 => "engine of tile 0",
        1 => "engine of tile 1",
        2 => "engine of tile 2",
        3 => "engine of tile 3",
        _ => "engine",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sync::sim::{Limits, Outcome, Random, run};
    use units::TileId;
    use xe_spec::fault::EngineClass;

    /// A context that always has a command, and faults of others that wait.
    struct Busy {
        engine: EngineId,
        done: Mutex<Vec<char>>,
        faults: Mutex<u32>,
    }

    impl Work for Busy {
        fn step(&self, _: EngineId) -> Step {
            let mut done = self.done.lock();
            if done.len() == 40 {
                return Step::Idle;
            }
            done.push('c');
            Step::Ran
        }
        fn service_fault(&self) -> bool {
            let mut faults = self.faults.lock();
            if *faults > 0 {
                *faults -= 1;
                self.done.lock().push('f');
                return true;
            }
            false
        }
    }

    #[test]
    fn a_context_gets_on_while_faults_of_others_are_served() {
        let report = run(&mut Random::new(1), Limits::default(), || {
            let engine = EngineId { tile: TileId(0), class: EngineClass::Copy, instance: 0 };
            let work = Arc::new(Busy { engine, done: Mutex::new(Vec::new()), faults: Mutex::new(10) });
            let engines = Engines::default();
            engines.start(&Arc::downgrade(&work), work.engine).expect("a task");
            engines.ready(work.engine);
            sync::time::sleep_ns(1);
            engines.stop();
            let done: String = work.done.lock().iter().collect();
            assert_eq!(done, "cf".repeat(10) + &"c".repeat(20));
        });
        assert_eq!(report.outcome, Outcome::Finished);
    }
}
