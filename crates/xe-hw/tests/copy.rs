//! The driver's copy engine: identity window, slots, and what a wrong entry does.

mod support;

use support::*;
use units::{Dpa, GpuRange, GpuVa, HostFrame, Outcome, SZ_1G, SZ_2M, SZ_4K, SZ_64K, TileId, bytes_of};
use xe_hw::port::BusAddr;
use xe_hw::{CopyJob, Injection, Record};
use xe_spec::fault::{Access, Asid, FaultType};
use xe_spec::platform::{DEVICE_DPA_BASE, PVC};
use xe_spec::pte::Leaf;

const MIGRATE: Asid = Asid(1);
const SLOT: GpuVa = GpuVa(0);
const CLEAR: GpuVa = GpuVa(255 * SZ_1G);

/// Where the identity window shows a DPA.
fn identity(dpa: Dpa) -> GpuVa {
    GpuVa(256 * SZ_1G + dpa.offset_from(DEVICE_DPA_BASE))
}

/// A rig and the tables of tile 0's migrations: identity windows of both tiles, a NULL page.
fn rig(injection: Injection) -> (Rig, Tables) {
    let rig = Rig::with(&PVC, injection, true);
    let mut tables = Tables::new(TILE, 0x10_0000);
    rig.gpu.set_root(TILE, MIGRATE, tables.root, true);
    for tile in PVC.tiles {
        tables.map(&rig.gpu, identity(tile.vram_base), 2, device(tile.vram_base));
    }
    tables.map(&rig.gpu, CLEAR, 2, Leaf { null: true, addr: 0, ..device(Dpa(0)) });
    (rig, tables)
}

fn copy(rig: &Rig, src: GpuVa, dst: GpuVa, pages: usize) -> Vec<Outcome> {
    let mut done = Vec::new();
    let job = CopyJob { asid: MIGRATE, src, dst, pages };
    rig.gpu.copy(TILE, &job, &mut |pages, outcome| done.extend(vec![outcome; pages]));
    done
}

/// What is written over something else is flushed, as a driver does.
fn change(rig: &Rig, tables: &mut Tables, level: u8, leaf: Leaf) {
    tables.map(&rig.gpu, SLOT, level, leaf);
    rig.gpu.tlb_invalidate(TILE, MIGRATE, GpuRange::sized(SLOT, SZ_2M));
}

#[test]
fn scattered_system_pages_become_one_frame_run() {
    let (rig, mut tables) = rig(Injection::default());
    for (i, frame) in [10, 11, 12, 40].into_iter().enumerate() {
        let iova = rig.gpu.iommu_map(HostFrame(frame), 1, false);
        tables.map(&rig.gpu, SLOT.add(bytes_of(i)), 0, system(iova));
        rig.bus.fill(BusAddr::System(HostFrame(frame)), frame as u8);
    }
    assert_eq!(copy(&rig, SLOT, identity(vram(SZ_64K)), 4), [Outcome::Copied; 4]);
    let run = |frame, offset, pages| (BusAddr::System(HostFrame(frame)), BusAddr::Vram(vram(SZ_64K + offset)), pages);
    assert_eq!(rig.bus.take_transfers(), [run(10, 0, 3), run(40, 3 * SZ_4K, 1)]);
    assert!(rig.bus.is_all(BusAddr::Vram(vram(SZ_64K + 3 * SZ_4K)), 40));
    assert_eq!(rig.gpu.take_records(), []);
    assert_eq!(rig.gpu.counters().pages_copied, 4);
}

#[test]
fn a_huge_page_goes_in_one_piece() {
    let (rig, mut tables) = rig(Injection::default());
    let iova = rig.gpu.iommu_map(HostFrame(0x1000), 1024, true);
    for i in 0..2 {
        tables.map(&rig.gpu, SLOT.add(i * SZ_2M), 1, system(iova.add(i * SZ_2M)));
    }
    let lengths = |rig: &Rig| rig.bus.take_transfers().iter().map(|run| run.2).collect::<Vec<_>>();
    copy(&rig, identity(vram(SZ_2M)), SLOT, 1024);
    assert_eq!(lengths(&rig), [512, 512]);
    copy(&rig, SLOT.add(bytes_of(500)), identity(vram(SZ_2M + bytes_of(500))), 524);
    assert_eq!(lengths(&rig), [12, 512], "a run ends where VRAM crosses 2M");
}

#[test]
fn tile_to_tile_through_both_windows() {
    let (rig, _) = rig(Injection::default());
    for i in 0..16 {
        rig.bus.fill(BusAddr::Vram(vram(bytes_of(i))), 0xa0 | i as u8);
    }
    assert_eq!(copy(&rig, identity(vram(0)), identity(far_vram(SZ_64K)), 16), [Outcome::Copied; 16]);
    assert!((0..16).all(|i| rig.bus.is_all(BusAddr::Vram(far_vram(SZ_64K + bytes_of(i))), 0xa0 | i as u8)));
}

#[test]
fn a_destination_without_dm_writes_nothing_and_leaves_sixteen_records() {
    let (rig, mut tables) = rig(Injection::default());
    let to = far_vram(SZ_64K);
    for i in 0..16 {
        rig.bus.fill(BusAddr::Vram(vram(bytes_of(i))), 0x5a);
        let wrong = Leaf { device: false, atomic: false, ..device(to.add(bytes_of(i))) };
        tables.map(&rig.gpu, SLOT.add(bytes_of(i)), 0, wrong);
    }
    assert_eq!(copy(&rig, identity(vram(0)), SLOT, 16), [Outcome::Dropped; 16]);
    assert!((0..16).all(|i| rig.bus.is_all(BusAddr::Vram(to.add(bytes_of(i))), 0)), "VRAM keeps its zeros");
    assert_eq!(rig.bus.take_transfers(), []);
    let stray = |i| Record::StrayWrite { tile: TILE, iova: units::Iova(to.0 + bytes_of(i)), bytes: SZ_4K };
    assert_eq!(rig.gpu.take_records(), (0..16).map(stray).collect::<Vec<_>>());
    assert_eq!((rig.gpu.counters().pages_dropped, rig.gpu.counters().stray_writes), (16, 16));
}

#[test]
fn vram_in_a_slot_needs_64k_too() {
    let (rig, mut tables) = rig(Injection::default());
    tables.map(&rig.gpu, SLOT, 0, device(far_vram(0)));
    assert_eq!(copy(&rig, identity(vram(0)), SLOT, 1), [Outcome::Failed]);
    assert!(matches!(rig.gpu.take_records()[..], [Record::Malformed { .. }, Record::CopyFault { .. }]));
    assert_eq!(rig.gpu.counters().malformed, 1);
}

#[test]
fn pages_that_do_not_translate_fail_alone() {
    let (rig, mut tables) = rig(Injection::default());
    for i in [0, 2] {
        let iova = rig.gpu.iommu_map(HostFrame(10 + i), 1, true);
        tables.map(&rig.gpu, SLOT.add(i * SZ_4K), 0, system(iova));
    }
    let done = copy(&rig, SLOT, identity(vram(0)), 3);
    assert_eq!(done, [Outcome::Copied, Outcome::Failed, Outcome::Copied]);
    let fault = Record::CopyFault {
        tile: TILE,
        asid: MIGRATE,
        addr: SLOT.add(SZ_4K),
        access: Access::Read,
        fault_type: FaultType::NotPresent,
    };
    assert_eq!(rig.gpu.take_records(), [fault]);
    change(&rig, &mut tables, 0, Leaf { write: false, ..system(rig.gpu.iommu_map(HostFrame(9), 1, true)) });
    assert_eq!(copy(&rig, identity(vram(0)), SLOT, 1), [Outcome::Failed], "no RW");
}

#[test]
fn a_large_leaf_is_judged_page_by_page() {
    let (rig, mut tables) = rig(Injection { fail_copy: Some(20), ..Injection::default() });
    let iova = rig.gpu.iommu_map(HostFrame(0x1000), 512, true);
    tables.map(&rig.gpu, SLOT, 1, system(iova));
    rig.gpu.iommu_unmap(iova.add(bytes_of(100)), 2);
    let done = copy(&rig, identity(vram(0)), SLOT, 512);
    for (i, page) in done.iter().enumerate() {
        let expected = match i {
            20 => Outcome::Failed,
            100 | 101 => Outcome::Dropped,
            _ => Outcome::Copied,
        };
        assert_eq!(*page, expected, "page {i}");
    }
    assert_eq!(rig.bus.take_transfers().iter().map(|run| run.2).collect::<Vec<_>>(), [20, 79, 410]);
    let stray = |i| Record::StrayWrite { tile: TILE, iova: iova.add(bytes_of(i)), bytes: SZ_4K };
    assert_eq!(rig.gpu.take_records(), [stray(100), stray(101)]);
    change(&rig, &mut tables, 1, Leaf { device: false, atomic: false, ..device(far_vram(SZ_2M)) });
    assert_eq!(copy(&rig, identity(vram(0)), SLOT, 512), [Outcome::Dropped; 512]);
    assert_eq!(rig.gpu.take_records().len(), 512, "no DM: a record a page");
}

#[test]
fn null_sources_clear_and_stray_sources_poison() {
    let (rig, mut tables) = rig(Injection::default());
    let frame = BusAddr::Vram(vram(0));
    rig.bus.fill(frame, 7);
    assert_eq!(copy(&rig, CLEAR, identity(vram(0)), 1), [Outcome::Copied]);
    assert!(rig.bus.is_all(frame, 0));
    let iova = rig.gpu.iommu_map(HostFrame(3), 1, false);
    tables.map(&rig.gpu, SLOT, 0, system(iova));
    rig.gpu.iommu_unmap(iova, 1);
    assert_eq!(copy(&rig, SLOT, identity(vram(0)), 1), [Outcome::Copied]);
    assert!(rig.bus.is_all(frame, 0xff));
    assert_eq!(rig.gpu.take_records(), [Record::StrayRead { tile: TILE, iova, bytes: SZ_4K }]);
    let read_only = rig.gpu.iommu_map(HostFrame(4), 1, false);
    change(&rig, &mut tables, 0, system(read_only));
    assert_eq!(copy(&rig, identity(vram(0)), SLOT, 1), [Outcome::Dropped]);
    assert_eq!(rig.gpu.take_records(), [Record::StrayWrite { tile: TILE, iova: read_only, bytes: SZ_4K }]);
}

#[test]
fn a_translation_is_kept_until_it_is_flushed() {
    let (rig, mut tables) = rig(Injection::default());
    let copied = |frame: u8| {
        copy(&rig, SLOT, identity(vram(0)), 1);
        rig.bus.is_all(BusAddr::Vram(vram(0)), frame)
    };
    for frame in [20, 21] {
        rig.bus.fill(BusAddr::System(HostFrame(frame)), frame as u8);
        tables.map(&rig.gpu, SLOT, 0, system(rig.gpu.iommu_map(HostFrame(frame), 1, true)));
        assert!(copied(20), "the second one is not looked at");
    }
    rig.gpu.tlb_invalidate(TILE, MIGRATE, GpuRange::sized(SLOT, SZ_4K));
    assert!(copied(21));
}

#[test]
fn a_job_that_stops_says_nothing_of_the_rest() {
    let (rig, _) = rig(Injection { stop_copy: Some(5), ..Injection::default() });
    let jobs = [(); 3].map(|()| copy(&rig, CLEAR, identity(vram(0)), 4).len());
    assert_eq!(jobs, [4, 1, 4]);
}

#[test]
fn an_injected_failure_hits_one_page() {
    let (rig, _) = rig(Injection { fail_copy: Some(5), ..Injection::default() });
    let all = [copy(&rig, CLEAR, identity(vram(0)), 4), copy(&rig, CLEAR, identity(vram(0)), 4)].concat();
    let failed: Vec<_> = (0..8).filter(|&i| all[i] == Outcome::Failed).collect();
    assert_eq!(failed, [5]);
    let mut done = Vec::new();
    let job = CopyJob { asid: MIGRATE, src: CLEAR, dst: SLOT, pages: 3 };
    rig.gpu.copy(TileId(7), &job, &mut |pages, outcome| done.push((pages, outcome)));
    assert_eq!(done, [(3, Outcome::Failed)]);
}
