//! VM_CREATE, VM_DESTROY, VM_BIND.

uapi! {
    /// Argument of VM_CREATE.
    VmCreate, 32 {
        /// Zero.
        extensions: u64 = 0,
        /// [`CreateFlags`].
        flags: u32 = 8,
        /// The new VM.
        vm_id: u32 = 12,
        /// Zero.
        reserved: [u64; 2] = 16,
    }
}

bitflags::bitflags! {
    /// Flags of VM_CREATE.
    #[derive(Clone, Copy, PartialEq, Eq, Debug)]
    pub struct CreateFlags: u32 {
        /// Unmapped addresses read and swallow.
        const SCRATCH_PAGE = 1;
        /// Long-running: no dma-fences.
        const LR_MODE = 2;
        /// Faults are served.
        const FAULT_MODE = 4;
        /// Never bind more than there is memory.
        const NO_VM_OVERCOMMIT = 8;
    }
}

uapi! {
    /// Argument of VM_DESTROY.
    VmDestroy, 24 {
        /// Which.
        vm_id: u32 = 0,
        /// Zero.
        pad: u32 = 4,
        /// Zero.
        reserved: [u64; 2] = 8,
    }
}

uapi! {
    /// One bind.
    VmBindOp, 80 {
        /// Zero.
        extensions: u64 = 0,
        /// BO handle.
        obj: u32 = 8,
        /// PAT index of the mapping.
        pat_index: u16 = 12,
        /// Zero.
        pad: u16 = 14,
        /// Union: offset in the BO, or the user pointer, or the mirrored CPU address.
        obj_offset: u64 = 16,
        /// Bytes.
        range: u64 = 24,
        /// GPU address.
        addr: u64 = 32,
        /// `BIND_OP_*`.
        op: u32 = 40,
        /// [`BindFlags`].
        flags: u32 = 44,
        /// Region to prefetch to.
        prefetch_mem_region_instance: u32 = 48,
        /// Zero.
        pad2: u32 = 52,
        /// Zero.
        reserved: [u64; 3] = 56,
    }
}

uapi! {
    /// Argument of VM_BIND.
    VmBind, 136 {
        /// Zero.
        extensions: u64 = 0,
        /// VM.
        vm_id: u32 = 8,
        /// Bind queue; 0: the VM's own.
        exec_queue_id: u32 = 12,
        /// Zero.
        pad: u32 = 16,
        /// Number of binds.
        num_binds: u32 = 20,
        /// Union: the one bind or, with more than one, a pointer to them (see [`VmBind::vector_of_binds`]).
        bind: VmBindOp = 24,
        /// Zero.
        pad2: u32 = 104,
        /// Number of syncs.
        num_syncs: u32 = 108,
        /// Pointer to the syncs.
        syncs: u64 = 112,
        /// Zero.
        reserved: [u64; 2] = 120,
    }
}

impl VmBind {
    /// The pointer member of the union.
    pub const fn vector_of_binds(&self) -> u64 {
        self.bind.extensions
    }
}

/// Map a BO, NULL, or the CPU's addresses.
pub const BIND_OP_MAP: u32 = 0;
/// Unmap a span.
pub const BIND_OP_UNMAP: u32 = 1;
/// Map user memory at another address.
pub const BIND_OP_MAP_USERPTR: u32 = 2;
/// Unmap all of a BO.
pub const BIND_OP_UNMAP_ALL: u32 = 3;
/// Migrate and bind ahead of a fault.
pub const BIND_OP_PREFETCH: u32 = 4;
/// Prefetch region: what MADVISE said.
pub const CONSULT_MEM_ADVISE_PREF_LOC: u32 = u32::MAX;

bitflags::bitflags! {
    /// Flags of a bind.
    #[derive(Clone, Copy, PartialEq, Eq, Debug)]
    pub struct BindFlags: u32 {
        /// The GPU may not write.
        const READONLY = 1;
        /// Write page tables now, even in a fault VM.
        const IMMEDIATE = 2;
        /// Reads give zero, writes are dropped.
        const NULL = 4;
        /// Part of a core dump.
        const DUMPABLE = 8;
        /// Check the BO's protected-content key.
        const CHECK_PXP = 0x10;
        /// Mirror the CPU's addresses.
        const CPU_ADDR_MIRROR = 0x20;
        /// Attributes go back to their defaults when the CPU unmaps.
        const MADVISE_AUTORESET = 0x40;
        /// Decompress the BO.
        const DECOMPRESS = 0x80;
    }
}

/// Syncs an ioctl may carry.
pub const MAX_SYNCS: u32 = 1024;

uapi! {
    /// Argument of VM_GET_PROPERTY.
    VmGetProperty, 56 {
        /// Zero.
        extensions: u64 = 0,
        /// VM.
        vm_id: u32 = 8,
        /// [`PROPERTY_FAULTS`].
        property: u32 = 12,
        /// Bytes of the reply; 0 asks for them.
        size: u32 = 16,
        /// Zero.
        pad: u32 = 20,
        /// Union: pointer to the reply, or the value.
        data: u64 = 24,
        /// Zero.
        reserved: [u64; 3] = 32,
    }
}

/// Property of VM_GET_PROPERTY: faults that were refused.
pub const PROPERTY_FAULTS: u32 = 0;

uapi! {
    /// A fault that was refused.
    VmFault, 48 {
        /// Address.
        address: u64 = 0,
        /// Bytes that the address is exact to.
        address_precision: u32 = 8,
        /// Read 0, write 1, atomic 2.
        access_type: u8 = 12,
        /// Not present 0, write violation 1, atomic violation 2.
        fault_type: u8 = 13,
        /// Level of the table at which the walk ended.
        fault_level: u8 = 14,
        /// Zero.
        pad: u8 = 15,
        /// Zero.
        reserved: [u64; 4] = 16,
    }
}
