//! The hardware's bus over a host mm: device addresses become what backs them, nothing else happens here. What is in the
//! device's own window on the bus is the device's memory again.

use crate::backing::Backing;
use hostmm::{AccessError, AtomicOp, HostMemory, Place};
use std::sync::Arc;
use units::{Dpa, Outcome, PAGE_SHIFT, Report, SZ_4K, SZ_64K, bytes_of};
use xe_hw::port::{Bus, BusAddr, BusError, Rmw};
use xe_spec::platform::VRAM_BAR;

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
    backing: Arc<Backing>,
    memory: Arc<dyn HostMemory>,
    system: SystemAccess,
}

impl HostBus {
    /// A bus of a device whose VRAM is backed so.
    pub fn new(backing: Arc<Backing>, memory: Arc<dyn HostMemory>, system: SystemAccess) -> Self {
        Self { backing, memory, system }
    }

    /// The place of page `at` of a run, and how many of the pages up to `end` follow each other from there.
    fn run(&self, first: BusAddr, at: usize, end: usize) -> Result<(Place, usize), BusError> {
        let first = behind_window(first);
        let page = |n: usize| match first {
            BusAddr::System(frame) => BusAddr::System(frame.add(n as u64)),
            BusAddr::Vram(dpa) => BusAddr::Vram(dpa.add(bytes_of(n))),
        };
        let place = self.place(page(at))?;
        let goes_on = |n: &usize| self.place(page(*n)) == Ok(place.add((*n - at) as u64));
        // Within a block of 64K nothing changes; system memory was translated as one run.
        let block = (SZ_64K >> PAGE_SHIFT) as usize;
        let starts = match first {
            BusAddr::System(_) => end..end,
            BusAddr::Vram(dpa) => at + block - (dpa.add(bytes_of(at)).0 / SZ_4K) as usize % block..end,
        };
        Ok((place, starts.step_by(block).find(|n| !goes_on(n)).unwrap_or(end) - at))
    }

    fn place(&self, page: BusAddr) -> Result<Place, BusError> {
        match behind_window(page) {
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

    fn stream(&self, page: BusAddr, bytes: &[u8]) -> Result<(), BusError> {
        self.memory.stream(self.place(page)?, bytes).map_err(bus_error)
    }

    fn drain(&self) {
        self.memory.drain();
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
        let mut at = 0;
        while at < pages {
            let (Ok((from, first)), Ok((to, second))) = (self.run(src, at, pages), self.run(dst, at, pages)) else {
                return report(pages - at, Outcome::Failed);
            };
            let here = first.min(second);
            self.memory.transfer(from, to, here, report);
            at += here;
        }
    }
}

/// A page of the device's own window on the bus is VRAM.
fn behind_window(page: BusAddr) -> BusAddr {
    match page {
        BusAddr::System(frame) if frame >= VRAM_BAR => BusAddr::Vram(Dpa((frame.0 - VRAM_BAR.0) << PAGE_SHIFT)),
        BusAddr::System(_) | BusAddr::Vram(_) => page,
    }
}

fn bus_error(error: AccessError) -> BusError {
    match error {
        AccessError::Empty => BusError::Empty,
        AccessError::Fault => BusError::Fault,
        AccessError::Again => BusError::Again,
    }
}
