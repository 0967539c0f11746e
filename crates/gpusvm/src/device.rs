//! What the engine asks of the driver's device: DMA mappings, whose VRAM it reaches, and how an address is named to it.
//!
//! A page that a device shall reach is in one of three places, and [`Proto`] says in which: an address
//! without it means nothing. (Linux: the cross-tile defect is exactly an address that lost its `proto`.)
//!
//! Locking: [`Device`] is called with the notifier lock held or with none; its own locks are leaves.
//! Upstream: `drm_pagemap.h` (`struct drm_pagemap_addr`), `dma_map_page`.

use hostmm::PagemapId;
use units::{HostFrame, Iova};

/// Who reads and who writes through a mapping (`enum dma_data_direction`).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Direction {
    /// The device reads.
    ToDevice,
    /// The device writes.
    FromDevice,
    /// The device reads and writes.
    Both,
}

/// Which way an address is reached (`enum drm_interconnect_protocol`).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Proto {
    /// System memory: the address is an `Iova` of the device.
    System,
    /// VRAM of the same device: the address is a `Dpa`.
    Vram,
    /// VRAM of another device, through the bus: the address is an `Iova`.
    P2p,
}

/// A run of memory as a device sees it (`struct drm_pagemap_addr`, which ends at powers of two).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct PagemapAddr {
    /// Bus address of the first byte, in the space that `proto` names.
    pub addr: u64,
    /// Which space.
    pub proto: Proto,
    /// 4K pages of the run, which is contiguous.
    pub pages: u32,
    /// For which direction it was mapped.
    pub dir: Direction,
}

impl PagemapAddr {
    /// System memory, mapped at `iova`.
    pub const fn system(iova: Iova, pages: usize, dir: Direction) -> Self {
        Self { addr: iova.0, proto: Proto::System, pages: pages as u32, dir }
    }
    /// Ends the mapping; VRAM of the same device has none.
    pub fn unmap(self, device: &dyn Device) {
        match self.proto {
            Proto::System | Proto::P2p => device.dma_unmap(Iova(self.addr), self.pages()),
            Proto::Vram => {}
        }
    }
    /// Number of 4K pages of the run.
    pub const fn pages(self) -> usize {
        self.pages as usize
    }
}

/// Why memory could not be mapped for a device.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum MapError {
    /// No bus address left, or no memory for the mapping.
    NoSpace,
    /// The device has no way to that memory.
    Unreachable,
}

/// A device that does DMA. Implementor: the driver, over its hardware port.
pub trait Device: Send + Sync + 'static {
    /// By which protocol the device reaches the VRAM behind a pagemap: its own, or a peer's through the bus. `None`: by none.
    fn path(&self, pagemap: PagemapId) -> Option<Proto>;
    /// Maps `pages` frames, contiguous from `frame`; the bus addresses are contiguous too (`dma_map_page`,
    /// `dma_iova_link`). With [`Direction::ToDevice`] a write of the device is refused.
    fn dma_map(&self, frame: HostFrame, pages: usize, dir: Direction) -> Result<Iova, MapError>;
    /// Ends a mapping, with exactly the run that [`dma_map`](Self::dma_map) gave (`dma_unmap_page`).
    fn dma_unmap(&self, iova: Iova, pages: usize);
}
