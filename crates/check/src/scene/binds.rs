//! A VM without faults, and binds on its default queue that wait for a job. A bind without work for page tables stands behind
//! them: when what it signals is over, a job of the other tile finds what was bound (defect C).

use super::process::{Process, act, outcome, queue, refused};
use crate::finding::Finding;
use machine::program::{Batch, Order, Program};
use std::sync::Arc;
use units::{HostFrame, HostRange, HostVa, SZ_4K, SZ_64K, TileId};

/// Where the batches are bound, from the start.
const CODE: HostRange = HostRange::new(HostVa(0x10_0000), HostVa(0x11_0000));
/// What the jobs store to.
const DATA: HostVa = HostVa(0x4000_0000);
/// Where nothing is.
const NOTHING: HostRange = HostRange::new(HostVa(0x8000_0000), HostVa(0x8001_0000));
/// Times that it is played: a new span each.
const ROUNDS: u64 = 2;

/// Plays it, and judges what it leaves.
pub(super) fn play(process: &Arc<Process>) -> Result<(), Finding> {
    let stage = Arc::new(Stage::set(process.clone())?);
    let binder = |stage: &Stage| (0..ROUNDS).try_for_each(|round| stage.round(&stage.process.thread(), round));
    let outcome = outcome([act(&stage, "binder", binder)]);
    stage.close()?;
    process.judge().and(outcome)
}

struct Stage {
    process: Arc<Process>,
    vm: u32,
    queues: [u32; 2],
    /// Where the bytes of the batches are, a page each.
    frame: HostFrame,
    data: u32,
}

impl Stage {
    fn set(process: Arc<Process>) -> Result<Self, Finding> {
        let main = &process.main;
        let vm = main.vm_create_plain().map_err(|e| refused("VM_CREATE", e))?;
        let queues = [queue(main, vm, TileId(0))?, queue(main, vm, TileId(1))?];
        let create = |size| main.bo_create(size, 1).map_err(|e| refused("GEM_CREATE", e));
        let (code, data) = (create(CODE.len())?, create(SZ_64K)?);
        main.bind_bo(vm, code, CODE, Order::default()).map_err(|e| refused("VM_BIND", e))?;
        let frame = main.bo_frame(code).map_err(|e| refused("GEM_MMAP_OFFSET", e))?;
        Ok(Self { process, vm, queues, frame, data })
    }

    /// Puts a batch into a page of the code.
    fn write(&self, page: u64, batch: &[u8]) -> Result<(), Finding> {
        let written = self.process.checked.write_buffer(self.frame.add(page), batch);
        written.map_err(|error| Finding::Signal { what: format!("writing a batch: {error:?}") })
    }

    fn round(&self, program: &Program, round: u64) -> Result<(), Finding> {
        let at = HostRange::sized(DATA.add(round * SZ_64K), SZ_64K);
        let syncobj = || program.syncobj_create().map_err(|e| refused("SYNCOBJ_CREATE", e));
        let (job, bound, stored) = (syncobj()?, syncobj()?, syncobj()?);
        let batch = |page: u64| CODE.start.add(page * SZ_4K).mirror();
        self.write(0, &Batch::default().end())?;
        self.write(1, &Batch::default().store(at.start.mirror(), round as u32 + 1).end())?;

        let signals = |syncobj| Order { behind: None, signals: Some(syncobj) };
        program.exec_behind(self.queues[0], batch(0), signals(job)).map_err(|e| refused("EXEC", e))?;
        let behind = Order { behind: Some(job), signals: None };
        program.bind_bo(self.vm, self.data, at, behind).map_err(|e| refused("VM_BIND behind a job", e))?;
        program.unbind(self.vm, NOTHING, signals(bound)).map_err(|e| refused("VM_BIND without work", e))?;
        program.syncobj_wait(bound).map_err(|e| refused("the wait for the bind", e))?;
        let run = program.exec_behind(self.queues[1], batch(1), signals(stored));
        run.map_err(|e| refused("EXEC on tile 1, behind the bind", e))?;
        program.syncobj_wait(stored).map_err(|e| refused("the wait for the job", e))?;
        self.judge(program, round as u32 + 1)
    }

    /// The job stored its word: else it ran before the bind that it stands behind.
    fn judge(&self, program: &Program, expected: u32) -> Result<(), Finding> {
        let frame = program.bo_frame(self.data).map_err(|e| refused("GEM_MMAP_OFFSET", e))?;
        let mut word = [0; 4];
        let read = self.process.checked.read_buffer(frame, &mut word);
        read.map_err(|error| Finding::Signal { what: format!("reading a word: {error:?}") })?;
        if u32::from_le_bytes(word) == expected { Ok(()) } else { Err(Finding::TooEarly { tile: 1 }) }
    }

    fn close(&self) -> Result<(), Finding> {
        let main = &self.process.main;
        for queue in self.queues {
            main.queue_destroy(queue).map_err(|e| refused("EXEC_QUEUE_DESTROY", e))?;
        }
        main.vm_destroy(self.vm).map_err(|e| refused("VM_DESTROY", e))
    }
}
