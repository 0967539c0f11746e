//! The page map: of each page of the program that this crate has a say in, where it is and who is at it.
//!
//! A page that no chunk mentions is the program's own business. A chunk is 2M of addresses; it exists while
//! it has a page in VRAM, a page in a migration, or a registration with the first userfaultfd.
//!
//! Locking: all of it lies in one lock, taken for short sections of plain bookkeeping only: never over a
//! callback, a system call or a touch of the program's memory.

use crate::arena::{Arena, Frame};
use crate::claim::Claim;
use gpusvm::hostmm::{DevicePage, PagemapId};
use std::collections::BTreeMap;
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
    pub chunks: BTreeMap<u64, Box<Chunk>>,
    pub arenas: Vec<Option<Arena>>,
    pub claims: BTreeMap<u64, Claim>,
    pub last_claim: u64,
    /// No new migrations: a fork or the end is near.
    pub frozen: bool,
    /// Counts the readers' turns.
    pub last_turn: u32,
    /// Ranges that are not claimed until a time (ns): a DONTNEED there was read, but its pages could not be
    /// dropped ahead of it, and when it will drop them is not known.
    pub quarantine: Vec<(HostRange, u64)>,
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
        self.chunks.get(&chunk_of(va)).map(Box::as_ref)
    }

    pub fn chunk_mut(&mut self, va: HostVa) -> &mut Chunk {
        self.chunks.entry(chunk_of(va)).or_insert_with(|| Box::new(Chunk::new()))
    }

    /// Numbers of the chunks that exist and meet `range`.
    pub fn chunks_in(&self, range: HostRange) -> Vec<u64> {
        if range.is_empty() {
            return Vec::new();
        }
        self.chunks
            .range(chunk_of(range.start)..=chunk_of(HostVa(range.end.0 - 1)))
            .map(|(&number, _)| number)
            .collect()
    }

    pub fn home(&self, va: HostVa) -> Home {
        let word = self.chunk(va).map_or(0, |chunk| chunk.pages[slot_of(va)].home);
        if word & DEVICE == 0 {
            return Home::System;
        }
        let pagemap = PagemapId(((word & !DEVICE) >> PAGEMAP_SHIFT) as u16);
        Home::Device(DevicePage { pagemap, frame: word & ((1 << PAGEMAP_SHIFT) - 1) })
    }

    pub fn set_home(&mut self, va: HostVa, home: Home) {
        let word = match home {
            Home::System => 0,
            Home::Device(page) => DEVICE | u64::from(page.pagemap.0) << PAGEMAP_SHIFT | page.frame,
        };
        if word == 0 && self.chunk(va).is_none() {
            return;
        }
        let chunk = self.chunk_mut(va);
        let old = core::mem::replace(&mut chunk.pages[slot_of(va)].home, word);
        chunk.device = chunk.device + u32::from(word != 0) - u32::from(old != 0);
    }

    pub fn mark(&self, va: HostVa) -> Mark {
        match self.chunk(va).map_or(0, |chunk| chunk.pages[slot_of(va)].mark) {
            0 => Mark::Free,
            word if word & FILLING == FILLING => Mark::Filling { turn: word as u32 },
            word => Mark::Claimed { claim: word >> ENTRY_BITS, entry: (word & ((1 << ENTRY_BITS) - 1)) as usize },
        }
    }

    pub fn set_mark(&mut self, va: HostVa, mark: Mark) {
        let word = match mark {
            Mark::Free => 0,
            Mark::Filling { turn } => FILLING | u64::from(turn),
            Mark::Claimed { claim, entry } => claim << ENTRY_BITS | entry as u64,
        };
        if word == 0 && self.chunk(va).is_none() {
            return;
        }
        let chunk = self.chunk_mut(va);
        let old = core::mem::replace(&mut chunk.pages[slot_of(va)].mark, word);
        chunk.marked = chunk.marked + u32::from(word != 0) - u32::from(old != 0);
    }

    /// Pages of `range` that are in VRAM or marked, with what they are.
    pub fn concerned(&self, range: HostRange) -> Vec<(HostVa, Home, Mark)> {
        let mut found = Vec::new();
        for number in self.chunks_in(range) {
            let Some(part) = chunk_range(number).intersect(range) else { continue };
            for va in (part.start.0..part.end.0).step_by(SZ_4K as usize).map(HostVa) {
                let (home, mark) = (self.home(va), self.mark(va));
                if home != Home::System || mark != Mark::Free {
                    found.push((va, home, mark));
                }
            }
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

    /// Takes the registrations of an idle chunk and forgets it.
    pub fn retire(&mut self, number: u64) -> Vec<Watched> {
        if self.chunks.get(&number).is_some_and(|chunk| chunk.is_idle()) {
            return self.chunks.remove(&number).map_or_else(Vec::new, |chunk| chunk.registered);
        }
        Vec::new()
    }
}
