//! CPU accesses: loads, stores and atomics of the program's threads, with the faults they take.
//!
//! An access is one step under the lock once its page is there. Until then it fills holes, breaks COW, waits
//! for a migration to end, has a page of VRAM brought back (the touching thread calls the pagemap itself, one thread a
//! page, the others wait for it), or waits for who watches the page by userfaultfd.
//!
//! Upstream: handle_mm_fault, do_swap_page, do_wp_page (mm/memory.c).

use crate::config::Injection;
use crate::content::Content;
use crate::footprint::{self, StatePart};
use crate::sim::{Locked, Sim};
use crate::space::{Entry, Mapped};
use crate::uffd::{ContextId, Miss};
use crate::{Event, State};
use hostmm::{CpuFault, DevicePage, EventKind, FaultOutcome, MmEvent, Place};
use sync::time;
use units::{HostFrame, HostRange, HostVa, SZ_4K};

/// For how long a touch waits before it tries again, where its fault was deferred.
const DEFER_NS: u64 = 20_000;

/// The signal that a program would get.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CpuError {
    /// No mapping, or not for this.
    Segv,
    /// The page cannot be brought back.
    Bus,
}

/// How a page is touched.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Touch {
    /// Read.
    Load,
    /// Written.
    Store,
}

/// What a touch finds.
enum Found {
    Frame(HostFrame),
    Hole(Mapped),
    Watched(ContextId, Miss),
    Poison,
    Protected(HostFrame),
    InMigration,
    InVram(DevicePage, Mapped),
    Nothing,
}

impl State {
    fn find(&self, at: HostVa, touch: Touch) -> Found {
        let Some(mapped) = self.space.vma(at) else { return Found::Nothing };
        let permitted = if touch == Touch::Store { mapped.vma.write } else { mapped.vma.read };
        match self.space.entry(at) {
            _ if !permitted => Found::Nothing,
            None => match mapped.attributes.watch {
                Some(watch) => Found::Watched(watch.by, Miss::Missing),
                None => Found::Hole(mapped),
            },
            Some(Entry::Poisoned) => Found::Poison,
            Some(Entry::System { .. }) if touch == Touch::Store && self.uffd.protects(at) => {
                match mapped.attributes.watch {
                    Some(watch) => Found::Watched(watch.by, Miss::Protected),
                    None => Found::Nothing,
                }
            }
            Some(Entry::System { frame, write }) if write || touch == Touch::Load => Found::Frame(frame),
            Some(Entry::System { frame, .. }) => Found::Protected(frame),
            Some(Entry::Migration { .. }) => Found::InMigration,
            Some(Entry::Device { page, .. }) => Found::InVram(page, mapped),
        }
    }
    /// The mm's own frame at an address, mapped or claimed.
    pub(crate) fn mapped_frame(&self, at: HostVa) -> Option<HostFrame> {
        match self.space.entry(at) {
            Some(Entry::System { frame, .. }) => Some(frame),
            Some(Entry::Device { .. } | Entry::Migration { .. } | Entry::Poisoned) | None => None,
        }
    }
    /// Makes a write-protected frame writable: as it is where nobody shares it, else as a copy.
    fn make_writable(&mut self, at: HostVa, frame: HostFrame) {
        let own = if self.frames.held(frame).shared() {
            let content = self.frames.held(frame).content.clone();
            self.frames.put(frame);
            self.split(at);
            self.frames.alloc(content)
        } else {
            self.cow.remove(&frame);
            frame
        };
        self.space.set(at, Entry::System { frame: own, write: true });
    }
}

impl State {
    /// Takes a page that was given to `MADV_FREE` and not written since, where the schedule wants that.
    pub(crate) fn reclaim(&mut self) {
        if self.injection.reclaims == 0 || self.lazy.is_empty() {
            return;
        }
        let lazy = |entry: Entry| match entry {
            Entry::System { frame, .. } => self.lazy.contains(&frame).then_some(frame),
            Entry::Device { .. } | Entry::Migration { .. } | Entry::Poisoned => None,
        };
        let found: Vec<_> = self.space.all_entries().filter_map(|(at, entry)| Some((at, lazy(entry)?))).collect();
        for (at, frame) in found {
            if Injection::strikes(&mut self.injection.reclaims) {
                self.take_lazy(at, frame);
            }
        }
    }
    /// Takes a page that may be taken, unless somebody else has it too.
    pub(crate) fn take_lazy(&mut self, at: HostVa, frame: HostFrame) {
        let held = self.frames.held(frame);
        if held.pins == 0 && !held.shared() {
            self.lazy.remove(&frame);
            self.split(at);
            self.space.clear(at);
            self.frames.put(frame);
        }
    }
}

impl Sim {
    /// Loads 8 bytes.
    pub fn load_u64(&self, at: HostVa) -> Result<u64, CpuError> {
        let mut word = [0; 8];
        self.load(at, &mut word)?;
        Ok(u64::from_le_bytes(word))
    }
    /// Stores 8 bytes.
    pub fn store_u64(&self, at: HostVa, value: u64) -> Result<(), CpuError> {
        self.store(at, &value.to_le_bytes())
    }
    /// Adds to 8 bytes atomically; gives the old value.
    pub fn fetch_add_u64(&self, at: HostVa, value: u64) -> Result<u64, CpuError> {
        let op = hostmm::AtomicOp::Add(value);
        self.with_page(at, Touch::Store, |content| content.atomic(at.page_offset(), 8, op))
    }
    /// Loads bytes, page by page.
    pub fn load(&self, at: HostVa, buf: &mut [u8]) -> Result<(), CpuError> {
        for (at, span) in pieces(at, buf.len()) {
            self.with_page(at, Touch::Load, |content| content.read(at.page_offset(), &mut buf[span]))?;
        }
        Ok(())
    }
    /// Stores bytes, page by page.
    pub fn store(&self, at: HostVa, bytes: &[u8]) -> Result<(), CpuError> {
        for (at, span) in pieces(at, bytes.len()) {
            self.with_page(at, Touch::Store, |content| content.write(at.page_offset(), &bytes[span]))?;
        }
        Ok(())
    }
    /// Touches a page, so that it is in system memory at some moment of the call.
    pub(crate) fn touch(&self, at: HostVa, touch: Touch) -> Result<(), CpuError> {
        self.with_page(at, touch, |_| ())
    }

    /// Does something with the bytes of the page at `at`, in one step, after every fault that takes.
    pub(crate) fn with_page<R>(
        &self,
        at: HostVa,
        touch: Touch,
        access: impl FnOnce(&mut Content) -> R,
    ) -> Result<R, CpuError> {
        let page = at.page();
        loop {
            let mut state = self.lock();
            let reclaims = state.injection.reclaims > 0;
            state.reclaim();
            match state.find(page, touch) {
                Found::Nothing => return Err(CpuError::Segv),
                Found::Poison => return Err(CpuError::Bus),
                Found::Frame(frame) => {
                    let stays_lazy = touch == Touch::Load || !state.lazy.remove(&frame);
                    if stays_lazy && !reclaims {
                        let bytes = StatePart::Bytes(Place::Host(frame));
                        let touched = if touch == Touch::Store { bytes.written() } else { bytes.read() };
                        footprint::tell(&state, [StatePart::Block(page).read(), touched]);
                    }
                    return Ok(access(&mut state.frames.held(frame).content));
                }
                Found::Watched(by, miss) => self.miss(state, by, page, miss, touch)?,
                Found::Hole(mapped) => {
                    let first = footprint::if_told(|| state.first_touch(page, &mapped));
                    state.populate(page, &mapped);
                    if let (Some(tables), false) = (first, reclaims) {
                        footprint::tell(&state, [StatePart::Block(page).written(), tables]);
                    }
                    let Some(frame) = state.mapped_frame(page) else { continue };
                    return Ok(access(&mut state.frames.held(frame).content));
                }
                Found::Protected(frame) => self.break_cow(state, page, frame),
                Found::InMigration => {
                    if !reclaims {
                        footprint::tell(&state, [StatePart::Block(page).read()]);
                    }
                    self.changed.wait(&mut state);
                }
                Found::InVram(page, mapped) => match self.migrate_back(state, at, page, &mapped, touch) {
                    FaultOutcome::Retry => sync::yield_now(),
                    FaultOutcome::Defer => time::sleep_ns(DEFER_NS),
                    FaultOutcome::Fatal => return Err(CpuError::Bus),
                },
            }
        }
    }

    /// Copies a shared page for its writer, and tells that it is another one now.
    fn break_cow(&self, mut state: Locked<'_>, at: HostVa, frame: HostFrame) {
        if !state.frames.held(frame).shared() {
            return state.make_writable(at, frame);
        }
        drop(state);
        let invalidation = self.begin(MmEvent { range: HostRange::sized(at, SZ_4K), kind: EventKind::Clear });
        let mut state = self.lock();
        let writable = state.space.vma(at).is_some_and(|mapped| mapped.vma.write);
        if writable && state.mapped_frame(at) == Some(frame) {
            state.make_writable(at, frame);
        }
        self.end(&mut state, invalidation);
    }

    /// Has a touched page of VRAM brought back: calls its pagemap, with the page locked and the mmap lock held for
    /// reading.
    fn migrate_back(
        &self,
        mut state: Locked<'_>,
        addr: HostVa,
        page: DevicePage,
        mapped: &Mapped,
        touch: Touch,
    ) -> FaultOutcome {
        let fault = &CpuFault { addr, page, vma: mapped.vma.range, write: touch == Touch::Store, thread: 0 };
        let busy = state.mmap_lock.writer || state.claims.involves(fault.page);
        let lockable = state.vram.cell_mut(fault.page).filter(|cell| !busy && !cell.faulted);
        let Some(cell) = lockable else {
            footprint::tell(&state, [StatePart::Block(addr).read()]);
            self.changed.wait(&mut state);
            return FaultOutcome::Retry;
        };
        cell.faulted = true;
        let Some(ops) = state.vram.pagemap(fault.page.pagemap).map(|map| map.ops.clone()) else {
            return FaultOutcome::Fatal;
        };
        state.mmap_lock.readers += 1;
        state.note(Event::Fault(*fault));
        footprint::tell(&state, [StatePart::Block(addr).written()]);
        drop(state);
        let outcome = ops.migrate_to_ram(self, fault);
        let mut state = self.lock();
        state.note(Event::Served { at: fault.addr, outcome });
        let freed = state.vram.unlock(fault.page);
        self.leave(&mut state);
        let bytes = StatePart::Bytes(Place::Device(fault.page));
        footprint::tell(&state, [StatePart::Block(addr).written(), bytes.written()]);
        drop(state);
        if freed {
            self.free_pages(&[fault.page]);
        }
        outcome
    }
}

/// Cuts `len` bytes from `at` on at page borders: address and place in the buffer of each piece.
pub(crate) fn pieces(at: HostVa, len: usize) -> impl Iterator<Item = (HostVa, core::ops::Range<usize>)> {
    let mut done = 0;
    core::iter::from_fn(move || {
        let at = at.add(done as u64);
        let piece = (len - done).min(SZ_4K as usize - at.page_offset());
        let span = done..done + piece;
        done += piece;
        (piece > 0).then_some((at, span))
    })
}
