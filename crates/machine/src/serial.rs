//! A machine that does one thing after the other: a tile's access whose faults are served at once, a CPU's, munmap, eviction; and
//! what can be seen of that. For who compares it with another engine, in numbers only.
//!
//! Key types: [`Serial`], [`Happened`]. Played inside of a run of the checker ([`Serial::play`]), so it is the same each time.
//!
//! Locking: none of its own.

use crate::behaviour::Behaviours;
use crate::checked::{Checked, Company, Config, Manner, MapKind};
use crate::program::Program;
use crate::stats::kind_name;
use crate::story::{CopyDirection, DriverEvent, OtherSide, Serviced, Story, Told};
use crate::topology::PVC_SMALL;
use hostmm::Place;
use mm_sim::{Event, Log};
use std::cell::Cell;
use std::collections::BTreeMap;
use std::panic::Location;
use std::sync::Arc;
use sync::rank::{self, Rank};
use sync::sim::{Limits, Outcome, Replay};
use units::{GpuVa, HostRange, HostVa, SZ_4K, SZ_64K, TileId};
use xe_hw::{Injection, Translation};
use xe_kmd::{Errno, RangeBook};
use xe_spec::fault::{Access, Asid, ContextId, EngineClass, EngineId, FaultRecord, FaultSlot, FaultType};
use xe_spec::platform::Platform;

/// How often a tile tries an access.
const TRIES: usize = 4;
/// How often the driver's workers are let go on.
const WORKERS_TURNS: usize = 8;
/// Errno of an access that faults again and again.
const ELOOP: i64 = 40;
const EFAULT: i64 = 14;

/// One thing that happened. Addresses are the process'.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Happened {
    /// A fault, or an access, was answered: 0, or an errno below it.
    Answer(i64),
    /// The kernel told of a change.
    Notice(&'static str, u64, u64),
    /// Translations of a tile were flushed.
    Flush(u8, u64, u64),
    /// A tile's engine copied so many pages between the tile's VRAM and another place.
    Copy(u8, CopyDirection, OtherSide, u64),
    /// A tile wrote, or else read, so many bytes where no mapping covers a bus address.
    Stray(u8, bool, u64),
}

/// Where it comes from.
pub type At = Option<&'static Location<'static>>;

/// The machine, and one block of memory at an address of the caller's choosing.
pub struct Serial {
    checked: Checked,
    story: Arc<Story>,
    _program: Program,
    asid: Asid,
    platform: &'static Platform,
    /// Lines of the story that were looked at.
    read: Cell<usize>,
    /// Somebody watches the process: the kernel told nobody before.
    watched: Cell<bool>,
}

impl Serial {
    /// Plays `then` on a fresh machine whose process has a block of 64K at `block`, with `tiles` tiles: one that maps its VRAM by 4K, or
    /// two that want 64K.
    pub fn play<R: Send + 'static>(
        tiles: u8,
        block: u64,
        behaviours: Behaviours,
        then: impl FnOnce(&Self) -> R + Send + 'static,
    ) -> Result<R, String> {
        let result = Arc::new(rank::mutex(Rank::LEAF, None));
        let to = result.clone();
        let report = sync::sim::run(&mut Replay::default(), Limits::default(), move || {
            let played = Self::new(tiles, block, behaviours)
                .map(|machine| then(&machine))
                .map_err(|errno| errno.name().to_owned());
            *to.lock() = Some(played);
        });
        if report.outcome != Outcome::Finished {
            return Err(report.outcome.to_string());
        }
        let played = result.lock().take();
        played.unwrap_or_else(|| Err("it was not played".to_owned()))
    }

    fn new(tiles: u8, block: u64, behaviours: Behaviours) -> Result<Self, Errno> {
        let story = Arc::new(Story::default());
        let platform = platform(tiles);
        let config = Config { log: Log::Keep, ..Config::default() };
        let checked = Checked::on(
            &[platform],
            config,
            Manner::Linux,
            behaviours,
            Injection::default(),
            Company::Alone,
            Some(&story),
        )?;
        let range = HostRange::sized(HostVa(block), SZ_64K);
        checked.sim.mmap_at(range, MapKind::Anonymous).map_err(|_| Errno::ENOMEM)?;
        let program = checked.open();
        let vm = program.vm_create()?;
        program.bind_mirror(vm, None)?;
        let asid = program.file().asid(vm).ok_or(Errno::EINVAL)?;
        let (read, watched) = (Cell::new(0), Cell::new(false));
        Ok(Self { checked, story, _program: program, asid, platform, read, watched })
    }

    /// A tile loads a word, or stores it; its faults are served. What it loaded, or the errno.
    pub fn tile(&self, tile: u8, addr: u64, store: Option<u64>) -> Result<u64, i64> {
        let engine = EngineId { tile: TileId(tile), class: EngineClass::Compute, instance: 0 };
        for _ in 0..TRIES {
            match self.checked.core.gpu().access(engine, self.asid, GpuVa(addr), store) {
                Ok(loaded) => return Ok(store.unwrap_or(loaded)),
                Err(fault_type) => self.fault(engine, addr, store.is_some(), fault_type),
            }
            if let Some(DriverEvent::Fault { outcome: Serviced::Refused(errno), .. }) = self.last_fault() {
                return Err(i64::from(errno.0));
            }
        }
        Err(ELOOP)
    }

    fn fault(&self, engine: EngineId, addr: u64, write: bool, fault_type: FaultType) {
        let record = FaultRecord {
            slot: FaultSlot { engine, context: ContextId(u32::MAX), serial: 0 },
            asid: self.asid,
            addr: GpuVa(addr),
            access: if write { Access::Write } else { Access::Read },
            fault_type,
            level: 0,
        };
        self.checked.core.device().page_fault(record);
        while self.checked.core.device().service_fault() {}
    }

    fn last_fault(&self) -> Option<DriverEvent> {
        self.story.lines().into_iter().rev().find_map(|line| match line.told {
            Told::Driver(_, fault @ DriverEvent::Fault { .. }) => Some(fault),
            _ => None,
        })
    }

    /// A CPU does.
    pub fn cpu(&self, addr: u64, store: Option<u64>) -> Result<u64, i64> {
        let sim = &self.checked.sim;
        let done = match store {
            Some(value) => sim.store_u64(HostVa(addr), value).map(|()| value),
            None => sim.load_u64(HostVa(addr)),
        };
        done.map_err(|_| EFAULT)
    }

    /// Memory goes.
    pub fn unmap(&self, start: u64, bytes: u64) {
        self.checked.sim.munmap(HostRange::sized(HostVa(start), bytes));
    }

    /// Memory comes where none is.
    pub fn map(&self, start: u64, bytes: u64) {
        let _ = self.checked.sim.mmap_at(HostRange::sized(HostVa(start), bytes), MapKind::Anonymous);
    }

    /// All that a tile's VRAM has of the process goes to system memory.
    pub fn evict(&self, tile: u8) {
        self.checked.core.device().evict(TileId(tile), u64::MAX);
    }

    /// What happened since the last call. Notices from before the first fault are none: nobody heard them.
    pub fn happened(&self) -> Vec<(Happened, At)> {
        // Workers of the driver do what they have to do first.
        (0..WORKERS_TURNS).for_each(|_| sync::yield_now());
        let lines = self.story.lines();
        let new = &lines[self.read.replace(lines.len())..];
        let faulted = new.iter().any(|line| matches!(line.told, Told::Driver(_, DriverEvent::Fault { .. })));
        self.watched.set(self.watched.get() || faulted);
        let notices = self.checked.sim.take_log().into_iter().filter_map(|event| match event {
            Event::Told(told) if self.watched.get() => {
                Some((Happened::Notice(kind_name(told.kind), told.range.start.0, told.range.end.0), None))
            }
            _ => None,
        });
        let mut strays = BTreeMap::new();
        let told = new.iter().filter_map(|line| match &line.told {
            Told::Driver(_, event) => Some((self.translate(event, &mut strays)?, line.at)),
            Told::Noticed(_, record) => {
                let (tile, write, bytes) = record.stray()?;
                *strays.entry((tile.0, write)).or_default() += bytes;
                Some((Happened::Stray(tile.0, write, bytes), None))
            }
            _ => None,
        });
        notices.chain(told).collect()
    }

    /// `strays`: bytes that went astray since the copy before, by tile and whether they were written. The driver takes them for copied.
    fn translate(&self, event: &DriverEvent, strays: &mut BTreeMap<(u8, bool), u64>) -> Option<Happened> {
        match *event {
            DriverEvent::Fault { outcome: Serviced::Refused(errno), .. } => Some(Happened::Answer(-i64::from(errno.0))),
            DriverEvent::Fault { .. } => Some(Happened::Answer(0)),
            DriverEvent::TlbFlush { asid, tile, span, .. } if asid == self.asid => {
                Some(Happened::Flush(tile.0, span.start.0, span.end.0))
            }
            DriverEvent::Copy { tile, direction, carried, remote, .. } => {
                let astray = strays.remove(&(tile.0, direction != CopyDirection::ToVram)).unwrap_or(0) / SZ_4K;
                let carried = u64::from(carried).saturating_sub(astray);
                (carried > 0).then_some(Happened::Copy(tile.0, direction, remote, carried))
            }
            _ => None,
        }
    }

    /// A letter for each page: r for system memory, n for nothing, a tile's number.
    pub fn places(&self, start: u64, pages: u64) -> String {
        let range = HostRange::sized(HostVa(start), units::bytes_of(pages as usize));
        let letter = |page| match self.checked.sim.residency(range.page_at(page)) {
            None => 'n',
            Some(Place::Host(_)) => 'r',
            Some(Place::Device(page)) => char::from(b'0' + page.pagemap.0 as u8),
        };
        (0..range.pages()).map(letter).collect()
    }

    /// Ranges of the mirror, by address.
    pub fn ranges(&self) -> Vec<RangeBook> {
        let books = self.checked.core.device().books();
        books.into_iter().filter(|book| book.asid == self.asid).flat_map(|book| book.ranges).collect()
    }

    /// Leaves of a tile.
    pub fn leaves(&self, tile: u8) -> Vec<Translation> {
        self.checked.core.gpu().leaves(TileId(tile), self.asid)
    }

    /// Where each tile's VRAM begins.
    pub fn bases(&self) -> impl Iterator<Item = u64> {
        self.platform.tiles.iter().map(|tile| tile.vram_base.0)
    }

    /// Pages of system memory that the device reaches.
    pub fn mapped_pages(&self) -> u64 {
        self.checked.core.gpu().iommu_mapped_pages()
    }
}

/// One tile that maps its VRAM by 4K, or two that want 64K.
fn platform(tiles: u8) -> &'static Platform {
    static PLAIN: Platform =
        Platform { name: "pvc-small-4k", needs_64k: false, tiles: &[PVC_SMALL.tiles[0]], ..PVC_SMALL };
    if tiles < 2 { &PLAIN } else { &PVC_SMALL }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BLOCK: u64 = 0x7f00_0000_0000;

    #[test]
    fn a_block_goes_to_vram_at_a_fault_and_back_at_a_touch() {
        let told = Serial::play(1, BLOCK, Behaviours::CORRECT, |machine| {
            assert_eq!(machine.cpu(BLOCK, Some(7)), Ok(7));
            assert_eq!(machine.tile(0, BLOCK, None), Ok(7));
            assert_eq!(machine.places(BLOCK, 1), "0");
            assert_eq!(machine.ranges().len(), 1);
            let told = machine.happened();
            assert_eq!(machine.tile(0, BLOCK + 8, Some(9)), Ok(9));
            assert_eq!(machine.cpu(BLOCK + 8, None), Ok(9));
            assert_eq!(machine.places(BLOCK, 1), "r");
            assert!(machine.happened().iter().any(|(what, at)| matches!(what, Happened::Flush(..)) && at.is_some()));
            machine.unmap(BLOCK, 4096);
            assert_eq!(machine.tile(0, BLOCK, None), Err(i64::from(Errno::ENOENT.0)));
            told
        });
        let told = told.expect("played");
        assert!(told.iter().any(|(what, at)| *what == Happened::Answer(0) && at.is_some()), "{told:?}");
    }

    #[test]
    fn what_a_copy_writes_where_nothing_is_is_no_copy() {
        let behaviours = crate::behaviour::parse("a=upstream,b=upstream").expect("behaviours");
        let told = Serial::play(2, BLOCK, behaviours, |machine| {
            assert!((0..16).all(|page| machine.cpu(BLOCK + page * SZ_4K, Some(7)) == Ok(7)));
            assert_eq!(machine.tile(0, BLOCK, None), Ok(7));
            let first: u64 = machine.happened().iter().map(|(what, _)| copied(what)).sum();
            assert_eq!(machine.tile(1, BLOCK, None), Ok(0), "it is lost");
            (first, machine.happened())
        });
        let (first, second) = told.expect("played");
        assert!(first > 0);
        assert_eq!(second.iter().map(|(what, _)| copied(what)).sum::<u64>(), 0, "{second:?}");
        let stray = second.iter().map(|(what, _)| if let Happened::Stray(0, true, bytes) = what { *bytes } else { 0 });
        assert_eq!(stray.sum::<u64>(), first * SZ_4K, "{second:?}");
    }

    fn copied(what: &Happened) -> u64 {
        if let Happened::Copy(.., pages) = what { *pages } else { 0 }
    }
}
