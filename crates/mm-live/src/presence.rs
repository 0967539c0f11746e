//! What the program's addresses, and frames, hold by the kernel's word.
//!
//! mincore is quick, but does not tell a page that was swapped out from a hole. Taken for a hole, it would be zeros in
//! VRAM, and its bytes lost. So where mincore misses pages, and the machine has a swap, pagemap is asked as well: for
//! pages in memory too, because they may have come back since.

use crate::LiveMm;
use crate::sys::{Errno, mem};
use units::{HostRange, HostVa, bytes_of};

impl LiveMm {
    /// Which pages of `range` hold something; `out` has one entry a page, and its bit 0 is the answer.
    pub(crate) fn present(&self, range: HostRange, out: &mut [u8]) -> Result<(), Errno> {
        mem::mincore(range, out)?;
        if out[..range.pages()].iter().any(|&page| page & 1 == 0) && mem::has_swap() {
            self.pagemap.add_present(range, out);
        }
        Ok(())
    }

    /// The runs of pages of `range` that are there; all of it where some is not mapped.
    pub(crate) fn present_runs(&self, range: HostRange) -> Vec<HostRange> {
        let mut present = vec![0u8; range.pages()];
        if self.present(range, &mut present).is_err() {
            return vec![range];
        }
        let there = (0..range.pages()).filter(|&index| present[index] & 1 != 0);
        crate::claim::runs_of(there.map(|index| range.page_at(index)).collect()).collect()
    }

    /// How many pages from `addr` on are there, or not there, as the first one is; and which of both. At most 512 are
    /// looked at.
    pub(crate) fn leading_run(&self, addr: u64, pages: usize) -> (usize, bool) {
        let mut present = [0u8; 512];
        let pages = pages.min(present.len());
        if self.present(HostRange::sized(HostVa(addr), bytes_of(pages)), &mut present).is_err() {
            // Not mapped as a whole: let the ioctl say what is wrong.
            return (pages, true);
        }
        let first = present[0] & 1;
        (present[..pages].iter().take_while(|&&page| page & 1 == first).count(), first == 1)
    }
}
