//! Floors: what the kernel and the machine take for the parts that no fault service can be without.
//!
//! A time alone says little on a shared machine; a ratio to a floor of the same run says more. Each floor has its
//! own memory and its own userfaultfd, is warm when it is made, and gives one sample a call, so that a bench takes
//! the samples in turn with what it measures. All times are nanoseconds.
//!
//! | floor | what |
//! |---|---|
//! | [`BareCopy`] | memcpy of a window of 32M that the caches do not hold |
//! | [`BareMove`] | one UFFDIO_MOVE |
//! | [`RoundTrip`] | a touch of a missing page, a handler thread that moves it there, and the touch's end |

use crate::Refused;
use crate::kernel::{Message, Watch};
use crate::region::{PageSize, Region};
use crate::sys::uffd::{RawMessage, Uffd, feature};
use crate::sys::{Errno, access, task};
use std::sync::Arc;
use sync::JoinHandle;
use sync::atomic::AtomicU32;
use sync::time::now_ns;
use units::{HostRange, HostVa, SZ_2M, SZ_4K};

/// What copies walk over.
const WINDOW: u64 = 16 * SZ_2M;

fn refused(what: &'static str) -> impl Fn(Errno) -> Refused {
    move |errno| Refused { errno: errno.0, what }
}

/// A userfaultfd that may move, and watches `ranges`.
fn watch(ranges: &[HostRange]) -> Result<Uffd, Refused> {
    let (uffd, _) = Uffd::open(feature::MOVE).map_err(refused("userfaultfd"))?;
    ranges.iter().try_for_each(|range| uffd.register(*range, Watch::Missing)).map_err(refused("registration"))?;
    Ok(uffd)
}

fn move_all(uffd: &Uffd, to: HostVa, from: HostVa, bytes: u64) -> Result<(), Refused> {
    let progress = uffd.move_pages(to.0, from.0, bytes);
    match progress.error {
        Some(errno) => Err(refused("UFFDIO_MOVE")(errno)),
        None => Ok(()),
    }
}

/// Keeps the calling thread, and every thread that it starts from now on, on the CPU where it runs: what hand-offs
/// between CPUs cost (tens of microseconds where interrupts between them are virtual) is then in no figure. For the
/// start of a process.
pub fn stay_on_this_cpu() {
    task::pin(task::current_cpu());
}

/// memcpy.
pub struct BareCopy {
    from: Region,
    to: Region,
    bytes: u64,
    at: u64,
}

impl BareCopy {
    /// Of `bytes` at a time, between memory in pages of that size.
    pub fn new(bytes: u64, pages: PageSize) -> Result<Self, Refused> {
        Ok(Self { from: Region::new(WINDOW, pages)?, to: Region::new(WINDOW, pages)?, bytes, at: 0 })
    }

    /// Copies the next piece.
    pub fn sample(&mut self) -> Result<u64, Refused> {
        let (from, to) = (self.from.range().start.add(self.at), self.to.range().start.add(self.at));
        self.at = (self.at + self.bytes) % WINDOW;
        let start = now_ns();
        access::copy(to.0, from.0, self.bytes as usize).map_err(|_| Refused { errno: 14, what: "copy" })?;
        Ok(now_ns() - start)
    }
}

/// UFFDIO_MOVE of one extent, to a place whose page tables are as a tile's arena has them.
pub struct BareMove {
    uffd: Uffd,
    from: Region,
    to: Region,
}

impl BareMove {
    /// Of `bytes` in pages of that size.
    pub fn new(bytes: u64, pages: PageSize) -> Result<Self, Refused> {
        let (from, to) = (Region::new(bytes, pages)?, Region::new(bytes, pages)?);
        // What was populated must leave the destination, page table included.
        crate::sys::mem::advise(to.range(), crate::sys::mem::Advice::DontNeed).map_err(refused("madvise"))?;
        let uffd = watch(&[from.range(), to.range()])?;
        Ok(Self { uffd, from, to })
    }

    /// Moves the extent, and back again untimed.
    pub fn sample(&mut self) -> Result<u64, Refused> {
        let (from, to) = (self.from.range(), self.to.range());
        let start = now_ns();
        move_all(&self.uffd, to.start, from.start, from.len())?;
        let ns = now_ns() - start;
        move_all(&self.uffd, from.start, to.start, from.len())?;
        Ok(ns)
    }
}

/// A userfaultfd's round trip: one page of 4K.
pub struct RoundTrip {
    shared: Arc<Shared>,
    handler: Option<JoinHandle>,
}

struct Shared {
    uffd: Uffd,
    kick: task::Kick,
    stop: AtomicU32,
    /// Where the page waits.
    store: Region,
    /// Where it is touched.
    hole: Region,
}

impl RoundTrip {
    /// Starts the handler.
    pub fn new() -> Result<Self, Refused> {
        let (store, hole) = (Region::new(SZ_4K, PageSize::Small)?, Region::new(SZ_4K, PageSize::Small)?);
        crate::sys::mem::advise(hole.range(), crate::sys::mem::Advice::DontNeed).map_err(refused("madvise"))?;
        let uffd = watch(&[store.range(), hole.range()])?;
        let kick = task::Kick::new().map_err(refused("eventfd"))?;
        let shared = Arc::new(Shared { uffd, kick, stop: AtomicU32::new(0), store, hole });
        let handler = sync::spawn("floor-handler", {
            let shared = shared.clone();
            move || shared.handle()
        });
        Ok(Self { shared, handler: Some(handler) })
    }

    /// Touches the missing page, and moves it away again untimed.
    pub fn sample(&mut self) -> Result<u64, Refused> {
        let (hole, store) = (self.shared.hole.range().start, self.shared.store.range().start);
        let mut word = [0u8; 8];
        let start = now_ns();
        access::read(hole.0, &mut word).map_err(|_| Refused { errno: 14, what: "touch" })?;
        let ns = now_ns() - start;
        move_all(&self.shared.uffd, store, hole, SZ_4K)?;
        Ok(ns)
    }
}

impl Drop for RoundTrip {
    fn drop(&mut self) {
        self.shared.stop.store(1);
        self.shared.kick.ring();
        if let Some(handler) = self.handler.take() {
            handler.join();
        }
    }
}

impl Shared {
    fn handle(&self) {
        let mut messages = [RawMessage::default(); 1];
        while self.stop.load() == 0 {
            task::poll(self.uffd.raw(), &self.kick, -1);
            let got = self.uffd.read(&mut messages);
            for message in &messages[..got] {
                if let Message::Fault { addr, .. } = message.parse() {
                    let page = HostRange::sized(addr, SZ_4K);
                    if self.uffd.move_pages(addr.0, self.store.range().start.0, SZ_4K).error.is_some() {
                        // The toucher must go on; moving the page away fails then, and says so.
                        self.uffd.zero(page);
                    }
                    self.uffd.wake(page);
                }
            }
        }
    }
}
