//! What all parts of the device share: platform facts, bus, table memory, IOMMU, injection and log. It knows no MMU,
//! no engine and no driver.
//!
//! Locking: none of its own; each part has its own.

use crate::inject::Injection;
use crate::iommu::Iommu;
use crate::port::Bus;
use crate::record::Log;
use crate::tables::{Reader, Tables};
use std::sync::Arc;
use units::{Dpa, GpuVa, SZ_4K, TileId};
use xe_spec::platform::{Platform, Tile};

/// The shared parts of one device.
pub(crate) struct Chip {
    pub(crate) platform: &'static Platform,
    pub(crate) bus: Arc<dyn Bus>,
    pub(crate) injection: Injection,
    pub(crate) tables: Tables,
    pub(crate) iommu: Iommu,
    pub(crate) log: Log,
}

impl Chip {
    /// Nothing mapped, table memory zero.
    pub(crate) fn new(platform: &'static Platform, bus: Arc<dyn Bus>, injection: Injection) -> Self {
        let (tables, iommu, log) = (Tables::new(platform), Iommu::new(), Log::new());
        Self { platform, bus, injection, tables, iommu, log }
    }

    /// For one walk.
    pub(crate) fn reader(&self) -> Reader<'_> {
        self.tables.reader(&*self.bus)
    }

    /// The address bits that the device has: canonical addresses lose their sign.
    pub(crate) fn strip(&self, addr: GpuVa) -> GpuVa {
        GpuVa(addr.0 & ((1 << self.platform.va_bits) - 1))
    }

    /// Frames from `dpa` to the end of its tile's VRAM; 0 where it is no frame that engines of tile `from` reach.
    pub(crate) fn frames_from(&self, from: TileId, dpa: Dpa) -> u64 {
        let left =
            |tile: &Tile| tile.vram_size.checked_sub(dpa.0.checked_sub(tile.vram_base.0)?).filter(|left| *left > 0);
        let reached = |n: usize| self.platform.reaches(from, TileId(n as u8));
        let mut tiles = self.platform.tiles.iter().enumerate().filter(|(n, _)| reached(*n));
        tiles.find_map(|(_, tile)| left(tile)).map_or(0, |bytes| bytes.div_ceil(SZ_4K))
    }
}
