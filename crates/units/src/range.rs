//! Half-open ranges `[start, end)` of one address space.

use crate::{Dpa, GpuVa, HostVa, PAGE_SHIFT};

/// Half-open range `[start, end)` of addresses of kind `A`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct AddrRange<A> {
    /// First address.
    pub start: A,
    /// First address behind.
    pub end: A,
}

/// A range of host virtual addresses.
pub type HostRange = AddrRange<HostVa>;
/// A range of GPU virtual addresses.
pub type GpuRange = AddrRange<GpuVa>;
/// A range of device physical addresses.
pub type DpaRange = AddrRange<Dpa>;

macro_rules! range_of {
    ($addr:ident) => {
        impl AddrRange<$addr> {
            /// The range `[start, end)`; empty where `end` is not above `start`.
            pub const fn new(start: $addr, end: $addr) -> Self {
                Self { start, end }
            }
            /// The range of `bytes` bytes from `start`.
            pub const fn sized(start: $addr, bytes: u64) -> Self {
                Self { start, end: start.add(bytes) }
            }
            /// The naturally aligned block of `size` bytes (a power of two) around `addr`.
            pub const fn around(addr: $addr, size: u64) -> Self {
                Self::sized(addr.align_down(size), size)
            }
            /// Length in bytes.
            pub const fn len(self) -> u64 {
                self.end.0.saturating_sub(self.start.0)
            }
            /// Whether no address lies in it.
            pub const fn is_empty(self) -> bool {
                self.end.0 <= self.start.0
            }
            /// Length in whole 4K pages.
            pub const fn pages(self) -> usize {
                (self.len() >> PAGE_SHIFT) as usize
            }
            /// Whether `addr` lies in it.
            pub const fn contains(self, addr: $addr) -> bool {
                self.start.0 <= addr.0 && addr.0 < self.end.0
            }
            /// Whether all of `inner` lies in it.
            pub const fn covers(self, inner: Self) -> bool {
                self.start.0 <= inner.start.0 && inner.end.0 <= self.end.0
            }
            /// Whether the two share an address.
            pub const fn overlaps(self, other: Self) -> bool {
                self.start.0 < other.end.0 && other.start.0 < self.end.0
            }
            /// What the two share; `None` where that is nothing.
            pub fn intersect(self, other: Self) -> Option<Self> {
                let both = Self::new(self.start.max(other.start), self.end.min(other.end));
                (!both.is_empty()).then_some(both)
            }
            /// What is left of it without `cut`: the part before and the part behind, as far as there are such.
            pub fn without(self, cut: Self) -> impl Iterator<Item = Self> {
                let before = Self::new(self.start, self.end.min(cut.start).max(self.start));
                let behind = Self::new(self.start.max(cut.end).min(self.end), self.end);
                [before, behind].into_iter().filter(|part| !part.is_empty())
            }
            /// Index of the 4K page of `addr`, counted from `start`.
            pub const fn page_index(self, addr: $addr) -> usize {
                (addr.offset_from(self.start) >> PAGE_SHIFT) as usize
            }
            /// Address of page `index`, counted from `start`.
            pub const fn page_at(self, index: usize) -> $addr {
                self.start.add((index as u64) << PAGE_SHIFT)
            }
        }

        impl core::fmt::Display for AddrRange<$addr> {
            fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
                write!(f, "[{:#x},{:#x})", self.start.0, self.end.0)
            }
        }
    };
}

range_of!(HostVa);
range_of!(GpuVa);
range_of!(Dpa);

impl GpuRange {
    /// The host range that an SVM mirror shows here: the same numbers.
    pub const fn mirrored(self) -> HostRange {
        HostRange::new(self.start.mirrored(), self.end.mirrored())
    }
}

impl HostRange {
    /// The GPU range at which an SVM mirror shows this: the same numbers.
    pub const fn mirror(self) -> GpuRange {
        GpuRange::new(self.start.mirror(), self.end.mirror())
    }
}
