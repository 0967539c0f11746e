//! DEVICE_QUERY and its replies.

uapi! {
    /// Argument of DEVICE_QUERY. With size 0 the reply's size is returned; else `size` must equal it.
    DeviceQuery, 40 {
        /// Zero.
        extensions: u64 = 0,
        /// What is asked ([`ENGINES`] and so on).
        query: u32 = 8,
        /// Size of the reply.
        size: u32 = 12,
        /// Where it goes.
        data: u64 = 16,
        /// Zero.
        reserved: [u64; 2] = 24,
    }
}

/// Engines of all GTs.
pub const ENGINES: u32 = 0;
/// Memory regions.
pub const MEM_REGIONS: u32 = 1;
/// Configuration words.
pub const CONFIG: u32 = 2;
/// GTs.
pub const GT_LIST: u32 = 3;
/// Firmware's table of hardware facts.
pub const HWCONFIG: u32 = 4;
/// Topology masks.
pub const GT_TOPOLOGY: u32 = 5;
/// An engine's cycle counter, beside a CPU clock.
pub const ENGINE_CYCLES: u32 = 6;
/// Firmware versions.
pub const UC_FW_VERSION: u32 = 7;
/// Observation units.
pub const OA_UNITS: u32 = 8;
/// Protected content status.
pub const PXP_STATUS: u32 = 9;
/// EU stall sampling.
pub const EU_STALL: u32 = 10;

uapi! {
    /// Head of a reply that is a list: how many follow.
    ListHead, 8 {
        /// Number of entries.
        num: u32 = 0,
        /// Zero.
        pad: u32 = 4,
    }
}

uapi! {
    /// Names an engine.
    EngineClassInstance, 8 {
        /// Class ([`crate::exec::CLASS_COPY`] and so on).
        engine_class: u16 = 0,
        /// Instance of the class in its GT.
        engine_instance: u16 = 2,
        /// GT.
        gt_id: u16 = 4,
        /// Zero.
        pad: u16 = 6,
    }
}

uapi! {
    /// One engine of the ENGINES reply.
    Engine, 32 {
        /// Which.
        instance: EngineClassInstance = 0,
        /// Zero.
        reserved: [u64; 3] = 8,
    }
}

uapi! {
    /// One region of the MEM_REGIONS reply.
    MemRegion, 88 {
        /// [`MEM_SYSMEM`] or [`MEM_VRAM`].
        mem_class: u16 = 0,
        /// Instance: bit number in placement masks.
        instance: u16 = 2,
        /// Smallest page.
        min_page_size: u32 = 4,
        /// Bytes.
        total_size: u64 = 8,
        /// Bytes in use.
        used: u64 = 16,
        /// Bytes that the CPU can map.
        cpu_visible_size: u64 = 24,
        /// Of these, in use.
        cpu_visible_used: u64 = 32,
        /// Zero.
        reserved: [u64; 6] = 40,
    }
}

/// System memory.
pub const MEM_SYSMEM: u16 = 0;
/// Device memory.
pub const MEM_VRAM: u16 = 1;

/// Word of the CONFIG reply: device id, revision in bits 31:16.
pub const CONFIG_REV_AND_DEVICE_ID: usize = 0;
/// Word of the CONFIG reply: flags.
pub const CONFIG_FLAGS: usize = 1;
/// Word of the CONFIG reply: smallest alignment of binds.
pub const CONFIG_MIN_ALIGNMENT: usize = 2;
/// Word of the CONFIG reply: bits of a virtual address.
pub const CONFIG_VA_BITS: usize = 3;
/// Word of the CONFIG reply: highest queue priority.
pub const CONFIG_MAX_EXEC_QUEUE_PRIORITY: usize = 4;
/// Words of the CONFIG reply.
pub const CONFIG_WORDS: usize = 5;

bitflags::bitflags! {
    /// Flags of the CONFIG reply.
    #[derive(Clone, Copy, PartialEq, Eq, Debug)]
    pub struct ConfigFlags: u64 {
        /// The device has VRAM.
        const HAS_VRAM = 1;
        /// Queues may ask for low latency.
        const HAS_LOW_LATENCY = 2;
        /// A VM can mirror the CPU's addresses.
        const HAS_CPU_ADDR_MIRROR = 4;
        /// A BO may ask not to be compressed.
        const HAS_NO_COMPRESSION_HINT = 8;
        /// Queues may do without a fix of the state cache.
        const HAS_DISABLE_STATE_CACHE_PERF_FIX = 0x10;
        /// MADVISE knows of BOs whose contents are not needed.
        const HAS_PURGING_SUPPORT = 0x20;
    }
}

uapi! {
    /// One GT of the GT_LIST reply.
    Gt, 96 {
        /// [`GT_TYPE_MAIN`] or media.
        gt_type: u16 = 0,
        /// Tile.
        tile_id: u16 = 2,
        /// GT.
        gt_id: u16 = 4,
        /// Zero.
        pad: [u16; 3] = 6,
        /// Frequency of its timestamps, Hz.
        reference_clock: u32 = 12,
        /// Mask of memory regions that are near.
        near_mem_regions: u64 = 16,
        /// Mask of memory regions that are far.
        far_mem_regions: u64 = 24,
        /// Graphics IP version.
        ip_ver_major: u16 = 32,
        /// Minor.
        ip_ver_minor: u16 = 34,
        /// Revision.
        ip_ver_rev: u16 = 36,
        /// Zero.
        pad2: u16 = 38,
        /// Zero.
        reserved: [u64; 7] = 40,
    }
}

/// A GT with render, copy and compute engines.
pub const GT_TYPE_MAIN: u16 = 0;

uapi! {
    /// Head of one mask of the GT_TOPOLOGY reply; `num_bytes` of mask follow.
    TopologyMask, 8 {
        /// GT.
        gt_id: u16 = 0,
        /// [`TOPO_DSS_COMPUTE`] and so on.
        mask_type: u16 = 2,
        /// Bytes of the mask.
        num_bytes: u32 = 4,
    }
}

/// Dual subslices for geometry.
pub const TOPO_DSS_GEOMETRY: u16 = 1;
/// Dual subslices for compute.
pub const TOPO_DSS_COMPUTE: u16 = 2;
/// L3 banks.
pub const TOPO_L3_BANK: u16 = 3;
/// Execution units of a dual subslice, SIMD8.
pub const TOPO_EU_PER_DSS: u16 = 4;
/// Execution units of a dual subslice, SIMD16.
pub const TOPO_SIMD16_EU_PER_DSS: u16 = 5;

uapi! {
    /// Reply of ENGINE_CYCLES; the first two fields are its question.
    EngineCycles, 40 {
        /// Engine.
        eci: EngineClassInstance = 0,
        /// CPU clock to read beside.
        clockid: i32 = 8,
        /// Bits of the counter.
        width: u32 = 12,
        /// The counter.
        engine_cycles: u64 = 16,
        /// CPU clock at the reading, nanoseconds.
        cpu_timestamp: u64 = 24,
        /// How long the reading took, nanoseconds.
        cpu_delta: u64 = 32,
    }
}

uapi! {
    /// Argument and reply of UC_FW_VERSION.
    UcFwVersion, 32 {
        /// `UC_TYPE_*`.
        uc_type: u16 = 0,
        /// Zero.
        pad: u16 = 2,
        /// Branch.
        branch_ver: u32 = 4,
        /// Version.
        major_ver: u32 = 8,
        /// Version.
        minor_ver: u32 = 12,
        /// Version.
        patch_ver: u32 = 16,
        /// Zero.
        pad2: u32 = 20,
        /// Zero.
        reserved: u64 = 24,
    }
}

/// Firmware: the interface by which jobs are submitted.
pub const UC_TYPE_GUC_SUBMISSION: u16 = 0;
/// Firmware of the video engines.
pub const UC_TYPE_HUC: u16 = 1;

/// Bytes of the reply of PXP_STATUS.
pub const PXP_STATUS_BYTES: u32 = 8;

/// Keys of HWCONFIG, a list of (key, number of dwords, dwords).
pub mod hwconfig {
    /// Slices.
    pub const MAX_SLICES: u32 = 1;
    /// Subslices.
    pub const MAX_DUAL_SUBSLICES: u32 = 2;
    /// Execution units a subslice.
    pub const MAX_EU_PER_DSS: u32 = 3;
    /// Threads an execution unit.
    pub const THREADS_PER_EU: u32 = 15;
    /// Render engines.
    pub const MAX_RCS: u32 = 23;
    /// Compute engines.
    pub const MAX_CCS: u32 = 24;
}

uapi! {
    /// Reply of OA_UNITS, without units.
    OaUnits, 8 {
        /// Number of units.
        num_oa_units: u32 = 0,
        /// Zero.
        pad: u32 = 4,
    }
}

uapi! {
    /// Argument of OBSERVATION.
    Observation, 32 {
        /// Zero.
        extensions: u64 = 0,
        /// [`OBSERVATION_OA`] or [`OBSERVATION_EU_STALL`].
        observation_type: u64 = 8,
        /// 0 opens a stream; 1 and 2 add and remove a configuration.
        observation_op: u64 = 16,
        /// What the operation is given.
        param: u64 = 24,
    }
}

/// Counters of the whole device.
pub const OBSERVATION_OA: u64 = 0;
/// What execution units wait for.
pub const OBSERVATION_EU_STALL: u64 = 1;
