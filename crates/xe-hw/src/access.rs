//! One access of a command streamer, from virtual address to bytes.
//!
//! TLB or walk, then the frame check or the IOMMU, then the bus; the window of the access (see `mmu.rs`) is open
//! until VRAM has answered. No lock is held while the bus works.

use crate::gpu::Gpu;
use crate::port::{BusAddr, BusError, Rmw};
use crate::record::{Record, Violation};
use crate::walker::{Page, Refusal};
use units::{Dpa, GpuVa, Iova};
use xe_spec::fault::{Access, Asid, EngineId, FaultType};

/// Who accesses.
#[derive(Clone, Copy)]
pub(crate) struct Initiator {
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

impl Gpu {
    /// Does `op` at `addr`, or says why the driver must be asked first.
    pub(crate) fn access(&self, by: Initiator, addr: GpuVa, mut op: Op<'_>) -> Result<(), Refusal> {
        let addr = self.strip(addr);
        while !self.try_access(by, addr, &mut op)? {
            sync::yield_now();
        }
        Ok(())
    }

    /// The same once; false where VRAM is closed and nothing was done.
    fn try_access(&self, by: Initiator, addr: GpuVa, op: &mut Op<'_>) -> Result<bool, Refusal> {
        let mmu = &self.mmus[by.engine.tile.index()];
        let (window, page) = mmu.translate(self, by.slot, by.asid, addr, op.access())?;
        if page.leaf.null {
            op.unanswered(0);
        } else if page.leaf.device {
            let dpa = self.frame(by, addr, page)?;
            return Ok(self.access_vram(by, addr, dpa, op));
        } else {
            let iova = Iova(page.target(addr)).add(addr.page_offset() as u64);
            let window = (!self.bus.system_access_may_block()).then_some(window);
            self.access_system(by, addr, iova, op)?;
            drop(window);
        }
        Ok(true)
    }

    /// The frame that a DM page leads to.
    fn frame(&self, by: Initiator, addr: GpuVa, page: Page) -> Result<Dpa, Refusal> {
        let dpa = Dpa(page.target(addr));
        if self.is_frame(dpa) {
            return Ok(dpa);
        }
        let violation = Violation::OutsideVram(dpa);
        self.log.record(Record::Malformed { tile: by.engine.tile, asid: by.asid, addr, violation });
        Err(Refusal::malformed(page.level, violation))
    }

    /// False where VRAM is closed and nothing was done.
    fn access_vram(&self, by: Initiator, addr: GpuVa, dpa: Dpa, op: &mut Op<'_>) -> bool {
        let access = op.access();
        match self.perform(BusAddr::Vram(dpa), addr.page_offset(), op) {
            Ok(()) => true,
            Err(BusError::Again) => false,
            Err(BusError::Empty | BusError::Fault) => {
                op.unanswered(0xff);
                self.log.record(Record::StaleVram { engine: by.engine, asid: by.asid, addr, dpa, access });
                true
            }
        }
    }

    /// Posted writes that the IOMMU refuses are dropped without the device's knowledge, reads give all ones.
    /// Memory that the host took away is a page fault: the driver knows what became of it.
    fn access_system(&self, by: Initiator, addr: GpuVa, iova: Iova, op: &mut Op<'_>) -> Result<(), Refusal> {
        let (tile, bytes, access) = (by.engine.tile, op.bytes(), op.access());
        let mapped = self.iommu.lookup(iova);
        let Some(mapped) = mapped.filter(|mapped| mapped.write || access == Access::Read) else {
            op.unanswered(0xff);
            self.log.record(match access {
                Access::Read => Record::StrayRead { tile, iova, bytes },
                Access::Write | Access::Atomic => Record::StrayWrite { tile, iova, bytes },
            });
            return Ok(());
        };
        self.perform(BusAddr::System(mapped.frame), addr.page_offset(), op).map_err(|_| {
            let (engine, asid, frame) = (by.engine, by.asid, mapped.frame);
            self.log.record(Record::SystemFault { engine, asid, addr, frame, access });
            Refusal::plain(FaultType::NotPresent, 0)
        })
    }

    fn perform(&self, page: BusAddr, offset: usize, op: &mut Op<'_>) -> Result<(), BusError> {
        sync::point();
        match op {
            Op::Read(buf) => self.bus.read(page, offset, buf),
            Op::Write(bytes) => self.bus.write(page, offset, bytes),
            Op::Rmw { size, op } => self.bus.rmw(page, offset, *size, *op).map(drop),
        }
    }
}
