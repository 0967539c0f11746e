//! Faults, migrations and the way back, on a recorded device and the simulated mm.

use hostmm::PagemapId;
use units::{GpuRange, GpuVa, HostRange, HostVa, Outcome, SZ_2M, SZ_4K, SZ_64K, TileId};
use xe_spec::fault::{Access, Asid, FaultAck, FaultRecord};
use xe_spec::platform::{PVC, Platform, Reach, Tile};
use xe_spec::pte::Leaf;
use xe_uapi::ioctl as nr;
use xe_uapi::vm::{BIND_OP_PREFETCH, BindFlags, VmBind, VmBindOp, VmCreate, VmDestroy};

use crate::event::Event;
use crate::testing::{self, Copied, Rig};
use crate::{Rules, planted, upstream};

mod garbage;
mod parallel;
mod races;
mod tiles;
mod unfit;

const DATA: u64 = 0x7f00_0000_0000;
const T0: Option<PagemapId> = Some(testing::pagemap(0));
const T1: Option<PagemapId> = Some(testing::pagemap(1));

/// A VM that mirrors everything, and `bytes` of memory at [`DATA`].
fn start(rig: &Rig, bytes: u64) -> Asid {
    rig.mm.mmap(HostRange::sized(HostVa(DATA), bytes));
    mirror(rig)
}

/// A VM that mirrors everything.
fn mirror(rig: &Rig) -> Asid {
    mirror_with(rig, BindFlags::empty()).1
}

/// The same, bound with more flags; its handle, too.
fn mirror_with(rig: &Rig, flags: BindFlags) -> (u32, Asid) {
    let mut args = VmCreate { flags: 6, ..Default::default() };
    assert_eq!(rig.ioctl(nr::VM_CREATE, &mut args), Ok(0));
    let flags = (BindFlags::CPU_ADDR_MIRROR | flags).bits();
    let bind = VmBindOp { range: 1 << 57, flags, pat_index: 3, ..Default::default() };
    let mut bind = VmBind { vm_id: args.vm_id, num_binds: 1, bind, ..Default::default() };
    assert_eq!(rig.ioctl(nr::VM_BIND, &mut bind), Ok(0));
    (args.vm_id, rig.file.vm(args.vm_id).unwrap().asid)
}

fn pagemap(rig: &Rig, va: u64) -> Option<PagemapId> {
    rig.mm.home(va).map(|page| page.pagemap)
}

fn leaf(rig: &Rig, tile: u8, asid: Asid, va: u64) -> Option<(u8, Leaf)> {
    rig.hw.walk(TileId(tile), asid, GpuVa(va))
}

/// Every leaf of every tile leads to where the page is.
fn check_leaves(rig: &Rig, asid: Asid, bytes: u64) {
    for va in (DATA..DATA + bytes).step_by(SZ_4K as usize) {
        for tile in 0..2 {
            let Some((level, leaf)) = leaf(rig, tile, asid, va) else { continue };
            let addr = leaf.addr + va % if level == 1 { SZ_2M } else { SZ_4K };
            match rig.mm.home(va) {
                Some(page) => {
                    let base = PVC.tiles[page.pagemap.index() - testing::pagemap(0).index()].vram_base;
                    assert_eq!((addr, leaf.device), (base.0 + (page.frame << 12), true), "{va:#x}");
                    assert!(level == 1 || leaf.ps64, "{va:#x}");
                }
                None => assert!(!leaf.device && rig.hw.dma_reaches(addr), "{va:#x}"),
            }
        }
    }
}

#[test]
fn a_fault_brings_pages_to_the_faulting_tile() {
    let rig = Rig::new();
    let asid = start(&rig, SZ_2M + SZ_64K);
    assert_eq!(rig.fault(0, asid, DATA + 0x1234, Access::Write), FaultAck::Replay);
    assert_eq!(rig.fault(1, asid, DATA + SZ_2M, Access::Read), FaultAck::Replay);
    assert_eq!((pagemap(&rig, DATA), pagemap(&rig, DATA + SZ_2M)), (T0, T1));
    let (level, large) = leaf(&rig, 0, asid, DATA).unwrap();
    assert!(level == 1 && large.device && large.write && large.atomic);
    let (level, small) = leaf(&rig, 1, asid, DATA + SZ_2M).unwrap();
    assert!(level == 0 && small.device && small.ps64 && small.atomic);
    assert_eq!([0, 1].map(|tile| rig.device.vram_used(TileId(tile))), [SZ_2M, SZ_64K]);
    check_leaves(&rig, asid, SZ_2M + SZ_64K);
    assert!(rig.dma_frames().is_empty(), "no page of system memory stays mapped");
}

#[test]
fn frames_that_scatter_go_to_a_tile_in_one_job() {
    let rig = Rig::new();
    let asid = start(&rig, SZ_2M);
    assert_eq!(rig.fault(0, asid, DATA, Access::Write), FaultAck::Replay);
    let pages = |event: &Event| if let Event::Copy { pages, .. } = event { Some(*pages) } else { None };
    assert_eq!(rig.log.0.lock().iter().filter_map(pages).collect::<Vec<_>>(), [512]);
}

#[test]
fn a_bind_took_no_longer_than_its_fault() {
    let rig = Rig::new();
    let asid = start(&rig, SZ_64K);
    let start_ns = sync::time::now_ns();
    assert_eq!(rig.fault(0, asid, DATA, Access::Write), FaultAck::Replay);
    let all_ns = sync::time::now_ns() - start_ns;
    let took = |event: &Event| if let Event::Bind { ns, .. } = event { Some(*ns) } else { None };
    let took: Vec<_> = rig.log.0.lock().iter().filter_map(took).collect();
    assert!(matches!(took[..], [ns] if ns <= all_ns), "{took:?} of {all_ns} ns");
}

#[test]
fn a_vm_that_ends_is_flushed_everywhere() {
    let rig = Rig::new();
    let (vm_id, asid) = mirror_with(&rig, BindFlags::empty());
    rig.hw.state.lock().flushes.clear();
    assert_eq!(rig.ioctl(nr::VM_DESTROY, &mut VmDestroy { vm_id, ..Default::default() }), Ok(0));
    let everything = GpuRange::new(GpuVa(0), GpuVa(1 << PVC.va_bits));
    let flushes = &rig.hw.state.lock().flushes;
    assert!((0..2).all(|tile| flushes.contains(&(TileId(tile), asid, everything))), "{flushes:?}");
}

#[test]
fn a_cpu_touch_takes_the_allocation_home() {
    let rig = Rig::new();
    let asid = start(&rig, SZ_2M);
    assert_eq!(rig.fault(0, asid, DATA, Access::Write), FaultAck::Replay);
    rig.mm.touch(HostVa(DATA + 0x5000));
    assert_eq!((pagemap(&rig, DATA), pagemap(&rig, DATA + 0x5000)), (None, None));
    assert_eq!((leaf(&rig, 0, asid, DATA), rig.device.vram_used(TileId(0))), (None, 0));
    assert_eq!(rig.fault(0, asid, DATA, Access::Read), FaultAck::Replay);
    assert_eq!(pagemap(&rig, DATA), T0);
}

#[test]
fn an_atomic_moves_pages_to_its_own_tile() {
    let rig = Rig::new();
    let asid = start(&rig, SZ_64K);
    assert_eq!(rig.fault(0, asid, DATA, Access::Read), FaultAck::Replay);
    assert_eq!(rig.fault(1, asid, DATA, Access::Atomic), FaultAck::Replay);
    assert_eq!(pagemap(&rig, DATA), T1);
    assert!(leaf(&rig, 1, asid, DATA).unwrap().1.atomic);
}

#[test]
fn pages_that_cannot_migrate_are_reached_where_they_are() {
    let rig = Rig::new();
    let asid = start(&rig, SZ_64K);
    rig.mm.pin();
    assert_eq!(rig.fault(0, asid, DATA, Access::Write), FaultAck::Replay);
    let (_, page) = leaf(&rig, 0, asid, DATA).unwrap();
    assert!(!page.device && rig.dma_frames().contains(&rig.mm.frame_of(HostVa(DATA)).0));
    assert_eq!(rig.device.vram_used(TileId(0)), 0);
}

#[test]
fn a_tile_maps_no_vram_that_it_does_not_reach() {
    static APART: Platform = Platform { reach: Reach::OwnTile, ..PVC };
    let rig = Rig::with(&APART, Rules::CORRECT);
    let asid = start(&rig, SZ_2M);
    assert_eq!(rig.fault(0, asid, DATA, Access::Write), FaultAck::Replay);
    assert_eq!(pagemap(&rig, DATA), T0);
    assert_eq!(rig.fault(1, asid, DATA, Access::Write), FaultAck::Replay);
    assert_eq!((pagemap(&rig, DATA), leaf(&rig, 0, asid, DATA)), (T1, None));
    check_leaves(&rig, asid, SZ_2M);
    let between = |copied: &Copied| copied.src.zip(copied.dst).is_some_and(|(src, dst)| src.1 && dst.1);
    assert!(!rig.hw.state.lock().copies.iter().any(between), "no copy engine has both");
    // A range bound on both tiles can be in no VRAM.
    let op = VmBindOp { op: BIND_OP_PREFETCH, addr: DATA, range: SZ_2M, ..Default::default() };
    let bind = VmBindOp { prefetch_mem_region_instance: 1, ..op };
    assert_eq!(rig.ioctl(nr::VM_BIND, &mut VmBind { vm_id: 1, num_binds: 1, bind, ..Default::default() }), Ok(0));
    assert_eq!(leaf(&rig, 1, asid, DATA).map(|(_, leaf)| leaf.device), Some(false));
    check_leaves(&rig, asid, SZ_2M);
}

#[test]
fn full_vram_sends_the_oldest_home() {
    let [t0, t1] = [0, 1].map(|n| Tile { vram_size: 2 * SZ_2M, ..PVC.tiles[n] });
    let tiles: &'static [Tile] = Box::leak(Box::new([t0, t1]));
    let platform: &'static Platform = Box::leak(Box::new(Platform { tiles, ..PVC }));
    let rig = Rig::with(platform, Rules::CORRECT);
    let asid = start(&rig, 4 * SZ_2M);
    for n in 0..4 {
        assert_eq!(rig.fault(0, asid, DATA + n * SZ_2M, Access::Write), FaultAck::Replay);
    }
    let homes = [0, 1, 2, 3].map(|n| pagemap(&rig, DATA + n * SZ_2M));
    assert_eq!(homes, [None, None, T0, T0]);
    assert_eq!(leaf(&rig, 0, asid, DATA), None);
    check_leaves(&rig, asid, 4 * SZ_2M);
    assert_eq!(rig.device.vram_used(TileId(0)), 2 * SZ_2M);
}

#[test]
fn what_another_vm_binds_is_not_the_oldest() {
    let tiles: &'static [Tile] = Box::leak(Box::new([Tile { vram_size: 2 * SZ_2M, ..PVC.tiles[0] }]));
    let platform: &'static Platform = Box::leak(Box::new(Platform { tiles, ..PVC }));
    let rig = Rig::with(platform, Rules::CORRECT);
    let (one, other) = (start(&rig, 3 * SZ_2M), mirror(&rig));
    for (asid, n) in [(one, 0), (one, 1), (other, 0), (one, 2)] {
        assert_eq!(rig.fault(0, asid, DATA + n * SZ_2M, Access::Read), FaultAck::Replay);
    }
    let homes = [0, 1, 2].map(|n| pagemap(&rig, DATA + n * SZ_2M));
    assert_eq!(homes, [T0, None, T0], "the first was given first, and used last but one");
}

#[test]
fn a_slot_in_pieces_is_emptied_for_a_whole_one() {
    let tiles: &'static [Tile] = Box::leak(Box::new([Tile { vram_size: SZ_2M, ..PVC.tiles[0] }]));
    let platform: &'static Platform = Box::leak(Box::new(Platform { tiles, ..PVC }));
    let rig = Rig::with(platform, Rules::CORRECT);
    rig.mm.mmap(HostRange::sized(HostVa(DATA), 2 * SZ_2M));
    let small = HostRange::sized(HostVa(DATA + SZ_64K), SZ_2M - SZ_64K);
    assert_eq!(rig.device.migrate_range(TileId(0), small), Ok(()));
    assert_eq!(rig.device.vram_used(TileId(0)), small.len());
    assert_eq!(rig.device.migrate_range(TileId(0), HostRange::sized(HostVa(DATA + SZ_2M), SZ_2M)), Ok(()));
    assert_eq!((pagemap(&rig, DATA + SZ_64K), pagemap(&rig, DATA + SZ_2M)), (None, T0));
}

#[test]
fn a_prefetch_populates_what_nobody_has_touched() {
    let rig = Rig::new();
    let range = HostRange::sized(HostVa(DATA), 2 * SZ_64K);
    let asid = start(&rig, range.len());
    rig.mm.dontneed(range);
    let bind = VmBindOp {
        op: BIND_OP_PREFETCH,
        addr: DATA,
        range: range.len(),
        prefetch_mem_region_instance: 2,
        ..Default::default()
    };
    let mut bind = VmBind { vm_id: 1, num_binds: 1, bind, ..Default::default() };
    assert_eq!(rig.ioctl(nr::VM_BIND, &mut bind), Ok(0));
    assert_eq!([0, SZ_4K, SZ_64K].map(|at| pagemap(&rig, DATA + at)), [T1; 3]);
    assert!([0, 1].iter().all(|tile| leaf(&rig, *tile, asid, DATA + SZ_64K).is_some()));
}

#[test]
fn pages_migrate_without_a_vm() {
    let rig = Rig::new();
    rig.mm.mmap(HostRange::sized(HostVa(DATA), 4 * SZ_2M));
    let range = HostRange::new(HostVa(DATA + SZ_2M - SZ_64K - SZ_4K), HostVa(DATA + 2 * SZ_2M + SZ_64K + SZ_4K));
    assert_eq!(rig.device.migrate_range(TileId(1), range), Ok(()));
    let at = |offset: u64| pagemap(&rig, DATA + offset);
    assert_eq!((at(SZ_2M - SZ_64K - SZ_4K), at(SZ_2M - SZ_64K), at(SZ_2M)), (None, T1, T1));
    assert_eq!((at(2 * SZ_2M + SZ_64K - SZ_4K), at(2 * SZ_2M + SZ_64K)), (T1, None));
    assert_eq!(rig.device.vram_used(TileId(1)), SZ_2M + 2 * SZ_64K);
    rig.mm.munmap(HostRange::sized(HostVa(DATA), 4 * SZ_2M));
    assert_eq!(rig.device.vram_used(TileId(1)), 0);
}

#[test]
fn planted_mistakes_are_in_the_tables_and_nowhere_else() {
    type Encode = fn(&Leaf, u8) -> u64;
    type Bit = fn(&Leaf) -> bool;
    let wrong: [(Encode, Bit); 3] = [
        (planted::leaf::dm_dropped, |leaf| leaf.device),
        (planted::leaf::ps64_missing, |leaf| leaf.ps64),
        (planted::leaf::rw_cleared, |leaf| leaf.write),
    ];
    for (encode_leaf, bit) in wrong {
        let rig = Rig::with(&PVC, Rules { encode_leaf, ..Rules::CORRECT });
        let asid = start(&rig, SZ_64K);
        assert_eq!(rig.fault(0, asid, DATA, Access::Write), FaultAck::Replay);
        assert!(!bit(&leaf(&rig, 0, asid, DATA).unwrap().1));
        assert!(rig.hw.state.lock().copies.iter().all(|page| page.outcome == Outcome::Copied));
    }
    let rig = Rig::with(&PVC, Rules { flush: planted::flush::left_out, ..Rules::CORRECT });
    let asid = start(&rig, SZ_64K);
    assert_eq!(rig.fault(0, asid, DATA, Access::Write), FaultAck::Replay);
    rig.mm.touch(HostVa(DATA));
    assert!(rig.hw.state.lock().flushes.iter().all(|(_, space, _)| *space != asid));
}
