//! MOVE: pages leave their place and are at another one, with their frames.
//!
//! It goes by 2M where source and destination are aligned, the source is a 2M mapping and the destination has no page
//! table; else a 2M mapping is split, and it goes by batches of 4K pages, up to the end of a 2M block, a hole, or a page
//! that cannot move. Others run between batches.
//!
//! As in Linux 6.18, a page that changed between the look and the lock makes an `EAGAIN` that is kept: the batch that
//! follows moves, and does not count. So it is met again, and ends the call with `EEXIST`.
//!
//! Upstream: move_pages, move_pages_ptes, move_present_ptes (mm/userfaultfd.c), move_pages_huge_pmd (mm/huge_memory.c).

use super::{ContextId, is_valid, progress, refused};
use crate::config::Injection;
use crate::sim::Sim;
use crate::space::{Entry, HUGE_PAGES, Mapped};
use crate::state::State;
use mm_live::kernel::{Errno, Progress};
use units::{HostFrame, HostRange, HostVa, SZ_2M, SZ_4K, bytes_of};

/// A move in progress.
struct Move {
    dst: HostVa,
    src: HostVa,
    len: u64,
    moved: u64,
    /// The `EAGAIN` that is kept.
    kept: bool,
}

/// How a step ended that has not failed.
enum Step {
    /// Bytes moved; 0 where it is to be tried anew.
    Moved(u64),
    /// The page is in a migration.
    Wait,
}

impl Sim {
    /// `UFFDIO_MOVE`.
    pub(crate) fn move_range(&self, by: ContextId, dst: HostVa, src: HostVa, len: u64) -> Progress {
        if let Err(error) = self.look(by) {
            return refused(error);
        }
        if !is_valid(dst, len) || !is_valid(src, len) {
            return refused(Errno::INVAL);
        }
        let mut state = match self.enter() {
            Ok(state) => state,
            Err(error) => return refused(error),
        };
        let mut going = Move { dst, src, len, moved: 0, kept: false };
        let mut error = state.check_move(by, &going).err();
        while error.is_none() {
            match state.move_step(&mut going) {
                Ok(Step::Moved(bytes)) => going.moved += bytes,
                Ok(Step::Wait) => self.changed.wait(&mut state),
                Err(found) => error = Some(found),
            }
            if error.is_none() && going.moved < len {
                state = self.breathe(state);
            } else {
                break;
            }
        }
        self.leave(&mut state);
        progress(going.moved, len, error)
    }
}

impl State {
    fn check_move(&mut self, by: ContextId, going: &Move) -> Result<(), Errno> {
        let dst = self.space.vma(going.dst).ok_or(Errno::NOENT)?;
        let src = self.space.vma(going.src).ok_or(Errno::NOENT)?;
        self.prepare_pages(going.dst);
        if self.uffd.refuses(by) {
            return Err(Errno::AGAIN);
        }
        let covers = |mapped: &Mapped, at| mapped.vma.range.covers(HostRange::sized(at, going.len));
        let alike = (src.vma.read, src.vma.write) == (dst.vma.read, dst.vma.write) && src.vma.write;
        let kind = |mapped: &Mapped| mapped.vma.anonymous && !mapped.vma.io;
        let fits = covers(&dst, going.dst) && covers(&src, going.src) && alike && kind(&dst) && kind(&src);
        if fits && dst.is_watched(by) { Ok(()) } else { Err(Errno::INVAL) }
    }

    fn move_step(&mut self, going: &mut Move) -> Result<Step, Errno> {
        let (dst, src) = (going.dst.add(going.moved), going.src.add(going.moved));
        let rest = going.len - going.moved;
        if self.space.order(dst) > 0 {
            return Err(Errno::EXIST);
        }
        if self.space.order(src) == 0 {
            return self.move_batch(going, dst, src, rest);
        }
        let frames = self.huge_frames(src);
        let whole = dst.is_aligned(SZ_2M) && src.is_aligned(SZ_2M) && rest >= SZ_2M;
        if !whole || self.has_table(dst) {
            if frames.iter().any(|frame| self.is_shared(*frame)) {
                return Err(Errno::BUSY);
            }
            self.split(src);
            return Ok(Step::Moved(0));
        }
        if frames.iter().any(|frame| self.is_shared(*frame) || self.is_held(*frame)) || self.is_busy() {
            return Err(Errno::BUSY);
        }
        if Injection::strikes(&mut self.injection.passing) {
            return Ok(Step::Moved(0)); // A 2M page clears what was kept.
        }
        for (i, frame) in frames.into_iter().enumerate() {
            self.space.clear(src.add(bytes_of(i)));
            self.space.set(dst.add(bytes_of(i)), Entry::System { frame, write: true });
        }
        self.uffd.unprotect(HostRange::sized(src, SZ_2M));
        self.space.mark_huge(dst);
        going.kept = false;
        Ok(Step::Moved(SZ_2M))
    }

    /// Moves what 4K pages follow each other, up to `rest`.
    fn move_batch(&mut self, going: &mut Move, dst: HostVa, src: HostVa, rest: u64) -> Result<Step, Errno> {
        if !self.has_table(src) {
            return Err(Errno::NOENT);
        }
        if !self.has_table(dst) && self.is_short() {
            return Err(Errno::NOMEM);
        }
        self.tables.make(dst);
        self.tables.make(src);
        if self.space.entry(dst).is_some() {
            return Err(Errno::EXIST);
        }
        let frame = match self.space.entry(src) {
            None => return Err(Errno::NOENT),
            Some(Entry::Poisoned | Entry::Device { .. }) => return Err(Errno::FAULT),
            Some(Entry::Migration { .. }) => {
                going.kept = true;
                return Ok(Step::Wait);
            }
            Some(Entry::System { frame, .. }) => frame,
        };
        if self.is_shared(frame) || self.is_held(frame) || self.is_busy() {
            return Err(Errno::BUSY);
        }
        if Injection::strikes(&mut self.injection.passing) {
            going.kept = true;
            return Ok(Step::Moved(0));
        }
        let block_end = |at: HostVa| SZ_2M - at.offset_from(at.align_down(SZ_2M));
        let most = rest.min(block_end(dst)).min(block_end(src));
        let mut moved = 0;
        while moved < most {
            let (from, to) = (src.add(moved), dst.add(moved));
            let Some(Entry::System { frame, .. }) = self.space.entry(from) else { break };
            let free = self.space.entry(to).is_none() && !self.is_shared(frame) && !self.is_held(frame);
            if !free || moved > 0 && self.is_cut() {
                break;
            }
            self.space.clear(from);
            self.space.set(to, Entry::System { frame, write: true });
            self.uffd.unprotect(HostRange::sized(from, SZ_4K));
            moved += SZ_4K;
        }
        Ok(Step::Moved(if going.kept { 0 } else { moved }))
    }

    fn huge_frames(&self, at: HostVa) -> Vec<HostFrame> {
        let entries = self.space.entries(HostRange::around(at, SZ_2M));
        let frames = entries.into_iter().filter_map(|(_, entry)| match entry {
            Entry::System { frame, .. } => Some(frame),
            Entry::Device { .. } | Entry::Migration { .. } | Entry::Poisoned => None,
        });
        let frames: Vec<_> = frames.collect();
        debug_assert_eq!(frames.len() as u64, HUGE_PAGES);
        frames
    }
    /// Whether the 2M around `at` have a page table.
    pub(crate) fn has_table(&self, at: HostVa) -> bool {
        let empty = || self.space.entries(HostRange::around(at, SZ_2M)).is_empty();
        self.tables.has(at) || self.space.order(at) == 0 && !empty()
    }
    /// Whether a frame is, or since a fork was, another process' too.
    fn is_shared(&mut self, frame: HostFrame) -> bool {
        self.frames.held(frame).shared() || self.cow.contains(&frame)
    }
    /// Whether somebody has a frame pinned, or holds it for a moment.
    fn is_held(&mut self, frame: HostFrame) -> bool {
        let held = self.frames.held(frame);
        held.pins > 0 || core::mem::take(&mut held.raced)
    }
    fn is_busy(&mut self) -> bool {
        Injection::strikes(&mut self.injection.busy)
    }
}
