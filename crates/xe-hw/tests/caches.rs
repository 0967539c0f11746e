//! What is remembered of tables and leaves, and what an observer sees of it.

mod support;

use support::{BBE, Rig, TILE, Tables, store, system};
use units::{GpuVa, HostFrame, SZ_2M, SZ_4K};
use xe_hw::port::BusAddr;
use xe_hw::{Injection, Record, Step};
use xe_spec::platform::PVC;
use xe_spec::pte::table_entry;

const VA: GpuVa = GpuVa(0x7f12_3456_0000 & !(SZ_2M - 1));

/// Whether a store of `value` gets through.
fn stores(rig: &Rig, at: GpuVa, value: u32) -> bool {
    let context = rig.context();
    rig.submit(context, 1, &[&store(at, value)[..], &[BBE]].concat());
    rig.run() == Step::Idle
}

#[test]
fn a_table_is_walked_until_it_is_flushed() {
    let mut rig = Rig::new();
    let gpu = rig.gpu.clone();
    let [first, second, other] = [3, 4, 5].map(|frame| gpu.iommu_map(HostFrame(frame), 1, true));
    rig.tables.map(&gpu, VA, 0, system(first));
    rig.tables.map(&gpu, VA.add(SZ_4K), 0, system(second));
    assert!(stores(&rig, VA, 1));
    let parent = rig.tables.table(&gpu, VA, 1, false);
    let mut others = Tables::new(TILE, 0x8_0000);
    others.map(&gpu, VA.add(SZ_4K), 0, system(other));
    let table = others.table(&gpu, VA, 0, false);
    gpu.table_write(parent, (VA.0 >> 21) as usize & 511, table_entry(table, false));
    let words = |rig: &Rig| [4, 5].map(|frame| rig.bus.word(BusAddr::System(HostFrame(frame)), 0));
    assert!(stores(&rig, VA.add(SZ_4K), 2));
    assert_eq!(words(&rig), [2, 0], "by the table that was known");
    rig.flush(VA, SZ_4K);
    rig.flush(VA.add(SZ_4K), SZ_4K);
    assert!(stores(&rig, VA.add(SZ_4K), 3));
    assert_eq!(words(&rig), [2, 3]);
}

#[test]
fn an_observer_sees_leaves_and_what_the_tlb_keeps() {
    let mut rig = Rig::new();
    let gpu = rig.gpu.clone();
    let iova = gpu.iommu_map(HostFrame(3), 1, true);
    rig.tables.map(&gpu, VA, 0, system(iova));
    assert!(stores(&rig, VA, 1));
    let asid = gpu.spaces(TILE)[0];
    let seen = |all: Vec<xe_hw::Translation>| all.iter().any(|one| one.span.start == VA && one.leaf.addr == iova.0);
    assert!(seen(gpu.leaves(TILE, asid)) && seen(gpu.cached(TILE)));
    rig.tables.write(&gpu, VA, 0, false, 0);
    assert!(!seen(gpu.leaves(TILE, asid)) && seen(gpu.cached(TILE)) && gpu.look(TILE, asid, VA).is_none());
    gpu.iommu_unmap(iova, 1);
    assert!(matches!(gpu.take_records()[..], [Record::StillTranslated { addr: VA, .. }]));
}

#[test]
fn a_lost_page_and_a_failed_mapping_are_what_was_asked_for() {
    // The batch is the page that is found first.
    let mut rig = Rig::with(&PVC, Injection { lose_page: Some(1), fail_maps: vec![1], ..Injection::default() }, true);
    let gpu = rig.gpu.clone();
    let mapped = [(); 3].map(|()| gpu.try_iommu_map(HostFrame(3), 1, true));
    assert!(mapped[0].is_some() && mapped[1].is_none() && mapped[2].is_some());
    rig.tables.map(&gpu, VA, 0, system(mapped[0].unwrap()));
    assert!(!stores(&rig, VA, 1));
}
