//! The migration engine of a tile: copy jobs between its VRAM and wherever pages come from or go to.
//!
//! It has an address space of its own, with two parts:
//!
//! - **The identity window**: the VRAM of *all* tiles, at 256 GiB plus the distance from the device's first
//!   address, in 2M leaves that carry DM. A job reaches its own tile's side there, always.
//! - **Slots**: tables of 512 entries whose leaves a job writes for its remote side. A remote side of 2M that is one
//!   aligned run takes a single leaf of 2M in the table's place, for as long as the job runs. A slot belongs to one
//!   job at a time; a job that finds none free makes another, so that a CPU fault's job never waits for one.
//!
//! Which of the two the remote side uses is a rule ([`Rules::copy_remote_side`](crate::Rules::copy_remote_side)). The
//! correct one is [`remote_side`](crate::rules::remote_side): what lies in VRAM has its memory type from the window; slots are for system memory.
//!
//! A job takes as many runs as follow each other in the tile's VRAM, at most 2M: on the remote side, what stands in a slot
//! may scatter. Jobs run on the calling thread; the device's copy engine reports runs.
//!
//! Locking: the slot lock, for a push or a pop of a slot, above the table pool only. Reader class may call
//! [`copy`](Migrate::copy).
//!
//! Upstream: `xe_migrate.c` (`xe_migrate_prepare_vm`, `xe_migrate_vram`, `build_pt_update_batch_sram`),
//! `xe_svm_copy`.

use gpusvm::{CopyRun, PagemapAddr, Proto};
use hostmm::DevicePage;
use sync::Mutex;
use sync::rank::mutex;
use sync::time::now_ns;
use units::{Dpa, GpuRange, GpuVa, Iova, Outcome, Report, SZ_1G, SZ_2M, SZ_4K, SZ_64K, TileId, bytes_of};
use xe_spec::fault::Asid;
use xe_spec::platform::Platform;
use xe_spec::pte::{ENTRIES, Leaf, table_entry};

use crate::chip::{Chip, Extent};
use crate::event::{CopyDirection, Event, OtherSide};
use crate::port::Hw;
use crate::pt::build::own_run;
use crate::pt::{NoTable, PageTable, TablePool, index_of};
use crate::ranks;
use crate::rules::{Mapped, RemoteSide, slot_leaf};

/// Start of the identity window.
const IDENTITY: GpuVa = GpuVa(256 * SZ_1G);
/// Start of the slots; each covers 2M.
const SLOTS: GpuVa = GpuVa(SZ_1G);
/// Entries of a page of 64K.
const GROUP: usize = (SZ_64K / SZ_4K) as usize;
/// Slots made when the device is probed.
const FIRST_SLOTS: usize = 8;
/// Slots at most: they end below the window.
const MAX_SLOTS: u64 = 512;

/// Address space of a tile's migration context: the first ones.
const fn migrate_asid(tile: TileId) -> Asid {
    Asid(1 + tile.0 as u32)
}

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

/// A table of 512 entries for the remote side of one job. While idle, it is linked.
struct Slot {
    va: GpuVa,
    table: Dpa,
    /// Where it is linked: a table of level 1, and the entry in it.
    link: (Dpa, usize),
    shows: Shows,
    /// Bytes of the last job: a TLB may know what it wrote for them.
    used: u64,
    /// Room for a job's entries, in the order of its pages.
    entries: Vec<u64>,
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

/// What one job carries: contiguous in the tile's VRAM, and of one kind on the remote side.
struct Job<'a> {
    pieces: Pieces<'a>,
    pages: usize,
    local: DevicePage,
    remote: RemoteSide,
}

impl Job<'_> {
    /// How often each page crosses the system's bus: the device's own window there is out and back.
    fn crossings(&self) -> u32 {
        match self.remote {
            RemoteSide::Slot(_) => 1 + u32::from(self.pieces.next().is_some_and(|run| run.addr.proto == Proto::P2p)),
            RemoteSide::Identity(_) | RemoteSide::Nowhere => 0,
        }
    }
}

/// Runs of a copy from a page of the first of them on.
#[derive(Clone)]
struct Pieces<'a> {
    runs: &'a [CopyRun],
    /// Pages of the first run that are over.
    over: usize,
}

impl Pieces<'_> {
    /// The next run, or the rest of it.
    fn next(&self) -> Option<CopyRun> {
        let run = self.runs.first()?;
        let (page, pages) = (run.page.add(self.over as u64), run.addr.pages() - self.over);
        let addr = PagemapAddr { addr: run.addr.addr + bytes_of(self.over), pages: pages as u32, ..run.addr };
        Some(CopyRun { page, addr })
    }
    /// Passes over `pages` pages, of the next run.
    fn skip(&mut self, pages: usize) {
        self.over += pages;
        if self.runs.first().is_some_and(|run| run.addr.pages() == self.over) {
            (self.runs, self.over) = (&self.runs[1..], 0);
        }
    }
}

fn mapped(addr: PagemapAddr) -> Mapped {
    match addr.proto {
        Proto::Vram => Mapped::Vram(Dpa(addr.addr)),
        Proto::System | Proto::P2p => Mapped::System(Iova(addr.addr)),
    }
}

impl Migrate {
    /// Builds the address space.
    pub(crate) fn new(platform: &Platform, hw: &dyn Hw, pool: &TablePool, tile: TileId) -> Result<Self, NoTable> {
        let origin = platform.tiles.iter().map(|tile| tile.vram_base).min().unwrap_or_default();
        let mut pt = PageTable::new(pool, platform.root_level)?;
        for tile in platform.tiles.iter().filter(|tile| tile.vram_size > 0) {
            let leaf = Leaf { addr: tile.vram_base.0, device: true, pat: platform.pat.wb, ..slot_leaf(0) };
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

    /// Copies runs between the VRAM of `of`, which is this tile or one whose pages it carries, and wherever their other sides are; reports how the pages travelled, in
    /// order. More slots take tables of `pool`.
    pub(crate) fn copy(
        &self,
        chip: &Chip,
        pool: &TablePool,
        direction: CopyDirection,
        of: Extent,
        runs: &[CopyRun],
        report: &mut Report<'_>,
    ) -> Result<(), NoSlot> {
        let mut rest = Pieces { runs, over: 0 };
        while let Some(job) = next_job(&mut rest, chip.rules.copy_remote_side) {
            self.run_job(chip, pool, direction, of, &job, report)?;
        }
        Ok(())
    }

    fn run_job(
        &self,
        chip: &Chip,
        pool: &TablePool,
        direction: CopyDirection,
        of: Extent,
        job: &Job<'_>,
        report: &mut Report<'_>,
    ) -> Result<(), NoSlot> {
        let start = now_ns();
        let local = self.identity(of.dpa(job.local));
        let (remote, slot, told) = match job.remote {
            RemoteSide::Identity(dpa) => (self.identity(dpa), None, OtherSide::Vram(dpa)),
            RemoteSide::Slot(leaf) => {
                let slot = self.fill_slot(chip, pool, job)?;
                (slot.va, Some(slot), OtherSide::Bus(Iova(leaf.addr)))
            }
            RemoteSide::Nowhere => {
                report(job.pages, Outcome::Dropped);
                return Ok(());
            }
        };
        let (src, dst) = match direction {
            CopyDirection::ToVram => (remote, local),
            CopyDirection::FromVram => (local, remote),
        };
        let mut carried = 0;
        chip.hw.copy(self.tile, migrate_asid(self.tile), src, dst, job.pages, &mut |pages, outcome| {
            carried += if outcome.carried() { pages as u32 } else { 0 };
            report(pages, outcome);
        });
        if let Some(mut slot) = slot {
            slot.link_table(&*chip.hw);
            self.slots.lock().idle.push(slot);
        }
        let (tile, pages, crossings) = (self.tile, job.pages as u32, job.crossings());
        let ns = now_ns() - start;
        chip.emit(Event::Copy { tile, direction, pages, carried, remote: told, crossings, ns });
        Ok(())
    }

    /// Where the window shows a device address.
    fn identity(&self, dpa: Dpa) -> GpuVa {
        IDENTITY.add(dpa.0.wrapping_sub(self.origin.0))
    }

    /// A slot whose entries map the remote side of a job, and no TLB knows better.
    fn fill_slot(&self, chip: &Chip, pool: &TablePool, job: &Job<'_>) -> Result<Slot, NoSlot> {
        let mut slot = {
            let mut slots = self.slots.lock();
            let idle = slots.idle.pop();
            idle.or_else(|| slots.make(&*chip.hw, pool)).ok_or(NoSlot)?
        };
        slot.show(&*chip.hw, job, chip.rules.copy_remote_side, chip.platform.pat.wb);
        let used = std::mem::replace(&mut slot.used, bytes_of(job.pages));
        if used > 0 {
            chip.hw.tlb_invalidate(self.tile, migrate_asid(self.tile), GpuRange::sized(slot.va, used));
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
        Some(Slot { va, table: self.pt.table_at(va, 0)?, link, shows: Shows::Table, used: 0, entries: Vec::new() })
    }
}

impl Slot {
    /// Maps the remote side of a job: by one leaf where that can be, by entries of the table else.
    fn show(&mut self, hw: &dyn Hw, job: &Job<'_>, rule: fn(Mapped) -> RemoteSide, pat: u8) {
        let (mut pieces, mut filled) = (job.pieces.clone(), 0);
        self.entries.clear();
        self.entries.reserve_exact(job.pages);
        while let Some(piece) = pieces.next().filter(|_| filled < job.pages) {
            let pages = piece.addr.pages().min(job.pages - filled);
            let RemoteSide::Slot(leaf) = rule(mapped(piece.addr)) else { break };
            let leaf = Leaf { pat, ..leaf };
            if pages == ENTRIES && leaf.addr.is_multiple_of(SZ_2M) {
                hw.table_write(self.link.0, self.link.1, leaf.encode(1));
                self.shows = Shows::Leaf;
                return;
            }
            // Whole pages of 64K say so: the engine then walks once for each.
            let wide = (bytes_of(filled) | leaf.addr).is_multiple_of(SZ_64K);
            let wide = if wide { pages / GROUP * GROUP } else { 0 };
            self.entries.extend((0..pages).map(|n| {
                let addr = leaf.addr.wrapping_add(bytes_of(n));
                Leaf { addr, ps64: n < wide, ..leaf }.encode(0)
            }));
            filled += pages;
            pieces.skip(pages);
        }
        hw.table_write_run(self.table, 0, &self.entries);
    }

    /// Puts the table back in its place.
    fn link_table(&mut self, hw: &dyn Hw) {
        if core::mem::replace(&mut self.shows, Shows::Table) == Shows::Leaf {
            hw.table_write(self.link.0, self.link.1, table_entry(self.table, false));
        }
    }
}

/// Takes from `rest` what one job can carry.
fn next_job<'a>(rest: &mut Pieces<'a>, rule: fn(Mapped) -> RemoteSide) -> Option<Job<'a>> {
    let pieces = rest.clone();
    let first = rest.next()?;
    let (local, remote) = (first.page, rule(mapped(first.addr)));
    let mut pages = 0;
    while let Some(piece) = rest.next().filter(|_| pages < ENTRIES) {
        if piece.page != local.add(pages as u64) || !continues(remote, rule(mapped(piece.addr)), pages) {
            break;
        }
        let here = piece.addr.pages().min(ENTRIES - pages);
        rest.skip(here);
        pages += here;
    }
    Some(Job { pieces, pages, local, remote })
}

/// Whether `side` can be page `n` of a job whose first page has `first` on its remote side.
fn continues(first: RemoteSide, side: RemoteSide, n: usize) -> bool {
    match (first, side) {
        (RemoteSide::Slot(_), RemoteSide::Slot(_)) => true,
        (RemoteSide::Identity(first), RemoteSide::Identity(dpa)) => dpa == first.add(n as u64 * SZ_4K),
        (RemoteSide::Nowhere, RemoteSide::Nowhere) => true,
        (RemoteSide::Slot(_) | RemoteSide::Identity(_) | RemoteSide::Nowhere, _) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::remote_side;
    use crate::testing::FakeHw;
    use gpusvm::Direction;
    use hostmm::PagemapId;
    use xe_spec::platform::PVC;

    const BOTH: Direction = Direction::Both;

    fn system(iova: u64, pages: usize) -> PagemapAddr {
        PagemapAddr::system(Iova(iova), pages, BOTH)
    }
    fn vram(dpa: u64, pages: usize) -> PagemapAddr {
        PagemapAddr { proto: Proto::Vram, ..system(dpa, pages) }
    }
    fn run(frame: u64, addr: PagemapAddr) -> CopyRun {
        CopyRun { page: DevicePage { pagemap: PagemapId(0), frame }, addr }
    }
    /// First frame and length of each job.
    fn jobs(runs: &[CopyRun], rule: fn(Mapped) -> RemoteSide) -> Vec<(u64, usize)> {
        let mut rest = Pieces { runs, over: 0 };
        std::iter::from_fn(|| next_job(&mut rest, rule)).map(|job| (job.local.frame, job.pages)).collect()
    }

    #[test]
    fn a_job_ends_where_vram_does_and_bus_addresses_may_scatter() {
        let runs =
            [run(1, system(0x9000, 2)), run(3, system(0x4000, 1)), run(5, system(0x0, 1)), run(6, system(0x7000, 3))];
        assert_eq!(jobs(&runs, remote_side), [(1, 3), (5, 4)]);
    }

    #[test]
    fn tile_to_tile_needs_both_sides_contiguous() {
        let runs = [run(1, vram(0x9000, 1)), run(2, vram(0xa000, 1)), run(3, vram(0x20000, 1))];
        assert_eq!(jobs(&runs, remote_side), [(1, 2), (3, 1)]);
        assert_eq!(jobs(&runs, crate::upstream::copy::remote_side), [(1, 3)]);
    }

    #[test]
    fn a_2m_run_takes_one_leaf_and_the_table_comes_back() {
        let (hw, pool) = (FakeHw::default(), TablePool::new(PVC.tiles[0].tables_base, 64 * SZ_4K));
        let migrate = Migrate::new(&PVC, &hw, &pool, TileId(0)).unwrap();
        let mut slot = migrate.slots.lock().idle.pop().unwrap();
        let at = |va: GpuVa| hw.walk(TileId(0), migrate_asid(TileId(0)), va).map(|(level, leaf)| (level, leaf.addr));
        let show = |slot: &mut Slot, runs: &[CopyRun], rule: fn(Mapped) -> RemoteSide| {
            let job = next_job(&mut Pieces { runs, over: 0 }, rule).expect("a job");
            slot.show(&hw, &job, rule, PVC.pat.wb);
        };

        show(&mut slot, &[run(0, system(4 * SZ_2M, ENTRIES))], remote_side);
        assert_eq!(at(slot.va.add(0x5000)), Some((1, 4 * SZ_2M)));
        slot.link_table(&hw);
        assert_eq!(at(slot.va), None, "no entry was written");
        show(&mut slot, &[run(0, system(4 * SZ_2M, ENTRIES - 1))], remote_side);
        assert_eq!(at(slot.va.add(0x5000)), Some((0, 4 * SZ_2M + 0x5000)), "one page less");
        show(&mut slot, &[run(0, system(SZ_2M + SZ_4K, ENTRIES))], remote_side);
        assert_eq!(at(slot.va), Some((0, SZ_2M + SZ_4K)), "not aligned");
        show(&mut slot, &[run(0, system(SZ_2M, 300)), run(300, system(0, 212))], remote_side);
        assert_eq!(at(slot.va.add(bytes_of(299))), Some((0, SZ_2M + bytes_of(299))));
        assert_eq!(at(slot.va.add(bytes_of(300))), Some((0, 0)), "not one run");

        let other = PVC.tiles[1].vram_base.0;
        show(&mut slot, &[run(0, vram(other, ENTRIES))], crate::upstream::copy::remote_side);
        assert_eq!(at(slot.va), Some((1, other)));
        let leaf = hw.walk(TileId(0), migrate_asid(TileId(0)), slot.va).map(|(_, leaf)| leaf);
        assert_eq!(leaf, Some(Leaf { pat: PVC.pat.wb, ..slot_leaf(other) }), "system memory by mistake, at 2M too");
    }

    #[test]
    fn a_job_has_at_most_a_tables_entries() {
        let whole = [run(0, system(0, 700))];
        assert_eq!(jobs(&whole, remote_side), [(0, 512), (512, 188)]);
        let single: Vec<_> = (0..700).map(|n| run(n, system(n << 13, 1))).collect();
        assert_eq!(jobs(&single, remote_side), [(0, 512), (512, 188)]);
        let mut rest = Pieces { runs: &whole, over: 0 };
        next_job(&mut rest, remote_side);
        assert_eq!(rest.next().map(|run| (run.page.frame, run.addr.addr)), Some((512, 512 << 12)));
    }
}
