//! Addresses, frames and sizes: the newtypes that engine, driver and hardware share.
//!
//! Five address spaces meet in a migration, and the defect that gave this project its reason is a
//! number of one of them used in another. So each has a type:
//!
//! | type | space |
//! |---|---|
//! | [`HostVa`] | virtual address of the host process |
//! | [`GpuVa`] | virtual address of a GPU VM (an SVM mirror uses the same number as [`HostVa`]) |
//! | [`Dpa`] | device physical address: the VRAM of *all* tiles of one device, one space, never 0 |
//! | [`Iova`] | bus address that the device's IOMMU translates; never a `HostVa`, never a `Dpa` |
//! | [`HostFrame`] | what a host mm calls one page of system memory; opaque to engine and driver |
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

mod addr;
mod bits;
mod outcome;
mod range;
mod spans;

pub use addr::{Dpa, GpuVa, HostFrame, HostVa, Iova};
pub use bits::{bit_words, set_bits};
pub use outcome::{Joined, Outcome, Report};
pub use range::{AddrRange, DpaRange, GpuRange, HostRange};
pub use spans::Spans;

/// Shift of the host's and the GPU's smallest page.
pub const PAGE_SHIFT: u32 = 12;
/// The smallest page, in bytes.
pub const SZ_4K: u64 = 1 << 12;
/// The large page that PVC needs in VRAM, in bytes.
pub const SZ_64K: u64 = 1 << 16;
/// The huge page of host and GPU, in bytes.
pub const SZ_2M: u64 = 1 << 21;
/// One gibibyte.
pub const SZ_1G: u64 = 1 << 30;
/// Order (log2 of 4K pages) of a 2M page.
pub const ORDER_2M: u8 = 9;

/// A tile of a device, counted from 0.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct TileId(pub u8);

impl TileId {
    /// The tile's place in a slice of all tiles.
    pub const fn index(self) -> usize {
        self.0 as usize
    }
    /// The tile's bit in a tile mask (`tile_present`, `tile_invalidated`).
    pub const fn bit(self) -> u8 {
        1 << self.0
    }
}

impl core::fmt::Display for TileId {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "tile{}", self.0)
    }
}

/// Number of 4K pages in `bytes`, rounded down.
pub const fn pages_of(bytes: u64) -> usize {
    (bytes >> PAGE_SHIFT) as usize
}

/// Number of bytes in `pages` 4K pages.
pub const fn bytes_of(pages: usize) -> u64 {
    (pages as u64) << PAGE_SHIFT
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_address_finds_its_chunk() {
        let chunk = HostRange::around(HostVa(0x7f00_0001_2345), SZ_64K);
        assert_eq!(chunk, HostRange::new(HostVa(0x7f00_0001_0000), HostVa(0x7f00_0002_0000)));
        assert_eq!(chunk.pages(), 16);
        assert!(chunk.contains(HostVa(0x7f00_0001_ffff)) && !chunk.contains(HostVa(0x7f00_0002_0000)));
    }

    #[test]
    fn ranges_clip_and_touching_is_not_overlapping() {
        let a = HostRange::new(HostVa(0x1000), HostVa(0x3000));
        let b = HostRange::new(HostVa(0x2000), HostVa(0x5000));
        assert_eq!(a.intersect(b), Some(HostRange::new(HostVa(0x2000), HostVa(0x3000))));
        assert!(!a.overlaps(HostRange::new(HostVa(0x3000), HostVa(0x4000))));
    }
}
