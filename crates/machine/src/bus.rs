//! The hardware's bus over a host mm: device addresses become what backs them, nothing else happens here. What is in a
//! device's window on the bus, its own or a peer's, is that device's memory.

use crate::backing::Backing;
use crate::interconnect::{DeviceId, Interconnect};
use hostmm::{AccessError, AtomicOp, HostMemory, Place};
use std::sync::Arc;
use units::{Dpa, HostFrame, Outcome, PAGE_SHIFT, Report, SZ_4K, SZ_64K, bytes_of};
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

/// What a page on the bus is.
#[derive(Clone, Copy)]
enum Target {
    System(HostFrame),
    Vram(DeviceId, Dpa),
}

/// Implements [`Bus`] over a [`HostMemory`].
pub struct HostBus {
    device: DeviceId,
    /// Of all devices, in their order.
    backings: Arc<[Backing]>,
    memory: Arc<dyn HostMemory>,
    system: SystemAccess,
}

impl HostBus {
    /// The bus of a device of a machine whose VRAM is backed so, device by device.
    pub fn new(device: DeviceId, backings: Arc<[Backing]>, memory: Arc<dyn HostMemory>, system: SystemAccess) -> Self {
        Self { device, backings, memory, system }
    }

    /// The place of page `at` of a run, and how many of the pages up to `end` follow each other from there.
    fn run(&self, first: BusAddr, at: usize, end: usize) -> Result<(Place, usize), BusError> {
        let first = self.target(first);
        let page = |n: usize| match first {
            Target::System(frame) => Target::System(frame.add(n as u64)),
            Target::Vram(device, dpa) => Target::Vram(device, dpa.add(bytes_of(n))),
        };
        let place = self.behind(page(at))?;
        let goes_on = |n: &usize| self.behind(page(*n)) == Ok(place.add((*n - at) as u64));
        // Within a block of 64K nothing changes; system memory was translated as one run.
        let block = (SZ_64K >> PAGE_SHIFT) as usize;
        let starts = match first {
            Target::System(_) => end..end,
            Target::Vram(_, dpa) => at + block - (dpa.add(bytes_of(at)).0 / SZ_4K) as usize % block..end,
        };
        Ok((place, starts.step_by(block).find(|n| !goes_on(n)).unwrap_or(end) - at))
    }

    fn place(&self, page: BusAddr) -> Result<Place, BusError> {
        self.behind(self.target(page))
    }

    /// A page of a device's window on the bus is VRAM of that device.
    fn target(&self, page: BusAddr) -> Target {
        match page {
            BusAddr::Vram(dpa) => Target::Vram(self.device, dpa),
            BusAddr::System(frame) => match Interconnect::behind_window(frame) {
                Some((device, dpa)) => Target::Vram(device, dpa),
                None => Target::System(frame),
            },
        }
    }

    fn behind(&self, target: Target) -> Result<Place, BusError> {
        match target {
            Target::System(frame) => Ok(Place::Host(frame)),
            Target::Vram(device, dpa) => {
                let backing = self.backings.get(usize::from(device.0));
                backing.and_then(|backing| backing.place(dpa)).ok_or(BusError::Fault)
            }
        }
    }
}

impl Bus for HostBus {
    fn system_access_may_block(&self, frame: HostFrame) -> bool {
        self.system == SystemAccess::MayBlock && Interconnect::behind_window(frame).is_none()
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

    fn stream_pages(&self, src: BusAddr, dst: BusAddr, pages: usize) -> usize {
        match (self.run(src, 0, pages), self.run(dst, 0, pages)) {
            (Ok((from, first)), Ok((to, second))) => self.memory.stream_pages(from, to, first.min(second)),
            _ => 0,
        }
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
        // No bridge of a device does atomics that come by its window.
        let target = match (page, self.target(page)) {
            (BusAddr::System(_), Target::Vram(..)) => return Err(BusError::NoAtomics),
            (_, target) => target,
        };
        self.memory.atomic(self.behind(target)?, offset, size, op).map_err(bus_error)
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

fn bus_error(error: AccessError) -> BusError {
    match error {
        AccessError::Empty => BusError::Empty,
        AccessError::Fault => BusError::Fault,
        AccessError::Again => BusError::Again,
    }
}
