//! A system that gives no more threads; alone in its process, because the spawner is the process's.
// It stands for a system that refuses: a limit of processes, a filter of system calls.
#![allow(clippy::disallowed_methods)]

use machine::behaviour::Behaviours;
use machine::checked::{Checked, Config, Manner};
use machine::program::{Batch, Class};
use machine::{Errno, Injection};
use std::sync::atomic::{AtomicBool, Ordering};
use sync::{Body, SpawnError};
use units::TileId;

static REFUSES: AtomicBool = AtomicBool::new(true);

fn spawner(_: &'static str, body: Body) -> Result<(), SpawnError> {
    if REFUSES.load(Ordering::Relaxed) {
        return Err(SpawnError);
    }
    std::thread::spawn(body);
    Ok(())
}

#[test]
fn a_queue_without_a_thread_is_refused_and_may_be_asked_for_again() {
    sync::set_spawner(spawner);
    let checked =
        Checked::new(Config::default(), Manner::Linux, Behaviours::CORRECT, Injection::default()).expect("a machine");
    let program = checked.open();
    let vm = program.vm_create().expect("a VM");
    program.bind_mirror(vm, None).expect("a bind");
    for _ in 0..2 {
        assert_eq!(program.queue_create(vm, Class::Compute, TileId(1)), Err(Errno::ENOMEM));
    }
    REFUSES.store(false, Ordering::Relaxed);
    let queue = program.queue_create(vm, Class::Compute, TileId(1)).expect("there are threads again");
    REFUSES.store(true, Ordering::Relaxed);
    let other = program.queue_create(vm, Class::Compute, TileId(1)).expect("one thread serves all queues of an engine");
    program.queue_destroy(other).expect("the queue");

    let memory = checked.sim.mmap(2, machine::checked::MapKind::Anonymous);
    checked.sim.store(memory.start, &Batch::default().end()).expect("mapped");
    let fence = memory.page_at(1);
    program.exec(queue, memory.start.mirror(), fence.mirror(), 7).expect("a job needs no thread");
    program.wait(fence, 7, -1, queue).expect("it ends");
    program.file().close();
    checked.core.engines().stop();
    checked.end();
}
