//! Walks, faults and their replay, PS64, the TLB and the IOMMU, as a batch meets them.

mod support;

use support::*;
use units::{Dpa, GpuVa, HostFrame, Iova, SZ_2M, SZ_4K, SZ_64K};
use xe_hw::port::BusAddr;
use xe_hw::{FlushFault, Injection, Record, Step, Violation};
use xe_spec::fault::{Access, Asid, FaultAck, FaultType};
use xe_spec::platform::{PVC, Platform};
use xe_spec::pte::Leaf;

const VA: GpuVa = GpuVa(0x7f12_3456_0000 & !(SZ_2M - 1));

static ATOMICS_EVERYWHERE: Platform = Platform { device_atomics_on_smem: true, ..PVC };

fn stored(rig: &Rig, to: GpuVa, value: u32) {
    let context = rig.context();
    rig.submit(context, 1, &store_batch(to, value));
    assert_eq!(rig.run(), Step::Idle);
    assert_eq!(rig.irq.take(), [Told::Done(context, 1)]);
}

fn refused(rig: &Rig, words: &[u32]) -> xe_spec::fault::FaultRecord {
    let context = rig.context();
    rig.submit(context, 1, words);
    assert_eq!(rig.run(), Step::Wait);
    let fault = rig.irq.the_fault();
    assert_eq!((fault.slot.engine, fault.slot.context, fault.asid), (CCS, context, ASID));
    rig.gpu.context_destroy(context);
    fault
}

#[test]
fn every_size_of_leaf_leads_where_it_says() {
    let mut rig = Rig::new();
    let gpu = rig.gpu.clone();
    let small = gpu.iommu_map(HostFrame(70), 1, true);
    rig.tables.map(&gpu, VA, 0, system(small));
    rig.tables.map_group(&gpu, VA.add(SZ_64K), device(vram(0x30_0000)));
    rig.tables.map_compact(&gpu, VA.add(SZ_2M + 3 * SZ_64K), device(vram(0x50_0000)));
    rig.tables.map(&gpu, VA.add(2 * SZ_2M), 1, device(vram(SZ_2M)));
    let giga = GpuVa(1 << 40);
    rig.tables.map(&gpu, giga, 2, device(far_vram(0)));

    for (to, page, offset) in [
        (VA.add(0x14), BusAddr::System(HostFrame(70)), 0x14),
        (VA.add(SZ_64K + 9 * SZ_4K + 8), BusAddr::Vram(vram(0x30_0000 + 9 * SZ_4K)), 8),
        (VA.add(SZ_2M + 3 * SZ_64K + SZ_4K), BusAddr::Vram(vram(0x50_0000 + SZ_4K)), 0),
        (VA.add(2 * SZ_2M + 0x12_3ffc), BusAddr::Vram(vram(SZ_2M + 0x12_3000)), 0xffc),
        (giga.add(0x1234_5678), BusAddr::Vram(far_vram(0x1234_5000)), 0x678),
    ] {
        stored(&rig, to, 0xc0ffee);
        assert_eq!(rig.bus.take_writes(), [(page, offset, 4)], "{to}");
        assert_eq!(rig.bus.word(page, offset), 0xc0ffee);
    }
    assert_eq!(gpu.take_records(), []);
}

#[test]
fn canonical_addresses_lose_their_sign() {
    let mut rig = Rig::new();
    let gpu = rig.gpu.clone();
    let high = GpuVa(0x1ff_ffff_ffff_f000);
    let iova = gpu.iommu_map(HostFrame(9), 1, true);
    rig.tables.map(&gpu, high, 0, system(iova));
    stored(&rig, GpuVa(0xffff_ffff_ffff_fff4), 1);
    assert_eq!(rig.bus.take_writes(), [(BusAddr::System(HostFrame(9)), 0xff4, 4)]);
}

#[test]
fn a_fault_stalls_and_the_replay_does_just_that_access() {
    let mut rig = Rig::new();
    let gpu = rig.gpu.clone();
    let counter = VA.add(SZ_64K);
    rig.tables.map_group(&gpu, counter, device(vram(0)));
    let context = rig.context();
    rig.submit(context, 7, &[&atomic_inc(counter)[..], &store(VA, 5), &[BBE]].concat());
    assert_eq!([gpu.step(CCS), gpu.step(CCS)], [Step::Ran, Step::Fault]);
    let fault = rig.irq.the_fault();
    assert_eq!((fault.addr, fault.access, fault.fault_type), (VA, Access::Write, FaultType::NotPresent));
    assert_eq!(fault.level, 0, "the group's table is there");
    assert_eq!(gpu.step(CCS), Step::Wait);

    gpu.fault_ack(fault.slot, FaultAck::Replay);
    assert_eq!(rig.run(), Step::Wait, "not served: the same fault again");
    let again = rig.irq.the_fault();
    assert_eq!(xe_spec::fault::FaultRecord { slot: again.slot, ..fault }, again);

    let iova = gpu.iommu_map(HostFrame(3), 1, true);
    rig.tables.map(&gpu, VA, 0, system(iova));
    gpu.fault_ack(again.slot, FaultAck::Replay);
    assert_eq!(rig.run(), Step::Idle);
    assert_eq!(rig.irq.take(), [Told::Done(context, 7)]);
    assert_eq!(rig.bus.word(BusAddr::System(HostFrame(3)), 0), 5);
    assert_eq!(rig.bus.word(BusAddr::Vram(vram(0)), 0), 1, "what came before the fault ran once");
    assert_eq!(gpu.counters().faults_not_present, 2);
}

#[test]
fn a_fetch_faults_as_a_read_and_goes_on_inside_its_command() {
    let mut rig = Rig::new();
    let gpu = rig.gpu.clone();
    let page = BATCH.add(SZ_4K);
    let context = rig.context();
    let iova = gpu.iommu_map(HostFrame(3), 1, true);
    rig.tables.map(&gpu, VA, 0, system(iova));
    let batch = rig.batch_at(1022, &store(VA, 77)[..2]);
    gpu.submit(context, xe_hw::Job { seqno: 1, batch: Some(batch), fence: None });
    assert_eq!(rig.run(), Step::Wait);
    let fault = rig.irq.the_fault();
    assert_eq!((fault.addr, fault.access), (page, Access::Read));
    rig.tables.map(&gpu, page, 0, system(gpu.iommu_map(HostFrame(4), 1, false)));
    rig.bus.poke(BusAddr::System(HostFrame(4)), 0, &[store(VA, 77)[2], 77, BBE]);
    gpu.fault_ack(fault.slot, FaultAck::Replay);
    assert_eq!(rig.run(), Step::Idle);
    assert_eq!(rig.bus.word(BusAddr::System(HostFrame(3)), 0), 77);
}

#[test]
fn write_and_atomic_need_their_bits() {
    let mut rig = Rig::new();
    let gpu = rig.gpu.clone();
    let iova = gpu.iommu_map(HostFrame(3), 1, true);
    rig.tables.map(&gpu, VA, 0, Leaf { write: false, ..system(iova) });
    assert_eq!(refused(&rig, &store(VA, 1)).fault_type, FaultType::WriteViolation);
    assert_eq!(refused(&rig, &atomic_inc(VA)).fault_type, FaultType::WriteViolation);

    rig.tables.map(&gpu, VA, 0, system(iova));
    rig.flush(VA, SZ_4K);
    assert_eq!(refused(&rig, &atomic_inc(VA)).fault_type, FaultType::AtomicViolation, "no AE");

    rig.tables.map(&gpu, VA, 0, Leaf { atomic: true, ..system(iova) });
    rig.flush(VA, SZ_4K);
    assert_eq!(refused(&rig, &atomic_inc(VA)).fault_type, FaultType::AtomicViolation, "PVC: none in system memory");

    let group = VA.add(SZ_64K);
    rig.tables.map_group(&gpu, group, Leaf { atomic: false, ..device(vram(0)) });
    let fault = refused(&rig, &atomic_inc(group));
    assert_eq!((fault.fault_type, fault.access), (FaultType::AtomicViolation, Access::Atomic));
    assert_eq!(gpu.take_records(), []);
    assert_eq!((gpu.counters().faults_write, gpu.counters().faults_atomic), (2, 3));
}

#[test]
fn some_platforms_do_atomics_in_system_memory() {
    let mut rig = Rig::with(&ATOMICS_EVERYWHERE, Injection::default(), true);
    let gpu = rig.gpu.clone();
    let iova = gpu.iommu_map(HostFrame(3), 1, true);
    rig.tables.map(&gpu, VA, 0, Leaf { atomic: true, ..system(iova) });
    let context = rig.context();
    rig.submit(context, 1, &[&atomic_inc(VA)[..], &[BBE]].concat());
    assert_eq!(rig.run(), Step::Idle);
    assert_eq!(rig.bus.word(BusAddr::System(HostFrame(3)), 0), 1);
}

#[test]
fn an_upgraded_entry_needs_no_flush() {
    let mut rig = Rig::new();
    let gpu = rig.gpu.clone();
    let iova = gpu.iommu_map(HostFrame(3), 1, true);
    rig.tables.map(&gpu, VA, 0, Leaf { write: false, ..system(iova) });
    assert_eq!(refused(&rig, &store(VA, 1)).fault_type, FaultType::WriteViolation);
    rig.tables.map(&gpu, VA, 0, system(iova));
    stored(&rig, VA, 4);
}

#[test]
fn a_null_leaf_swallows_writes() {
    let mut rig = Rig::new();
    let gpu = rig.gpu.clone();
    rig.tables.map(&gpu, VA, 2, Leaf { null: true, addr: 0, ..device(Dpa(0)) });
    stored(&rig, VA.add(0x1234), 1);
    assert_eq!(rig.bus.take_writes(), []);
    assert_eq!(gpu.take_records(), []);
}

#[test]
fn a_null_leaf_has_rights_as_any_other() {
    let mut rig = Rig::new();
    let gpu = rig.gpu.clone();
    let null = Leaf { null: true, device: false, addr: 0, atomic: false, ..device(Dpa(0)) };
    rig.tables.map(&gpu, VA, 2, Leaf { write: false, ..null });
    assert_eq!(refused(&rig, &store(VA, 1)).fault_type, FaultType::WriteViolation);
    rig.tables.map(&gpu, VA, 2, null);
    stored(&rig, VA, 1);
    assert_eq!(refused(&rig, &atomic_inc(VA)).fault_type, FaultType::AtomicViolation);
    assert_eq!(rig.bus.take_writes(), []);
}

fn malformed(rig: &Rig, at: GpuVa) -> Violation {
    let fault = refused(rig, &store(at, 1));
    assert_eq!((fault.fault_type, fault.addr), (FaultType::Malformed, at));
    assert_eq!(rig.bus.take_writes(), []);
    match rig.gpu.take_records()[..] {
        [Record::Malformed { tile: TILE, asid: ASID, addr, violation }] if addr == at => violation,
        ref other => panic!("one violation expected: {other:?}"),
    }
}

#[test]
fn vram_in_4k_pieces_is_refused_where_64k_is_needed() {
    let mut rig = Rig::new();
    let gpu = rig.gpu.clone();
    rig.tables.map(&gpu, VA, 0, device(vram(0)));
    assert_eq!(malformed(&rig, VA), Violation::SmallVramLeaf(vram(0)));
    gpu.set_root(TILE, ASID, rig.tables.root, false);
    stored(&rig, VA, 1);
}

#[test]
fn a_group_of_ps64_must_be_one_page() {
    let mut rig = Rig::new();
    let gpu = rig.gpu.clone();
    let good = |i: u64| Leaf { ps64: true, ..device(vram(i * SZ_4K)) };
    let breaks: [(u64, Leaf); 4] = [
        (5, good(6)),
        (5, Leaf { ps64: false, ..good(5) }),
        (15, Leaf { write: false, ..good(15) }),
        (0, Leaf { pat: 0, ..good(0) }),
    ];
    for (n, (i, entry)) in breaks.into_iter().enumerate() {
        let at = VA.add(n as u64 * SZ_64K);
        rig.tables.map_group(&gpu, at, device(vram(0)));
        rig.tables.map(&gpu, at.add(i * SZ_4K), 0, entry);
        assert_eq!(malformed(&rig, at.add(9 * SZ_4K)), Violation::BrokenGroup, "{n}");
    }
    let odd = VA.add(8 * SZ_64K);
    rig.tables.map_group(&gpu, odd, device(vram(SZ_4K)));
    assert_eq!(malformed(&rig, odd), Violation::BrokenGroup, "consecutive but not aligned");
}

#[test]
fn a_group_being_written_is_not_present_yet() {
    let mut rig = Rig::new();
    let gpu = rig.gpu.clone();
    rig.tables.map_group(&gpu, VA, device(vram(0)));
    rig.tables.write(&gpu, VA.add(15 * SZ_4K), 0, false, 0);
    assert_eq!(refused(&rig, &store(VA, 1)).fault_type, FaultType::NotPresent);
    assert_eq!(gpu.take_records(), []);
}

#[test]
fn vram_of_a_tile_that_is_not_reached_is_malformed() {
    static APART: Platform = Platform { reach: xe_spec::platform::Reach::OwnTile, ..PVC };
    let mut rig = Rig::with(&APART, Injection::default(), true);
    let gpu = rig.gpu.clone();
    rig.tables.map_group(&gpu, VA, device(far_vram(0)));
    assert_eq!(malformed(&rig, VA), Violation::OutsideVram(far_vram(0)));
}

#[test]
fn wild_tables_and_leaves_are_malformed() {
    let mut rig = Rig::new();
    let gpu = rig.gpu.clone();
    let wild = Dpa(0x1000);
    rig.tables.write(&gpu, VA, 1, false, xe_spec::pte::table_entry(wild, false));
    assert_eq!(malformed(&rig, VA), Violation::TableOutsidePool(wild));
    let odd = VA.add(SZ_2M);
    rig.tables.write(&gpu, odd, 1, false, device(vram(SZ_64K)).encode(1));
    assert_eq!(malformed(&rig, odd), Violation::MisalignedLeaf(vram(SZ_64K).0));
    let nowhere = VA.add(2 * SZ_2M);
    for dpa in [Dpa(SZ_64K), PVC.tiles[0].tables_base] {
        rig.tables.map_group(&gpu, nowhere, device(dpa));
        rig.flush(nowhere, SZ_64K);
        assert_eq!(malformed(&rig, nowhere), Violation::OutsideVram(dpa), "below the frames, and in the tables");
    }
    gpu.table_write(wild, 3, 1);
    assert_eq!(gpu.table_read(rig.tables.root, 512), 0);
    let expected = [
        Record::TableAccessOutsidePool { table: wild, index: 3 },
        Record::TableAccessOutsidePool { table: rig.tables.root, index: 512 },
    ];
    assert_eq!(gpu.take_records(), expected);
}

#[test]
fn a_cleared_entry_translates_until_it_is_flushed() {
    let mut rig = Rig::new();
    let gpu = rig.gpu.clone();
    rig.tables.map_group(&gpu, VA, device(vram(0)));
    stored(&rig, VA, 1);
    for i in 0..16 {
        rig.tables.write(&gpu, VA.add(i * SZ_4K), 0, false, 0);
    }
    stored(&rig, VA.add(4 * SZ_4K), 2);
    assert_eq!(rig.bus.word(BusAddr::Vram(vram(4 * SZ_4K)), 0), 2, "stale, and visible");
    rig.bus.empty(vram(0));
    stored(&rig, VA, 3);
    let stale = Record::StaleVram { engine: CCS, asid: ASID, addr: VA, dpa: vram(0), access: Access::Write };
    assert_eq!(gpu.take_records(), [stale], "the frame is empty: seen");
    assert_eq!(gpu.counters().stale_vram, 1);

    gpu.tlb_invalidate(TILE, Asid(6), units::GpuRange::sized(VA, SZ_64K));
    gpu.tlb_invalidate(units::TileId(1), ASID, units::GpuRange::sized(VA, SZ_64K));
    rig.flush(VA.add(SZ_64K), SZ_64K);
    stored(&rig, VA.add(SZ_4K), 2);
    rig.flush(VA.add(7 * SZ_4K), SZ_4K);
    assert_eq!(refused(&rig, &store(VA.add(SZ_4K), 1)).fault_type, FaultType::NotPresent);
}

#[test]
fn a_flush_covers_the_block_that_its_range_grows_to() {
    let mut rig = Rig::new();
    let gpu = rig.gpu.clone();
    for (frame, inside) in [(3, true), (4, false)] {
        let other = gpu.iommu_map(HostFrame(frame + 10), 1, true);
        let at = if inside { VA } else { VA.add(4 * SZ_4K) };
        rig.tables.map(&gpu, at, 0, system(gpu.iommu_map(HostFrame(frame), 1, true)));
        stored(&rig, at, 1);
        rig.tables.map(&gpu, at, 0, system(other));
        rig.flush(VA.add(SZ_4K), 2 * SZ_4K);
        stored(&rig, at, 2);
        assert_eq!(rig.bus.word(BusAddr::System(HostFrame(frame + 10)), 0) == 2, inside, "4K..12K grows to 0..16K");
    }
}

#[test]
fn address_spaces_do_not_share_translations() {
    let mut rig = Rig::new();
    let gpu = rig.gpu.clone();
    let other = Asid(6);
    let mut tables = Tables::new(TILE, 0x10_0000);
    gpu.set_root(TILE, other, tables.root, true);
    rig.tables.map_group(&gpu, VA, device(vram(0)));
    tables.map_group(&gpu, VA, device(vram(SZ_64K)));
    tables.map(&gpu, BATCH, 0, system(gpu.iommu_map(rig.batch_frame, 1, false)));
    stored(&rig, VA, 1);
    let context = gpu.context_create(CCS, other);
    rig.submit(context, 1, &store_batch(VA, 2));
    assert_eq!(rig.run(), Step::Idle);
    assert_eq!([0, SZ_64K].map(|offset| rig.bus.word(BusAddr::Vram(vram(offset)), 0)), [1, 2]);
    gpu.clear_root(TILE, other);
    gpu.tlb_invalidate(TILE, other, units::GpuRange::new(GpuVa(0), GpuVa(u64::MAX)));
    rig.submit(context, 2, &[BBE]);
    rig.irq.take();
    assert_eq!(rig.run(), Step::Wait);
    assert_eq!((rig.irq.the_fault().addr, gpu.counters().faults_not_present), (BATCH, 1));
}

#[test]
fn a_lost_flush_leaves_the_entry() {
    let flush = FlushFault::Lose(1);
    let mut rig = Rig::with(&PVC, Injection { flush, ..Injection::default() }, true);
    let gpu = rig.gpu.clone();
    rig.tables.map_group(&gpu, VA, device(vram(0)));
    stored(&rig, VA, 1);
    rig.flush(GpuVa(0), SZ_4K);
    for i in 0..16 {
        rig.tables.write(&gpu, VA.add(i * SZ_4K), 0, false, 0);
    }
    rig.flush(VA, SZ_64K);
    stored(&rig, VA, 2);
    rig.flush(VA, SZ_64K);
    assert_eq!(refused(&rig, &store(VA, 1)).fault_type, FaultType::NotPresent);
    assert_eq!(gpu.counters().flushes, 2);
}

#[test]
fn what_the_iommu_does_not_map_is_a_stray_access() {
    let mut rig = Rig::new();
    let gpu = rig.gpu.clone();
    let unmapped = gpu.iommu_map(HostFrame(3), 1, true);
    gpu.iommu_unmap(unmapped, 1);
    let read_only = gpu.iommu_map(HostFrame(4), 1, false);
    rig.tables.map(&gpu, VA, 0, system(unmapped));
    rig.tables.map(&gpu, VA.add(SZ_4K), 0, system(read_only));
    stored(&rig, VA.add(8), 1);
    stored(&rig, VA.add(SZ_4K), 1);
    assert_eq!(rig.bus.take_writes(), []);
    let stray = |iova: Iova| Record::StrayWrite { tile: TILE, iova, bytes: 4 };
    assert_eq!(gpu.take_records(), [stray(unmapped.add(8)), stray(read_only)]);

    let context = rig.context();
    gpu.submit(context, xe_hw::Job { seqno: 1, batch: Some(VA), fence: None });
    rig.run();
    assert_eq!(rig.irq.take(), [Told::Killed(context, 1)], "a batch of all ones");
    let unknown = Record::UnknownCommand { context, at: VA, dword: u32::MAX };
    assert_eq!(gpu.take_records(), [Record::StrayRead { tile: TILE, iova: unmapped, bytes: 64 }, unknown]);
}

#[test]
fn memory_that_the_host_took_away_is_a_page_fault() {
    let mut rig = Rig::new();
    let gpu = rig.gpu.clone();
    let iova = gpu.iommu_map(HostFrame(3), 1, true);
    rig.tables.map(&gpu, VA, 0, system(iova));
    rig.bus.vanish(HostFrame(3));
    let context = rig.context();
    rig.submit(context, 1, &store_batch(VA, 9));
    assert_eq!(rig.run(), Step::Wait);
    let fault = rig.irq.the_fault();
    assert_eq!(fault.fault_type, FaultType::NotPresent);
    rig.bus.restore(HostFrame(3));
    gpu.fault_ack(fault.slot, FaultAck::Replay);
    assert_eq!(rig.run(), Step::Idle);
    assert_eq!(rig.bus.word(BusAddr::System(HostFrame(3)), 0), 9);
    assert!(matches!(gpu.take_records()[..], [Record::SystemFault { frame: HostFrame(3), .. }]));
}

#[test]
fn tables_that_a_driver_keeps_in_its_own_memory_are_walked_there() {
    let rig = Rig::new();
    let root = rig.tables.root;
    let (lent, page) = (vram(0x70_0000), vram(0x71_0000));
    // The root's second entry leads to a table in VRAM that is in no pool.
    let va = GpuVa(1 << 48);
    rig.gpu.table_write(root, 1, xe_spec::pte::table_entry(lent, false));
    let reads = |rig: &Rig| rig.gpu.access(CCS, ASID, va.add(8), None);
    assert_eq!(reads(&rig), Err(FaultType::Malformed), "nobody lends it");
    assert!(matches!(
        rig.gpu.take_records()[..],
        [Record::Malformed { violation: Violation::TableOutsidePool(_), .. }]
    ));
    rig.bus.lend(lent);
    assert_eq!(reads(&rig), Err(FaultType::NotPresent));
    for level in (1..=3u64).rev() {
        let next = lent.add((4 - level) * SZ_4K);
        rig.bus.lend(next);
        let entry = xe_spec::pte::table_entry(next, false);
        rig.bus.poke(BusAddr::Vram(lent.add((3 - level) * SZ_4K)), 0, &[entry as u32, (entry >> 32) as u32]);
    }
    let leaf = |at: u64| Leaf { addr: page.0 + at * SZ_4K, ps64: true, ..device(page) }.encode(0);
    let entries: Vec<u32> = (0..16).flat_map(|at| [leaf(at) as u32, (leaf(at) >> 32) as u32]).collect();
    rig.bus.poke(BusAddr::Vram(lent.add(3 * SZ_4K)), 0, &entries);
    assert_eq!(rig.gpu.access(CCS, ASID, va.add(8), Some(0x1122_3344_5566_7788)), Ok(0));
    assert_eq!(rig.bus.quad(BusAddr::Vram(page), 8), 0x1122_3344_5566_7788);
    assert_eq!(reads(&rig), Ok(0x1122_3344_5566_7788));
    assert_eq!(rig.gpu.take_records(), []);
}
