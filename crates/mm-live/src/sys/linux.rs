//! The real kernel: both userfaultfds, two files of /proc, and an eventfd.

use super::maps::Maps;
use super::pagemap::Pagemap;
use super::uffd::{Inbox, RawMessage, Source, Uffd, feature};
use super::{access, mem, task};
use crate::kernel::{
    Bytes, Descriptor, Errno, Fault, Held, Kernel, Mapping, Message, Populate, Progress, Ready, Watch,
};
use crate::{Privilege, Refused, Transport};
use hostmm::AtomicOp;
use units::{HostRange, HostVa};

/// Linux, for this process.
pub(crate) struct Linux {
    program: Uffd,
    device: Uffd,
    maps: Maps,
    pagemap: Pagemap,
    kick: task::Kick,
    cpus: u64,
    inbox: Inbox,
}

/// What was had.
pub(crate) struct Opened {
    pub kernel: Linux,
    pub privilege: Privilege,
}

impl Linux {
    /// Opens all of it, and installs the fixup of SIGSEGV and SIGBUS.
    pub fn open(wanted: Transport) -> Result<Opened, Refused> {
        let refused = |what: &'static str| move |errno: Errno| Refused { errno: errno.0, what };
        let (features, can_move) = match wanted {
            Transport::Move => (feature::EVENTS | feature::THREAD | feature::MOVE | feature::POISON, feature::MOVE),
            Transport::Copy => (feature::EVENTS | feature::THREAD | feature::WP, 0),
        };
        let (program, source) = Uffd::open(features).map_err(|errno| {
            let cannot_move = wanted == Transport::Move && errno == Errno::INVAL;
            refused(if cannot_move { crate::NO_MOVE } else { "userfaultfd" })(errno)
        })?;
        let (device, _) = Uffd::open(feature::SIGBUS | can_move).map_err(refused("userfaultfd for VRAM"))?;
        access::install();
        let kernel = Self {
            program,
            device,
            maps: Maps::open().map_err(refused("/proc/self/maps"))?,
            pagemap: Pagemap::open().map_err(refused("/proc/self/pagemap"))?,
            kick: task::Kick::new().map_err(refused("eventfd"))?,
            cpus: task::cpus(),
            inbox: Inbox::new(),
        };
        let privilege = if source == Source::UserModeOnly { Privilege::UserModeOnly } else { Privilege::Full };
        Ok(Opened { kernel, privilege })
    }

    /// Whether a look-up of a mapping is quick.
    pub const fn has_quick_look_ups(&self) -> bool {
        self.maps.can_query()
    }

    /// As [`read_messages`](Kernel::read_messages), for a thread that is the only one to call it: a process that shares this memory
    /// sees whether it got something ([`has_read`](Self::has_read)).
    pub fn read_as_the_only_one(&self, out: &mut [Message]) -> usize {
        let got = self.program.read_into(&self.inbox, out.len());
        (0..got).zip(out).for_each(|(index, out)| *out = self.inbox.get(index).parse());
        got
    }

    /// It has got nothing yet.
    pub fn forget_read(&self) {
        self.inbox.empty();
    }

    /// Whether it has got something.
    pub fn has_read(&self) -> bool {
        !self.inbox.is_empty()
    }

    /// Whether an event is among what it has got.
    pub fn has_read_events(&self) -> bool {
        self.inbox.has_events()
    }

    /// Reads one message, where others may read, too.
    pub fn read_one(&self) -> Option<Message> {
        let mut raw = [RawMessage::default()];
        (self.program.read(&mut raw) > 0).then(|| raw[0].parse())
    }

    /// The descriptor that watches the program.
    pub const fn program(&self) -> &Uffd {
        &self.program
    }

    const fn uffd(&self, by: Descriptor) -> &Uffd {
        match by {
            Descriptor::Program => &self.program,
            Descriptor::Device => &self.device,
        }
    }
}

/// Looks for the pause between two changes, of a microsecond or less, where a thread makes one after the other: a refusal costs 0.2 us,
/// and the next message a switch of threads.
fn in_a_pause(call: impl Fn() -> Progress) -> Progress {
    const LOOKS: u32 = 32;
    let mut progress = call();
    for _ in 1..LOOKS {
        if progress.bytes != 0 || progress.error != Some(Errno::AGAIN) {
            break;
        }
        progress = call();
    }
    progress
}

impl Kernel for Linux {
    fn read_messages(&self, out: &mut [Message]) -> usize {
        let mut raw = [RawMessage::default(); 16];
        let room = out.len().min(raw.len());
        let got = self.program.read(&mut raw[..room]);
        out.iter_mut().zip(&raw[..got]).for_each(|(out, raw)| *out = raw.parse());
        got
    }
    fn event_pending(&self) -> bool {
        self.program.event_pending()
    }
    fn register(&self, by: Descriptor, range: HostRange, watch: Watch) -> Result<(), Errno> {
        self.uffd(by).register(range, watch)
    }
    fn unregister(&self, by: Descriptor, range: HostRange) -> Result<(), Errno> {
        self.uffd(by).unregister(range)
    }
    fn wake(&self, range: HostRange) {
        self.program.wake(range);
    }
    fn move_pages(&self, by: Descriptor, dst: HostVa, src: HostVa, len: u64) -> Progress {
        in_a_pause(|| self.uffd(by).move_pages(dst.0, src.0, len))
    }
    fn copy(&self, by: Descriptor, dst: HostVa, src: HostVa, len: u64) -> Progress {
        self.uffd(by).copy(dst.0, src.0, len)
    }
    fn fill(&self, by: Descriptor, dst: HostVa, bytes: &[u8]) -> Progress {
        self.uffd(by).copy(dst.0, bytes.as_ptr() as u64, bytes.len() as u64)
    }
    fn zero(&self, by: Descriptor, range: HostRange) -> Progress {
        in_a_pause(|| self.uffd(by).zero(range))
    }
    fn poison(&self, range: HostRange) {
        self.program.poison(range);
    }
    fn protect(&self, range: HostRange, protect: bool) -> Result<(), Errno> {
        self.program.protect(range, protect)
    }

    fn map_arena(&self, bytes: u64) -> Result<HostRange, Errno> {
        mem::map_arena(bytes)
    }
    fn unmap_arena(&self, range: HostRange) {
        mem::unmap(range);
    }
    fn reserve(&self, bytes: u64) -> Result<HostRange, Errno> {
        mem::reserve(bytes)
    }
    fn map_object(&self, at: HostRange, of: Bytes) -> Result<(), Errno> {
        match of {
            Bytes::File(file) => mem::map_shared(at, file as usize),
            Bytes::New(label) => mem::map_object(at, label),
        }
    }
    fn purge_object(&self, at: HostRange) {
        mem::purge_object(at);
    }
    fn unmap_object(&self, at: HostRange) {
        mem::unmap_object(at);
    }
    fn drop_pages(&self, range: HostRange) -> Result<(), Errno> {
        mem::advise(range, mem::Advice::DontNeed)
    }
    fn populate(&self, range: HostRange, access: Populate) -> Result<(), Errno> {
        let advice = match access {
            Populate::Read => mem::Advice::PopulateRead,
            Populate::Write => mem::Advice::PopulateWrite,
        };
        mem::advise(range, advice)
    }

    fn mapping(&self, addr: HostVa) -> Option<Mapping> {
        self.maps.next(addr)
    }
    fn scan(&self, range: HostRange, out: &mut [Held]) -> (usize, HostVa) {
        self.pagemap.held(range, out)
    }

    fn read(&self, at: HostVa, buf: &mut [u8]) -> Result<(), Fault> {
        access::read(at.0, buf)
    }
    fn write(&self, at: HostVa, bytes: &[u8]) -> Result<(), Fault> {
        access::write(at.0, bytes)
    }
    fn stream(&self, at: HostVa, page: &[u8]) -> Result<(), Fault> {
        access::stream(at.0, page)
    }
    fn stream_page(&self, dst: HostVa, src: HostVa) -> Result<(), Fault> {
        access::stream_page(dst.0, src.0)
    }
    fn drain(&self) {
        access::drain();
    }
    fn atomic(&self, at: HostVa, size: usize, op: AtomicOp) -> Result<u64, Fault> {
        access::atomic(at.0, size, op)
    }

    fn descriptors(&self) -> Vec<i32> {
        vec![self.program.raw(), self.device.raw(), self.kick.raw(), self.maps.raw(), self.pagemap.raw()]
    }
    fn wait(&self, timeout_ms: i32) -> Ready {
        task::poll(self.program.raw(), &self.kick, timeout_ms)
    }
    fn kick(&self) {
        self.kick.ring();
    }
    fn quiet(&self) {
        self.kick.quiet();
    }
    fn cpus(&self) -> u32 {
        self.cpus.count_ones().min(8)
    }
    fn become_reader(&self, number: u32) {
        task::block_signals();
        let allowed = (0..64).filter(|cpu| self.cpus >> cpu & 1 != 0);
        if let Some(cpu) = allowed.cycle().nth(number as usize) {
            task::pin(cpu);
        }
    }
    fn thread_memory(&self) -> Vec<HostRange> {
        let here = task::stack_address();
        let mapping = self.maps.at(here);
        mapping.map_or_else(Vec::new, |mapping| task::own_ranges(mapping.range).to_vec())
    }
}
