//! Of which page of the program the bytes are that a frame of VRAM or a bounce buffer holds: tables that a process which shares this memory
//! reads without a lock, when the thread that has the books is stopped.
//!
//! A word is written where the books note whose a frame is, with their lock held: before a page can come to the frame, and taken away
//! when its bytes are nobody's any more. So what lies in a frame with a word is that page, as it is now, and it lies nowhere else. A frame that
//! has a word may be empty: then the page is at its place, on its way, or was never there.
//!
//! The tables are memory of the kernel's, of which only what is used is ever there.
//!
//! Locking: none. Writers have the books.

use super::mem;
use crate::books::MAX_PAGEMAPS;
use crate::bounce::ALL_BUFFERS;
use crate::kernel::Errno;
use core::sync::atomic::{AtomicU64, Ordering, fence};
use hostmm::{DevicePage, PagemapId};
use units::{HostRange, HostVa, SZ_2M, SZ_4K, bytes_of};

/// The tables of all pagemaps.
#[derive(Default, Debug)]
pub(crate) struct Homes {
    /// Where each is; 0: there is none.
    base: [AtomicU64; MAX_PAGEMAPS],
    frames: [AtomicU64; MAX_PAGEMAPS],
    /// Of which 2M of the program the pages in a bounce buffer are, each at its own offset; 0: there are none.
    bounced: [AtomicU64; ALL_BUFFERS],
}

impl Homes {
    /// Makes the table of a pagemap; gives where it is.
    pub fn add(&self, id: PagemapId, frames: u64) -> Result<HostRange, Errno> {
        let range = mem::map_table(bytes_for(frames))?;
        if let (Some(base), Some(count)) = (self.base.get(id.index()), self.frames.get(id.index())) {
            count.store(frames, Ordering::Release);
            base.store(range.start.0, Ordering::Release);
        }
        Ok(range)
    }

    /// Notes the pages of `pages` frames from `first` on: `home` and those behind it, or none.
    pub fn set(&self, first: DevicePage, pages: usize, home: Option<HostVa>) {
        let (start, step) = home.map_or((0, 0), |home| (home.0, SZ_4K));
        for (at, word) in (0..).zip(self.words(first, pages)) {
            word.store(start + at * step, Ordering::Relaxed);
        }
        // One fence for all of them: 512 stores that order themselves cost more than a move of 2M.
        fence(Ordering::SeqCst);
    }

    /// The page whose bytes the frame holds, if it holds any.
    pub fn get(&self, page: DevicePage) -> Option<HostVa> {
        let home = self.words(page, 1).first()?.load(Ordering::SeqCst);
        (home != 0).then_some(HostVa(home))
    }

    /// Notes of which 2M of the program the pages are that come into a bounce buffer; or that none is there.
    pub fn set_bounced(&self, buffer: usize, home: Option<HostVa>) {
        if let Some(word) = self.bounced.get(buffer) {
            word.store(home.map_or(0, |home| home.align_down(SZ_2M).0), Ordering::SeqCst);
        }
    }

    /// Of which 2M the pages in a bounce buffer are.
    pub fn bounced(&self, buffer: usize) -> Option<HostVa> {
        let home = self.bounced.get(buffer)?.load(Ordering::SeqCst);
        (home != 0).then_some(HostVa(home))
    }

    /// The first frames from `page` on, in its pagemap, that have a run of pages: the first one, its page, and how many; none of them
    /// goes across a boundary of 2M, here or there.
    pub fn run(&self, page: DevicePage) -> Option<(DevicePage, HostVa, usize)> {
        let words = self.words(page, usize::MAX);
        let skipped = words.iter().position(|word| word.load(Ordering::SeqCst) != 0)?;
        let first = page.add(skipped as u64);
        let home = self.get(first)?;
        let slot = SZ_2M / SZ_4K;
        let most = (slot - first.frame % slot).min(slot - home.page_number() % slot);
        let follows = |at: &u64| self.get(first.add(*at)) == Some(home.add(bytes_of(*at as usize)));
        Some((first, home, 1 + (1..most).take_while(follows).count()))
    }

    /// How many frames a pagemap has; 0 where there is none.
    pub fn frames(&self, id: PagemapId) -> u64 {
        self.frames.get(id.index()).map_or(0, |frames| frames.load(Ordering::Acquire))
    }

    /// The words of so many frames from `first` on, or of those that the pagemap has.
    fn words(&self, first: DevicePage, pages: usize) -> &[AtomicU64] {
        let base = self.base.get(first.pagemap.index()).map_or(0, |base| base.load(Ordering::Acquire));
        let left = self.frames(first.pagemap).saturating_sub(first.frame);
        if base == 0 || left == 0 {
            return &[];
        }
        let words = (base + 8 * first.frame) as *const AtomicU64;
        // SAFETY: aligned words of a mapping that is ours, zeroed by the kernel, that lives as long as `self`, and that nobody
        // reaches but by these atomics.
        unsafe { core::slice::from_raw_parts(words, pages.min(left as usize)) }
    }
}

impl Drop for Homes {
    fn drop(&mut self) {
        for (base, frames) in self.base.iter_mut().zip(&mut self.frames) {
            if *base.get_mut() != 0 {
                mem::unmap(HostRange::sized(HostVa(*base.get_mut()), bytes_for(*frames.get_mut())));
            }
        }
    }
}

const fn bytes_for(frames: u64) -> u64 {
    (8 * frames).next_multiple_of(units::SZ_4K)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_of_frames_has_a_run_of_pages() {
        let homes = Homes::default();
        let page = |frame| DevicePage { pagemap: PagemapId(1), frame };
        assert_eq!((homes.get(page(0)), homes.frames(PagemapId(1))), (None, 0));
        homes.add(PagemapId(1), 1000).expect("two pages");
        homes.set(page(998), 3, Some(HostVa(0x7000)));
        let seen = |frames: [u64; 4]| frames.map(|frame| homes.get(page(frame)).map(|home| home.0));
        assert_eq!(seen([997, 998, 999, 1000]), [None, Some(0x7000), Some(0x8000), None]);
        homes.set(page(998), 1, None);
        assert_eq!(seen([997, 998, 999, 1000]), [None, None, Some(0x8000), None]);
    }
}
