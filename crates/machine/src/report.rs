//! The report that a run leaves behind, as data: the preload library writes it, the command reads it.

use crate::interconnect::DeviceId;
use crate::ledger::{Book, GpuFault, place_name};
use crate::profile::Profile;
use crate::stats::Stats;
use crate::timeline::Item;
use crate::wiring::Core;
use gpusvm::Where;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::Arc;
use units::TileId;
use xe_hw::Record;
use xe_kmd::Serviced;

/// What a machine did between start and report.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Report {
    /// The first device.
    #[serde(default)]
    pub device: Profile,
    /// All devices. What they did is added up; VRAM is numbered through all of them.
    #[serde(default)]
    pub devices: Vec<Profile>,
    /// Migrations by direction ("SYSTEM->VRAM0"): how often.
    pub migrations: BTreeMap<String, u64>,
    /// The same, in 4K pages.
    pub migrated_pages: BTreeMap<String, u64>,
    /// The first migrations, in order.
    pub moves: Vec<Move>,
    /// The first GPU faults, in order.
    pub gpu_faults: Vec<Fault>,
    /// GPU faults answered, and of these refused.
    pub gpu_fault_count: u64,
    /// Refused ones.
    pub gpu_faults_refused: u64,
    /// CPU faults that brought pages back.
    pub cpu_fault_count: u64,
    /// The first of them.
    pub cpu_faults: Vec<Fault>,
    /// Writes of the device to bus addresses that nothing maps.
    pub stray_writes: u64,
    /// Reads of that kind.
    pub stray_reads: u64,
    /// Accesses that reached an empty frame of VRAM: stale translations.
    pub stale_vram: u64,
    /// Page-table entries that the hardware refused as malformed.
    pub malformed: u64,
    /// Pages that the copy engines moved without copying a byte.
    pub pages_moved: u64,
    /// Pages whose bytes they copied.
    pub pages_copied: u64,
    /// The first hardware records, as text.
    pub records: Vec<String>,
    /// Queues banned.
    pub bans: u64,
    /// Arrays of fences with a slot that nobody filled: the kernel would crash.
    #[serde(default)]
    pub fence_array_holes: u64,
    /// Binds that were refused over pages in VRAM that no leaf can map: the kernel would warn.
    #[serde(default)]
    pub unfit_vram: u64,
    /// Buffer objects that gave up their VRAM for others.
    #[serde(default)]
    pub bo_evictions: u64,
    /// Migrations from VRAM to system memory that no CPU fault asked for: for want of VRAM mostly.
    #[serde(default)]
    pub evictions: u64,
    /// Counts by tile, direction, cause and size.
    #[serde(default)]
    pub stats: Stats,
    /// Everything in order, where the run was recorded.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub timeline: Vec<Item>,
    /// Of these, how many had no room.
    #[serde(default)]
    pub timeline_lost: u64,
    /// The process that did it.
    #[serde(default)]
    pub process: u32,
    /// Its program: the last part of the name that it was started by.
    #[serde(default)]
    pub program: String,
    /// Requests that the driver does not do yet.
    pub stubs: BTreeMap<String, u64>,
    /// What the host mm says of itself.
    pub memory: Memory,
}

/// One migration.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Move {
    /// First address of the range.
    pub addr: u64,
    /// Where from ("SYSTEM", "VRAM0", ...).
    pub from: String,
    /// Where to.
    pub to: String,
    /// Bytes that moved.
    pub bytes: u64,
    /// Nanoseconds.
    pub ns: u64,
}

/// One fault.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Fault {
    /// Who faulted: "tile0", "tile1", "cpu"; "card1.tile0" for a tile of another device than the first.
    pub by: String,
    /// Where.
    pub addr: u64,
    /// "resolved", "valid" or the error's name.
    pub outcome: String,
    /// Nanoseconds from queue to answer (GPU) or of the migration back (CPU).
    pub ns: u64,
}

/// What the live host mm says.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Memory {
    /// How pages travel: "userfaultfd", "userfaultfd, user mode only", "copying" or "simulated".
    pub mechanism: String,
    /// Frames in use by the accounts, per tile.
    pub accounted_frames: Vec<u64>,
    /// Frames that the kernel says are resident in the arenas (mincore), per tile, read at the same moment.
    pub mincore_frames: Vec<u64>,
    /// Further counters.
    pub counters: BTreeMap<String, u64>,
}

const RECORDS: usize = 64;

impl Report {
    /// What the devices of a machine did so far.
    pub fn of<'a>(cores: impl Iterator<Item = &'a Arc<Core>>, memory: Memory) -> Self {
        let mut report = Self { memory, ..Self::default() };
        for core in cores {
            report.hardware(core);
            report.fold(&core.ledger().read(), core.id());
        }
        report.device = report.devices.first().cloned().unwrap_or_default();
        report
    }

    fn hardware(&mut self, core: &Core) {
        let counters = core.gpu().counters();
        self.devices.push(Profile::of(core.device().platform()));
        self.stray_writes += counters.stray_writes;
        self.stray_reads += counters.stray_reads;
        self.stale_vram += counters.stale_vram;
        self.malformed += counters.malformed;
        self.pages_moved += counters.pages_moved;
        self.pages_copied += counters.pages_copied;
        self.records.extend(core.gpu().first_records(RECORDS).iter().map(record_text));
    }

    fn fold(&mut self, book: &Book, device: DeviceId) {
        for (&way, direction) in &book.stats.directions {
            let (name, flow) = (String::from(way), direction.flow());
            *self.migrations.entry(name.clone()).or_default() += flow.times;
            *self.migrated_pages.entry(name).or_default() += flow.pages;
        }
        self.moves.extend(book.migrations.iter().map(|m| Move {
            addr: m.range.start.0,
            from: place_name(m.from),
            to: place_name(m.to),
            bytes: units::bytes_of(m.pages),
            ns: m.ns,
        }));
        let by = |tile: TileId| if device.0 == 0 { tile.to_string() } else { format!("card{}.{tile}", device.0) };
        let gpu_fault =
            |f: &GpuFault| Fault { by: by(f.tile), addr: f.addr, outcome: outcome_name(f.outcome), ns: f.ns };
        self.gpu_faults.extend(book.gpu_faults.iter().map(gpu_fault));
        let cpu_fault = |&(addr, _, ns): &_| Fault { by: "cpu".into(), addr, outcome: "resolved".into(), ns };
        self.cpu_faults.extend(book.cpu_faults.iter().map(cpu_fault));
        self.gpu_fault_count += book.stats.gpu_faults();
        self.gpu_faults_refused += book.stats.gpu_faults_refused();
        let cpu_faults = book.stats.cpu_faults.total();
        self.cpu_fault_count += cpu_faults;
        self.stats.add(&book.stats);
        let (items, lost) = book.timeline.read();
        self.timeline.extend_from_slice(items);
        self.timeline_lost += lost;
        self.bans += book.bans;
        self.bo_evictions += book.bo_evictions;
        let back = book.stats.flow_of(|way| way.to == Where::System).times;
        self.evictions += back.saturating_sub(cpu_faults);
        self.unfit_vram += book.unfit_vram;
        self.fence_array_holes += book.fence_array_holes;
        for (&(ioctl, what), &times) in &book.stubs {
            *self.stubs.entry(format!("ioctl {ioctl:#x}: {what}")).or_default() += times;
        }
    }
}

/// A record in words, the common ones; the others as they are.
fn record_text(record: &Record) -> String {
    match record {
        Record::StrayWrite { tile, iova, bytes } => {
            format!("{tile} wrote {bytes} bytes to bus address {iova}, which nothing maps")
        }
        Record::StrayRead { tile, iova, bytes } => {
            format!("{tile} read {bytes} bytes of bus address {iova}, which nothing maps")
        }
        other => format!("{other:?}"),
    }
}

fn outcome_name(outcome: Serviced) -> String {
    match outcome {
        Serviced::Resolved => "resolved".into(),
        Serviced::Valid => "valid".into(),
        Serviced::Refused(errno) => errno.to_string(),
    }
}
