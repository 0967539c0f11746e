//! Pages: how the device reaches what is behind a range.
//!
//! Locking: pages are under the notifier lock. Upstream: `struct drm_gpusvm_pages`, `drm_gpusvm_unmap_pages`.

use crate::call::{Ctx, SvmError};
use crate::device::{Device, PagemapAddr};
use crate::pagemap::PagemapSet;
use alloc::vec::Vec;
use hostmm::PagemapId;

/// A range's pages as the device reaches them (`struct drm_gpusvm_pages`).
#[derive(Default, Debug)]
pub struct Pages {
    dma_addr: Few<PagemapAddr>,
    pagemap: Option<PagemapId>,
    system: usize,
    device: usize,
    /// Whether only `allow_mixed` made it possible.
    mixed: bool,
    writable: bool,
}

impl Pages {
    /// The runs, in the order of their addresses and without gaps: a run of system memory is one DMA mapping. Empty where
    /// the pages are not valid.
    pub fn dma_addr(&self) -> &[PagemapAddr] {
        self.dma_addr.as_slice()
    }
    /// The pagemap that all pages in VRAM are of; `None` where there are none.
    pub fn pagemap(&self) -> Option<PagemapId> {
        self.pagemap
    }
    /// Whether the device may use the mapping: no change of the address space came since it was made.
    pub fn valid(&self) -> bool {
        self.system + self.device > 0
    }
    /// Whether a valid mapping leads to VRAM. `false` does *not* say that no page is in VRAM: any event
    /// clears it.
    pub fn has_devmem_pages(&self) -> bool {
        self.device > 0
    }

    /// Whether they were collected for writing.
    pub fn writable(&self) -> bool {
        self.writable
    }

    /// None yet, with memory for `runs` of them.
    pub(crate) fn with_capacity(runs: usize, writable: bool) -> Self {
        let mut pages = Self { writable, ..Self::default() };
        pages.dma_addr.reserve(runs);
        pages
    }

    /// Adds the run that follows, of `pagemap`'s VRAM or of system memory.
    pub(crate) fn push(&mut self, addr: PagemapAddr, pagemap: Option<PagemapId>) {
        self.dma_addr.push(addr);
        match pagemap {
            Some(_) => (self.pagemap, self.device) = (pagemap, self.device + addr.pages()),
            None => self.system += addr.pages(),
        }
    }

    /// Notes that the runs lie in different places, if the context allows it.
    pub(crate) fn mix(&mut self, ctx: &Ctx) -> Result<(), SvmError> {
        self.mixed = true;
        if ctx.allow_mixed { Ok(()) } else { Err(SvmError::Mixed) }
    }

    /// Pages of system memory, and of VRAM.
    pub(crate) fn counts(&self) -> (usize, usize) {
        (self.system, self.device)
    }

    /// Unmaps everything; the mappings first, then what remembers them.
    pub(crate) fn unmap(&mut self, device: &dyn Device) {
        self.dma_addr.as_slice().iter().for_each(|addr| addr.unmap(device));
        self.dma_addr.clear();
        (self.system, self.device, self.mixed) = (0, 0, false);
        self.pagemap = None;
    }

    /// Whether a valid mapping is what a call with `ctx` would get.
    pub(crate) fn satisfies(&self, ctx: &Ctx, pagemaps: &PagemapSet) -> bool {
        let owner = self.pagemap.and_then(|id| pagemaps.find(id)).map(|pagemap| pagemap.owner);
        let stays = self.device == 0 || (owner.is_some() && owner == ctx.owner);
        stays
            && !(ctx.devmem_only && self.system > 0)
            && (ctx.allow_mixed || !self.mixed)
            && (ctx.read_only || self.writable)
    }
}

/// A list that is short: one entry needs no memory of its own.
#[derive(Debug)]
struct Few<T> {
    one: Option<T>,
    many: Vec<T>,
}

impl<T> Default for Few<T> {
    fn default() -> Self {
        Self { one: None, many: Vec::new() }
    }
}

impl<T: Copy> Few<T> {
    fn as_slice(&self) -> &[T] {
        if self.many.is_empty() { self.one.as_slice() } else { &self.many }
    }
    /// Has memory for `len` entries in all.
    fn reserve(&mut self, len: usize) {
        if len > 1 {
            self.many.reserve_exact(len);
        }
    }
    fn push(&mut self, entry: T) {
        match self.one.take() {
            None if self.many.is_empty() => self.one = Some(entry),
            before => self.many.extend(before.into_iter().chain([entry])),
        }
    }
    fn clear(&mut self) {
        self.one = None;
        self.many.clear();
    }
}
