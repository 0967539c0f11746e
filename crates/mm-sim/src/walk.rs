//! The walk: what is mapped, page by page, with faults where the caller wants them.
//!
//! A fault drops the lock, so pages reported before it may have changed; the sequence tells, and the walk ends
//! `Stale`. A page that needs one makes it fault to the end of what was asked for, which migrates back the caller's own pages of
//! VRAM behind that page too, as the kernel does.
//!
//! Upstream: hmm_range_fault (mm/hmm.c).

use crate::State;
use crate::access::{CpuError, Touch};
use crate::footprint::{self, StatePart};
use crate::sim::{Locked, Sim};
use crate::space::Entry;
use hostmm::{MmError, Place, Run, Walk, WalkRun};
use units::{HostRange, HostVa, SZ_2M, SZ_4K};

/// What a look at one page says.
enum Look {
    /// Where it is, whether a device may write it, the order of its mapping.
    Report(Option<Place>, bool, u8),
    Fault,
    Wait,
    Fail(MmError),
}

/// What a hole is reported as.
const HOLE: Look = Look::Report(None, false, 0);

impl State {
    fn look(&self, at: HostVa, walk: &Walk) -> Look {
        let Some(mapped) = self.space.vma(at).filter(|mapped| mapped.vma.read && !mapped.vma.io) else {
            return if walk.fault { Look::Fail(MmError::NoVma) } else { HOLE };
        };
        if walk.fault && walk.write && !mapped.vma.write {
            return Look::Fail(MmError::Denied);
        }
        let order = self.space.order(at);
        match self.space.entry(at) {
            None if walk.fault => Look::Fault,
            Some(Entry::System { write: false, .. }) if walk.fault && walk.write => Look::Fault,
            Some(Entry::System { frame, write }) => Look::Report(Some(Place::Host(frame)), write, order),
            Some(Entry::Device { page, write }) if self.shows(page, walk) => {
                Look::Report(Some(Place::Device(page)), write, order)
            }
            Some(Entry::Device { .. } | Entry::Poisoned) if walk.fault => Look::Fault,
            Some(Entry::Migration { .. }) if walk.fault => Look::Wait,
            None | Some(Entry::Device { .. } | Entry::Migration { .. } | Entry::Poisoned) => HOLE,
        }
    }
    /// Whether a page of VRAM is the walker's to see.
    fn shows(&self, page: hostmm::DevicePage, walk: &Walk) -> bool {
        walk.owner.is_some() && self.vram.owner(page) == walk.owner
    }
    fn outdated(&self, walk: &Walk) -> bool {
        walk.valid_since.is_some_and(|(id, seq)| self.notifiers.read_retry(id, seq))
    }
}

fn tell(state: &Locked<'_>, walk: &Walk) {
    let since = walk.valid_since.map(|(id, _)| StatePart::Count(id));
    footprint::tell(state, footprint::blocks(walk.range).chain(since).map(StatePart::read));
}

impl Sim {
    /// [`HostMm::walk`](hostmm::HostMm::walk).
    pub(crate) fn walk_range(&self, walk: &Walk, runs: &mut Vec<WalkRun>) -> Result<(), MmError> {
        let touch = if walk.write { Touch::Store } else { Touch::Load };
        let mut state = self.look_at(walk);
        let mut index = 0;
        runs.clear();
        while index < walk.range.pages() {
            if state.outdated(walk) {
                return Err(MmError::Stale);
            }
            let at = walk.range.page_at(index);
            match state.look(at, walk) {
                Look::Report(place, write, order) => {
                    let run = Run { range: HostRange::sized(at, SZ_4K), place };
                    WalkRun::push(runs, WalkRun { run, write, order });
                    index += 1;
                }
                Look::Fail(error) => return Err(error),
                Look::Wait => {
                    self.changed.wait(&mut state);
                    tell(&state, walk);
                }
                Look::Fault => {
                    drop(state);
                    self.touch_step(at, walk.range, touch)?;
                    state = self.look_at(walk);
                }
            }
        }
        Ok(())
    }

    /// Takes the lock for a look at what is mapped.
    fn look_at(&self, walk: &Walk) -> Locked<'_> {
        let state = self.lock();
        tell(&state, walk);
        state
    }

    /// Touches every page from one on to the end of its 2M, or of the walk.
    fn touch_step(&self, from: HostVa, walked: HostRange, touch: Touch) -> Result<(), MmError> {
        let step = HostRange::new(from, HostRange::around(from, SZ_2M).end.min(walked.end));
        for i in 0..step.pages() {
            self.touch(step.page_at(i), touch).map_err(refused)?;
        }
        Ok(())
    }
}

/// What a walker is told where a program would get a signal.
fn refused(error: CpuError) -> MmError {
    match error {
        CpuError::Segv | CpuError::Bus => MmError::NoVma,
    }
}
