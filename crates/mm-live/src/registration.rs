//! Which parts of the program the first userfaultfd watches: chunks of 2M, clipped to their VMA, while they have pages
//! in VRAM. Registered before the first page leaves, unregistered when the last is home.
//!
//! A registration is the mapping's: mremap takes it along, and a mapping that grows in place takes what it grows by
//! into it, without an event. So both are changed only while no event is on its way.
//!
//! Locking: the intake lock shared, then `registration` over the ioctl, then the page map.

use crate::map::{Mark, chunk_range};
use crate::sys::{Errno, uffd::Watch};
use crate::{LiveMm, Transport};
use units::{HostRange, HostVa, SZ_2M};

impl LiveMm {
    /// Registers the VMAs of a chunk that have claimed pages, before the first page leaves. The claim's marks keep
    /// the chunk from being unregistered at the same time.
    pub(crate) fn register(&self, chunk: HostVa) -> Result<(), Errno> {
        // A mapping that moves between the ioctl and its note takes its registration along, unnoted.
        let mut tries = 0;
        let mut unread = self.gate.hold_events();
        while self.program.event_pending() {
            drop(unread);
            if !self.make_way(&mut tries) {
                return Err(Errno::AGAIN);
            }
            unread = self.gate.hold_events();
        }
        let _unread = unread;
        let _one_at_a_time = self.registration.lock();
        let range = HostRange::around(chunk, SZ_2M);
        let marked: Vec<HostVa> = {
            let map = self.map.lock();
            let bare = |va: &HostVa| !map.chunk(*va).is_some_and(|chunk| chunk.is_registered(*va));
            map.concerned(range)
                .into_iter()
                .filter(|page| page.2 != Mark::Free)
                .map(|page| page.0)
                .filter(bare)
                .collect()
        };
        let mut covered = HostRange::new(range.start, range.start);
        for va in marked {
            if covered.contains(va) {
                continue;
            }
            let Some(part) = self.vma_at(va).filter(|vma| vma.anonymous).and_then(|vma| vma.range.intersect(range))
            else {
                self.counters.refused.fetch_add(1);
                return Err(Errno::INVAL);
            };
            if let Err(errno) = self.program.register(part, self.watch()) {
                self.counters.refused.fetch_add(1);
                return Err(errno);
            }
            self.counters.registered.fetch_add(1);
            self.map.lock().chunk_mut(va).add_registered(part);
            covered = part;
        }
        Ok(())
    }

    /// Unregisters chunks that have nothing in VRAM any more and nobody at them. Where an event is on its way they
    /// stay registered until the next time: an mremap may have put a registered mapping, with pages in VRAM, at the
    /// very place, and nobody would know yet. One that begins in the middle holds its thread until its event is
    /// read, which the gate prevents: so the registration is put back before that thread can touch anything.
    pub(crate) fn retire_chunks(&self, chunks: impl IntoIterator<Item = u64>) {
        for number in chunks {
            if !self.map.lock().chunks.get(&number).is_some_and(|chunk| chunk.is_idle()) {
                continue;
            }
            let _unread = self.gate.hold_events();
            let _one_at_a_time = self.registration.lock();
            if self.program.event_pending() {
                continue;
            }
            let parts = self.map.lock().retire(number);
            for &part in &parts {
                self.counters.unregistered.fetch_add(1);
                // A mapping that is gone needs no unregistering: its error says nothing new.
                let _ = self.program.unregister(part);
            }
            if self.program.event_pending() {
                parts.into_iter().for_each(|part| self.register_again(part));
            }
            self.program.wake(chunk_range(number));
        }
    }

    fn register_again(&self, part: HostRange) {
        if self.program.register(part, self.watch()).is_ok() {
            self.counters.registered.fetch_add(1);
            self.map.lock().chunk_mut(part.start).add_registered(part);
        }
    }

    /// What a registration asks for.
    pub(crate) const fn watch(&self) -> Watch {
        match self.transport {
            Transport::Copy => Watch::MissingAndProtected,
            Transport::Move => Watch::Missing,
        }
    }
}
