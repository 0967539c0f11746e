//! What happened in a checked run, in order, with who did it: for a person who reads it afterwards.
//!
//! Engine and driver tell their events; what the device noticed is looked up at each of them. Writing down is no
//! scheduling point, so the run goes as it does without.
//!
//! Locking: one leaf lock.

use crate::interconnect::DeviceId;
use crate::ledger::Ledger;
use std::panic::Location;
use std::sync::{Arc, Weak};
use sync::Mutex;
use sync::rank::{self, Rank};
use sync::sim::{self, Here};
use xe_hw::{Gpu, Record};

pub use gpusvm::{Event as SvmEvent, Where};
pub use hostmm::EventKind;
pub use xe_kmd::{CopyDirection, Event as DriverEvent, OtherSide, RetryStep, Serviced};

/// One thing that happened.
#[derive(Clone, PartialEq, Debug)]
pub enum Told {
    /// A step of the scene begins.
    Step(String),
    /// The driver of a device did something.
    Driver(DeviceId, DriverEvent),
    /// The engine did.
    Svm(SvmEvent),
    /// A device noticed something that must not happen.
    Noticed(DeviceId, Record),
}

/// A line of the story.
#[derive(Clone, PartialEq, Debug)]
pub struct Line {
    /// Who did it, and when.
    pub here: Here,
    /// What.
    pub told: Told,
    /// Where in the code of the engine or the driver.
    pub at: Option<&'static Location<'static>>,
    /// Who holds locks meanwhile, by number, and what the kernel calls them.
    pub held: Vec<(u32, Vec<&'static str>)>,
}

/// The story of one run.
pub struct Story {
    lines: Mutex<Lines>,
}

#[derive(Default)]
struct Lines {
    all: Vec<Line>,
    /// Whose records are lines, too, and how many of them are: by device.
    watched: Vec<(Weak<Gpu>, usize)>,
}

impl Default for Story {
    fn default() -> Self {
        Self { lines: rank::mutex(Rank::LEAF, Lines::default()) }
    }
}

impl Story {
    /// From now on, what the next device notices is told too.
    pub(crate) fn watch(&self, gpu: &Arc<Gpu>) {
        sync::unscheduled(|| self.lines.lock().watched.push((Arc::downgrade(gpu), 0)));
    }

    /// Who writes down what happens in a device, and has it counted as in a run that nobody writes down.
    pub(crate) fn of(this: &Arc<Self>, device: DeviceId, ledger: &Arc<Ledger>) -> Arc<Scribe> {
        Arc::new(Scribe { story: this.clone(), device, ledger: ledger.clone() })
    }

    /// A step of the scene begins.
    pub fn step(&self, text: &str) {
        self.tell(Told::Step(text.into()), None);
    }

    /// All lines so far.
    pub fn lines(&self) -> Vec<Line> {
        sync::unscheduled(|| self.lines.lock().all.clone())
    }

    fn tell(&self, told: Told, at: Option<&'static Location<'static>>) {
        let Some(here) = sim::here() else { return };
        let held = held();
        sync::unscheduled(|| {
            let watched = self.lines.lock().watched.clone();
            let noticed: Vec<Vec<Record>> = watched.iter().map(|(gpu, told)| records(gpu, *told)).collect();
            let mut lines = self.lines.lock();
            let line = |told, at| Line { here, told, at, held: held.clone() };
            for (device, records) in noticed.into_iter().enumerate() {
                lines.watched[device].1 += records.len();
                let device = DeviceId(device as u8);
                lines.all.extend(records.into_iter().map(|record| line(Told::Noticed(device, record), None)));
            }
            lines.all.push(line(told, at));
        });
    }
}

/// Locks that have a name, of all tasks.
fn held() -> Vec<(u32, Vec<&'static str>)> {
    let named = |ranks: Vec<Rank>| ranks.into_iter().filter_map(xe_kmd::lock_name).collect::<Vec<_>>();
    let all = sim::holders().into_iter().map(|holder| (holder.serial, named(holder.ranks)));
    all.filter(|(_, names)| !names.is_empty()).collect()
}

/// What a device has noticed since so many records were told.
fn records(gpu: &Weak<Gpu>, told: usize) -> Vec<Record> {
    let all = gpu.upgrade().map(|gpu| gpu.first_records(usize::MAX)).unwrap_or_default();
    all.into_iter().skip(told).collect()
}

/// A device's place in a story.
pub(crate) struct Scribe {
    story: Arc<Story>,
    device: DeviceId,
    ledger: Arc<Ledger>,
}

impl gpusvm::Observer for Scribe {
    fn event(&self, event: &SvmEvent) {
        gpusvm::Observer::event(&*self.ledger, event);
        self.story.tell(Told::Svm(*event), None);
    }
    fn event_at(&self, event: &SvmEvent, at: &'static Location<'static>) {
        gpusvm::Observer::event(&*self.ledger, event);
        self.story.tell(Told::Svm(*event), Some(at));
    }
}

impl xe_kmd::Observer for Scribe {
    fn event(&self, event: &DriverEvent) {
        xe_kmd::Observer::event(&*self.ledger, event);
        self.story.tell(Told::Driver(self.device, *event), None);
    }
    fn event_at(&self, event: &DriverEvent, at: &'static Location<'static>) {
        xe_kmd::Observer::event(&*self.ledger, event);
        self.story.tell(Told::Driver(self.device, *event), Some(at));
    }
}
