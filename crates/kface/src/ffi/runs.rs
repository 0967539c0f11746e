//! Copies of this process, made where the scene is set up and nothing has been scheduled yet, and what they count together. A run
//! may end its copy anywhere, whatever it has done to the kernel's state.

use super::text;
use crate::runs;
use std::ffi::{c_char, c_int, c_ulong};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};

/// Seconds of work of a run that comes to no scheduling point any more: what a busy machine takes away does not count.
const PATIENCE: libc::time_t = 20;
/// How often, and how long each time, a process waits for the system to make another.
const PAUSES: u32 = 100;
const PAUSE_US: u32 = 100_000;
const PLACES: usize = 32;
const NAME: usize = 64;

/// What all runs count together, in memory that they share.
#[repr(C)]
pub(crate) struct Counts {
    pub(crate) points: AtomicU64,
    /// The seed of the run that is under way, or was the last: a copy that cannot go back ends between two.
    pub(crate) seed: AtomicU64,
    /// The seed of the run that begins next.
    pub(crate) next: AtomicU64,
    names: [[AtomicU8; NAME]; PLACES],
    runs: [AtomicU64; PLACES],
}

static COUNTS: OnceLock<&'static Counts> = OnceLock::new();

/// The memory, made by the first call.
pub(crate) fn counts() -> &'static Counts {
    COUNTS.get_or_init(|| {
        use rustix::mm::{MapFlags, ProtFlags, mmap_anonymous};
        let (bytes, read_write) = (size_of::<Counts>(), ProtFlags::READ | ProtFlags::WRITE);
        // SAFETY: a new mapping at a place of the system's choice.
        let mapped = unsafe { mmap_anonymous(std::ptr::null_mut(), bytes, read_write, MapFlags::SHARED) };
        let Ok(memory) = mapped else { super::give_up("no memory to count in") };
        // SAFETY: page-aligned, large enough, never unmapped; all zero is a valid value of atomics.
        unsafe { &*memory.cast::<Counts>() }
    })
}

impl Counts {
    fn name(&self, at: usize) -> String {
        let bytes: Vec<u8> = self.names[at].iter().map(|byte| byte.load(Ordering::Relaxed)).collect();
        String::from_utf8_lossy(&bytes).trim_end_matches('\0').to_owned()
    }

    /// Counts a run that came to `place`. One run is at work at a time.
    pub(crate) fn reached(&self, place: &str) {
        let place = || place.bytes().take(NAME - 1);
        for (name, runs) in self.names.iter().zip(&self.runs) {
            if name[0].load(Ordering::Relaxed) == 0 {
                place().zip(name).for_each(|(byte, to)| to.store(byte, Ordering::Relaxed));
            }
            let known = name.iter().map(|byte| byte.load(Ordering::Relaxed)).take_while(|byte| *byte != 0);
            if known.eq(place()) {
                runs.fetch_add(1, Ordering::Relaxed);
                return;
            }
        }
    }

    /// Places, and runs that came there.
    pub(crate) fn places(&self) -> impl Iterator<Item = (String, u64)> {
        let all = (0..PLACES).map(|at| (self.name(at), self.runs[at].load(Ordering::Relaxed)));
        all.take_while(|(name, _)| !name.is_empty())
    }
}

/// How a copy of this process ended.
pub(crate) enum Ended {
    /// With a status of its own.
    With(c_int),
    /// By a signal.
    By(c_int),
}

/// From here on this process is killed where the thread that made it ends: whoever plays seeds waits for them in that thread, and where it is
/// killed itself nobody else would end them.
pub(crate) fn end_with_parent() {
    // SAFETY: it takes a number, and touches no memory.
    unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
}

/// Makes a copy of this process: `None` in the copy; here, how it ended. A system that is short of something is asked again.
pub(crate) fn copy() -> Option<Ended> {
    // SAFETY: this process has one thread, so the copy is whole.
    let fork = || unsafe { libc::fork() };
    let again = |_| {
        // SAFETY: it touches no memory.
        unsafe { libc::usleep(PAUSE_US) };
        fork()
    };
    let mut forks = std::iter::once(fork()).chain((0..PAUSES).map(again));
    match forks.find(|made| *made >= 0).unwrap_or(-1) {
        0 => {
            end_with_parent();
            None
        }
        -1 => super::give_up(&format!("the system makes no process: {}", std::io::Error::last_os_error())),
        child => {
            let mut status = 0;
            // SAFETY: `status` is ours; the child is this process' own.
            while unsafe { libc::waitpid(child, &mut status, 0) } != child {}
            let by_itself = libc::WIFEXITED(status);
            Some(if by_itself { Ended::With(libc::WEXITSTATUS(status)) } else { Ended::By(libc::WTERMSIG(status)) })
        }
    }
}

/// A run that comes to no point for long is ended.
pub(crate) fn be_patient() {
    let none = libc::timeval { tv_sec: 0, tv_usec: 0 };
    let patience = libc::itimerval { it_interval: none, it_value: libc::timeval { tv_sec: PATIENCE, tv_usec: 0 } };
    // SAFETY: the call reads `patience`, and writes nothing where no old value is wanted.
    unsafe { libc::setitimer(libc::ITIMER_VIRTUAL, &patience, std::ptr::null_mut()) };
}

/// Ends this process as it is, in the middle of its tasks.
pub(crate) fn end(status: c_int) -> ! {
    // SAFETY: it does not return, and runs nothing of this process.
    unsafe { libc::_exit(status) }
}

#[unsafe(no_mangle)]
extern "C" fn kface_runs_begin() {
    runs::begin();
}

#[unsafe(no_mangle)]
extern "C" fn kface_pass_by() -> c_ulong {
    runs::pass_by()
}

#[unsafe(no_mangle)]
extern "C" fn kface_every_access() -> c_int {
    runs::every_access().into()
}

#[unsafe(no_mangle)]
extern "C" fn kface_reached(place: *const c_char) {
    // SAFETY: C passes strings that stay for the call.
    runs::reached(&unsafe { text(place) });
}
