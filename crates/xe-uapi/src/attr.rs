//! MADVISE and VM_QUERY_MEM_RANGE_ATTRS.

uapi! {
    /// Argument of MADVISE. The union of 16 bytes at 32 is `val`, `policy_region` and `ptr` here.
    Madvise, 64 {
        /// Zero.
        extensions: u64 = 0,
        /// GPU address.
        start: u64 = 8,
        /// Bytes.
        range: u64 = 16,
        /// VM.
        vm_id: u32 = 24,
        /// `ATTR_*`.
        attr: u32 = 28,
        /// Union: `devmem_fd`, or the attribute's value.
        val: u32 = 32,
        /// Union: migration policy in the low half and region instance in the high half, or zero.
        policy_region: u32 = 36,
        /// Union: zero, or where PURGEABLE writes 1 for "retained", 0 for "purged" (32 bits, 0 before).
        ptr: u64 = 40,
        /// Zero.
        reserved: [u64; 2] = 48,
    }
}

/// Where pages should live.
pub const ATTR_PREFERRED_LOC: u32 = 0;
/// Who does atomics.
pub const ATTR_ATOMIC: u32 = 1;
/// Cache attribute.
pub const ATTR_PAT: u32 = 2;
/// Purgeable state of BOs.
pub const ATTR_PURGEABLE: u32 = 3;

/// A BO's contents are needed.
pub const PURGEABLE_WILLNEED: u32 = 0;
/// They may go where memory is short.
pub const PURGEABLE_DONTNEED: u32 = 1;

/// `devmem_fd`: the VRAM of whichever tile faults.
pub const PREFERRED_LOC_DEFAULT_DEVICE: u32 = 0;
/// `devmem_fd`: system memory.
pub const PREFERRED_LOC_DEFAULT_SYSTEM: u32 = u32::MAX;
/// Highest migration policy.
pub const MIGRATE_ONLY_SYSTEM_PAGES: u32 = 1;

/// Nothing said.
pub const ATOMIC_UNDEFINED: u32 = 0;
/// By the device.
pub const ATOMIC_DEVICE: u32 = 1;
/// By device and CPU.
pub const ATOMIC_GLOBAL: u32 = 2;
/// By the CPU only.
pub const ATOMIC_CPU: u32 = 3;

uapi! {
    /// One entry of the reply of VM_QUERY_MEM_RANGE_ATTRS.
    MemRangeAttr, 64 {
        /// Zero.
        extensions: u64 = 0,
        /// First address.
        start: u64 = 8,
        /// First address behind.
        end: u64 = 16,
        /// Preferred location.
        devmem_fd: u32 = 24,
        /// Migration policy.
        migration_policy: u32 = 28,
        /// Atomic access.
        atomic_val: u32 = 32,
        /// Zero.
        atomic_reserved: u32 = 36,
        /// PAT index.
        pat_val: u32 = 40,
        /// Zero.
        pat_reserved: u32 = 44,
        /// Zero.
        reserved: [u64; 2] = 48,
    }
}

uapi! {
    /// Argument of VM_QUERY_MEM_RANGE_ATTRS.
    VmQueryMemRangeAttr, 64 {
        /// Zero.
        extensions: u64 = 0,
        /// VM.
        vm_id: u32 = 8,
        /// Entries: 0 asks for the number.
        num_mem_ranges: u32 = 12,
        /// GPU address.
        start: u64 = 16,
        /// Bytes.
        range: u64 = 24,
        /// Bytes of an entry.
        sizeof_mem_range_attr: u64 = 32,
        /// Pointer to the entries.
        vector_of_mem_attr: u64 = 40,
        /// Zero.
        reserved: [u64; 2] = 48,
    }
}
