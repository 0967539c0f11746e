//! VRAM of a tile: one private arena, linear in the frames of its pagemap, and a table of who lives in each frame.
//!
//! The arena is registered with the second userfaultfd, MISSING with SIGBUS: whoever touches a frame that holds
//! nothing gets a signal at once, its access routine returns, and no thread has to serve anything. That makes an
//! exact detector of stale translations.
//!
//! A 2M slot that was once used in 4K pieces keeps its empty page table, and then takes a huge page in 375-504 us
//! instead of 2-6; one DONTNEED of the empty slot (5-19 us) cures it. [`Arena::pieced`] remembers.

use hostmm::{DevicePage, OwnerId, PagemapId, PagemapOps};
use std::sync::Arc;
use sync::atomic::AtomicU64;
use units::{HostRange, HostVa, PAGE_SHIFT, SZ_2M, SZ_4K};

/// Pagemaps that one process may have.
pub(crate) const MAX_PAGEMAPS: usize = 16;
/// 4K frames of a 2M slot.
pub(crate) const SLOT_FRAMES: u64 = SZ_2M / SZ_4K;

/// What a frame of VRAM is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Frame {
    /// Nobody's; holds nothing.
    Empty,
    /// Home of the page at this address.
    Home(HostVa),
    /// Named as the destination of the page at this address.
    Staged(HostVa),
    /// Emptied by an event whose notifiers have not all been told.
    Condemned,
}

/// The bookkeeping of one arena. Inside of the page map's lock.
pub(crate) struct Arena {
    pub owner: OwnerId,
    pub ops: Arc<dyn PagemapOps>,
    /// Packed [`Frame`]s.
    table: Vec<u64>,
    /// Slots of 2M that were used in 4K pieces.
    pieced: Vec<bool>,
    /// Frames that hold bytes.
    resident: u64,
}

const HOME: u64 = 1;
const STAGED: u64 = 2;
const CONDEMNED: u64 = 4;
const BYTES: u64 = 8;

impl Arena {
    pub fn new(owner: OwnerId, frames: u64, ops: Arc<dyn PagemapOps>) -> Self {
        let slots = frames.div_ceil(SLOT_FRAMES) as usize;
        Self { owner, ops, table: vec![0; frames as usize], pieced: vec![false; slots], resident: 0 }
    }

    /// What `frame` is; `None` behind the arena's end.
    pub fn frame(&self, frame: u64) -> Option<Frame> {
        let word = *self.table.get(frame as usize)?;
        let va = HostVa(word & !(SZ_4K - 1));
        Some(match word & (SZ_4K - 1) & !BYTES {
            HOME => Frame::Home(va),
            STAGED => Frame::Staged(va),
            CONDEMNED => Frame::Condemned,
            _ => Frame::Empty,
        })
    }

    /// Makes `frame` that.
    pub fn set_frame(&mut self, frame: u64, state: Frame) {
        if let Some(word) = self.table.get_mut(frame as usize) {
            let bytes = *word & BYTES;
            *word = bytes
                | match state {
                    Frame::Empty => 0,
                    Frame::Home(va) => va.0 | HOME,
                    Frame::Staged(va) => va.0 | STAGED,
                    Frame::Condemned => CONDEMNED,
                };
        }
    }

    /// Notes whether `frame` holds bytes.
    pub fn set_bytes(&mut self, frame: u64, bytes: bool) {
        if let Some(word) = self.table.get_mut(frame as usize) {
            self.resident = self.resident + u64::from(bytes) - u64::from(*word & BYTES != 0);
            *word = *word & !BYTES | if bytes { BYTES } else { 0 };
        }
    }

    /// Whether `frame` holds bytes.
    pub fn has_bytes(&self, frame: u64) -> bool {
        self.table.get(frame as usize).is_some_and(|word| word & BYTES != 0)
    }

    /// Frames that hold bytes, as accounted.
    pub const fn resident(&self) -> u64 {
        self.resident
    }

    /// Whether the 2M slot at `frame` holds nothing but was used in pieces: then it needs emptying before it takes
    /// a huge page. Notes the use that follows.
    pub fn use_slot(&mut self, frame: u64, pages: usize) -> bool {
        let slot = (frame / SLOT_FRAMES) as usize;
        let whole = frame.is_multiple_of(SLOT_FRAMES) && pages as u64 == SLOT_FRAMES;
        let Some(pieced) = self.pieced.get_mut(slot) else { return false };
        let was_pieced = core::mem::replace(pieced, !whole);
        let place = frame as usize..(frame as usize + pages).min(self.table.len());
        whole && was_pieced && self.table[place].iter().all(|word| word & BYTES == 0)
    }
}

/// Where the arenas are: written once each, read without a lock by every access.
#[derive(Default)]
pub(crate) struct Places {
    base: [AtomicU64; MAX_PAGEMAPS],
    frames: [AtomicU64; MAX_PAGEMAPS],
}

impl Places {
    /// Sets where the arena of a pagemap is.
    pub fn set(&self, id: PagemapId, range: HostRange, frames: u64) {
        if id.index() < MAX_PAGEMAPS {
            self.frames[id.index()].store(frames);
            self.base[id.index()].store(range.start.0);
        }
    }

    /// The address of a frame; `None` where there is none.
    pub fn address(&self, page: DevicePage) -> Option<u64> {
        let base = self.base.get(page.pagemap.index())?.load();
        let frames = self.frames[page.pagemap.index()].load();
        (base != 0 && page.frame < frames).then(|| base + (page.frame << PAGE_SHIFT))
    }

    /// The whole arena of a pagemap, rounded up to 2M; empty where there is none.
    pub fn range(&self, id: PagemapId) -> HostRange {
        match self.base.get(id.index()).map(AtomicU64::load) {
            Some(base) if base != 0 => {
                let bytes = self.frames[id.index()].load() << PAGE_SHIFT;
                HostRange::sized(HostVa(base), bytes.next_multiple_of(SZ_2M))
            }
            _ => HostRange::sized(HostVa(0), 0),
        }
    }
}
