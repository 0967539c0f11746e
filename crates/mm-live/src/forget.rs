//! What an event takes away: pages, and with munmap their mapping.
//!
//! REMOVE (DONTNEED, FREE) is told *before* the pages go and nothing tells that they have gone. A page that is
//! migrated in between would survive. So the event itself drops the pages that are in system memory, by moving
//! them to a scratch arena: whatever the program's own call drops later is newer, and was written while the call
//! ran. Where a page cannot be moved, the range is not migrated for a while instead.

use crate::arena::Frame;
use crate::map::{Home, Mark};
use crate::sys::mem;
use crate::{LiveMm, Transport};
use gpusvm::hostmm::DevicePage;
use units::{HostRange, SZ_2M, SZ_4K, bytes_of};

/// How long a range stays out of migration when its DONTNEED could not be anticipated.
const QUARANTINE_NS: u64 = 200_000_000;

/// What an event takes away.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Forget {
    /// Pages; the mapping, and its registration, stay.
    Pages,
    /// The mapping.
    Mapping,
}

/// Pages that an event took away.
#[derive(Default)]
pub(crate) struct Lost {
    /// Frames to empty now, and to free when the engine was told.
    pub frames: Vec<DevicePage>,
}

impl LiveMm {
    pub(crate) fn forget(&self, range: HostRange, what: Forget) -> Lost {
        let mut lost = Lost::default();
        let mut guard = self.map.lock();
        let map = &mut *guard;
        for (va, home, mark) in map.concerned(range) {
            if let Mark::Claimed { claim, entry } = mark {
                if let Some(mut state) = map.entry(claim, entry) {
                    state.dead = true;
                    self.counters.died.fetch_add(1);
                    map.set_entry(claim, entry, state);
                }
            } else if let Home::Device(page) = home {
                map.set_frame(page, Frame::Condemned);
                lost.frames.push(page);
            }
            map.set_home(va, Home::System);
            map.set_mark(va, Mark::Free);
        }
        if what == Forget::Mapping {
            for number in map.chunks_in(range) {
                if let Some(chunk) = map.chunks.get_mut(number) {
                    chunk.subtract_registered(range);
                    if chunk.is_idle() && chunk.registered.is_empty() {
                        map.chunks.remove(number);
                    }
                }
            }
        }
        lost
    }

    /// Drops what a REMOVE is about to drop from system memory.
    pub(crate) fn drop_ahead(&self, range: HostRange) {
        let parts: Vec<HostRange> = {
            let map = self.map.lock();
            let registered = map.chunks_at(range).flat_map(|(_, chunk)| &chunk.registered);
            registered.filter_map(|part| part.range.intersect(range)).collect()
        };
        for part in parts {
            if self.transport == Transport::Copy || !self.discard(part) {
                let until = sync::time::now_ns() + QUARANTINE_NS;
                self.map.lock().quarantine.push((part, until));
            }
        }
    }

    /// Drops pages of the program: without madvise, which would raise an event, where pages can move. False where
    /// some could not go.
    pub(crate) fn discard(&self, range: HostRange) -> bool {
        if self.transport == Transport::Copy {
            self.drop_own(range);
            return true;
        }
        let mut all = true;
        let scratch = self.scratch.lock();
        let mut start = range.start;
        while start < range.end {
            let end = start.add(SZ_2M).align_down(SZ_2M).min(range.end);
            let (pages, resident) = self.leading_run(start.0, HostRange::new(start, end).pages());
            if !resident {
                start = start.add(bytes_of(pages));
                continue;
            }
            let progress = self.device.move_pages(scratch.start.0, start.0, bytes_of(pages));
            let _ = mem::advise(*scratch, mem::Advice::DontNeed);
            match progress.error {
                _ if progress.bytes > 0 => start = start.add(progress.bytes),
                // It went, or was never there.
                Some(_) if !self.leading_run(start.0, 1).1 => start = start.add(SZ_4K),
                Some(_) => {
                    all = false;
                    start = start.add(SZ_4K);
                }
                None => start = start.add(bytes_of(pages)),
            }
        }
        all
    }

    /// Drops pages by DONTNEED, and knows its own event again.
    pub(crate) fn drop_own(&self, range: HostRange) {
        self.own_drops.lock().push(range);
        // The event outlives the call: its message may be read but not looked at when this returns.
        if mem::advise(range, mem::Advice::DontNeed).is_err() {
            self.is_own_drop(range);
        }
    }

    pub(crate) fn is_own_drop(&self, range: HostRange) -> bool {
        let mut own = self.own_drops.lock();
        let Some(index) = own.iter().position(|&own| own == range) else { return false };
        own.swap_remove(index);
        true
    }
}
