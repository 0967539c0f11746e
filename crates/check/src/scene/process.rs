//! What the scenes have in common: a process that has opened the device, its threads, and what is always judged.
//!
//! Everything goes through the uAPI: batches and fences lie in memory of the process, which migrates too.

use crate::finding::Finding;
use machine::Errno;
use machine::checked::{Checked, CpuError, MapKind};
use machine::program::{Class, Program};
use std::sync::Arc;
use units::{HostRange, TileId};

/// For ever: time may race with work that is merely slow, and a job that hangs is a deadlock of the run.
const PATIENCE_NS: i64 = -1;
/// What a batch's fence is set to.
const DONE: u64 = 0x600d_f00d;

/// A process with a VM that mirrors it, and a queue a tile.
pub(super) struct Process {
    pub checked: Checked,
    pub main: Program,
    vm: u32,
    queues: [u32; 2],
}

impl Process {
    pub fn start(checked: Checked) -> Result<Arc<Self>, Finding> {
        let main = checked.open();
        let vm = mirror(&main)?;
        let queues = [queue(&main, vm, TileId(0))?, queue(&main, vm, TileId(1))?];
        Ok(Arc::new(Self { checked, main, vm, queues }))
    }

    pub const fn vm(&self) -> u32 {
        self.vm
    }

    /// Memory of the program, touched once.
    pub fn filled(&self, pages: usize) -> Result<HostRange, Finding> {
        let range = self.checked.sim.mmap(pages, MapKind::Anonymous);
        for page in 0..pages {
            self.checked.sim.store_u64(range.page_at(page), 0).map_err(|e| signal("first touch", e))?;
        }
        Ok(range)
    }

    /// Another thread of the program.
    pub fn thread(&self) -> Program {
        self.checked.thread_of(self.main.file().clone())
    }

    /// Puts a batch into fresh memory of the program, runs it on a tile and waits for its fence.
    pub fn run_batch(&self, program: &Program, tile: TileId, bytes: &[u8]) -> Result<(), Finding> {
        self.run_on(program, self.queue(tile), bytes)
    }

    /// The same on a queue.
    pub fn run_on(&self, program: &Program, queue: u32, bytes: &[u8]) -> Result<(), Finding> {
        let memory = self.prepare(bytes)?;
        self.run(program, queue, memory)?;
        self.checked.sim.munmap(memory);
        Ok(())
    }

    /// The queue of a tile.
    pub const fn queue(&self, tile: TileId) -> u32 {
        self.queues[tile.index()]
    }

    /// The memory of a job: its batch and then its fence.
    pub fn prepare(&self, bytes: &[u8]) -> Result<HostRange, Finding> {
        let memory = self.checked.sim.mmap(2, MapKind::Anonymous);
        self.checked.sim.store(memory.start, bytes).map_err(|e| signal("writing a batch", e))?;
        Ok(memory)
    }

    /// Runs a job and waits for its fence.
    pub fn run(&self, program: &Program, queue: u32, memory: HostRange) -> Result<(), Finding> {
        self.submit(program, queue, memory)?;
        program.wait(memory.page_at(1), DONE, PATIENCE_NS, queue).map_err(|e| refused("WAIT_USER_FENCE", e))
    }

    /// The same without the wait.
    pub fn submit(&self, program: &Program, queue: u32, memory: HostRange) -> Result<(), Finding> {
        let fence = memory.page_at(1);
        self.checked.sim.store_u64(fence, 0).map_err(|e| signal("a fence", e))?;
        program.exec(queue, memory.start.mirror(), fence.mirror(), DONE).map_err(|e| refused("EXEC", e))
    }

    /// What the device and the mm noted; the scene has judged its data before.
    pub fn judge(&self) -> Result<(), Finding> {
        let counters = self.checked.core.gpu().counters();
        if counters.stray_writes + counters.stray_reads > 0 {
            return Err(Finding::Stray { writes: counters.stray_writes, reads: counters.stray_reads });
        }
        if counters.stale_vram > 0 {
            return Err(Finding::Stale { accesses: counters.stale_vram });
        }
        self.checked.settle();
        self.checked.sim.check().map_err(Finding::Books)
    }

    /// Ends everything, so that the run ends with nothing held.
    pub fn close(&self) {
        for queue in self.queues {
            let _ = self.main.queue_destroy(queue);
        }
        let _ = self.main.vm_destroy(self.vm);
        self.main.file().close();
        self.checked.core.engines().stop();
        self.checked.end();
    }
}

/// A VM that mirrors the process.
pub(super) fn mirror(program: &Program) -> Result<u32, Finding> {
    let vm = program.vm_create().map_err(|e| refused("VM_CREATE", e))?;
    program.bind_mirror(vm, 57, None).map_err(|e| refused("VM_BIND", e))?;
    Ok(vm)
}

/// A queue of that VM.
pub(super) fn queue(program: &Program, vm: u32, tile: TileId) -> Result<u32, Finding> {
    program.queue_create(vm, Class::Compute, tile).map_err(|e| refused("EXEC_QUEUE_CREATE", e))
}

/// A thread of a scene and the place of its outcome.
pub(super) struct Actor {
    handle: sync::JoinHandle,
    outcome: Arc<sync::Mutex<Result<(), Finding>>>,
}

/// Starts a thread on what the scene has set.
pub(super) fn act<S, F>(stage: &Arc<S>, name: &'static str, body: F) -> Actor
where
    S: Send + Sync + 'static,
    F: FnOnce(&S) -> Result<(), Finding> + Send + 'static,
{
    let outcome = Arc::new(sync::Mutex::new(Ok(())));
    let handle = sync::spawn(name, {
        let (stage, outcome) = (stage.clone(), outcome.clone());
        move || {
            let result = body(&stage);
            *outcome.lock() = result;
        }
    });
    Actor { handle, outcome }
}

/// Waits for all; the first finding of them.
pub(super) fn outcome(actors: impl IntoIterator<Item = Actor>) -> Result<(), Finding> {
    let mut first = Ok(());
    for actor in actors {
        actor.handle.join();
        first = first.and(actor.outcome.lock().clone());
    }
    first
}

pub(super) fn refused(what: &str, error: Errno) -> Finding {
    Finding::Refused { what: format!("{what}: {error}") }
}

pub(super) fn signal(what: &str, error: CpuError) -> Finding {
    Finding::Signal { what: format!("{what}: {error:?}") }
}
