//! Threads (live) or tasks (checked), and scheduling points.
//!
//! Live threads are started by a process-wide spawner that can be replaced: a preload library must give its
//! threads stacks of its own and block signals in them. The spawner only has to run a body; waiting for its end
//! is done here, on a word.
//!
//! Upstream: kthread_run, kthread_stop, cond_resched.

use crate::futex;
use alloc::boxed::Box;
use alloc::sync::Arc;
use core::sync::atomic::{AtomicU32, Ordering};

/// What a thread runs.
pub type Body = Box<dyn FnOnce() + Send + 'static>;

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
}

impl JoinHandle {
    /// Waits for its end: its body has returned, or unwound. (Its stack may be in use a moment longer.)
    pub fn join(self) {
        while !self.is_finished() {
            futex::wait(&self.ended.0, RUNNING);
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
/// Where the system gives no thread; [`try_spawn`] says so instead.
pub fn spawn(name: &'static str, body: impl FnOnce() + Send + 'static) -> JoinHandle {
    try_spawn(name, body).expect("the system gave no thread")
}

/// Starts a thread (live) or a task (checked), or says that the system gave none.
pub fn try_spawn(name: &'static str, body: impl FnOnce() + Send + 'static) -> Result<JoinHandle, SpawnError> {
    let ended = Arc::new(Ended(AtomicU32::new(RUNNING)));
    let end = End(ended.clone());
    let spawner = *SPAWNER.lock();
    spawner(
        name,
        Box::new(move || {
            let _end = end;
            body();
        }),
    )?;
    Ok(JoinHandle { ended })
}

/// A scheduling point: nothing, live.
pub fn point() {}

/// Lets others run.
pub fn yield_now() {
    rustix::thread::sched_yield();
}

/// A choice below `n`, made by the schedule; 0 live.
pub fn choose(n: u32) -> u32 {
    let _ = n;
    0
}

const RUNNING: u32 = 0;
const ENDED: u32 = 1;

struct Ended(AtomicU32);

/// Tells the end of a body, however it ends.
struct End(Arc<Ended>);

impl Drop for End {
    fn drop(&mut self) {
        self.0.0.store(ENDED, Ordering::Release);
        futex::wake_all(&self.0.0);
    }
}
