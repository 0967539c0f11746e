//! The walker and the TLB against a flat map of pages, under random changes.

mod support;

use proptest::prelude::*;
use std::collections::BTreeMap;
use support::*;
use units::{GpuVa, HostFrame, SZ_2M, SZ_4K, SZ_64K, pages_of};
use xe_hw::port::BusAddr;
use xe_hw::{Job, Step};
use xe_spec::fault::FaultAck;
use xe_spec::pte::Leaf;

const BASE: GpuVa = GpuVa(0x7f00_0000_0000);
const REGIONS: u64 = 3;

/// How a 2M region is mapped at present.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Kind {
    Normal,
    Compact,
    Huge,
}

#[derive(Clone, Debug)]
enum Change {
    /// A 4K page of system memory in a normal table.
    Page { region: u64, page: u64, frame: u64, write: bool },
    /// A 64K page of VRAM as 16 entries of a normal table.
    Group { region: u64, block: u64, offset: u64, write: bool },
    /// A 64K page of VRAM in a compact table.
    Compact { region: u64, block: u64, offset: u64, write: bool },
    /// A 2M page of VRAM.
    Huge { region: u64, offset: u64, write: bool },
    /// A 64K block goes (all of a huge page).
    Clear { region: u64, block: u64 },
}

fn change() -> impl Strategy<Value = Change> {
    let (region, block, write) = (0..REGIONS, 0..32u64, any::<bool>());
    prop_oneof![
        (region.clone(), 0..512u64, 0..1000u64, write).prop_map(|(region, page, frame, write)| Change::Page {
            region,
            page,
            frame,
            write
        }),
        (region.clone(), block.clone(), 0..1000u64, write).prop_map(|(region, block, offset, write)| Change::Group {
            region,
            block,
            offset,
            write
        }),
        (region.clone(), block.clone(), 0..1000u64, write).prop_map(|(region, block, offset, write)| Change::Compact {
            region,
            block,
            offset,
            write
        }),
        (region.clone(), 0..100u64, write).prop_map(|(region, offset, write)| Change::Huge { region, offset, write }),
        (region, block).prop_map(|(region, block)| Change::Clear { region, block }),
    ]
}

/// What every mapped page leads to, and whether it may be written.
type Flat = BTreeMap<GpuVa, (BusAddr, bool)>;

struct World {
    rig: Rig,
    flat: Flat,
    kinds: [Option<Kind>; REGIONS as usize],
}

impl World {
    fn new() -> Self {
        Self { rig: Rig::new(), flat: Flat::new(), kinds: [None; REGIONS as usize] }
    }

    fn forget(&mut self, at: GpuVa, bytes: u64) {
        for i in 0..pages_of(bytes) as u64 {
            self.flat.remove(&at.add(i * SZ_4K));
        }
    }

    fn vram(&mut self, at: GpuVa, bytes: u64, offset: u64, write: bool) -> Leaf {
        for i in (0..bytes).step_by(SZ_4K as usize) {
            self.flat.insert(at.add(i), (BusAddr::Vram(vram(offset + i)), write));
        }
        Leaf { write, ..device(vram(offset)) }
    }

    /// Makes the region's level-1 entry what `kind` needs; everything that was mapped goes.
    fn become_kind(&mut self, region: u64, kind: Kind) {
        if self.kinds[region as usize] == Some(kind) {
            return;
        }
        let (gpu, at) = (self.rig.gpu.clone(), BASE.add(region * SZ_2M));
        self.forget(at, SZ_2M);
        if kind != Kind::Huge {
            let table = self.rig.tables.table(&gpu, at, 0, kind == Kind::Compact);
            gpu.table_write_run(table, 0, &[0; 512]);
        }
        self.kinds[region as usize] = Some(kind);
    }

    fn apply(&mut self, change: &Change) {
        let gpu = self.rig.gpu.clone();
        let (at, bytes) = match *change {
            Change::Page { region, page, frame, write } => {
                self.become_kind(region, Kind::Normal);
                let at = BASE.add(region * SZ_2M + page * SZ_4K);
                let group = at.align_down(SZ_64K);
                if let Some((BusAddr::Vram(_), _)) = self.flat.get(&group) {
                    self.clear_block(group);
                }
                let iova = gpu.iommu_map(HostFrame(frame), 1, true);
                self.rig.tables.map(&gpu, at, 0, Leaf { write, ..system(iova) });
                self.flat.insert(at, (BusAddr::System(HostFrame(frame)), write));
                (group, SZ_64K)
            }
            Change::Group { region, block, offset, write } => {
                self.become_kind(region, Kind::Normal);
                let at = BASE.add(region * SZ_2M + block * SZ_64K);
                let leaf = self.vram(at, SZ_64K, offset * SZ_64K, write);
                self.rig.tables.map_group(&gpu, at, leaf);
                (at, SZ_64K)
            }
            Change::Compact { region, block, offset, write } => {
                self.become_kind(region, Kind::Compact);
                let at = BASE.add(region * SZ_2M + block * SZ_64K);
                let leaf = self.vram(at, SZ_64K, offset * SZ_64K, write);
                self.rig.tables.map_compact(&gpu, at, leaf);
                (at, SZ_2M)
            }
            Change::Huge { region, offset, write } => {
                self.become_kind(region, Kind::Huge);
                let at = BASE.add(region * SZ_2M);
                let leaf = self.vram(at, SZ_2M, offset * SZ_2M, write);
                self.rig.tables.map(&gpu, at, 1, leaf);
                (at, SZ_2M)
            }
            Change::Clear { region, block } => {
                let at = BASE.add(region * SZ_2M);
                self.clear_block(at.add(block * SZ_64K));
                (at, SZ_2M)
            }
        };
        // A region that changed its kind lost more than what was mapped now.
        self.rig.flush(at.align_down(SZ_2M), bytes.max(SZ_2M));
    }

    fn clear_block(&mut self, at: GpuVa) {
        let (gpu, region) = (self.rig.gpu.clone(), at.align_down(SZ_2M));
        let tables = &mut self.rig.tables;
        match self.kinds[(at.offset_from(BASE) / SZ_2M) as usize] {
            None => {}
            Some(Kind::Huge) => {
                tables.write(&gpu, region, 1, false, 0);
                self.forget(region, SZ_2M);
            }
            Some(Kind::Compact) => {
                tables.write(&gpu, at, 0, true, 0);
                self.forget(at, SZ_64K);
            }
            Some(Kind::Normal) => {
                let table = tables.table(&gpu, at, 0, false);
                gpu.table_write_run(table, (at.0 >> 12) as usize & 511, &[0; 16]);
                self.forget(at, SZ_64K);
            }
        }
    }

    /// A store at `at` goes where the flat map says, or faults where it says nothing.
    fn probe(&self, at: GpuVa) -> Result<(), TestCaseError> {
        let rig = &self.rig;
        let context = rig.context();
        let batch = Some(rig.batch_at(0, &store_batch(at, 1)));
        rig.gpu.submit(context, Job { seqno: 1, batch, fence: None });
        let end = rig.run();
        let told = rig.irq.take();
        let writes = rig.bus.take_writes();
        match self.flat.get(&at.page()) {
            Some(&(page, true)) => prop_assert_eq!(writes, [(page, at.page_offset(), 4)]),
            other => {
                let [Told::Fault(fault)] = told[..] else {
                    return Err(TestCaseError::fail(format!("{other:?} at {at}: {told:?} {writes:?}")));
                };
                prop_assert_eq!(end, Step::Wait);
                rig.gpu.fault_ack(fault.slot, FaultAck::Kill);
                rig.run();
                rig.irq.take();
            }
        }
        rig.gpu.context_destroy(context);
        prop_assert_eq!(rig.gpu.take_records(), []);
        Ok(())
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]
    #[test]
    fn the_device_agrees_with_a_flat_map(
        steps in prop::collection::vec((change(), prop::collection::vec(0..REGIONS * SZ_2M / 4, 6)), 1..40),
    ) {
        let mut world = World::new();
        for (change, probes) in &steps {
            world.apply(change);
            for &probe in probes {
                world.probe(BASE.add(probe * 4))?;
            }
            let mapped: Vec<_> = world.flat.keys().copied().step_by(97).collect();
            for at in mapped {
                world.probe(at.add(8))?;
            }
        }
    }
}
