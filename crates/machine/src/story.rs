//! What happened in a checked run, in order, with who did it: for a person who reads it afterwards.
//!
//! Engine and driver tell their events; what the device noticed is looked up at each of them. Writing down is no
//! scheduling point, so the run goes as it does without.
//!
//! Locking: one leaf lock.

use std::sync::{Arc, Weak};
use sync::Mutex;
use sync::rank::{self, Rank};
use sync::sim::{self, Here};
use xe_hw::{Gpu, Record};

pub use gpusvm::{Event as SvmEvent, Where};
pub use hostmm::EventKind;
pub use xe_kmd::{CopyDirection, Event as DriverEvent, RetryStep, Serviced};

/// One thing that happened.
#[derive(Clone, PartialEq, Debug)]
pub enum Told {
    /// A step of the scene begins.
    Step(String),
    /// The driver did something.
    Driver(DriverEvent),
    /// The engine did.
    Svm(SvmEvent),
    /// The device noticed something that must not happen.
    Noticed(Record),
}

/// A line of the story.
#[derive(Clone, PartialEq, Debug)]
pub struct Line {
    /// Who did it, and when.
    pub here: Here,
    /// What.
    pub told: Told,
}

/// The story of one run.
pub struct Story {
    lines: Mutex<Lines>,
}

#[derive(Default)]
struct Lines {
    all: Vec<Line>,
    /// Whose records are lines, too.
    gpu: Weak<Gpu>,
    records: usize,
}

impl Default for Story {
    fn default() -> Self {
        Self { lines: rank::mutex(Rank::LEAF, Lines::default()) }
    }
}

impl Story {
    /// From now on, what this device notices is told too.
    pub(crate) fn watch(&self, gpu: &Arc<Gpu>) {
        sync::unscheduled(|| self.lines.lock().gpu = Arc::downgrade(gpu));
    }

    /// A step of the scene begins.
    pub fn step(&self, text: &str) {
        self.tell(Told::Step(text.into()));
    }

    /// All lines so far.
    pub fn lines(&self) -> Vec<Line> {
        sync::unscheduled(|| self.lines.lock().all.clone())
    }

    fn tell(&self, told: Told) {
        let Some(here) = sim::here() else { return };
        sync::unscheduled(|| {
            let gpu = self.lines.lock().gpu.upgrade();
            let noticed = gpu.map(|gpu| gpu.first_records(usize::MAX)).unwrap_or_default();
            let mut lines = self.lines.lock();
            let new = noticed.iter().skip(lines.records).map(|record| Line { here, told: Told::Noticed(*record) });
            let new: Vec<Line> = new.collect();
            lines.all.extend(new);
            lines.records = noticed.len();
            lines.all.push(Line { here, told });
        });
    }
}

impl gpusvm::Observer for Story {
    fn event(&self, event: &SvmEvent) {
        self.tell(Told::Svm(*event));
    }
}

impl xe_kmd::Observer for Story {
    fn event(&self, event: &DriverEvent) {
        self.tell(Told::Driver(*event));
    }
}
