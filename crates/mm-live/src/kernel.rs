//! What this crate asks of a kernel: userfaultfd, a look at mappings and pages, and bytes at addresses.
//!
//! The rest of the crate is bookkeeping in safe code over this trait. Two implement it: `sys` on the real kernel, and
//! `mm-sim` on a model of one, under the checker. So what ships is what is checked.
//!
//! # Two descriptors
//!
//! [`Descriptor::Program`] watches the program's chunks and reports events. [`Descriptor::Device`] watches the arenas;
//! a touch of an empty frame there is [`Fault::Bus`] at once and raises no message.
//!
//! # What the kernel promises (Linux 6.18, measured; `docs/userfaultfd.md` has the table of cases)
//!
//! * An event is raised by munmap, mremap and MADV_DONTNEED/MADV_FREE of memory that the program's descriptor watches.
//!   Its raiser is held until the message is *read*, and is free from then on, whatever the reader does with it.
//! * munmap and mremap raise it *after* the change, DONTNEED and FREE *before* it. Between the change and the read another
//!   thread may map the address anew.
//! * [`read_messages`](Kernel::read_messages) gives faults before events, and within each the oldest first. An mremap is two
//!   messages: [`Message::Remap`], then [`Message::Unmap`] of the old place.
//! * From the moment in which a change begins until its raiser has run again after the read, every
//!   [`move_pages`](Kernel::move_pages), [`copy`](Kernel::copy), [`fill`](Kernel::fill), [`zero`](Kernel::zero) and
//!   [`protect`](Kernel::protect) of the program's descriptor is refused with [`Errno::AGAIN`], before the arguments are
//!   looked at. The device's descriptor knows nothing of that.
//! * register and unregister are not refused. A registration is the mapping's: mremap takes it along, munmap ends it, a
//!   mapping that grows in place is registered where it grew.
//!
//! Locking: implementations take locks of their own only, none across a call. [`populate`](Kernel::populate),
//! [`read`](Kernel::read), [`write`](Kernel::write) and [`atomic`](Kernel::atomic) touch memory as the calling thread would: they may
//! wait for a reader, so no lock of this crate is held and no reader calls them on memory that may migrate.
//!
//! Upstream: fs/userfaultfd.c, mm/userfaultfd.c, fs/proc/task_mmu.c.

use hostmm::AtomicOp;
use units::{HostRange, HostVa, SZ_4K};

/// A kernel error number.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Errno(pub i32);

#[allow(missing_docs)]
impl Errno {
    pub const PERM: Self = Self(1);
    pub const NOENT: Self = Self(2);
    pub const BADF: Self = Self(9);
    pub const AGAIN: Self = Self(11);
    pub const NOMEM: Self = Self(12);
    pub const FAULT: Self = Self(14);
    pub const BUSY: Self = Self(16);
    pub const EXIST: Self = Self(17);
    pub const INVAL: Self = Self(22);
    pub const NOTTY: Self = Self(25);
}

/// Which userfaultfd.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Descriptor {
    /// The program's chunks and the bounce buffers: page faults and events.
    Program,
    /// The arenas: SIGBUS, no messages.
    Device,
}

/// A range's page faults of which kind are reported.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Watch {
    /// Missing pages.
    Missing,
    /// Missing pages, and writes to protected ones.
    MissingAndProtected,
}

/// A message of the program's descriptor.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Message {
    /// A thread waits for this page.
    Fault {
        /// The page.
        addr: HostVa,
        /// Whether it is a write.
        write: bool,
        /// Whether the page is there and write-protected.
        protected: bool,
        /// The thread, by the kernel's number; 0 where that is not known.
        thread: u32,
    },
    /// What lay in `from` now lies at `to`.
    Remap {
        /// The old place.
        from: HostRange,
        /// The new one.
        to: HostVa,
    },
    /// Pages are about to be dropped (DONTNEED), or may be from now on (FREE).
    Remove(HostRange),
    /// The mapping is gone.
    Unmap(HostRange),
    /// Something that was not asked for.
    Other(u8),
}

/// How far a call over a range came.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Progress {
    /// Bytes done.
    pub bytes: u64,
    /// Why it ended there; `None` where all is done.
    pub error: Option<Errno>,
}

/// A mapping as the kernel describes it (`PROCMAP_QUERY`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Mapping {
    /// Its extent.
    pub range: HostRange,
    /// `VM_READ`.
    pub read: bool,
    /// `VM_WRITE`.
    pub write: bool,
    /// `VM_EXEC`.
    pub exec: bool,
    /// Private, of no file, and in 4K pages. So are the kernel's own (\[vdso\] and its kin), which nobody can write.
    pub plain: bool,
    /// Of an object's memory, which no page of the program's is: `VM_IO | VM_PFNMAP` where the device is real.
    pub io: bool,
}

impl Mapping {
    /// Whether it and `other` would be one mapping, were they side by side.
    pub fn is_like(&self, other: &Self) -> bool {
        self.plain && Self { range: self.range, ..*other } == *self
    }
}

/// A part of a range whose pages hold something: in memory, or swapped out (`PAGEMAP_SCAN`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Held {
    /// Which part.
    pub range: HostRange,
    /// Mapped as 2M pages.
    pub huge: bool,
}

/// Why an access did not happen.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fault {
    /// SIGSEGV: no memory there, or not for this.
    Segv,
    /// SIGBUS: a frame that is empty, a poisoned page, a file that ends before it.
    Bus,
}

/// What ended a wait.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Ready {
    /// There are messages.
    pub messages: bool,
    /// Somebody rang.
    pub kicked: bool,
}

/// What a populate is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Populate {
    /// Reading: `MADV_POPULATE_READ`.
    Read,
    /// Writing: `MADV_POPULATE_WRITE`; breaks copy-on-write.
    Write,
}

/// What memory of an object is made of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Bytes {
    /// Zeros, with this label.
    New(u64),
    /// All of an open file.
    File(i32),
}

/// A kernel. See the module header for what each call promises.
pub trait Kernel: Send + Sync {
    /// Reads messages of the program's descriptor, at most `out.len()`; gives how many. Does not wait.
    fn read_messages(&self, out: &mut [Message]) -> usize;
    /// Whether an event is unread, or its raiser has not run again: whether the program's descriptor refuses now.
    fn event_pending(&self) -> bool;
    /// Reports faults of `range` from now on. Passes over holes; splits mappings at the range's ends.
    fn register(&self, by: Descriptor, range: HostRange, watch: Watch) -> Result<(), Errno>;
    /// Ends that, and wakes who waits there.
    fn unregister(&self, by: Descriptor, range: HostRange) -> Result<(), Errno>;
    /// Lets every thread that waits in `range` look again.
    fn wake(&self, range: HostRange);
    /// Moves pages from `src` to `dst`, whose mapping `by` watches; nobody is woken. `NOENT` at a hole of the source, `EXIST` where
    /// the destination holds a page, `BUSY` for a page that is pinned or shared, `INVAL` for mappings that do not fit.
    /// Pages after the reported progress may have moved too, after a passing `AGAIN` in the middle: see
    /// `LiveMm::move_exactly`.
    fn move_pages(&self, by: Descriptor, dst: HostVa, src: HostVa, len: u64) -> Progress;
    /// Copies `len` bytes at `src`, read as the calling thread would, into missing pages at `dst`; nobody is woken.
    fn copy(&self, by: Descriptor, dst: HostVa, src: HostVa, len: u64) -> Progress;
    /// The same with bytes of ours: whole pages.
    fn fill(&self, by: Descriptor, dst: HostVa, bytes: &[u8]) -> Progress;
    /// Maps zero pages where pages are missing; nobody is woken.
    fn zero(&self, by: Descriptor, range: HostRange) -> Progress;
    /// Makes a missing page of the program raise SIGBUS when touched.
    fn poison(&self, range: HostRange);
    /// Makes writes to present pages of `range` fault, or not any more (then nobody is woken).
    fn protect(&self, range: HostRange, protect: bool) -> Result<(), Errno>;

    /// Memory of our own: `bytes`, 2M aligned, never dumped, never inherited, in huge pages where there are any.
    fn map_arena(&self, bytes: u64) -> Result<HostRange, Errno>;
    /// Gives it back.
    fn unmap_arena(&self, range: HostRange);
    /// Addresses of our own in which nothing lies yet: every touch is [`Fault::Segv`]. Never inherited.
    fn reserve(&self, bytes: u64) -> Result<HostRange, Errno>;
    /// Puts memory there that can be shared with other mappings (a memfd): a part of what was reserved.
    fn map_object(&self, at: HostRange, of: Bytes) -> Result<(), Errno>;
    /// The memory that [`map_object`](Self::map_object) put there is nobody's any more, for all who map it.
    fn purge_object(&self, at: HostRange);
    /// Nothing lies there again.
    fn unmap_object(&self, at: HostRange);
    /// Drops pages (`MADV_DONTNEED`). Of watched memory of the program it raises an event, and waits until it is read.
    fn drop_pages(&self, range: HostRange) -> Result<(), Errno>;
    /// Faults all of `range` in.
    fn populate(&self, range: HostRange, access: Populate) -> Result<(), Errno>;

    /// The mapping that `addr` lies in, or the first one above.
    fn mapping(&self, addr: HostVa) -> Option<Mapping>;
    /// The parts of `range` that hold something, in order, as many as `out` has room for: how many there are, and up to
    /// where was looked. What is not named up to there holds nothing, or is not mapped.
    fn scan(&self, range: HostRange, out: &mut [Held]) -> (usize, HostVa);

    /// Reads bytes at an address; an error and no signal where there are none.
    fn read(&self, at: HostVa, buf: &mut [u8]) -> Result<(), Fault>;
    /// Writes likewise.
    fn write(&self, at: HostVa, bytes: &[u8]) -> Result<(), Fault>;
    /// Writes a whole page around the caches; other threads may see it late, up to [`drain`](Self::drain).
    fn stream(&self, at: HostVa, page: &[u8]) -> Result<(), Fault> {
        self.write(at, page)
    }
    /// Copies a whole page likewise.
    fn stream_page(&self, dst: HostVa, src: HostVa) -> Result<(), Fault> {
        let mut page = [0; SZ_4K as usize];
        self.read(src, &mut page)?;
        self.write(dst, &page)
    }
    /// What this thread has streamed is seen by all others.
    fn drain(&self) {}
    /// An atomic on `size` (4 or 8) naturally aligned bytes; gives the old value.
    fn atomic(&self, at: HostVa, size: usize, op: AtomicOp) -> Result<u64, Fault>;

    /// Every descriptor that must stay open, and that a forked child must close: they belong to the memory of its
    /// parent.
    fn descriptors(&self) -> Vec<i32>;

    /// Waits for messages or a kick, at most `timeout_ms` (-1: for ever).
    fn wait(&self, timeout_ms: i32) -> Ready;
    /// Ends the waits that are, or the next one.
    fn kick(&self);
    /// Ends the kick.
    fn quiet(&self);
    /// How many threads may answer faults at once without being in each other's way.
    fn cpus(&self) -> u32;
    /// The calling thread answers faults from now on, as the `number`th: no signals, and a CPU of its own.
    fn become_reader(&self, number: u32);
    /// Memory of the calling thread itself: stack, thread control block and thread vector.
    fn thread_memory(&self) -> Vec<HostRange>;
}
