//! mmap and its relatives, as a thread of the program calls them.
//!
//! A change takes the mmap lock for writing (madvise: for reading), tells the notifiers, and then changes. Where a
//! descriptor of userfaultfd watches what changes, it is told too, in the order that [`uffd`](crate::uffd) has: after the
//! change and without any lock (madvise: before it). Errors are Linux'.
//!
//! | file | what |
//! |---|---|
//! | here | mmap, munmap, mprotect, pins, arenas |
//! | `advise` | DONTNEED, FREE, POPULATE |
//! | `remap` | mremap |

mod advise;
mod remap;

pub use advise::Advice;
pub use remap::Remap;

use crate::mapping::Attributes;
use crate::sim::Sim;
use crate::space::{Entry, Mapped};
use crate::{Event, State};
use hostmm::{DevicePage, EventKind, MmEvent, Vma};
use mm_live::kernel::Errno;
use units::{HostFrame, HostRange, HostVa, SZ_2M, bytes_of};

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

impl MapKind {
    fn mapped(self, range: HostRange) -> Mapped {
        let vma = Vma {
            range,
            read: true,
            write: self != Self::ReadOnly,
            anonymous: matches!(self, Self::Anonymous | Self::Huge | Self::ReadOnly),
            io: self == Self::Io,
        };
        Mapped { vma, huge: self == Self::Huge, attributes: Attributes::default() }
    }
}

/// Which way a protection changes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Protection {
    ReadOnly,
    ReadWrite,
}

impl Sim {
    /// Maps `pages` fresh pages: 2M aligned, with room before and behind, or where something was unmapped, as the
    /// configuration says.
    pub fn mmap(&self, pages: usize, kind: MapKind) -> HostRange {
        let mut state = self.write_mappings();
        let range = state.place_mapping(bytes_of(pages));
        state.map(kind.mapped(range));
        self.wrote_mappings(state);
        range
    }
    /// Maps a range where nothing is (`MAP_FIXED_NOREPLACE`).
    pub fn mmap_at(&self, range: HostRange, kind: MapKind) -> Result<(), Errno> {
        let mut state = self.write_mappings();
        let free = !state.space.vmas().any(|mapped| mapped.vma.range.overlaps(range));
        if free {
            state.map(kind.mapped(range));
        }
        self.wrote_mappings(state);
        if free { Ok(()) } else { Err(Errno::EXIST) }
    }
    /// Maps a range in the place of what is there (`MAP_FIXED`).
    pub fn mmap_over(&self, range: HostRange, kind: MapKind) {
        self.change(range, EventKind::Unmap, |state| {
            state.note(Event::Unmapped(range));
            let freed = state.unmap(range);
            state.map(kind.mapped(range));
            freed
        });
    }
    /// Unmaps a range.
    pub fn munmap(&self, range: HostRange) {
        self.change(range, EventKind::Unmap, |state| {
            state.note(Event::Unmapped(range));
            state.note_hole(range);
            state.unmap(range)
        });
    }
    /// Memory of a driver in the same process: 2M aligned, in 2M pages where it can be, not in a forked child.
    pub(crate) fn map_arena(&self, bytes: u64) -> Result<HostRange, Errno> {
        let mut state = self.write_mappings();
        let short = crate::config::Injection::strikes(&mut state.injection.shortages);
        let range = state.place_arena(bytes.next_multiple_of(SZ_2M));
        if !short {
            let mut mapped = MapKind::Huge.mapped(range);
            mapped.attributes.dont_fork = true;
            state.map(mapped);
        }
        self.wrote_mappings(state);
        if short { Err(Errno::NOMEM) } else { Ok(range) }
    }

    /// Addresses that nothing else will be given.
    pub(crate) fn reserve(&self, bytes: u64) -> HostRange {
        let mut state = self.write_mappings();
        let range = state.place_arena(bytes.next_multiple_of(SZ_2M));
        self.wrote_mappings(state);
        range
    }
    /// Memory at addresses that were reserved; never inherited.
    pub(crate) fn map_at(&self, range: HostRange) -> Result<(), Errno> {
        let mut state = self.write_mappings();
        let short = crate::config::Injection::strikes(&mut state.injection.shortages);
        if !short {
            let mut mapped = MapKind::Shared.mapped(range);
            mapped.attributes.dont_fork = true;
            state.map(mapped);
        }
        self.wrote_mappings(state);
        if short { Err(Errno::NOMEM) } else { Ok(()) }
    }

    /// What [`map_at`](Self::map_at) did, undone: the addresses stay reserved.
    pub(crate) fn unmap_at(&self, range: HostRange) {
        self.change(range, EventKind::Unmap, |state| state.unmap(range));
    }

    /// A change that takes mappings away; their watchers are told of it afterwards. Where nothing is mapped no notifier is called.
    fn change(&self, range: HostRange, kind: EventKind, change: impl FnOnce(&mut State) -> Vec<DevicePage>) {
        let mut state = self.write_mappings();
        let raises = state.begin_unmap(range);
        let is_mapped = state.space.vmas().any(|mapped| mapped.vma.range.overlaps(range));
        drop(state);
        let invalidation = is_mapped.then(|| self.begin(MmEvent { range, kind }));
        let mut state = self.lock();
        let freed = change(&mut state);
        if let Some(invalidation) = invalidation {
            self.end(&mut state, invalidation);
        }
        self.wrote_mappings(state);
        self.free_pages(&freed);
        self.raise_all(raises);
    }

    /// Takes write permission away (`mprotect(PROT_READ)`).
    pub fn protect_read_only(&self, range: HostRange) {
        self.mprotect(range, Protection::ReadOnly);
    }
    /// Gives write permission (`mprotect(PROT_READ | PROT_WRITE)`).
    pub fn protect_read_write(&self, range: HostRange) {
        self.mprotect(range, Protection::ReadWrite);
    }
    /// VMA by VMA, up to where nothing is mapped; one that has these rights is passed over.
    fn mprotect(&self, range: HostRange, to: Protection) {
        let parts = self.write_mappings().parts_to_protect(range, to);
        for range in parts {
            let invalidation = self.begin(MmEvent { range, kind: EventKind::Protection });
            let mut state = self.lock();
            state.protect(range, to);
            self.end(&mut state, invalidation);
        }
        self.wrote_mappings(self.lock());
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
            return Ok(frame);
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
}

impl State {
    /// Makes a VMA where there is none.
    fn map(&mut self, mapped: Mapped) {
        let range = mapped.vma.range;
        self.space.insert_vma(mapped);
        self.merge(range);
        self.note(Event::Mapped(range));
    }
    /// Takes VMAs and their pages away.
    fn unmap(&mut self, range: HostRange) -> Vec<DevicePage> {
        self.split_edges(range);
        self.space.cut_vmas(range);
        self.zap(range)
    }
    fn parts_to_protect(&self, range: HostRange, to: Protection) -> Vec<HostRange> {
        let (mut at, mut parts) = (range.start, Vec::new());
        while let Some(Mapped { vma, .. }) = self.space.vma(at).filter(|_| at < range.end) {
            let part = HostRange::new(at, vma.range.end.min(range.end));
            parts.extend((vma.write != (to == Protection::ReadWrite)).then_some(part));
            at = part.end;
        }
        parts
    }
    /// Pages that nobody else ever had may be written at once; those of VRAM when they are back.
    fn protect(&mut self, range: HostRange, to: Protection) {
        let write = to == Protection::ReadWrite;
        self.split_edges(range);
        for mapped in self.space.cut_vmas(range) {
            self.space.insert_vma(Mapped { vma: Vma { write, ..mapped.vma }, ..mapped });
        }
        for (at, entry) in self.space.entries(range) {
            match entry {
                Entry::System { frame, .. } => {
                    let own = !self.frames.held(frame).shared() && !self.cow.contains(&frame);
                    let write = write && own && !self.uffd.protects(at);
                    self.space.set(at, Entry::System { frame, write });
                }
                Entry::Device { page, write: could } => {
                    self.space.set(at, Entry::Device { page, write: could && write });
                }
                Entry::Migration { .. } | Entry::Poisoned => {}
            }
        }
        self.merge(range);
    }
}
