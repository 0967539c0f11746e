//! By address: where each page of the program lives, who is at it, and which parts of it are watched.
//!
//! A page that no chunk mentions is the program's own business. A chunk is 2M of addresses; it exists while it has a page
//! in VRAM, a page in a migration, or a registration with the program's userfaultfd.

use super::frames::Arena;
use super::numbered::Numbered;
use super::quarantine::Quarantine;
use super::runs::{Follow, Runs};
use super::{Claim, Entry};
use crate::events::Undelivered;
use crate::sys::homes::Homes;
use hostmm::{DevicePage, PagemapId};
use std::sync::Arc;
use units::{HostRange, HostVa, SZ_2M, SZ_4K, bytes_of};

/// Where a page lives.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Residency {
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
    /// A migration.
    Claimed(u64),
}

/// One page.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Page {
    pub residency: Residency,
    pub mark: Mark,
}

impl Follow for Page {
    const NOTHING: Self = Self { residency: Residency::System, mark: Mark::Free };
    fn further(self, pages: usize) -> Self {
        let residency = match self.residency {
            Residency::System => Residency::System,
            Residency::Device(page) => Residency::Device(page.add(pages as u64)),
        };
        Self { residency, ..self }
    }
}

/// A part of a chunk that is registered.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Watched {
    pub range: HostRange,
    /// Every page of it. Else some may not be: it is registered again before another page leaves.
    pub sure: bool,
}

#[derive(Default, Debug)]
pub(crate) struct Chunk {
    pages: Runs<Page>,
    /// Parts that are registered with the program's userfaultfd: one, or one a VMA.
    pub registered: Vec<Watched>,
}

impl Chunk {
    /// Whether it has nothing in VRAM, and nobody at it.
    pub fn is_idle(&self) -> bool {
        self.pages.is_empty()
    }

    /// The registered part that the page at `va` lies in, where every page of it is registered.
    pub fn watched(&self, va: HostVa) -> Option<HostRange> {
        self.registered.iter().find(|part| part.sure && part.range.contains(va)).map(|part| part.range)
    }

    /// Whether all of `range` is registered, in one part.
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

/// All of it. See the folder's header.
#[derive(Default)]
pub(crate) struct Books {
    pub chunks: Numbered<Chunk>,
    pub arenas: Vec<Option<Arena>>,
    pub claims: Numbered<Claim>,
    /// Entries of claims that have ended, for the next ones.
    pub spare: Vec<Vec<Entry>>,
    /// Chunks that had nothing in VRAM any more when they were looked at last, and when that was (ns).
    pub idle: Vec<(u64, u64)>,
    pub last_claim: u64,
    /// Forks and ends that are near: no new migrations.
    pub frozen: u32,
    /// Counts deferred mremaps, so that each has addresses of its own.
    pub last_deferred: u64,
    /// Counts the readers' turns.
    pub last_turn: u32,
    /// Places for whose events the notifiers have not been called yet.
    pub undelivered: Undelivered,
    /// Pages that are not claimed for a while.
    pub quarantine: Quarantine,
    /// Whose bytes each frame holds, as a process outside sees it; `None` on a model of a kernel.
    pub homes: Option<Arc<Homes>>,
}

pub(crate) const fn chunk_of(va: HostVa) -> u64 {
    va.0 / SZ_2M
}

/// The addresses of a chunk.
pub(crate) const fn chunk_range(number: u64) -> HostRange {
    HostRange::sized(HostVa(number * SZ_2M), SZ_2M)
}

const fn page_of(va: HostVa) -> usize {
    (va.0 % SZ_2M / SZ_4K) as usize
}

/// The parts of `range`, chunk by chunk: number, first page and the one behind the last.
fn parts(range: HostRange) -> impl Iterator<Item = (u64, usize, usize)> {
    let mut at = range.start;
    core::iter::from_fn(move || {
        if at >= range.end {
            return None;
        }
        let number = chunk_of(at);
        let part = chunk_range(number).intersect(HostRange::new(at, range.end))?;
        at = part.end;
        Some((number, page_of(part.start), page_of(part.start) + part.pages()))
    })
}

impl Books {
    pub fn chunk(&self, va: HostVa) -> Option<&Chunk> {
        self.chunks.get(chunk_of(va))
    }

    pub fn chunk_mut(&mut self, va: HostVa) -> &mut Chunk {
        self.chunks.get_or_insert_with(chunk_of(va), Chunk::default)
    }

    /// The chunks that exist and meet `range`.
    pub fn chunks_at(&self, range: HostRange) -> impl Iterator<Item = (u64, &Chunk)> {
        let (first, last) = (chunk_of(range.start), chunk_of(HostVa(range.end.0.max(1) - 1)));
        self.chunks.between(first, last).filter(move |_| !range.is_empty())
    }

    /// Their numbers.
    pub fn chunks_in(&self, range: HostRange) -> Vec<u64> {
        self.chunks_at(range).map(|(number, _)| number).collect()
    }

    /// The page at `va`.
    pub fn page(&self, va: HostVa) -> Page {
        self.chunk(va).map_or(Page::NOTHING, |chunk| chunk.pages.run(page_of(va), page_of(va) + 1).1)
    }

    /// The pages from `range.start` on, at most up to its end or the chunk's, that follow from the first one.
    pub fn run(&self, range: HostRange) -> (HostRange, Page) {
        let end = chunk_range(chunk_of(range.start)).end.min(range.end);
        let whole = HostRange::new(range.start, end);
        let Some(chunk) = self.chunk(range.start) else { return (whole, Page::NOTHING) };
        let at = page_of(range.start);
        let (pages, page) = chunk.pages.run(at, at + whole.pages());
        (HostRange::sized(range.start, bytes_of(pages)), page)
    }

    /// All runs of `range`, those of which nothing is known too, in order and without gaps.
    pub fn runs(&self, range: HostRange) -> impl Iterator<Item = (HostRange, Page)> {
        let mut rest = range;
        core::iter::from_fn(move || {
            if rest.is_empty() {
                return None;
            }
            let (run, page) = self.run(rest);
            rest.start = run.end;
            Some((run, page))
        })
    }

    /// The runs of `range` that are in VRAM or marked.
    pub fn known(&self, range: HostRange) -> Vec<(HostRange, Page)> {
        let mut found = Vec::new();
        for (number, chunk) in self.chunks_at(range).filter(|(_, chunk)| !chunk.is_idle()) {
            let Some(part) = chunk_range(number).intersect(range) else { continue };
            let at = page_of(part.start);
            found.extend(chunk.pages.kept(at, at + part.pages()).map(|(first, pages, page)| {
                (HostRange::sized(chunk_range(number).page_at(first), bytes_of(pages)), page)
            }));
        }
        found
    }

    pub fn residency(&self, va: HostVa) -> Residency {
        self.page(va).residency
    }

    pub fn mark(&self, va: HostVa) -> Mark {
        self.page(va).mark
    }

    /// The first page of `range` has `page`, the others what follows from it.
    pub fn set(&mut self, range: HostRange, page: Page) {
        for (number, at, end) in parts(range) {
            let offset = range.page_index(chunk_range(number).page_at(at));
            if page == Page::NOTHING {
                if let Some(chunk) = self.chunks.get_mut(number) {
                    chunk.pages.set(at, end, page);
                }
            } else {
                let chunk = self.chunks.get_or_insert_with(number, Chunk::default);
                chunk.pages.set(at, end, page.further(offset));
            }
        }
    }

    /// The first page of `range` lives there, the others behind it.
    pub fn set_residency(&mut self, range: HostRange, residency: Residency) {
        let mut rest = range;
        while !rest.is_empty() {
            let (run, page) = self.run(rest);
            let offset = range.page_index(run.start);
            let residency = Page { residency, mark: Mark::Free }.further(offset).residency;
            self.set(run, Page { residency, ..page });
            rest.start = run.end;
        }
    }

    pub fn set_mark(&mut self, range: HostRange, mark: Mark) {
        let mut rest = range;
        while !rest.is_empty() {
            let (run, page) = self.run(rest);
            self.set(run, Page { mark, ..page });
            rest.start = run.end;
        }
    }

    /// Takes `mark` off the pages of `range` that have it.
    pub fn unmark(&mut self, range: HostRange, mark: Mark) {
        let mut rest = range;
        while !rest.is_empty() {
            let (run, page) = self.run(rest);
            if page.mark == mark {
                self.set(run, Page { mark: Mark::Free, ..page });
            }
            rest.start = run.end;
        }
    }

    /// A turn for a reader, that no other has.
    pub fn next_turn(&mut self) -> Mark {
        self.last_turn = self.last_turn.wrapping_add(1);
        Mark::Filling { turn: self.last_turn }
    }

    pub fn arena(&self, id: PagemapId) -> Option<&Arena> {
        self.arenas.get(id.index())?.as_ref()
    }

    pub fn arena_mut(&mut self, id: PagemapId) -> Option<&mut Arena> {
        self.arenas.get_mut(id.index())?.as_mut()
    }

    /// Takes the registrations of an idle chunk and forgets it.
    pub fn retire(&mut self, number: u64) -> Vec<Watched> {
        if self.chunks.get(number).is_some_and(|chunk| chunk.is_idle()) {
            return self.chunks.remove(number).map_or_else(Vec::new, |chunk| chunk.registered);
        }
        Vec::new()
    }
}
