//! A device without VRAM: what it says of itself, what it refuses, and that nothing migrates.

use super::bos::map;
use super::*;
use crate::Rules;
use xe_spec::platform::LUNAR_LAKE;

const AT: u64 = 0x10_0000_0000;
const WB: u16 = LUNAR_LAKE.pat.wb as u16;
/// An entry that does not look into the caches of the CPU.
const UNCACHED: u16 = 3;

fn rig() -> Rig {
    Rig::with(&LUNAR_LAKE, Rules::default())
}

fn mirror(rig: &Rig, pat_index: u16) -> (u32, Result<u32, Errno>) {
    let vm = fault_vm(rig);
    (vm, bind(rig, vm, VmBindOp { range: 1 << LUNAR_LAKE.va_bits, pat_index, ..mirror_op() }))
}

fn query_words(rig: &Rig, query: u32) -> Vec<u64> {
    let mut args = DeviceQuery { query, data: USER, ..Default::default() };
    assert_eq!(rig.ioctl(nr::DEVICE_QUERY, &mut args), OK);
    assert_eq!(rig.ioctl(nr::DEVICE_QUERY, &mut args), OK);
    (0..u64::from(args.size) / 8).map(|n| rig.get(USER + 8 * n)).collect()
}

#[test]
fn it_says_that_system_memory_is_all_there_is() {
    let rig = rig();
    let regions = query_words(&rig, query::MEM_REGIONS);
    assert_eq!((regions[0], regions.len()), (1, 1 + size_of::<query::MemRegion>() / 8));
    let flags = query_words(&rig, query::CONFIG)[1 + query::CONFIG_FLAGS];
    assert_eq!(flags & ConfigFlags::HAS_VRAM.bits(), 0);
    let mut args = GemCreate { size: SZ_64K, placement: 2, cpu_caching: CACHING_WC, ..Default::default() };
    assert_eq!(rig.ioctl(nr::GEM_CREATE, &mut args), EINVAL);
    let mut args = GemMmapOffset { flags: MMAP_OFFSET_PCI_BARRIER, ..Default::default() };
    assert_eq!(rig.ioctl(nr::GEM_MMAP_OFFSET, &mut args), EINVAL);
    let mut args = drm::CreateDumb { width: 64, height: 64, bpp: 32, ..Default::default() };
    assert_eq!((rig.ioctl(nr::MODE_CREATE_DUMB, &mut args), rig.device.vram_used(TileId(0))), (OK, 0));
    assert_eq!(rig.device.pagemaps().iter().count(), 0);
}

#[test]
fn every_access_is_served_where_the_memory_is() {
    let rig = rig();
    let (vm, bound) = mirror(&rig, WB);
    let asid = rig.file.vm(vm).unwrap().asid;
    mapped(&rig, DATA, SZ_2M);
    assert_eq!(bound, OK);
    for access in [Access::Read, Access::Write, Access::Atomic] {
        assert_eq!(rig.fault(0, asid, DATA, access), FaultAck::Replay, "{access:?}");
    }
    let (_, leaf) = rig.hw.walk(TileId(0), asid, GpuVa(DATA)).expect("a leaf");
    assert!(!leaf.device && leaf.atomic && rig.mm.home(DATA).is_none());
    let prefetch = |region| {
        let op = VmBindOp { op: BIND_OP_PREFETCH, flags: 0, pat_index: WB, ..map(0, DATA, SZ_64K) };
        bind(&rig, vm, VmBindOp { prefetch_mem_region_instance: region, ..op })
    };
    assert_eq!([0, CONSULT_MEM_ADVISE_PREF_LOC, 1].map(prefetch), [OK, OK, EINVAL]);
    let mut advice =
        Madvise { vm_id: vm, start: DATA, range: SZ_64K, attr: ATTR_ATOMIC, val: ATOMIC_CPU, ..Default::default() };
    assert_eq!(rig.ioctl(nr::MADVISE, &mut advice), OK);
    assert_eq!((rig.fault(0, asid, DATA, Access::Atomic), refusal(&rig)), (FaultAck::Kill, Some(Errno::EACCES)));
}

/// Past the caches of the CPU the device would read what was there before.
#[test]
fn what_the_cpu_caches_is_mapped_coherently_only() {
    let rig = rig();
    assert_eq!(mirror(&rig, UNCACHED).1, EINVAL);
    let (vm, bound) = mirror(&rig, WB);
    assert_eq!(bound, OK);
    let bo = |cpu_caching| {
        let mut args = GemCreate { size: SZ_64K, placement: 1, cpu_caching, ..Default::default() };
        assert_eq!(rig.ioctl(nr::GEM_CREATE, &mut args), OK);
        args.handle
    };
    let [cached, combined] = [CACHING_WB, CACHING_WC].map(bo);
    for (n, bo) in [cached, combined].into_iter().enumerate() {
        let op = VmBindOp { pat_index: WB, ..map(bo, AT + n as u64 * SZ_2M, SZ_64K) };
        assert_eq!(bind(&rig, vm, op), OK);
    }
    let advise = |start, val: u16| {
        let (range, val) = (SZ_64K, val.into());
        let mut args = Madvise { vm_id: vm, start, range, attr: ATTR_PAT, val, ..Default::default() };
        rig.ioctl(nr::MADVISE, &mut args)
    };
    assert_eq!([DATA, AT, AT + SZ_2M].map(|at| advise(at, UNCACHED)), [EINVAL, EINVAL, OK]);
    assert_eq!([DATA, AT].map(|at| advise(at, WB)), [OK; 2]);
}
