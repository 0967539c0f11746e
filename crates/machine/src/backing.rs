//! What backs a device's VRAM, as a table: which device addresses lead to which memory of the host.
//!
//! The bus asks it for every page. A block of 64K is backed by its pagemap's arena, each frame at the offset of its device
//! address, or by the memory of a buffer object, while the driver says so.
//!
//! Locking: none; an entry is one word. Who changes it has flushed all translations that lead there.
//!
//! Upstream: none, silicon has the memory itself.

use crate::interconnect::{DeviceId, Interconnect, Node};
use hostmm::{DevicePage, Place};
use sync::atomic::AtomicU64;
use units::{Dpa, HostFrame, PAGE_SHIFT, SZ_64K, TileId};
use xe_spec::platform::Platform;

/// Pages of a block.
const BLOCK_PAGES: u64 = SZ_64K >> PAGE_SHIFT;
/// The entry of a block of the arena.
const ARENA: u64 = 0;

/// A tile's VRAM.
struct Extent {
    base: Dpa,
    /// Its first page, as the host knows it.
    first: DevicePage,
    /// Of each block one more than its first frame, where an object backs it.
    blocks: Vec<AtomicU64>,
}

/// The table of one device.
pub struct Backing {
    extents: Vec<Extent>,
}

impl Backing {
    /// All VRAM of a device backed by the arenas of its pagemaps.
    pub fn arenas(platform: &Platform, device: DeviceId, interconnect: &Interconnect) -> Self {
        let extent = |(n, tile): (usize, &xe_spec::platform::Tile)| {
            let id = TileId(n as u8);
            let pagemap = interconnect.pagemap(Node { device, tile: id })?;
            let first = DevicePage { pagemap, frame: platform.first_frame(id) };
            let blocks = (0..tile.vram_size / SZ_64K).map(|_| AtomicU64::new(ARENA)).collect();
            Some(Extent { base: tile.vram_base, first, blocks })
        };
        Self { extents: platform.tiles.iter().enumerate().filter_map(extent).collect() }
    }

    /// The memory behind a page; `None` where there is none.
    pub fn place(&self, dpa: Dpa) -> Option<Place> {
        let (extent, offset) = self.find(dpa)?;
        let page = offset >> PAGE_SHIFT;
        Some(match extent.blocks.get((offset / SZ_64K) as usize)?.load() {
            ARENA => Place::Device(extent.first.add(page)),
            first => Place::Host(HostFrame(first - 1).add(page % BLOCK_PAGES)),
        })
    }

    /// From now on an object's frames from `first` on back the blocks of `bytes` bytes from `dpa` on; `None`: the arena again.
    pub fn set(&self, dpa: Dpa, bytes: u64, first: Option<HostFrame>) {
        let Some((extent, offset)) = self.find(dpa) else { return };
        let blocks = extent.blocks.iter().skip((offset / SZ_64K) as usize).take((bytes / SZ_64K) as usize);
        for (n, block) in blocks.enumerate() {
            block.store(first.map_or(ARENA, |first| first.add(n as u64 * BLOCK_PAGES).0 + 1));
        }
    }

    fn find(&self, dpa: Dpa) -> Option<(&Extent, u64)> {
        let inside = |extent: &Extent| {
            let offset = dpa.0.checked_sub(extent.base.0)?;
            (offset / SZ_64K < extent.blocks.len() as u64).then_some(offset)
        };
        self.extents.iter().find_map(|extent| Some((extent, inside(extent)?)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hostmm::PagemapId;
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

    #[test]
    fn an_object_backs_its_blocks_and_no_others() {
        let backing = Backing::arenas(&PVC, DeviceId(0), &Interconnect::new(&[&PVC]));
        let base = PVC.tiles[1].vram_base;
        let device = |frame| Some(Place::Device(DevicePage { pagemap: PagemapId(1), frame }));
        let host = |frame| Some(Place::Host(HostFrame(frame)));
        backing.set(base.add(SZ_64K), 2 * SZ_64K, Some(HostFrame(500)));
        let places = [15, 16, 33, 47, 48].map(|page| backing.place(base.add(page << PAGE_SHIFT)));
        assert_eq!(places, [device(15), host(500), host(517), host(531), device(48)]);
        backing.set(base.add(2 * SZ_64K), SZ_64K, None);
        assert_eq!((backing.place(base.add(SZ_64K)), backing.place(base.add(2 * SZ_64K))), (host(500), device(32)));
    }
}
