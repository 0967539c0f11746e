//! mmap and its relatives, as a thread of the program calls them.
//!
//! In the Linux manner a change takes the mmap lock for writing (DONTNEED does not), tells the notifiers, and
//! then changes. In the userfaultfd manner it changes and posts an event in one step (DONTNEED: posts, and
//! changes once the event was read), and mprotect is silent.

use crate::sim::{Locked, Sim};
use crate::space::{Entry, Mapped};
use crate::userfaultfd::Change;
use crate::{Event, Manner, State};
use hostmm::{EventKind, MmEvent, Vma};
use units::{HostFrame, HostRange, HostVa, bytes_of};

/// A kind of mapping.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum MapKind {
    /// Private, anonymous, readable and writable.
    Anonymous,
    /// The same; first touches take 2M where they can.
    Huge,
    /// Private, anonymous, readable only.
    ReadOnly,
    /// Of a file, or shared: never migrates.
    Shared,
    /// `VM_IO | VM_PFNMAP`: no device may see it.
    Io,
}

/// There is no mapping, or another one is in the way.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NotMapped;

impl MapKind {
    fn mapped(self, range: HostRange) -> Mapped {
        let vma = Vma {
            range,
            read: true,
            write: self != Self::ReadOnly,
            anonymous: matches!(self, Self::Anonymous | Self::Huge | Self::ReadOnly),
            io: self == Self::Io,
        };
        Mapped { vma, huge: self == Self::Huge }
    }
}

/// Which way a protection changes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Protection {
    ReadOnly,
    ReadWrite,
}

impl Sim {
    /// Maps `pages` fresh pages, 2M aligned, with room before and behind.
    pub fn mmap(&self, pages: usize, kind: MapKind) -> HostRange {
        let mut state = self.write_mappings();
        let range = state.place_mapping(bytes_of(pages));
        state.space.insert_vma(kind.mapped(range));
        state.note(Event::Mapped(range));
        self.wrote_mappings(state);
        range
    }
    /// Maps a range where nothing is (`MAP_FIXED_NOREPLACE`). Events that tell of the hole are taken in before
    /// (userfaultfd: the wrapper of the call does that).
    pub fn mmap_at(&self, range: HostRange, kind: MapKind) -> Result<(), NotMapped> {
        let mut state = self.write_mappings();
        self.take_in(&mut state);
        let free = !state.space.vmas().any(|mapped| mapped.vma.range.overlaps(range));
        if free {
            state.space.insert_vma(kind.mapped(range));
            state.note(Event::Mapped(range));
        }
        self.wrote_mappings(state);
        if free { Ok(()) } else { Err(NotMapped) }
    }

    /// Unmaps a range.
    pub fn munmap(&self, range: HostRange) {
        let state = self.write_mappings();
        match state.config.manner {
            Manner::Linux => {
                drop(state);
                let invalidation = self.begin(MmEvent { range, kind: EventKind::Unmap });
                let mut state = self.lock();
                state.note(Event::Unmapped(range));
                state.space.cut_vmas(range);
                let freed = state.zap(range);
                self.end(&mut state, invalidation);
                self.wrote_mappings(state);
                self.free_pages(&freed);
            }
            Manner::Userfaultfd => {
                let mut state = state;
                state.note(Event::Unmapped(range));
                state.space.cut_vmas(range);
                state.claims.spoil(range);
                state.drop_entries(range, Drop::All);
                self.post(state, Change::Unmap(range));
            }
        }
    }

    /// Empties a range (`MADV_DONTNEED`). In the userfaultfd manner pages migrated between the event and the zap
    /// would survive it, so the event drops them already; where one cannot be dropped, the range is not claimed
    /// for a while.
    pub fn madvise_dontneed(&self, range: HostRange) {
        match self.manner() {
            Manner::Linux => {
                let mut state = self.lock();
                while state.mmap_lock.writer {
                    self.changed.wait(&mut state);
                }
                state.mmap_lock.readers += 1;
                drop(state);
                let invalidation = self.begin(MmEvent { range, kind: EventKind::Clear });
                let mut state = self.lock();
                state.space.split_edges(range);
                let freed = state.zap(range);
                self.end(&mut state, invalidation);
                self.leave(&mut state);
                drop(state);
                self.free_pages(&freed);
            }
            Manner::Userfaultfd => {
                self.post(self.lock(), Change::Remove(range));
                self.lock().drop_entries(range, Drop::System);
            }
        }
    }

    /// Takes write permission away (`mprotect(PROT_READ)`).
    pub fn protect_read_only(&self, range: HostRange) {
        self.mprotect(range, Protection::ReadOnly);
    }
    /// Gives write permission (`mprotect(PROT_READ | PROT_WRITE)`).
    pub fn protect_read_write(&self, range: HostRange) {
        self.mprotect(range, Protection::ReadWrite);
    }
    fn mprotect(&self, range: HostRange, to: Protection) {
        let state = self.write_mappings();
        match state.config.manner {
            Manner::Linux => {
                drop(state);
                let invalidation = self.begin(MmEvent { range, kind: EventKind::Protection });
                let mut state = self.lock();
                state.protect(range, to);
                self.end(&mut state, invalidation);
                self.wrote_mappings(state);
            }
            Manner::Userfaultfd => {
                let mut state = state;
                state.protect(range, to);
                self.wrote_mappings(state);
            }
        }
    }

    /// Moves a mapping, or a part of one, to a new place; gives it (`mremap(MREMAP_MAYMOVE)`).
    pub fn mremap(&self, from: HostRange) -> Result<HostRange, NotMapped> {
        let mut state = self.write_mappings();
        let Some(mapped) = state.space.vma(from.start).filter(|mapped| mapped.vma.range.covers(from)) else {
            self.wrote_mappings(state);
            return Err(NotMapped);
        };
        let to = state.place_mapping(from.len());
        match state.config.manner {
            Manner::Linux => {
                drop(state);
                let invalidation = self.begin(MmEvent { range: from, kind: EventKind::Unmap });
                let mut state = self.lock();
                state.move_mapping(from, to, mapped);
                state.move_cells(from, to);
                self.end(&mut state, invalidation);
                self.wrote_mappings(state);
            }
            Manner::Userfaultfd => {
                state.claims.spoil_uncarried(from);
                state.move_mapping(from, to, mapped);
                self.post(state, Change::Remap { from, to });
            }
        }
        Ok(to)
    }

    /// Pins the page at `at`: it is in system memory and does not migrate until [`unpin`](Sim::unpin)
    /// (`pin_user_pages`). One pin a page.
    pub fn pin(&self, at: HostVa) -> Result<HostFrame, crate::CpuError> {
        loop {
            self.touch(at, crate::access::Touch::Store)?;
            let mut state = self.lock();
            let Some(frame) = state.mapped_frame(at.page()) else { continue };
            let held = state.frames.held(frame);
            held.pins += 1;
            held.refs += 1;
            let before = state.pins.insert(at.page(), frame);
            assert!(before.is_none(), "{at:?} is pinned twice");
            return Ok(state.frame_name(frame, at));
        }
    }
    /// Ends a pin. Whether there was one.
    pub fn unpin(&self, at: HostVa) -> bool {
        let mut state = self.lock();
        let Some(frame) = state.pins.remove(&at.page()) else { return false };
        state.frames.held(frame).pins -= 1;
        state.frames.put(frame);
        true
    }

    /// Takes the mmap lock for writing (linux), gives the state.
    pub(crate) fn write_mappings(&self) -> Locked<'_> {
        let mut state = self.lock();
        if state.config.manner == Manner::Linux {
            while state.mmap_lock.writer || state.mmap_lock.readers > 0 {
                self.changed.wait(&mut state);
            }
            state.mmap_lock.writer = true;
        }
        state
    }
    /// Gives it back.
    pub(crate) fn wrote_mappings(&self, mut state: Locked<'_>) {
        state.mmap_lock.writer = false;
        self.changed.notify_all();
    }
}

/// Which entries a change of the program takes away (manner userfaultfd).
#[derive(Clone, Copy, PartialEq, Eq)]
enum Drop {
    /// All: the mapping is gone. What VRAM holds of it the reader lets go.
    All,
    /// Those of system memory; what misses a page of VRAM goes on missing it until the reader knows.
    System,
}

impl State {
    fn drop_entries(&mut self, range: HostRange, which: Drop) {
        self.space.split_edges(range);
        for (at, entry) in self.space.entries(range) {
            match entry {
                Entry::System { frame, .. } => {
                    self.space.clear(at);
                    self.frames.put(frame);
                }
                Entry::Device { .. } | Entry::Migration { .. } if which == Drop::All => {
                    self.space.clear(at);
                }
                Entry::Device { .. } | Entry::Migration { .. } => {}
            }
        }
    }
    fn protect(&mut self, range: HostRange, to: Protection) {
        let write = to == Protection::ReadWrite;
        for mapped in self.space.cut_vmas(range) {
            self.space.insert_vma(Mapped { vma: Vma { write, ..mapped.vma }, ..mapped });
        }
        for (at, entry) in self.space.entries(range).into_iter().filter(|_| !write) {
            match entry {
                Entry::System { frame, .. } => self.space.set(at, Entry::System { frame, write: false }),
                Entry::Device { page, .. } => self.space.set(at, Entry::Device { page, write: false }),
                Entry::Migration { .. } => {}
            }
        }
    }
    fn move_mapping(&mut self, from: HostRange, to: HostRange, mapped: Mapped) {
        self.note(Event::Remapped { from, to });
        self.space.cut_vmas(from);
        self.space.insert_vma(Mapped { vma: Vma { range: to, ..mapped.vma }, ..mapped });
        self.claims.follow(from, to);
        for (at, entry) in self.space.entries(from) {
            self.space.clear(at);
            self.space.set(to.page_at(from.page_index(at)), entry);
        }
    }
    /// The pages of VRAM mapped in `from` are mapped in `to` now.
    fn move_cells(&mut self, from: HostRange, to: HostRange) {
        for (at, entry) in self.space.entries(to) {
            if let Entry::Device { page, .. } = entry
                && let Some(cell) = self.vram.cell_mut(page)
                && cell.at == Some(from.page_at(to.page_index(at)))
            {
                cell.at = Some(at);
            }
        }
    }
}
