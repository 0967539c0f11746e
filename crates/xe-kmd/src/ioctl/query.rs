//! DEVICE_QUERY: what the device is.
//!
//! Each reply is asked for twice: with size 0 for its size, then with that size for its bytes.
//!
//! Upstream: `xe_query.c`.

use sync::time::now_ns;
use units::{SZ_4K, TileId};
use xe_spec::platform::Platform;
use xe_uapi::exec::{CLASS_COMPUTE, CLASS_COPY};
use xe_uapi::query::{self, ConfigFlags, DeviceQuery, EngineClassInstance, EngineCycles, ListHead};
use zerocopy::IntoBytes;

use super::stub::missing;
use super::{Reply, exec_queue, require};
use crate::errno::Errno;
use crate::file::File;
use crate::gem::region_mask;
use crate::shared::SYSTEM_BYTES;
use crate::shared::Shared;

/// Bits of an engine's cycle counter.
const CYCLES_WIDTH: u32 = 36;
/// L3 banks, SIMD16 units and subslices of a tile: a full Ponte Vecchio tile.
const TOPOLOGY: [(u16, u64); 4] = [
    (query::TOPO_DSS_GEOMETRY, 0),
    (query::TOPO_DSS_COMPUTE, u64::MAX),
    (query::TOPO_L3_BANK, 0xffff),
    (query::TOPO_SIMD16_EU_PER_DSS, 0xff),
];

/// DEVICE_QUERY.
pub(super) fn device_query(file: &File, args: &mut DeviceQuery) -> Reply {
    require(args.extensions == 0 && args.reserved == [0; 2])?;
    let shared = &*file.shared;
    let platform = shared.platform();
    let reply = match args.query {
        query::ENGINES => engines(platform),
        query::MEM_REGIONS => mem_regions(shared),
        query::CONFIG => config(platform),
        query::GT_LIST => gt_list(platform),
        query::HWCONFIG => Vec::new(),
        query::GT_TOPOLOGY => topology(platform),
        query::ENGINE_CYCLES => return engine_cycles(file, args),
        query::OA_UNITS => query::OaUnits::default().as_bytes().to_vec(),
        query::UC_FW_VERSION => return Err(missing(file, xe_uapi::ioctl::DEVICE_QUERY, "firmware versions")),
        query::PXP_STATUS | query::EU_STALL => return Err(Errno::ENODEV),
        _ => return Err(Errno::EINVAL),
    };
    if args.size == 0 {
        args.size = reply.len() as u32;
        return Ok(0);
    }
    require(args.size as usize == reply.len())?;
    shared.copy_out(args.data, reply.as_slice())?;
    Ok(0)
}

/// A list with its head.
fn list<T: IntoBytes + zerocopy::Immutable>(entries: &[T]) -> Vec<u8> {
    let head = ListHead { num: entries.len() as u32, pad: 0 };
    [head.as_bytes(), entries.as_bytes()].concat()
}

fn tiles(platform: &Platform) -> impl Iterator<Item = u16> {
    0..platform.tiles.len() as u16
}

fn engines(platform: &Platform) -> Vec<u8> {
    let of_gt = |gt_id| {
        let class = |engine_class, count| {
            (0..count).map(move |engine_instance| EngineClassInstance { engine_class, engine_instance, gt_id, pad: 0 })
        };
        class(CLASS_COPY, platform.copy_engines).chain(class(CLASS_COMPUTE, platform.compute_engines))
    };
    let engines = tiles(platform).flat_map(of_gt);
    let engines: Vec<_> = engines.map(|instance| query::Engine { instance, reserved: [0; 3] }).collect();
    list(&engines)
}

fn mem_regions(shared: &Shared) -> Vec<u8> {
    let platform = shared.platform();
    let system = query::MemRegion {
        mem_class: query::MEM_SYSMEM,
        min_page_size: SZ_4K as u32,
        total_size: SYSTEM_BYTES,
        ..query::MemRegion::default()
    };
    let vram = tiles(platform).map(|tile| {
        let (total, used) = (platform.tiles[usize::from(tile)].vram_size, shared.vram_used(TileId(tile as u8)));
        query::MemRegion {
            mem_class: query::MEM_VRAM,
            instance: tile + 1,
            min_page_size: platform.min_vram_page() as u32,
            total_size: total,
            used,
            cpu_visible_size: total,
            cpu_visible_used: used,
            ..query::MemRegion::default()
        }
    });
    list(&std::iter::once(system).chain(vram).collect::<Vec<_>>())
}

fn config(platform: &Platform) -> Vec<u8> {
    let flags = ConfigFlags::HAS_VRAM | ConfigFlags::HAS_LOW_LATENCY | ConfigFlags::HAS_CPU_ADDR_MIRROR;
    let mut info = [0u64; query::CONFIG_WORDS];
    info[query::CONFIG_REV_AND_DEVICE_ID] = u64::from(platform.devid) | u64::from(platform.revid) << 16;
    info[query::CONFIG_FLAGS] = flags.bits();
    info[query::CONFIG_MIN_ALIGNMENT] = platform.min_vram_page();
    info[query::CONFIG_VA_BITS] = u64::from(platform.va_bits);
    info[query::CONFIG_MAX_EXEC_QUEUE_PRIORITY] = 1;
    list(&info)
}

fn gt_list(platform: &Platform) -> Vec<u8> {
    let all = u64::from(region_mask(platform));
    let gts = tiles(platform).map(|tile| {
        let near = 2u64 << tile;
        query::Gt {
            gt_type: query::GT_TYPE_MAIN,
            tile_id: tile,
            gt_id: tile,
            reference_clock: platform.reference_clock,
            near_mem_regions: near,
            far_mem_regions: all ^ near,
            ..query::Gt::default()
        }
    });
    list(&gts.collect::<Vec<_>>())
}

fn topology(platform: &Platform) -> Vec<u8> {
    let mut reply = Vec::new();
    for gt_id in tiles(platform) {
        for (mask_type, mask) in TOPOLOGY {
            let head = query::TopologyMask { gt_id, mask_type, num_bytes: 8 };
            reply.extend_from_slice(head.as_bytes());
            reply.extend_from_slice(mask.as_bytes());
        }
    }
    reply
}

/// ENGINE_CYCLES: the reference clock's count. Every CPU clock is answered with the monotonic one.
fn engine_cycles(file: &File, args: &mut DeviceQuery) -> Reply {
    const SIZE: usize = size_of::<EngineCycles>();
    if args.size == 0 {
        args.size = SIZE as u32;
        return Ok(0);
    }
    require(args.size as usize == SIZE)?;
    let asked: EngineCycles = file.shared.copy_in(args.data)?;
    exec_queue::engine_id(file.shared.platform(), &asked.eci)?;
    // MONOTONIC, MONOTONIC_RAW, REALTIME, BOOTTIME, TAI.
    require(matches!(asked.clockid, 0 | 1 | 4 | 7 | 11))?;
    let now = now_ns();
    let clock = u128::from(file.shared.platform().reference_clock);
    let cycles = (u128::from(now) * clock / 1_000_000_000) as u64 & ((1 << CYCLES_WIDTH) - 1);
    let cpu_delta = now_ns() - now;
    let reply = EngineCycles { width: CYCLES_WIDTH, engine_cycles: cycles, cpu_timestamp: now, cpu_delta, ..asked };
    file.shared.copy_out(args.data, &reply)?;
    Ok(0)
}
