//! What backs a device's VRAM, as a table: which device addresses lead to which memory of the host.
//!
//! The bus asks it for every page. All of a tile's VRAM is backed by its pagemap's arena so far, each frame at the
//! offset of its device address; an extent is whole blocks of 64K, so that a part can be given another backing.
//!
//! Locking: none, it does not change.
//!
//! Upstream: none, silicon has the memory itself.

use crate::interconnect::{DeviceId, Interconnect, Node};
use hostmm::{DevicePage, PagemapId, Place};
use units::{Dpa, PAGE_SHIFT, SZ_64K, TileId};
use xe_spec::platform::Platform;

/// VRAM that follows each other and has the same backing.
struct Extent {
    base: Dpa,
    bytes: u64,
    backing: Backer,
}

/// Memory behind VRAM.
enum Backer {
    /// Frames of a pagemap, from its first on.
    Arena(PagemapId),
}

/// The table of one device.
pub struct Backing {
    extents: Vec<Extent>,
}

impl Backing {
    /// All VRAM of a device backed by the arenas of its pagemaps.
    pub fn arenas(platform: &Platform, device: DeviceId, interconnect: &Interconnect) -> Self {
        let extent = |(n, tile): (usize, &xe_spec::platform::Tile)| {
            let pagemap = interconnect.pagemap(Node { device, tile: TileId(n as u8) })?;
            let bytes = tile.vram_size / SZ_64K * SZ_64K;
            Some(Extent { base: tile.vram_base, bytes, backing: Backer::Arena(pagemap) })
        };
        Self { extents: platform.tiles.iter().enumerate().filter_map(extent).collect() }
    }

    /// The memory behind a page; `None` where there is none.
    pub fn place(&self, dpa: Dpa) -> Option<Place> {
        let inside = |extent: &Extent| dpa.0.checked_sub(extent.base.0).filter(|offset| *offset < extent.bytes);
        let (extent, offset) = self.extents.iter().find_map(|extent| Some((extent, inside(extent)?)))?;
        match extent.backing {
            Backer::Arena(pagemap) => Some(Place::Device(DevicePage { pagemap, frame: offset >> PAGE_SHIFT })),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use xe_spec::platform::PVC;

    #[test]
    fn every_device_address_has_one_backing_or_none() {
        let machine = Interconnect::new(&[&PVC, &PVC]);
        let backing = Backing::arenas(&PVC, DeviceId(1), &machine);
        let page = |pagemap, frame| Some(Place::Device(DevicePage { pagemap: PagemapId(pagemap), frame }));
        assert_eq!(backing.place(PVC.tiles[0].vram_base), page(2, 0));
        assert_eq!(backing.place(PVC.tiles[1].vram_base.add(0x3000)), page(3, 3));
        assert_eq!((backing.place(Dpa(0)), backing.place(PVC.tiles[0].tables_base)), (None, None));
    }
}
