//! The data plane: what a device does to bytes, whichever world they live in.
//!
//! The engine never calls this; `machine` adapts it to the hardware model's bus, and the conformance suite
//! drives it directly. It is here because the host mm alone knows where bytes are, and which pairs may move.

use crate::Place;
use units::{HostFrame, HostVa, Report};

/// Why an access did not happen.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AccessError {
    /// A frame of VRAM that holds nothing: the translation that led here is stale, and should have been torn down.
    Empty,
    /// A frame of VRAM that a change of mappings emptied, for which the notifiers have not all been called yet
    /// (userfaultfd's events come late). Nothing was done, and nobody is to blame: let go of what a flush waits for,
    /// translate again, retry.
    Again,
    /// No memory there (unmapped meanwhile), or permission is missing.
    Fault,
}

/// An atomic read-modify-write of 4 or 8 naturally aligned bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AtomicOp {
    /// Store the operand (MOVE).
    Exchange(u64),
    /// Add the operand, wrapping.
    Add(u64),
    /// Subtract the operand, wrapping.
    Sub(u64),
    /// Store `new` where the memory equals `expected`.
    CompareExchange {
        /// Value that must be there.
        expected: u64,
        /// Value to store.
        new: u64,
    },
}

/// Bytes, by place. All accesses are atomic with regard to transfers of a *staged* pair.
pub trait HostMemory: Send + Sync {
    /// Reads `buf.len()` bytes at `offset` of a page; does not cross the page.
    fn read(&self, place: Place, offset: usize, buf: &mut [u8]) -> Result<(), AccessError>;
    /// Writes `bytes` at `offset` of a page; does not cross the page.
    fn write(&self, place: Place, offset: usize, bytes: &[u8]) -> Result<(), AccessError>;
    /// Writes a whole page around the caches, where the machine can: for copies so long that nobody reads what was written
    /// soon. Other threads may see it late, up to [`drain`](Self::drain).
    fn stream(&self, place: Place, page: &[u8]) -> Result<(), AccessError> {
        self.write(place, 0, page)
    }
    /// Copies up to `pages` pages from `from` on to those from `to` on, likewise around the caches, where no access of either may
    /// block. How many; fewer where one does not answer, which an access of its own then explains.
    fn stream_pages(&self, _from: Place, _to: Place, _pages: usize) -> usize {
        0
    }
    /// What this thread has streamed is seen by all others.
    fn drain(&self) {}
    /// An atomic of `size` (4 or 8) bytes at a naturally aligned `offset`; gives the old value.
    fn atomic(&self, place: Place, offset: usize, size: usize, op: AtomicOp) -> Result<u64, AccessError>;

    /// Carries a run of `pages` pages from `src` to `dst`: moves what is staged as exactly these pairs, copies the
    /// rest. Reports runs, in order.
    fn transfer(&self, src: Place, dst: Place, pages: usize, report: &mut Report<'_>);

    /// Memory of no mapping, for a buffer object (the pages of a GEM object): `pages` zeroed pages as one run of frames, from
    /// the one that is given on. It does not migrate. `None` where there is not so much. Where the memory can be shared with
    /// other processes the label goes with it, and means nothing to the host.
    fn object_create(&self, pages: u64, label: u64) -> Option<HostFrame>;
    /// Gives its bytes up, and the memory under them: no device reaches it any more, and a mapping that the program has of it
    /// is in error, or reads zeros where the process may not cut it.
    fn object_purge(&self, first: HostFrame, pages: u64);
    /// Gives it back: no device reaches it any more. A mapping that the program has of it keeps its bytes.
    fn object_destroy(&self, first: HostFrame, pages: u64);

    /// Reads memory as the calling thread of the program would: faults are served (`copy_from_user`).
    fn copy_from_user(&self, from: HostVa, buf: &mut [u8]) -> Result<(), AccessError>;
    /// Writes memory as the calling thread of the program would (`copy_to_user`).
    fn copy_to_user(&self, to: HostVa, bytes: &[u8]) -> Result<(), AccessError>;
}
