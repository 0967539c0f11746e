//! By frame of VRAM: whose it is, and whether it holds bytes.
//!
//! A 2M slot that was once used in 4K pieces keeps its empty page table, and then takes a huge page in 375-504 us instead
//! of 2-6; one DONTNEED of the empty slot (5-19 us) cures it. [`Arena::use_slot`] remembers. 2M that come as 4K pages are
//! pieces, too.

use super::Books;
use super::runs::{Follow, Runs};
use hostmm::{DevicePage, OwnerId, PagemapOps};
use std::sync::Arc;
use units::{HostVa, SZ_2M, SZ_4K, bytes_of};

/// Pagemaps that one process may have.
pub(crate) const MAX_PAGEMAPS: usize = 16;
/// 4K frames of a 2M slot.
const SLOT_FRAMES: u64 = SZ_2M / SZ_4K;

/// What a frame of VRAM is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Frame {
    /// Nobody's; holds nothing.
    Empty,
    /// It backs the page at this address.
    Backs(HostVa),
    /// Named as the destination of the page at this address.
    Staged(HostVa),
    /// Emptied by an event whose notifiers have not all been called.
    Cancelled,
}

#[derive(Clone, Copy, PartialEq, Debug)]
struct State {
    frame: Frame,
    bytes: bool,
}

impl Follow for State {
    const NOTHING: Self = Self { frame: Frame::Empty, bytes: false };
    fn further(self, pages: usize) -> Self {
        let frame = match self.frame {
            Frame::Backs(va) => Frame::Backs(va.add(bytes_of(pages))),
            Frame::Staged(va) => Frame::Staged(va.add(bytes_of(pages))),
            Frame::Empty | Frame::Cancelled => self.frame,
        };
        Self { frame, ..self }
    }
}

#[derive(Clone, Default)]
struct Slot {
    frames: Runs<State>,
    /// It was used in 4K pieces.
    pieced: bool,
}

/// The frames of one pagemap.
pub(crate) struct Arena {
    pub owner: OwnerId,
    pub ops: Arc<dyn PagemapOps>,
    frames: u64,
    slots: Vec<Slot>,
    /// Frames that hold bytes.
    resident: u64,
}

impl Arena {
    pub fn new(owner: OwnerId, frames: u64, ops: Arc<dyn PagemapOps>) -> Self {
        let slots = vec![Slot::default(); frames.div_ceil(SLOT_FRAMES) as usize];
        Self { owner, ops, frames, slots, resident: 0 }
    }

    /// Frames that hold bytes, as accounted.
    pub const fn resident(&self) -> u64 {
        self.resident
    }

    /// What `frame` is, whether it holds bytes, and how many frames from there on, at most `pages` and those of one slot,
    /// follow from it. `None` behind the end.
    fn run(&self, frame: u64, pages: usize) -> Option<(usize, State)> {
        let pages = pages.min(self.frames.checked_sub(frame)? as usize);
        let at = (frame % SLOT_FRAMES) as usize;
        let end = (at + pages).min(SLOT_FRAMES as usize);
        (end > at).then(|| self.slots[(frame / SLOT_FRAMES) as usize].frames.run(at, end))
    }

    fn update(&mut self, frame: u64, pages: usize, change: impl Fn(State, usize) -> State) {
        let mut done = 0;
        while let Some((run, old)) = self.run(frame + done as u64, pages - done).filter(|(run, _)| *run > 0) {
            let new = change(old, done);
            if new.bytes != old.bytes {
                self.resident =
                    if new.bytes { self.resident + run as u64 } else { self.resident.saturating_sub(run as u64) };
            }
            let (number, at) = ((frame + done as u64) / SLOT_FRAMES, ((frame + done as u64) % SLOT_FRAMES) as usize);
            self.slots[number as usize].frames.set(at, at + run, new);
            done += run;
            if done >= pages {
                return;
            }
        }
    }

    /// Whether the 2M slot at `frame` holds nothing but was used in pieces: then it needs emptying before it takes a huge
    /// page. Notes the use that follows: by `pages` pages, `huge` if they are one.
    pub fn use_slot(&mut self, frame: u64, pages: usize, huge: bool) -> bool {
        let whole = huge && frame.is_multiple_of(SLOT_FRAMES) && pages as u64 == SLOT_FRAMES;
        let Some(slot) = self.slots.get_mut((frame / SLOT_FRAMES) as usize) else { return false };
        let was_pieced = core::mem::replace(&mut slot.pieced, !whole);
        whole && was_pieced && slot.frames.kept(0, SLOT_FRAMES as usize).all(|(_, _, state)| !state.bytes)
    }

    /// Notes that frames are emptied: a part of a huge page leaves the rest in pieces.
    pub fn cut(&mut self, frame: u64, pages: usize) {
        let whole = frame.is_multiple_of(SLOT_FRAMES) && (pages as u64).is_multiple_of(SLOT_FRAMES);
        for slot in frame / SLOT_FRAMES..(frame + pages as u64).div_ceil(SLOT_FRAMES) {
            if let Some(slot) = self.slots.get_mut(slot as usize) {
                slot.pieced |= !whole;
            }
        }
    }

    /// Whether what lies in the slot at `frame` is in pieces.
    fn is_pieced(&self, frame: u64) -> bool {
        self.slots.get((frame / SLOT_FRAMES) as usize).is_some_and(|slot| slot.pieced)
    }
}

impl Books {
    /// What the frame of `page` is; `None` where there is none.
    pub fn frame(&self, page: DevicePage) -> Option<Frame> {
        self.frame_run(page, 1).map(|(_, frame, _)| frame)
    }

    /// How many frames from `first` on, at most `pages`, follow from the first one; what that is, and whether they hold
    /// bytes.
    pub fn frame_run(&self, first: DevicePage, pages: usize) -> Option<(usize, Frame, bool)> {
        let (run, state) = self.arena(first.pagemap)?.run(first.frame, pages)?;
        Some((run, state.frame, state.bytes))
    }

    /// Makes `pages` frames from `first` on what `frame` is, or what follows from it.
    pub fn set_frames(&mut self, first: DevicePage, pages: usize, frame: Frame) {
        if let Some(arena) = self.arena_mut(first.pagemap) {
            let at = |offset| State { frame, bytes: false }.further(offset).frame;
            arena.update(first.frame, pages, |old, offset| State { frame: at(offset), ..old });
        }
        let home = match frame {
            Frame::Backs(va) | Frame::Staged(va) => Some(va),
            Frame::Empty | Frame::Cancelled => None,
        };
        self.set_homes(first, pages, home);
    }

    /// Says without a lock whose bytes frames hold: those of `home` and the pages behind it, or nobody's.
    pub fn set_homes(&self, first: DevicePage, pages: usize, home: Option<HostVa>) {
        if let Some(homes) = &self.homes {
            homes.set(first, pages, home);
        }
    }

    /// Notes whether frames hold bytes.
    pub fn note_bytes(&mut self, first: DevicePage, pages: usize, bytes: bool) {
        if let Some(arena) = self.arena_mut(first.pagemap) {
            arena.update(first.frame, pages, |old, _| State { bytes, ..old });
        }
    }

    /// Whether a run that begins at a frame is one huge page there, as far as is known.
    pub fn is_huge(&self, page: DevicePage) -> bool {
        self.arena(page.pagemap).is_some_and(|arena| !arena.is_pieced(page.frame))
    }

    /// Whether the frame of `page` holds bytes.
    pub fn holds_bytes(&self, page: DevicePage) -> bool {
        self.frame_run(page, 1).is_some_and(|(_, _, bytes)| bytes)
    }
}
