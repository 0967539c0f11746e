//! The real kernel, short of memory by choice: calls that need some are refused now and then, as a loaded machine refuses them.
//!
//! The choices come from a seed; which call meets which of them is up to the threads. A refused call has done nothing, or,
//! where it takes many pages, the first half of them.

use super::*;
use mm_live::kernel::*;

/// One call of so many is refused.
const EVERY: u64 = 16;

/// What was refused, by call.
#[derive(Default, Debug)]
pub(super) struct Refused {
    pub moves: AtomicU64,
    pub copies: AtomicU64,
    pub zeros: AtomicU64,
    pub mappings: AtomicU64,
    pub registrations: AtomicU64,
}

impl Refused {
    /// Whether each kind of call that a run makes was refused.
    pub fn is_enough(&self, transport: Transport) -> bool {
        let carried = if transport == Transport::Move { &self.moves } else { &self.copies };
        [carried, &self.zeros, &self.mappings, &self.registrations].iter().all(|count| count.load(SeqCst) > 0)
    }
}

pub(super) struct Short {
    kernel: Arc<dyn Kernel>,
    ended: AtomicBool,
    choices: Mutex<Random>,
    pub refused: Refused,
}

impl Short {
    pub fn new(kernel: Arc<dyn Kernel>, seed: u64) -> Self {
        let choices = Mutex::new(Random(0x9e37_79b9_7f4a_7c15 ^ seed));
        Self { kernel, ended: AtomicBool::new(false), choices, refused: Refused::default() }
    }

    /// Nothing is refused from now on.
    pub fn end(&self) {
        self.ended.store(true, SeqCst);
    }

    /// Whether a call is refused, and a choice between so many ways.
    fn choose(&self, ways: u64, counter: &AtomicU64) -> Option<u64> {
        if self.ended.load(SeqCst) {
            return None;
        }
        let mut choices = self.choices.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let way = (choices.below(EVERY) == 0).then(|| choices.below(ways))?;
        counter.fetch_add(1, SeqCst);
        Some(way)
    }

    /// A call that needs memory for a page table or a mapping.
    fn room(&self, counter: &AtomicU64) -> Result<(), Errno> {
        self.choose(1, counter).map_or(Ok(()), |_| Err(Errno::NOMEM))
    }

    /// A call over `len` bytes; `go` does so many of them.
    fn part(&self, len: u64, counter: &AtomicU64, go: impl FnOnce(u64) -> Progress) -> Progress {
        let half = (len / 2) & !(SZ_4K - 1);
        match self.choose(3, counter) {
            None => go(len),
            Some(0) => Progress { bytes: 0, error: Some(Errno::NOMEM) },
            Some(1) if half > 0 => {
                let progress = go(half);
                Progress { error: progress.error.or(Some(Errno::AGAIN)), ..progress }
            }
            Some(_) => Progress { bytes: 0, error: Some(Errno::AGAIN) },
        }
    }
}

macro_rules! as_it_is {
    ($($name:ident($($argument:ident: $type:ty),*) $(-> $result:ty)?;)*) => {
        $(fn $name(&self, $($argument: $type),*) $(-> $result)? { self.kernel.$name($($argument),*) })*
    };
}

impl Kernel for Short {
    fn move_pages(&self, by: Descriptor, dst: HostVa, src: HostVa, len: u64) -> Progress {
        self.part(len, &self.refused.moves, |len| self.kernel.move_pages(by, dst, src, len))
    }
    fn copy(&self, by: Descriptor, dst: HostVa, src: HostVa, len: u64) -> Progress {
        self.part(len, &self.refused.copies, |len| self.kernel.copy(by, dst, src, len))
    }
    fn fill(&self, by: Descriptor, dst: HostVa, bytes: &[u8]) -> Progress {
        let len = bytes.len() as u64;
        self.part(len, &self.refused.copies, |len| self.kernel.fill(by, dst, &bytes[..len as usize]))
    }
    fn zero(&self, by: Descriptor, range: HostRange) -> Progress {
        self.part(range.len(), &self.refused.zeros, |len| self.kernel.zero(by, HostRange::sized(range.start, len)))
    }
    fn register(&self, by: Descriptor, range: HostRange, watch: Watch) -> Result<(), Errno> {
        self.room(&self.refused.registrations)?;
        self.kernel.register(by, range, watch)
    }
    fn map_object(&self, at: HostRange, of: Bytes) -> Result<(), Errno> {
        self.room(&self.refused.mappings)?;
        self.kernel.map_object(at, of)
    }
    fn reserve(&self, bytes: u64) -> Result<HostRange, Errno> {
        self.room(&self.refused.mappings)?;
        self.kernel.reserve(bytes)
    }

    as_it_is! {
        read_messages(out: &mut [Message]) -> usize;
        event_pending() -> bool;
        unregister(by: Descriptor, range: HostRange) -> Result<(), Errno>;
        wake(range: HostRange);
        poison(range: HostRange);
        protect(range: HostRange, protect: bool) -> Result<(), Errno>;
        map_arena(bytes: u64) -> Result<HostRange, Errno>;
        unmap_arena(range: HostRange);
        purge_object(at: HostRange);
        unmap_object(at: HostRange);
        drop_pages(range: HostRange) -> Result<(), Errno>;
        populate(range: HostRange, access: Populate) -> Result<(), Errno>;
        mapping(addr: HostVa) -> Option<Mapping>;
        scan(range: HostRange, out: &mut [Held]) -> (usize, HostVa);
        read(at: HostVa, buf: &mut [u8]) -> Result<(), Fault>;
        write(at: HostVa, bytes: &[u8]) -> Result<(), Fault>;
        atomic(at: HostVa, size: usize, op: AtomicOp) -> Result<u64, Fault>;
        descriptors() -> Vec<i32>;
        wait(timeout_ms: i32) -> Ready;
        kick();
        quiet();
        cpus() -> u32;
        become_reader(number: u32);
        thread_memory() -> Vec<HostRange>;
    }
}
