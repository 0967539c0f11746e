//! Which parts of the program the first userfaultfd watches: chunks of 2M, clipped to their VMA, while they have pages
//! in VRAM. Registered before the first page leaves, unregistered when the last is back in system memory.
//!
//! A registration is the mapping's: mremap takes it along, and a mapping that grows in place takes what it grows by
//! into it, without an event. So both are changed only while no event is on its way.
//!
//! What is noted as registered must be so, every page: a page that leaves a mapping that is not is replaced by zeros
//! at the next touch, and nobody is asked. What is registered and not noted does no harm: its faults are late ones,
//! its events empty. But unregistered memory raises no event. Another thread's munmap may open a hole between the
//! look at the VMA and REGISTER, which does not mind holes, and its mmap may fill it afterwards with memory that is
//! not registered. Hence the second looks here: a note is made only of what is one VMA afterwards, as it was before,
//! with no event on its way by then.
//!
//! An idle chunk stays registered for a while ([`IDLE_NS`]): memory that goes to and fro would be registered each time. Until then its
//! munmap and DONTNEED raise events, and a touch of a hole there is answered by a reader.
//!
//! Locking: the events lock shared, then `registration` over the ioctl, then the books.

use crate::books::{Books, Mark, Watched, chunk_of, chunk_range};
use crate::kernel::{Descriptor, Errno, Watch};
use crate::{LiveMm, Transport};
use sync::time::now_ns;
use units::{HostRange, HostVa, SZ_2M};

/// How long a chunk with nothing in VRAM stays registered.
const IDLE_NS: u64 = 10_000_000;

/// How a registration ended.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Registered {
    /// All of it, for sure.
    Surely,
    /// Perhaps not: mappings changed meanwhile.
    Perhaps,
}

impl LiveMm {
    /// Registers the VMAs of a chunk that have claimed pages, before the first page leaves. The claim's marks keep
    /// the chunk from being unregistered at the same time.
    pub(crate) fn register(&self, chunk: HostVa) -> Result<(), Errno> {
        let range = HostRange::around(chunk, SZ_2M);
        if self.books.lock().unwatched(range).is_empty() {
            return Ok(());
        }
        let mut tries = self.refusals();
        loop {
            let unread = self.hold_events();
            let done = self.register_claimed(range);
            if done != Ok(Registered::Perhaps) {
                self.counters.refused.add(u64::from(done.is_err()));
                return done.map(drop);
            }
            drop(unread);
            if !self.yield_to_raiser(&mut tries) {
                return Err(Errno::AGAIN);
            }
        }
    }

    /// Registers what is not yet, of claimed pages' VMAs. A mapping that moves between the ioctl and its note takes its
    /// registration along, unnoted: then there is an event, and nothing is sure.
    fn register_claimed(&self, range: HostRange) -> Result<Registered, Errno> {
        let _one_at_a_time = self.registration.lock();
        let marked = self.books.lock().unwatched(range);
        let mut covered = HostRange::new(range.start, range.start);
        for run in marked {
            let mut at = run.start.max(covered.end.min(run.end));
            while at < run.end {
                covered = self.movable_part(at, range).ok_or(Errno::INVAL)?;
                self.kernel.register(Descriptor::Program, covered, self.watch())?;
                self.counters.registered.add(1);
                let sure = self.movable_part(at, range) == Some(covered) && !self.kernel.event_pending();
                self.books.lock().chunk_mut(at).add_registered(Watched { range: covered, sure });
                if !sure {
                    return Ok(Registered::Perhaps);
                }
                at = covered.end;
            }
        }
        Ok(Registered::Surely)
    }

    /// What lies in `range` of the VMA around `va`, if that may migrate.
    fn movable_part(&self, va: HostVa, range: HostRange) -> Option<HostRange> {
        self.single_vma_at(va).filter(|vma| vma.anonymous)?.range.intersect(range)
    }

    /// Unregisters chunks that have been idle for a while.
    pub(crate) fn retire_idle(&self) {
        let now = now_ns();
        let mut due = Vec::new();
        self.books.lock().idle.retain(|&(number, since)| {
            let stays = since + IDLE_NS > now;
            if !stays {
                due.push(number);
            }
            stays
        });
        self.retire_chunks(due);
    }

    /// Unregisters chunks that have nothing in VRAM any more and nobody at them. Where an event is on its way they
    /// stay registered until the next time: an mremap may have put a registered mapping, with pages in VRAM, at the
    /// very place, and nobody would know yet. One that begins in the middle holds its thread until its event is
    /// read, which the barrier prevents: so the registration is put back before that thread can touch anything.
    pub(crate) fn retire_chunks(&self, chunks: impl IntoIterator<Item = u64>) {
        for number in chunks {
            if !self.books.lock().chunks.get(number).is_some_and(|chunk| chunk.is_idle()) {
                continue;
            }
            let _unread = self.hold_events();
            // From now on the kernel fills the places of dropped pages, and no event says so.
            self.settle_dropped(chunk_range(number));
            let _one_at_a_time = self.registration.lock();
            if self.kernel.event_pending() {
                self.books.lock().note_idle(chunk_range(number), now_ns());
                continue;
            }
            let parts = self.books.lock().retire(number);
            for part in &parts {
                self.counters.unregistered.add(1);
                // A mapping that is gone needs no unregistering: its error says nothing new.
                let _ = self.kernel.unregister(Descriptor::Program, part.range);
            }
            if self.kernel.event_pending() {
                parts.into_iter().for_each(|part| self.register_again(part.range));
                self.books.lock().note_idle(chunk_range(number), now_ns());
            }
            self.kernel.wake(chunk_range(number));
        }
    }

    /// Registers whatever lies in `part` by now, VMA by VMA. That is not known to be all of it when it is over, so
    /// the next page to leave registers once more.
    fn register_again(&self, part: HostRange) {
        let mut at = part.start;
        while let Some(vma) = self.vma_from(at).filter(|vma| vma.range.start < part.end) {
            if let Some(piece) = vma.range.intersect(part).filter(|_| vma.anonymous)
                && self.kernel.register(Descriptor::Program, piece, self.watch()).is_ok()
            {
                self.counters.registered.add(1);
            }
            at = vma.range.end;
        }
        self.books.lock().chunk_mut(part.start).add_registered(Watched { range: part, sure: false });
    }

    /// What a registration asks for.
    pub(crate) const fn watch(&self) -> Watch {
        match self.transport {
            Transport::Copy => Watch::MissingAndProtected,
            Transport::Move => Watch::Missing,
        }
    }
}

impl Books {
    /// The marked runs of `range` that are not registered for sure.
    fn unwatched(&self, range: HostRange) -> Vec<HostRange> {
        let Some(chunk) = self.chunk(range.start) else { return Vec::new() };
        let marked = |run: &HostRange| self.mark(run.start) != Mark::Free && !chunk.is_wholly_registered(*run);
        if chunk.is_wholly_registered(range) {
            return Vec::new();
        }
        self.known(range).into_iter().map(|(run, _)| run).filter(marked).collect()
    }

    /// Notes chunks of `range` that have nothing in VRAM any more: their registrations end when they stay so.
    pub(crate) fn note_idle(&mut self, range: HostRange, now: u64) {
        let mut number = chunk_of(range.start);
        while chunk_range(number).start < range.end {
            if self.chunks.get(number).is_some_and(|chunk| chunk.is_idle()) {
                match self.idle.iter_mut().find(|(idle, _)| *idle == number) {
                    Some(idle) => idle.1 = now,
                    None => self.idle.push((number, now)),
                }
            }
            number += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::LiveMm;
    use crate::sys::mem;
    use std::sync::Arc;
    use sync::atomic::AtomicU32;
    use units::{SZ_4K, SZ_64K};

    /// Somebody maps memory anew within a chunk, over and over, while it is registered and unregistered: no page may
    /// be noted as registered that is not.
    #[test]
    fn a_hole_that_opens_and_closes_meanwhile_is_not_taken_for_registered() {
        let Some(mm) = LiveMm::start_for_test() else { return };
        let (chunk, whole) = mem::map_guarded(SZ_2M).expect("2M of addresses");
        let part = HostRange::sized(chunk.start.add(SZ_64K), SZ_64K);
        let stop = Arc::new(AtomicU32::new(0));
        let remapper = sync::spawn("remapper", {
            let stop = stop.clone();
            move || {
                while stop.load() == 0 {
                    mem::unmap(part);
                    (0..500).for_each(|_| core::hint::spin_loop());
                    mem::map_at(part).expect("the place was free a moment ago");
                }
            }
        });
        let (mut turn, mut seen) = (0u32, 0);
        while turn < 10_000 || seen < 100 {
            turn += 1;
            assert!(turn < 2_000_000, "only {seen} registrations were seen");
            let va = part.start.add(u64::from(turn % 16) * SZ_4K);
            mm.books.lock().set_mark(HostRange::sized(chunk.start, SZ_4K), Mark::Claimed(1));
            let _ = mm.register(chunk.start);
            {
                let _unread = mm.hold_events();
                if mm.books.lock().chunk(va).is_some_and(|chunk| chunk.watched(va).is_some()) {
                    let filled = mm.kernel.zero(Descriptor::Program, HostRange::sized(va, SZ_4K)).error;
                    // A munmap that began since is excused: its event will end the registration.
                    let bare = filled == Some(Errno::NOENT) && !mm.kernel.event_pending();
                    assert!(!bare, "turn {turn}: {va} is noted and not registered");
                    seen += u32::from(matches!(filled, None | Some(Errno::EXIST)));
                }
            }
            mm.books.lock().set_mark(HostRange::sized(chunk.start, SZ_4K), Mark::Free);
            mm.retire_chunks([chunk.start.0 / SZ_2M]);
        }
        stop.store(1);
        remapper.join();
        mem::unmap(whole);
        assert!(mm.stop());
    }
}
