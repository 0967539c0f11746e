//! What a case needs of the program's side of a world.

use super::Contract;
use crate::{HostMemory, HostMm, PagemapId};
use alloc::boxed::Box;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use units::{HostRange, HostVa};

/// A kind of mapping to make.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mapping {
    /// Private, anonymous, readable and writable, 4K pages.
    Anonymous,
    /// The same, 2M aligned, and the program asks for huge pages (it need not get them).
    Huge,
    /// Private, anonymous, readable only.
    ReadOnly,
    /// Shared or of a file: visible to a device, but not to be migrated.
    Shared,
}

/// Memory accesses of one CPU thread of the program: they fault, wait and go on as a program's do.
///
/// All of them are of 8 naturally aligned bytes, and panic where the program would get a signal.
pub trait Cpu {
    /// Loads a word.
    fn load(&self, at: HostVa) -> u64;
    /// Stores a word.
    fn store(&self, at: HostVa, value: u64);
    /// Adds atomically, gives the old word.
    fn fetch_add(&self, at: HostVa, value: u64) -> u64;
}

/// What a spawned CPU thread does.
pub type Body = Box<dyn FnOnce(&dyn Cpu) + Send>;
/// Waits for a spawned CPU thread's end; panics where that thread did.
pub type Join = Box<dyn FnOnce()>;

/// The program in a world. The thread that runs the case is one of its CPU threads.
pub trait World: Cpu {
    /// The world's side of the rows that may differ.
    fn contract(&self) -> Contract;
    /// The memory manager.
    fn mm(&self) -> Arc<dyn HostMm>;
    /// The data plane, the same object.
    fn memory(&self) -> Arc<dyn HostMemory>;
    /// The id of a case's pagemap number `n`: not inserted yet. A world that outlives a case gives new ids.
    fn pagemap(&self, n: u16) -> PagemapId {
        PagemapId(n)
    }

    /// How many rounds a case with racing threads runs.
    fn rounds(&self) -> u64 {
        16
    }

    /// Maps `pages` fresh pages, 2M aligned, with nothing mapped directly before or behind.
    fn mmap(&self, pages: usize, kind: Mapping) -> HostRange;
    /// `munmap`.
    fn munmap(&self, range: HostRange);
    /// `madvise(MADV_DONTNEED)`.
    fn dontneed(&self, range: HostRange);
    /// `mprotect(PROT_READ)`.
    fn protect_read_only(&self, range: HostRange);
    /// `mremap` to a new place; gives it.
    fn mremap(&self, range: HostRange) -> HostRange;
    /// Pins the page at `at` against migration (as direct IO does); it stays in system memory until [`unpin`](World::unpin).
    fn pin(&self, at: HostVa);
    /// Ends that.
    fn unpin(&self, at: HostVa);
    /// Forks; gives what the child loads at each address.
    fn fork_loads(&self, at: &[HostVa]) -> Vec<u64>;

    /// Starts another CPU thread of the program.
    fn spawn(&self, body: Body) -> Join;
    /// Lets other threads run, where the case waits for one.
    fn pause(&self);
    /// Waits until every event of the program's calls so far has been handled (no wait where callers are held).
    fn settle(&self);
    /// Checks the world's own books: no frame lost, none owned twice. Called with no migration under way.
    fn audit(&self) -> Result<(), String>;
}
