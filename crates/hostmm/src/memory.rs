//! The data plane: what a device does to bytes, whichever world they live in.
//!
//! The engine never calls this; `machine` adapts it to the hardware model's bus, and the conformance suite
//! drives it directly. It is here because the host mm alone knows where bytes are, and which pairs may move.

use super::DevicePage;
use units::{HostFrame, HostVa};

/// Where the bytes of one page are, as the hardware found by its page tables and its IOMMU.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Place {
    /// In VRAM.
    Device(DevicePage),
    /// In system memory.
    Host(HostFrame),
}

impl Place {
    /// The place `pages` further on in a contiguous run.
    pub const fn add(self, pages: u64) -> Self {
        match self {
            Self::Device(page) => Self::Device(page.add(pages)),
            Self::Host(frame) => Self::Host(frame.add(pages)),
        }
    }
}

/// Why an access did not happen.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AccessError {
    /// A frame of VRAM that holds nothing: the translation that led here is stale, and should have been torn down.
    Empty,
    /// A frame of VRAM that a change of mappings emptied, of which the notifiers have not been told to the end yet
    /// (userfaultfd tells late). Nothing was done, and nobody is to blame: let go of what a flush waits for,
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

/// How a page of a transfer ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Transferred {
    /// The page itself moved: no byte was copied.
    Moved,
    /// Its bytes were copied.
    Copied,
    /// The source was a hole; the destination reads as zeros.
    Hole,
    /// It stays where it was: pinned, or gone meanwhile.
    Failed,
}

/// Bytes, by place. All accesses are atomic with regard to transfers of a *staged* pair.
pub trait HostMemory: Send + Sync {
    /// Reads `buf.len()` bytes at `offset` of a page; does not cross the page.
    fn read(&self, place: Place, offset: usize, buf: &mut [u8]) -> Result<(), AccessError>;
    /// Writes `bytes` at `offset` of a page; does not cross the page.
    fn write(&self, place: Place, offset: usize, bytes: &[u8]) -> Result<(), AccessError>;
    /// An atomic of `size` (4 or 8) bytes at a naturally aligned `offset`; gives the old value.
    fn atomic(&self, place: Place, offset: usize, size: usize, op: AtomicOp) -> Result<u64, AccessError>;

    /// Carries `done.len()` pages from the run at `src` to the run at `dst`: moves a pair that is staged as
    /// exactly this pair, copies any other. Reports page by page.
    fn transfer(&self, src: Place, dst: Place, done: &mut [Transferred]);

    /// Reads memory as the calling thread of the program would: faults are served (`copy_from_user`).
    fn copy_from_user(&self, from: HostVa, buf: &mut [u8]) -> Result<(), AccessError>;
    /// Writes memory as the calling thread of the program would (`copy_to_user`).
    fn copy_to_user(&self, to: HostVa, bytes: &[u8]) -> Result<(), AccessError>;
}
