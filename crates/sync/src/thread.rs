//! Threads (live) or tasks (checked), and scheduling points.
//!
//! Live threads are started by a process-wide spawner that can be replaced: a preload library must give its
//! threads stacks of its own and block signals in them. The spawner only has to run a body; waiting for its end
//! is done here, on a word.
//!
//! Upstream: kthread_run, kthread_stop, cond_resched.

use crate::futex;
use crate::hook::{self, TaskKind, TaskRef};
use alloc::boxed::Box;
use alloc::sync::Arc;
use core::sync::atomic::{AtomicU32, Ordering};

pub use crate::hook::Body;

/// Starts a live thread of that name, which runs the body once; nobody waits for it but through the body.
pub type Spawner = fn(name: &'static str, body: Body) -> Result<(), SpawnError>;

/// The system gave no thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SpawnError;

impl core::fmt::Display for SpawnError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("the system gave no thread")
    }
}

impl core::error::Error for SpawnError {}

static SPAWNER: crate::Mutex<Spawner> = crate::Mutex::new(spawn_by_std);

/// Replaces the process-wide spawner of live threads; the default is `std::thread`.
pub fn set_spawner(spawner: Spawner) {
    *SPAWNER.lock() = spawner;
}

fn spawn_by_std(name: &'static str, body: Body) -> Result<(), SpawnError> {
    std::thread::Builder::new().name(name.into()).spawn(body).map(drop).map_err(|_| SpawnError)
}

/// A thread that can be waited for. Dropping it lets the thread go on.
pub struct JoinHandle {
    ended: Arc<Ended>,
    /// Set where it is a task.
    task: Option<TaskRef>,
}

impl JoinHandle {
    /// Waits for its end: its body has returned, or unwound. (Its stack may be in use a moment longer.)
    pub fn join(self) {
        let joins = |task| hook::with(|hook| hook.join(task, &|| self.is_finished())).unwrap_or(false);
        if !self.task.is_some_and(joins) {
            self.ended.wait();
        }
    }

    /// Whether its body has returned or unwound.
    pub fn is_finished(&self) -> bool {
        self.ended.0.load(Ordering::Acquire) == ENDED
    }
}

/// Starts a thread (live) or a task (checked).
///
/// # Panics
/// Where the system gives no thread ([`try_spawn`] says so instead), or too many tasks live
/// ([`crate::sim::MAX_TASKS`]).
pub fn spawn(name: &'static str, body: impl FnOnce() + Send + 'static) -> JoinHandle {
    try_spawn(name, body).expect("the system gave no thread")
}

/// Starts a thread (live) or a task (checked), or says that the system gave none.
///
/// # Errors
/// [`SpawnError`], live only.
pub fn try_spawn(name: &'static str, body: impl FnOnce() + Send + 'static) -> Result<JoinHandle, SpawnError> {
    start(name, TaskKind::Worker, body)
}

/// Starts a thread (live) or a task (checked) that serves the others for ever: a checked run is over when all but
/// such tasks have ended.
///
/// # Panics
/// As [`spawn`].
pub fn spawn_daemon(name: &'static str, body: impl FnOnce() + Send + 'static) -> JoinHandle {
    try_spawn_daemon(name, body).expect("the system gave no thread")
}

/// The same, but it says where the system gave no thread.
///
/// # Errors
/// [`SpawnError`], live only.
pub fn try_spawn_daemon(name: &'static str, body: impl FnOnce() + Send + 'static) -> Result<JoinHandle, SpawnError> {
    start(name, TaskKind::Daemon, body)
}

fn start(name: &'static str, kind: TaskKind, body: impl FnOnce() + Send + 'static) -> Result<JoinHandle, SpawnError> {
    let ended = Arc::new(Ended(AtomicU32::new(RUNNING)));
    let end = End(ended.clone());
    let body: Body = Box::new(move || {
        let _end = end;
        body();
    });
    if hook::with(|_| ()).is_some() {
        let task = hook::with(|hook| hook.spawn(name, kind, body)).flatten();
        return Ok(JoinHandle { ended, task });
    }
    let spawner = *SPAWNER.lock();
    spawner(name, body)?;
    Ok(JoinHandle { ended, task: None })
}

const RUNNING: u32 = 0;
const WAITED_FOR: u32 = 1;
const ENDED: u32 = 2;

/// Whether a body has ended.
struct Ended(AtomicU32);

impl Ended {
    fn wait(&self) {
        let _ = self.0.compare_exchange(RUNNING, WAITED_FOR, Ordering::Relaxed, Ordering::Relaxed);
        while self.0.load(Ordering::Acquire) != ENDED {
            futex::wait(&self.0, WAITED_FOR);
        }
    }
}

/// Tells the end of a body, however it ends.
struct End(Arc<Ended>);

impl Drop for End {
    fn drop(&mut self) {
        if self.0.0.swap(ENDED, Ordering::Release) == WAITED_FOR {
            futex::wake_all(&self.0.0);
        }
    }
}
