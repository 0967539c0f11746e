//! What a page is: part of a huge page, or swapped out. PAGEMAP_SCAN (1 us), or before Linux 6.7 the words of
//! /proc/self/pagemap, which do not tell what is huge.

use super::descriptor::ProcFile;
use super::{Errno, ioctl, read_at};
use crate::kernel::Held;
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

    /// The parts of `range` that are in memory or swapped out: how many were written, and up to where was looked.
    pub fn held(&self, range: HostRange, out: &mut [Held]) -> (usize, HostVa) {
        const WHAT: u32 = raw::PAGE_IS_PRESENT | raw::PAGE_IS_SWAPPED;
        if !self.can_scan {
            return self.held_by_words(range, out);
        }
        let mut regions = [[0u64; 3]; 16];
        let room = out.len().min(regions.len());
        let Ok((found, end)) = self.scan(range, WHAT, &mut regions[..room]) else { return (0, range.end) };
        for (held, &[start, end, what]) in out.iter_mut().zip(&regions[..found]) {
            let huge = what & u64::from(raw::PAGE_IS_HUGE) != 0;
            *held = Held { range: HostRange::new(HostVa(start), HostVa(end)), huge };
        }
        (found, end)
    }

    fn held_by_words(&self, range: HostRange, out: &mut [Held]) -> (usize, HostVa) {
        let mut words = [0u8; 64 * WORD];
        let room = out.len();
        let (mut at, mut found) = (range.start, 0);
        while at < range.end {
            let part = &mut words[..WORD * HostRange::new(at, range.end).pages().min(64)];
            let place = at.page_number() as usize * WORD;
            let Ok(got @ WORD..) = self.file.run(|file| read_at(file, part, place)) else {
                return (found, range.end);
            };
            for word in part[..got].as_chunks().0 {
                if u64::from_ne_bytes(*word) & PRESENT_OR_SWAPPED != 0 {
                    let page = HostRange::sized(at, SZ_4K);
                    match out[..found].last_mut() {
                        Some(last) if last.range.end == at => last.range.end = page.end,
                        _ if found == room => return (found, at),
                        _ => {
                            out[found] = Held { range: page, huge: false };
                            found += 1;
                        }
                    }
                }
                at = at.add(SZ_4K);
            }
        }
        (found, range.end)
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
            return_mask: u64::from(what | raw::PAGE_IS_HUGE),
        };
        // SAFETY: PAGEMAP_SCAN takes this struct, and writes at most as many regions as it is told there are.
        let found = self.file.run(|file| unsafe { ioctl(file, PAGEMAP_SCAN, &mut scan) })?;
        Ok((found, HostVa(scan.walk_end)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::Watch;
    use crate::sys::mem;
    use crate::sys::uffd::{Uffd, feature};
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
        let pages =
            |pagemap: &Pagemap| {
                let mut found = Vec::new();
                let mut held = [Held { range: memory, huge: false }; 3];
                let mut rest = memory;
                while !rest.is_empty() {
                    let (count, end) = pagemap.held(rest, &mut held);
                    found.extend(held[..count].iter().flat_map(|part| {
                        (0..part.range.pages()).map(|page| memory.page_index(part.range.page_at(page)))
                    }));
                    rest.start = end;
                }
                found
            };
        for pagemap in [&quick, &slow] {
            assert_eq!(pages(pagemap), poisoned, "{pagemap:?}");
        }
        // A page in every other place makes more regions than one scan gives.
        (0..512).step_by(2).for_each(|page| uffd.poison(HostRange::sized(memory.page_at(page), SZ_4K)));
        assert_eq!(pages(&quick), pages(&slow));
        assert!(pages(&quick).len() > 256);
        mem::unmap(memory);
    }
}
