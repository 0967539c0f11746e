//! The migration engine of a tile: copy jobs between its VRAM and wherever pages come from or go to.
//!
//! It has an address space of its own, with two parts:
//!
//! - **The identity window**: the VRAM of *all* tiles, at 256 GiB plus the distance from the device's first
//!   address, in 2M leaves that carry DM. A job reaches its own tile's side there, always.
//! - **Slots**: tables of 512 entries whose leaves a job writes for its far side. A far side of 2M that is one
//!   aligned run takes a single leaf of 2M in the table's place, for as long as the job runs. A slot belongs to one
//!   job at a time; a job that finds none free makes another, so that a CPU fault's job never waits for one.
//!
//! Which of the two the far side uses is a rule ([`Rules::copy_far_side`](crate::Rules::copy_far_side)). The
//! correct one is [`far_side`]: what lies in VRAM has its memory type from the window; slots are for system memory.
//!
//! Jobs run on the calling thread; the device's copy engine reports page by page.
//!
//! Locking: the slot lock, for a push or a pop of a slot, above the table pool only. Reader class may call
//! [`copy`](Migrate::copy).
//!
//! Upstream: `xe_migrate.c` (`xe_migrate_prepare_vm`, `xe_migrate_vram`, `build_pt_update_batch_sram`),
//! `xe_svm_copy`.

use sync::Mutex;
use sync::rank::mutex;
use sync::time::now_ns;
use units::{Dpa, GpuRange, GpuVa, SZ_1G, SZ_2M, SZ_4K, TileId, bytes_of};
use xe_spec::pat;
use xe_spec::platform::Platform;
use xe_spec::pte::{ENTRIES, Leaf, table_entry};

use crate::event::{CopyDirection, Event};
use crate::gpu::{Gpu, migrate_asid};
use crate::port::{Hw, PageOutcome};
use crate::pt::build::own_run;
use crate::pt::{NoTable, PageTable, TablePool, index_of};
use crate::ranks;
use crate::rules::{FarSide, Mapped};

/// Start of the identity window.
const IDENTITY: GpuVa = GpuVa(256 * SZ_1G);
/// Start of the slots; each covers 2M.
const SLOTS: GpuVa = GpuVa(SZ_1G);
/// Slots made when the device is probed.
const FIRST_SLOTS: usize = 8;
/// Slots at most: they end below the window.
const MAX_SLOTS: u64 = 512;

/// A tile's migration context.
pub(crate) struct Migrate {
    tile: TileId,
    /// The device's first address: the window's origin.
    origin: Dpa,
    slots: Mutex<Slots>,
}

struct Slots {
    pt: PageTable,
    idle: Vec<Slot>,
    made: u64,
}

/// A table of 512 entries for the far side of one job. While idle, it is linked.
struct Slot {
    va: GpuVa,
    table: Dpa,
    /// Where it is linked: a table of level 1, and the entry in it.
    link: (Dpa, usize),
    shows: Shows,
    /// A TLB may know what the last job wrote.
    used: bool,
}

/// What stands in the entry that links a slot's table.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Shows {
    /// The table.
    Table,
    /// One leaf of 2M, in its place.
    Leaf,
}

/// No copy job can be set up: tables are short.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct NoSlot;

/// The correct rule for a copy's far side: VRAM of any tile through the identity window, so that both ends
/// carry DM; system memory in slots.
pub(crate) fn far_side(addr: Mapped) -> FarSide {
    match addr {
        Mapped::System(iova) => FarSide::Slot(slot_leaf(iova.0)),
        Mapped::Vram(dpa) => FarSide::Identity(dpa),
    }
}

/// What a slot's entry says of a bus address.
pub(crate) fn slot_leaf(addr: u64) -> Leaf {
    Leaf { addr, device: false, write: true, atomic: false, null: false, ps64: false, pat: pat::PVC_WB }
}

/// Pages that one job carries: contiguous in the tile's VRAM, and of one kind on the far side.
struct Run {
    first: usize,
    pages: usize,
    near: Dpa,
    far: FarSide,
}

impl Migrate {
    /// Builds the address space.
    pub(crate) fn new(platform: &Platform, hw: &dyn Hw, pool: &TablePool, tile: TileId) -> Result<Self, NoTable> {
        let origin = platform.tiles.iter().map(|tile| tile.vram_base).min().unwrap_or_default();
        let mut pt = PageTable::new(pool, platform.root_level)?;
        for tile in platform.tiles {
            let leaf = Leaf { addr: tile.vram_base.0, device: true, ..slot_leaf(0) };
            let at = IDENTITY.add(tile.vram_base.offset_from(origin));
            let window = [own_run(at, 1, tile.vram_size / SZ_2M, leaf)];
            pt.stage(hw, pool, &window)?;
            pt.commit(hw, Leaf::encode, &window).ok_or(NoTable)?;
        }
        hw.set_root(tile, migrate_asid(tile), pt.root(), platform.needs_64k);
        let mut slots = Slots { pt, idle: Vec::new(), made: 0 };
        for _ in 0..FIRST_SLOTS {
            let slot = slots.make(hw, pool).ok_or(NoTable)?;
            slots.idle.push(slot);
        }
        Ok(Self { tile, origin, slots: mutex(ranks::SLOTS, slots) })
    }

    /// Copies page `i` between `near[i]`, in this tile's VRAM, and `far[i]`, wherever both are given, and sets
    /// `carried[i]` to whether the device reports it carried.
    pub(crate) fn copy(
        &self,
        gpu: &Gpu,
        direction: CopyDirection,
        near: &[Option<Dpa>],
        far: &[Option<Mapped>],
        carried: &mut [bool],
    ) -> Result<(), NoSlot> {
        let mut at = 0;
        while let Some(run) = next_run(at, near, far, gpu.rules.copy_far_side) {
            at = run.first + run.pages;
            self.run_job(gpu, direction, &run, &far[run.first..at], &mut carried[run.first..at])?;
        }
        Ok(())
    }

    fn run_job(
        &self,
        gpu: &Gpu,
        direction: CopyDirection,
        run: &Run,
        far: &[Option<Mapped>],
        carried: &mut [bool],
    ) -> Result<(), NoSlot> {
        let start = now_ns();
        let near = self.identity(run.near);
        let (far, slot) = match run.far {
            FarSide::Identity(dpa) => (self.identity(dpa), None),
            FarSide::Slot(_) => {
                let slot = self.fill_slot(gpu, far)?;
                (slot.va, Some(slot))
            }
        };
        let (src, dst) = match direction {
            CopyDirection::ToVram => (far, near),
            CopyDirection::FromVram => (near, far),
        };
        let mut outcomes = [PageOutcome::Failed; ENTRIES];
        gpu.hw.copy(self.tile, migrate_asid(self.tile), src, dst, &mut outcomes[..run.pages]);
        if let Some(mut slot) = slot {
            slot.link_table(&*gpu.hw);
            self.slots.lock().idle.push(slot);
        }
        carried.iter_mut().zip(&outcomes).for_each(|(carried, outcome)| *carried = outcome.carried());
        let carried = carried.iter().filter(|carried| **carried).count() as u32;
        let (tile, pages) = (self.tile, run.pages as u32);
        gpu.tell(Event::Copy { tile, direction, pages, carried, ns: now_ns() - start });
        Ok(())
    }

    /// Where the window shows a device address.
    fn identity(&self, dpa: Dpa) -> GpuVa {
        IDENTITY.add(dpa.0.wrapping_sub(self.origin.0))
    }

    /// A slot whose entries map `far`, and no TLB knows better.
    fn fill_slot(&self, gpu: &Gpu, far: &[Option<Mapped>]) -> Result<Slot, NoSlot> {
        let tile = gpu.tile(self.tile).ok_or(NoSlot)?;
        let mut slot = {
            let mut slots = self.slots.lock();
            let idle = slots.idle.pop();
            idle.or_else(|| slots.make(&*gpu.hw, &tile.tables)).ok_or(NoSlot)?
        };
        slot.show(&*gpu.hw, far, gpu.rules.copy_far_side);
        if std::mem::replace(&mut slot.used, true) {
            gpu.hw.tlb_invalidate(self.tile, migrate_asid(self.tile), GpuRange::sized(slot.va, SZ_2M));
        }
        Ok(slot)
    }
}

impl Slots {
    fn make(&mut self, hw: &dyn Hw, pool: &TablePool) -> Option<Slot> {
        if self.made == MAX_SLOTS {
            return None;
        }
        let va = SLOTS.add(self.made * SZ_2M);
        self.pt.stage(hw, pool, &[own_run(va, 0, 1, slot_leaf(0))]).ok()?;
        self.made += 1;
        let link = (self.pt.table_at(va, 1)?, index_of(va, 1));
        Some(Slot { va, table: self.pt.table_at(va, 0)?, link, shows: Shows::Table, used: false })
    }
}

impl Slot {
    /// Maps `far`: by one leaf where that can be, by entries of the table else.
    fn show(&mut self, hw: &dyn Hw, far: &[Option<Mapped>], rule: fn(Mapped) -> FarSide) {
        let leaf = |addr: &Option<Mapped>| match addr.map(rule) {
            Some(FarSide::Slot(leaf)) => Some(leaf),
            Some(FarSide::Identity(_)) | None => None,
        };
        if let Some(large) = large_leaf(far.iter().map(leaf)) {
            hw.table_write(self.link.0, self.link.1, large.encode(1));
            self.shows = Shows::Leaf;
            return;
        }
        let mut entries = [0; ENTRIES];
        for (entry, addr) in entries.iter_mut().zip(far) {
            *entry = leaf(addr).map_or(0, |leaf| leaf.encode(0));
        }
        hw.table_write_run(self.table, 0, &entries[..far.len().min(ENTRIES)]);
    }

    /// Puts the table back in its place.
    fn link_table(&mut self, hw: &dyn Hw) {
        if core::mem::replace(&mut self.shows, Shows::Table) == Shows::Leaf {
            hw.table_write(self.link.0, self.link.1, table_entry(self.table, false));
        }
    }
}

/// The leaf of 2M that says the same as `leaves`, if there is one: they fill a table, and go on from each other, from
/// an aligned address on.
fn large_leaf(mut leaves: impl ExactSizeIterator<Item = Option<Leaf>>) -> Option<Leaf> {
    if leaves.len() != ENTRIES {
        return None;
    }
    let first = leaves.next()??;
    let goes_on = |(n, leaf)| leaf == Some(Leaf { addr: first.addr.wrapping_add(bytes_of(n + 1)), ..first });
    (first.addr.is_multiple_of(SZ_2M) && leaves.enumerate().all(goes_on)).then_some(first)
}

/// The next pages from `at` that one job can carry.
fn next_run(at: usize, near: &[Option<Dpa>], far: &[Option<Mapped>], rule: fn(Mapped) -> FarSide) -> Option<Run> {
    let both = |i: usize| Some((*near.get(i)?.as_ref()?, rule(*far.get(i)?.as_ref()?)));
    let first = (at..near.len()).find(|i| both(*i).is_some())?;
    let (near, far) = both(first)?;
    let goes_on =
        |n: usize| both(first + n).is_some_and(|(dpa, side)| dpa == near.add(bytes_of(n)) && continues(far, side, n));
    let pages = (1..ENTRIES).find(|n| !goes_on(*n)).unwrap_or(ENTRIES);
    Some(Run { first, pages, near, far })
}

/// Whether `side` can be page `n` of a job whose first page has `first` on its far side.
fn continues(first: FarSide, side: FarSide, n: usize) -> bool {
    match (first, side) {
        (FarSide::Slot(_), FarSide::Slot(_)) => true,
        (FarSide::Identity(first), FarSide::Identity(dpa)) => dpa == first.add(n as u64 * SZ_4K),
        (FarSide::Slot(_), FarSide::Identity(_)) | (FarSide::Identity(_), FarSide::Slot(_)) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::FakeHw;
    use units::Iova;
    use xe_spec::platform::PVC;

    fn runs(near: &[Option<u64>], far: &[Option<Mapped>], rule: fn(Mapped) -> FarSide) -> Vec<(usize, usize)> {
        let near: Vec<_> = near.iter().map(|dpa| dpa.map(Dpa)).collect();
        let (mut at, mut out) = (0, Vec::new());
        while let Some(run) = next_run(at, &near, far, rule) {
            at = run.first + run.pages;
            out.push((run.first, run.pages));
        }
        out
    }

    #[test]
    fn holes_end_a_run_and_bus_addresses_may_scatter() {
        let system = |n| Some(Mapped::System(Iova(n)));
        let near = [Some(0x1000), Some(0x2000), Some(0x3000), None, Some(0x5000)];
        let far = [system(0x9000), system(0x4000), None, system(0), system(0x7000)];
        assert_eq!(runs(&near, &far, far_side), [(0, 2), (4, 1)]);
    }

    #[test]
    fn tile_to_tile_needs_both_sides_contiguous() {
        let vram = |n| Some(Mapped::Vram(Dpa(n)));
        let near = [Some(0x1000), Some(0x2000), Some(0x3000)];
        let far = [vram(0x9000), vram(0xa000), vram(0x20000)];
        assert_eq!(runs(&near, &far, far_side), [(0, 2), (2, 1)]);
        assert_eq!(runs(&near, &far, crate::upstream::copy::far_side), [(0, 3)]);
    }

    #[test]
    fn a_2m_run_takes_one_leaf_and_the_table_comes_back() {
        let (hw, pool) = (FakeHw::default(), TablePool::new(PVC.tiles[0].tables_base, 64 * SZ_4K));
        let migrate = Migrate::new(&PVC, &hw, &pool, TileId(0)).unwrap();
        let mut slot = migrate.slots.lock().idle.pop().unwrap();
        let at = |va: GpuVa| hw.walk(TileId(0), migrate_asid(TileId(0)), va).map(|(level, leaf)| (level, leaf.addr));
        let run = |first: u64, kind: fn(u64) -> Mapped| -> Vec<_> {
            (0..ENTRIES).map(|n| Some(kind(first + bytes_of(n)))).collect()
        };
        let system = |iova| Mapped::System(Iova(iova));

        let mut far = run(4 * SZ_2M, system);
        slot.show(&hw, &far, far_side);
        assert_eq!(at(slot.va.add(0x5000)), Some((1, 4 * SZ_2M)));
        slot.link_table(&hw);
        assert_eq!(at(slot.va), None, "no entry was written");
        far.pop();
        slot.show(&hw, &far, far_side);
        assert_eq!(at(slot.va.add(0x5000)), Some((0, 4 * SZ_2M + 0x5000)), "one page less");
        slot.show(&hw, &run(SZ_2M + SZ_4K, system), far_side);
        assert_eq!(at(slot.va), Some((0, SZ_2M + SZ_4K)), "not aligned");
        let mut far = run(SZ_2M, system);
        far[300] = Some(system(0));
        slot.show(&hw, &far, far_side);
        assert_eq!(at(slot.va.add(bytes_of(300))), Some((0, 0)), "not one run");

        let far = run(PVC.tiles[1].vram_base.0, |dpa| Mapped::Vram(Dpa(dpa)));
        slot.show(&hw, &far, crate::upstream::copy::far_side);
        assert_eq!(at(slot.va), Some((1, PVC.tiles[1].vram_base.0)));
        let leaf = hw.walk(TileId(0), migrate_asid(TileId(0)), slot.va).map(|(_, leaf)| leaf);
        assert_eq!(leaf, Some(slot_leaf(PVC.tiles[1].vram_base.0)), "system memory by mistake, at 2M too");
    }

    #[test]
    fn a_job_has_at_most_a_tables_entries() {
        let near: Vec<_> = (0..700u64).map(|n| Some(n << 12)).collect();
        let far: Vec<_> = (0..700u64).map(|n| Some(Mapped::System(Iova(n << 12)))).collect();
        assert_eq!(runs(&near, &far, far_side), [(0, 512), (512, 188)]);
    }
}
