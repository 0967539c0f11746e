//! The device as the driver's inner layers need it: its chip, and of each tile its memory.
//!
//! Everything of the reader class lives on this; it knows no file, no VM and no host mm.
//!
//! Locking: each tile's allocators have their own leaf locks.
//!
//! Upstream: the parts of `struct xe_device` and `struct xe_tile` that `xe_pt`, `xe_migrate` and `xe_svm` use.

use std::ops::Deref;
use std::sync::Arc;

use gpusvm::Proto;
use hostmm::{DevicePage, PagemapId};
use units::{Dpa, HostFrame, PAGE_SHIFT, SZ_2M, TileId};

use crate::chip::{Chip, Extent};
use crate::errno::Errno;
use crate::migrate::Migrate;
use crate::pt::TablePool;
use crate::pt::build::VramGranule;
use crate::vram::Vram;

/// One tile's memory.
pub(crate) struct Tile {
    pub id: TileId,
    /// Where its VRAM lies.
    pub extent: Extent,
    pub tables: TablePool,
    pub migrate: Migrate,
    pub vram: Vram,
}

/// The device, for the inner layers. What its [`Chip`] has, it has.
pub(crate) struct Gpu {
    chip: Chip,
    pub tiles: Vec<Tile>,
}

impl Deref for Gpu {
    type Target = Chip;

    fn deref(&self) -> &Chip {
        &self.chip
    }
}

impl Gpu {
    /// Sets up each tile's allocators and its migration context.
    pub(crate) fn new(chip: Chip) -> Result<Arc<Self>, Errno> {
        let tiles = (0..chip.platform.tiles.len()).map(|n| Tile::new(&chip, TileId(n as u8)));
        let tiles = tiles.collect::<Result<_, _>>()?;
        Ok(Arc::new(Self { chip, tiles }))
    }

    /// A tile by its id; ids come from the platform's own list.
    pub(crate) fn tile(&self, id: TileId) -> Option<&Tile> {
        self.tiles.get(id.index())
    }

    /// The tiles whose VRAM a pagemap is.
    pub(crate) fn tiles_of(&self, pagemap: PagemapId) -> impl Iterator<Item = &Tile> {
        self.tiles.iter().filter(move |tile| tile.extent.first.pagemap == pagemap)
    }

    /// The tile whose VRAM a page is in.
    pub(crate) fn tile_at(&self, page: DevicePage) -> Option<&Tile> {
        self.tiles_of(page.pagemap).filter(|tile| tile.extent.first.frame <= page.frame).last()
    }

    /// Whether the engine that carries the pages of `tile` reaches the VRAM of `pagemap`, to push them there.
    pub(crate) fn pushes(&self, tile: &Tile, pagemap: PagemapId) -> bool {
        self.reaches(self.platform.copier(tile.id), pagemap)
    }

    /// Whether engines of `tile` reach the VRAM of `pagemap`, by its device address or through the bus.
    pub(crate) fn reaches(&self, tile: TileId, pagemap: PagemapId) -> bool {
        self.interconnect.path(tile, pagemap).is_some()
    }

    /// Which way the device reaches the VRAM of `pagemap`: its own by the device address, a peer's through the bus.
    pub(crate) fn path(&self, pagemap: PagemapId) -> Option<Proto> {
        self.tiles.iter().find_map(|tile| self.interconnect.path(tile.id, pagemap))
    }

    /// Whether VRAM is a peer's: the device reaches it by the bus, and atomics do not.
    pub(crate) fn is_peers(&self, pagemap: PagemapId) -> bool {
        self.path(pagemap) == Some(Proto::P2p)
    }

    /// Where the bus shows VRAM of the device.
    pub(crate) fn window(&self, dpa: Dpa) -> HostFrame {
        self.interconnect.window().add(dpa.0 >> PAGE_SHIFT)
    }

    /// The pagemap of a tile; none where there is no VRAM.
    pub(crate) fn pagemap(&self, tile: TileId) -> Option<PagemapId> {
        Some(self.tile(tile)?.extent.first.pagemap).filter(|_| self.platform.has_vram())
    }

    /// Whether VRAM must be mapped by leaves of 64K or more.
    pub(crate) fn granule(&self) -> VramGranule {
        if self.platform.needs_64k { VramGranule::Needs64K } else { VramGranule::Any }
    }

    /// VRAM from `dpa` on was used just now.
    pub(crate) fn vram_touch(&self, dpa: Dpa, bytes: u64) {
        let offset = |tile: &Tile| dpa.0.checked_sub(tile.extent.base.0);
        let tile = self.tiles.iter().filter(|tile| offset(tile).is_some()).max_by_key(|tile| tile.extent.base);
        if let Some(tile) = tile {
            tile.vram.touch(dpa.offset_from(tile.extent.base), bytes);
        }
    }
}

impl Tile {
    fn new(chip: &Chip, id: TileId) -> Result<Self, Errno> {
        let platform = chip.platform;
        let facts = platform.tiles[id.index()];
        if !facts.vram_size.is_multiple_of(SZ_2M) || !facts.vram_base.is_aligned(SZ_2M) || facts.vram_base.0 == 0 {
            return Err(Errno::EINVAL);
        }
        let pagemap = chip.interconnect.pagemap(id).ok_or(Errno::EINVAL)?;
        let tables = TablePool::new(facts.tables_base, facts.tables_size);
        let migrate = Migrate::new(platform, &*chip.hw, &tables, id).map_err(|_| Errno::ENOMEM)?;
        let vram = Vram::new(id, facts.vram_size, platform.min_vram_page(), chip.budget.clone());
        let first = DevicePage { pagemap, frame: platform.first_frame(id) };
        Ok(Self { id, extent: Extent { base: facts.vram_base, first }, tables, migrate, vram })
    }
}
