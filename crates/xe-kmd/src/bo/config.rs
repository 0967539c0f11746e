//! What a BO is made with, and the label by which a descriptor tells other processes of it.
//!
//! In the kernel a descriptor leads to the BO itself. A process of its own has the bytes, by the descriptor, and the label of the
//! object ([`HostMemory::object_create`]); of both it makes a BO that is like the exporter's. A program can make a descriptor with any
//! label, so one that no GEM_CREATE of this device takes says nothing.
//!
//! ```text
//!   bits 0..32 the device's window on the bus | 32..48 placement | 48..56 caching | 56 defer | 57 no compression
//! ```
//!
//! Locking: none. Upstream: `xe_gem_prime_import`, where the dma-buf is of the same device.
//!
//! [`HostMemory::object_create`]: hostmm::HostMemory::object_create

use units::PAGE_SHIFT;
use xe_spec::fault::Asid;
use xe_spec::platform::{Platform, Tile, VRAM_BAR_STRIDE};
use xe_uapi::gem::{CACHING_WB, CACHING_WC};

use super::SYSTEM;
use crate::errno::Errno;
use crate::shared::Shared;

const PLACEMENT: u32 = 32;
const CACHING: u32 = 48;
const DEFER: u32 = 56;
const NO_COMPRESSION: u32 = 57;

/// Mask of all memory regions: bit 0 system memory, bit 1 + n the VRAM of tile n, where tiles have some.
pub(crate) const fn region_mask(platform: &Platform) -> u32 {
    (1 << (platform.vram_tiles() + 1)) - 1
}

/// What a BO is made with.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct BoConfig {
    /// Bytes, a multiple of 4K.
    pub size: u64,
    /// Mask of regions that it may live in.
    pub placement: u32,
    /// `CACHING_*`.
    pub caching: u16,
    /// The address space that alone may map it.
    pub vm: Option<Asid>,
    /// Memory is taken at the first use.
    pub defer: bool,
    /// No PAT index that compresses may map it.
    pub no_compression: bool,
}

/// What tells a device from the others of a machine, in any process.
fn device(shared: &Shared) -> u32 {
    (shared.gpu.interconnect.window().0 / VRAM_BAR_STRIDE) as u32
}

impl BoConfig {
    pub(super) const fn pages(&self) -> u64 {
        self.size >> PAGE_SHIFT
    }

    /// `EINVAL`: it may be in VRAM, whose pages are larger than its last; `ENOSPC`: no region that it may live in has so many bytes.
    pub(super) fn check(&self, shared: &Shared) -> Result<(), Errno> {
        let platform = shared.platform();
        if self.placement & !SYSTEM != 0 && !self.size.is_multiple_of(platform.min_vram_page()) {
            return Err(Errno::EINVAL);
        }
        let tiles = platform.tiles.iter().enumerate();
        let in_vram = |(n, tile): (usize, &Tile)| self.placement >> (1 + n) & 1 != 0 && self.size <= tile.vram_size;
        let in_system = self.placement & SYSTEM != 0 && self.size <= shared.system.size();
        if in_system || tiles.into_iter().any(in_vram) { Ok(()) } else { Err(Errno::ENOSPC) }
    }

    /// The label of a BO of this device.
    pub(super) fn label(&self, shared: &Shared) -> u64 {
        u64::from(device(shared))
            | u64::from(self.placement as u16) << PLACEMENT
            | u64::from(self.caching as u8) << CACHING
            | u64::from(self.defer) << DEFER
            | u64::from(self.no_compression) << NO_COMPRESSION
    }

    /// What a BO of this device with so many bytes was made with; `None`: it is another device's.
    pub(crate) fn of_label(label: u64, size: u64, shared: &Shared) -> Option<Self> {
        let config = Self {
            size,
            placement: u32::from((label >> PLACEMENT) as u16),
            caching: u16::from((label >> CACHING) as u8),
            vm: None,
            defer: label >> DEFER & 1 != 0,
            no_compression: label >> NO_COMPRESSION & 1 != 0,
        };
        let is_region = config.placement & !region_mask(shared.platform()) == 0;
        let is_cached = config.caching == CACHING_WC || config.caching == CACHING_WB && config.placement == SYSTEM;
        let is_whole = config.label(shared) == label && is_region && is_cached;
        (is_whole && config.check(shared).is_ok()).then_some(config)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Rig;
    use units::{SZ_2M, SZ_4K};

    #[test]
    fn a_label_says_what_a_bo_was_made_with_and_another_device_s_says_nothing() {
        let rig = Rig::new();
        let shared = &rig.file.shared;
        let like = |label: u64, size: u64| BoConfig::of_label(label, size, shared);
        let config = |placement, caching, defer| {
            let (size, vm, no_compression) = (SZ_2M, None, false);
            BoConfig { size, placement, caching, vm, defer, no_compression }
        };
        for config in [config(1, CACHING_WB, false), config(2, CACHING_WC, true), config(7, CACHING_WC, false)] {
            assert_eq!(like(config.label(shared), SZ_2M), Some(config));
        }
        let good = config(2, CACHING_WC, false).label(shared);
        let nowhere = good & !(0xffff << PLACEMENT);
        let bad = [0, good ^ 1, good | 1 << 60, nowhere, good | 8 << PLACEMENT, good | 9 << CACHING];
        assert_eq!(bad.map(|label| like(label, SZ_2M)), [None; 6]);
        assert_eq!([like(good, SZ_4K), like(good, 1 << 50)], [None; 2], "no VRAM has so little, or so much");
    }
}
