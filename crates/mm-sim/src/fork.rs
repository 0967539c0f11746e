//! fork: the child gets a copy of the page table, frames are shared until somebody writes.
//!
//! Entries of both sides are write-protected and the notifiers are called; pages of VRAM are shared too, by read-only
//! device-private entries on both sides, and the child reads them where they are (the model's shortcut: the kernel has them
//! brought back to system memory). When such a page leaves its frame, the child keeps what it held. What `MADV_DONTFORK` names is not in the
//! child, and nobody watches it.

use crate::access::CpuError;
use crate::sim::Sim;
use crate::space::{Entry, Space};
use crate::state::ChildId;
use crate::{Event, State};
use hostmm::{DevicePage, EventKind, MmEvent};
use units::{HostRange, HostVa};

impl Sim {
    /// Forks; the child can be read with [`child_load_u64`](Sim::child_load_u64) until [`child_exit`](Sim::child_exit).
    pub fn fork(&self) -> ChildId {
        let mut state = self.write_mappings();
        // An eviction holds no mmap lock: its migration entries go first.
        while !state.claims.is_empty() {
            self.changed.wait(&mut state);
        }
        let ranges: Vec<_> = state.space.vmas().map(|mapped| mapped.vma.range).collect();
        drop(state);
        let whole = HostRange::new(
            ranges.first().map_or(HostVa(0), |range| range.start),
            ranges.last().map_or(HostVa(0), |range| range.end),
        );
        let invalidation = self.begin(MmEvent { range: whole, kind: EventKind::Protection });
        let mut state = self.lock();
        while !state.claims.is_empty() {
            self.changed.wait(&mut state);
        }
        let child = state.copy_space();
        self.end(&mut state, invalidation);
        self.wrote_mappings(state);
        child
    }
    /// What a child loads.
    pub fn child_load_u64(&self, child: ChildId, at: HostVa) -> Result<u64, CpuError> {
        let state = self.lock();
        let space = state.children.get(&child).ok_or(CpuError::Segv)?;
        let readable = space.vma(at).is_some_and(|mapped| mapped.vma.read);
        let mut word = [0; 8];
        match space.entry(at) {
            _ if !readable => return Err(CpuError::Segv),
            Some(Entry::System { frame, .. }) => {
                let held = state.frames.get(frame).ok_or(CpuError::Bus)?;
                held.content.read(at.page_offset(), &mut word);
            }
            Some(Entry::Device { page, .. }) => {
                state.vram.cell(page).ok_or(CpuError::Bus)?.content.read(at.page_offset(), &mut word);
            }
            Some(Entry::Migration { .. } | Entry::Poisoned) => return Err(CpuError::Bus),
            None => {}
        }
        Ok(u64::from_le_bytes(word))
    }
    /// Ends a child.
    pub fn child_exit(&self, child: ChildId) {
        let mut state = self.lock();
        let Some(space) = state.children.remove(&child) else { return };
        for (_, entry) in space.all_entries() {
            if let Entry::System { frame, .. } = entry {
                state.frames.put(frame);
            }
        }
    }
}

impl State {
    /// Copies the page table to a child, write-protecting what both share.
    fn copy_space(&mut self) -> ChildId {
        self.note(Event::Forked);
        let mut child = Space::default();
        let vmas: Vec<_> = self.space.vmas().copied().collect();
        for mut mapped in vmas.into_iter().filter(|mapped| !mapped.attributes.dont_fork) {
            mapped.attributes.watch = None;
            child.insert_vma(mapped);
        }
        let entries: Vec<_> = self.space.all_entries().filter(|(at, _)| child.vma(*at).is_some()).collect();
        for (at, entry) in entries {
            let private = self.space.vma(at).is_some_and(|mapped| mapped.vma.anonymous);
            match entry {
                Entry::System { frame, write } => {
                    self.frames.share(frame);
                    self.cow.extend(private.then_some(frame));
                    let shared = Entry::System { frame, write: write && !private };
                    self.space.set(at, shared);
                    child.set(at, shared);
                }
                Entry::Device { page, .. } => {
                    child.set(at, Entry::Device { page, write: false });
                    self.space.set(at, Entry::Device { page, write: false });
                }
                Entry::Migration { .. } => {}
                Entry::Poisoned => child.set(at, entry),
            }
        }
        let id = self.name_child();
        self.children.insert(id, child);
        id
    }

    /// A page leaves its frame of VRAM: children that share it keep what it holds. Whether the frame is free.
    pub(crate) fn drop_page(&mut self, page: DevicePage) -> bool {
        for child in self.children.values_mut() {
            let shares = |entry: &Entry| matches!(entry, Entry::Device { page: shared, .. } if *shared == page);
            let Some((at, _)) = child.all_entries().find(|(_, entry)| shares(entry)) else { continue };
            let content = self.vram.cell(page).map(|cell| cell.content.clone()).unwrap_or_default();
            child.set(at, Entry::System { frame: self.frames.alloc(content), write: false });
        }
        self.vram.drop_page(page)
    }
}
