//! The address newtypes: one macro, so that all of them round, step and print alike.

use crate::{PAGE_SHIFT, SZ_4K};

macro_rules! address {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
        pub struct $name(pub u64);

        impl $name {
            /// The address rounded down to a multiple of `size`, a power of two.
            pub const fn align_down(self, size: u64) -> Self {
                Self(self.0 & !(size - 1))
            }
            /// The address rounded up to a multiple of `size`, a power of two; the highest multiple where that overflows.
            pub const fn align_up(self, size: u64) -> Self {
                match self.0.checked_add(size - 1) {
                    Some(sum) => Self(sum & !(size - 1)),
                    None => Self(!(size - 1)),
                }
            }
            /// Whether the address is a multiple of `size`, a power of two.
            pub const fn is_aligned(self, size: u64) -> bool {
                self.0 & (size - 1) == 0
            }
            /// The 4K page that the address lies in.
            pub const fn page(self) -> Self {
                self.align_down(SZ_4K)
            }
            /// Number of that page.
            pub const fn page_number(self) -> u64 {
                self.0 >> PAGE_SHIFT
            }
            /// Offset inside the 4K page, in bytes.
            pub const fn page_offset(self) -> usize {
                (self.0 & (SZ_4K - 1)) as usize
            }
            /// The address `bytes` further on; wraps, as an address bus does.
            pub const fn add(self, bytes: u64) -> Self {
                Self(self.0.wrapping_add(bytes))
            }
            /// Distance in bytes from `base`, which is not above `self`.
            pub const fn offset_from(self, base: Self) -> u64 {
                self.0 - base.0
            }
        }

        impl core::fmt::Debug for $name {
            fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
                write!(f, concat!(stringify!($name), "({:#x})"), self.0)
            }
        }

        impl core::fmt::Display for $name {
            fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
                write!(f, "{:#x}", self.0)
            }
        }
    };
}

address!(
    /// Virtual address of the host process.
    HostVa
);
address!(
    /// Virtual address of a GPU VM.
    GpuVa
);
address!(
    /// Device physical address: VRAM of all tiles of a device in one space; 0 is never valid.
    Dpa
);
address!(
    /// Bus address of the device, translated by its IOMMU.
    Iova
);

impl GpuVa {
    /// The host address that an SVM mirror shows at this GPU address: the same number.
    pub const fn mirrored(self) -> HostVa {
        HostVa(self.0)
    }
}

impl HostVa {
    /// The GPU address at which an SVM mirror shows this host address: the same number.
    pub const fn mirror(self) -> GpuVa {
        GpuVa(self.0)
    }
}

/// What a host mm calls one 4K page of system memory: a page frame number in the simulated mm, a virtual
/// page number in the live one (which reaches memory by address). Engine and driver never look inside;
/// frames of one contiguous run have consecutive numbers.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct HostFrame(pub u64);

impl HostFrame {
    /// The frame `pages` further on in a contiguous run.
    pub const fn add(self, pages: u64) -> Self {
        Self(self.0 + pages)
    }
}
