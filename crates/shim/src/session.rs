//! This process's machine: started at the first open of a node, quieted for a fork, shut down at the end.
//!
//! Locking: `START` is held while a machine starts and across a fork; `RUNNING` and `EXCLUDED` are leaves. No lock is
//! held while a running machine is called, but `START` by those who fork.
//!
//! In a fork child the machine is dead: its threads do not exist, and its locks are in whatever state they were. It is
//! never touched again, not even to free it; the child gets a machine of its own if it opens a node itself, or uses one that
//! its parent had open.

use crate::config::{self, Config};
use crate::device::{self, Change, Device, Errno, File};
use crate::minor::Minor;
use crate::nodes::{self, Entry, Files};
use crate::report::Report;
use crate::{fdinfo, heap, libc_calls, marks, outside, view};
use core::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::mem;
use std::sync::Arc;
use sync::{Mutex, MutexGuard};
use units::{HostRange, HostVa};

/// What is known about starting.
struct Start {
    /// Handlers that belong to the process image are installed.
    prepared: bool,
    /// The reason was printed.
    complained: bool,
    report: Option<Report>,
}

static START: Mutex<Start> = Mutex::new(Start { prepared: false, complained: false, report: None });
static RUNNING: Mutex<Option<Arc<dyn Device>>> = Mutex::new(None);
static EXCLUDED: Mutex<Vec<HostRange>> = Mutex::new(Vec::new());
/// Whether `RUNNING` holds a machine: what calls that are not ours ask first.
static ACTIVE: AtomicBool = AtomicBool::new(false);
/// Where the program's half of the address space ends.
const USER_END: u64 = 1 << 47;
/// Grows by one with every start and every fork: tells files of a dead machine.
static EPOCH: AtomicU32 = AtomicU32::new(0);
/// The process in which the machine runs.
static PROCESS: AtomicU32 = AtomicU32::new(0);
static FINISHED: AtomicBool = AtomicBool::new(false);
/// Nothing is left to be done for this process.
static ENDED: AtomicBool = AtomicBool::new(false);
/// The program filters system calls of its own.
static FILTERED: AtomicBool = AtomicBool::new(false);

/// Opens a node: a new file of the machine, which is started if it does not run, and its epoch.
pub fn open(minor: Minor) -> Result<(Arc<dyn File>, u32), Errno> {
    let device = start()?;
    let file = device.open(minor)?;
    Ok((file, EPOCH.load(Ordering::Acquire)))
}

/// The file of a node's descriptor, and its epoch. One that was opened before a fork is opened anew in the child: a file
/// of the child's own machine, without the handles of its parent's. `ENODEV`: the machine has been shut down.
pub fn file(fd: i32) -> Result<(Arc<dyn File>, u32), Errno> {
    let (file, epoch) = nodes::file(fd).ok_or(Errno(libc::EBADF))?;
    if is_alive(epoch) {
        return Ok((file, epoch));
    }
    nodes::leak(file);
    let Entry::Node(minor) = nodes::entry(fd) else { return Err(Errno(libc::EBADF)) };
    let (fresh, now) = open(minor)?;
    nodes::replace(fd, epoch, fresh, now);
    nodes::file(fd).filter(|(_, epoch)| is_alive(*epoch)).ok_or(Errno(libc::ENODEV))
}

/// The running machine.
pub fn running() -> Option<Arc<dyn Device>> {
    if ACTIVE.load(Ordering::Acquire) { RUNNING.lock().clone() } else { None }
}

/// A scheduling property was written: queues are made as the files say.
pub fn schedule_changed() {
    if let Some(device) = running() {
        tell_schedules(&*device);
    }
}

fn tell_schedules(device: &dyn Device) {
    view::schedules(|gt, class, schedule| device.set_schedule(gt, class, schedule));
}

/// The epoch of what is opened now.
pub fn epoch() -> u32 {
    EPOCH.load(Ordering::Acquire)
}

/// Whether a file of that epoch belongs to the machine that runs here.
pub fn is_alive(epoch: u32) -> bool {
    ACTIVE.load(Ordering::Acquire) && EPOCH.load(Ordering::Acquire) == epoch && in_own_process()
}

/// Makes a change of the program's mappings, by a function of libc: with that memory migrated back where a machine runs.
pub fn around_change<R>(start: usize, length: usize, change: Change, mut make: impl FnMut() -> R) -> R {
    let is_refused = !start.is_multiple_of(units::SZ_4K as usize) || length == 0;
    if change == Change::Unmap && is_refused {
        return make();
    }
    libc_calls::pci_barrier::forget(start, length, change);
    if !ACTIVE.load(Ordering::Acquire) || !in_own_process() {
        return make();
    }
    let mut made = None;
    libc_calls::inside(|_| {
        if let Some(device) = running() {
            if change != Change::Lock {
                device.finish_jobs(pages(start, length));
            }
            device.around_change(pages(start, length), change, &mut || made = Some((make(), libc_calls::errno())));
        }
    });
    let Some((result, errno)) = made else { return make() };
    libc_calls::set_errno(errno);
    result
}

fn pages(start: usize, length: usize) -> HostRange {
    let start = (start as u64).min(USER_END);
    let end = start.saturating_add(length as u64).min(USER_END);
    HostRange::new(HostVa(start).page(), HostVa(end).align_up(units::SZ_4K))
}

/// `main` ends, and the process lives on.
pub fn main_leaves() {
    libc_calls::inside(|_| {
        if is_active() && sync::try_spawn("pontoon-last", libc_calls::end_with_the_last_thread).is_err() {
            libc_calls::end_in_main();
        }
    });
}

/// Whether a machine runs in this process.
pub fn is_active() -> bool {
    ACTIVE.load(Ordering::Acquire) && in_own_process()
}

/// Memory that must never be migrated: now, or as soon as a machine runs.
pub fn never_migrate(range: HostRange) {
    EXCLUDED.lock().push(range);
    if let Some(device) = running() {
        device.exclude(range);
    }
}

/// Starts the machine at load, where the environment asks for it.
pub fn loaded() {
    libc_calls::inside(|_| {
        view::begin();
        marks::loaded();
        if config::copies() {
            libc_calls::keep_freed_memory();
        }
        if config::hostile() {
            let _ = start();
        }
    });
}

/// The program begins to end. Destructors of its libraries are still to come and may use the device, so the machine
/// goes on; what happened so far is written down, for they may end the process, too.
pub fn begin_to_finish() {
    if !is_filtered() && is_active() {
        libc_calls::inside(|_| {
            if let Some(device) = running() {
                write_report(device.as_ref(), false);
            }
        });
    }
}

/// The process ends: memory migrates back, the report is written, the tree is removed. Where there is neither, no system
/// call is made, and none where the program filters its own calls: it may have forbidden them to itself, and who is outside sees to it.
pub fn finish() {
    if is_filtered() {
        outside::ask();
    } else if is_active() || view::is_to_be_removed() {
        libc_calls::inside(|_| finish_here());
    }
}

fn finish_here() {
    if is_active()
        && !FINISHED.swap(true, Ordering::AcqRel)
        && let Some(device) = running()
    {
        device.shutdown();
        ACTIVE.store(false, Ordering::Release);
        fdinfo::end();
        write_report(device.as_ref(), true);
    }
    view::leave();
    ENDED.store(true, Ordering::Release);
}

/// The process has ended, and this is called from outside: what it has not done itself. Where the report was asked for, it is written.
pub fn outlived(is_reported: bool) {
    if !ENDED.load(Ordering::Acquire) {
        if !is_reported {
            report_from_outside();
        }
        if in_own_process() {
            fdinfo::end();
        }
        view::remove();
    }
}

/// Writes what happened so far.
pub fn report_from_outside() {
    if in_own_process()
        && let Some(device) = RUNNING.lock().clone()
    {
        write_report(device.as_ref(), true);
    }
}

/// Whether the program filters system calls of its own.
pub fn is_filtered() -> bool {
    FILTERED.load(Ordering::Acquire)
}

/// The program is about to filter the system calls of the calling thread.
pub fn filtered() {
    FILTERED.store(true, Ordering::Release);
    if is_active() || view::is_to_be_removed() {
        libc_calls::inside(|_| outside::begin());
    }
}

fn write_report(device: &dyn Device, is_last: bool) {
    let text = device.report();
    if let Some(report) = &mut START.lock().report {
        report.write(&text, is_last);
    }
}

fn start() -> Result<Arc<dyn Device>, Errno> {
    let mut state = START.lock();
    if let Some(device) = running() {
        return Ok(device);
    }
    if FINISHED.load(Ordering::Acquire) {
        return Err(Errno(libc::ENODEV));
    }
    let device = begin(&mut state).map_err(|refusal| {
        if !mem::replace(&mut state.complained, true) && marks::is_first("refused") {
            libc_calls::complain(&refusal.message);
        }
        refusal.errno
    })?;
    marks::is_first(marks::STARTED);
    EPOCH.fetch_add(1, Ordering::AcqRel);
    *RUNNING.lock() = Some(device.clone());
    PROCESS.store(std::process::id(), Ordering::Relaxed);
    ACTIVE.store(true, Ordering::Release);
    for fd in device.own_fds() {
        nodes::mark_machine(fd);
    }
    heap::window().into_iter().chain(libc_calls::maps::library()).for_each(|range| device.own(range));
    // A fork child has its parent's report open: it may be all that it has the right to.
    if state.report.is_none() {
        state.report = Report::open();
    }
    let mut known = EXCLUDED.lock().clone();
    known.extend(libc_calls::threads::known());
    for range in known {
        device.exclude(range);
    }
    // A tracer would follow it, and take it for a thread of the program.
    if !is_traced() {
        outside::begin();
    }
    tell_schedules(&*device);
    device.begin();
    fdinfo::begin();
    Ok(device)
}

fn begin(state: &mut Start) -> Result<Arc<dyn Device>, device::Refusal> {
    let refuse = |message| device::Refusal { errno: Errno(libc::ENODEV), message };
    if config::is_under_valgrind() {
        let text = "no device under valgrind: it runs one thread at a time, and a page in VRAM would stop them all";
        return Err(refuse(text.into()));
    }
    let config = Config::from_env().map_err(refuse)?;
    if !state.prepared {
        libc_calls::prepare_process();
        sync::set_spawner(heap::spawn_thread);
        state.prepared = true;
    }
    if is_traced() {
        let text = "limited: a tracer (strace, gdb) may stop the threads that answer its own reads: no page migrates";
        marks::say_limit("tracer", text);
        EXCLUDED.lock().push(HostRange::new(HostVa(0), HostVa(1 << 47)));
    }
    say_few_descriptors();
    let mut own = libc_calls::maps::own_memory();
    own.extend(heap::window());
    EXCLUDED.lock().extend(own);
    device::start(&config)
}

/// Where so few descriptors are to be had, the library's lie where a shell opens its own files.
fn say_few_descriptors() {
    const ENOUGH: u64 = 20;
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).maximum;
    if let Some(limit) = limit.filter(|limit| *limit < ENOUGH) {
        let text = format!(
            "limited: of {limit} descriptors (ulimit -n) the library takes low ones, which are closed to the program"
        );
        marks::say_limit("descriptors", &text);
    }
}

/// Whether another process traces this one.
fn is_traced() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let tracer = status.lines().find_map(|line| line.strip_prefix("TracerPid:"));
    tracer.is_some_and(|tracer| tracer.trim() != "0")
}

fn in_own_process() -> bool {
    PROCESS.load(Ordering::Relaxed) == outside::process()
}

/// Every lock of this library, and the machine quiet, while the process forks.
struct Forking {
    device: Option<Arc<dyn Device>>,
    /// Nothing of the program is away: the child has all of its memory.
    is_whole: bool,
    start: MutexGuard<'static, Start>,
    tree: MutexGuard<'static, view::Slot>,
    files: MutexGuard<'static, Files>,
    excluded: MutexGuard<'static, Vec<HostRange>>,
    running: MutexGuard<'static, Option<Arc<dyn Device>>>,
    signals: libc_calls::signals::Held,
}

static FORKING: Mutex<Option<(Forking, heap::Held)>> = Mutex::new(None);

/// Before a fork, after the program's own handlers: memory is brought back, and nobody is in the middle of anything.
/// Where no machine runs, and none can start while `START` is held, nothing of the program is away: so nothing is
/// allocated.
pub fn fork_prepare() {
    let signals = libc_calls::signals::hold();
    let start = START.lock();
    match running().filter(|_| in_own_process()) {
        Some(device) => heap::on_own_stack(|| {
            let is_whole = device.fork_prepare();
            hold_all(Some(device), is_whole, start, signals);
        }),
        None => hold_all(None, true, start, signals),
    }
}

fn hold_all(
    device: Option<Arc<dyn Device>>,
    is_whole: bool,
    start: MutexGuard<'static, Start>,
    signals: libc_calls::signals::Held,
) {
    let (tree, files) = (view::hold(), nodes::hold());
    let (excluded, running) = (EXCLUDED.lock(), RUNNING.lock());
    let forking = Forking { device, is_whole, start, tree, files, excluded, running, signals };
    let mut slot = FORKING.lock();
    *slot = Some((forking, heap::hold()));
}

/// After a fork, in the parent: whether there is a child to go on. Memory stays where it is until the machine goes on, so the heap's locks, which a stack
/// of ours may need, are released on the program's stack.
pub fn fork_parent() -> bool {
    let Some((forking, held)) = FORKING.lock().take() else { return true };
    drop(held);
    let Forking { device, is_whole, start, tree, files, excluded, running, signals } = forking;
    drop((running, excluded, files, tree));
    match device {
        Some(device) => heap::on_own_stack(|| {
            device.fork_parent();
            drop((device, start));
        }),
        None => drop(start),
    }
    drop(signals);
    is_whole
}

/// After a fork, in the child: every lock is free, and there is no machine. False where the child lacks memory.
pub fn fork_child() -> bool {
    let Some((forking, held)) = FORKING.lock().take() else { return true };
    drop(held);
    let Forking { device, is_whole, start, tree, files, excluded, mut running, signals } = forking;
    ACTIVE.store(false, Ordering::Release);
    EPOCH.fetch_add(1, Ordering::AcqRel);
    heap::forget_threads();
    outside::forget();
    ENDED.store(false, Ordering::Release);
    view::forked();
    mem::forget(running.take());
    mem::forget(device);
    drop((running, excluded, files, tree));
    nodes::forked(libc_calls::close_quietly);
    drop(start);
    drop(signals);
    is_whole
}
