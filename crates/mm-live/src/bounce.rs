//! The bounce buffer: how a page leaves the program for VRAM without ever being another mapping's page.
//!
//! A move to VRAM by the device's descriptor does not see the program's events: between the look at the books and
//! the ioctl a munmap and another thread's mmap may put different memory at the address, and that would be moved.
//! A thread may be preempted there for milliseconds, and the kernel reuses addresses at once: the stress lost writes
//! within seconds. Only the program's descriptor refuses (EAGAIN, under the kernel's own lock) from the moment in
//! which a change begins to the moment in which its event has been read. So a page first moves by the program's
//! descriptor into a lane that is registered with it, and from there by the device's to its frame: 1.4 us more
//! for a 4K page, 1 us for a huge one, and exact.
//!
//! A lane keeps an empty page table once it was used in pieces, and would split a huge page. It is renewed then:
//! unregistered (so that its own DONTNEED raises no event), emptied, and registered again. So there are lanes for
//! pieces and lanes for huge pages.

use crate::LiveMm;
use crate::kernel::{Descriptor, Errno, Kernel, Watch};
use crate::ranks::LANE;
use sync::{Mutex, MutexGuard, rank};
use units::{HostRange, HostVa, SZ_2M, SZ_4K, bytes_of};

/// Lanes of each kind: as many movers as may be under way at once without waiting for each other.
const LANES: usize = 2;
const MAX_TRIES: u32 = 10_000;

/// What a lane is for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Size {
    Pieces,
    Huge,
}

/// 2M of addresses that pages pass through.
pub(crate) struct Lane {
    range: HostRange,
    /// It may have a page table, which splits a huge page.
    pieced: bool,
}

/// All lanes.
pub(crate) struct Bounce {
    pieces: Vec<Mutex<Lane>>,
    huge: Vec<Mutex<Lane>>,
}

impl Bounce {
    /// Makes the lanes and registers them with the program's descriptor.
    pub fn new(kernel: &dyn Kernel) -> Result<Self, Errno> {
        let make = || {
            let lanes = (0..LANES).map(|_| {
                let range = kernel.map_arena(SZ_2M)?;
                kernel.register(Descriptor::Program, range, Watch::Missing)?;
                Ok(rank::mutex(LANE, Lane { range, pieced: false }))
            });
            lanes.collect::<Result<_, _>>()
        };
        Ok(Self { pieces: make()?, huge: make()? })
    }

    /// Gives the lanes back. Unregistered first: an event would wait for a reader.
    pub fn close(&mut self, kernel: &dyn Kernel) {
        for lane in self.pieces.iter_mut().chain(&mut self.huge) {
            let range = lane.get_mut().range;
            if kernel.unregister(Descriptor::Program, range).is_ok() {
                kernel.unmap_arena(range);
            }
        }
    }

    /// Where they are: never to be migrated.
    pub fn ranges(&self) -> Vec<HostRange> {
        self.pieces.iter().chain(&self.huge).map(|lane| lane.lock().range).collect()
    }

    fn lane(&self, size: Size, number: u64) -> MutexGuard<'_, Lane> {
        let lanes = if size == Size::Huge { &self.huge } else { &self.pieces };
        let free = lanes.iter().find_map(Mutex::try_lock);
        free.unwrap_or_else(|| lanes[number as usize % lanes.len()].lock())
    }
}

impl LiveMm {
    /// Moves pages of the program to frames; gives how many went, and why no more did. The caller holds the events lock.
    pub(crate) fn bounce(&self, dst: HostVa, src: HostVa, pages: usize, huge: bool) -> (usize, Option<Errno>) {
        let whole = huge && src.is_aligned(SZ_2M) && dst.is_aligned(SZ_2M) && bytes_of(pages) == SZ_2M;
        let size = if whole { Size::Huge } else { Size::Pieces };
        let mut lane = self.bounce.lane(size, src.0 / SZ_2M);
        if whole && lane.pieced {
            self.renew(&mut lane);
        }
        let at = lane.range.start.add(src.0 % SZ_2M);
        let (went, error) = self.move_exactly(Descriptor::Program, at, src, pages);
        // A huge page that was none any more left a page table behind.
        lane.pieced |= !whole || error.is_some();
        if !self.leave_lane(dst, at, went) {
            self.renew(&mut lane);
        }
        (went, error)
    }

    /// The second half: into the frames, which are empty. False where bytes had to be copied, so that the lane still
    /// holds pages.
    fn leave_lane(&self, dst: HostVa, at: HostVa, pages: usize) -> bool {
        let (mut done, mut tries, mut clean) = (0, 0, true);
        while done < pages {
            let here = bytes_of(done);
            let (went, _) = self.move_exactly(Descriptor::Device, dst.add(here), at.add(here), pages - done);
            done += went;
            tries += 1;
            if went == 0 && tries < MAX_TRIES {
                sync::yield_now();
            } else if went == 0 {
                // Nobody else can hold these pages; should the kernel insist, their bytes go. A page is not given up.
                if self.kernel.copy(Descriptor::Device, dst.add(here), at.add(here), SZ_4K).bytes == SZ_4K {
                    (done, clean) = (done + 1, false);
                } else {
                    sync::yield_now();
                }
            }
        }
        clean
    }

    fn renew(&self, lane: &mut Lane) {
        // While it is registered, its own DONTNEED would wait for a reader, which may wait for the caller.
        if self.kernel.unregister(Descriptor::Program, lane.range).is_err() {
            return;
        }
        let _ = self.kernel.drop_pages(lane.range);
        lane.pieced = self.kernel.register(Descriptor::Program, lane.range, Watch::Missing).is_err();
    }

    /// Drops pages of the program by way of a lane: those of the mapping that is there while no event is read, or none.
    pub(crate) fn bounce_away(&self, src: HostVa, pages: usize) -> (usize, Option<Errno>) {
        let mut lane = self.bounce.lane(Size::Pieces, src.0 / SZ_2M);
        let at = lane.range.start.add(src.0 % SZ_2M);
        lane.pieced = true;
        let (went, error) = self.move_exactly(Descriptor::Program, at, src, pages);
        self.renew(&mut lane);
        (went, error)
    }
}
