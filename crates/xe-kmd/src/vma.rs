//! VMAs of a GPU VM: what each span of GPU addresses is, and how the program wants it treated.
//!
//! The tree holds spans that never overlap, by start. A map or an unmap cuts what it touches: the parts that
//! stick out stay, with all of their attributes. A new mirror of default attributes joins its neighbours of the
//! same kind, as upstream does, so that programs that mirror piece by piece end with one span.
//!
//! Several changes can be made all or none ([`VmaTree::all_or_none`]): what each of them replaces is noted, and put back
//! where one of them fails. Upstream prepares operations first and commits them later; here they are few and cheap.
//!
//! Locking: the VM's lock; the tree changes only where it is held alone.
//!
//! Upstream: `drm_gpuvm.c` (`drm_gpuvm_sm_map`, `drm_gpuvm_sm_unmap`), `struct xe_vma`, `xe_vm_alloc_cpu_addr_mirror_vma`.

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};

use hostmm::PagemapId;
use units::{GpuRange, GpuVa, HostRange, HostVa, SZ_64K};
use xe_uapi::attr;

use crate::bind_queue::UserFence;
use crate::bo::{Bo, BoMap};

/// What a span shows.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    /// The CPU's addresses.
    Mirror,
    /// Zeros; writes are dropped.
    Null,
    /// A part of a BO.
    Bo(Arc<BoMap>),
    /// The CPU's memory at other addresses.
    Userptr(UserMap),
}

/// Where a userptr was bound, and to what.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct UserMap {
    /// Of this bind and no other of the VM.
    pub id: u64,
    pub start: GpuVa,
    pub host: HostVa,
}

impl UserMap {
    /// What a part of it shows.
    pub(crate) fn host_range(&self, part: GpuRange) -> HostRange {
        HostRange::sized(self.host.add(part.start.offset_from(self.start)), part.len())
    }
}

/// How MADVISE wants a span treated.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Attr {
    /// `devmem_fd`: 0 the faulting tile, -1 system memory, else a device.
    pub devmem_fd: u32,
    /// The VRAM of that device, or of a peer; `None` with the two defaults.
    pub pagemap: Option<PagemapId>,
    /// Kept, and used by nobody.
    pub migration_policy: u16,
    /// `ATOMIC_*`.
    pub atomic: u32,
    /// PAT index of leaves.
    pub pat: u16,
}

impl Attr {
    /// What a bind with PAT index `pat` starts with.
    pub(crate) const fn default_with(pat: u16) -> Self {
        let devmem_fd = attr::PREFERRED_LOC_DEFAULT_DEVICE;
        Self { devmem_fd, pagemap: None, migration_policy: 0, atomic: attr::ATOMIC_UNDEFINED, pat }
    }
}

/// The user fence of the bind that made a span, or that prefetched it last: nobody may take the span away before it is written.
/// It says nothing of what the span is, so any two are equal.
#[derive(Clone, Default, Debug)]
pub(crate) struct Hold(Weak<UserFence>);

impl PartialEq for Hold {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}
impl Eq for Hold {}

/// One span.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Vma {
    pub span: GpuRange,
    pub kind: Kind,
    /// The GPU may not write.
    pub read_only: bool,
    /// What is advised of the memory of a mirror goes with the memory.
    pub autoreset: bool,
    /// PAT index of the bind: what `attr.pat` goes back to.
    pub default_pat: u16,
    pub attr: Attr,
    pub hold: Hold,
}

impl Vma {
    /// A span of default attributes.
    pub(crate) fn new(span: GpuRange, kind: Kind, pat: u16) -> Self {
        let (attr, hold) = (Attr::default_with(pat), Hold::default());
        Self { span, kind, read_only: false, autoreset: false, default_pat: pat, attr, hold }
    }

    /// Where it shows a BO.
    pub(crate) fn bo_map(&self) -> Option<(GpuRange, &Arc<BoMap>)> {
        match &self.kind {
            Kind::Bo(map) => Some((self.span, map)),
            Kind::Mirror | Kind::Null | Kind::Userptr(_) => None,
        }
    }

    /// Where it shows the CPU's memory at other addresses.
    pub(crate) const fn user_map(&self) -> Option<(GpuRange, UserMap)> {
        match self.kind {
            Kind::Userptr(map) => Some((self.span, map)),
            Kind::Mirror | Kind::Null | Kind::Bo(_) => None,
        }
    }

    /// What it started with.
    const fn default_attr(&self) -> Attr {
        Attr::default_with(self.default_pat)
    }

    /// Whether what was advised of it goes with its memory.
    fn resets(&self) -> bool {
        self.autoreset && self.attr != self.default_attr()
    }

    /// Whether `next` could be one span with this one.
    fn joins(&self, next: &Self) -> bool {
        let is_default = self.attr == self.default_attr();
        self.kind == Kind::Mirror && is_default && *next == Self { span: next.span, ..self.clone() }
    }
}

/// All spans of a VM.
#[derive(Default, Debug)]
pub(crate) struct VmaTree {
    by_start: BTreeMap<GpuVa, Vma>,
    /// What was at which start before each change, the latest last; only while changes may be taken back.
    undo: Option<Vec<(GpuVa, Option<Vma>)>>,
}

impl VmaTree {
    /// The span that `addr` lies in.
    pub(crate) fn find(&self, addr: GpuVa) -> Option<Vma> {
        let (_, vma) = self.by_start.range(..=addr).next_back()?;
        vma.span.contains(addr).then(|| vma.clone())
    }

    /// What is no mirror in the blocks of 64K that `span` has a part of: a page of that size loses all of its leaves at once.
    pub(crate) fn blocks_of(&self, span: GpuRange) -> impl Iterator<Item = GpuRange> {
        let blocks = GpuRange::new(span.start.align_down(SZ_64K), span.end.align_up(SZ_64K));
        let others = self.overlapping(blocks).into_iter().filter(|vma| vma.kind != Kind::Mirror);
        others.filter_map(move |vma| vma.span.intersect(blocks))
    }

    /// What is left of the same bind on both sides of `gone`: it may have been under one leaf with it.
    pub(crate) fn rest_of(&self, gone: &Vma) -> impl Iterator<Item = Vma> {
        let before = gone.span.start.0.checked_sub(1).and_then(|last| self.find(GpuVa(last)));
        let sides = before.into_iter().chain(self.find(gone.span.end));
        sides.filter(|vma| vma.kind == gone.kind)
    }

    /// The spans of a BO, in order.
    pub(crate) fn of_bo(&self, bo: &Arc<Bo>) -> Vec<GpuRange> {
        let is_its = |vma: &&Vma| matches!(&vma.kind, Kind::Bo(map) if Arc::ptr_eq(&map.bo, bo));
        self.by_start.values().filter(is_its).map(|vma| vma.span).collect()
    }

    /// The spans that share an address with `span`, in order.
    pub(crate) fn overlapping(&self, span: GpuRange) -> Vec<Vma> {
        let first = self.find(span.start).map_or(span.start, |vma| vma.span.start);
        self.by_start.range(first..).map(|(_, vma)| vma.clone()).take_while(|vma| vma.span.start < span.end).collect()
    }

    /// Where nothing is in `span`, in order.
    pub(crate) fn holes(&self, span: GpuRange) -> Vec<GpuRange> {
        let (mut holes, mut at) = (Vec::new(), span.start);
        let end = GpuRange::new(span.end, span.end);
        for next in self.overlapping(span).into_iter().map(|vma| vma.span).chain([end]) {
            if at < next.start {
                holes.push(GpuRange::new(at, next.start));
            }
            at = next.end;
        }
        holes
    }

    /// Runs `change`; the tree is as it was where that fails. Costs what the changes cost, whatever the tree's size. Not
    /// to be nested.
    pub(crate) fn all_or_none<T, E>(&mut self, change: impl FnOnce(&mut Self) -> Result<T, E>) -> Result<T, E> {
        self.undo = Some(Vec::new());
        let changed = change(self);
        let undo = self.undo.take().unwrap_or_default();
        if changed.is_err() {
            undo.into_iter().rev().for_each(|(start, old)| self.set(start, old));
        }
        changed
    }

    /// Whether changes that may still be taken back took a span away whose fence is not written.
    pub(crate) fn took_held(&self) -> bool {
        self.undo.iter().flatten().filter_map(|(_, old)| old.as_ref()).any(|old| old.hold.0.strong_count() > 0)
    }

    /// `fence` holds what these changes made that is no mirror, and what is in the spans that are `prefetched` with them.
    pub(crate) fn hold(&mut self, fence: &Arc<UserFence>, prefetched: impl Iterator<Item = GpuRange>) {
        let made = self.undo.iter().flatten().filter_map(|(start, _)| self.by_start.get(start));
        let made = made.filter(|vma| vma.kind != Kind::Mirror).cloned();
        let held: Vec<_> = made.chain(prefetched.flat_map(|span| self.overlapping(span))).collect();
        for vma in held {
            self.set(vma.span.start, Some(Vma { hold: Hold(Arc::downgrade(fence)), ..vma }));
        }
    }

    /// Takes `span` out; what sticks out of it stays. Gives what was taken, clipped to `span`.
    pub(crate) fn unmap(&mut self, span: GpuRange) -> Vec<Vma> {
        let mut taken = Vec::new();
        for vma in self.overlapping(span) {
            self.set(vma.span.start, None);
            vma.span.without(span).for_each(|span| self.put(Vma { span, ..vma.clone() }));
            taken.extend(vma.span.intersect(span).map(|span| Vma { span, ..vma }));
        }
        taken
    }

    /// Puts `vma` in the place of whatever is there, and joins it with its neighbours. Gives what was taken.
    pub(crate) fn map(&mut self, vma: Vma) -> Vec<Vma> {
        let taken = self.unmap(vma.span);
        self.put(self.joined(vma));
        taken
    }

    /// Changes the attributes of `span`, cutting what sticks out of it; but the spans of BOs change as a whole.
    pub(crate) fn advise(&mut self, span: GpuRange, change: impl Fn(&mut Vma)) {
        let (bos, others): (Vec<_>, Vec<_>) =
            self.overlapping(span).into_iter().partition(|vma| matches!(vma.kind, Kind::Bo(_)));
        for mut vma in bos {
            change(&mut vma);
            self.put(vma);
        }
        let parts = others.iter().filter_map(|vma| vma.span.intersect(span));
        for mut vma in parts.flat_map(|part| self.unmap(part)).collect::<Vec<_>>() {
            change(&mut vma);
            self.put(vma);
        }
    }

    /// Whether [`reset`](Self::reset) would change something.
    pub(crate) fn resets(&self, span: GpuRange) -> bool {
        self.overlapping(span).iter().any(Vma::resets)
    }

    /// The memory that mirrors show in `span` is gone: what was advised of it goes, where the bind asked for that.
    pub(crate) fn reset(&mut self, span: GpuRange) {
        for vma in self.overlapping(span).into_iter().filter(Vma::resets) {
            if let Some(span) = vma.span.intersect(span) {
                self.map(Vma { span, attr: vma.default_attr(), ..vma });
            }
        }
    }

    fn joined(&self, vma: Vma) -> Vma {
        let mut span = vma.span;
        let before = span.start.0.checked_sub(1).and_then(|last| self.find(GpuVa(last)));
        if let Some(before) = before.filter(|before| before.joins(&vma)) {
            span.start = before.span.start;
        }
        if let Some(after) = self.find(span.end).filter(|after| vma.joins(after)) {
            span.end = after.span.end;
        }
        Vma { span, ..vma }
    }

    /// Inserts a span that overlaps none but those it has swallowed.
    fn put(&mut self, vma: Vma) {
        if vma.span.is_empty() {
            return;
        }
        for old in self.overlapping(vma.span) {
            self.set(old.span.start, None);
        }
        self.set(vma.span.start, Some(vma));
    }

    /// The one place where the tree changes.
    fn set(&mut self, start: GpuVa, vma: Option<Vma>) {
        let old = match vma {
            Some(vma) => self.by_start.insert(start, vma),
            None => self.by_start.remove(&start),
        };
        if let Some(undo) = &mut self.undo {
            undo.push((start, old));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGES: usize = 24;

    fn span(first: usize, last: usize) -> GpuRange {
        GpuRange::new(GpuVa((first as u64) << 12), GpuVa((last as u64) << 12))
    }

    /// A page's content, as the oracle keeps it.
    type Flat = [Option<(Kind, Attr)>; PAGES];
    const EMPTY: Flat = [const { None }; PAGES];

    fn check(tree: &VmaTree, flat: &Flat) {
        for (page, want) in flat.iter().enumerate() {
            let got = tree.find(GpuVa((page as u64) << 12 | 0x123));
            assert_eq!(got.map(|vma| (vma.kind, vma.attr)), *want, "page {page} of {tree:?}");
        }
        let all = tree.overlapping(span(0, PAGES));
        assert!(all.windows(2).all(|two| two[0].span.end <= two[1].span.start), "{all:?}");
        assert!(all.iter().all(|vma| !vma.span.is_empty()), "{all:?}");
    }

    fn numbers() -> impl FnMut(usize) -> usize {
        let mut state = 0x9e37_79b9_u64;
        move |n| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 33) as usize % n
        }
    }

    /// Does one random operation to both.
    fn operate(tree: &mut VmaTree, flat: &mut Flat, random: &mut impl FnMut(usize) -> usize) {
        let first = random(PAGES);
        let last = first + 1 + random(PAGES - first);
        let (where_, pages) = (span(first, last), first..last);
        match random(4) {
            0 => {
                tree.unmap(where_);
                flat[pages].fill(None);
            }
            1 => {
                let atomic = random(3) as u32;
                tree.advise(where_, |vma| vma.attr.atomic = atomic);
                flat[pages].iter_mut().flatten().for_each(|(_, attr)| attr.atomic = atomic);
            }
            n => {
                let kind = if n == 2 { Kind::Mirror } else { Kind::Null };
                tree.map(Vma::new(where_, kind.clone(), 3));
                flat[pages].fill(Some((kind, Attr::default_with(3))));
            }
        }
    }

    #[test]
    fn random_operations_agree_with_a_flat_map() {
        let mut random = numbers();
        for _ in 0..300 {
            let (mut tree, mut flat): (VmaTree, Flat) = (VmaTree::default(), EMPTY);
            for _ in 0..40 {
                operate(&mut tree, &mut flat, &mut random);
                check(&tree, &flat);
            }
        }
    }

    #[test]
    fn what_was_advised_of_memory_goes_with_it_where_that_was_asked_for() {
        let mut tree = VmaTree::default();
        tree.map(Vma { autoreset: true, ..Vma::new(span(0, 8), Kind::Mirror, 3) });
        tree.map(Vma::new(span(8, 16), Kind::Mirror, 3));
        tree.advise(span(2, 12), |vma| vma.attr.atomic = 1);
        let told = |tree: &VmaTree| {
            tree.overlapping(span(0, PAGES)).iter().map(|vma| (vma.span, vma.attr.atomic)).collect::<Vec<_>>()
        };
        assert_eq!(told(&tree), [(span(0, 2), 0), (span(2, 8), 1), (span(8, 12), 1), (span(12, 16), 0)]);
        tree.reset(span(4, 10));
        assert_eq!(
            told(&tree),
            [(span(0, 2), 0), (span(2, 4), 1), (span(4, 8), 0), (span(8, 12), 1), (span(12, 16), 0)]
        );
        tree.reset(span(0, 5));
        assert_eq!(told(&tree), [(span(0, 8), 0), (span(8, 12), 1), (span(12, 16), 0)], "one span again");
    }

    #[test]
    fn operations_that_fail_change_nothing() {
        let mut random = numbers();
        let (mut tree, mut flat): (VmaTree, Flat) = (VmaTree::default(), EMPTY);
        for round in 0..1000 {
            let before = (tree.by_start.clone(), flat.clone());
            let done = tree.all_or_none(|tree| {
                (0..3).for_each(|_| operate(tree, &mut flat, &mut random));
                if round % 2 == 0 { Ok(()) } else { Err(()) }
            });
            if done.is_err() {
                assert_eq!(tree.by_start, before.0);
                flat = before.1;
            }
            check(&tree, &flat);
        }
    }

    #[test]
    fn a_change_costs_what_it_changes() {
        let mut tree = VmaTree::default();
        (0..10_000).for_each(|n| _ = tree.map(Vma::new(span(2 * n, 2 * n + 1), Kind::Mirror, 3)));
        let noted = |tree: &mut VmaTree| {
            tree.map(Vma::new(span(7001, 7002), Kind::Null, 3));
            tree.undo.as_ref().map(Vec::len).ok_or(())
        };
        assert_eq!(tree.all_or_none(noted), Ok(1));
    }

    #[test]
    fn default_mirrors_join_and_others_do_not() {
        let mut tree = VmaTree::default();
        tree.map(Vma::new(span(0, 4), Kind::Mirror, 3));
        tree.map(Vma::new(span(8, 12), Kind::Mirror, 3));
        assert_eq!(tree.map(Vma::new(span(4, 8), Kind::Mirror, 3)), []);
        assert_eq!(tree.overlapping(span(0, PAGES)), [Vma::new(span(0, 12), Kind::Mirror, 3)]);
        tree.map(Vma::new(span(12, 14), Kind::Null, 3));
        tree.map(Vma::new(span(14, 16), Kind::Null, 3));
        tree.map(Vma::new(span(16, 18), Kind::Mirror, 1));
        tree.map(Vma::new(span(18, 20), Kind::Mirror, 3));
        assert_eq!(tree.overlapping(span(0, PAGES)).len(), 5);
    }

    #[test]
    fn what_a_map_takes_is_clipped() {
        let mut tree = VmaTree::default();
        tree.map(Vma::new(span(2, 6), Kind::Null, 3));
        let taken = tree.map(Vma::new(span(4, 9), Kind::Mirror, 3));
        assert_eq!(taken, [Vma::new(span(4, 6), Kind::Null, 3)]);
        assert_eq!(tree.find(GpuVa(0x3000)), Some(Vma::new(span(2, 4), Kind::Null, 3)));
    }
}
