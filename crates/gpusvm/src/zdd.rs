//! Zdd: which pages live in an allocation of device memory, and the end of it when the last one leaves.
//!
//! A zdd is made with each migration into VRAM, owns the [`Devmem`], and counts: one reference for each page
//! that lives in it, one for the migration while it runs, one for whoever evicts it. The last put takes it
//! out of the table and hands the `Devmem` back for release. Keys are generational, and which pages live is known
//! exactly (once a part of them went, by a bit each), so that a put too many is found instead of ending somebody
//! else's memory.
//!
//! One allocation is one contiguous run, so a page's zdd is found by its frame: in a short list for the 2M around it,
//! the last run that starts at or below it.
//!
//! Where the driver can use a part of an allocation again (its granule), what lost all of its pages is given back at once:
//! the runs that are left are allocations of their own from then on. Nobody does that to one that is referred to: it
//! waits for the last put. Upstream keeps the whole of it until its last page leaves (defect D4).
//!
//! Locking: the zdd lock (`Rank::FRAMES`) around the whole table; nothing is called under it.
//! Upstream: `struct drm_pagemap_zdd`, `drm_pagemap_zdd_alloc/get/put`.

use crate::devmem::Devmem;
use crate::live::Live;
use alloc::vec::Vec;
use core::ops::Range;
use hostmm::{DevicePage, DeviceRun};
use slotmap::SlotMap;
use sync::Mutex;
use sync::rank::{self, Rank};

slotmap::new_key_type! {
    /// Names a zdd; never one that came later at the same frames.
    pub(crate) struct ZddKey;
}

/// What a reader needs to know of a zdd.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct ZddView {
    /// Which.
    pub key: ZddKey,
    /// First page of its allocation.
    pub base: DevicePage,
    /// Pages of its allocation.
    pub pages: usize,
    /// Until when (`sync::time::now_ns`) CPU faults leave it alone.
    pub timeslice_end_ns: u64,
    /// Until when its pages stay against migrations that respect that.
    pub settled_ns: u64,
}

impl ZddView {
    /// Pages of its allocation from `page`, which lies in it, to its end.
    pub(crate) fn pages_from(&self, page: DevicePage) -> usize {
        self.pages - (page.frame - self.base.frame) as usize
    }

    /// Whether `page` lies in its allocation. As long as a page of it is known to live, it is this zdd's.
    pub(crate) fn contains(&self, page: DevicePage) -> bool {
        page.pagemap == self.base.pagemap
            && page.frame.checked_sub(self.base.frame).is_some_and(|index| index < self.pages as u64)
    }
}

struct Zdd {
    devmem: Devmem,
    /// References of migrations and evictions under way.
    users: u32,
    /// Pages that live here.
    live: Live,
    timeslice_end_ns: u64,
    settled_ns: u64,
}

#[derive(Default)]
struct Table {
    zdds: SlotMap<ZddKey, Zdd>,
    /// For each 2M of frames the allocations that have a frame of it, ascending: first frame, and zdd.
    slots: Vec<Vec<(u64, ZddKey)>>,
}

/// log2 of the frames of a slot: as many as the largest usual allocation.
const SLOT_SHIFT: u32 = 9;

/// What a put gives back to the driver: an allocation whose last page left, or parts of one. The first is what mostly happens,
/// and needs no list.
#[derive(Default, PartialEq, Eq, Debug)]
#[must_use]
pub(crate) struct Given {
    whole: Option<Devmem>,
    parts: Vec<Devmem>,
}

impl IntoIterator for Given {
    type Item = Devmem;
    type IntoIter = core::iter::Chain<core::option::IntoIter<Devmem>, alloc::vec::IntoIter<Devmem>>;

    fn into_iter(self) -> Self::IntoIter {
        self.whole.into_iter().chain(self.parts)
    }
}

/// All zdds of one pagemap.
pub(crate) struct Zdds {
    table: Mutex<Table>,
    /// Pages of the smallest part of an allocation that is given back alone, if any is.
    granule: Option<usize>,
}

impl Zdds {
    /// None yet; `granule` as [`DevmemOps::granule`](crate::DevmemOps::granule) has it.
    pub(crate) fn new(granule: Option<usize>) -> Self {
        Self { table: rank::mutex(Rank::FRAMES, Table::default()), granule }
    }

    /// A new zdd around `devmem`, with the creator's reference.
    pub(crate) fn create(&self, devmem: Devmem) -> ZddKey {
        let (first, pages) = (devmem.base.frame, devmem.pages);
        let mut table = self.table.lock();
        debug_assert!(table.run_is_free(&devmem), "two allocations share a frame: {devmem:?}");
        let live = Live::none(pages);
        let key = table.zdds.insert(Zdd { devmem, users: 1, live, timeslice_end_ns: 0, settled_ns: 0 });
        table.enter(first, pages, key);
        key
    }

    /// Takes a reference to the zdd that `page` lies in.
    pub(crate) fn get(&self, page: DevicePage) -> Option<ZddView> {
        let mut table = self.table.lock();
        let view = table.find(page)?;
        table.zdds.get_mut(view.key)?.users += 1;
        Some(view)
    }

    /// Puts a reference that `create` or `get` gave. The last one gives back what is to be released.
    pub(crate) fn put(&self, key: ZddKey) -> Given {
        let mut table = self.table.lock();
        let Some(zdd) = table.zdds.get_mut(key) else {
            debug_assert!(false, "zdd put after its last put");
            return Given::default();
        };
        debug_assert!(zdd.users > 0, "zdd put without a get");
        zdd.users = zdd.users.saturating_sub(1);
        table.reap(key, self.granule)
    }

    /// The first `pages` pages of the allocation, none of which lived, live from now on.
    pub(crate) fn populate(&self, key: ZddKey, pages: usize) {
        let mut table = self.table.lock();
        let Some(zdd) = table.zdds.get_mut(key) else { return };
        debug_assert!(zdd.live.count() == 0 && pages <= zdd.devmem.pages, "populated twice, or too much");
        zdd.live = Live::first(pages, zdd.devmem.pages);
    }

    /// At most `pages` pages from `first` on, those of one allocation, do not live any more. Says how many it took,
    /// at least one; the last one that lived gives back what is to be released.
    pub(crate) fn pages_put(&self, first: DevicePage, pages: usize) -> (usize, Given) {
        let mut table = self.table.lock();
        let Some(view) = table.find(first) else {
            debug_assert!(false, "a page was freed that lies in no allocation: {first:?}");
            return (1, Given::default());
        };
        let start = (first.frame - view.base.frame) as usize;
        let taken = start..view.pages.min(start + pages);
        let Some(zdd) = table.zdds.get_mut(view.key) else { return (taken.len(), Given::default()) };
        let were_live = zdd.live.clear(taken.clone());
        debug_assert!(were_live == taken.len(), "a page was freed twice: {first:?} and {} behind it", taken.len() - 1);
        (taken.len(), table.reap(view.key, self.granule))
    }

    /// The zdd that `page` lies in, as it is now.
    pub(crate) fn find(&self, page: DevicePage) -> Option<ZddView> {
        self.table.lock().find(page)
    }

    /// Sets the end of the minimum residency.
    pub(crate) fn set_timeslice_end(&self, key: ZddKey, end_ns: u64) {
        if let Some(zdd) = self.table.lock().zdds.get_mut(key) {
            zdd.timeslice_end_ns = end_ns;
        }
    }

    /// Sets until when its pages stay against migrations that respect that.
    pub(crate) fn settle(&self, key: ZddKey, until_ns: u64) {
        if let Some(zdd) = self.table.lock().zdds.get_mut(key) {
            zdd.settled_ns = until_ns;
        }
    }

    /// Replaces `out` by the pages that live in `key`'s allocation; whether there are any.
    pub(crate) fn live_runs(&self, key: ZddKey, out: &mut Vec<DeviceRun>) -> bool {
        out.clear();
        let table = self.table.lock();
        if let Some(zdd) = table.zdds.get(key) {
            zdd.live_runs(out);
        }
        !out.is_empty()
    }

    /// Whether each allocation counts as many pages as it can name, and has nothing that is to be given back.
    pub(crate) fn are_sound(&self) -> bool {
        let mut runs = Vec::new();
        self.table.lock().zdds.values().all(|zdd| {
            runs.clear();
            zdd.live_runs(&mut runs);
            let is_kept = zdd.users > 0 || self.granule.is_none_or(|granule| !zdd.has_dead(granule));
            is_kept && runs.iter().map(|run| run.pages).sum::<usize>() == zdd.live.count()
        })
    }

    /// Number of allocations, and of pages that live in them.
    pub(crate) fn totals(&self) -> (usize, u64) {
        let table = self.table.lock();
        (table.zdds.len(), table.zdds.values().map(|zdd| zdd.live.count() as u64).sum())
    }
}

impl Table {
    fn find(&self, page: DevicePage) -> Option<ZddView> {
        let slot = self.slots.get(usize::try_from(page.frame >> SLOT_SHIFT).ok()?)?;
        let before = slot.partition_point(|(first, _)| *first <= page.frame);
        let (_, key) = *slot.get(before.checked_sub(1)?)?;
        let zdd = self.zdds.get(key)?;
        zdd.devmem.contains(page).then_some(ZddView {
            key,
            base: zdd.devmem.base,
            pages: zdd.devmem.pages,
            timeslice_end_ns: zdd.timeslice_end_ns,
            settled_ns: zdd.settled_ns,
        })
    }

    /// The slots that an allocation has frames of.
    fn slots_of(first: u64, pages: usize) -> Range<usize> {
        let end = first + pages.max(1) as u64 - 1;
        (first >> SLOT_SHIFT) as usize..(end >> SLOT_SHIFT) as usize + 1
    }

    fn enter(&mut self, first: u64, pages: usize, key: ZddKey) {
        let slots = Self::slots_of(first, pages);
        if self.slots.len() < slots.end {
            self.slots.resize_with(slots.end, Vec::new);
        }
        for slot in &mut self.slots[slots] {
            let at = slot.partition_point(|(other, _)| *other < first);
            slot.insert(at, (first, key));
        }
    }

    fn leave(&mut self, first: u64, pages: usize) {
        for slot in &mut self.slots[Self::slots_of(first, pages)] {
            if let Ok(at) = slot.binary_search_by_key(&first, |(other, _)| *other) {
                slot.remove(at);
            }
        }
    }

    /// Gives back what nobody refers to and no page lives in: the allocation, or parts of it.
    fn reap(&mut self, key: ZddKey, granule: Option<usize>) -> Given {
        let Some(zdd) = self.zdds.get(key).filter(|zdd| zdd.users == 0) else { return Given::default() };
        if zdd.live.count() > 0 {
            let granule = granule.filter(|&granule| zdd.has_dead(granule));
            let parts = granule.map_or(Vec::new(), |granule| self.split(key, granule));
            return Given { whole: None, parts };
        }
        Given { whole: self.take(key).map(|zdd| zdd.devmem), parts: Vec::new() }
    }

    /// Puts what lives of an allocation in the place of it, a zdd for each run of granules; gives the rest.
    fn split(&mut self, key: ZddKey, granule: usize) -> Vec<Devmem> {
        let Some(zdd) = self.take(key) else { return Vec::new() };
        let mut dead = Vec::new();
        for (piece, lives) in zdd.live.pieces(granule) {
            let devmem = zdd.devmem.part(piece.clone());
            if lives {
                let (first, pages) = (devmem.base.frame, devmem.pages);
                let key = self.zdds.insert(Zdd { devmem, live: zdd.live.part(piece), ..zdd });
                self.enter(first, pages, key);
            } else {
                dead.push(devmem);
            }
        }
        dead
    }

    /// Takes a zdd out.
    fn take(&mut self, key: ZddKey) -> Option<Zdd> {
        let zdd = self.zdds.remove(key)?;
        self.leave(zdd.devmem.base.frame, zdd.devmem.pages);
        Some(zdd)
    }

    fn run_is_free(&self, devmem: &Devmem) -> bool {
        let (first, end) = (devmem.base.frame, devmem.base.frame + devmem.pages as u64);
        let slots = self.slots.iter().take(Self::slots_of(first, devmem.pages).end);
        let behind = slots.flatten().any(|(other, _)| (first..end).contains(other));
        !behind && self.find(devmem.base).is_none()
    }
}

impl Zdd {
    /// Whether no page lives in some granule.
    fn has_dead(&self, granule: usize) -> bool {
        self.live.count() < self.devmem.pages && self.live.pieces(granule).any(|(_, lives)| !lives)
    }

    fn live_runs(&self, out: &mut Vec<DeviceRun>) {
        let run = |run: Range<usize>| DeviceRun { first: self.devmem.base.add(run.start as u64), pages: run.len() };
        out.extend(self.live.runs().map(run));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;
    use hostmm::PagemapId;

    fn page(frame: u64) -> DevicePage {
        DevicePage { pagemap: PagemapId(0), frame }
    }
    fn devmem(first: u64, pages: usize) -> Devmem {
        Devmem { base: page(first), pages, cookie: first }
    }
    fn all(devmem: Devmem) -> Given {
        Given { whole: Some(devmem), parts: Vec::new() }
    }
    fn nothing() -> Given {
        Given::default()
    }

    #[test]
    fn the_last_page_releases_and_only_the_last() {
        let zdds = Zdds::new(None);
        let key = zdds.create(devmem(16, 3));
        zdds.populate(key, 3);
        assert_eq!(zdds.put(key), nothing());
        assert_eq!(zdds.pages_put(page(17), 1), (1, nothing()));
        assert_eq!(zdds.pages_put(page(16), 1), (1, nothing()));
        assert_eq!(zdds.totals(), (1, 1));
        assert_eq!(zdds.pages_put(page(18), 1), (1, all(devmem(16, 3))));
        assert_eq!(zdds.totals(), (0, 0));
    }

    #[test]
    fn a_run_of_several_allocations_ends_each() {
        let zdds = Zdds::new(None);
        for (first, pages) in [(16, 3), (19, 2)] {
            let key = zdds.create(devmem(first, pages));
            zdds.populate(key, pages);
            assert_eq!(zdds.put(key), nothing());
        }
        assert_eq!(zdds.pages_put(page(16), 5), (3, all(devmem(16, 3))));
        assert_eq!(zdds.pages_put(page(19), 2), (2, all(devmem(19, 2))));
    }

    #[test]
    fn a_frame_finds_its_run_and_no_other() {
        let zdds = Zdds::new(None);
        let low = zdds.create(devmem(0, 16));
        let high = zdds.create(devmem(32, 16));
        assert_eq!(zdds.find(page(15)).map(|v| v.key), Some(low));
        assert_eq!(zdds.find(page(16)), None);
        assert_eq!(zdds.find(page(31)), None);
        assert_eq!(zdds.find(page(47)).map(|v| v.key), Some(high));
        assert_eq!(zdds.find(page(48)), None);
        assert_eq!(zdds.find(DevicePage { pagemap: PagemapId(1), frame: 0 }), None, "another tile's frame 0");
        assert_eq!((zdds.put(low), zdds.put(high)), (all(devmem(0, 16)), all(devmem(32, 16))));
    }

    #[test]
    fn who_looks_keeps_it_alive() {
        let zdds = Zdds::new(None);
        let key = zdds.create(devmem(0, 1));
        zdds.populate(key, 1);
        let view = zdds.get(page(0)).expect("live");
        assert_eq!(zdds.put(key), nothing());
        assert_eq!(zdds.pages_put(page(0), 1), (1, nothing()));
        assert_eq!(zdds.put(view.key), all(devmem(0, 1)));
    }

    #[test]
    fn a_granule_without_a_page_is_given_back_and_the_rest_is_of_several() {
        let zdds = Zdds::new(Some(16));
        let key = zdds.create(devmem(512, 64));
        zdds.populate(key, 64);
        assert_eq!(zdds.put(key), nothing());
        let part = |first, pages| Devmem { cookie: 512, ..devmem(first, pages) };
        let given =
            |parts: &[(u64, usize)]| parts.iter().map(|(first, pages)| part(*first, *pages)).collect::<Vec<_>>();
        assert_eq!(zdds.pages_put(page(531), 13), (13, nothing()), "a page lives in each granule");
        let user = zdds.get(page(512)).expect("live");
        assert_eq!(zdds.pages_put(page(528), 3), (3, nothing()), "somebody refers to it");
        assert_eq!(zdds.put(user.key), Given { whole: None, parts: given(&[(528, 16)]) });
        assert_eq!(zdds.find(page(528)), None);
        let [low, high] = [512, 575].map(|frame| zdds.find(page(frame)).expect("live"));
        assert_eq!([low, high].map(|view| (view.base.frame, view.pages)), [(512, 16), (544, 32)]);
        assert!(low.key != user.key && zdds.are_sound());
        assert_eq!(zdds.create(devmem(528, 16)), zdds.find(page(540)).expect("another's now").key);
        assert_eq!(zdds.pages_put(page(512), 16), (16, all(part(512, 16))));
        assert_eq!(zdds.pages_put(page(550), 26), (26, Given { whole: None, parts: given(&[(560, 16)]) }));
        assert_eq!(zdds.pages_put(page(544), 6), (6, all(part(544, 16))));
        assert_eq!(zdds.totals(), (1, 0));
    }

    #[test]
    fn what_lives_is_told_in_runs() {
        let zdds = Zdds::new(None);
        let key = zdds.create(devmem(64, 200));
        let live = || {
            let mut out = Vec::new();
            zdds.live_runs(key, &mut out);
            out.iter().map(|run| (run.first.frame, run.pages)).collect::<Vec<_>>()
        };
        zdds.populate(key, 200);
        assert_eq!(live(), [(64, 200)]);
        assert_eq!(zdds.pages_put(page(254), 10), (10, nothing()), "from the end");
        assert_eq!(live(), [(64, 190)]);
        assert_eq!(zdds.pages_put(page(120), 70), (70, nothing()), "over three words");
        assert_eq!(live(), [(64, 56), (190, 64)]);
        assert_eq!(zdds.pages_put(page(64), 1), (1, nothing()));
        assert_eq!((live(), zdds.totals()), (vec![(65, 55), (190, 64)], (1, 119)));
        assert_eq!(zdds.pages_put(page(65), 55), (55, nothing()));
        assert_eq!(zdds.pages_put(page(190), 64), (64, nothing()));
        assert_eq!(live(), []);
        assert_eq!(zdds.put(key), all(devmem(64, 200)));
    }

    #[test]
    #[cfg(debug_assertions)]
    #[should_panic(expected = "freed twice")]
    fn a_page_freed_twice_is_found() {
        let zdds = Zdds::new(None);
        let key = zdds.create(devmem(0, 2));
        zdds.populate(key, 2);
        assert_eq!(zdds.pages_put(page(0), 1), (1, nothing()));
        let _ = zdds.pages_put(page(0), 1);
    }
}
