//! To system memory, because a CPU touched a page.
//!
//! The window is the allocation's size around the address, clipped to the VMA; of what is claimed there, only
//! pages of the touched page's own allocation move. Pages of other allocations, or other tiles, stay, and
//! their engines are not asked.
//!
//! Locking: reader class. The claim and the finish run notifier callbacks, which take the notifier lock;
//! beyond that the zdd lock and leaf locks. Nothing here waits.
//! Upstream: `drm_pagemap_migrate_to_ram`, `__drm_pagemap_migrate_to_ram`.

use super::batch::DmaMapped;
use super::{Buffers, Claim, MigrateError};
use crate::device::Direction;
use crate::event::{Event, Where};
use crate::pagemap::Pagemap;
use crate::zdd::ZddView;
use hostmm::{ClaimRequest, Claimed, CpuFault, Destination, FaultOutcome, HostMm, Select};
use units::{HostRange, bytes_of};

/// What came home.
#[derive(Clone, Copy, Default)]
pub(super) struct Homecoming {
    pub(super) pages: usize,
}

impl Pagemap {
    /// Serves a CPU's touch of one of its pages (`drm_pagemap_migrate_to_ram`).
    pub(crate) fn cpu_fault(&self, mm: &dyn HostMm, fault: &CpuFault) -> FaultOutcome {
        let start_ns = sync::time::now_ns();
        // Gone meanwhile: the toucher finds something else there.
        let Some(zdd) = self.zdds.find(fault.page) else { return FaultOutcome::Retry };
        let Some(window) = window(&zdd, fault) else { return FaultOutcome::Retry };
        if start_ns < zdd.timeslice_end_ns
            && self.turns.defers(fault.addr.page(), window, zdd.timeslice_end_ns, start_ns)
        {
            self.observer.event(&Event::CpuFaultDeferred { addr: fault.addr });
            return FaultOutcome::Defer;
        }
        match self.bring_home(mm, fault, &zdd, window) {
            Ok(Homecoming { pages: 0 }) => FaultOutcome::Retry,
            Ok(Homecoming { pages }) => {
                let now_ns = sync::time::now_ns();
                self.turns.served(window, now_ns);
                let ns = now_ns.saturating_sub(start_ns);
                let (from, to) = (Where::Vram(self.id), Where::System);
                self.observer.event(&Event::Migrated { range: window, from, to, pages, carried: pages, ns });
                self.observer.event(&Event::CpuFault { addr: fault.addr, pages, ns });
                FaultOutcome::Retry
            }
            // The address space changed under the fault: whoever touches sees what is there now.
            Err(MigrateError::Busy | MigrateError::NoVma) => FaultOutcome::Retry,
            Err(error) => {
                self.observer.event(&Event::MigrateFailed { range: window, to: Where::System, error });
                // The pages are where they were, and their data with them: a shortage may pass.
                if error.is_shortage() { FaultOutcome::Defer } else { FaultOutcome::Fatal }
            }
        }
    }

    fn bring_home(
        &self,
        mm: &dyn HostMm,
        fault: &CpuFault,
        zdd: &ZddView,
        window: HostRange,
    ) -> Result<Homecoming, MigrateError> {
        let mut buffers = self.scratch.take();
        let buffers = &mut *buffers;
        buffers.reset(window.pages());
        let request = ClaimRequest {
            range: window,
            owner: self.owner,
            select: Select::DeviceOnly,
            fault: Some(fault.addr.page()),
        };
        let claim = Claim::by_address(mm, &request, &mut buffers.claimed)?;
        for (i, claimed) in buffers.claimed.iter().enumerate() {
            if let Claimed::Device(page) = *claimed
                && zdd.contains(page)
            {
                (buffers.pages[i], buffers.to[i]) = (Some(page), Destination::Ram);
            }
        }
        // The frames may be another allocation's by now. Claimed pages keep theirs, so one of them tells for all.
        let first = buffers.pages.iter().flatten().next();
        if first.and_then(|&page| self.zdds.find(page)).is_none_or(|found| found.key != zdd.key) {
            return Ok(Homecoming::default());
        }
        self.carry_home(claim, buffers)
    }

    /// Carries the pages that have a destination to system memory.
    pub(super) fn carry_home(&self, claim: Claim<'_>, buffers: &mut Buffers) -> Result<Homecoming, MigrateError> {
        let Buffers { to, frames, pages, addr, carried, moved, .. } = buffers;
        if !to.contains(&Destination::Ram) {
            return Ok(Homecoming::default());
        }
        let staged = claim.stage(to, frames)?;
        {
            let _mapped = DmaMapped::new(self.ops.device(), frames, Direction::FromDevice, addr)?;
            self.ops.copy_to_ram(pages, addr, carried)?;
        }
        staged.commit(carried, moved).finish();
        Ok(Homecoming { pages: moved.iter().filter(|moved| **moved).count() })
    }
}

/// The allocation's size around the address, clipped to the VMA.
fn window(zdd: &ZddView, fault: &CpuFault) -> Option<HostRange> {
    let size = bytes_of(zdd.pages.next_power_of_two());
    HostRange::around(fault.addr, size).intersect(fault.vma)
}
