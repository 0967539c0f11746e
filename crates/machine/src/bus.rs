//! The hardware's bus over a host mm: device addresses become what backs them, nothing else happens here.

use crate::backing::Backing;
use hostmm::{AccessError, AtomicOp, HostMemory, Place};
use std::sync::Arc;
use units::{Outcome, Report};
use xe_hw::port::{Bus, BusAddr, BusError, Rmw};

/// How accesses to system memory end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SystemAccess {
    /// At once: a TLB flush waits for those in flight, as on silicon.
    AtOnce,
    /// They go by address and may wait for a page fault of the host: a flush, which the host's fault handling may
    /// be waiting for, does not wait for them.
    MayBlock,
}

/// Implements [`Bus`] over a [`HostMemory`].
pub struct HostBus {
    backing: Backing,
    memory: Arc<dyn HostMemory>,
    system: SystemAccess,
}

impl HostBus {
    /// A bus of a device whose VRAM is backed so.
    pub fn new(backing: Backing, memory: Arc<dyn HostMemory>, system: SystemAccess) -> Self {
        Self { backing, memory, system }
    }

    fn place(&self, page: BusAddr) -> Result<Place, BusError> {
        match page {
            BusAddr::System(frame) => Ok(Place::Host(frame)),
            BusAddr::Vram(dpa) => self.backing.place(dpa).ok_or(BusError::Fault),
        }
    }
}

impl Bus for HostBus {
    fn system_access_may_block(&self) -> bool {
        self.system == SystemAccess::MayBlock
    }

    fn read(&self, page: BusAddr, offset: usize, buf: &mut [u8]) -> Result<(), BusError> {
        self.memory.read(self.place(page)?, offset, buf).map_err(bus_error)
    }

    fn write(&self, page: BusAddr, offset: usize, bytes: &[u8]) -> Result<(), BusError> {
        self.memory.write(self.place(page)?, offset, bytes).map_err(bus_error)
    }

    fn rmw(&self, page: BusAddr, offset: usize, size: usize, op: Rmw) -> Result<u64, BusError> {
        let op = match op {
            Rmw::Exchange(value) => AtomicOp::Exchange(value),
            Rmw::Add(value) => AtomicOp::Add(value),
            Rmw::Sub(value) => AtomicOp::Sub(value),
            Rmw::CompareExchange { expected, new } => AtomicOp::CompareExchange { expected, new },
        };
        self.memory.atomic(self.place(page)?, offset, size, op).map_err(bus_error)
    }

    fn transfer(&self, src: BusAddr, dst: BusAddr, pages: usize, report: &mut Report<'_>) {
        match (self.place(src), self.place(dst)) {
            (Ok(src), Ok(dst)) => self.memory.transfer(src, dst, pages, report),
            _ => report(pages, Outcome::Failed),
        }
    }
}

fn bus_error(error: AccessError) -> BusError {
    match error {
        AccessError::Empty => BusError::Empty,
        AccessError::Fault => BusError::Fault,
        AccessError::Again => BusError::Again,
    }
}
