//! Memory for experiments: private, anonymous, apart from everything else of the process.
//!
//! A bench or a test that lets a device at its memory must not let it at its heap. A [`Region`] is a VMA of its own
//! (guards keep the kernel from merging it), 2M aligned, in pages of one size. It is named by address and reached
//! through `HostMemory`; no reference to its bytes exists.

use crate::Refused;
use crate::sys::{Errno, mem};
use units::HostRange;

/// What a region's pages shall be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PageSize {
    /// 4K, never more.
    Small,
    /// 2M, where the kernel has them.
    Huge,
}

/// A private anonymous mapping, gone with its owner. Pages of it that are in VRAM then are dropped, as by munmap.
#[derive(Debug)]
pub struct Region {
    range: HostRange,
    /// With its guards.
    whole: HostRange,
}

impl Region {
    /// Maps `bytes` (a multiple of 4K) and faults all of it in.
    pub fn new(bytes: u64, pages: PageSize) -> Result<Self, Refused> {
        let refused = |errno: Errno| Refused { errno: errno.0, what: "memory" };
        let (range, whole) = mem::map_guarded(bytes).map_err(refused)?;
        let region = Self { range, whole };
        let advice = match pages {
            PageSize::Small => mem::Advice::NoHugePage,
            PageSize::Huge => mem::Advice::HugePage,
        };
        // A kernel without huge pages has no such advice, and its pages are small.
        let _ = mem::advise(range, advice);
        mem::advise(range, mem::Advice::PopulateWrite).map_err(refused)?;
        Ok(region)
    }

    /// Where it is.
    pub fn range(&self) -> HostRange {
        self.range
    }
}

impl Drop for Region {
    fn drop(&mut self) {
        mem::unmap(self.whole);
    }
}
