//! The driver's own copy engine of a tile.
//!
//! A job is a run of pages between two ranges of the address space of migrations. Both sides are translated, leaf by
//! leaf, by a TLB of the engine's own or by a walk, then taken through the frame check or the IOMMU, mapping by mapping. Only pages whose both sides came through are handed to the bus, as long
//! contiguous runs: the bus may execute them as moves. What the tables get wrong happens to the data, page by page:
//!
//! | destination | source | result |
//! |---|---|---|
//! | does not translate | any | engine fault: the page failed, a record |
//! | any | does not translate | the same |
//! | not in the IOMMU, or read-only there | any | the writes are dropped, a record; the device believes in success |
//! | NULL leaf | any | dropped, as asked |
//! | translated | not in the IOMMU | 0xff in every byte, a record |
//! | translated | NULL leaf | zeros |
//!
//! Locking: none of its own. Runs on the caller's thread.
//!
//! Upstream: `xe_migrate.c` (`xe_migrate_vram`) emits such jobs.

use crate::chip::Chip;
use crate::iommu::Mapped;
use crate::mmu::Mmu;
use crate::mmu::walker::Page;
use crate::port::BusAddr;
use crate::record::{Record, Violation};
use sync::atomic::AtomicU64;
use units::{Dpa, GpuVa, HostFrame, Iova, Joined, Outcome, PAGE_SHIFT, Report, SZ_2M, SZ_4K, bytes_of};
use xe_spec::fault::{Access, Asid, FaultType};

/// Pages that are handed to the bus at once, at most.
const LONGEST_RUN: usize = (SZ_2M >> PAGE_SHIFT) as usize;

/// A copy of consecutive pages.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CopyJob {
    /// Address space of the migrations.
    pub asid: Asid,
    /// First page read.
    pub src: GpuVa,
    /// First page written.
    pub dst: GpuVa,
    /// How many.
    pub pages: usize,
}

/// Where one side of a page ends.
#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    /// Memory.
    At(BusAddr),
    /// A NULL leaf.
    Null,
    /// The IOMMU refuses.
    Stray(Iova),
    /// The tables refuse.
    Fault(FaultType),
}

/// A page's end, and how many pages from it on end in consecutive memory; 1 where it is not memory.
struct Stretch {
    end: End,
    pages: usize,
}

/// One side of a job: remembers the leaf and the bus mapping that the last page was found in.
struct Side<'a> {
    chip: &'a Chip,
    mmu: &'a Mmu,
    asid: Asid,
    access: Access,
    leaf: Option<Page>,
    mapping: Option<(Iova, Mapped)>,
}

/// The copy engines of all tiles.
pub(crate) struct Copier {
    /// Page copies of all jobs so far.
    copies: AtomicU64,
}

impl Copier {
    pub(crate) fn new() -> Self {
        Self { copies: AtomicU64::new(0) }
    }

    /// Pages of all jobs so far.
    pub(crate) fn copies(&self) -> u64 {
        self.copies.load()
    }

    /// Executes a job on the engine of `mmu`'s tile, on the calling thread, and reports how its pages travelled, in
    /// order. The bus may take locks of the host's memory and may block.
    pub(crate) fn copy(&self, chip: &Chip, mmu: &Mmu, job: &CopyJob, report: &mut Report<'_>) {
        let mut told = Joined::new(report);
        let mut report = |pages, outcome| {
            chip.log.count_copies(pages, outcome);
            told.note(pages, outcome);
        };
        let side = |access| Side { chip, mmu, asid: job.asid, access, leaf: None, mapping: None };
        let (mut src, mut dst) = (side(Access::Read), side(Access::Write));
        let before = self.copies.fetch_add(job.pages as u64);
        let in_job = |number: Option<u64>| {
            number
                .and_then(|number| number.checked_sub(before))
                .filter(|page| *page < job.pages as u64)
                .map(|n| n as usize)
        };
        let (failing, last) = (in_job(chip.injection.fail_copy), in_job(chip.injection.stop_copy).unwrap_or(job.pages));
        let mut run: Option<Pairs> = None;
        let mut page = 0;
        while page < last {
            let from = src.resolve(job.src.add(bytes_of(page)));
            let to = dst.resolve(job.dst.add(bytes_of(page)));
            let end = failing.filter(|&failing| failing > page).unwrap_or(last);
            if let (End::At(from), End::At(to), pages) = (from.end, to.end, from.pages.min(to.pages))
                && failing != Some(page)
            {
                let pages = pages.min(end - page);
                page += pages;
                Pairs { from, to, pages }.join(&mut run, chip, &mut report);
                continue;
            }
            if let Some(pairs) = run.take() {
                pairs.transfer(chip, &mut report);
            }
            report(
                1,
                match failing {
                    Some(failing) if failing == page => Outcome::Failed,
                    _ => copy_odd(chip, mmu, job, page, (from.end, to.end)),
                },
            );
            page += 1;
        }
        if let Some(pairs) = run {
            pairs.transfer(chip, &mut report);
        }
    }
}

/// A page of which at least one side is not memory.
fn copy_odd(chip: &Chip, mmu: &Mmu, job: &CopyJob, page: usize, (src, dst): (End, End)) -> Outcome {
    let (tile, bytes) = (mmu.tile(), SZ_4K);
    let fault = |addr: GpuVa, access, fault_type| {
        let addr = chip.strip(addr.add(bytes_of(page)));
        chip.log.record(Record::CopyFault { tile, asid: job.asid, addr, access, fault_type });
    };
    if let End::Fault(fault_type) = src {
        fault(job.src, Access::Read, fault_type);
    }
    if let End::Fault(fault_type) = dst {
        fault(job.dst, Access::Write, fault_type);
    }
    if matches!(src, End::Fault(_)) || matches!(dst, End::Fault(_)) {
        return Outcome::Failed;
    }
    if let End::Stray(iova) = src {
        chip.log.record(Record::StrayRead { tile, iova, bytes });
    }
    let to = match dst {
        End::At(to) => to,
        End::Stray(iova) => {
            chip.log.record(Record::StrayWrite { tile, iova, bytes });
            return Outcome::Dropped;
        }
        End::Null | End::Fault(_) => return Outcome::Dropped,
    };
    let fill = if src == End::Null { 0 } else { 0xff };
    sync::point();
    match chip.bus.write(to, 0, &[fill; SZ_4K as usize]) {
        Ok(()) => Outcome::Copied,
        Err(_) => Outcome::Failed,
    }
}

impl Side<'_> {
    fn resolve(&mut self, addr: GpuVa) -> Stretch {
        let addr = self.chip.strip(addr);
        let page = match self.leaf.filter(|leaf| leaf.contains(addr)) {
            Some(page) => page,
            None => match self.mmu.translate_copy(self.chip, self.asid, addr, self.access) {
                Ok(page) => *self.leaf.insert(page),
                Err(refusal) => return Stretch { end: End::Fault(refusal.fault_type), pages: 1 },
            },
        };
        let (end, pages) = if page.leaf.null {
            (End::Null, 1)
        } else if page.leaf.device {
            self.frames(addr, Dpa(page.target(addr)))
        } else {
            self.bus_pages(Iova(page.target(addr)))
        };
        Stretch { end, pages: pages.min(page.pages_from(addr)) as usize }
    }

    fn frames(&self, addr: GpuVa, dpa: Dpa) -> (End, u64) {
        let frames = self.chip.frames_from(self.mmu.tile(), dpa);
        if frames > 0 {
            return (End::At(BusAddr::Vram(dpa)), frames);
        }
        let violation = Violation::OutsideVram(dpa);
        self.chip.log.record(Record::Malformed { tile: self.mmu.tile(), asid: self.asid, addr, violation });
        (End::Fault(FaultType::Malformed), 1)
    }

    fn bus_pages(&mut self, iova: Iova) -> (End, u64) {
        match self.ask_iommu(iova) {
            Some(mapped) if mapped.write || self.access == Access::Read => {
                (End::At(BusAddr::System(mapped.frame)), mapped.pages)
            }
            _ => (End::Stray(iova), 1),
        }
    }

    /// What the IOMMU says, or said when it was asked of a page of the same mapping.
    fn ask_iommu(&mut self, iova: Iova) -> Option<Mapped> {
        if let Some((first, mapped)) = self.mapping
            && let Some(further) = iova.page_number().checked_sub(first.page_number())
            && further < mapped.pages
        {
            return Some(Mapped { frame: mapped.frame.add(further), pages: mapped.pages - further, ..mapped });
        }
        let mapped = self.chip.iommu.lookup(iova)?;
        self.mapping = Some((iova, mapped));
        Some(mapped)
    }
}

/// Consecutive pages whose both sides are consecutive memory.
struct Pairs {
    from: BusAddr,
    to: BusAddr,
    pages: usize,
}

impl Pairs {
    /// Appends these pages to `run`; what is complete is transferred. A run ends where VRAM crosses a multiple of
    /// 2M, so that a huge page is in one run, whole.
    fn join(mut self, run: &mut Option<Self>, chip: &Chip, report: &mut Report<'_>) {
        while self.pages > 0 {
            let room = room(self.from).min(room(self.to)).min(self.pages);
            let rest = Self { from: further(self.from, room), to: further(self.to, room), pages: self.pages - room };
            self.pages = room;
            match run {
                Some(run) if run.goes_on(&self) => run.pages += self.pages,
                _ => {
                    if let Some(complete) = run.replace(self) {
                        complete.transfer(chip, report);
                    }
                }
            }
            self = rest;
        }
    }

    /// Whether `next`, which is the pages behind, can be in the same run.
    fn goes_on(&self, next: &Self) -> bool {
        self.pages + next.pages <= LONGEST_RUN
            && next.from == further(self.from, self.pages)
            && next.to == further(self.to, self.pages)
            && !starts_huge(next.from)
            && !starts_huge(next.to)
    }

    fn transfer(self, chip: &Chip, report: &mut Report<'_>) {
        sync::point();
        chip.bus.transfer(self.from, self.to, self.pages, report);
    }
}

fn further(addr: BusAddr, pages: usize) -> BusAddr {
    match addr {
        BusAddr::Vram(dpa) => BusAddr::Vram(dpa.add(bytes_of(pages))),
        BusAddr::System(HostFrame(frame)) => BusAddr::System(HostFrame(frame + pages as u64)),
    }
}

/// Pages from `addr` to where a run ends at the latest.
fn room(addr: BusAddr) -> usize {
    match addr {
        BusAddr::Vram(dpa) => LONGEST_RUN - (dpa.0 >> PAGE_SHIFT) as usize % LONGEST_RUN,
        BusAddr::System(_) => LONGEST_RUN,
    }
}

fn starts_huge(addr: BusAddr) -> bool {
    matches!(addr, BusAddr::Vram(dpa) if dpa.is_aligned(SZ_2M))
}
