//! What a page is: part of a huge page, or swapped out. PAGEMAP_SCAN (1 us), or before Linux 6.7 the words of
//! /proc/self/pagemap, which do not tell what is huge.

use super::descriptor::ProcFile;
use super::{Errno, ioctl, read_at};
use linux_raw_sys::general as raw;
use units::{HostRange, HostVa, SZ_4K};

const PAGEMAP_SCAN: u32 = 0xc060_6610;
/// Of a word of the file: the page is in memory, or swapped out.
const PRESENT_OR_SWAPPED: u64 = 3 << 62;
/// Bytes of a word.
const WORD: usize = size_of::<u64>();

/// /proc/self/pagemap, open.
#[derive(Debug)]
pub(crate) struct Pagemap {
    file: ProcFile,
    can_scan: bool,
}

impl Pagemap {
    /// Opens it. It belongs to the memory of the opener: a forked child must not use it.
    pub fn open() -> Result<Self, Errno> {
        let mut opened = Self { file: ProcFile::open(c"/proc/self/pagemap")?, can_scan: true };
        opened.can_scan = opened.scan(HostRange::sized(HostVa(0), SZ_4K), raw::PAGE_IS_HUGE, &mut []).is_ok();
        Ok(opened)
    }

    /// The descriptor's number.
    pub fn raw(&self) -> i32 {
        self.file.raw()
    }

    /// Whether the page at `addr` is mapped as part of a 2M page.
    pub fn is_huge(&self, addr: HostVa) -> bool {
        let page = HostRange::sized(addr.page(), SZ_4K);
        self.can_scan && self.scan(page, raw::PAGE_IS_HUGE, &mut [[0; 3]]).is_ok_and(|(found, _)| found == 1)
    }

    /// Sets bit 0 of the entry of each page of `range` that is in memory or swapped out.
    pub fn add_present(&self, range: HostRange, out: &mut [u8]) {
        if !self.can_scan {
            return self.add_present_by_words(range, out);
        }
        let mut regions = [[0u64; 3]; 16];
        let mut rest = range;
        while let Ok((found, walked)) = self.scan(rest, raw::PAGE_IS_PRESENT | raw::PAGE_IS_SWAPPED, &mut regions) {
            for region in regions.iter().take(found).map(|&[start, end, _]| HostRange::new(HostVa(start), HostVa(end)))
            {
                let pages = &mut out[range.page_index(region.start)..][..region.pages()];
                pages.iter_mut().for_each(|page| *page |= 1);
            }
            if found < regions.len() || walked >= range.end {
                return;
            }
            rest.start = walked;
        }
    }

    fn add_present_by_words(&self, range: HostRange, out: &mut [u8]) {
        let mut words = [0u8; 64 * WORD];
        let mut done = 0;
        while done < range.pages() {
            let part = &mut words[..WORD * (range.pages() - done).min(64)];
            let place = range.page_at(done).page_number() as usize * WORD;
            let Ok(got @ WORD..) = self.file.run(|file| read_at(file, part, place)) else { return };
            for (page, word) in out[done..].iter_mut().zip(part[..got].as_chunks().0) {
                *page |= u8::from(u64::from_ne_bytes(*word) & PRESENT_OR_SWAPPED != 0);
            }
            done += got / WORD;
        }
    }

    /// Regions of `range` that are any of `what`: how many were written, and how far it got.
    fn scan(&self, range: HostRange, what: u32, regions: &mut [[u64; 3]]) -> Result<(usize, HostVa), Errno> {
        let mut scan = raw::pm_scan_arg {
            size: size_of::<raw::pm_scan_arg>() as u64,
            flags: 0,
            start: range.start.0,
            end: range.end.0,
            walk_end: 0,
            vec: regions.as_mut_ptr() as u64,
            vec_len: regions.len() as u64,
            max_pages: 0,
            category_inverted: 0,
            category_mask: 0,
            category_anyof_mask: u64::from(what),
            return_mask: u64::from(what),
        };
        // SAFETY: PAGEMAP_SCAN takes this struct, and writes at most as many regions as it is told there are.
        let found = self.file.run(|file| unsafe { ioctl(file, PAGEMAP_SCAN, &mut scan) })?;
        Ok((found, HostVa(scan.walk_end)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::mem;
    use crate::sys::uffd::{Uffd, Watch, feature};
    use units::SZ_2M;

    /// A poisoned page is an entry that is not present, as a swapped one is, and needs no swap.
    #[test]
    fn the_words_say_what_the_scan_says() {
        let quick = Pagemap::open().expect("/proc/self/pagemap");
        let slow = Pagemap { can_scan: false, ..Pagemap::open().expect("/proc/self/pagemap") };
        let Ok((uffd, _)) = Uffd::open(feature::POISON) else { return crate::skipped("userfaultfd refused") };
        let memory = mem::map_arena(SZ_2M).expect("2M of addresses");
        uffd.register(memory, Watch::Missing).expect("anonymous memory");
        let poisoned = [0, 1, 63, 64, 65, 200, 511];
        poisoned.iter().for_each(|&page| uffd.poison(HostRange::sized(memory.page_at(page), SZ_4K)));
        for pagemap in [&quick, &slow] {
            let mut found = [0u8; 512];
            pagemap.add_present(memory, &mut found);
            let found: Vec<_> = (0..512).filter(|&page| found[page] != 0).collect();
            assert_eq!(found, poisoned, "{pagemap:?}");
        }
        // A page in every other place makes more regions than one scan gives.
        (0..512).step_by(2).for_each(|page| uffd.poison(HostRange::sized(memory.page_at(page), SZ_4K)));
        let mut found = [[0u8; 512]; 2];
        quick.add_present(memory, &mut found[0]);
        slow.add_present(memory, &mut found[1]);
        assert_eq!(found[0], found[1]);
        assert!((0..512).step_by(2).all(|page| found[0][page] != 0));
        mem::unmap(memory);
    }
}
