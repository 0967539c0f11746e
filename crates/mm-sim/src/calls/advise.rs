//! madvise: VMA by VMA, passing over holes, which make it `ENOMEM` in the end.
//!
//! DONTNEED and FREE of a watched VMA give the lock up, wait until their event is read, and then do to whatever lies
//! there what they were called for.
//!
//! Upstream: madvise_dontneed_free, madvise_populate (mm/madvise.c).

use crate::access::{CpuError, Touch};
use crate::config::Injection;
use crate::sim::Sim;
use crate::space::{Entry, Mapped};
use crate::state::State;
use hostmm::{DevicePage, EventKind, MmEvent};
use mm_live::kernel::{Errno, Message};
use units::{HostRange, HostVa, SZ_4K};

/// What madvise shall do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Advice {
    /// Empty the range now.
    DontNeed,
    /// Its pages may be taken until they are written again.
    Free,
    /// Take its pages now, as far as they may be taken: without swap, those given to [`Free`](Self::Free).
    PageOut,
    /// Fault it in for reading.
    PopulateRead,
    /// Fault it in for writing.
    PopulateWrite,
}

impl Sim {
    /// Empties a range (`MADV_DONTNEED`).
    pub fn madvise_dontneed(&self, range: HostRange) {
        let _ = self.madvise(range, Advice::DontNeed);
    }
    /// madvise.
    pub fn madvise(&self, range: HostRange, advice: Advice) -> Result<(), Errno> {
        match advice {
            Advice::DontNeed | Advice::Free => self.drop_range(range, advice),
            Advice::PageOut => {
                self.lock().page_out(range);
                Ok(())
            }
            Advice::PopulateRead => self.populate_range(range, Touch::Load),
            Advice::PopulateWrite => self.populate_range(range, Touch::Store),
        }
    }

    fn drop_range(&self, range: HostRange, advice: Advice) -> Result<(), Errno> {
        let (mut at, mut done) = (range.start, Ok(()));
        while at < range.end {
            let mut state = self.read_mappings();
            state.reclaim();
            let Some(mapped) = state.next_vma(at).filter(|mapped| mapped.vma.range.start < range.end) else {
                self.leave(&mut state);
                return Err(Errno::NOMEM);
            };
            if mapped.vma.range.start > at {
                done = Err(Errno::NOMEM);
            }
            let refused = mapped.vma.io || advice == Advice::Free && !mapped.vma.anonymous;
            let Some(mut part) = mapped.vma.range.intersect(range).filter(|_| !refused) else {
                self.leave(&mut state);
                return Err(Errno::INVAL);
            };
            at = part.end;
            let watch = mapped.attributes.watch;
            let raise = watch.and_then(|watch| state.uffd.begin_change(watch.by, Message::Remove(part)));
            if let Some(raise) = raise {
                self.leave(&mut state);
                drop(state);
                self.raise(raise);
                state = self.read_mappings();
                let Some(now) = state.space.vma(part.start) else {
                    self.leave(&mut state);
                    return Err(Errno::NOMEM);
                };
                part.end = part.end.min(now.vma.range.end);
                at = part.end;
            }
            drop(state);
            let invalidation = self.begin(MmEvent { range: part, kind: EventKind::Clear });
            let mut state = self.lock();
            let freed = state.give_up(part, advice);
            self.end(&mut state, invalidation);
            self.leave(&mut state);
            drop(state);
            self.free_pages(&freed);
        }
        done
    }

    /// Faults a range in. What needs no fault that waits is one step, unless the schedule cuts it.
    fn populate_range(&self, range: HostRange, touch: Touch) -> Result<(), Errno> {
        let mut at = range.start;
        while at < range.end {
            let mut state = self.lock();
            if Injection::strikes(&mut state.injection.shortages) {
                return Err(Errno::NOMEM);
            }
            let mapped = state.space.vma(at).ok_or(Errno::NOMEM)?;
            if mapped.vma.io || touch == Touch::Store && !mapped.vma.write {
                return Err(Errno::INVAL);
            }
            let end = mapped.vma.range.end.min(range.end);
            at = state.populate_run(HostRange::new(at, end), &mapped, touch);
            drop(state);
            if at < end {
                match self.touch(at, touch) {
                    Ok(()) => at = at.add(SZ_4K),
                    Err(CpuError::Bus | CpuError::Segv) => return Err(Errno::FAULT),
                }
            }
        }
        Ok(())
    }
}

impl State {
    fn next_vma(&self, at: HostVa) -> Option<Mapped> {
        self.space.vmas().find(|mapped| mapped.vma.range.end > at).copied()
    }
    /// Empties a range, or marks its pages as to be had.
    fn give_up(&mut self, range: HostRange, advice: Advice) -> Vec<DevicePage> {
        if advice == Advice::DontNeed {
            return self.zap(range);
        }
        self.split_edges(range);
        for (at, entry) in self.space.entries(range) {
            match entry {
                Entry::System { frame, .. } => {
                    let held = self.frames.held(frame);
                    if held.pins == 0 && !held.shared() {
                        self.lazy.insert(frame);
                    }
                }
                Entry::Poisoned => {
                    self.space.clear(at);
                }
                Entry::Device { .. } | Entry::Migration { .. } => {}
            }
        }
        Vec::new()
    }
    /// Takes what was given to FREE and not written since.
    fn page_out(&mut self, range: HostRange) {
        for (at, entry) in self.space.entries(range) {
            if let Entry::System { frame, .. } = entry
                && self.lazy.contains(&frame)
            {
                self.take_lazy(at, frame);
            }
        }
    }
    /// Fills holes that nobody watches, from the start of a range on; gives where a touch has to be made.
    fn populate_run(&mut self, range: HostRange, mapped: &Mapped, touch: Touch) -> HostVa {
        let mut at = range.start;
        while at < range.end {
            match self.space.entry(at) {
                Some(Entry::System { write, .. }) if write || touch == Touch::Load => {}
                None if mapped.attributes.watch.is_none() => self.populate(at, mapped),
                _ => return at,
            }
            at = at.add(SZ_4K);
            if Injection::strikes(&mut self.injection.cuts) {
                return at;
            }
        }
        at
    }
}
