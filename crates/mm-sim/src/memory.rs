//! The data plane: device accesses by place, and copies on behalf of the program's threads.

use crate::access::{CpuError, Touch};
use crate::content::Content;
use crate::sim::Sim;
use crate::{Manner, State};
use hostmm::{AccessError, AtomicOp, HostMemory, Place, Report};
use units::{HostVa, Joined};

impl Sim {
    /// One access of a device, in one step.
    fn with_place<R>(
        &self,
        place: Place,
        touch: Touch,
        access: impl FnOnce(&mut Content) -> R,
    ) -> Result<R, AccessError> {
        match (place, self.manner()) {
            (Place::Device(page), _) => {
                let mut state = self.lock();
                let empty = if state.uffd.condemned.contains(&page) { AccessError::Again } else { AccessError::Empty };
                let cell = state.vram.cell_mut(page).ok_or(empty)?;
                Ok(access(&mut cell.content))
            }
            (Place::Host(frame), Manner::Linux) => {
                let mut state = self.lock();
                let held = state.frames.get_mut(frame).ok_or(AccessError::Fault)?;
                Ok(access(&mut held.content))
            }
            (Place::Host(frame), Manner::Userfaultfd) => {
                self.with_page(State::named_address(frame), touch, access).map_err(told)
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
        self.with_place(place, Touch::Load, |content| content.read(offset, buf))
    }
    fn write(&self, place: Place, offset: usize, bytes: &[u8]) -> Result<(), AccessError> {
        self.with_place(place, Touch::Store, |content| content.write(offset, bytes))
    }
    fn atomic(&self, place: Place, offset: usize, size: usize, op: AtomicOp) -> Result<u64, AccessError> {
        self.with_place(place, Touch::Store, |content| content.atomic(offset, size, op))
    }
    fn transfer(&self, src: Place, dst: Place, pages: usize, report: &mut Report<'_>) {
        let mut report = Joined::new(report);
        for i in 0..pages as u64 {
            report.note(1, self.transfer_page(src.add(i), dst.add(i)));
        }
    }
    fn copy_from_user(&self, from: HostVa, buf: &mut [u8]) -> Result<(), AccessError> {
        self.load(from, buf).map_err(told)
    }
    fn copy_to_user(&self, to: HostVa, bytes: &[u8]) -> Result<(), AccessError> {
        self.store(to, bytes).map_err(told)
    }
}
