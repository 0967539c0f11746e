//! The end of a process that does not pass through libc: a system call by an instruction of its own, a signal that kills, a filter of
//! its own system calls (seccomp) that forbids ours.
//!
//! A process of ours shares the memory (`heap::outside`). When the program has ended it writes the report, and removes the files.
//! While the program lives it looks now and then whether a debugger has stopped the threads that bring memory back, and does what keeps others
//! from being stopped, too.
//!
//! A program that filters its calls asks for the report before it ends, by a word, and waits for a word, by looking at it: even a
//! wait is a system call. Its threads live on meanwhile, and none of them holds a lock for ever.
//!
//! A thread that was ended may have held a lock, and what the lock guards is half changed then: who would wait for it leaves at once,
//! without a report, which `pontoon run` says. A thread that a debugger has stopped may hold one, too, and will go on: so nothing ends this
//! process while the program lives, as it may itself hold what the program needs.
//!
//! Locking: none.

use crate::libc_calls::outside::{close_all_but_ours, confine, die_by_faults, end_with, is_instrumented, leave};
use crate::{heap, libc_calls, marks, session, view};
use core::hint;
use core::sync::atomic::{AtomicU32, Ordering};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fd::OwnedFd;
use rustix::fs::{Mode, OFlags};
use rustix::process::{Pid, PidfdFlags};

/// The process that is watched, by whom; 0: nobody is.
static WATCHED: AtomicU32 = AtomicU32::new(0);
static WATCHER: AtomicU32 = AtomicU32::new(0);

/// Whether the program asks for the report.
static ASKED: AtomicU32 = AtomicU32::new(NOBODY_ANSWERS);
const NOBODY_ANSWERS: u32 = 0;
const NOT_ASKED: u32 = 1;
const ASKS: u32 = 2;
const ANSWERED: u32 = 3;
/// Looks at the answer, and no more: whoever answers may have been killed.
const LOOKS: u32 = 1 << 30;

/// How often it looks, and where the program may ask.
const LOOK_NS: i64 = 100_000_000;
const LOOK_FILTERED_NS: i64 = 1_000_000;
/// What it has for its work when the program has ended.
const PATIENCE_S: u32 = 5;
/// Threads that are being ended, because the process becomes another program, may run so long.
const LAST_BREATH_NS: u64 = 5_000_000;

/// The program's process, also where the one outside asks.
pub fn process() -> u32 {
    let own = std::process::id();
    if own == WATCHER.load(Ordering::Acquire) { WATCHED.load(Ordering::Acquire) } else { own }
}

/// Whether somebody will see to the end of this process.
fn is_there() -> bool {
    WATCHER.load(Ordering::Acquire) != 0
}

/// Begins it, unless it is there, or the system gives none. Returns when it watches.
pub fn begin() {
    let own = std::process::id();
    if is_instrumented() {
        return;
    }
    if WATCHED.compare_exchange(0, own, Ordering::AcqRel, Ordering::Acquire).is_err() {
        return;
    }
    if !heap::begin_outside(watch) {
        return WATCHED.store(0, Ordering::Release);
    }
    // Without it the mark of a run may be missing when this process ends. A process that cannot begin leaves it at that.
    if heap::is_lent() {
        heap::wait_briefly(is_there);
    }
}

/// Has the report written, and waits for that, without a system call. A vfork child asks in the name of its parent, which asks again.
pub fn ask() {
    if ASKED.load(Ordering::Acquire) != NOBODY_ANSWERS {
        ASKED.store(ASKS, Ordering::Release);
        for _ in 0..LOOKS {
            if ASKED.load(Ordering::Acquire) != ASKS {
                return;
            }
            hint::spin_loop();
        }
    }
}

/// A fork child has nobody.
pub fn forget() {
    ASKED.store(NOBODY_ANSWERS, Ordering::Release);
    WATCHED.store(0, Ordering::Release);
    WATCHER.store(0, Ordering::Release);
}

/// What is open of the process that is watched.
struct Process {
    /// Says that it has ended.
    end: OwnedFd,
    /// Of the thread whose control block is used: cannot be read once it is gone, also where the process has become another program (`execve`).
    thread: OwnedFd,
}

impl Process {
    fn open(process: u32, thread: u32) -> Option<Self> {
        let end = rustix::process::pidfd_open(Pid::from_raw(process as i32)?, PidfdFlags::empty()).ok()?;
        let path = format!("/proc/{process}/task/{thread}/stat");
        let thread = rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).ok()?;
        Some(Self { end, thread })
    }

    /// Waits for its end, at most so long. Whether it lives, and is the program that it was.
    fn lives(&self, tv_nsec: i64) -> bool {
        !self.ends_within(tv_nsec) && rustix::io::pread(&self.thread, &mut [0; 8], 0).is_ok()
    }

    /// Whether a debugger has stopped it, or a signal: by one of its threads, which sleeps else.
    fn is_stopped(&self) -> bool {
        let mut text = [0; 128];
        let length = rustix::io::pread(&self.thread, &mut text, 0).unwrap_or(0);
        // The state follows the name, which ends with the last parenthesis and may have others in it.
        let name_end = text[..length].iter().rposition(|byte| *byte == b')');
        matches!(name_end.and_then(|end| text.get(end + 2)), Some(b'T' | b't'))
    }

    /// Whether none of its threads runs any more.
    fn has_ended(&self) -> bool {
        self.ends_within(0)
    }

    fn ends_within(&self, tv_nsec: i64) -> bool {
        let timeout = Timespec { tv_sec: 0, tv_nsec };
        let mut polled = [PollFd::new(&self.end, PollFlags::IN)];
        poll(&mut polled, Some(&timeout)).is_ok_and(|ready| ready > 0)
    }
}

fn watch(thread: u32) {
    die_by_faults();
    let watched = WATCHED.load(Ordering::Acquire);
    let _ = rustix::thread::set_name(c"pontoon-outside");
    // What is sent to the program's group is not for this process.
    let _ = rustix::process::setpgid(None, None);
    close_all_but_ours();
    let device = session::running();
    device.iter().filter_map(|device| device.fd_of_locks()).for_each(libc_calls::close_quietly);
    let mark = marks::hold(&format!("outside-{watched}"));
    let Some(process) = Process::open(watched, thread) else { return };
    // A folder of this process' own takes calls that open and remove. Whoever has no rights to give up may make them.
    let removes = view::is_to_be_removed() && !rustix::process::geteuid().is_root();
    let is_safe = removes || confine();
    if is_safe {
        ASKED.store(NOT_ASKED, Ordering::Release);
    }
    WATCHER.store(std::process::id(), Ordering::Release);
    if !is_safe {
        return;
    }
    let (mut seen, mut waited_ns) = (0, 0);
    loop {
        let pause_ns = if session::is_filtered() { LOOK_FILTERED_NS } else { LOOK_NS };
        if !process.lives(pause_ns) {
            break;
        }
        end_with(&process.thread, PATIENCE_S);
        waited_ns += pause_ns;
        if waited_ns >= LOOK_NS {
            waited_ns = 0;
            seen = device.as_ref().map_or(0, |device| device.relieve(seen, process.is_stopped()));
        }
        if ASKED.load(Ordering::Acquire) == ASKS {
            session::report_from_outside();
            ASKED.store(ANSWERED, Ordering::Release);
        }
        end_with(&process.thread, 0);
    }
    end_with(&process.thread, PATIENCE_S);
    if !process.has_ended() {
        sync::time::sleep_ns(LAST_BREATH_NS);
    }
    sync::alone(leave);
    session::outlived(ASKED.load(Ordering::Acquire) == ANSWERED);
    drop(mark);
}
