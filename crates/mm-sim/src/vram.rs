//! Device-private pages: what each frame of each pagemap holds.
//!
//! A frame has a [`Cell`] exactly while it holds something; a frame without one is empty, and every access
//! to it is a stale translation, found at once.

use crate::content::Content;
use crate::slab::Slab;
use crate::sorted::Sorted;
use hostmm::{DevicePage, OwnerId, PagemapId, PagemapOps};
use std::sync::Arc;
use units::HostVa;

/// What a frame of VRAM holds.
#[derive(Default)]
pub(crate) struct Cell {
    /// Its bytes.
    pub(crate) content: Content,
    /// Where it is mapped; nowhere for a page in the middle of a migration, or whose mapping just went.
    pub(crate) at: Option<HostVa>,
    /// A CPU fault is being served on it: the faulter holds its lock and a reference.
    pub(crate) faulted: bool,
    /// The last mapping is gone; it is freed when the faulter lets go.
    pub(crate) doomed: bool,
}

/// One pagemap.
pub(crate) struct Pagemap {
    /// Who may see its pages.
    pub(crate) owner: OwnerId,
    /// How many it has.
    pub(crate) frames: u64,
    /// Who serves it.
    pub(crate) ops: Arc<dyn PagemapOps>,
    cells: Slab<Cell>,
    /// The place of a frame's cell.
    places: Sorted<u64, u32>,
}

impl Pagemap {
    #[inline]
    fn cell(&self, frame: u64) -> Option<&Cell> {
        self.places.get(frame).map(|place| self.cells.get(*place))
    }
    #[inline]
    fn cell_mut(&mut self, frame: u64) -> Option<&mut Cell> {
        self.places.get(frame).map(|place| self.cells.get_mut(*place))
    }
    fn fill(&mut self, frame: u64, cell: Cell) {
        match self.cell_mut(frame) {
            Some(there) => *there = cell,
            None => _ = self.places.insert(frame, self.cells.insert(cell)),
        }
    }
    fn take(&mut self, frame: u64) -> Option<Cell> {
        self.places.remove(frame).map(|place| self.cells.remove(place))
    }
}

/// All pagemaps.
#[derive(Default)]
pub(crate) struct Vram {
    /// By id.
    maps: Vec<Option<Pagemap>>,
}

impl Vram {
    fn map_mut(&mut self, id: PagemapId) -> Option<&mut Pagemap> {
        self.maps.get_mut(id.index())?.as_mut()
    }
    /// Adds a pagemap.
    ///
    /// # Panics
    /// Where the id is in use: the driver inserted it twice.
    pub(crate) fn insert(&mut self, id: PagemapId, owner: OwnerId, frames: u64, ops: Arc<dyn PagemapOps>) {
        if self.maps.len() <= id.index() {
            self.maps.resize_with(id.index() + 1, || None);
        }
        let map = Pagemap { owner, frames, ops, cells: Slab::default(), places: Sorted::default() };
        let before = self.maps[id.index()].replace(map);
        assert!(before.is_none(), "{id:?} is inserted twice");
    }
    /// A pagemap.
    #[inline]
    pub(crate) fn pagemap(&self, id: PagemapId) -> Option<&Pagemap> {
        self.maps.get(id.index())?.as_ref()
    }
    /// The owner of a page.
    pub(crate) fn owner(&self, page: DevicePage) -> Option<OwnerId> {
        self.pagemap(page.pagemap).map(|map| map.owner)
    }
    /// What a frame holds, where it holds something (a doomed page holds nothing any more).
    pub(crate) fn cell(&self, page: DevicePage) -> Option<&Cell> {
        self.pagemap(page.pagemap)?.cell(page.frame).filter(|cell| !cell.doomed)
    }
    /// What a frame holds, where it holds something.
    pub(crate) fn cell_mut(&mut self, page: DevicePage) -> Option<&mut Cell> {
        self.map_mut(page.pagemap)?.cell_mut(page.frame).filter(|cell| !cell.doomed)
    }
    /// Whether a destination of a migration may be this frame: it exists and nobody holds it.
    pub(crate) fn vacant(&self, page: DevicePage) -> bool {
        self.pagemap(page.pagemap).is_some_and(|map| page.frame < map.frames && !map.places.has(page.frame))
    }
    /// Fills a frame.
    pub(crate) fn fill(&mut self, page: DevicePage, content: Content, at: Option<HostVa>) {
        if let Some(map) = self.map_mut(page.pagemap) {
            map.fill(page.frame, Cell { content, at, ..Cell::default() });
        }
    }
    /// Empties a frame; gives what it held.
    pub(crate) fn take(&mut self, page: DevicePage) -> Option<Cell> {
        self.map_mut(page.pagemap)?.take(page.frame)
    }
    /// The last mapping of a page is gone. Whether it is free at once: not while a faulter holds it.
    pub(crate) fn drop_page(&mut self, page: DevicePage) -> bool {
        match self.cell_mut(page) {
            Some(cell) if cell.faulted => {
                cell.doomed = true;
                cell.at = None;
                false
            }
            _ => {
                self.take(page);
                true
            }
        }
    }
    /// Ends a CPU fault on a page; whether that frees it.
    pub(crate) fn unlock(&mut self, page: DevicePage) -> bool {
        let Some(map) = self.map_mut(page.pagemap) else { return false };
        let Some(cell) = map.cell_mut(page.frame) else { return false };
        cell.faulted = false;
        let doomed = cell.doomed;
        if doomed {
            map.take(page.frame);
        }
        doomed
    }
    /// All pages that hold something.
    pub(crate) fn cells(&self) -> impl Iterator<Item = (DevicePage, &Cell)> {
        let maps = (0..).map(PagemapId).zip(&self.maps).filter_map(|(id, map)| Some((id, map.as_ref()?)));
        maps.flat_map(|(id, map)| {
            map.places.iter().map(move |(frame, place)| (DevicePage { pagemap: id, frame }, map.cells.get(*place)))
        })
    }
    /// Forgets every pagemap: the process ends.
    pub(crate) fn clear(&mut self) {
        self.maps.clear();
    }
}
