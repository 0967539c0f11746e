//! The page map: of each page of the program that this crate has a say in, where it is and who is at it.
//!
//! A page that no chunk mentions is the program's own business. A chunk is 2M of addresses; it exists while
//! it has a page in VRAM, a page in a migration, or a registration with the first userfaultfd.
//!
//! Locking: all of it lies in one lock, taken for short sections of plain bookkeeping only: never over a
//! callback, a system call or a touch of the program's memory.

use crate::arena::{Arena, Frame};
use crate::entry::{Claim, Entry};
use crate::events::Untold;
use crate::numbered::Numbered;
use crate::quarantine::Quarantine;
use hostmm::{DevicePage, PagemapId};
use units::{HostRange, HostVa, SZ_2M, SZ_4K};

/// Where a page lives.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Home {
    /// In system memory, if anywhere.
    System,
    /// In VRAM.
    Device(DevicePage),
}

/// Who is at a page.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Mark {
    /// Nobody.
    Free,
    /// A reader that fills a hole; whose turn it is tells it from another that came to the same page.
    Filling { turn: u32 },
    /// A migration, and which of its entries.
    Claimed { claim: u64, entry: usize },
}

/// One page: home and mark, packed.
#[derive(Clone, Copy, Default)]
struct Page {
    home: u64,
    mark: u64,
}

impl Page {
    const fn home(self) -> Home {
        if self.home & DEVICE == 0 {
            return Home::System;
        }
        let pagemap = PagemapId(((self.home & !DEVICE) >> PAGEMAP_SHIFT) as u16);
        Home::Device(DevicePage { pagemap, frame: self.home & ((1 << PAGEMAP_SHIFT) - 1) })
    }

    const fn mark(self) -> Mark {
        match self.mark {
            0 => Mark::Free,
            word if word & FILLING == FILLING => Mark::Filling { turn: word as u32 },
            word => Mark::Claimed { claim: word >> ENTRY_BITS, entry: (word & ((1 << ENTRY_BITS) - 1)) as usize },
        }
    }
}

const DEVICE: u64 = 1 << 63;
const PAGEMAP_SHIFT: u32 = 48;
const FILLING: u64 = 0xffff_ffff << 32;
const ENTRY_BITS: u32 = 24;
const CHUNK_PAGES: usize = (SZ_2M / SZ_4K) as usize;

/// A part of a chunk that is registered.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Watched {
    pub range: HostRange,
    /// Every page of it. Else some may not be: it is registered again before another page leaves.
    pub sure: bool,
}

pub(crate) struct Chunk {
    pages: [Page; CHUNK_PAGES],
    /// Parts that are registered with the first userfaultfd: one, or one a VMA.
    pub registered: Vec<Watched>,
    /// Pages in VRAM.
    device: u32,
    /// Pages with a mark.
    marked: u32,
}

impl Chunk {
    fn new() -> Self {
        let pages = [Page::default(); CHUNK_PAGES];
        Self { pages, registered: Vec::new(), device: 0, marked: 0 }
    }

    pub fn is_idle(&self) -> bool {
        self.device == 0 && self.marked == 0
    }

    /// Whether the page at `va` is registered for sure.
    pub fn is_registered(&self, va: HostVa) -> bool {
        self.registered.iter().any(|part| part.sure && part.range.contains(va))
    }

    /// Whether all of `range` is, in one part.
    pub fn is_wholly_registered(&self, range: HostRange) -> bool {
        self.registered.iter().any(|part| part.sure && part.range.covers(range))
    }

    pub fn add_registered(&mut self, new: Watched) {
        self.registered.retain(|old| old.sure || !new.range.covers(old.range));
        if !self.registered.iter().any(|old| old.sure && old.range.covers(new.range)) {
            self.registered.push(new);
        }
    }

    pub fn subtract_registered(&mut self, gone: HostRange) {
        let parts = core::mem::take(&mut self.registered);
        for Watched { range, sure } in parts {
            let before = HostRange::new(range.start, range.end.min(gone.start));
            let behind = HostRange::new(range.start.max(gone.end), range.end);
            let rest = [before, behind].into_iter().filter(|rest| !rest.is_empty());
            self.registered.extend(rest.map(|range| Watched { range, sure }));
        }
    }
}

#[derive(Default)]
pub(crate) struct PageMap {
    pub chunks: Numbered<Box<Chunk>>,
    pub arenas: Vec<Option<Arena>>,
    pub claims: Numbered<Claim>,
    pub last_claim: u64,
    /// No new migrations: a fork or the end is near.
    pub frozen: bool,
    /// Counts the readers' turns.
    pub last_turn: u32,
    /// Places of which the engine has not been told yet what happened there.
    pub untold: Untold,
    /// Pages that are not claimed for a while.
    pub quarantine: Quarantine,
}

fn chunk_of(va: HostVa) -> u64 {
    va.0 / SZ_2M
}

/// The addresses of a chunk.
pub(crate) fn chunk_range(number: u64) -> HostRange {
    HostRange::sized(HostVa(number * SZ_2M), SZ_2M)
}

fn slot_of(va: HostVa) -> usize {
    (va.0 % SZ_2M / SZ_4K) as usize
}

impl PageMap {
    pub fn chunk(&self, va: HostVa) -> Option<&Chunk> {
        self.chunks.get(chunk_of(va)).map(Box::as_ref)
    }

    pub fn chunk_mut(&mut self, va: HostVa) -> &mut Chunk {
        self.chunks.get_or_insert_with(chunk_of(va), || Box::new(Chunk::new()))
    }

    /// The chunks that exist and meet `range`.
    pub fn chunks_at(&self, range: HostRange) -> impl Iterator<Item = (u64, &Chunk)> {
        let (first, last) = (chunk_of(range.start), chunk_of(HostVa(range.end.0.max(1) - 1)));
        self.chunks.between(first, last).filter(move |_| !range.is_empty()).map(|(number, chunk)| (number, &**chunk))
    }

    /// Their numbers.
    pub fn chunks_in(&self, range: HostRange) -> Vec<u64> {
        self.chunks_at(range).map(|(number, _)| number).collect()
    }

    /// Home and mark of the page at `va`.
    pub fn look(&self, va: HostVa) -> (Home, Mark) {
        let page = self.page(va);
        (page.home(), page.mark())
    }

    fn page(&self, va: HostVa) -> Page {
        self.chunk(va).map_or(Page::default(), |chunk| chunk.pages[slot_of(va)])
    }

    pub fn home(&self, va: HostVa) -> Home {
        self.page(va).home()
    }

    pub fn set_home(&mut self, va: HostVa, home: Home) {
        let word = match home {
            Home::System => 0,
            Home::Device(page) => DEVICE | u64::from(page.pagemap.0) << PAGEMAP_SHIFT | page.frame,
        };
        let Some(chunk) = self.chunk_for(va, word) else { return };
        let old = core::mem::replace(&mut chunk.pages[slot_of(va)].home, word);
        chunk.device = chunk.device + u32::from(word != 0) - u32::from(old != 0);
    }

    pub fn mark(&self, va: HostVa) -> Mark {
        self.page(va).mark()
    }

    pub fn set_mark(&mut self, va: HostVa, mark: Mark) {
        let word = match mark {
            Mark::Free => 0,
            Mark::Filling { turn } => FILLING | u64::from(turn),
            Mark::Claimed { claim, entry } => claim << ENTRY_BITS | entry as u64,
        };
        let Some(chunk) = self.chunk_for(va, word) else { return };
        let old = core::mem::replace(&mut chunk.pages[slot_of(va)].mark, word);
        chunk.marked = chunk.marked + u32::from(word != 0) - u32::from(old != 0);
    }

    /// The chunk to write `word` to: a zero makes none.
    fn chunk_for(&mut self, va: HostVa, word: u64) -> Option<&mut Chunk> {
        if word == 0 { self.chunks.get_mut(chunk_of(va)).map(Box::as_mut) } else { Some(self.chunk_mut(va)) }
    }

    /// Pages of `range` that are in VRAM or marked, with what they are.
    pub fn concerned(&self, range: HostRange) -> Vec<(HostVa, Home, Mark)> {
        let mut found = Vec::new();
        for (number, chunk) in self.chunks_at(range).filter(|(_, chunk)| !chunk.is_idle()) {
            let Some(part) = chunk_range(number).intersect(range) else { continue };
            let pages = &chunk.pages[slot_of(part.start)..][..part.pages()];
            let concerned = pages.iter().enumerate().filter(|(_, page)| page.home != 0 || page.mark != 0);
            found.extend(concerned.map(|(index, page)| (part.page_at(index), page.home(), page.mark())));
        }
        found
    }

    pub fn arena(&self, id: PagemapId) -> Option<&Arena> {
        self.arenas.get(id.index())?.as_ref()
    }

    pub fn arena_mut(&mut self, id: PagemapId) -> Option<&mut Arena> {
        self.arenas.get_mut(id.index())?.as_mut()
    }

    pub fn frame(&self, page: DevicePage) -> Option<Frame> {
        self.arena(page.pagemap)?.frame(page.frame)
    }

    pub fn set_frame(&mut self, page: DevicePage, state: Frame) {
        if let Some(arena) = self.arena_mut(page.pagemap) {
            arena.set_frame(page.frame, state);
        }
    }

    /// The entries of a claim; none where there is no such claim.
    pub fn entries(&self, claim: u64) -> &[Entry] {
        self.claims.get(claim).map_or(&[], |claim| &claim.entries)
    }

    pub fn entries_mut(&mut self, claim: u64) -> &mut [Entry] {
        self.claims.get_mut(claim).map_or(&mut [], |claim| &mut claim.entries)
    }

    /// Runs `body` on map and entries together.
    pub fn with_entries<R>(&mut self, claim: u64, body: impl FnOnce(&mut Self, &mut [Entry]) -> R) -> R {
        let mut entries = self.claims.get_mut(claim).map_or_else(Vec::new, |claim| core::mem::take(&mut claim.entries));
        let result = body(self, &mut entries);
        if let Some(claim) = self.claims.get_mut(claim) {
            claim.entries = entries;
        }
        result
    }

    pub fn entry(&self, claim: u64, index: usize) -> Option<Entry> {
        self.claims.get(claim)?.entries.get(index).copied()
    }

    pub fn set_entry(&mut self, claim: u64, index: usize, entry: Entry) {
        if let Some(place) = self.claims.get_mut(claim).and_then(|claim| claim.entries.get_mut(index)) {
            *place = entry;
        }
    }

    /// Takes the registrations of an idle chunk and forgets it.
    pub fn retire(&mut self, number: u64) -> Vec<Watched> {
        if self.chunks.get(number).is_some_and(|chunk| chunk.is_idle()) {
            return self.chunks.remove(number).map_or_else(Vec::new, |chunk| chunk.registered);
        }
        Vec::new()
    }
}
