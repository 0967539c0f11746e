//! mremap: in place, to another place, over what is there, and with the old mapping left empty.
//!
//! A descriptor that watches what moves is told thrice, each after the other was read: what lay at the new place is
//! unmapped, the mapping is remapped, its old place is unmapped. By the first of these all has happened.
//!
//! To an address of the caller's choice and with its length kept, several VMAs move, one after the other; one that is
//! watched does not, if it is not the only one, and ends the call with `EFAULT`, with those before it moved.
//!
//! Upstream: do_mremap, remap_move, move_vma, notify_uffd (mm/mremap.c).

use crate::Event;
use crate::mapping::Attributes;
use crate::sim::{Locked, Sim};
use crate::space::{Entry, Mapped};
use crate::state::State;
use crate::uffd::Raise;
use hostmm::{DevicePage, EventKind, MmEvent, Vma};
use mm_live::kernel::{Errno, Message};
use units::{HostRange, HostVa, SZ_2M};

/// An mremap, which may move.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Remap {
    /// What lies here
    pub from: HostRange,
    /// has this many bytes afterwards,
    pub len: u64,
    /// and lies here (`MREMAP_FIXED`), in the place of what does,
    pub to: Option<HostVa>,
    /// with an empty mapping at its old place (`MREMAP_DONTUNMAP`).
    pub keep: bool,
}

impl Remap {
    /// To a place of the kernel's choice.
    pub const fn anywhere(from: HostRange) -> Self {
        Self { from, len: from.len(), to: None, keep: false }
    }
    /// To this place.
    pub const fn fixed(from: HostRange, to: HostVa) -> Self {
        Self { to: Some(to), ..Self::anywhere(from) }
    }
    /// To another length, in place where it can be.
    pub const fn resized(from: HostRange, len: u64) -> Self {
        Self { len, ..Self::anywhere(from) }
    }
}

/// What is to be told of when the lock is given back.
#[derive(Default)]
struct Told {
    early: Vec<Raise>,
    remaps: Vec<Raise>,
    late: Vec<Raise>,
    freed: Vec<DevicePage>,
}

impl Sim {
    /// Moves a mapping, or a part of one, to a new place; gives it (`mremap(MREMAP_MAYMOVE)` to a place of its own).
    pub fn mremap(&self, from: HostRange) -> Result<HostRange, Errno> {
        let to = self.lock().place_mapping(from.len()).start;
        self.mremap_as(Remap::fixed(from, to))
    }
    /// mremap.
    pub fn mremap_as(&self, remap: Remap) -> Result<HostRange, Errno> {
        let state = self.write_mappings();
        let mut told = Told::default();
        let done = if (remap.to.is_some() || remap.keep) && remap.len == remap.from.len() {
            self.move_vmas(state, &remap, &mut told)
        } else {
            self.resize(state, &remap, &mut told)
        };
        self.free_pages(&told.freed);
        self.raise_all(told.early);
        self.raise_all(told.remaps);
        self.raise_all(told.late);
        done
    }

    fn move_vmas(&self, mut state: Locked<'_>, remap: &Remap, told: &mut Told) -> Result<HostRange, Errno> {
        let from = remap.from;
        let to = remap.to.unwrap_or_else(|| state.place_mapping(remap.len).start);
        let to = HostRange::sized(to, remap.len);
        let vmas: Vec<Mapped> = state.space.vmas().filter(|mapped| mapped.vma.range.overlaps(from)).copied().collect();
        let begins = vmas.first().is_some_and(|first| first.vma.range.start <= from.start);
        let overlap = from.overlaps(to);
        let watched = |mapped: &Mapped| mapped.attributes.watch.is_some();
        if overlap || !begins || vmas.len() > 1 && watched(&vmas[0]) {
            self.wrote_mappings(state);
            return Err(if overlap { Errno::INVAL } else { Errno::FAULT });
        }
        drop(state);
        let invalidations = [from, to].map(|range| self.begin(MmEvent { range, kind: EventKind::Unmap }));
        let mut state = self.lock();
        let mut done = Ok(to);
        for mapped in &vmas {
            if vmas.len() > 1 && watched(mapped) {
                done = Err(Errno::FAULT);
                break;
            }
            let Some(part) = mapped.vma.range.intersect(from) else { continue };
            let place = HostRange::sized(to.start.add(part.start.offset_from(from.start)), part.len());
            state.move_vma(part, place, remap.keep, told);
        }
        invalidations.into_iter().for_each(|invalidation| self.end(&mut state, invalidation));
        self.wrote_mappings(state);
        done
    }

    fn resize(&self, mut state: Locked<'_>, remap: &Remap, told: &mut Told) -> Result<HostRange, Errno> {
        let (from, now) = (remap.from, HostRange::sized(remap.from.start, remap.len));
        let one = state.space.vma(from.start).filter(|mapped| mapped.vma.range.covers(from));
        let Some(mapped) = one.filter(|_| remap.len > 0) else {
            self.wrote_mappings(state);
            return Err(if remap.len == 0 { Errno::INVAL } else { Errno::FAULT });
        };
        let grown = HostRange::new(from.end, now.end);
        let free = |range: HostRange| !state.space.vmas().any(|mapped| mapped.vma.range.overlaps(range));
        let in_place = mapped.vma.range.end == from.end && free(grown);
        if remap.to.is_none() && remap.len > from.len() && in_place {
            state.space.insert_vma(mapped.part(HostRange::new(mapped.vma.range.start, now.end)));
            state.merge(now);
            self.wrote_mappings(state);
            return Ok(now);
        }
        let cut = HostRange::new(now.end, from.end);
        let shrinks = remap.len < from.len();
        if shrinks {
            told.early.extend(state.begin_unmap(cut));
        }
        let moves = remap.to.is_some() || remap.len > from.len();
        let to = remap.to.or_else(|| moves.then(|| state.place_mapping(remap.len).start));
        let to = HostRange::sized(to.unwrap_or(now.start), remap.len);
        drop(state);
        let invalidations = [from, to].map(|range| self.begin(MmEvent { range, kind: EventKind::Unmap }));
        let mut state = self.lock();
        if shrinks {
            let freed = state.unmap(cut);
            told.freed.extend(freed);
        }
        if moves {
            let left = HostRange::new(from.start, from.end.min(now.end));
            state.move_vma(left, to, remap.keep, told);
        }
        invalidations.into_iter().for_each(|invalidation| self.end(&mut state, invalidation));
        self.wrote_mappings(state);
        Ok(to)
    }
}

impl State {
    /// Moves what lies in `from`, of one VMA, to the beginning of `to`.
    fn move_vma(&mut self, from: HostRange, to: HostRange, keep: bool, told: &mut Told) {
        told.early.extend(self.begin_unmap(to));
        let freed = self.unmap(to);
        told.freed.extend(freed);
        let Some(mapped) = self.space.vma(from.start) else { return };
        self.note(Event::Remapped { from, to });
        let watch = mapped.attributes.watch.filter(|watch| self.uffd.is_told(watch.by));
        if let Some(watch) = watch {
            told.remaps.extend(self.uffd.begin_change(watch.by, Message::Remap { from, to: to.start }));
        }
        let late = if keep { Vec::new() } else { self.begin_unmap(from) };
        told.late.extend(late);
        self.split_edges(from);
        let attributes = mapped.attributes;
        let shift = attributes.shift.wrapping_add(to.start.0.wrapping_sub(from.start.0));
        let shift = if attributes.anon == 0 { 0 } else { shift };
        self.space.cut_vmas(from);
        self.space.insert_vma(Mapped {
            vma: Vma { range: to, ..mapped.vma },
            attributes: Attributes { watch, shift, ..attributes },
            ..mapped
        });
        self.move_entries(from, to);
        self.move_cells(from, to);
        if keep {
            self.space.insert_vma(Mapped { attributes: Attributes { anon: 0, ..attributes }, ..mapped.part(from) });
            self.merge(from);
        }
        self.merge(to);
    }
    fn move_entries(&mut self, from: HostRange, to: HostRange) {
        self.claims.follow(from, to);
        let place = |at: HostVa| to.start.add(at.offset_from(from.start));
        let protected = self.uffd.protected_in(from);
        self.uffd.unprotect(from);
        protected.into_iter().for_each(|at| self.uffd.protect(place(at)));
        let in_step = place(from.start).0.wrapping_sub(from.start.0).is_multiple_of(SZ_2M);
        let entries = self.space.entries(from);
        let huge: Vec<bool> = entries.iter().map(|(at, _)| in_step && self.space.order(*at) > 0).collect();
        for ((at, entry), huge) in entries.into_iter().zip(huge) {
            self.space.clear(at);
            self.space.set(place(at), entry);
            match huge {
                true if place(at).is_aligned(SZ_2M) => self.space.mark_huge(place(at)),
                true => {}
                false => self.tables.make(place(at)),
            }
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
