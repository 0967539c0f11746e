//! One access of a command streamer, from virtual address to bytes. A copy's may be longer than a page: one translation
//! serves all that lies behind it.
//!
//! TLB or walk, then the frame check or the IOMMU, then the bus; the window of the access (see `mmu/mod.rs`) is open
//! until VRAM has answered, the device's own or a peer's. No lock is held while the bus works.

use super::Mmu;
use super::walker::{Page, Refusal};
use crate::chip::Chip;
use crate::iommu::Mapped;
use crate::port::{BusAddr, BusError, Rmw};
use crate::record::{Record, Violation};
use units::{Dpa, GpuVa, HostFrame, Iova, SZ_4K};
use xe_spec::fault::{Access, Asid, EngineId, FaultType};

/// Who accesses, and through what.
#[derive(Clone, Copy)]
pub(crate) struct Initiator<'a> {
    pub(crate) chip: &'a Chip,
    /// Of the engine's tile.
    pub(crate) mmu: &'a Mmu,
    pub(crate) engine: EngineId,
    /// The engine's number inside its tile.
    pub(crate) slot: usize,
    pub(crate) asid: Asid,
}

/// What is accessed. A read-modify-write lies in one 4K page.
pub(crate) enum Op<'a> {
    Read(&'a mut [u8]),
    Write(&'a [u8]),
    /// Writes a part of a copy so long that nobody reads it soon: whole pages of it go around the host's caches.
    Stream(&'a [u8]),
    Rmw {
        size: usize,
        op: Update,
    },
}

/// What a read-modify-write stores.
#[derive(Clone, Copy)]
pub(crate) enum Update {
    /// As the bus does it.
    Bus(Rmw),
    /// What the function says of what is there and the operand.
    By(fn(u64, u64) -> u64, u64),
}

impl Op<'_> {
    fn access(&self) -> Access {
        match self {
            Self::Read(_) => Access::Read,
            Self::Write(_) | Self::Stream(_) => Access::Write,
            Self::Rmw { .. } => Access::Atomic,
        }
    }

    fn bytes(&self) -> usize {
        match self {
            Self::Read(buf) => buf.len(),
            Self::Write(bytes) | Self::Stream(bytes) => bytes.len(),
            Self::Rmw { size, .. } => *size,
        }
    }

    /// Bytes of it from `at` on.
    fn part(&mut self, at: usize, bytes: usize) -> Op<'_> {
        match self {
            Self::Read(buf) => Op::Read(&mut buf[at..at + bytes]),
            Self::Write(all) => Op::Write(&all[at..at + bytes]),
            Self::Stream(all) => Op::Stream(&all[at..at + bytes]),
            Self::Rmw { size, op } => Op::Rmw { size: *size, op: *op },
        }
    }

    /// What the initiator sees where no memory answers: every byte is `fill`; writes are lost.
    fn unanswered(&mut self, fill: u8) {
        if let Self::Read(buf) = self {
            buf.fill(fill);
        }
    }
}

impl Initiator<'_> {
    /// Does `op` at `addr`, or says why the driver must be asked first. Does not cross a 4K page.
    pub(crate) fn access(&self, addr: GpuVa, op: Op<'_>) -> Result<(), Refusal> {
        self.stream(addr, op).map(drop)
    }

    /// The first bytes of `op` at `addr`, as many as one translation and consecutive memory behind it give: at least those
    /// to the end of the 4K page. How many, or why the driver must be asked first.
    pub(crate) fn stream(&self, addr: GpuVa, mut op: Op<'_>) -> Result<usize, Refusal> {
        let addr = self.chip.strip(addr);
        loop {
            match self.try_stream(addr, &mut op)? {
                0 if op.bytes() > 0 => sync::yield_now(),
                bytes => return Ok(bytes),
            }
        }
    }

    /// The same once; 0 where VRAM is closed and nothing was done.
    fn try_stream(&self, addr: GpuVa, op: &mut Op<'_>) -> Result<usize, Refusal> {
        let (window, page) = self.mmu.translate(self.chip, self.slot, self.asid, addr, op.access())?;
        let within = |pages: u64| (pages * SZ_4K - addr.page_offset() as u64).min(op.bytes() as u64) as usize;
        let pages = page.pages_from(addr);
        if page.leaf.null {
            let bytes = within(pages);
            op.part(0, bytes).unanswered(0);
            Ok(bytes)
        } else if page.leaf.device {
            let (dpa, frames) = self.frames(addr, page)?;
            let bytes = within(pages.min(frames));
            Ok(self.access_vram(addr, dpa, &mut op.part(0, bytes)))
        } else {
            let iova = Iova(page.target(addr)).add(addr.page_offset() as u64);
            // Inside the window: a flush that follows a zap waits until the IOMMU has been asked, and the mapping is
            // not taken away before.
            let mapped = self.ask_iommu(iova, op.access());
            let bytes = within(mapped.map_or(1, |mapped| mapped.pages.min(pages)));
            let mut part = op.part(0, bytes);
            let Some(mapped) = mapped else {
                self.stray(iova, &mut part);
                return Ok(bytes);
            };
            let window = (!self.chip.bus.system_access_may_block(mapped.frame)).then_some(window);
            let bytes = self.access_system(addr, mapped.frame, &mut part)?;
            drop(window);
            Ok(bytes)
        }
    }

    /// Copies up to `pages` pages of a long copy, from `from` on to `to` on, straight from memory to memory. How many; 0 where
    /// that is not known to be possible, and the bytes must be read and written.
    pub(crate) fn copy_straight(&self, from: GpuVa, to: GpuVa, pages: usize) -> usize {
        let (from, to) = (self.chip.strip(from), self.chip.strip(to));
        let sides = [(from, Access::Read), (to, Access::Write)];
        let Some((_window, found)) = self.mmu.translate_known(self.chip, self.slot, self.asid, sides) else { return 0 };
        let side = |n: usize| self.run(sides[n].0, found[n], sides[n].1);
        let (Some((src, readable)), Some((dst, writable))) = (side(0), side(1)) else { return 0 };
        let copied = self.chip.bus.stream_pages(src, dst, pages.min(readable.min(writable) as usize));
        self.chip.bus.drain();
        copied
    }

    /// The memory behind a page that was translated, and how many pages are in one run from there; `None` where there is
    /// none.
    fn run(&self, addr: GpuVa, page: Page, access: Access) -> Option<(BusAddr, u64)> {
        let (target, pages) = (page.target(addr), page.pages_from(addr));
        if page.leaf.null {
            return None;
        }
        if page.leaf.device {
            let frames = self.chip.frames_from(self.engine.tile, Dpa(target));
            return (frames > 0).then_some((BusAddr::Vram(Dpa(target)), pages.min(frames)));
        }
        let mapped = self.ask_iommu(Iova(target), access)?;
        Some((BusAddr::System(mapped.frame), pages.min(mapped.pages)))
    }

    /// The frame that a DM page leads to, and how many follow it.
    fn frames(&self, addr: GpuVa, page: Page) -> Result<(Dpa, u64), Refusal> {
        let dpa = Dpa(page.target(addr));
        let frames = self.chip.frames_from(self.engine.tile, dpa);
        if frames > 0 {
            return Ok((dpa, frames));
        }
        let violation = Violation::OutsideVram(dpa);
        self.chip.log.record(Record::Malformed { tile: self.engine.tile, asid: self.asid, addr, violation });
        Err(Refusal::malformed(page.level, violation))
    }

    /// How many bytes; 0 where VRAM is closed.
    fn access_vram(&self, addr: GpuVa, dpa: Dpa, op: &mut Op<'_>) -> usize {
        let access = op.access();
        let first = addr.page_offset();
        self.by_pages(first, op, |page, offset, part| {
            let dpa = dpa.add(page * SZ_4K);
            match self.perform(BusAddr::Vram(dpa), offset, part) {
                Ok(()) => Ok(()),
                Err(BusError::Again) => Err(()),
                Err(BusError::Empty | BusError::Fault | BusError::NoAtomics) => {
                    part.unanswered(0xff);
                    let (engine, asid) = (self.engine, self.asid);
                    let addr = GpuVa(addr.page().0 + page * SZ_4K + offset as u64);
                    self.chip.log.record(Record::StaleVram { engine, asid, addr, dpa, access });
                    Ok(())
                }
            }
        })
        .unwrap_or_else(|(bytes, ())| bytes)
    }

    /// What is behind a bus address; `None` where the IOMMU refuses.
    fn ask_iommu(&self, iova: Iova, access: Access) -> Option<Mapped> {
        sync::point();
        self.chip.iommu.lookup(iova).filter(|mapped| mapped.write || access == Access::Read)
    }

    /// The IOMMU refuses: posted writes are dropped without the device's knowledge, reads give all ones.
    fn stray(&self, iova: Iova, op: &mut Op<'_>) {
        let (tile, bytes) = (self.engine.tile, op.bytes() as u64);
        op.unanswered(0xff);
        self.chip.log.record(match op.access() {
            Access::Read => Record::StrayRead { tile, iova, bytes },
            Access::Write | Access::Atomic => Record::StrayWrite { tile, iova, bytes },
        });
    }

    /// How many bytes. Memory that the host took away is a page fault, unless bytes before it were reached: the driver
    /// knows what became of it.
    fn access_system(&self, addr: GpuVa, frame: HostFrame, op: &mut Op<'_>) -> Result<usize, Refusal> {
        let access = op.access();
        let done = self.by_pages(addr.page_offset(), op, |page, offset, part| {
            self.perform(BusAddr::System(frame.add(page)), offset, part)
        });
        match done {
            Ok(bytes) | Err((bytes @ 1.., _)) => Ok(bytes),
            Err((0, error)) => {
                let (engine, asid) = (self.engine, self.asid);
                if error == BusError::NoAtomics {
                    self.chip.log.record(Record::PeerAtomic { engine, asid, addr, frame });
                    return Err(Refusal::plain(FaultType::AtomicViolation, 0));
                }
                self.chip.log.record(Record::SystemFault { engine, asid, addr, frame, access });
                Err(Refusal::plain(FaultType::NotPresent, 0))
            }
        }
    }

    /// Does `op`, which starts at offset `first` of the first page, page by page: `each` is given the page's number and the
    /// offset in it. Bytes done, and the error of the page that came next.
    fn by_pages<E>(
        &self,
        first: usize,
        op: &mut Op<'_>,
        mut each: impl FnMut(u64, usize, &mut Op<'_>) -> Result<(), E>,
    ) -> Result<usize, (usize, E)> {
        let (mut done, all) = (0, op.bytes());
        let mut result = Ok(());
        while done < all && result.is_ok() {
            let (page, offset) = ((first + done) / SZ_4K as usize, (first + done) % SZ_4K as usize);
            let bytes = (all - done).min(SZ_4K as usize - offset);
            result = each(page as u64, offset, &mut op.part(done, bytes));
            done += if result.is_ok() { bytes } else { 0 };
        }
        if let Op::Stream(_) = op {
            self.chip.bus.drain();
        }
        result.map(|()| done).map_err(|error| (done, error))
    }

    fn perform(&self, page: BusAddr, offset: usize, op: &mut Op<'_>) -> Result<(), BusError> {
        sync::point();
        match op {
            Op::Read(buf) => self.chip.bus.read(page, offset, buf),
            Op::Stream(bytes) if bytes.len() as u64 == SZ_4K => self.chip.bus.stream(page, bytes),
            Op::Write(bytes) | Op::Stream(bytes) => self.chip.bus.write(page, offset, bytes),
            Op::Rmw { size, op: Update::Bus(op) } => self.chip.bus.rmw(page, offset, *size, *op).map(drop),
            Op::Rmw { size, op: Update::By(of, operand) } => {
                let replace =
                    |expected, new| self.chip.bus.rmw(page, offset, *size, Rmw::CompareExchange { expected, new });
                let mut old = replace(0, of(0, *operand))?;
                let mut expected = 0;
                while old != expected {
                    expected = old;
                    old = replace(expected, of(expected, *operand))?;
                }
                Ok(())
            }
        }
    }
}
