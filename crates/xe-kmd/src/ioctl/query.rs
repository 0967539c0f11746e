//! DEVICE_QUERY: what the device is.
//!
//! Each reply is asked for twice: with size 0 for its size, then with that size for its bytes.
//!
//! Upstream: `xe_query.c`.

use sync::time::{Clock, now_ns, now_ns_of};
use units::{SZ_4K, TileId};
use xe_spec::platform::{Platform, Shaders};
use xe_uapi::query::{self, ConfigFlags, DeviceQuery, EngineClassInstance, EngineCycles, ListHead, UcFwVersion};
use zerocopy::IntoBytes;

use super::{Reply, exec_queue, require};
use crate::bo::region_mask;
use crate::errno::Errno;
use crate::file::File;
use crate::shared::Shared;

/// The interface of job submission that the model has the behaviour of.
const SUBMISSION_VERSION: (u32, u32, u32) = (1, 15, 0);

/// DEVICE_QUERY.
pub(super) fn device_query(file: &File, args: &mut DeviceQuery) -> Reply {
    require(args.extensions == 0 && args.reserved == [0; 2])?;
    let shared = &*file.shared;
    let platform = shared.platform();
    let reply = match args.query {
        query::ENGINES => engines(platform),
        query::MEM_REGIONS => mem_regions(shared),
        query::CONFIG => config(platform, exec_queue::max_priority(file)),
        query::GT_LIST => gt_list(platform),
        query::HWCONFIG => hwconfig(platform),
        query::GT_TOPOLOGY => topology(platform),
        query::ENGINE_CYCLES => return engine_cycles(file, args),
        query::OA_UNITS => query::OaUnits::default().as_bytes().to_vec(),
        query::UC_FW_VERSION => return firmware_version(file, args),
        query::PXP_STATUS if args.size == 0 => {
            args.size = query::PXP_STATUS_BYTES;
            return Ok(0);
        }
        query::PXP_STATUS if args.size != query::PXP_STATUS_BYTES => return Err(Errno::EINVAL),
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
        platform.engines().map(move |(class, engine_instance)| EngineClassInstance {
            engine_class: exec_queue::uapi_class(class),
            engine_instance,
            gt_id,
            pad: 0,
        })
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
        total_size: shared.system.size(),
        used: shared.system.used(),
        ..query::MemRegion::default()
    };
    let vram = (0..platform.vram_tiles() as u16).map(|tile| {
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

fn config(platform: &Platform, max_priority: u64) -> Vec<u8> {
    let mut flags = ConfigFlags::HAS_LOW_LATENCY
        | ConfigFlags::HAS_CPU_ADDR_MIRROR
        | ConfigFlags::HAS_DISABLE_STATE_CACHE_PERF_FIX
        | ConfigFlags::HAS_PURGING_SUPPORT;
    flags.set(ConfigFlags::HAS_VRAM, platform.has_vram());
    flags.set(ConfigFlags::HAS_NO_COMPRESSION_HINT, platform.compresses);
    let mut info = [0u64; query::CONFIG_WORDS];
    info[query::CONFIG_REV_AND_DEVICE_ID] = u64::from(platform.devid) | u64::from(platform.revid) << 16;
    info[query::CONFIG_FLAGS] = flags.bits();
    info[query::CONFIG_MIN_ALIGNMENT] = platform.min_vram_page();
    info[query::CONFIG_VA_BITS] = u64::from(platform.va_bits);
    info[query::CONFIG_MAX_EXEC_QUEUE_PRIORITY] = max_priority;
    list(&info)
}

fn gt_list(platform: &Platform) -> Vec<u8> {
    let all = u64::from(region_mask(platform));
    let gts = tiles(platform).map(|tile| {
        let near = if platform.has_vram() { 2u64 << tile } else { 1 };
        let (ip_ver_major, ip_ver_minor, ip_ver_rev) = platform.gmd_id.unwrap_or_default();
        query::Gt {
            ip_ver_major,
            ip_ver_minor,
            ip_ver_rev,
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
    let Shaders { geometry, compute, l3_banks, units, .. } = platform.shaders;
    let masks = [
        (query::TOPO_DSS_GEOMETRY, geometry),
        (query::TOPO_DSS_COMPUTE, compute),
        (query::TOPO_L3_BANK, l3_banks),
        (query::TOPO_SIMD16_EU_PER_DSS, units),
    ];
    for gt_id in tiles(platform) {
        for (mask_type, mask) in masks {
            let head = query::TopologyMask { gt_id, mask_type, num_bytes: 8 };
            reply.extend_from_slice(head.as_bytes());
            reply.extend_from_slice(mask.as_bytes());
        }
    }
    reply
}

/// What the firmware would tell of a tile's shaders and engines, as far as the model has it: it agrees with [`topology`].
fn hwconfig(platform: &Platform) -> Vec<u8> {
    use query::hwconfig as key;
    let Shaders { compute, units, slices, threads, .. } = platform.shaders;
    let facts = [
        (key::MAX_SLICES, slices),
        (key::MAX_DUAL_SUBSLICES, compute.count_ones()),
        (key::MAX_EU_PER_DSS, units.count_ones()),
        (key::THREADS_PER_EU, threads),
        (key::MAX_RCS, platform.render_engines.into()),
        (key::MAX_CCS, platform.compute_engines.into()),
    ];
    facts.iter().flat_map(|&(key, value)| [key, 1, value]).flat_map(u32::to_le_bytes).collect()
}

/// UC_FW_VERSION: of the interface that submits jobs. There are no video engines, and no firmware for them.
fn firmware_version(file: &File, args: &mut DeviceQuery) -> Reply {
    const SIZE: usize = size_of::<UcFwVersion>();
    if args.size == 0 {
        args.size = SIZE as u32;
        return Ok(0);
    }
    require(args.size as usize == SIZE)?;
    let asked: UcFwVersion = file.shared.copy_in(args.data)?;
    require(asked.pad == 0 && asked.pad2 == 0 && asked.reserved == 0)?;
    match asked.uc_type {
        query::UC_TYPE_GUC_SUBMISSION => {}
        query::UC_TYPE_HUC => return Err(Errno::ENODEV),
        _ => return Err(Errno::EINVAL),
    }
    let (major_ver, minor_ver, patch_ver) = SUBMISSION_VERSION;
    let reply = UcFwVersion { branch_ver: 0, major_ver, minor_ver, patch_ver, ..asked };
    file.shared.copy_out(args.data, &reply)?;
    Ok(0)
}

/// ENGINE_CYCLES: the reference clock's count, which all engines share, and a CPU clock beside it.
fn engine_cycles(file: &File, args: &mut DeviceQuery) -> Reply {
    const SIZE: usize = size_of::<EngineCycles>();
    if args.size == 0 {
        args.size = SIZE as u32;
        return Ok(0);
    }
    require(args.size as usize == SIZE)?;
    let asked: EngineCycles = file.shared.copy_in(args.data)?;
    let platform = file.shared.platform();
    exec_queue::engine_id(platform, &asked.eci)?;
    let clock = match asked.clockid {
        0 => Clock::Realtime,
        1 => Clock::Monotonic,
        4 => Clock::MonotonicRaw,
        7 => Clock::Boottime,
        11 => Clock::Tai,
        _ => return Err(Errno::EINVAL),
    };
    let cpu_timestamp = now_ns_of(clock);
    let now = now_ns();
    let cpu_delta = now_ns_of(clock).saturating_sub(cpu_timestamp);
    let (width, engine_cycles) = (platform.timestamp_bits, platform.timestamp(now));
    let reply = EngineCycles { width, engine_cycles, cpu_timestamp, cpu_delta, ..asked };
    file.shared.copy_out(args.data, &reply)?;
    Ok(0)
}
