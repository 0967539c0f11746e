//! Scheduling properties of engine classes: what a queue is made with where it asks for nothing else, and what it may ask for.
//!
//! A program changes them by files of sysfs. A queue keeps what its class had when it was made.
//!
//! Locking: a leaf lock around the table.
//!
//! Upstream: `struct xe_hw_engine_class_intf` (`sched_props`), `xe_hw_engine_class_sysfs.c`.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use sync::Mutex;
use sync::rank::mutex;
use units::TileId;
use xe_spec::fault::EngineClass;

use crate::ranks;

/// Properties of one class on one tile.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ClassSchedule {
    /// How long a job may run where others wait for its fence.
    pub job_timeout_ms: u32,
    /// How long a context keeps an engine for which equals wait.
    pub timeslice_us: u32,
    /// The least that a queue may ask for.
    pub timeslice_min_us: u32,
    /// The most.
    pub timeslice_max_us: u32,
}

impl Default for ClassSchedule {
    fn default() -> Self {
        Self { job_timeout_ms: 5000, timeslice_us: 1000, timeslice_min_us: 1, timeslice_max_us: 10_000_000 }
    }
}

impl ClassSchedule {
    /// Timeslices that a queue may ask for.
    pub(crate) fn timeslices(&self) -> RangeInclusive<u64> {
        self.timeslice_min_us.into()..=self.timeslice_max_us.into()
    }

    pub(crate) const fn job_timeout_ns(&self) -> u64 {
        self.job_timeout_ms as u64 * 1_000_000
    }
}

/// Those of a device's classes that are not as they were in the beginning.
pub(crate) struct EngineClasses(Mutex<BTreeMap<(TileId, EngineClass), ClassSchedule>>);

impl EngineClasses {
    pub(crate) const fn new() -> Self {
        Self(mutex(ranks::LEAF, BTreeMap::new()))
    }

    pub(crate) fn get(&self, tile: TileId, class: EngineClass) -> ClassSchedule {
        self.0.lock().get(&(tile, class)).copied().unwrap_or_default()
    }

    pub(crate) fn set(&self, tile: TileId, class: EngineClass, schedule: ClassSchedule) {
        self.0.lock().insert((tile, class), schedule);
    }
}
