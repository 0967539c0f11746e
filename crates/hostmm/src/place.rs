//! Where pages are: names of VRAM, places, and runs.
//!
//! Everything that crosses the joint is a *run*: pages that follow each other in the program's address space and, where
//! they are anywhere, follow each other there too. A huge page is one run; a run ends only where something differs.

use units::{HostFrame, HostRange, bytes_of};

/// Pagemaps that may see each other's pages (`dev_pagemap.owner`): the tiles of a device share one.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct OwnerId(pub u32);

/// One pagemap: the VRAM of one tile as device-private pages (`dev_pagemap`).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct PagemapId(pub u16);

impl PagemapId {
    /// Place in a slice of all pagemaps.
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

/// One 4K page of VRAM: `frame` counts from the start of the pagemap (device-private pfn minus the base's).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct DevicePage {
    /// Whose VRAM.
    pub pagemap: PagemapId,
    /// Which 4K frame of it.
    pub frame: u64,
}

impl DevicePage {
    /// The page `pages` further on in a contiguous run.
    pub const fn add(self, pages: u64) -> Self {
        Self { pagemap: self.pagemap, frame: self.frame + pages }
    }
}

/// Consecutive pages of VRAM.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DeviceRun {
    /// The first.
    pub first: DevicePage,
    /// How many.
    pub pages: usize,
}

/// Where the bytes of one page are. A page that is nowhere, a hole, has none: `Option<Place>`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Place {
    /// In system memory.
    Host(HostFrame),
    /// In VRAM. A CPU's touch faults (device-private entry).
    Device(DevicePage),
}

impl Place {
    /// The place `pages` further on in a contiguous run.
    pub const fn add(self, pages: u64) -> Self {
        match self {
            Self::Host(frame) => Self::Host(frame.add(pages)),
            Self::Device(page) => Self::Device(page.add(pages)),
        }
    }
    /// The page of VRAM that it is.
    pub const fn device(self) -> Option<DevicePage> {
        match self {
            Self::Device(page) => Some(page),
            Self::Host(_) => None,
        }
    }
    /// The frame of system memory that it is.
    pub const fn host(self) -> Option<HostFrame> {
        match self {
            Self::Host(frame) => Some(frame),
            Self::Device(_) => None,
        }
    }
}

/// The place `pages` behind `first` in a run; holes are followed by holes.
pub fn further(first: Option<Place>, pages: usize) -> Option<Place> {
    first.map(|place| place.add(pages as u64))
}

/// Pages that follow each other, and where the first of them is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Run {
    /// Which pages of the program.
    pub range: HostRange,
    /// Where the first of them is; the others follow it. `None`: they are all nowhere.
    pub place: Option<Place>,
}

impl Run {
    /// How many pages.
    pub const fn pages(&self) -> usize {
        self.range.pages()
    }
    /// Where page `index` is.
    pub fn place_at(&self, index: usize) -> Option<Place> {
        further(self.place, index)
    }
    /// Whether `next` follows this run, in the program and where they are.
    pub fn goes_on(&self, next: &Self) -> bool {
        self.range.end == next.range.start && further(self.place, self.pages()) == next.place
    }
    /// The first `pages` pages, and the rest.
    pub fn split_at(&self, pages: usize) -> (Self, Self) {
        let middle = self.range.start.add(bytes_of(pages));
        let first = Self { range: HostRange::new(self.range.start, middle), place: self.place };
        (first, Self { range: HostRange::new(middle, self.range.end), place: self.place_at(pages) })
    }
    /// What of it lies in `range`.
    pub fn clipped(&self, range: HostRange) -> Option<Self> {
        let range = self.range.intersect(range)?;
        Some(Self { range, place: self.place_at(self.range.page_index(range.start)) })
    }
}

/// One run as [`HostMm::walk`](crate::HostMm::walk) reports it (a stretch of `hmm_pfn`s).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct WalkRun {
    /// The pages.
    pub run: Run,
    /// Whether a device may write them.
    pub write: bool,
    /// log2 of the 4K pages of the CPU mappings that they lie in (0, or 9 for THPs). 0 is always a right answer.
    pub order: u8,
}

impl WalkRun {
    /// Appends `run` to `runs`, to the last of them where it only goes on.
    pub fn push(runs: &mut alloc::vec::Vec<Self>, run: Self) {
        match runs.last_mut() {
            Some(last) if last.write == run.write && last.order == run.order && last.run.goes_on(&run.run) => {
                last.run.range.end = run.run.range.end;
            }
            _ => runs.push(run),
        }
    }
}
