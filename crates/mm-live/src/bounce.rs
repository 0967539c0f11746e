//! The bounce buffer: how a page leaves the program for VRAM without ever being another mapping's page.
//!
//! A move to VRAM by the device's descriptor does not see the program's events: between the look at the books and
//! the ioctl a munmap and another thread's mmap may put different memory at the address, and that would be moved.
//! A thread may be preempted there for milliseconds, and the kernel reuses addresses at once: the stress lost writes
//! within seconds. Only the program's descriptor refuses (EAGAIN, under the kernel's own lock) from the moment in
//! which a change begins to the moment in which its event has been read. So a page first moves by the program's
//! descriptor into a buffer that is registered with it, and from there by the device's to its frame: 1.4 us more
//! for a 4K page, 1 us for a huge one, and exact.
//!
//! A buffer keeps an empty page table once it was used in pieces, and would split a huge page. It is renewed then:
//! unregistered (so that its own DONTNEED raises no event), emptied, and registered again. So there are buffers for
//! pieces and buffers for huge pages.
//!
//! Of which part of the program the pages are that a buffer has between the two moves, `Homes` says without a lock: a debugger may
//! stop the mover there.
//!
//! A page in a buffer is in nobody's memory, and its claim has it. Should the second move fail, for want of memory, the
//! mover lets events be read again, so that the program can go on and give some back; what events do to the page, its
//! entry says. Then the page goes back, to where its mapping is by then. So a buffer may be held without the events lock,
//! and is never waited for.

use crate::LiveMm;
use crate::kernel::{Descriptor, Errno, Kernel, Watch};
use crate::ranks::BUFFER;
use crate::transfer::Transfer;
use hostmm::Place;
use sync::{Mutex, MutexGuard, rank};
use units::{HostRange, HostVa, SZ_2M, SZ_4K, bytes_of};

/// Buffers of each kind: as many movers as may be under way at once.
const BUFFERS: usize = 2;
/// Buffers of both kinds.
pub(crate) const ALL_BUFFERS: usize = 2 * BUFFERS;
/// How often the second move is tried while no event can be read.
const MAX_TRIES: u32 = 100;

/// What a buffer is for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Size {
    Pieces,
    Huge,
}

/// 2M of addresses that pages pass through.
pub(crate) struct Buffer {
    range: HostRange,
    /// Which of all.
    number: usize,
    /// It may have a page table, which splits a huge page.
    pieced: bool,
    /// It is registered, and empty.
    open: bool,
}

/// All bounce buffers.
pub(crate) struct Bounce {
    pieces: Vec<Mutex<Buffer>>,
    huge: Vec<Mutex<Buffer>>,
    /// Where each is.
    places: Vec<HostRange>,
}

/// Pages that passed, and those that did not get out.
pub(crate) struct Passed<'a> {
    pub pages: usize,
    /// Why no more came in.
    pub error: Option<Errno>,
    pub stuck: Option<Stuck<'a>>,
}

/// Pages in a buffer.
pub(crate) struct Stuck<'a> {
    buffer: MutexGuard<'a, Buffer>,
    at: HostVa,
    pages: usize,
}

impl Bounce {
    /// Makes the buffers and registers them with the program's descriptor.
    pub fn new(kernel: &dyn Kernel) -> Result<Self, Errno> {
        let mut places = Vec::with_capacity(ALL_BUFFERS);
        let mut make = || {
            let buffers = (0..BUFFERS).map(|_| {
                let range = kernel.map_arena(SZ_2M)?;
                kernel.register(Descriptor::Program, range, Watch::Missing)?;
                places.push(range);
                Ok(rank::mutex(BUFFER, Buffer { range, number: places.len() - 1, pieced: false, open: true }))
            });
            buffers.collect::<Result<_, _>>()
        };
        Ok(Self { pieces: make()?, huge: make()?, places })
    }

    /// Gives the buffers back. Unregistered first: an event would wait for a reader.
    pub fn close(&mut self, kernel: &dyn Kernel) {
        for buffer in self.pieces.iter_mut().chain(&mut self.huge) {
            let range = buffer.get_mut().range;
            if kernel.unregister(Descriptor::Program, range).is_ok() {
                kernel.unmap_arena(range);
            }
        }
    }

    /// Where they are: never to be migrated.
    pub fn ranges(&self) -> &[HostRange] {
        &self.places
    }
}

impl LiveMm {
    /// A buffer that nobody uses.
    fn buffer(&self, size: Size) -> Option<MutexGuard<'_, Buffer>> {
        let buffers = if size == Size::Huge { &self.bounce.huge } else { &self.bounce.pieces };
        buffers.iter().filter_map(Mutex::try_lock).find_map(|mut buffer| {
            if !buffer.open || size == Size::Huge && buffer.pieced {
                self.renew(&mut buffer);
            }
            buffer.open.then_some(buffer)
        })
    }

    /// Moves pages of the program to frames. EAGAIN where all bounce buffers are taken. The caller holds the events lock.
    pub(crate) fn bounce(&self, dst: HostVa, src: HostVa, pages: usize, huge: bool) -> Passed<'_> {
        let whole = huge && src.is_aligned(SZ_2M) && dst.is_aligned(SZ_2M) && bytes_of(pages) == SZ_2M;
        let Some(mut buffer) = self.buffer(if whole { Size::Huge } else { Size::Pieces }) else {
            return Passed { pages: 0, error: Some(Errno::AGAIN), stuck: None };
        };
        let at = buffer.range.start.add(src.0 % SZ_2M);
        self.note_bounced(buffer.number, Some(src));
        if self.has_rescued() {
            // Who brings pages home may have seen whose were here before.
            self.note_bounced(buffer.number, None);
            return Passed { pages: 0, error: Some(Errno::AGAIN), stuck: None };
        }
        let (inside, error) = self.move_exactly(Descriptor::Program, at, src, pages);
        // A huge page that was none any more left a page table behind.
        buffer.pieced |= !whole || error.is_some();
        // Where pages are being brought home, some may have been taken out again before they were counted: each is looked for.
        let is_sure = !self.has_rescued();
        let inside = if is_sure { inside } else { pages };
        let out = if is_sure { self.leave_buffer(dst, at, inside) } else { 0 };
        // What is stuck may have another home as soon as events are read.
        self.note_bounced(buffer.number, None);
        let stuck = (out < inside).then(|| Stuck { buffer, at: at.add(bytes_of(out)), pages: inside - out });
        Passed { pages: out, error, stuck }
    }

    /// The second half: into the frames, which are empty. Gives how many pages got out.
    fn leave_buffer(&self, dst: HostVa, at: HostVa, pages: usize) -> usize {
        let (mut done, mut tries) = (0, 0);
        while done < pages && tries < MAX_TRIES {
            let (to, from) = (dst.add(bytes_of(done)), at.add(bytes_of(done)));
            let (went, error) = self.move_exactly(Descriptor::Device, to, from, pages - done);
            done += went;
            if went == 0 && error == Some(Errno::NOENT) && self.is_taken_back(to, from) {
                done += 1;
            } else if went == 0 {
                tries += 1;
                sync::yield_now();
            }
        }
        done
    }

    /// Whether the kernel took the page back while it was in a buffer, as MADV_FREE allows: then its frame has zeros.
    fn is_taken_back(&self, frame: HostVa, at: HostVa) -> bool {
        let taken = !self.holds(at);
        if taken {
            self.counters.reclaimed.add(1);
            self.kernel.zero(Descriptor::Device, HostRange::sized(frame, SZ_4K));
        }
        taken && self.holds(frame)
    }

    /// Puts pages that are stuck in a buffer to where their mapping is now. What has none any more is dropped. Without
    /// the events lock.
    pub(crate) fn return_stuck(&self, transfer: Transfer, mut stuck: Stuck<'_>) {
        let (mut done, mut tries) = (0, self.refusals());
        while done < stuck.pages {
            let name = HostRange::new(transfer.name.page_at(done), transfer.name.end);
            let from = stuck.at.add(bytes_of(done));
            let held = self.hold_events();
            let (part, frame) = {
                let books = self.books.lock();
                (books.named(transfer.claim, name), books.frame_of(Transfer { name, ..transfer }))
            };
            let Some(entry) = part.filter(|entry| !entry.cancelled) else {
                done += part.map_or(1, |entry| entry.pages);
                continue;
            };
            let (went, error) = self.move_exactly(Descriptor::Program, entry.va, from, entry.pages);
            done += went;
            let lost = match error {
                None => false,
                Some(Errno::INVAL) => self.kernel.copy(Descriptor::Program, entry.va, from, SZ_4K).error.is_none(),
                Some(Errno::EXIST) => {
                    self.counters.conflicts.add(1);
                    true
                }
                // Taken back by the kernel meanwhile; or in its frame, and not counted, as another was brought home at that moment.
                Some(Errno::NOENT) => !self.holds(from) && self.leave_frame(entry.va, frame),
                Some(_) => false,
            };
            done += usize::from(went == 0 && lost);
            drop(held);
            if went == 0 && !lost {
                self.yield_to_raiser(&mut tries);
            }
        }
        stuck.buffer.open = false;
    }

    /// Moves a page from a frame, if one is there, to where its mapping is. False where it is there still.
    fn leave_frame(&self, va: HostVa, frame: Option<Place>) -> bool {
        let Some(from) = frame.and_then(|frame| self.address(frame)) else { return true };
        let (went, error) = self.move_exactly(Descriptor::Program, va, from, 1);
        went == 1 || error != Some(Errno::AGAIN)
    }

    fn renew(&self, buffer: &mut Buffer) {
        // While it is registered, its own DONTNEED would wait for a reader, which may wait for the caller.
        if self.kernel.unregister(Descriptor::Program, buffer.range).is_err() {
            return;
        }
        let _ = self.kernel.drop_pages(buffer.range);
        buffer.open = self.kernel.register(Descriptor::Program, buffer.range, Watch::Missing).is_ok();
        buffer.pieced = !buffer.open;
    }

    /// Drops pages of the program by way of a buffer: those of the mapping that is there while no event is read, or none.
    pub(crate) fn bounce_away(&self, src: HostVa, pages: usize) -> (usize, Option<Errno>) {
        let Some(mut buffer) = self.buffer(Size::Pieces).filter(|_| !self.has_rescued()) else {
            return (0, Some(Errno::AGAIN));
        };
        let at = buffer.range.start.add(src.0 % SZ_2M);
        buffer.pieced = true;
        let (went, error) = self.move_exactly(Descriptor::Program, at, src, pages);
        self.renew(&mut buffer);
        (went, error)
    }
}
