//! Counters of a run by tile, direction, cause and size. Those of several processes add up.
//!
//! Sizes and names are those of the kernel's `gt*/stats` where it has them: 4K stands for what is below 64K, 64K for what is
//! below 2M.
//!
//! Locking: none; the ledger's lock protects them.
//!
//! Upstream: `xe_gt_stats.c`.

use crate::ledger::place_name;
use gpusvm::{Event as SvmEvent, MigrateError, Where};
use hostmm::{EventKind, PagemapId};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use units::{SZ_2M, SZ_4K, SZ_64K, bytes_of};
use xe_kmd::{Event as DriverEvent, RetryStep, Serviced};
use xe_spec::fault::Access;

/// All of them.
#[derive(Clone, Default, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Stats {
    /// By the tile that faulted, bound or flushed.
    pub tiles: BTreeMap<u8, Tile>,
    /// By places.
    pub directions: BTreeMap<Way, Direction>,
    /// CPU faults that brought pages back, and how long each took.
    pub cpu_faults: Times,
    /// CPU faults that minimum residency deferred.
    pub cpu_faults_deferred: u64,
    /// Notifier calls, by what happened to the memory.
    pub invalidations: BTreeMap<String, u64>,
    /// Rounds of the fault handler that began again, by the step that wanted it.
    pub retries: BTreeMap<String, u64>,
    /// Ranges that were evicted.
    pub evictions: u64,
    /// Migrations that failed, by the reason.
    pub failed: BTreeMap<String, u64>,
}

/// What a tile did.
#[derive(Clone, Default, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Tile {
    /// Faults by the access that missed: "read", "write", "atomic".
    pub faults: BTreeMap<String, u64>,
    /// Of these, whose mapping was there by then.
    pub valid: u64,
    /// Of these, refused, by the error.
    pub refused: BTreeMap<String, u64>,
    /// Ranges bound, by size.
    pub binds: Sizes,
    /// TLB flushes that the driver asked for.
    pub flushes: u64,
    /// From queue to answer.
    pub service: Times,
}

/// Migrations of one direction.
#[derive(Clone, Default, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Direction {
    /// How often, by size.
    pub sizes: Sizes,
    /// Bytes in all.
    pub bytes: u64,
    /// How long each took.
    pub times: Times,
}

/// Migrations of one direction, and pages of them.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Flow {
    /// Migrations.
    pub times: u64,
    /// Pages of them.
    pub pages: u64,
}

impl Direction {
    /// How many went, of how many pages.
    pub fn flow(&self) -> Flow {
        Flow { times: self.times.total(), pages: self.bytes / SZ_4K }
    }
}

/// From where to where pages went; as text "SYSTEM->VRAM0".
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Way {
    /// Where they were.
    pub from: Where,
    /// Where they are.
    pub to: Where,
}

impl From<Way> for String {
    fn from(way: Way) -> Self {
        format!("{}->{}", place_name(way.from), place_name(way.to))
    }
}

impl TryFrom<String> for Way {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let place = |name: &str| match name.strip_prefix("VRAM") {
            Some(number) => number.parse().ok().map(|number| Where::Vram(PagemapId(number))),
            None => (name == "SYSTEM").then_some(Where::System),
        };
        let way = text.split_once("->").and_then(|(from, to)| Some(Self { from: place(from)?, to: place(to)? }));
        way.ok_or_else(|| format!("{text} is no direction"))
    }
}

/// Counts by size.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Sizes {
    /// Below 64K.
    #[serde(rename = "4K")]
    pub small: u64,
    /// From 64K to below 2M.
    #[serde(rename = "64K")]
    pub medium: u64,
    /// 2M and more.
    #[serde(rename = "2M")]
    pub large: u64,
}

impl Sizes {
    fn count(&mut self, bytes: u64) {
        let class = match bytes {
            SZ_2M.. => &mut self.large,
            SZ_64K.. => &mut self.medium,
            _ => &mut self.small,
        };
        *class += 1;
    }

    /// All sizes together.
    pub fn total(&self) -> u64 {
        self.small + self.medium + self.large
    }
}

/// Durations: how many were at most so many nanoseconds, four classes for each doubling.
#[derive(Clone, Default, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Times(BTreeMap<u64, u64>);

impl Times {
    fn count(&mut self, ns: u64) {
        *self.0.entry(class_of(ns)).or_default() += 1;
    }

    /// How many.
    pub fn total(&self) -> u64 {
        self.0.values().sum()
    }

    /// The nanoseconds within which `percent` of them ended; 0 where there are none.
    pub fn percentile(&self, percent: u64) -> u64 {
        let wanted = (self.total() * percent).div_ceil(100);
        let mut passed = 0;
        let end = |(ns, count): (&u64, &u64)| {
            passed += count;
            (passed >= wanted).then_some(*ns)
        };
        self.0.iter().find_map(end).unwrap_or(0)
    }
}

/// The end of the class that a duration belongs to: within a quarter of it.
fn class_of(ns: u64) -> u64 {
    let step = (ns.next_power_of_two() / 8).max(1);
    ns.div_ceil(step).saturating_mul(step)
}

impl Stats {
    /// What went from here to there.
    pub fn flow(&self, from: Where, to: Where) -> Flow {
        self.directions.get(&Way { from, to }).map(Direction::flow).unwrap_or_default()
    }

    /// What went in all directions that are meant.
    pub fn flow_of(&self, meant: impl Fn(Way) -> bool) -> Flow {
        let meant = self.directions.iter().filter(|(way, _)| meant(**way)).map(|(_, direction)| direction.flow());
        meant.fold(Flow::default(), |sum, flow| Flow { times: sum.times + flow.times, pages: sum.pages + flow.pages })
    }

    /// GPU faults that were answered.
    pub fn gpu_faults(&self) -> u64 {
        self.tiles.values().map(|tile| tile.service.total()).sum()
    }

    /// Of these, refused.
    pub fn gpu_faults_refused(&self) -> u64 {
        self.tiles.values().flat_map(|tile| tile.refused.values()).sum()
    }

    /// Rounds of the fault handler that began again because of a step.
    pub fn retries_of(&self, step: RetryStep) -> u64 {
        self.retries.get(step_name(step)).copied().unwrap_or_default()
    }

    pub(crate) fn svm(&mut self, event: &SvmEvent) {
        match *event {
            SvmEvent::Migrated { from, to, pages, ns, .. } => {
                let direction = self.directions.entry(Way { from, to }).or_default();
                direction.sizes.count(bytes_of(pages));
                direction.bytes += bytes_of(pages);
                direction.times.count(ns);
            }
            SvmEvent::CpuFault { ns, .. } => self.cpu_faults.count(ns),
            SvmEvent::CpuFaultDeferred { .. } => self.cpu_faults_deferred += 1,
            SvmEvent::Invalidated { kind, .. } => {
                count(&mut self.invalidations, kind_name(kind));
            }
            SvmEvent::Evicted { .. } => self.evictions += 1,
            SvmEvent::MigrateFailed { error, .. } => {
                let name = match error {
                    MigrateError::Busy => "busy",
                    MigrateError::Settling => "settling",
                    MigrateError::CpuTurn => "the CPU's turn",
                    MigrateError::NoVma => "no VMA",
                    MigrateError::Invalid => "invalid",
                    MigrateError::NoMemory => "no memory",
                    MigrateError::Map(_) => "not mapped for the copy",
                    MigrateError::Copy(_) => "copy failed",
                    MigrateError::Gone => "the end",
                };
                count(&mut self.failed, name);
            }
            _ => {}
        }
    }

    pub(crate) fn driver(&mut self, event: &DriverEvent) {
        match *event {
            DriverEvent::Fault { tile, access, outcome, ns, .. } => {
                let tile = self.tiles.entry(tile.0).or_default();
                count(&mut tile.faults, access_name(access));
                match outcome {
                    Serviced::Resolved => {}
                    Serviced::Valid => tile.valid += 1,
                    Serviced::Refused(errno) => count(&mut tile.refused, &errno.to_string()),
                }
                tile.service.count(ns);
            }
            DriverEvent::Bind { tile, span, .. } => {
                self.tiles.entry(tile.0).or_default().binds.count(span.end.0 - span.start.0);
            }
            DriverEvent::TlbFlush { tile, .. } => self.tiles.entry(tile.0).or_default().flushes += 1,
            DriverEvent::Retry { step, .. } => count(&mut self.retries, step_name(step)),
            _ => {}
        }
    }

    /// Adds what another process counted.
    pub fn add(&mut self, other: &Self) {
        for (tile, more) in &other.tiles {
            let own = self.tiles.entry(*tile).or_default();
            add(&mut own.faults, &more.faults);
            own.valid += more.valid;
            add(&mut own.refused, &more.refused);
            own.binds.add(more.binds);
            own.flushes += more.flushes;
            add(&mut own.service.0, &more.service.0);
        }
        for (way, more) in &other.directions {
            let own = self.directions.entry(*way).or_default();
            own.sizes.add(more.sizes);
            own.bytes += more.bytes;
            add(&mut own.times.0, &more.times.0);
        }
        add(&mut self.cpu_faults.0, &other.cpu_faults.0);
        self.cpu_faults_deferred += other.cpu_faults_deferred;
        add(&mut self.invalidations, &other.invalidations);
        add(&mut self.retries, &other.retries);
        self.evictions += other.evictions;
        add(&mut self.failed, &other.failed);
    }
}

/// What a step of the fault handler is called.
const fn step_name(step: RetryStep) -> &'static str {
    match step {
        RetryStep::Migrate => "migrate",
        RetryStep::Pages => "pages",
        RetryStep::Bind => "bind",
    }
}

/// What an access is called.
pub(crate) fn access_name(access: Access) -> &'static str {
    match access {
        Access::Read => "read",
        Access::Write => "write",
        Access::Atomic => "atomic",
    }
}

/// What an invalidation is called.
pub(crate) fn kind_name(kind: EventKind) -> &'static str {
    match kind {
        EventKind::Unmap => "unmap",
        EventKind::Clear => "clear",
        EventKind::Protection => "protection",
        EventKind::Migrate(_) => "migrate",
        EventKind::Release => "release",
    }
}

impl Sizes {
    fn add(&mut self, other: Self) {
        self.small += other.small;
        self.medium += other.medium;
        self.large += other.large;
    }
}

fn add<K: Ord + Clone>(counts: &mut BTreeMap<K, u64>, more: &BTreeMap<K, u64>) {
    for (key, count) in more {
        *counts.entry(key.clone()).or_default() += count;
    }
}

/// A name is made once; the counter is found by it afterwards.
fn count(counts: &mut BTreeMap<String, u64>, name: &str) {
    match counts.get_mut(name) {
        Some(count) => *count += 1,
        None => {
            counts.insert(name.to_owned(), 1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_within_a_quarter_and_add_up() {
        for ns in [0, 1, 7, 8, 9, 1000, 123_456_789] {
            let class = class_of(ns);
            assert!((ns..=ns + ns / 4 + 1).contains(&class), "{ns} is in {class}");
        }
        let mut times = Times::default();
        (1..=1000).for_each(|ns| times.count(ns * 1000));
        let near = |percent: u64, ns: u64| (ns..ns + ns / 4).contains(&times.percentile(percent));
        assert!(near(50, 500_000) && near(99, 990_000), "{times:?}");
        assert_eq!(Times::default().percentile(99), 0);

        let mut one = Stats::default();
        one.tiles.entry(1).or_default().service = times;
        one.retries.insert("bind".into(), 2);
        let mut both = one.clone();
        one.directions.entry(Way { from: Where::System, to: Where::Vram(PagemapId(1)) }).or_default().bytes = 7;
        both.add(&one);
        let text = serde_json::to_string(&both).expect("text");
        assert!(text.contains(r#""SYSTEM->VRAM1":{"#), "{text}");
        assert_eq!(serde_json::from_str::<Stats>(&text).expect("the same"), both);
        assert_eq!((both.tiles[&1].service.total(), both.retries["bind"]), (2000, 4));
    }
}
