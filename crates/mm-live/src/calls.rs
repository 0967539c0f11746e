//! Calls of the kernel, counted by kind: what a fault asks for, a bench prints and a test holds.

use crate::kernel::{
    Bytes, Descriptor, Errno, Fault, Held, Kernel, Mapping, Message, Populate, Progress, Ready, Watch,
};
use hostmm::AtomicOp;
use std::sync::Arc;
use sync::Counter;
use units::{HostRange, HostVa};

macro_rules! calls {
    ($($(#[$doc:meta])* $name:ident),* $(,)?) => {
        /// How often each kind of call was made. What touches memory by itself is no call.
        #[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
        pub struct Calls { $($(#[$doc])* pub $name: u64,)* }

        impl Calls {
            /// Those since `earlier`.
            pub fn since(&self, earlier: &Self) -> Self {
                Self { $($name: self.$name - earlier.$name,)* }
            }

            /// Each kind with its name, as the kernel calls it.
            pub fn named(&self) -> Vec<(&'static str, u64)> {
                vec![$((stringify!($name).trim_start_matches("r#"), self.$name),)*]
            }
        }

        #[derive(Default)]
        struct Counts { $($name: Counter,)* }

        impl Counts {
            fn snapshot(&self) -> Calls {
                Calls { $($name: self.$name.get(),)* }
            }
        }
    };
}

calls! {
    /// read(2) of the program's userfaultfd.
    read,
    /// UFFDIO_COPY of nothing, which says whether an event is pending.
    probe,
    /// UFFDIO_REGISTER.
    register,
    /// UFFDIO_UNREGISTER.
    unregister,
    /// UFFDIO_WAKE.
    wake,
    /// UFFDIO_MOVE.
    r#move,
    /// UFFDIO_COPY.
    copy,
    /// UFFDIO_ZEROPAGE.
    zeropage,
    /// UFFDIO_WRITEPROTECT.
    writeprotect,
    /// madvise(2): DONTNEED, POPULATE_READ, POPULATE_WRITE.
    madvise,
    /// PROCMAP_QUERY.
    procmap_query,
    /// PAGEMAP_SCAN.
    pagemap_scan,
    /// poll(2).
    poll,
    /// write(2) and read(2) of the eventfd that ends a poll.
    eventfd,
}

/// A kernel whose calls are counted.
pub(crate) struct Counted {
    kernel: Arc<dyn Kernel>,
    counts: Counts,
}

impl Counted {
    pub fn new(kernel: Arc<dyn Kernel>) -> Self {
        Self { kernel, counts: Counts::default() }
    }

    /// A read by another way.
    pub fn count_read(&self) {
        self.counts.read.add(1);
    }

    /// Calls so far.
    pub fn calls(&self) -> Calls {
        self.counts.snapshot()
    }
}

impl Kernel for Counted {
    fn read_messages(&self, out: &mut [Message]) -> usize {
        self.counts.read.add(1);
        self.kernel.read_messages(out)
    }
    fn event_pending(&self) -> bool {
        self.counts.probe.add(1);
        self.kernel.event_pending()
    }
    fn register(&self, by: Descriptor, range: HostRange, watch: Watch) -> Result<(), Errno> {
        self.counts.register.add(1);
        self.kernel.register(by, range, watch)
    }
    fn unregister(&self, by: Descriptor, range: HostRange) -> Result<(), Errno> {
        self.counts.unregister.add(1);
        self.kernel.unregister(by, range)
    }
    fn wake(&self, range: HostRange) {
        self.counts.wake.add(1);
        self.kernel.wake(range);
    }
    fn move_pages(&self, by: Descriptor, dst: HostVa, src: HostVa, len: u64) -> Progress {
        self.counts.r#move.add(1);
        self.kernel.move_pages(by, dst, src, len)
    }
    fn copy(&self, by: Descriptor, dst: HostVa, src: HostVa, len: u64) -> Progress {
        self.counts.copy.add(1);
        self.kernel.copy(by, dst, src, len)
    }
    fn fill(&self, by: Descriptor, dst: HostVa, bytes: &[u8]) -> Progress {
        self.counts.copy.add(1);
        self.kernel.fill(by, dst, bytes)
    }
    fn zero(&self, by: Descriptor, range: HostRange) -> Progress {
        self.counts.zeropage.add(1);
        self.kernel.zero(by, range)
    }
    fn poison(&self, range: HostRange) {
        self.kernel.poison(range);
    }
    fn protect(&self, range: HostRange, protect: bool) -> Result<(), Errno> {
        self.counts.writeprotect.add(1);
        self.kernel.protect(range, protect)
    }

    fn map_arena(&self, bytes: u64) -> Result<HostRange, Errno> {
        self.kernel.map_arena(bytes)
    }
    fn unmap_arena(&self, range: HostRange) {
        self.kernel.unmap_arena(range);
    }
    fn reserve(&self, bytes: u64) -> Result<HostRange, Errno> {
        self.kernel.reserve(bytes)
    }
    fn map_object(&self, at: HostRange, of: Bytes) -> Result<(), Errno> {
        self.kernel.map_object(at, of)
    }
    fn purge_object(&self, at: HostRange) {
        self.kernel.purge_object(at);
    }
    fn unmap_object(&self, at: HostRange) {
        self.kernel.unmap_object(at);
    }
    fn drop_pages(&self, range: HostRange) -> Result<(), Errno> {
        self.counts.madvise.add(1);
        self.kernel.drop_pages(range)
    }
    fn populate(&self, range: HostRange, access: Populate) -> Result<(), Errno> {
        self.counts.madvise.add(1);
        self.kernel.populate(range, access)
    }

    fn mapping(&self, addr: HostVa) -> Option<Mapping> {
        self.counts.procmap_query.add(1);
        self.kernel.mapping(addr)
    }
    fn scan(&self, range: HostRange, out: &mut [Held]) -> (usize, HostVa) {
        self.counts.pagemap_scan.add(1);
        self.kernel.scan(range, out)
    }

    fn read(&self, at: HostVa, buf: &mut [u8]) -> Result<(), Fault> {
        self.kernel.read(at, buf)
    }
    fn stream(&self, at: HostVa, page: &[u8]) -> Result<(), Fault> {
        self.kernel.stream(at, page)
    }
    fn stream_page(&self, dst: HostVa, src: HostVa) -> Result<(), Fault> {
        self.kernel.stream_page(dst, src)
    }
    fn drain(&self) {
        self.kernel.drain();
    }
    fn write(&self, at: HostVa, bytes: &[u8]) -> Result<(), Fault> {
        self.kernel.write(at, bytes)
    }
    fn atomic(&self, at: HostVa, size: usize, op: AtomicOp) -> Result<u64, Fault> {
        self.kernel.atomic(at, size, op)
    }

    fn descriptors(&self) -> Vec<i32> {
        self.kernel.descriptors()
    }
    fn wait(&self, timeout_ms: i32) -> Ready {
        self.counts.poll.add(1);
        self.kernel.wait(timeout_ms)
    }
    fn kick(&self) {
        self.counts.eventfd.add(1);
        self.kernel.kick();
    }
    fn quiet(&self) {
        self.counts.eventfd.add(1);
        self.kernel.quiet();
    }
    fn cpus(&self) -> u32 {
        self.kernel.cpus()
    }
    fn become_reader(&self, number: u32) {
        self.kernel.become_reader(number);
    }
    fn thread_memory(&self) -> Vec<HostRange> {
        self.kernel.thread_memory()
    }
}
