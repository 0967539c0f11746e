//! Platform facts as data: PVC, as it is by default, Battlemage, and Lunar Lake, which has no VRAM; a device profile varies them.
//!
//! Upstream: `xe_pci.c` (device descriptors), `xe_tile_sysfs`, MTCFG. A [`Platform`] is what a device profile
//! chooses, and the only thing that driver code may ask instead of "is this a PVC".

use crate::fault::EngineClass;
use crate::{mocs, pat};
use units::{Dpa, HostFrame, PAGE_SHIFT, SZ_1G, SZ_2M, SZ_64K, TileId};

/// Facts of one tile.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Tile {
    /// Start of its VRAM in the device's address space.
    pub vram_base: Dpa,
    /// Bytes of VRAM that hold pages; 0 of an integrated GPU.
    pub vram_size: u64,
    /// Start of the pool that holds its page tables, apart from the pages.
    pub tables_base: Dpa,
    /// Bytes of that pool.
    pub tables_size: u64,
}

/// From a tile's VRAM to the next one's in the device's address space.
const TILE_STRIDE: u64 = 64 * SZ_1G;

impl Tile {
    /// The most VRAM that [`nth`](Self::nth) has room for, its pool of tables included.
    pub const MAX_VRAM: u64 = TILE_STRIDE / 2;

    /// Tile `n` of a device whose tiles have `vram_size` bytes each. The pool of tables lies behind the VRAM and is for small
    /// VRAM no smaller than for 1 GiB: page tables are for what a program touches, which small VRAM does not lessen.
    pub const fn nth(n: u8, vram_size: u64) -> Self {
        let vram_base = Dpa(DEVICE_DPA_BASE.0 + n as u64 * TILE_STRIDE);
        let for_tables = if vram_size < SZ_1G { SZ_1G } else { vram_size };
        Self { vram_base, vram_size, tables_base: Dpa(vram_base.0 + vram_size), tables_size: for_tables / 16 }
    }
}

/// Which VRAM of a device the engines of a tile reach by its device address.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Reach {
    /// Their own tile's.
    OwnTile,
    /// That of all tiles.
    Device,
}

/// Which VRAM of a device is one pagemap (`struct dev_pagemap`), and so where a driver can tell its pages apart by it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Pagemaps {
    /// A tile's, as Xe has it.
    Tile,
    /// All of the device, as amdkfd has it.
    Device,
}

/// Which copy engine carries the pages of a tile's VRAM.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Copiers {
    /// The tile's own.
    Tile,
    /// The first tile's: the others are partitions of memory, with engines for programs and a pagemap each.
    FirstTile,
}

/// The shaders that a GT tells of, though none of them runs here.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Shaders {
    /// Mask of the subslices that graphics has.
    pub geometry: u64,
    /// Mask of those that compute has.
    pub compute: u64,
    /// Mask of the banks of its L3 cache.
    pub l3_banks: u64,
    /// Mask of a subslice's execution units, which are SIMD16.
    pub units: u64,
    /// Slices.
    pub slices: u32,
    /// Threads an execution unit.
    pub threads: u32,
}

/// Facts of a device.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Platform {
    /// What reports call it.
    pub name: &'static str,
    /// What the kernel calls parts of its kind.
    pub kind: &'static str,
    /// Version of its graphics times 100.
    pub graphics_verx100: u16,
    /// The version that a GT tells, where parts of the kind have a register for it (`GMD_ID`): major, minor, revision.
    pub gmd_id: Option<(u16, u16, u16)>,
    /// PCI device id.
    pub devid: u16,
    /// PCI revision.
    pub revid: u8,
    /// Bits of a GPU virtual address.
    pub va_bits: u8,
    /// Level of the root table (4: five levels).
    pub root_level: u8,
    /// VRAM leaves must be 64K or larger (`XE_VRAM_FLAGS_NEED64K`).
    pub needs_64k: bool,
    /// What its PAT indices mean.
    pub pat: pat::Table,
    /// What its MOCS registers hold.
    pub mocs: mocs::Table,
    /// A VM that serves faults may have scratch pages (`needs_scratch`).
    pub scratch_with_faults: bool,
    /// Memory may be compressed, and a BO may ask for none of it.
    pub compresses: bool,
    /// Atomics reach system memory (`has_device_atomics_on_smem`).
    pub device_atomics_on_smem: bool,
    /// Frequency of the engines' timestamps, Hz.
    pub reference_clock: u32,
    /// Bits of the engines' timestamps.
    pub timestamp_bits: u32,
    /// Shaders of a tile.
    pub shaders: Shaders,
    /// Render engines a tile.
    pub render_engines: u16,
    /// Copy engines a tile that programs may use; one more is the driver's own.
    pub copy_engines: u16,
    /// Compute engines a tile.
    pub compute_engines: u16,
    /// Whose VRAM an engine reaches by its device address.
    pub reach: Reach,
    /// Which VRAM is one pagemap.
    pub pagemaps: Pagemaps,
    /// Whose copy engine carries pages.
    pub copiers: Copiers,
    /// Other devices of the machine that say so too reach its VRAM through its window on the bus, and it theirs
    /// (`pci_p2pdma_distance`).
    pub p2p: bool,
    /// A fabric between devices that it is on: those of one fabric reach each other's VRAM, whatever the bus lets through.
    pub fabric: Option<&'static str>,
    /// System memory that buffer objects may take, bytes: what programs are told that there is.
    pub system_bytes: u64,
    /// The tiles.
    pub tiles: &'static [Tile],
}

const NS_PER_S: u64 = 1_000_000_000;

impl Platform {
    /// Engines of a class that a tile has for programs.
    pub const fn engines_of(&self, class: EngineClass) -> u16 {
        match class {
            EngineClass::Render => self.render_engines,
            EngineClass::Copy => self.copy_engines,
            EngineClass::Compute => self.compute_engines,
        }
    }

    /// The classes that a tile has engines of.
    pub fn classes(&self) -> impl Iterator<Item = EngineClass> + '_ {
        EngineClass::ALL.into_iter().filter(|class| self.engines_of(*class) > 0)
    }

    /// All engines of a tile: class and instance.
    pub fn engines(&self) -> impl Iterator<Item = (EngineClass, u16)> + '_ {
        self.classes().flat_map(|class| (0..self.engines_of(class)).map(move |instance| (class, instance)))
    }

    /// Ticks of the reference clock in so many nanoseconds.
    pub const fn ticks(&self, ns: u64) -> u64 {
        let hz = self.reference_clock as u64;
        ns / NS_PER_S * hz + ns % NS_PER_S * hz / NS_PER_S
    }

    /// The engines' timestamp at a moment of monotonic time: so many of its bits.
    pub const fn timestamp(&self, now_ns: u64) -> u64 {
        self.ticks(now_ns) & (u64::MAX >> (64 - self.timestamp_bits))
    }

    /// Whether it has memory of its own: a discrete device (`IS_DGFX`).
    pub const fn has_vram(&self) -> bool {
        self.vram_tiles() > 0
    }

    /// Tiles that have VRAM: all or none.
    pub const fn vram_tiles(&self) -> usize {
        if self.tiles.is_empty() || self.tiles[0].vram_size == 0 { 0 } else { self.tiles.len() }
    }

    /// The smallest page of VRAM, in bytes.
    pub const fn min_vram_page(&self) -> u64 {
        if self.needs_64k { SZ_64K } else { units::SZ_4K }
    }

    /// The tile whose copy engine carries the pages of a tile's VRAM.
    pub const fn copier(&self, tile: TileId) -> TileId {
        match self.copiers {
            Copiers::Tile => tile,
            Copiers::FirstTile => TileId(0),
        }
    }

    /// The number that the first frame of a tile's VRAM has in its pagemap. Two tiles of one pagemap have a gap between them, so that no run
    /// of frames is of both.
    pub fn first_frame(&self, tile: TileId) -> u64 {
        match self.pagemaps {
            Pagemaps::Tile => 0,
            Pagemaps::Device => {
                let before = self.tiles.iter().take(tile.index());
                before.map(|tile| (tile.vram_size + SZ_2M) >> PAGE_SHIFT).sum()
            }
        }
    }

    /// Whether engines of tile `from` reach the VRAM of tile `to`.
    pub fn reaches(&self, from: TileId, to: TileId) -> bool {
        from == to || self.reach == Reach::Device
    }
}

/// Where the device's memory starts in its own address space (`dpa_base` of the device).
pub const DEVICE_DPA_BASE: Dpa = Dpa(64 * SZ_1G);

/// Where the system's bus shows the memory of the first device (its VRAM BAR): the frame of device address 0. No frame of a
/// host's memory is as high.
pub const VRAM_BAR: HostFrame = HostFrame(1 << 50);
/// From the window of one device on the bus to that of the next, in frames: more than a device has.
pub const VRAM_BAR_STRIDE: u64 = 1 << 32;

/// Ponte Vecchio, two tiles of 1 GiB, with half of its engines.
pub const PVC: Platform = Platform {
    name: "pvc-2t",
    kind: "PVC",
    graphics_verx100: 1260,
    gmd_id: None,
    devid: 0x0bd5,
    revid: 0x2f,
    va_bits: 57,
    root_level: 4,
    needs_64k: true,
    pat: pat::PVC,
    mocs: mocs::PVC,
    scratch_with_faults: false,
    compresses: false,
    device_atomics_on_smem: false,
    reference_clock: 19_200_000,
    timestamp_bits: 36,
    shaders: Shaders { geometry: 0, compute: u64::MAX, l3_banks: 0xffff, units: 0xff, slices: 8, threads: 8 },
    render_engines: 0,
    copy_engines: 4,
    compute_engines: 2,
    reach: Reach::Device,
    pagemaps: Pagemaps::Tile,
    copiers: Copiers::Tile,
    p2p: true,
    fabric: None,
    system_bytes: 16 * SZ_1G,
    tiles: &[Tile::nth(0, SZ_1G), Tile::nth(1, SZ_1G)],
};

/// Battlemage (Xe2, discrete), one tile of 1 GiB, without its media GT. Its addresses have 48 bits, in five levels of tables like PVC's.
pub const BATTLEMAGE: Platform = Platform {
    name: "bmg",
    kind: "BATTLEMAGE",
    graphics_verx100: 2001,
    gmd_id: Some((20, 1, 4)),
    devid: 0xe20b,
    revid: 0,
    va_bits: 48,
    needs_64k: false,
    pat: pat::BATTLEMAGE,
    mocs: mocs::XE2,
    scratch_with_faults: true,
    compresses: true,
    device_atomics_on_smem: true,
    timestamp_bits: 64,
    shaders: Shaders { geometry: 0xf_ffff, compute: 0xf_ffff, l3_banks: 0xfff, units: 0xff, slices: 5, threads: 8 },
    render_engines: 1,
    copy_engines: 1,
    compute_engines: 1,
    tiles: &[Tile::nth(0, SZ_1G)],
    ..PVC
};

/// Lunar Lake (Xe2, integrated), without its media GT: a program's memory is mapped where it is, and nothing migrates.
pub const LUNAR_LAKE: Platform = Platform {
    name: "lnl",
    kind: "LUNARLAKE",
    graphics_verx100: 2004,
    gmd_id: Some((20, 4, 4)),
    devid: 0x64a0,
    revid: 4,
    pat: pat::XE2,
    shaders: Shaders { geometry: 0xff, compute: 0xff, l3_banks: 0xff, units: 0xff, slices: 2, threads: 8 },
    tiles: &[Tile::nth(0, 0)],
    ..BATTLEMAGE
};
