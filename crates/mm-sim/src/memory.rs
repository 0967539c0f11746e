//! The data plane: device accesses by place, and copies on behalf of the program's threads.

use crate::access::CpuError;
use crate::content::Content;
use crate::footprint::{self, StatePart};
use crate::sim::Sim;
use hostmm::{AccessError, AtomicOp, HostMemory, Place, Report};
use units::{HostFrame, HostVa, Joined};

impl Sim {
    /// One access of a device, in one step.
    fn with_place<R>(
        &self,
        place: Place,
        writes: bool,
        access: impl FnOnce(&mut Content) -> R,
    ) -> Result<R, AccessError> {
        let mut state = self.lock();
        let bytes = StatePart::Bytes(place);
        footprint::tell(&state, [if writes { bytes.written() } else { bytes.read() }]);
        match place {
            Place::Device(page) => {
                let cell = state.vram.cell_mut(page).ok_or(AccessError::Empty)?;
                Ok(access(&mut cell.content))
            }
            Place::Host(frame) => {
                let held = state.frames.get_mut(frame).ok_or(AccessError::Fault)?;
                Ok(access(&mut held.content))
            }
        }
    }
}

/// What a device or a system call is told where a program would get a signal.
fn told(error: CpuError) -> AccessError {
    match error {
        CpuError::Segv | CpuError::Bus => AccessError::Fault,
    }
}

impl HostMemory for Sim {
    fn read(&self, place: Place, offset: usize, buf: &mut [u8]) -> Result<(), AccessError> {
        self.with_place(place, false, |content| content.read(offset, buf))
    }
    fn write(&self, place: Place, offset: usize, bytes: &[u8]) -> Result<(), AccessError> {
        self.with_place(place, true, |content| content.write(offset, bytes))
    }
    fn atomic(&self, place: Place, offset: usize, size: usize, op: AtomicOp) -> Result<u64, AccessError> {
        self.with_place(place, true, |content| content.atomic(offset, size, op))
    }
    fn transfer(&self, src: Place, dst: Place, pages: usize, report: &mut Report<'_>) {
        let mut report = Joined::new(report);
        for i in 0..pages as u64 {
            report.note(1, self.transfer_page(src.add(i), dst.add(i)));
        }
    }
    fn object_create(&self, pages: u64, _label: u64) -> Option<HostFrame> {
        let mut state = self.lock();
        let first = state.frames.alloc_run(pages);
        state.objects.extend((0..pages).map(|page| (first.add(page), 1)));
        Some(first)
    }
    fn object_purge(&self, first: HostFrame, pages: u64) {
        let mut state = self.lock();
        for frame in (0..pages).map(|page| first.add(page)) {
            if let Some(held) = state.frames.get_mut(frame) {
                held.content = Content::default();
            }
        }
    }
    fn object_destroy(&self, first: HostFrame, pages: u64) {
        let mut state = self.lock();
        for frame in (0..pages).map(|page| first.add(page)) {
            match state.objects.get_mut(&frame) {
                Some(count @ 2..) => *count -= 1,
                _ => _ = state.objects.remove(&frame),
            }
            state.frames.put(frame);
        }
    }
    fn copy_from_user(&self, from: HostVa, buf: &mut [u8]) -> Result<(), AccessError> {
        self.load(from, buf).map_err(told)
    }
    fn copy_to_user(&self, to: HostVa, bytes: &[u8]) -> Result<(), AccessError> {
        self.store(to, bytes).map_err(told)
    }
}
