//! One access of a command streamer, from virtual address to bytes.
//!
//! TLB or walk, then the frame check or the IOMMU, then the bus; the window of the access (see `mmu/mod.rs`) is open
//! until VRAM has answered. No lock is held while the bus works.

use super::Mmu;
use super::walker::{Page, Refusal};
use crate::chip::Chip;
use crate::port::{BusAddr, BusError, Rmw};
use crate::record::{Record, Violation};
use units::{Dpa, GpuVa, HostFrame, Iova};
use xe_spec::fault::{Access, Asid, EngineId, FaultType};

/// Who accesses, and through what.
#[derive(Clone, Copy)]
pub(crate) struct Initiator<'a> {
    pub(crate) chip: &'a Chip,
    /// Of the engine's tile.
    pub(crate) mmu: &'a Mmu,
    pub(crate) engine: EngineId,
    /// The engine's number inside its tile.
    pub(crate) slot: usize,
    pub(crate) asid: Asid,
}

/// What is accessed; never crosses a 4K page.
pub(crate) enum Op<'a> {
    Read(&'a mut [u8]),
    Write(&'a [u8]),
    Rmw { size: usize, op: Rmw },
}

impl Op<'_> {
    fn access(&self) -> Access {
        match self {
            Self::Read(_) => Access::Read,
            Self::Write(_) => Access::Write,
            Self::Rmw { .. } => Access::Atomic,
        }
    }

    fn bytes(&self) -> u64 {
        match self {
            Self::Read(buf) => buf.len() as u64,
            Self::Write(bytes) => bytes.len() as u64,
            Self::Rmw { size, .. } => *size as u64,
        }
    }

    /// What the initiator sees where no memory answers: every byte is `fill`; writes are lost.
    fn unanswered(&mut self, fill: u8) {
        if let Self::Read(buf) = self {
            buf.fill(fill);
        }
    }
}

impl Initiator<'_> {
    /// Does `op` at `addr`, or says why the driver must be asked first.
    pub(crate) fn access(&self, addr: GpuVa, mut op: Op<'_>) -> Result<(), Refusal> {
        let addr = self.chip.strip(addr);
        while !self.try_access(addr, &mut op)? {
            sync::yield_now();
        }
        Ok(())
    }

    /// The same once; false where VRAM is closed and nothing was done.
    fn try_access(&self, addr: GpuVa, op: &mut Op<'_>) -> Result<bool, Refusal> {
        let (window, page) = self.mmu.translate(self.chip, self.slot, self.asid, addr, op.access())?;
        if page.leaf.null {
            op.unanswered(0);
        } else if page.leaf.device {
            let dpa = self.frame(addr, page)?;
            return Ok(self.access_vram(addr, dpa, op));
        } else {
            let iova = Iova(page.target(addr)).add(addr.page_offset() as u64);
            // Inside the window: a flush that follows a zap waits until the IOMMU has been asked, and the mapping is
            // not taken away before.
            let Some(frame) = self.ask_iommu(iova, op) else { return Ok(true) };
            let window = (!self.chip.bus.system_access_may_block()).then_some(window);
            self.access_system(addr, frame, op)?;
            drop(window);
        }
        Ok(true)
    }

    /// The frame that a DM page leads to.
    fn frame(&self, addr: GpuVa, page: Page) -> Result<Dpa, Refusal> {
        let dpa = Dpa(page.target(addr));
        if self.chip.frames_from(self.engine.tile, dpa) > 0 {
            return Ok(dpa);
        }
        let violation = Violation::OutsideVram(dpa);
        self.chip.log.record(Record::Malformed { tile: self.engine.tile, asid: self.asid, addr, violation });
        Err(Refusal::malformed(page.level, violation))
    }

    /// False where VRAM is closed and nothing was done.
    fn access_vram(&self, addr: GpuVa, dpa: Dpa, op: &mut Op<'_>) -> bool {
        let access = op.access();
        match self.perform(BusAddr::Vram(dpa), addr.page_offset(), op) {
            Ok(()) => true,
            Err(BusError::Again) => false,
            Err(BusError::Empty | BusError::Fault) => {
                op.unanswered(0xff);
                self.chip.log.record(Record::StaleVram { engine: self.engine, asid: self.asid, addr, dpa, access });
                true
            }
        }
    }

    /// The frame behind a bus address. `None` where the IOMMU refuses: posted writes are dropped without the device's
    /// knowledge, reads give all ones.
    fn ask_iommu(&self, iova: Iova, op: &mut Op<'_>) -> Option<HostFrame> {
        let (tile, bytes, access) = (self.engine.tile, op.bytes(), op.access());
        sync::point();
        let mapped = self.chip.iommu.lookup(iova).filter(|mapped| mapped.write || access == Access::Read);
        if mapped.is_none() {
            op.unanswered(0xff);
            self.chip.log.record(match access {
                Access::Read => Record::StrayRead { tile, iova, bytes },
                Access::Write | Access::Atomic => Record::StrayWrite { tile, iova, bytes },
            });
        }
        mapped.map(|mapped| mapped.frame)
    }

    /// Memory that the host took away is a page fault: the driver knows what became of it.
    fn access_system(&self, addr: GpuVa, frame: HostFrame, op: &mut Op<'_>) -> Result<(), Refusal> {
        let access = op.access();
        self.perform(BusAddr::System(frame), addr.page_offset(), op).map_err(|_| {
            let (engine, asid) = (self.engine, self.asid);
            self.chip.log.record(Record::SystemFault { engine, asid, addr, frame, access });
            Refusal::plain(FaultType::NotPresent, 0)
        })
    }

    fn perform(&self, page: BusAddr, offset: usize, op: &mut Op<'_>) -> Result<(), BusError> {
        sync::point();
        match op {
            Op::Read(buf) => self.chip.bus.read(page, offset, buf),
            Op::Write(bytes) => self.chip.bus.write(page, offset, bytes),
            Op::Rmw { size, op } => self.chip.bus.rmw(page, offset, *size, *op).map(drop),
        }
    }
}
