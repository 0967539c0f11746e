//! The model as a stage: each case on many schedules.

use crate::cases;
use crate::script::{Call, Case, Kind, Outcome, Place, Stage, by_kernel, play};
use mm_live::kernel::{Errno, Kernel};
use mm_sim::{Advice, Config, MapKind, Remap, Sim, SimKernel};
use std::collections::BTreeMap;
use std::sync::Arc;
use sync::sim::{self, Limits, Random};
use units::{HostRange, HostVa, SZ_2M};

const SEEDS: u64 = 20;

struct Model {
    sim: Arc<Sim>,
    kernel: Arc<SimKernel>,
    begun: BTreeMap<usize, Begun>,
}

/// A thread, and how its call ended.
struct Begun {
    thread: sync::JoinHandle,
    done: Arc<sync::Mutex<Option<Outcome>>>,
}

/// A call of the program.
fn call(sim: &Sim, place: &Place, what: Call) -> Outcome {
    let done = |result: Result<(), Errno>| match result {
        Ok(()) => Outcome::Fine,
        Err(error) => Outcome::Failed(error),
    };
    let remapped = |remap| done(sim.mremap_as(remap).map(drop));
    match what {
        Call::Map(span, kind) => {
            let kind = match kind {
                Kind::Anonymous => MapKind::Anonymous,
                Kind::Huge => MapKind::Huge,
                Kind::Unwritable => MapKind::ReadOnly,
            };
            done(sim.mmap_at(place.range(span), kind))
        }
        Call::MapOver(span) => {
            sim.mmap_over(place.range(span), MapKind::Anonymous);
            Outcome::Fine
        }
        Call::Munmap(span) => {
            sim.munmap(place.range(span));
            Outcome::Fine
        }
        Call::Move(span, to) => remapped(Remap::fixed(place.range(span), place.at(to))),
        Call::MoveKeeping(span, to) => remapped(Remap { keep: true, ..Remap::fixed(place.range(span), place.at(to)) }),
        Call::Resize(span, pages) => remapped(Remap::resized(place.range(span), units::bytes_of(pages as usize))),
        Call::DontNeed(span) => done(sim.madvise(place.range(span), Advice::DontNeed)),
        Call::Free(span) => done(sim.madvise(place.range(span), Advice::Free)),
        Call::PageOut(span) => done(sim.madvise(place.range(span), Advice::PageOut)),
        Call::ReadOnly(span) => {
            sim.protect_read_only(place.range(span));
            Outcome::Fine
        }
        Call::ReadWrite(span) => {
            sim.protect_read_write(place.range(span));
            Outcome::Fine
        }
        Call::ForkLoad(at) => {
            let child = sim.fork();
            let word = sim.child_load_u64(child, place.at(at));
            sim.child_exit(child);
            word.map_or(Outcome::Signal(mm_live::kernel::Fault::Segv), Outcome::Word)
        }
        Call::Load(_) | Call::Store(..) | Call::Populate(..) | Call::Copy(..) => unreachable!("the kernel does that"),
    }
}

impl Stage for Model {
    fn kernel(&self) -> Arc<dyn Kernel> {
        self.kernel.clone()
    }
    fn area(&self) -> HostVa {
        HostVa(0x5000_0000_0000)
    }
    fn call(&self, place: &Place, what: Call) -> Outcome {
        call(&self.sim, place, what)
    }
    fn begin(&mut self, thread: usize, place: &Place, what: Call) {
        let result = Arc::new(sync::Mutex::new(None));
        let (sim, kernel, place, into) = (self.sim.clone(), self.kernel.clone(), *place, result.clone());
        let handle = sync::spawn("program", move || {
            let done = by_kernel(&*kernel, &place, what).unwrap_or_else(|| call(&sim, &place, what));
            *into.lock() = Some(done);
        });
        self.begun.insert(thread, Begun { thread: handle, done: result });
        while self.sim.waiting() < self.begun.len() {
            sync::yield_now();
        }
    }
    fn is_back(&mut self, thread: usize) -> bool {
        self.begun[&thread].done.lock().is_some()
    }
    fn end(&mut self, thread: usize) -> Outcome {
        let begun = self.begun.remove(&thread).expect("begun");
        begun.thread.join();
        let done = begun.done.lock().take();
        done.expect("the thread came back")
    }
    fn collapse(&self, range: HostRange) -> bool {
        let mut held = [mm_live::kernel::Held { range, huge: false }];
        let (count, _) = self.kernel.scan(range, &mut held);
        assert!(count == 1 && held[0].huge && range.len() == SZ_2M, "{held:?}");
        true
    }
}

/// What is wrong with a case.
fn run(case: &'static Case) -> Option<String> {
    for seed in 0..SEEDS {
        let report = sim::run(&mut Random::new(seed), Limits::default(), move || {
            let sim = Sim::new(Config::default());
            let kernel = SimKernel::new(&sim, 1);
            let mut model = Model { sim: sim.clone(), kernel, begun: BTreeMap::new() };
            play(&mut model, case);
            assert!(model.begun.is_empty(), "{}: a thread is left", case.name);
            sim.check().expect("the books balance");
            drop(model);
            sim.exit();
        });
        if report.outcome.is_finding() {
            return Some(format!("{}, seed {seed}: {:?}", case.name, report.outcome));
        }
    }
    None
}

#[test]
fn every_case_holds_on_the_model() {
    let wrong: Vec<String> = cases::all().filter_map(run).collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
