//! Everything that the one lock of a simulated mm guards.

use crate::config::{Config, Injection, Log, Placement};
use crate::content::Content;
use crate::event::{Counters, Event};
use crate::frames::Frames;
use crate::migrate::Claims;
use crate::notifier::Notifiers;
use crate::space::{Entry, HUGE_PAGES, Mapped, Space};
use crate::uffd::Contexts;
use crate::vram::Vram;
use hostmm::{DevicePage, Place};
use std::collections::{BTreeMap, BTreeSet};
use units::{HostFrame, HostRange, HostVa, SZ_2M};

/// How a forked child is named.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct ChildId(pub u32);

/// All of it.
pub(crate) struct State {
    pub(crate) config: Config,
    pub(crate) space: Space,
    pub(crate) children: BTreeMap<ChildId, Space>,
    pub(crate) frames: Frames,
    pub(crate) vram: Vram,
    pub(crate) notifiers: Notifiers,
    pub(crate) claims: Claims,
    pub(crate) mmap_lock: MmapLock,
    pub(crate) uffd: Contexts,
    pub(crate) tables: Tables,
    pub(crate) pins: BTreeMap<HostVa, HostFrame>,
    /// Frames of buffer objects, which no mapping has, and how many objects have each.
    pub(crate) objects: BTreeMap<HostFrame, u32>,
    /// Frames that a fork shared and nobody wrote since (not `PageAnonExclusive`).
    pub(crate) cow: BTreeSet<HostFrame>,
    /// Frames given to `MADV_FREE` and not written since.
    pub(crate) lazy: BTreeSet<HostFrame>,
    /// What may still go wrong.
    pub(crate) injection: Injection,
    /// Allocations at `stage` that fail (injected).
    pub(crate) shortages: u32,
    pub(crate) counters: Counters,
    pub(crate) log: Vec<Event>,
    /// What was unmapped, the last one last.
    holes: Vec<HostRange>,
    next_mapping: HostVa,
    next_child: u32,
    next_pages: u32,
}

/// The mmap lock, as far as it is held across steps. Readers may enter beside readers always.
#[derive(Default)]
pub(crate) struct MmapLock {
    /// Migrations, CPU faults, calls of a descriptor and madvise in progress.
    pub(crate) readers: u32,
    /// A thread changes mappings.
    pub(crate) writer: bool,
}

/// 2M blocks that have a page table, be it empty: no 2M page fits there.
#[derive(Default)]
pub(crate) struct Tables(BTreeSet<HostVa>);

impl Tables {
    /// A page table is made.
    pub(crate) fn make(&mut self, at: HostVa) {
        self.0.insert(at.align_down(SZ_2M));
    }
    /// The tables of whole blocks in `range` go.
    pub(crate) fn free(&mut self, range: HostRange) {
        self.0.retain(|block| !range.covers(HostRange::sized(*block, SZ_2M)));
    }
    /// Whether there is one.
    pub(crate) fn has(&self, at: HostVa) -> bool {
        self.0.contains(&at.align_down(SZ_2M))
    }
}

impl State {
    /// An empty process.
    pub(crate) fn new(config: Config) -> Self {
        Self {
            config,
            space: Space::default(),
            children: BTreeMap::new(),
            frames: Frames::default(),
            vram: Vram::default(),
            notifiers: Notifiers::default(),
            claims: Claims::default(),
            mmap_lock: MmapLock::default(),
            uffd: Contexts::default(),
            tables: Tables::default(),
            pins: BTreeMap::new(),
            objects: BTreeMap::new(),
            cow: BTreeSet::new(),
            lazy: BTreeSet::new(),
            injection: config.injection,
            shortages: 0,
            counters: Counters::default(),
            log: Vec::new(),
            holes: Vec::new(),
            next_mapping: HostVa(config.first_mapping).align_up(SZ_2M),
            next_child: 0,
            next_pages: 0,
        }
    }
    /// Writes an event down.
    pub(crate) fn note(&mut self, event: Event) {
        self.counters.fold(&event);
        if self.config.log == Log::Keep {
            self.log.push(event);
        }
    }
    /// An address for a mapping of `len` bytes, with room before and behind; or what was unmapped last.
    pub(crate) fn place_mapping(&mut self, len: u64) -> HostRange {
        if self.config.placement == Placement::Reuse {
            let free = |hole: &HostRange| !self.space.vmas().any(|mapped| mapped.vma.range.overlaps(*hole));
            if let Some(index) = self.holes.iter().rposition(|hole| hole.len() >= len && free(hole)) {
                return HostRange::sized(self.holes.remove(index).start, len);
            }
        }
        self.place_arena(len)
    }
    /// An address for an arena, where nothing was.
    pub(crate) fn place_arena(&mut self, len: u64) -> HostRange {
        let start = self.next_mapping;
        self.next_mapping = start.add(len).align_up(SZ_2M).add(SZ_2M);
        HostRange::sized(start, len)
    }
    /// A mapping is gone: its place may be given away.
    pub(crate) fn note_hole(&mut self, range: HostRange) {
        if self.config.placement == Placement::Reuse {
            self.holes.push(range);
        }
    }
    /// A name for a child.
    pub(crate) fn name_child(&mut self) -> ChildId {
        self.next_child += 1;
        ChildId(self.next_child)
    }
    /// A name for a VMA's pages.
    pub(crate) fn name_pages(&mut self) -> u32 {
        self.next_pages += 1;
        self.next_pages
    }

    /// Fills the hole at `at`, with 2M where the VMA likes that.
    pub(crate) fn populate(&mut self, at: HostVa, mapped: &Mapped) {
        let write = mapped.vma.write;
        self.prepare_pages(at);
        if self.space.takes_huge(at, mapped) && !self.tables.has(at) {
            let first = self.frames.alloc_run(HUGE_PAGES);
            let block = HostRange::around(at, SZ_2M);
            for i in 0..HUGE_PAGES {
                self.space.set(block.page_at(i as usize), Entry::System { frame: first.add(i), write });
            }
            self.space.mark_huge(at);
        } else {
            self.tables.make(at);
            let frame = self.frames.alloc(Content::default());
            self.space.set(at, Entry::System { frame, write });
        }
    }
    /// Takes the entries of a range away. Gives the pages of VRAM that nothing maps any more; their cells are
    /// gone. Pages in a migration are left to its finish.
    pub(crate) fn zap(&mut self, range: HostRange) -> Vec<DevicePage> {
        let mut freed = Vec::new();
        self.split_edges(range);
        self.uffd.unprotect(range);
        for (at, entry) in self.space.entries(range) {
            self.space.clear(at);
            match entry {
                Entry::System { frame, .. } => self.frames.put(frame),
                Entry::Migration { .. } | Entry::Poisoned => {}
                Entry::Device { page, .. } if self.claims.involves(page) => {
                    if let Some(cell) = self.vram.cell_mut(page) {
                        cell.at = None;
                    }
                }
                Entry::Device { page, .. } => freed.extend(self.drop_page(page).then_some(page)),
            }
        }
        self.tables.free(range);
        freed
    }
    /// Splits a 2M mapping, which gets a page table.
    pub(crate) fn split(&mut self, at: HostVa) {
        if self.space.order(at) > 0 {
            self.space.split(at);
            self.tables.make(at);
        }
    }
    /// Splits what `range` covers in part.
    pub(crate) fn split_edges(&mut self, range: HostRange) {
        for edge in [range.start, range.end].into_iter().filter(|edge| !edge.is_aligned(SZ_2M)) {
            self.split(edge);
        }
    }

    /// Checks every book against every other.
    pub(crate) fn check(&self) -> Result<(), String> {
        self.notifiers.check()?;
        self.check_entries()?;
        self.check_cells()?;
        self.check_frames()
    }

    fn check_entries(&self) -> Result<(), String> {
        for (at, entry) in self.space.all_entries() {
            if self.space.vma(at).is_none() {
                return Err(format!("{at:?} has an entry and no VMA"));
            }
            match entry {
                Entry::System { frame, .. } if self.frames.get(frame).is_none() => {
                    return Err(format!("{at:?} maps {frame:?}, which is not in use"));
                }
                Entry::Device { page, .. } if self.vram.cell(page).is_none() && !self.claims.involves(page) => {
                    return Err(format!("{at:?} names {page:?}, which holds nothing"));
                }
                Entry::Migration { claim } if self.claims.get(claim).is_none() => {
                    return Err(format!("{at:?} waits for {claim:?}, which has ended"));
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn check_cells(&self) -> Result<(), String> {
        for (page, cell) in self.vram.cells().filter(|(page, cell)| !cell.doomed && !self.claims.involves(*page)) {
            let mapped = cell.at.and_then(|at| self.space.entry(at));
            if !matches!(mapped, Some(Entry::Device { page: there, .. }) if there == page) {
                return Err(format!("{page:?} holds a page said to be at {:?}, where {mapped:?} is", cell.at));
            }
        }
        Ok(())
    }

    fn check_frames(&self) -> Result<(), String> {
        let mut holders: BTreeMap<HostFrame, u32> = BTreeMap::new();
        let mapped = self.children.values().chain([&self.space]).flat_map(Space::all_entries);
        let mapped = mapped.filter_map(|(_, entry)| match entry {
            Entry::System { frame, .. } => Some(frame),
            Entry::Device { .. } | Entry::Migration { .. } | Entry::Poisoned => None,
        });
        let claimed = self.claims.iter().flat_map(|(_, claim)| claim.held_frames());
        let objects = self.objects.iter().flat_map(|(frame, count)| (0..*count).map(|_| *frame));
        for frame in mapped.chain(claimed).chain(self.pins.values().copied()).chain(objects) {
            *holders.entry(frame).or_insert(0) += 1;
        }
        for (frame, held) in self.frames.iter() {
            let found = holders.get(&frame).copied().unwrap_or(0);
            if held.refs != found {
                return Err(format!("{:?} counts {} references, {found} hold it", Place::Host(frame), held.refs));
            }
        }
        if holders.len() == self.frames.len() { Ok(()) } else { Err("a frame is held that is not in use".into()) }
    }

    /// Whether somebody holds a page of the huge page around `at`: it can be neither split nor migrated.
    pub(crate) fn is_pinned_huge(&self, at: HostVa) -> bool {
        let pinned = |entry: Entry| match entry {
            Entry::System { frame, .. } => self.frames.get(frame).is_some_and(|held| held.pins > 0),
            _ => false,
        };
        let block = HostRange::around(at, SZ_2M);
        self.space.order(at) > 0 && self.space.entries(block).into_iter().any(|(_, entry)| pinned(entry))
    }

    /// Where the page at `at` is, for scenes that look.
    pub(crate) fn residency(&self, at: HostVa) -> Option<Place> {
        match self.space.entry(at)? {
            Entry::Poisoned => None,
            Entry::System { frame, .. } => Some(Place::Host(frame)),
            Entry::Device { page, .. } => Some(Place::Device(page)),
            Entry::Migration { claim } => self.claims.get(claim)?.source_at(at),
        }
    }
}
