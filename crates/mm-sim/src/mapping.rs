//! What a VMA has beside its extent and rights, and when two of them are one.
//!
//! The kernel merges neighbours that agree in everything. That decides what [`mapping`](mm_live::kernel::Kernel::mapping)
//! shows, which ranges a move or an mremap may name, and whether a program gets its VMA back as it was once nothing of it
//! is registered any more.
//!
//! Upstream: vma_merge, can_vma_merge_after, find_mergeable_anon_vma (mm/vma.c).

use crate::footprint::StatePart;
use crate::space::Mapped;
use crate::state::State;
use crate::uffd::Registration;
use hostmm::Vma;
use sync::Told;
use units::{HostRange, HostVa, SZ_2M};

/// What a VMA has beside its extent and rights.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub(crate) struct Attributes {
    /// Who watches it.
    pub(crate) watch: Option<Registration>,
    /// Not in a forked child.
    pub(crate) dont_fork: bool,
    /// How far an mremap has taken it (`vm_pgoff`).
    pub(crate) shift: u64,
    /// Whose pages it has, 0 before the first (`anon_vma`).
    pub(crate) anon: u32,
}

impl Mapped {
    /// The same for a part of it.
    pub(crate) fn part(&self, range: HostRange) -> Self {
        Self { vma: Vma { range, ..self.vma }, ..*self }
    }
    /// Whether it lies just before another one with which it is one.
    fn merges(&self, next: &Self) -> bool {
        let (a, b) = (self.attributes, next.attributes);
        let pages = a.anon == b.anon || a.anon == 0 || b.anon == 0;
        self.vma.anonymous && self.vma.range.end == next.vma.range.start && pages && self.is_alike(next)
    }
    /// Whether all but pages and extent agree.
    fn is_alike(&self, next: &Self) -> bool {
        let (a, b) = (self.attributes, next.attributes);
        let extent = next.vma.range;
        let vma = Vma { range: extent, ..self.vma } == next.vma;
        vma && self.huge == next.huge && Attributes { anon: b.anon, ..a } == b
    }
}

impl State {
    /// Makes one of neighbours that agree, in and around `range`.
    pub(crate) fn merge(&mut self, range: HostRange) {
        let around = HostRange::new(HostVa(range.start.0.saturating_sub(1)), HostVa(range.end.0.saturating_add(1)));
        let vmas: Vec<Mapped> = self.space.vmas().filter(|mapped| mapped.vma.range.overlaps(around)).copied().collect();
        let mut rest = vmas.into_iter();
        let Some(mut last) = rest.next() else { return };
        for next in rest {
            if !last.merges(&next) {
                last = next;
                continue;
            }
            let whole = HostRange::new(last.vma.range.start, next.vma.range.end);
            let anon = last.attributes.anon.max(next.attributes.anon);
            last = Mapped { attributes: Attributes { anon, ..last.attributes }, ..last.part(whole) };
            self.space.cut_vmas(next.vma.range);
            self.space.insert_vma(last);
        }
    }
    /// What a first touch at `at` does beside its own entry; `None` where that is more than can be told.
    pub(crate) fn first_touch(&self, at: HostVa, mapped: &Mapped) -> Option<Told> {
        let range = mapped.vma.range;
        let is_alone =
            [range.end, HostVa(range.start.0.wrapping_sub(1))].into_iter().all(|at| self.space.vma(at).is_none());
        let in_one = HostRange::around(at, SZ_2M).covers(range);
        match (mapped.attributes.anon != 0, self.tables.has(at)) {
            _ if mapped.huge => None,
            (true, true) => Some(StatePart::Tables(at).read()),
            _ if is_alone && in_one => Some(StatePart::Tables(at).written()),
            _ => None,
        }
    }
    /// The VMA at `at` gets its first page: it shares a neighbour's pages or begins its own.
    pub(crate) fn prepare_pages(&mut self, at: HostVa) {
        let Some(mapped) = self.space.vma(at).filter(|mapped| mapped.attributes.anon == 0) else { return };
        let range = mapped.vma.range;
        // Rights may differ here, as an mprotect may make them equal again.
        let rights = |other: &Mapped| Mapped {
            vma: Vma { read: mapped.vma.read, write: mapped.vma.write, ..other.vma },
            ..*other
        };
        let neighbours = [self.space.vma(range.end), self.space.vma(HostVa(range.start.0.wrapping_sub(1)))];
        let has_pages = |other: &Mapped| other.attributes.anon != 0 && mapped.is_alike(&rights(other));
        let shared = neighbours.into_iter().flatten().find(has_pages);
        let anon = shared.map_or_else(|| self.name_pages(), |other| other.attributes.anon);
        if let Some(mapped) = self.space.vma_mut(at) {
            mapped.attributes.anon = anon;
        }
    }
}
