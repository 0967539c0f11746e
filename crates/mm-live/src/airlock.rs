//! The airlock: how a page leaves the program for VRAM without ever being another mapping's page.
//!
//! A move to VRAM by the second descriptor does not see the program's events: between the look at the page map and
//! the ioctl a munmap and another thread's mmap may put different memory at the address, and that would be moved.
//! A thread may be preempted there for milliseconds, and the kernel reuses addresses at once: the stress lost writes
//! within seconds. Only the first descriptor refuses (EAGAIN, under the kernel's own lock) from the moment in
//! which a change begins to the moment in which its event has been read. So a page first moves by the first
//! descriptor into a lane that is registered with it, and from there by the second to its frame: 1.4 us more
//! for a 4K page, 1 us for a huge one, and exact.
//!
//! A lane keeps an empty page table once it was used in pieces, and would split a huge page. It is renewed then:
//! unregistered (so that its own DONTNEED raises no event), emptied, and registered again.

use crate::LiveMm;
use crate::sys::uffd::{Uffd, Watch};
use crate::sys::{Errno, mem, task};
use units::{HostRange, HostVa, SZ_2M, SZ_4K, bytes_of};

/// Lanes: as many movers as may be under way at once without waiting for each other.
const LANES: usize = 2;
const MAX_TRIES: u32 = 10_000;

/// 2M of addresses that pages pass through.
pub(crate) struct Lane {
    range: HostRange,
    /// It was used in pieces since it was renewed.
    pieced: bool,
}

/// All lanes.
pub(crate) struct Airlock {
    lanes: Vec<sync::Mutex<Lane>>,
}

impl Airlock {
    /// Makes the lanes and registers them with the program's descriptor.
    pub fn new(program: &Uffd) -> Result<Self, Errno> {
        let lanes = (0..LANES).map(|_| {
            let range = mem::map_arena(SZ_2M)?;
            program.register(range, Watch::Missing)?;
            Ok(sync::Mutex::new(Lane { range, pieced: false }))
        });
        Ok(Self { lanes: lanes.collect::<Result<_, _>>()? })
    }

    /// Gives the lanes back. Unregistered first: an event would wait for a reader.
    pub fn close(&mut self, program: &Uffd) {
        for lane in &mut self.lanes {
            let range = lane.get_mut().range;
            let _ = program.unregister(range);
            mem::unmap(range);
        }
    }

    /// Where they are: never to be migrated.
    pub fn ranges(&self) -> Vec<HostRange> {
        self.lanes.iter().map(|lane| lane.lock().range).collect()
    }
}

impl LiveMm {
    /// Moves pages of the program to frames; gives how many went, and why no more did.
    pub(crate) fn through_airlock(&self, dst: u64, src: u64, pages: usize) -> (usize, Option<Errno>) {
        let lanes = &self.airlock.lanes;
        let free = lanes.iter().find_map(sync::Mutex::try_lock);
        let mut lane = free.unwrap_or_else(|| lanes[(src / SZ_2M) as usize % lanes.len()].lock());
        let aligned = src.is_multiple_of(SZ_2M) && dst.is_multiple_of(SZ_2M) && bytes_of(pages) == SZ_2M;
        let whole = aligned && self.pagemap.is_huge(HostVa(src));
        if whole && lane.pieced {
            self.renew(&mut lane);
        }
        lane.pieced |= !whole;
        let at = lane.range.start.0 + src % SZ_2M;
        let (went, error) = self.move_exactly(&self.program, at, src, pages);
        if !self.out_of_airlock(dst, at, went) {
            self.renew(&mut lane);
        }
        (went, error)
    }

    /// The second half: into the frames, which are empty. False where bytes had to be copied, so that the lane still
    /// holds pages.
    fn out_of_airlock(&self, dst: u64, at: u64, pages: usize) -> bool {
        let (mut done, mut tries, mut clean) = (0, 0, true);
        while done < pages {
            let here = bytes_of(done);
            let (went, _) = self.move_exactly(&self.device, dst + here, at + here, pages - done);
            done += went;
            tries += 1;
            if went == 0 && tries < MAX_TRIES {
                task::relax();
            } else if went == 0 {
                // Nobody else can hold these pages; should the kernel insist, their bytes go. A page is not given up.
                if self.device.copy(dst + here, at + here, SZ_4K).bytes == SZ_4K {
                    (done, clean) = (done + 1, false);
                } else {
                    task::relax();
                }
            }
        }
        clean
    }

    fn renew(&self, lane: &mut Lane) {
        let _ = self.program.unregister(lane.range);
        let _ = mem::advise(lane.range, mem::Advice::DontNeed);
        lane.pieced = self.program.register(lane.range, Watch::Missing).is_err();
    }
}
