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
//! Locking: the zdd lock (`Rank::FRAMES`) around the whole table; nothing is called under it.
//! Upstream: `struct drm_pagemap_zdd`, `drm_pagemap_zdd_alloc/get/put`.

use crate::devmem::Devmem;
use alloc::vec;
use alloc::vec::Vec;
use core::ops::Range;
use hostmm::{DevicePage, DeviceRun};
use slotmap::SlotMap;
use sync::Mutex;
use sync::rank::{self, Rank};
use units::bit_words;

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
    live: usize,
    /// Which, where these are not the first `live` ones: a bit for each. An allocation is whole for most of its life.
    bits: Option<Vec<u64>>,
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

/// All zdds of one pagemap.
pub(crate) struct Zdds {
    table: Mutex<Table>,
}

impl Default for Zdds {
    fn default() -> Self {
        Self { table: rank::mutex(Rank::FRAMES, Table::default()) }
    }
}

impl Zdds {
    /// A new zdd around `devmem`, with the creator's reference.
    pub(crate) fn create(&self, devmem: Devmem) -> ZddKey {
        let (first, pages) = (devmem.base.frame, devmem.pages);
        let mut table = self.table.lock();
        debug_assert!(table.run_is_free(&devmem), "two allocations share a frame: {devmem:?}");
        let key = table.zdds.insert(Zdd { devmem, users: 1, live: 0, bits: None, timeslice_end_ns: 0, settled_ns: 0 });
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
    #[must_use]
    pub(crate) fn put(&self, key: ZddKey) -> Option<Devmem> {
        let mut table = self.table.lock();
        let Some(zdd) = table.zdds.get_mut(key) else {
            debug_assert!(false, "zdd put after its last put");
            return None;
        };
        debug_assert!(zdd.users > 0, "zdd put without a get");
        zdd.users = zdd.users.saturating_sub(1);
        table.reap(key)
    }

    /// The first `pages` pages of the allocation, none of which lived, live from now on.
    pub(crate) fn populate(&self, key: ZddKey, pages: usize) {
        let mut table = self.table.lock();
        let Some(zdd) = table.zdds.get_mut(key) else { return };
        debug_assert!(zdd.live == 0 && pages <= zdd.devmem.pages, "populated twice, or too much");
        (zdd.live, zdd.bits) = (pages, None);
    }

    /// At most `pages` pages from `first` on, those of one allocation, do not live any more. Says how many it took,
    /// at least one; the last one that lived gives back what is to be released.
    #[must_use]
    pub(crate) fn pages_put(&self, first: DevicePage, pages: usize) -> (usize, Option<Devmem>) {
        let mut table = self.table.lock();
        let Some(view) = table.find(first) else {
            debug_assert!(false, "a page was freed that lies in no allocation: {first:?}");
            return (1, None);
        };
        let start = (first.frame - view.base.frame) as usize;
        let taken = start..view.pages.min(start + pages);
        let Some(zdd) = table.zdds.get_mut(view.key) else { return (taken.len(), None) };
        let were_live = zdd.clear_live(taken.clone());
        debug_assert!(were_live == taken.len(), "a page was freed twice: {first:?} and {} behind it", taken.len() - 1);
        (taken.len(), table.reap(view.key))
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

    /// Whether each allocation counts as many pages as it can name.
    pub(crate) fn are_sound(&self) -> bool {
        let mut runs = Vec::new();
        self.table.lock().zdds.values().all(|zdd| {
            runs.clear();
            zdd.live_runs(&mut runs);
            runs.iter().map(|run| run.pages).sum::<usize>() == zdd.live
        })
    }

    /// Number of allocations, and of pages that live in them.
    pub(crate) fn totals(&self) -> (usize, u64) {
        let table = self.table.lock();
        (table.zdds.len(), table.zdds.values().map(|zdd| zdd.live as u64).sum())
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

    /// Takes the zdd out where nothing refers to it any more.
    fn reap(&mut self, key: ZddKey) -> Option<Devmem> {
        let zdd = self.zdds.get(key)?;
        if zdd.users > 0 || zdd.live > 0 {
            return None;
        }
        let zdd = self.zdds.remove(key)?;
        self.leave(zdd.devmem.base.frame, zdd.devmem.pages);
        Some(zdd.devmem)
    }

    fn run_is_free(&self, devmem: &Devmem) -> bool {
        let (first, end) = (devmem.base.frame, devmem.base.frame + devmem.pages as u64);
        let slots = self.slots.iter().take(Self::slots_of(first, devmem.pages).end);
        let behind = slots.flatten().any(|(other, _)| (first..end).contains(other));
        !behind && self.find(devmem.base).is_none()
    }
}

impl Zdd {
    /// The pages do not live any more; how many of them did.
    fn clear_live(&mut self, pages: Range<usize>) -> usize {
        let before = self.live;
        match &mut self.bits {
            // From the end, or all of it: the rest is still the first ones.
            None if pages.end >= self.live => self.live = self.live.min(pages.start),
            None => {
                let mut bits = vec![0; self.devmem.pages.div_ceil(64)];
                bit_words(0..self.live).for_each(|(word, mask)| bits[word] |= mask);
                self.bits = Some(bits);
                return self.clear_live(pages);
            }
            Some(bits) => {
                for (word, mask) in bit_words(pages) {
                    self.live -= (bits[word] & mask).count_ones() as usize;
                    bits[word] &= !mask;
                }
            }
        }
        before - self.live
    }

    fn live_runs(&self, out: &mut Vec<DeviceRun>) {
        let base = self.devmem.base;
        let Some(bits) = &self.bits else {
            out.extend((self.live > 0).then_some(DeviceRun { first: base, pages: self.live }));
            return;
        };
        for index in (0..self.devmem.pages).filter(|&index| bits[index / 64] >> (index % 64) & 1 != 0) {
            let page = base.add(index as u64);
            match out.last_mut() {
                Some(run) if run.first.add(run.pages as u64) == page => run.pages += 1,
                _ => out.push(DeviceRun { first: page, pages: 1 }),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hostmm::PagemapId;

    fn page(frame: u64) -> DevicePage {
        DevicePage { pagemap: PagemapId(0), frame }
    }
    fn devmem(first: u64, pages: usize) -> Devmem {
        Devmem { base: page(first), pages, cookie: first }
    }

    #[test]
    fn the_last_page_releases_and_only_the_last() {
        let zdds = Zdds::default();
        let key = zdds.create(devmem(16, 3));
        zdds.populate(key, 3);
        assert_eq!(zdds.put(key), None);
        assert_eq!(zdds.pages_put(page(17), 1), (1, None));
        assert_eq!(zdds.pages_put(page(16), 1), (1, None));
        assert_eq!(zdds.totals(), (1, 1));
        assert_eq!(zdds.pages_put(page(18), 1), (1, Some(devmem(16, 3))));
        assert_eq!(zdds.totals(), (0, 0));
    }

    #[test]
    fn a_run_of_several_allocations_ends_each() {
        let zdds = Zdds::default();
        for (first, pages) in [(16, 3), (19, 2)] {
            let key = zdds.create(devmem(first, pages));
            zdds.populate(key, pages);
            assert_eq!(zdds.put(key), None);
        }
        assert_eq!(zdds.pages_put(page(16), 5), (3, Some(devmem(16, 3))));
        assert_eq!(zdds.pages_put(page(19), 2), (2, Some(devmem(19, 2))));
    }

    #[test]
    fn a_frame_finds_its_run_and_no_other() {
        let zdds = Zdds::default();
        let low = zdds.create(devmem(0, 16));
        let high = zdds.create(devmem(32, 16));
        assert_eq!(zdds.find(page(15)).map(|v| v.key), Some(low));
        assert_eq!(zdds.find(page(16)), None);
        assert_eq!(zdds.find(page(31)), None);
        assert_eq!(zdds.find(page(47)).map(|v| v.key), Some(high));
        assert_eq!(zdds.find(page(48)), None);
        assert_eq!(zdds.find(DevicePage { pagemap: PagemapId(1), frame: 0 }), None, "another tile's frame 0");
        assert!(zdds.put(low).is_some() && zdds.put(high).is_some());
    }

    #[test]
    fn who_looks_keeps_it_alive() {
        let zdds = Zdds::default();
        let key = zdds.create(devmem(0, 1));
        zdds.populate(key, 1);
        let view = zdds.get(page(0)).expect("live");
        assert_eq!(zdds.put(key), None);
        assert_eq!(zdds.pages_put(page(0), 1), (1, None));
        assert_eq!(zdds.put(view.key), Some(devmem(0, 1)));
    }

    #[test]
    fn what_lives_is_told_in_runs() {
        let zdds = Zdds::default();
        let key = zdds.create(devmem(64, 200));
        let live = || {
            let mut out = Vec::new();
            zdds.live_runs(key, &mut out);
            out.iter().map(|run| (run.first.frame, run.pages)).collect::<Vec<_>>()
        };
        zdds.populate(key, 200);
        assert_eq!(live(), [(64, 200)]);
        assert_eq!(zdds.pages_put(page(254), 10), (10, None), "from the end");
        assert_eq!(live(), [(64, 190)]);
        assert_eq!(zdds.pages_put(page(120), 70), (70, None), "over three words");
        assert_eq!(live(), [(64, 56), (190, 64)]);
        assert_eq!(zdds.pages_put(page(64), 1), (1, None));
        assert_eq!((live(), zdds.totals()), (vec![(65, 55), (190, 64)], (1, 119)));
        assert_eq!(zdds.pages_put(page(65), 55), (55, None));
        assert_eq!(zdds.pages_put(page(190), 64), (64, None));
        assert_eq!(live(), []);
        assert_eq!(zdds.put(key), Some(devmem(64, 200)));
    }

    #[test]
    #[cfg(debug_assertions)]
    #[should_panic(expected = "freed twice")]
    fn a_page_freed_twice_is_found() {
        let zdds = Zdds::default();
        let key = zdds.create(devmem(0, 2));
        zdds.populate(key, 2);
        assert_eq!(zdds.pages_put(page(0), 1), (1, None));
        let _ = zdds.pages_put(page(0), 1);
    }
}
