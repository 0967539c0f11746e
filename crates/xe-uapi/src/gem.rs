//! GEM_CREATE and GEM_MMAP_OFFSET.

uapi! {
    /// Argument of GEM_CREATE.
    GemCreate, 56 {
        /// Chain of extensions; 0: none.
        extensions: u64 = 0,
        /// Bytes.
        size: u64 = 8,
        /// Mask of regions it may live in.
        placement: u32 = 16,
        /// [`GemFlags`].
        flags: u32 = 20,
        /// VM that alone may map it; 0: any.
        vm_id: u32 = 24,
        /// The new BO.
        handle: u32 = 28,
        /// [`CACHING_WB`] or [`CACHING_WC`].
        cpu_caching: u16 = 32,
        /// Zero.
        pad: [u16; 3] = 34,
        /// Zero.
        reserved: [u64; 2] = 40,
    }
}

bitflags::bitflags! {
    /// Flags of GEM_CREATE.
    #[derive(Clone, Copy, PartialEq, Eq, Debug)]
    pub struct GemFlags: u32 {
        /// Memory is taken at the first use.
        const DEFER_BACKING = 1;
        /// For a display.
        const SCANOUT = 2;
        /// In VRAM that the CPU can map.
        const NEEDS_VISIBLE_VRAM = 4;
        /// Never compressed.
        const NO_COMPRESSION = 8;
    }
}

/// The only property that an extension sets: protected content.
pub const PROPERTY_PXP_TYPE: u32 = 0;

/// The CPU maps it write-back.
pub const CACHING_WB: u16 = 1;
/// The CPU maps it write-combined.
pub const CACHING_WC: u16 = 2;

uapi! {
    /// Argument of GEM_MMAP_OFFSET.
    GemMmapOffset, 40 {
        /// Zero.
        extensions: u64 = 0,
        /// BO.
        handle: u32 = 8,
        /// [`MMAP_OFFSET_PCI_BARRIER`].
        flags: u32 = 12,
        /// Offset to mmap the device file at.
        offset: u64 = 16,
        /// Zero.
        reserved: [u64; 2] = 24,
    }
}

/// Not a BO: the page whose writes order the device's view.
pub const MMAP_OFFSET_PCI_BARRIER: u32 = 1;
/// Offset of that page.
pub const PCI_BARRIER_OFFSET: u64 = 0x50000;
