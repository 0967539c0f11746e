//! The machine on the simulated mm: everything it does is decided by the schedule of `sync`'s checker.

use crate::bus::SystemAccess;
use crate::program::Program;
use crate::wiring::{Core, Plan};
use mm_sim::Sim;
use std::sync::Arc;
use units::{Dpa, SZ_1G, SZ_2M};
use xe_hw::Injection;
use xe_kmd::{Errno, Rules};
use xe_spec::platform::{DEVICE_DPA_BASE, PVC, Platform, Tile};

pub use mm_sim::{Config, CpuError, Manner, MapKind};

/// A PVC with little memory, so that thousands of them can be built in a second. All rules are PVC's.
pub const PVC_SMALL: Platform = Platform {
    name: "pvc-small",
    tiles: &[
        Tile {
            vram_base: DEVICE_DPA_BASE,
            vram_size: 8 * SZ_2M,
            tables_base: Dpa(DEVICE_DPA_BASE.0 + SZ_1G),
            tables_size: SZ_2M,
        },
        Tile {
            vram_base: Dpa(DEVICE_DPA_BASE.0 + 2 * SZ_1G),
            vram_size: 8 * SZ_2M,
            tables_base: Dpa(DEVICE_DPA_BASE.0 + 3 * SZ_1G),
            tables_size: SZ_2M,
        },
    ],
    ..PVC
};

/// A machine and the simulated process that it stands in.
pub struct Checked {
    /// Driver and hardware.
    pub core: Arc<Core>,
    /// The process's memory.
    pub sim: Arc<Sim>,
}

impl Checked {
    /// A fresh process with a fresh device.
    pub fn new(config: Config, rules: Rules, injection: Injection) -> Result<Self, Errno> {
        let sim = Sim::new(config);
        let system = match config.manner {
            Manner::Linux => SystemAccess::AtOnce,
            Manner::Userfaultfd => SystemAccess::MayBlock,
        };
        let plan = Plan { platform: &PVC_SMALL, rules, injection, mm: sim.clone(), memory: sim.clone(), system };
        Ok(Self { core: Core::new(plan)?, sim })
    }

    /// The device opened by the process.
    pub fn open(&self) -> Program {
        self.thread_of(self.core.device().open())
    }

    /// Another thread of the process, with the same open file.
    pub fn thread_of(&self, file: Arc<xe_kmd::File>) -> Program {
        let scratch = self.sim.mmap(1, MapKind::Anonymous).start;
        Program::new(file, self.sim.clone(), scratch)
    }
}
