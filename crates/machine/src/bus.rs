//! The hardware's bus over a host mm: device addresses become pagemap frames, nothing else happens here.

use hostmm::{AccessError, AtomicOp, DevicePage, HostMemory, PagemapId, Place};
use std::sync::Arc;
use units::{Dpa, Outcome, PAGE_SHIFT, Report, TileId};
use xe_hw::port::{Bus, BusAddr, BusError, Rmw};
use xe_spec::platform::Platform;

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
    platform: &'static Platform,
    memory: Arc<dyn HostMemory>,
    system: SystemAccess,
}

impl HostBus {
    /// A bus of a device of this platform, whose tile n is pagemap n.
    pub fn new(platform: &'static Platform, memory: Arc<dyn HostMemory>, system: SystemAccess) -> Self {
        Self { platform, memory, system }
    }

    fn place(&self, page: BusAddr) -> Result<Place, BusError> {
        match page {
            BusAddr::System(frame) => Ok(Place::Host(frame)),
            BusAddr::Vram(dpa) => device_page(self.platform, dpa).map(Place::Device).ok_or(BusError::Fault),
        }
    }
}

/// The frame behind a device address; `None` where no tile has it.
pub fn device_page(platform: &Platform, dpa: Dpa) -> Option<DevicePage> {
    let holds =
        |tile: &xe_spec::platform::Tile| dpa.0.checked_sub(tile.vram_base.0).filter(|offset| *offset < tile.vram_size);
    let (index, offset) = platform.tiles.iter().enumerate().find_map(|(i, tile)| Some((i, holds(tile)?)))?;
    let tile = TileId(u8::try_from(index).ok()?);
    Some(DevicePage { pagemap: PagemapId::of_tile(tile), frame: offset >> PAGE_SHIFT })
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

#[cfg(test)]
mod tests {
    use super::*;
    use xe_spec::platform::PVC;

    #[test]
    fn every_device_address_belongs_to_one_tile_or_none() {
        let tile1 = PVC.tiles[1].vram_base;
        assert_eq!(device_page(&PVC, tile1.add(0x3000)), Some(DevicePage { pagemap: PagemapId(1), frame: 3 }));
        assert_eq!(device_page(&PVC, Dpa(0)), None);
        assert_eq!(device_page(&PVC, PVC.tiles[0].tables_base), None);
    }
}
