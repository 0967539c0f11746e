//! Engine, driver, tables and TLB on a host mm that does nothing: what a fault costs before the host is asked.
//!
//! A [`Bare`] machine has a mirror over one mapping of equal blocks. [`fault`](Bare::fault) reports a fault as the
//! hardware would, and serves it; [`touch`](Bare::touch) is a CPU's way back. [`Phases`] adds up what the driver and the
//! engine say their steps took.
//!
//! Locking: a leaf lock around the phases.

use crate::bus::SystemAccess;
use crate::null_mm::{ARGUMENTS, NullMm};
use crate::program::Program;
use crate::wiring::{Core, Plan};
use std::sync::Arc;
use sync::atomic::AtomicU64;
use sync::time::now_ns;
use units::{Dpa, HostVa, SZ_1G, TileId};
use xe_hw::Injection;
use xe_kmd::{Errno, Rules};
use xe_spec::fault::{Access, Asid, ContextId, EngineClass, EngineId, FaultRecord, FaultSlot, FaultType};
use xe_spec::platform::{DEVICE_DPA_BASE, PVC, Platform, Tile};

/// A PVC whose tiles hold a million blocks of 64K. All rules are PVC's.
const PVC_LARGE: Platform =
    Platform { name: "pvc-large", tiles: &[tile(DEVICE_DPA_BASE), tile(Dpa(DEVICE_DPA_BASE.0 + 128 * SZ_1G))], ..PVC };

const fn tile(vram_base: Dpa) -> Tile {
    Tile { vram_base, vram_size: 80 * SZ_1G, tables_base: Dpa(vram_base.0 + 96 * SZ_1G), tables_size: SZ_1G }
}

/// Where the mapping starts.
const START: HostVa = HostVa(0x7000_0000_0000);

/// Nanoseconds that steps took, added up.
#[derive(Default)]
pub struct Phases {
    /// Claim to finish.
    migration: AtomicU64,
    /// Of it, copy jobs.
    copy: AtomicU64,
    /// Collecting pages and mapping them.
    pages: AtomicU64,
    /// Planning leaves and writing them.
    bind: AtomicU64,
    /// Flushes.
    flush: AtomicU64,
}

/// The same, at one moment.
#[derive(Clone, Copy, Default, Debug)]
pub struct PhaseTimes {
    /// Claim to finish.
    pub migration: u64,
    /// Of it, copy jobs.
    pub copy: u64,
    /// Collecting pages and mapping them.
    pub pages: u64,
    /// Planning leaves and writing them.
    pub bind: u64,
    /// Flushes.
    pub flush: u64,
}

impl PhaseTimes {
    /// What came after `before`.
    pub fn since(self, before: Self) -> Self {
        Self {
            migration: self.migration - before.migration,
            copy: self.copy - before.copy,
            pages: self.pages - before.pages,
            bind: self.bind - before.bind,
            flush: self.flush - before.flush,
        }
    }
    /// The median of each.
    pub fn median(samples: &[Self]) -> Self {
        let of = |phase: fn(&Self) -> u64| {
            let mut times: Vec<_> = samples.iter().map(phase).collect();
            times.sort_unstable();
            times.get(times.len() / 2).copied().unwrap_or_default()
        };
        Self {
            migration: of(|times| times.migration),
            copy: of(|times| times.copy),
            pages: of(|times| times.pages),
            bind: of(|times| times.bind),
            flush: of(|times| times.flush),
        }
    }
}

impl Phases {
    fn read(&self) -> PhaseTimes {
        PhaseTimes {
            migration: self.migration.load(),
            copy: self.copy.load(),
            pages: self.pages.load(),
            bind: self.bind.load(),
            flush: self.flush.load(),
        }
    }
}

impl gpusvm::Observer for Phases {
    fn event(&self, event: &gpusvm::Event) {
        match *event {
            gpusvm::Event::Migrated { ns, .. } => self.migration.fetch_add(ns),
            gpusvm::Event::PagesMapped { ns, .. } => self.pages.fetch_add(ns),
            _ => return,
        };
    }
}

impl xe_kmd::Observer for Phases {
    fn event(&self, event: &xe_kmd::Event) {
        match *event {
            xe_kmd::Event::Copy { ns, .. } => self.copy.fetch_add(ns),
            xe_kmd::Event::Bind { ns, .. } => self.bind.fetch_add(ns),
            xe_kmd::Event::TlbFlush { ns, .. } => self.flush.fetch_add(ns),
            _ => return,
        };
    }
}

/// The machine.
pub struct Bare {
    core: Arc<Core>,
    mm: Arc<NullMm>,
    phases: Arc<Phases>,
    program: Program,
    vm: u32,
    asid: Asid,
}

impl Bare {
    /// A machine that mirrors `blocks` blocks of `block` bytes: 64K or 2M.
    pub fn new(block: u64, blocks: usize) -> Result<Self, Errno> {
        let mm = NullMm::new(START, block, blocks);
        let phases = Arc::new(Phases::default());
        let plan = Plan {
            platforms: vec![&PVC_LARGE],
            rules: Rules::default(),
            injection: Injection::default(),
            mm: mm.clone(),
            memory: mm.clone(),
            system: SystemAccess::AtOnce,
            pool: None,
        };
        let core = Core::all_watched(&plan, |_, _| phases.clone())?.into_iter().next().ok_or(Errno::EINVAL)?;
        let program = Program::new(core.device().open(), mm.clone(), ARGUMENTS);
        let vm = program.vm_create()?;
        program.bind_mirror(vm, None)?;
        let asid = program.file().asid(vm).ok_or(Errno::EINVAL)?;
        Ok(Self { core, mm, phases, program, vm, asid })
    }

    /// A store of `tile` to the start of a block faults, and is served: nanoseconds from the report to the answer.
    pub fn fault(&self, tile: u8, block: usize) -> u64 {
        let addr = self.mm.block(block).start.mirror();
        let engine = EngineId { tile: TileId(tile), class: EngineClass::Compute, instance: 0 };
        let record = FaultRecord {
            slot: FaultSlot { engine, context: ContextId(u32::MAX), serial: 0 },
            asid: self.asid,
            addr,
            access: Access::Write,
            fault_type: FaultType::NotPresent,
            level: 0,
        };
        let start = now_ns();
        self.core.device().page_fault(record);
        while self.core.device().service_fault() {}
        now_ns() - start
    }

    /// A CPU touches a block: nanoseconds until it is back.
    pub fn touch(&self, block: usize) -> u64 {
        let start = now_ns();
        self.mm.touch(block);
        now_ns() - start
    }

    /// Whether a block is in VRAM.
    pub fn is_away(&self, block: usize) -> bool {
        self.mm.is_away(block)
    }

    /// What the steps of all faults so far took.
    pub fn phases(&self) -> PhaseTimes {
        self.phases.read()
    }
}

impl Drop for Bare {
    fn drop(&mut self) {
        let _ = self.program.vm_destroy(self.vm);
    }
}
